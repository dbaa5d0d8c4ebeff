//! Layers replaced by the form that a DPU computes.

use crate::error::Error;
use crate::ir::Graph;
use crate::ops::Op;
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
