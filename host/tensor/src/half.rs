//! Floats of 16 bits: bit patterns to f32, and f32 to the nearest, ties to even.
//!
//! An f32 holds every value of both types, so a value that was rounded is kept as an f32.

/// The nearest half float (IEEE binary16) as an f32. Magnitudes from 65520 become infinite.
pub fn f16(x: f32) -> f32 {
    f16_value(f16_bits(x))
}

/// The nearest bfloat16 as an f32.
pub fn bf16(x: f32) -> f32 {
    bf16_value(bf16_bits(x))
}

/// The value of a bfloat16: the upper half of an f32.
pub fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bits of the nearest bfloat16. NaN stays NaN and keeps its sign.
pub fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // A payload that lies in the lower half alone would leave an infinity.
        return (bits >> 16) as u16 | 0x40;
    }
    // The last bit that stays decides ties. A carry runs into the exponent, as it has to.
    let up = 0x7fff + (bits >> 16 & 1);
    ((bits + up) >> 16) as u16
}

/// The value of a half float, exactly.
pub fn f16_value(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, bits >> 10 & 31, u32::from(bits & 1023));
    match exponent {
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        0 => f32::from_bits(sign | (mantissa as f32 * (1.0 / 16_777_216.0)).to_bits()),
        e => f32::from_bits(sign | (u32::from(e) + 112) << 23 | mantissa << 13),
    }
}

/// The bits of the nearest half float. NaN stays NaN and keeps its sign.
pub fn f16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let (sign, magnitude) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | (magnitude >> 13 & 0x3ff) as u16;
    }
    // 65520, from which on the nearest is beyond the largest.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // Below 2^−14 all steps are 2^−24: an f32 sum with 0.5, whose last bit is that step, rounds to them.
    if magnitude < 0x3880_0000 {
        let sum = f32::from_bits(magnitude) + 0.5;
        return sign | (sum.to_bits() - 0x3f00_0000) as u16;
    }
    let up = 0xfff + (magnitude >> 13 & 1);
    sign | ((magnitude - (112 << 23) + up) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a pattern by its definition, in f64.
    fn defined(bits: u16, exponent_bits: u32, mantissa_bits: u32) -> f64 {
        let exponent = i32::from(bits >> mantissa_bits & ((1 << exponent_bits) - 1));
        let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1u32 << mantissa_bits);
        let bias = (1 << (exponent_bits - 1)) - 1;
        let magnitude = match exponent {
            0 => mantissa * 2f64.powi(1 - bias),
            e if e == (1 << exponent_bits) - 1 => {
                if mantissa == 0.0 {
                    f64::INFINITY
                } else {
                    f64::NAN
                }
            }
            e => (1.0 + mantissa) * 2f64.powi(e - bias),
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn every_pattern_has_its_value_and_comes_back() {
        for bits in 0..=u16::MAX {
            let table: [(f32, u16, f64); 2] = [
                (f16_value(bits), f16_bits(f16_value(bits)), defined(bits, 5, 10)),
                (bf16_value(bits), bf16_bits(bf16_value(bits)), defined(bits, 8, 7)),
            ];
            for (value, back, want) in table {
                assert!(f64::from(value) == want || (value.is_nan() && want.is_nan()), "{bits:#x}: {value} {want}");
                assert_eq!(value.is_sign_negative(), bits >> 15 == 1, "{bits:#x}");
                assert!(
                    back == bits
                        || (value.is_nan() && f32::from_bits(u32::from(back) << 16).is_nan())
                        || value.is_nan()
                );
            }
        }
    }

    /// Between any two neighbours: what is nearer wins, and of the middle the even one.
    #[test]
    fn the_nearest_is_found_between_all_neighbours() {
        let next = |x: f32, up: bool| f32::from_bits(if up { x.to_bits() + 1 } else { x.to_bits() - 1 });
        /// From bits, to bits, and the bits of the largest number.
        type Half = (fn(u16) -> f32, fn(f32) -> u16, u16);
        let types: [Half; 2] = [(f16_value, f16_bits, 0x7bff), (bf16_value, bf16_bits, 0x7f7f)];
        for (value, round, last) in types {
            for low in 0..last {
                let middle = (f64::from(value(low)) + f64::from(value(low + 1))) / 2.0;
                // Between the smallest bfloat16 an f32 has the middle too.
                let middle = middle as f32;
                let even = low + (low & 1);
                for (x, want) in [(next(middle, false), low), (middle, even), (next(middle, true), low + 1)] {
                    assert_eq!(round(x), want, "{x}");
                    assert_eq!(round(-x), want | 0x8000, "{x}");
                }
            }
        }
        assert_eq!((f16(65519.996), f16(65520.0), f16(f32::NEG_INFINITY)), (65504.0, f32::INFINITY, f32::NEG_INFINITY));
        assert!(f16(f32::NAN).is_nan() && bf16(f32::from_bits(0x7f80_0001)).is_nan());
        assert_eq!(bf16(f32::MAX), f32::INFINITY);
    }
}
