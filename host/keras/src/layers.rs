//! Keras' form of every layer: how its settings are read and written.
//!
//! `keras_layers!` is the one table: a row names a layer of the graph and its Keras classes. Behind a row stands the
//! layer's `KerasForm`, reading and writing side by side, in the file of its family.

use serde_json::{Map, Value};

use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::{self, Op};
use shiftwise_tensor::tensor::Tensor;

mod activations;
pub(crate) mod attention;
pub mod attributes;
mod config;
pub mod functions;
mod merges;
mod moves;
pub(crate) mod node;
pub(crate) mod normalizations;
mod pools;
mod settings;
mod weighted;
mod wrappers;

#[cfg(test)]
mod gradients;
#[cfg(test)]
mod tests;

pub use config::Config;
pub(crate) use settings::{Setting, Settings};

pub(crate) use activations::unknown_name;

/// Where a reader takes weights from: a file, or a generator of random ones.
pub trait WeightSource {
    /// The weight of a Keras name (`kernel`, `bias`, …) and shape.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String>;
    /// Every weight that is there for the layer, with its path below the layer, in order.
    fn all(&mut self) -> Result<Vec<(String, Tensor)>, String> {
        Ok(Vec::new())
    }
}

/// The weights of what has none.
#[derive(Clone, Copy, Debug)]
pub struct NoWeights;

impl WeightSource for NoWeights {
    fn take(&mut self, name: &str, _: &[usize]) -> Result<Tensor, String> {
        Err(format!("it has no weight `{name}`"))
    }
}

/// A layer as a file describes it.
pub(crate) struct Described<'a> {
    /// Keras class.
    class: &'a str,
    /// Settings.
    config: Config<'a>,
    /// Shapes of one sample of each input.
    inputs: &'a [&'a [usize]],
    /// The layer's weights.
    weights: &'a mut dyn WeightSource,
}

impl Described<'_> {
    /// The shape of its only input.
    fn input(&self) -> Result<&[usize], String> {
        ops::one(self.inputs)
    }

    /// Channels of its only input: the size of the last axis.
    fn channels(&self) -> Result<usize, String> {
        self.input()?.last().copied().ok_or_else(|| "its input has no dimensions".into())
    }
}

/// How Keras describes a layer. Whether the settings that are read belong together is checked where the layer enters a
/// graph; here only what a setting may be by itself.
trait KerasForm: Sized {
    /// The layer of a description.
    fn read(from: &mut Described<'_>) -> Result<Self, String>;
    /// Its settings in Keras' order, without name, `trainable` and dtype. `rank`: dimensions of one sample of its result.
    fn write(&self, to: &mut Settings, rank: usize);
    /// Whole-number variables that Keras keeps beside the weights, with the value to be written.
    fn integers(&self) -> Vec<(&'static str, i32)> {
        Vec::new()
    }
}

/// Rows of the table: `Variant(Struct) = "KerasClass" | …;` where a struct may serve several classes.
macro_rules! keras_layers {
    ($($variant:ident($layer:ty) = $($class:literal)|+;)*) => {
        /// Every Keras class that can be read.
        pub const CLASSES: &[&str] = &[$($($class,)+)*];

        /// A layer from its Keras class and settings; `None` for a class that isn't in the table. `inputs` are shapes of one
        /// sample.
        pub fn read(
            class: &str,
            config: Config<'_>,
            inputs: &[&[usize]],
            weights: &mut dyn WeightSource,
        ) -> Option<Result<Op, String>> {
            let mut from = Described { class, config, inputs, weights };
            match class {
                $($($class)|+ => Some(<$layer as KerasForm>::read(&mut from).map(Op::$variant)),)*
                _ => None,
            }
        }

        /// The settings of a layer in Keras' order; `rank`: dimensions of one sample of its result.
        pub(crate) fn write(op: &Op, rank: usize) -> Settings {
            let mut to = Settings::default();
            match op {
                $(Op::$variant(layer) => layer.write(&mut to, rank),)*
                Op::Custom(layer) => wrappers::write_custom(layer, &mut to),
            }
            to
        }

        /// Whole-number variables that Keras keeps beside a layer's weights, with the value to be written.
        pub(crate) fn integers(op: &Op) -> Vec<(&'static str, i32)> {
            match op {
                $(Op::$variant(layer) => layer.integers(),)*
                Op::Custom(_) => Vec::new(),
            }
        }
    };
}

keras_layers! {
    Input(ops::Input) = "InputLayer";
    Conv2D(ops::Conv2D) = "Conv2D";
    DepthwiseConv2D(ops::DepthwiseConv2D) = "DepthwiseConv2D";
    Conv2DTranspose(ops::Conv2DTranspose) = "Conv2DTranspose";
    SeparableConv2D(ops::SeparableConv2D) = "SeparableConv2D";
    Dense(ops::Dense) = "Dense";
    BatchNormalization(ops::BatchNormalization) = "BatchNormalization";
    LayerNormalization(ops::LayerNormalization) = "LayerNormalization";
    GroupNormalization(ops::GroupNormalization) = "GroupNormalization";
    UnitNormalization(ops::UnitNormalization) = "UnitNormalization";
    RmsNormalization(ops::RmsNormalization) = "RMSNormalization";
    LayerScale(ops::LayerScale) = "LayerScale";
    DpuLayerNorm(ops::DpuLayerNorm) = "VitisLayernorm";
    Normalization(ops::Normalization) = "Normalization";
    Rescaling(ops::Rescaling) = "Rescaling";
    Relu(ops::Relu) = "ReLU";
    Elu(ops::Elu) = "ELU";
    LeakyRelu(ops::LeakyRelu) = "LeakyReLU";
    PRelu(ops::PRelu) = "PReLU";
    HardSigmoid(ops::HardSigmoid) = "VitisSigmoid";
    Activation(ops::Activate) = "Activation";
    Softmax(ops::Softmax) = "Softmax";
    DpuSoftmax(ops::DpuSoftmax) = "VitisSoftmax";
    Add(ops::Add) = "Add";
    Multiply(ops::Multiply) = "Multiply";
    Merge(ops::Merge) = "Subtract" | "Maximum" | "Minimum" | "Average";
    ScaledAdd(ops::ScaledAdd) = "CustomScaleLayer";
    Dot(ops::Dot) = "Dot";
    MultiHeadAttention(ops::MultiHeadAttention) = "MultiHeadAttention";
    Concatenate(ops::Concatenate) = "Concatenate";
    MaxPooling2D(ops::MaxPooling2D) = "MaxPooling2D";
    AveragePooling2D(ops::AveragePooling2D) = "AveragePooling2D" | "VitisAveragePooling2D";
    GlobalAveragePooling2D(ops::GlobalAveragePooling2D) = "GlobalAveragePooling2D" | "VitisGlobalAveragePooling2D";
    GlobalMaxPooling2D(ops::GlobalMaxPooling2D) = "GlobalMaxPooling2D";
    Flatten(ops::Flatten) = "Flatten";
    Reshape(ops::Reshape) = "Reshape";
    ZeroPadding2D(ops::ZeroPadding2D) = "ZeroPadding2D";
    Cropping2D(ops::Cropping2D) = "Cropping2D";
    UpSampling2D(ops::UpSampling2D) = "UpSampling2D";
    Resizing(ops::Resizing) = "Resizing";
    RepeatVector(ops::RepeatVector) = "RepeatVector";
    OneD(ops::OneD) = "Conv1D" | "DepthwiseConv1D" | "SeparableConv1D" | "Conv1DTranspose" | "MaxPooling1D"
        | "AveragePooling1D" | "GlobalAveragePooling1D" | "GlobalMaxPooling1D" | "UpSampling1D" | "ZeroPadding1D"
        | "Cropping1D";
    TimeDistributed(ops::TimeDistributed) = "TimeDistributed";
    Permute(ops::Permute) = "Permute";
    Dropout(ops::Dropout) = "Dropout" | "SpatialDropout2D" | "SpatialDropout1D" | "AlphaDropout" | "GaussianDropout"
        | "GaussianNoise" | "ActivityRegularization" | "RandomFlip" | "RandomRotation" | "RandomTranslation"
        | "RandomZoom" | "RandomContrast" | "RandomBrightness" | "Identity" | "StochasticDepth" | "SpatialDropout3D"
        | "RandomHeight" | "RandomWidth" | "RandomColorDegeneration" | "RandomColorJitter" | "RandomElasticTransform"
        | "RandomErasing" | "RandomGaussianBlur" | "RandomGrayscale" | "RandomHue" | "RandomInvert"
        | "RandomPerspective" | "RandomPosterization" | "RandomSaturation" | "RandomSharpness" | "RandomShear"
        | "AugMix" | "CutMix" | "MixUp" | "RandAugment";
    TfOp(ops::TfOp) = "TFOpLambda" | "SlicingOpLambda";
    Quantize(ops::Quantize) = "VitisQuantize";
}

/// The settings of a layer as text, for messages and comparisons: ` key=value` each.
fn text(op: &Op, rank: usize) -> String {
    match op {
        Op::TimeDistributed(layer) => format!(" {}{}", layer.layer.class(), text(&layer.layer, rank)),
        op => write(op, rank).own_values().map(|(key, value)| format!(" {key}={value}")).collect(),
    }
}

/// A node's class and the settings that it is computed with.
pub(crate) fn node_text(node: &Node) -> String {
    format!("{}{}", node.op.class(), text(&node.op, node.shape.len()))
}

/// One line per node of a graph: name, class, shape, inputs, settings.
pub fn graph_text(graph: &Graph) -> String {
    let mut lines = format!("graph {}\n", graph.name);
    let names = |ids: &[NodeId]| ids.iter().map(|i| graph.node(*i).name.as_str()).collect::<Vec<_>>().join(", ");
    for node in &graph.nodes {
        let (class, settings) = (node.op.class(), text(&node.op, node.shape.len()));
        lines += &format!("  {} = {class}({}) -> {:?}{settings}\n", node.name, names(&node.inputs), node.shape);
    }
    lines + &format!("  return {}\n", names(&graph.outputs))
}

/// A map from a JSON object.
fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
