//! Training: steps of an optimizer on float and quantized graphs.
//!
//! # Invariants
//! - The same bytes for any number of threads: a step is made of the deterministic passes of
//!   [`shiftwise_graph::backward`], and every sum here has an order that shapes alone decide.
//! - Whatever is random is drawn from a seed that the caller gives, by the place that it is for.
//! - Knows no file format, touches no file and prints nothing.
//! - Needs no crate above `quant`: what a trained network becomes is a
//!   [`QuantGraph`](shiftwise_quant::quant_graph::QuantGraph) again.
//!
//! API boundary: no; the crate `shiftwise` is.
//!
//! - [`trainer`]: a network in training and one step of it; [`conv_norm`]: convolutions with their normalization
//! - [`optim`], [`loss`]: THE tables of optimizers and losses
//! - [`fit`]: epochs over data; [`schedule`], [`augment`]: THE tables of schedules and augmentations
//! - [`seat`]: where a quantizer sits; [`random`]: random numbers by place

pub mod augment;
pub mod conv_norm;
pub mod finetune;
pub mod fit;
pub mod loss;
pub mod optim;
mod points;
pub mod random;
pub mod reconstruct;
pub mod schedule;
pub mod seat;
mod subjects;
pub mod trainer;
