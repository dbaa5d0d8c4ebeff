//! Integration tests, one binary.

mod compile;
mod deployable;
mod format;
mod qemu;
mod quantized;
