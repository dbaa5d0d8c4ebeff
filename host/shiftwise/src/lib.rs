//! From a float network to integers that a DPU computes bit for bit.

pub mod build;
pub mod cost;
pub mod dataset;
pub mod device;
pub mod dump;
pub mod golden;
pub mod outputs;
pub mod provenance;
pub mod run;
pub mod text;

pub use shiftwise_graph::error::Error;
