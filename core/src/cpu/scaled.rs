//! Layers on integers with steps of any size. The records in [`crate::model`] say what each computes.

use super::operand::{Operand, get_i32, operand, walk};
use crate::memory::Memory;
use crate::model::{
    Deployable, MAX_OPERANDS, ScaledConcatOp, ScaledConvOp, ScaledCopyOp, ScaledOp, ScaledPoolKind, ScaledPoolOp,
    ScaledProductOp, ScaledSumOp, TensorDesc,
};
use crate::scale::{Scale, bounded, rescale};
use crate::shape::{Window, positive};

/// Runs a layer; `None` if its tensors overlap where they must not, which a checked layer's do not.
pub(super) fn execute(model: &Deployable<'_>, op: &ScaledOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let constants = memory.constants;
    match op {
        ScaledOp::Conv(op) => {
            let (from, to) = (model.unnamed(op.input)?, model.unnamed(op.output)?);
            let (x, y) = memory.pair(&from, &to)?;
            conv(op, [from.scale()?, to.scale()?], constants, x, y);
        }
        ScaledOp::Pool(op) => {
            let (from, to) = (model.unnamed(op.input)?, model.unnamed(op.output)?);
            let (x, y) = memory.pair(&from, &to)?;
            pool(op, [from.scale()?, to.scale()?], constants, x, y);
        }
        ScaledOp::Sum(op) => sum(model, op, memory)?,
        ScaledOp::Product(op) => product(model, op, memory)?,
        ScaledOp::Concat(op) => concat(model, op, memory)?,
        ScaledOp::Copy(op) => {
            let (from, to) = (model.unnamed(op.input)?, model.unnamed(op.output)?);
            let (x, y) = memory.pair(&from, &to)?;
            copy(op, to.scale()?, x, y);
        }
    }
    Some(())
}

/// A weight of one or two bytes; 0 past the end.
#[inline(always)]
pub(crate) fn weight(bytes: &[u8], index: usize, wide: bool) -> i16 {
    if wide {
        bytes.as_chunks().0.get(index).map_or(0, |q| i16::from_le_bytes(*q))
    } else {
        bytes.get(index).map_or(0, |q| (*q as i8).into())
    }
}

#[inline(always)]
fn store(bytes: &mut [u8], index: usize, q: i16, wide: bool) {
    if wide {
        if let Some(slot) = bytes.as_chunks_mut().0.get_mut(index) {
            *slot = q.to_le_bytes();
        }
    } else if let Some(slot) = bytes.get_mut(index) {
        *slot = q as u8;
    }
}

/// The multiplier at `offset`.
fn multiplier(constants: &[u8], offset: usize) -> (u32, u8) {
    (get_i32(constants, offset) as u32, get_i32(constants, offset + 4) as u8)
}

/// Σ (x − zero) · w. Of single bytes, as many as a map has channels fit 32 bits.
fn dot(x: &[u8], w: &[u8], zero: i32) -> i64 {
    let product = |(x, w): (&u8, &u8)| (i32::from(*x as i8) - zero) * i32::from(*w as i8);
    x.iter().zip(w).map(product).fold(0i32, i32::wrapping_add).into()
}

/// [`dot`] where the input, the weights, or both have two bytes.
fn wide_dot(x: &[u8], w: &[u8], zero: i32, [wide_x, wide_w]: [bool; 2]) -> i64 {
    let n = x.len() / if wide_x { 2 } else { 1 };
    let product =
        |i: usize| i64::from(i32::from(weight(x, i, wide_x)) - zero).wrapping_mul(weight(w, i, wide_w).into());
    (0..n).map(product).fold(0, i64::wrapping_add)
}

/// The input pixel along `axis` that a tap of an output meets.
#[inline(always)]
fn met(window: &Window, transposed: bool, (axis, out, tap): (usize, usize, usize), size: usize) -> Option<usize> {
    let of = |pair: [u16; 2]| pair.get(axis).map_or(0, |n| usize::from(*n));
    let (stride, tap, pad) = (of(window.stride), tap * of(window.dilation), of(window.pad_before));
    let at = if transposed {
        let at = (out + pad).checked_sub(tap)?;
        (at % positive(stride) == 0).then_some(at / positive(stride))?
    } else {
        (out * stride + tap).checked_sub(pad)?
    };
    (at < size).then_some(at)
}

fn conv(op: &ScaledConvOp, [from, to]: [Scale; 2], constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, ic] = op.in_dims.map(usize::from);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [kh, kw] = op.window.kernel.map(usize::from);
    let groups = positive(op.groups.into());
    let (share, group) = (ic / groups, positive(oc / groups));
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    let (x_bytes, w_bytes) = (from.bytes() as usize, if op.wide { 2 } else { 1 });
    let pixels = output.len() / positive(oc * to.bytes() as usize);
    for pixel in 0..pixels {
        let (y, x) = (pixel / positive(ow), pixel % positive(ow));
        for o in 0..oc {
            let mut acc = 0i64;
            for ky in 0..kh {
                let Some(iy) = met(&op.window, op.transposed, (0, y, ky), h) else { continue };
                for kx in 0..kw {
                    let Some(ix) = met(&op.window, op.transposed, (1, x, kx), w) else { continue };
                    let at = ((iy * w + ix) * ic + o / group * share) * x_bytes;
                    let weights = ((o * kh + ky) * kw + kx) * share * w_bytes;
                    let x = input.get(at..at + share * x_bytes).unwrap_or(&[]);
                    let w = kernel.get(weights..weights + share * w_bytes).unwrap_or(&[]);
                    let sum = match (from.is_wide(), op.wide) {
                        (false, false) => dot(x, w, from.zero.into()),
                        wide => wide_dot(x, w, from.zero.into(), wide.into()),
                    };
                    acc = acc.wrapping_add(sum);
                }
            }
            let at = op.channels as usize + 16 * o;
            let bias = get_i32(constants, at) as u32 as i64 | i64::from(get_i32(constants, at + 4)) << 32;
            let (m, n) = multiplier(constants, at + 8);
            let q = bounded(rescale(acc.wrapping_add(bias), m, n), to.zero, op.bounds);
            store(output, pixel * oc + o, q, to.is_wide());
        }
    }
}

fn pool(op: &ScaledPoolOp, [from, to]: [Scale; 2], constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [oh, ow] = op.out_dims.map(usize::from);
    for pixel in 0..oh * ow {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / positive(ow), h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % positive(ow), w);
        let count = (ky1 - ky0) * (kx1 - kx0);
        let index = if op.kind == ScaledPoolKind::Counted { count.saturating_sub(1) } else { 0 };
        let (m, n) = multiplier(constants, op.multipliers as usize + 8 * index);
        for channel in 0..c {
            let rows = (iy0..iy0 + (ky1 - ky0)).flat_map(|y| (ix0..ix0 + (kx1 - kx0)).map(move |x| y * w + x));
            let values = rows
                .map(|p| i64::from(i32::from(weight(input, p * c + channel, from.is_wide())) - i32::from(from.zero)));
            let acc = match op.kind {
                ScaledPoolKind::Max => values.max().unwrap_or(0),
                ScaledPoolKind::Sum | ScaledPoolKind::Counted => values.sum(),
            };
            store(output, pixel * c + channel, bounded(rescale(acc, m, n), to.zero, op.bounds), to.is_wide());
        }
    }
}

fn sum(model: &Deployable<'_>, op: &ScaledSumOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let to = model.unnamed(op.output)?;
    let scale = to.scale()?;
    let constants = memory.constants;
    let (output, rest) = memory.split(&to)?;
    let mut operands = heapless::Vec::<(Operand<'_>, Scale, i64), MAX_OPERANDS>::new();
    for (k, id) in op.inputs.iter().enumerate() {
        let from = model.unnamed(id)?;
        let factor = get_i32(constants, op.factors as usize + 4 * k) as u32;
        operands.push((operand(&from, &to, &rest)?, from.scale()?, factor.into())).ok()?;
    }
    let half = 1i64.wrapping_shl(u32::from(op.n).saturating_sub(1));
    // One element at a time, reading before writing: operands may be in the output's place.
    for i in 0..to.shape.elements()? as usize {
        let mut acc = half;
        for (x, from, factor) in &operands {
            let q = weight(x.unwrap_or(output), i, from.is_wide());
            acc = acc.wrapping_add(i64::from(i32::from(q) - i32::from(from.zero)).wrapping_mul(*factor));
        }
        store(output, i, bounded(acc >> op.n.min(63), scale.zero, op.bounds), scale.is_wide());
    }
    Some(())
}

fn product(model: &Deployable<'_>, op: &ScaledProductOp, memory: &mut Memory<'_>) -> Option<()> {
    let [a, b] = [model.unnamed(op.inputs[0])?, model.unnamed(op.inputs[1])?];
    let to = model.unnamed(op.output)?;
    let [scale_a, scale_b, scale] = [a.scale()?, b.scale()?, to.scale()?];
    let (output, rest) = memory.split(&to)?;
    let (x, y) = (rest.tensor(&a)?, rest.tensor(&b)?);
    walk(to.shape.aligned(), [a.shape.strides(), b.shape.strides(), to.shape.strides()], |[i, j, o]| {
        let of = |bytes: &[u8], i: usize, from: Scale| {
            i64::from(i32::from(weight(bytes, i, from.is_wide())) - i32::from(from.zero))
        };
        let acc = of(x, i, scale_a).wrapping_mul(of(y, j, scale_b));
        store(output, o, bounded(rescale(acc, op.m, op.n), scale.zero, op.bounds), scale.is_wide());
    });
    Some(())
}

fn concat(model: &Deployable<'_>, op: &ScaledConcatOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let to = model.unnamed(op.output)?;
    let scale = to.scale()?;
    let constants = memory.constants;
    // Elements of one index of the dimensions before the axis, in an operand or the result.
    let block = |t: &TensorDesc<'_>| t.shape.dims().iter().skip(op.axis.into()).product::<u32>() as usize;
    let whole = block(&to);
    let mut start = 0;
    for (k, id) in op.inputs.iter().enumerate() {
        let from = model.unnamed(id)?;
        let (own, part) = (from.scale()?, block(&from));
        let (m, n) = multiplier(constants, op.multipliers as usize + 8 * k);
        let (x, y) = memory.pair(&from, &to)?;
        for i in 0..from.shape.elements()? as usize {
            let steps = i64::from(i32::from(weight(x, i, own.is_wide())) - i32::from(own.zero));
            let at = i / positive(part) * whole + start + i % positive(part);
            store(y, at, bounded(rescale(steps, m, n), scale.zero, op.bounds), scale.is_wide());
        }
        start += part;
    }
    Some(())
}

fn copy(op: &ScaledCopyOp, scale: Scale, input: &[u8], output: &mut [u8]) {
    let wide = scale.is_wide();
    if op.fill {
        (0..output.len() / scale.bytes() as usize).for_each(|i| store(output, i, scale.zero, wide));
    }
    let [outer, dims @ ..] = op.sizes;
    let ([step_in, steps_in @ ..], [step_out, steps_out @ ..]) = (op.steps_in, op.steps_out);
    for i in 0..outer {
        let (from, to) = ((i * step_in) as usize, (op.to + i * step_out) as usize);
        walk(dims, [steps_in, steps_out], |[a, b]| store(output, to + b, weight(input, from + a, wide), wide));
    }
}
