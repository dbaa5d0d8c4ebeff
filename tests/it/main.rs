//! Integration tests, one binary.

mod compile;
mod dataset;
mod dump;
mod format;
mod quantized;
