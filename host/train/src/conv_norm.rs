//! A convolution that is trained with the normalization behind it: one layer, whose kernel and bias follow from both.
//!
//! In a step of training, with the batch's mean μ and variance v of what the unquantized convolution gives, the moving
//! ones behind this step, and r(v) = 1 / sqrt(v + ε):
//!
//! - K = W · γ · r(v) · c and B = β − (μ − b) · γ · r(v), each quantized;
//! - y = conv(x, K) / c + B, with the correction c.
//!
//! The vendor's c is r(v of the batch) / r(moving v), the inverse of the textbook's: with [`Correction::Textbook`] the
//! kernel is that of the moving statistics, and stays nearly the same from batch to batch. The gradient flows through the
//! batch's statistics, in c too; the moving ones are constants. Once the layer is frozen, the moving statistics take the
//! batch's place and there is no correction.

use crate::seat::Seat;
use shiftwise_graph::backward::{Call, Grads, Saved as Kept, channels, differentiate};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Visit;
use shiftwise_graph::ops::{BatchNormalization, Op};
use shiftwise_quant::layer_quant::LayerQuant;
use shiftwise_quant::qat::ConvNorm;
use shiftwise_quant::scheme::RangeError;
use shiftwise_tensor::tensor::Tensor;

/// How the kernel of a batch is corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Correction {
    /// As the vendor's tool does.
    #[default]
    Vendor,
    /// As it was published (Krishnamoorthi, 2018): the kernel has the scale of the moving statistics.
    Textbook,
}

/// Statistics of each channel that a step computes with.
#[derive(Debug)]
struct Moments {
    mean: Vec<f32>,
    variance: Vec<f32>,
    /// Values that each is of; `None` for moving ones, which are constants.
    count: Option<usize>,
}

/// What a step keeps for its gradient.
#[derive(Debug)]
pub(crate) struct Step {
    x: Tensor,
    /// What the unquantized convolution gives; of no use where statistics are constants.
    float: Option<Tensor>,
    moments: Moments,
    /// The correction of each channel, and 1 / its moving root.
    correction: Vec<f32>,
    moving_root: Vec<f32>,
    kernel: Tensor,
    bias: Tensor,
    quantized_kernel: Tensor,
    /// What the convolution with the quantized kernel gives.
    scaled: Tensor,
    /// Whether kernel and bias were quantized.
    passed: [bool; 2],
    how: Correction,
}

impl Step {
    /// Gives its memory to the next tensors.
    pub(crate) fn recycle(self) {
        [Some(self.x), self.float, Some(self.scaled)].into_iter().flatten().for_each(Tensor::recycle);
    }
}

/// Gradients of the layer.
#[derive(Debug)]
pub(crate) struct Gradients {
    pub(crate) x: Option<Tensor>,
    pub(crate) kernel: Tensor,
    pub(crate) bias: Vec<f32>,
    pub(crate) gamma: Vec<f32>,
    pub(crate) beta: Vec<f32>,
    /// Of the variables of quantizers.
    pub(crate) parts: Vec<(Seat, &'static str, f32)>,
}

/// The convolution alone.
fn without_bias(op: &Op) -> Op {
    let mut op = op.clone();
    if let Some(w) = op.weighted_mut() {
        w.bias = None;
    }
    op
}

/// 1 / sqrt(v + ε).
fn root(variance: &[f32], norm: &BatchNormalization) -> Vec<f32> {
    variance.iter().map(|v| 1.0 / (v + norm.epsilon).sqrt()).collect()
}

fn gamma(norm: &BatchNormalization) -> Vec<f32> {
    norm.gamma.as_ref().map_or_else(|| vec![1.0; norm.mean.data().len()], |g| g.data().to_vec())
}

/// Multiplies the channels, the fastest axis, by factors.
fn times(tensor: &mut Tensor, factors: &[f32]) {
    let rows = tensor.data_mut().chunks_exact_mut(factors.len().max(1));
    rows.for_each(|row| row.iter_mut().zip(factors).for_each(|(v, f)| *v *= f));
}

/// The sum over the rows of a kernel of its elements times those of another, in f64.
fn row_products(a: &Tensor, b: &Tensor, channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; channels];
    for (a, b) in a.data().chunks_exact(channels.max(1)).zip(b.data().chunks_exact(channels.max(1))) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += f64::from(*a) * f64::from(*b));
    }
    sums
}

/// Mean and population variance of each channel.
fn moments(float: &Tensor, channels: usize) -> Moments {
    let found = channels::moments(float.data(), channels);
    let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect();
    Moments { mean: narrow(found.mean), variance: narrow(found.variance), count: Some(found.count) }
}

/// Moves the moving statistics by Keras' rule; the variance that enters is that of a sample.
fn move_statistics(norm: &mut BatchNormalization, moments: &Moments) {
    let keep = norm.momentum;
    let count = moments.count.unwrap_or(1);
    let unbiased = if count > 1 { count as f64 / (count - 1) as f64 } else { 1.0 };
    let moved = |old: &mut Tensor, batch: &[f32], factor: f64| {
        for (old, new) in old.data_mut().iter_mut().zip(batch) {
            *old = (f64::from(*old) * keep + f64::from(*new) * factor * (1.0 - keep)) as f32;
        }
    };
    moved(&mut norm.mean, &moments.mean, 1.0);
    moved(&mut norm.variance, &moments.variance, unbiased);
}

/// Computes the layer in a step of training, up to the activation attribute.
pub(crate) fn forward(
    op: &Op,
    own: &mut ConvNorm,
    quant: &mut LayerQuant,
    x: &Tensor,
    (how, visit): (Correction, Visit),
) -> Result<(Tensor, Step), RangeError> {
    if visit != Visit::Second {
        own.step = own.step.saturating_add(1);
    }
    let conv = without_bias(op);
    let (w, b) = match op.weighted() {
        Some(w) => (&w.kernel, w.bias.as_ref().map_or(&[][..], |b| b.data())),
        None => return Err(RangeError::NotFinite),
    };
    let channels = own.norm.mean.data().len();
    let offset = |c: usize| b.get(c).copied().unwrap_or(0.0);
    let mut float = None;
    let moments = if own.is_frozen() {
        let wide = |t: &Tensor| t.data().to_vec();
        Moments { mean: wide(&own.norm.mean), variance: wide(&own.norm.variance), count: None }
    } else {
        let mut z = conv.layer().eval(&[x], &[w]);
        if own.biased {
            channels::map_all(&mut z, &vec![1.0; channels], &(0..channels).map(offset).collect::<Vec<_>>());
        }
        let found = moments(&z, channels);
        if visit != Visit::Second {
            move_statistics(&mut own.norm, &found);
        }
        float = Some(z);
        found
    };
    let roots = root(&moments.variance, &own.norm);
    let moving_root = root(own.norm.variance.data(), &own.norm);
    let ratio = |(batch, moving): (&f32, &f32)| match (moments.count, how) {
        (None, _) => 1.0,
        (Some(_), Correction::Vendor) => batch / moving,
        (Some(_), Correction::Textbook) => moving / batch,
    };
    let correction: Vec<f32> = roots.iter().zip(&moving_root).map(ratio).collect();
    let (gamma, beta) = (gamma(&own.norm), own.norm.offset());
    let factors: Vec<f32> = gamma.iter().zip(&roots).map(|(g, r)| g * r).collect();
    let mut kernel = w.clone();
    times(&mut kernel, &factors);
    if moments.count.is_some() {
        times(&mut kernel, &correction);
    }
    let bias = (0..channels).map(|c| beta[c] - (moments.mean[c] - offset(c)) * factors[c]);
    let bias = Tensor::vector(bias.collect());
    let (mut quantized_kernel, mut quantized_bias) = (kernel.clone(), bias.clone());
    let mut passed = [false; 2];
    for ((tensor, passed), own) in
        [&mut quantized_kernel, &mut quantized_bias].into_iter().zip(&mut passed).zip(&mut quant.weights)
    {
        if let Some(own) = own {
            *passed = match visit {
                // What was learned from this tensor stays as it is.
                Visit::Second => own.clone().scheme_mut().train(tensor)?,
                Visit::Once | Visit::First => own.scheme_mut().train(tensor)?,
            };
        }
    }
    let scaled = conv.layer().eval(&[x], &[&quantized_kernel]);
    let inverse: Vec<f32> = correction.iter().map(|c| 1.0 / c).collect();
    let y = channels::mapped(&scaled, &inverse, quantized_bias.data());
    let step = Step {
        x: x.clone(),
        float,
        moments,
        correction,
        moving_root,
        kernel,
        bias,
        quantized_kernel,
        scaled,
        passed,
        how,
    };
    Ok((y, step))
}

/// The gradients of a convolution without bias.
fn convolution(
    conv: &Op,
    x: &Tensor,
    kernel: &Tensor,
    dy: &Tensor,
    wanted: bool,
) -> Result<(Option<Tensor>, Tensor), String> {
    let call = Call {
        shapes: &[x.shape().to_vec()],
        inputs: std::slice::from_ref(x),
        weights: std::slice::from_ref(kernel),
        saved: &Kept::Nothing,
        wanted: &[wanted],
    };
    let Grads { inputs, params } = differentiate(conv, &call, dy).map_err(|e| e.to_string())?;
    let kernel = params.into_iter().next().flatten().ok_or("its kernel has no gradient")?;
    Ok((inputs.into_iter().next().flatten(), kernel))
}

/// The gradients of a step, from that of its result before the activation attribute.
pub(crate) fn backward(
    op: &Op,
    own: &ConvNorm,
    quant: &LayerQuant,
    step: &Step,
    dy: &Tensor,
    wanted: bool,
) -> Result<Gradients, Error> {
    let fail = |why: String| Error::layer(&own.name, "BatchNormalization", why);
    let conv = without_bias(op);
    let (w, b) = match op.weighted() {
        Some(w) => (&w.kernel, w.bias.as_ref().map_or(&[][..], |b| b.data())),
        None => return Err(fail("its convolution is none".into())),
    };
    let channels = own.norm.mean.data().len();
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let correction = wide(&step.correction);
    // y = scaled / c + bias.
    let (products, of_bias) = channels::products(step.scaled.data(), dy.data(), &vec![0.0; channels]);
    let mut of_correction: Vec<f64> = products.iter().zip(&correction).map(|(sum, c)| -sum / (c * c)).collect();
    let inverse: Vec<f32> = step.correction.iter().map(|c| 1.0 / c).collect();
    let of_scaled = channels::mapped(dy, &inverse, &vec![0.0; channels]);
    let (mut dx, of_kernel) = convolution(&conv, &step.x, &step.quantized_kernel, &of_scaled, wanted).map_err(fail)?;
    of_scaled.recycle();
    // Through the quantizers.
    let mut parts = Vec::new();
    let of_bias = Tensor::vector(of_bias.iter().map(|d| *d as f32).collect());
    let mut through = |k: usize, tensor: &Tensor, d: Tensor| match quant.weights.get(k) {
        Some(Some(own)) if step.passed[k] => {
            let found = own.scheme().backward(tensor, &d);
            parts.extend(found.parts.iter().map(|(name, d)| (Seat::Weight(k), *name, d.iter().sum::<f32>())));
            found.tensor
        }
        _ => d,
    };
    let of_kernel = through(0, &step.kernel, of_kernel);
    let of_bias = wide(through(1, &step.bias, of_bias).data());
    // K = W · γ · r · c; B = β − (μ − b) · γ · r.
    let gammas = wide(&gamma(&own.norm));
    let roots = wide(&root(&step.moments.variance, &own.norm));
    let centred: Vec<f64> =
        (0..channels).map(|c| f64::from(step.moments.mean[c]) - f64::from(b.get(c).copied().unwrap_or(0.0))).collect();
    let of_factor = row_products(&of_kernel, w, channels);
    let mut dw = of_kernel;
    let factors: Vec<f32> = (0..channels).map(|c| (gammas[c] * roots[c] * correction[c]) as f32).collect();
    times(&mut dw, &factors);
    let each = |f: &dyn Fn(usize) -> f64| (0..channels).map(f).collect::<Vec<f64>>();
    let dgamma = each(&|c| of_factor[c] * roots[c] * correction[c] - of_bias[c] * centred[c] * roots[c]);
    let mut db = each(&|c| of_bias[c] * gammas[c] * roots[c]);
    if let (Some(float), Some(count)) = (&step.float, step.moments.count) {
        let n = count.max(1) as f64;
        (0..channels).for_each(|c| of_correction[c] += of_factor[c] * gammas[c] * roots[c]);
        let moving = wide(&step.moving_root);
        let of_root = each(&|c| {
            let through = match step.how {
                Correction::Vendor => of_correction[c] / moving[c],
                Correction::Textbook => -of_correction[c] * moving[c] / (roots[c] * roots[c]),
            };
            of_factor[c] * gammas[c] * correction[c] - of_bias[c] * centred[c] * gammas[c] + through
        });
        let of_variance = each(&|c| of_root[c] * -0.5 * roots[c] * roots[c] * roots[c]);
        let of_mean = each(&|c| -of_bias[c] * gammas[c] * roots[c]);
        let slope = each(&|c| 2.0 * of_variance[c] / n);
        let dz = channels::line(float, [&wide(&step.moments.mean), &slope, &each(&|c| of_mean[c] / n)]);
        let (more, dw_float) = convolution(&conv, &step.x, w, &dz, wanted).map_err(fail)?;
        dw = channels::added(dw, dw_float);
        dx = match (dx, more) {
            (Some(dx), Some(more)) => Some(channels::added(dx, more)),
            (dx, _) => dx,
        };
        db.iter_mut().zip(channels::sums(dz.data(), channels)).for_each(|(a, b)| *a += b);
        dz.recycle();
    }
    let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    Ok(Gradients { x: dx, kernel: dw, bias: narrow(db), gamma: narrow(dgamma), beta: narrow(of_bias), parts })
}
