//! One quantized layer, with the activation behind it that quantizes for it, as a network of its own.

use std::collections::BTreeMap;

use shiftwise_graph::backward::{self, Mode, Wanted};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{Input, Op};
use shiftwise_quant::eval::{Stored, layer_weights};
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

/// A layer's place in its block: behind the input.
const LAYER: NodeId = NodeId(1);

/// A quantized layer alone. Its positions never change; its weights are float and are fake-quantized when they are used.
#[derive(Clone, Debug)]
pub(super) struct Block {
    q: QuantGraph,
    /// Layers of the whole network, in order.
    pub(super) layers: Vec<NodeId>,
}

impl Block {
    /// The block of a layer; the layer behind it belongs to it if it quantizes for it.
    pub(super) fn new(q: &QuantGraph, id: NodeId) -> Result<Self, Error> {
        let node = q.graph.node(id);
        let deferred = q.layers.get(&id).is_some_and(|l| l.activation == ActivationQuant::Deferred);
        let first = q.graph.ids().find(|c| q.graph.node(*c).inputs.contains(&id));
        let behind = first.filter(|c| deferred && q.graph.node(*c).inputs.len() == 1);
        let mut graph = Graph::default();
        let shape = node.inputs.first().map(|i| q.graph.node(*i).shape.clone()).unwrap_or_default();
        let mut at = graph.add("input of the block", Op::Input(Input { shape }), vec![], vec![])?;
        graph.inputs = vec![at];
        let layers: Vec<NodeId> = std::iter::once(id).chain(behind).collect();
        let mut quantizers = BTreeMap::new();
        for id in &layers {
            let node = q.graph.node(*id);
            at = graph.add(node.name.clone(), node.op.clone(), vec![at], vec![])?;
            if let Some(own) = q.layers.get(id) {
                quantizers.insert(at, own.clone());
            }
        }
        graph.outputs = vec![at];
        Ok(Self { q: QuantGraph { graph, layers: quantizers, metadata: Metadata::default(), trained: false }, layers })
    }

    /// The weights of the layer.
    pub(super) fn weights(&self) -> Vec<Tensor> {
        self.q.graph.node(LAYER).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()
    }

    /// Replaces kernel and bias.
    pub(super) fn set_weights(&mut self, weights: &[Tensor]) {
        set_weights(self.q.graph.node_mut(LAYER), weights);
    }

    /// All weights as they are computed with.
    fn quantized(&self) -> Vec<Vec<Tensor>> {
        self.q.graph.ids().map(|id| layer_weights(&self.q, id)).collect()
    }

    /// Result of a batch.
    pub(super) fn run(&self, x: Tensor) -> Result<Tensor, Error> {
        only(eval::run(&self.q.graph, &self.quantized(), vec![x], &mut Stored(&self.q))?)
    }

    /// The gradients of kernel and bias by the block's loss on a batch: the squared error averaged over the last axis, added
    /// up over everything else.
    pub(super) fn gradients(&self, x: Tensor, y: &Tensor) -> Result<Vec<Option<Tensor>>, Error> {
        let mut points = Through { stored: Stored(&self.q) };
        let run = backward::forward(&self.q.graph, &self.quantized(), vec![x], &mut points, Mode::Infer)?;
        let mut dy = only(run.outputs)?;
        let per = 2.0 / dy.shape().last().copied().unwrap_or(1).max(1) as f32;
        dy.data_mut().iter_mut().zip(y.data()).for_each(|(d, y)| *d = (*d - y) * per);
        let found = backward::backward(&self.q.graph, run.tape, vec![dy], &mut points, Wanted::Params)?;
        let of_quantized = found.params.into_iter().nth(LAYER.0).unwrap_or_default();
        let quantizers = self.q.layers.get(&LAYER).map_or(&[][..], |own| &own.weights);
        let through = |(k, (d, w)): (usize, (Option<Tensor>, Tensor))| {
            let d = d?;
            Some(match quantizers.get(k) {
                Some(Some(own)) => own.scheme().backward(&w, &d).tensor,
                Some(None) | None => d,
            })
        };
        Ok(of_quantized.into_iter().zip(self.weights()).enumerate().map(through).collect())
    }
}

/// Replaces kernel and bias of a layer.
pub(crate) fn set_weights(node: &mut shiftwise_graph::graph::Node, weights: &[Tensor]) {
    if let Some(own) = node.op.weighted_mut() {
        if let Some(kernel) = weights.first() {
            own.kernel = kernel.clone();
        }
        if let (Some(own), Some(bias)) = (&mut own.bias, weights.get(1)) {
            *own = bias.clone();
        }
    }
}

/// The one output of a block.
fn only(outputs: Vec<Tensor>) -> Result<Tensor, Error> {
    outputs.into_iter().next().ok_or_else(|| Error::Run("a block of one layer has no output".into()))
}

/// Stored positions with the gradients of their schemes. A scheme of positions passes gradients straight through, for
/// which nothing need be kept.
struct Through<'a> {
    stored: Stored<'a>,
}

impl Points for Through<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        self.stored.apply(point, tensor)
    }
    fn reads(&self, id: NodeId) -> bool {
        self.stored.reads(id)
    }
    fn wants(&self, id: NodeId) -> bool {
        self.stored.wants(id)
    }
    fn differentiates(&self, point: Point) -> bool {
        match self.stored.0.quantizer(point) {
            Some(Quantizer::Pof2(_)) | None => false,
            Some(Quantizer::Affine(_) | Quantizer::Tqt(_) | Quantizer::Block(_)) => true,
        }
    }
    fn backward(&mut self, point: Point, x: &Tensor, dy: &mut Tensor) -> Result<(), Error> {
        if let Some(own) = self.stored.0.quantizer(point) {
            *dy = own.scheme().backward(x, dy).tensor;
        }
        Ok(())
    }
}
