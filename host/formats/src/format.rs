//! The formats of models' files: one row each.

use std::path::Path;

use shiftwise_files::{Files, LoadOptions};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_quant::quant_graph::{Model, QuantGraph};
use shiftwise_tensorflow as tensorflow;
use {shiftwise_keras as keras, shiftwise_onnx as onnx};

mod foreign;

pub(crate) use foreign::is_onnx;

/// A format of files.
///
/// A new one is a row of [`FORMATS`] and a file with its reader, its writer, or both.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What a file of it is, with an article, as it stands in sentences.
    pub name: &'static str,
    /// Whether files are of this format, by their content. Rows are asked in their order: an earlier row may have said
    /// no to what a later one takes.
    pub is: fn(&Files) -> bool,
    /// How it is read, or what to do instead.
    pub read: Reading,
    /// How a quantized model is written, if it is.
    pub write: Option<Write>,
}

/// The bytes of a quantized model's file; the path only appears in messages.
pub type Write = fn(&QuantGraph, &Path) -> Result<Vec<u8>, Error>;

/// What is done with a file of a format.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// It is read; everything that its reader takes is charged to the budget.
    Reader(fn(Files, &LoadOptions, &Budget) -> Result<Model, Error>),
    /// It is not read: the rest of the sentence that says what it is, with what to do.
    Remedy(&'static str),
}

/// The vendor's graphs, of which commands that run programs know more.
pub const XMODEL: &str = "a vendor's graph (.xmodel)";

/// All formats that are known.
pub const FORMATS: &[Format] = &[
    Format {
        name: "a Keras model's architecture (.json)",
        is: keras::is_json,
        read: Reading::Reader(keras::read_json),
        write: None,
    },
    Format {
        name: "a PyTorch file",
        is: foreign::is_pytorch,
        read: Reading::Remedy(", which is not read; a Keras model in a .keras or .h5 file is expected"),
        write: None,
    },
    Format {
        name: "a TensorFlow SavedModel",
        is: foreign::is_saved_model,
        read: Reading::Reader(tensorflow::read_saved_model),
        write: None,
    },
    Format {
        name: "a TensorFlow checkpoint",
        is: foreign::is_checkpoint,
        read: Reading::Remedy(": weights without a model; load it into its model and save that as .keras or .h5"),
        write: None,
    },
    Format {
        name: "a Keras 3 model (.keras)",
        is: Files::is_zip,
        read: Reading::Reader(keras::read_archive),
        write: None,
    },
    Format {
        name: "a Keras model (.h5)",
        is: keras::is_h5,
        read: Reading::Reader(keras::read_h5),
        write: Some(keras::write),
    },
    Format {
        name: "a TensorFlow Lite model",
        is: foreign::is_tflite,
        read: Reading::Reader(tensorflow::read_tflite),
        write: None,
    },
    Format {
        name: "a compiled model",
        is: foreign::is_compiled,
        read: Reading::Remedy("; the Keras model that it was made of is expected"),
        write: None,
    },
    Format {
        name: "a Python pickle",
        is: foreign::is_pickle,
        read: Reading::Remedy(", which is not read; a Keras model in a .keras or .h5 file is expected"),
        write: None,
    },
    Format { name: "an ONNX model", is: is_onnx, read: Reading::Reader(onnx::read), write: None },
    Format {
        name: "a TensorFlow graph",
        is: foreign::is_graph,
        read: Reading::Reader(tensorflow::read_graph),
        write: None,
    },
    Format {
        name: XMODEL,
        is: shiftwise_xmodel::is_model,
        read: Reading::Reader(shiftwise_xmodel::read_model),
        write: None,
    },
];

impl Format {
    /// The format of files; `None` for a format that is not known.
    pub fn of(files: &Files) -> Option<&'static Self> {
        FORMATS.iter().find(|format| (format.is)(files))
    }

    /// The model in files of this format.
    ///
    /// Errors: a format that is not read, and what its reader finds.
    pub fn open(&self, files: Files, options: &LoadOptions) -> Result<Model, Error> {
        match self.read {
            Reading::Reader(read) => {
                let budget = files.budget();
                let foreign = || options.weights.as_deref().and_then(foreign_weights);
                read(files, options, &budget).map_err(|error| foreign().unwrap_or(error))
            }
            Reading::Remedy(_) => Err(not_read(self, files.path())),
        }
    }

    /// Whether there is a reader.
    pub fn is_read(&self) -> bool {
        matches!(self.read, Reading::Reader(_))
    }
}

/// All formats that can be read, for a sentence: `a Keras 3 model (.keras), a …`.
pub fn readable() -> String {
    let names: Vec<&str> = FORMATS.iter().filter(|format| format.is_read()).map(|format| format.name).collect();
    names.join(", ")
}

/// The model in files of any format.
pub(crate) fn read(files: Files, options: &LoadOptions) -> Result<Model, Error> {
    match Format::of(&files) {
        Some(format) => format.open(files, options),
        None => Err(unknown(&files)),
    }
}

/// What is said of files of a format that has no reader.
fn not_read(format: &Format, path: &Path) -> Error {
    let remedy = match format.read {
        Reading::Remedy(remedy) => remedy,
        Reading::Reader(_) => ", which does not belong here",
    };
    Error::Foreign { path: path.to_owned(), message: format!("is {}{remedy}", format.name) }
}

/// What is said of files whose format is not known.
pub(crate) fn unknown(files: &Files) -> Error {
    let can = format!("formats that can be read: {}", readable());
    let what = match files.bytes() {
        // As the system says it of a folder that is read as a file.
        None => {
            let source = std::io::Error::new(
                std::io::ErrorKind::IsADirectory,
                format!("is a folder without a model that is known; {can}"),
            );
            return Error::Io { path: files.path().to_owned(), source };
        }
        Some([]) => "is empty",
        Some([0x1f, 0x8b, ..]) => "is gzip-compressed; unpack it first",
        Some(_) => "is not an HDF5 file, nor any other that is known",
    };
    Error::format(files.path(), format!("{what}; {can}"))
}

/// What is said of a file of weights whose format has no reader, or is not known.
fn foreign_weights(path: &Path) -> Option<Error> {
    let files = Files::open(path).ok()?;
    match Format::of(&files) {
        Some(format) if format.is_read() => None,
        Some(format) => Some(not_read(format, path)),
        None => Some(unknown(&files)),
    }
}

#[cfg(test)]
mod tests;
