//! Pooling: the windows, and what is left of their values.

use shiftwise_core::model::{Act, PoolKind, PoolOp};
use shiftwise_core::shape::positive;

use super::finish::Finish;
use super::unit::{Area, CHANNELS, Unit};

/// What becomes of the values in a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pooling {
    pub(super) kind: PoolKind,
    pub(super) finish: Finish,
    /// Whether the largest value is an output already.
    pub(super) keep: bool,
}

impl Pooling {
    /// The output of a largest value, or of a sum.
    #[inline(always)]
    fn end(&self, value: i32) -> u8 {
        match self.kind {
            PoolKind::Max if self.keep => value as u8,
            PoolKind::Max => self.finish.of(value, 0) as u8,
            PoolKind::Average(factor) => self.finish.of(value * i32::from(factor), 0) as u8,
        }
    }
}

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

/// All channels of an output pixel, four at a time.
#[inline(always)]
pub(super) fn in_fours<U: Unit>(input: &[u8], window: &Area, how: &Pooling, output: &mut [u8]) {
    let (mut window, first, channels) = (*window, window.from, output.len());
    let mut channel = 0;
    while channel < channels {
        // The last block may take up channels of the one before: they come out the same.
        if channels >= CHANNELS {
            channel = channel.min(channels - CHANNELS);
        }
        window.from = first + channel;
        match output.get_mut(channel..).and_then(|out| out.first_chunk_mut::<CHANNELS>()) {
            Some(out) => {
                let values = match how.kind {
                    PoolKind::Max => U::max(input, &window),
                    PoolKind::Average(_) => U::sum(input, &window),
                };
                *out = values.map(|value| how.end(value));
                channel += CHANNELS;
            }
            None => {
                let (mut most, mut sum) = (i32::from(i8::MIN), 0);
                window.each(input, |[x]| (most, sum) = (most.max(x), sum + x));
                if let Some(out) = output.get_mut(channel) {
                    *out = how.end(if how.kind == PoolKind::Max { most } else { sum });
                }
                channel += 1;
            }
        }
    }
}
