//! Accuracy of a model on labelled data.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{FloatEngine, Samples};
use shiftwise_graph::graph::Graph;
use shiftwise_integer::averages::{Averages, Difference};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower;
use shiftwise_quant::eval::VendorEngine;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::averages;
use crate::dataset::Dataset;
use crate::golden::Numerics;

/// Samples that are computed at once: bounds memory. Shards are whole batches.
pub const BATCH: usize = 64;

/// How outputs are compared with labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// Class numbers: right answers.
    Top,
    /// Mean absolute error against a target of the output's shape.
    Mae,
    /// Mean squared error against a target of the output's shape.
    Mse,
}

impl Metric {
    /// Its name, which is its key in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Top => "top",
            Self::Mae => "mae",
            Self::Mse => "mse",
        }
    }
}

/// The graph of a model, float or quantized.
pub fn graph(model: &Model) -> &Graph {
    match model {
        Model::Float(g) => g,
        Model::Quantized(q) => &q.graph,
    }
}

/// A model that is quantized.
pub fn quantized(model: &Model) -> Option<&QuantGraph> {
    match model {
        Model::Float(_) => None,
        Model::Quantized(q) => Some(q),
    }
}

/// What computes in floats.
enum Floats<'a> {
    Float(FloatEngine<'a>),
    Vendor(VendorEngine<'a>),
}

/// Calls `each(first sample, outputs)` with the model's outputs, `size` samples at once, and `progress` with the number of samples
/// that are done. Returns the averages that the DPU computes otherwise than the vendor's simulation, whichever of the two
/// was asked for.
///
/// Errors: those of the data; [`Error::Compile`] for what has no integer form, with [`Numerics::Dpu`].
pub fn outputs(
    model: &Model,
    numerics: Numerics,
    samples: &dyn Samples,
    size: usize,
    mut each: impl FnMut(usize, Vec<Tensor>) -> Result<(), Error>,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Difference>, Error> {
    let dpu = numerics == Numerics::Dpu;
    let graph = match model {
        Model::Quantized(q) if dpu => {
            eval::needs(&q.graph).check(1)?;
            Some((q, lower::lower(q)?))
        }
        Model::Quantized(q) => lower::lower(q).ok().map(|graph| (q, graph)),
        Model::Float(_) => None,
    };
    let averages = graph.as_ref().map(|(q, graph)| Averages::new(q, graph)).filter(|a| !a.is_empty());
    let engine = graph.as_ref().filter(|_| dpu || averages.is_some()).map(|(_, graph)| Engine::new(graph));
    let needs = |ix| averages.as_ref().is_some_and(|a| a.needs(ix));
    let see = |values: &[_]| averages.iter().for_each(|a| a.see(values));
    let floats = match model {
        Model::Float(g) => Some(Floats::Float(FloatEngine::new(g))),
        Model::Quantized(_) if dpu => None,
        Model::Quantized(q) => Some(Floats::Vendor(VendorEngine::new(q))),
    };
    for start in (0..samples.len()).step_by(size.max(1)) {
        let batch = samples.batch(start, size.min(samples.len() - start))?;
        let integers = engine.as_ref().map(|e| e.run_batch_seeing(&batch, needs, see)).transpose()?;
        let out = match (&floats, integers) {
            (Some(Floats::Float(engine)), _) => engine.run(&batch)?,
            (Some(Floats::Vendor(engine)), _) => engine.run(batch)?,
            (None, integers) => integers.unwrap_or_default(),
        };
        each(start, out)?;
        progress((start + size).min(samples.len()));
    }
    Ok(averages.map_or_else(Vec::new, |a| a.differences()))
}

/// Right answers of one model.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Samples seen.
    pub samples: usize,
    /// Samples whose label has the largest output.
    pub top1: usize,
    /// Samples whose label is among the k largest outputs.
    pub topk: usize,
    /// Averages that the DPU computes otherwise.
    pub averages: Vec<Difference>,
}

impl Score {
    fn add(&mut self, output: &Tensor, labels: &[i64], k: usize) {
        let classes = output.data().len() / labels.len().max(1);
        for (scores, label) in output.data().chunks_exact(classes.max(1)).zip(labels) {
            let own = usize::try_from(*label).ok().and_then(|l| scores.get(l).map(|s| (l, *s)));
            // Rank of the label's score; of equal scores the first class counts as larger, as argmax takes it.
            let rank = own.map_or(usize::MAX, |(l, s)| {
                scores.iter().enumerate().filter(|(i, x)| **x > s || (**x == s && *i < l)).count()
            });
            self.samples += 1;
            self.top1 += usize::from(rank == 0);
            self.topk += usize::from(rank < k);
        }
    }

    /// A number of right answers as a share of the samples.
    pub fn share(&self, correct: usize) -> f64 {
        correct as f64 / self.samples.max(1) as f64
    }

    /// For reports.
    pub fn report(&self, model: PathBuf, k: usize) -> Accuracy {
        let (top1, topk) = (self.share(self.top1), self.share(self.topk));
        Accuracy { model, samples: self.samples, top1, top_k: k, topk, averages: averages::rows(&self.averages) }
    }

    /// Whether at most `limit` of the baseline's right answers, as a share of its samples, are lost. Counts decide, so
    /// that a drop of exactly the limit passes whatever the floats say.
    pub fn keeps(&self, baseline: &Self, limit: f64) -> bool {
        let lost = baseline.top1 as f64 - self.top1 as f64;
        lost <= limit * baseline.samples as f64 + 1e-9
    }
}

/// Refuses another number of labels than samples, and labels that are no class of the first output. `name` is the model's in
/// messages.
pub fn check_labels((graph, name): (&Graph, &str), samples: usize, labels: &[i64]) -> Result<(), Error> {
    if samples != labels.len() {
        let text = format!("{samples} samples and {} labels; one label per sample is expected", labels.len());
        return Err(Error::Dataset(text));
    }
    let classes = graph.outputs.first().map_or(0, |id| graph.node(*id).shape.iter().product());
    let outside = |l: &&i64| usize::try_from(**l).map_or(true, |l| l >= classes);
    if let Some(label) = labels.iter().find(outside) {
        let text = format!("a label is {label}, and {name} has {classes} classes from 0 on");
        return Err(Error::Dataset(text));
    }
    Ok(())
}

/// Counts the labels that a model's first output ranks first, and among the first `k`.
///
/// Errors: [`Error::Dataset`] for another number of labels than samples, and for labels that are no class; those of
/// [`outputs`]. `name` is the model's in messages.
pub fn score(
    (model, name): (&Model, &str),
    numerics: Numerics,
    samples: &dyn Samples,
    (labels, k): (&[i64], usize),
    progress: &mut dyn FnMut(usize),
) -> Result<Score, Error> {
    check_labels((graph(model), name), samples.len(), labels)?;
    let mut score = Score::default();
    let each = |start: usize, out: Vec<Tensor>| {
        let Some(out) = out.first() else { return Ok(()) };
        score.add(out, &labels[start..start + out.shape()[0]], k);
        Ok(())
    };
    let averages = outputs(model, numerics, samples, BATCH, each, progress)?;
    Ok(Score { averages, ..score })
}

/// The error of a model's first output against targets of its shape: the mean of `|d|` or `d²` in f64, in the order of the
/// samples.
///
/// Errors: [`Error::Dataset`] for another number of targets than samples; those of [`outputs`].
pub fn error(
    model: &Model,
    metric: Metric,
    numerics: Numerics,
    samples: &dyn Samples,
    targets: &Dataset,
    progress: &mut dyn FnMut(usize),
) -> Result<(f64, Vec<Difference>), Error> {
    if targets.len() != samples.len() {
        let text = format!("{} samples and {} labels; one per sample is expected", samples.len(), targets.len());
        return Err(Error::Dataset(text));
    }
    let term: fn(f64) -> f64 = match metric {
        Metric::Top | Metric::Mae => f64::abs,
        Metric::Mse => |d| d * d,
    };
    let (mut sum, mut count) = (0.0f64, 0usize);
    let each = |start: usize, out: Vec<Tensor>| {
        let Some(out) = out.first() else { return Ok(()) };
        let target = targets.batch(start, out.shape()[0])?;
        let pairs = out.data().iter().zip(target.data());
        sum += pairs.map(|(a, b)| term(f64::from(*a) - f64::from(*b))).sum::<f64>();
        count += out.data().len();
        Ok(())
    };
    let averages = outputs(model, numerics, samples, BATCH, each, progress)?;
    Ok((sum / count.max(1) as f64, averages))
}

/// The counts of a shard, as its part has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    samples: usize,
    top1: usize,
    topk: usize,
    /// Layers and steps of averages that the DPU computes otherwise.
    averages: Vec<(String, u32)>,
}

impl From<&Score> for Counts {
    fn from(own: &Score) -> Self {
        let averages = own.averages.iter().map(|d| (d.layer.clone(), d.steps)).collect();
        Self { samples: own.samples, top1: own.top1, topk: own.topk, averages }
    }
}

impl Score {
    /// The score of a whole run from those of its shards.
    pub fn joined<'c>(model: &Model, shards: impl Iterator<Item = &'c Counts>) -> Self {
        let mut all = Self::default();
        let mut averages = Vec::new();
        for own in shards {
            all.samples = all.samples.saturating_add(own.samples);
            all.top1 = all.top1.saturating_add(own.top1);
            all.topk = all.topk.saturating_add(own.topk);
            averages.extend_from_slice(&own.averages);
        }
        if let (Some(q), false) = (quantized(model), averages.is_empty()) {
            all.averages = averages::joined(q, &averages);
        }
        all
    }
}

/// What `evaluate` reports of right answers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Evaluation {
    /// The model.
    pub model: Accuracy,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Accuracy>,
    /// The baseline's top-1 share less the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop: Option<f64>,
}

/// Right answers of one model, as shares from 0 to 1.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Accuracy {
    /// Its file.
    pub model: PathBuf,
    /// Samples seen.
    pub samples: usize,
    /// Label has the largest output.
    pub top1: f64,
    /// The k of `topk`.
    pub top_k: usize,
    /// Label is among the k largest outputs.
    pub topk: f64,
    /// Averages that the DPU computes otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<averages::Row>,
}

/// What `evaluate` reports of errors.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Errors {
    /// Which error.
    pub metric: Metric,
    /// The model.
    pub model: ModelError,
    /// What it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<ModelError>,
}

/// The error of one model; the metric's is given.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ModelError {
    /// Its file.
    pub model: PathBuf,
    /// Samples seen.
    pub samples: usize,
    /// Mean absolute error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mae: Option<f64>,
    /// Mean squared error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mse: Option<f64>,
    /// Averages that the DPU computes otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<averages::Row>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_outputs_the_first_class_is_the_answer() {
        let output = Tensor::new(vec![3, 3], vec![1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 2.0]).unwrap();
        let mut score = Score::default();
        score.add(&output, &[0, 1, 0], 2);
        assert_eq!((score.samples, score.top1, score.topk), (3, 1, 3));
    }

    #[test]
    fn a_drop_of_exactly_the_limit_is_kept() {
        let of = |top1| Score { samples: 1000, top1, ..Score::default() };
        assert!(of(895).keeps(&of(900), 0.005) && !of(894).keeps(&of(900), 0.005) && of(1000).keeps(&of(900), 0.0));
    }
}
