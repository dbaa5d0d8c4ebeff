//! Transposed and separable convolutions.

use crate::ops::linear::{check_window, geometry, per_image, window_output};
use crate::ops::{ActivationFn, Conv2D, DepthwiseConv2D, Layer, Padding, Weighted, image, shaped, sides};
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel;
use shiftwise_tensor::kernel::ConvGeometry;
use shiftwise_tensor::tensor::Tensor;

/// Transposed convolution; kernel `[kh, kw, oc, ic]`.
///
/// out[y, x] = Σ in[i, j] · kernel[ky, kx] over all taps with y + pad = i·stride + ky·dilation.
#[derive(Clone, Debug)]
pub struct Conv2DTranspose {
    /// Kernel, bias, activation.
    pub w: Weighted,
    /// Strides, vertical and horizontal.
    pub strides: [usize; 2],
    /// Dilation rates.
    pub dilation: [usize; 2],
    /// Padding.
    pub padding: Padding,
    /// Rows and columns added to the output's size, if the model says so itself.
    pub output_padding: Option<[usize; 2]>,
}

impl Conv2DTranspose {
    /// Output rows and columns for an input of `size`, by Keras' rule.
    fn output_size(&self, size: [usize; 2]) -> Result<[usize; 2], String> {
        let mut out = [0; 2];
        for (axis, &pixels) in size.iter().enumerate() {
            let stride = self.strides[axis];
            let extent = (self.w.kernel.shape()[axis] - 1) * self.dilation[axis] + 1;
            out[axis] = match (self.output_padding, self.padding) {
                (None, Padding::Same) => pixels * stride,
                (None, Padding::Valid) => pixels * stride + extent.saturating_sub(stride),
                (Some(more), padding) => {
                    let cut = if padding == Padding::Same { 2 * (extent / 2) } else { 0 };
                    ((pixels - 1) * stride + extent + more[axis]).saturating_sub(cut)
                }
            };
        }
        if out.contains(&0) { Err(format!("nothing remains of its input of {size:?} pixels")) } else { Ok(out) }
    }
    /// The window of the convolution whose transpose this is: from the output's pixels to the input's.
    ///
    /// `pad_before` is what the output starts before the first tap.
    pub fn window(&self, input: &[usize]) -> Result<Window, String> {
        let [h, w, _] = image(&[input])?;
        let out = self.output_size([h, w])?;
        let short = |p: [usize; 2]| p.map(|v| v as u16);
        let k = self.w.kernel.shape();
        let mut window = Window {
            kernel: short([k[0], k[1]]),
            stride: short(self.strides),
            dilation: short(self.dilation),
            ..Window::POINT
        };
        if self.padding == Padding::Same {
            for (axis, pixels) in out.into_iter().enumerate() {
                let (before, after) = Window::same_padding(
                    pixels as u32,
                    window.kernel[axis],
                    window.stride[axis],
                    window.dilation[axis],
                );
                window.pad_before[axis] = before;
                window.pad_after[axis] = after;
            }
        }
        Ok(window)
    }
}

/// Taps and input rows (or columns) that meet in the outputs `phase, phase + stride, …` of one axis.
struct Phase {
    /// Taps, so that their inputs are consecutive in the order of this list.
    taps: Vec<usize>,
    /// Input pixel of the first tap at the first output; may be before the first pixel.
    first: i64,
    /// Input pixels from one tap to the next.
    step: usize,
}

/// The phase of one axis. Output y meets tap k at input (y + pad − k·dilation) / stride where that is whole: the taps
/// that fit form a progression, walked from the last to the first so that inputs ascend.
fn phase(y: usize, kernel: usize, stride: usize, dilation: usize, pad: usize) -> Phase {
    let fits = |k: &usize| (y + pad) as i64 - (k * dilation) as i64;
    let mut taps: Vec<usize> = (0..kernel).filter(|k| fits(k).rem_euclid(stride as i64) == 0).collect();
    taps.reverse();
    let at = |k: usize| fits(&k).div_euclid(stride as i64);
    let first = taps.first().map_or(0, |k| at(*k));
    let step = taps.get(1).map_or(1, |k| (at(*k) - first) as usize);
    Phase { taps, first, step }
}

impl Layer for Conv2DTranspose {
    fn class(&self) -> &str {
        "Conv2DTranspose"
    }
    fn check(&self) -> Result<(), String> {
        Weighted::check_kernel(&self.w.kernel, "height, width, filters, input channels")?;
        let k = self.w.kernel.shape();
        self.w.check_bias(k[2])?;
        sides("output padding", 0, &self.output_padding.unwrap_or_default())?;
        check_window([k[0], k[1]], self.strides, self.dilation)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [h, w, c] = image(inputs)?;
        let k = self.w.kernel.shape();
        if k[3] != c {
            return Err(format!("its kernel takes {} input channels and its input has {c}", k[3]));
        }
        let [oh, ow] = self.output_size([h, w])?;
        Ok(vec![oh, ow, k[2]])
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        self.w.list("kernel")
    }
    fn activation(&self) -> ActivationFn {
        self.w.activation
    }
    /// One dense convolution for each of the stride_h·stride_w phases of the output.
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let dims = [x.shape()[1], x.shape()[2], x.shape()[3]];
        let out = self.output_shape(&[&dims]).unwrap_or_else(|_| vec![0; 3]);
        let window = self.window(&dims).unwrap_or(Window::POINT);
        let k = weights[0].shape();
        let (oc, ic) = (k[2], k[3]);
        let bias = weights.get(1).map(|b| b.data());
        let along = |axis: usize| -> Vec<Phase> {
            let pad = usize::from(window.pad_before[axis]);
            (0..self.strides[axis].min(out[axis]))
                .map(|y| phase(y, k[axis], self.strides[axis], self.dilation[axis], pad))
                .collect()
        };
        let (rows, columns) = (along(0), along(1));
        let mut passes = Vec::new();
        for (py, row) in rows.iter().enumerate() {
            for (px, column) in columns.iter().enumerate() {
                let mut taps = Vec::with_capacity(row.taps.len() * column.taps.len() * ic * oc);
                for ky in &row.taps {
                    for kx in &column.taps {
                        let tap = &weights[0].data()[(ky * k[1] + kx) * oc * ic..][..oc * ic];
                        taps.extend((0..ic).flat_map(|i| (0..oc).map(move |o| tap[o * ic + i])));
                    }
                }
                // Padding before the first pixel may also be negative: the window then starts inside.
                let size = [(out[0] - py).div_ceil(self.strides[0]), (out[1] - px).div_ceil(self.strides[1])];
                passes.push(((py, px), row, column, taps, size));
            }
        }
        per_image(x, [out[0], out[1], oc], |image, y| {
            // What no tap reaches.
            match bias {
                Some(bias) => y.chunks_exact_mut(oc).for_each(|p| p.copy_from_slice(bias)),
                None => y.fill(0.0),
            }
            for ((py, px), row, column, taps, size) in &passes {
                if taps.is_empty() {
                    continue;
                }
                let pass = Pass { row, column, taps, size: *size, dims, channels: oc };
                let part = pass.run(image, bias);
                for (i, pixel) in part.chunks_exact(oc).enumerate() {
                    let (oy, ox) = (py + i / size[1] * self.strides[0], px + i % size[1] * self.strides[1]);
                    y[(oy * out[1] + ox) * oc..][..oc].copy_from_slice(pixel);
                }
            }
        })
    }
    fn macs(&self, output: &[usize]) -> u64 {
        // Every input pixel meets every tap; counted on the output, whose pixels are stride² times as many.
        let k = self.w.kernel.shape();
        let pixels = output[..2].iter().product::<usize>() / (self.strides[0] * self.strides[1]).max(1);
        (pixels * k.iter().product::<usize>()) as u64
    }
}

/// One phase pair over one image.
struct Pass<'a> {
    row: &'a Phase,
    column: &'a Phase,
    taps: &'a [f32],
    size: [usize; 2],
    dims: [usize; 3],
    channels: usize,
}

impl Pass<'_> {
    fn run(&self, image: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let [h, w, c] = self.dims;
        let skip = [self.row.first.max(0) as usize, self.column.first.max(0) as usize];
        if skip[0] >= h || skip[1] >= w {
            let pixels = self.size[0] * self.size[1];
            return match bias {
                Some(b) => b.repeat(pixels),
                None => vec![0.0; pixels * self.channels],
            };
        }
        let g = ConvGeometry {
            in_h: h - skip[0],
            in_w: w - skip[1],
            in_c: c,
            out_h: self.size[0],
            out_w: self.size[1],
            out_c: self.channels,
            kernel: [self.row.taps.len(), self.column.taps.len()],
            stride: [1, 1],
            dilation: [self.row.step, self.column.step],
            pad_before: [(-self.row.first).max(0) as usize, (-self.column.first).max(0) as usize],
            groups: 1,
        };
        let inside: Vec<f32>;
        let input = if skip == [0, 0] {
            image
        } else {
            inside = image.chunks_exact(w * c).skip(skip[0]).flat_map(|r| r[skip[1] * c..].iter().copied()).collect();
            &inside
        };
        let mut out = vec![0.0; g.output_len()];
        kernel::conv_f32(&kernel::PackedF32::new(self.taps, &g), &g, input, bias, &mut out);
        out
    }
}

/// A depthwise convolution followed by a 1×1 one: kernels `[kh, kw, c, m]` and `[1, 1, c·m, oc]`.
///
/// Exists only in float graphs: the first pass cuts it into its two parts.
#[derive(Clone, Debug)]
pub struct SeparableConv2D {
    /// Kernel of the depthwise part.
    pub depthwise: Tensor,
    /// Kernel of the 1×1 part, bias, activation.
    pub w: Weighted,
    /// Strides.
    pub strides: [usize; 2],
    /// Dilation rates.
    pub dilation: [usize; 2],
    /// Padding.
    pub padding: Padding,
}

impl SeparableConv2D {
    fn window(&self, input: &[usize]) -> Result<Window, String> {
        let [h, w, _] = image(&[input])?;
        let k = self.depthwise.shape();
        self.padding.window([h, w], [k[0], k[1]], self.strides, self.dilation)
    }
}

impl SeparableConv2D {
    /// The same as two layers; bias and activation belong to the second.
    pub fn parts(&self) -> (DepthwiseConv2D, Conv2D) {
        let plain = Weighted { kernel: self.depthwise.clone(), bias: None, activation: ActivationFn::Linear };
        let (strides, dilation, padding) = (self.strides, self.dilation, self.padding);
        let once = [1, 1];
        let pointwise = Conv2D { w: self.w.clone(), strides: once, dilation: once, padding: Padding::Valid, groups: 1 };
        (DepthwiseConv2D { w: plain, strides, dilation, padding }, pointwise)
    }
}

impl Layer for SeparableConv2D {
    fn class(&self) -> &str {
        "SeparableConv2D"
    }
    fn check(&self) -> Result<(), String> {
        Weighted::check_kernel(&self.depthwise, "height, width, channels, multiplier")?;
        Weighted::check_kernel(&self.w.kernel, "1, 1, channels · multiplier, filters")?;
        let (k, filters) = (self.depthwise.shape(), self.w.kernel.shape()[3]);
        shaped("pointwise kernel", &self.w.kernel, &[1, 1, k[2] * k[3], filters])?;
        self.w.check_bias(filters)?;
        check_window([k[0], k[1]], self.strides, self.dilation)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = image(inputs)?;
        if self.depthwise.shape()[2] != input[2] {
            return Err(format!(
                "its kernel takes {} channels and its input has {}",
                self.depthwise.shape()[2],
                input[2]
            ));
        }
        Ok(window_output(&self.window(&input)?, input, self.w.kernel.shape()[3]).to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        let first = std::iter::once(("depthwise_kernel", &self.depthwise));
        first.chain(self.w.list("pointwise_kernel")).collect()
    }
    fn activation(&self) -> ActivationFn {
        self.w.activation
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let dims = [x.shape()[1], x.shape()[2], x.shape()[3]];
        let window = self.window(&dims).unwrap_or(Window::POINT);
        let [_, _, c, m] = [0, 1, 2, 3].map(|i| weights[0].shape()[i]);
        let middle = window_output(&window, dims, c * m);
        let g = geometry(&window, dims, middle, c);
        let filtered = per_image(x, middle, |x, y| kernel::depthwise_f32(&g, weights[0].data(), x, None, y));
        let out = [middle[0], middle[1], weights[1].shape()[3]];
        let g = geometry(&Window::POINT, middle, out, 1);
        let packed = kernel::PackedF32::new(weights[1].data(), &g);
        let bias = weights.get(2).map(|b| b.data());
        per_image(&filtered, out, |x, y| kernel::conv_f32(&packed, &g, x, bias, y))
    }
    fn macs(&self, output: &[usize]) -> u64 {
        let pixels = output[..2].iter().product::<usize>();
        (pixels * (self.depthwise.data().len() + self.w.kernel.data().len())) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, tap by tap.
    fn scatter(layer: &Conv2DTranspose, x: &Tensor) -> Vec<f32> {
        let [h, w, ic] = [x.shape()[1], x.shape()[2], x.shape()[3]];
        let out = layer.output_shape(&[&x.shape()[1..]]).unwrap();
        let pad = layer.window(&x.shape()[1..]).unwrap().pad_before.map(i64::from);
        let k = layer.w.kernel.shape();
        let mut y: Vec<f32> = layer.w.bias.as_ref().unwrap().data().repeat(out[0] * out[1]);
        for (i, j, ky, kx) in (0..h).flat_map(|i| {
            (0..w).flat_map(move |j| (0..k[0]).flat_map(move |ky| (0..k[1]).map(move |kx| (i, j, ky, kx))))
        }) {
            let oy = (i * layer.strides[0] + ky * layer.dilation[0]) as i64 - pad[0];
            let ox = (j * layer.strides[1] + kx * layer.dilation[1]) as i64 - pad[1];
            if !(0..out[0] as i64).contains(&oy) || !(0..out[1] as i64).contains(&ox) {
                continue;
            }
            for o in 0..k[2] {
                for c in 0..ic {
                    let weight = layer.w.kernel.data()[((ky * k[1] + kx) * k[2] + o) * ic + c];
                    y[(oy as usize * out[1] + ox as usize) * k[2] + o] += x.data()[(i * w + j) * ic + c] * weight;
                }
            }
        }
        y
    }

    #[test]
    fn phases_meet_every_tap_once() {
        // Small whole numbers, so that sums are exact in any order.
        let numbers = |shape: &[usize]| {
            let data = (0..shape.iter().product::<usize>()).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            Tensor::new(shape.to_vec(), data).unwrap()
        };
        for (kernel, strides, dilation, padding, output_padding) in [
            ([3, 3], [2, 2], [1, 1], Padding::Same, None),
            ([2, 2], [2, 2], [1, 1], Padding::Valid, None),
            ([4, 3], [2, 1], [1, 1], Padding::Same, None),
            ([1, 5], [3, 2], [1, 1], Padding::Valid, None),
            ([3, 3], [1, 1], [2, 2], Padding::Same, None),
            ([3, 2], [2, 3], [1, 1], Padding::Same, Some([1, 2])),
            ([5, 5], [3, 3], [1, 1], Padding::Same, None),
            ([3, 3], [2, 2], [3, 3], Padding::Valid, None),
        ] {
            let w = Weighted {
                kernel: numbers(&[kernel[0], kernel[1], 2, 3]),
                bias: Some(numbers(&[2])),
                activation: ActivationFn::Linear,
            };
            let layer = Conv2DTranspose { w, strides, dilation, padding, output_padding };
            let x = numbers(&[1, 3, 4, 3]);
            let weights = layer.weights();
            let y = layer.eval(&[&x], &weights.iter().map(|(_, t)| *t).collect::<Vec<_>>());
            assert_eq!(y.data(), scatter(&layer, &x), "{kernel:?} {strides:?} {dilation:?} {padding:?}");
        }
    }
}
