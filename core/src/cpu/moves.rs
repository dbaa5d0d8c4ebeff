//! Layers that move elements, to another position at most.

use super::operand::walk;
use crate::arith::requantize_i8;
use crate::memory::Memory;
use crate::model::{ConcatOp, Deployable, PadOp, PermuteOp, UpSampleOp};
use crate::shape::positive;

/// Operands behind each other along an axis.
pub(super) fn concat(model: &Deployable<'_>, op: &ConcatOp<'_>, memory: &mut Memory<'_>) -> Option<()> {
    let to = model.tensor(op.output)?;
    // Bytes of one index of the dimensions before the axis, in an operand or the result.
    let block = |dims: &[u32]| dims.iter().skip(op.axis.into()).product::<u32>() as usize;
    let whole = block(to.shape.dims());
    let mut start = 0;
    for (id, shift) in op.inputs.iter().zip(op.shifts) {
        let from = model.tensor(id)?;
        let part = block(from.shape.dims());
        let (x, y) = memory.pair(&from, &to)?;
        let mut blocks = y.chunks_exact_mut(positive(whole).get());
        for x in x.chunks_exact(positive(part).get()) {
            let y = blocks.next()?;
            for (x, y) in x.iter().zip(y.iter_mut().skip(start)) {
                *y = requantize_i8((*x as i8).into(), (*shift as i8).into()) as u8;
            }
        }
        start += part;
    }
    Some(())
}

/// Each pixel of `[h, w, c]` `factor` times.
pub fn upsample(op: &UpSampleOp, input: &[u8], output: &mut [u8]) {
    let [_, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [fy, fx] = op.factor.map(|f| positive(f.into()));
    let wide = positive(w * fx.get());
    for (pixel, y) in output.chunks_exact_mut(positive(c).get()).enumerate() {
        let (row, column) = (pixel / wide / fy, pixel % wide / fx);
        let x = input.iter().skip((row * w + column) * c);
        x.zip(y).for_each(|(x, y)| *y = requantize_i8((*x as i8).into(), op.shift.into()) as u8);
    }
}

/// `[h, w, c]` with zeros around it.
pub fn pad(op: &PadOp, input: &[u8], output: &mut [u8]) {
    let [_, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [top, left] = op.before.map(usize::from);
    let width = w + left + usize::from(op.after[1]);
    output.fill(0);
    let rows = output.chunks_exact_mut(positive(width * c).get()).skip(top);
    for (x, y) in input.chunks_exact(positive(w * c).get()).zip(rows) {
        x.iter().zip(y.iter_mut().skip(left * c)).for_each(|(x, y)| *y = *x);
    }
}

/// Axes in another order.
pub(super) fn permute(model: &Deployable<'_>, op: &PermuteOp, memory: &mut Memory<'_>) -> Option<()> {
    let (from, to) = (model.tensor(op.input)?, model.tensor(op.output)?);
    let rank = to.shape.dims().len();
    let own = from.shape.strides();
    let mut strides = [0; 4];
    // Both are aligned at the last of four dimensions.
    let first = 4usize.checked_sub(rank)?;
    for (to, axis) in strides.iter_mut().skip(first).zip(op.axes) {
        *to = own.get(first + usize::from(axis)).copied()?;
    }
    let (x, y) = memory.pair(&from, &to)?;
    let mut y = y.iter_mut();
    walk(to.shape.aligned(), [strides], |[i]| {
        if let (Some(x), Some(y)) = (x.get(i), y.next()) {
            *y = *x;
        }
    });
    Some(())
}
