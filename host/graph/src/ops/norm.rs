//! Batch normalization.

use serde_json::{Map, Value, json};

use crate::ops::act::rows;
use crate::ops::{Config, Layer, WeightSource, finite, one, settings, shaped};
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
}

impl BatchNormalization {
    pub(crate) fn class(&self) -> &'static str {
        "BatchNormalization"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let input = one(inputs)?;
        last_axis(config, input.len())?;
        let channels = [*input.last().ok_or("its input has no dimensions")?];
        let (center, scale) = (config.bool_or("center", true)?, config.bool_or("scale", true)?);
        Ok(Self {
            gamma: scale.then(|| weights.take("gamma", &channels)).transpose()?,
            beta: center.then(|| weights.take("beta", &channels)).transpose()?,
            mean: weights.take("moving_mean", &channels)?,
            variance: weights.take("moving_variance", &channels)?,
            epsilon: config.f32_or("epsilon", 1e-3)?,
        })
    }

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
    fn check(&self) -> Result<(), String> {
        let channels = [self.mean.data().len()];
        self.weights().into_iter().try_for_each(|(name, weight)| shaped(name, weight, &channels))?;
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "epsilon": self.epsilon, "center": self.beta.is_some(), "scale": self.gamma.is_some() }))
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
    pub(crate) fn class(&self) -> &'static str {
        "LayerNormalization"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let input = one(inputs)?;
        last_axis(config, input.len())?;
        let channels = [*input.last().ok_or("its input has no dimensions")?];
        let (center, scale) = (config.bool_or("center", true)?, config.bool_or("scale", true)?);
        let rms_scaling = config.bool_or("rms_scaling", false)?;
        Ok(Self {
            gamma: (scale || rms_scaling).then(|| weights.take("gamma", &channels)).transpose()?,
            beta: (center && !rms_scaling).then(|| weights.take("beta", &channels)).transpose()?,
            epsilon: config.f32_or("epsilon", 1e-3)?,
            rms_scaling,
        })
    }
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
    fn to_keras(&self) -> Map<String, Value> {
        let center = self.beta.is_some();
        let mut map = settings(json!({ "epsilon": self.epsilon, "center": center, "scale": self.gamma.is_some() }));
        // Only Keras 3 knows the setting.
        map.extend(self.rms_scaling.then(|| ("rms_scaling".to_owned(), json!(true))));
        map
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

impl RmsNormalization {
    pub(crate) fn class(&self) -> &'static str {
        "RMSNormalization"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let input = one(inputs)?;
        last_axis(config, input.len())?;
        let channels = *input.last().ok_or("its input has no dimensions")?;
        Ok(Self { scale: weights.take("scale", &[channels])?, epsilon: config.f32_or("epsilon", 1e-6)? })
    }
}

impl Layer for RmsNormalization {
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "axis": -1, "epsilon": self.epsilon }))
    }
}

/// x · gamma, a factor for each channel: the layer of ConvNeXt in `keras.applications`.
#[derive(Clone, Debug)]
pub struct LayerScale {
    /// Factor of each channel.
    pub gamma: Tensor,
    /// What training began with, as the config has it.
    init_values: Value,
}

impl LayerScale {
    pub(crate) fn class(&self) -> &'static str {
        "LayerScale"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let size = [config.usize("projection_dim")?];
        // Keras 3 leaves the weight without a name.
        let gamma = weights.take("gamma", &size).or_else(|_| weights.take("variable", &size))?;
        let init_values = config.get("init_values").cloned().unwrap_or(json!(1e-6));
        channels(one(inputs)?, &gamma)?;
        Ok(Self { gamma, init_values })
    }
}

impl Layer for LayerScale {
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "init_values": self.init_values, "projection_dim": self.gamma.data().len() }))
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
    pub(crate) fn class(&self) -> &'static str {
        "GroupNormalization"
    }
    pub(crate) fn from_keras(
        class: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let channels = one(inputs)?.last().copied().unwrap_or(1);
        let groups = match config.get("groups").map_or(Some(32), Value::as_i64) {
            Some(-1) => channels,
            groups => groups.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        };
        Self::check_groups(groups, channels)?;
        Ok(Self { groups, norm: LayerNormalization::from_keras(class, config, inputs, weights)? })
    }
}

impl GroupNormalization {
    /// Fails unless all groups have as many channels.
    pub fn check_groups(groups: usize, channels: usize) -> Result<(), String> {
        let fits = groups > 0 && channels.is_multiple_of(groups);
        fits.then_some(()).ok_or_else(|| format!("{groups} groups don't divide {channels} channels"))
    }
}

impl Layer for GroupNormalization {
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
    fn to_keras(&self) -> Map<String, Value> {
        let mut map = self.norm.to_keras();
        map.insert("groups".into(), json!(self.groups));
        map
    }
}

/// Rows along the last axis brought to length 1: x · (1 / √max(Σ x², 1e-12)).
#[derive(Clone, Debug)]
pub struct UnitNormalization;

impl UnitNormalization {
    /// What it does to a row.
    pub const FUNCTION: RowFunction = RowFunction::Unit(1e-12);

    pub(crate) fn class(&self) -> &'static str {
        "UnitNormalization"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        last_axis(config, one(inputs)?.len()).map(|()| Self)
    }
}

impl Layer for UnitNormalization {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        rows(&mut out, Self::FUNCTION);
        out
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "axis": -1 }))
    }
}

/// The axes of the sample that `axis` names, from 0 and ascending, for samples of `rank` dimensions; `None` if it names
/// none.
pub fn axes(config: Config<'_>, rank: usize) -> Result<Option<Vec<usize>>, String> {
    let Some(value) = config.get("axis") else { return Ok(None) };
    let of_sample = |v: &Value| {
        let axis = v.as_i64().and_then(|a| if a < 0 { a.checked_add(rank as i64 + 1) } else { Some(a) });
        axis.and_then(|a| usize::try_from(a).ok()).filter(|a| (1..=rank).contains(a)).map(|a| a - 1)
    };
    let all: Option<Vec<usize>> = match value {
        Value::Array(list) => list.iter().map(of_sample).collect(),
        one => of_sample(one).map(|axis| vec![axis]),
    };
    let mut all = all.ok_or_else(|| format!("its axis is {value}, axes from 1 to {rank} of its input are expected"))?;
    all.sort_unstable();
    all.dedup();
    Ok(Some(all))
}

/// Fails unless `axis` is the last one of a tensor whose samples have `rank` dimensions.
fn last_axis(config: Config<'_>, rank: usize) -> Result<(), String> {
    let axis = match config.get("axis") {
        None => return Ok(()),
        Some(Value::Array(a)) if a.len() == 1 => &a[0],
        Some(v) => v,
    };
    if axis.as_i64().is_some_and(|a| a == -1 || a == rank as i64) {
        return Ok(());
    }
    Err(format!("it normalizes axis {axis}, only the last one ({rank}) is supported"))
}

/// x · scale + offset with constants of the model's config.
#[derive(Clone, Debug)]
pub struct Rescaling {
    /// One factor, or one per channel.
    pub scale: Vec<f32>,
    /// One offset, or one per channel.
    pub offset: Vec<f32>,
    /// Both as the config has them, in f64.
    settings: Map<String, Value>,
}

impl Rescaling {
    pub(crate) fn class(&self) -> &'static str {
        "Rescaling"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let list = |key: &str, default: f32| -> Result<Vec<f32>, String> {
            Ok(numbers(config, key)?.unwrap_or_else(|| vec![default]))
        };
        let given = |key: &str, default: f64| (key.to_owned(), config.get(key).cloned().unwrap_or(json!(default)));
        let settings = Map::from_iter([given("scale", 1.0), given("offset", 0.0)]);
        Ok(Self { scale: list("scale", 1.0)?, offset: list("offset", 0.0)?, settings })
    }
}

/// A list of numbers of any nesting, or one number.
fn numbers(config: Config<'_>, key: &str) -> Result<Option<Vec<f32>>, String> {
    fn collect(value: &Value, into: &mut Vec<f32>) -> Option<()> {
        match value {
            Value::Array(a) => a.iter().try_for_each(|v| collect(v, into)),
            v => {
                into.push(crate::ops::single(v)?);
                Some(())
            }
        }
    }
    let Some(value) = config.get(key) else { return Ok(None) };
    let mut all = Vec::new();
    collect(value, &mut all).ok_or_else(|| format!("its {key} is {value}, numbers are expected"))?;
    Ok(Some(all))
}

/// One value, or a list again.
fn as_config(values: &[f32]) -> Value {
    if let [only] = values { json!(only) } else { json!(values) }
}

/// Fails unless there is one value, or one for each channel of the input.
fn per_channel(name: &str, values: &[f32], input: &[usize]) -> Result<(), String> {
    match (values.len(), input.last().copied().unwrap_or(1)) {
        (n, channels) if n == 1 || n == channels => Ok(()),
        (n, channels) => Err(format!("its {name} has {n} values for {channels} channels")),
    }
}

impl Layer for Rescaling {
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
    fn to_keras(&self) -> Map<String, Value> {
        self.settings.clone()
    }
}

/// (x − mean) / max(sqrt(variance), 1e-7) over the last axis, with statistics of the training data.
#[derive(Clone, Debug)]
pub struct Normalization {
    /// Mean, one value or one per channel.
    pub mean: Tensor,
    /// Variance, likewise.
    pub variance: Tensor,
    /// The statistics stand in the config and not among the weights.
    constant: bool,
}

impl Normalization {
    pub(crate) fn class(&self) -> &'static str {
        "Normalization"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let input = one(inputs)?;
        let channels = input.last().copied().unwrap_or(1);
        if config.bool_or("invert", false)? {
            return Err("it inverts a normalization, which is not supported".into());
        }
        let constant = numbers(config, "mean")?.zip(numbers(config, "variance")?);
        let (mean, variance, constant) = match constant {
            Some((mean, variance)) => (Tensor::vector(mean), Tensor::vector(variance), true),
            None => {
                let whole = config.0.contains_key("axis") && config.get("axis").is_none();
                let shape: &[usize] = if whole { &[] } else { &[channels] };
                if !whole {
                    last_axis(config, input.len())?;
                }
                (weights.take("mean", shape)?, weights.take("variance", shape)?, false)
            }
        };
        Ok(Self { mean, variance, constant })
    }
}

impl Normalization {
    /// Mean and standard deviation, one value or one per channel.
    pub fn statistics(&self) -> (Vec<f32>, Vec<f32>) {
        let deviation = self.variance.data().iter().map(|v| v.sqrt().max(1e-7)).collect();
        (self.mean.data().to_vec(), deviation)
    }
}

impl Layer for Normalization {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        per_channel("mean", self.mean.data(), input)?;
        per_channel("variance", self.variance.data(), input)?;
        Ok(input.to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        if self.constant { Vec::new() } else { vec![("mean", &self.mean), ("variance", &self.variance)] }
    }
    fn integers(&self) -> Vec<(&'static str, i32)> {
        if self.constant { Vec::new() } else { vec![("count", 0)] }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let (mean, deviation) = self.statistics();
        let (mean, deviation) = (mean.iter().cycle(), deviation.iter().cycle());
        out.data_mut().iter_mut().zip(mean.zip(deviation)).for_each(|(x, (m, d))| *x = (*x - m) / d);
        out
    }
    fn to_keras(&self) -> Map<String, Value> {
        let constant = |t: &Tensor| if self.constant { as_config(t.data()) } else { Value::Null };
        settings(json!({ "axis": [-1], "mean": constant(&self.mean), "variance": constant(&self.variance) }))
    }
}
