//! What a firmware project does with a network, one file each. Copy what you need: hardware comes in by `embedded-hal` and
//! `embedded-io`, memory by the caller, so that the same lines stand in a bare loop, a task of RTIC or one of embassy.
//!
//! - [`classify`]: the twenty lines: self-test, frame in, class out
//! - [`cooperative`]: a task of embassy that gives way after each layer
//! - [`drift`]: the same, and whether the data is still like that of calibration
//! - [`serve`]: a host loads and runs networks over a port (`shiftwise run --board serial:PATH`)
#![no_std]

pub mod classify;
pub mod cooperative;
pub mod drift;
pub mod serve;

use shiftwise_firmware::include_deployable;
use shiftwise_firmware::memory::{Arena, arena_bytes};

/// A network for images of 8 x 8 pixels with a self-test, in flash:
///
/// ```text
/// shiftwise quantize tests/data/digits_lenet.h5 --calib tests/data/digits.npz:x_cal --output-dir q
/// shiftwise compile q/quantized.h5 --target cpu --self-test tests/data/digits.npz:x_cal --self-test-samples 4 \
///     -o firmware/examples/rust/digits.swm
/// ```
pub static MODEL: &[u8] = include_deployable!("../digits.swm");

/// Memory for it, known at compile time, and 1 KB more for faster convolutions. In a program it is a `static`: that of
/// `static_cell::StaticCell`, of `cortex_m::singleton!`, or a `local` resource of RTIC.
pub type Memory = Arena<{ arena_bytes(MODEL).unwrap() + 1024 }>;
