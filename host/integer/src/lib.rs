//! The integer form of a quantized network, how it is made, and the engine that computes it exactly.
//!
//! # Invariants
//! - Knows no tiles, banks, instructions or memory plan of a device.
//! - Every maker of an integer form has it verified; engines and compilers trust it from there on.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod averages;
pub mod engine;
pub mod graph;
mod left_alone;
pub mod lower;
mod op;
pub mod reasons;
pub mod scaled;
pub mod unquantized;
