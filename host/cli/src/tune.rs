//! `shiftwise tune`: what the strategy leaves open, searched for accuracy and time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use shiftwise::dataset;
use shiftwise::device::{Device, find_board};
use shiftwise::part::Whole;
use shiftwise::reports::Tuning;
use shiftwise::tune::{Limits, Measure, Price, Request, Trial, Tuned, Unit, svg, tune, tune_shard};
use shiftwise_formats::files::Set;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples as _;
use shiftwise_targets::Board;

use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::evaluate;
use crate::outcome::Outcome;
use crate::recipe::Recipe;
use crate::screen::{Screen, count};
use crate::shards::ShardArgs;

/// Commands to begin with; behind the options.
const EXAMPLES: &str = "\
Examples:
  shiftwise tune model.h5 --calib cal.npy --data val.npy --labels val_labels.npy --target kv260
  shiftwise tune model.h5 --calib cal.npy --data val.npy --max-drop 1% --budget 1h
  shiftwise quantize model.h5 --calib cal.npy --strategy-file tune_results/strategy.json

What is set one by one (--set weight_bit=4) is not searched. The accuracy that a search ends with is that of the data that
it was measured on, which it has chosen by: keep other data for a last test.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
    /// Data to measure on; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// Class numbers, one per sample [default: the float network's answers]
    #[arg(long, value_name = "DATA")]
    labels: Option<String>,
    /// Right answers that may be lost against the float network
    #[arg(long, default_value = "0.5%", value_name = "PERCENT", value_parser = evaluate::percent)]
    max_drop: f64,
    /// DPU whose time is predicted: a name, a fingerprint, an arch.json, a board that has one; or `cpu`
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Board whose time is predicted: its DPU's, or its processor's instructions where it has none or with --target cpu
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// Time at most, such as 90s, 10min or 2h [default: 10min, without --trials]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    budget: Option<Duration>,
    /// Trials at most, those of an earlier run included; the result doesn't depend on the machine's speed then
    #[arg(long, value_name = "N", value_parser = crate::outcome::positive())]
    trials: Option<usize>,
    /// Folder for strategy.json, quantized.h5, trials.jsonl and pareto.svg; trials of an earlier run there are not made again
    #[arg(long, default_value = "tune_results", value_name = "DIR")]
    output_dir: PathBuf,
    #[command(flatten)]
    shards: ShardArgs,
}

const TRIALS: &str = "trials.jsonl";
const STRATEGY: &str = "strategy.json";
const QUANTIZED: &str = "quantized.h5";
const PICTURE: &str = "pareto.svg";
const PROVENANCE: &str = "provenance.json";
/// The version of the file of trials.
const VERSION: u64 = 1;
/// Bytes of a file of trials at most: more are none of ours.
const MOST_BYTES: u64 = 64 << 20;
/// Time at most where nothing is said.
const DEFAULT_BUDGET: Duration = Duration::from_secs(600);

/// A time: `90s`, `10min`, `2h`; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("min", 60.0), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, unit) =
        units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1.0));
    let seconds = number.trim().parse::<f64>().ok().map(|n| n * unit).filter(|s| *s > 0.0 && *s <= 1e9);
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a time is expected, such as 90s, 10min or 2h".into())
}

/// What time is predicted on.
enum On {
    Dpu(Box<Device>),
    Board(Box<Board>),
    Nothing,
}

impl Args {
    fn on(&self) -> Result<On, Error> {
        let board = |name: &str| Ok(On::Board(Box::new(find_board(name)?)));
        match (self.target.as_deref(), self.board.as_deref()) {
            (Some("cpu"), Some(name)) => board(name),
            (Some("cpu") | None, None) => Ok(On::Nothing),
            (Some(_), Some(_)) => {
                Err(Error::Options("a board has its own DPU: only --target cpu goes with --board".into()))
            }
            (Some(name), None) => Ok(On::Dpu(Box::new(Device::named(name)?))),
            (None, Some(name)) => match Device::of_board(name)? {
                Some(device) => Ok(On::Dpu(Box::new(device))),
                None => board(name),
            },
        }
    }

    fn limits(&self) -> Limits {
        let time = if self.trials.is_some() { self.budget } else { Some(self.budget.unwrap_or(DEFAULT_BUDGET)) };
        Limits { trials: self.trials, time }
    }

    /// What was searched, for the manifest.
    fn provenance(&self) -> Result<Value, Error> {
        let options = [
            ("data", json!(self.data)),
            ("labels", json!(self.labels)),
            ("max_drop", json!(self.max_drop)),
            ("target", json!(self.target)),
            ("board", json!(self.board)),
        ];
        let options: Map<String, Value> = options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        let data = data::files(&self.data);
        let labels = self.labels.iter().flat_map(|text| data::files(std::slice::from_ref(text))).collect::<Vec<_>>();
        let files: Vec<(&str, &Path)> =
            data.iter().map(|p| ("data", p.as_path())).chain(labels.iter().map(|p| ("labels", p.as_path()))).collect();
        self.recipe.provenance_of(&self.model, &self.preprocess, options, &files)
    }
}

/// The first line of a file of trials: everything that decides their numbers.
fn head(provenance: &Value, decides: Value) -> Value {
    let inputs = provenance.get("inputs").and_then(Value::as_array).into_iter().flatten();
    let inputs: Vec<Value> = inputs.map(|file| json!([file["role"], file["sha256"]])).collect();
    json!({ "trials": VERSION, "tool": provenance["version"], "inputs": inputs, "decides": decides })
}

/// The trials of an earlier run of the same search; none where the folder has another one's, which is said.
fn earlier(path: &Path, head: &Value, screen: &Screen) -> Result<Vec<Trial>, Error> {
    let bytes = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(meta) if meta.len() > MOST_BYTES => {
            return Err(Error::format(path, format!("is no file of trials: it has more than {MOST_BYTES} bytes")));
        }
        _ => std::fs::read(path).map_err(Error::io(path))?,
    };
    let mut lines = bytes.split(|b| *b == b'\n');
    let first = lines.next().and_then(|line| format::json(line).ok());
    if first.as_ref().is_none_or(|first| first.get("trials").is_none()) {
        return Err(Error::format(path, "is no file of trials, and would be overwritten"));
    }
    if first.as_ref() != Some(head) {
        screen.note(format!("{} is of a search with other inputs or options: it begins anew", path.display()));
        return Ok(Vec::new());
    }
    // What was cut short is made again.
    let trials = lines.map_while(|line| serde_json::from_value(format::json(line).ok()?).ok());
    let trials: Vec<Trial> = trials.collect();
    screen.note(format!("{} trials of {} are used", trials.len(), path.display()));
    Ok(trials)
}

/// A price for people.
fn price(thousandths: Option<u64>, unit: Unit) -> String {
    match (thousandths, unit) {
        (None, _) => "can't run".into(),
        (Some(price), Unit::Microseconds) => format!("{:.1}", price as f64 / 1e3),
        (Some(price), Unit::Instructions | Unit::Bytes) => count(price / 1000),
    }
}

/// What the rows of trials share.
struct Rows {
    answers: u64,
    unit: Unit,
}

impl Rows {
    fn percent(&self, right: u64) -> f64 {
        100.0 * right as f64 / self.answers.max(1) as f64
    }

    fn cells(&self, trial: &Trial) -> Vec<String> {
        let db = trial.decibels().map_or_else(|| "exact".into(), |db| format!("{db:.1}"));
        let accuracy = format!("{:.2} %", self.percent(trial.right));
        vec![trial.trial.to_string(), trial.label(), accuracy, db, price(trial.price, self.unit)]
    }

    /// A line of its own for each trial, as it comes.
    fn line(&self, trial: &Trial, took: Duration) -> String {
        let cells = self.cells(trial);
        let [number, label, accuracy, db, price] = &cells[..] else { return String::new() };
        let more = match (&trial.same_as, &trial.problem) {
            (Some(same), _) => format!(", the same as {same}"),
            (None, Some(why)) => format!(": {why}"),
            (None, None) => String::new(),
        };
        let took = took.as_secs_f64();
        let unit = if trial.price.is_some() { self.unit.short() } else { "" };
        format!("{number:>3}  {accuracy:>8}  {db:>5} dB  {price:>11} {unit}  {took:5.1} s  {label}{more}")
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    searched(args, None, screen)
}

/// The search, which goes on from the trials of all shards.
pub(crate) fn merge(args: &Args, whole: &Whole, screen: &Screen) -> Result<Outcome, Error> {
    searched(args, Some(whole), screen)
}

fn searched(args: &Args, whole: Option<&Whole>, screen: &Screen) -> Result<Outcome, Error> {
    let on = args.on()?;
    let dir = &args.output_dir;
    let files = [TRIALS, STRATEGY, QUANTIZED, PICTURE, PROVENANCE].map(|name| dir.join(name));
    let (calib, own) = (args.recipe.calib_files(), data::files(&args.data));
    let inputs = args.model.files().chain(&calib).chain(&own).map(PathBuf::as_path);
    data::keep(inputs, &files.each_ref().map(PathBuf::as_path))?;
    let Model::Float(graph) = args.recipe.open(&args.model, &args.preprocess, screen)? else {
        let what = "is a quantized model; the float one is tuned, with the data that calibrates it";
        return Err(Error::wrong_kind(&args.model.path, what));
    };
    let options = args.recipe.options_of_ptq(screen)?;
    if args.recipe.calib.is_empty() {
        return Err(Error::Dataset("tuning needs data to calibrate with: pass --calib DATA".into()));
    }
    if !options.strategy.needs_data()? {
        return Err(Error::Options("the strategy calibrates nothing: there is nothing to tune".into()));
    }
    let fixed = args.recipe.set_keys()?;
    let calibration = args.preprocess.for_graph(&args.recipe.calib, &graph)?;
    let samples = args.preprocess.for_graph(&args.data, &graph)?;
    let labels = args.labels.as_ref().map(|text| dataset::labels(&args.preprocess.plain(text))).transpose()?;
    let provenance = args.provenance()?;
    let head = head(
        &provenance,
        json!({
            "strategy": format::files::sha256(options.strategy.dump(2).as_bytes()), "fixed": fixed, "seed": args.recipe.seed,
            "batch_size": options.batch_size, "steps": options.steps, "preprocessing": args.preprocess.given(),
            "target": args.target, "board": args.board, "input_shape": args.model.input_shape,
            "random_weights": args.model.random_weights,
        }),
    );
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let mut known = earlier(&files[0], &head, screen)?;
    let models: Vec<&Path> = args.model.files().map(PathBuf::as_path).collect();
    if let Some(whole) = whole {
        whole.check(&models, samples.len())?;
        known.extend(whole.answers::<Vec<Trial>>()?.concat());
    }
    let price = match &on {
        On::Dpu(device) => Price::Dpu(device),
        On::Board(board) => Price::Board(board),
        On::Nothing => Price::Size,
    };
    let request = Request {
        graph: &graph,
        options: &options,
        fixed: &fixed,
        seed: args.recipe.seed,
        calibration: &calibration,
        samples: &samples,
        labels: labels.as_deref(),
        price,
        max_drop: args.max_drop,
        limits: args.limits(),
    };
    if let (Some(shard), None) = (args.shards.shard(), whole) {
        let trials = tune_shard(&request, known, shard)?;
        return args.shards.write(("tune", shard), &models, (samples.len(), samples.len()), json!(trials), screen);
    }
    let unit = price.unit();
    let mut text = format!("{head}\n");
    let mut began = Instant::now();
    let mut rows: Option<Rows> = None;
    let mut watch = |answers: u64, trials: &[Trial]| {
        let Some(trial) = trials.last() else { return Ok(()) };
        let rows = rows.get_or_insert(Rows { answers, unit });
        screen.tell(rows.line(trial, began.elapsed()));
        began = Instant::now();
        text += &format!("{}\n", json!(trial));
        format::write_file(&files[0], text.as_bytes())
    };
    let (tuned, strategy) = tune(&request, known, &mut watch)?;
    let made = args.recipe.quantize_by(strategy.clone(), graph.clone(), &args.preprocess, &screen.silent())?;
    let bytes = format::quantized_bytes(&made.quantized, &files[2])?;
    let custom = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
    format::read_back(&made.quantized, &bytes, &files[2], &custom)?;
    let mut set = Set::new(dir, PROVENANCE)?;
    set.add(STRATEGY, format!("{}\n", strategy.dump(2)).as_bytes())?;
    set.add(QUANTIZED, &bytes)?;
    set.add(PICTURE, svg(&tuned).as_bytes())?;
    set.commit(provenance.as_object().cloned().unwrap_or_default())?;
    show(&tuned, args.max_drop, screen);
    screen.say(format!("{}; with {} `quantize` gives the same bytes", files[2].display(), files[1].display()));
    let yes = tuned.kept;
    Outcome::of(Tuning { tuned, strategy: files[1].clone(), quantized: files[2].clone() }, yes)
}

fn show(tuned: &Tuned, max_drop: f64, screen: &Screen) {
    let rows = Rows { answers: tuned.answers, unit: tuned.unit };
    let front = tuned.pareto.iter().filter_map(|number| tuned.trials.get(*number));
    screen.tell("");
    let table: Vec<Vec<String>> = front.map(|trial| rows.cells(trial)).collect();
    screen.table(&["best for its price", "changes", "accuracy", "dB", tuned.unit.short()], 2, &table);
    screen.tell("");
    let Some(chosen) = tuned.trials.get(tuned.chosen) else { return };
    let (own, float) = (rows.percent(chosen.right), rows.percent(tuned.float_right));
    let against = match tuned.measure {
        Measure::Top1 => format!("{own:.2} %, the float network {float:.2} %"),
        Measure::Agreement | Measure::Signal => format!("{own:.2} % {}", tuned.measure.phrase()),
    };
    let verdict = if tuned.kept { "kept" } else { "exceeded by every trial; this is the most accurate" };
    screen.say(format!("trial {}: {}: {against}", chosen.trial, chosen.label()));
    screen.say(format!("drop {:.2} points, limit {} points: {verdict}", float - own, evaluate::points(max_drop)));
}
