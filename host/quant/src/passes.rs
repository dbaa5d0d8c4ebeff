//! Graph passes.
//!
//! [`OPTIMIZE`] and [`DPU_VERSION`] rewrite the float graph, [`annotate`] adds quantizers, [`adjust_pos`] refines
//! positions. A pass's name *is* the key of the strategy JSON that switches it.

use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;

pub mod adjust_pos;
pub mod annotate;
pub(crate) mod convert;
pub mod dead;
mod dpu_version;
pub mod dtype;
mod equalize;
pub(crate) mod fold_bn;
pub mod layer_config;
mod partition;
mod simplify;
mod tf_op;

pub use partition::partition;

/// A rewrite of the float graph.
#[derive(Debug)]
pub struct Pass {
    /// Key in the strategy.
    pub name: &'static str,
    /// Edits the graph; the caller normalizes it afterwards.
    pub apply: fn(&mut Graph, &Strategy) -> Result<(), Error>,
}

/// The optimize stage: float outputs stay what they are, up to rounding.
pub const OPTIMIZE: &[Pass] = &[
    Pass { name: "remove_dropout", apply: simplify::remove_dropout },
    // Before the activations of convolutions are separated: the two parts are convolutions.
    Pass { name: "separable_conv", apply: simplify::separable_conv },
    Pass { name: "separate_conv_act", apply: simplify::separate_conv_act },
    Pass { name: "convert_relu6_to_relu", apply: simplify::convert_relu6_to_relu },
    Pass { name: "fold_conv_bn", apply: fold_bn::fold_conv_bn },
    Pass { name: "convert_bn_to_dwconv", apply: fold_bn::convert_bn_to_dwconv },
    Pass { name: "include_cle", apply: equalize::include_cle },
];

/// Layers replaced by what a DPU computes instead.
pub const DPU_VERSION: &[Pass] = &[
    Pass { name: "convert_sigmoid_to_hard_sigmoid", apply: dpu_version::convert_sigmoid_to_hard_sigmoid },
    Pass { name: "convert_hard_sigmoid_to_dpu_version", apply: tf_op::convert_hard_sigmoid_to_dpu_version },
    Pass { name: "convert_softmax_to_dpu_version", apply: dpu_version::convert_softmax_to_dpu_version },
    Pass { name: "convert_layernorm_to_dpu_version", apply: dpu_version::convert_layernorm_to_dpu_version },
    Pass {
        name: "convert_average_pooling2d_to_dpu_version",
        apply: dpu_version::convert_average_pooling2d_to_dpu_version,
    },
    Pass { name: "convert_leaky_relu_to_dpu_version", apply: dpu_version::convert_leaky_relu_to_dpu_version },
];

/// Runs the passes of a table that the strategy enables, in order.
pub fn run(table: &[Pass], graph: &mut Graph, strategy: &Strategy) -> Result<(), Error> {
    run_watched(table, graph, strategy, &mut |_, _| ())
}

/// [`run`]; `watch` sees the graph after each pass, with the pass's name.
///
/// Errors: those of the passes.
pub fn run_watched(
    table: &[Pass],
    graph: &mut Graph,
    strategy: &Strategy,
    watch: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(), Error> {
    for pass in table.iter().filter(|p| strategy.enabled(p.name)) {
        (pass.apply)(graph, strategy)?;
        graph.normalize();
        graph.verify()?;
        watch(pass.name, graph);
    }
    Ok(())
}
