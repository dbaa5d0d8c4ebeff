//! Normalizations.

use crate::ops::act::rows;
use crate::ops::{Layer, finite, one, shaped};
use shiftwise_core::model::RowFunction;
use shiftwise_tensor::tensor::Tensor;

/// Batch normalization at inference over the last axis: (x − mean) · gamma / sqrt(variance + epsilon) + beta.
#[derive(Clone, Debug)]
pub struct BatchNormalization {
    /// Scale, unless `scale=False`.
    pub gamma: Option<Tensor>,
    /// Offset, unless `center=False`.
    pub beta: Option<Tensor>,
    /// Moving mean.
    pub mean: Tensor,
    /// Moving variance.
    pub variance: Tensor,
    /// Added to the variance.
    pub epsilon: f32,
    /// How much of the moving statistics stays after a batch of training.
    pub momentum: f64,
}

impl BatchNormalization {
    /// Keras' default momentum.
    pub const MOMENTUM: f64 = 0.99;

    /// The layer as a per-channel product: gamma / sqrt(variance + epsilon), every step in f32.
    pub fn multiplier(&self) -> Vec<f32> {
        let root = self.variance.data().iter().map(|v| (v + self.epsilon).sqrt());
        match &self.gamma {
            Some(gamma) => gamma.data().iter().zip(root).map(|(g, r)| g / r).collect(),
            None => root.map(|r| 1.0 / r).collect(),
        }
    }

    /// Factor and offset of each channel, from `weights`, which may be fake-quantized: Keras' x·mult + (beta − mean·mult).
    pub fn affine(&self, weights: &[&Tensor]) -> (Vec<f32>, Vec<f32>) {
        let mut own = self.clone();
        let mut next = weights.iter().map(|w| (*w).clone());
        own.gamma = own.gamma.and_then(|_| next.next());
        own.beta = own.beta.and_then(|_| next.next());
        let mult = own.multiplier();
        let add = own.offset().iter().zip(own.mean.data()).zip(&mult).map(|((b, m), k)| b - m * k).collect();
        (mult, add)
    }

    /// Beta, or zeros.
    pub fn offset(&self) -> Vec<f32> {
        self.beta.as_ref().map_or_else(|| vec![0.0; self.mean.data().len()], |b| b.data().to_vec())
    }
}

impl Layer for BatchNormalization {
    fn class(&self) -> &str {
        "BatchNormalization"
    }
    fn check(&self) -> Result<(), String> {
        let channels = [self.mean.data().len()];
        self.weights().into_iter().try_for_each(|(name, weight)| shaped(name, weight, &channels))?;
        finite("momentum", self.momentum as f32)?;
        finite("epsilon", self.epsilon)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        if input.last() != Some(&self.mean.data().len()) {
            return Err(format!("it has {} channels and its input has shape {input:?}", self.mean.data().len()));
        }
        Ok(input.to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        let optional = [self.gamma.as_ref().map(|t| ("gamma", t)), self.beta.as_ref().map(|t| ("beta", t))];
        let moving = [Some(("moving_mean", &self.mean)), Some(("moving_variance", &self.variance))];
        optional.into_iter().chain(moving).flatten().collect()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let (mult, add) = self.affine(weights);
        let mut out = inputs[0].clone();
        for row in out.data_mut().chunks_exact_mut(mult.len()) {
            row.iter_mut().zip(&mult).zip(&add).for_each(|((x, k), a)| *x = *x * k + a);
        }
        out
    }
}

/// Layer normalization over the last axis: (x − mean) · rsqrt(variance + epsilon) · gamma + beta, with mean and variance of
/// each row; with Keras' `rms_scaling` x · rsqrt(variance + epsilon) · gamma.
#[derive(Clone, Debug)]
pub struct LayerNormalization {
    /// Scale, unless `scale=False`.
    pub gamma: Option<Tensor>,
    /// Offset, unless `center=False`.
    pub beta: Option<Tensor>,
    /// Added to the variance.
    pub epsilon: f32,
    /// The mean stays.
    pub rms_scaling: bool,
}

impl LayerNormalization {
    /// What it does to a row before scale and offset.
    pub fn function(&self) -> RowFunction {
        if self.rms_scaling { RowFunction::Deviation(self.epsilon) } else { RowFunction::Standardize(self.epsilon) }
    }
    /// Gamma and beta out of `weights`, or ones and zeros.
    pub fn scale_and_offset(&self, weights: &[&Tensor], channels: usize) -> (Vec<f32>, Vec<f32>) {
        let mut next = weights.iter().map(|w| w.data().to_vec());
        let mut of = |own: bool, value: f32| if own { next.next().unwrap_or_default() } else { vec![value; channels] };
        let gamma = of(self.gamma.is_some(), 1.0);
        (gamma, of(self.beta.is_some(), 0.0))
    }
}

impl Layer for LayerNormalization {
    fn class(&self) -> &str {
        "LayerNormalization"
    }
    fn check(&self) -> Result<(), String> {
        let own = self.weights();
        let channels = own.first().map(|(_, weight)| weight.data().len());
        own.iter().try_for_each(|(name, weight)| shaped(name, weight, &[channels.unwrap_or_default()]))?;
        if self.rms_scaling && (self.gamma.is_none() || self.beta.is_some()) {
            return Err("a normalization with rms_scaling has a gamma and no beta".into());
        }
        finite("epsilon", self.epsilon)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        let own = self.gamma.as_ref().or(self.beta.as_ref()).map(|t| t.data().len());
        if own.is_some_and(|n| input.last() != Some(&n)) {
            return Err(format!("it has {own:?} channels and its input has shape {input:?}"));
        }
        Ok(input.to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        let optional = [self.gamma.as_ref().map(|t| ("gamma", t)), self.beta.as_ref().map(|t| ("beta", t))];
        optional.into_iter().flatten().collect()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let axis = out.shape().last().copied().unwrap_or(1).max(1);
        let (gamma, beta) = self.scale_and_offset(weights, axis);
        rows(&mut out, self.function());
        for row in out.data_mut().chunks_exact_mut(axis) {
            row.iter_mut().zip(&gamma).zip(&beta).for_each(|((x, g), b)| *x = *x * g + b);
        }
        out
    }
}

/// Root mean square normalization over the last axis: x · rsqrt(mean(x²) + epsilon) · scale.
#[derive(Clone, Debug)]
pub struct RmsNormalization {
    /// Scale of each channel.
    pub scale: Tensor,
    /// Added to the mean square.
    pub epsilon: f32,
}

impl Layer for RmsNormalization {
    fn class(&self) -> &str {
        "RMSNormalization"
    }
    fn check(&self) -> Result<(), String> {
        shaped("scale", &self.scale, &[self.scale.data().len()])?;
        finite("epsilon", self.epsilon)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        channels(one(inputs)?, &self.scale)
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        vec![("scale", &self.scale)]
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        rows(&mut out, RowFunction::RootMeanSquare(self.epsilon));
        scaled(&mut out, weights[0].data());
        out
    }
}

/// x · gamma, a factor for each channel: the layer of ConvNeXt in `keras.applications`.
#[derive(Clone, Debug)]
pub struct LayerScale {
    /// Factor of each channel.
    pub gamma: Tensor,
}

impl Layer for LayerScale {
    fn class(&self) -> &str {
        "LayerScale"
    }
    fn check(&self) -> Result<(), String> {
        shaped("gamma", &self.gamma, &[self.gamma.data().len()])
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        channels(one(inputs)?, &self.gamma)
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        vec![("gamma", &self.gamma)]
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        scaled(&mut out, weights[0].data());
        out
    }
}

/// The shape of a layer's input, if its last axis has as many elements as a weight.
fn channels(input: &[usize], weight: &Tensor) -> Result<Vec<usize>, String> {
    let own = weight.data().len();
    let fits = own > 0 && input.last() == Some(&own);
    fits.then(|| input.to_vec()).ok_or_else(|| format!("it has {own} channels and its input has shape {input:?}"))
}

/// Every row times a factor for each of its elements.
fn scaled(x: &mut Tensor, factors: &[f32]) {
    for row in x.data_mut().chunks_exact_mut(factors.len().max(1)) {
        row.iter_mut().zip(factors).for_each(|(x, k)| *x *= k);
    }
}

/// Group normalization over everything but groups of channels: (x − mean) · (1 / √(variance + epsilon)) · gamma + beta,
/// with mean and variance of each sample's groups, summed pixel by pixel.
#[derive(Clone, Debug)]
pub struct GroupNormalization {
    /// Groups of neighbouring channels.
    pub groups: usize,
    /// Scale and offset of each channel.
    pub norm: LayerNormalization,
}

impl GroupNormalization {
    /// Fails unless all groups have as many channels.
    pub fn check_groups(groups: usize, channels: usize) -> Result<(), String> {
        let fits = groups > 0 && channels.is_multiple_of(groups);
        fits.then_some(()).ok_or_else(|| format!("{groups} groups don't divide {channels} channels"))
    }
}

impl Layer for GroupNormalization {
    fn class(&self) -> &str {
        "GroupNormalization"
    }
    fn check(&self) -> Result<(), String> {
        if self.norm.rms_scaling {
            return Err("a group normalization has no rms_scaling".into());
        }
        self.norm.check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Self::check_groups(self.groups, one(inputs)?.last().copied().unwrap_or(1))?;
        self.norm.output_shape(inputs)
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.norm.weights()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let c = out.shape().last().copied().unwrap_or(1).max(1);
        let (gamma, beta) = self.norm.scale_and_offset(weights, c);
        let size = out.shape()[1..].iter().product::<usize>().max(1);
        let per_group = c / self.groups;
        for image in out.data_mut().chunks_exact_mut(size) {
            let x = image.to_vec();
            for group in 0..self.groups {
                let at = |e: usize| e / per_group * c + group * per_group + e % per_group;
                let function = RowFunction::Standardize(self.norm.epsilon);
                function.apply(size / self.groups, |e| x[at(e)], |e, v| image[at(e)] = v);
            }
            for pixel in image.chunks_exact_mut(c) {
                pixel.iter_mut().zip(&gamma).zip(&beta).for_each(|((x, g), b)| *x = *x * g + b);
            }
        }
        out
    }
}

/// Rows along the last axis brought to length 1: x · (1 / √max(Σ x², 1e-12)).
#[derive(Clone, Debug)]
pub struct UnitNormalization;

impl UnitNormalization {
    /// What it does to a row.
    pub const FUNCTION: RowFunction = RowFunction::Unit(1e-12);
}

impl Layer for UnitNormalization {
    fn class(&self) -> &str {
        "UnitNormalization"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        rows(&mut out, Self::FUNCTION);
        out
    }
}

/// x · scale + offset with constants.
#[derive(Clone, Debug)]
pub struct Rescaling {
    /// One factor, or one per channel.
    pub scale: Vec<f32>,
    /// One offset, or one per channel.
    pub offset: Vec<f32>,
}

/// Fails unless there is one value, or one for each channel of the input.
fn per_channel(name: &str, values: &[f32], input: &[usize]) -> Result<(), String> {
    match (values.len(), input.last().copied().unwrap_or(1)) {
        (n, channels) if n == 1 || n == channels => Ok(()),
        (n, channels) => Err(format!("its {name} has {n} values for {channels} channels")),
    }
}

impl Layer for Rescaling {
    fn class(&self) -> &str {
        "Rescaling"
    }
    fn check(&self) -> Result<(), String> {
        self.scale.iter().chain(&self.offset).try_for_each(|value| finite("scale or offset", *value))
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        per_channel("scale", &self.scale, input)?;
        per_channel("offset", &self.offset, input)?;
        Ok(input.to_vec())
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let (scale, offset) = (self.scale.iter().cycle(), self.offset.iter().cycle());
        out.data_mut().iter_mut().zip(scale.zip(offset)).for_each(|(x, (s, o))| *x = *x * s + o);
        out
    }
}

/// (x − mean) / max(sqrt(variance), 1e-7) over the last axis, with statistics of the training data.
#[derive(Clone, Debug)]
pub struct Normalization {
    /// Mean, one value or one per channel.
    pub mean: Tensor,
    /// Variance, likewise.
    pub variance: Tensor,
    /// The statistics are settings of the model and no weights.
    pub constant: bool,
}

impl Normalization {
    /// Mean and standard deviation, one value or one per channel.
    pub fn statistics(&self) -> (Vec<f32>, Vec<f32>) {
        let deviation = self.variance.data().iter().map(|v| v.sqrt().max(1e-7)).collect();
        (self.mean.data().to_vec(), deviation)
    }
}

impl Layer for Normalization {
    fn class(&self) -> &str {
        "Normalization"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        per_channel("mean", self.mean.data(), input)?;
        per_channel("variance", self.variance.data(), input)?;
        Ok(input.to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        if self.constant { Vec::new() } else { vec![("mean", &self.mean), ("variance", &self.variance)] }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let (mean, deviation) = self.statistics();
        let (mean, deviation) = (mean.iter().cycle(), deviation.iter().cycle());
        out.data_mut().iter_mut().zip(mean.zip(deviation)).for_each(|(x, (m, d))| *x = (*x - m) / d);
        out
    }
}
