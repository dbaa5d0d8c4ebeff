//! Networks before calibration or training: partitioned, optimized, with quantizers that have learned nothing.

use std::collections::BTreeMap;

use crate::conv_norm::{ConvNorm, take_norms};
use crate::layer_quant::{ActivationPlace, LayerQuant};
use crate::passes;
use crate::passes::dtype::set_dtype;
use crate::passes::fold_bn::fold;
use crate::passes::{annotate, layer_config};
use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

/// What looks at the graph after each pass, which is named by its key in the strategy.
pub(crate) type Watch<'w> = &'w mut dyn FnMut(&'static str, &Graph);

/// What data teaches of the float graph, once it is optimized.
pub(crate) type Learn<'a> = dyn FnMut(&mut Graph) -> Result<(), Error> + 'a;

/// A network before calibration or training.
pub(crate) struct Staged {
    pub(crate) quantized: QuantGraph,
    /// Normalizations that stay apart from their convolutions, by the names of these.
    pub(crate) norms: BTreeMap<String, ConvNorm>,
    pub(crate) warnings: Vec<String>,
}

/// Everything before calibration, perhaps with normalizations that stay apart.
pub(crate) fn staged(
    mut graph: Graph,
    strategy: &Strategy,
    with_norms: bool,
    watch: Watch<'_>,
    learn: &mut Learn<'_>,
) -> Result<Staged, Error> {
    // What is quantized is so from f32, whatever its file says.
    let other = graph.nodes.iter_mut().filter(|node| node.dtype != Dtype::default());
    other.for_each(|node| set_dtype(node, Dtype::default()));
    let mut warnings = passes::partition(&mut graph, strategy);
    let original = layer_config::original_layers(&graph, strategy)?;
    passes::run_watched(passes::OPTIMIZE, &mut graph, strategy, watch)?;
    learn(&mut graph)?;
    warnings.extend(layer_config::keep_float(&mut graph, strategy, original.as_ref())?);
    let norms = if with_norms { take_norms(&mut graph, strategy) } else { BTreeMap::new() };
    passes::run_watched(passes::DPU_VERSION, &mut graph, strategy, watch)?;
    Ok(Staged { quantized: annotate::annotate(graph, strategy)?, norms, warnings })
}

/// [`staged`] with normalizations that stay apart from their convolutions.
///
/// Where a strategy has no entry for such layers, the convolution's own quantizers are those of both.
pub(crate) fn with_norms(
    graph: Graph,
    strategy: &Strategy,
    watch: Watch<'_>,
    learn: &mut Learn<'_>,
) -> Result<Staged, Error> {
    let mut own = strategy.clone();
    for key in ["fold_conv_bn", "convert_bn_to_dwconv"] {
        own.set(key, false.into())?;
    }
    let mut made = staged(graph, &own, true, watch, learn)?;
    for name in made.norms.keys() {
        entry_of_both(&mut made.quantized, name, strategy)?;
    }
    Ok(made)
}

/// The network that a convolution and its normalization are at inference: the one with the other in its kernel and bias.
pub(crate) fn fold_norm(q: &mut QuantGraph, id: NodeId, own: &ConvNorm) {
    if let Some(w) = q.graph.node_mut(id).op.weighted_mut() {
        fold(w, &own.norm, false);
    }
}

/// Gives a convolution that is one layer with its normalization the weights' quantizers of the entry for both.
fn entry_of_both(q: &mut QuantGraph, name: &str, strategy: &Strategy) -> Result<(), Error> {
    let Some(id) = q.graph.find(name) else { return Ok(()) };
    let op = &q.graph.node(id).op;
    let class = if matches!(op, Op::DepthwiseConv2D(_)) { "VitisDepthwiseConvBN" } else { "VitisConvBN" };
    if let (Some(layer), Some(entry)) = (q.layers.get_mut(&id), strategy.layer_entry(class, false)) {
        layer.weights = LayerQuant::from_entry(op, &entry, ActivationPlace::Here)?.weights;
    }
    Ok(())
}
