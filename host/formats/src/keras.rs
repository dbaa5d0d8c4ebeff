//! Keras' own files: `.h5`, `.keras`, `.json`, and the vendor's `quantized.h5`.

pub(crate) mod archive;
pub(crate) mod back;
pub(crate) mod call;
pub(crate) mod conv_norm;
pub(crate) mod custom_use;
pub(crate) mod dtype;
mod expand;
pub(crate) mod flatten;
pub(crate) mod float_graph;
pub(crate) mod generation;
pub(crate) mod h5;
pub mod layers;
pub(crate) mod layout;
pub(crate) mod listing;
pub(crate) mod model;
pub(crate) mod node_def;
pub(crate) mod open;
pub(crate) mod operation;
pub(crate) mod parts;
pub(crate) mod quantize_info;
pub(crate) mod quantized;
pub(crate) mod record;
pub(crate) mod scope;
pub(crate) mod shape_values;
pub(crate) mod stored;
pub(crate) mod weights;
