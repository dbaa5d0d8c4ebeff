//! The graph of a network, its layers, their evaluation in f32, and their gradients.
//!
//! # Invariants
//! - Knows no quantizer: what sits between layers is behind [`eval::Points`].
//! - Touches no file and prints nothing.
//! - Every layer has a gradient or a reason why it has none: [`backward`] lists them without a rest.
//! - [`ops`] has the one table of layers, [`graph::Graph::verify`] lists what holds of every graph.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod backward;
pub mod budget;
pub mod dtype;
pub mod error;
pub mod eval;
pub mod graph;
pub mod ops;
