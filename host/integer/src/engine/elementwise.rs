//! Element-wise ops, with numpy's broadcasting.

use crate::engine::finish::Finish;
use shiftwise_core::arith::requantize_i8;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shift::sigmoid_position;
use shiftwise_tensor::kernel::{Lanes, on_lanes};

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

/// Two operands with their shapes, which repeat to the result's.
type Repeated<'a> = (&'a [i8], &'a [usize]);

/// `f` of each pair of elements under the shape `out`.
pub(super) fn zip(a: Repeated<'_>, b: Repeated<'_>, out: &[usize], y: &mut [i8], f: impl Fn(i8, i8) -> i8) {
    let (sa, sb) = (strides(a.1, out), strides(b.1, out));
    let n = out.last().copied().unwrap_or(1);
    let [step_a, step_b] = [&sa, &sb].map(|s| s.last().copied().unwrap_or(0));
    let mut y = y.chunks_exact_mut(n.max(1));
    rows(out, [&sa, &sb], |[ra, rb]| {
        let y = y.next().unwrap_or_default();
        y.iter_mut().enumerate().for_each(|(i, y)| *y = f(a.0[ra + i * step_a], b.0[rb + i * step_b]));
    });
}

/// The product of two operands.
pub(super) fn multiply(a: Repeated<'_>, b: Repeated<'_>, out: &[usize], finish: Finish, y: &mut [i8]) {
    if a.1 == b.1 {
        return on_lanes(Product { a: a.0, b: b.0, finish, y });
    }
    let (sa, sb) = (strides(a.1, out), strides(b.1, out));
    let n = out.last().copied().unwrap_or(1);
    let len = |s: &[usize]| if s.last().is_none_or(|s| *s == 0) { 1 } else { n };
    let mut y = y.chunks_exact_mut(n.max(1));
    rows(out, [&sa, &sb], |[ra, rb]| {
        let y = y.next().unwrap_or_default();
        on_lanes(Product { a: &a.0[ra..][..len(&sa)], b: &b.0[rb..][..len(&sb)], finish, y });
    });
}

/// Products of two rows; one that has one element repeats it.
struct Product<'a> {
    a: &'a [i8],
    b: &'a [i8],
    finish: Finish,
    y: &'a mut [i8],
}

impl Lanes for Product<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { a, b, finish, y } = self;
        let bound = 128 * 128;
        match (a, b) {
            ([a], b) | (b, [a]) => finish.each(bound, b.iter().map(|b| i32::from(*a) * i32::from(*b)), y),
            (a, b) => finish.each(bound, a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)), y),
        }
    }
}

/// The sum of operands, each shifted left by as many bits as stand beside it.
pub(super) fn add(operands: &[(&[i8], u32)], finish: Finish, y: &mut [i8]) {
    let bound = operands.iter().fold(0i64, |sum, (_, shift)| sum + (128 << (*shift).min(48)));
    if bound > i32::MAX.into() {
        for (i, y) in y.iter_mut().enumerate() {
            let term = |(x, shift): &(&[i8], u32)| i64::from(x.get(i).copied().unwrap_or(0)) << (*shift).min(48);
            *y = finish.wide(operands.iter().map(term).sum());
        }
        return;
    }
    on_lanes(Sum { operands, bound, finish, y });
}

/// Sums whose magnitudes don't exceed `bound`, which is within 32 bits.
struct Sum<'a> {
    operands: &'a [(&'a [i8], u32)],
    bound: i64,
    finish: Finish,
    y: &'a mut [i8],
}

impl Lanes for Sum<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self { operands, bound, finish, y } = self;
        // Exact: no sum exceeds `bound`.
        let term = |x: i8, shift: u32| i32::from(x).wrapping_mul(1i32.wrapping_shl(shift));
        match operands {
            [(x, 0)] => finish.each(bound, x.iter().map(|x| i32::from(*x)), y),
            [(a, s), (b, t)] => {
                finish.each(bound, a.iter().zip(*b).map(|(a, b)| term(*a, *s).wrapping_add(term(*b, *t))), y);
            }
            _ => {
                // Few enough sums at a time to stay in the first-level cache.
                let mut sums = [0i32; 1024];
                for (part, y) in y.chunks_mut(sums.len()).enumerate() {
                    let (from, sums) = (part * sums.len(), &mut sums[..y.len()]);
                    sums.fill(0);
                    for (x, shift) in operands {
                        let x = x.get(from..).unwrap_or_default();
                        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = sum.wrapping_add(term(*x, *shift)));
                    }
                    finish.each(bound, sums.iter().copied(), y);
                }
            }
        }
    }
}

/// The DPU's hard sigmoid of integers of position `pos`.
pub(super) fn hard_sigmoid(x: &[i8], pos: FixPos, shift: i32, y: &mut [i8]) {
    let one = 1i32 << sigmoid_position(pos);
    let of = |x: i32| requantize_i8((x + 3 * one).clamp(0, 6 * one) * 2731, shift);
    let table: [i8; 256] = std::array::from_fn(|i| of(i as i32 - 128));
    y.iter_mut().zip(x).for_each(|(y, x)| *y = table[usize::from(*x as u8 ^ 128)]);
}
