//! Fix positions and the quantization of single values.

use serde::{Deserialize, Serialize};

use crate::arith::{Round, limits};

/// A fix position: the number of fraction bits of a tensor. `value = q · 2^(-pos)`; may be negative.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FixPos(pub i8);

impl FixPos {
    /// Steps per unit, `2^pos`, exact for every position.
    pub fn scale(self) -> f32 {
        exp2(self.0.into())
    }

    /// One step, `2^(-pos)`.
    pub fn step(self) -> f32 {
        exp2(-i32::from(self.0))
    }
}

impl core::fmt::Display for FixPos {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The integer grid of a quantized tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FixSpec {
    /// Fraction bits.
    pub pos: FixPos,
    /// Width in bits, 1..=32.
    pub bits: u8,
    /// Two's complement or unsigned.
    pub signed: bool,
}

impl FixSpec {
    /// The common case: signed 8 bits.
    pub const fn int8(pos: i8) -> Self {
        Self { pos: FixPos(pos), bits: 8, signed: true }
    }
}

/// `2^e` as f32: exact where representable, else 0 or +∞.
pub fn exp2(e: i32) -> f32 {
    match e {
        ..-149 => 0.0,
        -149..-126 => f32::from_bits(1 << (e + 149)),
        -126..=127 => f32::from_bits(((e + 127) as u32) << 23),
        _ => f32::INFINITY,
    }
}

/// Rounds to an integer in f32 arithmetic, as the vendor's quantizer does.
///
/// `HalfUp` is `floor(x + 0.5)` with the sum rounded to f32, so the largest f32 below one half becomes 1 and odd
/// integers above 2^23 move; `HalfAwayFromZero` compares `x − floor(x)` with one half in f32.
pub fn round_f32(x: f32, round: Round) -> f32 {
    match round {
        Round::HalfToEven => libm::rintf(x),
        Round::HalfUp => libm::floorf(x + 0.5),
        Round::HalfAwayFromZero => {
            let floor = libm::floorf(x);
            if x - floor == 0.5 { if x > 0.0 { libm::ceilf(x) } else { floor } } else { libm::rintf(x) }
        }
        Round::Floor => libm::floorf(x),
    }
}

/// One value as an integer of `spec`: scaled by `2^pos` and rounded in f32, then saturated. NaN becomes 0.
pub fn quantize(x: f32, spec: FixSpec, round: Round) -> i32 {
    let (low, high) = limits(spec.bits, spec.signed);
    let r = round_f32(x * spec.pos.scale(), round);
    // A float-to-int cast saturates and sends NaN to 0; the clamp then narrows to the width.
    (r as i64).clamp(low, high) as i32
}

/// [`quantize`] to signed 8 bits with the DPU's rounding (half up), for `scale = pos.scale()`: without a branch, so that
/// compilers turn loops over it into vectors. Equal to `quantize(x, FixSpec::int8(pos), Round::HalfUp)` for every `x`.
#[inline(always)]
pub fn quantize_i8(x: f32, scale: f32) -> i8 {
    // Saturated first: what is rounded down afterwards stays between whole bounds. NaN passes and is cast to 0.
    let x = (x * scale + 0.5).clamp(-128.0, 127.0);
    let towards_zero = x as i32;
    (towards_zero - i32::from(x < towards_zero as f32)) as i8
}

/// The value of an integer of position `pos`.
pub fn dequantize(q: i32, pos: FixPos) -> f32 {
    q as f32 * pos.step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_is_the_exact_power_of_two() {
        for p in -120..=120i8 {
            assert_eq!(FixPos(p).scale() as f64, libm::pow(2.0, p.into()));
            assert_eq!(FixPos(p).step() as f64, libm::pow(2.0, -f64::from(p)));
        }
        assert_eq!(exp2(-149), f32::from_bits(1));
        assert_eq!(exp2(-150), 0.0);
        assert_eq!(exp2(128), f32::INFINITY);
    }

    /// x, then modes 0, 1, 2, 3: values observed from the vendor's tool.
    #[test]
    fn rounding_in_f32_keeps_the_vendors_artefacts() {
        let table: [(f32, [f32; 4]); 12] = [
            (-2.6, [-3., -3., -3., -3.]),
            (-2.5, [-2., -2., -3., -3.]),
            (-1.5, [-2., -1., -2., -2.]),
            (-0.5, [0., 0., -1., -1.]),
            (-0.49999997, [0., 0., -1., -1.]),
            (0.49999997, [0., 1., 0., 0.]),
            (0.5, [0., 1., 1., 0.]),
            (1.5, [2., 2., 2., 1.]),
            (2.5, [2., 3., 3., 2.]),
            (2.6, [3., 3., 3., 2.]),
            (8388609., [8388609., 8388610., 8388609., 8388609.]),
            (-8388609., [-8388609., -8388608., -8388609., -8388609.]),
        ];
        for (x, want) in table {
            for (mode, want) in want.into_iter().enumerate() {
                let round = Round::from_id(mode as u8).unwrap();
                assert_eq!(round_f32(x, round), want, "{x} mode {mode}");
            }
        }
    }

    #[test]
    fn quantize_i8_equals_quantize() {
        let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0];
        let all = (0..u32::MAX).step_by(9973).map(f32::from_bits);
        let near = (-1100..1100).map(|i| i as f32 * 0.125).flat_map(|x| [x, x.next_down(), x.next_up()]);
        for x in ends.into_iter().chain(all).chain(near) {
            for pos in [-20, -1, 0, 3, 7, 100] {
                let want = quantize(x, FixSpec::int8(pos), Round::HalfUp);
                assert_eq!(i32::from(quantize_i8(x, FixPos(pos).scale())), want, "{x} at {pos}");
            }
        }
    }

    #[test]
    fn quantize_saturates_after_rounding() {
        let spec = FixSpec::int8(6);
        assert_eq!(quantize(10.0, spec, Round::HalfUp), 127);
        assert_eq!(quantize(-10.0, spec, Round::HalfUp), -128);
        assert_eq!(quantize(-0.3, spec, Round::HalfToEven), -19);
        assert_eq!(quantize(f32::NAN, spec, Round::HalfUp), 0);
        assert_eq!(dequantize(-19, FixPos(6)), -0.296875);
    }
}
