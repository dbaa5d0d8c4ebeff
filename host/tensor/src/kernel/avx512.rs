//! The tiles in AVX-512: 6 pixels by 16 or 32 channels, one accumulator of 16 lanes for each pixel and panel.
//!
//! Each lane of each accumulator is exactly the chain of [`crate::kernel::scalar`].

use core::arch::x86_64::{
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask3_fmadd_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};

use crate::kernel::plan::{LANES, Run, TILE};

/// All lanes, or none where the pixel has this tap in the padding.
#[inline(always)]
fn lanes(run: &Run, pixel: usize) -> u16 {
    if run.valid & (1 << pixel) != 0 { u16::MAX } else { 0 }
}

/// See [`crate::kernel::scalar::tile_f32`]; `panels` holds `P` panels one after the other.
#[target_feature(enable = "avx512f")]
pub(super) fn tile_f32<const M: usize, const P: usize>(
    runs: &[Run],
    input: &[f32],
    panels: &[f32],
    out: &mut [[[f32; LANES]; TILE]; 2],
) {
    const { assert!(P == 1 || P == 2) };
    let panel = panels.len() / P;
    let mut acc = [[_mm512_setzero_ps(); P]; M];
    for run in runs {
        run.assert_inside::<M>(input.len(), panel);
        let whole = run.valid.trailing_ones() >= M as u32;
        // SAFETY: `assert_inside` has shown that `run.row..run.row + run.len` rows of 16 weights lie in each panel, and
        // `run.len` elements from each `run.start[p]` in `input`; the loops read these and no others.
        unsafe {
            let x: [*const f32; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w: [*const f32; P] = core::array::from_fn(|j| panels.as_ptr().add(j * panel + run.row * LANES));
            let weights = |k: usize| {
                let mut row = [_mm512_setzero_ps(); P];
                for j in 0..P {
                    row[j] = _mm512_loadu_ps(w[j].add(k * LANES));
                }
                row
            };
            if whole {
                for k in 0..run.len {
                    let w = weights(k);
                    for p in 0..M {
                        let x = _mm512_set1_ps(*x[p].add(k));
                        for j in 0..P {
                            acc[p][j] = _mm512_fmadd_ps(x, w[j], acc[p][j]);
                        }
                    }
                }
            } else {
                let masks: [u16; M] = core::array::from_fn(|p| lanes(run, p));
                for k in 0..run.len {
                    let w = weights(k);
                    for p in 0..M {
                        let x = _mm512_set1_ps(*x[p].add(k));
                        for j in 0..P {
                            acc[p][j] = _mm512_mask3_fmadd_ps(x, w[j], acc[p][j], masks[p]);
                        }
                    }
                }
            }
        }
    }
    for (p, acc) in acc.iter().enumerate() {
        for (out, acc) in out.iter_mut().zip(acc) {
            // SAFETY: `out[p]` has 16 elements: one vector.
            unsafe { _mm512_storeu_ps(out[p].as_mut_ptr(), *acc) };
        }
    }
}
