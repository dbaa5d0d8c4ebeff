//! Convolutions and dense layers as products of columns with filters.

use shiftwise_core::model::ConvOp;

use super::finish::{Biases, Finish};
use super::unit::{Filters, PIXELS, Unit};

/// What the gathering of columns needs to know of a layer.
struct Gather<'a> {
    op: &'a ConvOp,
    input: &'a [u8],
    width: usize,
    channels: usize,
    /// Channels of a group, and the first of the group at hand.
    share: usize,
    channel: usize,
    /// Elements of a column.
    k: usize,
    /// Output columns whose window lies wholly on the input, horizontally.
    inside: core::ops::Range<usize>,
}

/// The rows of taps that fall on the input.
#[derive(Clone, Copy)]
struct Rows {
    first: usize,
    end: usize,
    /// Input row of the first.
    input: usize,
}

/// Where a column is put together.
struct Column<'s, U: Unit> {
    words: &'s mut [U::Word],
    pixels: usize,
    which: usize,
}

impl<U: Unit> Column<'_, U> {
    fn put(&mut self, k: usize, at: usize, bytes: &[u8]) {
        U::put(self.words, k, self.pixels, self.which, at, bytes);
    }

    fn put_zeros(&mut self, k: usize, at: usize, len: usize) {
        U::put_zeros(self.words, k, self.pixels, self.which, at, len);
    }
}

/// Elements of a filter.
fn elements(op: &ConvOp) -> usize {
    let [kh, kw] = op.window.kernel.map(usize::from);
    kh * kw * (usize::from(op.in_dims[2]) / usize::from(op.groups).max(1))
}

/// Bytes in which a column is assembled whose parts can't be put one by one.
fn stage_bytes<U: Unit>(op: &ConvOp) -> usize {
    let share = usize::from(op.in_dims[2]) / usize::from(op.groups).max(1);
    let k = elements(op);
    if U::BY_FOUR && !share.is_multiple_of(4) && k != share { k.next_multiple_of(4) } else { 0 }
}

/// Pixels at a time that are worth it.
fn pixels(op: &ConvOp) -> usize {
    if op.out_dims[0] == 1 && op.out_dims[1] == 1 { 1 } else { PIXELS }
}

/// Bytes of scratch memory that serve the layer best.
pub(super) fn scratch_bytes<U: Unit>(op: &ConvOp) -> usize {
    stage_bytes::<U>(op) + U::column_bytes(elements(op), pixels(op))
}

/// Computes the layer; `None` if `scratch` does not hold a column.
pub(super) fn conv<U: Unit>(
    op: &ConvOp,
    constants: &[u8],
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let [h, w, ic] = op.in_dims.map(usize::from);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let groups = usize::from(op.groups).max(1);
    let (share, filters, k) = (ic / groups, oc / groups, elements(op));
    let (stage, scratch) = scratch.split_at_mut_checked(stage_bytes::<U>(op))?;
    let pixels = (1..=pixels(op)).rev().find(|pixels| U::column_bytes(k, *pixels) <= scratch.len())?;
    let words = U::columns(scratch);
    let kernel = constants.get(op.kernel as usize..)?;
    let mut gather = Gather { op, input, width: w, channels: ic, share, channel: 0, k, inside: inside(op) };
    for group in 0..groups {
        gather.channel = group * share;
        let first = group * filters;
        let all = Filters {
            kernel: kernel.get(first * k..)?,
            k,
            biases: Biases::of(op, constants).from(first),
            finish: Finish::of_conv(op),
        };
        let (mut y, mut x) = (0, 0);
        let mut rows = rows(op, 0, h);
        for out in output.chunks_mut(pixels * oc) {
            let (one, two) = out.split_at_mut_checked(oc).unwrap_or_default();
            let count = if two.is_empty() { 1 } else { 2 };
            for which in 0..count {
                let mut column = Column::<U> { words: &mut *words, pixels: count, which };
                gather.column(rows, x, stage, &mut column)?;
                x += 1;
                if x == ow {
                    (y, x) = (y + 1, 0);
                    rows = self::rows(op, y, h);
                }
            }
            let one = one.get_mut(first..first + filters)?;
            match two.get_mut(first..first + filters) {
                Some(two) => U::two(words, &all, one, two),
                None => U::one(words, &all, one),
            }
        }
    }
    Some(())
}

fn rows(op: &ConvOp, y: usize, height: usize) -> Rows {
    let (first, end, input) = op.window.taps(0, y, height);
    Rows { first, end, input }
}

/// Output columns whose window needs no padding.
fn inside(op: &ConvOp) -> core::ops::Range<usize> {
    let [stride, pad] = [op.window.stride[1], op.window.pad_before[1]].map(|n| usize::from(n).max(1));
    let pad = if op.window.pad_before[1] == 0 { 0 } else { pad };
    let room = (usize::from(op.in_dims[1]) + pad).checked_sub(op.window.extent(1) as usize);
    pad.div_ceil(stride)..room.map_or(0, |room| room / stride + 1)
}

impl Gather<'_> {
    /// Puts together what output column `x` sees; `None` never happens with a checked op.
    #[inline(always)]
    fn column<U: Unit>(&self, rows: Rows, x: usize, stage: &mut [u8], to: &mut Column<'_, U>) -> Option<()> {
        if stage.is_empty() {
            return self.runs(rows, x, |at, run| match run {
                Ok(bytes) => to.put(self.k, at, bytes),
                Err(len) => to.put_zeros(self.k, at, len),
            });
        }
        self.runs(rows, x, |at, run| match run {
            Ok(bytes) => stage.iter_mut().skip(at).zip(bytes).for_each(|(to, x)| *to = *x),
            Err(len) => stage.iter_mut().skip(at).take(len).for_each(|to| *to = 0),
        })?;
        to.put(self.k, 0, stage.get(..self.k)?);
        Some(())
    }

    /// Calls `each` with the place in the column of every run of input bytes, or with the number of zeros there.
    #[inline(always)]
    fn runs(&self, rows: Rows, x: usize, mut each: impl FnMut(usize, Result<&[u8], usize>)) -> Option<()> {
        let window = &self.op.window;
        let [kh, kw] = window.kernel.map(usize::from);
        let [dy, dx] = window.dilation.map(usize::from);
        let (first, end, from) = if self.inside.contains(&x) {
            (0, kw, x * usize::from(window.stride[1]) - usize::from(window.pad_before[1]))
        } else {
            window.taps(1, x, self.width)
        };
        let mut at = 0;
        let mut row = (rows.input * self.width + from) * self.channels + self.channel;
        for ky in 0..kh {
            if ky < rows.first || ky >= rows.end || first == end {
                each(at, Err(kw * self.share));
                at += kw * self.share;
                continue;
            }
            if first > 0 {
                each(at, Err(first * self.share));
                at += first * self.share;
            }
            if dx == 1 && self.share == self.channels {
                let len = (end - first) * self.share;
                each(at, Ok(self.input.get(row..row + len)?));
                at += len;
            } else {
                for tap in 0..end - first {
                    let from = row + tap * dx * self.channels;
                    each(at, Ok(self.input.get(from..from + self.share)?));
                    at += self.share;
                }
            }
            if end < kw {
                each(at, Err((kw - end) * self.share));
                at += (kw - end) * self.share;
            }
            row += dy * self.width * self.channels;
        }
        Some(())
    }
}
