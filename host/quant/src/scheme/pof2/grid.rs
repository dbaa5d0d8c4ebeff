//! The grid of one position, and the loops over tensors, compiled for several generations of CPUs.
//!
//! All compilations compute the same bits: lanes are fixed by the source, and no operation is fused or reordered.

use multiversion::multiversion;

use super::{Params, Rounding, State};
use crate::scheme::round::{clip, floor, rint};
use shiftwise_core::arith::Round;
use shiftwise_core::fix;

/// Values that are summed side by side.
const LANES: usize = 16;

/// Values whose squared errors are summed in f32 before they join an f64.
const RUN: usize = 16 * LANES;

/// Σ (x − fake-quantized x)² for each grid.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn squared_errors(block: &[f32], grids: &[Grid; 5]) -> [f64; 5] {
    let mut sums = [0.0f64; 5];
    for run in block.chunks(RUN) {
        for (sum, grid) in sums.iter_mut().zip(grids) {
            let mut lanes = [0.0f32; LANES];
            let mut square = [0.0f32; RUN];
            grid.each(run, |i, x, y| square[i] = (x - y) * (x - y));
            for part in square.as_chunks::<LANES>().0 {
                lanes.iter_mut().zip(part).for_each(|(l, s)| *l += s);
            }
            *sum += lanes.iter().map(|l| f64::from(*l)).sum::<f64>();
        }
    }
    sums
}

/// Replaces every value by its fake-quantized one.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn fake_quantize(block: &mut [f32], grid: &Grid) {
    let mut run = [0.0f32; 64];
    for part in block.chunks_mut(64) {
        run[..part.len()].copy_from_slice(part);
        grid.each(&run[..part.len()], |i, _, y| part[i] = y);
    }
}

/// Scale, bounds and rounding of one position.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    scale: f32,
    step: f32,
    low: f32,
    high: f32,
    round: Round,
    narrow: bool,
    /// What the lowest integer stands for, where zero isn't zero.
    offset: Option<f32>,
}

impl Grid {
    pub(super) fn new(fit: &State, p: &Params) -> Self {
        let (low, high) = p.bounds();
        let pos = i32::from(fit.pos.0);
        let (scale, step) = (fix::exp2(pos), fix::exp2(-pos));
        // The range is moved so that zero lies on the grid; the zero point is rounded half away from zero, always.
        let offset = (!p.symmetry).then(|| {
            let zero = fix::round_f32(low - fit.min * scale, Round::HalfAwayFromZero);
            (low - zero.max(low).min(high)) * step
        });
        // The vectorized rounding below is exact for magnitudes up to 2^22.
        let narrow = p.bit_width <= 16;
        let (Rounding::Plain(round) | Rounding::FixNeuron(round)) = p.rounding();
        Self { scale, step, low, high, round, narrow, offset }
    }

    /// Calls `f(index, x, fake-quantized x)` for every value.
    #[inline(always)]
    pub(super) fn each(&self, data: &[f32], f: impl FnMut(usize, f32, f32)) {
        if let Some(offset) = self.offset {
            return self.asymmetric(data, offset, f);
        }
        match (self.narrow, self.round) {
            (true, Round::HalfUp) => self.map(data, |v| floor(clip(v + 0.5)), f),
            (true, Round::HalfToEven) => self.map(data, |v| rint(clip(v)), f),
            (true, Round::Floor) => self.map(data, |v| floor(clip(v)), f),
            (_, round) => self.map(data, |v| fix::round_f32(v, round), f),
        }
    }

    #[inline(always)]
    fn map(&self, data: &[f32], round: impl Fn(f32) -> f32, mut f: impl FnMut(usize, f32, f32)) {
        let Self { scale, step, low, high, .. } = *self;
        for (i, x) in data.iter().enumerate() {
            let q = round(x * scale);
            let q = if q > high { high } else { q };
            let q = if q < low { low } else { q };
            f(i, *x, q * step);
        }
    }

    fn asymmetric(&self, data: &[f32], offset: f32, mut f: impl FnMut(usize, f32, f32)) {
        for (i, x) in data.iter().enumerate() {
            let q = self.low + fix::round_f32((x - offset) * self.scale, self.round);
            f(i, *x, (q.min(self.high).max(self.low) - self.low) * self.step + offset);
        }
    }
}
