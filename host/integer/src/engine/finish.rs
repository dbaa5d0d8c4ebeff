//! What becomes of an accumulator: activation, shift, rounding half up, saturation.

use shiftwise_core::arith::{Round, requantize, requantize_i8};

use crate::graph::{IntAct, Kind};

/// 256 times the slope of LeakyReLU for negative values.
pub(super) const LEAKY: i32 = 26;

/// Activation, shift, rounding half up and saturation: what all elements of an op share, worked out once.
///
/// Rounding never changes the order of two accumulators and keeps zero, so that a ReLU before it is a bound of the output
/// behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    shift: i32,
    low: i8,
    high: i8,
    leaky: bool,
}

impl Finish {
    /// Of an op that shifts right by `shift`. ReLU6's bound lies on the output grid.
    pub(super) fn new(shift: i32, act: IntAct, out: Kind) -> Self {
        let (low, high, leaky) = match act {
            IntAct::None => (i8::MIN, i8::MAX, false),
            IntAct::Relu => (0, i8::MAX, false),
            IntAct::Relu6 => (0, relu6_limit(out), false),
            IntAct::LeakyRelu => (i8::MIN, i8::MAX, true),
        };
        Self { shift, low, high, leaky }
    }

    /// Smallest and largest output.
    pub(super) fn bounds(self) -> (i8, i8) {
        (self.low, self.high)
    }

    /// The output of one accumulator.
    #[inline]
    pub(super) fn one(self, acc: i32) -> i8 {
        if self.leaky && acc < 0 {
            self.wide(acc.into())
        } else {
            requantize_i8(acc, self.shift).max(self.low).min(self.high)
        }
    }

    /// [`Self::one`] of an accumulator beyond 32 bits.
    pub(super) fn wide(self, acc: i64) -> i8 {
        let i8 = |acc: i64, shift: i32| requantize(acc, shift, Round::HalfUp, 8, true) as i8;
        if self.leaky && acc < 0 {
            i8(acc * i64::from(LEAKY), self.shift + 8)
        } else {
            i8(acc, self.shift).max(self.low).min(self.high)
        }
    }

    /// [`Self::one`] of every accumulator into `y`, as many as the shorter has; no magnitude exceeds `bound`.
    ///
    /// The branches that all elements share are taken outside of the loops, which compilers then turn into vectors; `clamp`
    /// would bring one back, since it compares its bounds.
    #[inline(always)]
    pub(super) fn each(self, bound: i64, accs: impl Iterator<Item = i32>, y: &mut [i8]) {
        let Self { shift, low, high, leaky } = self;
        let pairs = y.iter_mut().zip(accs);
        if leaky {
            if bound * i64::from(LEAKY) <= i32::MAX.into() && (1..24).contains(&shift) {
                // One of the two is zero.
                let sides = |acc: i32| {
                    (requantize_i8(acc.max(0), shift), requantize_i8(acc.min(0).wrapping_mul(LEAKY), shift + 8))
                };
                pairs.for_each(|(y, acc)| {
                    let (above, below) = sides(acc);
                    *y = above | below;
                });
            } else {
                pairs.for_each(|(y, acc)| *y = self.one(acc));
            }
        } else if (1..32).contains(&shift) {
            pairs.for_each(|(y, acc)| *y = requantize_i8(acc, shift).max(low).min(high));
        } else {
            pairs.for_each(|(y, acc)| *y = requantize_i8(acc, shift).max(low).min(high));
        }
    }
}

/// 6 in steps of the output, at most 127.
pub(super) fn relu6_limit(out: Kind) -> i8 {
    // From 5 fraction bits on, 6 is past the largest integer; a large shift would lose it, so saturate.
    match out {
        Kind::Fixed(pos) if pos.0 >= 5 => 127,
        Kind::Fixed(pos) => requantize(6, -i32::from(pos.0), Round::HalfUp, 8, true) as i8,
        Kind::Float | Kind::Scaled(_) => 6,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use shiftwise_core::fix::FixPos;

    /// The order of the definition: activation, shift, rounding, saturation, ReLU6's bound.
    fn by_definition(acc: i64, shift: i32, act: IntAct, out: Kind) -> i8 {
        let i8 = |acc: i64, shift: i32| requantize(acc, shift, Round::HalfUp, 8, true) as i8;
        match act {
            IntAct::None => i8(acc, shift),
            IntAct::Relu => i8(acc.max(0), shift),
            IntAct::Relu6 => i8(acc.max(0), shift).min(relu6_limit(out)),
            IntAct::LeakyRelu if acc < 0 => i8(acc * i64::from(LEAKY), shift + 8),
            IntAct::LeakyRelu => i8(acc, shift),
        }
    }

    fn accumulators() -> impl Strategy<Value = Vec<i32>> {
        let near = |center: i32| (-3..=3i32).prop_map(move |d| center.saturating_add(d));
        let power = (0..32u32, any::<bool>(), -2..=2i32).prop_map(|(bit, negative, d)| {
            let power = 1i32.wrapping_shl(bit);
            if negative { power.wrapping_neg() } else { power }.wrapping_add(d)
        });
        let one = prop_oneof![near(i32::MIN), near(i32::MAX), near(0), power, -70_000..70_000i32, any::<i32>()];
        proptest::collection::vec(one, 0..70)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn every_way_to_finish_is_the_definition(accs in accumulators(), shift in -40..70i32, pos in -130..130i16) {
            let out = i8::try_from(pos).map_or(Kind::Float, |pos| Kind::Fixed(FixPos(pos)));
            let bound = accs.iter().map(|acc| i64::from(*acc).abs()).max().unwrap_or(0);
            for act in [IntAct::None, IntAct::Relu, IntAct::Relu6, IntAct::LeakyRelu] {
                let want: Vec<i8> = accs.iter().map(|acc| by_definition((*acc).into(), shift, act, out)).collect();
                let finish = Finish::new(shift, act, out);
                let mut y = vec![0; accs.len()];
                finish.each(bound, accs.iter().copied(), &mut y);
                prop_assert_eq!(&y, &want, "each, {:?}", act);
                let one: Vec<i8> = accs.iter().map(|acc| finish.one(*acc)).collect();
                prop_assert_eq!(&one, &want, "one, {:?}", act);
                for acc in accs.iter().map(|acc| i64::from(*acc) << 24) {
                    prop_assert_eq!(finish.wide(acc), by_definition(acc, shift, act, out), "wide, {:?}", act);
                }
            }
        }
    }
}
