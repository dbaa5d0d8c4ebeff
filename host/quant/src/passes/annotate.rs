//! Which layers get which quantizers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::layer_quant::{ActivationPlace, LayerQuant, Wrapping};
use crate::metadata::Metadata;
use crate::owners::is_activation;
use crate::quant_graph::QuantGraph;
use crate::role::Role;
use crate::scheme::Quantizer;
use crate::strategy::{Placement, Strategy};
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

/// What may be fused with the activation behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leader {
    /// A convolution or dense layer: its result is quantized behind the activation.
    Deferred,
    /// A sum or product, likewise.
    Bare,
    /// A pooling, which keeps its own quantizer too.
    Kept,
}

/// What an activation `op` may be fused with, by the rules of the strategy.
fn leader(producer: &Op, op: &Op, strategy: &Strategy) -> Option<Leader> {
    let leaky = matches!(op, Op::LeakyRelu(_));
    let linear = producer.weighted().is_some_and(|w| w.activation == ActivationFn::Linear);
    match (strategy.base().placement, producer) {
        (Placement::Dpu, _) if linear => Some(Leader::Deferred),
        (Placement::Dpu, Op::Add(_) | Op::Multiply(_)) if !leaky => Some(Leader::Bare),
        (Placement::Dpu, Op::MaxPooling2D(_)) if !leaky => Some(Leader::Kept),
        (Placement::Dpu, Op::AveragePooling2D(p)) if p.dpu && !leaky => Some(Leader::Kept),
        (Placement::Dpu, Op::GlobalAveragePooling2D(p)) if p.dpu && !leaky => Some(Leader::Kept),
        (Placement::Inputs, _) if linear && !leaky && strategy.enabled("no_quant_in_conv_act") => {
            Some(Leader::Deferred)
        }
        (Placement::Inputs | Placement::Readers, Op::Add(_)) if !leaky && strategy.enabled("no_quant_in_add_act") => {
            Some(Leader::Bare)
        }
        (Placement::Dpu | Placement::Inputs | Placement::Readers, _) => None,
    }
}

/// Whether a layer is quantized only together with the one before it.
fn is_follower(op: &Op, strategy: &Strategy) -> bool {
    match strategy.base().placement {
        Placement::Dpu => is_activation(op),
        Placement::Inputs | Placement::Readers => matches!(op, Op::Relu(_) | Op::Activation(_)),
    }
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
        if !is_follower(op, strategy) || uses[producer.0] != 1 || !registered(id) || !registered(producer) {
            continue;
        }
        match leader(&graph.node(producer).op, op, strategy) {
            Some(Leader::Deferred) => drop(found.deferred.insert(producer)),
            Some(Leader::Bare) => drop(found.bare.insert(producer)),
            Some(Leader::Kept) => {}
            None => continue,
        }
        found.quantizable.insert(id);
    }
    found
}

/// A [`QuantGraph`] with uncalibrated quantizers.
///
/// Order as the vendor's tool: a quantizer behind every model input, or behind the user's `input_layers`; then every
/// registered layer is wrapped, except an activation that doesn't directly follow a layer it fuses with; then float
/// tensors that enter wrapped layers of one input get quantizers in between.
pub fn annotate(mut graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
    let mut layers = wrapped(&graph, strategy)?;
    let input = strategy.input_quantizer()?;
    // Behind the model's inputs, or where the user's part of the model begins: behind a layer that stays float itself,
    // and before one that is quantized.
    let chosen: Vec<NodeId> = strategy.layer_list("input_layers").iter().filter_map(|n| graph.find(n)).collect();
    let start = |id: NodeId| if layers.contains_key(&id) { graph.node(id).inputs.clone() } else { vec![id] };
    let mut points: Vec<NodeId> = match chosen.is_empty() {
        true => graph.inputs.iter().copied().filter(|id| graph.is_candidate(*id)).collect(),
        false => chosen.into_iter().flat_map(start).filter(|id| !layers.contains_key(id)).collect(),
    };
    let mut functions = Vec::new();
    match strategy.base().placement {
        Placement::Dpu => {
            points.extend(only_readers(&graph, &layers));
            // Sums, quotients and products of matrices that are written as functions, with settings that the user can't
            // change.
            let fixed = Quantizer::from_entry(&json!({
                "quantizer_type": "Pof2SQuantizer", "quantizer_params": { "bit_width": 8, "method": 1, "round_mode": 1 },
            }))?;
            let quantized = |id: &NodeId| graph.is_candidate(*id) && is_quantized_function(graph.node(*id));
            functions.extend(graph.ids().filter(quantized).map(|id| (id, fixed.clone())));
        }
        Placement::Inputs | Placement::Readers => {}
    }
    let points = points.into_iter().map(|id| (id, input.clone()));
    let mut inserted = BTreeSet::new();
    for (producer, own) in functions.into_iter().chain(points) {
        if inserted.insert(producer) {
            let quantize = quantize_node(&mut graph, producer, false)?;
            graph.redirect(producer, quantize);
            layers.insert(quantize, LayerQuant { output: Some(own), ..LayerQuant::bare() });
        }
    }
    match strategy.base().placement {
        Placement::Dpu | Placement::Readers => {}
        Placement::Inputs => quantize_inputs(&mut graph, &mut layers, &input)?,
    }
    let renumbered = graph.normalize();
    graph.verify()?;
    let layers = layers.into_iter().filter_map(|(id, q)| Some((*renumbered.get(&id)?, q))).collect();
    Ok(QuantGraph { graph, layers, metadata: Metadata::default(), trained: false })
}

/// Every registered layer with its quantizers.
fn wrapped(graph: &Graph, strategy: &Strategy) -> Result<BTreeMap<NodeId, LayerQuant>, Error> {
    let fused = fusions(graph, strategy);
    let mut layers = BTreeMap::new();
    for id in graph.ids().filter(|id| graph.is_candidate(*id)) {
        let op = &graph.node(id).op;
        // What quantizes its own input depends on no layer before it.
        let follows = strategy.base().placement != Placement::Readers && is_follower(op, strategy);
        let alone = follows && !fused.quantizable.contains(&id);
        if matches!(op, Op::Input(_) | Op::Quantize(_)) || alone {
            continue;
        }
        if fused.bare.contains(&id) {
            layers.insert(id, LayerQuant::bare());
        } else if let Some(entry) = strategy.layer_entry(op.class(), relu_like(op)) {
            let behind = fused.deferred.contains(&id);
            let activation = if behind { ActivationPlace::Behind } else { ActivationPlace::Here };
            let quant = LayerQuant::from_entry(op, &entry, activation);
            let own = |e: Error| match strategy.blamed(op.class(), relu_like(op)) {
                Some(why) => Error::Options(format!("{why} (layer `{}`)", graph.node(id).name)),
                None => Error::Options(format!("layer `{}`: {e}", graph.node(id).name)),
            };
            layers.insert(id, quant.map_err(own)?);
        }
    }
    Ok(layers)
}

/// Float layers that only one layer reads, and that is wrapped and reads nothing else.
fn only_readers(graph: &Graph, layers: &BTreeMap<NodeId, LayerQuant>) -> Vec<NodeId> {
    let uses = graph.uses();
    // A shared layer matches no pattern, this one neither.
    let is_float = |id: NodeId| {
        let node = graph.node(id);
        !layers.contains_key(&id) && node.shared.is_none() && !matches!(node.op, Op::Input(_) | Op::Quantize(_))
    };
    let point = |id: NodeId| match graph.node(id).inputs[..] {
        // The vendor's tool also leaves alone what flows out of an ignored layer.
        [producer] => {
            (layers.contains_key(&id) && uses[producer.0] == 1 && is_float(producer) && graph.is_candidate(producer))
                .then_some(producer)
        }
        _ => None,
    };
    graph.ids().filter_map(point).collect()
}

/// A quantizer before every wrapped layer of one input that is not quantized yet. Layers that read one tensor share one;
/// what else reads the tensor reads it unquantized.
///
/// A sum without a quantizer counts as float, so it is quantized before its activation too: as the vendor's tool does.
fn quantize_inputs(
    graph: &mut Graph,
    layers: &mut BTreeMap<NodeId, LayerQuant>,
    input: &Quantizer,
) -> Result<(), Error> {
    let mut made: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let readers: Vec<NodeId> =
        layers.keys().copied().filter(|id| !matches!(graph.node(*id).op, Op::Quantize(_))).collect();
    for reader in readers {
        let [producer] = graph.node(reader).inputs[..] else { continue };
        let node = graph.node(producer);
        let quantized = matches!(node.op, Op::Quantize(_)) || layers.get(&producer).is_some_and(quantizes_its_result);
        if quantized || node.shared.is_some() || !graph.is_candidate(producer) {
            continue;
        }
        let quantize = match made.get(&producer) {
            Some(own) => *own,
            None => {
                let own = quantize_node(graph, producer, layers.contains_key(&producer))?;
                layers.insert(own, LayerQuant { output: Some(input.clone()), ..LayerQuant::bare() });
                made.insert(producer, own);
                own
            }
        };
        graph.node_mut(reader).inputs = vec![quantize];
    }
    Ok(())
}

/// Whether a layer's entry has something for its result, even if that is left to the layer behind.
fn quantizes_its_result(layer: &LayerQuant) -> bool {
    match &layer.wrapping {
        Wrapping::Bare => false,
        Wrapping::Entry(items) => items.iter().any(|item| matches!(item.role, Role::PostActivation | Role::Output)),
    }
}

/// A Quantize node that reads `producer`, which is called otherwise in the quantized model if it is wrapped.
fn quantize_node(graph: &mut Graph, producer: NodeId, wrapped: bool) -> Result<NodeId, Error> {
    let node = graph.node(producer);
    let name = if wrapped { format!("quant_quant_{}", node.name) } else { format!("quant_{}", node.name) };
    let origin = node.origin.clone();
    graph.add(name, Op::Quantize(Quantize), vec![producer], origin)
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
