//! The gradient of a convolution's kernel.

use core::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::kernel::avx2;
use crate::kernel::backward::{Stretch, blocks, flattened};
use crate::kernel::plan::{LANES, Run, TILE};
use crate::kernel::{ConvGeometry, Path, scalar};

/// The channels of an image one behind the other, padded; the columns of each row stand by their remainder modulo the
/// stride, so that the pixels that a tap meets along a row of outputs are neighbours.
struct Planes {
    data: Vec<f32>,
    /// Elements from one remainder to the next.
    width: usize,
    /// Rows of a channel.
    height: usize,
    stride: usize,
}

impl Planes {
    fn new(g: &ConvGeometry) -> Self {
        let reach = |axis: usize, outputs: usize, size: usize| {
            let seen = (outputs.max(1) - 1) * g.stride[axis] + (g.kernel[axis] - 1) * g.dilation[axis] + 1;
            seen.max(size + g.pad_before[axis])
        };
        let stride = g.stride[1];
        let width = reach(1, g.out_w, g.in_w).div_ceil(stride);
        Self { data: Vec::new(), width, height: reach(0, g.out_h, g.in_h), stride }
    }

    /// Takes over channels of an image.
    fn fill(&mut self, g: &ConvGeometry, input: &[f32], channels: Range<usize>) {
        let plane = self.height * self.stride * self.width;
        // Padding stays what it was at first: zeros.
        self.data.resize(channels.len() * plane, 0.0);
        let Some(pixels) = (g.in_c > 0).then(|| input.chunks_exact(g.in_c)) else { return };
        for (i, pixel) in pixels.enumerate() {
            let at = self.at(0, i / g.in_w + g.pad_before[0], i % g.in_w + g.pad_before[1]);
            for (channel, value) in pixel[channels.clone()].iter().enumerate() {
                self.data[channel * plane + at] = *value;
            }
        }
    }

    /// Where a pixel of a channel stands.
    fn at(&self, channel: usize, row: usize, column: usize) -> usize {
        ((channel * self.height + row) * self.stride + column % self.stride) * self.width + column / self.stride
    }
}

/// Adds the gradient of the kernel of a convolution to `dw`, `[kh, kw, channels, out_c]`: of the input channels
/// `channels` of every group. `images` are pairs of an input image `[in_h, in_w, in_c]` and the gradient of its output
/// `[out_h, out_w, out_c]`, in order.
///
/// # Panics
/// If a slice's length does not fit the geometry, or there are fewer channels in a group.
pub fn conv_weights<'a>(
    geometry: &ConvGeometry,
    channels: Range<usize>,
    images: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    dw: &mut [f32],
) {
    conv_weights_on(Path::detect(), geometry, channels, images, dw);
}

pub(super) fn conv_weights_on<'a>(
    path: Path,
    geometry: &ConvGeometry,
    channels: Range<usize>,
    images: impl Iterator<Item = (&'a [f32], &'a [f32])>,
    dw: &mut [f32],
) {
    geometry.assert_valid();
    assert!(channels.end <= geometry.group_in(), "channels of a group");
    let rows = geometry.kernel[0] * geometry.kernel[1] * channels.len();
    assert_eq!(dw.len(), rows * geometry.out_c, "kernel length");
    let g = flattened(geometry);
    let blocks = blocks(g.out_h, g.out_w);
    let mut planes = Planes::new(&g);
    let mut panels = Vec::new();
    for (input, dy) in images {
        assert_eq!(input.len(), g.input_len(), "input length");
        assert_eq!(dy.len(), g.output_len(), "gradient length");
        for group in 0..g.groups {
            let first = group * g.group_in();
            planes.fill(&g, input, first + channels.start..first + channels.end);
            for block in &blocks {
                pack(&g, group, block, dy, &mut panels);
                let part = Block { g: &g, group, block, channels: channels.len(), planes: &planes, panels: &panels };
                match path {
                    // SAFETY: the features were just found on this machine.
                    #[cfg(target_arch = "x86_64")]
                    Path::Avx2 | Path::Avx512 if path.is_available() => unsafe { add_avx2(&part, dw) },
                    Path::Avx512 | Path::Avx2 | Path::Portable => part.add(dw, |count, runs, input, panel, out| {
                        by_count!(count, scalar::tile_f32, [], (runs, input, panel, out));
                    }),
                }
            }
        }
    }
}

/// The gradient of a block's outputs, channels of a group, in panels: `[panel][pixel][16]`.
fn pack(g: &ConvGeometry, group: usize, block: &[Stretch], dy: &[f32], panels: &mut Vec<f32>) {
    let (Some(first), Some(last)) = (block.first(), block.last()) else { return };
    let from = first.row * g.out_w + first.columns.start;
    let pixels = last.row * g.out_w + last.columns.end - from;
    let cout = g.group_out();
    panels.clear();
    panels.resize(cout.div_ceil(LANES) * pixels * LANES, 0.0);
    for (panel, to) in panels.chunks_exact_mut(pixels * LANES).enumerate() {
        let width = LANES.min(cout - panel * LANES);
        let channel = group * cout + panel * LANES;
        for (pixel, to) in to.chunks_exact_mut(LANES).enumerate() {
            to[..width].copy_from_slice(&dy[(from + pixel) * g.out_c + channel..][..width]);
        }
    }
}

/// What one block adds to the gradient.
struct Block<'a> {
    g: &'a ConvGeometry,
    group: usize,
    block: &'a [Stretch],
    channels: usize,
    planes: &'a Planes,
    panels: &'a [f32],
}

impl Block<'_> {
    /// Adds the chains of all taps and channels, six at a time, to the kernel's gradient.
    #[inline(always)]
    fn add(&self, dw: &mut [f32], tile: impl Fn(usize, &[Run], &[f32], &[f32], &mut [[f32; LANES]; TILE])) {
        let (g, channels) = (self.g, self.channels);
        let rows = g.kernel[0] * g.kernel[1] * channels;
        let pixels: usize = self.block.iter().map(|s| s.columns.len()).sum();
        let cout = g.group_out();
        let mut runs = Vec::with_capacity(self.block.len());
        let mut out = [[0.0f32; LANES]; TILE];
        for first in (0..rows).step_by(TILE) {
            let count = TILE.min(rows - first);
            runs.clear();
            let mut row = 0;
            for stretch in self.block {
                let (len, valid) = (stretch.columns.len(), (1 << count) - 1);
                let mut run = Run { row, len, taps: 0..1, start: [0; TILE], valid };
                for (p, start) in run.start.iter_mut().enumerate().take(count) {
                    let (tap, channel) = ((first + p) / channels, (first + p) % channels);
                    let y = stretch.row * g.stride[0] + tap / g.kernel[1] * g.dilation[0];
                    let x = stretch.columns.start * g.stride[1] + tap % g.kernel[1] * g.dilation[1];
                    *start = self.planes.at(channel, y, x);
                }
                row += run.len;
                runs.push(run);
            }
            for (panel, values) in self.panels.chunks_exact(pixels * LANES).enumerate() {
                tile(count, &runs, &self.planes.data, values, &mut out);
                let width = LANES.min(cout - panel * LANES);
                let column = self.group * cout + panel * LANES;
                for (p, sums) in out.iter().enumerate().take(count) {
                    let to = &mut dw[(first + p) * g.out_c + column..][..width];
                    to.iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn add_avx2(part: &Block<'_>, dw: &mut [f32]) {
    part.add(dw, |count, runs, input, panel, out| {
        by_count!(count, avx2::tile_f32, [], (runs, input, panel, out));
    });
}
