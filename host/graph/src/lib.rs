//! The graph of a network, its layers, their evaluation in f32, and their gradients.
//!
//! # Invariants
//! - Knows no quantizer: what sits between layers is behind [`eval::Points`].
//! - Knows no file format: what a file says of a layer beyond what the layer models is [`attributes`], kept for writing.
//! - Touches no file and prints nothing.
//! - Nobody makes a graph whose layers don't fit: [`builder`] checks each, and its settings against each other.
//! - Every layer has a gradient or a reason why it has none: [`backward`] lists them without a rest.
//! - [`ops`] has the one table of layers, [`graph::Graph::verify`] lists what holds of every graph.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod attributes;
pub mod backward;
pub mod budget;
pub mod builder;
pub mod dtype;
pub mod error;
pub mod eval;
pub mod graph;
pub mod ops;

/// How a layer is added; its example is compiled and run here.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/new-layer.md")]
struct NewLayer;
