//! The search for the position of least squared error: five candidates, each as long as it can still win.
//!
//! Sums only grow. A candidate whose sum over a part of the values promises to be larger than the least of all is left alone;
//! if its sum isn't larger than the least one in the end, it is gone on with. What is found is what the whole sums say, and
//! these are those of blocks of [`BLOCK`] values in order, however the values come.

use rayon::prelude::*;

use super::BLOCK;
use super::grid::{self, Grid};
use super::params::Params;
use super::state::State;
use shiftwise_core::fix::FixPos;

/// Blocks for each thread between two looks at who can still win.
const BETWEEN: usize = 8;

/// How much larger than the least sum a sum must promise to be, so that it is left alone.
const SLACK: f64 = 1.1;

/// A search, which goes over the values in one or more passes.
#[derive(Debug)]
pub(super) struct Search {
    grids: [Grid; 5],
    /// Blocks that there are.
    blocks: usize,
    sums: [f64; 5],
    /// How many blocks, from the first on, each sum has.
    done: [usize; 5],
    /// Candidates that this pass is about.
    active: Vec<usize>,
    /// Blocks that this pass has seen.
    seen: usize,
    /// Values of a block that is not complete yet.
    carry: Vec<f32>,
}

impl Search {
    /// Among the position of `fit` and the four finer ones, over so many values.
    pub(super) fn new(fit: &State, p: &Params, values: usize) -> Self {
        let grid = |i| Grid::new(&State { pos: FixPos(fit.pos.0.saturating_add(i as i8)), ..*fit }, p);
        Self {
            grids: std::array::from_fn(grid),
            blocks: values.div_ceil(BLOCK),
            sums: [0.0; 5],
            done: [0; 5],
            active: (0..5).collect(),
            seen: 0,
            carry: Vec::new(),
        }
    }

    /// Goes on with the values that follow.
    pub(super) fn add(&mut self, mut values: &[f32]) {
        if !self.carry.is_empty() {
            let (more, rest) = values.split_at(values.len().min(BLOCK - self.carry.len()));
            self.carry.extend_from_slice(more);
            values = rest;
            if self.carry.len() == BLOCK {
                let block = std::mem::take(&mut self.carry);
                self.add_blocks(&block);
                self.carry = block;
                self.carry.clear();
            }
        }
        let whole = values.len() / BLOCK * BLOCK;
        for some in values[..whole].chunks(BLOCK * BETWEEN * rayon::current_num_threads().max(1)) {
            self.add_blocks(some);
        }
        self.carry.extend_from_slice(&values[whole..]);
    }

    /// Ends a pass. Returns whether another one is needed.
    pub(super) fn end(&mut self) -> bool {
        let last = std::mem::take(&mut self.carry);
        self.add_blocks(&last);
        self.seen = 0;
        let complete = |i: &usize| self.done[*i] == self.blocks;
        let least = (0..5).filter(complete).map(|i| self.sums[i]).fold(f64::INFINITY, f64::min);
        self.active = (0..5).filter(|i| !complete(i) && self.sums[*i] <= least).take(1).collect();
        !self.active.is_empty()
    }

    /// How many positions finer than the first the best is: the first of equally good ones.
    pub(super) fn best(&self) -> i8 {
        let complete = |i: usize| self.done[i] == self.blocks;
        let better = |i: usize, best: usize| complete(i) && (!complete(best) || self.sums[i] < self.sums[best]);
        (1..5).fold(0, |best, i| if better(i, best) { i } else { best }) as i8
    }

    fn add_blocks(&mut self, values: &[f32]) {
        // A candidate that another pass is about has the first blocks already.
        let known = self.active.iter().map(|i| self.done[*i]).min().unwrap_or(usize::MAX).saturating_sub(self.seen);
        self.seen += values.len().div_ceil(BLOCK);
        let Some(values) = values.get(known.saturating_mul(BLOCK)..).filter(|values| !values.is_empty()) else {
            return;
        };
        let grids: Vec<Grid> = self.active.iter().map(|i| self.grids[*i]).collect();
        let blocks: Vec<[f64; 5]> = values.par_chunks(BLOCK).map(|b| grid::squared_errors(b, &grids)).collect();
        for block in blocks {
            for (i, sum) in self.active.iter().zip(block) {
                self.sums[*i] += sum;
                self.done[*i] += 1;
            }
        }
        let least = self.active.iter().map(|i| self.sums[*i]).fold(f64::INFINITY, f64::min);
        let limit = SLACK * least * self.blocks as f64 / self.seen.max(1) as f64;
        self.active.retain(|i| self.sums[*i] <= limit || self.sums[*i].is_nan());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Values that come in parts of any size, with the large ones anywhere: who leads at first need not win.
        #[test]
        fn the_best_is_that_of_whole_sums(
            parts in proptest::collection::vec((0..60_000usize, -8..3i32), 1..12), seed: u32, pos in -2..8i8,
        ) {
            let p = serde_json::json!({ "bit_width": 8, "method": 1, "round_mode": 1 });
            let p: Params = serde_json::from_value(p).unwrap();
            let mut next = seed;
            let mut draw = || {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (next >> 8) as f32 / (1 << 23) as f32 - 1.0
            };
            let parts: Vec<Vec<f32>> =
                parts.iter().map(|(n, size)| (0..*n).map(|_| draw() * (*size as f32).exp2()).collect()).collect();
            let all = parts.concat();
            let fit = State { pos: FixPos(pos), ..State::default() };
            let mut search = Search::new(&fit, &p, all.len());
            loop {
                parts.iter().for_each(|part| search.add(part));
                if !search.end() {
                    break;
                }
            }
            let sums: Vec<f64> = (0..5i8)
                .map(|i| {
                    let grid = Grid::new(&State { pos: FixPos(pos + i), ..fit }, &p);
                    all.chunks(BLOCK).fold(0.0, |sum, block| sum + grid::squared_errors(block, &[grid])[0])
                })
                .collect();
            let want = (1..5).fold(0, |best, i| if sums[i] < sums[best] { i } else { best });
            prop_assert_eq!(search.best(), want as i8, "{:?}", sums);
        }
    }
}
