//! Layers that Keras doesn't know: computed by what the user provides.

use std::sync::Arc;

use crate::attributes::Attributes;
use crate::ops::{Layer, Op};
use shiftwise_tensor::tensor::Tensor;

/// What computes the layers of one class.
///
/// Shapes exclude the batch, tensors include it as their first dimension. Everything that can be wrong is said by
/// [`CustomLayer::output_shape`], after which [`CustomLayer::eval`] is given tensors of those shapes.
pub trait CustomLayer: std::fmt::Debug + Send + Sync {
    /// What it stands for: the Keras class of layers, without its package, or the name of a layer or of an activation
    /// function.
    fn class(&self) -> &str;
    /// Output shape of one sample; errors say what doesn't fit.
    fn output_shape(&self, layer: &Custom, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;
    /// Whether it can compute; a layer that only stands in its place can't.
    fn computes(&self) -> bool {
        true
    }
    /// The layer as known layers one after the other, of which the last makes the result, with the same values in every
    /// bit; `None` if there is no such form. `weights` as in [`CustomLayer::eval`].
    fn parts(&self, _: &Custom, _inputs: &[&[usize]], _weights: &[&Tensor]) -> Option<Vec<Part>> {
        None
    }
    /// The result for a batch, in f32. `weights` are those of the layer, in order, possibly fake-quantized.
    fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor;
}

/// One of the layers that a custom layer is made of; it has no weights of its own.
#[derive(Clone, Debug)]
pub struct Part {
    /// What it computes.
    pub op: Op,
    /// Its operands: inputs of the custom layer, and behind them the parts before it.
    pub inputs: Vec<usize>,
    /// Its result's shape, without the batch.
    pub shape: Vec<usize>,
}

/// A layer of a class that is not Keras' own.
#[derive(Clone, Debug)]
pub struct Custom {
    /// Class as the file has it, with its package if it was registered under one.
    pub class: String,
    /// All settings, as the file has them.
    pub config: Attributes,
    /// All weights in the file's order; names are paths below the layer.
    pub weights: Vec<(String, Tensor)>,
    implementation: Arc<dyn CustomLayer>,
}

impl Custom {
    /// A layer without settings and weights, which may be given to it.
    pub fn new(class: &str, implementation: Arc<dyn CustomLayer>) -> Self {
        let (class, config, weights) = (class.to_owned(), Attributes::default(), Vec::new());
        Self { class, config, weights, implementation }
    }

    /// Whether anything is known to compute it.
    pub fn computes(&self) -> bool {
        self.implementation.computes()
    }

    /// See [`CustomLayer::parts`].
    pub fn parts(&self, inputs: &[&[usize]], weights: &[&Tensor]) -> Option<Vec<Part>> {
        self.implementation.parts(self, inputs, weights)
    }

    /// The weight whose name or last part of the name is `name`, if only one is called so, as its index.
    pub fn weight(&self, name: &str) -> Option<usize> {
        let called = |full: &str| full == name || full.rsplit('/').next() == Some(name);
        let mut found = self.weights.iter().enumerate().filter(|(_, (full, _))| called(full)).map(|(i, _)| i);
        found.next().filter(|_| found.next().is_none())
    }
}

impl Layer for Custom {
    fn class(&self) -> &str {
        &self.class
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        self.implementation.output_shape(self, inputs)
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        self.implementation.eval(self, inputs, weights)
    }
}

/// A layer of a class that nothing computes, with the shape that its file gives its result.
#[derive(Clone, Debug)]
pub struct Unknown {
    class: String,
    shape: Vec<usize>,
}

impl Unknown {
    /// A layer of this class with results of this shape.
    pub fn new(class: &str, shape: &[usize]) -> Self {
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

/// Classes whose name says nothing about what a layer computes.
pub fn is_opaque(class: &str) -> bool {
    // An operation's name may stand behind the class.
    let class = class.split(' ').next().unwrap_or(class);
    class == "Lambda" || class == "TensorFlowOpLayer" || class.ends_with("OpLambda")
}

/// Keras' own classes that no formula can express: they look across positions, keep a state or wrap other layers.
const BEYOND_FORMULAS: &[&str] = &[
    "TimeDistributed",
    "Bidirectional",
    "RNN",
    "SimpleRNN",
    "LSTM",
    "GRU",
    "StackedRNNCells",
    "Embedding",
    "Attention",
    "AdditiveAttention",
    "GroupQueryAttention",
    "EinsumDense",
    "LocallyConnected1D",
    "LocallyConnected2D",
    "Functional",
    "Model",
];

/// What helps where a class is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// A formula for the class.
    ClassFormula,
    /// A formula for the one layer: others of the class may compute something else.
    LayerFormula,
    /// Supported layers in its place; no formula can express it.
    OtherLayers,
}

/// What helps where a class is not supported.
pub fn remedy(class: &str) -> Remedy {
    let operation = is_opaque(class) && class != "Lambda";
    let of_keras = BEYOND_FORMULAS.contains(&class) || class.ends_with("3D") || class.starts_with("ConvLSTM");
    if class == "Lambda" {
        Remedy::LayerFormula
    } else if operation || of_keras || class.contains(' ') {
        Remedy::OtherLayers
    } else {
        Remedy::ClassFormula
    }
}
