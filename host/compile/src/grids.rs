//! Networks whose tensors are on grids that no processor here has integers for: which layers, why, and what helps.

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind};
use shiftwise_integer::lower::why_float;
use shiftwise_integer::reasons::FloatWhy;

/// Refuses a network with a tensor on such a grid. The sentence names every layer that has one, or weights on one, with
/// the reason.
///
/// Errors: [`Error::Compile`].
pub(crate) fn check(graph: &IntGraph) -> Result<(), Error> {
    if !graph.ops.iter().any(|op| matches!(op.kind, IntOpKind::FakeQuantize(_))) {
        return Ok(());
    }
    let mut found: Vec<(FloatWhy, Vec<&str>)> = Vec::new();
    for (op, why) in graph.ops.iter().filter_map(|op| Some((op, foreign(op)?))) {
        match found.iter_mut().find(|(known, _)| *known == why) {
            Some((_, layers)) if layers.contains(&op.layer.as_str()) => {}
            Some((_, layers)) => layers.push(&op.layer),
            None => found.push((why, vec![&op.layer])),
        }
    }
    let sentence = |(why, layers): &(FloatWhy, Vec<&str>)| {
        let several = if layers.len() == 1 { "layer" } else { "each of the layers" };
        let remedy = why.remedy().map_or(String::new(), |remedy| format!(" ({remedy})"));
        format!("{several} {} {why}{remedy}", layers.join(", "))
    };
    let sentences: Vec<String> = found.iter().map(sentence).collect();
    Err(Error::Compile(sentences.join("; ")))
}

/// Why an op's result or weights are on such a grid.
fn foreign(op: &IntOp) -> Option<FloatWhy> {
    if let IntOpKind::FakeQuantize(q) = &op.kind {
        return why_float(q);
    }
    let IntOpKind::Float { why, .. } = &op.kind else { return None };
    let weights = matches!(why, FloatWhy::WeightScheme { .. } | FloatWhy::WeightRange { .. });
    weights.then(|| why.clone())
}
