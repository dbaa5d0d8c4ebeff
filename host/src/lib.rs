//! From a float network to integers that a DPU computes bit for bit.
#![deny(missing_docs)]

pub mod broadcast;
pub mod budget;
pub mod calibrate;
pub mod compile;
pub mod dataset;
pub mod dump;
pub mod error;
pub mod eval;
pub mod files;
pub mod format;
pub mod integer;
pub mod ir;
pub mod kernel;
mod layer_quant;
#[cfg(feature = "board")]
pub mod link;
pub mod lower;
pub mod ops;
pub mod owners;
pub mod passes;
pub mod quant;
pub mod quant_eval;
pub mod quantize;
pub mod quantizer;
pub mod strategy;
pub mod tensor;
pub mod text;
pub mod unquantized;

pub use error::Error;
