//! Evaluating quantized graphs in floats: what the `vendor` numerics are.

use crate::quant_graph::QuantGraph;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points};
use shiftwise_graph::graph::NodeId;
use shiftwise_tensor::tensor::Tensor;

/// Applies a graph's quantizers at their stored positions.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a>(pub &'a QuantGraph);

impl Points for Stored<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        if let Some(q) = self.0.quantizer(point) {
            q.scheme().fake_quantize(tensor);
        }
        Ok(())
    }
    fn reads(&self, id: NodeId) -> bool {
        self.0.layers.get(&id).is_some_and(|l| l.reads())
    }
    fn wants(&self, id: NodeId) -> bool {
        self.0.layers.get(&id).is_some_and(|l| l.result().is_some())
    }
}

/// A layer's weights, fake-quantized where its entry says so.
pub fn layer_weights(q: &QuantGraph, id: NodeId) -> Vec<Tensor> {
    let quantizers = q.layers.get(&id).map_or(&[][..], |l| &l.weights);
    let weights = q.graph.node(id).op.layer().weights().into_iter().enumerate();
    let quantized = |(k, (_, w)): (usize, (&str, &Tensor))| {
        let mut w = w.clone();
        if let Some(Some(q)) = quantizers.get(k) {
            q.scheme().fake_quantize(&mut w);
        }
        w
    };
    weights.map(quantized).collect()
}

/// [`layer_weights`] of every layer.
pub fn quantized_weights(q: &QuantGraph) -> Vec<Vec<Tensor>> {
    q.graph.ids().map(|id| layer_weights(q, id)).collect()
}

/// Runs a quantized graph on one batch in the `vendor` numerics.
pub fn run_vendor(q: &QuantGraph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    eval::run(&q.graph, &quantized_weights(q), inputs, &mut Stored(q))
}
