//! Host.
pub mod emit;
#[cfg(feature = "board")]
pub mod link;
