//! Two lanes by up to four columns at a time: six values widened to 16 bits serve eight `vpmaddwd`.

use core::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm_unpackhi_epi64,
    _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_madd_epi16,
    _mm256_setzero_si256,
};

use shiftwise_core::exec::{COLUMNS, MAX_LANES, Segment, Tile};

/// Bytes of a step.
const STEP: usize = 16;

#[target_feature(enable = "avx2")]
pub(super) fn sums(tile: &Tile<'_>, lanes: usize, sums: &mut [[i32; MAX_LANES]; COLUMNS]) {
    match tile.columns {
        1 => columns::<1>(tile, lanes, sums),
        2 => columns::<2>(tile, lanes, sums),
        3 => columns::<3>(tile, lanes, sums),
        _ => columns::<COLUMNS>(tile, lanes, sums),
    }
}

#[target_feature(enable = "avx2")]
fn columns<const N: usize>(tile: &Tile<'_>, lanes: usize, sums: &mut [[i32; MAX_LANES]; COLUMNS]) {
    let mut segments: [&[Segment]; N] = [&[]; N];
    for (c, segments) in segments.iter_mut().enumerate() {
        *segments = tile.segments(c);
    }
    for lane in (0..lanes).step_by(2) {
        // The last of an odd number of lanes goes twice.
        let pair = [lane, (lane + 1).min(lanes - 1)];
        let weights = [tile.lane(pair[0]), tile.lane(pair[1])];
        let mut acc = [[_mm256_setzero_si256(); 2]; N];
        for (k, first) in segments[0].iter().enumerate() {
            let (from, len) = (first.weight as usize, first.len as usize);
            let w = [&weights[0][from..from + len], &weights[1][from..from + len]];
            // Every slice has `len` bytes: the loop below relies on it.
            let mut x: [&[u8]; N] = [&[]; N];
            for c in 0..N {
                x[c] = &tile.input(&segments[c][k])[..len];
            }
            let whole = len / STEP * STEP;
            for at in (0..whole).step_by(STEP) {
                // SAFETY: every slice has `len` bytes, and `at + STEP` is at most that.
                let w = unsafe { [load(w[0].as_ptr().add(at)), load(w[1].as_ptr().add(at))] };
                for c in 0..N {
                    // SAFETY: as above.
                    let x = unsafe { load(x[c].as_ptr().add(at)) };
                    multiply(&mut acc[c], x, w);
                }
            }
            if whole < len {
                let w = [load_rest(&w[0][whole..]), load_rest(&w[1][whole..])];
                for c in 0..N {
                    multiply(&mut acc[c], load_rest(&x[c][whole..]), w);
                }
            }
        }
        for (sums, acc) in sums.iter_mut().zip(acc) {
            for (lane, acc) in pair.into_iter().zip(acc) {
                sums[lane] = across(acc);
            }
        }
    }
}

/// `vpmaddwd` is exact here: two products of at most 2^14 each.
#[inline]
#[target_feature(enable = "avx2")]
fn multiply(acc: &mut [__m256i; 2], x: __m256i, w: [__m256i; 2]) {
    acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(x, w[0]));
    acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(x, w[1]));
}

/// Fewer than `STEP` int8 in 16 bits each, then zeros.
#[inline]
#[target_feature(enable = "avx2")]
fn load_rest(bytes: &[u8]) -> __m256i {
    let mut padded = [0u8; STEP];
    padded[..bytes.len()].copy_from_slice(bytes);
    // SAFETY: an array of `STEP` bytes.
    unsafe { load(padded.as_ptr()) }
}

/// Sixteen int8 in 16 bits each.
///
/// # Safety
/// `STEP` bytes can be read from `bytes`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(bytes: *const u8) -> __m256i {
    // SAFETY: as the caller promises.
    _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(bytes.cast()) })
}

/// The sum of all eight lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn across(acc: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256::<1>(acc));
    let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}
