//! Gradients of convolutions: of the input (dX), of the kernel (dW) and of the bias (db).
//!
//! A dense layer is the 1×1 convolution of its vectors in a row; a transposed convolution is the gradient of a
//! convolution with respect to its input, so that its own dX is [`conv_f32`](crate::kernel::conv_f32) and its own dW is
//! [`conv_weights`] with input and output exchanged.
//!
//! **Definition.** An element of dX is one chain of fused multiply-adds that starts at `+0.0` and runs over
//! `(ky, kx, cout)`, taps from the last to the first (so that the pixels of the output's gradient ascend), channels
//! ascending; taps whose output does not exist are skipped. An element of dW is the sum, in order, of one chain of fused
//! multiply-adds per *block*, each from `+0.0` over the block's output pixels in row-major order; taps in the padding
//! multiply zeros. An element of db is the sum, in order, of one plain sum per block. Images follow one another, and no
//! block spans two. A block is as many whole rows as have at most 256 pixels, or 256 pixels of a longer row: short chains
//! lose less than one chain over a whole batch would. The bytes depend neither on the path nor on the way in which
//! callers cut the work: images or pixels for dX, channels of the input for dW.
//!
//! **Method.** dX is a forward convolution for each of the `stride_y · stride_x` phases of the input, with the taps that
//! meet it, turned round and transposed. dW is a product of matrices over pixels: the image is laid out once by channels,
//! padded and cut by the phases of the stride, so that every tap of every channel reads one row of output pixels as one
//! stretch of memory; the gradient of the output is packed into panels of 16 channels; the tiles are those of the forward
//! convolution.

mod depthwise;
mod input;
#[cfg(test)]
mod tests;
mod weights;

pub use depthwise::depthwise_weights;
pub use input::InputGradient;
pub use weights::conv_weights;

use core::ops::Range;

use crate::kernel::ConvGeometry;

/// Output pixels of a block.
const BLOCK: usize = 256;

/// A stretch of neighbouring pixels of one row of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    row: usize,
    columns: Range<usize>,
}

/// The output's pixels in blocks of stretches, row-major.
fn blocks(rows: usize, columns: usize) -> Vec<Vec<Stretch>> {
    if columns == 0 {
        return Vec::new();
    }
    if columns > BLOCK {
        let cut = |row| {
            (0..columns).step_by(BLOCK).map(move |from| vec![Stretch { row, columns: from..columns.min(from + BLOCK) }])
        };
        return (0..rows).flat_map(cut).collect();
    }
    let together = BLOCK / columns;
    let block =
        |from: usize| (from..rows.min(from + together)).map(|row| Stretch { row, columns: 0..columns }).collect();
    (0..rows).step_by(together).map(block).collect()
}

/// The geometry with all pixels in one row where that changes nothing: a kernel of one tap that meets every pixel.
fn flattened(g: &ConvGeometry) -> ConvGeometry {
    let plain = g.kernel == [1, 1] && g.stride == [1, 1] && g.pad_before == [0, 0];
    if !plain || [g.in_h, g.in_w] != [g.out_h, g.out_w] {
        return g.clone();
    }
    let pixels = g.pixels();
    ConvGeometry { in_h: 1, in_w: pixels, out_h: 1, out_w: pixels, ..g.clone() }
}

/// Adds the gradient of a bias to `db[channels]`: sums over the pixels of `dy`, which are those of one image.
///
/// Each block of 256 pixels is summed by itself, in order.
///
/// # Panics
/// If `dy` is no whole number of pixels.
pub fn bias(dy: &[f32], db: &mut [f32]) {
    let channels = db.len();
    if channels == 0 {
        return;
    }
    assert!(dy.len().is_multiple_of(channels), "gradient length");
    let mut sums = vec![0.0f32; channels];
    for block in dy.chunks(BLOCK * channels) {
        sums.fill(0.0);
        for pixel in block.chunks_exact(channels) {
            sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += v);
        }
        db.iter_mut().zip(&sums).for_each(|(total, sum)| *total += sum);
    }
}
