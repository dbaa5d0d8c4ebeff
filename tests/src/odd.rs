//! Networks as nobody would draw them, and as files may hold them all the same: dimensions of one, strides far beyond the
//! map, padding larger than the window, a tensor joined with itself, chains of views, many outputs.
//!
//! They are read off a string of bytes, so that a fuzzer can turn each decision by itself; a property test draws the bytes.

use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_quant::strategy::Strategy;

use crate::graphs::Rng;
use crate::networks::{random_network_of_all, random_network_of_functions, random_network_with_floats};

mod integer;
mod network;

pub use integer::odd_graph;
pub use network::odd_network;

/// Decisions, a byte each; after the last byte every one is the first of its kind.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Takes them from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether there are any left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next byte.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    /// A number from `low` to `high`, both included.
    fn size(&mut self, low: usize, high: usize) -> usize {
        low + usize::from(self.byte()) % (high - low + 1)
    }

    /// One of several.
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.size(0, all.len() - 1)].clone()
    }

    /// True about once in `n` times, never without bytes.
    fn one_in(&mut self, n: usize) -> bool {
        self.size(0, n - 1) == n - 1
    }

    /// Values that a byte stands for, so that weights don't use the bytes up.
    fn noise(&mut self) -> Rng {
        Rng(self.byte().into())
    }
}

/// Bytes for [`Choices`] of a seed.
pub fn choices_of(seed: u64, len: usize) -> Vec<u8> {
    Rng(seed).bytes(len)
}

/// The network of a seed as training may give it: of any family of layers.
pub fn usual_network(seed: u64, blocks: usize) -> Graph {
    match seed % 4 {
        0 | 2 => random_network_of_all(seed, blocks),
        1 => random_network_with_floats(seed, blocks),
        _ => random_network_of_functions(seed, blocks),
    }
}

/// The strategy of a seed: once in three times some layers of the network stay float.
pub fn with_float_layers(graph: &Graph, seed: u64) -> Strategy {
    let mut strategy = Strategy::built_in("pof2s").expect("it is built in");
    let mut rng = Rng(seed ^ 4);
    let names = graph.ids().map(|id| graph.node(id)).filter(|n| !matches!(n.op, Op::Input(_))).map(|n| &n.name);
    let ignored: Vec<&String> = names.filter(|_| seed.is_multiple_of(3) && rng.one_in(4)).collect();
    if !ignored.is_empty() {
        strategy.set("ignore_layers", serde_json::json!(ignored)).expect("a list of names");
    }
    strategy
}
