//! Passes that only tidy: dropout away, activations as layers of their own.

use serde_json::Map;

use crate::error::Error;
use crate::ir::{Graph, Node};
use crate::ops::{Activate, ActivationFn, Op, Relu};
use crate::strategy::Strategy;

/// Deletes dropout layers, unless something else reads their input too (the vendor keeps those; they are identities).
pub(super) fn remove_dropout(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in graph.ids() {
        if let Op::Dropout(_) = graph.node(id).op
            && let [input] = graph.node(id).inputs[..]
            && graph.uses()[input.0] == 1
        {
            graph.remove(id);
        }
    }
    Ok(())
}

/// Gives the activation of a convolution or dense layer a layer of its own, called `<layer>_<activation>`.
pub(super) fn separate_conv_act(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in graph.ids() {
        let Some(w) = graph.node_mut(id).op.weighted_mut() else { continue };
        let function = std::mem::replace(&mut w.activation, ActivationFn::Linear);
        if function == ActivationFn::Linear {
            continue;
        }
        let Node { name, origin, shape, .. } = graph.node(id);
        let node = Node {
            name: format!("{name}_{}", function.name()),
            op: Op::Activation(Activate { function }),
            inputs: Vec::new(),
            shape: shape.clone(),
            origin: origin.clone(),
            extras: Map::new(),
            shared: None,
        };
        graph.nodes.push(node);
        let act = crate::ir::NodeId(graph.nodes.len() - 1);
        graph.redirect(id, act);
        graph.node_mut(act).inputs = vec![id];
    }
    Ok(())
}

/// Takes the upper bound from ReLU6.
pub(super) fn convert_relu6_to_relu(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in &mut graph.nodes {
        match &mut node.op {
            Op::Relu(Relu { max_value, .. }) if *max_value == Some(6.0) => *max_value = None,
            Op::Activation(a) if a.function == ActivationFn::Relu6 => a.function = ActivationFn::Relu,
            _ => {}
        }
    }
    Ok(())
}
