//! The tiles in AVX2 and FMA: 6 pixels by 16 channels, twelve accumulators in registers.
//!
//! Each lane of each accumulator is exactly the chain of [`super::scalar`]: one `vfmadd` per step, in the same order.

use core::arch::x86_64::{
    _mm256_add_epi32, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_set1_epi32, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_storeu_ps, _mm256_storeu_si256,
};

use super::plan::{LANES, Run, TILE};

/// Panics unless every element that the run makes `M` pixels read exists. One check per run makes the inner loop
/// free of checks.
#[inline(always)]
fn assert_inside<const M: usize>(run: &Run, input: usize, panel: usize) {
    const { assert!(M <= TILE) };
    let inside = |start: usize, len: usize, total: usize| len <= total && start <= total - len;
    let rows = panel / LANES;
    let mut ok = inside(run.row, run.len, rows);
    for p in 0..M {
        ok &= inside(run.start[p], run.len, input);
    }
    assert!(ok, "run outside of its image or panel: {run:?}");
}

/// See [`super::scalar::tile_f32`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn tile_f32<const M: usize>(runs: &[Run], input: &[f32], panel: &[f32], out: &mut [[f32; LANES]; TILE]) {
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for run in runs {
        assert_inside::<M>(run, input.len(), panel.len());
        let before = acc;
        // SAFETY: `assert_inside` has shown that `run.row..run.row + run.len` rows of 16 weights lie in `panel`, and
        // `run.len` elements from each `run.start[p]` in `input`; the loop reads these and no others.
        unsafe {
            let x: [*const f32; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w = panel.as_ptr().add(run.row * LANES);
            for k in 0..run.len {
                let w0 = _mm256_loadu_ps(w.add(k * LANES));
                let w1 = _mm256_loadu_ps(w.add(k * LANES + 8));
                for p in 0..M {
                    let x = _mm256_broadcast_ss(&*x[p].add(k));
                    acc[p][0] = _mm256_fmadd_ps(x, w0, acc[p][0]);
                    acc[p][1] = _mm256_fmadd_ps(x, w1, acc[p][1]);
                }
            }
        }
        if run.valid.trailing_ones() < M as u32 {
            // Some pixels have this tap in the padding: it was computed on whatever lay there, and is undone.
            for p in 0..M {
                if run.valid & (1 << p) == 0 {
                    acc[p] = before[p];
                }
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` has 16 elements: two vectors of 8.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), acc[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), acc[1]);
        }
    }
}

/// See [`super::scalar::tile_i16`]. `vpmaddwd` is exact here: two products of at most 2^14 each.
#[target_feature(enable = "avx2")]
pub(super) fn tile_i16<const M: usize>(runs: &[Run], input: &[i16], panel: &[i16], out: &mut [[i32; LANES]; TILE]) {
    let mut acc = [[_mm256_setzero_si256(); 2]; M];
    for run in runs {
        assert_inside::<M>(run, input.len(), panel.len());
        let before = acc;
        // SAFETY: as in `tile_f32`; steps go two rows at a time, so an odd last row would be left out, not overrun.
        unsafe {
            let x: [*const i16; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w = panel.as_ptr().add(run.row * LANES);
            for k in 0..run.len / 2 {
                let w0 = _mm256_loadu_si256(w.add(2 * k * LANES).cast());
                let w1 = _mm256_loadu_si256(w.add(2 * k * LANES + LANES).cast());
                for p in 0..M {
                    let x = _mm256_set1_epi32(x[p].add(2 * k).cast::<i32>().read_unaligned());
                    acc[p][0] = _mm256_add_epi32(acc[p][0], _mm256_madd_epi16(x, w0));
                    acc[p][1] = _mm256_add_epi32(acc[p][1], _mm256_madd_epi16(x, w1));
                }
            }
        }
        if run.valid.trailing_ones() < M as u32 {
            for p in 0..M {
                if run.valid & (1 << p) == 0 {
                    acc[p] = before[p];
                }
            }
        }
    }
    for (out, acc) in out.iter_mut().zip(acc) {
        // SAFETY: `out` has 16 elements: two vectors of 8.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), acc[0]);
            _mm256_storeu_si256(out.as_mut_ptr().add(8).cast(), acc[1]);
        }
    }
}
