//! Integration tests, one binary.

mod compile;
mod dataset;
mod deployable;
mod dump;
mod format;
mod golden;
mod qemu;
mod quantized;
