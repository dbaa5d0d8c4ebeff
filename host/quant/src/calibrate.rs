//! Choosing positions from data.

use std::collections::BTreeMap;

use crate::eval::{Stored, quantized_weights};
use crate::quant_graph::{QuantGraph, node_of};
use crate::scheme::{Calibrator, RangeError};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points, Samples};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_tensor::tensor::Tensor;

struct Calibrate<'a> {
    q: &'a QuantGraph,
    calibrators: BTreeMap<Point, Box<dyn Calibrator>>,
}

impl Points for Calibrate<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let Some(quantizer) = self.q.quantizer(point) else { return Ok(()) };
        let id = node_of(point);
        let calibrator = self.calibrators.entry(point).or_insert_with(|| quantizer.scheme().calibrator());
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

fn cant(graph: &Graph, id: NodeId, what: &str, why: RangeError) -> Error {
    let node = graph.node(id);
    Error::layer(&node.name, node.op.class(), format!("its {what} can't be quantized: {why}"))
}

/// Calibrates every quantizer of `q` on batches of `batch_size` samples (the last may be short), at most `steps`.
///
/// Each batch chooses a position for every tensor, seeing tensors before it already quantized with this batch's own
/// positions; then the batches vote. Weights don't depend on data and are calibrated once.
///
/// Where no quantizer learns anything, no batch is looked at. `progress(done, total)` is called after each batch. Errors: no samples; values that are not finite, naming the layer.
pub fn calibrate_graph(
    q: &mut QuantGraph,
    samples: &dyn Samples,
    batch_size: usize,
    steps: Option<usize>,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), Error> {
    if !q.learns() {
        return Ok(());
    }
    if samples.is_empty() {
        return Err(Error::Dataset("the calibration set is empty".into()));
    }
    for (id, layer) in &mut q.layers {
        let weights = q.graph.node(*id).op.layer().weights();
        for ((name, w), own) in weights.into_iter().zip(&mut layer.weights) {
            if let Some(own) = own {
                let mut calibrator = own.scheme().calibrator();
                calibrator.see(w).map_err(|e| cant(&q.graph, *id, name, e))?;
                *own = calibrator.finish();
            }
        }
    }
    let weights = quantized_weights(q);
    let batch_size = batch_size.max(1);
    let total = samples.len().div_ceil(batch_size).min(steps.unwrap_or(usize::MAX)).max(1);
    let mut points = Calibrate { q, calibrators: BTreeMap::new() };
    for step in 0..total {
        let start = step * batch_size;
        let batch = samples.batch(start, batch_size.min(samples.len() - start))?;
        eval::run(&q.graph, &weights, batch, &mut points)?;
        progress(step + 1, total);
    }
    for (point, calibrator) in points.calibrators {
        if let Some(own) = q.quantizer_mut(point) {
            *own = calibrator.finish();
        }
    }
    Ok(())
}
