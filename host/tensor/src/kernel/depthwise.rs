//! Depthwise convolutions, vectorized over channels: the same source is compiled once for the baseline and once with
//! AVX2 and FMA; the inner sums of the latter are in [`crate::kernel::avx2`]. What AVX-512 computes of its own, up to the store,
//! is in `avx512::depthwise`.

use core::ops::Range;

use crate::kernel::finish::{FinishF32, FinishI8, Stored};
use crate::kernel::taps::{CHUNK, Tap, find_taps};
use crate::kernel::{ConvGeometry, Epilogue, Path};
#[cfg(target_arch = "x86_64")]
use crate::kernel::{avx2, avx512};

/// Depthwise convolution of one image `[in_h, in_w, in_c]` with a kernel `[kh, kw, in_c * multiplier]`; output channel
/// `c * multiplier + m` sees input channel `c`. The chain is that of [`crate::kernel::conv_f32`] without its sum over channels.
///
/// # Panics
/// If `groups` is not `in_c`, or a slice's length does not fit the geometry.
pub fn depthwise_f32(geometry: &ConvGeometry, kernel: &[f32], input: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
    depthwise_f32_finish(geometry, kernel, input, FinishF32 { bias, ..FinishF32::default() }, output);
}

/// As [`depthwise_f32`] into what `finish` makes of the sums.
///
/// # Panics
/// As `depthwise_f32`.
pub fn depthwise_f32_finish(
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    finish: FinishF32<'_>,
    output: &mut [f32],
) {
    finish_f32_on(Path::detect(), geometry, kernel, input, finish, output);
}

pub(super) fn finish_f32_on(
    path: Path,
    geometry: &ConvGeometry,
    kernel: &[f32],
    input: &[f32],
    finish: FinishF32<'_>,
    output: &mut [f32],
) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    finish.assert_channels(geometry.out_c);
    let to = Stored { finish, channels: geometry.out_c, output };
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if path.is_available() && geometry.out_c == geometry.in_c && finish.is_usual() => {
            geometry.assert_valid();
            assert_eq!(geometry.groups, geometry.in_c, "a depthwise convolution has one group per input channel");
            assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
            assert_eq!(input.len(), geometry.input_len(), "input length");
            let mut to = to;
            // SAFETY: the features were just found on this machine.
            unsafe { avx512::depthwise::depthwise_f32(geometry, kernel, input, &mut to) }
        }
        Path::Portable | Path::Avx2 | Path::Avx512 => {
            f32_on(path, geometry, kernel, input, 0..geometry.pixels(), to);
        }
    }
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
    /// As they came: `[kh, kw, in_c * multiplier]`.
    kernel: Vec<i8>,
    #[cfg(target_arch = "x86_64")]
    columns: Option<avx512::depthwise::Columns>,
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
        Self {
            path,
            geometry: geometry.clone(),
            kernel: kernel.to_vec(),
            #[cfg(target_arch = "x86_64")]
            columns: (path == Path::Avx512).then(|| avx512::depthwise::Columns::new(kernel, geometry)).flatten(),
        }
    }
}

/// As [`depthwise_i8_to`] for all pixels and with packed weights.
///
/// # Panics
/// If the input's length does not fit the geometry that the weights were packed for.
pub fn depthwise_i8_packed(packed: &PackedDepthwiseI8, input: &[i8], epilogue: impl Epilogue<i32>) {
    i8_on(packed.path, &packed.geometry, &packed.kernel, input, 0..packed.geometry.pixels(), epilogue);
}

/// Convolves one int8 image into what `finish` makes of the sums, `[out_h, out_w, out_c]`.
///
/// # Panics
/// If a slice's length does not fit the geometry that the weights were packed for.
pub fn depthwise_i8_finish(packed: &PackedDepthwiseI8, input: &[i8], finish: FinishI8<'_>, output: &mut [i8]) {
    let geometry = &packed.geometry;
    assert_eq!(output.len(), geometry.output_len(), "output length");
    assert_eq!(finish.bias.len(), geometry.out_c, "bias length");
    let mut to = Stored { finish, channels: geometry.out_c, output };
    #[cfg(target_arch = "x86_64")]
    if let Some(columns) = &packed.columns {
        // SAFETY: weights are packed so for AVX-512 only, after it was found on this machine.
        return unsafe { avx512::depthwise::depthwise_i8(geometry, columns, input, &mut to) };
    }
    #[cfg(target_arch = "x86_64")]
    if matches!(packed.path, Path::Avx2 | Path::Avx512) {
        // SAFETY: packed weights carry these paths only after they were found on this machine.
        return depthwise_i8_packed(packed, input, unsafe { avx2::Vectors::new(to) });
    }
    depthwise_i8_packed(packed, input, to);
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
