//! Zero padding read through: a convolution or average behind a padding layer pads by itself.

use shiftwise_core::shape::Window;

use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, TensorIx, image};

/// The graph with paddings folded into the layers that read them, where `possible` says that the DPU can do the folded
/// layer; `None` if there is nothing to fold. The padding itself stays if somebody still reads it, or to be `seen`.
pub(crate) fn padding(graph: &IntGraph, possible: impl Fn(&IntOp) -> bool, seen: bool) -> Option<IntGraph> {
    let folded: Vec<Option<IntOp>> =
        graph.ops.iter().map(|op| fold(graph, op).filter(|folded| possible(folded))).collect();
    if folded.iter().all(Option::is_none) {
        return None;
    }
    let mut new = graph.clone();
    for (op, folded) in new.ops.iter_mut().zip(folded) {
        if let Some(folded) = folded {
            *op = folded;
        }
    }
    if !seen {
        drop_unread(&mut new);
    }
    Some(new)
}

fn fold(graph: &IntGraph, op: &IntOp) -> Option<IntOp> {
    let &[input] = op.inputs.as_slice() else { return None };
    let pad = graph.ops.iter().find(|p| p.output == input)?;
    let (IntOpKind::Pad { before, after }, &[from]) = (&pad.kind, pad.inputs.as_slice()) else { return None };
    let tensor = |t: TensorIx| &graph.tensors[t.0];
    let widen = |w: &Window| -> Option<Window> {
        let mut w = *w;
        for axis in [0, 1] {
            w.pad_before[axis] = w.pad_before[axis].checked_add(u16::try_from(before[axis]).ok()?)?;
            w.pad_after[axis] = w.pad_after[axis].checked_add(u16::try_from(after[axis]).ok()?)?;
        }
        Some(w)
    };
    let read = image(&tensor(input).shape);
    let mut kind = op.kind.clone();
    match &mut kind {
        // A dense layer over the flattened map reads a view, never the padding's own tensor.
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) if c.input == read => {
            c.window = widen(&c.window)?;
            c.input = image(&tensor(from).shape);
        }
        IntOpKind::AveragePool { window, .. } => *window = widen(window)?,
        _ => return None,
    }
    (tensor(from).kind == tensor(input).kind).then(|| IntOp { kind, inputs: vec![from], ..op.clone() })
}

/// Takes away paddings that nobody reads, with their tensors.
fn drop_unread(graph: &mut IntGraph) {
    let unread = |graph: &IntGraph, op: &IntOp| {
        matches!(op.kind, IntOpKind::Pad { .. })
            && !graph.outputs.contains(&op.output)
            && !graph.ops.iter().any(|o| o.inputs.contains(&op.output))
    };
    let gone: Vec<TensorIx> = graph.ops.iter().filter(|op| unread(graph, op)).map(|op| op.output).collect();
    graph.ops.retain(|op| !gone.contains(&op.output));
    let mut index = 0;
    graph.tensors.retain(|_| {
        index += 1;
        !gone.contains(&TensorIx(index - 1))
    });
    let renumber = |t: &mut TensorIx| t.0 -= gone.iter().filter(|g| **g < *t).count();
    let used = graph.ops.iter_mut().flat_map(|op| op.inputs.iter_mut().chain([&mut op.output]));
    used.chain(&mut graph.inputs).chain(&mut graph.outputs).for_each(renumber);
}
