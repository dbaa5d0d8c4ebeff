//! Layers that quantization leaves float, and why.

use crate::graph::IntOpKind;
use crate::lower;
use crate::reasons::{COPY, FloatWhy};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::block::Format;

/// Layers that stay float for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftFloat {
    /// The user's layers, in the network's order.
    pub layers: Vec<String>,
    /// Why.
    pub reason: FloatWhy,
    /// What the user can do about it, if the model is to blame.
    pub remedy: Option<&'static str>,
}

/// Why the passes have left a node alone; `None` for one that they may change.
pub(crate) fn of_node(graph: &Graph, id: NodeId) -> Option<FloatWhy> {
    let node = graph.node(id);
    if matches!(node.op, Op::Input(_)) || !node.excluded {
        return None;
    }
    let Some(call) = &node.shared else { return Some(FloatWhy::Outside {}) };
    let calls = graph.nodes.iter().filter(|n| n.shared.as_ref().is_some_and(|s| s.layer == call.layer)).count();
    Some(FloatWhy::Shared { calls })
}

/// What the sentence about a block floating point quantizer calls it.
pub(crate) const BLOCKS: &str = "block floating point";

/// Why no integers can hold what a layer reads, computes or keeps: block floating point, or a type of fewer bits than an
/// f32's.
pub fn grid(quantized: &QuantGraph, id: NodeId) -> Option<FloatWhy> {
    let dtype = quantized.graph.node(id).dtype;
    if dtype.is_half() {
        return Some(FloatWhy::Type { dtype });
    }
    let blocks = |own: &Quantizer| match own {
        Quantizer::Block(own) => own.params.data_format != Format::Fp32,
        Quantizer::Pof2(_) | Quantizer::Affine(_) | Quantizer::Tqt(_) => false,
    };
    let any = quantized.layers.get(&id).is_some_and(|layer| layer.all().any(blocks));
    any.then_some(FloatWhy::Scheme { seen: BLOCKS })
}

/// The layers with a [`grid`] that neither a DPU nor a kernel of the CPU has, grouped by the reason.
pub fn grids(quantized: &QuantGraph) -> Vec<LeftFloat> {
    let mut found: Vec<LeftFloat> = Vec::new();
    for id in quantized.graph.ids() {
        let Some(reason) = grid(quantized, id) else { continue };
        let layer = quantized.graph.node(id).name.clone();
        match found.iter_mut().find(|known| known.reason == reason) {
            Some(known) => known.layers.push(layer),
            None => found.push(LeftFloat { layers: vec![layer], remedy: reason.remedy(), reason }),
        }
    }
    found
}

/// The layers that stay float, grouped by the reason.
pub fn layers(quantized: &QuantGraph) -> Vec<LeftFloat> {
    let mut found: Vec<LeftFloat> = Vec::new();
    let mut seen: Vec<(String, FloatWhy)> = Vec::new();
    let mut add = |layer: &str, reason: FloatWhy, remedy| {
        let both = (layer.to_owned(), reason.clone());
        if layer.is_empty() || seen.contains(&both) {
            return;
        }
        seen.push(both);
        match found.iter_mut().find(|f| f.reason == reason) {
            Some(known) => known.layers.push(layer.to_owned()),
            None => found.push(LeftFloat { layers: vec![layer.to_owned()], reason, remedy }),
        }
    };
    let graph = &quantized.graph;
    for id in graph.ids().filter(|id| graph.node(*id).shared.is_some()) {
        let node = graph.node(id);
        // What only moves values has nothing to be quantized.
        if matches!(node.op, Op::Flatten(_) | Op::Reshape(_) | Op::Dropout(_) | Op::Permute(_) | Op::Quantize(_)) {
            continue;
        }
        if let (Some(call), Some(reason)) = (&node.shared, of_node(graph, id)) {
            add(&call.layer, reason, Some(COPY));
        }
    }
    // What has no integer form for another reason; a graph without one has said so already.
    let Ok(integers) = lower::lower(quantized) else { return found };
    let shared = |layer: &str| graph.nodes.iter().any(|n| n.shared.is_some() && n.origin.iter().any(|o| o == layer));
    for op in &integers.ops {
        if let IntOpKind::Float { why, .. } = &op.kind
            && !shared(&op.layer)
        {
            add(&op.layer, why.clone(), None);
        }
    }
    found
}
