//! Settings of the quantizer of float scales.

use serde::{Deserialize, Serialize};

use crate::observer::extrema::Integers;
use shiftwise_core::arith::{Round, limits};

/// How a range is chosen. The numbers are the vendor's `method`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// All that was seen (0, and also 1, for which the vendor's tool has no search).
    Range,
    /// What clips a histogram with the least Kullback-Leibler divergence (2).
    Divergence,
    /// What holds a share of a histogram, in percent (3).
    Percentile(f64),
}

/// Settings of a quantizer of float scales, with the vendor's key names and order.
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
    /// One range per channel.
    #[serde(default)]
    pub per_channel: bool,
    /// Which axis the channels are.
    #[serde(default = "last_axis")]
    pub channel_axis: i64,
    /// TensorFlow's own arithmetic instead of the vendor's.
    #[serde(default = "yes")]
    pub use_framework_quant: bool,
    /// No negative integers.
    #[serde(default)]
    pub unsigned: bool,
    /// Without the most negative integer.
    #[serde(default)]
    pub narrow_range: bool,
    /// Share of values inside the range, in percent, for method 3.
    #[serde(default = "nearly_all")]
    pub method_percentile: f64,
}

fn yes() -> bool {
    true
}

fn last_axis() -> i64 {
    -1
}

fn nearly_all() -> f64 {
    99.99
}

impl Params {
    /// Refuses what makes no sense, as the first part of a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let (bits, round) = (self.bit_width, self.round_mode);
        let framework = self.use_framework_quant && !self.unsigned;
        match self {
            _ if !(2..=32).contains(&bits) => Err(format!("bit width outside 2..32: {bits}")),
            _ if framework && bits > 16 => Err(format!(
                "bit width outside 2..16, which TensorFlow's arithmetic takes (use_framework_quant=false takes more): {bits}"
            )),
            _ if self.method > 3 => Err(format!("method outside 0..3: {}", self.method)),
            _ if round > 3 => Err(format!("round mode outside 0..3: {round}")),
            _ if self.use_framework_quant && round != 1 => Err(format!(
                "round mode other than 1, which TensorFlow's arithmetic has (use_framework_quant=false has others): {round}"
            )),
            _ if self.per_channel && self.method > 1 => {
                Err(format!("method other than 0 or 1 with a range per channel: {}", self.method))
            }
            _ if !(0.0..=100.0).contains(&self.method_percentile) => {
                Err(format!("percentile outside 0..100: {}", self.method_percentile))
            }
            _ => Ok(()),
        }
    }

    /// How the range is chosen.
    pub fn method(&self) -> Method {
        match self.method {
            2 => Method::Divergence,
            3 => Method::Percentile(self.method_percentile),
            _ => Method::Range,
        }
    }

    /// Rounding; unknown numbers are refused when the strategy is read.
    pub fn round(&self) -> Round {
        Round::from_id(self.round_mode).unwrap_or(Round::HalfUp)
    }

    /// The integers that a range is mapped to.
    pub(super) fn integers(&self) -> Integers {
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
