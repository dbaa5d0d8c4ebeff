//! Concatenation by address: who writes an operand writes its part of the result as well, or only that.
//!
//! A part has the pixel stride of the whole. Where every tensor of a job has to be seen, an operand also has a place of
//! its own; otherwise, if nobody but DPU layers reads it, its part of the result is its only place.

use crate::dpu::axes::{image_axis, needs_dense};
use shiftwise_integer::graph::{IntGraph, IntOpKind, TensorIx, image};

/// Most places that one tensor is written to.
const MAX_PLACES: usize = 64;

/// A part of a larger tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    /// The larger tensor.
    pub of: TensorIx,
    /// First row, column and channel of the part.
    pub at: [u32; 3],
}

/// Which tensors are parts of others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joins {
    /// Per tensor.
    slices: Vec<Vec<Slice>>,
    /// Per tensor: it has no place but its (only) slice.
    inside: Vec<bool>,
    /// Result and operand number of what is written by who makes the operand.
    joined: Vec<(TensorIx, usize)>,
}

impl Joins {
    /// The slice that a tensor lies in instead of a place of its own.
    pub(crate) fn home(&self, t: TensorIx) -> Option<Slice> {
        self.inside.get(t.0).filter(|inside| **inside)?;
        self.slices(t).first().copied()
    }

    /// Parts of larger tensors that a tensor is written to.
    pub(crate) fn slices(&self, t: TensorIx) -> &[Slice] {
        self.slices.get(t.0).map_or(&[], Vec::as_slice)
    }

    /// Whether who makes this operand of a concatenation puts it into the result.
    pub(crate) fn is_joined(&self, output: TensorIx, operand: usize) -> bool {
        self.joined.contains(&(output, operand))
    }

    /// Finds what can be joined. `on_dpu` says which ops the DPU does; with `observe`, every tensor keeps a place.
    pub(crate) fn of(graph: &IntGraph, on_dpu: impl Fn(usize) -> bool, observe: bool) -> Self {
        let n = graph.tensors.len();
        let mut joins = Self { slices: vec![Vec::new(); n], inside: vec![false; n], joined: Vec::new() };
        let mut maker = vec![None; n];
        for (i, op) in graph.ops.iter().enumerate() {
            maker[op.output.0] = Some(i);
        }
        // Places that a tensor is written to. What joins a whole is written to all of the whole's places.
        let mut places = vec![1; n];
        for (i, op) in graph.ops.iter().enumerate().rev() {
            let IntOpKind::Concat { axis, shifts } = &op.kind else { continue };
            let rank = graph.tensors[op.output.0].shape.len();
            let (Ok(axis), true) = (image_axis(rank, *axis), on_dpu(i)) else { continue };
            let mut at = [0; 3];
            for (k, (t, shift)) in op.inputs.iter().zip(shifts).enumerate() {
                let written = maker[t.0].is_some_and(|m| on_dpu(m) && !needs_dense(graph, &graph.ops[m], *t));
                let count = places[t.0] + places[op.output.0];
                if *shift == 0 && written && count <= MAX_PLACES {
                    places[t.0] = count;
                    joins.slices[t.0].push(Slice { of: op.output, at });
                    joins.joined.push((op.output, k));
                }
                at[axis] += image(&graph.tensors[t.0].shape)[axis] as u32;
            }
        }
        if !observe {
            for t in (0..n).map(TensorIx) {
                joins.inside[t.0] = joins.slices[t.0].len() == 1 && only_for_dpu(graph, t, &on_dpu);
            }
        }
        joins
    }
}

/// Whether a tensor is read by layers of the DPU only, and by each as the map of its shape.
fn only_for_dpu(graph: &IntGraph, t: TensorIx, on_dpu: &impl Fn(usize) -> bool) -> bool {
    let IntGraph { ops, inputs, outputs, .. } = graph;
    let mut readers = ops.iter().enumerate().filter(|(_, op)| op.inputs.contains(&t));
    !inputs.contains(&t) && !outputs.contains(&t) && readers.all(|(i, op)| on_dpu(i) && !needs_dense(graph, op, t))
}
