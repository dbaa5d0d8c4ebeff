//! Which layers get which quantizers.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::layer_quant::{ActivationPlace, LayerQuant};
use crate::metadata::Metadata;
use crate::owners::is_activation;
use crate::quant_graph::QuantGraph;
use crate::scheme::Quantizer;
use crate::strategy::Strategy;
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
pub fn annotate(mut graph: Graph, strategy: &Strategy) -> Result<QuantGraph, Error> {
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
            let quant = LayerQuant::from_entry(op, &entry, activation);
            let own = |e: Error| Error::Options(format!("layer `{}`: {e}", graph.node(id).name));
            layers.insert(id, quant.map_err(own)?);
        }
    }
    let uses = graph.uses();
    // A shared layer matches no pattern, this one neither.
    let is_float = |id: NodeId| {
        let node = graph.node(id);
        !layers.contains_key(&id) && node.shared.is_none() && !matches!(node.op, Op::Input(_) | Op::Quantize(_))
    };
    // Behind the model's inputs, or where the user's part of the model begins: behind a layer that stays float itself,
    // and before one that is quantized.
    let chosen: Vec<NodeId> = strategy.layer_list("input_layers").iter().filter_map(|n| graph.find(n)).collect();
    let start = |id: NodeId| if layers.contains_key(&id) { graph.node(id).inputs.clone() } else { vec![id] };
    let mut points: Vec<NodeId> = match chosen.is_empty() {
        true => graph.inputs.iter().copied().filter(|id| graph.is_candidate(*id)).collect(),
        false => chosen.into_iter().flat_map(start).filter(|id| !layers.contains_key(id)).collect(),
    };
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
    let mut inserted = BTreeSet::new();
    for (producer, own) in functions.chain(points) {
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
    Ok(QuantGraph { graph, layers, metadata: Metadata::default() })
}
