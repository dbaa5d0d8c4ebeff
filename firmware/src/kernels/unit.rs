//! What a processor brings to the kernels.

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
    pub(super) biases: Biases<'a>,
    pub(super) finish: Finish,
}

/// The taps of a depthwise window on the input, for one output pixel and 4 neighbouring channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taps<'a> {
    /// The kernel `[tap][channels]` from the first of the 4 channels on.
    pub(super) kernel: &'a [u8],
    pub(super) channels: usize,
    /// Taps in a row of the kernel.
    pub(super) width: usize,
    /// The first tap that counts, and how many rows and columns of them there are.
    pub(super) tap: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// The first tap's input byte, and input bytes from row to row and from column to column.
    pub(super) from: usize,
    pub(super) down: usize,
    pub(super) right: usize,
}

/// Register blocks and vector loops of one processor. Every function gives the same bytes on every unit.
pub(super) trait Unit {
    /// What columns are made of.
    type Word;
    /// Whether columns are put in steps of 4 elements only: anything else has to be assembled first.
    const BY_FOUR: bool;
    /// Bytes of scratch for columns of `k` elements, for `pixels` pixels, besides what is assembled.
    fn column_bytes(k: usize, pixels: usize) -> usize;
    /// Scratch as words.
    fn columns(scratch: &mut [u8]) -> &mut [Self::Word];
    /// Puts `bytes` into the column of pixel `which` of `pixels`, at element `at`. `k` is the column's length. Elements
    /// that fill up a step of 4 become 0.
    fn put(columns: &mut [Self::Word], k: usize, pixels: usize, which: usize, at: usize, bytes: &[u8]);
    /// Puts `len` zeros.
    fn put_zeros(columns: &mut [Self::Word], k: usize, pixels: usize, which: usize, at: usize, len: usize);
    /// Every filter times two columns: the outputs of two pixels, as many as each slice holds.
    fn two(columns: &[Self::Word], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]);
    /// Every filter times one column.
    fn one(columns: &[Self::Word], filters: &Filters<'_>, outputs: &mut [u8]);

    /// Bytes of scratch for the prepared weights of 4 depthwise channels with so many taps.
    fn depthwise_bytes(taps: usize) -> usize;
    /// Prepares the weights of the first 4 channels of `kernel`, `[tap][channels]`.
    fn depthwise_weights(words: &mut [Self::Word], kernel: &[u8], channels: usize);
    /// The sums of 4 neighbouring channels at one pixel, added to `sums`. `words` are the prepared weights.
    fn depthwise(words: &[Self::Word], input: &[u8], taps: &Taps<'_>, sums: [i32; 4]) -> [i32; 4];

    /// Sum of two operands times powers of two, finished; `None` for an operand in the output's place.
    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]);
    /// output = max(output, input), element by element.
    fn max(input: &[u8], output: &mut [u8]);
}
