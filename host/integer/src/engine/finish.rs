//! What becomes of an accumulator: activation, shift, rounding half up, saturation.

use shiftwise_core::arith::{Round, requantize, requantize_i8};

use crate::graph::{IntAct, Kind};

/// 256 times the slope of LeakyReLU for negative values.
pub(super) const LEAKY: i32 = 26;

/// Activation, shift, rounding half up, saturation. ReLU6's bound lies on the output grid.
#[inline]
pub(super) fn finish(acc: i32, shift: i32, act: IntAct, out: Kind) -> i8 {
    match act {
        IntAct::None => requantize_i8(acc, shift),
        IntAct::Relu => requantize_i8(acc.max(0), shift),
        IntAct::Relu6 => requantize_i8(acc.max(0), shift).min(relu6_limit(out)),
        IntAct::LeakyRelu if acc < 0 => finish_wide(acc.into(), shift, act, out),
        IntAct::LeakyRelu => requantize_i8(acc, shift),
    }
}

/// [`finish`] of accumulators beyond 32 bits.
pub(super) fn finish_wide(acc: i64, shift: i32, act: IntAct, out: Kind) -> i8 {
    let i8 = |acc: i64, shift: i32| requantize(acc, shift, Round::HalfUp, 8, true) as i8;
    match act {
        IntAct::None => i8(acc, shift),
        IntAct::Relu => i8(acc.max(0), shift),
        IntAct::Relu6 => i8(acc.max(0), shift).min(relu6_limit(out)),
        IntAct::LeakyRelu if acc < 0 => i8(acc * i64::from(LEAKY), shift + 8),
        IntAct::LeakyRelu => i8(acc, shift),
    }
}

/// 6 in steps of the output, at most 127.
pub(super) fn relu6_limit(out: Kind) -> i8 {
    // From 5 fraction bits on, 6 is past the largest integer; a large shift would lose it, so saturate.
    match out {
        Kind::Fixed(pos) if pos.0 >= 5 => 127,
        Kind::Fixed(pos) => requantize(6, -i32::from(pos.0), Round::HalfUp, 8, true) as i8,
        Kind::Float => 6,
    }
}
