//! Normalizations that are trained as one layer with the convolution before them.

use std::collections::BTreeMap;

use crate::passes::fold_bn::trained_with;
use crate::strategy::Strategy;
use shiftwise_graph::attributes::Attributes;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::{BatchNormalization, Op};
use shiftwise_tensor::tensor::Tensor;

/// A normalization that is one layer with the convolution before it.
#[derive(Clone, Debug)]
pub struct ConvNorm {
    /// The normalization's name.
    pub name: String,
    /// Its weights and settings.
    pub norm: BatchNormalization,
    /// What its file says of it beyond them.
    pub extras: Attributes,
    /// Whether the convolution's bias is its own; otherwise it is zeros, and not trained.
    pub biased: bool,
    /// After how many steps the statistics stay as they are.
    pub freeze_delay: Option<i32>,
    /// Training steps that were made.
    pub step: i32,
}

impl ConvNorm {
    /// Whether the statistics stay as they are, in the step that is being made.
    pub fn is_frozen(&self) -> bool {
        self.freeze_delay.is_some_and(|delay| self.step >= delay)
    }
}

/// Takes normalizations that are trained with their convolution out of the graph, by the convolution's name.
pub(crate) fn take_norms(graph: &mut Graph, strategy: &Strategy) -> BTreeMap<String, ConvNorm> {
    // The vendor keeps a number below 0 as none.
    let delay = strategy.number("freeze_bn_delay").filter(|delay| *delay >= 0.0).map(|delay| delay as i32);
    let mut norms = BTreeMap::new();
    for id in graph.ids() {
        let Some(conv) = trained_with(graph, id) else { continue };
        let node = graph.node(id).clone();
        let Op::BatchNormalization(norm) = node.op else { continue };
        let Some(w) = graph.node_mut(conv).op.weighted_mut() else { continue };
        let biased = w.bias.is_some();
        w.bias.get_or_insert_with(|| Tensor::zeros(&[norm.mean.data().len()]));
        let own = ConvNorm { name: node.name, norm, extras: node.extras, biased, freeze_delay: delay, step: 0 };
        norms.insert(graph.node(conv).name.clone(), own);
        graph.remove(id);
    }
    graph.normalize();
    norms
}
