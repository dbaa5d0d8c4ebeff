//! Pooling.

use crate::ops::linear::window_output;
use crate::ops::{Layer, Padding, image, sides};
use shiftwise_core::model::Combine;
use shiftwise_core::shape::Window;
use shiftwise_tensor::tensor::Tensor;

/// Size, strides and padding of a pooling layer.
#[derive(Clone, Debug)]
pub struct PoolWindow {
    /// Window height and width.
    pub size: [usize; 2],
    /// Strides.
    pub strides: [usize; 2],
    /// Padding.
    pub padding: Padding,
}

impl PoolWindow {
    fn check(&self) -> Result<(), String> {
        sides("pool size", 1, &self.size)?;
        sides("strides", 1, &self.strides)
    }
    /// The sliding window over an input of `[h, w, c]`.
    pub fn window(&self, input: &[usize]) -> Result<Window, String> {
        let [h, w, _] = image(&[input])?;
        self.padding.window([h, w], self.size, self.strides, [1, 1])
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = image(inputs)?;
        Ok(window_output(&self.window(&input)?, input, input[2]).to_vec())
    }
}

/// Runs `reduce` on the values of every window and channel; padding is left out.
fn pool(x: &Tensor, window: &Window, reduce: impl Fn(&mut dyn Iterator<Item = f32>) -> f32) -> Tensor {
    let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
    let [oh, ow, _] = window_output(window, [h, w, c], c);
    let mut out = Tensor::zeros(&[n, oh, ow, c]);
    let data = x.data();
    let range = |axis: usize, o: usize, size: usize| {
        let start =
            (o * usize::from(window.stride[axis])) as isize - isize::try_from(window.pad_before[axis]).unwrap_or(0);
        let end = (start + isize::try_from(window.kernel[axis]).unwrap_or(0)).max(0) as usize;
        (start.max(0) as usize, end.min(size))
    };
    for (i, y) in out.data_mut().iter_mut().enumerate() {
        let (ch, pixel) = (i % c, i / c);
        let (ox, oy, image) = (pixel % ow, pixel / ow % oh, pixel / ow / oh);
        let ((y0, y1), (x0, x1)) = (range(0, oy, h), range(1, ox, w));
        let mut values = (y0..y1).flat_map(|yy| (x0..x1).map(move |xx| data[((image * h + yy) * w + xx) * c + ch]));
        *y = reduce(&mut values);
    }
    out
}

/// Largest value of each window.
#[derive(Clone, Debug)]
pub struct MaxPooling2D {
    /// Geometry.
    pub pool: PoolWindow,
}

impl Layer for MaxPooling2D {
    fn class(&self) -> &str {
        "MaxPooling2D"
    }
    fn check(&self) -> Result<(), String> {
        self.pool.check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.pool.output_shape(inputs)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let window = self.pool.window(&inputs[0].shape()[1..]).unwrap_or(Window::POINT);
        pool(inputs[0], &window, |v| v.fold(f32::NEG_INFINITY, |m, x| Combine::Maximum.apply(x, m)))
    }
}

/// The factor `m / 2^n` by which the DPU replaces division by the window size.
///
/// Source: the vendor's quantizer; special sizes first, otherwise the smallest `n` below 7 + ceil(log2(kh·kw)) that
/// brings `m / 2^n` closest to `1 / (kh·kw)`, with `m = rint(2^n / (kh·kw))`. `None` for windows above 255, which the
/// vendor leaves unscaled.
pub fn average_factor(kh: usize, kw: usize) -> Option<(u16, u8)> {
    if kh > 255 || kw > 255 {
        return None;
    }
    Some(match (kh, kw) {
        (3, 3) => (7, 6),
        (5, 5) => (10, 8),
        (6, 6) => (7, 8),
        (7, 7) => (21, 10),
        (14, 14) => (21, 12),
        _ => {
            let area = (kh * kw) as f32;
            let limit = 7 + area.log2().ceil() as u8;
            let error = |n: u8| {
                let scale = f32::from(2u8).powi(n.into());
                let m = libm::rintf(scale / area);
                (m as u16, (m / scale - 1.0 / area).abs())
            };
            let mut best = (0u8, error(0));
            for n in 1..limit {
                let candidate = error(n);
                if candidate.1 < best.1.1 {
                    best = (n, candidate);
                }
            }
            (best.1.0, best.0)
        }
    })
}

/// `average_factor · kh·kw` in f32: what the vendor multiplies the float average with.
fn rescale(kh: usize, kw: usize) -> f32 {
    average_factor(kh, kw).map_or(1.0, |(m, n)| f32::from(m) / f32::from(2u8).powi(n.into()) * (kh * kw) as f32)
}

/// Greatest common divisor, for the square that the DPU pads a rectangular window to.
fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The window whose factor applies to a pooling that covers its whole input: the square of the least common multiple
/// when that is at most 8, else the window itself.
fn covering_window(kh: usize, kw: usize) -> (usize, usize) {
    let lcm = kh / gcd(kh, kw).max(1) * kw;
    if kh != kw && lcm <= 8 { (lcm, lcm) } else { (kh, kw) }
}

/// Average of each window; padded cells don't count.
#[derive(Clone, Debug)]
pub struct AveragePooling2D {
    /// Geometry.
    pub pool: PoolWindow,
    /// Scaled by the DPU's factor.
    pub dpu: bool,
}

impl AveragePooling2D {
    /// The window whose factor the vendor's float simulation applies; `None` where it applies none (a rectangular
    /// window that doesn't cover the input).
    pub fn factor_window(&self, output: &[usize]) -> Option<(usize, usize)> {
        let [kh, kw] = self.pool.size;
        match (kh == kw, output) {
            (true, _) => Some((kh, kw)),
            (false, [1, 1, _]) => Some(covering_window(kh, kw)).filter(|(a, b)| a == b),
            _ => None,
        }
    }
}

impl AveragePooling2D {
    /// What the average is multiplied with, for an output of `[h, w, c]`.
    pub fn dpu_factor(&self, output: &[usize]) -> f32 {
        self.factor_window(output).filter(|_| self.dpu).map_or(1.0, |(a, b)| rescale(a, b))
    }
}

impl Layer for AveragePooling2D {
    fn class(&self) -> &str {
        if self.dpu { "VitisAveragePooling2D" } else { "AveragePooling2D" }
    }
    fn check(&self) -> Result<(), String> {
        self.pool.check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.pool.output_shape(inputs)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let window = self.pool.window(&inputs[0].shape()[1..]).unwrap_or(Window::POINT);
        let mut out = pool(inputs[0], &window, |v| {
            let (sum, n) = v.fold((0.0f32, 0u32), |(s, n), x| (s + x, n + 1));
            sum / n.max(1) as f32
        });
        if self.dpu {
            let factor = self.dpu_factor(&out.shape()[1..]);
            out.data_mut().iter_mut().for_each(|x| *x *= factor);
        }
        out
    }
}

/// Average over all pixels of a channel.
#[derive(Clone, Debug)]
pub struct GlobalAveragePooling2D {
    /// Output `[1, 1, c]` instead of `[c]`.
    pub keepdims: bool,
    /// Scaled by the DPU's factor.
    pub dpu: bool,
}

impl GlobalAveragePooling2D {
    /// The window whose factor applies to an input of `[h, w, c]`.
    pub fn factor_window(&self, input: &[usize]) -> (usize, usize) {
        covering_window(input[0], input[1])
    }
    /// What the average is multiplied with, for an input of `[h, w, c]`.
    pub fn dpu_factor(&self, input: &[usize]) -> f32 {
        let (a, b) = self.factor_window(input);
        if self.dpu { rescale(a, b) } else { 1.0 }
    }
}

impl Layer for GlobalAveragePooling2D {
    fn class(&self) -> &str {
        if self.dpu { "VitisGlobalAveragePooling2D" } else { "GlobalAveragePooling2D" }
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [_, _, c] = image(inputs)?;
        Ok(if self.keepdims { vec![1, 1, c] } else { vec![c] })
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        let factor = self.dpu_factor(&[h, w, c]);
        let mut out = vec![0.0f32; n * c];
        for (image, sums) in x.data().chunks_exact(h * w * c).zip(out.chunks_exact_mut(c)) {
            for pixel in image.chunks_exact(c) {
                sums.iter_mut().zip(pixel).for_each(|(s, p)| *s += p);
            }
            sums.iter_mut().for_each(|s| *s = *s / (h * w) as f32 * factor);
        }
        let shape = if self.keepdims { vec![n, 1, 1, c] } else { vec![n, c] };
        Tensor::new(shape, out).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

/// Largest value of a channel over all pixels.
#[derive(Clone, Debug)]
pub struct GlobalMaxPooling2D {
    /// Output `[1, 1, c]` instead of `[c]`.
    pub keepdims: bool,
}

impl Layer for GlobalMaxPooling2D {
    fn class(&self) -> &str {
        "GlobalMaxPooling2D"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [_, _, c] = image(inputs)?;
        Ok(if self.keepdims { vec![1, 1, c] } else { vec![c] })
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let (n, c) = (x.shape()[0], x.shape()[3]);
        let mut out = vec![f32::NEG_INFINITY; n * c];
        let per_image = (x.data().len() / n.max(1)).max(1);
        for (image, largest) in x.data().chunks_exact(per_image).zip(out.chunks_exact_mut(c)) {
            for pixel in image.chunks_exact(c) {
                largest.iter_mut().zip(pixel).for_each(|(m, p)| *m = Combine::Maximum.apply(*p, *m));
            }
        }
        let shape = if self.keepdims { vec![n, 1, 1, c] } else { vec![n, c] };
        Tensor::new(shape, out).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_factor_follows_the_vendors_search() {
        let table = [
            ((1, 1), (1, 0)),
            ((2, 2), (1, 2)),
            ((8, 8), (1, 6)),
            ((2, 3), (85, 9)),
            ((3, 4), (85, 10)),
            ((1, 7), (73, 9)),
            ((9, 9), (101, 13)),
            ((10, 10), (41, 12)),
            ((13, 13), (97, 14)),
            ((255, 255), (65, 22)),
        ];
        for ((kh, kw), want) in table {
            assert_eq!(average_factor(kh, kw), Some(want), "{kh}x{kw}");
        }
        assert_eq!(average_factor(256, 1), None);
    }
}
