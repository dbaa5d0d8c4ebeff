//! Outputs that are written over their input: rows that nobody reads any more make room for rows that are done.
//!
//! A layer with a sliding window reads only some rows of its input for a row of output. If the output lies a little
//! below the input and is computed from its first row on, or a little above and from its last, then no row is
//! overwritten that is still needed; [`Rows`] says how much "a little" is. The layer then runs in bands, each on slices
//! that do not overlap, so kernels know nothing of it.

use crate::memory::Memory;
use crate::model::{Band, ConvOp, CpuOp, Deployable, PoolOp, Rows, TensorDesc, TensorId, apart};
use crate::shape::Window;

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
    let (from, to) = (model.unnamed(input)?, model.unnamed(output)?);
    if apart(&from, &to) {
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
    use crate::model::{Act, DType, Place, PoolKind, Region, Role};
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
