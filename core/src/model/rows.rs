//! How closely the rows of a layer's output may follow the rows of its input in memory.

use super::ids::Place;
use super::ops::{CpuOp, PoolOp};
use crate::shape::Window;

/// How a layer goes down the rows of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows, and bytes of each.
    pub(crate) input: [u64; 2],
    pub(crate) output: [u64; 2],
    window: Window,
}

impl Rows {
    /// The rows of a layer; `None` for one that takes its input as a whole, or with windows that meet no input row.
    pub fn of(op: &CpuOp<'_>) -> Option<Self> {
        let (input, output, window) = match op {
            CpuOp::Conv(c) | CpuOp::Depthwise(c) => (c.in_dims, c.out_dims, c.window),
            CpuOp::Pool(PoolOp { in_dims, out_dims: [h, w], window, .. }) => (*in_dims, [*h, *w, in_dims[2]], *window),
            _ => return None,
        };
        Self::new(input, output, window)
    }

    /// The rows of a layer with these dimensions, `[h, w, c]` in int8, and this window; `None` as for [`Self::of`].
    pub fn new(input: [u16; 3], output: [u16; 3], window: Window) -> Option<Self> {
        if !window.is_valid() {
            return None;
        }
        let rows = |[h, w, c]: [u16; 3]| [u64::from(h), u64::from(w) * u64::from(c)];
        let this = Self { input: rows(input), output: rows(output), window };
        let last = this.output[0].checked_sub(1)? * u64::from(window.stride[0]);
        let meets = u32::from(window.pad_before[0]) < window.extent(0)
            && last < this.input[0] + u64::from(window.pad_before[0])
            && this.input[1] > 0
            && this.output[1] > 0;
        meets.then_some(this)
    }

    /// The input rows that output row `y` reads: from the first to behind the last.
    fn read(&self, y: u64) -> [u64; 2] {
        let [stride, pad] = [self.window.stride[0], self.window.pad_before[0]].map(u64::from);
        let end = y * stride + u64::from(self.window.extent(0));
        [(y * stride).saturating_sub(pad), end.saturating_sub(pad).min(self.input[0])]
    }

    /// Bytes by which the output has to start before the input at least, to be written from its first row on.
    pub fn below(&self) -> u64 {
        // Until the window leaves the padding, output grows and no input is done with; from there on both grow evenly.
        let leaves = u64::from(self.window.pad_before[0].checked_div(self.window.stride[0]).unwrap_or(0));
        let [rows, bytes] = self.output;
        let needed = |y: u64| ((y + 1) * bytes).saturating_sub(self.read(y)[0] * self.input[1]);
        [leaves, leaves + 1, rows - 1].map(|y| needed(y.min(rows - 1))).into_iter().max().unwrap_or(0)
    }

    /// Bytes by which the output has to start behind the input's start at least, to be written from its last row on.
    pub fn above(&self) -> u64 {
        // As above, from the other end: the first row whose window ends in the padding, or the row before.
        let reaches =
            (self.input[0] + u64::from(self.window.pad_before[0])).saturating_sub(self.window.extent(0).into());
        // Divided as 32 bits, which rows and bytes of a tensor have: long divisions are not in every processor.
        let reaches = u64::from((reaches as u32).checked_div(self.window.stride[0].into()).unwrap_or(0));
        let [rows, bytes] = self.output;
        let needed = |y: u64| (self.read(y)[1] * self.input[1]).saturating_sub(y * bytes);
        [0, reaches, reaches + 1].map(|y| needed(y.min(rows - 1))).into_iter().max().unwrap_or(0)
    }

    /// Whether the output may lie at `to` while the input lies at `from`.
    pub(crate) fn allow(&self, from: Place, to: Place) -> bool {
        let [from_at, to_at] = [from, to].map(|place| u64::from(place.offset));
        from.region == to.region && (to_at + self.below() <= from_at || from_at + self.above() <= to_at)
    }

    fn band(&self, rows: [u64; 2]) -> Option<Band> {
        let [y0, y1] = rows;
        let (first, end) = (self.read(y0)[0], self.read(y1.checked_sub(1)?)[1]);
        let [stride, pad] = [self.window.stride[0], self.window.pad_before[0]].map(u64::from);
        let last = (y1 - 1) * stride + u64::from(self.window.extent(0));
        Some(Band {
            rows,
            input: [first, end],
            pad: [(pad + first).checked_sub(y0 * stride)?, last.saturating_sub(pad + end)],
        })
    }

    /// The next band, if output rows `rows` are still to do and the output starts `apart` bytes behind the input's start.
    pub(crate) fn next(&self, [y0, y1]: [u64; 2], apart: i64) -> Option<Band> {
        let (row, out) = (self.input[1] as i64, self.output[1] as i64);
        let band = if apart < 0 {
            // As many rows as end before the first input row that they and later ones read.
            let room = self.read(y0)[0] as i64 * row - apart;
            let room = u32::try_from(room.max(0)).unwrap_or(u32::MAX);
            [y0, y1.min(room.checked_div(out as u32)?.into())]
        } else {
            // As many rows as start behind the last input row that they and earlier ones read.
            let end = (self.read(y1.checked_sub(1)?)[1] as i64 * row - apart).max(0);
            let end = u32::try_from(end).unwrap_or(u32::MAX);
            [y0.max(end.checked_next_multiple_of(out as u32)?.checked_div(out as u32)?.into()), y1]
        };
        if band[0] < band[1] { self.band(band) } else { None }
    }
}

/// Some rows of a layer's output, and what it reads for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    /// Output rows.
    pub(crate) rows: [u64; 2],
    /// Input rows.
    pub(crate) input: [u64; 2],
    /// Rows of padding above and below them.
    pad: [u64; 2],
}

impl Band {
    pub(crate) fn window(&self, window: &Window) -> Window {
        let [before, after] = self.pad.map(|rows| rows as u16);
        Window { pad_before: [before, window.pad_before[1]], pad_after: [after, window.pad_after[1]], ..*window }
    }

    pub(crate) fn heights(&self) -> [u16; 2] {
        [self.input, self.rows].map(|[start, end]| (end - start) as u16)
    }
}
