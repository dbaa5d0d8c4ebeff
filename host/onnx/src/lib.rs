//! ONNX models: read as networks of layers, or computed as they are; written.
//!
//! # Invariants
//! - `ops::OPS` has every operator: what it computes of values, and which layers it is.
//! - `value` has exact values of ONNX' types; nothing else here knows element types.
//! - Reading makes layers for one sample with channels last, and permutes only where the file itself looks at the layout.
//!
//! API boundary: no; the crate `shiftwise` is.

mod expand;
mod file;
mod ops;
mod proto;
mod reader;
mod value;
mod writer;

pub use file::{Dim, Network, Port};
pub use reader::read;
pub use value::{Data, Element, Kind, Value};
pub use writer::{Form, WriteOptions, write_float, write_quantized};

/// The key of a model's metadata under which the writer says positions of weights that their values don't tell: an object by
/// layers' names of objects by weights' names of position and width.
const POSITIONS: &str = "shiftwise_positions";

#[cfg(test)]
mod tests;
