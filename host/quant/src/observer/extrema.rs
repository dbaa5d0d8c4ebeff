//! Smallest and largest values, and the range that the vendor's tool makes of them.

use multiversion::multiversion;
use rayon::prelude::*;

use super::range_error::RangeError;

/// Elements that one task works on.
const BLOCK: usize = 1 << 14;

/// Values that are compared side by side.
const LANES: usize = 16;

/// Smallest and largest value; (+∞, −∞) for an empty tensor.
///
/// Errors: a value that is not finite.
pub fn extrema(data: &[f32]) -> Result<(f32, f32), RangeError> {
    let join = |a: (f32, f32, f32), b: (f32, f32, f32)| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2);
    let (low, high, bad) =
        data.par_chunks(BLOCK).map(of_block).reduce(|| (f32::INFINITY, f32::NEG_INFINITY, 0.0), join);
    if bad.is_nan() { Err(RangeError::NotFinite) } else { Ok((low, high)) }
}

/// Smallest and largest value, and NaN if one is not finite (0 otherwise).
#[multiversion(targets("x86_64+avx2"))]
fn of_block(block: &[f32]) -> (f32, f32, f32) {
    let mut low = [f32::INFINITY; LANES];
    let mut high = [f32::NEG_INFINITY; LANES];
    // NaN is lost by comparisons, so it is looked for apart: 0·x is NaN exactly for NaN and infinities.
    let mut bad = [0.0f32; LANES];
    let mut put = |i: usize, x: f32| {
        low[i] = if x < low[i] { x } else { low[i] };
        high[i] = if x > high[i] { x } else { high[i] };
        bad[i] += 0.0 * x;
    };
    let (whole, rest) = block.as_chunks::<LANES>();
    for part in whole {
        part.iter().enumerate().for_each(|(i, x)| put(i, *x));
    }
    rest.iter().enumerate().for_each(|(i, x)| put(i, *x));
    let smallest = low.iter().fold(f32::INFINITY, |a, b| a.min(*b));
    (smallest, high.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b)), bad.iter().sum())
}

/// The integers that a range is to be mapped to.
#[derive(Clone, Copy, Debug)]
pub struct Integers {
    /// Width in bits.
    pub bits: u8,
    /// Zero maps to zero.
    pub symmetry: bool,
    /// No negative integers.
    pub unsigned: bool,
    /// Without the most negative integer.
    pub narrow: bool,
}

/// The range that the vendor's tool stores, from the raw extrema.
///
/// Errors: a negative value where zero is the smallest integer.
pub fn range((low, high): (f32, f32), to: Integers) -> Result<(f32, f32), RangeError> {
    if to.symmetry && to.unsigned && low < 0.0 {
        return Err(RangeError::Negative);
    }
    Ok(if !to.symmetry || to.unsigned {
        (low.min(0.0), high.max(0.0))
    } else if to.narrow {
        (low.min(-high), high.max(-low))
    } else {
        let steps = f64::from(to.bits).exp2();
        let ratio = (-(steps - 2.0) / steps) as f32;
        (low.min(high * (1.0 / ratio)), high.max(low * ratio))
    })
}
