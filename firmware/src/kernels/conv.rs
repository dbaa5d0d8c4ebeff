//! Convolutions and dense layers as products of columns with filters.

use shiftwise_core::model::ConvOp;

use super::finish::{Biases, Finish};
use super::unit::{Columns, Filters, PIXELS, Place, Runs, Unit, inside};

/// What the gathering of columns needs to know of a layer.
struct Gather<'a> {
    op: &'a ConvOp,
    input: &'a [u8],
    width: usize,
    channels: usize,
    /// Channels of a group, and the first of the group at hand.
    share: usize,
    channel: usize,
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
    let mut gather = Gather { op, input, width: w, channels: ic, share, channel: 0, inside: inside(op) };
    for group in 0..groups {
        gather.channel = group * share;
        let first = group * filters;
        let kernel = kernel.get(first * k..)?;
        let whole = kernel.len().checked_sub(k.next_multiple_of(U::STEP)).map_or(0, |rest| rest / k.max(1) + 1);
        let all = Filters {
            kernel,
            k,
            whole: whole.min(filters),
            biases: Biases::of(op, constants).from(first),
            finish: Finish::of_conv(op),
        };
        let (mut y, mut x) = (0, 0);
        let mut rows = rows(op, 0, h);
        for out in output.chunks_mut((pixels * oc).max(1)) {
            let (one, two) = out.split_at_mut_checked(oc).unwrap_or_default();
            let count = if two.is_empty() { 1 } else { 2 };
            for which in 0..count {
                let (words, to) = (&mut *words, Place { k, pixels: count, which, at: 0 });
                if stage.is_empty() {
                    gather.column::<U>(rows, x, words, to)?;
                    U::end(words, to);
                } else {
                    gather.column::<U::Stage>(rows, x, stage, Place { pixels: 1, which: 0, ..to })?;
                    U::put(words, to, stage.get(..k)?, Runs { count: 1, len: k, step: 0 });
                }
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

impl Gather<'_> {
    /// Puts together what output column `x` sees; `None` never happens with a checked op.
    #[inline(always)]
    fn column<C: Columns>(&self, rows: Rows, x: usize, words: &mut [C::Word], mut to: Place) -> Option<()> {
        let window = &self.op.window;
        let [kh, kw] = window.kernel.map(usize::from);
        let row = window.dilation.map(usize::from)[0] * self.width * self.channels;
        let (first, end, from) = if self.inside.contains(&x) {
            (0, kw, x * usize::from(window.stride[1]) - usize::from(window.pad_before[1]))
        } else {
            window.taps(1, x, self.width)
        };
        let mut from = (rows.input * self.width + from) * self.channels + self.channel;
        let seen = if first == end { 0 } else { rows.end - rows.first };
        // A row of taps is one run of input bytes, or one run for each.
        let right = usize::from(window.dilation[1]) * self.channels;
        let (taps, len) = if right == self.share { (1, (end - first) * self.share) } else { (end - first, self.share) };
        let before = if seen == 0 { kh } else { rows.first };
        if before > 0 {
            to.zeros::<C>(words, before * kw * self.share);
        }
        if end - first == kw && taps == 1 {
            to.put::<C>(words, self.input.get(from..)?, Runs { count: seen, len, step: row });
        } else {
            for _ in 0..seen {
                to.zeros::<C>(words, first * self.share);
                to.put::<C>(words, self.input.get(from..)?, Runs { count: taps, len, step: right });
                to.zeros::<C>(words, (kw - end) * self.share);
                from += row;
            }
        }
        if before + seen < kh {
            to.zeros::<C>(words, (kh - before - seen) * kw * self.share);
        }
        Some(())
    }
}

impl Place {
    #[inline(always)]
    fn put<C: Columns>(&mut self, words: &mut [C::Word], bytes: &[u8], runs: Runs) {
        C::put(words, *self, bytes, runs);
        self.at += runs.count * runs.len;
    }

    // Padding is the exception.
    #[inline(never)]
    fn zeros<C: Columns>(&mut self, words: &mut [C::Word], len: usize) {
        C::put_zeros(words, *self, len);
        self.at += len;
    }
}
