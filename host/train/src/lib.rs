//! Training: steps of an optimizer on float and quantized graphs.
//!
//! # Invariants
//! - The same bytes for any number of threads: a step is made of the deterministic passes of
//!   [`shiftwise_graph::backward`], and every sum here has an order that shapes alone decide.
//! - Whatever is random is drawn from a seed that the caller gives.
//! - Knows no file format, touches no file and prints nothing.
//! - Needs no crate above `quant`: what a trained network becomes is a
//!   [`QuantGraph`](shiftwise_quant::quant_graph::QuantGraph) again.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod finetune;
pub mod optim;
pub mod reconstruct;
