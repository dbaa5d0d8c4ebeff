//! Layers that Keras doesn't know: computed by what the user provides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::error::Error;
use crate::ops::act::LAMBDA;
use crate::ops::formula::Formula;
use crate::ops::{Config, Layer, WeightSource};
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

    /// A layer without settings and weights.
    pub fn new(class: &str, implementation: Arc<dyn CustomLayer>) -> Self {
        Self { class: class.to_owned(), config: Map::new(), weights: Vec::new(), implementation }
    }

    pub fn from_keras(
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
pub struct Unknown {
    class: String,
    shape: Vec<usize>,
}

impl Unknown {
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

/// The class of the vendor's example.
const EXAMPLE: &str = "Mylayer";

/// The implementations that a reader of models knows.
#[derive(Clone, Debug)]
pub struct CustomLayers(Vec<Arc<dyn CustomLayer>>);

impl Default for CustomLayers {
    /// The layer of the vendor's example of custom layers: a PReLU.
    fn default() -> Self {
        let example = Formula::parse(&format!("{EXAMPLE}=maximum(x, 0) + alpha * minimum(x, 0)"));
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
        let own = class.rsplit('>').next().unwrap_or(class);
        let named = |name: &str| self.0.iter().find(|known| known.class() == name).cloned();
        named(class).or_else(|| named(own))
    }

    /// The implementation that stands for a layer by its name: all of it, or the part behind the models around it.
    fn by_name(&self, layer: &str) -> Option<Arc<dyn CustomLayer>> {
        let own = layer.rsplit('/').next().unwrap_or(layer);
        let named = |name: &str| self.0.iter().find(|known| known.class() == name).cloned();
        named(layer).or_else(|| named(own))
    }
}

/// Layers that one formula of their class stands for.
#[derive(Debug, Default)]
struct OfClass {
    layers: Vec<String>,
    /// The settings of the first that say what is computed.
    settings: Map<String, Value>,
    /// Whether another has other ones.
    differ: bool,
}

/// The implementations while a model is read: which are used, and for what.
#[derive(Debug)]
pub struct CustomUse<'a> {
    known: &'a CustomLayers,
    used: BTreeSet<String>,
    of_class: BTreeMap<String, OfClass>,
}

/// Classes whose name says nothing about what a layer computes.
fn is_opaque(class: &str) -> bool {
    // An operation's name may stand behind the class.
    let class = class.split(' ').next().unwrap_or(class);
    class == "Lambda" || class == "TensorFlowOpLayer" || class.ends_with("OpLambda")
}

impl<'a> CustomUse<'a> {
    pub fn new(known: &'a CustomLayers) -> Self {
        Self { known, used: BTreeSet::new(), of_class: BTreeMap::new() }
    }

    /// Whether there is an implementation of a class.
    pub fn has(&self, class: &str) -> bool {
        self.known.get(class).is_some()
    }

    /// The implementation of a layer: by its name, else by its class.
    pub fn layer(&mut self, name: &str, class: &str, config: &Map<String, Value>) -> Option<Arc<dyn CustomLayer>> {
        let found = match self.known.by_name(name) {
            Some(found) => found,
            None => {
                let found = self.known.get(class)?;
                if is_opaque(class) {
                    self.note(class, name, config);
                }
                found
            }
        };
        self.used.insert(found.class().to_owned());
        Some(found)
    }

    /// Whether two layers of an opaque class compute the same shows in their settings only.
    fn note(&mut self, class: &str, name: &str, config: &Map<String, Value>) {
        const ELSEWHERE: [&str; 5] = ["name", "trainable", "dtype", "batch_input_shape", "build_config"];
        let mut settings = config.clone();
        settings.retain(|key, _| !ELSEWHERE.contains(&key.as_str()));
        match self.of_class.get_mut(class) {
            Some(of) => {
                of.differ |= of.settings != settings;
                of.layers.push(name.to_owned());
            }
            None => {
                let of = OfClass { layers: vec![name.to_owned()], settings, differ: false };
                self.of_class.insert(class.to_owned(), of);
            }
        }
    }

    /// The implementation of an activation function of a layer: by the layer's name, else by the function's.
    ///
    /// `setting` is what the layer says of it: the code of a function without a name, in some files.
    pub fn activation(&mut self, layer: &str, function: &str, setting: &Value) -> Option<Arc<dyn CustomLayer>> {
        let by_name = self.known.by_name(layer);
        if by_name.is_none() && function == LAMBDA {
            self.note(function, layer, &Map::from_iter([("activation".to_owned(), setting.clone())]));
        }
        let found = by_name.or_else(|| self.known.get(function))?;
        self.used.insert(found.class().to_owned());
        Some(found)
    }

    /// Fails if one formula stands for several layers that compute different things.
    pub fn check(&self) -> Result<(), Error> {
        match self.of_class.iter().find(|(_, of)| of.differ) {
            Some((class, of)) => Err(Error::Options(format!(
                "--custom-layer `{class}`: the model has several different layers of that class or function ({}), and one formula \
                 can't be what all of them compute; give each its own by its name, such as --custom-layer '{}=FORMULA'",
                listed(&of.layers),
                of.layers.first().map_or("NAME", String::as_str),
            ))),
            None => Ok(()),
        }
    }

    /// What the user should know of.
    pub fn warnings(&self) -> Vec<String> {
        let given = self.known.0.iter().map(|known| known.class()).filter(|class| *class != EXAMPLE);
        let idle = given.filter(|class| !self.used.contains(*class)).map(|class| {
            format!(
                "--custom-layer `{class}` has no effect: the model has no layer, class or activation of that name that \
                 is not known anyway"
            )
        });
        let lambdas = self.of_class.get(LAMBDA).filter(|of| of.layers.len() > 1).map(|of| {
            format!(
                "the one formula of `{LAMBDA}` is used for the activations of the layers {}; the file doesn't tell \
                 whether they are the same function, so give each its own by the layer's name if they are not",
                listed(&of.layers)
            )
        });
        idle.chain(lambdas).collect()
    }
}

/// `` `a`, `b` and 3 more ``.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
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
    "MultiHeadAttention",
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
