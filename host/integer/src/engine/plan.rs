//! Where the tensors of a sample lie while it is computed, worked out once for a network.
//!
//! # Invariants
//! - Tensors that are needed at the same step share no element, but for a view and what it views, which share all.
//! - A result lies apart from its operands, so that a step can hold both at once.
//! - Every element that a step reads was written by a step before it, or is an input.
//!
//! Steps are numbered from 1 in the order of the ops; inputs are there from step 0 on.

use std::ops::Range;

use crate::engine::conv::Scratch;
use crate::graph::{IntGraph, IntOpKind, Kind, TensorIx};
use shiftwise_tensor::aligned::Aligned;
use shiftwise_tensor::arena::{self, Arena, Lifetime};
use shiftwise_tensor::values::Values;

/// Where tensors lie: integers of 8 and of 16 bits, and floats, each in an arena of their own.
#[derive(Debug)]
pub(super) struct Plan {
    places: Vec<Range<usize>>,
    fixed: usize,
    wide: usize,
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
        let of = |i: usize| Store::of(graph.tensors[i].kind);
        let arena = |store: Store| {
            let own = |i: usize| root[i] == i && of(i) == store;
            let part = |(i, life): (usize, &Lifetime)| Lifetime { len: if own(i) { life.len } else { 0 }, ..*life };
            Arena::place(&lives.iter().enumerate().map(part).collect::<Vec<_>>())
        };
        let (fixed, wide, floats) = (arena(Store::Fixed), arena(Store::Wide), arena(Store::Floats));
        let arena = |i: usize| match of(i) {
            Store::Fixed => &fixed,
            Store::Wide => &wide,
            Store::Floats => &floats,
        };
        let places = (0..count).map(|i| arena(i).places[root[i]].clone()).collect();
        Self { places, fixed: fixed.len, wide: wide.len, floats: floats.len, unread }
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

/// Which arena a tensor lies in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Fixed,
    Wide,
    Floats,
}

impl Store {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Fixed(_) => Self::Fixed,
            Kind::Scaled(scale) if scale.is_wide() => Self::Wide,
            Kind::Scaled(_) => Self::Fixed,
            Kind::Float => Self::Floats,
        }
    }
}

/// The memory that a sample takes, to be used by one sample after the other.
#[derive(Debug)]
pub(super) struct Memory {
    fixed: Aligned<i8>,
    wide: Aligned<i16>,
    floats: Aligned<f32>,
    scratch: Scratch,
}

/// A tensor in memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held<'a> {
    /// Integers of the tensor's position or step.
    Fixed(&'a [i8]),
    /// The same of 16 bits.
    Wide(&'a [i16]),
    /// Floats.
    Float(&'a [f32]),
}

/// A tensor in memory, to be written.
#[derive(Debug)]
pub(super) enum Result<'a> {
    /// Integers of the tensor's position or step.
    Fixed(&'a mut [i8]),
    /// The same of 16 bits.
    Wide(&'a mut [i16]),
    /// Floats.
    Float(&'a mut [f32]),
}

impl Memory {
    pub(super) fn new(plan: &Plan) -> Self {
        let (fixed, wide, floats) = (Aligned::new(plan.fixed), Aligned::new(plan.wide), Aligned::new(plan.floats));
        Self { fixed, wide, floats, scratch: Scratch::default() }
    }

    /// A tensor.
    pub(super) fn read(&self, at: Range<usize>, kind: Kind) -> Held<'_> {
        match Store::of(kind) {
            Store::Fixed => Held::Fixed(&self.fixed[at]),
            Store::Wide => Held::Wide(&self.wide[at]),
            Store::Floats => Held::Float(&self.floats[at]),
        }
    }

    /// A tensor to be written, all else to be read, and memory of the step's own.
    pub(super) fn split(&mut self, at: Range<usize>, kind: Kind) -> (Result<'_>, Rest<'_>, &mut Scratch) {
        let Self { fixed, wide, floats, scratch } = self;
        match Store::of(kind) {
            Store::Fixed => {
                let (result, fixed) = arena::split(fixed, at);
                let rest = Rest { fixed, wide: arena::Rest::whole(wide), floats: arena::Rest::whole(floats) };
                (Result::Fixed(result), rest, scratch)
            }
            Store::Wide => {
                let (result, wide) = arena::split(wide, at);
                let rest = Rest { fixed: arena::Rest::whole(fixed), wide, floats: arena::Rest::whole(floats) };
                (Result::Wide(result), rest, scratch)
            }
            Store::Floats => {
                let (result, floats) = arena::split(floats, at);
                let rest = Rest { fixed: arena::Rest::whole(fixed), wide: arena::Rest::whole(wide), floats };
                (Result::Float(result), rest, scratch)
            }
        }
    }
}

/// Memory without the tensor that is being written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest<'a> {
    fixed: arena::Rest<'a, i8>,
    wide: arena::Rest<'a, i16>,
    floats: arena::Rest<'a, f32>,
}

impl<'a> Rest<'a> {
    /// A tensor that lies apart from the one that is being written.
    pub(super) fn read(&self, at: Range<usize>, kind: Kind) -> Held<'a> {
        match Store::of(kind) {
            Store::Fixed => Held::Fixed(self.fixed.get(at)),
            Store::Wide => Held::Wide(self.wide.get(at)),
            Store::Floats => Held::Float(self.floats.get(at)),
        }
    }
}

impl Held<'_> {
    /// The tensor as a value of its own.
    pub(super) fn to_value(self) -> Values {
        match self {
            Self::Fixed(q) => Values::Int8(q.to_vec()),
            Self::Wide(q) => Values::Int16(q.to_vec()),
            Self::Float(x) => Values::Float(x.to_vec()),
        }
    }
}
