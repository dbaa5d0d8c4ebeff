//! The graph of a network, its layers, and their evaluation in f32.
//!
//! # Invariants
//! - Knows no quantizer: what sits between layers is behind [`eval::Points`].
//! - Touches no file and prints nothing.
//! - [`ops`] has the one table of layers, [`graph::Graph::verify`] lists what holds of every graph.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod backward;
pub mod budget;
pub mod error;
pub mod eval;
pub mod graph;
pub mod ops;
