//! Batch normalization.

use serde_json::{Map, Value, json};

use super::{Config, Layer, WeightSource, one, settings};
use crate::tensor::Tensor;

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
        let axis = match config.get("axis") {
            None => -1,
            Some(Value::Array(a)) if a.len() == 1 => a[0].as_i64().unwrap_or(0),
            Some(v) => v.as_i64().unwrap_or(0),
        };
        if axis != -1 && axis != input.len() as i64 {
            return Err(format!("it normalizes axis {axis}, only the last one ({}) is supported", input.len()));
        }
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

    /// Beta, or zeros.
    pub fn offset(&self) -> Vec<f32> {
        self.beta.as_ref().map_or_else(|| vec![0.0; self.mean.data().len()], |b| b.data().to_vec())
    }
}

impl Layer for BatchNormalization {
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
        // Rebuilt from the weights that were passed, which may be fake-quantized; then Keras' x·mult + (beta − mean·mult).
        let mut own = self.clone();
        let mut next = weights.iter().map(|w| (*w).clone());
        own.gamma = own.gamma.and_then(|_| next.next());
        own.beta = own.beta.and_then(|_| next.next());
        let mult = own.multiplier();
        let add: Vec<f32> = own.offset().iter().zip(own.mean.data()).zip(&mult).map(|((b, m), k)| b - m * k).collect();
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
