//! Layers replaced by the form that a DPU computes.

use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{Activate, ActivationFn, DpuLayerNorm, DpuSoftmax, HardSigmoid, LeakyRelu, Multiply, Op};

/// Sigmoid becomes the hard sigmoid, and swish the product of its input with that; so do Keras 3's hard forms of them.
///
/// As a layer, sigmoid keeps its name, and so does the sigmoid in a swish, whose product is `<layer>_mul`. Inside a
/// convolution or dense layer, sigmoid becomes `<layer>_sigmoid`, and swish that and `<layer>_mul`.
pub(super) fn convert_sigmoid_to_hard_sigmoid(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in candidates(graph) {
        let function = graph.node(id).op.layer().activation();
        let swish = match function {
            ActivationFn::Sigmoid | ActivationFn::HardSigmoid6 => false,
            ActivationFn::Swish | ActivationFn::HardSwish => true,
            _ => continue,
        };
        let (name, origin) = (graph.node(id).name.clone(), graph.node(id).origin.clone());
        // A layer of its own that is replaced reads its producer; one inside a convolution follows it.
        let (sigmoid, input) = if let Op::Activation(_) = graph.node(id).op {
            let node = graph.node_mut(id);
            node.op = Op::HardSigmoid(HardSigmoid);
            node.extras.clear();
            (id, node.inputs.clone())
        } else {
            let Some(w) = graph.node_mut(id).op.weighted_mut() else { continue };
            w.activation = ActivationFn::Linear;
            let sigmoid = format!("{name}_sigmoid");
            (graph.insert_after(id, sigmoid, Op::HardSigmoid(HardSigmoid), origin.clone())?, vec![id])
        };
        if swish {
            let product =
                graph.add(format!("{name}_mul"), Op::Multiply(Multiply), [input, vec![sigmoid]].concat(), origin)?;
            graph.redirect(sigmoid, product);
            // The product itself reads the sigmoid, which `redirect` leaves alone.
        }
    }
    Ok(())
}

fn candidates(graph: &Graph) -> Vec<NodeId> {
    graph.ids().filter(|id| graph.is_candidate(*id)).collect()
}

/// Softmax layers become the DPU's, in bfloat16.
pub(super) fn convert_softmax_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in candidates(graph) {
        let node = graph.node_mut(id);
        let axis = match &node.op {
            Op::Softmax(s) => s.axis,
            Op::Activation(Activate { function: ActivationFn::Softmax }) => -1,
            _ => continue,
        };
        replace(graph, id, Op::DpuSoftmax(DpuSoftmax { axis }))?;
    }
    Ok(())
}

/// Layer normalizations become the DPU's, in bfloat16.
pub(super) fn convert_layernorm_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in candidates(graph) {
        if let Op::LayerNormalization(norm) = graph.node(id).op.clone()
            && !norm.rms_scaling
        {
            replace(graph, id, Op::DpuLayerNorm(DpuLayerNorm { norm }))?;
        }
    }
    Ok(())
}

/// Gives a node another op; an error if its shape doesn't suit that.
fn replace(graph: &mut Graph, id: NodeId, op: Op) -> Result<(), Error> {
    let node = graph.node(id);
    let shapes: Vec<&[usize]> = node.inputs.iter().map(|i| graph.node(*i).shape.as_slice()).collect();
    op.layer().output_shape(&shapes).map_err(|message| Error::layer(&node.name, op.class(), message))?;
    graph.node_mut(id).op = op;
    Ok(())
}

/// Average pooling multiplies by m / 2^n instead of dividing by the window's size.
pub(super) fn convert_average_pooling2d_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in graph.nodes.iter_mut().filter(|n| !n.excluded) {
        match &mut node.op {
            Op::AveragePooling2D(p) => p.dpu = true,
            Op::GlobalAveragePooling2D(p) => p.dpu = true,
            _ => {}
        }
    }
    Ok(())
}

/// A slope of 0.1 becomes the DPU's 26/256; others stay what they are.
pub(super) fn convert_leaky_relu_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in graph.nodes.iter_mut().filter(|n| !n.excluded) {
        if let Op::LeakyRelu(l) = &mut node.op
            && (l.alpha - 0.1).abs() < 1e-7
        {
            l.alpha = LeakyRelu::DPU_ALPHA;
        }
    }
    Ok(())
}
