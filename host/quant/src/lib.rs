//! From a float graph to one with quantizers: strategies, passes, ranges and positions, calibration, refinement.
//!
//! # Invariants
//! - A quantized graph is a graph and a table of quantizers beside it; the graph knows nothing of them.
//! - Names of passes and settings are the vendor's JSON keys.
//! - Touches no file and prints nothing.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod calibrate;
mod conv_norm;
pub mod eval;
pub mod finetune;
pub mod layer_quant;
pub mod metadata;
pub mod observer;
pub mod owners;
pub mod passes;
pub mod pipeline;
pub mod python;
pub mod qat;
pub mod quant_graph;
pub mod regroup;
pub mod role;
pub mod scheme;
pub mod settings;
#[cfg(test)]
mod settings_page;
mod staged;
pub mod strategy;

/// How a number format is added; its example is compiled and run here.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/new-scheme.md")]
struct NewScheme;
