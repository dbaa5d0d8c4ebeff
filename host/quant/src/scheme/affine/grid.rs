//! The grids of float scales, and the loops over tensors, compiled for several generations of CPUs.
//!
//! There are three: TensorFlow's for signed integers, which always has a zero point, TensorFlow's for unsigned ones, and
//! the vendor's own. All arithmetic is f32 in the order in which TensorFlow executes it; no operation is fused or reordered.

use multiversion::multiversion;

use super::params::Params;
use super::state::Range;
use crate::scheme::round::{clip, floor, rint};
use shiftwise_core::arith::Round;
use shiftwise_core::fix::{exp2, round_f32};

/// What a quantizer does to values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Grid {
    /// The range is nothing but zero, and so is every value.
    Zero,
    /// `FakeQuantWithMinMaxVars`.
    Signed {
        /// What values are clamped to first.
        low: f32,
        high: f32,
        step: f32,
        per_step: f32,
        /// The step, counted from `low`, that is zero.
        zero: f32,
        /// The integer of `low`.
        lowest: f32,
    },
    /// `QuantizeAndDequantizeV2` without sign.
    Unsigned { high: f32, step: f32, per_step: f32 },
    /// The vendor's kernels.
    Own {
        scale: f32,
        low: f32,
        high: f32,
        round: Round,
        /// What the lowest integer stands for, where zero isn't zero, and the highest.
        ends: Option<(f32, f32)>,
        /// The range that gradients pass.
        range: (f32, f32),
    },
}

impl Grid {
    /// The grid of a range.
    pub(super) fn new(range: Range, p: &Params) -> Self {
        let Range { min, max, .. } = range;
        if min == 0.0 && max == 0.0 {
            return Self::Zero;
        }
        match (p.use_framework_quant, p.unsigned) {
            (true, false) => Self::signed(min, max, p),
            (true, true) => {
                let top = p.bounds().1;
                // Without a positive value TensorFlow's scale is the largest number, and everything is zero.
                if max > 0.0 { Self::Unsigned { high: max, step: max / top, per_step: top / max } } else { Self::Zero }
            }
            (false, _) => Self::own(min, max, p),
        }
    }

    fn signed(min: f32, max: f32, p: &Params) -> Self {
        let first = if p.narrow_range { 1.0f32 } else { 0.0 };
        let last = exp2(p.bit_width.into()) - 1.0;
        let step = (max - min) / (last - first);
        let zero = first - min / step;
        let zero = if zero < first {
            first
        } else if zero > last {
            last
        } else {
            libm::roundf(zero)
        };
        let (low, high) = ((first - zero) * step, (last - zero) * step);
        let per_step = 1.0 / step;
        Self::Signed { low, high, step, per_step, zero: (-low * per_step + 0.5).floor(), lowest: p.bounds().0 }
    }

    fn own(min: f32, max: f32, p: &Params) -> Self {
        let (low, high) = p.bounds();
        let scale = (high - low) / (max - min);
        let ends = (!p.symmetry).then(|| {
            // The zero point is rounded half away from zero, always.
            let zero = round_f32(low - min * scale, Round::HalfAwayFromZero).max(low).min(high);
            ((low - zero) / scale, (high - zero) / scale)
        });
        Self::Own { scale, low, high, round: p.round(), ends, range: ends.unwrap_or((min, max)) }
    }

    /// Calls `f(index, integer, fake-quantized value)` for every value; the integer as the quantizer's own arithmetic has
    /// it.
    #[inline(always)]
    fn each(&self, data: &[f32], narrow: bool, mut f: impl FnMut(usize, f32, f32)) {
        match *self {
            Self::Zero => (0..data.len()).for_each(|i| f(i, 0.0, 0.0)),
            Self::Signed { low, high, step, per_step, zero, lowest } => {
                for (i, x) in data.iter().enumerate() {
                    let x = if *x > high { high } else { *x };
                    let x = if x < low { low } else { x };
                    let q = floor(((x - low) * per_step - zero) + 0.5);
                    f(i, q + zero + lowest, q * step);
                }
            }
            Self::Unsigned { high, step, per_step } => {
                for (i, x) in data.iter().enumerate() {
                    let x = if *x > high { high } else { *x };
                    let x = if x < 0.0 { 0.0 } else { x };
                    // Up to 32 bits, so not by the fast rounding.
                    let q = (x * per_step + 0.5).floor();
                    f(i, q, q * step);
                }
            }
            Self::Own { scale, low, high, round, ends: None, .. } => match (narrow, round) {
                (true, Round::HalfUp) => own(data, (scale, low, high), |v| floor(clip(v + 0.5)), f),
                (true, Round::HalfToEven) => own(data, (scale, low, high), |v| keep_sign(v, rint(clip(v))), f),
                (_, round) => own(data, (scale, low, high), |v| round_f32(v, round), f),
            },
            Self::Own { scale, low, high, round, ends: Some((bottom, _)), .. } => {
                for (i, x) in data.iter().enumerate() {
                    let q = (low + round_f32((x - bottom) * scale, round)).min(high).max(low);
                    f(i, q, (q - low) / scale + bottom);
                }
            }
        }
    }

    /// The smallest and largest value that a gradient passes; beyond, it is the gradient of that end.
    pub(super) fn passes(&self) -> (f32, f32) {
        match *self {
            Self::Zero => (0.0, 0.0),
            Self::Signed { low, high, .. } => (low, high),
            Self::Unsigned { high, .. } => (0.0, high),
            Self::Own { range, .. } => range,
        }
    }

    /// The step, and the integer that is zero.
    pub(super) fn step_and_zero(&self) -> (f32, f32) {
        match *self {
            Self::Zero => (0.0, 0.0),
            Self::Signed { step, zero, lowest, .. } => (step, zero + lowest),
            Self::Unsigned { step, .. } => (step, 0.0),
            Self::Own { scale, ends: None, .. } => (1.0 / scale, 0.0),
            Self::Own { scale, low, ends: Some((bottom, _)), .. } => (1.0 / scale, low - (bottom * scale).round()),
        }
    }
}

/// `rint` loses the sign of a zero.
#[inline(always)]
fn keep_sign(v: f32, rounded: f32) -> f32 {
    rounded.copysign(v)
}

/// Scaled, rounded, clamped, divided.
#[inline(always)]
fn own(
    data: &[f32],
    (scale, low, high): (f32, f32, f32),
    round: impl Fn(f32) -> f32,
    mut f: impl FnMut(usize, f32, f32),
) {
    for (i, x) in data.iter().enumerate() {
        let q = round(x * scale);
        let q = if q > high { high } else { q };
        let q = if q < low { low } else { q };
        f(i, q, q / scale);
    }
}

/// Replaces every value by its fake-quantized one.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn fake_quantize(block: &mut [f32], grid: &Grid, narrow: bool) {
    let mut run = [0.0f32; 64];
    for part in block.chunks_mut(64) {
        run[..part.len()].copy_from_slice(part);
        grid.each(&run[..part.len()], narrow, |i, _, y| part[i] = y);
    }
}

/// Replaces every value by its fake-quantized one, where values and grids go round in step.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn fake_quantize_each(data: &mut [f32], grids: &[Grid], narrow: bool) {
    for round in data.chunks_mut(grids.len().max(1)) {
        for (x, grid) in round.iter_mut().zip(grids) {
            grid.each(&[*x], narrow, |_, _, y| *x = y);
        }
    }
}

/// The integers of values.
pub(super) fn integers(block: &[f32], grid: &Grid) -> Vec<i32> {
    let mut all = vec![0; block.len()];
    grid.each(block, false, |i, q, _| all[i] = q as i32);
    all
}
