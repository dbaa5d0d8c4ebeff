//! Passes that only tidy: dropout away, activations as layers of their own.

use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node};
use shiftwise_graph::ops::{Activate, ActivationFn, Conv2D, DepthwiseConv2D, Op, Padding, Relu, Weighted};

/// Deletes Dropout layers, unless something else reads their input too (the vendor keeps those; they are identities).
pub(super) fn remove_dropout(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in graph.ids() {
        if let Op::Dropout(d) = &graph.node(id).op
            && d.is_plain()
            && graph.is_candidate(id)
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
    for id in graph.ids().filter(|id| graph.is_candidate(*id)).collect::<Vec<_>>() {
        let Some(w) = graph.node_mut(id).op.weighted_mut() else { continue };
        let function = std::mem::replace(&mut w.activation, ActivationFn::Linear);
        if function == ActivationFn::Linear {
            continue;
        }
        let Node { name, origin, .. } = graph.node(id);
        let (name, origin) = (format!("{name}_{}", function.name()), origin.clone());
        graph.insert_after(id, name, Op::Activation(Activate { function }), origin)?;
    }
    Ok(())
}

/// Takes the upper bound from ReLU6.
pub(super) fn convert_relu6_to_relu(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in graph.nodes.iter_mut().filter(|n| !n.excluded) {
        match &mut node.op {
            Op::Relu(Relu { max_value, .. }) if *max_value == Some(6.0) => *max_value = None,
            Op::Activation(a) if a.function == ActivationFn::Relu6 => a.function = ActivationFn::Relu,
            _ => {}
        }
    }
    Ok(())
}

/// Cuts a separable convolution into its depthwise part, `<layer>_depthwise_conv`, and its 1×1 part,
/// `<layer>_pointwise_conv`, which takes bias and activation. (The vendor's tool loses the activation.)
pub(super) fn separable_conv(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in graph.ids() {
        let Op::SeparableConv2D(s) = graph.node(id).op.clone() else { continue };
        if !graph.is_candidate(id) {
            continue;
        }
        let Node { name, origin, inputs, .. } = graph.node(id).clone();
        let depthwise = DepthwiseConv2D {
            w: Weighted { kernel: s.depthwise, bias: None, activation: ActivationFn::Linear },
            strides: s.strides,
            dilation: s.dilation,
            padding: s.padding,
        };
        let pointwise = Conv2D { w: s.w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
        let first = Op::DepthwiseConv2D(depthwise);
        let first = graph.add(format!("{name}_depthwise_conv"), first, inputs, origin.clone())?;
        let last = graph.add(format!("{name}_pointwise_conv"), Op::Conv2D(pointwise), vec![first], origin)?;
        graph.redirect(id, last);
    }
    Ok(())
}
