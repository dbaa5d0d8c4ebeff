//! Derivatives of functions of elements, of pairs and of rows.

use multiversion::multiversion;
use rayon::prelude::*;

use crate::backward::{Call, Grads, NoGradient, reshaped, tensor};
use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_tensor::array;
use shiftwise_tensor::broadcast::offsets;
use shiftwise_tensor::tensor::Tensor;

/// Selu's scale, and its scale times its alpha.
const SELU: [f64; 2] = [1.050_700_987_355_480_5, 1.758_099_340_847_376_6];

/// 1 / (1 + exp(−x)).
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

/// The density of the standard normal distribution.
fn density(x: f64) -> f64 {
    libm::exp(-0.5 * x * x) / core::f64::consts::TAU.sqrt()
}

/// 1 where a condition holds, else 0.
fn indicator(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// The derivative of a function at x.
///
/// At a kink it is TensorFlow's: 0 at both ends of `relu6` and at 0 of `relu`, 1 at both ends of what Keras 2 clips
/// (`hard_sigmoid`). Functions in steps have the derivative 0.
pub(crate) fn derivative(function: Function, x: f32) -> f32 {
    let narrow = x;
    let x = f64::from(x);
    let d = match function {
        Function::Identity => 1.0,
        Function::Relu { max, slope, threshold } => {
            if narrow >= max {
                0.0
            } else if narrow > threshold {
                1.0
            } else {
                f64::from(slope)
            }
        }
        Function::LeakyRelu(slope) => {
            if x > 0.0 {
                1.0
            } else {
                f64::from(slope)
            }
        }
        Function::Sigmoid => sigmoid(x) * sigmoid(-x),
        Function::Tanh => 1.0 - libm::tanh(x) * libm::tanh(x),
        Function::Elu(alpha) => {
            if x >= 0.0 {
                1.0
            } else {
                f64::from(alpha) * libm::exp(x)
            }
        }
        Function::Selu => {
            if x >= 0.0 {
                SELU[0]
            } else {
                SELU[1] * libm::exp(x)
            }
        }
        Function::Softplus => sigmoid(x),
        Function::Softsign => 1.0 / ((1.0 + x.abs()) * (1.0 + x.abs())),
        Function::Swish => sigmoid(x) * (1.0 + x * sigmoid(-x)),
        Function::Gelu => 0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2) + x * density(x),
        Function::Exponential => libm::exp(x),
        Function::HardSigmoid => 0.2 * indicator((-2.5..=2.5).contains(&x)),
        Function::HardSigmoid6 => indicator(x > -3.0 && x < 3.0) / 6.0,
        Function::DpuHardSigmoid => indicator(x > -3.0 && x < 3.0) * 2731.0 / 16384.0,
        Function::HardSwish => {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                (2.0 * x + 3.0) / 6.0
            }
        }
        Function::Mish => {
            let t = libm::tanh(if x > 30.0 { x } else { libm::log1p(libm::exp(x)) });
            t + x * (1.0 - t * t) * sigmoid(x)
        }
        Function::Scale(factor) => f64::from(factor),
        Function::Negative => -1.0,
        Function::Absolute => indicator(x > 0.0) - indicator(x < 0.0),
        Function::Square => 2.0 * x,
        Function::SquareRoot => 0.5 / x.sqrt(),
        Function::InverseRoot => -0.5 / (x * x.sqrt()),
        Function::Reciprocal => -1.0 / (x * x),
        Function::Logarithm => 1.0 / x,
        Function::Sign | Function::Floor | Function::Ceiling | Function::Round => 0.0,
        Function::GeluTanh => {
            let root = core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
            let t = libm::tanh(root * (x + 0.044_715 * x * x * x));
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * root * (1.0 + 3.0 * 0.044_715 * x * x)
        }
    };
    d as f32
}

/// Elements that make up a piece of work.
const BLOCK: usize = 1 << 14;

/// dx of a function of each element.
pub(crate) fn elementwise(function: Function, x: &Tensor, dy: &Tensor) -> Tensor {
    elementwise_in(function, x, dy.clone())
}

/// [`elementwise`], in the memory of `dy` if nobody else has it.
pub(super) fn elementwise_in(function: Function, x: &Tensor, mut dy: Tensor) -> Tensor {
    if function != Function::Identity {
        let blocks = dy.data_mut().par_chunks_mut(BLOCK).zip(x.data().par_chunks(BLOCK));
        blocks.for_each(|(d, x)| d.iter_mut().zip(x).for_each(|(d, x)| *d *= derivative(function, *x)));
    }
    dy
}

/// Whether a derivative is 1 or 0 everywhere: where it is 1 is then all that is kept for it.
pub(super) fn is_gate(function: Function) -> bool {
    matches!(function, Function::Relu { slope: 0.0, .. })
}

/// Where the [derivative](derivative) of a [gate](is_gate) is 1: a byte for each element.
pub(super) fn passed(function: Function, x: &Tensor) -> Vec<u8> {
    let Function::Relu { max, threshold, .. } = function else { return vec![1; x.data().len()] };
    let mut passed = vec![0; x.data().len()];
    let blocks = passed.par_chunks_mut(BLOCK).zip(x.data().par_chunks(BLOCK));
    blocks.for_each(|(to, x)| note_passed(x, (threshold, max), to));
    passed
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn note_passed(x: &[f32], (threshold, max): (f32, f32), to: &mut [u8]) {
    to.iter_mut().zip(x).for_each(|(to, x)| *to = u8::from(*x > threshold) & u8::from(*x < max));
}

/// dx of a [gate](is_gate) that let through what is said, in the memory of `dy` if nobody else has it.
pub(super) fn gated(passed: &[u8], mut dy: Tensor) -> Tensor {
    let blocks = dy.data_mut().par_chunks_mut(BLOCK).zip(passed.par_chunks(BLOCK));
    blocks.for_each(|(d, passed)| gate(passed, d));
    dy
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn gate(passed: &[u8], dy: &mut [f32]) {
    dy.iter_mut().zip(passed).for_each(|(d, passed)| *d *= f32::from(*passed));
}

/// The partial derivatives of a function of two numbers. Of equal numbers, the larger and the smaller one is the first.
fn partials(combine: Combine, a: f32, b: f32) -> [f32; 2] {
    let first = |holds: bool| if holds { [1.0, 0.0] } else { [0.0, 1.0] };
    match combine {
        Combine::Add => [1.0, 1.0],
        Combine::Subtract => [1.0, -1.0],
        Combine::Multiply => [b, a],
        Combine::Divide => [1.0 / b, -a / (b * b)],
        Combine::Maximum => first(a >= b),
        Combine::Minimum => first(a <= b),
        Combine::Power => {
            let of_a = if b == 0.0 { 0.0 } else { b * libm::powf(a, b - 1.0) };
            [of_a, if a > 0.0 { libm::powf(a, b) * libm::logf(a) } else { 0.0 }]
        }
        Combine::SquaredDifference => [2.0 * (a - b), -2.0 * (a - b)],
        Combine::DivideNoNan if b == 0.0 => [0.0, 0.0],
        Combine::DivideNoNan => [1.0 / b, -a / (b * b)],
        Combine::Slope => {
            if a > 0.0 {
                [1.0, 0.0]
            } else {
                [b, a]
            }
        }
    }
}

/// The gradients of two tensors that broadcast to `dy`'s shape as NumPy's do.
pub(crate) fn combined(combine: Combine, a: &Tensor, b: &Tensor, dy: &Tensor) -> Result<[Tensor; 2], NoGradient> {
    let (from_a, from_b) = (offsets(a.shape(), dy.shape()), offsets(b.shape(), dy.shape()));
    let (mut da, mut db) = (dy.clone(), dy.clone());
    let both = da.data_mut().iter_mut().zip(db.data_mut());
    for ((da, db), (p, q)) in both.zip(from_a.iter().zip(&from_b)) {
        let [of_a, of_b] = partials(combine, a.data()[*p], b.data()[*q]);
        (*da, *db) = (*da * of_a, *db * of_b);
    }
    Ok([reduced_to(&da, a.shape())?, reduced_to(&db, b.shape())?])
}

/// Sums over the axes along which a tensor of `shape` was repeated to that of `dy`, in f64 and in order.
pub(crate) fn reduced_to(dy: &Tensor, shape: &[usize]) -> Result<Tensor, NoGradient> {
    if dy.shape() == shape {
        return Ok(dy.clone());
    }
    let mut sums = vec![0.0f64; shape.iter().product()];
    for (to, v) in offsets(shape, dy.shape()).into_iter().zip(dy.data()) {
        sums[to] += f64::from(*v);
    }
    tensor(shape, sums.into_iter().map(|sum| sum as f32).collect())
}

/// Every element times a factor; factors repeat along the last axes.
pub(crate) fn scaled_by(dy: &Tensor, factors: &[f32]) -> Tensor {
    let mut dx = dy.clone();
    dx.data_mut().iter_mut().zip(factors.iter().cycle()).for_each(|(d, factor)| *d *= factor);
    dx
}

/// dx of one row. Sums are in f64, in order.
pub(crate) fn row(function: RowFunction, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let n = x.len() as f64;
    let pairs = || x.iter().zip(dy).map(|(x, d)| (f64::from(*x), f64::from(*d)));
    let sum = |f: &dyn Fn(f64, f64) -> f64| pairs().map(|(x, d)| f(x, d)).sum::<f64>();
    // What remains is dx = f(x, dy) for each element.
    let mut write = |f: &dyn Fn(f64, f64) -> f64| {
        dx.iter_mut().zip(pairs()).for_each(|(to, (x, d))| *to = f(x, d) as f32);
    };
    let largest = pairs().map(|(x, _)| x).fold(f64::NEG_INFINITY, f64::max);
    let inverse = |mean_square: f64| 1.0 / mean_square.sqrt();
    match function {
        RowFunction::Softmax => {
            let total = sum(&|x, _| libm::exp(x - largest));
            let dot = sum(&|x, d| libm::exp(x - largest) * d) / total;
            write(&|x, d| libm::exp(x - largest) / total * (d - dot));
        }
        RowFunction::LogSoftmax => {
            let (total, all) = (sum(&|x, _| libm::exp(x - largest)), sum(&|_, d| d));
            write(&|x, d| d - libm::exp(x - largest) / total * all);
        }
        RowFunction::Standardize(epsilon) => {
            let mean = sum(&|x, _| x) / n;
            let r = inverse(sum(&|x, _| (x - mean) * (x - mean)) / n + f64::from(epsilon));
            let (of_mean, of_variance) = (sum(&|_, d| d) / n, sum(&|x, d| d * (x - mean)) * r * r / n);
            write(&|x, d| r * (d - of_mean - (x - mean) * of_variance));
        }
        RowFunction::Unit(least) => {
            let squares = sum(&|x, _| x * x);
            let r = inverse(squares.max(f64::from(least)));
            let dot = if squares >= f64::from(least) { sum(&|x, d| d * x) * r * r } else { 0.0 };
            write(&|x, d| r * (d - x * dot));
        }
        RowFunction::RootMeanSquare(epsilon) => {
            let r = inverse(sum(&|x, _| x * x) / n + f64::from(epsilon));
            let dot = sum(&|x, d| d * x) * r * r / n;
            write(&|x, d| r * (d - x * dot));
        }
        RowFunction::Deviation(epsilon) => {
            let mean = sum(&|x, _| x) / n;
            let r = inverse(sum(&|x, _| (x - mean) * (x - mean)) / n + f64::from(epsilon));
            let dot = sum(&|x, d| d * x) * r * r / n;
            write(&|x, d| r * (d - (x - mean) * dot));
        }
    }
}

/// dx of a function of rows along the last axis.
pub(crate) fn rows(function: RowFunction, x: &Tensor, dy: &Tensor) -> Result<Tensor, NoGradient> {
    let n = x.shape().last().copied().unwrap_or(1).max(1);
    let mut dx = reshaped(dy, x.shape())?;
    for ((dx, x), dy) in dx.data_mut().chunks_exact_mut(n).zip(x.data().chunks_exact(n)).zip(dy.data().chunks_exact(n))
    {
        row(function, x, dy, dx);
    }
    Ok(dx)
}

/// The gradients of PReLU: of its input and its slopes.
pub(super) fn slopes(call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let (x, alpha) = (call.x()?, call.weights.first().ok_or(NoGradient::Shapes)?);
    let wide = reshaped(alpha, &[&[1], alpha.shape()].concat())?;
    let [dx, slopes] = combined(Combine::Slope, x, &wide, dy)?;
    Ok(Grads { inputs: vec![Some(dx)], params: vec![Some(reshaped(&slopes, alpha.shape())?)] })
}

/// dx of an activation attribute; the softmaxes work along the last axis.
pub(super) fn activation(function: crate::ops::ActivationFn, z: &Tensor, dy: &Tensor) -> Result<Tensor, NoGradient> {
    use crate::ops::ActivationFn;
    match function {
        ActivationFn::Softmax => rows(RowFunction::Softmax, z, dy),
        ActivationFn::LogSoftmax => rows(RowFunction::LogSoftmax, z, dy),
        ActivationFn::Linear
        | ActivationFn::Relu
        | ActivationFn::Relu6
        | ActivationFn::Sigmoid
        | ActivationFn::Tanh
        | ActivationFn::Elu
        | ActivationFn::Selu
        | ActivationFn::Softplus
        | ActivationFn::Softsign
        | ActivationFn::Swish
        | ActivationFn::Gelu
        | ActivationFn::Exponential
        | ActivationFn::HardSigmoid
        | ActivationFn::HardSigmoid6
        | ActivationFn::HardSwish
        | ActivationFn::LeakyRelu
        | ActivationFn::Mish => Ok(elementwise(function.function(), z, dy)),
    }
}

/// dx of a sum or mean over axes, which stay as 1 in `kept`: every element gets `factor` times its sum's gradient.
pub(crate) fn spread(shape: &[usize], kept: &[usize], dy: &Tensor, factor: f32) -> Result<Tensor, NoGradient> {
    let dy = reshaped(dy, kept)?;
    tensor(shape, offsets(kept, shape).into_iter().map(|i| dy.data()[i] * factor).collect())
}

/// dx of an extreme over axes, which stay as 1 in `kept`: equal extremes share the gradient evenly, as in TensorFlow.
pub(crate) fn spread_to_extremes(x: &Tensor, axes: &[usize], dy: &Tensor, largest: bool) -> Result<Tensor, NoGradient> {
    let pick = |a: f32, b: f32| if (b > a) == largest { b } else { a };
    let first = if largest { f32::NEG_INFINITY } else { f32::INFINITY };
    let extremes = array::reduce(x, axes, first, pick);
    let at = offsets(extremes.shape(), x.shape());
    let mut counts = vec![0u32; extremes.data().len()];
    for (i, v) in at.iter().zip(x.data()) {
        counts[*i] += u32::from(*v == extremes.data()[*i]);
    }
    let share = |(i, v): (&usize, &f32)| {
        if *v == extremes.data()[*i] { dy.data()[*i] / counts[*i] as f32 } else { 0.0 }
    };
    tensor(x.shape(), at.iter().zip(x.data()).map(share).collect())
}
