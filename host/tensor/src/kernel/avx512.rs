//! The tiles in AVX-512: 6 pixels by 16 or 32 channels, one accumulator of 16 lanes for each pixel and panel.
//!
//! Each lane of each accumulator is exactly the chain of [`crate::kernel::scalar`].

use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_add_epi32, _mm512_mask_dpbusd_epi32, _mm512_mask3_fmadd_ps, _mm512_maskz_loadu_epi8,
    _mm512_maskz_loadu_ps, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_epi32,
    _mm512_unpackhi_epi8, _mm512_unpackhi_epi16, _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_xor_si512,
};

use crate::kernel::depthwise::BLOCK;
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

/// Exact sums of int8 products: `vpdpbusd` multiplies bytes without a sign by bytes with one and adds four products, without
/// saturating. The inputs come plus 128, which makes each sum larger by 128 times the weights that it meets; `back` holds,
/// for each panel, what takes that back for the taps before each one (`[taps + 1][16]`). All sums wrap, so that the order
/// does not matter.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) fn tile_u8<const M: usize, const P: usize>(
    runs: &[Run],
    input: &[u8],
    panels: &[i8],
    back: &[i32],
    out: &mut [[[i32; LANES]; TILE]; 2],
) {
    const { assert!(P == 1 || P == 2) };
    let (panel, of_panel) = (panels.len() / P, back.len() / P);
    let mut acc = [[_mm512_setzero_si512(); P]; M];
    // What all pixels take back together.
    let mut shared = [_mm512_setzero_si512(); P];
    for run in runs {
        run.assert_inside::<M>(input.len(), panel);
        let whole = run.valid.trailing_ones() >= M as u32;
        let mut own = shared;
        for (j, own) in own.iter_mut().enumerate() {
            let back = &back[j * of_panel..][..of_panel];
            *own = _mm512_sub_epi32(load_16(back, run.taps.end * LANES), load_16(back, run.taps.start * LANES));
        }
        // SAFETY: as in `tile_f32`; steps go four rows at a time, so odd last rows would be left out, not overrun.
        unsafe {
            let x: [*const u8; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w: [*const i8; P] = core::array::from_fn(|j| panels.as_ptr().add(j * panel + run.row * LANES));
            let weights = |k: usize| {
                let mut rows = [_mm512_setzero_si512(); P];
                for j in 0..P {
                    rows[j] = _mm512_loadu_si512(w[j].add(4 * k * LANES).cast());
                }
                rows
            };
            if whole {
                for j in 0..P {
                    shared[j] = _mm512_add_epi32(shared[j], own[j]);
                }
                for k in 0..run.len / 4 {
                    let w = weights(k);
                    for p in 0..M {
                        let x = _mm512_set1_epi32(x[p].add(4 * k).cast::<i32>().read_unaligned());
                        for j in 0..P {
                            acc[p][j] = _mm512_dpbusd_epi32(acc[p][j], x, w[j]);
                        }
                    }
                }
            } else {
                let masks: [u16; M] = core::array::from_fn(|p| lanes(run, p));
                for p in 0..M {
                    for j in 0..P {
                        acc[p][j] = _mm512_mask_add_epi32(acc[p][j], masks[p], acc[p][j], own[j]);
                    }
                }
                for k in 0..run.len / 4 {
                    let w = weights(k);
                    for p in 0..M {
                        let x = _mm512_set1_epi32(x[p].add(4 * k).cast::<i32>().read_unaligned());
                        for j in 0..P {
                            acc[p][j] = _mm512_mask_dpbusd_epi32(acc[p][j], masks[p], x, w[j]);
                        }
                    }
                }
            }
        }
    }
    for (p, acc) in acc.iter().enumerate() {
        for (j, out) in out.iter_mut().take(P).enumerate() {
            let sums = _mm512_add_epi32(acc[j], shared[j]);
            // SAFETY: `out[p]` has 16 elements: one vector.
            unsafe { _mm512_storeu_si512(out[p].as_mut_ptr().cast(), sums) };
        }
    }
}

/// Depthwise sums of one pixel and `width` channels, at most `P` vectors: one chain per lane over the taps, each with its
/// inputs and weights, as many as the width.
#[target_feature(enable = "avx512f")]
pub(super) fn depthwise_f32<'a, const P: usize>(
    taps: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    width: usize,
    out: &mut [f32; BLOCK],
) {
    const { assert!(P * LANES <= BLOCK) };
    let masks: [u16; P] = core::array::from_fn(|j| {
        let left = width.saturating_sub(j * LANES).min(LANES);
        ((1u32 << left) - 1) as u16
    });
    let mut acc = [_mm512_setzero_ps(); P];
    for (x, w) in taps {
        assert!(x.len() == width && w.len() == width, "a tap has another width");
        for j in 0..P {
            // SAFETY: only lanes below the width are read, which both slices have.
            let (x, w) = unsafe {
                let at = |values: &[f32]| values.as_ptr().wrapping_add(j * LANES);
                (_mm512_maskz_loadu_ps(masks[j], at(x)), _mm512_maskz_loadu_ps(masks[j], at(w)))
            };
            acc[j] = _mm512_fmadd_ps(x, w, acc[j]);
        }
    }
    for (out, acc) in out.chunks_exact_mut(LANES).zip(acc) {
        // SAFETY: `out` has 16 elements: one vector.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), acc) };
    }
}

/// Where channel `c` of a block stands in the accumulators of [`depthwise_u8`]: interleaving works by quarters of a vector,
/// which have four channels of every sixteen in each accumulator.
pub(super) const fn depthwise_slot(c: usize) -> usize {
    c % 16 / 4 * 16 + c / 16 * 4 + c % 4
}

/// Exact depthwise sums of one pixel and as many of [`BLOCK`] channels as the taps have: `tap(i)` for each tap of the
/// fours in `weights` (`[four][BLOCK][4]` in the order of [`depthwise_slot`]). As in [`tile_u8`] the inputs are taken plus
/// 128, which `back` (`[BLOCK]`, same order) takes back. `out` is in the order of the channels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn depthwise_u8<'a>(tap: impl Fn(usize) -> &'a [i8], weights: &[i8], back: &[i32], out: &mut [i32; BLOCK]) {
    let sign = _mm512_set1_epi8(i8::MIN);
    let load = |i: usize| {
        let x = tap(i);
        let lanes = u64::MAX >> (64 - x.len().clamp(1, 64));
        // SAFETY: only the lanes of the slice are read.
        _mm512_xor_si512(unsafe { _mm512_maskz_loadu_epi8(lanes, x.as_ptr()) }, sign)
    };
    let [mut a, mut b, mut c, mut d] = [load_16(back, 0), load_16(back, 16), load_16(back, 32), load_16(back, 48)];
    for (i, weights) in weights.chunks_exact(4 * BLOCK).enumerate() {
        let x = [load(4 * i), load(4 * i + 1), load(4 * i + 2), load(4 * i + 3)];
        let low = [_mm512_unpacklo_epi8(x[0], x[1]), _mm512_unpacklo_epi8(x[2], x[3])];
        let high = [_mm512_unpackhi_epi8(x[0], x[1]), _mm512_unpackhi_epi8(x[2], x[3])];
        // SAFETY: `weights` has four vectors.
        let w = |j: usize| unsafe { _mm512_loadu_si512(weights.as_ptr().add(j * BLOCK).cast()) };
        a = _mm512_dpbusd_epi32(a, _mm512_unpacklo_epi16(low[0], low[1]), w(0));
        b = _mm512_dpbusd_epi32(b, _mm512_unpackhi_epi16(low[0], low[1]), w(1));
        c = _mm512_dpbusd_epi32(c, _mm512_unpacklo_epi16(high[0], high[1]), w(2));
        d = _mm512_dpbusd_epi32(d, _mm512_unpackhi_epi16(high[0], high[1]), w(3));
    }
    // A transposition of four by four quarters.
    let [ab, cd] = [_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d)];
    let [ab_high, cd_high] = [_mm512_shuffle_i32x4::<0xEE>(a, b), _mm512_shuffle_i32x4::<0xEE>(c, d)];
    let rows = [
        _mm512_shuffle_i32x4::<0x88>(ab, cd),
        _mm512_shuffle_i32x4::<0xDD>(ab, cd),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xDD>(ab_high, cd_high),
    ];
    for (out, row) in out.chunks_exact_mut(16).zip(rows) {
        // SAFETY: `out` has 16 elements: one vector.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), row) };
    }
}

/// Sixteen values from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_16(values: &[i32], at: usize) -> __m512i {
    let values = &values[at..][..LANES];
    // SAFETY: the slice has the 16 values that are read.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
