//! Keras' own files: `.h5`, `.keras`, `.json`, and the vendor's `quantized.h5` and `qat.h5`.
//!
//! # Invariants
//! - The form of every layer is a row of `keras_layers!` in [`layers`], reading and writing side by side; readers of other
//!   formats that speak of layers by Keras' names read those rows too.
//! - What differs between Keras' versions is asked of `generation`, nowhere else.
//! - What is written is read again and compared ([`read_back`]).
//!
//! API boundary: no; the crate `shiftwise` is.

mod archive;
mod back;
mod call;
mod conv_norm;
mod custom_use;
mod dtype;
mod expand;
mod flatten;
mod float_graph;
mod generation;
mod h5;
pub mod layers;
pub mod layout;
mod listing;
mod model;
mod node_def;
mod open;
mod operation;
mod parts;
mod quantize_info;
mod quantized;
mod record;
mod scope;
mod shape_values;
mod stored;
mod weights;
mod wrapped;

pub use back::read_back;
pub use h5::is_hdf5;
pub use layers::graph_text;
pub use listing::{UserLayer, user_layers};
pub use open::{is_h5, is_json, keras_version, read_archive, read_h5, read_json, read_training};
pub use quantize_info::quantize_info;
pub use quantized::{training_variables, write, write_training};
