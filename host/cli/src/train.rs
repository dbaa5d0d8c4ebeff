//! `shiftwise train`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use shiftwise::dataset::{Dataset, Inputs, labels};
use shiftwise::training::metric::{METRICS, Metric};
use shiftwise::training::{Labelled, Labels, Observer, Plan, Progress, Training, beginning, checkpoint, fit, svg};
use shiftwise_formats::files::Set;
use shiftwise_formats::{self as format, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples as _;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::qat::{Qat, initialize, prepare};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_train::augment::Augment;
use shiftwise_train::conv_norm::Correction;
use shiftwise_train::loss::{Ending, LOSSES, Labels as Kind, Loss};
use shiftwise_train::optim::{OPTIMIZERS, Optimizer, Settings};
use shiftwise_train::schedule::Schedule;
use shiftwise_train::trainer::{Footprint, Goal, Options, Trainer, ending};

use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::outcome::{Outcome, pretty, to_json};
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
    /// Training data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// Class numbers or values of the output, one per sample; [OUTPUT=]DATA, once per output
    #[arg(long, value_name = "DATA")]
    labels: Vec<String>,
    /// Folder for qat.h5, best.h5, history.json, history.svg and provenance.json
    #[arg(long, default_value = "train_results", value_name = "DIR")]
    output_dir: PathBuf,
    /// Calibrate first (--calib) and start from there
    #[arg(long)]
    init_quant: bool,
    /// Train a normalization as one layer with the convolution before it
    #[arg(long)]
    train_with_bn: bool,
    /// Steps after which statistics of normalizations stay
    #[arg(long, value_name = "N", requires = "train_with_bn")]
    freeze_bn_delay: Option<u32>,
    /// How kernels of trained normalizations are corrected: as the vendor does, or as published
    #[arg(long, default_value = "vendor", value_name = "vendor|textbook", value_parser = correction)]
    bn_correction: Correction,
    /// Times that training goes over the data
    #[arg(long, default_value_t = 1, value_name = "N")]
    epochs: u64,
    /// Samples in a step
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = crate::outcome::positive())]
    batch_size: usize,
    /// Steps in an epoch at most [default: all]
    #[arg(long, value_name = "N", value_parser = crate::outcome::positive())]
    steps_per_epoch: Option<usize>,
    /// Take batches in the order of the data
    #[arg(long)]
    no_shuffle: bool,
    /// Loss: sparse_categorical_crossentropy, categorical_crossentropy, binary_crossentropy, mse, mae, huber, or distill (the
    /// outputs of a float model are the labels); [OUTPUT=]LOSS[:WEIGHT], once per output
    #[arg(long, default_value = "sparse_categorical_crossentropy", value_name = "LOSS")]
    loss: Vec<String>,
    /// The float model for --loss distill [default: the model itself]
    #[arg(long, value_name = "MODEL")]
    teacher: Option<PathBuf>,
    /// Optimizer: sgd, adam, adamw or rmsprop
    #[arg(long, default_value = "adam", value_name = "NAME", value_parser = optimizer)]
    optimizer: &'static Optimizer,
    /// Rate of learning
    #[arg(long, default_value_t = 1e-4, value_name = "RATE")]
    lr: f64,
    /// How much of the last step is made again, for sgd and rmsprop
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    momentum: f64,
    /// The share of weights, times the rate, that is taken from them in each step
    #[arg(long, value_name = "SHARE")]
    weight_decay: Option<f64>,
    /// Rate of thresholds (pof2s_tqt) [default: that of all else]
    #[arg(long, value_name = "RATE")]
    lr_threshold: Option<f64>,
    /// How the rate goes down: constant, cosine, step:EPOCHS:FACTOR or exponential:FACTOR
    #[arg(long, default_value = "constant", value_name = "SCHEDULE", value_parser = Schedule::parse)]
    schedule: Schedule,
    /// Steps in which the rate rises
    #[arg(long, default_value_t = 0, value_name = "N")]
    warmup: u64,
    /// Validation data, as --data
    #[arg(long, value_name = "DATA", requires = "validation_labels")]
    validation: Vec<String>,
    /// Its labels, as --labels
    #[arg(long, value_name = "DATA", requires = "validation")]
    validation_labels: Vec<String>,
    /// What the validation set chooses the best weights by: accuracy, loss, mae or mse [default: accuracy of class numbers,
    /// else loss]
    #[arg(long, value_name = "NAME", requires = "validation", value_parser = metric)]
    metric: Option<&'static Metric>,
    /// Stop after so many epochs without a better result on the validation set
    #[arg(long, value_name = "N", requires = "validation", value_parser = crate::outcome::positive())]
    patience: Option<usize>,
    /// What is done to images at random: flip, crop:PIXELS
    #[arg(long, value_name = "LIST", value_parser = augmentations)]
    augment: Option<Augmentations>,
    /// Memory for activations of a step: 500MB, 2GB; layers whose activations don't fit are computed twice [default: any]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<usize>,
    /// Write a checkpoint every so many steps, and after each epoch
    #[arg(long, value_name = "N", value_parser = crate::outcome::positive())]
    checkpoint_every: Option<usize>,
    /// Go on from the last checkpoint in the output folder
    #[arg(long)]
    resume: bool,
}

/// A list of augmentations: one argument.
#[derive(Clone, Debug)]
struct Augmentations(Vec<Augment>);

fn augmentations(text: &str) -> Result<Augmentations, String> {
    Augment::parse(text).map(Augmentations)
}

fn metric(text: &str) -> Result<&'static Metric, String> {
    let names: Vec<&str> = METRICS.iter().map(|own| own.name).collect();
    Metric::find(text).ok_or_else(|| format!("one of {} is expected", names.join(", ")))
}

/// Units of memory.
const UNITS: [(&str, f64); 3] = [("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];

/// A number of bytes from what users write.
fn memory(text: &str) -> Result<usize, String> {
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .ok_or_else(|| "a number with kB, MB or GB is expected".to_owned())?;
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * unit) as usize),
        Ok(_) | Err(_) => Err(format!("`{number}` is no number of bytes above 0")),
    }
}

/// A number of bytes as users read it.
fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn correction(text: &str) -> Result<Correction, String> {
    match text {
        "vendor" => Ok(Correction::Vendor),
        "textbook" => Ok(Correction::Textbook),
        _ => Err("vendor or textbook is expected".into()),
    }
}

fn optimizer(text: &str) -> Result<&'static Optimizer, String> {
    let names: Vec<&str> = OPTIMIZERS.iter().map(|own| own.name).collect();
    Optimizer::find(text).ok_or_else(|| format!("one of {} is expected", names.join(", ")))
}

/// The word for a strategy without quantizers.
const NO_STRATEGY: &str = "none";
/// The loss whose labels are a teacher's outputs.
const DISTILL: &str = "distill";
/// Results.
const TRAINED: &str = "qat.h5";
const FLOAT: &str = "model.h5";
const BEST: &str = "best.h5";
const HISTORY: &str = "history.json";
const CURVE: &str = "history.svg";
const PROVENANCE: &str = "provenance.json";
const CHECKPOINT: &str = "checkpoint";

/// Arguments `[OUTPUT=]REST` by the output's place; one without a name is every output's.
fn by_output<'a>(graph: &Graph, all: &'a [String], what: &str) -> Result<Vec<Option<&'a str>>, Error> {
    let names: Vec<&str> = graph.outputs.iter().map(|id| graph.node(*id).name.as_str()).collect();
    let mut found = vec![None; names.len()];
    for text in all {
        match text.split_once('=').filter(|(name, _)| !name.contains('/')) {
            None if all.len() == 1 => found.fill(Some(text.as_str())),
            Some((name, rest)) if names.contains(&name) => {
                names.iter().zip(&mut found).filter(|(own, _)| **own == name).for_each(|(_, slot)| *slot = Some(rest));
            }
            None | Some(_) => {
                let outputs = names.join(", ");
                return Err(Error::Options(format!(
                    "--{what} {text}: OUTPUT={} is expected, of {outputs}",
                    what.to_uppercase()
                )));
            }
        }
    }
    Ok(found)
}

/// What each output is trained for, and whether a teacher gives its labels.
fn goals(q: &QuantGraph, all: &[String]) -> Result<Vec<Option<(Goal, bool)>>, Error> {
    let names = || LOSSES.iter().map(|loss| loss.name).chain([DISTILL]).collect::<Vec<_>>().join(", ");
    let goal = |(text, id): (Option<&str>, _)| -> Result<Option<(Goal, bool)>, Error> {
        let Some(text) = text else { return Ok(None) };
        let bad = || Error::Options(format!("--loss {text}: one of {} with :WEIGHT is expected", names()));
        let (name, weight) = text.split_once(':').map_or((text, "1"), |(name, weight)| (name, weight));
        let weight: f64 = weight.parse().ok().filter(|w: &f64| w.is_finite()).ok_or_else(bad)?;
        let teaches = name == DISTILL;
        // A teacher's probabilities are learned as such, its other values as they are.
        let own = match ending(q, id) {
            _ if !teaches => name,
            Ending::Softmax => "categorical_crossentropy",
            Ending::Sigmoid => "binary_crossentropy",
            Ending::Probabilities | Ending::Logits => "mse",
        };
        let loss = Loss::find(own).ok_or_else(bad)?;
        Ok(Some((Goal { loss, weight }, teaches)))
    };
    let texts = by_output(&q.graph, all, "loss")?;
    texts.into_iter().zip(q.graph.outputs.iter().copied()).map(goal).collect()
}

/// The labels of each output.
fn labels_of(
    graph: &Graph,
    goals: &[Option<(Goal, bool)>],
    (all, what): (&[String], &str),
    preprocess: &Preprocess,
) -> Result<Vec<Option<Labels>>, Error> {
    let texts = by_output(graph, all, what)?;
    let mut found = Vec::with_capacity(goals.len());
    for ((goal, text), id) in goals.iter().zip(texts).zip(graph.outputs.iter().copied()) {
        let Some((goal, teaches)) = goal else {
            found.push(None);
            continue;
        };
        if *teaches {
            found.push(Some(Labels::Teacher));
            continue;
        }
        let node: &shiftwise_graph::graph::Node = graph.node(id);
        let missing = || Error::Options(format!("output `{}` needs --{what} DATA, or --loss distill", node.name));
        let spec = preprocess.plain(text.ok_or_else(missing)?);
        found.push(Some(match goal.loss.labels {
            Kind::Classes => Labels::Classes(labels(&spec)?),
            Kind::Values => Labels::Values(Box::new(Dataset::open(&spec, &node.shape)?)),
        }));
    }
    Ok(found)
}

/// What a run begins with.
struct Beginning {
    qat: Qat,
    /// Of a model that was float.
    strategy: Option<Strategy>,
    /// That float model.
    float: Option<Graph>,
    warnings: Vec<String>,
}

/// The network before its first step.
fn network(args: &Args, screen: &Screen) -> Result<Beginning, Error> {
    let model = args.model.open_for(&args.data, &args.preprocess, screen)?;
    let options = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
    match model {
        Model::Quantized(_) => {
            if args.init_quant || args.train_with_bn {
                return Err(Error::Options(
                    "the model is quantized already: --init-quant and --train-with-bn are for float ones".into(),
                ));
            }
            let qat = format::load_training(&args.model.path, &options)?;
            Ok(Beginning { qat, strategy: None, float: None, warnings: Vec::new() })
        }
        Model::Float(graph) if args.recipe.strategy_name() == NO_STRATEGY => {
            let quantized = QuantGraph {
                graph: graph.clone(),
                layers: BTreeMap::new(),
                metadata: Metadata::default(),
                trained: false,
            };
            let qat = Qat { quantized, norms: BTreeMap::new() };
            Ok(Beginning { qat, strategy: None, float: Some(graph), warnings: Vec::new() })
        }
        Model::Float(graph) => {
            let mut strategy = args.recipe.training_strategy(screen)?;
            if args.train_with_bn {
                strategy.set("train_with_bn", true.into())?;
            }
            if let Some(delay) = args.freeze_bn_delay {
                strategy.set("freeze_bn_delay", delay.into())?;
            }
            let (mut qat, warnings) = prepare(graph.clone(), &strategy)?;
            if args.init_quant {
                let (samples, options) = args.recipe.calibration(&strategy, &graph, &args.preprocess)?;
                let batches = samples.len().div_ceil(options.batch_size).min(options.steps.unwrap_or(usize::MAX));
                let mut progress = screen.progress("calibrating", "batches", batches);
                initialize(&mut qat, &samples, &options, |done, _| progress.set(done))?;
            }
            qat.quantized.metadata.preprocessing = Some(args.preprocess.given()).filter(|p| !p.is_empty());
            Ok(Beginning { qat, strategy: Some(strategy), float: Some(graph), warnings })
        }
    }
}

/// The teacher of a run that has one.
fn teacher(args: &Args, own: Option<&Graph>, screen: &Screen) -> Result<Graph, Error> {
    match (&args.teacher, own) {
        (Some(path), _) => {
            let model = ModelArgs { path: path.clone(), weights: None, ..args.model.clone() };
            match model.open_for(&args.data, &args.preprocess, screen)? {
                Model::Float(graph) => Ok(graph),
                Model::Quantized(_) => {
                    Err(Error::wrong_kind(path, "is a quantized model, and the teacher is a float one"))
                }
            }
        }
        (None, Some(graph)) => Ok(graph.clone()),
        (None, None) => {
            Err(Error::Options("a model that is quantized already needs --teacher MODEL to be distilled".into()))
        }
    }
}

impl Args {
    fn plan(&self) -> Plan {
        Plan {
            epochs: self.epochs,
            batch_size: self.batch_size,
            steps_per_epoch: self.steps_per_epoch,
            shuffle: !self.no_shuffle,
            schedule: self.schedule.clone().warming_up(self.warmup),
            rate: self.lr,
            threshold_rate: self.lr_threshold,
            augment: self.augment.as_ref().map(|all| all.0.clone()).unwrap_or_default(),
            seed: self.recipe.seed,
        }
    }

    fn trainer(&self, goals: Vec<Option<Goal>>) -> Result<Options, Error> {
        let positive = |name: &str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(value),
            false => Err(Error::Options(format!("--{name} is {value}, a number from 0 is expected"))),
        };
        if self.momentum != 0.0 && !self.optimizer.has_momentum {
            return Err(Error::Options(format!("--momentum has no effect on {}", self.optimizer.name)));
        }
        let settings = Settings {
            rate: positive("lr", self.lr)?,
            momentum: positive("momentum", self.momentum)?,
            weight_decay: self
                .weight_decay
                .map(|w| positive("weight-decay", w))
                .transpose()?
                .or(self.optimizer.weight_decay),
        };
        let threshold_rate = self.lr_threshold.map(|rate| positive("lr-threshold", rate)).transpose()?;
        let (optimizer, correction, seed) = (self.optimizer, self.bn_correction, self.recipe.seed);
        Ok(Options { optimizer, settings, threshold_rate, correction, goals, seed })
    }

    /// Says what `--memory` comes to. Returns a warning, if the budget is too small.
    fn tell(&self, kept: Footprint, screen: &Screen) -> Option<String> {
        let memory = self.memory?;
        let (all, most, again) = (megabytes(kept.all), megabytes(kept.kept), kept.again);
        screen
            .say(format!("activations of a step: {all}, of which {most} are kept; {again} layers are computed twice"));
        if kept.kept <= memory {
            return None;
        }
        let text =
            format!("--memory {} is too small, {most} are kept; --batch-size has more effect", megabytes(memory));
        screen.note(format!("warning: {text}"));
        Some(text)
    }

    /// What decides the numbers of the run, for provenance and checkpoints.
    fn options(&self) -> Map<String, Value> {
        let pairs = [
            ("data", json!(self.data)),
            ("labels", json!(self.labels)),
            ("init_quant", json!(self.init_quant)),
            ("train_with_bn", json!(self.train_with_bn)),
            ("freeze_bn_delay", json!(self.freeze_bn_delay)),
            ("bn_correction", json!(format!("{:?}", self.bn_correction).to_lowercase())),
            ("epochs", json!(self.epochs)),
            ("batch_size", json!(self.batch_size)),
            ("steps_per_epoch", json!(self.steps_per_epoch)),
            ("no_shuffle", json!(self.no_shuffle)),
            ("loss", json!(self.loss)),
            ("teacher", json!(self.teacher)),
            ("optimizer", json!(self.optimizer.name)),
            ("lr", json!(self.lr)),
            ("momentum", json!(self.momentum)),
            ("weight_decay", json!(self.weight_decay)),
            ("lr_threshold", json!(self.lr_threshold)),
            ("schedule", json!(self.schedule.to_string())),
            ("warmup", json!(self.warmup)),
            ("validation", json!(self.validation)),
            ("validation_labels", json!(self.validation_labels)),
            ("metric", json!(self.metric.map(|own| own.name))),
            ("patience", json!(self.patience)),
            ("augment", json!(self.augment.iter().flat_map(|all| &all.0).map(ToString::to_string).collect::<Vec<_>>())),
            ("seed", json!(self.recipe.seed)),
        ];
        pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
    }

    /// Options and the digests of all files.
    fn provenance(&self) -> Result<Value, Error> {
        let more: Vec<PathBuf> = [&self.data, &self.labels, &self.validation, &self.validation_labels]
            .into_iter()
            .flat_map(|d| data::files(d))
            .collect();
        let more: Vec<(&str, &Path)> = more
            .iter()
            .map(|path| ("data", path.as_path()))
            .chain(self.teacher.iter().map(|p| ("teacher", p.as_path())))
            .collect();
        self.recipe.provenance_of(&self.model, &self.preprocess, self.options(), &more)
    }
}

/// The bytes of a network in training; a float one has no quantizers and is Keras' own.
fn bytes(qat: &Qat, path: &Path) -> Result<Vec<u8>, Error> {
    match qat.quantized.layers.is_empty() {
        true => format::quantized_bytes(&qat.quantized, path),
        false => format::training_bytes(qat, path),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Beginning { qat, strategy, float, mut warnings } = network(args, screen)?;
    warnings.iter().for_each(|warning| screen.note(format!("warning: {warning}")));
    let graph = qat.quantized.graph.clone();
    let both = goals(&qat.quantized, &args.loss)?;
    let wanted: Vec<Option<Goal>> = both.iter().map(|own| own.as_ref().map(|(goal, _)| *goal)).collect();
    let teacher = match both.iter().flatten().any(|(_, teaches)| *teaches) {
        true => Some(teacher(args, float.as_ref(), screen)?),
        false => None,
    };
    let preprocess = args.preprocess.for_model(&qat.quantized.metadata, screen)?;
    let inputs = preprocess.for_graph(&args.data, &graph)?;
    let examples = Labelled {
        inputs: &inputs,
        labels: labels_of(&graph, &both, (&args.labels, "labels"), &preprocess)?,
        teacher: teacher.as_ref(),
    };
    examples.check()?;
    let held: Option<Inputs> = match args.validation.is_empty() {
        true => None,
        false => Some(preprocess.for_graph(&args.validation, &graph)?),
    };
    let validation = match &held {
        None => None,
        Some(inputs) => {
            let labels = labels_of(&graph, &both, (&args.validation_labels, "validation-labels"), &preprocess)?;
            let own = Labelled { inputs, labels, teacher: teacher.as_ref() };
            own.check()?;
            Some(own)
        }
    };
    let beginning = begins(args, &qat, strategy.as_ref(), &inputs)?;
    tell(&beginning, &mut warnings, screen);
    let about = args.provenance()?;
    let folder = args.output_dir.join(CHECKPOINT);
    let memory = args.memory.unwrap_or(usize::MAX);
    let mut trainer = Trainer::new(qat, args.trainer(wanted.clone())?).within(memory);
    let kept = trainer.footprint(args.batch_size.min(inputs.len()));
    if let Some(text) = args.tell(kept, screen) {
        warnings.push(text);
    }
    let mut progress = Progress::default();
    if args.resume {
        let options = LoadOptions { custom: args.model.custom.layers()?, ..LoadOptions::default() };
        match checkpoint::read(&folder, &about, &options)? {
            Some(found) => {
                screen.say(format!("going on behind step {}", found.steps));
                trainer = Trainer::new(found.qat, args.trainer(wanted.clone())?).within(memory);
                trainer.resume(found.steps, found.state)?;
                progress = found.progress;
            }
            None => screen.note("there is no checkpoint to go on from: training begins"),
        }
    }
    let plan = args.plan();
    let total = (plan.steps(inputs.len()) as u64).saturating_mul(plan.epochs);
    let bar =
        std::cell::RefCell::new(screen.progress("training", "steps", usize::try_from(total).unwrap_or(usize::MAX)));
    let done = std::cell::Cell::new(usize::try_from(trainer.steps()).unwrap_or(0));
    let write = |trainer: &Trainer, progress: &Progress| checkpoint::write(&folder, trainer, progress, &about);
    let step = |made: &shiftwise_train::fit::Made| {
        done.set(done.get() + 1);
        bar.borrow_mut().set(done.get());
        screen.detail(format!("epoch {} step {}: loss {:.6}", made.epoch + 1, made.step + 1, made.loss));
    };
    let epoch = |row: &shiftwise::training::Epoch| {
        let held = row.val_loss.map(|loss| format!(", validation loss {loss:.6}")).unwrap_or_default();
        let right = row.val_accuracy.map(|share| format!(", {:.2} % right", 100.0 * share)).unwrap_or_default();
        let asked = args.metric.zip(row.val_metric).filter(|(own, _)| own.name != "loss" && own.name != "accuracy");
        let asked = asked.map(|(own, value)| format!(", {} {value:.6}", own.name)).unwrap_or_default();
        screen.say(format!("epoch {}: loss {:.6}{held}{right}{asked}", row.epoch, row.loss));
    };
    let mut observer = Observer {
        progress,
        goals: wanted,
        validation: validation.as_ref().map(|own| own as &dyn shiftwise_train::fit::Examples),
        metric: args.metric,
        patience: args.patience,
        checkpoint_every: args.checkpoint_every.map(|n| n as u64),
        checkpoint: &write,
        show_step: &step,
        show_epoch: &epoch,
    };
    fit(&mut trainer, &plan, &examples, &mut observer)?;
    let progress = observer.progress;
    drop(bar);
    finish(args, &trainer, (progress, about), beginning, warnings, screen)
}

/// How far the network is from the float one before the first step; nothing of a network in floats.
fn begins(
    args: &Args,
    qat: &Qat,
    strategy: Option<&Strategy>,
    inputs: &Inputs,
) -> Result<Vec<shiftwise::training::Beginning>, Error> {
    if qat.quantized.layers.is_empty() {
        return Ok(Vec::new());
    }
    let first = inputs.batch(0, args.batch_size.min(inputs.len()))?;
    let own = strategy.cloned().map_or_else(|| Strategy::built_in("pof2s"), Ok)?;
    beginning(qat, &own, &first, args.init_quant || strategy.is_none())
}

/// Says it, and warns of outputs that are hardly the float network's.
fn tell(beginning: &[shiftwise::training::Beginning], warnings: &mut Vec<String>, screen: &Screen) {
    for own in beginning {
        let db = own.sqnr_db.map_or_else(|| "no error".to_owned(), |db| format!("{db:.1} dB"));
        screen.say(format!("before the first step, output `{}` against the float network: {db}", own.output));
        if let Some(layer) = &own.at_fault {
            let output = &own.output;
            let text =
                format!("output `{output}` is hardly that of the float network: layer `{layer}` is the first at fault");
            screen.note(format!("warning: {text}"));
            warnings.push(text);
        }
    }
}

/// Writes what a run has come to.
fn finish(
    args: &Args,
    trainer: &Trainer,
    (progress, provenance): (Progress, Value),
    beginning: Vec<shiftwise::training::Beginning>,
    warnings: Vec<String>,
    screen: &Screen,
) -> Result<Outcome, Error> {
    let name = if trainer.qat().quantized.layers.is_empty() { FLOAT } else { TRAINED };
    let dir = &args.output_dir;
    let (trained, best) = (dir.join(name), dir.join(BEST));
    data::keep(args.model.files().map(PathBuf::as_path), &[&trained, &best])?;
    let mut set = Set::new(dir, PROVENANCE)?;
    set.add(name, &bytes(trainer.qat(), &trained)?)?;
    let best = match &progress.best {
        Some((_, own)) => {
            set.add(BEST, &bytes(own, &best)?)?;
            Some(best)
        }
        None => None,
    };
    set.add(HISTORY, pretty(&to_json(&progress.history)?).as_bytes())?;
    set.add(CURVE, svg(&progress.history).as_bytes())?;
    set.commit(provenance.as_object().cloned().unwrap_or_default())?;
    screen.say(format!("{} steps; {}", trainer.steps(), trained.display()));
    let steps = trainer.steps();
    Outcome::done(Training { trained, best, steps, beginning, history: progress.history, warnings })
}
