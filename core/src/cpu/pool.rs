//! Pooling.

use super::operand::finish;
use crate::model::{PoolKind, PoolOp};
use crate::shape::positive;

/// Pooling; input `[h, w, c]`, output `[oh, ow, c]`. Averages sum with zeros for padding.
pub fn pool(op: &PoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = positive(op.out_dims[1].into());
    for (pixel, out) in output.chunks_exact_mut(positive(c).get()).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / ow, h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % ow, w);
        for (ch, out) in out.iter_mut().enumerate() {
            let rows = (iy0..iy0 + (ky1 - ky0)).flat_map(|y| (ix0..ix0 + (kx1 - kx0)).map(move |x| y * w + x));
            let values = rows.map(|p| i32::from(input.get(p * c + ch).copied().unwrap_or(0) as i8));
            let acc = match op.kind {
                PoolKind::Max => values.max().unwrap_or(0),
                PoolKind::Average(m) => values.sum::<i32>() * i32::from(m),
            };
            *out = finish(acc, op.act, op.shift) as u8;
        }
    }
}
