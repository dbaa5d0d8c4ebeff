//! Pooling, channels innermost.

use shiftwise_core::model::{Act, PoolKind, PoolOp};

use super::elementwise::requantize;
use super::finish::Finish;
use super::unit::Unit;

/// Channels whose sums are kept at once.
const SUMS: usize = 16;

/// Computes the layer.
pub(super) fn pool<U: Unit>(op: &PoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    let finish = Finish::new(op.act, op.shift, 0);
    for (pixel, out) in output.chunks_exact_mut(c).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / ow, h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % ow, w);
        let rows = (iy0..iy0 + (ky1 - ky0)).filter_map(|y| {
            let from = (y * w + ix0) * c;
            input.get(from..from + (kx1 - kx0) * c)
        });
        match op.kind {
            PoolKind::Max => {
                let mut pixels = rows.flat_map(|row| row.chunks_exact(c));
                let first = pixels.next().unwrap_or(&[]);
                out.iter_mut().zip(first).for_each(|(y, x)| *y = *x);
                pixels.for_each(|x| U::max(x, out));
                if op.shift != 0 || op.act != Act::None {
                    requantize(op.act, op.shift, None, out);
                }
            }
            PoolKind::Average(factor) => {
                for (block, out) in out.chunks_mut(SUMS).enumerate() {
                    let mut sums = [0i32; SUMS];
                    for row in rows.clone() {
                        let mut from = block * SUMS;
                        while let Some(x) = row.get(from..from + out.len()) {
                            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += i32::from(*x as i8));
                            from += c;
                        }
                    }
                    for (y, sum) in out.iter_mut().zip(sums) {
                        *y = finish.of(sum * i32::from(factor), 0) as u8;
                    }
                }
            }
        }
    }
}
