//! Numbers, instructions and deployables shared by every part of shiftwise that touches a bit.
//!
//! # Numbers
//! Every quantized tensor is made of integers with one power-of-two scale: `value = q · 2^(-pos)`, where
//! [`fix::FixPos`] `pos` counts fraction bits and may be negative. Products and sums of such values are integers
//! times a power of two as well, so a layer is exact integer arithmetic followed by one shift, one rounding and one
//! saturation. All rounding, shifting and saturating of tensor values lives in [`arith`] and [`fix`].
//!
//! # Memory
//! A DPU program and the CPU layers beside it see four byte regions ([`run::Memory`]): constants, workspace, inputs
//! and outputs. They are slices that the caller owns: this crate never allocates, and it forbids `unsafe`.
//!
//! # Parts
//! - [`arith`], [`fix`], [`scale`], [`shape`], [`shift`] — scalar arithmetic, geometry, limits of shifts
//! - [`target`] — what a DPU is: parallelism, banks, limits
//! - [`isa`] — the DPU's instructions, their encoding and listing
//! - [`listing`] — a deployable's code as text
//! - [`exec`] — what instructions do to memory
//! - [`model`] — the deployable: a checked view into bytes
//! - [`link`] — messages between a host and a board
//! - [`monitor`] — what tensors hold over many runs, and whether that drifts
//! - [`run`], [`cpu`] — running a deployable: DPU jobs through the [`run::Dpu`] trait, other layers by portable kernels
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(test)]
extern crate std;

pub mod arith;
pub mod cpu;
mod crc;
pub mod exec;
pub mod fix;
pub mod isa;
pub mod link;
pub mod listing;
mod memory;
pub mod model;
pub mod monitor;
pub mod run;
pub mod scale;
pub mod shape;
pub mod shift;
pub mod target;
