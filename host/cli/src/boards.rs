//! `shiftwise run`: a compiled model on a board.

use std::path::PathBuf;

use serde_json::{Value, json};
use shiftwise_board::{
    self as link, Board, BoardSpec, Limits, Report, Reported, SelfTested, SerialLog, Session, image,
};
use shiftwise_core::model::{Deployable, Step, TensorId};
use shiftwise_core::monitor::{Drift, Expected, Sketch};
use shiftwise_formats::files::Set;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;

use crate::data::Preprocess;
use crate::outcome::Outcome;
use crate::screen::{Screen, count};
use shiftwise::run;
use shiftwise::run::Tensors;

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

/// The model's own samples on the board: what to print, for `--json`, and whether all outputs are right.
fn self_test(board: &mut Board) -> Result<(String, Value, bool), Error> {
    let SelfTested { samples, wrong } = board.self_test().map_err(failed)?;
    Ok(match wrong {
        None => {
            (format!("self-test: {samples} samples right"), json!({ "samples": samples, "first_wrong": null }), true)
        }
        Some(w) => (
            format!(
                "self-test: sample {}, output {}, byte {}: expected {:#04x}, computed {:#04x}",
                w.sample, w.output, w.byte, w.wanted, w.found
            ),
            json!({ "samples": samples, "first_wrong": { "sample": w.sample, "output": w.output, "byte": w.byte,
                "expected": w.wanted, "computed": w.found } }),
            false,
        ),
    })
}

/// The first tensor in which the board differs from this machine, and the first value in it: in words, and for `--json`.
fn difference(board: &mut Board, model: &Deployable<'_>, inputs: &[Vec<u8>]) -> Result<Option<(String, Value)>, Error> {
    let wanted = match run::target_of(model)? {
        Some(target) => run::functional(model, &target, inputs)?,
        None => run::frame(model, None, inputs)?,
    };
    let Some(difference) = board.first_difference(inputs, &wanted.0).map_err(failed)? else { return Ok(None) };
    let known = wanted.0.iter().find(|(id, _)| *id == difference.tensor).zip(model.tensor(difference.tensor));
    let Some(((_, wanted), tensor)) = known else {
        return Err(Error::Run(format!("the board told of tensor {}, which there is not", difference.tensor.0)));
    };
    let (wanted, found) = (run::texts(&tensor, wanted), run::texts(&tensor, &difference.found));
    let differ = || wanted.iter().zip(&found).enumerate().filter(|(_, (a, b))| a != b);
    let mut words = format!("layer {}, tensor {}", tensor.origin, tensor.name);
    let mut value = json!({ "layer": tensor.origin, "tensor": tensor.name, "values": wanted.len() });
    if let (Some(_), Some((element, (expected, computed)))) = (difference.first, differ().next()) {
        let (index, count) = (run::index(&tensor, element), differ().count());
        let of = wanted.len();
        words += &format!(", at {index:?}: expected {expected}, computed {computed}; {count} of {of} values differ");
        value["index"] = json!(index);
        value["expected"] = json!(expected);
        value["computed"] = json!(computed);
        value["differing"] = json!(count);
    } else {
        words += ", right at the second try: the board does not always compute the same";
    }
    Ok(Some((words, value)))
}

/// Prints what the tensors have held; `expected` is what they held in the self-test.
fn drift(
    model: &Deployable<'_>,
    seen: &[(TensorId, Sketch)],
    expected: &[(TensorId, Sketch)],
    screen: &Screen,
) -> Value {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for (id, sketch) in seen {
        let name = model.tensor(*id).map_or("?", |t| t.name);
        let known = expected.iter().find(|(other, _)| other == id);
        let drift = sketch.drift(known.map_or(Expected::OF_POSITION, |(_, sketch)| sketch.into()));
        let verdict = match drift {
            Drift::Inside => "as expected",
            Drift::Unseen => "not seen",
            Drift::Clipped => "too large: values are cut off",
            Drift::Wide => "larger than expected",
            Drift::Narrow => "smaller than expected",
        };
        let cells = [sketch.min.to_string(), sketch.max.to_string(), count(sketch.saturated()), verdict.to_owned()];
        rows.push([vec![name.to_owned()], cells.to_vec()].concat());
        all.push(json!({ "tensor": name, "runs": sketch.runs, "min": sketch.min, "max": sketch.max,
            "saturated": sketch.saturated(), "values": sketch.values(), "octaves": sketch.octaves,
            "drift": format!("{drift:?}").to_lowercase() }));
    }
    screen.table(&["tensor", "min", "max", "at the limits", "compared with the self-test"], 1, &rows);
    if expected.is_empty() {
        screen.note("the model holds no self-test: compared with what positions alone tell");
    }
    Value::Array(all)
}

/// A sample's tensors as the board sent them.
pub(crate) fn tensors(result: &link::SampleResult) -> Tensors {
    let bytes = |r: &Reported| if let Reported::Bytes(b) = r { Some(b.clone()) } else { None };
    Tensors(result.tensors.iter().filter_map(|(id, r)| Some((*id, bytes(r)?))).collect())
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
        let samples = args.preprocess.for_deployable(&args.data, &model)?;
        let n = args.samples.clamp(1, samples.len().max(1));
        (0..n).map(|i| run::input_bytes(&model, &samples, i)).collect::<Result<Vec<_>, _>>()?
    };
    let served = serve(args, (&file, &model, &spec), &inputs, screen);
    let mut lines = Vec::new();
    if let Some(log) = log {
        lines = log.lines().map_err(failed)?;
        lines.iter().for_each(|line| screen.note(format!("board: {line}")));
    }
    let mut served = served?;
    served.session.log.extend(lines);
    tell(args, &model, &served, screen)
}

/// What came of a session.
struct Served {
    session: Session,
    /// For `--json`: self-test, drift, comparison with this machine.
    tested: Value,
    drifted: Value,
    checked: Value,
    /// Whether the board was right in everything that was asked for.
    yes: bool,
}

fn serve(
    args: &Args,
    (file, model, spec): (&[u8], &Deployable<'_>, &BoardSpec),
    inputs: &[Vec<Vec<u8>>],
    screen: &Screen,
) -> Result<Served, Error> {
    let mut board = Board::start(spec, &firmware(spec, screen)?, file, Limits::default()).map_err(failed)?;
    board.load(file).map_err(failed)?;
    let mut yes = true;
    let (mut tested, mut expected) = (Value::Null, Vec::new());
    if args.self_test || args.drift && model.facts().self_test_samples > 0 {
        let (words, value, right) = self_test(&mut board)?;
        screen.say(words);
        (tested, yes) = (value, right);
        if args.drift {
            expected = board.sketches().map_err(failed)?;
            board.forget().map_err(failed)?;
        }
    }
    let mut runs = Vec::new();
    for sample in inputs {
        runs.push(board.sample(sample, Report::Outputs).map_err(failed)?);
    }
    let mut drifted = Value::Null;
    if args.drift {
        drifted = drift(model, &board.sketches().map_err(failed)?, &expected, screen);
    }
    let mut checked = Value::Null;
    if args.check {
        let n = inputs.len();
        let mut first = None;
        for (index, sample) in inputs.iter().enumerate() {
            if let Some((words, mut value)) = difference(&mut board, model, sample)? {
                value["sample"] = json!(index);
                first = Some((format!("sample {index}, {words}"), value));
                break;
            }
        }
        yes &= first.is_none();
        screen.say(first.as_ref().map_or_else(
            || format!("check: every tensor of {n} samples is this machine's"),
            |(words, _)| format!("check: first difference: {words}"),
        ));
        checked = json!({ "samples": n, "first_difference": first.map(|(_, value)| value) });
    }
    let info = board.info().clone();
    let log = board.finish().map_err(failed)?;
    log.iter().for_each(|line| screen.detail(format!("board: {line}")));
    Ok(Served { session: Session { info, samples: runs, log }, tested, drifted, checked, yes })
}

/// Prints what the samples gave and took.
fn tell(args: &Args, model: &Deployable<'_>, served: &Served, screen: &Screen) -> Result<Outcome, Error> {
    let Served { session, tested, drifted, checked, yes } = served;
    let (n, yes) = (session.samples.len(), *yes);
    if n == 0 {
        return Ok(Outcome { json: json!({ "board": args.board, "self_test": tested, "log": session.log }), yes });
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
    let results: Vec<Tensors> = session.samples.iter().map(tensors).collect();
    for (k, (id, t)) in model.outputs().enumerate() {
        for (sample, tensors) in results.iter().enumerate().take(8) {
            let Some((_, bytes)) = tensors.0.iter().rev().find(|(i, _)| *i == id) else { continue };
            let values = match run::values(&t, bytes) {
                shiftwise::dump::Values::Int8(q) => q.iter().map(|q| f32::from(*q) * t.pos.step()).collect(),
                shiftwise::dump::Values::Int32(q) => q.iter().map(|q| *q as f32 * t.pos.step()).collect(),
                shiftwise::dump::Values::Float(x) => x,
            };
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
    let json = json!({
        "board": args.board, "samples": n, "unit": unit, "self_test": tested, "check": checked, "drift": drifted,
        "per_step": session.samples.iter().map(|s| s.steps.clone()).collect::<Vec<_>>(),
        "log": session.log,
    });
    Ok(Outcome { json, yes })
}
