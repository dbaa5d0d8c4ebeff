//! Exponentials of many values at once, with the bits of `libm`'s.
//!
//! The steps are those of `libm::expf` (which has them from FreeBSD's msun), with choices instead of branches, so that
//! compilers turn them into vectors. They hold for arguments whose result is a normal number; the others are left to `libm`.

use libm::expf;

/// Values that are looked at together: more than one vector, for steps that wait for each other.
const WIDTH: usize = 32;

/// Replaces each x by `function(x, exp(argument(x)))`.
#[inline(always)]
pub(super) fn each(values: &mut [f32], argument: impl Fn(f32) -> f32, function: impl Fn(f32, f32) -> f32) {
    let (whole, rest) = values.as_chunks_mut::<WIDTH>();
    for values in whole {
        // All are looked at, without a branch for each.
        if values.iter().fold(true, |all, x| all & (argument(*x).abs() < LIMIT)) {
            values.iter_mut().for_each(|x| *x = function(*x, normal(argument(*x))));
        } else {
            values.iter_mut().for_each(|x| *x = function(*x, expf(argument(*x))));
        }
    }
    rest.iter_mut().for_each(|x| *x = function(*x, expf(argument(*x))));
}

/// Arguments of a smaller magnitude have a normal number as their exponential.
const LIMIT: f32 = 87.0;

/// `expf(x)` for |x| < [`LIMIT`].
#[inline(always)]
fn normal(x: f32) -> f32 {
    let size = x.to_bits() & 0x7fff_ffff;
    let negative = x.to_bits() >> 31;
    let half = if negative == 1 { -0.5 } else { 0.5 };
    // x = k · ln 2 + rest; |rest| ≤ ln 2 / 2.
    let far = (core::f32::consts::LOG2_E * x + half) as i32;
    let near = 1 - 2 * negative as i32;
    let k = if size > 0x3f85_1592 {
        far
    } else if size > 0x3eb1_7218 {
        near
    } else {
        0
    };
    // ln 2 in two parts, of which the first times k is exact.
    let high = x - k as f32 * f32::from_bits(0x3f31_7200);
    let low = k as f32 * f32::from_bits(0x35bf_be8e);
    let rest = high - low;
    let square = rest * rest;
    let c = rest - square * (1.666_662_5e-1 + square * -2.766_733_3e-3);
    let y = 1.0 + (rest * c / (2.0 - c) - low + high);
    let scaled = y * f32::from_bits(((127 + k) as u32) << 23);
    if size > 0x3900_0000 { scaled } else { 1.0 + x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_libm() {
        let numbers = |step: usize| (0..=u32::MAX).step_by(step).map(f32::from_bits);
        // Close to where the steps differ, and everywhere in between.
        let borders = [0x3900_0000u32, 0x3eb1_7218, 0x3f85_1592, 87.0f32.to_bits(), 0x42b1_7218, 0x42cf_f1b5];
        let near = borders.iter().flat_map(|bits| bits - 500..bits + 500).map(f32::from_bits).flat_map(|x| [x, -x]);
        let mut values: std::vec::Vec<f32> = near.chain(numbers(4099)).collect();
        let want: std::vec::Vec<u32> = values.iter().map(|x| expf(*x).to_bits()).collect();
        let all = values.clone();
        each(&mut values, |x| x, |_, e| e);
        for ((x, got), want) in all.iter().zip(&values).zip(want) {
            assert_eq!(got.to_bits(), want, "{x}");
        }
    }
}
