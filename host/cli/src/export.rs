//! `shiftwise export`.

use std::path::PathBuf;

use shiftwise::export::{Format, c_files, deployable, export, files};
use shiftwise_formats::onnx::{Form, WriteOptions};
use shiftwise_graph::error::Error;

use crate::data::{self, ModelArgs};
use crate::outcome::Outcome;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Format to write; C is also written of a compiled model (.swm)
    #[arg(long, value_name = "h5|onnx|tf|pb|xmodel|c", value_parser = format)]
    format: Format,
    /// The file to write, or the folder of a SavedModel [default: MODEL.FORMAT, or MODEL_saved_model, in this folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    onnx: Onnx,
}

/// How ONNX models are written.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Onnx {
    /// Quantizers of an ONNX model: vendor (arithmetic, weights as floats) or qdq (pairs of QuantizeLinear and
    /// DequantizeLinear with int8, also on weights)
    #[arg(long, default_value = "vendor", value_name = "vendor|qdq", value_parser = form)]
    onnx_form: Form,
    /// Version of an ONNX model's operators, 13 to 21
    #[arg(long, default_value_t = 13, value_name = "N", value_parser = clap::value_parser!(i64).range(WriteOptions::OPSETS))]
    onnx_opset_version: i64,
}

impl Onnx {
    /// As the library takes them.
    pub(crate) fn options(self) -> WriteOptions {
        WriteOptions { form: self.onnx_form, opset: self.onnx_opset_version }
    }
}

fn format(text: &str) -> Result<Format, String> {
    Format::from_name(text).ok_or_else(|| format!("one of {} is expected", Format::ALL.map(Format::name).join(", ")))
}

fn form(text: &str) -> Result<Form, String> {
    match text {
        "vendor" => Ok(Form::Vendor),
        "qdq" => Ok(Form::Qdq),
        _ => Err("vendor or qdq is expected".into()),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let path = &args.model.path;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let output = args.output.clone().unwrap_or_else(|| args.format.default_output(&stem));
    data::keep(args.model.files().map(PathBuf::as_path), &[&output])?;
    let (format, options) = (args.format, args.onnx.options());
    let made = match deployable(path).filter(|_| format == Format::C) {
        Some(bytes) => c_files(&bytes, &output)?,
        None => files(&args.model.open(screen)?, format, &options, &output)?,
    };
    let report = export(&made, path, (format, &options), &output)?;
    screen.say(format!("{} bytes; {}", report.bytes, output.display()));
    Outcome::done(report)
}
