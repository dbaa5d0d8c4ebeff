//! Networks whose tensors are on grids that no processor here has integers for: which layers, why, and what helps.

use shiftwise_core::scale::Scale;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, Kind, TensorIx};
use shiftwise_integer::lower::why_float;
use shiftwise_integer::reasons::{FLOAT_SCALE, FloatWhy};
use shiftwise_integer::scaled::ScaledOp;

/// Refuses a network with a tensor on a grid that a DPU has no integers for, although a CPU may.
///
/// Errors: [`Error::Compile`], as of [`check`].
pub(crate) fn check_dpu(graph: &IntGraph) -> Result<(), Error> {
    check(graph)?;
    let scaled = |op: &IntOp| matches!(op.kind, IntOpKind::Scaled(_));
    if graph.tensors.iter().any(|t| matches!(t.kind, Kind::Scaled(_))) || graph.ops.iter().any(scaled) {
        // The user's own layers, if any is to blame: not what quantizes between them, nor views.
        let own = |op: &IntOp| !matches!(op.kind, IntOpKind::Quantize | IntOpKind::View);
        let any = graph.ops.iter().any(|op| own(op) && (foreign(op).is_some() || off_dpu(graph, op).is_some()));
        let why = |op: &IntOp| foreign(op).or_else(|| off_dpu(graph, op).filter(|_| !any || own(op)));
        return refuse(graph, why);
    }
    Ok(())
}

/// Why no DPU has what an op makes, of an op that a CPU can do.
fn off_dpu(graph: &IntGraph, op: &IntOp) -> Option<FloatWhy> {
    let of = |t: &TensorIx| graph.tensors.get(t.0).map(|t| t.kind);
    match (of(&op.output), &op.kind) {
        (Some(Kind::Scaled(scale)), _) => Some(off_grid(&scale)),
        (_, IntOpKind::Scaled(own)) => {
            let operand = op.inputs.iter().filter_map(of).find_map(|kind| match kind {
                Kind::Scaled(scale) => Some(off_grid(&scale)),
                Kind::Fixed(_) | Kind::Float => None,
            });
            operand.or_else(|| match &**own {
                ScaledOp::Conv(c) => {
                    let seen = if c.is_wide() { "more than 8 bits" } else { FLOAT_SCALE };
                    Some(FloatWhy::WeightScheme { name: "kernel".into(), seen })
                }
                ScaledOp::Pool { .. } | ScaledOp::Sum { .. } | ScaledOp::Product { .. } | ScaledOp::Concat { .. } => {
                    None
                }
            })
        }
        _ => None,
    }
}

/// What a DPU lacks of a grid.
fn off_grid(scale: &Scale) -> FloatWhy {
    if scale.step().to_bits().trailing_zeros() < 23 {
        return FloatWhy::Scheme { seen: FLOAT_SCALE };
    }
    // Integers without a sign are held moved down, so that zero is the least.
    let unsigned = scale.zero == scale.low;
    if scale.zero != 0 && !unsigned {
        return FloatWhy::Scheme { seen: "a zero point" };
    }
    let (bits, narrow) = (8 * scale.bytes() as u8, scale.low == -scale.high);
    // A float scale may happen to be a power of two; it is stored as one that need not be.
    if (unsigned, bits, narrow) == (false, 8, false) {
        return FloatWhy::Scheme { seen: FLOAT_SCALE };
    }
    FloatWhy::Format { unsigned, bits, round: 1, narrow }
}

/// Refuses a network with a tensor on a grid that has no kernel anywhere. The sentence names every layer that has one, or
/// weights on one, with the reason.
///
/// Errors: [`Error::Compile`].
pub(crate) fn check(graph: &IntGraph) -> Result<(), Error> {
    if !graph.ops.iter().any(|op| matches!(op.kind, IntOpKind::FakeQuantize(_))) {
        return Ok(());
    }
    refuse(graph, foreign)
}

/// The refusal, with the layers grouped by their reasons.
fn refuse(graph: &IntGraph, why: impl Fn(&IntOp) -> Option<FloatWhy>) -> Result<(), Error> {
    let mut found: Vec<(FloatWhy, Vec<&str>)> = Vec::new();
    for (op, why) in graph.ops.iter().filter_map(|op| Some((op, why(op)?))) {
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
