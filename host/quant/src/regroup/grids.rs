//! The grids that values stand on, as quantizers: of what a file says, or of values alone.

pub use super::integers::Integers;

use crate::scheme::affine::Affine;
use crate::scheme::pof2::{self, Pof2, State};
use crate::scheme::{Quantizer, Scheme};
use shiftwise_core::arith::{Round, limits};
use shiftwise_core::fix::FixPos;
use shiftwise_graph::ops::Op;
use shiftwise_tensor::tensor::Tensor;

/// The position that the vendor's tool gives to nothing but zeros.
const ZEROS: i32 = 51;

/// The exponent of a step that is a power of two: step = 2^(−position). `None` for others, and those that no position says.
pub fn position(step: f32) -> Option<FixPos> {
    let exponent = (step.to_bits() >> 23) as i32 - 127;
    let whole = step > 0.0 && step.is_normal() && step.to_bits() & 0x7f_ffff == 0;
    i8::try_from(-exponent).ok().filter(|_| whole).map(FixPos)
}

/// A quantizer of positions: one, or one for each channel along an axis.
pub fn of_positions(to: Integers, round: Round, positions: &[FixPos], axis: Option<i64>) -> Quantizer {
    let (low, high) = limits(to.bits, !to.unsigned);
    let params = pof2::Params {
        bit_width: to.bits,
        method: 1,
        round_mode: round.id(),
        symmetry: true,
        per_channel: axis.is_some(),
        channel_axis: axis.unwrap_or(-1),
        use_fixneuron_quant: 0,
        unsigned: to.unsigned,
        narrow_range: to.narrow,
    };
    let state = |pos: &FixPos| State {
        pos: *pos,
        calibrated: *pos,
        min: (low + i64::from(to.narrow)) as f32 * pos.step(),
        max: high as f32 * pos.step(),
    };
    Quantizer::Pof2(Pof2 { params, states: positions.iter().map(state).collect() })
}

/// A quantizer of steps and zero points: of positions where every step is one and zero is zero.
///
/// `None` for steps that are no steps.
pub fn of_steps(to: Integers, round: Round, steps: &[(f32, i64)], axis: Option<i64>) -> Option<Quantizer> {
    let centre = if to.unsigned { 1i64 << (to.bits - 1) } else { 0 };
    let positions: Option<Vec<FixPos>> =
        steps.iter().map(|(step, zero)| position(*step).filter(|_| *zero == 0 || *zero == centre)).collect();
    // Unsigned integers with zero in their middle are the signed ones.
    let same = steps.iter().all(|(_, zero)| *zero == steps[0].1);
    match positions.filter(|all| !all.is_empty() && same) {
        Some(all) => {
            let unsigned = to.unsigned && steps[0].1 == 0;
            Some(of_positions(Integers { unsigned, ..to }, round, &all, axis))
        }
        None => Affine::of_steps(to, round, steps, axis).map(Quantizer::Affine),
    }
}

/// TensorFlow's quantizer of a range (`FakeQuantWithMinMaxVars`): of positions where it is the grid of one.
///
/// `None` for a range that is none, and for a width that TensorFlow has not.
pub fn of_range(bits: u8, narrow: bool, min: f32, max: f32) -> Option<Quantizer> {
    Affine::of_range(Integers { bits, unsigned: false, narrow }, min, max).map(Quantizer::Affine)
}

/// The nearest positions to steps of any size: of integers from `low` to `high` steps around zero the finest that holds
/// both ends. `None` for steps that are no steps.
pub fn snapped(to: Integers, step: f32, zero: i64) -> Option<FixPos> {
    let (low, high) = limits(to.bits, !to.unsigned);
    let reach = (high - zero).max(zero - low) as f32 * step;
    let most = limits(to.bits, true).1 as f32 + 1.0;
    if !(reach.is_finite() && reach > 0.0) {
        return None;
    }
    let pos = (0..=255).map(|n| 127 - n).find(|pos| reach * 2f32.powi(*pos) <= most)?;
    i8::try_from(pos).ok().map(FixPos)
}

/// The coarsest and the finest position at which all values are integers of 8 bits.
fn fitting(values: &[f32]) -> Option<(i32, i32)> {
    let mut ends = (i32::MIN, i32::MAX);
    for x in values.iter().filter(|x| **x != 0.0) {
        if !x.is_normal() {
            return None;
        }
        let exponent = ((x.to_bits() >> 23) & 0xff) as i32 - 127;
        let mantissa = x.to_bits() & 0x7f_ffff | 0x80_0000;
        let lowest = exponent - 23 + mantissa.trailing_zeros() as i32;
        // |x| = mantissa · 2^(exponent − 23), which is to stay below 128, or at −128.
        let most = if *x < 0.0 && mantissa == 0x80_0000 { 7 - exponent } else { 6 - exponent };
        ends = (ends.0.max(-lowest), ends.1.min(most));
    }
    match ends {
        (i32::MIN, _) => Some((ZEROS, ZEROS)),
        (low, high) => (low <= high).then_some(ends),
    }
}

/// The position of integers of 8 bits that values are: the finest one that has them all, as calibration without clipping
/// chooses it. `None` for values that are not all on such a grid.
pub fn of_values(values: &[f32]) -> Option<FixPos> {
    fitting(values).map(|(_, finest)| FixPos(finest.clamp(-128, 127) as i8))
}

/// The quantizers of a layer's weights, of the values alone: exporters write weights as the values that they have on their
/// grid.
pub fn of_weights(op: &Op) -> Vec<Option<Quantizer>> {
    let of =
        |values: &Tensor| of_values(values.data()).map(|pos| of_positions(Integers::INT8, Round::HalfUp, &[pos], None));
    op.layer().weights().into_iter().map(|(_, values)| of(values)).collect()
}

/// 8 bits for values of more, at the finest position that clips none, which is at most their own.
pub(super) fn nearest(values: &Tensor, own: Option<FixPos>) -> Quantizer {
    let largest = values.data().iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let own = own.map_or(ZEROS, |pos| i32::from(pos.0));
    let clips = |pos: i32| (largest * 2f32.powi(pos) + 0.5).floor() > 127.0;
    let pos = (-128..=own).rev().find(|pos| !clips(*pos)).unwrap_or(-128);
    of_positions(Integers::INT8, Round::HalfUp, &[FixPos(pos as i8)], None)
}

impl Quantizer {
    /// Whether its integers are positions of more than 8 bits.
    pub(super) fn is_wide(&self) -> bool {
        matches!(self, Self::Pof2(own) if own.params.bit_width > 16 && own.pos().is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_of_values_that_fill_their_grid() {
        assert_eq!(of_values(&[0.5, -0.25, 0.75]), Some(FixPos(7)));
        assert_eq!(of_values(&[127.0, -1.0]), Some(FixPos(0)));
        assert_eq!(of_values(&[-128.0]), Some(FixPos(0)));
        assert_eq!(of_values(&[-64.0, 63.0]), Some(FixPos(1)));
        assert_eq!(of_values(&[0.0; 3]), Some(FixPos(51)));
        assert_eq!(of_values(&[1.0, 0.001]), None);
        assert_eq!(of_values(&[f32::NAN]), None);
    }

    #[test]
    fn steps_of_powers_of_two_are_positions() {
        assert_eq!(position(0.125), Some(FixPos(3)));
        assert_eq!(position(4.0), Some(FixPos(-2)));
        assert_eq!((position(0.1), position(0.0), position(-0.5)), (None, None, None));
        let uint8 = Integers { bits: 8, unsigned: true, narrow: false };
        let Some(Quantizer::Pof2(own)) = of_steps(uint8, Round::HalfUp, &[(0.5, 128)], None) else {
            panic!("a position")
        };
        assert!(!own.params.unsigned && own.pos() == Some(FixPos(1)));
    }

    #[test]
    fn a_float_scale_keeps_its_step_and_its_zero_point() {
        for (unsigned, zero) in [(true, 100), (false, -28), (true, 0), (false, 0)] {
            let to = Integers { bits: 8, unsigned, narrow: false };
            for round in [Round::HalfUp, Round::HalfToEven] {
                let own = of_steps(to, round, &[(0.013, zero)], None);
                let Some(Quantizer::Affine(own)) = own else { panic!("a float scale") };
                let [(step, at)] = own.steps()[..] else { panic!("one step") };
                // What rounds as TensorFlow does has signed integers: its unsigned ones are 128 less.
                let zero = if unsigned && round == Round::HalfUp { zero - 128 } else { zero };
                assert!((step / 0.013 - 1.0).abs() < 1e-6 && at == zero as f32, "{step} {at} {zero}");
            }
        }
    }
}
