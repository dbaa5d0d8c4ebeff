//! Where finished accumulators go.

use core::arch::x86_64::{
    __m512, __m512i, _mm_cvtsi32_si128, _mm_mask_storeu_epi8, _mm_max_epi8, _mm_min_epi8, _mm_set1_epi8, _mm512_add_ps,
    _mm512_cvtsepi32_epi8, _mm512_mask_storeu_epi8, _mm512_mask_storeu_ps, _mm512_maskz_loadu_epi32,
    _mm512_maskz_loadu_ps, _mm512_max_epi8, _mm512_max_ps, _mm512_min_epi8, _mm512_min_ps, _mm512_mul_ps,
    _mm512_packs_epi16, _mm512_packs_epi32, _mm512_set1_epi8, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_sra_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
};

use crate::kernel::finish::{FinishF32, FinishI8, Stored};
use crate::kernel::pack::WIDE;
use crate::kernel::plan::{LANES, TILE};

/// Takes accumulators of up to 64 neighbouring channels. Four of integers have their channels in the order of
/// [`crate::kernel::pack::quarters`].
pub(in crate::kernel) trait Sink<V> {
    /// What the sums of `width` channels from `channel` on begin with, where that isn't zero.
    ///
    /// # Safety
    /// The processor has AVX-512 (F, BW, VL, VNNI).
    unsafe fn start<const P: usize>(&self, channel: usize, width: usize) -> [V; P];

    /// The sums of an output pixel, which is pixel `row` of its tile.
    ///
    /// # Safety
    /// The processor has AVX-512 (F, BW, VL, VNNI).
    unsafe fn put<const P: usize>(&mut self, row: usize, pixel: usize, channel: usize, width: usize, sums: [V; P]);
}

/// The sums of a tile as they are: of each pixel up to 64 channels.
#[derive(Debug)]
pub(in crate::kernel) struct Buffer<A> {
    pub(in crate::kernel) rows: [[A; WIDE * LANES]; TILE],
}

impl<A: Copy + Default> Default for Buffer<A> {
    fn default() -> Self {
        Self { rows: [[A::default(); WIDE * LANES]; TILE] }
    }
}

/// The lanes of vector `j` that have one of `width` channels.
#[inline(always)]
fn lanes(width: usize, j: usize) -> u16 {
    let left = width.saturating_sub(j * LANES).min(LANES);
    ((1u32 << left) - 1) as u16
}

/// Four vectors in the order of [`crate::kernel::pack::quarters`] from four in the order of their channels, or back: a
/// transposition of four by four quarters.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transposed([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let [ab, cd] = [_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d)];
    let [ab_high, cd_high] = [_mm512_shuffle_i32x4::<0xEE>(a, b), _mm512_shuffle_i32x4::<0xEE>(c, d)];
    [
        _mm512_shuffle_i32x4::<0x88>(ab, cd),
        _mm512_shuffle_i32x4::<0xDD>(ab, cd),
        _mm512_shuffle_i32x4::<0x88>(ab_high, cd_high),
        _mm512_shuffle_i32x4::<0xDD>(ab_high, cd_high),
    ]
}

impl Sink<__m512> for Buffer<f32> {
    #[inline(always)]
    unsafe fn start<const P: usize>(&self, _: usize, _: usize) -> [__m512; P] {
        // SAFETY: the caller's.
        unsafe { [_mm512_setzero_ps(); P] }
    }

    #[inline(always)]
    unsafe fn put<const P: usize>(&mut self, row: usize, _: usize, _: usize, _: usize, sums: [__m512; P]) {
        for (to, sums) in self.rows[row].chunks_exact_mut(LANES).zip(sums) {
            // SAFETY: 16 elements are one vector.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) };
        }
    }
}

impl Sink<__m512i> for Buffer<i32> {
    #[inline(always)]
    unsafe fn start<const P: usize>(&self, _: usize, _: usize) -> [__m512i; P] {
        // SAFETY: the caller's.
        unsafe { [_mm512_setzero_si512(); P] }
    }

    #[inline(always)]
    unsafe fn put<const P: usize>(&mut self, row: usize, _: usize, _: usize, _: usize, sums: [__m512i; P]) {
        let to = self.rows[row].chunks_exact_mut(LANES);
        // SAFETY: 16 elements are one vector.
        let store = |to: &mut [i32], sums| unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) };
        match sums[..] {
            // SAFETY: the caller's.
            [a, b, c, d] => to.zip(unsafe { transposed([a, b, c, d]) }).for_each(|(to, sums)| store(to, sums)),
            _ => to.zip(sums).for_each(|(to, sums)| store(to, sums)),
        }
    }
}

impl Sink<__m512> for Stored<'_, FinishF32<'_>, f32> {
    #[inline(always)]
    unsafe fn start<const P: usize>(&self, _: usize, _: usize) -> [__m512; P] {
        // SAFETY: the caller's.
        unsafe { [_mm512_setzero_ps(); P] }
    }

    #[inline(always)]
    unsafe fn put<const P: usize>(&mut self, _: usize, pixel: usize, channel: usize, width: usize, sums: [__m512; P]) {
        let output = &mut self.output[pixel * self.channels + channel..][..width];
        let FinishF32 { bias, affine, relu } = self.finish;
        for (j, sums) in sums.into_iter().enumerate() {
            let (mask, at) = (lanes(width, j), j * LANES);
            let part = |x: &[f32]| {
                let x = &x[channel..][..width];
                // SAFETY: the mask has the lanes that lie in the slice.
                unsafe { _mm512_maskz_loadu_ps(mask, x.as_ptr().wrapping_add(at)) }
            };
            let mut y = sums;
            // SAFETY: the features are the caller's; the store's mask has the lanes that lie in `output`.
            unsafe {
                if let Some(bias) = bias {
                    y = _mm512_add_ps(y, part(bias));
                }
                if let Some((factor, offset)) = affine {
                    y = _mm512_add_ps(_mm512_mul_ps(y, part(factor)), part(offset));
                }
                if let Some(max) = relu {
                    // In this order NaN and zeros of both signs become +0.0.
                    y = _mm512_min_ps(_mm512_max_ps(y, _mm512_setzero_ps()), _mm512_set1_ps(max));
                }
                let to = output.as_mut_ptr().wrapping_add(at);
                match mask {
                    u16::MAX => _mm512_storeu_ps(to, y),
                    _ => _mm512_mask_storeu_ps(to, mask, y),
                }
            }
        }
    }
}

impl Sink<__m512i> for Stored<'_, FinishI8<'_>, i8> {
    #[inline(always)]
    unsafe fn start<const P: usize>(&self, channel: usize, width: usize) -> [__m512i; P] {
        let bias = &self.finish.bias[channel..][..width];
        // SAFETY: the mask has the lanes that lie in the slice; the features are the caller's.
        unsafe {
            let mut start = [_mm512_setzero_si512(); P];
            for (j, start) in start.iter_mut().enumerate() {
                *start = _mm512_maskz_loadu_epi32(lanes(width, j), bias.as_ptr().wrapping_add(j * LANES));
            }
            if let [a, b, c, d] = start[..] {
                start.copy_from_slice(&transposed([a, b, c, d]));
            }
            start
        }
    }

    #[inline(always)]
    unsafe fn put<const P: usize>(&mut self, _: usize, pixel: usize, channel: usize, width: usize, sums: [__m512i; P]) {
        let output = &mut self.output[pixel * self.channels + channel..][..width];
        let FinishI8 { shift, low, high, .. } = self.finish;
        // SAFETY: the features are the caller's; the stores' masks have the lanes that lie in `output`.
        unsafe {
            let count = _mm_cvtsi32_si128((shift & 31) as i32);
            if let [a, b, c, d] = sums[..] {
                let shifted = |v| _mm512_sra_epi32(v, count);
                let ab = _mm512_packs_epi32(shifted(a), shifted(b));
                let cd = _mm512_packs_epi32(shifted(c), shifted(d));
                let y = _mm512_max_epi8(_mm512_packs_epi16(ab, cd), _mm512_set1_epi8(low));
                let y = _mm512_min_epi8(y, _mm512_set1_epi8(high));
                match width {
                    64.. => _mm512_storeu_si512(output.as_mut_ptr().cast(), y),
                    _ => _mm512_mask_storeu_epi8(output.as_mut_ptr(), (1 << width) - 1, y),
                }
                return;
            }
            for (j, sums) in sums.into_iter().enumerate() {
                let y = _mm512_cvtsepi32_epi8(_mm512_sra_epi32(sums, count));
                let y = _mm_min_epi8(_mm_max_epi8(y, _mm_set1_epi8(low)), _mm_set1_epi8(high));
                _mm_mask_storeu_epi8(output.as_mut_ptr().wrapping_add(j * LANES), lanes(width, j), y);
            }
        }
    }
}
