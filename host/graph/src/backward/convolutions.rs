//! Gradients of convolutions and dense layers.

use rayon::prelude::*;

use crate::backward::{Call, Grads, NoGradient, channels, reshaped, tensor};
use crate::ops::linear::{geometry, window_output};
use crate::ops::{Conv2D, Conv2DTranspose, DepthwiseConv2D, Layer, SeparableConv2D};
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel::backward::{InputGradient, conv_weights, depthwise_weights};
use shiftwise_tensor::kernel::{ConvGeometry, PackedF32, conv_f32, conv_f32_with};
use shiftwise_tensor::tensor::Tensor;

/// Rows of a kernel's gradient that make up a piece of work.
const ROWS: usize = 96;

/// Images whose gradients of a depthwise kernel are summed one after the other.
const IMAGES: usize = 4;

/// Vectors of a batch that make up a piece of work.
const VECTORS: usize = 48;

/// Height, width and channels of a batch of images.
fn dims(shape: &[usize]) -> Result<[usize; 3], NoGradient> {
    match shape {
        [_, h, w, c] => Ok([*h, *w, *c]),
        _ => Err(NoGradient::Shapes),
    }
}

fn weight<'a>(call: &Call<'a>, k: usize) -> Result<&'a Tensor, NoGradient> {
    call.weights.get(k).ok_or(NoGradient::Shapes)
}

/// Pairs of images of two batches.
fn pairs<'a>(a: &'a Tensor, b: &'a Tensor, g: &ConvGeometry) -> impl Iterator<Item = (&'a [f32], &'a [f32])> + use<'a> {
    a.data().chunks_exact(g.input_len().max(1)).zip(b.data().chunks_exact(g.output_len().max(1)))
}

/// dX of a convolution, image by image.
fn input_gradient(g: &ConvGeometry, kernel: &Tensor, shape: &[usize], dy: &Tensor) -> Tensor {
    let gradient = InputGradient::new(kernel.data(), g);
    let mut dx = Tensor::scratch(shape);
    let images = dx.data_mut().par_chunks_exact_mut(g.input_len().max(1));
    images.zip(dy.data().par_chunks_exact(g.output_len().max(1))).for_each(|(dx, dy)| gradient.run(dy, dx));
    dx
}

/// dW of a convolution, some input channels at a time: each element's sum is whole, whoever computes it.
fn kernel_gradient(g: &ConvGeometry, shape: &[usize], x: &Tensor, dy: &Tensor) -> Result<Tensor, NoGradient> {
    let taps = g.kernel[0] * g.kernel[1];
    let channels = g.in_c / g.groups;
    let step = (ROWS / taps).max(1);
    let starts: Vec<usize> = (0..channels).step_by(step).collect();
    let parts: Vec<(usize, Vec<f32>)> = starts
        .into_par_iter()
        .map(|from| {
            let range = from..channels.min(from + step);
            let mut part = vec![0.0; taps * range.len() * g.out_c];
            conv_weights(g, range, pairs(x, dy, g), &mut part);
            (from, part)
        })
        .collect();
    let mut dw = Tensor::zeros(shape);
    if dw.data().len() != g.kernel_len() {
        return Err(NoGradient::Shapes);
    }
    let per_tap = (channels * g.out_c).max(1);
    for (from, part) in parts {
        let size = part.len() / taps;
        for (to, part) in dw.data_mut().chunks_exact_mut(per_tap).zip(part.chunks_exact(size.max(1))) {
            to[from * g.out_c..][..size].copy_from_slice(part);
        }
    }
    Ok(dw)
}

/// db.
fn bias_gradient(channels: usize, dy: &Tensor) -> Tensor {
    Tensor::vector(channels::sums(dy.data(), channels).into_iter().map(|sum| sum as f32).collect())
}

/// Gradients of kernel and, if there is one, bias.
fn kernel_and_bias(dw: Tensor, call: &Call<'_>, dy: &Tensor, channels: usize) -> Vec<Option<Tensor>> {
    let mut params = vec![Some(dw)];
    params.extend((call.weights.len() > 1).then(|| Some(bias_gradient(channels, dy))));
    params
}

/// Gradients of [`Conv2D`].
pub(super) fn conv(layer: &Conv2D, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let (x, kernel) = (call.x()?, weight(call, 0)?);
    let input = dims(x.shape())?;
    let window = layer.window(&input).map_err(|_| NoGradient::Shapes)?;
    let g = geometry(&window, input, dims(dy.shape())?, layer.groups);
    let dw = kernel_gradient(&g, kernel.shape(), x, dy)?;
    let dx = call.wants(0).then(|| input_gradient(&g, kernel, x.shape(), dy));
    Ok(Grads { inputs: vec![dx], params: kernel_and_bias(dw, call, dy, g.out_c) })
}

/// dX and dW of a depthwise kernel.
fn depthwise_parts(
    window: &Window,
    x: &Tensor,
    kernel: &Tensor,
    dy: &Tensor,
    wanted: bool,
) -> Result<(Option<Tensor>, Tensor), NoGradient> {
    let input = dims(x.shape())?;
    let g = geometry(window, input, dims(dy.shape())?, input[2]);
    let all: Vec<_> = pairs(x, dy, &g).collect();
    let part = |images: &[(&[f32], &[f32])]| {
        let mut part = vec![0.0; kernel.data().len()];
        depthwise_weights(&g, images.iter().copied(), &mut part);
        part
    };
    let parts: Vec<Vec<f32>> = all.par_chunks(IMAGES).map(part).collect();
    let mut dw = Tensor::zeros(kernel.shape());
    let sums = dw.data_mut();
    parts.iter().for_each(|part| sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v));
    Ok((wanted.then(|| input_gradient(&g, kernel, x.shape(), dy)), dw))
}

/// Gradients of [`DepthwiseConv2D`].
pub(super) fn depthwise(layer: &DepthwiseConv2D, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let x = call.x()?;
    let window = layer.window(&x.shape()[1..]).map_err(|_| NoGradient::Shapes)?;
    let (dx, dw) = depthwise_parts(&window, x, weight(call, 0)?, dy, call.wants(0))?;
    let channels = dims(dy.shape())?[2];
    Ok(Grads { inputs: vec![dx], params: kernel_and_bias(dw, call, dy, channels) })
}

/// Gradients of [`Conv2DTranspose`]: it is the dX of a convolution from its output to its input, whose kernel it has.
pub(super) fn transposed(layer: &Conv2DTranspose, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let (x, kernel) = (call.x()?, weight(call, 0)?);
    let (input, output) = (dims(x.shape())?, dims(dy.shape())?);
    let window = layer.window(&input).map_err(|_| NoGradient::Shapes)?;
    let g = geometry(&window, output, input, 1);
    let dw = kernel_gradient(&g, kernel.shape(), dy, x)?;
    let dx = call.wants(0).then(|| {
        let packed = PackedF32::new(kernel.data(), &g);
        let mut dx = Tensor::scratch(x.shape());
        let images = dx.data_mut().par_chunks_exact_mut(g.output_len().max(1));
        let images = images.zip(dy.data().par_chunks_exact(g.input_len().max(1)));
        images.for_each(|(dx, dy)| conv_f32(&packed, &g, dy, None, dx));
        dx
    });
    Ok(Grads { inputs: vec![dx], params: kernel_and_bias(dw, call, dy, output[2]) })
}

/// Gradients of [`SeparableConv2D`]: of its 1×1 part first, for which the depthwise part is computed again.
pub(super) fn separable(layer: &SeparableConv2D, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let (x, kernel) = (call.x()?, weight(call, 0)?);
    let (first, second) = layer.parts();
    let window = first.window(&x.shape()[1..]).map_err(|_| NoGradient::Shapes)?;
    let middle = first.eval(&[x], &[kernel]);
    let pointwise = Call {
        shapes: &[middle.shape().to_vec()],
        inputs: std::slice::from_ref(&middle),
        weights: &call.weights[1..],
        saved: call.saved,
        wanted: &[true],
    };
    let Grads { inputs, params } = conv(&second, &pointwise, dy)?;
    let dmiddle = inputs.into_iter().next().flatten().ok_or(NoGradient::Shapes)?;
    let (dx, dw) = depthwise_parts(&window, x, kernel, &dmiddle, call.wants(0))?;
    debug_assert_eq!(window_output(&window, dims(x.shape())?, middle.shape()[3])[..], middle.shape()[1..]);
    Ok(Grads { inputs: vec![dx], params: std::iter::once(Some(dw)).chain(params).collect() })
}

/// Gradients of a dense layer: the batch's vectors are the pixels of one image.
pub(super) fn dense(call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let (x, kernel) = (call.x()?, weight(call, 0)?);
    let [inputs, outputs] = kernel.shape()[..] else { return Err(NoGradient::Shapes) };
    let vectors = x.data().len() / inputs.max(1);
    let g = ConvGeometry::dense(vectors, inputs, outputs);
    let dw = kernel_gradient(&g, kernel.shape(), x, dy)?;
    let mut params = vec![Some(dw)];
    params.extend((call.weights.len() > 1).then(|| Some(bias_gradient(outputs, dy))));
    if !call.wants(0) {
        return Ok(Grads { inputs: vec![None], params });
    }
    let turned: Vec<f32> = (0..outputs)
        .flat_map(|o| (0..inputs).map(move |i| (o, i)))
        .map(|(o, i)| kernel.data()[i * outputs + o])
        .collect();
    let back = ConvGeometry::dense(vectors, outputs, inputs);
    let packed = PackedF32::new(&turned, &back);
    let mut dx = vec![0.0f32; vectors * inputs];
    dx.par_chunks_mut((VECTORS * inputs).max(1)).enumerate().for_each(|(i, dx)| {
        let (from, count) = (i * VECTORS, dx.len() / inputs);
        conv_f32_with(&packed, &back, dy.data(), from..from + count, |vector, channel, sums| {
            dx[(vector - from) * inputs + channel..][..sums.len()].copy_from_slice(sums);
        });
    });
    let dx = reshaped(&tensor(&[vectors, inputs], dx)?, x.shape())?;
    Ok(Grads { inputs: vec![Some(dx)], params })
}
