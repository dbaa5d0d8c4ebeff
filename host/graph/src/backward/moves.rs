//! Gradients of layers that move or interpolate elements.

use crate::backward::{NoGradient, tensor};
use crate::ops::{Interpolation, Layer, UpSampling2D};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// Numbers below it, and quotients by it of all numbers of elements that a layer may have, are exact in f32.
const DIGIT: usize = 1 << 12;

/// dX of a layer that copies elements of its input, some perhaps several times and some not at all, and puts nothing but
/// zeros between them.
///
/// Where each element comes from is read off the layer itself: it moves the numbers of the elements, counted from 1. A
/// layer keeps samples apart, so that one sample shows all. Elements that are copied several times get the sum, in the
/// order of the copies.
pub(crate) fn moved(shape: &[usize], dy: &Tensor, layer: impl Fn(&Tensor) -> Tensor) -> Result<Tensor, NoGradient> {
    let (samples, sample) = shape.split_first().ok_or(NoGradient::Shapes)?;
    let size: usize = sample.iter().product();
    let digits = |digit: &dyn Fn(usize) -> usize| {
        let numbers = (1..=size).map(|i| digit(i) as f32).collect();
        tensor(&[&[1], sample].concat(), numbers).map(|x| layer(&x))
    };
    let (low, high) = (digits(&|i| i % DIGIT)?, digits(&|i| i / DIGIT)?);
    let sources: Vec<usize> =
        low.data().iter().zip(high.data()).map(|(low, high)| *high as usize * DIGIT + *low as usize).collect();
    if sources.len() * samples != dy.data().len() || size == 0 {
        return Err(NoGradient::Shapes);
    }
    let mut dx = Tensor::zeros(shape);
    for (dx, dy) in dx.data_mut().chunks_exact_mut(size).zip(dy.data().chunks_exact(sources.len().max(1))) {
        for (source, d) in sources.iter().zip(dy) {
            if let Some(to) = source.checked_sub(1).and_then(|i| dx.get_mut(i)) {
                *to += d;
            }
        }
    }
    Ok(dx)
}

/// The parts of `dy` along an axis that tensors of these shapes were joined to.
pub(crate) fn split(shapes: &[Vec<usize>], axis: usize, dy: &Tensor) -> Vec<Option<Tensor>> {
    let mut from = 0;
    let part = |shape: &Vec<usize>| {
        let mut at: Vec<(usize, usize, isize)> = dy.shape().iter().map(|d| (0, *d, 1)).collect();
        let size = shape.get(axis).copied().unwrap_or(0);
        *at.get_mut(axis)? = (from, size, 1);
        from += size;
        Some(array::slice(dy, &at))
    };
    shapes.iter().map(part).collect()
}

/// For each output along an axis, the inputs that it is a weighted sum of: those of an image that has a one for each
/// input in a channel of its own.
fn taps(method: Interpolation, input: usize, output: usize) -> Result<Vec<Vec<(usize, f32)>>, NoGradient> {
    let mut unit = vec![0.0; input * input];
    unit.iter_mut().step_by(input + 1).for_each(|one| *one = 1.0);
    let matrix = method.resize(&tensor(&[1, input, 1, input], unit)?, [output, 1]);
    let weights = |row: &[f32]| row.iter().copied().enumerate().filter(|(_, w)| *w != 0.0).collect();
    Ok(matrix.data().chunks_exact(input.max(1)).map(weights).collect())
}

/// dX of images brought to a size: every method is a weighted sum along rows of weighted sums along columns.
pub(crate) fn resized(
    method: Interpolation,
    [oh, ow]: [usize; 2],
    shape: &[usize],
    dy: &Tensor,
) -> Result<Tensor, NoGradient> {
    let [_, h, w, c] = shape[..] else { return Err(NoGradient::Shapes) };
    let (rows, columns) = (taps(method, h, oh)?, taps(method, w, ow)?);
    let mut dx = Tensor::zeros(shape);
    let images = dy.data().chunks_exact((oh * ow * c).max(1));
    for (dx, dy) in dx.data_mut().chunks_exact_mut((h * w * c).max(1)).zip(images) {
        for (i, d) in dy.chunks_exact(c.max(1)).enumerate() {
            for (y, of_row) in &rows[i / ow] {
                for (x, of_column) in &columns[i % ow] {
                    let to = &mut dx[(y * w + x) * c..][..c];
                    to.iter_mut().zip(d).for_each(|(to, d)| *to += d * (of_row * of_column));
                }
            }
        }
    }
    Ok(dx)
}

/// dX of an image enlarged by whole factors.
pub(super) fn upsampled(layer: &UpSampling2D, shape: &[usize], dy: &Tensor) -> Result<Tensor, NoGradient> {
    match layer.interpolation {
        Interpolation::Nearest => moved(shape, dy, |x| layer.eval(&[x], &[])),
        Interpolation::Bilinear | Interpolation::Bicubic => {
            let [_, oh, ow, _] = dy.shape()[..] else { return Err(NoGradient::Shapes) };
            resized(layer.interpolation, [oh, ow], shape, dy)
        }
    }
}
