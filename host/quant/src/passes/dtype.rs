//! Other floats instead of quantizers: the vendor's `convert_datatype`.
//!
//! A layer of another type computes in it, see [`shiftwise_graph::dtype`]; its weights are rounded where they are used or
//! written.

use std::collections::BTreeSet;

use crate::passes;
use crate::strategy::Strategy;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node};

/// Gives a layer another type.
pub(crate) fn set_dtype(node: &mut Node, dtype: Dtype) {
    node.dtype = dtype;
    node.extras.insert("dtype".into(), dtype.name().into());
}

/// Optimizes a graph but for `remove_dropout` and `include_cle`, and converts every layer of the part that the strategy
/// names. Returns warnings about names that don't exist, and about what Keras can't do with the result.
pub fn convert(graph: &mut Graph, strategy: &Strategy, dtype: Dtype) -> Result<Vec<String>, Error> {
    let outside = outside(graph, strategy);
    let mut warnings = passes::partition(graph, strategy);
    let mut strategy = strategy.clone();
    for pass in ["remove_dropout", "include_cle"] {
        strategy.set(pass, false.into())?;
    }
    passes::run(passes::OPTIMIZE, graph, &strategy)?;
    for node in &mut graph.nodes {
        // A layer that is applied several times is converted with the others, though no pass may rewrite it.
        let shared = node.shared.is_some() && !outside.contains(&node.name);
        if shared || !node.excluded {
            set_dtype(node, dtype);
        }
    }
    warnings.extend(warning(graph));
    Ok(warnings)
}

/// What to warn of where some layers are bfloat16.
pub(crate) fn warning(graph: &Graph) -> Option<String> {
    let some = graph.nodes.iter().any(|node| node.dtype == Dtype::BFloat16);
    some.then(|| "Keras' load_model() can't read layers of bfloat16 from an .h5 file; shiftwise can".into())
}

/// Names of the layers outside the part that the strategy names.
fn outside(graph: &Graph, strategy: &Strategy) -> BTreeSet<String> {
    let mut whole = graph.clone();
    whole.nodes.iter_mut().for_each(|node| node.excluded = false);
    passes::partition(&mut whole, strategy);
    whole.nodes.into_iter().filter(|node| node.excluded).map(|node| node.name).collect()
}
