//! How a float network is quantized: the options that commands share, and what comes of them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use shiftwise::analyze::glance;
use shiftwise::dataset::Observed;
use shiftwise::dataset::looks_raw;
use shiftwise::part::Shard;
use shiftwise::reports::Accuracy;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_integer::averages::Difference;
use shiftwise_quant::calibrate::{Batches, Taught, calibrate_from, calibrate_graph, calibrate_shard};
use shiftwise_quant::finetune::{Finetune, Finetuned, Job};
use shiftwise_quant::passes::dead::DeadChannels;
use shiftwise_quant::pipeline::{PtqOptions, ptq, ptq_by};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::settings;
use shiftwise_quant::settings::{Section, Setting};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::finetune;
use shiftwise_train::finetune::Finetuner;

use crate::data;
use crate::data::{ModelArgs, Preprocess};
use crate::noise;
use crate::screen::Screen;

/// What decides the numbers of a quantized model; shared with `verify`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Recipe {
    /// Calibration data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, value_name = "DATA")]
    pub(crate) calib: Vec<String>,
    /// Quantize strategy: pof2s, pof2s_tqt, fs, fsx, gpu or bfp
    #[arg(long, default_value = "pof2s", value_name = "NAME")]
    strategy: String,
    /// A strategy that replaces the built-in one section by section
    #[arg(long, value_name = "FILE")]
    strategy_file: Option<PathBuf>,
    /// Overrides and additions to the strategy, by the vendor's rules
    #[arg(long, value_name = "FILE")]
    custom_strategy: Option<PathBuf>,
    /// Set one of the vendor's keyword arguments, such as weight_bit=8 or include_cle=false; `shiftwise strategy dump`
    /// lists those of a strategy
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Samples in a calibration batch [default: 32]; every batch votes for positions
    #[arg(long, value_name = "N", value_parser = crate::outcome::positive())]
    calib_batch_size: Option<usize>,
    /// Calibrate with at most this many batches
    #[arg(long, value_name = "N", value_parser = crate::outcome::positive())]
    calib_steps: Option<usize>,
    /// Everything random is drawn from it: the order of samples in training and finetuning, augmentation
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) seed: u64,
}

/// What calibrates.
pub(crate) enum How<'p> {
    /// All batches.
    Whole,
    /// Those of a shard; what they taught is kept here.
    Shard(Shard, Taught),
    /// What all shards have taught.
    Parts(&'p [Taught]),
}

impl How<'_> {
    fn calibrate(
        &mut self,
        q: &mut QuantGraph,
        samples: &dyn Samples,
        batches: &Batches,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), Error> {
        let parts = batches.parts(samples.len())?;
        match self {
            Self::Whole => calibrate_graph(q, samples, batches, |done, _| progress(done)),
            Self::Shard(shard, taught) => {
                let own = shard.range(parts.len(), "calibration batches")?;
                *taught = calibrate_shard(q, samples, batches, own, |done, _| progress(done))?;
                Ok(())
            }
            Self::Parts(taught) => {
                // What the data looks like is told of all of it, in its order.
                parts.iter().try_for_each(|(start, count)| samples.batch(*start, *count).map(drop))?;
                calibrate_from(q, parts.len(), batches.vote, taught)
            }
        }
    }
}

/// What finetuning does before calibration, and nothing behind it.
struct PrepareOnly<'f>(Finetuner<'f>);

impl Finetune for PrepareOnly<'_> {
    fn folds_dead_channels(&self, strategy: &Strategy) -> bool {
        self.0.folds_dead_channels(strategy)
    }

    fn prepare(&mut self, graph: &mut Graph, job: &Job<'_>) -> Result<(), Error> {
        self.0.prepare(graph, job)
    }

    fn finetune(&mut self, _: &mut QuantGraph, _: &Graph, _: &Job<'_>) -> Result<Vec<Finetuned>, Error> {
        Ok(Vec::new())
    }
}

/// A model in its quantized form, and what happened on the way.
pub(crate) struct Made {
    /// The quantized model.
    pub(crate) quantized: QuantGraph,
    /// What the user should know; it has been shown.
    pub(crate) warnings: Vec<String>,
    /// Channels that no data got through, and what became of them.
    pub(crate) dead_channels: Vec<DeadChannels>,
    /// What finetuning did, layer by layer.
    pub(crate) finetuned: Vec<Finetuned>,
}

impl Made {
    /// Of a model that nothing was learned of.
    fn new(quantized: QuantGraph, warnings: Vec<String>) -> Self {
        Self { quantized, warnings, dead_channels: Vec::new(), finetuned: Vec::new() }
    }
}

/// The setting if it is an argument of the vendor's call, no part of a strategy.
fn call_argument(key: &str) -> Option<&'static Setting> {
    settings::find(key).filter(|s| s.section == Section::Call)
}

/// What `--set` says, by kind.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Keys of the strategy, in order.
    strategy: Vec<(String, Value)>,
    /// Arguments of the call.
    call: Map<String, Value>,
}

impl Settings {
    /// The value of an argument of the call, if it is set and of its type.
    fn argument(&self, key: &str) -> Result<Option<&Value>, Error> {
        let Some(value) = self.call.get(key).filter(|v| !v.is_null()) else { return Ok(None) };
        match call_argument(key) {
            Some(setting) if !setting.takes(value) => Err(Error::Options(setting.refusal(value, value))),
            _ => Ok(Some(value)),
        }
    }

    fn whole(&self, key: &str) -> Result<Option<usize>, Error> {
        Ok(self.argument(key)?.and_then(Value::as_u64).map(|n| n as usize))
    }

    /// How much the vendor's `verbose` asks to be told.
    fn verbose(&self) -> Result<u8, Error> {
        let level = self.argument("verbose")?.and_then(Value::as_i64).unwrap_or(0);
        Ok(level.clamp(0, 2) as u8)
    }

    /// The input shapes in the form of `--input-shape`: a list, a list for each input, or an object by input name.
    fn input_shapes(&self) -> Result<Vec<String>, Error> {
        let Some(value) = self.call.get("input_shape").filter(|v| !v.is_null()) else { return Ok(Vec::new()) };
        let fail = || Error::InputShape(format!("`input_shape` is {value}; a list of whole numbers is expected"));
        let dims = |v: &Value| -> Option<String> {
            // The batch may be open.
            let one = |v: &Value| if v.is_null() { Some(1) } else { v.as_u64() };
            let all = v.as_array()?.iter().map(one).collect::<Option<Vec<u64>>>()?;
            Some(all.iter().map(u64::to_string).collect::<Vec<_>>().join(","))
        };
        let shapes: Option<Vec<String>> = match value {
            Value::Object(named) => named.iter().map(|(name, v)| Some(format!("{name}={}", dims(v)?))).collect(),
            Value::Array(list) if list.iter().all(Value::is_array) => list.iter().map(dims).collect(),
            list => dims(list).map(|shape| vec![shape]),
        };
        shapes.ok_or_else(fail)
    }
}

/// Key and value of a `--set`. A value that isn't JSON is a bare word; Python's words are known.
pub(crate) fn setting(text: &str) -> Result<(&str, Value), Error> {
    let parts = text.split_once('=');
    let (key, value) = parts.ok_or_else(|| Error::Options(format!("--set {text}: KEY=VALUE is expected")))?;
    let value = match value {
        "True" => json!(true),
        "False" => json!(false),
        "None" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    };
    Ok((key, value))
}

impl Recipe {
    fn settings(&self) -> Result<Settings, Error> {
        let mut settings = Settings::default();
        for setting in &self.set {
            let (key, value) = self::setting(setting)?;
            match call_argument(key).is_some() {
                true => drop(settings.call.insert(key.to_owned(), value)),
                false => settings.strategy.push((key.to_owned(), value)),
            }
        }
        Ok(settings)
    }

    fn strategy(&self, settings: &Settings, screen: &Screen) -> Result<Strategy, Error> {
        let mut strategy = Strategy::built_in(&self.strategy)?;
        if let Some(path) = &self.strategy_file {
            strategy.replace(&crate::strategy::read(path)?)?;
        }
        if let Some(path) = &self.custom_strategy {
            strategy.update(&crate::strategy::read(path)?)?;
        }
        for (key, value) in &settings.strategy {
            if let Some(warning) = strategy.set(key, value.clone())? {
                screen.note(format!("warning: {warning}"));
            }
        }
        Ok(strategy)
    }

    /// What the library is told of this.
    pub(crate) fn options_of_ptq(&self, screen: &Screen) -> Result<PtqOptions, Error> {
        let settings = self.settings()?;
        let batch_size = self.calib_batch_size.or(settings.whole("calib_batch_size")?).unwrap_or(32);
        let steps = self.calib_steps.or(settings.whole("calib_steps")?);
        Ok(PtqOptions { strategy: self.strategy(&settings, screen)?, batch_size, steps })
    }

    /// How noisy the outputs are, and why, on the first samples of the calibration data; without data, nothing.
    pub(crate) fn accuracy(
        &self,
        graph: &Graph,
        q: &QuantGraph,
        preprocess: &Preprocess,
        screen: &Screen,
    ) -> Result<Option<Accuracy>, Error> {
        if self.calib.is_empty() || q.layers.is_empty() || !q.learns() {
            return Ok(None);
        }
        let samples = preprocess.for_graph(&self.calib, graph)?;
        let analysis = glance(graph, &self.options_of_ptq(&screen.silent())?, q, &samples)?;
        for layer in analysis.worst(3) {
            let why = layer.causes.first().map_or_else(String::new, |c| {
                // What it gains is not measured here, and may be a loss.
                let may = c.remedy.as_ref().map_or_else(String::new, |r| format!("; `analyze` tries: {r}"));
                format!(": {}{may}", c.cause)
            });
            screen.tell(format!("{}: {} dB by itself{why}", layer.layer, noise::db(layer.alone_sqnr_db)));
        }
        screen.tell(noise::summary(&analysis));
        Ok(Some(Accuracy::of(&analysis)))
    }

    /// Reads the model with the input shape that `--set input_shape=…` or `--input-shape` gives, or else the calibration
    /// data where the model leaves its size open.
    pub(crate) fn open(&self, model: &ModelArgs, preprocess: &Preprocess, screen: &Screen) -> Result<Model, Error> {
        let settings = self.settings()?;
        let mut model = model.clone();
        if model.input_shape.is_empty() {
            model.input_shape = settings.input_shapes()?;
        }
        model.open_for(&self.calib, preprocess, screen)
    }

    /// The quantized form of a model; a model that is quantized already stays as it is.
    pub(crate) fn quantize(&self, model: Model, preprocess: &Preprocess, screen: &Screen) -> Result<Made, Error> {
        let graph = match model {
            Model::Float(graph) => graph,
            Model::Quantized(quantized) => {
                screen.note("the model is quantized already; calibration data and strategy are not used");
                return Ok(Made::new(quantized, Vec::new()));
            }
        };
        self.quantize_how_of(graph, preprocess, &mut How::Whole, screen)
    }

    /// [`Recipe::quantize`] of a float network, calibrated as `how` says.
    pub(crate) fn quantize_how_of(
        &self,
        graph: Graph,
        preprocess: &Preprocess,
        how: &mut How<'_>,
        screen: &Screen,
    ) -> Result<Made, Error> {
        let settings = self.settings()?;
        let screen = &screen.explaining(settings.verbose()?);
        if settings.call.get("add_shape_info").is_some_and(|v| *v != json!(false)) {
            screen.note("add_shape_info is not needed: the shape of every layer is known here");
        }
        let strategy = self.strategy(&settings, screen)?;
        self.quantize_how(strategy, graph, preprocess, how, screen)
    }

    /// The quantized form of a float network by a strategy, whatever is said of one here.
    pub(crate) fn quantize_by(
        &self,
        strategy: Strategy,
        graph: Graph,
        preprocess: &Preprocess,
        screen: &Screen,
    ) -> Result<Made, Error> {
        self.quantize_how(strategy, graph, preprocess, &mut How::Whole, screen)
    }

    /// [`Recipe::quantize_by`], calibrated by all batches, by those of a shard, or by what shards have learned.
    pub(crate) fn quantize_how(
        &self,
        strategy: Strategy,
        graph: Graph,
        preprocess: &Preprocess,
        how: &mut How<'_>,
        screen: &Screen,
    ) -> Result<Made, Error> {
        let settings = self.settings()?;
        let of_reader = graph.warnings.clone();
        if !strategy.needs_data()? {
            return self.without_data(graph, strategy, preprocess, screen, of_reader);
        }
        if self.calib.is_empty() {
            return Err(Error::Dataset("calibration needs data: pass --calib DATA".into()));
        }
        let samples = preprocess.for_graph(&self.calib, &graph)?;
        let batch_size = self.calib_batch_size.or(settings.whole("calib_batch_size")?).unwrap_or(32);
        let steps = self.calib_steps.or(settings.whole("calib_steps")?);
        let options = PtqOptions { strategy, batch_size, steps };
        let batches = samples.len().div_ceil(options.batch_size);
        let mut progress = screen.progress("calibrating", "batches", batches.min(steps.unwrap_or(usize::MAX)));
        let names: Vec<String> = graph.inputs.iter().map(|id| graph.node(*id).name.clone()).collect();
        let observed = Observed::new(&samples, names.iter().map(String::as_str));
        let mut bar = None;
        let mut layers = |done: usize, total: usize| {
            bar.get_or_insert_with(|| screen.progress("finetuning", "layers", total)).set(done);
        };
        let finetuner = Finetuner { seed: self.seed, memory: finetune::MEMORY, progress: &mut layers };
        let mut finetuner: Box<dyn Finetune + '_> = match how {
            How::Shard(..) => Box::new(PrepareOnly(finetuner)),
            How::Whole | How::Parts(_) => Box::new(finetuner),
        };
        let mut calibrate = |q: &mut QuantGraph, batches: &Batches| {
            how.calibrate(q, &observed, batches, &mut |done| progress.set(done))
        };
        let mut result = ptq_by(graph, &observed, &options, &mut *finetuner, &mut calibrate)?;
        result.quantized.metadata.preprocessing = Some(preprocess.given()).filter(|p| !p.is_empty());
        result.quantized.metadata.inputs = observed.statistics();
        for input in result.quantized.metadata.inputs.iter().filter(|input| input.is_zero()) {
            result.warnings.push(format!("input `{}`: every value of the calibration data is 0", input.name));
        }
        if preprocess.given().is_empty() {
            let inputs = result.quantized.metadata.inputs.iter();
            for (input, doubt) in inputs.filter_map(|input| Some((input, looks_raw(input)?))) {
                screen.note(format!("input `{}`: {doubt} (--scale 1/255 if not)", input.name));
            }
        }
        for warning in &result.warnings {
            screen.note(format!("warning: {warning}"));
        }
        for change in &result.changes {
            screen.detail(format!("{} moved a position at {}", change.rule, change.layer));
        }
        let warnings = of_reader.into_iter().chain(result.warnings).collect();
        let (dead_channels, finetuned) = (result.dead_channels, result.finetuned);
        Ok(Made { quantized: result.quantized, warnings, dead_channels, finetuned })
    }

    /// What takes no calibration data: block floating point, another type of floats.
    fn without_data(
        &self,
        graph: Graph,
        strategy: Strategy,
        preprocess: &Preprocess,
        screen: &Screen,
        of_reader: Vec<String>,
    ) -> Result<Made, Error> {
        if !self.calib.is_empty() {
            screen.note("nothing is calibrated here: the calibration data is not looked at");
        }
        let none: Vec<Tensor> = Vec::new();
        let mut result = ptq(graph, &none, &PtqOptions::new(strategy), |_, _| ())?;
        result.quantized.metadata.preprocessing = Some(preprocess.given()).filter(|p| !p.is_empty());
        result.warnings.iter().for_each(|warning| screen.note(format!("warning: {warning}")));
        Ok(Made::new(result.quantized, of_reader.into_iter().chain(result.warnings).collect()))
    }

    /// The averages that the DPU computes otherwise on the calibration data.
    pub(crate) fn averages(&self, quantized: &QuantGraph, preprocess: &Preprocess) -> Result<Vec<Difference>, Error> {
        if !quantized.learns() {
            return Ok(Vec::new());
        }
        let settings = self.settings()?;
        let batch = self.calib_batch_size.or(settings.whole("calib_batch_size")?).unwrap_or(32);
        let steps = self.calib_steps.or(settings.whole("calib_steps")?);
        let samples = preprocess.for_graph(&self.calib, &quantized.graph)?;
        shiftwise::averages::measure(quantized, &samples, batch, steps.map_or(usize::MAX, |n| n.saturating_mul(batch)))
    }

    /// Where the strategy wants the results.
    pub(crate) fn output_dir(&self, screen: &Screen) -> Result<PathBuf, Error> {
        let strategy = self.strategy(&self.settings()?, screen)?;
        Ok(strategy.value("output_dir").and_then(Value::as_str).unwrap_or("quantize_results").into())
    }

    fn options(&self, preprocess: &Preprocess) -> Map<String, Value> {
        let pairs = [
            ("strategy", json!(self.strategy)),
            ("strategy_file", json!(self.strategy_file)),
            ("custom_strategy", json!(self.custom_strategy)),
            ("set", json!(self.set)),
            ("calib", json!(self.calib)),
            ("calib_batch_size", json!(self.calib_batch_size)),
            ("calib_steps", json!(self.calib_steps)),
        ];
        let mut all: Map<String, Value> = pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        if self.seed != 0 {
            all.insert("seed".into(), json!(self.seed));
        }
        if !preprocess.given().is_empty() {
            all.insert("preprocessing".into(), json!(preprocess.given()));
        }
        all
    }

    /// Keys of the settings that are given one by one.
    pub(crate) fn set_keys(&self) -> Result<Vec<String>, Error> {
        Ok(self.settings()?.strategy.into_iter().map(|(key, _)| key).collect())
    }

    /// Files of calibration data.
    pub(crate) fn calib_files(&self) -> Vec<PathBuf> {
        data::files(&self.calib)
    }

    /// The name of the strategy.
    pub(crate) fn strategy_name(&self) -> &str {
        &self.strategy
    }

    /// The strategy with all that is said about it, for training.
    pub(crate) fn training_strategy(&self, screen: &Screen) -> Result<Strategy, Error> {
        self.strategy(&self.settings()?, screen)
    }

    /// Calibration data of a network and how it is taken.
    pub(crate) fn calibration(
        &self,
        strategy: &Strategy,
        graph: &Graph,
        preprocess: &Preprocess,
    ) -> Result<(shiftwise::dataset::Inputs, PtqOptions), Error> {
        if self.calib.is_empty() {
            return Err(Error::Dataset("calibration needs data: pass --calib DATA".into()));
        }
        let settings = self.settings()?;
        let batch_size = self.calib_batch_size.or(settings.whole("calib_batch_size")?).unwrap_or(32);
        let steps = self.calib_steps.or(settings.whole("calib_steps")?);
        let options = PtqOptions { strategy: strategy.clone(), batch_size, steps };
        Ok((preprocess.for_graph(&self.calib, graph)?, options))
    }

    /// Options and input files' digests.
    pub(crate) fn provenance(&self, model: &ModelArgs, preprocess: &Preprocess) -> Result<Value, Error> {
        self.provenance_of(model, preprocess, Map::new(), &[])
    }

    /// [`Recipe::provenance`] with more options and files, each with its role.
    pub(crate) fn provenance_of(
        &self,
        model: &ModelArgs,
        preprocess: &Preprocess,
        options: Map<String, Value>,
        files: &[(&str, &Path)],
    ) -> Result<Value, Error> {
        let calib = self.calib_files();
        let strategies = [&self.strategy_file, &self.custom_strategy];
        let strategies = strategies.into_iter().flatten().map(|p| ("strategy", p.as_path()));
        let calib = calib.iter().map(|p| ("calib", p.as_path()));
        let weights = model.weights.iter().map(|p| ("weights", p.as_path()));
        let inputs: Vec<(&str, &Path)> =
            std::iter::once(("model", model.path.as_path())).chain(weights).chain(strategies).chain(calib).collect();
        let all = self.options(preprocess).into_iter().chain(options).collect();
        shiftwise::provenance::provenance(&all, &[&inputs, files].concat())
    }
}
