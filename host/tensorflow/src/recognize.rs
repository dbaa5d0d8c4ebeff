//! Layers as their author wrote them, from the operations that they were written out as.

use crate::names::path;
use shiftwise_core::model::Combine;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{Activate, ActivationFn, BatchNormalization, Op, Operand, Relu, TfOp};
use shiftwise_tensor::tensor::Tensor;

/// The words at whose end TensorFlow Lite's names of a fused operation tell the layer.
pub(crate) fn words(op: &Op) -> &'static [&'static str] {
    match op {
        Op::Conv2D(_) => &["Conv2D", "convolution"],
        Op::DepthwiseConv2D(_) => &["depthwise"],
        Op::Dense(_) => &["MatMul"],
        Op::Conv2DTranspose(_) => &["conv2d_transpose"],
        Op::Relu(_) => &["Relu", "Relu6"],
        _ => &[],
    }
}

/// A rewriting of one node; whether it has been done.
type Rule = fn(&mut Graph, NodeId, &[usize]) -> bool;

/// In their order: a bias belongs to the convolution before it is one half of a normalization.
const RULES: [Rule; 3] = [bias, normalization, activation];

/// Rewrites what is recognized. Every rewriting looks through the graph, which is charged.
pub(crate) fn layers(graph: &mut Graph, budget: &Budget) -> Result<(), Error> {
    for rule in RULES {
        let mut uses = graph.uses();
        for id in graph.ids().collect::<Vec<_>>() {
            let Some(input) = graph.node(id).inputs.first().copied() else { continue };
            if rule(graph, id, &uses) {
                // Whoever read the node that is gone reads what it read.
                uses[input.0] = std::mem::take(&mut uses[id.0]);
                budget.work(graph.nodes.len() as u64).map_err(|e| Error::model(e.to_string()))?;
            }
        }
    }
    Ok(())
}

/// The only tensor and the only constant of a function of two, and whether the tensor comes first.
fn with_constant(op: &TfOp) -> Option<(&Tensor, bool)> {
    match &op.operands[..] {
        [Operand::Tensor(_), Operand::Constant(c)] => Some((c, true)),
        [Operand::Constant(c), Operand::Tensor(_)] => Some((c, false)),
        _ => None,
    }
}

/// A constant that has a number for each channel, or one for all, as a vector.
fn per_channel(constant: &Tensor, channels: usize) -> Option<Tensor> {
    let (last, rest) = match constant.shape().split_last() {
        Some((last, rest)) => (*last, rest),
        None => (1, &[][..]),
    };
    let vector = rest.iter().all(|d| *d == 1) && (last == channels || last == 1);
    let repeated = |v: &[f32]| if v.len() == channels { v.to_vec() } else { vec![v[0]; channels] };
    vector.then(|| Tensor::vector(repeated(constant.data())))
}

/// The offset for each channel that a node adds to its only input, which nobody else reads.
fn offset(graph: &Graph, id: NodeId, uses: &[usize]) -> Option<(NodeId, Tensor)> {
    let node = graph.node(id);
    let (Op::TfOp(op), [input]) = (&node.op, &node.inputs[..]) else { return None };
    let (constant, first) = with_constant(op)?;
    let sign = match op.kind {
        Kind::Binary(Combine::Add) => 1.0,
        Kind::Binary(Combine::Subtract) if first => -1.0,
        _ => return None,
    };
    if uses[input.0] != 1 || graph.node(*input).shape != node.shape {
        return None;
    }
    let mut offset = per_channel(constant, *node.shape.last()?)?;
    offset.data_mut().iter_mut().for_each(|v| *v *= sign);
    Some((*input, offset))
}

/// Whether a bias is none: writers of graphs add one where an operation asks for it.
fn is_zero(bias: &Tensor) -> bool {
    bias.data().iter().all(|v| *v == 0.0)
}

/// A vector that is added to what a convolution or dense layer without a bias yields.
fn bias(graph: &mut Graph, id: NodeId, uses: &[usize]) -> bool {
    let Some((input, offset)) = offset(graph, id, uses) else { return false };
    match graph.node_mut(input).op.weighted_mut() {
        Some(w) if w.activation == ActivationFn::Linear && w.bias.as_ref().is_none_or(is_zero) => w.bias = Some(offset),
        _ => return false,
    }
    graph.remove(id);
    true
}

/// x·k + a with a number of each for each channel: a normalization whose statistics are computed away.
fn normalization(graph: &mut Graph, id: NodeId, uses: &[usize]) -> bool {
    let Some((input, beta)) = offset(graph, id, uses) else { return false };
    let node = graph.node(input);
    let (Op::TfOp(op), [_]) = (&node.op, &node.inputs[..]) else { return false };
    let (Kind::Binary(Combine::Multiply), Some((factor, _))) = (&op.kind, with_constant(op)) else { return false };
    let channels = beta.data().len();
    let Some(gamma) = per_channel(factor, channels) else { return false };
    let (mean, variance) = (Tensor::zeros(&[channels]), Tensor::vector(vec![1.0; channels]));
    let momentum = BatchNormalization::MOMENTUM;
    let norm = BatchNormalization { gamma: Some(gamma), beta: Some(beta), mean, variance, epsilon: 0.0, momentum };
    let node = graph.node_mut(input);
    node.op = Op::BatchNormalization(norm);
    node.extras.clear();
    graph.remove(id);
    true
}

/// The function of an activation that a layer may have as an attribute.
fn attribute(op: &Op) -> Option<ActivationFn> {
    match op {
        Op::Relu(Relu { max_value: None, .. }) => Some(ActivationFn::Relu),
        Op::Relu(_) => Some(ActivationFn::Relu6),
        Op::Softmax(_) => Some(ActivationFn::Softmax),
        Op::Elu(_) => Some(ActivationFn::Elu),
        Op::Activation(Activate { function }) => Some(*function),
        _ => None,
    }
}

/// The activation of a convolution or dense layer, where both have one name: its author wrote one layer.
fn activation(graph: &mut Graph, id: NodeId, uses: &[usize]) -> bool {
    let node = graph.node(id);
    let (Some(function), [input]) = (attribute(&node.op), &node.inputs[..]) else { return false };
    let input = *input;
    let producer = graph.node(input);
    let Some(w) = producer.op.weighted() else { return false };
    let own = |origin: &[String], op: &Op| {
        let name = origin.first().map_or("", String::as_str);
        path(name, words(op)).iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()
    };
    let scope = own(&node.origin, &node.op);
    let alike = !scope.is_empty() && scope == own(&producer.origin, &producer.op);
    if !alike || uses[input.0] != 1 || w.activation != ActivationFn::Linear {
        return false;
    }
    if let Some(w) = graph.node_mut(input).op.weighted_mut() {
        w.activation = function;
    }
    graph.remove(id);
    true
}
