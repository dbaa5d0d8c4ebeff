//! Ops on integers with steps of any size, exactly: the definition of what compiled kernels compute.
//!
//! Convolutions of 8-bit integers run on the fast int8 kernels: the zero point is taken off afterwards, times the sum of
//! the weights, and what is padded is the zero point. Others are summed in 64 bits, one output after the other.

use rayon::prelude::*;

use crate::engine::moves::permute;
use crate::engine::plan::{Held, Result};
use crate::graph::{IntOpKind, IntTensor, Kind, image};
use crate::scaled::{Channel, ScaledConv, ScaledOp, ScaledPooling};
use shiftwise_core::scale::{Scale, bounded, rescale};
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel;
use shiftwise_tensor::kernel::{ConvGeometry, PackedI8};
use shiftwise_tensor::values::Values;

/// Products of one output that the int8 kernels sum exactly.
const MOST_PRODUCTS: usize = 1 << 16;

/// A convolution made ready.
#[derive(Debug)]
pub(super) enum Prepared {
    /// 8-bit weights and inputs.
    Narrow(Box<Narrow>),
    /// Weights of each output behind each other.
    Wide(Vec<i16>),
}

/// A convolution of 8-bit weights and inputs made ready.
#[derive(Debug)]
pub(super) struct Narrow {
    geometry: ConvGeometry,
    /// `None` where every input channel has a group of its own.
    packed: Option<PackedI8>,
    kernel: Vec<i8>,
    /// Sum of each output's weights.
    sums: Vec<i64>,
}

impl Prepared {
    /// Of an op that reads integers of `from`; `None` for one that isn't a convolution.
    pub(super) fn new(op: &ScaledOp, from: Kind) -> Option<Self> {
        let ScaledOp::Conv(c) = op else { return None };
        let per_output = c.kernel.len() / c.output[2].max(1);
        let narrow = from.bytes() == 1 && !c.is_wide() && !c.transposed && per_output <= MOST_PRODUCTS;
        if !narrow {
            return Some(Self::Wide(c.by_output()));
        }
        let long = |p: [u16; 2]| p.map(usize::from);
        let [in_h, in_w] = [0, 1].map(|axis| padded(c, axis));
        let ([_, _, in_c], [out_h, out_w, out_c]) = (c.input, c.output);
        let (kernel, stride, dilation) = (long(c.window.kernel), long(c.window.stride), long(c.window.dilation));
        let (pad_before, groups) = ([0, 0], c.groups);
        let geometry =
            ConvGeometry { in_h, in_w, in_c, out_h, out_w, out_c, kernel, stride, dilation, pad_before, groups };
        let kernel: Vec<i8> = c.kernel.iter().map(|w| *w as i8).collect();
        let packed = (groups < in_c || in_c == 1).then(|| PackedI8::new(&kernel, &geometry));
        let mut sums = vec![0i64; out_c];
        for row in c.kernel.chunks_exact(out_c.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += i64::from(*w));
        }
        Some(Self::Narrow(Box::new(Narrow { geometry, packed, kernel, sums })))
    }
}

/// Rows, or columns, that the windows of all outputs span together, those of the padding before the input included.
fn padded(c: &ScaledConv, axis: usize) -> usize {
    (c.output[axis].max(1) - 1) * usize::from(c.window.stride[axis]) + c.window.extent(axis) as usize
}

/// Integers as distances from their zero point.
fn steps(held: Held<'_>, zero: i16) -> Vec<i64> {
    let zero = i64::from(zero);
    match held {
        Held::Fixed(q) => q.iter().map(|q| i64::from(*q) - zero).collect(),
        Held::Wide(q) => q.iter().map(|q| i64::from(*q) - zero).collect(),
        Held::Float(_) => Vec::new(),
    }
}

/// Writes integers in the width of their tensor.
fn store(y: Result<'_>, q: impl Iterator<Item = i16>) {
    match y {
        Result::Fixed(y) => y.iter_mut().zip(q).for_each(|(y, q)| *y = q as i8),
        Result::Wide(y) => y.iter_mut().zip(q).for_each(|(y, q)| *y = q),
        Result::Float(_) => {}
    }
}

/// Floats as integers of a kind with steps.
pub(super) fn quantize(x: &[f32], to: Kind, y: Result<'_>) {
    if let Some(scale) = to.scale() {
        store(y, x.iter().map(|x| scale.quantize(*x)));
    }
}

/// Integers of a kind with steps as floats.
pub(super) fn dequantize(x: Held<'_>, from: Kind, y: &mut [f32]) {
    let Some(scale) = from.scale() else { return };
    match x {
        Held::Fixed(q) => y.iter_mut().zip(q).for_each(|(y, q)| *y = scale.dequantize((*q).into())),
        Held::Wide(q) => y.iter_mut().zip(q).for_each(|(y, q)| *y = scale.dequantize(*q)),
        Held::Float(_) => {}
    }
}

/// Floats as integers of a grid.
pub(super) fn value(x: &[f32], scale: Scale) -> Values {
    let q = x.iter().map(|x| scale.quantize(*x));
    if scale.is_wide() { Values::Int16(q.collect()) } else { Values::Int8(q.map(|q| q as i8).collect()) }
}

/// One sample's result.
pub(super) fn compute(
    op: &ScaledOp,
    prepared: Option<&Prepared>,
    x: &[(Held<'_>, Kind, &[usize])],
    out: &IntTensor,
    result: Result<'_>,
) {
    let Some(to) = out.kind.scale() else { return };
    let scale = |k: usize| x.get(k).and_then(|(_, kind, _)| kind.scale()).unwrap_or(to);
    let operand = |k: usize| x.get(k).map_or_else(Vec::new, |(held, ..)| steps(*held, scale(k).zero));
    let shape = |k: usize| x.get(k).map_or(&[][..], |(.., shape)| *shape);
    let place = |steps: i64| bounded(steps, to.zero, op.bounds());
    match op {
        ScaledOp::Conv(c) => {
            let finish = |channel: &Channel, sum: i64| place(channel.multiplier.apply(sum + channel.bias));
            match (prepared, x.first()) {
                (Some(Prepared::Narrow(narrow)), Some((Held::Fixed(x), ..))) => {
                    let Narrow { geometry, packed, kernel, sums } = &**narrow;
                    let zero = scale(0).zero;
                    let x = with_padding(c, x, zero as i8);
                    let mut y = vec![0i16; c.output.iter().product()];
                    let take =
                        |sum: &i32, o: usize| finish(&c.channels[o], i64::from(*sum) - i64::from(zero) * sums[o]);
                    let each = |pixel: usize, first: usize, part: &[i32]| {
                        let y = &mut y[pixel * c.output[2] + first..][..part.len()];
                        y.iter_mut().zip(part).enumerate().for_each(|(k, (y, sum))| *y = take(sum, first + k));
                    };
                    let all = 0..geometry.pixels();
                    match packed {
                        Some(packed) => kernel::conv_i8_to(packed, geometry, &x, all, each),
                        None => kernel::depthwise_i8_to(geometry, kernel, &x, all, each),
                    }
                    store(result, y.into_iter())
                }
                (Some(Prepared::Wide(kernel)), _) => store(result, sums(c, kernel, &operand(0), finish).into_iter()),
                _ => {}
            }
        }
        ScaledOp::Pool { window, pooling, multipliers, .. } => {
            let finish = |acc: i64, count: usize| {
                let index = if *pooling == ScaledPooling::Counted { count - 1 } else { 0 };
                place(multipliers[index].apply(acc))
            };
            let y = pool(&operand(0), image(shape(0)), window, *pooling == ScaledPooling::Max, finish);
            store(result, y.into_iter())
        }
        ScaledOp::Sum { factors, n, .. } => {
            let mut sums = vec![0i64; out.shape.iter().product()];
            for (k, factor) in factors.iter().enumerate() {
                sums.iter_mut().zip(operand(k)).for_each(|(sum, x)| *sum += x * i64::from(*factor));
            }
            store(result, sums.into_iter().map(|sum| place(rescale(sum, 1, *n))))
        }
        ScaledOp::Product { multiplier, .. } => {
            let (a, b) = (operand(0), operand(1));
            let at = |shape: &[usize]| broadcast(shape, &out.shape);
            let pairs = at(shape(0)).into_iter().zip(at(shape(1)));
            store(result, pairs.map(|(i, j)| place(multiplier.apply(a[i] * b[j]))))
        }
        ScaledOp::Concat { axis, multipliers, .. } => {
            let parts: Vec<(Vec<i64>, usize)> = (0..multipliers.len())
                .map(|k| (operand(k), shape(k).get(*axis..).unwrap_or_default().iter().product()))
                .collect();
            let outer = out.shape.get(..*axis).unwrap_or_default().iter().product::<usize>();
            let rows = (0..outer).flat_map(|o| {
                parts
                    .iter()
                    .zip(multipliers)
                    .flat_map(move |((x, n), m)| x[o * n..(o + 1) * n].iter().map(move |x| m.apply(*x)))
            });
            store(result, rows.map(place))
        }
    }
}

/// The part of the padded input that windows reach, with the zero point around the input.
fn with_padding(c: &ScaledConv, x: &[i8], zero: i8) -> Vec<i8> {
    let ([h, w, channels], [rows, columns]) = (c.input, [0, 1].map(|axis| padded(c, axis)));
    let [top, left] = c.window.pad_before.map(usize::from);
    let mut y = vec![zero; rows * columns * channels];
    let width = w.min(columns.saturating_sub(left)) * channels;
    for row in 0..h.min(rows.saturating_sub(top)) {
        let at = ((row + top) * columns + left) * channels;
        y[at..at + width].copy_from_slice(&x[row * w * channels..][..width]);
    }
    y
}

/// Convolutions of any width: every output sums its taps.
fn sums(c: &ScaledConv, kernel: &[i16], x: &[i64], finish: impl Fn(&Channel, i64) -> i16 + Sync) -> Vec<i16> {
    let ([h, w, ic], [_, ow, oc]) = (c.input, c.output);
    let [kh, kw] = c.window.kernel.map(usize::from);
    let (share, group) = (ic / c.groups.max(1), (oc / c.groups.max(1)).max(1));
    let met = |axis: usize, out: usize, tap: usize, size: usize| {
        let of = |p: [u16; 2]| usize::from(p[axis]);
        let (stride, tap, pad) = (of(c.window.stride), tap * of(c.window.dilation), of(c.window.pad_before));
        let at = match c.transposed {
            true => (out + pad).checked_sub(tap).filter(|at| at.is_multiple_of(stride)).map(|at| at / stride),
            false => (out * stride + tap).checked_sub(pad),
        };
        at.filter(|at| *at < size)
    };
    let mut y = vec![0i16; c.output.iter().product()];
    y.par_chunks_mut(oc.max(1)).enumerate().for_each(|(pixel, y)| {
        for (o, y) in y.iter_mut().enumerate() {
            let mut sum = 0i64;
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let Some((iy, ix)) = met(0, pixel / ow, ky, h).zip(met(1, pixel % ow, kx, w)) else { continue };
                let x = &x[(iy * w + ix) * ic + o / group * share..][..share];
                let own = &kernel[((o * kh + ky) * kw + kx) * share..][..share];
                sum += x.iter().zip(own).map(|(x, w)| x * i64::from(*w)).sum::<i64>();
            }
            *y = finish(&c.channels[o], sum);
        }
    });
    y
}

/// The largest value or the sum of each window and its number of values, finished.
fn pool(x: &[i64], [h, w, c]: [usize; 3], window: &Window, max: bool, finish: impl Fn(i64, usize) -> i16) -> Vec<i16> {
    let (oh, ow) = (window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize);
    let range = |axis: usize, o: usize, size: usize| {
        let first = o * usize::from(window.stride[axis]);
        let pad = usize::from(window.pad_before[axis]);
        first.saturating_sub(pad)..(first + usize::from(window.kernel[axis])).saturating_sub(pad).min(size)
    };
    let mut y = Vec::with_capacity(oh * ow * c);
    for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
        let (rows, columns) = (range(0, oy, h), range(1, ox, w));
        let count = (rows.len() * columns.len()).max(1);
        for channel in 0..c {
            let values = rows.clone().flat_map(|row| columns.clone().map(move |column| row * w + column));
            let values = values.map(|pixel| x[pixel * c + channel]);
            let acc = if max { values.max().unwrap_or(0) } else { values.sum() };
            y.push(finish(acc, count));
        }
    }
    y
}

/// The index in a tensor of `shape` for every element of `out`, in order.
fn broadcast(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut offsets = vec![0];
    for (axis, size) in out.iter().enumerate() {
        let own = (axis + shape.len()).checked_sub(out.len());
        let stride = own.filter(|own| shape[*own] > 1).map_or(0, |own| shape[own + 1..].iter().product());
        offsets = offsets.iter().flat_map(|at: &usize| (0..*size).map(move |i| at + i * stride)).collect();
    }
    offsets
}

/// A layer that only moves integers.
pub(super) fn moved(kind: &IntOpKind, x: &[(Held<'_>, Kind, &[usize])], out: &IntTensor, result: Result<'_>) {
    let Some((held, from, shape)) = x.first() else { return };
    let q: Vec<i16> = steps(*held, 0).into_iter().map(|q| q as i16).collect();
    let ([_, w, c], [rows, columns, _]) = (image(shape), image(&out.shape));
    let y = match kind {
        IntOpKind::Pad { before: [top, left], .. } => {
            let zero = from.scale().map_or(0, |scale| scale.zero);
            let mut y = vec![zero; rows * columns * c];
            for (row, from) in q.chunks_exact((w * c).max(1)).enumerate() {
                let at = ((row + top) * columns + left) * c;
                y[at..at + from.len()].copy_from_slice(from);
            }
            y
        }
        IntOpKind::UpSample { factor: [fy, fx], .. } => {
            let pixel = |i: usize| (i / columns / fy * w + i % columns / fx) * c;
            (0..rows * columns).flat_map(|i| q[pixel(i)..pixel(i) + c].iter().copied()).collect()
        }
        IntOpKind::Permute { dims } => {
            let mut y = vec![0; q.len()];
            permute(&q, shape, dims, &mut y);
            y
        }
        _ => return,
    };
    store(result, y.into_iter());
}
