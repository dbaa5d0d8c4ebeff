//! `shiftwise run`: a compiled model on a board.

use std::path::PathBuf;

use shiftwise::board_run::{self, Answered, Asked, BoardRun, SelfTestRun, TensorDrift};
use shiftwise::run;
use shiftwise::run::Tensors;
use shiftwise_board::{self as link, Board, BoardSpec, Limits, Report, SerialLog, Session, image};
use shiftwise_core::model::{Deployable, Step};
use shiftwise_core::monitor::Drift;
use shiftwise_formats::files::Set;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;

use crate::data::Preprocess;
use crate::outcome::Outcome;
use crate::screen::{Screen, count};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compiled model
    #[arg(value_name = "MODEL.swm")]
    model: PathBuf,
    /// Board: qemu:NAME starts an emulator, serial:PATH talks to a port
    #[arg(long, value_name = "BOARD")]
    board: String,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required_unless_present = "self_test", value_name = "DATA")]
    data: Vec<String>,
    /// Samples to run, from the first
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    /// Folder for the outputs as .npy
    #[arg(long, requires = "data", value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// Run the model's own samples on the board; a wrong output is exit code 1
    #[arg(long)]
    self_test: bool,
    /// Compare every tensor with this machine's, by checksums; the first that differs is shown, with exit code 1
    #[arg(long, requires = "data")]
    check: bool,
    /// Tell what the tensors have held, beside what they hold in the self-test
    #[arg(long, requires = "data")]
    drift: bool,
    /// Show the log that a board behind a serial port sends to another port: PATH[@BAUD]. (Emulators: -v)
    #[arg(long, value_name = "PORT", requires = "firmware")]
    log: Option<String>,
    /// Image that the board runs (ELF): it has the log's texts
    #[arg(long, value_name = "ELF", requires = "log")]
    firmware: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// A board by its name on the command line.
pub(crate) fn spec(name: &str) -> Result<BoardSpec, Error> {
    name.parse().map_err(|e: link::LinkError| Error::Target(e.to_string()))
}

fn failed(error: link::LinkError) -> Error {
    Error::Run(error.to_string())
}

/// The image for an emulator; empty for a board that runs one already.
fn firmware(spec: &BoardSpec, screen: &Screen) -> Result<PathBuf, Error> {
    let BoardSpec::Qemu(board) = spec else { return Ok(PathBuf::new()) };
    screen.note(format!("firmware of {}: bringing the image up to date (a first build takes minutes)", board.name));
    image::find(board).map_err(|e| Error::Run(e.to_string()))
}

/// Runs samples on a board and brings back every tensor.
pub(crate) fn session(
    spec: &BoardSpec,
    file: &[u8],
    samples: Vec<Vec<Vec<u8>>>,
    screen: &Screen,
) -> Result<Session, Error> {
    let session = link::run_on_board(spec, &firmware(spec, screen)?, file, samples, Report::Bytes).map_err(failed)?;
    session.log.iter().for_each(|line| screen.detail(format!("board: {line}")));
    Ok(session)
}

/// Prints what the tensors have held.
fn tell_drift(tensors: &[TensorDrift], tested: bool, screen: &Screen) {
    let row = |t: &TensorDrift| {
        let verdict = match t.drift {
            Drift::Inside => "as expected",
            Drift::Unseen => "not seen",
            Drift::Clipped => "too large: values are cut off",
            Drift::Wide => "larger than expected",
            Drift::Narrow => "smaller than expected",
        };
        vec![t.tensor.clone(), t.min.to_string(), t.max.to_string(), count(t.saturated), verdict.to_owned()]
    };
    let rows: Vec<Vec<String>> = tensors.iter().map(row).collect();
    screen.table(&["tensor", "min", "max", "at the limits", "compared with the self-test"], 1, &rows);
    if !tested {
        screen.note("the model holds no self-test: compared with what positions alone tell");
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let file = std::fs::read(&args.model).map_err(Error::io(&args.model))?;
    let model = run::parse(&args.model, &file)?;
    let spec = spec(&args.board)?;
    if args.self_test && model.facts().self_test_samples == 0 {
        let text = format!("{} holds no self-test: compile it with --self-test DATA", args.model.display());
        return Err(Error::Options(text));
    }
    let log = match (&args.log, &args.firmware) {
        (Some(_), _) if matches!(spec, BoardSpec::Qemu(_)) => {
            return Err(Error::Options("--log is for a board behind a serial port; -v shows an emulator's log".into()));
        }
        (Some(port), Some(image)) => Some(SerialLog::open(&port.as_str().into(), image).map_err(failed)?),
        _ => None,
    };
    let inputs = if args.data.is_empty() {
        Vec::new()
    } else {
        let samples = args.preprocess.for_deployable(&args.data, &model, screen)?;
        let n = args.samples.clamp(1, samples.len().max(1));
        (0..n).map(|i| run::input_bytes(&model, &samples, i)).collect::<Result<Vec<_>, _>>()?
    };
    let served = serve(args, (&file, &model, &spec), &inputs, screen);
    let mut lines = Vec::new();
    if let Some(log) = log {
        lines = log.lines().map_err(failed)?;
        lines.iter().for_each(|line| screen.note(format!("board: {line}")));
    }
    let mut answered = served?;
    answered.session.log.extend(lines);
    tell(args, &model, answered, screen)
}

fn serve(
    args: &Args,
    (file, model, spec): (&[u8], &Deployable<'_>, &BoardSpec),
    inputs: &[Vec<Vec<u8>>],
    screen: &Screen,
) -> Result<Answered, Error> {
    let board = Board::start(spec, &firmware(spec, screen)?, file, Limits::default()).map_err(failed)?;
    let asked = Asked { self_test: args.self_test, check: args.check, drift: args.drift };
    let answered = board_run::run_samples(board, (file, model), inputs, asked)?;
    if let Some(test) = &answered.self_test {
        screen.say(format!("self-test: {test}"));
    }
    if let Some(tensors) = &answered.drift {
        tell_drift(tensors, answered.self_test.is_some(), screen);
    }
    if let Some(check) = &answered.check {
        screen.say(match &check.first_difference {
            None => format!("check: every tensor of {} samples is this machine's", check.samples),
            Some(first) => format!("check: first difference: {first}"),
        });
    }
    answered.session.log.iter().for_each(|line| screen.detail(format!("board: {line}")));
    Ok(answered)
}

/// Prints what the samples gave and took.
fn tell(args: &Args, model: &Deployable<'_>, answered: Answered, screen: &Screen) -> Result<Outcome, Error> {
    let yes = answered.is_right();
    let Answered { session, self_test, check, drift } = answered;
    let (n, board) = (session.samples.len(), args.board.clone());
    if n == 0 {
        return Outcome::of(SelfTestRun { board, self_test, log: session.log }, yes);
    }
    let first = session.samples.first();
    let total: u64 = first.map_or(0, |s| s.steps.iter().sum());
    let mut rows = Vec::new();
    for (step, ticks) in model.steps().zip(first.map_or(&[][..], |s| &s.steps)) {
        let name = match &step {
            Step::Dpu(job) => job.name,
            Step::Cpu(op) => model.tensor(op.output()).map_or("?", |t| t.origin),
        };
        let share = 100.0 * *ticks as f64 / total.max(1) as f64;
        rows.push(vec![name.to_owned(), count(*ticks), format!("{share:.1} %")]);
    }
    let emulated = args.board.starts_with("qemu:");
    let unit = if emulated { "instructions" } else { "ticks" };
    screen.table(&["step", unit, "share"], 1, &rows);
    screen.say("");
    let time = match session.info.hz {
        hz @ 1.. if !emulated => format!(" ({:.3} ms)", 1e3 * total as f64 / f64::from(hz)),
        _ => String::new(),
    };
    screen.say(format!("{n} samples on {}; {} {unit}{time} for the first", args.board, count(total)));
    let results: Vec<Tensors> = session.samples.iter().map(board_run::tensors).collect();
    for (k, (id, t)) in model.outputs().enumerate() {
        for (sample, tensors) in results.iter().enumerate().take(8) {
            let Some((_, bytes)) = tensors.0.iter().rev().find(|(i, _)| *i == id) else { continue };
            let values = run::reals(&t, bytes);
            let best = values.iter().enumerate().fold(0, |b, (i, v)| if *v > values[b] { i } else { b });
            let value = values.get(best).copied().unwrap_or_default();
            screen.say(format!("sample {sample}, output {k}: largest at {best} ({value:.4}) of {}", values.len()));
        }
    }
    if let Some(dir) = &args.output_dir {
        let mut set = Set::new(dir, shiftwise::dump::MANIFEST)?;
        shiftwise::outputs::add_outputs(&mut set, model, &results)?;
        set.commit(serde_json::Map::new())?;
    }
    let per_step = session.samples.iter().map(|s| s.steps.clone()).collect();
    let report = BoardRun { board, samples: n, unit, self_test, check, drift, per_step, log: session.log };
    Outcome::of(report, yes)
}
