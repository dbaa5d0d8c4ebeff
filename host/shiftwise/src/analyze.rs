//! Where quantization hurts, why, and what helps by how much.
//!
//! Signal to noise (SQNR) is that of the quantized network against the float one: at each layer up to there (cumulative),
//! and of each layer quantized alone on float inputs. What a remedy gains is measured at the network's outputs, by
//! quantizing again with it.

pub mod answers;
mod causes;
mod walk;
mod weights;

use std::collections::BTreeMap;

use serde::Serialize;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{Samples, run_float};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

use crate::remedies::{Remedy, remedy};
use answers::Answers;
use causes::{CAUSES, Facts};
use walk::{Seen, Walk, decibels, noise};
use weights::{spare_bits, weight_channels};

/// Samples that are computed at once: bounds memory.
const BATCH: usize = 4;
/// Layers whose remedies are tried.
const WORST: usize = 5;
/// Decibels that a remedy must gain to be part of the strategy that is proposed.
const WORTH: f64 = 0.1;

/// What an analysis finds.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Analysis {
    /// The network's name.
    pub model: String,
    /// Samples that were looked at.
    pub samples: usize,
    /// At each output, in decibels; `None` where nothing differs.
    pub outputs: Vec<OutputNoise>,
    /// Whether answers change; `None` for a network that does not classify, or if it was not asked for.
    pub answers: Option<Answers>,
    /// Layers with quantizers, in the network's order.
    pub layers: Vec<LayerAnalysis>,
    /// Remedies that were tried, the best first.
    pub remedies: Vec<Gain>,
    /// The remedies in the proposed strategy, if any is worth it.
    pub proposed: Vec<String>,
    /// Decibels that the proposed strategy gains at the outputs.
    pub proposed_gain_db: Option<f64>,
}

/// How much of an output is noise.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OutputNoise {
    /// The layer.
    pub layer: String,
    /// Signal to noise against the float network as its file has it.
    pub sqnr_db: Option<f64>,
}

/// A layer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerAnalysis {
    /// The user's layer.
    pub layer: String,
    /// Its name in the quantized model.
    pub tensor: String,
    /// Signal to noise up to here; `None` where nothing differs.
    pub sqnr_db: Option<f64>,
    /// Signal to noise of this layer alone.
    pub alone_sqnr_db: Option<f64>,
    /// Signal to noise at the network's outputs if this layer alone is quantized, of the five layers that lose most by
    /// themselves, on a few samples; `None` for others.
    pub at_outputs_db: Option<f64>,
    /// Share of the values that the grid does not reach.
    pub saturated: f64,
    /// Smallest and largest value in floats; `None` where the result is not quantized.
    pub range: Option<[f32; 2]>,
    /// Ends of the grid.
    pub grid: Option<[f32; 2]>,
    /// Position of the grid, where it has one.
    pub position: Option<i32>,
    /// Values over the grid from end to end, in bars of one width.
    pub histogram: Vec<u64>,
    /// Channels that are zero for every sample.
    pub dead_channels: Vec<usize>,
    /// Channels that are more than 8 times as large as the median channel.
    pub outlier_channels: Vec<usize>,
    /// Bits of a 32-bit accumulator that the weights prove unused; `None` for layers without integer weights.
    pub spare_accumulator_bits: Option<u32>,
    /// Why it loses accuracy.
    pub causes: Vec<FoundCause>,
}

/// A cause and its most gainful remedy.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FoundCause {
    /// Stable name of its kind.
    pub kind: String,
    /// What is seen, in a sentence.
    pub cause: String,
    /// What helps most of what was tried, or could be tried.
    pub remedy: Option<String>,
    /// Decibels that it gains at the outputs; `None` if it was not tried.
    pub gain_db: Option<f64>,
}

/// What a remedy gains.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gain {
    /// Its name.
    pub remedy: String,
    /// What it does.
    pub what: String,
    /// The layer that it is about, if it is about one.
    pub layer: Option<String>,
    /// Decibels at the outputs, negative where it hurts.
    pub gain_db: f64,
    /// Whether the DPU can still do the layer.
    pub on_dpu: bool,
}

/// What is analyzed, and how far.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "samples are anything that gives some")]
pub struct Request<'r> {
    /// The float network.
    pub graph: &'r Graph,
    /// How it is quantized.
    pub options: &'r PtqOptions,
    /// Its quantized form by these options.
    pub quantized: &'r QuantGraph,
    /// What it was calibrated with.
    pub calibration: &'r dyn Samples,
    /// What it is measured on.
    pub samples: &'r dyn Samples,
    /// Samples at most that it is measured on.
    pub most: usize,
    /// Whether remedies are tried.
    pub remedies: bool,
    /// Whether only what a DPU can do is proposed.
    pub for_dpu: bool,
    /// Whether the effects on the network's outputs are looked at: of the worst layers, and on the answers.
    pub effects: bool,
    /// Right answers, one for each sample; with them answers are counted on all samples.
    pub labels: Option<&'r [i64]>,
}

impl Request<'_> {
    /// Whether answers change.
    fn answers(&self) -> Result<Option<Answers>, Error> {
        let all = self.samples.len();
        let count = if self.labels.is_some() { all } else { all.min(self.most) };
        answers::answers((self.graph, self.quantized), self.samples, count, self.labels)
    }
}

/// Signal to noise at the outputs, from the most noisy one.
fn worst(outputs: &[OutputNoise]) -> f64 {
    outputs.iter().filter_map(|o| o.sqnr_db).fold(f64::INFINITY, f64::min)
}

/// Float results, and the samples that they are of.
struct Reference<'r> {
    graph: &'r Graph,
    samples: &'r dyn Samples,
    count: usize,
    outputs: Vec<Vec<Tensor>>,
}

impl<'r> Reference<'r> {
    fn of(graph: &'r Graph, samples: &'r dyn Samples, most: usize) -> Result<Self, Error> {
        let count = samples.len().min(most);
        if count == 0 {
            return Err(Error::Dataset("the data has no samples".into()));
        }
        let starts = (0..count).step_by(BATCH);
        let run = |start| run_float(graph, samples.batch(start, BATCH.min(count - start))?);
        let outputs = starts.map(run).collect::<Result<_, _>>()?;
        Ok(Self { graph, samples, count, outputs })
    }

    /// How noisy the outputs of a quantized form are.
    fn noise(&self, q: &QuantGraph) -> Result<Vec<OutputNoise>, Error> {
        let mut sums = vec![(0.0, 0.0); self.graph.outputs.len()];
        for (start, float) in (0..self.count).step_by(BATCH).zip(&self.outputs) {
            let own = run_vendor(q, self.samples.batch(start, BATCH.min(self.count - start))?)?;
            for ((signal, noisy), (a, b)) in sums.iter_mut().zip(float.iter().zip(&own)) {
                *signal += a.data().iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                *noisy += noise(a, b);
            }
        }
        let name = |id: &NodeId| self.graph.node(*id).name.clone();
        let rows = self.graph.outputs.iter().zip(sums);
        Ok(rows.map(|(id, (s, n))| OutputNoise { layer: name(id), sqnr_db: decibels(s, n) }).collect())
    }
}

/// Analyzes a quantized network. Also returns the strategy with the remedies that are worth it, if any is.
///
/// Errors: no samples; those of quantizing again.
pub fn analyze(request: &Request<'_>) -> Result<(Analysis, Option<Strategy>), Error> {
    let reference = Reference::of(request.graph, request.samples, request.most)?;
    let outputs = reference.noise(request.quantized)?;
    let mut walk = Walk::new(request.quantized);
    for start in (0..reference.count).step_by(BATCH) {
        walk.batch(request.samples.batch(start, BATCH.min(reference.count - start))?)?;
    }
    let spare = spare_bits(request.quantized);
    let mut layers: Vec<(Facts, LayerAnalysis)> = request
        .quantized
        .graph
        .ids()
        .filter(|id| request.quantized.layers.contains_key(id))
        .map(|id| layer(request.quantized, id, &walk.seen[id.0], &spare, request.calibration.len()))
        .collect();
    let effects = if request.effects { effects(request, &layers)? } else { Vec::new() };
    for (index, effect) in effects {
        layers[index].1.at_outputs_db = effect;
    }
    let mut gains = Vec::new();
    let mut proposal = Proposal::default();
    if request.remedies {
        (gains, proposal) = tried(request, &reference, &layers, worst(&outputs))?;
    }
    for (facts, layer) in &mut layers {
        layer.causes = found(facts, &layer.layer, &gains);
    }
    gains.sort_by(|a, b| b.gain_db.total_cmp(&a.gain_db));
    let analysis = Analysis {
        model: request.graph.name.clone(),
        samples: reference.count,
        outputs,
        answers: if request.effects { request.answers()? } else { None },
        layers: layers.into_iter().map(|(_, layer)| layer).collect(),
        remedies: gains,
        proposed: proposal.names.clone(),
        proposed_gain_db: proposal.strategy.as_ref().map(|_| proposal.gain),
    };
    Ok((analysis, proposal.strategy))
}

/// The short form of an analysis: no remedy is tried, and few samples are looked at.
///
/// Errors as of [`analyze`].
pub fn glance(
    graph: &Graph,
    options: &PtqOptions,
    quantized: &QuantGraph,
    samples: &dyn Samples,
) -> Result<Analysis, Error> {
    let request = Request {
        graph,
        options,
        quantized,
        calibration: samples,
        samples,
        most: BATCH,
        remedies: false,
        for_dpu: false,
        effects: false,
        labels: None,
    };
    analyze(&request).map(|(analysis, _)| analysis)
}

/// Noise at the outputs if one layer alone is quantized, of the layers that lose most by themselves, by their index.
fn effects(request: &Request<'_>, layers: &[(Facts, LayerAnalysis)]) -> Result<Vec<(usize, Option<f64>)>, Error> {
    let mut order: Vec<usize> = (0..layers.len()).filter(|i| layers[*i].1.alone_sqnr_db.is_some()).collect();
    order.sort_by(|a, b| layers[*a].0.alone_db.total_cmp(&layers[*b].0.alone_db));
    order.truncate(WORST);
    let ids: Vec<NodeId> = request.quantized.layers.keys().copied().collect();
    // The quantizer's own float network: what it has folded and replaced is no layer's fault.
    let reference = Reference::of(&request.quantized.graph, request.samples, request.most.min(2 * BATCH))?;
    let of = |index: usize| {
        let mut one = request.quantized.clone();
        one.layers.retain(|id, _| *id == ids[index]);
        let noise = reference.noise(&one)?;
        Ok((index, noise.iter().filter_map(|o| o.sqnr_db).reduce(f64::min)))
    };
    order.into_iter().map(of).collect()
}

impl Analysis {
    /// The layers that lose most by themselves, the worst first.
    pub fn worst(&self, count: usize) -> Vec<&LayerAnalysis> {
        let mut all: Vec<&LayerAnalysis> = self.layers.iter().filter(|l| l.alone_sqnr_db.is_some()).collect();
        all.sort_by(|a, b| a.alone_sqnr_db.unwrap_or(f64::MAX).total_cmp(&b.alone_sqnr_db.unwrap_or(f64::MAX)));
        all.truncate(count);
        all
    }
}

/// A strategy with remedies, and what they gain together.
#[derive(Default)]
struct Proposal {
    strategy: Option<Strategy>,
    gain: f64,
    names: Vec<String>,
}

/// Tries the remedies of the worst layers one by one, then together as long as they gain.
fn tried(
    request: &Request<'_>,
    reference: &Reference<'_>,
    layers: &[(Facts, LayerAnalysis)],
    before: f64,
) -> Result<(Vec<Gain>, Proposal), Error> {
    let base = &request.options.strategy;
    let quality = |strategy: &Strategy| -> Result<f64, Error> {
        let options = PtqOptions { strategy: strategy.clone(), ..request.options.clone() };
        let quantized = ptq(request.graph.clone(), request.calibration, &options, |_, _| {})?.quantized;
        Ok(worst(&reference.noise(&quantized)?))
    };
    let mut gains: Vec<Gain> = Vec::new();
    let mut tries: Vec<(&Remedy, String)> = Vec::new();
    // What finetuning has made of a network, another network without it says nothing about.
    let tried = if base.enabled("include_fast_ft") { Vec::new() } else { candidates(layers) };
    for (remedy, layer) in tried {
        let Some(strategy) = remedy.applied(base, &layer) else { continue };
        let gain_db = quality(&strategy)? - before;
        if gain_db.is_finite() {
            let own = remedy.of_layer.then(|| layer.clone());
            let (name, what) = (remedy.name.to_owned(), remedy.what.to_owned());
            gains.push(Gain { remedy: name, what, layer: own, gain_db, on_dpu: remedy.on_dpu });
            tries.push((remedy, layer));
        }
    }
    let mut order: Vec<usize> = (0..gains.len()).collect();
    order.sort_by(|a, b| gains[*b].gain_db.total_cmp(&gains[*a].gain_db));
    let mut proposal = Proposal::default();
    let usable = |i: &usize| gains[*i].gain_db > WORTH && (!request.for_dpu || gains[*i].on_dpu);
    for i in order.into_iter().filter(usable) {
        let (remedy, layer) = &tries[i];
        let from = proposal.strategy.as_ref().unwrap_or(base);
        let Some(next) = remedy.applied(from, layer) else { continue };
        let gain = if proposal.strategy.is_none() { gains[i].gain_db } else { quality(&next)? - before };
        if gain > proposal.gain + WORTH {
            let at = if remedy.of_layer { format!(" at {layer}") } else { String::new() };
            proposal.names.push(format!("{}{at}", remedy.name));
            (proposal.strategy, proposal.gain) = (Some(next), gain);
        }
    }
    Ok((gains, proposal))
}

/// Remedies of the causes of the worst layers, each once.
fn candidates(layers: &[(Facts, LayerAnalysis)]) -> Vec<(&'static Remedy, String)> {
    let mut order: Vec<&(Facts, LayerAnalysis)> = layers.iter().collect();
    order.sort_by(|a, b| a.0.alone_db.total_cmp(&b.0.alone_db));
    let mut all: Vec<(&Remedy, String)> = Vec::new();
    for (facts, layer) in order.into_iter().take(WORST) {
        for name in CAUSES.iter().filter(|c| (c.find)(facts).is_some()).flat_map(|c| c.remedies) {
            let Some(remedy) = remedy(name) else { continue };
            let known = |(own, of): &(&Remedy, String)| own.name == *name && (!remedy.of_layer || *of == layer.layer);
            if !all.iter().any(known) {
                all.push((remedy, layer.layer.clone()));
            }
        }
    }
    all
}

/// Remedies of the causes that an analysis has found, by the names of the layers where it has found them; the worst layer
/// comes first.
pub(crate) fn suggested(analysis: &Analysis) -> Vec<(&'static Remedy, &str)> {
    let of_kind = |kind: &str| CAUSES.iter().find(|cause| cause.name == kind).map_or(&[][..], |cause| cause.remedies);
    let of_layer = |layer: &'_ LayerAnalysis| -> Vec<&'static Remedy> {
        layer.causes.iter().flat_map(|cause| of_kind(&cause.kind)).filter_map(|name| remedy(name)).collect()
    };
    let layers = analysis.worst(analysis.layers.len());
    layers.into_iter().flat_map(|l| of_layer(l).into_iter().map(|own| (own, l.layer.as_str()))).collect()
}

/// The causes of a layer, each with what helped most.
fn found(facts: &Facts, layer: &str, gains: &[Gain]) -> Vec<FoundCause> {
    let seen = CAUSES.iter().filter_map(|cause| Some((cause, (cause.find)(facts)?)));
    let row = |(cause, sentence): (&causes::Cause, String)| {
        let own =
            |g: &&Gain| cause.remedies.contains(&g.remedy.as_str()) && g.layer.as_deref().is_none_or(|l| l == layer);
        let best = gains.iter().filter(own).max_by(|a, b| a.gain_db.total_cmp(&b.gain_db));
        let first = || cause.remedies.first().and_then(|name| Some(remedy(name)?.what));
        FoundCause {
            kind: cause.name.to_owned(),
            cause: sentence,
            remedy: best.map(|g| g.what.clone()).or_else(|| first().map(str::to_owned)),
            gain_db: best.map(|g| g.gain_db),
        }
    };
    seen.map(row).collect()
}

fn median(values: &[f32]) -> f32 {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v > 0.0).collect();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Largest over median; 1 where there is nothing to compare.
fn ratio(values: &[f32]) -> f64 {
    let middle = median(values);
    let largest = values.iter().copied().fold(0.0, f32::max);
    if middle > 0.0 { f64::from(largest / middle) } else { 1.0 }
}

fn position(q: &QuantGraph, id: NodeId) -> Option<i32> {
    match q.layers.get(&id)?.result()? {
        Quantizer::Pof2(own) => own.spec().map(|spec| i32::from(spec.pos.0)),
        Quantizer::Tqt(_) | Quantizer::Affine(_) | Quantizer::Block(_) => None,
    }
}

fn layer(
    q: &QuantGraph,
    id: NodeId,
    seen: &Seen,
    spare: &BTreeMap<String, u32>,
    samples: usize,
) -> (Facts, LayerAnalysis) {
    let node = q.graph.node(id);
    let name = node.origin.first().unwrap_or(&node.name).clone();
    let saturated = if seen.values > 0 { seen.saturated as f64 / seen.values as f64 } else { 0.0 };
    let largest = seen.range[0].abs().max(seen.range[1].abs());
    let reach = seen.grid.map(|[low, high]| low.abs().max(high.abs()));
    let unused = reach.filter(|_| seen.values > 0 && largest > 0.0).map_or(0.0, |r| f64::from(r / largest).log2());
    let rms = if seen.values > 0 { (seen.signal / seen.values as f64).sqrt() } else { 0.0 };
    let limit = 8.0 * median(&seen.channels);
    let number = |test: &dyn Fn(f32) -> bool| -> Vec<usize> {
        seen.channels.iter().enumerate().filter(|(_, v)| test(**v)).map(|(i, _)| i).collect()
    };
    let dead_channels = number(&|v| v == 0.0);
    let alone = decibels(seen.signal, seen.alone);
    let facts = Facts {
        saturated,
        unused_bits: unused.max(0.0).floor(),
        channel_ratio: ratio(&seen.channels),
        weight_ratio: ratio(&weight_channels(&node.op)),
        peak: if rms > 0.0 && seen.values > 0 { f64::from(largest) / rms } else { 1.0 },
        dead: (dead_channels.len(), seen.channels.len()),
        alone_db: alone.unwrap_or(f64::INFINITY),
        samples,
    };
    let row = LayerAnalysis {
        tensor: q.quant_name(id),
        sqnr_db: decibels(seen.signal, seen.cumulative),
        alone_sqnr_db: alone,
        at_outputs_db: None,
        saturated,
        range: (seen.values > 0).then_some(seen.range),
        grid: seen.grid,
        position: position(q, id),
        histogram: if seen.values > 0 { seen.histogram.clone() } else { Vec::new() },
        dead_channels,
        outlier_channels: number(&|v| limit > 0.0 && v > limit),
        spare_accumulator_bits: spare.get(&name).copied(),
        causes: Vec::new(),
        layer: name,
    };
    (facts, row)
}

/// Signal to noise up to each layer, by its name in the quantized model, on at most `most` samples.
///
/// Errors: no samples.
pub(crate) fn decibels_by_layer(
    q: &QuantGraph,
    samples: &dyn Samples,
    most: usize,
) -> Result<Vec<(String, Option<f64>)>, Error> {
    let count = samples.len().min(most);
    if count == 0 {
        return Err(Error::Dataset("the data has no samples".into()));
    }
    let mut walk = Walk::new(q);
    for start in (0..count).step_by(BATCH) {
        walk.batch(samples.batch(start, BATCH.min(count - start))?)?;
    }
    let row = |id: NodeId| (q.quant_name(id), decibels(walk.seen[id.0].signal, walk.seen[id.0].cumulative));
    Ok(q.graph.ids().filter(|id| q.layers.contains_key(id)).map(row).collect())
}
