//! Ops that move integers, with a new position at most.

use shiftwise_core::arith::requantize_i8;

/// Operands (integers, shape, right shift) behind each other along `axis` of the result's shape.
pub(super) fn concat(operands: &[(&[i8], &[usize], i32)], axis: usize, out: &[usize]) -> Vec<i8> {
    let outer: usize = out[..axis.min(out.len())].iter().product();
    let mut y = Vec::with_capacity(out.iter().product());
    for o in 0..outer {
        for (x, shape, shift) in operands {
            let n: usize = shape[axis.min(shape.len())..].iter().product();
            let part = &x[o * n..(o + 1) * n];
            if *shift == 0 {
                y.extend_from_slice(part);
            } else {
                y.extend(part.iter().map(|q| requantize_i8((*q).into(), *shift)));
            }
        }
    }
    y
}

/// Each pixel of `[h, w, c]` `factor[0]` × `factor[1]` times.
pub(super) fn upsample(x: &[i8], [_, w, c]: [usize; 3], factor: [usize; 2], shift: i32) -> Vec<i8> {
    let mut y = Vec::with_capacity(x.len() * factor[0] * factor[1]);
    for row in x.chunks_exact((w * c).max(1)) {
        let start = y.len();
        for pixel in row.chunks_exact(c.max(1)) {
            let at = y.len();
            y.extend(pixel.iter().map(|q| requantize_i8((*q).into(), shift)));
            (1..factor[1]).for_each(|_| y.extend_from_within(at..at + c));
        }
        let end = y.len();
        (1..factor[0]).for_each(|_| y.extend_from_within(start..end));
    }
    y
}

/// `[h, w, c]` with zeros around it, as a map of shape `out`.
pub(super) fn pad(x: &[i8], [_, w, c]: [usize; 3], before: [usize; 2], out: [usize; 3]) -> Vec<i8> {
    let width = out[1];
    let mut y = vec![0; out.iter().product()];
    for (row, from) in x.chunks_exact((w * c).max(1)).enumerate() {
        let at = ((row + before[0]) * width + before[1]) * c;
        y[at..at + from.len()].copy_from_slice(from);
    }
    y
}

/// Axis i of the result is axis `dims[i]` of the operand.
pub(super) fn permute<T: Copy>(x: &[T], shape: &[usize], dims: &[usize]) -> Vec<T> {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let axes: Vec<(usize, usize)> = dims.iter().map(|d| (shape[*d], stride(*d))).collect();
    let mut offsets = vec![0];
    for (size, stride) in axes {
        offsets = offsets.iter().flat_map(|at| (0..size).map(move |i| at + i * stride)).collect();
    }
    offsets.into_iter().map(|at| x[at]).collect()
}
