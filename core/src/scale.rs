//! Integer grids with steps of any size, and the requantization between them.
//!
//! A [`Scale`] says what an integer q stands for: `(q − zero) · step`. A [`Multiplier`] brings an accumulator from one step
//! to another in integers only: `floor((acc · m + 2^(n−1)) / 2^n)`, with `2^30 ≤ m < 2^31`.

use serde::{Deserialize, Serialize};

use crate::fix::FixPos;

/// What the integers of a tensor stand for: `value = (q − zero) · step`, for q in `low..=high`.
///
/// Grids without negative integers are held moved down by half their range, so that all integers are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Scale {
    /// The step's bits, which unlike an f32 are equal to themselves.
    step: u32,
    /// The integer that stands for 0.
    pub zero: i16,
    /// The smallest integer.
    pub low: i16,
    /// The largest integer.
    pub high: i16,
}

impl Scale {
    /// A grid; `None` unless the step and its reciprocal are positive normal numbers and `low ≤ zero ≤ high`.
    pub fn new(step: f32, zero: i16, low: i16, high: i16) -> Option<Self> {
        let own = Self { step: step.to_bits(), zero, low, high };
        own.is_valid().then_some(own)
    }

    /// The 8-bit integers of a position.
    pub fn of_position(pos: FixPos) -> Self {
        Self { step: pos.step().to_bits(), zero: 0, low: -128, high: 127 }
    }

    /// What [`Self::new`] takes.
    pub fn is_valid(&self) -> bool {
        let normal = |x: f32| x.is_normal() && x > 0.0;
        normal(self.step()) && normal(1.0 / self.step()) && self.low <= self.zero && self.zero <= self.high
    }

    /// The value of one step.
    pub fn step(&self) -> f32 {
        f32::from_bits(self.step)
    }

    /// Whether an integer takes two bytes instead of one.
    pub const fn is_wide(&self) -> bool {
        self.low < -128 || self.high > 127
    }

    /// Bytes of an integer in memory.
    pub const fn bytes(&self) -> u32 {
        if self.is_wide() { 2 } else { 1 }
    }

    /// The largest distance of an integer from `zero`.
    pub const fn reach(&self) -> u32 {
        let (below, above) = (self.zero as i32 - self.low as i32, self.high as i32 - self.zero as i32);
        (if below > above { below } else { above }) as u32
    }

    /// A value as an integer: `floor(x · (1 / step) + 0.5)` in f32, plus `zero`, then saturated. NaN becomes `zero`.
    pub fn quantize(&self, x: f32) -> i16 {
        // A float-to-int cast saturates and sends NaN to 0.
        let steps = libm::floorf(x * (1.0 / self.step()) + 0.5) as i32;
        self.saturate(steps.into())
    }

    /// `zero` and so many steps, saturated.
    pub fn saturate(&self, steps: i64) -> i16 {
        bounded(steps, self.zero, [self.low, self.high])
    }

    /// The value of an integer, in f32.
    pub fn dequantize(&self, q: i16) -> f32 {
        (i32::from(q) - i32::from(self.zero)) as f32 * self.step()
    }
}

/// `zero + steps`, at least the first and at most the second of the bounds.
#[inline(always)]
pub fn bounded(steps: i64, zero: i16, [low, high]: [i16; 2]) -> i16 {
    // Not `clamp`, which has to refuse bounds in the wrong order.
    steps.saturating_add(zero.into()).max(low.into()).min(high.into()) as i16
}

/// `floor((acc · m + 2^(n−1)) / 2^n)`: exact where [`fits`] says so, for n in 1..=62. A power of two among the factors of m
/// is cancelled first, so that a pure shift takes every accumulator of 62 bits.
#[inline(always)]
pub const fn rescale(acc: i64, m: u32, n: u8) -> i64 {
    let (m, n) = cancelled(m, n);
    let product = acc.wrapping_mul(m);
    if n == 0 { product } else { product.wrapping_add(1 << (n - 1)) >> n }
}

/// Whether an accumulator of at most this magnitude stays exact in [`rescale`].
pub const fn fits(bound: u64, m: u32, n: u8) -> bool {
    let (m, _) = cancelled(m, n);
    match bound.checked_mul(m as u64) {
        Some(product) => product <= 1 << 62,
        None => false,
    }
}

/// m / 2^n with the powers of two that both have taken out.
const fn cancelled(m: u32, n: u8) -> (i64, u32) {
    let n = if n > 62 { 62 } else { n as u32 };
    let zeros = if m == 0 { n } else { m.trailing_zeros() };
    let zeros = if zeros > n { n } else { zeros };
    // A shift by all 32 bits is that of zero.
    ((m as u64 >> zeros) as i64, n - zeros)
}

/// A factor between the steps of an accumulator and of a result: `m / 2^n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplier {
    /// `2^30 ≤ m < 2^31`.
    pub m: u32,
    /// 1..=62.
    pub n: u8,
}

impl Multiplier {
    /// The nearest to a positive factor, half up; `None` for one outside about 2^−32..2^29, or one that is no number.
    pub fn of(factor: f64) -> Option<Self> {
        if !factor.is_normal() || factor < 0.0 {
            return None;
        }
        let bits = factor.to_bits();
        let exponent = (bits >> 52) as i32 - 1075;
        let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
        // 53 bits to 31.
        let rounded = (mantissa + (1 << 21)) >> 22;
        let (m, exponent) = if rounded == 1 << 31 { (1 << 30, exponent + 1) } else { (rounded, exponent) };
        let n = u8::try_from(-(exponent + 22)).ok().filter(|n| (1..=62).contains(n))?;
        Some(Self { m: m as u32, n })
    }

    /// A factor in units of 2^−n, rounded half up: less than 2^30 if it is a small one. `None` beyond 2^31, or for one that
    /// is no number.
    pub fn in_units(factor: f64, n: u8) -> Option<u32> {
        if factor == 0.0 {
            return Some(0);
        }
        let own = Self::of_any(factor)?;
        let shift = own.1.checked_add(n.into())?;
        let m = if shift >= 0 {
            own.0.checked_shl(shift.unsigned_abs()).filter(|m| m >> shift == own.0)?
        } else {
            crate::arith::shift_right(own.0 as i64, shift.unsigned_abs(), crate::arith::Round::HalfUp) as u64
        };
        u32::try_from(m).ok().filter(|m| *m < 1 << 31)
    }

    /// Mantissa and exponent: `factor = mantissa · 2^exponent`.
    fn of_any(factor: f64) -> Option<(u64, i32)> {
        let bits = factor.to_bits();
        let known = factor.is_normal() && factor > 0.0;
        known.then_some((bits & ((1 << 52) - 1) | 1 << 52, (bits >> 52) as i32 - 1075))
    }

    /// An accumulator in steps of the result.
    pub const fn apply(self, acc: i64) -> i64 {
        rescale(acc, self.m, self.n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The nearest integer to `acc · m / 2^n`, half up, from the fraction itself in 128 bits.
    fn exact(acc: i64, m: u32, n: u8) -> i128 {
        let (num, den) = (i128::from(acc) * i128::from(m), (0..n).fold(1i128, |d, _| 2 * d));
        let floor = num.div_euclid(den);
        floor + i128::from(2 * (num - floor * den) >= den)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn requantization_in_integers_equals_exact_arithmetic_over_its_domain(
            acc in prop_oneof![
                any::<i32>().prop_map(i64::from), -300..300i64, (0..31u32, -2..=2i64).prop_map(|(b, d)| (1 << b) + d),
                (0..31u32, -2..=2i64).prop_map(|(b, d)| d - (1 << b)), Just(i64::from(i32::MIN)),
            ],
            m in prop_oneof![1u32 << 30..1 << 31, Just(1 << 30), Just((1 << 31) - 1), (0..20u32).prop_map(|b| (3 << 29) + (1 << b))],
            n in 1u8..=62,
        ) {
            prop_assert!(fits(acc.unsigned_abs(), m, n));
            prop_assert_eq!(i128::from(rescale(acc, m, n)), exact(acc, m, n));
        }

        #[test]
        fn a_shift_takes_accumulators_of_62_bits(acc in -(1i64 << 61)..1 << 61, n in 30u8..=62) {
            prop_assert!(fits(acc.unsigned_abs(), 1 << 30, n));
            prop_assert_eq!(i128::from(rescale(acc, 1 << 30, n)), exact(acc, 1 << 30, n));
        }

        #[test]
        fn a_multiplier_is_within_half_a_unit_of_its_factor(mantissa in 1.0f64..2.0, exponent in -31i32..28) {
            let factor = mantissa * libm::exp2(exponent.into());
            let Multiplier { m, n } = Multiplier::of(factor).unwrap();
            prop_assert!((1 << 30..1u32 << 31).contains(&m) && (1..=62).contains(&n));
            let units = factor * libm::exp2(n.into());
            prop_assert!((units - f64::from(m)).abs() <= 0.5);
            prop_assert_eq!(Multiplier::in_units(factor, n), Some(m));
            prop_assert!((f64::from(Multiplier::in_units(factor / 1024.0, n).unwrap()) - units / 1024.0).abs() <= 0.5);
        }
    }

    #[test]
    fn factors_without_a_multiplier_are_refused() {
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e12, 5e-324] {
            assert_eq!(Multiplier::of(factor), None, "{factor}");
        }
        assert_eq!(Multiplier::of(1.0), Some(Multiplier { m: 1 << 30, n: 30 }));
        assert_eq!(Multiplier::of(2.0 - f64::EPSILON), Some(Multiplier { m: 1 << 30, n: 29 }));
        assert_eq!(Multiplier::in_units(4.0, 30), None);
    }

    #[test]
    fn values_are_counted_in_steps_from_the_zero_point_and_saturate() {
        let scale = Scale::new(0.5, 3, -128, 127).unwrap();
        let cases = [(0.0, 3), (0.24, 3), (0.25, 4), (-0.25, 3), (-0.26, 2), (1e9, 127), (-1e9, -128), (f32::NAN, 3)];
        for (x, q) in cases {
            assert_eq!(scale.quantize(x), q, "{x}");
        }
        assert_eq!(scale.dequantize(-128), -65.5);
        assert!((scale.bytes(), scale.reach(), scale.is_valid()) == (1, 131, true));
        assert!(Scale::new(1.0, 0, -32768, 32767).unwrap().is_wide());
        for bad in [
            Scale::new(0.0, 0, 0, 0),
            Scale::new(f32::NAN, 0, 0, 0),
            Scale::new(1.0, 4, 0, 3),
            Scale::new(1e-39, 0, 0, 0),
        ] {
            assert_eq!(bad, None);
        }
    }
}
