//! Tensors of f32 and what fills them: kernels of convolutions and of their gradients, broadcasting, operations on whole arrays.
//!
//! # Invariants
//! - Knows no layer, no graph and no quantizer.
//! - The bytes of every result are the same for any number of threads and any processor: each output of a convolution is
//!   one chain of fused multiply-adds, whatever the width of the vectors; each element of a kernel's gradient is a sum of
//!   such chains over fixed blocks of pixels.
//! - `unsafe` is in the vector kernels only.
//!
//! API boundary: no; the crate `shiftwise` is.

pub mod aligned;
pub mod arena;
pub mod array;
pub mod broadcast;
pub mod half;
pub mod kernel;
pub mod spare;
pub mod tensor;
pub mod values;
