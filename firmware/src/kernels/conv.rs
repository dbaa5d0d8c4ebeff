//! Convolutions and dense layers as products of columns with filters.

use shiftwise_core::model::ConvOp;
use shiftwise_core::shape::positive;

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
    /// Input bytes from tap to tap, from a row of taps to the next, and from an output to the next.
    right: usize,
    down: usize,
    stride: usize,
    /// Rows of taps, elements of each, and the runs of input bytes that one is: 1 where taps touch.
    rows: usize,
    row: usize,
    runs: usize,
    /// Output columns whose window lies wholly on the input, horizontally.
    inside: core::ops::Range<usize>,
}

/// An output pixel.
#[derive(Clone, Copy)]
struct Pixel {
    x: usize,
    y: usize,
    /// Rows of taps above the input, and those on it.
    above: usize,
    seen: usize,
    /// Input row of the first on it, and the input byte of its first tap, if that is inside.
    row: usize,
    from: usize,
}

/// Pixels for which it pays to look at the weights first.
const MANY: usize = 16;

/// Elements of a filter.
fn elements(op: &ConvOp) -> usize {
    let [kh, kw] = op.window.kernel.map(usize::from);
    kh * kw * (usize::from(op.in_dims[2]) / positive(op.groups.into()))
}

/// Bytes in which a column is assembled whose parts can't be put one by one.
fn stage_bytes<U: Unit>(op: &ConvOp) -> usize {
    let share = usize::from(op.in_dims[2]) / positive(op.groups.into());
    let k = elements(op);
    if U::BY_FOUR && !share.is_multiple_of(4) && k != share { k.next_multiple_of(4) } else { 0 }
}

/// Pixels at a time that are worth it.
fn pixels(op: &ConvOp) -> usize {
    if op.out_dims[0] == 1 && op.out_dims[1] == 1 { 1 } else { PIXELS }
}

/// The filters of a group, `count` of them from `first` on.
fn group<'a, U: Unit>(op: &ConvOp, constants: &'a [u8], first: usize, count: usize) -> Option<Filters<'a>> {
    let k = elements(op);
    let kernel = constants.get(op.kernel as usize + first * k..)?;
    let whole = kernel.len().checked_sub(k.next_multiple_of(U::STEP)).map_or(0, |rest| rest / positive(k) + 1);
    Some(Filters {
        kernel,
        k,
        whole: whole.min(count),
        tame: false,
        biases: Biases::of(op, constants).from(first),
        finish: Finish::of_conv(op),
    })
}

/// Computes the layer; `None` if `scratch` does not hold a column.
pub(super) fn conv<U: Unit>(
    op: &ConvOp,
    constants: &[u8],
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let ([h, w, _], window) = (op.in_dims, &op.window);
    let padded = window.pad_before != [0, 0] || window.pad_after != [0, 0];
    // The only output sees all of the input, in its order.
    let dense = window.kernel == [h, w] && window.dilation == [1, 1] && op.out_dims[..2] == [1, 1];
    if (window.kernel == [1, 1] || dense) && !padded && op.groups == 1 {
        points::<U>(op, constants, input, output, scratch)
    } else {
        windows::<U>(op, constants, input, output, scratch)
    }
}

/// A layer whose columns are runs of its input.
#[inline(never)]
fn points<U: Unit>(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8], scratch: &mut [u8]) -> Option<()> {
    let [_, w, ic] = op.in_dims.map(usize::from);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [down, right] = op.window.stride.map(usize::from);
    let mut filters = group::<U>(op, constants, 0, oc)?;
    let k = filters.k;
    let pixels = (1..=pixels(op)).rev().find(|pixels| U::column_bytes(k, *pixels) <= scratch.len())?;
    filters.tame = output.len() >= MANY * oc && U::tame(filters.kernel.get(..oc * k)?);
    let words = U::columns(scratch);
    let (mut row, mut x, mut from) = (0, 0, 0);
    for out in output.chunks_mut(positive(pixels * oc).get()) {
        let (one, two) = out.split_at_mut_checked(oc).unwrap_or_default();
        let count = if two.is_empty() { 1 } else { 2 };
        for which in 0..count {
            let to = Place { k, pixels: count, which, at: 0 };
            U::put(words, to, input.get(from..)?, Runs { count: 1, len: k, step: 0 });
            U::end(words, to);
            (x, from) = (x + 1, from + right * ic);
            if x == ow {
                row += down * w * ic;
                (x, from) = (0, row);
            }
        }
        if count == 1 { U::one(words, &filters, one) } else { U::two(words, &filters, one, two) }
    }
    Some(())
}

/// A layer whose windows slide.
#[inline(never)]
fn windows<U: Unit>(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8], scratch: &mut [u8]) -> Option<()> {
    let ic = usize::from(op.in_dims[2]);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let groups = usize::from(op.groups).max(1);
    let (share, filters, k) = (ic / positive(groups), oc / positive(groups), elements(op));
    let (stage, scratch) = scratch.split_at_mut_checked(stage_bytes::<U>(op))?;
    let pixels = (1..=pixels(op)).rev().find(|pixels| U::column_bytes(k, *pixels) <= scratch.len())?;
    let words = U::columns(scratch);
    let mut gather = Gather::new(op, input, share);
    for part in 0..groups {
        gather.channel = part * share;
        let first = part * filters;
        let mut all = group::<U>(op, constants, first, filters)?;
        all.tame = output.len() >= MANY * oc && U::tame(all.kernel.get(..filters * k)?);
        let mut pixel = gather.row(0);
        for out in output.chunks_mut(positive(pixels * oc).get()) {
            let (one, two) = out.split_at_mut_checked(oc).unwrap_or_default();
            let count = if two.is_empty() { 1 } else { 2 };
            for which in 0..count {
                let (words, to) = (&mut *words, Place { k, pixels: count, which, at: 0 });
                if stage.is_empty() {
                    gather.column::<U>(&pixel, words, to)?;
                    U::end(words, to);
                } else {
                    gather.column::<U::Stage>(&pixel, stage, Place { pixels: 1, which: 0, ..to })?;
                    U::put(words, to, stage.get(..k)?, Runs { count: 1, len: k, step: 0 });
                }
                pixel = gather.next(pixel, ow);
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

impl<'a> Gather<'a> {
    fn new(op: &'a ConvOp, input: &'a [u8], share: usize) -> Self {
        let window = &op.window;
        let ([kh, kw], [dy, dx]) = (window.kernel.map(usize::from), window.dilation.map(usize::from));
        let (width, channels) = (usize::from(op.in_dims[1]), usize::from(op.in_dims[2]));
        Self {
            op,
            input,
            width,
            channels,
            share,
            channel: 0,
            right: dx * channels,
            down: dy * width * channels,
            stride: usize::from(window.stride[1]) * channels,
            rows: kh,
            row: kw * share,
            runs: if dx * channels == share || kw == 1 { 1 } else { kw },
            inside: inside(op),
        }
    }

    /// The first output of a row.
    fn row(&self, y: usize) -> Pixel {
        let (above, end, row) = self.op.window.taps(0, y, self.op.in_dims[0].into());
        let left = usize::from(self.op.window.pad_before[1]) * self.channels;
        // Wraps where the window begins left of the input, which is where `from` does not count.
        let from = (row * self.width * self.channels + self.channel).wrapping_sub(left);
        let seen = end - above;
        Pixel { x: 0, y, above: if seen == 0 { self.rows } else { above }, seen, row, from }
    }

    /// The output after this one, in rows of `width`.
    #[inline(always)]
    fn next(&self, pixel: Pixel, width: usize) -> Pixel {
        if pixel.x + 1 < width {
            Pixel { x: pixel.x + 1, from: pixel.from.wrapping_add(self.stride), ..pixel }
        } else {
            self.row(pixel.y + 1)
        }
    }

    /// Puts together what an output sees; `None` never happens with a checked op.
    #[inline(always)]
    fn column<C: Columns>(&self, pixel: &Pixel, words: &mut [C::Word], mut to: Place) -> Option<()> {
        if !self.inside.contains(&pixel.x) {
            return self.border::<C>(pixel, words, to);
        }
        if pixel.above > 0 {
            to.zeros::<C>(words, pixel.above * self.row);
        }
        if self.runs == 1 && pixel.seen > 0 {
            let runs = Runs { count: pixel.seen, len: self.row, step: self.down };
            to.put::<C>(words, self.input.get(pixel.from..)?, runs);
        } else {
            let mut from = pixel.from;
            for _ in 0..pixel.seen {
                let runs = Runs { count: self.runs, len: self.share, step: self.right };
                to.put::<C>(words, self.input.get(from..)?, runs);
                from += self.down;
            }
        }
        if pixel.above + pixel.seen < self.rows {
            to.zeros::<C>(words, (self.rows - pixel.above - pixel.seen) * self.row);
        }
        Some(())
    }

    /// [`Self::column`] where taps fall left or right of the input.
    #[inline(never)]
    fn border<C: Columns>(&self, pixel: &Pixel, words: &mut [C::Word], mut to: Place) -> Option<()> {
        let (first, end, from) = self.op.window.taps(1, pixel.x, self.width);
        let seen = if first == end { 0 } else { pixel.seen };
        let above = if seen == 0 { self.rows } else { pixel.above };
        to.zeros::<C>(words, above * self.row);
        let mut from = (pixel.row * self.width + from) * self.channels + self.channel;
        let runs = match self.runs {
            1 => Runs { count: 1, len: (end - first) * self.share, step: 0 },
            _ => Runs { count: end - first, len: self.share, step: self.right },
        };
        for _ in 0..seen {
            to.zeros::<C>(words, first * self.share);
            to.put::<C>(words, self.input.get(from..)?, runs);
            to.zeros::<C>(words, self.row - end * self.share);
            from += self.down;
        }
        to.zeros::<C>(words, (self.rows - above - seen) * self.row);
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
