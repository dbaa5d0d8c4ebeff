//! Integration tests, one binary.

mod compile;
mod format;
mod quantized;
