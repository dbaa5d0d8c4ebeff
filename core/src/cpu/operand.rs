//! What kernels share: their operands, the end of an accumulator, indices under strides.

use crate::arith::requantize_i8;
use crate::memory::Rest;
use crate::model::{Act, TensorDesc};

/// Elements that a layer reads: bytes of their own, or `None` where they lie in the output's place and are overwritten.
pub type Operand<'a> = Option<&'a [u8]>;

/// A tensor beside, or in the place of, the output.
pub(super) fn operand<'a>(input: &TensorDesc<'_>, output: &TensorDesc<'_>, rest: &Rest<'a>) -> Option<Operand<'a>> {
    if input.place == output.place { Some(None) } else { rest.tensor(input).map(Some) }
}

pub(super) fn get_i32(bytes: &[u8], offset: usize) -> i32 {
    match bytes.get(offset..offset + 4) {
        Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// The output of an accumulator: activation, right shift, rounded half up, saturated.
#[inline(always)]
pub fn finish(acc: i32, act: Act, shift: i8) -> i8 {
    let shift = i32::from(shift);
    match act {
        Act::None => requantize_i8(acc, shift),
        Act::Relu => requantize_i8(acc.max(0), shift),
        Act::ReluMax(n) => requantize_i8(acc.clamp(0, n.max(0)), shift),
        Act::LeakyRelu if acc < 0 => match acc.checked_mul(26) {
            Some(scaled) => requantize_i8(scaled, shift + 8),
            // As 26 · (256 a + b), of which the last eight bits don't decide the rounding of a shift beyond them.
            None if shift > 0 => requantize_i8((acc >> 8) * 26 + (((acc & 255) * 26) >> 8), shift),
            None => i8::MIN,
        },
        Act::LeakyRelu => requantize_i8(acc, shift),
    }
}

/// Calls `each` for every index of the shape `dims`, in memory order, with the offsets that it has under `strides`.
pub(super) fn walk<const N: usize>(dims: [u32; 4], strides: [[u32; 4]; N], mut each: impl FnMut([usize; N])) {
    let [a, b, c, d] = dims;
    for i in 0..a {
        for j in 0..b {
            for k in 0..c {
                let row = strides.map(|[s, t, u, _]| (i * s + j * t + k * u) as usize);
                for l in 0..d {
                    let mut at = row;
                    at.iter_mut().zip(strides).for_each(|(at, [.., s])| *at += (l * s) as usize);
                    each(at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::{Round, requantize};

    #[test]
    fn a_leak_is_rounded_once() {
        // Around the largest number whose product with 26 fits, and at the ends.
        let edges = (-82_595_700..-82_595_400).chain(i32::MIN..i32::MIN + 600).chain(-600..0);
        for acc in edges.chain((1..2000).map(|n| i32::MIN + n * 1_073_333)).filter(|acc| *acc < 0) {
            for shift in -31..=31i8 {
                let want = requantize(i64::from(acc) * 26, i32::from(shift) + 8, Round::HalfUp, 8, true);
                assert_eq!(i64::from(finish(acc, Act::LeakyRelu, shift)), want, "{acc} {shift}");
            }
        }
    }
}
