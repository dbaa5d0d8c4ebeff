//! A model in another format, for other tools.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_formats::onnx::{Form, WriteOptions, write_float, write_quantized};
use shiftwise_formats::{Model, quantized_bytes, write_file};
use shiftwise_graph::error::Error;

/// A format that models are exported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The vendor's quantized model, of a quantized one.
    H5,
    /// ONNX.
    Onnx,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::H5, Self::Onnx];

    /// Its name, which is also the ending of its files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::H5 => "h5",
            Self::Onnx => "onnx",
        }
    }

    /// The file that commands write into a folder of results.
    pub const fn file(self) -> &'static str {
        match self {
            Self::H5 => "quantized.h5",
            Self::Onnx => "quantized_model.onnx",
        }
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

/// What an export reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exported {
    /// The model's file.
    pub model: PathBuf,
    /// The written file.
    pub output: PathBuf,
    /// Its format.
    pub format: Format,
    /// Version of the operators, of an ONNX model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub opset: Option<i64>,
    /// Whether quantizers are written as pairs of QuantizeLinear and DequantizeLinear with `int8`.
    pub qdq: bool,
    /// Bytes written.
    pub bytes: u64,
}

/// The bytes of a model's file in a format; `path` only appears in messages.
///
/// Errors: layers that the format has no form for; a float model in a format of quantized ones.
pub fn bytes(model: &Model, format: Format, options: &WriteOptions, path: &Path) -> Result<Vec<u8>, Error> {
    match (format, model) {
        (Format::H5, Model::Quantized(quantized)) => quantized_bytes(quantized, path),
        (Format::H5, Model::Float(_)) => {
            Err(Error::wrong_kind(path, "would hold a float model, and h5 is written of quantized ones"))
        }
        (Format::Onnx, Model::Quantized(quantized)) => write_quantized(quantized, options),
        (Format::Onnx, Model::Float(_)) if options.form == Form::Qdq => {
            Err(Error::Options("the form qdq is for quantized models".into()))
        }
        (Format::Onnx, Model::Float(graph)) => write_float(graph, options),
    }
}

/// Writes a model in a format. `from` is its own file.
///
/// Errors: those of [`bytes`] and of the file.
pub fn export(
    model: &Model,
    from: &Path,
    (format, options): (Format, &WriteOptions),
    output: &Path,
) -> Result<Exported, Error> {
    let bytes = bytes(model, format, options, output)?;
    write_file(output, &bytes)?;
    Ok(Exported {
        model: from.to_owned(),
        output: output.to_owned(),
        format,
        opset: (format == Format::Onnx).then_some(options.opset),
        qdq: format == Format::Onnx && options.form == Form::Qdq,
        bytes: bytes.len() as u64,
    })
}
