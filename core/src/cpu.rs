//! Layers on the CPU: portable kernels that define what every faster one must equal bit for bit.
//!
//! They serve boards without a DPU, and layers that a DPU leaves to the CPU beside it. A board with faster ones for the
//! layers that take the time passes its [`Kernels`] to [`run_with`](crate::run::run_with).

mod check;
mod conv;
mod elementwise;
mod float;
#[cfg(feature = "floats")]
mod floats;
#[cfg(feature = "floats")]
mod function;
mod moves;
mod pool;
mod rows;
mod scratch;

use crate::arith::requantize_i8;
use crate::model::{Act, AddOp, ConvOp, CpuOp, Deployable, PoolOp, TensorDesc, TensorId, layers};
use crate::run::{Memory, Rest};

pub(crate) use check::check;
pub use conv::{conv, depthwise, transposed};
pub use elementwise::{add, requantize_all};
pub use float::{softmax, softmax_i8};
pub use moves::{pad, upsample};
pub use pool::pool;
pub use rows::Rows;
pub use scratch::scratch_bytes;

/// Largest number of operands of an element-wise sum.
pub const MAX_OPERANDS: usize = 8;

/// How a board computes its CPU layers. Every method that a board does not replace is the kernel that defines it.
///
/// Tensors arrive as the bytes of their int8 elements, with the lengths that the op's dimensions tell: ops are checked
/// when a deployable is parsed. Every implementation gives the same bytes as [`Spec`].
pub trait Kernels {
    /// Convolution or dense layer, see [`conv`].
    fn conv(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        conv(op, constants, input, output);
    }
    /// Depthwise convolution, see [`depthwise`].
    fn depthwise(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        depthwise(op, constants, input, output);
    }
    /// Transposed convolution, see [`transposed`].
    fn transposed(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        transposed(op, constants, input, output);
    }
    /// Pooling, see [`pool`].
    fn pool(&mut self, op: &PoolOp, input: &[u8], output: &mut [u8]) {
        pool(op, input, output);
    }
    /// Element-wise sum of at most [`MAX_OPERANDS`], see [`add`].
    fn add(&mut self, op: &AddOp<'_>, operands: &[Operand<'_>], output: &mut [u8]) {
        add(op, operands, output);
    }
    /// Integers to another position, see [`requantize_all`].
    fn requantize(&mut self, act: Act, shift: i8, input: Operand<'_>, output: &mut [u8]) {
        requantize_all(act, shift, input, output);
    }
}

/// The kernels that define what every layer computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spec;

impl Kernels for Spec {}

/// Elements that a layer reads: bytes of their own, or `None` where they lie in the output's place and are overwritten.
pub type Operand<'a> = Option<&'a [u8]>;

/// A tensor beside, or in the place of, the output.
fn operand<'a>(input: &TensorDesc<'_>, output: &TensorDesc<'_>, rest: &Rest<'a>) -> Option<Operand<'a>> {
    if input.place == output.place { Some(None) } else { rest.tensor(input).map(Some) }
}

/// Runs one layer; `None` if its input and output overlap where they must not, which a checked op's do not.
pub(crate) fn execute(
    model: &Deployable<'_>,
    op: &CpuOp<'_>,
    kernels: &mut impl Kernels,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let constants = memory.constants;
    let mut pair = |input: TensorId, output: TensorId, kernel: &mut dyn FnMut(&[u8], &mut [u8])| {
        let (input, output) = memory.pair(&model.tensor(input)?, &model.tensor(output)?)?;
        kernel(input, output);
        Some(())
    };
    match op {
        CpuOp::Conv(c) => {
            rows::run(model, [c.input, c.output], (op, c), memory, &mut |c, x, y| kernels.conv(c, constants, x, y))
        }
        CpuOp::Depthwise(c) if layers::DEPTHWISE => {
            rows::run(model, [c.input, c.output], (op, c), memory, &mut |c, x, y| kernels.depthwise(c, constants, x, y))
        }
        CpuOp::ConvTranspose(c) if layers::EXTRA => {
            pair(c.input, c.output, &mut |x, y| kernels.transposed(c, constants, x, y))
        }
        CpuOp::Pool(p) => rows::run(model, [p.input, p.output], (op, p), memory, &mut |p, x, y| kernels.pool(p, x, y)),
        CpuOp::UpSample(u) if layers::EXTRA => pair(u.input, u.output, &mut |x, y| upsample(u, x, y)),
        CpuOp::Pad(p) if layers::EXTRA => pair(p.input, p.output, &mut |x, y| pad(p, x, y)),
        CpuOp::Add(a) => {
            let to = model.tensor(a.output)?;
            let (y, rest) = memory.split(&to)?;
            let mut operands = heapless::Vec::<_, MAX_OPERANDS>::new();
            for id in a.inputs.iter() {
                operands.push(operand(&model.tensor(id)?, &to, &rest)?).ok()?;
            }
            kernels.add(a, &operands, y);
            Some(())
        }
        CpuOp::Multiply(m) if layers::EXTRA => elementwise::multiply(model, m, memory),
        CpuOp::Requantize { input, output, shift, act } => {
            let to = model.tensor(*output)?;
            let (y, rest) = memory.split(&to)?;
            kernels.requantize(*act, *shift, operand(&model.tensor(*input)?, &to, &rest)?, y);
            Some(())
        }
        CpuOp::HardSigmoid { input, output, shift } if layers::EXTRA => {
            elementwise::hard_sigmoid(model, *input, *output, *shift, memory)
        }
        CpuOp::PRelu(p) if layers::EXTRA => elementwise::prelu(model, p, memory),
        CpuOp::Concat(c) if layers::EXTRA => moves::concat(model, c, memory),
        CpuOp::Permute(p) if layers::EXTRA => moves::permute(model, p, memory),
        CpuOp::Softmax(s) => float::softmax_layer(model, s, memory),
        #[cfg(feature = "floats")]
        CpuOp::Float { op, .. } => floats::execute(model, op, memory),
        CpuOp::View { .. } => Some(()),
        CpuOp::Quantize { input, output } => float::quantize_layer(model, *input, *output, memory),
        CpuOp::Dequantize { input, output } => float::dequantize_layer(model, *input, *output, memory),
        // Layers that are left out, which no checked deployable holds.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

fn get_i32(bytes: &[u8], offset: usize) -> i32 {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// The output of an accumulator: activation, right shift, rounded half up, saturated.
#[inline(always)]
pub fn finish(acc: i32, act: Act, shift: i8) -> i8 {
    let shift = i32::from(shift);
    match act {
        Act::None => requantize_i8(acc, shift),
        Act::Relu => requantize_i8(acc.max(0), shift),
        Act::ReluMax(n) => requantize_i8(acc.clamp(0, n.max(0)), shift),
        Act::LeakyRelu if acc < 0 => match acc.checked_mul(26) {
            Some(scaled) => requantize_i8(scaled, shift + 8),
            // As 26 · (256 a + b), of which the last eight bits don't decide the rounding of a shift beyond them.
            None if shift > 0 => requantize_i8((acc >> 8) * 26 + (((acc & 255) * 26) >> 8), shift),
            None => i8::MIN,
        },
        Act::LeakyRelu => requantize_i8(acc, shift),
    }
}

/// Calls `each` for every index of the shape `dims`, in memory order, with the offsets that it has under `strides`.
fn walk<const N: usize>(dims: [u32; 4], strides: [[u32; 4]; N], mut each: impl FnMut([usize; N])) {
    let [a, b, c, d] = dims;
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                let row = strides.map(|[s, t, u, _]| (i * s + j * t + k * u) as usize);
                for l in 0..d {
                    let mut at = row;
                    at.iter_mut().zip(strides).for_each(|(at, [.., s])| *at += (l * s) as usize);
                    each(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::{Round, requantize};

    #[test]
    fn a_leak_is_rounded_once() {
        // Around the largest number whose product with 26 fits, and at the ends.
        let edges = (-82_595_700..-82_595_400).chain(i32::MIN..i32::MIN + 600).chain(-600..0);
        for acc in edges.chain((1..2000).map(|n| i32::MIN + n * 1_073_333)).filter(|acc| *acc < 0) {
            for shift in -31..=31i8 {
                let want = requantize(i64::from(acc) * 26, i32::from(shift) + 8, Round::HalfUp, 8, true);
                assert_eq!(i64::from(finish(acc, Act::LeakyRelu, shift)), want, "{acc} {shift}");
            }
        }
    }
}
