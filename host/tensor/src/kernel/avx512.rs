//! The tiles in AVX-512: 6 pixels by up to 64 channels, one accumulator of 16 lanes for each pixel and panel, which goes from
//! its register to where it is stored.
//!
//! Each lane of each accumulator is exactly the chain of [`crate::kernel::scalar`].

use core::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_add_epi32, _mm512_mask_dpbusd_epi32, _mm512_mask3_fmadd_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_setzero_si512, _mm512_sub_epi32, _mm512_xor_si512,
};

use crate::kernel::avx512;
use crate::kernel::plan::{LANES, Run, Tile};

pub(super) mod depthwise;
mod sink;

pub(super) use sink::{Buffer, Sink};

/// Calls `$tile::<M, P, _>` for the run-time counts of pixels and panels of a tile.
macro_rules! by_size {
    ($size:expr, $tile:ident, $arguments:tt) => {
        match $size.panels {
            1 => by_count!($size.count, avx512::$tile, [1], $arguments),
            2 => by_count!($size.count, avx512::$tile, [2], $arguments),
            3 => by_count!($size.count, avx512::$tile, [3], $arguments),
            _ => by_count!($size.count, avx512::$tile, [4], $arguments),
        }
    };
}

/// All lanes, or none where the pixel has this tap in the padding.
#[inline(always)]
fn lanes(run: &Run, pixel: usize) -> u16 {
    if run.valid & (1 << pixel) != 0 { u16::MAX } else { 0 }
}

/// 128 in all bytes, in a way that compilers know nothing about: they would add it before they spread a value to all lanes,
/// which takes longer.
#[inline]
#[target_feature(enable = "avx512f")]
fn signs() -> __m512i {
    let signs = core::hint::black_box([i8::MIN; 64]);
    // SAFETY: 64 bytes are one vector.
    unsafe { _mm512_loadu_si512(signs.as_ptr().cast()) }
}

/// The sums of a tile, whose panels stand row by row: see [`crate::kernel::scalar::tile_f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn tile_f32<S: Sink<__m512>>(tile: &Tile<'_>, input: &[f32], panels: &[f32], sink: &mut S) {
    by_size!(tile, sums_f32, (tile, input, panels, sink));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn sums_f32<const M: usize, const P: usize>(
    tile: &Tile<'_>,
    input: &[f32],
    panels: &[f32],
    sink: &mut impl Sink<__m512>,
) {
    let mut acc = [[_mm512_setzero_ps(); P]; M];
    for run in tile.runs {
        run.assert_inside::<M>(input.len(), panels.len() / P);
        let whole = run.valid.trailing_ones() >= M as u32;
        // SAFETY: `assert_inside` has shown that `run.row..run.row + run.len` rows of 16 weights lie in each panel, and
        // `run.len` elements from each `run.start[p]` in `input`; the loops read these and no others.
        unsafe {
            let x: [*const f32; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w = panels.as_ptr().add(run.row * P * LANES);
            let masks: [u16; M] = core::array::from_fn(|p| lanes(run, p));
            // Loops, not closures: what a call returns would go through memory.
            if whole {
                for k in 0..run.len {
                    let mut row = [_mm512_setzero_ps(); P];
                    for (j, row) in row.iter_mut().enumerate() {
                        *row = _mm512_loadu_ps(w.add((k * P + j) * LANES));
                    }
                    for p in 0..M {
                        let x = _mm512_set1_ps(*x[p].add(k));
                        for j in 0..P {
                            acc[p][j] = _mm512_fmadd_ps(x, row[j], acc[p][j]);
                        }
                    }
                }
            } else {
                for k in 0..run.len {
                    let mut row = [_mm512_setzero_ps(); P];
                    for (j, row) in row.iter_mut().enumerate() {
                        *row = _mm512_loadu_ps(w.add((k * P + j) * LANES));
                    }
                    for p in 0..M {
                        let x = _mm512_set1_ps(*x[p].add(k));
                        for j in 0..P {
                            acc[p][j] = _mm512_mask3_fmadd_ps(x, row[j], acc[p][j], masks[p]);
                        }
                    }
                }
            }
        }
    }
    for (p, sums) in acc.into_iter().enumerate() {
        // SAFETY: the features are those of this function.
        unsafe { sink.put(p, tile.pixel + p, tile.channel, tile.width, sums) };
    }
}

/// Exact sums of int8 products: `vpdpbusd` multiplies bytes without a sign by bytes with one and adds four products, without
/// saturating. The inputs are taken plus 128, which makes each sum larger by 128 times the weights that it meets; `back` holds
/// what takes that back for the taps before each one (`[taps + 1][panel][16]`). All sums wrap, so that the order does not
/// matter.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(super) fn tile_i8<S: Sink<__m512i>>(tile: &Tile<'_>, input: &[i8], panels: &[i8], back: &[i32], sink: &mut S) {
    by_size!(tile, sums_i8, (tile, input, panels, back, sink));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn sums_i8<const M: usize, const P: usize>(
    tile: &Tile<'_>,
    input: &[i8],
    panels: &[i8],
    back: &[i32],
    sink: &mut impl Sink<__m512i>,
) {
    let taken_back = |run: &Run| {
        let mut own = [_mm512_setzero_si512(); P];
        for (j, own) in own.iter_mut().enumerate() {
            let at = |tap: usize| (tap * P + j) * LANES;
            *own = _mm512_sub_epi32(load_16(back, at(run.taps.end)), load_16(back, at(run.taps.start)));
        }
        own
    };
    let is_whole = |run: &Run| run.valid.trailing_ones() >= M as u32;
    // SAFETY: the features are those of this function.
    let mut shared: [__m512i; P] = unsafe { sink.start(tile.channel, tile.width) };
    for run in tile.runs.iter().filter(|run| is_whole(run)) {
        let own = taken_back(run);
        for j in 0..P {
            shared[j] = _mm512_add_epi32(shared[j], own[j]);
        }
    }
    let mut acc = [shared; M];
    let signs = signs();
    for run in tile.runs {
        run.assert_inside::<M>(input.len(), panels.len() / P);
        // SAFETY: as in `sums_f32`; steps go four rows at a time, so odd last rows would be left out, not overrun.
        unsafe {
            let x: [*const i8; M] = core::array::from_fn(|p| input.as_ptr().add(run.start[p]));
            let w = panels.as_ptr().add(run.row * P * LANES);
            if is_whole(run) {
                for k in 0..run.len / 4 {
                    let mut rows = [_mm512_setzero_si512(); P];
                    for (j, row) in rows.iter_mut().enumerate() {
                        *row = _mm512_loadu_si512(w.add((k * P + j) * 4 * LANES).cast());
                    }
                    for p in 0..M {
                        let four = x[p].add(4 * k).cast::<i32>().read_unaligned();
                        let x = _mm512_xor_si512(_mm512_set1_epi32(four), signs);
                        for j in 0..P {
                            acc[p][j] = _mm512_dpbusd_epi32(acc[p][j], x, rows[j]);
                        }
                    }
                }
            } else {
                let masks: [u16; M] = core::array::from_fn(|p| lanes(run, p));
                let own = taken_back(run);
                for p in 0..M {
                    for j in 0..P {
                        acc[p][j] = _mm512_mask_add_epi32(acc[p][j], masks[p], acc[p][j], own[j]);
                    }
                }
                for k in 0..run.len / 4 {
                    let mut rows = [_mm512_setzero_si512(); P];
                    for (j, row) in rows.iter_mut().enumerate() {
                        *row = _mm512_loadu_si512(w.add((k * P + j) * 4 * LANES).cast());
                    }
                    for p in 0..M {
                        let four = x[p].add(4 * k).cast::<i32>().read_unaligned();
                        let x = _mm512_xor_si512(_mm512_set1_epi32(four), signs);
                        for j in 0..P {
                            acc[p][j] = _mm512_mask_dpbusd_epi32(acc[p][j], masks[p], x, rows[j]);
                        }
                    }
                }
            }
        }
    }
    for (p, sums) in acc.into_iter().enumerate() {
        // SAFETY: the features are those of this function.
        unsafe { sink.put(p, tile.pixel + p, tile.channel, tile.width, sums) };
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
