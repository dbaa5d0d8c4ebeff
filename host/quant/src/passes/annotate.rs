//! Which layers get which quantizers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::layer_quant::{ActivationPlace, LayerQuant};
use crate::owners::is_activation;
use crate::quant_graph::QuantGraph;
use crate::scheme::Quantizer;
use crate::strategy::{Pipeline, Strategy};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op, Quantize};

/// What fuses with what before layers are wrapped.
#[derive(Debug, Default)]
struct Fusions {
    /// Activation layers that carry a quantizer for the layer before them.
    quantizable: BTreeSet<NodeId>,
    /// Convolutions and dense layers whose output is quantized by the activation behind them.
    deferred: BTreeSet<NodeId>,
    /// Adds whose output is quantized by the activation behind them.
    bare: BTreeSet<NodeId>,
}

/// Whether a layer with this op clips negatives, so that it may be unsigned.
fn relu_like(op: &Op) -> bool {
    matches!(op, Op::Relu(_)) || matches!(op.layer().activation(), ActivationFn::Relu | ActivationFn::Relu6)
}

/// Functions whose results the vendor's tool quantizes.
fn is_quantized_function(node: &Node) -> bool {
    matches!(&node.op, Op::TfOp(f) if ["linalg.matmul", "math.truediv", "__operators__.add"].contains(&f.function.as_str()))
}

/// Finds every activation that directly follows a layer which nothing else reads, and says who carries the quantizer.
fn fusions(graph: &Graph, strategy: &Strategy) -> Fusions {
    let uses = graph.uses();
    let mut found = Fusions::default();
    let registered = |id: NodeId| {
        graph.is_candidate(id)
            && strategy.layer_entry(graph.node(id).op.class(), relu_like(&graph.node(id).op)).is_some()
    };
    for id in graph.ids() {
        let [producer] = graph.node(id).inputs[..] else { continue };
        let op = &graph.node(id).op;
        if !is_activation(op) || uses[producer.0] != 1 || !registered(id) || !registered(producer) {
            continue;
        }
        let leaky = matches!(op, Op::LeakyRelu(_));
        match &graph.node(producer).op {
            op if op.weighted().is_some_and(|w| w.activation == ActivationFn::Linear) => {
                found.deferred.insert(producer);
            }
            Op::Add(_) | Op::Multiply(_) if !leaky => {
                found.bare.insert(producer);
            }
            // A pooling keeps its own quantizer too.
            Op::MaxPooling2D(_) if !leaky => {}
            Op::AveragePooling2D(p) if p.dpu && !leaky => {}
            Op::GlobalAveragePooling2D(p) if p.dpu && !leaky => {}
            _ => continue,
        }
        found.quantizable.insert(id);
    }
    found
}

/// A [`QuantGraph`] with uncalibrated quantizers.
///
/// Order as the vendor's tool: a quantizer behind every model input, or behind the user's `input_layers`; then every
/// registered layer is wrapped, except an activation that doesn't directly follow a layer it fuses with; then a float
/// tensor that enters a wrapped layer of one input, and nothing else, gets a quantizer in between.
///
/// Block floating point has an order of its own: see [`block`].
pub fn annotate(graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
    match strategy.pipeline() {
        Pipeline::Pof2s => pof2s(graph, strategy),
        Pipeline::Block => block(graph, strategy),
    }
}

/// The quantizers of a layer by its entry. Errors name the layer.
fn wrapped(node: &Node, entry: &Map<String, Value>, activation: ActivationPlace) -> Result<LayerQuant, Error> {
    LayerQuant::from_entry(&node.op, entry, activation)
        .map_err(|e| Error::Options(format!("layer `{}`: {e}", node.name)))
}

/// Where the quantized part begins: behind the model's inputs, or at the user's `input_layers`: behind a layer that stays
/// float itself, and before one that is quantized.
fn starts(graph: &Graph, layers: &BTreeMap<NodeId, LayerQuant>, strategy: &Strategy) -> Vec<NodeId> {
    let chosen: Vec<NodeId> = strategy.layer_list("input_layers").iter().filter_map(|n| graph.find(n)).collect();
    let start = |id: NodeId| if layers.contains_key(&id) { graph.node(id).inputs.clone() } else { vec![id] };
    match chosen.is_empty() {
        true => graph.inputs.iter().copied().filter(|id| graph.is_candidate(*id)).collect(),
        false => chosen.into_iter().flat_map(start).filter(|id| !layers.contains_key(id)).collect(),
    }
}

/// Puts quantizers behind nodes, the first that is named of each, and the graph in order.
fn insert(
    mut graph: Graph,
    mut layers: BTreeMap<NodeId, LayerQuant>,
    behind: impl IntoIterator<Item = (NodeId, Quantizer)>,
) -> Result<QuantGraph, Error> {
    let mut inserted = BTreeSet::new();
    for (producer, own) in behind {
        if !inserted.insert(producer) {
            continue;
        }
        let (name, origin) = (format!("quant_{}", graph.node(producer).name), graph.node(producer).origin.clone());
        let quantize = graph.insert_after(producer, name, Op::Quantize(Quantize), origin)?;
        layers.insert(quantize, LayerQuant { output: Some(own), ..LayerQuant::bare() });
    }
    let renumbered = graph.normalize();
    graph.verify()?;
    let layers = layers.into_iter().filter_map(|(id, q)| Some((*renumbered.get(&id)?, q))).collect();
    Ok(QuantGraph { graph, layers })
}

/// Block floating point: every layer with an entry is wrapped, whatever stands behind it, and quantizes what it reads;
/// between layers there are no quantizers but behind the model's inputs.
fn block(graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
    let (uses, consumers) = (graph.uses(), graph.consumers());
    let mut layers = BTreeMap::new();
    for id in graph.ids().filter(|id| graph.is_candidate(*id)) {
        let node = graph.node(id);
        let Some(entry) = strategy.layer_entry(node.op.class(), relu_like(&node.op)) else { continue };
        let activated = || match consumers[id.0][..] {
            [next] if uses[id.0] == 1 => matches!(graph.node(next).op, Op::Relu(_) | Op::Activation(_)),
            _ => false,
        };
        let bare = strategy.enabled("no_quant_in_add_act") && matches!(node.op, Op::Add(_)) && activated();
        let own = if bare { LayerQuant::bare() } else { wrapped(node, &entry, ActivationPlace::Nowhere)? };
        layers.insert(id, own);
    }
    let input = strategy.input_quantizer()?;
    let starts: Vec<_> = starts(&graph, &layers, strategy).into_iter().map(|id| (id, input.clone())).collect();
    insert(graph, layers, starts)
}

fn pof2s(graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
    let fused = fusions(&graph, strategy);
    let mut layers = BTreeMap::new();
    for id in graph.ids().filter(|id| graph.is_candidate(*id)) {
        let op = &graph.node(id).op;
        if matches!(op, Op::Input(_) | Op::Quantize(_)) || (is_activation(op) && !fused.quantizable.contains(&id)) {
            continue;
        }
        if fused.bare.contains(&id) {
            layers.insert(id, LayerQuant::bare());
        } else if let Some(entry) = strategy.layer_entry(op.class(), relu_like(op)) {
            let behind = fused.deferred.contains(&id);
            let activation = if behind { ActivationPlace::Behind } else { ActivationPlace::Here };
            layers.insert(id, wrapped(graph.node(id), &entry, activation)?);
        }
    }
    let uses = graph.uses();
    // A shared layer matches no pattern, this one neither.
    let is_float = |id: NodeId| {
        let node = graph.node(id);
        !layers.contains_key(&id) && node.shared.is_none() && !matches!(node.op, Op::Input(_) | Op::Quantize(_))
    };
    let mut points = starts(&graph, &layers, strategy);
    for id in graph.ids() {
        if let ([producer], true) = (&graph.node(id).inputs[..], layers.contains_key(&id))
            && uses[producer.0] == 1
            && is_float(*producer)
            // The vendor's tool also leaves alone what flows out of an ignored layer.
            && graph.is_candidate(*producer)
        {
            points.push(*producer);
        }
    }
    let input = strategy.input_quantizer()?;
    // Sums, quotients and products of matrices that are written as functions, with settings that the user can't change.
    let functions: Vec<NodeId> =
        graph.ids().filter(|id| graph.is_candidate(*id) && is_quantized_function(graph.node(*id))).collect();
    let fixed = Quantizer::from_entry(&json!({
        "quantizer_type": "Pof2SQuantizer", "quantizer_params": { "bit_width": 8, "method": 1, "round_mode": 1 },
    }))?;
    let functions = functions.into_iter().map(|id| (id, fixed.clone()));
    let points = points.into_iter().map(|id| (id, input.clone()));
    insert(graph, layers, functions.chain(points))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::run_vendor;
    use shiftwise_graph::ops::{Activate, Add, Input};
    use shiftwise_tensor::tensor::Tensor;

    /// Of `y = x + tanh(x)` the Add rounds what it reads to bfloat16; its other reader, an output, has the sum's own bits.
    #[test]
    fn a_layer_of_blocks_quantizes_what_it_reads_for_itself_alone() {
        let mut graph = Graph::default();
        let x = graph.add("x", Op::Input(Input { shape: vec![1] }), Vec::new(), Vec::new()).unwrap();
        let linear = Op::Activation(Activate { function: ActivationFn::Linear });
        let a = graph.add("a", linear, vec![x], Vec::new()).unwrap();
        let sum = graph.add("sum", Op::Add(Add), vec![a, a], Vec::new()).unwrap();
        (graph.inputs, graph.outputs) = (vec![x], vec![a, sum]);
        graph.node_mut(a).excluded = true;
        let q = annotate(graph, &Strategy::built_in("bfp").unwrap()).unwrap();
        assert!(!q.learns());
        let fine = 1.0 + f32::EPSILON;
        let y = run_vendor(&q, vec![Tensor::new(vec![1, 1], vec![fine]).unwrap()]).unwrap();
        assert_eq!((y[0].data(), y[1].data()), (&[fine][..], &[2.0][..]));
    }
}
