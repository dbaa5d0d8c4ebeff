//! Gradients of pooling.

use crate::backward::{Call, NoGradient, functions, scaled_by};
use crate::ops::linear::window_output;
use crate::ops::pool::PoolWindow;
use crate::ops::{AveragePooling2D, GlobalAveragePooling2D};
use shiftwise_core::shape::Window;
use shiftwise_tensor::tensor::Tensor;

/// Calls `visit(output pixel, input pixels)` for each window of each image; pixels are counted over the batch.
fn windows(window: &Window, shape: &[usize], mut visit: impl FnMut(usize, &[usize])) -> Result<(), NoGradient> {
    let [n, h, w, c] = shape[..] else { return Err(NoGradient::Shapes) };
    let [oh, ow, _] = window_output(window, [h, w, c], c);
    let mut pixels = Vec::new();
    for (image, oy, ox) in (0..n).flat_map(|i| (0..oh).flat_map(move |y| (0..ow).map(move |x| (i, y, x)))) {
        let ((y0, y1, top), (x0, x1, left)) = (window.taps(0, oy, h), window.taps(1, ox, w));
        pixels.clear();
        let rows = (top..).take(y1 - y0);
        pixels.extend(rows.flat_map(|y| (left..).take(x1 - x0).map(move |x| (image * h + y) * w + x)));
        visit((image * oh + oy) * ow + ox, &pixels);
    }
    Ok(())
}

/// dX of the largest value of each window: it goes to the first of equal ones, by rows, as TensorFlow does on a CPU.
pub(super) fn max(pool: &PoolWindow, call: &Call<'_>, dy: &Tensor) -> Result<Tensor, NoGradient> {
    let x = call.x()?;
    let window = pool.window(&x.shape()[1..]).map_err(|_| NoGradient::Shapes)?;
    let (c, data) = (x.shape()[3], x.data());
    let mut dx = Tensor::zeros(x.shape());
    let to = dx.data_mut();
    windows(&window, x.shape(), |output, pixels| {
        for channel in 0..c {
            let at = |pixel: &usize| pixel * c + channel;
            let larger = |best: usize, next: usize| if data[next] > data[best] { next } else { best };
            if let Some(best) = pixels.iter().map(at).reduce(larger) {
                to[best] += dy.data()[output * c + channel];
            }
        }
    })?;
    Ok(dx)
}

/// dX of the average of each window, of which padding is no part.
pub(super) fn average(layer: &AveragePooling2D, call: &Call<'_>, dy: &Tensor) -> Result<Tensor, NoGradient> {
    let shape = call.shape()?;
    let window = layer.pool.window(&shape[1..]).map_err(|_| NoGradient::Shapes)?;
    let (c, factor) = (shape[3], layer.dpu_factor(&dy.shape()[1..]));
    let mut dx = Tensor::zeros(shape);
    let to = dx.data_mut();
    windows(&window, shape, |output, pixels| {
        let share = factor / pixels.len().max(1) as f32;
        for pixel in pixels {
            let to = &mut to[pixel * c..][..c];
            to.iter_mut().zip(&dy.data()[output * c..]).for_each(|(to, d)| *to += d * share);
        }
    })?;
    Ok(dx)
}

/// dX of the average over all pixels.
pub(super) fn global_average(
    layer: &GlobalAveragePooling2D,
    call: &Call<'_>,
    dy: &Tensor,
) -> Result<Tensor, NoGradient> {
    let shape = call.shape()?;
    let [n, h, w, c] = shape[..] else { return Err(NoGradient::Shapes) };
    let factor = layer.dpu_factor(&[h, w, c]) / (h * w) as f32;
    functions::spread(shape, &[n, 1, 1, c], &scaled_by(dy, &[factor]), 1.0)
}

/// dX of the largest value over all pixels, which equal ones share: Keras computes it as a reduction, not as a pooling.
pub(super) fn global_max(call: &Call<'_>, dy: &Tensor) -> Result<Tensor, NoGradient> {
    functions::spread_to_extremes(call.x()?, &[1, 2], dy, true)
}
