//! ONNX models: read as networks of layers, or computed as they are; written.
//!
//! # Invariants
//! - `ops::OPS` has every operator: what it computes of values, and which layers it is.
//! - `value` has exact values of ONNX' types; nothing else here knows element types.
//! - Reading makes layers for one sample with channels last, and permutes only where the file itself looks at the layout.

mod file;
mod ops;
mod proto;
mod reader;
mod value;
mod writer;

pub use file::{Dim, Network, Port};
pub(crate) use reader::read;
pub use value::{Data, Element, Kind, Value};
pub use writer::{Form, WriteOptions, write_float, write_quantized};

use std::path::Path;

use shiftwise_graph::error::Error;

use crate::source::Files;

/// The ONNX model in a file; `None` if the file is none.
///
/// Errors: a file that can't be read or is damaged.
pub fn open(path: &Path) -> Result<Option<Network>, Error> {
    let files = Files::open(path)?;
    if crate::format::is_onnx(&files) { Network::read(files).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests;
