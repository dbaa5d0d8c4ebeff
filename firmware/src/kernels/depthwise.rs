//! Depthwise convolutions in blocks of four channels.

use shiftwise_core::model::ConvOp;
use shiftwise_core::shape::Window;
use shiftwise_core::shape::positive;

use super::finish::{Biases, Finish};
use super::unit::{Blocks, CHANNELS, Taps, Unit, inside};

/// Blocks of channels for which the weights are prepared at once, if there is scratch memory for them.
const BLOCKS: usize = 16;

fn taps(op: &ConvOp) -> usize {
    usize::from(op.window.kernel[0]) * usize::from(op.window.kernel[1])
}

/// Blocks of channels: none where there are fewer, or where an input channel has several outputs.
fn blocks(op: &ConvOp) -> usize {
    let channels = usize::from(op.out_dims[2]);
    if op.in_dims[2] == op.out_dims[2] { channels / CHANNELS } else { 0 }
}

/// The layer with rows for columns, if there is but one column: the same bytes, and the pixels of a row go together.
fn on_its_side(op: &ConvOp) -> ConvOp {
    let turn = |[a, b]: [u16; 2]| [b, a];
    let ([h, w, c], [oh, ow, oc], window) = (op.in_dims, op.out_dims, op.window);
    if w != 1 || ow != 1 || window.kernel[1] != 1 {
        return *op;
    }
    ConvOp {
        in_dims: [w, h, c],
        out_dims: [ow, oh, oc],
        window: Window {
            kernel: turn(window.kernel),
            stride: turn(window.stride),
            dilation: turn(window.dilation),
            pad_before: turn(window.pad_before),
            pad_after: turn(window.pad_after),
        },
        ..*op
    }
}

/// Computes the layer; `None` if `scratch` does not hold the weights of four channels.
pub(super) fn depthwise<U: Unit>(
    op: &ConvOp,
    constants: &[u8],
    input: &[u8],
    output: &mut [u8],
    scratch: &mut [u8],
) -> Option<()> {
    let op = &on_its_side(op);
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [kh, kw] = op.window.kernel.map(usize::from);
    let [dy, dx] = op.window.dilation.map(usize::from);
    let kernel = constants.get(op.kernel as usize..)?.get(..kh * kw * oc)?;
    let (biases, finish) = (Biases::of(op, constants), Finish::of_conv(op));
    let blocks = blocks(op);
    let together = (1..=blocks.min(BLOCKS)).rev().find(|n| U::depthwise_bytes(taps(op), *n) <= scratch.len());
    let words = U::columns(scratch);
    let inside = inside(op);
    let mut first = 0;
    while blocks > 0 && first < oc {
        let mut together = together?.min((oc - first) / CHANNELS);
        if together == 0 {
            // The last block takes up channels of the one before: they come out the same.
            (first, together) = (oc - CHANNELS, 1);
        }
        let kernel = kernel.get(first..)?;
        U::depthwise_weights(words, kernel, oc, together);
        let blocks =
            Blocks { count: together, kernel, channels: oc, taps: kh * kw, biases: biases.from(first), finish };
        for (y, out) in output.chunks_exact_mut(positive(ow * oc).get()).enumerate() {
            let (ky0, ky1, iy0) = op.window.taps(0, y, h);
            let mut x = 0;
            while x < ow {
                // All pixels inside see the same taps; those at the borders are their own.
                let pixels = if x == inside.start { inside.len().max(1) } else { 1 };
                let (kx0, kx1, ix0) = op.window.taps(1, x, w);
                let taps = Taps {
                    width: kw,
                    tap: ky0 * kw + kx0,
                    rows: ky1 - ky0,
                    columns: kx1 - kx0,
                    from: (iy0 * w + ix0) * c + first,
                    down: dy * w * c,
                    right: dx * c,
                    pixels,
                    stride: usize::from(op.window.stride[1]) * c,
                };
                U::depthwise(words, input, &taps, &blocks, out.get_mut(x * oc + first..)?);
                x += pixels;
            }
        }
        first += together * CHANNELS;
    }
    if blocks > 0 {
        return Some(());
    }
    // One by one.
    let (per_input, wide) = (positive(oc / positive(c)), positive(ow));
    for (pixel, out) in output.chunks_exact_mut(positive(oc).get()).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / wide, h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % wide, w);
        for (channel, out) in out.iter_mut().enumerate() {
            let mut sum = 0i32;
            for ky in ky0..ky1 {
                let mut from = ((iy0 + (ky - ky0) * dy) * w + ix0) * c + channel / per_input;
                let mut at = (ky * kw + kx0) * oc + channel;
                for _ in kx0..kx1 {
                    if let (Some(x), Some(w)) = (input.get(from), kernel.get(at)) {
                        sum = sum.wrapping_add(i32::from(*x as i8) * i32::from(*w as i8));
                    }
                    from += dx * c;
                    at += oc;
                }
            }
            *out = finish.of(sum, biases.get(channel)) as u8;
        }
    }
    Some(())
}
