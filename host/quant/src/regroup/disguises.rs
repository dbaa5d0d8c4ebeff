//! Layers of a DPU that files write as several operations.

use super::Apart;
use super::chains::{scaled, with_number};
use shiftwise_core::model::Combine;
use shiftwise_graph::attributes::Attributes;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{Activate, ActivationFn, HardSigmoid, Op, Relu};
use std::collections::BTreeSet;

use super::names::{layer, quantizer};

/// Makes one layer of each.
pub(super) fn undo(apart: &mut Apart) {
    for id in apart.graph.ids() {
        if let Some(x) = hard_sigmoid(&apart.graph, id) {
            let node = apart.graph.node_mut(id);
            (node.op, node.inputs, node.extras) = (Op::HardSigmoid(HardSigmoid), vec![x], Attributes::default());
        }
    }
    let quantized: Vec<NodeId> = apart.results.keys().copied().collect();
    for id in quantized {
        average(&mut apart.graph, id);
    }
}

/// The operand of relu6(x + 3) · 2731 / 2^14.
fn hard_sigmoid(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let (clipped, factor) = scaled(graph, id)?;
    let (Op::Relu(relu), [sum]) = (&graph.node(clipped).op, &graph.node(clipped).inputs[..]) else { return None };
    let six = relu.max_value == Some(6.0) && relu.negative_slope == 0.0 && relu.threshold == 0.0;
    let (combine, x, three) = with_number(graph, *sum)?;
    (six && factor == 2731.0 / 16384.0 && combine == Combine::Add && three == 3.0).then_some(x)
}

/// The function of an activation that a layer may have as an attribute.
fn attribute(op: &Op) -> Option<ActivationFn> {
    match op {
        Op::Relu(Relu { max_value: None, negative_slope: 0.0, threshold: 0.0 }) => Some(ActivationFn::Relu),
        Op::Relu(Relu { max_value: Some(6.0), negative_slope: 0.0, threshold: 0.0 }) => Some(ActivationFn::Relu6),
        Op::Softmax(own) if own.axis == -1 => Some(ActivationFn::Softmax),
        Op::Activation(own) => Some(own.function),
        _ => None,
    }
}

/// Makes an activation of every softmax that has its quantizer in its own scope: the vendor quantizes what goes into an
/// activation's exponentials, and never what goes into a layer Softmax.
fn softmaxes(graph: &mut Graph, model: &str) {
    for id in graph.ids() {
        let node = graph.node(id);
        let (Op::Softmax(own), [x]) = (&node.op, &node.inputs[..]) else { continue };
        let before = graph.node(*x);
        let scope = quantizer(&before.name).filter(|_| matches!(before.op, Op::Quantize(_))).map(|(_, layer)| layer);
        if own.axis == -1 && scope.is_some() && scope == layer(&node.name, model) {
            graph.node_mut(id).op = Op::Activation(Activate { function: ActivationFn::Softmax });
        }
    }
}

/// Makes an attribute of every activation that stands in the scope of the weighted layer before it. Returns the quantizers
/// between the two, behind which the function comes.
pub(super) fn attributes(apart: &mut Apart, model: &str) -> BTreeSet<NodeId> {
    let (graph, mut between) = (&mut apart.graph, BTreeSet::new());
    softmaxes(graph, model);
    let uses = graph.uses();
    for id in graph.ids() {
        let (Some(function), [x]) = (attribute(&graph.node(id).op), &graph.node(id).inputs[..]) else { continue };
        let x = *x;
        let quantize = matches!(graph.node(x).op, Op::Quantize(_)).then_some(x);
        let Some(owner) = quantize.map_or(Some(x), |q| graph.node(q).inputs.first().copied()) else { continue };
        let own = layer(&graph.node(id).name, model);
        let fits =
            own.is_some() && own == layer(&graph.node(owner).name, model) && uses[owner.0] == 1 && uses[x.0] == 1;
        if !fits || quantize.is_some() != function.quantized_before() {
            continue;
        }
        let Some(w) = graph.node_mut(owner).op.weighted_mut() else { continue };
        if w.activation == ActivationFn::Linear {
            w.activation = function;
            between.extend(quantize);
            graph.remove(id);
        }
    }
    between
}

/// Lets the average before a Quantize node be the DPU's: with the factor that stands behind it, or where that is 1.
fn average(graph: &mut Graph, id: NodeId) {
    let [mut behind] = graph.node(id).inputs[..] else { return };
    let factor = scaled(graph, behind);
    let pool = factor.map_or(behind, |(pool, _)| pool);
    let (input, shape) = match graph.node(pool).inputs[..] {
        [input] => (graph.node(input).shape.clone(), graph.node(pool).shape.clone()),
        _ => return,
    };
    let mut op = graph.node(pool).op.clone();
    let own = match &mut op {
        Op::AveragePooling2D(own) => {
            own.dpu = true;
            own.dpu_factor(&shape)
        }
        Op::GlobalAveragePooling2D(own) => {
            own.dpu = true;
            own.dpu_factor(&input)
        }
        _ => return,
    };
    if own != factor.map_or(1.0, |(_, factor)| factor) || graph.uses().get(pool.0) != Some(&1) {
        return;
    }
    graph.node_mut(pool).op = op;
    if factor.is_some() {
        std::mem::swap(&mut behind, &mut graph.node_mut(id).inputs[0]);
        graph.node_mut(id).inputs = vec![pool];
    }
}
