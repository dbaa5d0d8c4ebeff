//! The tiles in AVX2 and FMA: 6 pixels by 16 channels, twelve accumulators in registers.
//!
//! Each lane of each accumulator is exactly the chain of [`crate::kernel::scalar`]: one `vfmadd` per step, in the same order.

use core::arch::x86_64::{
    __m256i, _mm_cvtsi32_si128, _mm_loadu_si128, _mm_max_epi8, _mm_min_epi8, _mm_packs_epi16, _mm_packs_epi32,
    _mm_set1_epi8, _mm_storel_epi64, _mm256_add_epi32, _mm256_broadcast_ss, _mm256_castsi256_si128,
    _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_permute2x128_si256, _mm256_set1_epi32, _mm256_setzero_ps, _mm256_setzero_si256,
    _mm256_sra_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
};

use crate::kernel::Epilogue;
use crate::kernel::finish::{FinishI8, Stored};
use crate::kernel::plan::{LANES, Run, TILE};
use crate::kernel::taps::{CHUNK, Tap};

/// See [`crate::kernel::scalar::tile_f32`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn tile_f32<const M: usize>(runs: &[Run], input: &[f32], panel: &[f32], out: &mut [[f32; LANES]; TILE]) {
    let mut acc = [[_mm256_setzero_ps(); 2]; M];
    for run in runs {
        run.assert_inside::<M>(input.len(), panel.len());
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

/// See [`crate::kernel::scalar::tile_i16`]. `vpmaddwd` is exact here: two products of at most 2^14 each.
#[target_feature(enable = "avx2")]
pub(super) fn tile_i16<const M: usize>(runs: &[Run], input: &[i16], panel: &[i16], out: &mut [[i32; LANES]; TILE]) {
    let mut acc = [[_mm256_setzero_si256(); 2]; M];
    for run in runs {
        run.assert_inside::<M>(input.len(), panel.len());
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

/// Depthwise sums of `CHUNK` channels of one pixel, one chain per lane.
#[target_feature(enable = "avx2,fma")]
pub(super) fn depthwise_f32(taps: &[Tap], kernel: &[f32], input: &[f32], channel: usize) -> [f32; CHUNK] {
    let mut acc = [_mm256_setzero_ps(); CHUNK / 8];
    for tap in taps {
        let x = &input[tap.input + channel..][..CHUNK];
        let w = &kernel[tap.weights + channel..][..CHUNK];
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: both slices have `CHUNK` elements, and `i` is below `CHUNK / 8`.
            let (x, w) = unsafe { (_mm256_loadu_ps(x.as_ptr().add(8 * i)), _mm256_loadu_ps(w.as_ptr().add(8 * i))) };
            *acc = _mm256_fmadd_ps(x, w, *acc);
        }
    }
    let mut out = [0.0f32; CHUNK];
    for (out, acc) in out.chunks_exact_mut(8).zip(acc) {
        // SAFETY: `out` has 8 elements.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), acc) };
    }
    out
}

/// Depthwise sums of `CHUNK` channels of one pixel, two taps at a time: their values are interleaved, so that one
/// `vpmaddwd` multiplies both and adds the products.
#[target_feature(enable = "avx2")]
pub(super) fn depthwise_i8(taps: &[Tap], kernel: &[i8], input: &[i8], channel: usize) -> [i32; CHUNK] {
    let mut out = [0i32; CHUNK];
    for (i, out) in out.chunks_exact_mut(16).enumerate() {
        let channel = channel + 16 * i;
        // The low accumulator holds channels 0-3 and 8-11, the high one 4-7 and 12-15: unpacking works by halves.
        let [mut low, mut high] = [_mm256_setzero_si256(); 2];
        let (pairs, last) = taps.as_chunks::<2>();
        for [a, b] in pairs {
            let [xa, xb] = [load_16(input, a.input + channel), load_16(input, b.input + channel)];
            let [wa, wb] = [load_16(kernel, a.weights + channel), load_16(kernel, b.weights + channel)];
            let products = _mm256_madd_epi16(_mm256_unpacklo_epi16(xa, xb), _mm256_unpacklo_epi16(wa, wb));
            low = _mm256_add_epi32(low, products);
            let products = _mm256_madd_epi16(_mm256_unpackhi_epi16(xa, xb), _mm256_unpackhi_epi16(wa, wb));
            high = _mm256_add_epi32(high, products);
        }
        for tap in last {
            let zero = _mm256_setzero_si256();
            let (x, w) = (load_16(input, tap.input + channel), load_16(kernel, tap.weights + channel));
            let products = _mm256_madd_epi16(_mm256_unpacklo_epi16(x, zero), _mm256_unpacklo_epi16(w, zero));
            low = _mm256_add_epi32(low, products);
            let products = _mm256_madd_epi16(_mm256_unpackhi_epi16(x, zero), _mm256_unpackhi_epi16(w, zero));
            high = _mm256_add_epi32(high, products);
        }
        // SAFETY: `out` has 16 elements: two vectors of 8.
        unsafe {
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(low, high));
            _mm256_storeu_si256(out.as_mut_ptr().add(8).cast(), _mm256_permute2x128_si256::<0x31>(low, high));
        }
    }
    out
}

/// What is [`Stored`] of int8 sums, eight at a time. Compilers make no vectors of the scalar form.
#[derive(Debug)]
pub(super) struct Vectors<'y>(Stored<'y, FinishI8<'y>, i8>);

impl<'y> Vectors<'y> {
    /// Where there is AVX2, as the feature says.
    #[target_feature(enable = "avx2")]
    pub(super) fn new(stored: Stored<'y, FinishI8<'y>, i8>) -> Self {
        Self(stored)
    }
}

impl Epilogue<i32> for Vectors<'_> {
    #[inline(always)]
    fn store(&mut self, pixel: usize, channel: usize, sums: &[i32]) {
        let Self(Stored { finish, channels, output }) = self;
        let output = &mut output[pixel * *channels + channel..][..sums.len()];
        let bias = &finish.bias[channel..][..sums.len()];
        let ((to, last), (sums, left), (bias, own)) =
            (output.as_chunks_mut::<8>(), sums.as_chunks::<8>(), bias.as_chunks::<8>());
        for ((to, sums), bias) in to.iter_mut().zip(sums).zip(bias) {
            // SAFETY: `new` is called only where there is AVX2.
            unsafe { finish_i8(finish, sums, bias, to) };
        }
        for ((to, sum), bias) in last.iter_mut().zip(left).zip(own) {
            *to = finish.shifted(*sum, *bias);
        }
    }
}

/// See [`FinishI8::one`]. Packing saturates to what eight bits hold, and the bounds are of eight bits.
#[inline]
#[target_feature(enable = "avx2")]
fn finish_i8(finish: &FinishI8<'_>, sums: &[i32; 8], bias: &[i32; 8], to: &mut [i8; 8]) {
    // SAFETY: all three have the eight elements that are read and written.
    unsafe {
        let sums = _mm256_loadu_si256(sums.as_ptr().cast());
        let sums = _mm256_add_epi32(sums, _mm256_loadu_si256(bias.as_ptr().cast()));
        let v = _mm256_sra_epi32(sums, _mm_cvtsi32_si128((finish.shift & 31).cast_signed()));
        let v = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let v = _mm_max_epi8(_mm_packs_epi16(v, v), _mm_set1_epi8(finish.low));
        _mm_storel_epi64(to.as_mut_ptr().cast(), _mm_min_epi8(v, _mm_set1_epi8(finish.high)));
    }
}

/// Sixteen values from `at` on, widened.
#[inline]
#[target_feature(enable = "avx2")]
fn load_16(values: &[i8], at: usize) -> __m256i {
    let values = &values[at..][..16];
    // SAFETY: the slice has the 16 bytes that are read.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(values.as_ptr().cast()) })
}
