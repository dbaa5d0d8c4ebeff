//! Element-wise ops, with numpy's broadcasting.

use crate::engine::finish::Finish;
use shiftwise_core::arith::requantize_i8;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shift::sigmoid_position;

/// Elements between neighbours of each dimension of `out` in a tensor of `shape`; 0 where it repeats.
fn strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for (stride, size) in strides.iter_mut().rev().zip(shape.iter().rev()) {
        if *size > 1 {
            *stride = step;
        }
        step *= size;
    }
    strides
}

/// Calls `row` for every row of the last dimension of `out` with the offsets of the row in tensors of these strides.
fn rows<const N: usize>(out: &[usize], strides: [&[usize]; N], mut row: impl FnMut([usize; N])) {
    let outer = &out[..out.len().saturating_sub(1)];
    let mut index = vec![0; outer.len()];
    let mut at = [0; N];
    for _ in 0..outer.iter().product() {
        row(at);
        for axis in (0..outer.len()).rev() {
            index[axis] += 1;
            at.iter_mut().zip(strides).for_each(|(at, s)| *at += s[axis]);
            if index[axis] < outer[axis] {
                break;
            }
            at.iter_mut().zip(strides).for_each(|(at, s)| *at -= s[axis] * outer[axis]);
            index[axis] = 0;
        }
    }
}

/// `f` of each pair of elements under the shape `out`.
pub(super) fn zip(a: (&[i8], &[usize]), b: (&[i8], &[usize]), out: &[usize], f: impl Fn(i8, i8) -> i8) -> Vec<i8> {
    let (sa, sb) = (strides(a.1, out), strides(b.1, out));
    let n = out.last().copied().unwrap_or(1);
    let repeats = |s: &[usize]| s.last().is_none_or(|s| *s == 0);
    let mut y = Vec::with_capacity(out.iter().product());
    rows(out, [&sa, &sb], |[ra, rb]| {
        let (a, b) = (&a.0[ra..], &b.0[rb..]);
        match (repeats(&sa), repeats(&sb)) {
            (false, false) => y.extend(a.iter().zip(&b[..n]).map(|(a, b)| f(*a, *b))),
            (false, true) => y.extend(a[..n].iter().map(|a| f(*a, b[0]))),
            (true, false) => y.extend(b[..n].iter().map(|b| f(a[0], *b))),
            (true, true) => y.extend(std::iter::repeat_n(f(a[0], b[0]), n)),
        }
    });
    y
}

/// The sum of operands, each shifted left by as many bits as stand beside it.
pub(super) fn add(operands: &[(&[i8], u32)], finish: Finish) -> Vec<i8> {
    let len = operands.first().map_or(0, |(x, _)| x.len());
    let mut y = vec![0i8; len];
    let bound = operands.iter().fold(0i64, |sum, (_, shift)| sum + (128 << (*shift).min(48)));
    if bound > i32::MAX.into() {
        let mut sums = vec![0i64; len];
        for (x, shift) in operands {
            sums.iter_mut().zip(*x).for_each(|(sum, q)| *sum += i64::from(*q) << (*shift).min(48));
        }
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y = finish.wide(sum));
        return y;
    }
    // Few enough sums at a time to stay in the first-level cache.
    let mut sums = [0i32; 1024];
    for (part, y) in y.chunks_mut(sums.len()).enumerate() {
        let (from, sums) = (part * sums.len(), &mut sums[..y.len()]);
        sums.fill(0);
        for (x, shift) in operands {
            let factor = 1i32 << shift;
            // Exact: no sum exceeds `bound`.
            sums.iter_mut()
                .zip(x.get(from..).unwrap_or_default())
                .for_each(|(sum, q)| *sum = sum.wrapping_add(i32::from(*q).wrapping_mul(factor)));
        }
        finish.each(bound, sums.iter().copied(), y);
    }
    y
}

/// The DPU's hard sigmoid of integers of position `pos`.
pub(super) fn hard_sigmoid(x: &[i8], pos: FixPos, shift: i32) -> Vec<i8> {
    let one = 1i32 << sigmoid_position(pos);
    let table: Vec<i8> = (-128..=127).map(|x| requantize_i8((x + 3 * one).clamp(0, 6 * one) * 2731, shift)).collect();
    x.iter().map(|x| table[(i32::from(*x) + 128) as usize]).collect()
}
