//! Depthwise convolutions, vectorized over channels: the same source is compiled once for the baseline and once with
//! AVX2 and FMA; the inner sums of the latter are in [`crate::kernel::avx2`].

use core::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::kernel::avx2;
use crate::kernel::taps::{CHUNK, Tap, find_taps};
use crate::kernel::{ConvGeometry, Epilogue, Path};

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
    epilogue: impl FnMut(usize, usize, &[f32]),
) {
    match path {
        // SAFETY: the features were just found on this machine.
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
    epilogue: impl FnMut(usize, usize, &[f32]),
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
