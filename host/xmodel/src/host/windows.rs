//! Layers with windows and products on the CPU, for those that are beyond a DPU's limits.
//!
//! Sums are taken in f64, where those of 8-bit integers are exact. Results within a quantizer's range have at most 24 bits, so
//! they are exact as f32 too: what is quantized behind them is what the integer engine computes.

use shiftwise_graph::ops::pool::average_factor;

use super::one;
use crate::XOp;
use crate::value::Held;
use crate::window::window;

/// Multiplications that one operation may take.
const MOST_WORK: usize = 1 << 30;

/// An image `[1, h, w, c]`.
fn image(shape: &[usize]) -> Result<[usize; 3], String> {
    match *shape {
        [1, h, w, c] if h * w * c > 0 => Ok([h, w, c]),
        _ => Err(format!("a shape of {shape:?}; an image [1, h, w, c] is expected")),
    }
}

fn check_work(factors: &[usize]) -> Result<(), String> {
    let work = factors.iter().try_fold(1usize, |n, f| n.checked_mul(*f));
    if work.is_some_and(|n| n <= MOST_WORK) { Ok(()) } else { Err("it takes too many multiplications".into()) }
}

/// The operands of a convolution: data, weights, bias.
fn parameters<'a>(x: &[&'a Held]) -> Result<(&'a Held, &'a Held, Option<Vec<f32>>), String> {
    match x {
        [x, w] => Ok((x, w, None)),
        [x, w, b] => Ok((x, w, Some(b.floats()))),
        _ => Err(format!("it has {} operands", x.len())),
    }
}

/// Convolutions, dense in groups (`[oc, kh, kw, ic]`) or depthwise (`[1, kh, kw, c]`).
pub(super) fn convolution(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let (x, w, bias) = parameters(x)?;
    let ([h, wide, ic], [oh, ow, oc]) = (image(&x.shape)?, image(&op.tensor.shape)?);
    let over = window(op, [h, wide], [oh, ow], false)?;
    let [kh, kw] = over.kernel.map(usize::from);
    let depthwise = op.kind == "depthwise-conv2d";
    let groups = usize::try_from(op.attrs.int("group").unwrap_or(1)).unwrap_or(0);
    if !depthwise && (groups == 0 || ic % groups != 0 || oc % groups != 0) {
        return Err(format!("{groups} groups don't divide its channels"));
    }
    let per = if depthwise { 1 } else { ic / groups };
    let want = if depthwise { [1, kh, kw, ic] } else { [oc, kh, kw, per] };
    if w.shape != want || (depthwise && oc != ic) || bias.as_ref().is_some_and(|b| b.len() != oc) {
        return Err(format!("weights of shape {:?}, {want:?} is expected", w.shape));
    }
    check_work(&[oh, ow, oc, kh, kw, per])?;
    let (data, weights) = (x.floats(), w.floats());
    let mut y = Vec::with_capacity(oh * ow * oc);
    for (oy, ox, o) in places([oh, ow, oc]) {
        let first = if depthwise { o } else { o / (oc / groups) * per };
        let mut sum = bias.as_ref().map_or(0.0, |b| f64::from(b[o]));
        for (ky, kx, iy, ix) in taps(&over, [oy, ox], [h, wide]) {
            for i in 0..per {
                let value = data[(iy * wide + ix) * ic + first + i];
                let at = if depthwise { (ky * kw + kx) * ic + o } else { ((o * kh + ky) * kw + kx) * per + i };
                sum += f64::from(value) * f64::from(weights[at]);
            }
        }
        y.push(sum as f32);
    }
    Ok(Held::float(&op.tensor.shape, y))
}

/// Transposed convolutions: each input is spread over the window, whose taps the file counts from the far end (DEC).
pub(super) fn transposed(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let (x, w, bias) = parameters(x)?;
    let ([h, wide, ic], [oh, ow, oc]) = (image(&x.shape)?, image(&op.tensor.shape)?);
    let over = window(op, [h, wide], [oh, ow], true)?;
    let [kh, kw] = over.kernel.map(usize::from);
    if w.shape != [oc, kh, kw, ic] || bias.as_ref().is_some_and(|b| b.len() != oc) {
        return Err(format!("weights of shape {:?}, {:?} is expected", w.shape, [oc, kh, kw, ic]));
    }
    check_work(&[h, wide, ic, kh, kw, oc])?;
    let (data, weights) = (x.floats(), w.floats());
    let mut y: Vec<f64> =
        (0..oh * ow).flat_map(|_| (0..oc).map(|o| bias.as_ref().map_or(0.0, |b| b[o].into()))).collect();
    let at = |axis: usize, i: usize, k: usize| {
        let [stride, dilation, pad] = [over.stride, over.dilation, over.pad_before].map(|pair| usize::from(pair[axis]));
        (i * stride + k * dilation).checked_sub(pad)
    };
    for (iy, ix, i) in places([h, wide, ic]) {
        let value = f64::from(data[(iy * wide + ix) * ic + i]);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (Some(oy), Some(ox)) = (at(0, iy, ky), at(1, ix, kx)) else { continue };
            if oy < oh && ox < ow {
                let tap = (kh - 1 - ky) * kw + kw - 1 - kx;
                for o in 0..oc {
                    y[(oy * ow + ox) * oc + o] += value * f64::from(weights[(o * kh * kw + tap) * ic + i]);
                }
            }
        }
    }
    Ok(Held::float(&op.tensor.shape, y.into_iter().map(|v| v as f32).collect()))
}

/// A product with a matrix of constants.
pub(super) fn product(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let (x, w, bias) = parameters(x)?;
    let said = |name: &str| op.attrs.int(name).unwrap_or(0) != 0;
    let by_outputs = op.kind == "inner-product" || said("transpose_b");
    let (&[1, n], &[1, oc]) = (&x.shape[..], &op.tensor.shape[..]) else {
        return Err("a product [1, n] × [n, m] is expected".into());
    };
    let want = if by_outputs { [oc, n] } else { [n, oc] };
    if w.shape != want || said("transpose_a") || bias.as_ref().is_some_and(|b| b.len() != oc) {
        return Err(format!("weights of shape {:?}, {want:?} is expected", w.shape));
    }
    let (data, weights) = (x.floats(), w.floats());
    let at = |i: usize, o: usize| if by_outputs { o * n + i } else { i * oc + o };
    let sum = |o: usize| {
        let start = bias.as_ref().map_or(0.0, |b| f64::from(b[o]));
        (0..n).fold(start, |sum, i| sum + f64::from(data[i]) * f64::from(weights[at(i, o)])) as f32
    };
    Ok(Held::float(&op.tensor.shape, (0..oc).map(sum).collect()))
}

/// The largest of each window, or the DPU's average: the sum times m / 2^n, with zeros for padding.
pub(super) fn pool(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let held = one(x)?;
    let ([h, w, c], [oh, ow, _]) = (image(&held.shape)?, image(&op.tensor.shape)?);
    let over = window(op, [h, w], [oh, ow], false)?;
    let [kh, kw] = over.kernel.map(usize::from);
    let average = op.kind == "avgpool2d";
    let factor = match average_factor(kh, kw) {
        Some((m, n)) => f64::from(m) / f64::from(n).exp2(),
        None => 1.0 / (kh * kw) as f64,
    };
    check_work(&[oh, ow, c, kh, kw])?;
    let data = held.floats();
    let mut y = Vec::with_capacity(oh * ow * c);
    for (oy, ox, k) in places([oh, ow, c]) {
        let values = taps(&over, [oy, ox], [h, w]).map(|(_, _, iy, ix)| data[(iy * w + ix) * c + k]);
        y.push(if average {
            (values.map(f64::from).sum::<f64>() * factor) as f32
        } else {
            values.fold(f32::NEG_INFINITY, f32::max)
        });
    }
    Ok(Held::float(&op.tensor.shape, y))
}

/// Repeated pixels.
pub(super) fn resize(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let held = one(x)?;
    let ([h, w, c], [oh, ow, oc]) = (image(&held.shape)?, image(&op.tensor.shape)?);
    if op.attrs.text("mode") != Some("NEAREST") || oh % h != 0 || ow % w != 0 || oc != c {
        return Err(format!("resizing {:?} to {:?} is not repeating its pixels", held.shape, op.tensor.shape));
    }
    let (fy, fx) = (oh / h, ow / w);
    let value = held.value.select(places([oh, ow, c]).map(|(y, x, k)| (y / fy * w + x / fx) * c + k));
    Ok(Held { value, kind: held.kind, shape: op.tensor.shape.clone() })
}

/// Zeros around an image.
pub(super) fn pad(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let held = one(x)?;
    let ([h, w, c], [oh, ow, oc]) = (image(&held.shape)?, image(&op.tensor.shape)?);
    let zeros = op.attrs.text("mode").is_none_or(|mode| mode == "CONSTANT");
    let all: Option<Vec<usize>> =
        op.attrs.ints("paddings").and_then(|p| p.iter().map(|n| usize::try_from(*n).ok()).collect());
    let Some(&[0, 0, top, bottom, left, right, 0, 0]) = all.as_deref().filter(|_| zeros) else {
        return Err("zeros around rows and columns are expected".into());
    };
    let grown = |n: usize, a: usize, b: usize| n.checked_add(a)?.checked_add(b);
    if (grown(h, top, bottom), grown(w, left, right), oc) != (Some(oh), Some(ow), c) {
        return Err(format!("{:?} with {all:?} is not {:?}", held.shape, op.tensor.shape));
    }
    let data = held.floats();
    let inside = |(y, x, k): (usize, usize, usize)| {
        let (y, x) = (y.checked_sub(top).filter(|y| *y < h)?, x.checked_sub(left).filter(|x| *x < w)?);
        data.get((y * w + x) * c + k).copied()
    };
    Ok(Held::float(&op.tensor.shape, places([oh, ow, c]).map(|at| inside(at).unwrap_or(0.0)).collect()))
}

/// Rows, columns and channels in order.
fn places([h, w, c]: [usize; 3]) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..h).flat_map(move |y| (0..w).flat_map(move |x| (0..c).map(move |k| (y, x, k))))
}

/// The taps of a window that fall on an image: row and column of the tap, row and column of the pixel.
fn taps(
    over: &shiftwise_core::shape::Window,
    [oy, ox]: [usize; 2],
    [h, w]: [usize; 2],
) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    let ((top, bottom, y), (left, right, x)) = (over.taps(0, oy, h), over.taps(1, ox, w));
    let [dy, dx] = over.dilation.map(usize::from);
    let columns = move |ky: usize| (left..right).map(move |kx| (ky, kx, y + (ky - top) * dy, x + (kx - left) * dx));
    (top..bottom).flat_map(columns)
}
