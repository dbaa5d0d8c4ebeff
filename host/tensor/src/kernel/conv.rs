//! Dense and grouped convolutions: dispatch and stores.

use core::ops::Range;

use crate::kernel::finish::{FinishF32, FinishI8, Stored};
#[cfg(target_arch = "x86_64")]
use crate::kernel::pack::{Fours, WIDE};
use crate::kernel::pack::{PackedF32, PackedI8, Panels};
use crate::kernel::plan::{LANES, Layout, TILE, Tile, walk};
use crate::kernel::{ConvGeometry, Epilogue, Lanes, Path, on_lanes, scalar};
#[cfg(target_arch = "x86_64")]
use crate::kernel::{avx2, avx512, columns};

/// Convolves one image `[in_h, in_w, in_c]` into `[out_h, out_w, out_c]`, adding `bias[out_c]` if given.
///
/// # Panics
/// If a slice's length does not fit the geometry, or the weights were packed for another one.
pub fn conv_f32(weights: &PackedF32, geometry: &ConvGeometry, input: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
    conv_f32_finish(weights, geometry, input, FinishF32 { bias, ..FinishF32::default() }, output);
}

/// Convolves one image `[in_h, in_w, in_c]` into what `finish` makes of the sums, `[out_h, out_w, out_c]`.
///
/// # Panics
/// If a slice's length does not fit the geometry, or the weights were packed for another one.
pub fn conv_f32_finish(
    weights: &PackedF32,
    geometry: &ConvGeometry,
    input: &[f32],
    finish: FinishF32<'_>,
    output: &mut [f32],
) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    finish.assert_channels(geometry.out_c);
    let all = 0..geometry.pixels();
    let to = Stored { finish, channels: geometry.out_c, output };
    match weights.path {
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if finish.is_usual() => {
            assert_eq!(weights.geometry, *geometry, "weights were packed for another geometry");
            assert_eq!(input.len(), geometry.input_len(), "input length");
            // SAFETY: packed weights carry this path only after it was found on this machine.
            unsafe { f32_avx512_finish(weights, input, to) }
        }
        Path::Portable | Path::Avx2 | Path::Avx512 => conv_f32_to(weights, geometry, input, all, to),
    }
}

/// How images lie that are read as they are.
fn layout(geometry: &ConvGeometry) -> Layout {
    let taps = geometry.kernel[0] * geometry.kernel[1];
    Layout { pitch: geometry.in_c, tap: geometry.group_in(), taps }
}

/// As [`tiles`] for all pixels, in vectors up to the store.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn f32_avx512_finish(weights: &PackedF32, input: &[f32], mut to: Stored<'_, FinishF32<'_>, f32>) {
    let (geometry, layout) = (&weights.geometry, layout(&weights.geometry));
    let (each, in_group) = (layout.rows() * LANES, geometry.group_out().div_ceil(LANES));
    walk(geometry, layout, 0..geometry.pixels(), WIDE, |tile| {
        avx512::tile_f32(&tile, input, tile.of_panels(&weights.panels, in_group, each), &mut to);
    });
}

/// Convolves the output pixels `pixels` (row-major indices) and hands each piece to `epilogue(pixel, channel, sums)`:
/// the sums, without bias, of `sums.len()` channels (at most 16) from `channel` on.
///
/// Every (pixel, channel) of the range is handed over exactly once, in an order that depends on the geometry and the path.
///
/// # Panics
/// If a slice's length does not fit the geometry, the range exceeds the image, or the weights were packed for
/// another geometry.
pub fn conv_f32_with(
    weights: &PackedF32,
    geometry: &ConvGeometry,
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl FnMut(usize, usize, &[f32]),
) {
    conv_f32_to(weights, geometry, input, pixels, epilogue);
}

/// As [`conv_f32_with`] for an epilogue that is compiled into the kernel.
///
/// # Panics
/// As `conv_f32_with`.
pub fn conv_f32_to(
    weights: &PackedF32,
    geometry: &ConvGeometry,
    input: &[f32],
    pixels: Range<usize>,
    epilogue: impl Epilogue<f32>,
) {
    assert_eq!(weights.geometry, *geometry, "weights were packed for another geometry");
    assert_eq!(input.len(), geometry.input_len(), "input length");
    assert!(pixels.end <= geometry.pixels(), "pixels outside of the image");
    let layout = layout(geometry);
    match weights.path {
        // SAFETY: packed weights carry this path only after it was found on this machine.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { f32_avx2(weights, layout, input, pixels, epilogue) },
        // SAFETY: as before.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { f32_avx512(weights, layout, input, pixels, epilogue) },
        _ => tiles(geometry, layout, &weights.panels, pixels, epilogue, |tile, panel, out| {
            by_count!(tile.count, scalar::tile_f32, [], (tile.runs, input, panel, out));
        }),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn f32_avx2(
    weights: &PackedF32,
    layout: Layout,
    input: &[f32],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<f32>,
) {
    let geometry = &weights.geometry;
    let (each, in_group) = (layout.rows() * LANES, geometry.group_out().div_ceil(LANES));
    let mut out = [[0.0f32; LANES]; TILE];
    // A closure has the features of the function that it is written in, not of the one that it is inlined into.
    walk(geometry, layout, pixels, 1, |tile| {
        let panel = tile.of_panels(&weights.panels, in_group, each);
        by_count!(tile.count, avx2::tile_f32, [], (tile.runs, input, panel, &mut out));
        hand_over(&tile, &out, &mut epilogue);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn f32_avx512(
    weights: &PackedF32,
    layout: Layout,
    input: &[f32],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<f32>,
) {
    let geometry = &weights.geometry;
    let (each, in_group) = (layout.rows() * LANES, geometry.group_out().div_ceil(LANES));
    let mut out = avx512::Buffer::default();
    walk(geometry, layout, pixels, WIDE, |tile| {
        avx512::tile_f32(&tile, input, tile.of_panels(&weights.panels, in_group, each), &mut out);
        hand_over(&tile, &out.rows, &mut epilogue);
    });
}

/// Hands the sums of a tile to the epilogue.
#[inline(always)]
fn hand_over<A, const N: usize>(tile: &Tile<'_>, rows: &[[A; N]; TILE], epilogue: &mut impl Epilogue<A>) {
    for (pixel, row) in (tile.pixel..tile.pixel + tile.count).zip(rows) {
        let (whole, rest) = row[..tile.width].as_chunks::<LANES>();
        for (i, sums) in whole.iter().enumerate() {
            // The common width as a constant, so that the epilogue's loop needs no remainder.
            epilogue.store(pixel, tile.channel + i * LANES, sums);
        }
        if !rest.is_empty() {
            epilogue.store(pixel, tile.channel + whole.len() * LANES, rest);
        }
    }
}

/// Convolves one int8 image `[in_h, in_w, in_c]` into exact sums `[out_h, out_w, out_c]`.
///
/// # Panics
/// If a slice's length does not fit the geometry, or the weights were packed for another one.
pub fn conv_i8(weights: &PackedI8, geometry: &ConvGeometry, input: &[i8], output: &mut [i32]) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    let channels = geometry.out_c;
    conv_i8_with(weights, geometry, input, 0..geometry.pixels(), |pixel, channel, acc| {
        output[pixel * channels + channel..][..acc.len()].copy_from_slice(acc);
    });
}

/// As [`conv_f32_with`] on int8: `epilogue(pixel, channel, sums)` gets exact i32 sums of at most 16 channels.
///
/// # Panics
/// If a slice's length does not fit the geometry, the range exceeds the image, or the weights were packed for
/// another geometry.
pub fn conv_i8_with(
    weights: &PackedI8,
    geometry: &ConvGeometry,
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl FnMut(usize, usize, &[i32]),
) {
    conv_i8_to(weights, geometry, input, pixels, epilogue);
}

/// As [`conv_i8_with`] for an epilogue that is compiled into the kernel.
///
/// # Panics
/// As `conv_i8_with`.
pub fn conv_i8_to(
    weights: &PackedI8,
    geometry: &ConvGeometry,
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl Epilogue<i32>,
) {
    conv_i8_in(&mut Scratch::default(), weights, geometry, input, pixels, epilogue);
}

/// Memory of a convolution's own, which grows to what the largest needs and is then used again.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pairs: Vec<i16>,
    columns: Vec<i8>,
}

/// Convolves one int8 image `[in_h, in_w, in_c]` into what `finish` makes of the sums, `[out_h, out_w, out_c]`.
///
/// # Panics
/// If a slice's length does not fit the geometry, or the weights were packed for another one.
pub fn conv_i8_finish(
    scratch: &mut Scratch,
    weights: &PackedI8,
    geometry: &ConvGeometry,
    input: &[i8],
    finish: FinishI8<'_>,
    output: &mut [i8],
) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    assert_eq!(finish.bias.len(), geometry.out_c, "bias length");
    let all = 0..geometry.pixels();
    let mut to = Stored { finish, channels: geometry.out_c, output };
    match &weights.panels {
        #[cfg(target_arch = "x86_64")]
        Panels::Pairs(_) if weights.path == Path::Avx2 => {
            // SAFETY: packed weights carry this path only after it was found on this machine.
            conv_i8_in(scratch, weights, geometry, input, all, unsafe { avx2::Vectors::new(to) });
        }
        Panels::Pairs(_) => conv_i8_in(scratch, weights, geometry, input, all, to),
        #[cfg(target_arch = "x86_64")]
        Panels::Fours(fours) => {
            assert_eq!(weights.geometry, *geometry, "weights were packed for another geometry");
            assert_eq!(input.len(), geometry.input_len(), "input length");
            // SAFETY: weights are packed so for AVX-512 only, after it was found on this machine.
            unsafe { i8_avx512(geometry, fours, input, all, &mut scratch.columns, &mut to, |_, _| {}) }
        }
    }
}

/// As [`conv_i8_to`] in memory that is there already.
///
/// # Panics
/// As `conv_i8_with`.
pub fn conv_i8_in(
    scratch: &mut Scratch,
    weights: &PackedI8,
    geometry: &ConvGeometry,
    input: &[i8],
    pixels: Range<usize>,
    epilogue: impl Epilogue<i32>,
) {
    assert_eq!(weights.geometry, *geometry, "weights were packed for another geometry");
    assert_eq!(input.len(), geometry.input_len(), "input length");
    assert!(pixels.end <= geometry.pixels(), "pixels outside of the image");
    match &weights.panels {
        Panels::Pairs(panels) => {
            let tap = geometry.group_in().next_multiple_of(2);
            let layout = Layout { pitch: geometry.groups * tap, tap, ..layout(geometry) };
            let image = widen(geometry, layout, input, &pixels, &mut scratch.pairs);
            match weights.path {
                // SAFETY: packed weights carry this path only after it was found on this machine.
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => unsafe { i8_avx2(geometry, panels, layout, image, pixels, epilogue) },
                _ => tiles(geometry, layout, panels, pixels, epilogue, |tile, panel, out| {
                    by_count!(tile.count, scalar::tile_i16, [], (tile.runs, image, panel, out));
                }),
            }
        }
        #[cfg(target_arch = "x86_64")]
        Panels::Fours(fours) => {
            let (mut out, mut epilogue) = (avx512::Buffer::default(), epilogue);
            let done = |tile: &Tile<'_>, out: &mut avx512::Buffer<i32>| hand_over(tile, &out.rows, &mut epilogue);
            // SAFETY: weights are packed so for AVX-512 only, after it was found on this machine.
            unsafe { i8_avx512(geometry, fours, input, pixels, &mut scratch.columns, &mut out, done) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn i8_avx2(
    geometry: &ConvGeometry,
    panels: &[i16],
    layout: Layout,
    image: &[i16],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<i32>,
) {
    let (each, in_group) = (layout.rows() * LANES, geometry.group_out().div_ceil(LANES));
    let mut out = [[0i32; LANES]; TILE];
    walk(geometry, layout, pixels, 1, |tile| {
        let panel = tile.of_panels(panels, in_group, each);
        by_count!(tile.count, avx2::tile_i16, [], (tile.runs, image, panel, &mut out));
        hand_over(&tile, &out, &mut epilogue);
    });
}

/// Output pixels whose columns are gathered at once.
#[cfg(target_arch = "x86_64")]
const GATHERED: usize = 16 * TILE;

/// Computes every tile into `sink` and calls `done`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn i8_avx512<S: avx512::Sink<core::arch::x86_64::__m512i>>(
    geometry: &ConvGeometry,
    fours: &Fours,
    input: &[i8],
    pixels: Range<usize>,
    columns: &mut Vec<i8>,
    sink: &mut S,
    mut done: impl FnMut(&Tile<'_>, &mut S),
) {
    let layout = fours.layout(geometry);
    let cout = geometry.group_out();
    let (weights, back, in_group) = (layout.rows() * LANES, (layout.taps + 1) * LANES, cout.div_ceil(LANES));
    let mut compute = |tile: &Tile<'_>, image: &[i8]| {
        let weights = tile.of_panels(&fours.weights, in_group, weights);
        avx512::tile_i8(tile, image, weights, tile.of_panels(&fours.back, in_group, back), sink);
        done(tile, sink);
    };
    if !fours.gathered {
        return walk(geometry, layout, pixels, WIDE, |tile| compute(&tile, input));
    }
    for group in 0..geometry.groups {
        for first in pixels.clone().step_by(GATHERED) {
            let block = first..pixels.end.min(first + GATHERED);
            columns::gather(geometry, group, block.clone(), input, layout.pitch, columns);
            let product = ConvGeometry::dense(block.len(), layout.tap, cout);
            walk(&product, layout, 0..block.len(), WIDE, |tile| {
                let (pixel, channel) = (first + tile.pixel, group * cout + tile.channel);
                compute(&Tile { group, pixel, channel, ..tile }, columns);
            });
        }
    }
}

/// Computes every tile with `compute(tile, panel, sums)` and hands its pixels to the epilogue, in plain Rust.
#[inline(always)]
fn tiles<W, A: Copy + Default>(
    geometry: &ConvGeometry,
    layout: Layout,
    weights: &[W],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<A>,
    compute: impl Fn(&Tile<'_>, &[W], &mut [[A; LANES]; TILE]),
) {
    let (each, in_group) = (layout.rows() * LANES, geometry.group_out().div_ceil(LANES));
    let mut out = [[A::default(); LANES]; TILE];
    walk(geometry, layout, pixels, 1, |tile| {
        compute(&tile, tile.of_panels(weights, in_group, each), &mut out);
        hand_over(&tile, &out, &mut epilogue);
    });
}

/// The image widened, each group of channels padded to the layout's tap by whatever lay there: it meets weights of zero. Only
/// the rows that `pixels` need are filled.
fn widen<'a>(
    geometry: &ConvGeometry,
    layout: Layout,
    input: &[i8],
    pixels: &Range<usize>,
    image: &'a mut Vec<i16>,
) -> &'a [i16] {
    let len = geometry.in_h * geometry.in_w * layout.pitch;
    if image.len() < len {
        image.resize(len, 0);
    }
    let image = &mut image[..len];
    if pixels.is_empty() || input.is_empty() {
        return image;
    }
    let top = pixels.start / geometry.out_w * geometry.stride[0];
    let bottom =
        (pixels.end - 1) / geometry.out_w * geometry.stride[0] + (geometry.kernel[0] - 1) * geometry.dilation[0] + 1;
    let row = |y: usize| y.saturating_sub(geometry.pad_before[0]).min(geometry.in_h) * geometry.in_w;
    let (from, to) = (row(top), row(bottom));
    let source = &input[from * geometry.in_c..to * geometry.in_c];
    let target = &mut image[from * layout.pitch..to * layout.pitch];
    on_lanes(Widened { target, source, apart: (layout.tap, geometry.group_in()) });
    image
}

/// Values widened group by group: `apart` has the elements of a group in the target and in the source.
struct Widened<'a> {
    target: &'a mut [i16],
    source: &'a [i8],
    apart: (usize, usize),
}

impl Lanes for Widened<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { target, source, apart: (to, from) } = self;
        let fill =
            |target: &mut [i16], source: &[i8]| target.iter_mut().zip(source).for_each(|(t, s)| *t = i16::from(*s));
        if to == from {
            return fill(target, source);
        }
        for (target, source) in target.chunks_exact_mut(to).zip(source.chunks_exact(from)) {
            fill(target, source);
        }
    }
}
