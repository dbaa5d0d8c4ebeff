//! TensorFlow Lite models: networks of tensors with channels last, quantized or not, read as the float network that they
//! stand for, with their weights as the numbers that they mean.
//!
//! # Invariants
//! - [`schema`] is the only door to the file's bytes: every offset is checked, and nothing is copied before it is charged.
//! - [`ops::OPS`] has every operator that is read.

mod ops;
mod read;
mod schema;

pub use read::read;
