//! Choosing positions from data.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::eval::{self, Hooks, Point, Samples};
use crate::ir::{Graph, NodeId};
use crate::quant::{ActivationQuant, QuantGraph, Quantizer};
use crate::quantizer::{self, Calibrated};
use crate::tensor::Tensor;

/// Positions that the batches voted for, and the last batch's range.
#[derive(Debug, Default)]
struct Votes {
    /// (position, votes) in order of first appearance.
    count: Vec<(i8, usize)>,
    range: (f32, f32),
}

impl Votes {
    fn add(&mut self, c: Calibrated) {
        self.range = (c.min, c.max);
        match self.count.iter_mut().find(|(p, _)| *p == c.pos.0) {
            Some((_, n)) => *n += 1,
            None => self.count.push((c.pos.0, 1)),
        }
    }

    /// The most frequent position; of equally frequent ones the one that appeared first.
    fn winner(&self) -> i8 {
        self.count.iter().rev().max_by_key(|(_, n)| *n).map_or(0, |(p, _)| *p)
    }

    fn write(&self, q: &mut Quantizer) {
        (q.min, q.max) = self.range;
        q.pos.0 = self.winner();
        q.calibrated = q.pos;
    }
}

struct Calibrate<'a> {
    graph: &'a Graph,
    votes: BTreeMap<Point, Votes>,
}

impl Hooks for Calibrate<'_> {
    fn quantize(&mut self, point: Point, q: &Quantizer, tensor: &mut Tensor) -> Result<(), Error> {
        let (Point::Activation(id) | Point::Output(id)) = point;
        let c = calibrate(self.graph, id, "output", tensor.data(), q)?;
        quantizer::fake_quantize(tensor.data_mut(), c.pos, &q.params);
        self.votes.entry(point).or_default().add(c);
        Ok(())
    }
}

fn calibrate(graph: &Graph, id: NodeId, what: &str, data: &[f32], q: &Quantizer) -> Result<Calibrated, Error> {
    quantizer::calibrate(data, &q.params).map_err(|e| {
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
                votes.add(calibrate(&q.graph, *id, name, w.data(), own)?);
                votes.write(own);
            }
        }
    }
    let weights = eval::quantized_weights(q);
    let batch_size = batch_size.max(1);
    let total = samples.len().div_ceil(batch_size).min(steps.unwrap_or(usize::MAX)).max(1);
    let mut hooks = Calibrate { graph: &q.graph, votes: BTreeMap::new() };
    for step in 0..total {
        let start = step * batch_size;
        let batch = samples.batch(start, batch_size.min(samples.len() - start))?;
        eval::run(&q.graph, &q.layers, &weights, batch, &mut hooks)?;
        progress(step + 1, total);
    }
    for (point, votes) in hooks.votes {
        match point {
            Point::Output(id) => {
                if let Some(own) = q.layers.get_mut(&id).and_then(|l| l.output.as_mut()) {
                    votes.write(own);
                }
            }
            Point::Activation(id) => {
                if let Some(ActivationQuant::Before(own) | ActivationQuant::After(own)) =
                    q.layers.get_mut(&id).map(|l| &mut l.activation)
                {
                    votes.write(own);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::fix::FixPos;

    #[test]
    fn the_most_frequent_position_wins_and_the_first_of_equals() {
        let vote = |positions: &[i8]| {
            let mut v = Votes::default();
            positions.iter().for_each(|p| v.add(Calibrated { pos: FixPos(*p), min: 0.0, max: 0.0 }));
            v.winner()
        };
        assert_eq!(vote(&[6, 7, 7, 6, 5]), 6);
        assert_eq!(vote(&[3, 2, 3, 2, 2, 3]), 3);
        assert_eq!(vote(&[4, 5, 5]), 5);
    }
}
