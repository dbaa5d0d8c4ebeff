//! Depthwise convolutions, vectorized over channels: the same source is compiled once for the baseline and once with
//! AVX2 and FMA; the inner sums of the latter are in [`crate::kernel::avx2`].

use core::ops::Range;

use crate::kernel::taps::{CHUNK, Tap, find_taps};
use crate::kernel::{ConvGeometry, Epilogue, Path};
#[cfg(target_arch = "x86_64")]
use crate::kernel::{avx2, avx512};

/// Channels that AVX-512 sums together.
#[cfg(target_arch = "x86_64")]
pub(super) const BLOCK: usize = 64;

/// Depthwise convolution of one image `[in_h, in_w, in_c]` with a kernel `[kh, kw, in_c * multiplier]`; output channel
/// `c * multiplier + m` sees input channel `c`. The chain is that of [`crate::kernel::conv_f32`] without its sum over channels.
///
/// # Panics
/// If `groups` is not `in_c`, or a slice's length does not fit the geometry.
pub fn depthwise_f32(geometry: &ConvGeometry, kernel: &[f32], input: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    assert!(bias.is_none_or(|b| b.len() == geometry.out_c), "bias length");
    let channels = geometry.out_c;
    depthwise_f32_with(geometry, kernel, input, 0..geometry.pixels(), |pixel, channel, acc| {
        let output = &mut output[pixel * channels + channel..][..acc.len()];
        match bias {
            None => output.copy_from_slice(acc),
            Some(bias) => {
                for ((o, a), b) in output.iter_mut().zip(acc).zip(&bias[channel..]) {
                    *o = a + b;
                }
            }
        }
    });
}

/// As [`depthwise_f32`] for the output pixels `pixels`, handing pieces of at most 32 channels to
/// `epilogue(pixel, channel, sums)` as [`crate::kernel::conv_f32_with`] does.
///
/// # Panics
/// If `groups` is not `in_c`, a slice's length does not fit the geometry, or the range exceeds the image.
pub fn depthwise_f32_with(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl FnMut(usize, usize, &[f32]),
) {
    depthwise_f32_to(geometry, kernel, input, pixels, epilogue);
}

/// As [`depthwise_f32_with`] for an epilogue that is compiled into the kernel.
///
/// # Panics
/// As `depthwise_f32_with`.
pub fn depthwise_f32_to(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl Epilogue<f32>,
) {
    f32_on(Path::detect(), geometry, kernel, input, pixels, epilogue);
}

/// Depthwise convolution of one int8 image into exact i32 sums; shapes as in [`depthwise_f32`].
///
/// # Panics
/// If `groups` is not `in_c`, or a slice's length does not fit the geometry.
pub fn depthwise_i8(geometry: &ConvGeometry, kernel: &[i8], input: &[i8], output: &mut [i32]) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    let channels = geometry.out_c;
    depthwise_i8_with(geometry, kernel, input, 0..geometry.pixels(), |pixel, channel, acc| {
        output[pixel * channels + channel..][..acc.len()].copy_from_slice(acc);
    });
}

/// As [`depthwise_i8`] for the output pixels `pixels`, handing pieces of at most 32 channels to
/// `epilogue(pixel, channel, sums)`.
///
/// # Panics
/// If `groups` is not `in_c`, a slice's length does not fit the geometry, or the range exceeds the image.
pub fn depthwise_i8_with(
    geometry: &ConvGeometry,
    kernel: &[i8],
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl FnMut(usize, usize, &[i32]),
) {
    depthwise_i8_to(geometry, kernel, input, pixels, epilogue);
}

/// As [`depthwise_i8_with`] for an epilogue that is compiled into the kernel.
///
/// # Panics
/// As `depthwise_i8_with`.
pub fn depthwise_i8_to(
    geometry: &ConvGeometry,
    kernel: &[i8],
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl Epilogue<i32>,
) {
    i8_on(Path::detect(), geometry, kernel, input, pixels, epilogue);
}

pub(super) fn f32_on(
    path: Path,
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl Epilogue<f32>,
) {
    match path {
        // SAFETY: the features were just found on this machine.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if path.is_available() && geometry.out_c == geometry.in_c => unsafe {
            f32_avx512(geometry, kernel, input, pixels, epilogue)
        },
        // SAFETY: as before.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 | Path::Avx512 if path.is_available() => unsafe {
            f32_avx2(geometry, kernel, input, pixels, epilogue)
        },
        _ => {
            let wide = |taps: &[Tap], channel| chunk(taps, kernel, input, channel, step_f32);
            body(geometry, kernel, input, pixels, step_f32, wide, epilogue);
        }
    }
}

pub(super) fn i8_on(
    path: Path,
    geometry: &ConvGeometry,
    kernel: &[i8],
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl Epilogue<i32>,
) {
    match path {
        // SAFETY: the features were just found on this machine.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 | Path::Avx512 if path.is_available() => unsafe {
            i8_avx2(geometry, kernel, input, pixels, epilogue)
        },
        _ => {
            let wide = |taps: &[Tap], channel| chunk(taps, kernel, input, channel, step_i8);
            body(geometry, kernel, input, pixels, step_i8, wide, epilogue);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn f32_avx2(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl Epilogue<f32>,
) {
    let wide = |taps: &[Tap], channel| avx2::depthwise_f32(taps, kernel, input, channel);
    body(geometry, kernel, input, pixels, step_f32, wide, epilogue);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn i8_avx2(geometry: &ConvGeometry, kernel: &[i8], input: &[i8], pixels: Range<usize>, epilogue: impl Epilogue<i32>) {
    let wide = |taps: &[Tap], channel| avx2::depthwise_i8(taps, kernel, input, channel);
    body(geometry, kernel, input, pixels, step_i8, wide, epilogue);
}

/// Weights of a depthwise int8 convolution, packed as the path's products want them.
#[derive(Clone, Debug)]
pub struct PackedDepthwiseI8 {
    path: Path,
    geometry: ConvGeometry,
    weights: DepthwiseWeights,
}

#[derive(Clone, Debug)]
enum DepthwiseWeights {
    /// As they came: `[kh, kw, c]`.
    Plain(Vec<i8>),
    /// In blocks of 64 channels and fours of taps, [`avx512::depthwise_u8`]'s order: `[block][four][4][16][4]`, zeros past
    /// the last channel and tap; and for each channel −128 · Σ w, in the same order: `[block][64]`.
    #[cfg(target_arch = "x86_64")]
    Fours { weights: Vec<i8>, back: Vec<i32> },
}

impl PackedDepthwiseI8 {
    /// Packs a kernel `[kh, kw, in_c * multiplier]` for the fastest path of this machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel: &[i8], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel: &[i8], geometry: &ConvGeometry, path: Path) -> Self {
        geometry.assert_valid();
        assert!(path.is_available(), "this machine can't run {path:?}");
        assert_eq!(geometry.groups, geometry.in_c, "a depthwise convolution has one group per input channel");
        assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
        let weights = match path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 if geometry.out_c == geometry.in_c => fours(kernel, geometry),
            _ => DepthwiseWeights::Plain(kernel.to_vec()),
        };
        Self { path, geometry: geometry.clone(), weights }
    }
}

/// See [`DepthwiseWeights::Fours`].
#[cfg(target_arch = "x86_64")]
fn fours(kernel: &[i8], geometry: &ConvGeometry) -> DepthwiseWeights {
    let (channels, taps) = (geometry.out_c, geometry.kernel[0] * geometry.kernel[1]);
    let (blocks, quads) = (channels.div_ceil(BLOCK), taps.div_ceil(4));
    let mut weights = vec![0; blocks * quads * 4 * BLOCK];
    let mut back = vec![0i32; blocks * BLOCK];
    for c in 0..channels {
        let (block, slot) = (c / BLOCK, avx512::depthwise_slot(c % BLOCK));
        for tap in 0..taps {
            let w = kernel[tap * channels + c];
            weights[((block * quads + tap / 4) * BLOCK + slot) * 4 + tap % 4] = w;
            back[block * BLOCK + slot] = back[block * BLOCK + slot].wrapping_sub(128 * i32::from(w));
        }
    }
    DepthwiseWeights::Fours { weights, back }
}

/// As [`depthwise_i8_to`] for all pixels and with packed weights.
///
/// # Panics
/// If the input's length does not fit the geometry that the weights were packed for.
pub fn depthwise_i8_packed(packed: &PackedDepthwiseI8, input: &[i8], epilogue: impl Epilogue<i32>) {
    let geometry = &packed.geometry;
    match &packed.weights {
        DepthwiseWeights::Plain(kernel) => {
            i8_on(packed.path, geometry, kernel, input, 0..geometry.pixels(), epilogue);
        }
        // SAFETY: weights are packed so for AVX-512 only, after it was found on this machine.
        #[cfg(target_arch = "x86_64")]
        DepthwiseWeights::Fours { weights, back } => unsafe { i8_avx512(geometry, weights, back, input, epilogue) },
    }
}

/// All pixels, in blocks of 64 channels. A tap in the padding reads zeros.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn i8_avx512(geometry: &ConvGeometry, weights: &[i8], back: &[i32], input: &[i8], mut epilogue: impl Epilogue<i32>) {
    assert_eq!(input.len(), geometry.input_len(), "input length");
    let channels = geometry.out_c;
    let of_block = weights.len() / channels.div_ceil(BLOCK).max(1);
    let zeros = vec![0; channels];
    let mut taps = vec![None; of_block / BLOCK];
    let mut out = [0i32; BLOCK];
    for pixel in 0..geometry.pixels() {
        tap_offsets(geometry, pixel, pixel == 0, &mut taps);
        for block in 0..channels.div_ceil(BLOCK) {
            let first = block * BLOCK;
            let width = BLOCK.min(channels - first);
            let tap = |i: usize| match taps[i] {
                Some(at) => &input[at + first..][..width],
                None => &zeros[..width],
            };
            let weights = &weights[block * of_block..][..of_block];
            avx512::depthwise_u8(tap, weights, &back[first..][..BLOCK], &mut out);
            for (i, sums) in out[..width].chunks(16).enumerate() {
                // The common width as a constant, so that the epilogue's loop needs no remainder.
                match sums.as_chunks::<16>() {
                    ([sums], _) => epilogue.store(pixel, first + 16 * i, sums),
                    _ => epilogue.store(pixel, first + 16 * i, sums),
                }
            }
        }
    }
}

/// Blocks of 64 channels; a tap in the padding is left out of the chain.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn f32_avx512(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<f32>,
) {
    geometry.assert_valid();
    assert_eq!(geometry.groups, geometry.in_c, "a depthwise convolution has one group per input channel");
    assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
    assert_eq!(input.len(), geometry.input_len(), "input length");
    assert!(pixels.end <= geometry.pixels(), "pixels outside of the image");
    let channels = geometry.out_c;
    let mut taps = vec![None; geometry.kernel[0] * geometry.kernel[1]];
    let mut out = [0.0f32; BLOCK];
    for pixel in pixels.clone() {
        tap_offsets(geometry, pixel, pixel == pixels.start, &mut taps);
        for first in (0..channels).step_by(BLOCK) {
            let width = BLOCK.min(channels - first);
            let tap = |(i, at): (usize, &Option<usize>)| {
                let w = &kernel[i * channels + first..][..width];
                at.map(|at| (&input[at + first..][..width], w))
            };
            let taps = taps.iter().enumerate().filter_map(tap);
            match width.div_ceil(16) {
                1 => avx512::depthwise_f32::<1>(taps, width, &mut out),
                2 => avx512::depthwise_f32::<2>(taps, width, &mut out),
                3 => avx512::depthwise_f32::<3>(taps, width, &mut out),
                _ => avx512::depthwise_f32::<4>(taps, width, &mut out),
            }
            for (i, sums) in out[..width].chunks(16).enumerate() {
                // The common width as a constant, so that the epilogue's loop needs no remainder.
                match sums.as_chunks::<16>() {
                    ([sums], _) => epilogue.store(pixel, first + 16 * i, sums),
                    _ => epilogue.store(pixel, first + 16 * i, sums),
                }
            }
        }
    }
}

/// Where the input pixel of each tap begins; `None` in the padding and past the last tap. Unless the pixel is the `first`,
/// `taps` holds those of the pixel before: where both lie apart from the borders, they only move on.
#[cfg(target_arch = "x86_64")]
fn tap_offsets(geometry: &ConvGeometry, pixel: usize, first: bool, taps: &mut [Option<usize>]) {
    let [kh, kw] = geometry.kernel;
    let (oy, ox) = (pixel / geometry.out_w, pixel % geometry.out_w);
    // Shifted by the padding, to stay unsigned.
    let (top, left) = (oy * geometry.stride[0], ox * geometry.stride[1]);
    let inside = |left: usize| {
        left >= geometry.pad_before[1]
            && left + (kw - 1) * geometry.dilation[1] < geometry.in_w + geometry.pad_before[1]
    };
    if !first && ox > 0 && inside(left) && inside(left - geometry.stride[1]) {
        let step = geometry.stride[1] * geometry.in_c;
        taps.iter_mut().flatten().for_each(|at| *at += step);
        return;
    }
    for (tap, to) in taps.iter_mut().enumerate().take(kh * kw) {
        let at = |origin: usize, axis: usize, k: usize, size: usize| {
            (origin + k * geometry.dilation[axis]).checked_sub(geometry.pad_before[axis]).filter(|at| *at < size)
        };
        let row = at(top, 0, tap / kw, geometry.in_h);
        let column = at(left, 1, tap % kw, geometry.in_w);
        *to = row.zip(column).map(|(row, column)| (row * geometry.in_w + column) * geometry.in_c);
    }
}

#[inline(always)]
fn step_f32(acc: f32, x: f32, w: f32) -> f32 {
    x.mul_add(w, acc)
}

#[inline(always)]
fn step_i8(acc: i32, x: i8, w: i8) -> i32 {
    acc.wrapping_add(i32::from(x) * i32::from(w))
}

/// Visits all pixels: `wide` sums [`CHUNK`] channels at a time, `step` what is left.
#[inline(always)]
fn body<X: Copy, A: Copy + Default>(
    geometry: &ConvGeometry,
    kernel: &[X],
    input: &[X],
    pixels: Range<usize>,
    step: impl Fn(A, X, X) -> A + Copy,
    wide: impl Fn(&[Tap], usize) -> [A; CHUNK],
    mut epilogue: impl Epilogue<A>,
) {
    geometry.assert_valid();
    assert_eq!(geometry.groups, geometry.in_c, "a depthwise convolution has one group per input channel");
    assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
    assert_eq!(input.len(), geometry.input_len(), "input length");
    assert!(pixels.end <= geometry.pixels(), "pixels outside of the image");
    let channels = geometry.out_c;
    let multiplier = geometry.group_out();
    let mut taps = Vec::with_capacity(geometry.kernel[0] * geometry.kernel[1]);
    for pixel in pixels {
        find_taps(geometry, pixel, &mut taps);
        let mut c = 0;
        if multiplier == 1 {
            while c + CHUNK <= channels {
                epilogue.store(pixel, c, &wide(&taps, c));
                c += CHUNK;
            }
            while c + 8 <= channels {
                epilogue.store(pixel, c, &chunk::<X, A, 8>(&taps, kernel, input, c, step));
                c += 8;
            }
        }
        while c < channels {
            let mut acc = A::default();
            for tap in &taps {
                acc = step(acc, input[tap.input + c / multiplier], kernel[tap.weights + c]);
            }
            epilogue.store(pixel, c, &[acc]);
            c += 1;
        }
    }
}

/// The sums of `N` neighbouring channels of one pixel.
#[inline(always)]
fn chunk<X: Copy, A: Copy + Default, const N: usize>(
    taps: &[Tap],
    kernel: &[X],
    input: &[X],
    channel: usize,
    step: impl Fn(A, X, X) -> A,
) -> [A; N] {
    let mut acc = [A::default(); N];
    for tap in taps {
        let x = &input[tap.input + channel..][..N];
        let w = &kernel[tap.weights + channel..][..N];
        for i in 0..N {
            acc[i] = step(acc[i], x[i], w[i]);
        }
    }
    acc
}
