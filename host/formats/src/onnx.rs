//! ONNX models as they are: computed, or written.

pub use shiftwise_onnx::{
    Data, Dim, Element, Form, Kind, Network, Port, Value, WriteOptions, write_float, write_quantized,
};

use std::path::Path;

use shiftwise_graph::error::Error;

use shiftwise_files::Files;

/// The ONNX model in a file; `None` if the file is none.
///
/// Errors: a file that can't be read or is damaged.
pub fn open(path: &Path) -> Result<Option<Network>, Error> {
    let files = Files::open(path)?;
    if crate::format::is_onnx(&files) { Network::read(files).map(Some) } else { Ok(None) }
}
