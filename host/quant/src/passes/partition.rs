//! Which part of the network is optimized and quantized.

use std::collections::BTreeSet;

use crate::strategy::Strategy;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

/// Marks every layer outside the user's `input_layers` .. `output_layers`, and those in `ignore_layers`, as excluded.
///
/// With an end given, the chosen layers are those from which an output layer can be reached without passing an input
/// layer, both included; branches that bypass the input layers count. Returns warnings about names that don't exist.
pub fn partition(graph: &mut Graph, strategy: &Strategy) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut known = |key: &str| -> Vec<NodeId> {
        let find = |name: String| {
            let found = graph.find(&name);
            if found.is_none() {
                warnings.push(format!("{key} names `{name}`, which is not a layer of the model"));
            }
            found
        };
        strategy.layer_list(key).into_iter().filter_map(find).collect()
    };
    let (from, to, ignored) = (known("input_layers"), known("output_layers"), known("ignore_layers"));
    if !(from.is_empty() && to.is_empty()) {
        let from: BTreeSet<NodeId> = (if from.is_empty() { graph.inputs.clone() } else { from }).into_iter().collect();
        let mut chosen = BTreeSet::new();
        let mut open = if to.is_empty() { graph.outputs.clone() } else { to };
        while let Some(id) = open.pop() {
            if chosen.insert(id) && !from.contains(&id) {
                open.extend(&graph.node(id).inputs);
            }
        }
        for id in graph.ids().filter(|id| !chosen.contains(id)) {
            graph.node_mut(id).excluded = true;
        }
    }
    // A dropout behind an ignored layer is no quantized layer, and the pass that removes it looks at itself alone.
    for id in ignored {
        graph.node_mut(id).excluded = !matches!(graph.node(id).op, Op::Dropout(_));
    }
    warnings
}
