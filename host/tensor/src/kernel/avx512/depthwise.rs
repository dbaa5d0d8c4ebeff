//! Depthwise convolutions in AVX-512: neighbouring pixels of a row share what they read.

use core::arch::x86_64::{
    __m512, __m512i, _mm512_add_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_loadu_si512,
    _mm512_maskz_loadu_epi8, _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_unpackhi_epi8, _mm512_unpackhi_epi16,
    _mm512_unpacklo_epi8, _mm512_unpacklo_epi16, _mm512_xor_si512,
};

use core::ops::Range;

use crate::aligned::Aligned;
use crate::kernel::ConvGeometry;
use crate::kernel::avx512::{load_16, signs, sink::Sink};
use crate::kernel::finish::{FinishF32, FinishI8, Stored};
use crate::kernel::pack::quarters;
use crate::kernel::plan::LANES;
use crate::kernel::taps::{Tap, find_taps};

/// Channels of a block of integers.
const BLOCK: usize = 64;
/// Pixels of a row that are summed together in floats.
const PIXELS: usize = 4;

/// Weights of an int8 kernel of 3×3 or 5×5 taps, the columns of a block of 64 channels in fours of rows:
/// `[block][kx][four][4][16][4]`, channels in the order of [`quarters`], zeros past the last channel and row; and for each
/// channel −128 · Σ w in the same order, `[block][4][16]`.
#[derive(Clone, Debug)]
pub(in crate::kernel) struct Columns {
    weights: Aligned<i8>,
    back: Aligned<i32>,
}

impl Columns {
    /// The weights of a kernel `[k, k, channels]`, if it is one that is computed so.
    pub(in crate::kernel) fn new(kernel: &[i8], geometry: &ConvGeometry) -> Option<Self> {
        size(geometry)?;
        let (channels, size) = (geometry.out_c, geometry.kernel[0]);
        let (blocks, fours) = (channels.div_ceil(BLOCK), size.div_ceil(4));
        let mut weights = Aligned::new(blocks * size * fours * 4 * BLOCK);
        let mut back = Aligned::new(blocks * BLOCK);
        for (tap, row) in kernel.chunks_exact(channels.max(1)).enumerate() {
            let (ky, kx) = (tap / size, tap % size);
            for (c, w) in row.iter().enumerate() {
                let (block, lane) = (c / BLOCK, quarters(c % BLOCK));
                weights[(((block * size + kx) * fours + ky / 4) * BLOCK + lane) * 4 + ky % 4] = *w;
                let back: &mut i32 = &mut back[block * BLOCK + lane];
                *back = back.wrapping_sub(128 * i32::from(*w));
            }
        }
        Some(Self { weights, back })
    }
}

/// Taps along each side and the step along a row, of a convolution whose pixels share what they read.
fn size(g: &ConvGeometry) -> Option<(usize, usize)> {
    let [kh, kw] = g.kernel;
    (g.in_c == g.out_c && kh == kw && g.dilation[1] == 1 && matches!((kw, g.stride[1]), (3 | 5, 1 | 2)))
        .then_some((kw, g.stride[1]))
}

/// All pixels of an int8 image.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(in crate::kernel) fn depthwise_i8(
    geometry: &ConvGeometry,
    columns: &Columns,
    input: &[i8],
    to: &mut Stored<'_, FinishI8<'_>, i8>,
) {
    assert_eq!(input.len(), geometry.input_len(), "input length");
    match size(geometry) {
        Some((3, 1)) => rows_i8::<3, 1, 1>(geometry, columns, input, to),
        Some((3, _)) => rows_i8::<3, 1, 2>(geometry, columns, input, to),
        Some((_, 1)) => rows_i8::<5, 2, 1>(geometry, columns, input, to),
        _ => rows_i8::<5, 2, 2>(geometry, columns, input, to),
    }
}

/// Kernels of `K` × `K` taps, in `Q` fours of rows, `S` input pixels from one output pixel to the next. What a column of the
/// input gives to each channel, its rows in one lane, serves all outputs that see the column.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn rows_i8<const K: usize, const Q: usize, const S: usize>(
    g: &ConvGeometry,
    columns: &Columns,
    input: &[i8],
    to: &mut Stored<'_, FinishI8<'_>, i8>,
) {
    let channels = g.out_c;
    let signs = signs();
    for oy in 0..g.out_h {
        let rows: [Option<usize>; K] = core::array::from_fn(|ky| {
            let y = (oy * g.stride[0] + ky * g.dilation[0]).checked_sub(g.pad_before[0])?;
            (y < g.in_h).then_some(y * g.in_w * channels)
        });
        for first in (0..channels).step_by(BLOCK) {
            let width = BLOCK.min(channels - first);
            let lanes = u64::MAX >> (BLOCK - width);
            let weights = &columns.weights[first / BLOCK * K * Q * 4 * BLOCK..][..K * Q * 4 * BLOCK];
            let mut w = [[[signs; 4]; Q]; K];
            for (i, w) in w.as_flattened_mut().as_flattened_mut().iter_mut().enumerate() {
                let from = &weights[i * BLOCK..][..BLOCK];
                // SAFETY: 64 bytes are one vector.
                *w = unsafe { _mm512_loadu_si512(from.as_ptr().cast()) };
            }
            // SAFETY: the features are those of this function.
            let mut start: [__m512i; 4] = unsafe { to.start(first, width) };
            for (j, start) in start.iter_mut().enumerate() {
                *start = _mm512_add_epi32(*start, load_16(&columns.back, first + j * LANES));
            }
            // The column whose place is `x` − padding.
            let column = |x: usize| {
                let mut fours = [[signs; 4]; Q];
                let Some(x) = x.checked_sub(g.pad_before[1]).filter(|x| *x < g.in_w) else { return fours };
                for (q, four) in fours.iter_mut().enumerate() {
                    let row = |i: usize| match rows.get(4 * q + i) {
                        Some(Some(row)) => {
                            let pixel = &input[row + x * channels + first..][..width];
                            // SAFETY: only the lanes of the slice are read.
                            _mm512_xor_si512(unsafe { _mm512_maskz_loadu_epi8(lanes, pixel.as_ptr()) }, signs)
                        }
                        _ => signs,
                    };
                    let x = [row(0), row(1), row(2), row(3)];
                    let low = [_mm512_unpacklo_epi8(x[0], x[1]), _mm512_unpacklo_epi8(x[2], x[3])];
                    let high = [_mm512_unpackhi_epi8(x[0], x[1]), _mm512_unpackhi_epi8(x[2], x[3])];
                    *four = [
                        _mm512_unpacklo_epi16(low[0], low[1]),
                        _mm512_unpackhi_epi16(low[0], low[1]),
                        _mm512_unpacklo_epi16(high[0], high[1]),
                        _mm512_unpackhi_epi16(high[0], high[1]),
                    ];
                }
                fours
            };
            let mut seen = [[[signs; 4]; Q]; K];
            for kx in 0..K - S {
                seen[kx + S] = column(kx);
            }
            for ox in 0..g.out_w {
                for kx in 0..K - S {
                    seen[kx] = seen[kx + S];
                }
                for (kx, seen) in seen.iter_mut().enumerate().skip(K - S) {
                    *seen = column(ox * S + kx);
                }
                let mut acc = start;
                for kx in 0..K {
                    for q in 0..Q {
                        for j in 0..4 {
                            acc[j] = _mm512_dpbusd_epi32(acc[j], seen[kx][q][j], w[kx][q][j]);
                        }
                    }
                }
                // SAFETY: the features are those of this function.
                unsafe { to.put(0, oy * g.out_w + ox, first, width, acc) };
            }
        }
    }
}

/// All pixels of an f32 image; a tap in the padding is left out of the chain. Every input channel has one output channel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
pub(in crate::kernel) fn depthwise_f32(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    to: &mut Stored<'_, FinishF32<'_>, f32>,
) {
    match size(geometry) {
        Some((3, 1)) => rows_f32::<3, 1>(geometry, kernel, input, to),
        Some((3, _)) => rows_f32::<3, 2>(geometry, kernel, input, to),
        Some((_, 1)) => rows_f32::<5, 1>(geometry, kernel, input, to),
        Some(_) => rows_f32::<5, 2>(geometry, kernel, input, to),
        None => {
            let mut taps = Vec::new();
            for pixel in 0..geometry.pixels() {
                pixel_f32(geometry, kernel, input, pixel, &mut taps, to);
            }
        }
    }
}

/// Kernels of `K` × `K` taps, `S` input pixels from one output pixel to the next: sixteen channels after the other, so that the
/// rows that outputs see stay in the first-level cache.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn rows_f32<const K: usize, const S: usize>(
    g: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    to: &mut Stored<'_, FinishF32<'_>, f32>,
) {
    // Outputs of a row that see no column of the padding.
    let pad = g.pad_before[1];
    let from = pad.div_ceil(S);
    let until = (g.in_w + pad).checked_sub(K).map_or(0, |last| last / S + 1).min(g.out_w);
    for first in (0..g.in_c).step_by(LANES) {
        let width = LANES.min(g.in_c - first);
        let part = Channels::<K> { g, first, width, lanes: u16::MAX >> (LANES - width), kernel, input };
        for oy in 0..g.out_h {
            let y = |ky: usize| (oy * g.stride[0] + ky * g.dilation[0]).checked_sub(g.pad_before[0]);
            let inside = |ky: &usize| y(*ky).is_some_and(|y| y < g.in_h);
            // Rows are in order, so that those of the image are neighbours.
            let top = (0..K).find(inside).unwrap_or(K);
            let rows = top..(top..K).find(|ky| !inside(ky)).unwrap_or(K);
            let at = y(top).unwrap_or(0) * g.in_w;
            let mut ox = 0;
            while ox < g.out_w {
                let pixel = oy * g.out_w + ox;
                if ox >= from && ox + PIXELS <= until {
                    let sums = part.inner::<S>(rows.clone(), at + ox * S - pad);
                    for (p, sums) in sums.into_iter().enumerate() {
                        // SAFETY: the features are those of this function.
                        unsafe { to.put(0, pixel + p, first, width, [sums]) };
                    }
                    ox += PIXELS;
                } else {
                    let columns = pad.saturating_sub(ox * S).min(K)..(g.in_w + pad).saturating_sub(ox * S).min(K);
                    let sums = part.border(rows.clone(), columns, at, (ox * S, pad));
                    // SAFETY: the features are those of this function.
                    unsafe { to.put(0, pixel, first, width, [sums]) };
                    ox += 1;
                }
            }
        }
    }
}

/// Sixteen channels or fewer of an image and of a kernel of `K` × `K` taps.
struct Channels<'a, const K: usize> {
    g: &'a ConvGeometry,
    first: usize,
    width: usize,
    lanes: u16,
    kernel: &'a [f32],
    input: &'a [f32],
}

impl<const K: usize> Channels<'_, K> {
    /// The channels of `count` neighbours from `pixel` on, checked once: elements from one to the next are the image's
    /// channels.
    fn pixels<'s>(&self, all: &'s [f32], pixel: usize, count: usize) -> &'s [f32] {
        let channels = self.g.in_c;
        &all[pixel * channels + self.first..][..(count - 1) * channels + self.width]
    }

    /// Neighbour `i` of these.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn load(&self, pixels: &[f32], i: usize) -> __m512 {
        debug_assert!(i * self.g.in_c + self.width <= pixels.len());
        // SAFETY: `pixels` made sure of the channels of each neighbour; only their lanes are read.
        unsafe { _mm512_maskz_loadu_ps(self.lanes, pixels.as_ptr().add(i * self.g.in_c)) }
    }

    /// Neighbouring pixels of a row that see no padding at their sides: `at` is the input pixel that the first of them sees
    /// first, in the first of the rows of taps that lie in the image.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn inner<const S: usize>(&self, rows: Range<usize>, at: usize) -> [__m512; PIXELS] {
        // Enough for five taps, two apart.
        const COLUMNS: usize = 11;
        let mut acc = [_mm512_setzero_ps(); PIXELS];
        for (i, ky) in rows.enumerate() {
            let seen = self.pixels(self.input, at + i * self.g.dilation[0] * self.g.in_w, (PIXELS - 1) * S + K);
            let weights = self.pixels(self.kernel, ky * K, K);
            let mut x = [_mm512_setzero_ps(); COLUMNS];
            for (i, x) in x.iter_mut().enumerate().take((PIXELS - 1) * S + K) {
                *x = self.load(seen, i);
            }
            for kx in 0..K {
                let w = self.load(weights, kx);
                for p in 0..PIXELS {
                    acc[p] = _mm512_fmadd_ps(x[p * S + kx], w, acc[p]);
                }
            }
        }
        acc
    }

    /// A pixel of which the taps `rows` and `columns` lie in the image: `row` is the beginning of the first row that it sees,
    /// and its first column, padding included, is `left` less the padding.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
    fn border(&self, rows: Range<usize>, columns: Range<usize>, row: usize, (left, pad): (usize, usize)) -> __m512 {
        let mut acc = _mm512_setzero_ps();
        if columns.is_empty() {
            return acc;
        }
        for (i, ky) in rows.enumerate() {
            let at = row + i * self.g.dilation[0] * self.g.in_w + left + columns.start - pad;
            let seen = self.pixels(self.input, at, columns.len());
            let weights = self.pixels(self.kernel, ky * K + columns.start, columns.len());
            for i in 0..columns.len() {
                acc = _mm512_fmadd_ps(self.load(seen, i), self.load(weights, i), acc);
            }
        }
        acc
    }
}

/// Any pixel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn pixel_f32(
    g: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixel: usize,
    taps: &mut Vec<Tap>,
    to: &mut Stored<'_, FinishF32<'_>, f32>,
) {
    find_taps(g, pixel, taps);
    let channels = g.in_c;
    for first in (0..channels).step_by(2 * LANES) {
        let width = (2 * LANES).min(channels - first);
        let load = |values: &[f32], at: usize, part: Range<usize>| {
            let values = &values[at + first..][..width];
            let lanes = ((1u32 << (part.end.min(width).saturating_sub(part.start))) - 1) as u16;
            // SAFETY: only lanes of the slice are read.
            unsafe { _mm512_maskz_loadu_ps(lanes, values.as_ptr().wrapping_add(part.start)) }
        };
        let mut acc: [__m512; 2] = [_mm512_setzero_ps(); 2];
        for tap in &*taps {
            for (j, acc) in acc.iter_mut().enumerate() {
                let part = j * LANES..(j + 1) * LANES;
                *acc = _mm512_fmadd_ps(load(input, tap.input, part.clone()), load(kernel, tap.weights, part), *acc);
            }
        }
        // SAFETY: the features are those of this function.
        unsafe { to.put(0, pixel, first, width, acc) };
    }
}
