//! Layers replaced by the form that a DPU computes.

use crate::error::Error;
use crate::ir::Graph;
use crate::ops::{ActivationFn, Op};
use crate::strategy::Strategy;

/// Average pooling multiplies by m / 2^n instead of dividing by the window's size.
pub(super) fn convert_average_pooling2d_to_dpu_version(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in &mut graph.nodes {
        match &mut node.op {
            Op::AveragePooling2D(p) => p.dpu = true,
            Op::GlobalAveragePooling2D(p) => p.dpu = true,
            _ => {}
        }
    }
    Ok(())
}

/// The DPU's hard sigmoid is not in this version, so a model that needs it is refused rather than quantized otherwise.
pub(super) fn convert_sigmoid_to_hard_sigmoid(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    let needs = |op: &Op| matches!(op.layer().activation(), ActivationFn::Sigmoid | ActivationFn::Swish);
    match graph.nodes.iter().find(|n| needs(&n.op)) {
        Some(node) => Err(Error::UnsupportedLayer {
            layer: node.name.clone(),
            class: format!("{} with activation {}", node.op.class(), node.op.layer().activation().name()),
        }),
        None => Ok(()),
    }
}
