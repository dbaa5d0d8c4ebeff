//! What a network's tensors have held over many runs, and whether that is still what they hold on known samples.
//!
//! A [`Sketch`] per tensor counts values; a [`Monitor`] is the [`Observer`] that fills one for each tensor. Memory comes
//! from the caller. [`Sketch::drift`] compares what was seen with what is [`Expected`]: either the sketch of runs on the
//! deployable's own self-test samples, or the tensor's fix position alone. Positions are chosen by calibration so that
//! the octave below the int8 limits is in use and little lies beyond them.

use serde::{Deserialize, Serialize};

use crate::model::{DType, Step, TensorDesc, TensorId};
use crate::run::Observer;

/// Octaves of magnitude: |q| = 0, 1, 2..4, 4..8, …, 64..128, and 128.
pub const OCTAVES: usize = 9;

/// Counts over the values of one int8 tensor. Counters stop at their largest number. The layout is that of C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(C)]
pub struct Sketch {
    /// Times that the tensor was seen.
    pub runs: u32,
    /// Values at -128.
    pub low: u32,
    /// Values at 127.
    pub high: u32,
    /// Smallest value; above `max` as long as nothing was seen.
    pub min: i8,
    /// Largest value.
    pub max: i8,
    /// How many values have a magnitude in each octave: `octaves[k]` counts 2^(k-1) <= |q| < 2^k, `octaves[0]` zeros.
    pub octaves: [u32; OCTAVES],
}

impl Default for Sketch {
    fn default() -> Self {
        Self::new()
    }
}

impl Sketch {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self { runs: 0, low: 0, high: 0, min: i8::MAX, max: i8::MIN, octaves: [0; OCTAVES] }
    }

    /// Counts the values of one run: the tensor's bytes, each an i8.
    pub fn add(&mut self, bytes: &[u8]) {
        self.runs = self.runs.saturating_add(1);
        for byte in bytes {
            let q = *byte as i8;
            self.min = self.min.min(q);
            self.max = self.max.max(q);
            let octave = 8 - q.unsigned_abs().leading_zeros() as usize;
            if let Some(count) = self.octaves.get_mut(octave) {
                *count = count.saturating_add(1);
            }
            match q {
                i8::MIN => self.low = self.low.saturating_add(1),
                i8::MAX => self.high = self.high.saturating_add(1),
                _ => {}
            }
        }
    }

    /// Values seen, by the counters.
    pub fn values(&self) -> u64 {
        self.octaves.iter().map(|n| u64::from(*n)).sum()
    }

    /// Values at either limit of int8: saturated, or exactly there.
    pub fn saturated(&self) -> u64 {
        u64::from(self.low) + u64::from(self.high)
    }

    /// The first octave that has, with those below it, all but one in 1024 of the values: 0..=8.
    pub fn reach(&self) -> u8 {
        let allowed = self.values() / 1024;
        let mut above = 0u64;
        for (octave, count) in (0..OCTAVES as u8).zip(&self.octaves).rev() {
            above += u64::from(*count);
            if above > allowed {
                return octave;
            }
        }
        0
    }

    /// Compares with what is expected; the rules are those of [`Drift`], looked at in their order.
    pub fn drift(&self, expected: Expected) -> Drift {
        let values = self.values();
        if values == 0 {
            return Drift::Unseen;
        }
        // Shares of 2^16, rounded down; the factor and the floor keep rare values from raising an alarm.
        let share = share(self.saturated(), values);
        let limit = u32::from(expected.saturated).saturating_mul(4).saturating_add(256);
        if u32::from(share) > limit {
            return Drift::Clipped;
        }
        // |q| = 128 is the octave's closed end, not another octave.
        let (reach, wanted) = (self.reach().min(7), expected.reach.min(7));
        if reach >= wanted.saturating_add(2) {
            Drift::Wide
        } else if reach.saturating_add(2) <= wanted {
            Drift::Narrow
        } else {
            Drift::Inside
        }
    }
}

/// `part` of `whole` in 1/65536, at most 65535.
fn share(part: u64, whole: u64) -> u16 {
    // Both are sums of a few counters of 32 bits.
    let scaled = part.saturating_mul(1 << 16).checked_div(whole).unwrap_or(0);
    u16::try_from(scaled).unwrap_or(u16::MAX)
}

/// What a tensor holds on data like that of calibration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Expected {
    /// Share of values at the int8 limits, in 1/65536.
    pub saturated: u16,
    /// [`Sketch::reach`].
    pub reach: u8,
}

impl Expected {
    /// All that a fix position tells: the octave 64..128 is in use, and nothing saturates.
    ///
    /// Activations with a limit of their own (ReLU6, hard sigmoid) may use less or rest on the limit; for those only a
    /// sketch of known samples is a fair comparison.
    pub const OF_POSITION: Self = Self { saturated: 0, reach: 7 };
}

impl From<&Sketch> for Expected {
    /// What was seen is what is expected; nothing seen: [`Self::OF_POSITION`].
    fn from(sketch: &Sketch) -> Self {
        match sketch.values() {
            0 => Self::OF_POSITION,
            values => Self { saturated: share(sketch.saturated(), values), reach: sketch.reach() },
        }
    }
}

/// How what was seen differs from what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Drift {
    /// It does not.
    Inside = 0,
    /// Nothing was seen.
    Unseen = 1,
    /// The share of values at the limits is above 1/256 and four times what is expected: data is larger than the
    /// tensor's range.
    Clipped = 2,
    /// Values reach two octaves or more above the expected ones.
    Wide = 3,
    /// Values stay two octaves or more below the expected ones: two bits of precision are lost, or a sensor has failed.
    Narrow = 4,
}

/// Fills a sketch for each tensor while a network runs. Tensors in floats have no sketch of their own.
///
/// One sketch per tensor, by tensor id; tensors beyond the end of the slice are not watched.
#[derive(Debug)]
pub struct Monitor<'m> {
    sketches: &'m mut [Sketch],
}

impl<'m> Monitor<'m> {
    /// Sketches that may hold counts of earlier runs already.
    pub fn new(sketches: &'m mut [Sketch]) -> Self {
        Self { sketches }
    }

    /// The sketch of a tensor, if it is watched.
    pub fn sketch(&self, id: TensorId) -> Option<&Sketch> {
        self.sketches.get(usize::from(id.0))
    }

    /// All sketches, by tensor id.
    pub fn sketches(&self) -> &[Sketch] {
        self.sketches
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.sketches.fill(Sketch::new());
    }
}

impl Observer for Monitor<'_> {
    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        if tensor.dtype == DType::I8
            && let Some(sketch) = self.sketches.get_mut(usize::from(id.0))
        {
            sketch.add(bytes);
        }
    }
}

/// Two observers of the same run.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn step(&mut self, index: u16, step: &Step<'_>) {
        self.0.step(index, step);
        self.1.step(index, step);
    }

    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.tensor(id, tensor, bytes);
        self.1.tensor(id, tensor, bytes);
    }
}

/// An observer that is needed again afterwards.
impl<O: Observer + ?Sized> Observer for &mut O {
    fn step(&mut self, index: u16, step: &Step<'_>) {
        (**self).step(index, step);
    }

    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        (**self).tensor(id, tensor, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn sketch(values: &[i8]) -> Sketch {
        let mut sketch = Sketch::new();
        sketch.add(&values.iter().map(|q| *q as u8).collect::<Vec<_>>());
        sketch
    }

    #[test]
    fn every_value_is_counted_in_its_octave() {
        for q in i8::MIN..=i8::MAX {
            let s = sketch(&[q]);
            let octave = s.octaves.iter().position(|n| *n == 1).unwrap();
            let magnitude = i32::from(q).abs();
            assert_eq!(octave == 0, q == 0);
            assert!(octave == 0 || (1 << (octave - 1)..1 << octave).contains(&magnitude), "{q} in {octave}");
            assert_eq!((s.min, s.max, usize::from(s.reach())), (q, q, octave));
            assert_eq!((s.low, s.high), (u32::from(q == -128), u32::from(q == 127)));
        }
    }

    /// As the README says.
    #[test]
    fn a_sketch_takes_52_bytes() {
        assert_eq!(size_of::<Sketch>(), 52);
    }

    #[test]
    fn drift_is_told_by_share_and_reach() {
        let usual: Vec<i8> = (0..2048).map(|i| (i % 200 - 100) as i8).collect();
        let expected = Expected::from(&sketch(&usual));
        assert_eq!(expected, Expected { saturated: 0, reach: 7 });
        assert_eq!(Sketch::new().drift(expected), Drift::Unseen);
        assert_eq!(sketch(&usual).drift(expected), Drift::Inside);
        let halved = |n: u32| usual.iter().map(|q| q >> n).collect::<Vec<_>>();
        assert_eq!(sketch(&halved(1)).drift(expected), Drift::Inside);
        assert_eq!(sketch(&halved(2)).drift(expected), Drift::Narrow);
        assert_eq!(sketch(&usual).drift(Expected::from(&sketch(&halved(2)))), Drift::Wide);
        let doubled: Vec<i8> = usual.iter().map(|q| q.saturating_mul(2)).collect();
        assert_eq!(sketch(&doubled).drift(expected), Drift::Clipped);
        // What rests on the limit in calibration may do so later.
        assert_eq!(sketch(&doubled).drift(Expected::from(&sketch(&doubled))), Drift::Inside);
        // One outlier in a thousand moves nothing.
        let mut quiet = vec![3; 2048];
        quiet[7] = 127;
        assert_eq!(sketch(&quiet).reach(), 2);
    }

    proptest! {
        /// A sketch knows no order and no grouping of runs, but for the number of runs.
        #[test]
        fn counts_add_up(a in prop::collection::vec(any::<i8>(), 0..300), b in prop::collection::vec(any::<i8>(), 0..300)) {
            let mut parts = sketch(&a);
            parts.add(&b.iter().map(|q| *q as u8).collect::<Vec<_>>());
            let whole = sketch(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(parts, Sketch { runs: 2, ..whole });
            prop_assert_eq!(parts.values(), (a.len() + b.len()) as u64);
            let limits = a.iter().chain(&b).filter(|q| [-128, 127].contains(*q)).count();
            prop_assert_eq!(parts.saturated(), limits as u64);
            if whole.values() > 0 {
                prop_assert_eq!(whole.drift(Expected::from(&whole)), Drift::Inside);
            }
        }
    }
}
