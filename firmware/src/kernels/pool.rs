//! Pooling, four channels at a time.

use shiftwise_core::model::{Act, PoolKind, PoolOp};

use super::finish::Finish;
use super::unit::{Area, CHANNELS, Unit};

/// Computes the layer.
pub(super) fn pool<U: Unit>(op: &PoolOp, input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let ow = usize::from(op.out_dims[1]).max(1);
    let (finish, keep) = (Finish::new(op.act, op.shift, 0), op.shift == 0 && op.act == Act::None);
    // Without a shift, the largest value is an output already.
    let keep = keep && op.kind == PoolKind::Max;
    let end = |value: i32| if keep { value as u8 } else { finish.of(value, 0) as u8 };
    for (y, out) in output.chunks_exact_mut((ow * c).max(1)).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, y, h);
        for (x, out) in out.chunks_exact_mut(c.max(1)).enumerate() {
            let (kx0, kx1, ix0) = op.window.taps(1, x, w);
            let from = (iy0 * w + ix0) * c;
            let mut window = Area { from, rows: ky1 - ky0, columns: kx1 - kx0, down: w * c, right: c };
            let mut channel = 0;
            while channel < c {
                // The last block may take up channels of the one before: they come out the same.
                if c >= CHANNELS {
                    channel = channel.min(c - CHANNELS);
                }
                window.from = from + channel;
                match out.get_mut(channel..).and_then(|out| out.first_chunk_mut::<CHANNELS>()) {
                    Some(out) => {
                        let values = match op.kind {
                            PoolKind::Max => U::max(input, &window),
                            PoolKind::Average(factor) => U::sum(input, &window).map(|sum| sum * i32::from(factor)),
                        };
                        *out = values.map(end);
                        channel += CHANNELS;
                    }
                    None => {
                        let (mut most, mut sum) = (i32::from(i8::MIN), 0);
                        window.each(input, |[x]| (most, sum) = (most.max(x), sum + x));
                        let value = match op.kind {
                            PoolKind::Max => most,
                            PoolKind::Average(factor) => sum * i32::from(factor),
                        };
                        if let Some(out) = out.get_mut(channel) {
                            *out = end(value);
                        }
                        channel += 1;
                    }
                }
            }
        }
    }
}
