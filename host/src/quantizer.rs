//! The power-of-two quantizer on whole tensors: range, position, fake quantization.
//!
//! The arithmetic is f32 in the order of the vendor's tool as TensorFlow executes it inside a graph, where division by
//! a constant has become multiplication by its f32 reciprocal. Sums over a tensor are f64 in fixed blocks, so the
//! result doesn't depend on the number of threads.

use rayon::prelude::*;

use crate::quant::{Method, Pof2Params};
use shiftwise_core::arith::Round;
use shiftwise_core::fix::{self, FixPos};

/// Elements that one task works on; also the block of a deterministic sum.
const BLOCK: usize = 1 << 14;

/// Why a tensor has no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// A value is NaN or infinite.
    #[error("a value is not finite")]
    NotFinite,
    /// Unsigned symmetric quantization of a negative value.
    #[error("input tensor values should be non-negative in symmetric unsigned quantization")]
    Negative,
}

/// Smallest and largest value; (+∞, −∞) for an empty tensor.
///
/// Errors: a value that is not finite.
pub fn extrema(data: &[f32]) -> Result<(f32, f32), RangeError> {
    let block = |x: &[f32]| {
        // NaN is lost by min and max, so it is looked for apart: 0·x is NaN exactly for NaN and infinities.
        x.iter().fold((f32::INFINITY, f32::NEG_INFINITY, 0.0f32), |(lo, hi, bad), x| {
            (if *x < lo { *x } else { lo }, if *x > hi { *x } else { hi }, bad + 0.0 * x)
        })
    };
    let join = |a: (f32, f32, f32), b: (f32, f32, f32)| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2);
    let (low, high, bad) = data.par_chunks(BLOCK).map(block).reduce(|| (f32::INFINITY, f32::NEG_INFINITY, 0.0), join);
    if bad.is_nan() { Err(RangeError::NotFinite) } else { Ok((low, high)) }
}

/// The range that the vendor's tool stores, from the raw extrema.
pub fn range((low, high): (f32, f32), p: &Pof2Params) -> Result<(f32, f32), RangeError> {
    if p.symmetry && p.unsigned && low < 0.0 {
        return Err(RangeError::Negative);
    }
    Ok(if !p.symmetry || p.unsigned {
        (low.min(0.0), high.max(0.0))
    } else if p.narrow_range {
        (low.min(-high), high.max(-low))
    } else {
        let steps = f64::from(p.bit_width).exp2();
        let ratio = (-(steps - 2.0) / steps) as f32;
        (low.min(high * (1.0 / ratio)), high.max(low * ratio))
    })
}

/// The finest position at which nothing of the range overflows.
///
/// `floor(−ln(step) / ln 2)` in f32, including its artefacts: an exact power of two may give one less, an all-zero
/// tensor gives 51.
pub fn non_overflow((low, high): (f32, f32), p: &Pof2Params) -> i32 {
    let (qmin, qmax) = p.bounds();
    let step = if !p.symmetry {
        (high - low) * (1.0 / (qmax - qmin))
    } else if p.unsigned {
        high * (1.0 / qmax)
    } else {
        (low * (1.0 / qmin)).max(high * (1.0 / qmax))
    };
    let step = step.max(f32::EPSILON * f32::EPSILON * 0.015_625);
    // Reciprocal of ln 2 as f32(1 / f32(ln 2)).
    let per_ln2 = f32::from_bits(0x3FB8_AA3B);
    // The f64 logarithm rounded to f32 is the correctly rounded f32 logarithm, on every platform alike.
    let ln = libm::log(f64::from(step)) as f32;
    (-ln * per_ln2).floor() as i32
}

/// A calibrated tensor: its position and range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated {
    /// Fraction bits.
    pub pos: FixPos,
    /// Stored range.
    pub min: f32,
    /// Stored range.
    pub max: f32,
}

/// Position and range of one tensor by the quantizer's method.
pub fn calibrate(data: &[f32], p: &Pof2Params) -> Result<Calibrated, RangeError> {
    let (min, max) = range(extrema(data)?, p)?;
    let first = non_overflow((min, max), p);
    let pos = match p.method() {
        Method::NonOverflow => first,
        Method::MinMse => {
            let errors: [f64; 5] = squared_errors(data, first, p);
            // The first of equal minima wins.
            let best = (1..5).fold(0, |best, i| if errors[i] < errors[best] { i } else { best });
            first + best as i32
        }
    };
    Ok(Calibrated { pos: FixPos(pos.clamp(-128, 127) as i8), min, max })
}

/// Σ (x − fake-quantized x)² for the positions `first .. first + 5`, in one pass over the data.
fn squared_errors(data: &[f32], first: i32, p: &Pof2Params) -> [f64; 5] {
    let grids: [Grid; 5] = std::array::from_fn(|i| Grid::new(first + i as i32, p));
    let blocks: Vec<[f64; 5]> = data
        .par_chunks(BLOCK)
        .map(|block| {
            grids.map(|g| {
                // Short f32 runs keep the loop in vectors; each run's sum then joins an f64.
                block
                    .chunks(64)
                    .map(|run| {
                        let mut square = [0.0f32; 64];
                        g.each(run, |i, x, y| square[i] = (x - y) * (x - y));
                        f64::from(square.iter().sum::<f32>())
                    })
                    .sum()
            })
        })
        .collect();
    blocks.iter().fold([0.0; 5], |sum, b| std::array::from_fn(|i| sum[i] + b[i]))
}

/// Replaces every value by its fake-quantized one: scaled, rounded, clamped to the integer range, scaled back.
pub fn fake_quantize(data: &mut [f32], pos: FixPos, p: &Pof2Params) {
    let grid = Grid::new(pos.0.into(), p);
    data.par_chunks_mut(BLOCK).for_each(|block| {
        let mut run = [0.0f32; 64];
        for part in block.chunks_mut(64) {
            run[..part.len()].copy_from_slice(part);
            grid.each(&run[..part.len()], |i, _, y| part[i] = y);
        }
    });
}

/// The integers of a tensor, rounded as the vendor's dump does it: value · 2^pos, half to even, clamped to int8.
pub fn dump_int8(data: &[f32], pos: FixPos) -> Vec<i8> {
    let scale = pos.scale();
    data.iter().map(|x| fix::round_f32(x * scale, Round::HalfToEven).clamp(-128.0, 127.0) as i8).collect()
}

/// Scale, bounds and rounding of one position.
#[derive(Clone, Copy)]
struct Grid {
    scale: f32,
    step: f32,
    low: f32,
    high: f32,
    round: Round,
    narrow: bool,
}

impl Grid {
    fn new(pos: i32, p: &Pof2Params) -> Self {
        let (low, high) = p.bounds();
        // The vectorized rounding below is exact for magnitudes up to 2^22.
        let narrow = p.bit_width <= 16;
        Self { scale: fix::exp2(pos), step: fix::exp2(-pos), low, high, round: p.round(), narrow }
    }

    /// Calls `f(index, x, fake-quantized x)` for every value.
    #[inline(always)]
    fn each(&self, data: &[f32], f: impl FnMut(usize, f32, f32)) {
        match (self.narrow, self.round) {
            (true, Round::HalfUp) => self.map(data, |v| floor(clip(v + 0.5)), f),
            (true, Round::HalfToEven) => self.map(data, |v| rint(clip(v)), f),
            (true, Round::Floor) => self.map(data, |v| floor(clip(v)), f),
            (_, round) => self.map(data, |v| fix::round_f32(v, round), f),
        }
    }

    #[inline(always)]
    fn map(&self, data: &[f32], round: impl Fn(f32) -> f32, mut f: impl FnMut(usize, f32, f32)) {
        let Self { scale, step, low, high, .. } = *self;
        for (i, x) in data.iter().enumerate() {
            let q = round(x * scale);
            let q = if q > high { high } else { q };
            let q = if q < low { low } else { q };
            f(i, *x, q * step);
        }
    }
}

/// Bounds a scaled value to where [`rint`] is exact; the integer range is far inside.
#[inline(always)]
fn clip(v: f32) -> f32 {
    let v = if v > 4e6 { 4e6 } else { v };
    if v < -4e6 { -4e6 } else { v }
}

/// Nearest integer, ties to even, for |v| ≤ 2^22: adding 1.5·2^23 leaves no fraction bits. Unlike the library's
/// function it compiles to two vector additions on every CPU.
#[inline(always)]
fn rint(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// Largest integer below or equal, for |v| ≤ 2^22.
#[inline(always)]
fn floor(v: f32) -> f32 {
    let r = rint(v);
    r - if r > v { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pof2(bit_width: u8, method: u8, round_mode: u8) -> Pof2Params {
        serde_json::from_value(
            serde_json::json!({ "bit_width": bit_width, "method": method, "round_mode": round_mode }),
        )
        .unwrap()
    }

    fn pos(data: &[f32], p: &Pof2Params) -> i8 {
        calibrate(data, p).unwrap().pos.0
    }

    /// Values observed from the vendor's tool.
    #[test]
    fn non_overflow_positions() {
        let p = pof2(8, 0, 1);
        assert_eq!(pos(&[1.0], &p), 6);
        assert_eq!(pos(&[-1.0], &p), 7);
        assert_eq!(pos(&[0.5, -0.3, 0.9, -1.1], &p), 6);
        assert_eq!(pos(&[0.0; 4], &p), 51);
        assert_eq!(pos(&[], &p), 51);
        assert_eq!(pos(&[-0.015_625], &p), 12, "an exact power of two that the logarithm misses");
        assert_eq!(pos(&[0.1, -0.7], &pof2(16, 0, 1)), 15);
        assert_eq!(pos(&[1.0, -1.0], &pof2(4, 0, 1)), 2);
        let c = calibrate(&[0.5, -0.3, 0.9, -1.1], &p).unwrap();
        assert_eq!((c.min, c.max), (-1.1, 1.091_406_2));
    }

    #[test]
    fn min_mse_clips_one_outlier_for_a_finer_step() {
        let mut data: Vec<f32> = (0..99).map(|i| -0.49 + 0.01 * i as f32).collect();
        data.push(0.51);
        assert_eq!(pos(&data, &pof2(8, 0, 1)), 7);
        assert_eq!(pos(&data, &pof2(8, 1, 1)), 8);
    }

    #[test]
    fn vector_rounding_equals_the_specified_one() {
        for mode in 0..4 {
            let p = pof2(16, 0, mode);
            let data: Vec<f32> = (-70_000..70_000).map(|i| i as f32 * 0.3 + 0.499_999_97).collect();
            let mut fast = data.clone();
            fake_quantize(&mut fast, FixPos(1), &p);
            for (x, y) in data.iter().zip(&fast) {
                let want = fix::round_f32(x * 2.0, p.round()).clamp(-32768.0, 32767.0) / 2.0;
                assert_eq!(*y, want, "{x} mode {mode}");
            }
        }
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(calibrate(&[1.0, f32::NAN], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        assert_eq!(calibrate(&[f32::INFINITY], &pof2(8, 0, 1)), Err(RangeError::NotFinite));
        let unsigned = Pof2Params { unsigned: true, ..pof2(8, 0, 1) };
        assert_eq!(calibrate(&[-1.0], &unsigned), Err(RangeError::Negative));
        assert_eq!(pos(&[0.0, 0.5, 1.0], &unsigned), 7);
    }
}
