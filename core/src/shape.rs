//! Shapes and sliding windows.

use core::num::NonZero;

use serde::{Deserialize, Serialize};

/// Dimensions of one sample's tensor, without the batch: `[h, w, c]`, `[n, c]` or `[c]`; up to four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Shape {
    rank: u8,
    dims: [u32; 4],
}

impl Shape {
    /// A shape of at most four dimensions; `None` if there are more.
    pub fn new(dims: &[u32]) -> Option<Self> {
        let mut own = [1; 4];
        own.get_mut(..dims.len())?.copy_from_slice(dims);
        Some(Self { rank: dims.len() as u8, dims: own })
    }

    /// The dimensions.
    pub fn dims(&self) -> &[u32] {
        self.dims.get(..usize::from(self.rank)).unwrap_or(&self.dims)
    }

    /// Number of elements; `None` if it does not fit 32 bits.
    pub fn elements(&self) -> Option<u32> {
        self.dims().iter().try_fold(1u32, |n, d| n.checked_mul(*d))
    }
}

impl Shape {
    /// The dimensions behind as many leading ones as make four.
    pub fn aligned(&self) -> [u32; 4] {
        let mut own = [1; 4];
        own.iter_mut().rev().zip(self.dims().iter().rev()).for_each(|(to, d)| *to = *d);
        own
    }

    /// Whether it is `out` when dimensions of size 1 repeat, aligned at the last dimension.
    pub fn broadcasts_to(&self, out: &Self) -> bool {
        self.dims().len() <= out.dims().len()
            && self.aligned().iter().zip(out.aligned()).all(|(own, out)| *own == out || *own == 1)
    }

    /// Elements between neighbours along each [aligned](Self::aligned) dimension; 0 along those of size 1, so that a
    /// tensor that broadcasts is read again and again.
    pub fn strides(&self) -> [u32; 4] {
        let mut strides = self.aligned();
        let mut step = 1u32;
        for stride in strides.iter_mut().rev() {
            let size = *stride;
            *stride = if size == 1 { 0 } else { step };
            step = step.wrapping_mul(size);
        }
        strides
    }
}

/// A number to divide by: of a checked record it is never 0, which the type says once instead of a test that could panic
/// at every division.
#[inline(always)]
pub fn positive(n: usize) -> NonZero<usize> {
    NonZero::new(n).unwrap_or(NonZero::<usize>::MIN)
}

/// A window that slides over rows and columns. Each pair is (vertical, horizontal).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Window {
    /// Taps.
    pub kernel: [u16; 2],
    /// Input pixels between neighbouring outputs.
    pub stride: [u16; 2],
    /// Input pixels between neighbouring taps.
    pub dilation: [u16; 2],
    /// Rows above and columns left of the input.
    pub pad_before: [u16; 2],
    /// Rows below and columns right of the input.
    pub pad_after: [u16; 2],
}

impl Window {
    /// One tap, stride 1, no padding: a pointwise layer.
    pub const POINT: Self =
        Self { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], pad_before: [0, 0], pad_after: [0, 0] };

    /// Input pixels from the first to the last tap, inclusive, along `axis` (0 vertical, 1 horizontal).
    pub const fn extent(&self, axis: usize) -> u32 {
        (self.kernel[axis] as u32 - 1) * self.dilation[axis] as u32 + 1
    }

    /// Outputs along `axis` for `input` pixels; 0 if the window is larger than the padded input.
    pub const fn outputs(&self, axis: usize, input: u32) -> u32 {
        let padded = input + self.pad_before[axis] as u32 + self.pad_after[axis] as u32;
        match padded.checked_sub(self.extent(axis)) {
            // A window without a stride, which is not valid, has one place.
            Some(room) => match room.checked_div(self.stride[axis] as u32) {
                Some(steps) => steps + 1,
                None => 1,
            },
            None => 0,
        }
    }

    /// The taps of one window position along one axis that fall on the input: first tap, end tap, first input pixel.
    /// A window wholly in the padding has none: both taps are equal.
    #[inline(always)]
    pub fn taps(&self, axis: usize, output: usize, input: usize) -> (usize, usize, usize) {
        let of = |pair: [u16; 2]| pair.get(axis).map_or(0, |n| usize::from(*n));
        let (kernel, pad) = (of(self.kernel), of(self.pad_before));
        let (origin, dilation) = (output * of(self.stride), positive(of(self.dilation)));
        let taps_in = |pixels: usize| (pixels + dilation.get() - 1) / dilation;
        let first = taps_in(pad.saturating_sub(origin));
        let end = taps_in((input + pad).saturating_sub(origin)).min(kernel);
        (first, end.max(first), (origin + first * dilation.get()).saturating_sub(pad))
    }

    /// Whether every field is in range: taps, strides and dilations at least 1.
    pub const fn is_valid(&self) -> bool {
        self.kernel[0] > 0
            && self.kernel[1] > 0
            && self.stride[0] > 0
            && self.stride[1] > 0
            && self.dilation[0] > 0
            && self.dilation[1] > 0
    }

    /// Keras' `same` padding along one axis: (before, after) such that `outputs = ceil(input / stride)`; the odd pixel
    /// goes after.
    pub const fn same_padding(input: u32, kernel: u16, stride: u16, dilation: u16) -> (u16, u16) {
        let extent = (kernel as u32 - 1) * dilation as u32 + 1;
        let outputs = input.div_ceil(stride as u32);
        let needed = ((outputs - 1) * stride as u32 + extent).saturating_sub(input);
        ((needed / 2) as u16, (needed - needed / 2) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_puts_the_odd_pixel_after() {
        assert_eq!(Window::same_padding(28, 3, 1, 1), (1, 1));
        assert_eq!(Window::same_padding(28, 3, 2, 1), (0, 1));
        assert_eq!(Window::same_padding(28, 1, 2, 1), (0, 0));
        assert_eq!(Window::same_padding(7, 2, 2, 1), (0, 1));
        assert_eq!(Window::same_padding(9, 3, 1, 2), (2, 2));
    }

    #[test]
    fn outputs_counts_whole_windows() {
        let w = Window { kernel: [3, 3], stride: [2, 2], pad_after: [1, 1], ..Window::POINT };
        assert_eq!(w.outputs(0, 28), 14);
        assert_eq!(w.outputs(0, 1), 0);
    }
}
