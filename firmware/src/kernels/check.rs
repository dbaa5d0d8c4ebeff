//! Random layers through the fast kernels and through those that define them.

use shiftwise_core::cpu::{Kernels, Operand, Spec};
use shiftwise_core::model::{Act, AddOp, ConvOp, PoolKind, PoolOp, TensorId, TensorList};
use shiftwise_core::shape::Window;

use super::Fast;

/// The kernels disagree, or `memory` is too small for the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(all(feature = "image", target_os = "none"), derive(defmt::Format))]
pub enum Difference {
    /// The layer of this seed needs more memory.
    Memory,
    /// Byte `at` of the output of a layer of kind `layer`.
    Byte {
        /// Kind of layer.
        layer: &'static str,
        /// Byte of the output.
        at: usize,
        /// What the defining kernel says.
        wanted: u8,
        /// What the fast one says.
        given: u8,
    },
}

/// Memory that is enough for every seed.
pub const MEMORY: usize = 96 << 10;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let x = (self.0 >> 32) as u32 ^ (self.0 >> 18) as u32;
        x.rotate_right((self.0 >> 59) as u32)
    }

    /// One of `low..=high`.
    fn range(&mut self, low: u16, high: u16) -> u16 {
        low + (self.next() % u32::from(high - low + 1)) as u16
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.next().is_multiple_of(n)
    }

    /// Bytes of a tensor: small, any, of the largest magnitude, or all −128 but for some that are −127.
    fn fill(&mut self, bytes: &mut [u8]) {
        let (kind, rare) = (self.range(0, 5), self.one_in(2));
        for (i, byte) in bytes.iter_mut().enumerate() {
            let x = self.next();
            *byte = match kind {
                0 => ((x & 15) as i8 - 8) as u8,
                1 => {
                    if x & 3 == 0 {
                        127
                    } else {
                        0x80
                    }
                }
                2 => 0x80 | u8::from(if rare { x & 63 == 0 } else { i & 8 == 0 }),
                _ => x as u8,
            };
        }
    }

    fn act(&mut self) -> Act {
        match self.range(0, 4) {
            0 => Act::None,
            1 => Act::LeakyRelu,
            2 => Act::ReluMax((self.next() as i32) >> self.range(0, 31)),
            _ => Act::Relu,
        }
    }

    fn shift(&mut self) -> i8 {
        if self.one_in(4) { self.range(0, 62) as i8 - 31 } else { self.range(1, 14) as i8 }
    }

    /// A window with its input's and output's rows and columns.
    fn window(&mut self, dilated: bool) -> (Window, [u16; 2], [u16; 2]) {
        let mut two = |low, high| [self.range(low, high), self.range(low, high)];
        let (kernel, stride) = (two(1, 4), two(1, 3));
        let dilation = if dilated { two(1, 3).map(|d| if d == 3 { 2 } else { 1 }) } else { [1, 1] };
        let mut window = Window { kernel, stride, dilation, pad_before: two(0, 3), pad_after: two(0, 3) };
        let mut input = two(1, 9);
        if self.one_in(4) {
            window = Window { stride: window.stride, ..Window::POINT };
        }
        let extent = [0, 1].map(|axis| window.extent(axis) as u16);
        for axis in 0..2 {
            input[axis] = input[axis].max(extent[axis]);
            if !dilated {
                // A pooling window must meet the input.
                window.pad_before[axis] = window.pad_before[axis].min(extent[axis] - 1);
                window.pad_after[axis] = window.pad_after[axis].min(extent[axis] - 1);
            }
        }
        let output = [0, 1].map(|axis| window.outputs(axis, input[axis].into()) as u16);
        (window, input, output)
    }
}

/// Cuts `len` bytes off.
fn take<'m>(memory: &mut &'m mut [u8], len: usize) -> Result<&'m mut [u8], Difference> {
    memory.split_off_mut(..len).ok_or(Difference::Memory)
}

/// Runs the layer that `seed` stands for both ways, in `memory` ([`MEMORY`] bytes are enough), and compares.
///
/// Convolutions come with every stride, dilation, padding, number of groups and activation, shifts up to the ends of
/// their ranges, scratch memory of any size and alignment; operands of sums also in the output's place.
pub fn check(seed: u64, memory: &mut [u8]) -> Result<(), Difference> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let memory = &mut &mut *memory;
    match random.range(0, 9) {
        0..=4 => convolution(&mut random, memory, false),
        5..=6 => convolution(&mut random, memory, true),
        7 => pooling(&mut random, memory),
        _ => element_wise(&mut random, memory),
    }
}

fn compare(layer: &'static str, wanted: &[u8], given: &[u8]) -> Result<(), Difference> {
    match wanted.iter().zip(given).enumerate().find(|(_, (a, b))| a != b) {
        Some((at, (wanted, given))) => Err(Difference::Byte { layer, at, wanted: *wanted, given: *given }),
        None => Ok(()),
    }
}

fn convolution(random: &mut Random, memory: &mut &mut [u8], depthwise: bool) -> Result<(), Difference> {
    let (mut window, [mut h, mut w], [mut oh, mut ow]) = random.window(true);
    let (mut ic, mut oc, mut groups) = (random.range(1, 20), random.range(1, 20), 1);
    if depthwise {
        oc = ic * if random.one_in(4) { random.range(1, 3) } else { 1 };
    } else if random.one_in(6) {
        // A dense layer.
        (window, h, w, oh, ow, ic) = (Window::POINT, 1, 1, 1, 1, random.range(1, 600));
    } else if random.one_in(3) {
        groups = random.range(1, 4);
        (ic, oc) = (groups * random.range(1, 8), groups * random.range(1, 8));
    }
    let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
    let weights = taps * usize::from(oc) * if depthwise { 1 } else { usize::from(ic / groups) };
    // The kernel may end with the constants, or not.
    let slack = usize::from(random.range(0, 4));
    let (before, has_bias) = (4 * usize::from(oc), !random.one_in(5));
    let op = ConvOp {
        input: TensorId(0),
        output: TensorId(1),
        in_dims: [h, w, ic],
        out_dims: [oh, ow, oc],
        window,
        groups,
        kernel: before as u32,
        bias: has_bias.then_some(0),
        fine: if random.one_in(5) { random.range(0, 24) as u8 } else { 0 },
        shift_cut: random.shift(),
        act: random.act(),
    };
    let constants = take(memory, before + weights + slack)?;
    random.fill(constants);
    let small = random.range(0, 24);
    for bias in constants.chunks_exact_mut(4).take(oc.into()) {
        bias.copy_from_slice(&((random.next() as i32) >> small).to_le_bytes());
    }
    let input = take(memory, usize::from(h) * usize::from(w) * usize::from(ic))?;
    random.fill(input);
    let len = usize::from(oh) * usize::from(ow) * usize::from(oc);
    let (wanted, given) = (take(memory, len)?, take(memory, len)?);
    let room = memory.len();
    let scratch = match random.range(0, 5) {
        0 => take(memory, usize::from(random.range(0, 400)))?,
        1 => take(memory, room.min(10_001))?,
        _ => take(memory, room)?,
    };
    given.fill(0x55);
    let mut fast = Fast::new(scratch);
    if depthwise {
        Spec.depthwise(&op, constants, input, wanted);
        fast.depthwise(&op, constants, input, given);
        compare("depthwise", wanted, given)
    } else {
        Spec.conv(&op, constants, input, wanted);
        fast.conv(&op, constants, input, given);
        compare("conv", wanted, given)
    }
}

fn pooling(random: &mut Random, memory: &mut &mut [u8]) -> Result<(), Difference> {
    let (window, [h, w], out_dims) = random.window(false);
    let c = random.range(1, 40);
    let kind = if random.one_in(2) { PoolKind::Max } else { PoolKind::Average(random.range(1, 9999)) };
    let op = PoolOp {
        input: TensorId(0),
        output: TensorId(1),
        in_dims: [h, w, c],
        out_dims,
        window,
        kind,
        shift: if random.one_in(3) { 0 } else { random.shift() },
        act: random.act(),
    };
    let input = take(memory, usize::from(h) * usize::from(w) * usize::from(c))?;
    random.fill(input);
    let len = usize::from(out_dims[0]) * usize::from(out_dims[1]) * usize::from(c);
    let (wanted, given) = (take(memory, len)?, take(memory, len)?);
    Spec.pool(&op, input, wanted);
    Fast::new(&mut []).pool(&op, input, given);
    compare("pool", wanted, given)
}

fn element_wise(random: &mut Random, memory: &mut &mut [u8]) -> Result<(), Difference> {
    let len = usize::from(random.range(1, 200));
    let (act, shift) = (random.act(), if random.one_in(4) { 0 } else { random.shift() });
    let (wanted, given) = (take(memory, len)?, take(memory, len)?);
    random.fill(wanted);
    given.copy_from_slice(wanted);
    let mut operand = |random: &mut Random| -> Result<Operand<'_>, Difference> {
        if random.one_in(3) {
            return Ok(None);
        }
        let bytes = take(memory, len)?;
        random.fill(bytes);
        Ok(Some(bytes))
    };
    if random.one_in(4) {
        let input = operand(random)?;
        Spec.requantize(act, shift, input, wanted);
        Fast::new(&mut []).requantize(act, shift, input, given);
        return compare("requantize", wanted, given);
    }
    let mut operands = [None; 3];
    for slot in &mut operands {
        *slot = operand(random)?;
    }
    let high = if random.one_in(4) { 20 } else { 6 };
    let shifts = [(); 3].map(|()| random.range(0, high) as u8);
    let count = if random.one_in(4) { usize::from(random.range(1, 3)) } else { 2 };
    let (Some(operands), Some(shift_read)) = (operands.get(..count), shifts.get(..count)) else {
        return Err(Difference::Memory);
    };
    let op = AddOp { inputs: TensorList(&[]), shift_read, output: TensorId(0), act, shift_write: shift };
    Spec.add(&op, operands, wanted);
    Fast::new(&mut []).add(&op, operands, given);
    compare("add", wanted, given)
}
