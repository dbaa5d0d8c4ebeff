//! Layers with floats.

use crate::fix::{FixPos, dequantize};
use crate::memory::Memory;
use crate::model::{Deployable, SoftmaxOp, TensorDesc, TensorId};
use crate::shape::positive;

/// Softmax over the last axis.
pub(super) fn softmax_layer(model: &Deployable<'_>, op: &SoftmaxOp, memory: &mut Memory<'_>) -> Option<()> {
    let from = model.tensor(op.input)?;
    let (input, output) = memory.pair(&from, &model.tensor(op.output)?)?;
    let axis = (op.axis as usize).max(1);
    let mut rows = output.chunks_exact_mut(positive(axis.saturating_mul(4)).get());
    let bytes = axis.saturating_mul(from.dtype.bytes() as usize);
    for x in input.chunks_exact(positive(bytes).get()) {
        let y = rows.next()?;
        softmax(axis, |i| value(&from, x, i), |i, v| put_f32(y, i, v));
    }
    Some(())
}

/// Floats to integers of the output's position.
pub(super) fn quantize_layer(
    model: &Deployable<'_>,
    input: TensorId,
    output: TensorId,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let to = model.tensor(output)?;
    let (x, y) = memory.pair(&model.tensor(input)?, &to)?;
    for (i, y) in y.chunks_exact_mut(positive(to.dtype.bytes() as usize).get()).enumerate() {
        y.iter_mut().zip(to.element(get_f32(x, i))).for_each(|(y, byte)| *y = byte);
    }
    Some(())
}

/// Integers to floats.
pub(super) fn dequantize_layer(
    model: &Deployable<'_>,
    input: TensorId,
    output: TensorId,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let from = model.tensor(input)?;
    let (x, y) = memory.pair(&from, &model.tensor(output)?)?;
    for i in 0..y.len() / 4 {
        put_f32(y, i, value(&from, x, i));
    }
    Some(())
}

/// Element `index` of a tensor's bytes as a float.
fn value(t: &TensorDesc<'_>, bytes: &[u8], index: usize) -> f32 {
    let size = t.dtype.bytes() as usize;
    bytes.get(size * index..size * (index + 1)).map_or(0.0, |element| t.value(element))
}

pub(super) fn get_f32(bytes: &[u8], index: usize) -> f32 {
    bytes.as_chunks().0.get(index).map_or(0.0, |x| f32::from_le_bytes(*x))
}

pub(super) fn put_f32(bytes: &mut [u8], index: usize, value: f32) {
    if let Some(slot) = bytes.as_chunks_mut().0.get_mut(index) {
        *slot = value.to_le_bytes();
    }
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
