//! From a float network to integers that a DPU computes bit for bit.
#![deny(missing_docs)]

pub mod compile;
pub mod emit;
pub mod error;
pub mod integer;
pub mod ir;
pub mod kernel;
pub mod ops;
pub mod quant;
pub mod tensor;

pub use error::Error;
