//! Outputs that are written over their input: rows that nobody reads any more make room for rows that are done.
//!
//! A layer with a sliding window reads only some rows of its input for a row of output. If the output lies a little
//! below the input and is computed from its first row on, or a little above and from its last, then no row is
//! overwritten that is still needed; [`Rows`] says how much "a little" is. The layer then runs in bands, each on slices
//! that do not overlap, so kernels know nothing of it.

use crate::model::{ConvOp, CpuOp, Deployable, Place, PoolOp, TensorDesc, TensorId};
use crate::run::Memory;
use crate::shape::Window;

/// How a layer goes down the rows of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows, and bytes of each.
    input: [u64; 2],
    output: [u64; 2],
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
    pub(super) fn allow(&self, from: Place, to: Place) -> bool {
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
    fn next(&self, [y0, y1]: [u64; 2], apart: i64) -> Option<Band> {
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
struct Band {
    /// Output rows.
    rows: [u64; 2],
    /// Input rows.
    input: [u64; 2],
    /// Rows of padding above and below them.
    pad: [u64; 2],
}

impl Band {
    fn window(&self, window: &Window) -> Window {
        let [before, after] = self.pad.map(|rows| rows as u16);
        Window { pad_before: [before, window.pad_before[1]], pad_after: [after, window.pad_after[1]], ..*window }
    }

    fn heights(&self) -> [u16; 2] {
        [self.input, self.rows].map(|[start, end]| (end - start) as u16)
    }
}

/// A layer that can be cut into bands.
pub(super) trait InBands: Sized {
    fn band(&self, heights: [u16; 2], window: impl Fn(&Window) -> Window) -> Self;
}

impl InBands for ConvOp {
    fn band(&self, [h, oh]: [u16; 2], window: impl Fn(&Window) -> Window) -> Self {
        let ([_, w, c], [_, ow, oc]) = (self.in_dims, self.out_dims);
        Self { in_dims: [h, w, c], out_dims: [oh, ow, oc], window: window(&self.window), ..*self }
    }
}

impl InBands for PoolOp {
    fn band(&self, [h, oh]: [u16; 2], window: impl Fn(&Window) -> Window) -> Self {
        let ([_, w, c], [_, ow]) = (self.in_dims, self.out_dims);
        Self { in_dims: [h, w, c], out_dims: [oh, ow], window: window(&self.window), ..*self }
    }
}

/// A kernel of a layer, or of a band of one: input bytes, output bytes.
type Kernel<'k, T> = &'k mut dyn FnMut(&T, &[u8], &mut [u8]);

/// Runs `kernel` on the whole layer, or where its output lies over its input on one band after the other.
///
/// `None` if a tensor is missing or outside, or they overlap otherwise than [`Rows::allow`]s.
pub(super) fn run<T: InBands>(
    model: &Deployable<'_>,
    [input, output]: [TensorId; 2],
    (op, layer): (&CpuOp<'_>, &T),
    memory: &mut Memory<'_>,
    kernel: Kernel<'_, T>,
) -> Option<()> {
    let (from, to) = (model.tensor(input)?, model.tensor(output)?);
    if super::check::apart(&from, &to) {
        let (x, y) = memory.pair(&from, &to)?;
        kernel(layer, x, y);
        return Some(());
    }
    in_bands(&from, &to, &Rows::of(op)?, memory, &mut |band: &Band, x, y| {
        kernel(&layer.band(band.heights(), |window| band.window(window)), x, y);
    })
}

/// Goes through the bands; of memory each sees the input rows that it reads and the output rows that it writes.
fn in_bands(
    from: &TensorDesc<'_>,
    to: &TensorDesc<'_>,
    rows: &Rows,
    memory: &mut Memory<'_>,
    each: Kernel<'_, Band>,
) -> Option<()> {
    let region = memory.region_mut(from.place.region).filter(|_| from.place.region == to.place.region)?;
    let (start, to_start) = (u64::from(from.place.offset), u64::from(to.place.offset));
    let apart = to_start as i64 - start as i64;
    let range = |start: u64, [first, end]: [u64; 2], bytes: u64| {
        Some(usize::try_from(start + first * bytes).ok()?..usize::try_from(start + end * bytes).ok()?)
    };
    let mut left = [0, rows.output[0]];
    while left[0] < left[1] {
        let band = rows.next(left, apart)?;
        let (x, y) = (range(start, band.input, rows.input[1])?, range(to_start, band.rows, rows.output[1])?);
        let [x, y] = region.get_disjoint_mut([x, y]).ok()?;
        each(&band, x, y);
        left = if apart < 0 { [band.rows[1], left[1]] } else { [left[0], band.rows[0]] };
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{conv, depthwise, pool};
    use crate::fix::FixPos;
    use crate::model::{Act, DType, PoolKind, Region, Role};
    use crate::shape::Shape;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn tensor(dims: [u16; 3], offset: u64) -> TensorDesc<'static> {
        let place = Place { region: Region::Workspace, offset: offset as u32 };
        let shape = Shape::new(&dims.map(u32::from)).unwrap();
        TensorDesc { name: "t", origin: "t", shape, dtype: DType::I8, pos: FixPos(0), place, role: Role::Inner }
    }

    /// Kernel, stride, dilation, padding of one axis, and pixels that it is sure to fit into.
    fn axis() -> impl Strategy<Value = ([u16; 5], u16)> {
        (1u16..5, 1u16..4, 1u16..3, 0u16..4, 0u16..4, 1u16..9).prop_map(
            |(kernel, stride, dilation, before, after, more)| {
                let extent = (kernel - 1) * dilation + 1;
                ([kernel, stride, dilation, before.min(extent - 1), after.min(extent - 1)], extent + more - 1)
            },
        )
    }

    #[derive(Clone, Copy, Debug)]
    enum Layer {
        Conv,
        Depthwise,
        Max,
        Average,
    }

    proptest! {
        #[test]
        fn an_output_over_its_input_is_the_same(
            layer in prop::sample::select(&[Layer::Conv, Layer::Depthwise, Layer::Max, Layer::Average][..]),
            (vertical, h) in axis(),
            (horizontal, w) in axis(),
            c in 1u16..4,
            oc in 1u16..9,
            more in 0u64..200,
            seed in prop::collection::vec(any::<u8>(), 64),
        ) {
            let at = |i: usize| [vertical[i], horizontal[i]];
            let window = Window { kernel: at(0), stride: at(1), dilation: at(2), pad_before: at(3), pad_after: at(4) };
            let pooling = matches!(layer, Layer::Max | Layer::Average);
            let window = if pooling { Window { dilation: [1, 1], pad_before: [0, 0], pad_after: [0, 0], ..window } } else { window };
            let out = [(0, h), (1, w)].map(|(axis, n)| window.outputs(axis, n.into()) as u16);
            let oc = match layer { Layer::Conv => oc, Layer::Depthwise => c * 2, _ => c };
            let random = |n: usize| -> Vec<u8> { (0..n).map(|i| seed[i % 64].wrapping_mul(i as u8 | 1)).collect() };
            let constants = random(5 * 5 * 3 * 8);
            let (in_dims, out_dims) = ([h, w, c], [out[0], out[1], oc]);
            let conv_op = ConvOp {
                input: TensorId(0), output: TensorId(1), in_dims, out_dims, window, groups: 1, kernel: 0, bias: None,
                fine: 0, shift_cut: 7, act: Act::None,
            };
            let kind = if let Layer::Max = layer { PoolKind::Max } else { PoolKind::Average(3) };
            let pool_op = PoolOp {
                input: TensorId(0), output: TensorId(1), in_dims, out_dims: out, window, kind, shift: 1, act: Act::None,
            };
            let op = match layer {
                Layer::Conv => CpuOp::Conv(conv_op),
                Layer::Depthwise => CpuOp::Depthwise(conv_op),
                _ => CpuOp::Pool(pool_op),
            };
            let run = |band: Option<Band>, x: &[u8], y: &mut [u8]| {
                let conv_op = band.map_or(conv_op, |b| conv_op.band(b.heights(), |w| b.window(w)));
                let pool_op = band.map_or(pool_op, |b| pool_op.band(b.heights(), |w| b.window(w)));
                // A band is a layer by itself, with the geometry that its op tells.
                if let Some(b) = band {
                    assert_eq!(conv_op.window.outputs(0, conv_op.in_dims[0].into()), u32::from(b.heights()[1]));
                }
                match layer {
                    Layer::Conv => conv(&conv_op, &constants, x, y),
                    Layer::Depthwise => depthwise(&conv_op, &constants, x, y),
                    _ => pool(&pool_op, x, y),
                }
            };
            let input = random(usize::from(h) * usize::from(w) * usize::from(c));
            let mut wanted = vec![0; out_dims.iter().map(|d| usize::from(*d)).product()];
            run(None, &input, &mut wanted);

            let rows = Rows::of(&op).unwrap();
            for (from_at, to_at) in [(rows.below() + more, more), (more, more + rows.above())] {
                let (from, to) = (tensor(in_dims, from_at), tensor(out_dims, to_at));
                prop_assert!(rows.allow(from.place, to.place));
                let mut bytes = vec![0u8; (from_at as usize + input.len()).max(to_at as usize + wanted.len())];
                bytes[from_at as usize..][..input.len()].copy_from_slice(&input);
                let mut memory = Memory { constants: &[], workspace: &mut bytes, inputs: &mut [], outputs: &mut [] };
                in_bands(&from, &to, &rows, &mut memory, &mut |band, x, y| run(Some(*band), x, y)).unwrap();
                prop_assert_eq!(&bytes[to_at as usize..][..wanted.len()], &wanted[..]);
            }
            // One byte closer, and some row would be overwritten before its last reader: neither check nor run takes it.
            for (from_at, to_at) in [(rows.below() + more - 1, more), (more, more + rows.above() - 1)] {
                let (from, to) = (tensor(in_dims, from_at), tensor(out_dims, to_at));
                prop_assert!(!rows.allow(from.place, to.place));
                let mut bytes = vec![0u8; 4096];
                let mut memory = Memory { constants: &[], workspace: &mut bytes, inputs: &mut [], outputs: &mut [] };
                let done = in_bands(&from, &to, &rows, &mut memory, &mut |_, _, _| ());
                prop_assert!(done.is_none());
            }
        }
    }
}
