//! `shiftwise convert`.

use std::path::{Path, PathBuf};

use shiftwise_formats::{LoadOptions, Model};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_quant::settings::shapes_a_conversion;
use shiftwise_quant::strategy::Strategy;

use crate::data;
use crate::data::ModelArgs;
use crate::outcome::Outcome;
use crate::recipe::setting;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The type of the layers
    #[arg(long, value_name = "float16|bfloat16|float32|float64", value_parser = dtype)]
    to: Dtype,
    /// The model to write [default: MODEL_TYPE.h5 in this folder]
    #[arg(short, long, value_name = "FILE.h5")]
    output: Option<PathBuf>,
    /// The part to convert, and the passes before: input_layers, output_layers, ignore_layers, fold_conv_bn and the like
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

fn dtype(text: &str) -> Result<Dtype, String> {
    Dtype::from_name(text).ok_or_else(|| format!("{} is expected", Dtype::ALL.map(Dtype::name).join(", ")))
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Model::Float(graph) = args.model.open(screen)? else {
        return Err(Error::wrong_kind(&args.model.path, "is a quantized model, a float one is expected"));
    };
    let stem = args.model.path.file_stem().unwrap_or_default().to_string_lossy();
    let default = || Path::new(&format!("{stem}_{}.h5", args.to.name())).to_owned();
    let output = args.output.clone().unwrap_or_else(default);
    if output.extension().is_some_and(|end| end == "keras" || end == "json" || end == "onnx") {
        return Err(Error::Options(format!("{}: HDF5 is written, whose name ends in .h5", output.display())));
    }
    data::keep(args.model.files().map(PathBuf::as_path), &[&output])?;
    let mut strategy = Strategy::built_in("pof2s")?;
    for text in &args.set {
        let (key, value) = setting(text)?;
        if !shapes_a_conversion(key) {
            return Err(Error::Options(format!(
                "--set {key}: it changes nothing of a conversion; what does is the part (input_layers, output_layers, \
                 ignore_layers) and the passes before (optimize_pipeline_config)"
            )));
        }
        if let Some(warning) = strategy.set(key, value)? {
            screen.note(format!("warning: {warning}"));
        }
    }
    let options = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
    let report = shiftwise::convert::convert(graph, &strategy, args.to, (&output, &options))?;
    report.warnings.iter().for_each(|warning| screen.note(format!("warning: {warning}")));
    let kept = if report.kept.is_empty() { String::new() } else { format!(", {} as they were", report.kept.len()) };
    screen.say(format!("{} layers in {}{kept}; {}", report.layers.len(), report.dtype, output.display()));
    Outcome::done(report)
}
