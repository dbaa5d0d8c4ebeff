//! Layers on the CPU: portable kernels that define what every faster one must equal bit for bit.
//!
//! They serve boards without a DPU, and layers that a DPU leaves to the CPU beside it.

use crate::arith::Round;
use crate::arith::requantize_i8;
use crate::fix::{FixPos, FixSpec, dequantize, quantize};
use crate::model::{Act, AddOp, ConvOp, CpuOp, DType, Deployable, PoolKind, PoolOp, TensorId};
use crate::run::Memory;
use crate::shape::Window;

/// Largest number of operands of an element-wise sum.
pub const MAX_OPERANDS: usize = 8;

/// Checks an op's references and geometry against the deployable; `None` if anything is off.
pub(crate) fn check(model: &Deployable<'_>, op: &CpuOp<'_>) -> Option<()> {
    let tensor = |id: TensorId, dtype: DType, elements: u64| {
        let t = model.tensor(id)?;
        (t.dtype == dtype && t.shape.elements().map(u64::from) == Some(elements)).then_some(())
    };
    let any = |id: TensorId| Some((model.tensor(id)?.dtype, u64::from(model.tensor(id)?.shape.elements()?)));
    let volume = |d: [u16; 3]| d.iter().map(|v| u64::from(*v)).product::<u64>();
    let constants = |offset: u32, bytes: u64| {
        (u64::from(offset).checked_add(bytes)? <= model.constants().len() as u64).then_some(())
    };
    let fits = |w: &Window, input: [u16; 3], output: [u16; 2]| {
        (w.is_valid()
            && (0..2).all(|a| w.outputs(a, input[a].into()) == u32::from(output[a]))
            && output.iter().chain(&input).all(|d| *d > 0))
        .then_some(())
    };
    let shift_ok = |s: i8| (-31..=31).contains(&s).then_some(());
    match op {
        CpuOp::Conv(c) | CpuOp::Depthwise(c) => {
            let depthwise = matches!(op, CpuOp::Depthwise(_));
            tensor(c.input, DType::I8, volume(c.in_dims))?;
            tensor(c.output, DType::I8, volume(c.out_dims))?;
            fits(&c.window, c.in_dims, [c.out_dims[0], c.out_dims[1]])?;
            (c.out_dims[2] > 0).then_some(())?;
            let taps = u64::from(c.window.kernel[0]) * u64::from(c.window.kernel[1]);
            let per_output = if depthwise { taps } else { taps * u64::from(c.in_dims[2]) };
            // |Σ x·w| ≤ 2^14 per product must stay inside 31 bits.
            (per_output <= 1 << 16 && (!depthwise || c.in_dims[2] == c.out_dims[2])).then_some(())?;
            constants(c.kernel, per_output * u64::from(c.out_dims[2]))?;
            if let Some(bias) = c.bias {
                (bias % 4 == 0).then_some(())?;
                constants(bias, 4 * u64::from(c.out_dims[2]))?;
            }
            shift_ok(c.shift_cut)
        }
        CpuOp::Pool(p) => {
            tensor(p.input, DType::I8, volume(p.in_dims))?;
            tensor(p.output, DType::I8, volume([p.out_dims[0], p.out_dims[1], p.in_dims[2]]))?;
            fits(&p.window, p.in_dims, p.out_dims)?;
            // A window that lies wholly in the padding has no largest value.
            let meets_input = |a: usize| {
                let w = &p.window;
                let last = (u32::from(p.out_dims[a]) - 1) * u32::from(w.stride[a]);
                (u32::from(w.pad_before[a]) < w.extent(a)
                    && last < u32::from(p.in_dims[a]) + u32::from(w.pad_before[a])
                    && w.dilation[a] == 1)
                    .then_some(())
            };
            meets_input(0)?;
            meets_input(1)?;
            let taps = u64::from(p.window.kernel[0]) * u64::from(p.window.kernel[1]);
            let factor = if let PoolKind::Average(m) = p.kind { u64::from(m) } else { 1 };
            (taps * factor <= 1 << 23).then_some(())?;
            shift_ok(p.shift)
        }
        CpuOp::Add(a) => {
            let n = a.inputs.iter().len();
            (a.inputs.0.len() == 2 * n && n > 0 && n <= MAX_OPERANDS && a.shift_read.len() == n).then_some(())?;
            let (_, elements) = any(a.output)?;
            tensor(a.output, DType::I8, elements)?;
            a.inputs.iter().try_for_each(|id| tensor(id, DType::I8, elements))?;
            a.shift_read.iter().all(|s| *s <= 20).then_some(())?;
            shift_ok(a.shift_write)
        }
        CpuOp::Softmax(s) => {
            let (_, elements) = any(s.input)?;
            tensor(s.output, DType::F32, elements)?;
            // An empty tensor would let the axis be any number, and four times it leave 32 bits.
            (s.axis > 0 && elements > 0 && elements % u64::from(s.axis) == 0).then_some(())
        }
        CpuOp::View { input, output } => {
            let (from, to) = (model.tensor(*input)?, model.tensor(*output)?);
            (from.place == to.place && from.dtype == to.dtype && from.bytes() == to.bytes()).then_some(())
        }
        CpuOp::Requantize { input, output, shift, .. } => {
            tensor(*input, DType::I8, any(*output)?.1)?;
            tensor(*output, DType::I8, any(*input)?.1)?;
            shift_ok(*shift)
        }
        CpuOp::Quantize { input, output } => {
            tensor(*input, DType::F32, any(*output)?.1)?;
            tensor(*output, DType::I8, any(*input)?.1)
        }
        CpuOp::Dequantize { input, output } => {
            tensor(*input, DType::I8, any(*output)?.1)?;
            tensor(*output, DType::F32, any(*input)?.1)
        }
    }
}

/// Runs one layer; `None` if its input and output overlap where they must not.
pub(crate) fn execute(model: &Deployable<'_>, op: &CpuOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let constants = memory.constants;
    match op {
        CpuOp::Conv(c) => {
            let (input, output) = memory.pair(&model.tensor(c.input)?, &model.tensor(c.output)?)?;
            conv(c, constants, input, output);
        }
        CpuOp::Depthwise(c) => {
            let (input, output) = memory.pair(&model.tensor(c.input)?, &model.tensor(c.output)?)?;
            depthwise(c, constants, input, output);
        }
        CpuOp::Pool(p) => {
            let (input, output) = memory.pair(&model.tensor(p.input)?, &model.tensor(p.output)?)?;
            pool(p, input, output);
        }
        CpuOp::Add(a) => add(model, a, memory)?,
        CpuOp::Softmax(s) => {
            let from = model.tensor(s.input)?;
            let (input, output) = memory.pair(&from, &model.tensor(s.output)?)?;
            let axis = (s.axis as usize).max(1);
            let mut rows = output.chunks_exact_mut(axis.saturating_mul(4));
            let bytes = axis.saturating_mul(from.dtype.bytes() as usize);
            for x in input.chunks_exact(bytes.max(1)) {
                let y = rows.next()?;
                match from.dtype {
                    DType::I8 => {
                        let value = |i| dequantize((x.get(i).copied().unwrap_or(0) as i8).into(), from.pos);
                        softmax(axis, value, |i, v| put_f32(y, i, v));
                    }
                    DType::F32 => softmax(axis, |i| get_f32(x, i), |i, v| put_f32(y, i, v)),
                }
            }
        }
        CpuOp::View { .. } => {}
        CpuOp::Requantize { input, output, shift, act } => {
            let (from, to) = memory.pair(&model.tensor(*input)?, &model.tensor(*output)?)?;
            for (x, y) in from.iter().zip(to) {
                *y = requantize_i8(activate((*x as i8).into(), *act), (*shift).into()) as u8;
            }
        }
        CpuOp::Quantize { input, output } => {
            let to = model.tensor(*output)?;
            let (x, y) = memory.pair(&model.tensor(*input)?, &to)?;
            let spec = FixSpec::int8(to.pos.0);
            for (i, y) in y.iter_mut().enumerate() {
                *y = quantize(get_f32(x, i), spec, Round::HalfUp) as u8;
            }
        }
        CpuOp::Dequantize { input, output } => {
            let from = model.tensor(*input)?;
            let (x, y) = memory.pair(&from, &model.tensor(*output)?)?;
            for (i, x) in x.iter().enumerate() {
                put_f32(y, i, dequantize((*x as i8).into(), from.pos));
            }
        }
    }
    Some(())
}

fn get_f32(bytes: &[u8], index: usize) -> f32 {
    match bytes.get(4 * index..4 * index + 4) {
        Some(&[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
        _ => 0.0,
    }
}

fn put_f32(bytes: &mut [u8], index: usize, value: f32) {
    if let Some(slot) = bytes.get_mut(4 * index..4 * index + 4) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
}

fn get_i32(bytes: &[u8], offset: usize) -> i32 {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// The activation of an accumulator.
#[inline(always)]
pub fn activate(acc: i32, act: Act) -> i32 {
    match act {
        Act::None => acc,
        Act::Relu => acc.max(0),
        Act::ReluMax(n) => acc.clamp(0, n.max(0)),
    }
}

/// The taps of one window position along one axis that fall on the input: (first tap, end tap, first input index).
#[inline(always)]
fn taps(window: &Window, axis: usize, output: usize, input: usize) -> (usize, usize, usize) {
    let (stride, dilation) = (usize::from(window.stride[axis]), usize::from(window.dilation[axis]).max(1));
    let (kernel, pad) = (usize::from(window.kernel[axis]), usize::from(window.pad_before[axis]));
    let origin = output * stride;
    let first = pad.saturating_sub(origin).div_ceil(dilation);
    let end = (input + pad).saturating_sub(origin).div_ceil(dilation).min(kernel);
    (first, end.max(first), (origin + first * dilation).saturating_sub(pad))
}

/// Convolution: `out[y][x][o] = requantize(act(Σ in · kernel + bias), shift_cut)`.
///
/// Shapes: input `[h, w, ic]`, kernel `[oc][kh][kw][ic]`, bias i32 `[oc]`, output `[oh, ow, oc]`; padding is zero.
pub fn conv(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, ic] = op.in_dims.map(usize::from);
    // A checked op has no zero here. Saying so once keeps every division and split below from panicking.
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [kh, kw] = op.window.kernel.map(usize::from);
    let [dy, dx] = op.window.dilation.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    for (pixel, out) in output.chunks_exact_mut(oc).enumerate() {
        let (y, x) = (pixel / ow, pixel % ow);
        let (ky0, ky1, iy0) = taps(&op.window, 0, y, h);
        let (kx0, kx1, ix0) = taps(&op.window, 1, x, w);
        for (o, out) in out.iter_mut().enumerate() {
            let mut acc = op.bias.map_or(0, |b| get_i32(constants, b as usize + 4 * o));
            for ky in ky0..ky1 {
                let row = (iy0 + (ky - ky0) * dy) * w;
                for kx in kx0..kx1 {
                    let from = (row + ix0 + (kx - kx0) * dx) * ic;
                    let at = ((o * kh + ky) * kw + kx) * ic;
                    if let (Some(a), Some(b)) = (input.get(from..from + ic), kernel.get(at..at + ic)) {
                        acc = a
                            .iter()
                            .zip(b)
                            .fold(acc, |s, (a, b)| s.wrapping_add(i32::from(*a as i8) * i32::from(*b as i8)));
                    }
                }
            }
            *out = requantize_i8(activate(acc, op.act), op.shift_cut.into()) as u8;
        }
    }
}

/// Depthwise convolution with one output per input channel; kernel `[kh][kw][c]`.
pub fn depthwise(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    let kw = usize::from(op.window.kernel[1]);
    let [dy, dx] = op.window.dilation.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    for (pixel, out) in output.chunks_exact_mut(c).enumerate() {
        let (ky0, ky1, iy0) = taps(&op.window, 0, pixel / ow, h);
        let (kx0, kx1, ix0) = taps(&op.window, 1, pixel % ow, w);
        for (ch, out) in out.iter_mut().enumerate() {
            let mut acc = op.bias.map_or(0, |b| get_i32(constants, b as usize + 4 * ch));
            for ky in ky0..ky1 {
                for kx in kx0..kx1 {
                    let from = ((iy0 + (ky - ky0) * dy) * w + ix0 + (kx - kx0) * dx) * c + ch;
                    let a = input.get(from).copied().unwrap_or(0) as i8;
                    let b = kernel.get((ky * kw + kx) * c + ch).copied().unwrap_or(0) as i8;
                    acc = acc.wrapping_add(i32::from(a) * i32::from(b));
                }
            }
            *out = requantize_i8(activate(acc, op.act), op.shift_cut.into()) as u8;
        }
    }
}

/// Pooling; input `[h, w, c]`, output `[oh, ow, c]`. Averages sum with zeros for padding.
pub fn pool(op: &PoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    for (pixel, out) in output.chunks_exact_mut(c).enumerate() {
        let (ky0, ky1, iy0) = taps(&op.window, 0, pixel / ow, h);
        let (kx0, kx1, ix0) = taps(&op.window, 1, pixel % ow, w);
        for (ch, out) in out.iter_mut().enumerate() {
            let rows = (iy0..iy0 + (ky1 - ky0)).flat_map(|y| (ix0..ix0 + (kx1 - kx0)).map(move |x| y * w + x));
            let values = rows.map(|p| i32::from(input.get(p * c + ch).copied().unwrap_or(0) as i8));
            let acc = match op.kind {
                PoolKind::Max => values.max().unwrap_or(0),
                PoolKind::Average(m) => values.sum::<i32>() * i32::from(m),
            };
            *out = requantize_i8(activate(acc, op.act), op.shift.into()) as u8;
        }
    }
}

/// Element-wise sum: operands shifted left to the finest position, summed, activated, rounded once.
fn add(model: &Deployable<'_>, op: &AddOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let output = model.tensor(op.output)?;
    let mut operands = heapless::Vec::<_, MAX_OPERANDS>::new();
    for (id, shift) in op.inputs.iter().zip(op.shift_read) {
        operands.push((model.tensor(id)?.place, *shift)).ok()?;
    }
    // One element at a time, reading before writing: operands may share the output's memory exactly.
    for i in 0..output.bytes() as usize {
        let mut sum = 0i32;
        for (place, shift) in &operands {
            let [x] = memory.read(place.region, place.offset as usize + i, 1)? else {
                return None;
            };
            sum += i32::from(*x as i8) << shift;
        }
        let y = requantize_i8(activate(sum, op.act), op.shift_write.into());
        *memory.write(output.place.region, output.place.offset as usize + i, 1)?.first_mut()? = y as u8;
    }
    Some(())
}

/// Softmax of `n` values in f32: maximum subtracted, `libm` exponentials, summed in order, then divided.
///
/// The same operations in the same order everywhere, so every machine gives the same bytes.
pub fn softmax(n: usize, get: impl Fn(usize) -> f32, mut put: impl FnMut(usize, f32)) {
    let max = (0..n).map(&get).fold(f32::NEG_INFINITY, f32::max);
    let exp = |i| libm::expf(get(i) - max);
    let sum = (0..n).map(exp).fold(0.0f32, |a, b| a + b);
    for i in 0..n {
        put(i, exp(i) / sum);
    }
}

/// [`softmax`] of integers of position `pos`, into floats.
pub fn softmax_i8(input: &[i8], pos: FixPos, output: &mut [f32]) {
    softmax(input.len().min(output.len()), |i| dequantize(input[i].into(), pos), |i, v| output[i] = v);
}
