//! `shiftwise export`.

use std::path::{Path, PathBuf};

use shiftwise::export::{Format, export};
use shiftwise_formats::onnx::{Form, WriteOptions};
use shiftwise_graph::error::Error;

use crate::data::{self, ModelArgs};
use crate::outcome::Outcome;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Format to write
    #[arg(long, value_name = "h5|onnx", value_parser = format)]
    format: Format,
    /// The file to write [default: MODEL.FORMAT in this folder]
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
    Format::from_name(text).ok_or_else(|| format!("{} is expected", Format::ALL.map(Format::name).join(" or ")))
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
    let default = || Path::new(&format!("{stem}.{}", args.format.name())).to_owned();
    let output = args.output.clone().unwrap_or_else(default);
    data::keep(args.model.files().map(PathBuf::as_path), &[&output])?;
    let model = args.model.open(screen)?;
    let report = export(&model, path, (args.format, &args.onnx.options()), &output)?;
    screen.say(format!("{} bytes; {}", report.bytes, output.display()));
    Outcome::done(report)
}
