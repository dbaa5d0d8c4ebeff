//! Files: float models in, quantized models in and out.
//!
//! # Invariants
//! - [`FORMATS`] has all formats, those included that are only told and not read. A format is told by its content, never by
//!   a file's name.
//! - Readers see the world through [`Files`] only: one file, an archive or a folder, on a disk or in memory.
//! - Readers take hostile input: every count is charged to the [`Budget`] of the files before memory is taken, and
//!   everything that can be wrong is an [`Error`] that says what.
//! - Graphs are made with `shiftwise_graph::builder`, which checks every layer: a reader says what its file says.
//! - Keras' form of every layer is a row of `keras_layers!`, in [`keras::layers`]; ONNX' operators are a table in [`onnx`].
//! - All writing goes through [`files`].
//!
//! API boundary: no; the crate `shiftwise` is.

mod format;
pub mod onnx;

use std::path::Path;

use serde_json::Value;

use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::qat::Qat;
use shiftwise_quant::quant_graph::QuantGraph;

pub use format::{FORMATS, Format, Reading, Write, XMODEL, readable};
pub use shiftwise_files::{self as files, Files, LoadOptions, write_file};
pub use shiftwise_keras as keras;
pub use shiftwise_quant::quant_graph::Model;
pub use shiftwise_tensorflow as tensorflow;

/// How a format is added; its example is compiled and run here.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/new-format.md")]
struct NewFormat;

pub use shiftwise_keras::{
    UserLayer, graph_text, keras_version, quantize_info, read_back, training_variables, user_layers,
};

/// The value of a JSON file, with no more values than a file of its size pays for.
///
/// Errors: the rest of a sentence about the file.
pub fn json(text: &[u8]) -> Result<Value, String> {
    files::json::parse(text, &Budget::for_file(text.len()))
}

/// Reads a model of either kind: a file or a folder of one of [`FORMATS`].
pub fn open(path: &Path, options: &LoadOptions) -> Result<Model, Error> {
    open_files(Files::open(path)?, options)
}

/// [`open`] of a file that is in memory already; `path` only appears in messages.
pub fn open_bytes(path: &Path, bytes: Vec<u8>, options: &LoadOptions) -> Result<Model, Error> {
    open_files(Files::of_bytes(path, bytes), options)
}

/// [`open`] of files wherever they are.
pub fn open_files(files: Files, options: &LoadOptions) -> Result<Model, Error> {
    format::read(files, options)
}

/// Reads a float model.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Graph, Error> {
    match open(path, options)? {
        Model::Float(graph) => Ok(graph),
        Model::Quantized(_) => Err(Error::wrong_kind(path, "is a quantized model, and a float model is expected")),
    }
}

/// Reads a quantized model, ours or the vendor's.
pub fn load_quantized(path: &Path) -> Result<QuantGraph, Error> {
    match open(path, &LoadOptions::default())? {
        Model::Quantized(quantized) => Ok(quantized),
        Model::Float(_) => Err(Error::wrong_kind(path, "is a float model, and a quantized model is expected")),
    }
}

/// Reads a quantized model to be trained: a `qat.h5`, ours or the vendor's.
///
/// Errors: those of [`open`]; a model that is not quantized.
pub fn load_training(path: &Path, options: &LoadOptions) -> Result<Qat, Error> {
    load_training_files(Files::open(path)?, options)
}

/// [`load_training`] of files wherever they are.
pub fn load_training_files(files: Files, options: &LoadOptions) -> Result<Qat, Error> {
    shiftwise_keras::read_training(files, options)
}

/// The bytes of the `.h5` file of a network in training, as the vendor's tool would save it; `path` only appears in messages.
pub fn training_bytes(qat: &Qat, path: &Path) -> Result<Vec<u8>, Error> {
    shiftwise_keras::write_training(qat, path)
}

/// The bytes of a quantized model's `.h5` file; `path` only appears in messages.
pub fn quantized_bytes(quantized: &QuantGraph, path: &Path) -> Result<Vec<u8>, Error> {
    shiftwise_keras::write(quantized, path)
}

/// Writes a quantized model as the vendor's tool would save it.
pub fn save_quantized(quantized: &QuantGraph, path: &Path) -> Result<(), Error> {
    write_file(path, &quantized_bytes(quantized, path)?)
}
