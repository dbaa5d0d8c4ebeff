//! Integers by their ends.

use shiftwise_core::arith::limits;

/// Integers from `low` to `high` as width and sign; `None` for ends that no quantizer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integers {
    /// Width in bits.
    pub bits: u8,
    /// No negative integers.
    pub unsigned: bool,
    /// Without the most negative one.
    pub narrow: bool,
}

impl Integers {
    /// 8 bits with a sign.
    pub const INT8: Self = Self { bits: 8, unsigned: false, narrow: false };

    /// The integers between two ends.
    pub fn between(low: f32, high: f32) -> Option<Self> {
        (2..=32).find_map(|bits| {
            let fits = |unsigned: bool, narrow: bool| {
                let (l, h) = limits(bits, !unsigned);
                let own = Self { bits, unsigned, narrow };
                ((l + i64::from(narrow)) as f32 == low && h as f32 == high).then_some(own)
            };
            fits(false, false).or_else(|| fits(true, false)).or_else(|| fits(false, true))
        })
    }
}
