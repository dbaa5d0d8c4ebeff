//! Numpy's broadcasting: dimensions aligned at the last, of the same size or 1.

use crate::tensor::Tensor;

/// The shape that tensors of these shapes have after broadcasting: aligned at the last dimension, where each dimension
/// is the same in all of them or 1.
pub fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let at = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |k| shape[k]);
    (0..rank)
        .map(|i| {
            let mut sizes = shapes.iter().map(|s| at(s, i)).filter(|d| *d != 1);
            let size = sizes.next().unwrap_or(1);
            let alike = sizes.all(|d| d == size);
            alike.then_some(size).ok_or_else(|| format!("its inputs have shapes {shapes:?}, which don't broadcast"))
        })
        .collect()
}

/// `f(a, b)` over two batched tensors whose samples broadcast against each other.
pub fn zip_broadcast(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
    if a.shape() == b.shape() {
        let mut out = a.clone();
        out.data_mut().iter_mut().zip(b.data()).for_each(|(x, y)| *x = f(*x, *y));
        return out;
    }
    let (sample_a, sample_b) = (&a.shape()[1..], &b.shape()[1..]);
    let sample = broadcast(&[sample_a, sample_b]).unwrap_or_default();
    let n = a.shape()[0];
    let mut out = Tensor::zeros(&[&[n], sample.as_slice()].concat());
    let per_sample: usize = sample.iter().product();
    let (from_a, from_b) = (offsets(sample_a, &sample), offsets(sample_b, &sample));
    let (size_a, size_b) = (sample_a.iter().product::<usize>(), sample_b.iter().product::<usize>());
    for (i, y) in out.data_mut().chunks_exact_mut(per_sample.max(1)).enumerate() {
        let (a, b) = (&a.data()[i * size_a..], &b.data()[i * size_b..]);
        y.iter_mut().zip(&from_a).zip(&from_b).for_each(|((y, p), q)| *y = f(a[*p], b[*q]));
    }
    out
}

/// For every element of a tensor of shape `to`, the element of a tensor of shape `from` that broadcasts to it.
pub fn offsets(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut all = vec![0usize];
    let mut stride = from.iter().product::<usize>();
    for (i, size) in to.iter().enumerate() {
        let own = (i + from.len()).checked_sub(to.len()).map_or(1, |k| from[k]);
        stride /= own.max(1);
        let step = if own == 1 { 0 } else { stride };
        all = all.iter().flat_map(|base| (0..*size).map(move |k| base + k * step)).collect();
    }
    all
}
