//! Rounding, shifting and saturating integers: the only place where tensor values are rounded.

use serde::{Deserialize, Serialize};

/// How a real number becomes an integer. The discriminants are the vendor's `round_mode` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Round {
    /// Nearest, ties to the even neighbour (mode 0; the vendor uses it for weights and biases).
    HalfToEven = 0,
    /// Nearest, ties towards +∞ (mode 1; what the DPU does).
    HalfUp = 1,
    /// Nearest, ties away from zero (mode 2).
    HalfAwayFromZero = 2,
    /// Towards −∞ (mode 3).
    Floor = 3,
}

impl Round {
    /// The mode with the vendor's number `id`, or `None` if there is no such mode.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::HalfToEven),
            1 => Some(Self::HalfUp),
            2 => Some(Self::HalfAwayFromZero),
            3 => Some(Self::Floor),
            _ => None,
        }
    }

    /// The vendor's number of this mode.
    pub const fn id(self) -> u8 {
        self as u8
    }
}

/// `value / 2^shift`, rounded to an integer.
///
/// Exact for every `value` and `shift`: no intermediate overflows. A shift of 64 or more sees only the sign.
pub const fn shift_right(value: i64, shift: u32, round: Round) -> i64 {
    if shift == 0 {
        return value;
    }
    // i128 holds value + 2^(shift-1) for every shift up to 64; beyond, |value / 2^shift| < 1/2.
    let shift = if shift > 65 { 65 } else { shift };
    let v = value as i128;
    let floor = v >> shift;
    let rest = v - (floor << shift);
    let half = 1i128 << (shift - 1);
    let up = match round {
        Round::Floor => false,
        Round::HalfUp => rest >= half,
        Round::HalfToEven => rest > half || (rest == half && floor & 1 == 1),
        Round::HalfAwayFromZero => rest > half || (rest == half && value > 0),
    };
    (floor + up as i128) as i64
}

/// The smallest and largest integer of `bits` bits (1..=63).
pub const fn limits(bits: u8, signed: bool) -> (i64, i64) {
    if signed { (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1) } else { (0, (1i64 << bits) - 1) }
}

/// `value` clamped to the integers of `bits` bits (1..=63).
pub const fn saturate(value: i64, bits: u8, signed: bool) -> i64 {
    let (low, high) = limits(bits, signed);
    if value < low {
        low
    } else if value > high {
        high
    } else {
        value
    }
}

/// An accumulator brought to an output grid: `saturate(round(acc · 2^(-shift)))`.
///
/// Order: shift, round, then saturate. A negative `shift` multiplies, and saturates instead of overflowing.
pub const fn requantize(acc: i64, shift: i32, round: Round, bits: u8, signed: bool) -> i64 {
    if shift >= 0 {
        return saturate(shift_right(acc, shift as u32, round), bits, signed);
    }
    let left = shift.unsigned_abs();
    let (low, high) = limits(bits, signed);
    if acc == 0 {
        return saturate(0, bits, signed);
    }
    // Beyond 62 bits, or when the product leaves i64, any non-zero value is past the limits.
    if left > 62 || acc > (i64::MAX >> left) || acc < (i64::MIN >> left) {
        return if acc > 0 { high } else { low };
    }
    saturate(acc << left, bits, signed)
}

/// [`requantize`] to signed 8 bits with the DPU's rounding (half up) from a 32-bit accumulator: the hot path of every
/// layer. Equal to `requantize(acc, shift, Round::HalfUp, 8, true)` for every argument.
#[inline(always)]
pub const fn requantize_i8(acc: i32, shift: i32) -> i8 {
    // 0 < shift < 31: adding half may leave i32, so split off the last bit that decides the rounding instead.
    let shifted = if shift > 0 && shift < 32 {
        let low = acc >> (shift - 1);
        (low >> 1) + (low & 1)
    } else if shift == 0 {
        acc
    } else if shift > 0 {
        // At most one half, rounded up.
        0
    } else {
        // Beyond 8 bits any non-zero value is past the limits.
        let left = shift.unsigned_abs();
        let near = if acc > 255 {
            255
        } else if acc < -256 {
            -256
        } else {
            acc
        };
        if left > 8 { near << 8 } else { near << left }
    };
    if shifted > 127 {
        127
    } else if shifted < -128 {
        -128
    } else {
        shifted as i8
    }
}

/// [`requantize_i8`] of every value into the bytes of `to`, as many as the shorter has: the usual shifts without a branch
/// per lane.
#[inline(always)]
pub fn requantize_lanes(values: impl Iterator<Item = i32>, shift: i32, to: &mut [u8]) {
    let pairs = to.iter_mut().zip(values);
    if shift > 0 && shift < 32 {
        pairs.for_each(|(to, acc)| {
            let low = acc >> (shift - 1);
            *to = ((low >> 1) + (low & 1)).clamp(-128, 127) as u8;
        });
    } else {
        pairs.for_each(|(to, acc)| *to = requantize_i8(acc, shift) as u8);
    }
}

/// A bias of position `bpos` as an integer of the accumulator, whose step is `2^(-(wpos + ipos))`.
///
/// `shift_bias = wpos + ipos − bpos`, `shift_cut = wpos + ipos − opos`. With a negative `shift_bias` the bias is
/// finer than the accumulator; the dropped bits are folded in so that rounding half up by `shift_cut` afterwards gives
/// the exact result: `floor((N + f) / 2^s) = floor((N + floor f) / 2^s)` for integers N, and for `shift_cut = 0` the
/// half that rounding adds is folded in with it.
pub const fn align_bias(bias: i64, shift_bias: i32, shift_cut: i32) -> i64 {
    if shift_bias >= 0 {
        bias << shift_bias
    } else {
        let round = if shift_cut > 0 { Round::Floor } else { Round::HalfUp };
        shift_right(bias, shift_bias.unsigned_abs(), round)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds the exact fraction `num / 2^shift` by comparing against neighbours, with no shift operator at work.
    fn exact(num: i128, shift: u32, round: Round) -> i128 {
        let den = (0..shift).fold(1i128, |d, _| d * 2);
        let floor = num.div_euclid(den);
        let twice_rest = 2 * (num - floor * den);
        match round {
            Round::Floor => floor,
            _ if twice_rest < den => floor,
            _ if twice_rest > den => floor + 1,
            Round::HalfUp => floor + 1,
            Round::HalfToEven => floor + floor.rem_euclid(2),
            Round::HalfAwayFromZero => {
                if num > 0 {
                    floor + 1
                } else {
                    floor
                }
            }
        }
    }

    const MODES: [Round; 4] = [Round::HalfToEven, Round::HalfUp, Round::HalfAwayFromZero, Round::Floor];

    #[test]
    fn shift_right_is_exact_for_every_16_bit_value_and_shift() {
        for value in i16::MIN..=i16::MAX {
            for shift in 0..=18 {
                for round in MODES {
                    assert_eq!(
                        shift_right(value.into(), shift, round) as i128,
                        exact(value.into(), shift, round),
                        "{value} >> {shift} {round:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn shift_right_is_exact_at_the_ends_of_i64() {
        for value in [i64::MIN, i64::MIN + 1, -1, 1, i64::MAX - 1, i64::MAX] {
            for shift in 0..=100 {
                for round in MODES {
                    assert_eq!(shift_right(value, shift, round) as i128, exact(value.into(), shift, round));
                }
            }
        }
    }

    #[test]
    fn requantize_clamps_the_exact_value() {
        for value in (i16::MIN..=i16::MAX).step_by(7) {
            for shift in -70i32..=20 {
                for round in MODES {
                    for bits in [4u8, 8, 16] {
                        let wide = if shift >= 0 {
                            exact(value.into(), shift as u32, round)
                        } else {
                            i128::from(value) << shift.unsigned_abs()
                        };
                        let (low, high) = limits(bits, true);
                        let want = wide.clamp(low.into(), high.into());
                        assert_eq!(requantize(value.into(), shift, round, bits, true) as i128, want);
                    }
                }
            }
        }
    }

    #[test]
    fn requantize_i8_equals_requantize() {
        let ends = [i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX, 1 << 30, -(1 << 30)];
        for acc in (i16::MIN as i32..=i16::MAX as i32).chain(ends) {
            for shift in -40..=40 {
                assert_eq!(requantize_i8(acc, shift) as i64, requantize(acc.into(), shift, Round::HalfUp, 8, true));
            }
        }
    }

    #[test]
    fn aligned_bias_gives_the_exactly_rounded_sum() {
        for bias in -128i64..=127 {
            for sum in [-70_000i64, -257, -3, -1, 0, 1, 2, 255, 256, 4097, 99_999] {
                for shift_cut in 0..=16 {
                    for shift_bias in -16..=16i32 {
                        let fine = shift_bias.min(0).unsigned_abs();
                        let total = (i128::from(sum) << fine) + (i128::from(bias) << (shift_bias.max(0)));
                        let want = exact(total, shift_cut as u32 + fine, Round::HalfUp);
                        let got =
                            shift_right(sum + align_bias(bias, shift_bias, shift_cut), shift_cut as u32, Round::HalfUp);
                        assert_eq!(got as i128, want, "{sum} + {bias}·2^{shift_bias} cut {shift_cut}");
                    }
                }
            }
        }
    }
}
