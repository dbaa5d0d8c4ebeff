//! Training a network over labelled data: what is written down of it, validation, and checkpoints.

use std::path::PathBuf;

use serde::Serialize;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{self, Points, Samples};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::pipeline::PtqOptions;
use shiftwise_quant::qat::{Qat, initialize};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::fit::{Examples, Made, Watch};
use shiftwise_train::loss::{Ending, Target};
use shiftwise_train::trainer::{Goal, Trainer, ending};

use crate::dataset::Dataset;

pub use shiftwise_train::fit::{Plan, fit};

pub mod checkpoint;
mod curve;
pub mod metric;

pub use curve::svg;
use metric::{Metric, largest};

/// Samples that are computed at once outside training: bounds memory.
const BATCH: usize = 64;

/// What an output is compared with.
#[derive(Debug)]
pub enum Labels {
    /// Numbers of classes, the same number of them for each sample.
    Classes(Vec<i64>),
    /// Values of the output's shape.
    Values(Box<Dataset>),
    /// What the teacher's output is.
    Teacher,
}

/// Labelled samples of a network.
#[derive(Debug)]
pub struct Labelled<'a, S> {
    /// Inputs of every sample.
    pub inputs: &'a S,
    /// One for each output; `None` for one that isn't trained.
    pub labels: Vec<Option<Labels>>,
    /// The network whose outputs are labels.
    pub teacher: Option<&'a Graph>,
}

impl<S: Samples> Labelled<'_, S> {
    /// Fails unless every output has a label for each sample.
    pub fn check(&self) -> Result<(), Error> {
        let samples = self.inputs.len();
        for labels in self.labels.iter().flatten() {
            let count = match labels {
                Labels::Classes(all) if samples > 0 && all.len() % samples == 0 => samples,
                Labels::Classes(all) => all.len(),
                Labels::Values(all) => all.len(),
                Labels::Teacher => samples,
            };
            if count != samples {
                let text = format!("{samples} samples and {count} labels; one label per sample is expected");
                return Err(Error::Dataset(text));
            }
        }
        Ok(())
    }
}

/// Some samples of a tensor source, one after the other.
fn gathered(samples: &[usize], one: impl Fn(usize, usize) -> Result<Tensor, Error>) -> Result<Tensor, Error> {
    // Samples that lie side by side are read at once.
    let first = samples.first().copied().unwrap_or(0);
    if samples.iter().enumerate().all(|(i, sample)| *sample == first + i) {
        return one(first, samples.len());
    }
    let parts = samples.iter().map(|sample| one(*sample, 1)).collect::<Result<Vec<Tensor>, _>>()?;
    let shape = parts.first().map_or_else(Vec::new, |part| [&[samples.len()], &part.shape()[1..]].concat());
    let data = parts.iter().flat_map(|part| part.data().iter().copied()).collect();
    Tensor::new(shape, data).ok_or_else(|| Error::Dataset("samples have different shapes".into()))
}

impl<S: Samples> Examples for Labelled<'_, S> {
    fn len(&self) -> usize {
        self.inputs.len()
    }

    fn inputs(&self, samples: &[usize]) -> Result<Vec<Tensor>, Error> {
        let count = self.inputs.batch(0, 1)?.len();
        let nth = |k: usize| {
            gathered(samples, |start, n| {
                let batch = self.inputs.batch(start, n)?.into_iter().nth(k);
                batch.ok_or_else(|| Error::Dataset("an input has no data".into()))
            })
        };
        (0..count).map(nth).collect()
    }

    fn targets(&self, samples: &[usize], inputs: &[Tensor]) -> Result<Vec<Option<Target>>, Error> {
        let wanted = self.labels.iter().flatten().any(|labels| matches!(labels, Labels::Teacher));
        let taught = match self.teacher.filter(|_| wanted) {
            Some(teacher) => eval::run_float(teacher, inputs.to_vec())?,
            None => Vec::new(),
        };
        let target = |(k, labels): (usize, &Option<Labels>)| {
            let own = match labels {
                None => return Ok(None),
                Some(Labels::Classes(all)) => {
                    let per = all.len() / self.inputs.len().max(1);
                    let of = |sample: &usize| all.get(sample * per..(sample + 1) * per).unwrap_or_default().to_vec();
                    Target::Classes(samples.iter().flat_map(of).collect())
                }
                Some(Labels::Values(all)) => Target::Values(gathered(samples, |start, n| all.batch(start, n))?),
                Some(Labels::Teacher) => match taught.get(k) {
                    Some(output) => Target::Values(output.clone()),
                    None => return Err(Error::Options("the teacher has fewer outputs than the network".into())),
                },
            };
            Ok(Some(own))
        };
        self.labels.iter().enumerate().map(target).collect()
    }
}

/// How well a network does on labelled samples, at its stored positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The sum of the outputs' mean losses.
    pub loss: f64,
    /// The share of right answers of the first output with class numbers.
    pub accuracy: Option<f64>,
    /// The metric that was asked for, over all outputs that are trained.
    pub metric: Option<f64>,
}

impl Score {
    /// What is larger for a better network: by a metric, else by the accuracy, else by the loss.
    pub fn merit(&self, metric: Option<&Metric>) -> f64 {
        let asked = metric.and_then(|metric| Some(metric.merit(self.metric?)));
        asked.or(self.accuracy).unwrap_or(-self.loss)
    }
}

/// Validates a network as it is at inference.
///
/// Errors: those of data and labels; a metric that the labels don't allow.
pub fn validate(
    q: &QuantGraph,
    goals: &[Option<Goal>],
    data: &dyn Examples,
    metric: Option<&Metric>,
) -> Result<Score, Error> {
    let (mut loss, mut right, mut answers) = (0.0f64, 0usize, 0usize);
    let mut asked = (0.0f64, 0usize);
    for start in (0..data.len()).step_by(BATCH) {
        let samples: Vec<usize> = (start..data.len().min(start + BATCH)).collect();
        let inputs = data.inputs(&samples)?;
        let targets = data.targets(&samples, &inputs)?;
        let outputs = run_vendor(q, inputs)?;
        let mut counted = false;
        for (((id, output), goal), target) in q.graph.outputs.iter().zip(&outputs).zip(goals).zip(&targets) {
            let (Some(goal), Some(target)) = (goal, target) else { continue };
            let ending = match ending(q, *id) {
                Ending::Logits => Ending::Logits,
                Ending::Softmax | Ending::Sigmoid | Ending::Probabilities => Ending::Probabilities,
            };
            let fail = |why: String| Error::Dataset(format!("output `{}`: {why}", q.graph.node(*id).name));
            let (own, _) = goal.loss.evaluate(ending, output, target, goal.weight).map_err(fail)?;
            loss += own * samples.len() as f64;
            if let Some((metric, of)) = metric.and_then(|metric| Some((metric, metric.of?))) {
                let (name, output_name) = (metric.name, &q.graph.node(*id).name);
                let (sum, count) = of(output, target).ok_or_else(|| {
                    let why = "compares values, and its labels are numbers of classes";
                    Error::Options(format!("--metric {name}: output `{output_name}`: the metric {why}"))
                })?;
                asked = (asked.0 + sum, asked.1 + count);
            }
            if let (Target::Classes(classes), false) = (target, counted) {
                counted = true;
                let width = output.shape().last().copied().unwrap_or(1).max(1);
                answers += classes.len();
                right += output
                    .data()
                    .chunks_exact(width)
                    .zip(classes)
                    .filter(|(row, class)| largest(row) as i64 == **class)
                    .count();
            }
        }
    }
    let accuracy = (answers > 0).then(|| right as f64 / answers as f64);
    let loss = loss / data.len().max(1) as f64;
    let metric = metric.map(|metric| if metric.of.is_some() { asked.0 / asked.1.max(1) as f64 } else { loss });
    Ok(Score { loss, accuracy, metric })
}

/// How far an output of the network to be trained is from that of the float network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Beginning {
    /// The output's layer.
    pub output: String,
    /// Signal to noise of the output, in decibels; none where they are equal.
    pub sqnr_db: Option<f64>,
    /// The first layer with less than 10 decibels, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_fault: Option<String>,
}

/// Decibels below which a tensor is hardly that of the float network.
const FAULT_DB: f64 = 10.0;

/// The results of all layers.
struct All(Vec<Option<Tensor>>);

impl Points for All {
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        if let Some(slot) = self.0.get_mut(id.0) {
            *slot = Some(tensor.clone());
        }
    }
}

/// Quantizers at work, with the results of all layers.
struct Quantized<'a>(shiftwise_quant::eval::Stored<'a>, All);

impl Points for Quantized<'_> {
    fn apply(&mut self, point: eval::Point, tensor: &mut Tensor) -> Result<(), Error> {
        self.0.apply(point, tensor)
    }
    fn reads(&self, id: NodeId) -> bool {
        self.0.reads(id)
    }
    fn wants(&self, id: NodeId) -> bool {
        self.0.wants(id)
    }
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        self.1.done(id, tensor);
    }
}

/// Signal to noise in decibels; `None` where there is no noise.
pub(crate) fn sqnr(float: &Tensor, quantized: &Tensor) -> Option<f64> {
    let square = |v: f64| v * v;
    let signal: f64 = float.data().iter().map(|v| square(f64::from(*v))).sum();
    let noise: f64 =
        float.data().iter().zip(quantized.data()).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    (noise > 0.0).then(|| 10.0 * (signal.max(f64::MIN_POSITIVE) / noise).log10())
}

/// Compares the network with its float form on a batch before the first step: training derives positions from a batch, so
/// those of this batch are taken where nothing was calibrated.
///
/// Errors: those of the network on this batch.
pub fn beginning(qat: &Qat, strategy: &Strategy, batch: &[Tensor], calibrated: bool) -> Result<Vec<Beginning>, Error> {
    let mut own = qat.clone();
    if !calibrated {
        let options = PtqOptions { batch_size: usize::MAX, ..PtqOptions::new(strategy.clone()) };
        let stored = own.quantized.layers.clone();
        initialize(&mut own, &batch.to_vec(), &options, |_, _| {})?;
        // Thresholds begin where they are.
        for (id, layer) in &mut own.quantized.layers {
            let thresholds =
                |own: &shiftwise_quant::scheme::Quantizer| own.scheme().parts().iter().any(|part| part.trained);
            if layer.all().any(thresholds)
                && let Some(old) = stored.get(id)
            {
                *layer = old.clone();
            }
        }
    }
    let q = own.folded();
    let none = || All(vec![None; q.graph.nodes.len()]);
    let float: Vec<Vec<Tensor>> =
        q.graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect();
    let mut of_float = none();
    eval::run(&q.graph, &float, batch.to_vec(), &mut of_float)?;
    let mut of_quantized = Quantized(shiftwise_quant::eval::Stored(&q), none());
    eval::run(&q.graph, &shiftwise_quant::eval::quantized_weights(&q), batch.to_vec(), &mut of_quantized)?;
    let at = |id: NodeId| sqnr(of_float.0.get(id.0)?.as_ref()?, of_quantized.1.0.get(id.0)?.as_ref()?);
    let fault = q.graph.ids().find(|id| at(*id).is_some_and(|db| db < FAULT_DB));
    let row = |id: &NodeId| {
        let sqnr_db = at(*id);
        let at_fault = fault.filter(|_| sqnr_db.is_some_and(|db| db < FAULT_DB));
        Beginning {
            output: q.graph.node(*id).name.clone(),
            sqnr_db,
            at_fault: at_fault.map(|id| q.graph.node(id).name.clone()),
        }
    };
    Ok(q.graph.outputs.iter().map(row).collect())
}

/// An epoch in a training's history.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Epoch {
    /// Its number, from 1.
    pub epoch: u64,
    /// The mean loss over its samples, each before its step.
    pub loss: f64,
    /// The rate of its last step.
    pub rate: f64,
    /// The validation set's loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// The validation set's share of right answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_accuracy: Option<f64>,
    /// What the validation set's metric is, if one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_metric: Option<f64>,
}

/// What became of a network in training: `history.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct History {
    /// Every epoch.
    pub epochs: Vec<Epoch>,
    /// The loss of every step's batch, before the step.
    pub step_losses: Vec<f64>,
    /// The epoch whose weights did best on the validation set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_epoch: Option<u64>,
}

/// What `train` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Training {
    /// The trained network's file.
    pub trained: PathBuf,
    /// The file of the weights that did best on the validation set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<PathBuf>,
    /// Steps that were made.
    pub steps: u64,
    /// How far each output was from the float network's before the first step.
    pub beginning: Vec<Beginning>,
    /// What became of the loss.
    pub history: History,
    /// What the user should know, in sentences.
    pub warnings: Vec<String>,
}

/// The state of a training besides the network and the optimizer.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What became of it so far.
    pub history: History,
    /// Sum over the samples of the epoch so far, and their number.
    pub sum: (f64, f64),
    /// The merit and the network that did best.
    pub best: Option<(f64, Qat)>,
    /// Epochs since then.
    pub since_best: usize,
}

/// What is done between the steps of a training.
pub struct Observer<'a> {
    /// The state that is kept.
    pub progress: Progress,
    /// One for each output.
    pub goals: Vec<Option<Goal>>,
    /// The validation set.
    pub validation: Option<&'a dyn Examples>,
    /// What it chooses the best weights by; accuracy or loss, if no other is asked for.
    pub metric: Option<&'static Metric>,
    /// Epochs without a better result after which training ends.
    pub patience: Option<usize>,
    /// Steps from checkpoint to checkpoint.
    pub checkpoint_every: Option<u64>,
    /// Writes a checkpoint.
    pub checkpoint: &'a dyn Fn(&Trainer, &Progress) -> Result<(), Error>,
    /// Shows a step.
    pub show_step: &'a dyn Fn(&Made),
    /// Shows an epoch.
    pub show_epoch: &'a dyn Fn(&Epoch),
}

impl std::fmt::Debug for Observer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("progress", &self.progress.history).finish_non_exhaustive()
    }
}

impl Watch for Observer<'_> {
    fn step(&mut self, made: &Made, trainer: &Trainer) -> Result<bool, Error> {
        let state = &mut self.progress;
        state.history.step_losses.push(made.loss);
        state.sum = (state.sum.0 + made.loss * made.samples as f64, state.sum.1 + made.samples as f64);
        (self.show_step)(made);
        // The last step of an epoch is kept with the epoch.
        let within = made.step + 1 < made.steps;
        if within && self.checkpoint_every.is_some_and(|every| trainer.steps().is_multiple_of(every.max(1))) {
            (self.checkpoint)(trainer, state)?;
        }
        Ok(true)
    }

    fn epoch(&mut self, epoch: u64, trainer: &Trainer) -> Result<bool, Error> {
        let state = &mut self.progress;
        let score = match self.validation {
            Some(data) => Some(validate(&trainer.qat().folded(), &self.goals, data, self.metric)?),
            None => None,
        };
        let (sum, count) = std::mem::take(&mut state.sum);
        let row = Epoch {
            epoch: epoch + 1,
            loss: sum / count.max(1.0),
            rate: trainer.options().settings.rate,
            val_loss: score.map(|score| score.loss),
            val_accuracy: score.and_then(|score| score.accuracy),
            val_metric: score.and_then(|score| score.metric),
        };
        (self.show_epoch)(&row);
        state.history.epochs.push(row);
        if let Some(score) = score {
            state.since_best += 1;
            let merit = score.merit(self.metric);
            if state.best.as_ref().is_none_or(|(best, _)| merit > *best) {
                state.best = Some((merit, trainer.qat().clone()));
                state.history.best_epoch = Some(epoch + 1);
                state.since_best = 0;
            }
        }
        if self.checkpoint_every.is_some() {
            (self.checkpoint)(trainer, state)?;
        }
        Ok(self.patience.is_none_or(|patience| state.since_best < patience.max(1)))
    }
}
