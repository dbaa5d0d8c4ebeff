//! Integration tests, one binary.

mod cli;
mod compile;
mod damage;
mod deployable;
mod format;
mod props;
mod qemu;
mod quantized;
