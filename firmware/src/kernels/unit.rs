//! What a processor brings to the kernels.
#![allow(dead_code, reason = "what only some processors need to know")]

use core::ops::Range;

use shiftwise_core::model::{ConvOp, PoolKind};
use shiftwise_core::shape::positive;

use super::finish::{Biases, Clamp, Finish};

/// Pixels whose columns are multiplied at once.
pub(super) const PIXELS: usize = 2;

/// Filters to be multiplied with columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters<'a> {
    /// Weights from the first filter on: filter f begins at `f · k`. May be longer than the filters are.
    pub(super) kernel: &'a [u8],
    /// Elements of a filter and of a column.
    pub(super) k: usize,
    /// Filters that can be read in steps of [`Unit::STEP`] bytes: behind the last ones there may be nothing to read.
    pub(super) whole: usize,
    /// What [`Unit::tame`] says of the weights; false where nobody has asked.
    pub(super) tame: bool,
    pub(super) biases: Biases<'a>,
    pub(super) finish: Finish,
}

/// Where something is put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Elements of a column.
    pub(super) k: usize,
    /// Columns side by side, and the one meant.
    pub(super) pixels: usize,
    pub(super) which: usize,
    /// The element.
    pub(super) at: usize,
}

/// Runs of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runs {
    pub(super) count: usize,
    /// Bytes of each, and from the beginning of one to the next.
    pub(super) len: usize,
    pub(super) step: usize,
}

/// Neighbouring channels of a block of a depthwise layer.
pub(super) const CHANNELS: usize = 4;

/// A window on the input that pooling sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    /// The first input byte.
    pub(super) from: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Input bytes from row to row and from column to column.
    pub(super) down: usize,
    pub(super) right: usize,
}

impl Area {
    /// Whether 4 channels of it lie inside an input of so many bytes; false for an empty window.
    pub(super) fn fits(&self, input: usize) -> bool {
        match (self.rows.checked_sub(1), self.columns.checked_sub(1)) {
            (Some(rows), Some(columns)) => self.from + rows * self.down + columns * self.right + CHANNELS <= input,
            _ => false,
        }
    }

    /// Calls `each` with the values of `N` channels at every place.
    #[inline(always)]
    pub(super) fn each<const N: usize>(&self, input: &[u8], mut each: impl FnMut([i32; N])) {
        for row in 0..self.rows {
            let mut from = self.from + row * self.down;
            for _ in 0..self.columns {
                if let Some(x) = input.get(from..).and_then(|x| x.first_chunk::<N>()) {
                    each(x.map(|x| (x as i8).into()));
                }
                from += self.right;
            }
        }
    }
}

/// Neighbouring blocks of depthwise channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks<'a> {
    /// How many, at least 1.
    pub(super) count: usize,
    /// The kernel `[tap][channels]` from the first of the channels on.
    pub(super) kernel: &'a [u8],
    pub(super) channels: usize,
    /// Taps of the whole kernel.
    pub(super) taps: usize,
    pub(super) biases: Biases<'a>,
    pub(super) finish: Finish,
}

/// The taps of a depthwise window on the input, for neighbouring output pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps {
    /// Taps in a row of the kernel.
    pub(super) width: usize,
    /// The first tap that counts, and how many rows and columns of them there are.
    pub(super) tap: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The first channel's input byte at the first tap, and input bytes from row to row and from column to column.
    pub(super) from: usize,
    pub(super) down: usize,
    pub(super) right: usize,
    /// Output pixels, and input bytes from one to the next.
    pub(super) pixels: usize,
    pub(super) stride: usize,
}

impl Taps {
    /// Whether all taps of all pixels lie inside the input, and the outputs inside the output; false also when there is
    /// no tap or no pixel.
    pub(super) fn fit(&self, blocks: &Blocks<'_>, input: usize, output: usize) -> bool {
        let less = |n: usize| n.checked_sub(1);
        let (Some(rows), Some(columns), Some(pixels), Some(last)) =
            (less(self.rows), less(self.columns), less(self.pixels), less(blocks.count))
        else {
            return false;
        };
        let end = (last + 1) * CHANNELS;
        self.from + pixels * self.stride + rows * self.down + columns * self.right + end <= input
            && pixels * blocks.channels + end <= output
    }

    /// The last tap of the kernel that counts; `None` if there is none.
    pub(super) fn last(&self) -> Option<usize> {
        Some(self.tap + self.rows.checked_sub(1)? * self.width + self.columns.checked_sub(1)?)
    }
}

impl Blocks<'_> {
    /// Outputs of the sums of a block, without biases.
    #[inline(always)]
    pub(super) fn finish(&self, block: usize, sums: [i32; CHANNELS]) -> [u8; CHANNELS] {
        let mut biases = self.biases.four(block * CHANNELS).into_iter();
        sums.map(|sum| self.finish.of(sum, biases.next().unwrap_or(0)) as u8)
    }
}

/// Output columns whose window needs no padding.
pub(super) fn inside(op: &ConvOp) -> Range<usize> {
    let (stride, pad) = (positive(op.window.stride[1].into()), usize::from(op.window.pad_before[1]));
    let room = (usize::from(op.in_dims[1]) + pad).checked_sub(op.window.extent(1) as usize);
    let end = room.map_or(0, |room| room / stride + 1).min(op.out_dims[1].into());
    let start = (pad + stride.get() - 1) / stride;
    start..end.max(start)
}

/// How columns are kept. Their parts are put from the first element to the last; each may spill what the next covers.
pub(super) trait Columns {
    /// What they are made of.
    type Word;
    /// Puts runs of `bytes` into a column, one behind the other.
    fn put(columns: &mut [Self::Word], to: Place, bytes: &[u8], runs: Runs);
    /// Puts `len` zeros.
    fn put_zeros(columns: &mut [Self::Word], to: Place, len: usize);
    /// Fills up the last step with zeros, where `put` does not.
    #[inline(always)]
    fn end(columns: &mut [Self::Word], to: Place) {
        let _ = (columns, to);
    }
}

/// Register blocks and vector loops of one processor. Every function gives the same bytes on every unit.
pub(super) trait Unit: Columns {
    /// Where columns are assembled that can't be put part by part.
    type Stage: Columns<Word = u8>;
    /// Whether columns are put in steps of 4 elements only: anything else has to be assembled first.
    const BY_FOUR: bool = false;
    /// Bytes of a filter that are read at once. Columns are filled up with zeros to a multiple of it.
    const STEP: usize;
    /// Whether these weights let the unit multiply faster than any do. Takes longer than to multiply them with a few
    /// columns.
    fn tame(weights: &[u8]) -> bool {
        let _ = weights;
        false
    }
    /// Bytes of scratch for columns of `k` elements, for `pixels` pixels, besides what is assembled.
    fn column_bytes(k: usize, pixels: usize) -> usize;
    /// Scratch as words.
    fn columns(scratch: &mut [u8]) -> &mut [Self::Word];
    /// Every filter times two columns: the outputs of two pixels, as many as each slice holds.
    fn two(columns: &[Self::Word], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]);
    /// Every filter times one column.
    fn one(columns: &[Self::Word], filters: &Filters<'_>, outputs: &mut [u8]);

    /// Bytes of scratch for the prepared weights of so many blocks of depthwise channels with so many taps; 0 for a unit
    /// that reads them as they are.
    fn depthwise_bytes(taps: usize, blocks: usize) -> usize {
        let _ = (taps, blocks);
        0
    }
    /// Prepares the weights of the first `blocks` blocks of `kernel`, `[tap][channels]`.
    fn depthwise_weights(words: &mut [Self::Word], kernel: &[u8], channels: usize, blocks: usize) {
        let _ = (words, kernel, channels, blocks);
    }
    /// Blocks of channels at pixels that see the same taps. `words` are the prepared weights, `output` begins with
    /// the first pixel's channels.
    fn depthwise(words: &[Self::Word], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]);

    /// Sum of two operands times powers of two, finished without a leak; `None` for an operand in the output's place.
    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]);
    /// Pools all channels of an output pixel, whose window begins at its first.
    #[inline(always)]
    fn pool(input: &[u8], window: &Area, how: &Pooling, output: &mut [u8])
    where
        Self: Sized,
    {
        in_fours::<Self>(input, window, how, output);
    }
    /// Largest values of 4 neighbouring channels over a window.
    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS];
    /// Sums of 4 neighbouring channels over a window.
    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS];
}

/// What becomes of the values in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pooling {
    pub(super) kind: PoolKind,
    pub(super) finish: Finish,
    /// Whether the largest value is an output already.
    pub(super) keep: bool,
}

impl Pooling {
    /// The output of a largest value, or of a sum.
    #[inline(always)]
    fn end(&self, value: i32) -> u8 {
        match self.kind {
            PoolKind::Max if self.keep => value as u8,
            PoolKind::Max => self.finish.of(value, 0) as u8,
            PoolKind::Average(factor) => self.finish.of(value * i32::from(factor), 0) as u8,
        }
    }
}

/// All channels of an output pixel, four at a time.
#[inline(always)]
pub(super) fn in_fours<U: Unit>(input: &[u8], window: &Area, how: &Pooling, output: &mut [u8]) {
    let (mut window, first, channels) = (*window, window.from, output.len());
    let mut channel = 0;
    while channel < channels {
        // The last block may take up channels of the one before: they come out the same.
        if channels >= CHANNELS {
            channel = channel.min(channels - CHANNELS);
        }
        window.from = first + channel;
        match output.get_mut(channel..).and_then(|out| out.first_chunk_mut::<CHANNELS>()) {
            Some(out) => {
                let values = match how.kind {
                    PoolKind::Max => U::max(input, &window),
                    PoolKind::Average(_) => U::sum(input, &window),
                };
                *out = values.map(|value| how.end(value));
                channel += CHANNELS;
            }
            None => {
                let (mut most, mut sum) = (i32::from(i8::MIN), 0);
                window.each(input, |[x]| (most, sum) = (most.max(x), sum + x));
                if let Some(out) = output.get_mut(channel) {
                    *out = how.end(if how.kind == PoolKind::Max { most } else { sum });
                }
                channel += 1;
            }
        }
    }
}
