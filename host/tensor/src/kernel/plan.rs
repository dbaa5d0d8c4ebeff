//! Cuts a convolution into tiles, and lists for each tile the stretches of memory it reads.

use core::ops::Range;

use crate::kernel::ConvGeometry;

/// Output pixels of a tile.
pub(super) const TILE: usize = 6;
/// Output channels of a panel of packed weights.
pub(super) const LANES: usize = 16;
/// Output pixels that share one pass over all panels, at least and at most: as many as have their activations in
/// [`CACHED`] bytes.
const BLOCKS: Range<usize> = 8 * TILE..32 * TILE;
/// Bytes that stay in the second-level cache beside the weights of a few panels.
const CACHED: usize = 192 << 10;

/// A stretch of the chain for the pixels of one tile: `len` consecutive input elements per pixel, met by `len`
/// consecutive rows of the weight panel.
#[derive(Debug)]
pub(super) struct Run {
    /// First row of the weight panel.
    pub(super) row: usize,
    pub(super) len: usize,
    /// The taps of the kernel that these rows belong to.
    pub(super) taps: Range<usize>,
    /// First input element for each pixel; 0 (readable, to be ignored) where the tap lies in the padding.
    pub(super) start: [usize; TILE],
    /// Bit `p`: the stretch takes part in the chain of pixel `p`.
    pub(super) valid: u32,
}

/// How the image lies in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Elements from one pixel to the next.
    pub(super) pitch: usize,
    /// Elements that one tap reads: the channels of a group, rounded up as packing demands.
    pub(super) tap: usize,
    /// Taps of a chain.
    pub(super) taps: usize,
}

impl Layout {
    /// Rows of a panel: the elements of a chain.
    pub(super) fn rows(&self) -> usize {
        self.tap * self.taps
    }
}

impl Run {
    /// Panics unless every element that the run makes `M` pixels read exists, of the image and of a panel. One check per
    /// run makes the inner loop free of checks.
    #[inline(always)]
    pub(super) fn assert_inside<const M: usize>(&self, input: usize, panel: usize) {
        const { assert!(M <= TILE) };
        let inside = |start: usize, len: usize, total: usize| len <= total && start <= total - len;
        let mut ok = inside(self.row, self.len, panel / LANES);
        for p in 0..M {
            ok &= inside(self.start[p], self.len, input);
        }
        assert!(ok, "run outside of its image or panel: {self:?}");
    }
}

/// A tile to be computed: `count` pixels from `pixel` on, the channels of `panels` panels of group `group` from `panel`
/// on.
#[derive(Debug)]
pub(super) struct Tile<'a> {
    pub(super) group: usize,
    pub(super) panel: usize,
    pub(super) panels: usize,
    /// The first output channel, and those that there are.
    pub(super) channel: usize,
    pub(super) width: usize,
    pub(super) pixel: usize,
    pub(super) count: usize,
    pub(super) runs: &'a [Run],
}

impl Tile<'_> {
    /// Its stretch of what has `each` elements for a panel, panels in order.
    pub(super) fn of_panels<'w, T>(&self, all: &'w [T], in_group: usize, each: usize) -> &'w [T] {
        let first = (self.group * in_group + self.panel) * each;
        &all[first..first + self.panels * each]
    }
}

/// Visits every tile of the output pixels `pixels`, of up to `wide` panels.
///
/// The order is block of pixels, panel, tile: a panel stays in cache over the tiles of a block, and the block's
/// activations over all panels. The runs of a block are computed once.
#[inline(always)]
pub(super) fn walk(
    geometry: &ConvGeometry,
    layout: Layout,
    pixels: Range<usize>,
    wide: usize,
    mut visit: impl FnMut(Tile<'_>),
) {
    let panels = geometry.group_out().div_ceil(LANES);
    let in_block = block(geometry, layout, pixels.len());
    let mut runs = Vec::new();
    let mut ends = Vec::new();
    for group in 0..geometry.groups {
        for first in pixels.clone().step_by(in_block) {
            let block = first..pixels.end.min(first + in_block);
            runs.clear();
            ends.clear();
            for pixel in block.clone().step_by(TILE) {
                plan(geometry, layout, group, pixel..block.end.min(pixel + TILE), &mut runs);
                ends.push(runs.len());
            }
            for panel in (0..panels).step_by(wide) {
                let mut begin = 0;
                for (pixel, &end) in block.clone().step_by(TILE).zip(&ends) {
                    let count = TILE.min(block.end - pixel);
                    let side_by_side = wide.min(panels - panel);
                    let width = (side_by_side * LANES).min(geometry.group_out() - panel * LANES);
                    visit(Tile {
                        group,
                        panel,
                        panels: side_by_side,
                        channel: group * geometry.group_out() + panel * LANES,
                        width,
                        pixel,
                        count,
                        runs: &runs[begin..end],
                    });
                    begin = end;
                }
            }
        }
    }
}

/// Pixels of a block, blocks being of about equal size: one pixel that is left over would need all weights once more.
fn block(geometry: &ConvGeometry, layout: Layout, pixels: usize) -> usize {
    // As if an element had four bytes; neighbouring pixels share what their windows share.
    let per_pixel = 4 * layout.pitch * geometry.stride[0] * geometry.stride[1];
    let most = (CACHED / per_pixel.max(1)).clamp(BLOCKS.start, BLOCKS.end);
    let blocks = pixels.div_ceil(most).max(1);
    pixels.div_ceil(blocks).next_multiple_of(TILE).max(TILE)
}

/// Appends the runs of one tile in the order of the chain.
fn plan(geometry: &ConvGeometry, layout: Layout, group: usize, pixels: Range<usize>, runs: &mut Vec<Run>) {
    let [kh, kw] = geometry.kernel;
    if geometry.is_pointwise() {
        let start = std::array::from_fn(|p| {
            if p < pixels.len() { (pixels.start + p) * layout.pitch + group * layout.tap } else { 0 }
        });
        runs.push(Run { row: 0, len: layout.tap, taps: 0..1, start, valid: (1 << pixels.len()) - 1 });
        return;
    }
    // Coordinates are kept shifted up by the padding to stay unsigned.
    let mut origin = [[0usize; 2]; TILE];
    for (o, pixel) in origin.iter_mut().zip(pixels.clone()) {
        *o = [pixel / geometry.out_w * geometry.stride[0], pixel % geometry.out_w * geometry.stride[1]];
    }
    let origin = &origin[..pixels.len()];
    let inside = |at: usize, pad: usize, size: usize| (pad..pad + size).contains(&at);
    let [pad_y, pad_x] = geometry.pad_before;
    // Neighbouring taps of a row are neighbours in memory too when nothing lies between them.
    let joinable = geometry.dilation[1] == 1 && layout.tap == layout.pitch;
    for ky in 0..kh {
        let mut rows = 0u32;
        let mut whole = joinable;
        for (p, o) in origin.iter().enumerate() {
            if inside(o[0] + ky * geometry.dilation[0], pad_y, geometry.in_h) {
                rows |= 1 << p;
                whole &= o[1] >= pad_x && o[1] + kw <= pad_x + geometry.in_w;
            }
        }
        let (steps, taps) = if whole { (1, kw) } else { (kw, 1) };
        for kx in 0..steps {
            let tap = ky * kw + kx;
            let mut run = Run {
                row: tap * layout.tap,
                len: taps * layout.tap,
                taps: tap..tap + taps,
                start: [0; TILE],
                valid: 0,
            };
            for (p, o) in origin.iter().enumerate() {
                let at = [o[0] + ky * geometry.dilation[0], o[1] + kx * geometry.dilation[1]];
                if rows & (1 << p) != 0 && inside(at[1], pad_x, geometry.in_w) {
                    run.valid |= 1 << p;
                    run.start[p] =
                        ((at[0] - pad_y) * geometry.in_w + at[1] - pad_x) * layout.pitch + group * layout.tap;
                }
            }
            if run.valid != 0 {
                runs.push(run);
            }
        }
    }
}
