//! Files: float models in, quantized models in and out.
//!
//! A file's kind is told by its content, never by its name. Readers take hostile input: every count is checked against
//! the file's size before memory is taken, and everything that can be wrong is an [`Error`] that says what.

use std::path::Path;

use crate::error::Error;
use crate::ir::Graph;

mod h5;
mod keras;

/// What a reader may be told.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Shapes that replace those of the model's inputs, batch first; without a name for a model with one input.
    pub input_shapes: Vec<(Option<String>, Vec<usize>)>,
}

/// Reads a float model.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Graph, Error> {
    load_bytes(path, std::fs::read(path).map_err(Error::io(path))?, options)
}

/// [`load`] of a file that is in memory already; `path` only appears in messages.
pub fn load_bytes(path: &Path, bytes: Vec<u8>, options: &LoadOptions) -> Result<Graph, Error> {
    let file = open_h5(path, bytes)?;
    let config = keras::ModelConfig::read(&file)?;
    if config.is_quantized() {
        return Err(Error::format(path, "is a quantized model, and a float model is expected"));
    }
    config.float_graph(&file, options)
}

fn open_h5(path: &Path, bytes: Vec<u8>) -> Result<h5::H5, Error> {
    if h5::is_hdf5(&bytes) {
        return h5::H5::from_bytes(path, bytes);
    }
    let kind = match bytes.get(..4) {
        _ if bytes.is_empty() => "is empty",
        Some([b'P', b'K', 3, 4]) => "is a zip archive",
        Some([0x1f, 0x8b, ..]) => "is gzip-compressed; unpack it first",
        _ => "is not an HDF5 file",
    };
    Err(Error::format(path, format!("{kind}; a Keras model in an .h5 file is expected")))
}
