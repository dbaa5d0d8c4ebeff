//! Gradients of layers of several inputs.

use crate::backward::{Call, NoGradient, combined, reduced_to, reshaped, scaled_by, tensor};
use crate::ops::{Dot, Merge};
use shiftwise_core::model::Combine;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// A shape whose sample has dimensions of 1 in front, so that batches are aligned: `[n, 1, …, sample]` of `rank`.
fn aligned(shape: &[usize], rank: usize) -> Vec<usize> {
    let Some((batch, sample)) = shape.split_first() else { return Vec::new() };
    let ones = vec![1; rank.saturating_sub(shape.len())];
    [&[*batch], ones.as_slice(), sample].concat()
}

/// The sum of `dy` over what a tensor of `shape` was repeated along.
fn summed(dy: &Tensor, shape: &[usize]) -> Result<Tensor, NoGradient> {
    reshaped(&reduced_to(dy, &aligned(shape, dy.shape().len()))?, shape)
}

/// Gradients of a sum.
pub(super) fn add(call: &Call<'_>, dy: &Tensor) -> Result<Vec<Option<Tensor>>, NoGradient> {
    let one = |(k, shape): (usize, &Vec<usize>)| call.wants(k).then(|| summed(dy, shape)).transpose();
    call.shapes.iter().enumerate().map(one).collect()
}

/// Gradients of inputs that are combined one after the other, from the last to the first.
pub(super) fn folded(combine: Combine, call: &Call<'_>, dy: &Tensor) -> Result<Vec<Option<Tensor>>, NoGradient> {
    let rank = dy.shape().len();
    let wide: Vec<Tensor> =
        call.inputs.iter().map(|x| reshaped(x, &aligned(x.shape(), rank))).collect::<Result<_, _>>()?;
    let (first, rest) = wide.split_first().ok_or(NoGradient::Shapes)?;
    // What stood before each of the others was combined.
    let mut before = vec![first.clone()];
    for next in rest.iter().take(rest.len().saturating_sub(1)) {
        let last = before.last().ok_or(NoGradient::Shapes)?;
        before.push(array::zip(last, next, |a, b| combine.apply(a, b)));
    }
    let mut gradients = Vec::with_capacity(wide.len());
    let mut dy = dy.clone();
    for (a, b) in before.iter().zip(rest).rev() {
        let [da, db] = combined(combine, a, b, &dy)?;
        gradients.push(db);
        dy = da;
    }
    gradients.push(dy);
    gradients.into_iter().rev().zip(call.shapes).map(|(d, shape)| reshaped(&d, shape).map(Some)).collect()
}

/// Gradients of [`Merge`].
pub(super) fn merge(merge: Merge, call: &Call<'_>, dy: &Tensor) -> Result<Vec<Option<Tensor>>, NoGradient> {
    match merge {
        Merge::Average => add(call, &scaled_by(dy, &[1.0 / call.shapes.len() as f32])),
        Merge::Subtract | Merge::Maximum | Merge::Minimum => folded(merge.combine(), call, dy),
    }
}

/// Gradients of products along one axis of each of two inputs.
pub(super) fn dot(layer: &Dot, call: &Call<'_>, dy: &Tensor) -> Result<Vec<Option<Tensor>>, NoGradient> {
    let [a, b] = call.inputs else { return Err(NoGradient::Shapes) };
    let [a0, depth, a1] = Dot::blocks(&a.shape()[1..], layer.axes[0]);
    let [b0, _, b1] = Dot::blocks(&b.shape()[1..], layer.axes[1]);
    let (mut da, mut db) = (vec![0.0f32; a.data().len()], vec![0.0f32; b.data().len()]);
    let (size_a, size_b, size_y) = (a0 * depth * a1, b0 * depth * b1, a0 * a1 * b0 * b1);
    for sample in 0..a.shape()[0] {
        let (x, y) = (&a.data()[sample * size_a..][..size_a], &b.data()[sample * size_b..][..size_b]);
        let (dx, dz) = (&mut da[sample * size_a..][..size_a], &mut db[sample * size_b..][..size_b]);
        let rows = (0..a0).flat_map(|i| (0..a1).map(move |j| i * depth * a1 + j));
        let pairs = rows.flat_map(|from| (0..b0).flat_map(move |k| (0..b1).map(move |l| (from, k * depth * b1 + l))));
        for ((from, other), d) in pairs.zip(&dy.data()[sample * size_y..][..size_y]) {
            for m in 0..depth {
                dx[from + m * a1] += d * y[other + m * b1];
                dz[other + m * b1] += d * x[from + m * a1];
            }
        }
    }
    Ok(vec![Some(tensor(a.shape(), da)?), Some(tensor(b.shape(), db)?)])
}
