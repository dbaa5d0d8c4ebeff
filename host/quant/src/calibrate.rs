//! Choosing positions and ranges from data.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::eval::Stored;
use crate::quant_graph::{QuantGraph, node_of};
use crate::scheme::{Calibrator, Quantizer, RangeError, Subject};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{BatchEngine, BatchPoints, Pass, Point, Points, Samples, Settled};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_tensor::tensor::Tensor;

struct Calibrate<'a> {
    q: &'a QuantGraph,
    calibrators: BTreeMap<Point, Box<dyn Calibrator<Quantizer>>>,
}

impl Points for Calibrate<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let Some(quantizer) = self.q.quantizer(point) else { return Ok(()) };
        let id = node_of(point);
        let calibrator = self.calibrators.entry(point).or_insert_with(|| quantizer.calibrator());
        calibrator.see(tensor).map_err(|e| cant(&self.q.graph, id, "output", e))?;
        calibrator.fake_quantize(tensor);
        Ok(())
    }
    fn reads(&self, id: NodeId) -> bool {
        Stored(self.q).reads(id)
    }
    fn wants(&self, id: NodeId) -> bool {
        Stored(self.q).wants(id)
    }
}

impl<'a> BatchPoints<'a> for Calibrate<'_> {
    fn at(&self, id: NodeId) -> Option<(Point, bool)> {
        let at = |point: Point| Some((point, in_passes(self.q.quantizer(point)?)?));
        points_of(id).into_iter().find_map(at)
    }
    fn settle(&mut self, point: Point, values: usize, pass: Pass<'_>) -> Result<Settled<'a>, Error> {
        let id = node_of(point);
        let whole = || Error::Run(format!("layer `{}` is not calibrated in passes", self.q.graph.node(id).name));
        let quantizer = self.q.quantizer(point).ok_or_else(whole)?;
        let calibrator = self.calibrators.entry(point).or_insert_with(|| quantizer.calibrator());
        let settled = calibrator.see_samples(values, pass).ok_or_else(whole)?;
        settled.map_err(|e| cant(&self.q.graph, id, "output", e))
    }
}

/// The points behind a layer.
fn points_of(id: NodeId) -> [Point; 3] {
    [Point::PreActivation(id), Point::PostActivation(id), Point::Output(id)]
}

/// [`Pof2::in_passes`](crate::scheme::pof2::Pof2::in_passes) of quantizers of positions; others see batches as a whole.
fn in_passes(quantizer: &Quantizer) -> Option<bool> {
    match quantizer {
        Quantizer::Pof2(pof2) => pof2.in_passes(),
        Quantizer::Affine(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => None,
    }
}

/// Whether all tensors of data are calibrated in passes over samples: each behind a layer, one at most behind each.
fn all_in_passes(q: &QuantGraph) -> bool {
    let plain = |id: NodeId| {
        let quantizers: Vec<&Quantizer> = points_of(id).into_iter().filter_map(|point| q.quantizer(point)).collect();
        let most = usize::from(!q.graph.inputs.contains(&id));
        let in_passes = quantizers.len() <= most && quantizers.iter().all(|own| in_passes(own).is_some());
        in_passes && !Stored(q).reads(id) && !q.graph.node(id).dtype.is_half()
    };
    q.graph.ids().all(plain)
}

fn cant(graph: &Graph, id: NodeId, what: &str, why: RangeError) -> Error {
    let node = graph.node(id);
    Error::layer(&node.name, node.op.class(), format!("its {what} can't be quantized: {why}"))
}

/// How samples become batches, and what these decide.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// Samples in a batch; the last may be short.
    pub size: usize,
    /// Batches at most.
    pub most: Option<usize>,
    /// Whether batches vote for positions; otherwise the last one decides.
    pub vote: bool,
}

impl Batches {
    /// The batches of so many samples: where each begins, and its size.
    ///
    /// Errors: no samples.
    pub fn parts(&self, samples: usize) -> Result<Vec<(usize, usize)>, Error> {
        if samples == 0 {
            return Err(Error::Dataset("the calibration set is empty".into()));
        }
        let size = self.size.max(1);
        let starts = (0..samples).step_by(size).take(self.most.unwrap_or(usize::MAX).max(1));
        Ok(starts.map(|start| (start, size.min(samples - start))).collect())
    }
}

/// Calibrates every quantizer of `q` on batches of samples.
///
/// Each batch chooses a position for every tensor, seeing tensors before it already quantized with this batch's own
/// positions; then the batches vote. Ranges grow from batch to batch instead. Weights don't depend on data.
///
/// Where no quantizer learns anything, no batch is looked at. `progress(done, total)` is called after each batch. Errors:
/// no samples; values that are not finite, naming the layer.
pub fn calibrate_graph(
    q: &mut QuantGraph,
    samples: &dyn Samples,
    batches: &Batches,
    progress: impl FnMut(usize, usize),
) -> Result<(), Error> {
    if !q.learns() {
        return Ok(());
    }
    let parts = batches.parts(samples.len())?;
    let total = parts.len();
    let own = OwnTensors::new(q)?;
    let calibrators = seen(q, &own, samples, &parts, progress)?;
    finish(q, own, calibrators, total, batches.vote)
}

/// What has looked at batches, by the place of its tensor.
type Calibrators = BTreeMap<Point, Box<dyn Calibrator<Quantizer>>>;

/// Lets batches be seen, one after the other.
fn seen(
    q: &QuantGraph,
    own: &OwnTensors,
    samples: &dyn Samples,
    parts: &[(usize, usize)],
    mut progress: impl FnMut(usize, usize),
) -> Result<Calibrators, Error> {
    let mut points = Calibrate { q, calibrators: BTreeMap::new() };
    let most = parts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut engine = all_in_passes(q).then(|| BatchEngine::new(&q.graph, own.quantized.clone(), &points, most));
    for (step, (start, count)) in parts.iter().enumerate() {
        let batch = samples.batch(*start, *count)?;
        match &mut engine {
            Some(engine) => engine.run(&batch, &mut points)?,
            None => eval::run(&q.graph, &own.quantized, batch, &mut points).map(drop)?,
        }
        progress(step + 1, parts.len());
    }
    Ok(points.calibrators)
}

/// Gives every quantizer what was learned of `total` batches.
fn finish(
    q: &mut QuantGraph,
    own: OwnTensors,
    calibrators: Calibrators,
    total: usize,
    vote: bool,
) -> Result<(), Error> {
    let learned: Vec<(Point, Result<Quantizer, RangeError>)> =
        calibrators.into_iter().map(|(point, c)| (point, c.finish(Subject::Data { vote }))).collect();
    own.finish(q, total.saturating_sub(1))?;
    for (point, learned) in learned {
        let id = node_of(point);
        let learned = learned.map_err(|e| cant(&q.graph, id, "output", e))?;
        if let Some(own) = q.quantizer_mut(point) {
            *own = learned;
        }
    }
    Ok(())
}

/// What the batches of one shard taught: of each quantizer of data, with the place of its tensor.
pub type Taught = Vec<([usize; 3], Value)>;

/// A place in numbers.
const fn place(point: Point) -> [usize; 3] {
    match point {
        Point::Input(id, k) => [0, id.0, k],
        Point::PreActivation(id) => [1, id.0, 0],
        Point::PostActivation(id) => [2, id.0, 0],
        Point::Output(id) => [3, id.0, 0],
    }
}

/// [`place`] back.
const fn point(place: [usize; 3]) -> Option<Point> {
    match place {
        [0, id, k] => Some(Point::Input(NodeId(id), k)),
        [1, id, 0] => Some(Point::PreActivation(NodeId(id))),
        [2, id, 0] => Some(Point::PostActivation(NodeId(id))),
        [3, id, 0] => Some(Point::Output(NodeId(id))),
        _ => None,
    }
}

/// [`calibrate_graph`] on a part of the batches, whose numbers are `shard`: also returns what they taught, for
/// [`calibrate_from`].
///
/// Batches vote independently, each with positions of its own, so that parts of them can be seen by different processes.
/// Errors: also quantizers whose ranges grow from batch to batch, where each batch is computed with the ranges so far.
pub fn calibrate_shard(
    q: &mut QuantGraph,
    samples: &dyn Samples,
    batches: &Batches,
    shard: std::ops::Range<usize>,
    progress: impl FnMut(usize, usize),
) -> Result<Taught, Error> {
    let parts = batches.parts(samples.len())?;
    let parts = parts.get(shard).unwrap_or_default();
    let own = OwnTensors::new(q)?;
    let calibrators = seen(q, &own, samples, parts, progress)?;
    let taught: Option<Taught> = calibrators.iter().map(|(point, c)| Some((place(*point), c.seen()?))).collect();
    let taught = taught.ok_or_else(|| {
        Error::Options(
            "the strategy's ranges grow from batch to batch, and each batch is computed with the ranges so far: batches \
             can't be calibrated apart; power-of-two positions can, as in pof2s"
                .into(),
        )
    })?;
    finish(q, own, calibrators, parts.len(), batches.vote)?;
    Ok(taught)
}

/// [`calibrate_graph`] from what the shards of all `total` batches taught, in their order: the same quantizers as if one
/// process had seen them.
///
/// Errors: what was not taught by the shards of such a network.
pub fn calibrate_from(q: &mut QuantGraph, total: usize, vote: bool, shards: &[Taught]) -> Result<(), Error> {
    let own = OwnTensors::new(q)?;
    let mut calibrators = Calibrators::new();
    for shard in shards {
        let foreign = || Error::Options("a part is not of this network and strategy".into());
        if shard.len() != shards.first().map_or(0, Taught::len) {
            return Err(foreign());
        }
        for (place, later) in shard {
            let point = point(*place).ok_or_else(foreign)?;
            let quantizer = q.quantizer(point).ok_or_else(foreign)?;
            let calibrator = calibrators.entry(point).or_insert_with(|| quantizer.calibrator());
            calibrator.join(later).ok_or_else(foreign)?;
        }
        if calibrators.len() != shard.len() {
            return Err(foreign());
        }
    }
    finish(q, own, calibrators, total, vote)
}

/// What calibrates the weights of all layers, which are the same in every batch.
struct OwnTensors {
    /// Of the quantized ones: the layer, the number of the weight.
    calibrators: Vec<(NodeId, usize, Box<dyn Calibrator<Quantizer>>)>,
    /// All weights of all layers as a batch sees them.
    quantized: Vec<Vec<Tensor>>,
}

impl OwnTensors {
    /// Sees every weight once.
    fn new(q: &QuantGraph) -> Result<Self, Error> {
        let all = |id: NodeId| q.graph.node(id).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
        let mut own = Self { calibrators: Vec::new(), quantized: q.graph.ids().map(all).collect() };
        for (id, layer) in &q.layers {
            let weights = q.graph.node(*id).op.layer().weights();
            for (k, ((name, w), quantizer)) in weights.into_iter().zip(&layer.weights).enumerate() {
                let Some(quantizer) = quantizer else { continue };
                let mut calibrator = quantizer.calibrator();
                calibrator.see(w).map_err(|e| cant(&q.graph, *id, name, e))?;
                calibrator.fake_quantize(&mut own.quantized[id.0][k]);
                own.calibrators.push((*id, k, calibrator));
            }
        }
        Ok(own)
    }

    /// Gives the weights' quantizers what was learned, after `again` more batches.
    fn finish(self, q: &mut QuantGraph, again: usize) -> Result<(), Error> {
        for (id, k, mut calibrator) in self.calibrators {
            let weights = q.graph.node(id).op.layer().weights();
            let Some(((name, w), layer)) = weights.get(k).zip(q.layers.get(&id)) else { continue };
            let Some(first) = layer.weights.iter().flatten().next() else { continue };
            let seen = calibrator.see_again(w, again);
            let learned = seen.and_then(|()| calibrator.finish(Subject::Weight { first: Some(first) }));
            let learned = learned.map_err(|e| cant(&q.graph, id, name, e))?;
            if let Some(own) = q.layers.get_mut(&id).and_then(|layer| layer.weights.get_mut(k)) {
                *own = Some(learned);
            }
        }
        Ok(())
    }
}
