//! Host.
pub mod emit;
