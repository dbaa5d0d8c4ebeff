//! What the user may say to a reader.

use std::path::PathBuf;

use shiftwise_graph::ops::CustomLayers;

/// What a reader may be told.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Shapes that replace those of the model's inputs, batch first; without a name for a model with one input.
    pub input_shapes: Vec<(Option<String>, Vec<usize>)>,
    /// Seed of the weights of a model that has none.
    pub random_weights: Option<u64>,
    /// A file with the weights of a float model, instead of those that are in its own, if any.
    pub weights: Option<PathBuf>,
    /// What computes layers that are none of Keras' own.
    pub custom: CustomLayers,
    /// Reads a quantized file of TensorFlow Lite as a quantized network, its scales as the positions next to them, and not
    /// as the float network that it stands for.
    pub keep_quantization: bool,
    /// Keeps layers of unknown classes whose result's shape the file says: enough for timing, and nothing can be computed.
    pub keep_unknown: bool,
}
