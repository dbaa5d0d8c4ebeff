//! From sums to output lanes: bias, activation, shift.

use super::Fault;
use crate::arith::{Round, requantize, requantize_i8, requantize_lanes};
use crate::isa::Activation;

/// From the sums of some lanes to their accumulators: `sum · 2^extra + bias`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes<const N: usize> {
    extra: u32,
    bias: [i64; N],
    /// The same in 32 bits, if no accumulator can leave them.
    narrow: Option<[i32; N]>,
}

impl<const N: usize> Lanes<N> {
    /// Sums as they are.
    pub(super) fn plain() -> Self {
        Self { extra: 0, bias: [0; N], narrow: Some([0; N]) }
    }

    /// Doubled sums of at most `products` products of int8 and shifted biases, which are zero past `biases`.
    ///
    /// Errors: a bias beyond any accumulator.
    pub(super) fn doubled(biases: &[u8], shift: u32, products: usize) -> Result<Self, Fault> {
        let mut bias = [0; N];
        for (to, from) in bias.iter_mut().zip(biases) {
            *to = shifted_bias(*from, shift)?;
        }
        let most = i64::try_from(products).unwrap_or(i64::MAX >> 16) << 15;
        let narrow = bias.iter().all(|b| b.saturating_abs().saturating_add(most) <= i32::MAX.into());
        Ok(Self { extra: 1, bias, narrow: narrow.then(|| bias.map(|b| b as i32)) })
    }

    /// The exact accumulator of a lane.
    pub(super) fn exact(&self, sums: &[i32], lane: usize) -> i64 {
        let sum = sums.get(lane).copied().unwrap_or(0);
        (i64::from(sum) << self.extra) + self.bias.get(lane).copied().unwrap_or(0)
    }
}

/// What happens to an accumulator after the sum: activation and shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    activation: Activation,
    /// Right shift of the accumulator.
    pub(super) shift: u32,
    /// ReLU6: its limit in steps of the accumulator.
    limit: i32,
}

impl Finish {
    /// `act_type` and the right shift of an accumulator with `extra` fraction bits beyond `shift_cut`.
    pub(super) fn new(act_type: u32, shift_cut: u32, extra: u32) -> Result<Self, Fault> {
        let unsupported = Fault::Unsupported { field: "act_type", value: act_type };
        let activation = Activation::from_code(act_type).ok_or(unsupported)?;
        let shift = shift_cut + extra;
        let limit = match activation {
            Activation::Relu6 { pos } => {
                // 6·2^(pos + shift) as 3·2^(pos + shift + 1): an integer from −1 on. Above 28 it is past 31 bits, where
                // the clamp has no effect that saturation to 127 would not have.
                let exponent = i32::from(pos) + shift as i32 + 1;
                match exponent {
                    ..0 => return Err(Fault::Unsupported { field: "shift_cut", value: shift_cut }),
                    0..=28 => 3 << exponent,
                    _ => i32::MAX,
                }
            }
            _ => i32::MAX,
        };
        Ok(Self { activation, shift, limit })
    }

    /// The output lane of an exact accumulator.
    #[inline]
    pub(super) fn apply(&self, acc: i64) -> Result<u8, Fault> {
        let acc = i32::try_from(acc).map_err(|_| Fault::Accumulator { value: acc })?;
        let acc = match self.activation {
            Activation::None => acc,
            Activation::Relu => acc.max(0),
            Activation::Relu6 { .. } => acc.max(0).min(self.limit),
            Activation::LeakyRelu if acc < 0 => {
                let exact = i64::from(acc) * 26;
                return Ok(requantize(exact, self.shift as i32 + 8, Round::HalfUp, 8, true) as u8);
            }
            Activation::LeakyRelu => acc,
        };
        Ok(requantize_i8(acc, self.shift as i32) as u8)
    }

    /// [`apply`](Self::apply) to the accumulators of the lanes from `first` on, as many as `to` has.
    pub(super) fn lanes<const N: usize>(
        &self,
        sums: &[i32],
        acc: &Lanes<N>,
        first: usize,
        to: &mut [u8],
    ) -> Result<(), Fault> {
        let sums = sums.get(first..).unwrap_or(&[]);
        let low = match self.activation {
            Activation::None => Some(i32::MIN),
            Activation::Relu | Activation::Relu6 { .. } => Some(0),
            Activation::LeakyRelu => None,
        };
        if let (Some(low), Some(bias)) = (low, acc.narrow.as_ref().and_then(|b| b.get(first..))) {
            let values = sums.iter().zip(bias).map(|(s, b)| (s << acc.extra).wrapping_add(*b).max(low).min(self.limit));
            requantize_lanes(values, self.shift as i32, to);
            return Ok(());
        }
        for ((to, sum), bias) in to.iter_mut().zip(sums).zip(acc.bias.iter().skip(first)) {
            *to = self.apply((i64::from(*sum) << acc.extra) + bias)?;
        }
        Ok(())
    }
}

/// `bias · 2^shift`, exact; an error if it is beyond any accumulator.
fn shifted_bias(bias: u8, shift: u32) -> Result<i64, Fault> {
    let bias = i64::from(bias as i8);
    if bias != 0 && shift > 32 {
        return Err(Fault::Accumulator { value: if bias > 0 { i64::MAX } else { i64::MIN } });
    }
    Ok(bias << shift.min(32))
}
