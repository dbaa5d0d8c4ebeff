//! Nodes that the passes have left alone.

use crate::reasons::FloatWhy;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

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
