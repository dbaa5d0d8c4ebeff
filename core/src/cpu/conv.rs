//! Convolutions.

use super::operand::{finish, get_i32};
use crate::model::ConvOp;
use crate::shape::positive;

/// acc + Σ a·b.
#[inline(always)]
fn dot(acc: i32, a: &[u8], b: &[u8]) -> i32 {
    a.iter().zip(b).fold(acc, |s, (a, b)| s.wrapping_add(i32::from(*a as i8) * i32::from(*b as i8)))
}

/// The output of channel `o` for a sum of products.
#[inline(always)]
fn output_of(op: &ConvOp, constants: &[u8], o: usize, sum: i32) -> u8 {
    let bias = op.bias.map_or(0, |b| get_i32(constants, b as usize + 4 * o));
    finish(sum.wrapping_shl(op.fine.into()).wrapping_add(bias), op.act, op.shift_cut) as u8
}

/// Convolution: `out[y][x][o] = finish(2^fine · Σ in · kernel + bias)`, see [`finish`].
///
/// Shapes: input `[h, w, ic]`, kernel `[oc][kh][kw][ic / groups]`, bias i32 `[oc]`, output `[oh, ow, oc]`; padding is
/// zero.
pub fn conv(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, ic] = op.in_dims.map(usize::from);
    // A checked op has no zero here. Saying so once keeps every split below from panicking.
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let [kh, kw] = op.window.kernel.map(usize::from);
    let [dy, dx] = op.window.dilation.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    let groups = positive(op.groups.into());
    let (share, group) = (ic / groups, positive(oc / groups));
    let ow = positive(ow);
    for (pixel, out) in output.chunks_exact_mut(positive(oc).get()).enumerate() {
        let (y, x) = (pixel / ow, pixel % ow);
        let (ky0, ky1, iy0) = op.window.taps(0, y, h);
        let (kx0, kx1, ix0) = op.window.taps(1, x, w);
        for (o, out) in out.iter_mut().enumerate() {
            let mut acc = 0;
            for ky in ky0..ky1 {
                let row = (iy0 + (ky - ky0) * dy) * w;
                for kx in kx0..kx1 {
                    let from = (row + ix0 + (kx - kx0) * dx) * ic + o / group * share;
                    let at = ((o * kh + ky) * kw + kx) * share;
                    if let (Some(a), Some(b)) = (input.get(from..from + share), kernel.get(at..at + share)) {
                        acc = dot(acc, a, b);
                    }
                }
            }
            *out = output_of(op, constants, o, acc);
        }
    }
}

/// Depthwise convolution: output channel o sees input channel o / m; kernel `[kh][kw][oc]`.
pub fn depthwise(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, c] = op.in_dims.map(|d| usize::from(d).max(1));
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let per_input = positive(oc / positive(c));
    let ow = positive(ow);
    let kw = usize::from(op.window.kernel[1]);
    let [dy, dx] = op.window.dilation.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    for (pixel, out) in output.chunks_exact_mut(positive(oc).get()).enumerate() {
        let (ky0, ky1, iy0) = op.window.taps(0, pixel / ow, h);
        let (kx0, kx1, ix0) = op.window.taps(1, pixel % ow, w);
        for (ch, out) in out.iter_mut().enumerate() {
            let mut acc = 0i32;
            for ky in ky0..ky1 {
                for kx in kx0..kx1 {
                    let from = ((iy0 + (ky - ky0) * dy) * w + ix0 + (kx - kx0) * dx) * c + ch / per_input;
                    let a = input.get(from).copied().unwrap_or(0) as i8;
                    let b = kernel.get((ky * kw + kx) * oc + ch).copied().unwrap_or(0) as i8;
                    acc = acc.wrapping_add(i32::from(a) * i32::from(b));
                }
            }
            *out = output_of(op, constants, ch, acc);
        }
    }
}

/// Transposed convolution; shapes as in [`conv`], one group. Each output gathers the taps that fall on an input pixel.
pub fn transposed(op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
    let [h, w, ic] = op.in_dims.map(usize::from);
    let [_, ow, oc] = op.out_dims.map(|d| usize::from(d).max(1));
    let ow = positive(ow);
    let [kh, kw] = op.window.kernel.map(usize::from);
    let kernel = constants.get(op.kernel as usize..).unwrap_or(&[]);
    let hit = |axis: usize, out: usize, tap: usize, size: usize| {
        let stride = positive(op.window.stride[axis].into());
        let full = out + usize::from(op.window.pad_before[axis]);
        let at = full.checked_sub(tap * usize::from(op.window.dilation[axis]))?;
        (at % stride == 0 && at / stride < size).then_some(at / stride)
    };
    for (pixel, out) in output.chunks_exact_mut(positive(oc).get()).enumerate() {
        for (o, out) in out.iter_mut().enumerate() {
            let mut acc = 0;
            for ky in 0..kh {
                let Some(iy) = hit(0, pixel / ow, ky, h) else { continue };
                for kx in 0..kw {
                    let Some(ix) = hit(1, pixel % ow, kx, w) else { continue };
                    let (from, at) = ((iy * w + ix) * ic, ((o * kh + ky) * kw + kx) * ic);
                    if let (Some(a), Some(b)) = (input.get(from..from + ic), kernel.get(at..at + ic)) {
                        acc = dot(acc, a, b);
                    }
                }
            }
            *out = output_of(op, constants, o, acc);
        }
    }
}
