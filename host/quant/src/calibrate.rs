//! Choosing positions from data.

use std::collections::BTreeMap;

use crate::eval::{Stored, quantized_weights};
use crate::quant_graph::{Fit, QuantGraph, Quantizer};
use crate::quantizer;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points, Samples};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_tensor::tensor::Tensor;

/// Positions that the batches voted for, and the last batch's state.
#[derive(Debug, Default)]
struct Votes {
    /// (position, votes) in order of first appearance.
    count: Vec<(FixPos, usize)>,
    last: Vec<Fit>,
}

impl Votes {
    fn add(&mut self, fits: Vec<Fit>) {
        // Channels don't vote: the last batch decides, as in the vendor's tool.
        if let [fit] = fits[..] {
            match self.count.iter_mut().find(|(p, _)| *p == fit.pos) {
                Some((_, n)) => *n += 1,
                None => self.count.push((fit.pos, 1)),
            }
        }
        self.last = fits;
    }

    /// The most frequent position; of equally frequent ones the one that appeared first, or, for FixNeuron, the smallest.
    fn winner(&self, fix_neuron: bool) -> FixPos {
        let most = self.count.iter().map(|(_, n)| *n).max().unwrap_or(0);
        let mut best = self.count.iter().filter(|(_, n)| *n == most).map(|(p, _)| *p);
        let winner = if fix_neuron { best.min_by_key(|p| p.0) } else { best.next() };
        winner.unwrap_or_default()
    }

    fn write(self, q: &mut Quantizer) {
        if q.params.per_channel {
            q.channels = self.last;
            return;
        }
        q.pos = self.winner(q.params.fix_neuron());
        q.calibrated = q.pos;
        if let Some(last) = self.last.first() {
            (q.min, q.max) = (last.min, last.max);
        }
    }
}

struct Calibrate<'a> {
    q: &'a QuantGraph,
    votes: BTreeMap<Point, Votes>,
}

impl Points for Calibrate<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let Some(quantizer) = self.q.quantizer(point) else { return Ok(()) };
        let (Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let fits = calibrate(&self.q.graph, id, "output", tensor, quantizer)?;
        quantizer::fake_quantize(tensor, &fits, &quantizer.params);
        self.votes.entry(point).or_default().add(fits);
        Ok(())
    }
    fn wants(&self, id: NodeId) -> bool {
        Stored(self.q).wants(id)
    }
}

fn calibrate(graph: &Graph, id: NodeId, what: &str, tensor: &Tensor, q: &Quantizer) -> Result<Vec<Fit>, Error> {
    quantizer::calibrate(tensor, &q.params).map_err(|e| {
        let node = graph.node(id);
        Error::layer(&node.name, node.op.class(), format!("its {what} can't be quantized: {e}"))
    })
}

/// Calibrates every quantizer of `q` on batches of `batch_size` samples (the last may be short), at most `steps`.
///
/// Each batch chooses a position for every tensor, seeing tensors before it already quantized with this batch's own
/// positions; then the batches vote. Weights don't depend on data and are calibrated once.
///
/// `progress(done, total)` is called after each batch. Errors: no samples; values that are not finite, naming the layer.
pub fn calibrate_graph(
    q: &mut QuantGraph,
    samples: &dyn Samples,
    batch_size: usize,
    steps: Option<usize>,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), Error> {
    if samples.is_empty() {
        return Err(Error::Dataset("the calibration set is empty".into()));
    }
    for (id, layer) in &mut q.layers {
        let weights = q.graph.node(*id).op.layer().weights();
        for ((name, w), own) in weights.into_iter().zip(&mut layer.weights) {
            if let Some(own) = own {
                let mut votes = Votes::default();
                votes.add(calibrate(&q.graph, *id, name, w, own)?);
                votes.write(own);
            }
        }
    }
    let weights = quantized_weights(q);
    let batch_size = batch_size.max(1);
    let total = samples.len().div_ceil(batch_size).min(steps.unwrap_or(usize::MAX)).max(1);
    let mut points = Calibrate { q, votes: BTreeMap::new() };
    for step in 0..total {
        let start = step * batch_size;
        let batch = samples.batch(start, batch_size.min(samples.len() - start))?;
        eval::run(&q.graph, &weights, batch, &mut points)?;
        progress(step + 1, total);
    }
    for (point, votes) in points.votes {
        if let Some(own) = q.quantizer_mut(point) {
            votes.write(own);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_position_wins_and_the_first_of_equals() {
        let vote = |positions: &[i8]| {
            let mut v = Votes::default();
            positions.iter().for_each(|p| v.add(vec![Fit { pos: FixPos(*p), ..Fit::default() }]));
            v.winner(false).0
        };
        assert_eq!(vote(&[6, 7, 7, 6, 5]), 6);
        assert_eq!(vote(&[3, 2, 3, 2, 2, 3]), 3);
        assert_eq!(vote(&[4, 5, 5]), 5);
    }
}
