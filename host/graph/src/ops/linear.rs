//! Convolutions and dense layers.

use crate::ops::{ActivationFn, Layer, image, one, shaped, sides};
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel;
use shiftwise_tensor::kernel::ConvGeometry;
use shiftwise_tensor::tensor::Tensor;

/// Keras' two ways to pad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// No padding.
    Valid,
    /// Zeros so that the output has ceil(input / stride) pixels.
    Same,
}

impl Padding {
    /// The padding of a Keras name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Valid, Self::Same].into_iter().find(|padding| padding.name() == name)
    }

    /// Keras' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Same => "same",
        }
    }

    /// The sliding window over an input of `size` (height, width); an error if no output remains.
    pub fn window(
        self,
        size: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
    ) -> Result<Window, String> {
        let short = |p: [usize; 2]| p.map(|v| v as u16);
        let mut window =
            Window { kernel: short(kernel), stride: short(stride), dilation: short(dilation), ..Window::POINT };
        for (axis, &pixels) in size.iter().enumerate() {
            if self == Self::Same {
                let (before, after) = Window::same_padding(
                    pixels as u32,
                    window.kernel[axis],
                    window.stride[axis],
                    window.dilation[axis],
                );
                window.pad_before[axis] = before;
                window.pad_after[axis] = after;
            }
            if window.outputs(axis, pixels as u32) == 0 {
                return Err(format!("its window of {} pixels does not fit into {pixels}", window.extent(axis)));
            }
        }
        Ok(window)
    }
}

/// Fails unless size, strides and dilation of a window are such that windows can have them.
pub(super) fn check_window(size: [usize; 2], strides: [usize; 2], dilation: [usize; 2]) -> Result<(), String> {
    sides("kernel size", 1, &size)?;
    sides("strides", 1, &strides)?;
    sides("dilation rate", 1, &dilation)
}

/// A kernel and a bias: what Conv2D, DepthwiseConv2D and Dense have in common.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// Kernel in Keras' layout.
    pub kernel: Tensor,
    /// Bias `[out]`.
    pub bias: Option<Tensor>,
    /// Activation applied last.
    pub activation: ActivationFn,
}

impl Weighted {
    pub(super) fn list(&self, kernel: &'static str) -> Vec<(&'static str, &Tensor)> {
        let bias = self.bias.as_ref().map(|b| ("bias", b));
        [Some((kernel, &self.kernel)), bias].into_iter().flatten().collect()
    }

    /// Fails unless the kernel has as many dimensions as `expected` names, none of them empty.
    pub(super) fn check_kernel(kernel: &Tensor, expected: &str) -> Result<(), String> {
        let rank = expected.split(',').count();
        let shape = kernel.shape();
        let fits = shape.len() == rank && !shape.contains(&0);
        fits.then_some(()).ok_or_else(|| format!("its kernel has shape {shape:?}, [{expected}] is expected"))
    }

    /// Fails unless there is a bias for each of `outputs` channels, if there is one.
    pub(super) fn check_bias(&self, outputs: usize) -> Result<(), String> {
        self.bias.as_ref().map_or(Ok(()), |bias| shaped("bias", bias, &[outputs]))
    }
}

/// Convolution; kernel `[kh, kw, ic / groups, oc]`.
#[derive(Clone, Debug)]
pub struct Conv2D {
    /// Kernel, bias, activation.
    pub w: Weighted,
    /// Strides, vertical and horizontal.
    pub strides: [usize; 2],
    /// Dilation rates.
    pub dilation: [usize; 2],
    /// Padding.
    pub padding: Padding,
    /// Groups of channels that are convolved apart.
    pub groups: usize,
}

impl Conv2D {
    /// Fails unless groups of channels have equal parts of the input channels and of the filters.
    pub fn check_groups(groups: usize, channels: usize, filters: usize) -> Result<(), String> {
        if groups == 0 || filters == 0 || !channels.is_multiple_of(groups) || !filters.is_multiple_of(groups) {
            return Err(format!("{groups} groups don't divide {channels} input channels and {filters} filters"));
        }
        Ok(())
    }
    /// Kernel height and width.
    pub fn kernel_size(&self) -> [usize; 2] {
        [self.w.kernel.shape()[0], self.w.kernel.shape()[1]]
    }
    /// The sliding window over an input of `[h, w, c]`.
    pub fn window(&self, input: &[usize]) -> Result<Window, String> {
        let [h, w, _] = image(&[input])?;
        self.padding.window([h, w], self.kernel_size(), self.strides, self.dilation)
    }
}

impl Conv2D {
    /// [`Layer::eval`] with a window of another padding.
    pub(crate) fn over(&self, x: &Tensor, weights: &[&Tensor], window: &Window) -> Tensor {
        let dims = [x.shape()[1], x.shape()[2], x.shape()[3]];
        let out = window_output(window, dims, weights[0].shape()[3]);
        let g = geometry(window, dims, out, self.groups);
        let packed = kernel::PackedF32::new(weights[0].data(), &g);
        let bias = weights.get(1).map(|b| b.data());
        per_image(x, out, |x, y| kernel::conv_f32(&packed, &g, x, bias, y))
    }
}

/// The batched output of a convolution-like layer: `run(geometry, image, output)` for every image, on all cores.
pub(super) fn per_image(input: &Tensor, out: [usize; 3], run: impl Fn(&[f32], &mut [f32]) + Sync) -> Tensor {
    use rayon::prelude::*;
    let n = input.shape()[0];
    let mut output = Tensor::scratch(&[n, out[0], out[1], out[2]]);
    let (from, to) = (input.data().len() / n.max(1), out.iter().product::<usize>());
    if from > 0 && to > 0 {
        input
            .data()
            .par_chunks_exact(from)
            .zip(output.data_mut().par_chunks_exact_mut(to))
            .for_each(|(x, y)| run(x, y));
    }
    output
}

pub(crate) fn geometry(window: &Window, input: [usize; 3], output: [usize; 3], groups: usize) -> ConvGeometry {
    let long = |p: [u16; 2]| p.map(usize::from);
    ConvGeometry {
        in_h: input[0],
        in_w: input[1],
        in_c: input[2],
        out_h: output[0],
        out_w: output[1],
        out_c: output[2],
        kernel: long(window.kernel),
        stride: long(window.stride),
        dilation: long(window.dilation),
        pad_before: long(window.pad_before),
        groups,
    }
}

/// Output `[oh, ow, channels]` of a window over `[h, w, c]`.
pub(crate) fn window_output(window: &Window, input: [usize; 3], channels: usize) -> [usize; 3] {
    [window.outputs(0, input[0] as u32) as usize, window.outputs(1, input[1] as u32) as usize, channels]
}

impl Layer for Conv2D {
    fn class(&self) -> &str {
        "Conv2D"
    }
    fn check(&self) -> Result<(), String> {
        Weighted::check_kernel(&self.w.kernel, "height, width, input channels / groups, filters")?;
        let k = self.w.kernel.shape();
        Self::check_groups(self.groups, k[2].saturating_mul(self.groups), k[3])?;
        self.w.check_bias(k[3])?;
        check_window([k[0], k[1]], self.strides, self.dilation)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = image(inputs)?;
        let (k, groups) = (self.w.kernel.shape(), self.groups);
        if k[2] * groups != input[2] {
            return Err(format!("its kernel takes {} input channels and its input has {}", k[2] * groups, input[2]));
        }
        Ok(window_output(&self.window(&input)?, input, k[3]).to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        self.w.list("kernel")
    }
    fn activation(&self) -> ActivationFn {
        self.w.activation
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let window = self.window(&inputs[0].shape()[1..]).unwrap_or(Window::POINT);
        self.over(inputs[0], weights, &window)
    }
    fn macs(&self, output: &[usize]) -> u64 {
        (output.iter().product::<usize>() * self.w.kernel.shape()[..3].iter().product::<usize>()) as u64
    }
}

/// Depthwise convolution; kernel `[kh, kw, c, multiplier]`, output channel = input channel · multiplier + m.
#[derive(Clone, Debug)]
pub struct DepthwiseConv2D {
    /// Kernel, bias, activation.
    pub w: Weighted,
    /// Strides.
    pub strides: [usize; 2],
    /// Dilation rates.
    pub dilation: [usize; 2],
    /// Padding.
    pub padding: Padding,
}

impl DepthwiseConv2D {
    /// The sliding window over an input of `[h, w, c]`.
    pub fn window(&self, input: &[usize]) -> Result<Window, String> {
        let [h, w, _] = image(&[input])?;
        let k = self.w.kernel.shape();
        self.padding.window([h, w], [k[0], k[1]], self.strides, self.dilation)
    }
}

impl Layer for DepthwiseConv2D {
    fn class(&self) -> &str {
        "DepthwiseConv2D"
    }
    fn check(&self) -> Result<(), String> {
        Weighted::check_kernel(&self.w.kernel, "height, width, channels, multiplier")?;
        let k = self.w.kernel.shape();
        self.w.check_bias(k[2] * k[3])?;
        check_window([k[0], k[1]], self.strides, self.dilation)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = image(inputs)?;
        let k = self.w.kernel.shape();
        if k[2] != input[2] {
            return Err(format!("its kernel takes {} channels and its input has {}", k[2], input[2]));
        }
        Ok(window_output(&self.window(&input)?, input, k[2] * k[3]).to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        self.w.list("depthwise_kernel")
    }
    fn activation(&self) -> ActivationFn {
        self.w.activation
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let window = self.window(&inputs[0].shape()[1..]).unwrap_or(Window::POINT);
        self.over(inputs[0], weights, &window)
    }
    fn macs(&self, output: &[usize]) -> u64 {
        (output.iter().product::<usize>() * self.w.kernel.shape()[..2].iter().product::<usize>()) as u64
    }
}

impl DepthwiseConv2D {
    /// [`Layer::eval`] with a window of another padding.
    pub(crate) fn over(&self, x: &Tensor, weights: &[&Tensor], window: &Window) -> Tensor {
        let dims = [x.shape()[1], x.shape()[2], x.shape()[3]];
        let out = window_output(window, dims, weights[0].shape()[2] * weights[0].shape()[3]);
        let g = geometry(window, dims, out, dims[2]);
        let bias = weights.get(1).map(|b| b.data());
        per_image(x, out, |x, y| kernel::depthwise_f32(&g, weights[0].data(), x, bias, y))
    }
}

/// Dense layer over the last axis; kernel `[in, out]`.
#[derive(Clone, Debug)]
pub struct Dense {
    /// Kernel, bias, activation.
    pub w: Weighted,
}

impl Layer for Dense {
    fn class(&self) -> &str {
        "Dense"
    }
    fn check(&self) -> Result<(), String> {
        Weighted::check_kernel(&self.w.kernel, "inputs, units")?;
        self.w.check_bias(self.w.kernel.shape()[1])
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let k = self.w.kernel.shape();
        match one(inputs)?.split_last() {
            Some((last, rest)) if *last == k[0] => Ok([rest, &[k[1]]].concat()),
            _ => Err(format!("its kernel takes {} inputs and its input has shape {:?}", k[0], inputs[0])),
        }
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        self.w.list("kernel")
    }
    fn activation(&self) -> ActivationFn {
        self.w.activation
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let (ic, oc) = (weights[0].shape()[0], weights[0].shape()[1]);
        let pixels = x.data().len() / ic / x.shape()[0].max(1);
        let g = ConvGeometry::dense(pixels, ic, oc);
        let packed = kernel::PackedF32::new(weights[0].data(), &g);
        let bias = weights.get(1).map(|b| b.data());
        let y = per_image(x, [1, pixels, oc], |x, y| kernel::conv_f32(&packed, &g, x, bias, y));
        let mut shape = x.shape().to_vec();
        shape.pop();
        shape.push(oc);
        y.reshaped(shape).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
    fn macs(&self, output: &[usize]) -> u64 {
        (output.iter().product::<usize>() * self.w.kernel.shape()[0]) as u64
    }
}
