//! Dense and grouped convolutions: packing, dispatch and stores.

use core::ops::Range;

use crate::kernel::plan::{LANES, Layout, TILE, Tile, walk};
use crate::kernel::{ConvGeometry, Epilogue, Lanes, Path, on_lanes, scalar};
#[cfg(target_arch = "x86_64")]
use crate::kernel::{avx2, avx512};

/// Weights of an f32 convolution, packed as `[group][panel][ky, kx, cin][16]`, zeros past the last output channel.
#[derive(Clone, Debug)]
pub struct PackedF32 {
    path: Path,
    geometry: ConvGeometry,
    panels: Vec<f32>,
}

/// Weights of an int8 convolution, packed as the path's products want them.
#[derive(Clone, Debug)]
pub struct PackedI8 {
    path: Path,
    geometry: ConvGeometry,
    panels: Panels,
}

#[derive(Clone, Debug)]
enum Panels {
    /// Widened to i16, in pairs of input channels: `[group][panel][ky, kx, cin / 2][16][2]`.
    Pairs(Vec<i16>),
    /// In fours of input channels, `[group][panel][ky, kx, cin / 4][16][4]`, to be multiplied by inputs plus 128; and what
    /// takes those 128 back, −128 · Σ w over the taps before each one and before the end: `[group][panel][taps + 1][16]`.
    #[cfg(target_arch = "x86_64")]
    Fours { weights: Vec<i8>, back: Vec<i32> },
}

impl PackedF32 {
    /// Packs a kernel `[kh, kw, in_c / groups, out_c]` for the fastest path of this machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel_hwio: &[f32], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel_hwio, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel_hwio: &[f32], geometry: &ConvGeometry, path: Path) -> Self {
        let panels = pack(kernel_hwio, geometry, path, 1, |w| *w);
        Self { path, geometry: geometry.clone(), panels }
    }
}

impl PackedI8 {
    /// Packs a kernel `[kh, kw, in_c / groups, out_c]` for the fastest path of this machine.
    ///
    /// # Panics
    /// If the kernel's length or the geometry is inconsistent.
    #[must_use]
    pub fn new(kernel_hwio: &[i8], geometry: &ConvGeometry) -> Self {
        Self::with_path(kernel_hwio, geometry, Path::detect())
    }

    /// As [`new`](Self::new), for a given path.
    ///
    /// # Panics
    /// As `new`, and if this machine can't run the path.
    #[must_use]
    pub fn with_path(kernel_hwio: &[i8], geometry: &ConvGeometry, path: Path) -> Self {
        let panels = match path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => {
                let weights = pack(kernel_hwio, geometry, path, 4, |w| *w);
                let back = take_back(geometry, &weights);
                Panels::Fours { weights, back }
            }
            _ => Panels::Pairs(pack(kernel_hwio, geometry, path, 2, |w| i16::from(*w))),
        };
        Self { path, geometry: geometry.clone(), panels }
    }
}

/// See [`Panels::Fours`].
#[cfg(target_arch = "x86_64")]
fn take_back(geometry: &ConvGeometry, weights: &[i8]) -> Vec<i32> {
    let tap = geometry.group_in().next_multiple_of(4) * LANES;
    let taps = geometry.kernel[0] * geometry.kernel[1];
    let mut back = Vec::new();
    for panel in 0..geometry.groups * geometry.group_out().div_ceil(LANES) {
        let mut sums = [0i32; LANES];
        back.extend_from_slice(&sums);
        for at in panel * taps..(panel + 1) * taps {
            for (i, four) in weights[at * tap..][..tap].chunks_exact(4).enumerate() {
                let sum: i32 = four.iter().map(|w| i32::from(*w)).sum();
                sums[i % LANES] = sums[i % LANES].wrapping_sub(128 * sum);
            }
            back.extend_from_slice(&sums);
        }
    }
    back
}

/// Packs rows in bundles of `bundle` (1, 2 for pairs, 4 for fours): `[group][panel][tap][cin / bundle][16][bundle]`.
fn pack<S, T: Copy + Default>(
    kernel: &[S],
    geometry: &ConvGeometry,
    path: Path,
    bundle: usize,
    convert: impl Fn(&S) -> T,
) -> Vec<T> {
    geometry.assert_valid();
    assert!(path.is_available(), "this machine can't run {path:?}");
    assert_eq!(kernel.len(), geometry.kernel_len(), "kernel length");
    let (cin, cout) = (geometry.group_in(), geometry.group_out());
    let taps = geometry.kernel[0] * geometry.kernel[1];
    let rows = taps * cin.next_multiple_of(bundle);
    let panels = cout.div_ceil(LANES);
    let mut packed = vec![T::default(); geometry.groups * panels * rows * LANES];
    if geometry.out_c == 0 {
        return packed;
    }
    for (source_row, source) in kernel.chunks_exact(geometry.out_c).enumerate() {
        let row = source_row / cin * cin.next_multiple_of(bundle) + source_row % cin;
        for (group, source) in source.chunks_exact(cout).enumerate() {
            for (panel, source) in source.chunks(LANES).enumerate() {
                let base = ((group * panels + panel) * rows + row / bundle * bundle) * LANES + row % bundle;
                for (lane, value) in source.iter().enumerate() {
                    packed[base + lane * bundle] = convert(value);
                }
            }
        }
    }
    packed
}

/// Convolves one image `[in_h, in_w, in_c]` into `[out_h, out_w, out_c]`, adding `bias[out_c]` if given.
///
/// # Panics
/// If a slice's length does not fit the geometry, or the weights were packed for another one.
pub fn conv_f32(weights: &PackedF32, geometry: &ConvGeometry, input: &[f32], bias: Option<&[f32]>, output: &mut [f32]) {
    assert_eq!(output.len(), geometry.output_len(), "output length");
    assert!(bias.is_none_or(|b| b.len() == geometry.out_c), "bias length");
    let channels = geometry.out_c;
    conv_f32_with(weights, geometry, input, 0..geometry.pixels(), |pixel, channel, acc| {
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
    let layout = Layout { pitch: geometry.in_c, tap: geometry.group_in() };
    match weights.path {
        // SAFETY: packed weights carry this path only after it was found on this machine.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => unsafe { f32_avx2(weights, layout, input, pixels, epilogue) },
        // SAFETY: as before.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 => unsafe { f32_avx512(weights, layout, input, pixels, epilogue) },
        _ => tiles(geometry, layout, &weights.panels, pixels, epilogue, |tile, panel, [out]| {
            by_count!(tile.count, scalar::tile_f32, [], (tile.runs, input, panel, out));
        }),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn f32_avx2(weights: &PackedF32, layout: Layout, input: &[f32], pixels: Range<usize>, epilogue: impl Epilogue<f32>) {
    tiles(&weights.geometry, layout, &weights.panels, pixels, epilogue, |tile, panel, [out]| {
        by_count!(tile.count, avx2::tile_f32, [], (tile.runs, input, panel, out));
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn f32_avx512(weights: &PackedF32, layout: Layout, input: &[f32], pixels: Range<usize>, epilogue: impl Epilogue<f32>) {
    tiles(&weights.geometry, layout, &weights.panels, pixels, epilogue, |tile, panels, out| match tile.panels {
        1 => by_count!(tile.count, avx512::tile_f32, [1], (tile.runs, input, panels, out)),
        _ => by_count!(tile.count, avx512::tile_f32, [2], (tile.runs, input, panels, out)),
    });
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
    fours: Vec<u8>,
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
    let layout = |bundle: usize| {
        let tap = geometry.group_in().next_multiple_of(bundle);
        Layout { pitch: geometry.groups * tap, tap }
    };
    match &weights.panels {
        Panels::Pairs(panels) => {
            let layout = layout(2);
            let image = convert(geometry, layout, input, &pixels, &mut scratch.pairs, i16::from);
            match weights.path {
                // SAFETY: packed weights carry this path only after it was found on this machine.
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 => unsafe { i8_avx2(geometry, panels, layout, image, pixels, epilogue) },
                _ => tiles(geometry, layout, panels, pixels, epilogue, |tile, panel, [out]| {
                    by_count!(tile.count, scalar::tile_i16, [], (tile.runs, image, panel, out));
                }),
            }
        }
        #[cfg(target_arch = "x86_64")]
        Panels::Fours { weights, back } => {
            let layout = layout(4);
            // Plus 128: what is padded to a four meets zeros, whatever it is.
            let image = convert(geometry, layout, input, &pixels, &mut scratch.fours, |x| x as u8 ^ 128);
            // SAFETY: weights are packed so for AVX-512 only, after it was found on this machine.
            unsafe { i8_avx512(geometry, weights, back, layout, image, pixels, epilogue) }
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
    epilogue: impl Epilogue<i32>,
) {
    tiles(geometry, layout, panels, pixels, epilogue, |tile, panel, [out]| {
        by_count!(tile.count, avx2::tile_i16, [], (tile.runs, image, panel, out));
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn i8_avx512(
    geometry: &ConvGeometry,
    weights: &[i8],
    back: &[i32],
    layout: Layout,
    image: &[u8],
    pixels: Range<usize>,
    epilogue: impl Epilogue<i32>,
) {
    let of_panel = (geometry.kernel[0] * geometry.kernel[1] + 1) * LANES;
    let panels = geometry.group_out().div_ceil(LANES);
    tiles(geometry, layout, weights, pixels, epilogue, |tile, weights, out| {
        let back = &back[(tile.group * panels + tile.panel) * of_panel..][..tile.panels * of_panel];
        match tile.panels {
            1 => by_count!(tile.count, avx512::tile_u8, [1], (tile.runs, image, weights, back, out)),
            _ => by_count!(tile.count, avx512::tile_u8, [2], (tile.runs, image, weights, back, out)),
        }
    });
}

/// Computes every tile, of up to `WIDE` panels, with `compute(tile, panels, sums)` and hands its pixels to the epilogue.
///
/// Inlined into a function with the path's features, so that the epilogue is compiled for them too.
#[inline(always)]
fn tiles<W, A: Copy + Default, const WIDE: usize>(
    geometry: &ConvGeometry,
    layout: Layout,
    weights: &[W],
    pixels: Range<usize>,
    mut epilogue: impl Epilogue<A>,
    compute: impl Fn(&Tile<'_>, &[W], &mut [[[A; LANES]; TILE]; WIDE]),
) {
    let rows = geometry.kernel[0] * geometry.kernel[1] * layout.tap;
    let (channels, panels) = (geometry.group_out(), geometry.group_out().div_ceil(LANES));
    let mut out = [[[A::default(); LANES]; TILE]; WIDE];
    walk(geometry, layout, pixels, WIDE, |tile| {
        let first = (tile.group * panels + tile.panel) * rows * LANES;
        compute(&tile, &weights[first..][..tile.panels * rows * LANES], &mut out);
        for p in 0..tile.count {
            for (panel, out) in out.iter().enumerate().take(tile.panels) {
                let first = (tile.panel + panel) * LANES;
                let (channel, width) = (tile.group * channels + first, LANES.min(channels - first));
                // The common width as a constant, so that the epilogue's loop needs no remainder.
                if width == LANES {
                    epilogue.store(tile.pixel + p, channel, &out[p]);
                } else {
                    epilogue.store(tile.pixel + p, channel, &out[p][..width]);
                }
            }
        }
    });
}

/// The image with every value converted, each group of channels padded to the layout's tap by whatever lay there: it meets
/// weights of zero. Only the rows that `pixels` need are filled.
fn convert<'a, T: Copy + Default>(
    geometry: &ConvGeometry,
    layout: Layout,
    input: &[i8],
    pixels: &Range<usize>,
    image: &'a mut Vec<T>,
    value: impl Fn(i8) -> T,
) -> &'a [T] {
    let len = geometry.in_h * geometry.in_w * layout.pitch;
    if image.len() < len {
        image.resize(len, T::default());
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
    on_lanes(Converted { target, source, apart: (layout.tap, geometry.group_in()), value });
    image
}

/// Values converted group by group: `apart` has the elements of a group in the target and in the source.
struct Converted<'a, T, F> {
    target: &'a mut [T],
    source: &'a [i8],
    apart: (usize, usize),
    value: F,
}

impl<T, F: Fn(i8) -> T> Lanes for Converted<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { target, source, apart: (to, from), value } = self;
        let fill = |target: &mut [T], source: &[i8]| target.iter_mut().zip(source).for_each(|(t, s)| *t = value(*s));
        if to == from {
            return fill(target, source);
        }
        for (target, source) in target.chunks_exact_mut(to).zip(source.chunks_exact(from)) {
            fill(target, source);
        }
    }
}
