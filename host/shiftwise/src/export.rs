//! A model in another format, for other tools.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_core::model::MAGIC;
use shiftwise_formats::files::write_files;
use shiftwise_formats::onnx::{Form, WriteOptions, write_float, write_quantized};
use shiftwise_formats::{Model, quantized_bytes, tensorflow, write_file};
use shiftwise_graph::error::Error;
use shiftwise_integer::lower::lower;

use crate::build::{check_grids, program};
use crate::run;

mod c_source;

/// A format that models are exported to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The vendor's quantized model, of a quantized one.
    H5,
    /// ONNX.
    Onnx,
    /// A SavedModel of TensorFlow, which is a folder.
    Tf,
    /// A frozen graph of TensorFlow.
    Pb,
    /// The vendor's graph of a quantized model.
    Xmodel,
    /// C: a header and a source with a deployable for a CPU.
    C,
}

/// A format's names.
struct Row {
    format: Format,
    /// Its name, which is also the ending of its files.
    name: &'static str,
    /// What commands write into a folder of results, without the format's parts of a name.
    result: &'static str,
}

/// All formats.
const FORMATS: [Row; 6] = [
    Row { format: Format::H5, name: "h5", result: "quantized.h5" },
    Row { format: Format::Onnx, name: "onnx", result: "quantized_model.onnx" },
    Row { format: Format::Tf, name: "tf", result: "quantized_model" },
    Row { format: Format::Pb, name: "pb", result: "quantized_model.pb" },
    Row { format: Format::Xmodel, name: "xmodel", result: "quantized_model.xmodel" },
    Row { format: Format::C, name: "c", result: "quantized_model.c" },
];

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::H5, Self::Onnx, Self::Tf, Self::Pb, Self::Xmodel, Self::C];

    const fn row(self) -> &'static Row {
        &FORMATS[self as usize]
    }

    /// Its name, which is also the ending of its files.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The file or folder that commands write into a folder of results.
    pub const fn file(self) -> &'static str {
        self.row().result
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        FORMATS.iter().find(|row| row.name == name).map(|row| row.format)
    }

    /// Where an export goes that is not told where.
    pub fn default_output(self, stem: &str) -> PathBuf {
        match self {
            Self::Tf => PathBuf::from(format!("{stem}_saved_model")),
            Self::H5 | Self::Onnx | Self::Pb | Self::Xmodel | Self::C => {
                PathBuf::from(format!("{stem}.{}", self.name()))
            }
        }
    }
}

/// What an export reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exported {
    /// The model's file.
    pub model: PathBuf,
    /// The written file, or the folder of a SavedModel.
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

/// The files of a model in a format, with their contents; `output` is the one that the user named.
///
/// Errors: layers that the format has no form for; a float model in a format of quantized ones.
pub fn files(
    model: &Model,
    format: Format,
    options: &WriteOptions,
    output: &Path,
) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let only_quantized = || {
        let why = format!("would hold a float model, and {} is written of quantized ones", format.name());
        Err(Error::wrong_kind(output, why))
    };
    let one = |bytes: Vec<u8>| Ok(vec![(output.to_owned(), bytes)]);
    match (format, model) {
        (Format::H5, Model::Quantized(quantized)) => one(quantized_bytes(quantized, output)?),
        (Format::H5 | Format::Xmodel | Format::C, Model::Float(_)) => only_quantized(),
        (Format::Onnx, Model::Quantized(quantized)) => one(write_quantized(quantized, options)?),
        (Format::Onnx, Model::Float(_)) if options.form == Form::Qdq => {
            Err(Error::Options("the form qdq is for quantized models".into()))
        }
        (Format::Onnx, Model::Float(graph)) => one(write_float(graph, options)?),
        (Format::Pb, _) => one(tensorflow::write_graph(model)?),
        (Format::Tf, _) => Ok(vec![(output.join("saved_model.pb"), tensorflow::write_saved_model(model)?)]),
        (Format::Xmodel, Model::Quantized(quantized)) => one(shiftwise_xmodel::write::write(quantized)?),
        (Format::C, Model::Quantized(quantized)) => {
            check_grids(quantized)?;
            let mut program = program(&lower(quantized)?, None, false, false)?;
            program.metadata = quantized.metadata.to_text();
            c_files(&program.to_bytes(&[])?, output)
        }
    }
}

/// The C files of a deployable's bytes.
///
/// Errors: bytes that are no deployable.
pub fn c_files(deployable: &[u8], output: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let stem = output.file_stem().unwrap_or_default().to_string_lossy();
    let made = c_source::write(&run::parse(output, deployable)?, deployable, &stem);
    let files = [("h", made.header), ("c", made.source)];
    Ok(files.into_iter().map(|(ending, text)| (output.with_extension(ending), text.into_bytes())).collect())
}

/// The deployable that a file is, if it is one.
pub fn deployable(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut head = [0u8; MAGIC.len()];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head)).ok()?;
    if head == MAGIC { std::fs::read(path).ok() } else { None }
}

/// Writes a model in a format, `made` by [`files`] or [`c_files`]. `from` is its own file.
///
/// Errors: those of the files.
pub fn export(
    made: &[(PathBuf, Vec<u8>)],
    from: &Path,
    (format, options): (Format, &WriteOptions),
    output: &Path,
) -> Result<Exported, Error> {
    if format == Format::Tf {
        std::fs::create_dir_all(output).map_err(Error::io(output))?;
    }
    match made {
        [(path, bytes)] => write_file(path, bytes)?,
        several => {
            let all: Vec<(&Path, &[u8])> = several.iter().map(|(p, b)| (p.as_path(), b.as_slice())).collect();
            write_files(&all)?;
        }
    }
    Ok(Exported {
        model: from.to_owned(),
        output: output.to_owned(),
        format,
        opset: (format == Format::Onnx).then_some(options.opset),
        qdq: format == Format::Onnx && options.form == Form::Qdq,
        bytes: made.iter().map(|(_, bytes)| bytes.len() as u64).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_row() {
        for (format, row) in Format::ALL.into_iter().zip(&FORMATS) {
            assert!(row.format == format && Format::from_name(format.name()) == Some(format));
        }
    }
}
