//! Limits of shifts and positions that follow from the DPU's instruction fields and constants.
//!
//! The quantizer moves positions into these limits, selection of instructions checks against the same ones, and kernels
//! rely on the positions of a hard sigmoid.

use core::ops::RangeInclusive;

use crate::fix::FixPos;

/// Left shifts that align the operands of a sum: what the largest position of an operand may be above the smallest
/// (DOC: a field of 4 bits).
pub const READ: RangeInclusive<i32> = 0..=15;

/// Right shifts of an element-wise result that its field of 5 bits holds (DOC).
pub const WRITE: RangeInclusive<i32> = -16..=15;

/// Right shifts of an element-wise result that the vendor's tool adjusts positions to: those of [`WRITE`] but the least
/// (DEC).
pub const WRITE_ADJUSTED: RangeInclusive<i32> = -15..=15;

/// Right shifts of a product that is adjusted as the vendor's tool does (DEC).
pub const PRODUCT_ADJUSTED: RangeInclusive<i32> = 0..=15;

/// Right shifts of an accumulator that the vendor's tool adjusts positions to (DEC). What a DPU takes stands in its target.
pub const CUT_ADJUSTED: RangeInclusive<i32> = 0..=16;

/// The largest left shift of a bias (DEC).
pub const MOST_BIAS: i32 = 16;

/// Left shifts of a bias that selection takes: those below -1 are rounded away beforehand, within the 64 bits that it
/// computes in.
pub const BIAS: RangeInclusive<i32> = -62..=MOST_BIAS;

/// Positions of a hard sigmoid's input: 3 and 6 are integers there, and fit 32 bits times 2731 (DEC).
pub const SIGMOID_POSITIONS: RangeInclusive<i32> = 0..=15;

/// The position of a hard sigmoid's input as a count of bits to shift by, within [`SIGMOID_POSITIONS`].
pub fn sigmoid_position(pos: FixPos) -> i32 {
    i32::from(pos.0).clamp(*SIGMOID_POSITIONS.start(), *SIGMOID_POSITIONS.end())
}
