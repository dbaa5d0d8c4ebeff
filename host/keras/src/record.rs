//! What a model's JSON records: its layers and how they are called.

use serde_json::{Map, Value};

use crate::call::{Call, TensorRef};
use crate::generation::Generation;

/// One layer as the config has it.
pub(crate) struct LayerConfig {
    pub(crate) name: String,
    pub(crate) class: String,
    pub(crate) config: Map<String, Value>,
    /// One for each place where it is applied.
    pub(crate) calls: Vec<Call>,
    /// For a model inside the model.
    pub(crate) inner: Option<ModelConfig>,
}

/// A functional or sequential model without its weights; sequential ones are given an input layer and edges.
pub(crate) struct ModelConfig {
    pub(crate) name: String,
    pub(crate) layers: Vec<LayerConfig>,
    /// What it was built as decides how its calls are counted.
    pub(crate) functional: bool,
    pub(crate) generation: Generation,
    pub(crate) inputs: Vec<TensorRef>,
    /// By what name a call may give each input.
    pub(crate) input_keys: Vec<String>,
    pub(crate) outputs: Vec<TensorRef>,
}
