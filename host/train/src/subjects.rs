//! What all algorithms of finetuning work on: layers with kernels, samples, weights in floats.

use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_quant::finetune::Job;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

/// Layers whose weights are finetuned, in the network's order: those that are wrapped and have a kernel.
pub(crate) fn targets(q: &QuantGraph) -> Vec<NodeId> {
    let is_target = |id: &NodeId| {
        let node = q.graph.node(*id);
        q.layers.contains_key(id) && node.op.weighted().is_some() && node.shared.is_none()
    };
    q.graph.ids().filter(is_target).collect()
}

/// The calibration samples of a job, in batches that are cut anew.
pub(crate) fn samples_of(job: &Job<'_>) -> usize {
    let most = job.batches.most.map_or(usize::MAX, |steps| steps.saturating_mul(job.batches.size.max(1)));
    job.samples.len().min(most)
}

/// The weights of all layers of a graph, unquantized.
pub(crate) fn float_weights(graph: &Graph) -> Vec<Vec<Tensor>> {
    graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect()
}
