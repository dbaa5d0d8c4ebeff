//! `shiftwise run`: a compiled model on a board.

use std::path::PathBuf;

use serde_json::json;
use shiftwise::Error;
use shiftwise::eval::Samples;
use shiftwise::link::{self, BoardSpec, Report, Reported, Session, image};
use shiftwise_core::model::Step;

use super::backend::{self, Tensors};
use super::data::Preprocess;
use super::screen::{Screen, count};
use super::{Outcome, simulate};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Compiled model
    #[arg(value_name = "MODEL.swm")]
    model: PathBuf,
    /// Board: qemu:NAME starts an emulator, serial:PATH talks to a port
    #[arg(long, value_name = "BOARD")]
    board: String,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// Samples to run, from the first
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::positive())]
    samples: usize,
    /// Folder for the outputs as .npy
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    preprocess: Preprocess,
}

/// A board by its name on the command line.
pub(super) fn spec(name: &str) -> Result<BoardSpec, Error> {
    name.parse().map_err(|e: link::LinkError| Error::Target(e.to_string()))
}

/// Runs samples on a board and brings back every tensor.
pub(super) fn session(
    spec: &BoardSpec,
    file: &[u8],
    samples: Vec<Vec<Vec<u8>>>,
    screen: &Screen,
) -> Result<Session, Error> {
    let fail = |e: link::LinkError| Error::Run(e.to_string());
    let firmware = match spec {
        BoardSpec::Qemu(board) => {
            screen.note(format!(
                "firmware of {}: bringing the image up to date (a first build takes minutes)",
                board.name
            ));
            image::find(board).map_err(|e| Error::Run(e.to_string()))?
        }
        BoardSpec::Serial(_) => PathBuf::new(),
    };
    let session = link::run_on_board(spec, &firmware, file, samples, Report::Bytes).map_err(fail)?;
    session.log.iter().for_each(|line| screen.detail(format!("board: {line}")));
    Ok(session)
}

/// A sample's tensors as the board sent them.
pub(super) fn tensors(result: &link::SampleResult) -> Tensors {
    let bytes = |r: &Reported| if let Reported::Bytes(b) = r { Some(b.clone()) } else { None };
    Tensors(result.tensors.iter().filter_map(|(id, r)| Some((*id, bytes(r)?))).collect())
}

pub(super) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let file = std::fs::read(&args.model).map_err(Error::io(&args.model))?;
    let model = backend::parse(&args.model, &file)?;
    let spec = spec(&args.board)?;
    let samples = backend::open(&args.preprocess, &args.data, &model)?;
    let n = args.samples.clamp(1, samples.len().max(1));
    let inputs = (0..n).map(|i| backend::input_bytes(&model, &samples, i)).collect::<Result<Vec<_>, _>>()?;
    let session = session(&spec, &file, inputs, screen)?;

    let first = session.samples.first();
    let mut rows = Vec::new();
    for (step, ticks) in model.steps().zip(first.map_or(&[][..], |s| &s.steps)) {
        let name = match &step {
            Step::Dpu(job) => job.name,
            Step::Cpu(op) => model.tensor(op.output()).map_or("?", |t| t.origin),
        };
        rows.push(vec![name.to_owned(), count(*ticks)]);
    }
    let unit = if matches!(spec, BoardSpec::Qemu(_)) { "instructions" } else { "ticks" };
    screen.table(&["step", unit], 1, &rows);
    let total: u64 = first.map_or(0, |s| s.steps.iter().sum());
    screen.say("");
    screen.say(format!("{n} samples on {}; {} {unit} for the first", args.board, count(total)));
    let results: Vec<Tensors> = session.samples.iter().map(tensors).collect();
    for (k, (id, t)) in model.outputs().enumerate() {
        for (sample, tensors) in results.iter().enumerate().take(8) {
            let Some((_, bytes)) = tensors.0.iter().rev().find(|(i, _)| *i == id) else { continue };
            let values = match backend::values(&t, bytes) {
                shiftwise::dump::Values::Int8(q) => q.iter().map(|q| f32::from(*q) * t.pos.step()).collect(),
                shiftwise::dump::Values::Float(x) => x,
            };
            let best = values.iter().enumerate().fold(0, |b, (i, v)| if *v > values[b] { i } else { b });
            let value = values.get(best).copied().unwrap_or_default();
            screen.say(format!("sample {sample}, output {k}: largest at {best} ({value:.4}) of {}", values.len()));
        }
    }
    if let Some(dir) = &args.output_dir {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        simulate::write_outputs(dir, &model, &results)?;
    }
    Outcome::done(json!({
        "board": args.board, "samples": n, "unit": unit,
        "per_step": session.samples.iter().map(|s| s.steps.clone()).collect::<Vec<_>>(),
        "log": session.log,
    }))
}
