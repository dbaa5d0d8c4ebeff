//! From accumulator to output, with everything decided once per layer that can be.

use shiftwise_core::arith::requantize_i8;
use shiftwise_core::cpu::finish;
use shiftwise_core::model::{Act, ConvOp};

/// What happens to an accumulator.
#[derive(Clone, Copy, Debug)]
pub(super) enum Finish {
    /// Right shift, rounded half up, clamped: activations up to a threshold are monotone, so that they may follow the
    /// shift.
    Clamp(Clamp),
    /// Everything else: a left shift of the sum before the bias is added, then [`finish`].
    General(General),
}

/// See [`Finish::Clamp`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Clamp {
    /// The right shift less one, 0..=30: the bit that decides the rounding is dropped last.
    pub(super) shift: u32,
    /// Least output.
    pub(super) low: i32,
    /// Greatest output.
    pub(super) high: i32,
    /// LeakyReLU: what is negative is multiplied by 26/256, rounded once with the shift. Only with shifts that let a
    /// product that would leave 32 bits saturate anyway.
    pub(super) leak: bool,
}

/// Shifts up to this one, less one, go with [`Clamp::leak`]: −2^26 · 26 / 2^(8 + 15) is below −128.
const LEAKING: u32 = 14;

/// See [`Finish::General`].
#[derive(Clone, Copy, Debug)]
pub(super) struct General {
    act: Act,
    shift: i8,
    fine: u8,
}

impl Clamp {
    /// The output.
    #[inline(always)]
    pub(super) fn of(self, acc: i32) -> i8 {
        let low = if self.leak { self.leaked(acc) } else { acc >> self.shift };
        ((low >> 1) + (low & 1)).max(self.low).min(self.high) as i8
    }
}

impl Clamp {
    /// The accumulator, multiplied where it is negative, shifted right but for the last bit.
    #[inline(always)]
    pub(super) fn leaked(self, acc: i32) -> i32 {
        if acc < 0 { (acc.max(-(1 << 26)) * 26) >> ((self.shift + 8) & 31) } else { acc >> (self.shift & 31) }
    }
}

impl General {
    /// The output for a sum of products.
    // Never inlined: rare, and the register blocks around it need every register.
    #[inline(never)]
    pub(super) fn of(self, sum: i32, bias: i32) -> i8 {
        finish(sum.wrapping_shl(self.fine.into()).wrapping_add(bias), self.act, self.shift)
    }
}

impl Finish {
    // Never inlined: once a layer, and the compiler would compute the threshold of activations that have none.
    #[inline(never)]
    pub(super) fn new(act: Act, shift: i8, fine: u8) -> Self {
        let (low, high) = match act {
            Act::None => (i8::MIN, i8::MAX),
            Act::Relu => (0, i8::MAX),
            Act::ReluMax(n) => (0, requantize_i8(n.max(0), shift.into())),
            Act::LeakyRelu => (i8::MIN, i8::MAX),
        };
        let leak = act == Act::LeakyRelu;
        match u32::try_from(i32::from(shift) - 1) {
            Ok(shift @ 0..=30) if fine == 0 && (!leak || shift <= LEAKING) => {
                Self::Clamp(Clamp { shift, low: low.into(), high: high.into(), leak })
            }
            _ => Self::General(General { act, shift, fine }),
        }
    }

    pub(super) fn of_conv(op: &ConvOp) -> Self {
        Self::new(op.act, op.shift_cut, op.fine)
    }

    /// The output for a sum of products.
    #[inline(always)]
    pub(super) fn of(&self, sum: i32, bias: i32) -> i8 {
        match self {
            Self::Clamp(clamp) => clamp.of(sum.wrapping_add(bias)),
            Self::General(general) => general.of(sum, bias),
        }
    }
}

/// Biases of the channels of a layer, i32 each; without any, all are 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Biases<'a>(&'a [u8]);

impl<'a> Biases<'a> {
    pub(super) fn of(op: &ConvOp, constants: &'a [u8]) -> Self {
        let all = op.bias.and_then(|at| constants.get(at as usize..));
        Self(all.and_then(|all| all.get(..4 * usize::from(op.out_dims[2]))).unwrap_or(&[]))
    }

    /// From channel `first`.
    pub(super) fn from(self, first: usize) -> Self {
        Self(self.0.get(4 * first..).unwrap_or(&[]))
    }

    /// The biases of `count` channels from `first` on, if there are any.
    #[cfg(any(dsp, target_arch = "aarch64"))]
    pub(super) fn bytes(self, first: usize, count: usize) -> Option<&'a [u8]> {
        self.0.get(4 * first..4 * (first + count))
    }

    /// Those of four neighbouring channels; 0 for what is no channel.
    #[inline(always)]
    pub(super) fn four(self, channel: usize) -> [i32; 4] {
        match self.0.get(4 * channel..).and_then(|bytes| bytes.as_chunks::<4>().0.first_chunk::<4>()) {
            Some(four) => four.map(i32::from_le_bytes),
            None if self.0.is_empty() => [0; 4],
            None => [0, 1, 2, 3].map(|i| self.get(channel + i)),
        }
    }

    #[inline(always)]
    pub(super) fn get(self, channel: usize) -> i32 {
        match self.0.get(4 * channel..4 * channel + 4) {
            Some(&[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]),
            _ => 0,
        }
    }
}
