//! The vendor's FixNeuron arithmetic: a variant of the power-of-two quantizer for 8 bits.
//!
//! Written from its description; the vendor's own operation is not published in a form that runs.

use super::params::Method;
use super::state::State;
use crate::observer::extrema::extrema;
use crate::observer::range_error::RangeError;
use shiftwise_core::arith::Round;
use shiftwise_core::fix::{FixPos, exp2, round_f32};

/// The position of an all-zero tensor.
const ALL_ZERO: i32 = 127;

fn quantize(x: f32, pos: i32, round: Round) -> f32 {
    let step = exp2(-pos);
    (round_f32(x / step, round) * step).max(-128.0 * step).min(128.0 * step - step)
}

/// Range and position. The finest at which values are at most half a step beyond the integers, or, by least error, of
/// that one and the four finer ones the first with the least squared error.
pub(super) fn calibrate(data: &[f32], round: Round, method: Method) -> Result<State, RangeError> {
    let (min, max) = extrema(data)?;
    let step = (min / -128.5).max(max / 127.5);
    if step <= 0.0 || data.is_empty() {
        return Ok(State::new(FixPos(ALL_ZERO as i8), 0.0, 0.0));
    }
    let first = libm::floor(libm::log2(1.0 / f64::from(step))) as i32;
    let error = |pos: i32| -> f32 {
        let square = |x: &f32| (quantize(*x, pos, round) - x) * (quantize(*x, pos, round) - x);
        data.iter().map(square).sum()
    };
    let pos = match method {
        Method::NonOverflow => first,
        Method::MinMse => {
            let mut best = (first, error(first));
            for pos in first + 1..first + 5 {
                let own = error(pos);
                if own < best.1 {
                    best = (pos, own);
                }
            }
            best.0
        }
    };
    Ok(State::new(FixPos(pos.clamp(-128, 127) as i8), min, max))
}

/// Replaces every value by its fake-quantized one.
pub(super) fn fake_quantize(data: &mut [f32], pos: FixPos, round: Round) {
    data.iter_mut().for_each(|x| *x = quantize(*x, pos.0.into(), round));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::pof2::{Params, Rounding};

    #[test]
    fn positions_and_rounding_by_example() {
        let pos = |data: &[f32]| calibrate(data, Round::HalfAwayFromZero, Method::NonOverflow).unwrap().pos.0;
        assert_eq!((pos(&[-1.0, 0.5]), pos(&[1.0, 0.5]), pos(&[-1.005, 0.5])), (7, 6, 6));
        let quantized = |mode: u8| {
            let p: Params = serde_json::from_value(serde_json::json!({
                "bit_width": 8, "method": 0, "round_mode": 1, "use_fixneuron_quant": mode,
            }))
            .unwrap();
            let Rounding::FixNeuron(round) = p.rounding() else { panic!("{p:?}") };
            let mut data = [-2.5, 2.5, -1.5];
            fake_quantize(&mut data, FixPos(0), round);
            data
        };
        assert_eq!((quantized(1), quantized(2)), ([-3.0, 3.0, -2.0], [-2.0, 3.0, -1.0]));
    }
}
