//! Normalizations: their gradients, and batch normalization with the statistics of a batch.

use crate::backward::{Call, Grads, NoGradient, Saved, channels, reshaped, rows, scaled_by, tensor};
use crate::ops::act;
use crate::ops::{BatchNormalization, GroupNormalization, LayerNormalization};
use shiftwise_core::model::RowFunction;
use shiftwise_tensor::tensor::Tensor;

/// Gamma and beta of a batch normalization.
fn scale_and_offset(norm: &BatchNormalization, weights: &[Tensor]) -> (Vec<f32>, Vec<f32>) {
    let channels = norm.mean.data().len();
    let mut next = weights.iter().map(|w| w.data().to_vec());
    let mut of = |own: bool, value: f32| if own { next.next().unwrap_or_default() } else { vec![value; channels] };
    let gamma = of(norm.gamma.is_some(), 1.0);
    (gamma, of(norm.beta.is_some(), 0.0))
}

/// [`BatchNormalization`] with mean and variance of the batch: x · k + (beta − mean · k) with
/// k = gamma / √(variance + epsilon), as at inference.
pub(super) fn with_moments_of_batch(norm: &BatchNormalization, x: &Tensor, weights: &[Tensor]) -> (Tensor, Saved) {
    let channels::Moments { mean, variance, count } = channels::moments(x.data(), norm.mean.data().len());
    let (gamma, beta) = scale_and_offset(norm, weights);
    let inverse = variance.iter().map(|v| 1.0 / (v + f64::from(norm.epsilon)).sqrt());
    let factors: Vec<f64> = inverse.zip(&gamma).map(|(r, g)| r * f64::from(*g)).collect();
    let offsets: Vec<f32> =
        factors.iter().zip(&mean).zip(&beta).map(|((k, m), b)| (f64::from(*b) - m * k) as f32).collect();
    let y = channels::mapped(x, &factors.iter().map(|k| *k as f32).collect::<Vec<_>>(), &offsets);
    (y, Saved::Moments { mean, variance, count })
}

/// New moving mean and variance after a batch, by Keras 2's formula: moving · momentum + batch · (1 − momentum).
///
/// The variance of images (rank 4), which Keras 2 normalizes with a fused kernel, enters as the unbiased estimate
/// variance · n / (n − 1); the biased one otherwise, and always in Keras 3.
pub(super) fn moving_averages(
    [mean, variance]: [&Tensor; 2],
    moments: (&[f64], &[f64], usize),
    momentum: f64,
    rank: usize,
) -> [Tensor; 2] {
    let (batch_mean, batch_variance, count) = moments;
    let unbiased = if rank == 4 && count > 1 { count as f64 / (count - 1) as f64 } else { 1.0 };
    let moved = |old: &Tensor, batch: &[f64], factor: f64| {
        let one = |(old, new): (&f32, &f64)| (f64::from(*old) * momentum + new * factor * (1.0 - momentum)) as f32;
        Tensor::vector(old.data().iter().zip(batch).map(one).collect())
    };
    [moved(mean, batch_mean, 1.0), moved(variance, batch_variance, unbiased)]
}

/// Σ dy · x and Σ dy of each channel: the gradients of scale and offset.
fn sums(x: &Tensor, dy: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let channels = x.shape().last().copied().unwrap_or(1).max(1);
    channels::products(x.data(), dy.data(), &vec![0.0; channels])
}

fn narrow(values: &[f64]) -> Tensor {
    Tensor::vector(values.iter().map(|v| *v as f32).collect())
}

/// Gradients of [`BatchNormalization`], with the moments that it was computed with, in the memory of `dy` if nobody else
/// has it.
pub(super) fn batch(norm: &BatchNormalization, call: &Call<'_>, dy: Tensor) -> Result<Grads, NoGradient> {
    let x = call.x()?;
    let wide = |t: &Tensor| t.data().iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let (mean, variance, count) = match call.saved {
        Saved::Nothing | Saved::Passed(_) => (wide(&norm.mean), wide(&norm.variance), None),
        Saved::Moments { mean, variance, count } => (mean.clone(), variance.clone(), Some((*count).max(1) as f64)),
    };
    let inverse: Vec<f64> = variance.iter().map(|v| 1.0 / (v + f64::from(norm.epsilon)).sqrt()).collect();
    let (gamma, _) = scale_and_offset(norm, call.weights);
    let (products, offset) = channels::products(x.data(), dy.data(), &mean);
    let scale: Vec<f64> = products.iter().zip(&inverse).map(|(sum, r)| sum * r).collect();
    let mut dx = dy;
    if call.wants(0) {
        // The moments of a batch depend on x themselves; the moving ones do not.
        let share = count.map_or(0.0, |n| 1.0 / n);
        let line = channels::Line {
            scale: inverse.iter().zip(&gamma).map(|(r, g)| r * f64::from(*g)).collect(),
            offset: offset.iter().map(|sum| sum * share).collect(),
            slope: inverse.iter().zip(&scale).map(|(r, sum)| r * sum * share).collect(),
            center: mean,
        };
        channels::gradient(x, &mut dx, &line);
    }
    let trained =
        [norm.gamma.as_ref().map(|_| Some(narrow(&scale))), norm.beta.as_ref().map(|_| Some(narrow(&offset)))];
    Ok(Grads { inputs: vec![Some(dx)], params: trained.into_iter().flatten().chain([None, None]).collect() })
}

/// Gradients of gamma and beta, as far as a layer has them.
fn scale_and_offset_gradients(norm: &LayerNormalization, normal: &Tensor, dy: &Tensor) -> Vec<Option<Tensor>> {
    let (scale, offset) = sums(normal, dy);
    let trained =
        [norm.gamma.as_ref().map(|_| Some(narrow(&scale))), norm.beta.as_ref().map(|_| Some(narrow(&offset)))];
    trained.into_iter().flatten().collect()
}

/// Gradients of [`LayerNormalization`].
pub(super) fn layer(norm: &LayerNormalization, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let x = call.x()?;
    let weights: Vec<&Tensor> = call.weights.iter().collect();
    let (gamma, _) = norm.scale_and_offset(&weights, x.shape().last().copied().unwrap_or(1));
    let mut normal = x.clone();
    act::rows(&mut normal, norm.function());
    let params = scale_and_offset_gradients(norm, &normal, dy);
    Ok(Grads { inputs: vec![Some(rows(norm.function(), x, &scaled_by(dy, &gamma))?)], params })
}

/// Gradients of [`GroupNormalization`].
pub(super) fn group(layer: &GroupNormalization, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let x = call.x()?;
    let c = x.shape().last().copied().unwrap_or(1).max(1);
    let weights: Vec<&Tensor> = call.weights.iter().collect();
    let (gamma, _) = layer.norm.scale_and_offset(&weights, c);
    let size = x.shape().iter().skip(1).product::<usize>().max(1);
    let (positions, per_group) = (size / c, c / layer.groups.max(1));
    let function = RowFunction::Standardize(layer.norm.epsilon);
    // Every group of a sample as a row, and back.
    let shape = [x.shape()[0], positions, layer.groups, per_group];
    let gathered = |t: &Tensor| reshaped(t, &shape).map(|t| shiftwise_tensor::array::transpose(&t, &[0, 2, 1, 3]));
    let scattered = |t: &Tensor| {
        let back = reshaped(t, &[shape[0], layer.groups, positions, per_group])?;
        reshaped(&shiftwise_tensor::array::transpose(&back, &[0, 2, 1, 3]), x.shape())
    };
    let by_rows = |t: &Tensor| reshaped(&gathered(t)?, &[shape[0] * layer.groups, positions * per_group]);
    let of_groups = by_rows(x)?;
    let mut normal = of_groups.clone();
    act::rows(&mut normal, function);
    let params = scale_and_offset_gradients(&layer.norm, &scattered(&normal)?, dy);
    let dx = rows(function, &of_groups, &by_rows(&scaled_by(dy, &gamma))?)?;
    Ok(Grads { inputs: vec![Some(scattered(&dx)?)], params })
}

/// Gradients of a function of rows, or nothing, times a factor for each channel.
pub(super) fn scaled(function: Option<RowFunction>, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let x = call.x()?;
    let factors = call.weights.first().ok_or(NoGradient::Shapes)?;
    let dnormal = scaled_by(dy, factors.data());
    let (normal, dx) = match function {
        None => (x.clone(), dnormal),
        Some(function) => {
            let mut normal = x.clone();
            act::rows(&mut normal, function);
            (normal, rows(function, x, &dnormal)?)
        }
    };
    let (scale, _) = sums(&normal, dy);
    let of_factors = tensor(factors.shape(), scale.iter().map(|v| *v as f32).collect())?;
    Ok(Grads { inputs: vec![Some(dx)], params: vec![Some(of_factors)] })
}
