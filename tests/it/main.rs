//! Integration tests, one binary.

mod compile;
mod dataset;
mod deployable;
mod dump;
mod format;
mod qemu;
mod quantized;
