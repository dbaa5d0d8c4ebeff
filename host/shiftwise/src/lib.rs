//! From a float network to integers that a DPU computes bit for bit.

pub mod averages;
pub mod build;
pub mod cost;
pub mod dataset;
pub mod device;
pub mod dump;
pub mod estimate;
pub mod evaluate;
pub mod golden;
pub mod listing;
pub mod outputs;
pub mod provenance;
pub mod run;
pub mod text;
pub mod verify;

pub use shiftwise_graph::error::Error;
