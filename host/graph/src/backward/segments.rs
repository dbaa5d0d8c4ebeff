//! What of a forward pass is kept for the backward pass where memory is bounded.
//!
//! The layers, in their order, are cut into segments. Of all but the last one only what is alive at its beginning is kept,
//! and its layers are computed a second time when the backward pass comes to it. The fewest segments that fit are taken; each
//! keeps about as much as the others.

use std::ops::Range;

use crate::backward::functions::is_gate;
use crate::backward::reads_inputs;
use crate::eval::{Point, Points};
use crate::graph::{Graph, NodeId};
use crate::ops::{ActivationFn, Op};

/// What a training step keeps of its activations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of what gradients need, if all of it is kept.
    pub all: usize,
    /// Bytes that are kept at most at a time.
    pub kept: usize,
    /// Layers that are computed a second time.
    pub again: usize,
}

/// Bytes of a batch's tensors.
struct Sizes {
    /// What each layer keeps for its gradient that no layer before it keeps.
    kept: Vec<usize>,
    /// What is alive before each layer.
    alive: Vec<usize>,
}

fn sizes(graph: &Graph, points: &dyn Points, samples: usize) -> Sizes {
    let elements = |id: NodeId| samples.saturating_mul(graph.node(id).shape.iter().product());
    let (mut left, mut seen) = (graph.uses(), vec![false; graph.nodes.len()]);
    let (mut kept, mut alive, mut now) = (Vec::new(), Vec::new(), 0usize);
    for id in graph.ids() {
        let node = graph.node(id);
        alive.push(now);
        let gate = matches!(&node.op, Op::Relu(layer) if is_gate(layer.function()));
        let mut own = 0usize;
        if gate {
            own += elements(id);
        } else if reads_inputs(&node.op) {
            for input in &node.inputs {
                own += if std::mem::replace(&mut seen[input.0], true) { 0 } else { 4 * elements(*input) };
            }
        }
        let function = node.op.layer().activation();
        if function != ActivationFn::Linear {
            own += if is_gate(function.function()) { elements(id) } else { 4 * elements(id) };
        }
        let again = [Point::PreActivation(id), Point::PostActivation(id), Point::Output(id)];
        let seen_again = again.into_iter().filter(|point| points.differentiates(*point)).count();
        own += 4 * elements(id) * (seen_again + points.keeps(id));
        kept.push(own);
        now += 4 * elements(id);
        for input in &node.inputs {
            left[input.0] -= 1;
            if left[input.0] == 0 {
                now -= 4 * elements(*input);
            }
        }
    }
    Sizes { kept, alive }
}

/// Segments that keep about `most` bytes each, and what is kept at most at a time.
fn cut(sizes: &Sizes, most: usize) -> (Vec<Range<usize>>, usize) {
    let (mut segments, mut from, mut own) = (Vec::new(), 0, 0usize);
    let (mut beginnings, mut largest) = (0usize, 0);
    for (at, kept) in sizes.kept.iter().enumerate() {
        if at > from && own + kept > most {
            beginnings += sizes.alive[from];
            segments.push(from..at);
            (from, own) = (at, 0);
        }
        own += kept;
        largest = largest.max(own);
    }
    if from < sizes.kept.len() {
        segments.push(from..sizes.kept.len());
    }
    (segments, beginnings + largest)
}

/// The segments of a graph for a batch of so many samples, with at most `memory` bytes kept if there is a way; otherwise
/// with as few as there can be.
pub(super) fn segments(
    graph: &Graph,
    points: &dyn Points,
    samples: usize,
    memory: usize,
) -> (Vec<Range<usize>>, Footprint) {
    let sizes = sizes(graph, points, samples);
    let all: usize = sizes.kept.iter().sum();
    let tries = (1..=graph.nodes.len().max(1)).map(|parts| cut(&sizes, all.div_ceil(parts)));
    let mut best: Option<(Vec<Range<usize>>, usize)> = None;
    for (segments, kept) in tries {
        if best.as_ref().is_none_or(|(_, least)| kept < *least) {
            best = Some((segments, kept));
        }
        if best.as_ref().is_some_and(|(_, least)| *least <= memory) {
            break;
        }
    }
    let (segments, kept) = best.unwrap_or_default();
    let again = segments.last().map_or(0, |last| last.start);
    (segments, Footprint { all, kept, again })
}

/// What a step on so many samples keeps of its activations within `memory` bytes.
pub fn footprint(graph: &Graph, points: &dyn Points, samples: usize, memory: usize) -> Footprint {
    segments(graph, points, samples, memory).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain whose layers keep so many bytes each, with as many alive before each.
    fn chain(kept: &[usize]) -> Sizes {
        Sizes { kept: kept.to_vec(), alive: std::iter::once(0).chain(kept.iter().copied()).take(kept.len()).collect() }
    }

    #[test]
    fn segments_follow_each_other_and_cover_all_layers() {
        let sizes = chain(&[40, 10, 10, 20, 80, 10, 5, 5]);
        for parts in 1..10 {
            let (segments, kept) = cut(&sizes, 180usize.div_ceil(parts));
            let all: Vec<usize> = segments.iter().cloned().flatten().collect();
            assert_eq!(all, (0..8).collect::<Vec<_>>());
            let largest = segments.iter().map(|s| sizes.kept[s.clone()].iter().sum::<usize>()).max().unwrap();
            let last = segments.last().unwrap().start;
            let beginnings: usize = segments.iter().filter(|s| s.start < last).map(|s| sizes.alive[s.start]).sum();
            assert_eq!(kept, beginnings + largest);
        }
    }

    #[test]
    fn a_long_chain_needs_about_the_root_of_its_memory() {
        let sizes = chain(&[1; 100]);
        let least = (1..=100).map(|parts| cut(&sizes, 100usize.div_ceil(parts)).1).min().unwrap();
        assert!(least <= 20, "{least}");
    }
}
