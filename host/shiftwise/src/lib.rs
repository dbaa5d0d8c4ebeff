//! From a float network to integers that a DPU computes bit for bit.

pub mod dataset;
pub mod dump;
pub mod golden;
pub mod provenance;
pub mod text;

pub use shiftwise_graph::error::Error;
