//! The tiles in plain Rust. They run where no faster path does, and read like the definition.

use crate::kernel::plan::{LANES, Run, TILE};

/// Fills `out[p]` for the first `M` pixels: one chain of fused multiply-adds per pixel and lane.
pub(super) fn tile_f32<const M: usize>(runs: &[Run], input: &[f32], panel: &[f32], out: &mut [[f32; LANES]; TILE]) {
    for (p, out) in out.iter_mut().enumerate().take(M) {
        let mut acc = [0.0f32; LANES];
        for run in runs.iter().filter(|run| run.valid & (1 << p) != 0) {
            let x = &input[run.start[p]..][..run.len];
            let w = &panel[run.row * LANES..][..run.len * LANES];
            for (x, w) in x.iter().zip(w.chunks_exact(LANES)) {
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = x.mul_add(*w, *acc);
                }
            }
        }
        *out = acc;
    }
}

/// As [`tile_f32`] on integers. Weights come in pairs of rows: `[row / 2][lane][2]`.
pub(super) fn tile_i16<const M: usize>(runs: &[Run], input: &[i16], panel: &[i16], out: &mut [[i32; LANES]; TILE]) {
    for (p, out) in out.iter_mut().enumerate().take(M) {
        let mut acc = [0i32; LANES];
        for run in runs.iter().filter(|run| run.valid & (1 << p) != 0) {
            let x = &input[run.start[p]..][..run.len];
            let w = &panel[run.row * LANES..][..run.len * LANES];
            for (x, w) in x.chunks_exact(2).zip(w.chunks_exact(2 * LANES)) {
                for (acc, w) in acc.iter_mut().zip(w.chunks_exact(2)) {
                    let pair = i32::from(x[0]) * i32::from(w[0]) + i32::from(x[1]) * i32::from(w[1]);
                    *acc = acc.wrapping_add(pair);
                }
            }
        }
        *out = acc;
    }
}
