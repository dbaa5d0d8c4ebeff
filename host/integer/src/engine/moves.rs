//! Ops that move integers, with a new position at most.

use crate::engine::finish::Finish;
use crate::graph::{IntAct, Kind};
use shiftwise_tensor::kernel::{Lanes, on_lanes};

/// Operands (integers, shape, right shift) behind each other along `axis` of the result's shape.
pub(super) fn concat(operands: &[(&[i8], &[usize], i32)], axis: usize, out: &[usize], y: &mut [i8]) {
    let outer: usize = out[..axis.min(out.len())].iter().product();
    let mut rest = y;
    for o in 0..outer {
        for (x, shape, shift) in operands {
            let n: usize = shape[axis.min(shape.len())..].iter().product();
            let (part, others) = rest.split_at_mut(n);
            moved(&x[o * n..(o + 1) * n], *shift, part);
            rest = others;
        }
    }
}

/// Integers of one position as those of another.
fn moved(x: &[i8], shift: i32, y: &mut [i8]) {
    struct Moved<'a>(&'a [i8], Finish, &'a mut [i8]);
    impl Lanes for Moved<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            self.1.each(1 << 8, self.0.iter().map(|x| i32::from(*x)), self.2);
        }
    }
    if shift == 0 {
        y.copy_from_slice(x);
    } else {
        on_lanes(Moved(x, Finish::new(shift, IntAct::None, Kind::Float), y));
    }
}

/// Each pixel of `[h, w, c]` `factor[0]` × `factor[1]` times.
pub(super) fn upsample(x: &[i8], [_, w, c]: [usize; 3], factor: [usize; 2], shift: i32, y: &mut [i8]) {
    let (row, wide) = ((w * c).max(1), (w * c * factor[1]).max(1));
    for (x, y) in x.chunks_exact(row).zip(y.chunks_exact_mut(wide * factor[0].max(1))) {
        let (first, others) = y.split_at_mut(wide);
        for (x, y) in x.chunks_exact(c.max(1)).zip(first.chunks_exact_mut((c * factor[1]).max(1))) {
            let (pixel, copies) = y.split_at_mut(c);
            moved(x, shift, pixel);
            copies.chunks_exact_mut(c.max(1)).for_each(|copy| copy.copy_from_slice(pixel));
        }
        others.chunks_exact_mut(wide).for_each(|copy| copy.copy_from_slice(first));
    }
}

/// `[h, w, c]` with zeros around it, as a map of shape `out`.
pub(super) fn pad(x: &[i8], [_, w, c]: [usize; 3], before: [usize; 2], out: [usize; 3], y: &mut [i8]) {
    let width = out[1];
    y.fill(0);
    for (row, from) in x.chunks_exact((w * c).max(1)).enumerate() {
        let at = ((row + before[0]) * width + before[1]) * c;
        y[at..at + from.len()].copy_from_slice(from);
    }
}

/// Axis i of the result is axis `dims[i]` of the operand.
pub(super) fn permute<T: Copy>(x: &[T], shape: &[usize], dims: &[usize], y: &mut [T]) {
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    let axes: Vec<(usize, usize)> = dims.iter().map(|d| (shape[*d], stride(*d))).collect();
    let mut index = vec![0; axes.len()];
    let mut at = 0;
    for y in y {
        *y = x[at];
        for (i, (size, stride)) in index.iter_mut().zip(&axes).rev() {
            *i += 1;
            at += stride;
            if *i < *size {
                break;
            }
            at -= stride * size;
            *i = 0;
        }
    }
}
