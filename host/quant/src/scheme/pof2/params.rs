//! Settings of the power-of-two quantizer.

use serde::{Deserialize, Serialize};

use crate::observer::extrema::Integers;
use shiftwise_core::arith::{Round, limits};

/// How a position is chosen. The numbers are the vendor's `method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The finest position at which no value overflows (0).
    NonOverflow,
    /// Of that one and the four finer ones, the position with the least squared error (1).
    MinMse,
}

/// How values become integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Scaled, rounded so, clamped to the integer range.
    Plain(Round),
    /// The vendor's FixNeuron arithmetic with this rounding.
    FixNeuron(Round),
}

/// Settings of a power-of-two quantizer, with the vendor's key names and order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Width in bits.
    pub bit_width: u8,
    /// See [`Method`].
    pub method: u8,
    /// See [`Round`].
    pub round_mode: u8,
    /// Zero maps to zero.
    #[serde(default = "yes")]
    pub symmetry: bool,
    /// One position per channel.
    #[serde(default)]
    pub per_channel: bool,
    /// Which axis the channels are.
    #[serde(default = "last_axis")]
    pub channel_axis: i64,
    /// The vendor's FixNeuron variant.
    #[serde(default)]
    pub use_fixneuron_quant: u8,
    /// No negative integers.
    #[serde(default)]
    pub unsigned: bool,
    /// Without the most negative integer.
    #[serde(default)]
    pub narrow_range: bool,
}

fn yes() -> bool {
    true
}

fn last_axis() -> i64 {
    -1
}

impl Params {
    /// Refuses what makes no sense, as the first part of a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            _ if !(2..=32).contains(&self.bit_width) => Err(format!("bit width outside 2..32: {}", self.bit_width)),
            _ if self.method > 1 => Err(format!("method other than 0 or 1: {}", self.method)),
            _ if self.round_mode > 3 => Err(format!("round mode outside 0..3: {}", self.round_mode)),
            _ => Ok(()),
        }
    }

    /// Rounding; unknown numbers are refused when the strategy is read.
    ///
    /// FixNeuron knows only signed, symmetric 8 bits of the full range for a whole tensor; elsewhere its setting is
    /// without effect.
    pub fn rounding(&self) -> Rounding {
        let fits = self.bit_width == 8 && self.symmetry && !(self.unsigned || self.narrow_range || self.per_channel);
        match self.use_fixneuron_quant {
            // The vendor hands its operation the two modes swapped: half up for weights, half away from zero for
            // activations.
            2 if fits => Rounding::FixNeuron(Round::HalfUp),
            1.. if fits => Rounding::FixNeuron(Round::HalfAwayFromZero),
            _ => Rounding::Plain(self.round()),
        }
    }

    /// The rounding that the round mode names.
    pub(crate) fn round(&self) -> Round {
        Round::from_id(self.round_mode).unwrap_or(Round::HalfUp)
    }

    /// How the position is chosen.
    pub fn method(&self) -> Method {
        if self.method == 0 { Method::NonOverflow } else { Method::MinMse }
    }

    /// Whether nothing but positions tells the integers from those that a DPU computes with: one position for the whole
    /// tensor, zero is zero, and no FixNeuron arithmetic.
    pub fn is_plain(&self) -> bool {
        !self.per_channel && self.symmetry && matches!(self.rounding(), Rounding::Plain(_))
    }

    /// The integers that a range is mapped to.
    pub(crate) fn integers(&self) -> Integers {
        let Self { bit_width: bits, symmetry, unsigned, narrow_range: narrow, .. } = *self;
        Integers { bits, symmetry, unsigned, narrow }
    }

    /// The integer range, as the f32 bounds that the vendor's tool clamps to.
    pub fn bounds(&self) -> (f32, f32) {
        let (low, high) = limits(self.bit_width, !self.unsigned);
        let narrow = i64::from(self.narrow_range && !self.unsigned);
        ((low + narrow) as f32, high as f32)
    }
}
