//! What a board does with a deployable: take it over a link, run it, and report every tensor.
//!
//! [`session::Session`] is the whole runtime. It owns no hardware and no memory: the link is two `embedded-io` halves,
//! the deployable and the network's memory are slices, the DPU is a [`shiftwise_core::run::Dpu`]. Nothing allocates and
//! nothing panics. `main.rs` is the image for one board; start-up and registers live in `board/`.
#![no_std]
#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod kernels;
pub mod mmio;
pub mod port;
pub mod session;
