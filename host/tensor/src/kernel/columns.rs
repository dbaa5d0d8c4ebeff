//! What each output pixel of a convolution sees, one pixel after the other.
//!
//! A product of matrices over these columns costs a copy, and saves the padding of every tap: that pays for images of few
//! channels.

use core::ops::Range;

use crate::kernel::ConvGeometry;

/// Bytes that are copied at once where a row of taps is that short and there is room for as many.
const SHORT: usize = 16;

/// Fills `columns` with what the output pixels `pixels` see of the input channels of a group, `(ky, kx, cin)` in that order,
/// zeros for the padding. Each pixel begins `pitch` elements after the one before; what is between them is of any value.
pub(super) fn gather(
    geometry: &ConvGeometry,
    group: usize,
    pixels: Range<usize>,
    input: &[i8],
    pitch: usize,
    columns: &mut Vec<i8>,
) {
    let [kh, kw] = geometry.kernel;
    let cin = geometry.group_in();
    // Room for a short copy behind the last pixel.
    let len = pixels.len() * pitch + SHORT;
    columns.resize(columns.len().max(len), 0);
    let joined = geometry.groups == 1 && geometry.dilation[1] == 1;
    let at = |origin: usize, axis: usize, k: usize, size: usize| {
        (origin + k * geometry.dilation[axis]).checked_sub(geometry.pad_before[axis]).filter(|at| *at < size)
    };
    for (pixel, column) in pixels.zip((0..).step_by(pitch)) {
        let (oy, ox) = (pixel / geometry.out_w, pixel % geometry.out_w);
        let (top, left) = (oy * geometry.stride[0], ox * geometry.stride[1]);
        let from = |y: usize, x: usize| (y * geometry.in_w + x) * geometry.in_c + group * cin;
        let rows = at(top, 0, 0, geometry.in_h).zip(at(top, 0, kh - 1, geometry.in_h));
        let sides = at(left, 1, 0, geometry.in_w).zip(at(left, 1, kw - 1, geometry.in_w));
        if let (Some((first, _)), Some((side, _)), true) = (rows, sides, joined) {
            for ky in 0..kh {
                let from = from(first + ky * geometry.dilation[0], side);
                copy(&input[from..], &mut columns[column + ky * kw * cin..], kw * cin);
            }
            continue;
        }
        columns[column..column + pitch].fill(0);
        for ky in 0..kh {
            let Some(y) = at(top, 0, ky, geometry.in_h) else { continue };
            for kx in 0..kw {
                let Some(x) = at(left, 1, kx, geometry.in_w) else { continue };
                let to = column + (ky * kw + kx) * cin;
                columns[to..to + cin].copy_from_slice(&input[from(y, x)..][..cin]);
            }
        }
    }
}

/// Copies `len` elements. A short row takes along what lies behind it: the next row overwrites that, or the next pixel, or it
/// meets weights of zero.
#[inline(always)]
fn copy(from: &[i8], to: &mut [i8], len: usize) {
    if len <= SHORT
        && let (Some(from), Some(to)) = (from.first_chunk::<SHORT>(), to.first_chunk_mut::<SHORT>())
    {
        *to = *from;
    } else {
        to[..len].copy_from_slice(&from[..len]);
    }
}
