//! The grid of one position, and the loops over tensors, compiled for several generations of CPUs.
//!
//! All compilations compute the same bits: lanes are fixed by the source, and no operation is fused or reordered.

use multiversion::multiversion;

use super::params::{Params, Rounding};
use super::state::State;
use crate::scheme::round::{floor, rint};
use shiftwise_core::arith::Round;
use shiftwise_core::fix;

/// Values that are summed side by side.
const LANES: usize = 16;

/// Values whose squared errors are summed in f32 before they join an f64.
const RUN: usize = 16 * LANES;

/// `$body` with `$fake(grid, x)`, which fake-quantizes a value by a grid that rounds as `$grid` does: compiled once for each
/// way to round, so that loops in it have no choice to make.
macro_rules! by_rounding {
    ($grid:expr, $fake:ident => $body:expr) => {{
        let grid: &Grid = $grid;
        match (grid.offset, grid.narrow, grid.round) {
            (Some(_), ..) => {
                let $fake = |grid: &Grid, x: f32| grid.asymmetric(x);
                $body
            }
            (None, true, Round::HalfUp) => {
                let $fake = |grid: &Grid, x: f32| grid.half_up(x) * grid.step;
                $body
            }
            (None, true, Round::HalfToEven) => {
                let $fake = |grid: &Grid, x: f32| grid.half_to_even(x) * grid.step;
                $body
            }
            (None, true, Round::Floor) => {
                let $fake = |grid: &Grid, x: f32| grid.down(x) * grid.step;
                $body
            }
            (None, _, round) => {
                let $fake = |grid: &Grid, x: f32| grid.bounded(fix::round_f32(x * grid.scale, round)) * grid.step;
                $body
            }
        }
    }};
}

/// Σ (x − fake-quantized x)² for each of one to five grids, and anything behind those. The grids differ in their positions
/// only.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn squared_errors(block: &[f32], grids: &[Grid]) -> [f64; 5] {
    let mut all = [0.0; 5];
    match *grids {
        [a] => all[..1].copy_from_slice(&by_rounding!(&a, fake => sum_errors(block, &[a], fake))),
        [a, b] => all[..2].copy_from_slice(&by_rounding!(&a, fake => sum_errors(block, &[a, b], fake))),
        [a, b, c] => all[..3].copy_from_slice(&by_rounding!(&a, fake => sum_errors(block, &[a, b, c], fake))),
        [a, b, c, d, ref more @ ..] => {
            let e = more.first().copied().unwrap_or(d);
            all = by_rounding!(&a, fake => sum_errors(block, &[a, b, c, d, e], fake));
        }
        [] => {}
    }
    all
}

/// Every value is read once; the lanes of all sums stay in registers.
#[inline(always)]
fn sum_errors<const N: usize>(block: &[f32], grids: &[Grid; N], fake: impl Fn(&Grid, f32) -> f32) -> [f64; N] {
    let square = |grid: &Grid, x: f32| {
        let error = x - fake(grid, x);
        error * error
    };
    let mut sums = [0.0f64; N];
    for run in block.chunks(RUN) {
        let mut lanes = [[0.0f32; LANES]; N];
        let (parts, rest) = run.as_chunks::<LANES>();
        for part in parts {
            for (lanes, grid) in lanes.iter_mut().zip(grids) {
                for lane in 0..LANES {
                    lanes[lane] += square(grid, part[lane]);
                }
            }
        }
        for (lanes, grid) in lanes.iter_mut().zip(grids) {
            lanes.iter_mut().zip(rest).for_each(|(lane, x)| *lane += square(grid, *x));
        }
        sums.iter_mut().zip(lanes).for_each(|(sum, lanes)| *sum += lanes.iter().map(|l| f64::from(*l)).sum::<f64>());
    }
    sums
}

/// Replaces every value by its fake-quantized one.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn fake_quantize(block: &mut [f32], grid: &Grid) {
    by_rounding!(grid, fake => block.iter_mut().for_each(|x| *x = fake(grid, *x)));
}

/// The integers of which every value's fake-quantized one is a multiple, where the grid [has such](Grid::has_codes).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
pub(super) fn codes(block: &[f32], grid: &Grid, to: &mut [i8]) {
    // Behind one and a half times 2^23 the last bits of a float are those of its integer part.
    let code = |q: f32| (q + 12_582_912.0).to_bits() as i8;
    let pairs = to.iter_mut().zip(block);
    match grid.round {
        Round::HalfUp => pairs.for_each(|(to, x)| *to = code(grid.half_up(*x))),
        Round::HalfToEven => pairs.for_each(|(to, x)| *to = code(grid.half_to_even(*x))),
        Round::Floor => pairs.for_each(|(to, x)| *to = code(grid.down(*x))),
        Round::HalfAwayFromZero => pairs.for_each(|(to, x)| *to = code(grid.one(*x) * grid.scale)),
    }
}

/// Scale, bounds and rounding of one position.
#[derive(Clone, Copy, Debug)]
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

    /// The fake-quantized value.
    pub(super) fn one(&self, x: f32) -> f32 {
        by_rounding!(self, fake => fake(self, x))
    }

    /// What an integer stands for.
    pub(super) fn step(&self) -> f32 {
        self.step
    }

    /// Whether an integer of 8 bits, times the step, is each fake-quantized value to the last bit: zero has no sign then.
    pub(super) fn has_codes(p: &Params) -> bool {
        let (low, high) = p.bounds();
        let unsigned_zero = matches!(p.rounding(), Rounding::Plain(Round::HalfUp | Round::HalfToEven | Round::Floor));
        p.symmetry && unsigned_zero && low >= f32::from(i8::MIN) && high <= f32::from(i8::MAX)
    }

    /// Bounds are integers, so that it makes no difference whether values are bounded before they are rounded. Narrow ones
    /// are far inside of what [`rint`] is exact for.
    #[inline(always)]
    fn bounded(&self, v: f32) -> f32 {
        let v = if v > self.high { self.high } else { v };
        if v < self.low { self.low } else { v }
    }

    #[inline(always)]
    fn half_up(&self, x: f32) -> f32 {
        floor(self.bounded(x * self.scale + 0.5))
    }

    #[inline(always)]
    fn half_to_even(&self, x: f32) -> f32 {
        rint(self.bounded(x * self.scale))
    }

    #[inline(always)]
    fn down(&self, x: f32) -> f32 {
        floor(self.bounded(x * self.scale))
    }

    #[inline(always)]
    fn asymmetric(&self, x: f32) -> f32 {
        let offset = self.offset.unwrap_or(0.0);
        let q = self.low + fix::round_f32((x - offset) * self.scale, self.round);
        (q.min(self.high).max(self.low) - self.low) * self.step + offset
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use shiftwise_core::fix::FixPos;

    proptest! {
        /// Runs of 256 values, each summed in 16 lanes of f32 that an f64 takes in order.
        #[test]
        fn five_sums_in_one_pass_are_those_of_single_values(
            data in proptest::collection::vec(prop_oneof![-3.0f32..3.0, -300.0f32..300.0, Just(-0.0), Just(0.5)], 0..700),
            bit_width in prop_oneof![Just(8u8), Just(4), Just(16), Just(24)],
            round_mode in 0..4u8, symmetry: bool, pos in -3..12i8,
        ) {
            let p = serde_json::json!({ "bit_width": bit_width, "method": 1, "round_mode": round_mode, "symmetry": symmetry });
            let p: Params = serde_json::from_value(p).unwrap();
            let state = |i: i8| State { pos: FixPos(pos + i), min: -3.0, max: 2.5, ..State::default() };
            let grids: [Grid; 5] = std::array::from_fn(|i| Grid::new(&state(i as i8), &p));
            let want = grids.map(|grid| {
                data.chunks(256).fold(0.0f64, |sum, run| {
                    let mut lanes = [0.0f32; 16];
                    for (i, x) in run.iter().enumerate() {
                        lanes[i % 16] += (x - grid.one(*x)) * (x - grid.one(*x));
                    }
                    sum + lanes.iter().map(|l| f64::from(*l)).sum::<f64>()
                })
            });
            prop_assert_eq!(squared_errors(&data, &grids).map(f64::to_bits), want.map(f64::to_bits));
            for grid in &grids {
                let mut all = data.clone();
                fake_quantize(&mut all, grid);
                let single: Vec<u32> = data.iter().map(|x| grid.one(*x).to_bits()).collect();
                prop_assert_eq!(all.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), single.clone());
                if Grid::has_codes(&p) {
                    let mut integers = vec![0i8; data.len()];
                    codes(&data, grid, &mut integers);
                    let back: Vec<u32> = integers.iter().map(|q| (f32::from(*q) * grid.step()).to_bits()).collect();
                    prop_assert_eq!(back, single);
                }
            }
        }
    }
}
