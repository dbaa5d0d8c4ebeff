//! What most convolutions do with their sums: bias, normalization and ReLU of floats; bias, shift and bounds of integers.
//!
//! Kernels have vectors of their own for these. On every path the bytes are those of [`FinishF32::one`] and
//! [`FinishI8::one`].

use crate::kernel::Epilogue;

/// What becomes of f32 sums: `+ bias`, then `· factor + offset`, then a ReLU. Each operation is rounded by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct FinishF32<'a> {
    /// Added to each channel.
    pub bias: Option<&'a [f32]>,
    /// Factor and offset of each channel.
    pub affine: Option<(&'a [f32], &'a [f32])>,
    /// The largest value of a ReLU, infinite for a plain one: what is not above zero becomes `+0.0`, NaN too.
    pub relu: Option<f32>,
}

impl FinishF32<'_> {
    /// The value of one sum.
    #[inline(always)]
    #[must_use]
    pub fn one(&self, channel: usize, sum: f32) -> f32 {
        let [value] = self.values(channel, &[sum]);
        value
    }

    /// The values of neighbouring channels, each step of all of them after the other, in vectors.
    #[inline(always)]
    fn values<const N: usize>(&self, channel: usize, sums: &[f32; N]) -> [f32; N] {
        let mut v = *sums;
        let part = |x: &'_ [f32]| x[channel..].first_chunk::<N>().copied();
        if let Some(bias) = self.bias.and_then(part) {
            for i in 0..N {
                v[i] += bias[i];
            }
        }
        if let Some((factor, offset)) = self.affine
            && let (Some(factor), Some(offset)) = (part(factor), part(offset))
        {
            for i in 0..N {
                v[i] = v[i] * factor[i] + offset[i];
            }
        }
        if let Some(max) = self.relu {
            for v in &mut v {
                *v = relu(*v, max);
            }
        }
        v
    }

    /// Whether the vectors of a kernel have this ReLU: one whose largest value is above zero.
    pub(super) fn is_usual(&self) -> bool {
        self.relu.is_none_or(|max| max > 0.0)
    }

    /// Panics unless there is a value for each of the channels.
    pub(super) fn assert_channels(&self, channels: usize) {
        let affine = self.affine.is_none_or(|(factor, offset)| factor.len() >= channels && offset.len() >= channels);
        assert!(self.bias.is_none_or(|bias| bias.len() >= channels) && affine, "values of {channels} channels");
    }
}

/// max where x is at least that, else x where it is above zero, else zero.
#[inline(always)]
fn relu(x: f32, max: f32) -> f32 {
    if x >= max {
        max
    } else if x > 0.0 {
        x
    } else {
        0.0
    }
}

/// What becomes of sums of integers: `+ bias`, wrapping, then a right shift, rounded down, then `low` and `high` as bounds.
/// A bias with half an output step on top makes that rounding half up.
#[derive(Clone, Copy, Debug)]
pub struct FinishI8<'a> {
    /// Added to each channel.
    pub bias: &'a [i32],
    /// Bits, below 32.
    pub shift: u32,
    /// Smallest output.
    pub low: i8,
    /// Largest output, at least `low`.
    pub high: i8,
}

impl FinishI8<'_> {
    /// The output of one sum.
    #[inline(always)]
    #[must_use]
    pub fn one(&self, channel: usize, sum: i32) -> i8 {
        self.shifted(sum, self.bias[channel])
    }

    #[inline(always)]
    pub(super) fn shifted(&self, sum: i32, bias: i32) -> i8 {
        (sum.wrapping_add(bias) >> (self.shift & 31)).max(self.low.into()).min(self.high.into()) as i8
    }
}

/// Stores what a finish makes of the sums.
#[derive(Debug)]
pub(super) struct Stored<'y, F, T> {
    pub(super) finish: F,
    pub(super) channels: usize,
    pub(super) output: &'y mut [T],
}

impl Epilogue<f32> for Stored<'_, FinishF32<'_>, f32> {
    #[inline(always)]
    fn store(&mut self, pixel: usize, channel: usize, sums: &[f32]) {
        let at = pixel * self.channels + channel;
        let (wide, rest) = sums.as_chunks::<16>();
        for (i, sums) in wide.iter().enumerate() {
            let values = self.finish.values(channel + 16 * i, sums);
            self.output[at + 16 * i..][..16].copy_from_slice(&values);
        }
        let done = 16 * wide.len();
        for (i, sum) in rest.iter().enumerate() {
            self.output[at + done + i] = self.finish.one(channel + done + i, *sum);
        }
    }
}

impl Epilogue<i32> for Stored<'_, FinishI8<'_>, i8> {
    #[inline(always)]
    fn store(&mut self, pixel: usize, channel: usize, sums: &[i32]) {
        let at = pixel * self.channels + channel;
        let (output, bias) = (&mut self.output[at..][..sums.len()], &self.finish.bias[channel..][..sums.len()]);
        let ((to, last), (sums, left), (bias, own)) =
            (output.as_chunks_mut::<16>(), sums.as_chunks::<16>(), bias.as_chunks::<16>());
        for ((to, sums), bias) in to.iter_mut().zip(sums).zip(bias) {
            // Apart from the output, which might be what is read: a vector, where a loop over the output stays scalar.
            *to = core::array::from_fn(|i| self.finish.shifted(sums[i], bias[i]));
        }
        for ((to, sum), bias) in last.iter_mut().zip(left).zip(own) {
            *to = self.finish.shifted(*sum, *bias);
        }
    }
}
