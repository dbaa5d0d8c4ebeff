//! Pooling: the windows, and what is left of their values.

use shiftwise_core::model::{Act, PoolOp};
use shiftwise_core::shape::positive;

use super::finish::Finish;
use super::unit::{Area, Pooling, Unit};

/// Computes the layer.
pub(super) fn pool<U: Unit>(op: &PoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    let keep = op.shift == 0 && op.act == Act::None;
    let how = Pooling { kind: op.kind, finish: Finish::new(op.act, op.shift, 0), keep };
    for (y, out) in output.chunks_exact_mut(positive(ow * c).get()).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, y, h);
        for (x, out) in out.chunks_exact_mut(positive(c).get()).enumerate() {
            let (kx0, kx1, ix0) = op.window.taps(1, x, w);
            let from = (iy0 * w + ix0) * c;
            U::pool(input, &Area { from, rows: ky1 - ky0, columns: kx1 - kx0, down: w * c, right: c }, &how, out);
        }
    }
}
