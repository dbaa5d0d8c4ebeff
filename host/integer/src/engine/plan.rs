//! Where the tensors of a sample lie while it is computed, worked out once for a network.
//!
//! # Invariants
//! - Tensors that are needed at the same step share no element, but for a view and what it views, which share all.
//! - A result lies apart from its operands, so that a step can hold both at once.
//! - Every element that a step reads was written by a step before it, or is an input.
//!
//! Steps are numbered from 1 in the order of the ops; inputs are there from step 0 on.

use std::ops::Range;

use crate::engine::Value;
use crate::engine::conv::Scratch;
use crate::graph::{IntGraph, IntOpKind, Kind, TensorIx};
use shiftwise_tensor::arena::{Arena, Lifetime};

/// Where tensors lie: integers in one arena, floats in another.
#[derive(Debug)]
pub(super) struct Plan {
    places: Vec<Range<usize>>,
    fixed: usize,
    floats: usize,
    /// Tensors that nothing reads: whoever runs a network gets them with its outputs.
    unread: Vec<bool>,
}

impl Plan {
    /// Works out the plan of a verified graph.
    pub(super) fn new(graph: &IntGraph) -> Self {
        let count = graph.tensors.len();
        // What a view views, as far back as it goes. Ops stand in order, so what is read has been resolved.
        let mut root: Vec<usize> = (0..count).collect();
        let mut lives: Vec<Lifetime> =
            graph.tensors.iter().map(|t| Lifetime { len: t.shape.iter().product(), first: 0, last: 0 }).collect();
        let mut unread = vec![true; count];
        for (step, op) in (1..).zip(&graph.ops) {
            for x in &op.inputs {
                unread[x.0] = false;
                lives[root[x.0]].last = step;
            }
            match (&op.kind, &op.inputs[..]) {
                (IntOpKind::View, [x]) => root[op.output.0] = root[x.0],
                _ => (lives[op.output.0].first, lives[op.output.0].last) = (step, step),
            }
        }
        let is_float = |i: usize| graph.tensors[i].kind == Kind::Float;
        let arena = |float: bool| {
            let own = |i: usize| root[i] == i && is_float(i) == float;
            let part = |(i, life): (usize, &Lifetime)| Lifetime { len: if own(i) { life.len } else { 0 }, ..*life };
            Arena::place(&lives.iter().enumerate().map(part).collect::<Vec<_>>())
        };
        let (fixed, floats) = (arena(false), arena(true));
        let place = |i: usize| if is_float(i) { &floats } else { &fixed }.places[root[i]].clone();
        Self { places: (0..count).map(place).collect(), fixed: fixed.len, floats: floats.len, unread }
    }

    /// Whether no op reads a tensor.
    pub(super) fn is_unread(&self, ix: TensorIx) -> bool {
        self.unread[ix.0]
    }

    /// The elements of a tensor, in the arena of its kind.
    pub(super) fn place(&self, ix: TensorIx) -> Range<usize> {
        self.places[ix.0].clone()
    }
}

/// The memory that a sample takes, to be used by one sample after the other.
#[derive(Debug)]
pub(super) struct Memory {
    fixed: Vec<i8>,
    floats: Vec<f32>,
    scratch: Scratch,
}

/// A tensor in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held<'a> {
    /// Integers of the tensor's position.
    Fixed(&'a [i8]),
    /// Floats.
    Float(&'a [f32]),
}

/// A tensor in memory, to be written.
#[derive(Debug)]
pub(super) enum Result<'a> {
    /// Integers of the tensor's position.
    Fixed(&'a mut [i8]),
    /// Floats.
    Float(&'a mut [f32]),
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { fixed: vec![0; plan.fixed], floats: vec![0.0; plan.floats], scratch: Scratch::default() }
    }

    /// A tensor.
    pub(super) fn read(&self, at: Range<usize>, kind: Kind) -> Held<'_> {
        match kind {
            Kind::Fixed(_) => Held::Fixed(&self.fixed[at]),
            Kind::Float => Held::Float(&self.floats[at]),
        }
    }

    /// A tensor to be written, all else to be read, and memory of the step's own.
    pub(super) fn split(&mut self, at: Range<usize>, kind: Kind) -> (Result<'_>, Rest<'_>, &mut Scratch) {
        match kind {
            Kind::Fixed(_) => {
                let (result, fixed) = Part::around(&mut self.fixed, at);
                (Result::Fixed(result), Rest { fixed, floats: Part::whole(&self.floats) }, &mut self.scratch)
            }
            Kind::Float => {
                let (result, floats) = Part::around(&mut self.floats, at);
                (Result::Float(result), Rest { fixed: Part::whole(&self.fixed), floats }, &mut self.scratch)
            }
        }
    }
}

/// Memory without the tensor that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a> {
    fixed: Part<'a, i8>,
    floats: Part<'a, f32>,
}

impl<'a> Rest<'a> {
    /// A tensor that lies apart from the one that is being written.
    pub(super) fn read(&self, at: Range<usize>, kind: Kind) -> Held<'a> {
        match kind {
            Kind::Fixed(_) => Held::Fixed(self.fixed.get(at)),
            Kind::Float => Held::Float(self.floats.get(at)),
        }
    }
}

/// An arena but for a piece of it.
#[derive(Clone, Copy, Debug)]
struct Part<'a, T> {
    before: &'a [T],
    /// What is behind the piece, and where that begins.
    after: (&'a [T], usize),
}

impl<'a, T> Part<'a, T> {
    fn whole(all: &'a [T]) -> Self {
        Self { before: all, after: (&[], all.len()) }
    }

    fn around(all: &'a mut [T], at: Range<usize>) -> (&'a mut [T], Self) {
        let (before, rest) = all.split_at_mut(at.start);
        let (piece, after) = rest.split_at_mut(at.len());
        (piece, Self { before, after: (after, at.end) })
    }

    fn get(&self, at: Range<usize>) -> &'a [T] {
        let (after, from) = self.after;
        if at.end <= self.before.len() { &self.before[at] } else { &after[at.start - from..at.end - from] }
    }
}

impl Held<'_> {
    /// The tensor as a value of its own.
    pub(super) fn to_value(self) -> Value {
        match self {
            Self::Fixed(q) => Value::Fixed(q.to_vec()),
            Self::Float(x) => Value::Float(x.to_vec()),
        }
    }
}
