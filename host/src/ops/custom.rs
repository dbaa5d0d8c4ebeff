//! Layers that Keras doesn't know: computed by what the user provides.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::formula::Formula;
use super::{Config, Layer, WeightSource};
use crate::tensor::Tensor;

/// What computes the layers of one class.
///
/// Shapes exclude the batch, tensors include it as their first dimension. Everything that can be wrong is said by
/// [`CustomLayer::output_shape`], after which [`CustomLayer::eval`] is given tensors of those shapes.
pub trait CustomLayer: std::fmt::Debug + Send + Sync {
    /// The Keras class, without its package.
    fn class(&self) -> &str;
    /// Output shape of one sample; errors say what doesn't fit.
    fn output_shape(&self, layer: &Custom, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;
    /// Whether it can compute; a layer that only stands in its place can't.
    fn computes(&self) -> bool {
        true
    }
    /// The result for a batch, in f32. `weights` are those of the layer, in order, possibly fake-quantized.
    fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor;
}

/// A layer of a class that is not Keras' own.
#[derive(Clone, Debug)]
pub struct Custom {
    /// Class as the file has it, with its package if it was registered under one.
    pub class: String,
    /// All settings, as the file has them.
    pub config: Map<String, Value>,
    /// All weights in the file's order; names are paths below the layer.
    pub weights: Vec<(String, Tensor)>,
    implementation: Arc<dyn CustomLayer>,
}

impl Custom {
    pub(crate) fn class(&self) -> &str {
        &self.class
    }

    pub(crate) fn from_keras(
        class: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
        implementation: Arc<dyn CustomLayer>,
    ) -> Result<Self, String> {
        let (class, config, weights) = (class.to_owned(), config.0.clone(), weights.all()?);
        let custom = Self { class, config, weights, implementation };
        custom.output_shape(inputs)?;
        Ok(custom)
    }

    /// Whether anything is known to compute it.
    pub fn computes(&self) -> bool {
        self.implementation.computes()
    }

    /// The weight whose name or last part of the name is `name`, if only one is called so, as its index.
    pub fn weight(&self, name: &str) -> Option<usize> {
        let called = |full: &str| full == name || full.rsplit('/').next() == Some(name);
        let mut found = self.weights.iter().enumerate().filter(|(_, (full, _))| called(full)).map(|(i, _)| i);
        found.next().filter(|_| found.next().is_none())
    }
}

impl Layer for Custom {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.implementation.output_shape(self, inputs)
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        self.implementation.eval(self, inputs, weights)
    }
    fn to_keras(&self) -> Map<String, Value> {
        // These three are written for every layer.
        let own = self.config.iter().filter(|(key, _)| !["name", "trainable", "dtype"].contains(&key.as_str()));
        own.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// A layer of a class that nothing computes, with the shape that its file gives its result.
#[derive(Clone, Debug)]
pub(crate) struct Unknown {
    class: String,
    shape: Vec<usize>,
}

impl Unknown {
    pub(crate) fn new(class: &str, shape: &[usize]) -> Self {
        Self { class: class.to_owned(), shape: shape.to_vec() }
    }
}

impl CustomLayer for Unknown {
    fn class(&self) -> &str {
        &self.class
    }
    fn output_shape(&self, _: &Custom, _: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(self.shape.clone())
    }
    fn computes(&self) -> bool {
        false
    }
    fn eval(&self, _: &Custom, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let batch = inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(1);
        Tensor::zeros(&[&[batch], self.shape.as_slice()].concat())
    }
}

/// The implementations that a reader of models knows.
#[derive(Clone, Debug)]
pub struct CustomLayers(Vec<Arc<dyn CustomLayer>>);

impl Default for CustomLayers {
    /// The layer of the vendor's example of custom layers: a PReLU.
    fn default() -> Self {
        let example = Formula::parse("Mylayer=maximum(x, 0) + alpha * minimum(x, 0)");
        Self(example.into_iter().map(|formula| Arc::new(formula) as Arc<dyn CustomLayer>).collect())
    }
}

impl CustomLayers {
    /// Adds an implementation, which replaces an earlier one of its class.
    pub fn add(&mut self, layer: Arc<dyn CustomLayer>) {
        self.0.retain(|known| known.class() != layer.class());
        self.0.push(layer);
    }

    /// Adds a class by a formula, such as `Mylayer=maximum(x, 0) + alpha * minimum(x, 0)`: see [`Formula`].
    pub fn add_formula(&mut self, text: &str) -> Result<(), String> {
        self.add(Arc::new(Formula::parse(text)?));
        Ok(())
    }

    /// The implementation of a class; packages don't count.
    pub fn get(&self, class: &str) -> Option<Arc<dyn CustomLayer>> {
        let class = class.rsplit('>').next().unwrap_or(class);
        self.0.iter().find(|known| known.class() == class).cloned()
    }
}
