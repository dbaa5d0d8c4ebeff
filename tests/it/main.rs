//! Integration tests, one binary.

mod compile;
