//! `shiftwise report`: one page about a network on a target.

use std::path::PathBuf;

use shiftwise::analyze::glance;
use shiftwise::device::Device;
use shiftwise::estimate::estimate;
use shiftwise::inspect::{Inspection, inspect};
use shiftwise::report::{Report, Timing};
use shiftwise_formats::{self as format, Files, Model};
use shiftwise_graph::error::Error;
use shiftwise_integer::lower;
use shiftwise_quant::pipeline::PtqOptions;

use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::outcome::Outcome;
use crate::recipe::Recipe;
use crate::screen::Screen;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    /// DPU: a name, a fingerprint, an arch.json
    #[arg(long, value_name = "TARGET", conflicts_with = "board")]
    target: Option<String>,
    /// Board whose DPU it is
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// The page
    #[arg(short, long, default_value = "report.html", value_name = "FILE.html")]
    output: PathBuf,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let inputs = args.recipe.calib_files();
    data::keep(args.model.files().chain(&inputs).map(PathBuf::as_path), &[&args.output])?;
    let device = match (&args.target, &args.board) {
        (Some(name), _) => Some(Device::named(name)?),
        (None, Some(board)) => Some(Device::of_board(board)?.ok_or_else(|| no_dpu(board))?),
        (None, None) => None,
    };
    let model = args.model.open_for_timing(screen)?;
    let options = args.recipe.options_of_ptq(screen)?;
    let inspection = inspection(&args.model, &model, &options, device.as_ref())?;
    let timing = match &device {
        Some(device) => {
            let (quantized, note) = shiftwise::estimate::timed(model.clone())?;
            note.iter().for_each(|note| screen.note(note));
            Some(Timing::of(&estimate(&lower::lower(&quantized)?, device)?, device)?)
        }
        None => None,
    };
    let analysis = match &model {
        Model::Float(graph) if !args.recipe.calib.is_empty() => {
            let quantized = args.recipe.quantize(model.clone(), &args.preprocess, screen)?.quantized;
            let samples = args.preprocess.for_graph(&args.recipe.calib, graph)?;
            Some(glance(graph, &options, &quantized, &samples)?)
        }
        Model::Quantized(_) if !args.recipe.calib.is_empty() => {
            return Err(Error::Options(
                "--calib: a quantized model has no float network beside it to compare with; give the float model"
                    .into(),
            ));
        }
        Model::Float(_) | Model::Quantized(_) => None,
    };
    let provenance = args.recipe.provenance(&args.model, &args.preprocess)?;
    let report = Report { output: args.output.clone(), inspection, timing, analysis, provenance };
    format::write_file(&args.output, report.html().as_bytes())?;
    screen.say(format!("page in {}", args.output.display()));
    Outcome::done(report)
}

/// Where the layers of a model run.
pub(crate) fn inspection(
    files: &ModelArgs,
    model: &Model,
    options: &PtqOptions,
    device: Option<&Device>,
) -> Result<Inspection, Error> {
    let layers = format::user_layers(shiftwise::evaluate::graph(model), Some(&Files::open(&files.path)?));
    inspect(model, &layers, &options.strategy, device)
}

/// What is said of a board without a DPU.
fn no_dpu(board: &str) -> Error {
    Error::Options(format!(
        "{board} has no DPU, of which this page tells; `shiftwise estimate --board {board}` has its time"
    ))
}
