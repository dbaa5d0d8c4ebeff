//! Host.

pub mod kernel;
