//! The gradient of a depthwise convolution's kernel, vectorized over channels: the same source is compiled once for the
//! baseline and once with AVX2 and FMA.

use crate::kernel::backward::{Stretch, blocks};
use crate::kernel::{ConvGeometry, Path};

/// Channels that are summed together.
const CHUNK: usize = 32;

/// Adds the gradient of the kernel of a depthwise convolution to `dw`, `[kh, kw, in_c · multiplier]`. `images` are pairs of
/// an input image `[in_h, in_w, in_c]` and the gradient of its output `[out_h, out_w, out_c]`, in order.
///
/// The chains are those of [`conv_weights`](crate::kernel::backward::conv_weights), except that taps in the padding are
/// skipped.
///
/// # Panics
/// If `groups` is not `in_c`, or a slice's length does not fit the geometry.
pub fn depthwise_weights<'a>(
    geometry: &ConvGeometry,
    images: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    dw: &mut [f32],
) {
    depthwise_weights_on(Path::detect(), geometry, images, dw);
}

pub(super) fn depthwise_weights_on<'a>(
    path: Path,
    g: &ConvGeometry,
    images: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    dw: &mut [f32],
) {
    g.assert_valid();
    assert_eq!(g.groups, g.in_c, "a depthwise convolution has one group per input channel");
    assert_eq!(dw.len(), g.kernel_len(), "kernel length");
    let blocks = blocks(g.out_h, g.out_w);
    for (input, dy) in images {
        assert_eq!(input.len(), g.input_len(), "input length");
        assert_eq!(dy.len(), g.output_len(), "gradient length");
        for block in &blocks {
            match path {
                // SAFETY: the features were just found on this machine.
                #[cfg(target_arch = "x86_64")]
                Path::Avx2 | Path::Avx512 if path.is_available() => unsafe { add_avx2(g, block, input, dy, dw) },
                Path::Avx512 | Path::Avx2 | Path::Portable => add(g, block, input, dy, dw),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_avx2(g: &ConvGeometry, block: &[Stretch], input: &[f32], dy: &[f32], dw: &mut [f32]) {
    add(g, block, input, dy, dw);
}

/// Adds the chains of one block.
#[inline(always)]
fn add(g: &ConvGeometry, block: &[Stretch], input: &[f32], dy: &[f32], dw: &mut [f32]) {
    for (tap, dw) in dw.chunks_exact_mut(g.out_c.max(1)).enumerate() {
        let mut pixels = Vec::new();
        for stretch in block {
            stretch_pixels(g, tap, stretch, &mut pixels);
        }
        let (chunks, rest) = match g.group_out() {
            1 => dw.as_chunks_mut::<CHUNK>(),
            _ => (&mut [][..], dw),
        };
        let whole = chunks.len() * CHUNK;
        for (i, dw) in chunks.iter_mut().enumerate() {
            let mut sums = [0.0f32; CHUNK];
            for (x, y) in &pixels {
                let (x, y) = (&input[x + i * CHUNK..][..CHUNK], &dy[y + i * CHUNK..][..CHUNK]);
                for lane in 0..CHUNK {
                    sums[lane] = x[lane].mul_add(y[lane], sums[lane]);
                }
            }
            dw.iter_mut().zip(sums).for_each(|(dw, sum)| *dw += sum);
        }
        for (c, dw) in rest.iter_mut().enumerate() {
            let (from, to) = ((whole + c) / g.group_out().max(1), whole + c);
            *dw += pixels.iter().fold(0.0f32, |sum, (x, y)| input[x + from].mul_add(dy[y + to], sum));
        }
    }
}

/// Appends where the input and output pixels begin that a tap joins, without those in the padding.
#[inline(always)]
fn stretch_pixels(g: &ConvGeometry, tap: usize, stretch: &Stretch, pixels: &mut Vec<(usize, usize)>) {
    let shifted = |axis: usize, output: usize, tap: usize, size: usize| {
        (output * g.stride[axis] + tap * g.dilation[axis]).checked_sub(g.pad_before[axis]).filter(|at| *at < size)
    };
    let Some(y) = shifted(0, stretch.row, tap / g.kernel[1], g.in_h) else { return };
    for column in stretch.columns.clone() {
        if let Some(x) = shifted(1, column, tap % g.kernel[1], g.in_w) {
            pixels.push(((y * g.in_w + x) * g.in_c, (stretch.row * g.out_w + column) * g.out_c));
        }
    }
}
