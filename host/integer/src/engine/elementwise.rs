//! Element-wise ops, with numpy's broadcasting.

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

/// The DPU's hard sigmoid of integers of position `pos`.
pub(super) fn hard_sigmoid(x: &[i8], pos: FixPos, shift: i32) -> Vec<i8> {
    let one = 1i32 << sigmoid_position(pos);
    let table: Vec<i8> = (-128..=127).map(|x| requantize_i8((x + 3 * one).clamp(0, 6 * one) * 2731, shift)).collect();
    x.iter().map(|x| table[(i32::from(*x) + 128) as usize]).collect()
}
