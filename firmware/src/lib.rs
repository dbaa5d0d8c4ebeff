//! Runs a deployable on a board: in a project of yours, or as a server for a host.
//!
//! - [`network::Network`]: parse a deployable in flash, write its inputs, run it, read its outputs
//! - [`memory`]: how many bytes that takes, at compile time
//! - [`self_test`]: the deployable's own samples, a layer at a time
//! - [`monitor`]: what tensors hold over many runs, and whether that has drifted
//! - [`mmio::MmioDpu`]: a DPU behind registers
//! - [`error::Error`]: why nothing was run, with stable numbers
//! - [`session::Session`] (feature `link`): takes deployables and inputs from a host and reports every tensor
//!
//! Nothing here owns hardware or memory: the deployable and the network's memory are slices, the DPU is a
//! [`shiftwise_core::run::Dpu`], a link is two `embedded-io` halves. Nothing allocates and nothing panics. `main.rs` is
//! the image for one board (feature `image`); start-up and registers live in `board/`.
#![no_std]
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod error;
pub mod kernels;
pub mod memory;
pub mod mmio;
pub mod network;
#[cfg(feature = "link")]
pub mod port;
pub mod self_test;
#[cfg(feature = "link")]
pub mod session;

pub use shiftwise_core::monitor;

/// What is known of a tensor.
pub mod tensor {
    pub use shiftwise_core::model::{DType, TensorDesc, TensorId};
}

/// The examples of the README are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
