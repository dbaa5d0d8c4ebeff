//! Integration tests, one binary.

mod compile;
mod deployable;
mod format;
mod props;
mod qemu;
mod quantized;
