//! Nodes that have no integers whatever their layer is: the passes have left them alone, or their numbers are no integers.

use crate::reasons::FloatWhy;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::block::Format;

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
