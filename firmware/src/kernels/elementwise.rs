//! Element-wise layers over whole slices.

use shiftwise_core::cpu::Operand;
use shiftwise_core::model::{Act, AddOp};

use super::finish::{Clamp, Finish};
use super::unit::Unit;

/// Elements whose sums are kept at once.
const SUMS: usize = 32;
/// Left shifts below this are powers of two that [`Unit::add`] takes, even doubled.
const SHIFT: u8 = 14;

/// Element-wise sum.
pub(super) fn add<U: Unit>(op: &AddOp<'_>, operands: &[Operand<'_>], output: &mut [u8]) {
    // Without a shift at the end, twice the sum is halved: the same, and a clamp can do it.
    let (act, shift, twice) = match (op.act, op.shift_write) {
        (Act::ReluMax(n), 0) => (Act::ReluMax(n.saturating_mul(2)), 1, 1),
        (act, 0) => (act, 1, 1),
        (act, shift) => (act, shift, 0),
    };
    if let (&[a, b], &[left @ ..SHIFT, right @ ..SHIFT], Finish::Clamp(clamp @ Clamp { leak: false, .. })) =
        (operands, op.shift_read, Finish::new(act, shift, 0))
    {
        return U::add([a, b], [1 << (left + twice), 1 << (right + twice)], clamp, output);
    }
    let finish = Finish::new(op.act, op.shift_write, 0);
    for (block, out) in output.chunks_mut(SUMS).enumerate() {
        let mut sums = [0i32; SUMS];
        for (x, shift) in operands.iter().zip(op.shift_read) {
            let x = x.map_or(&*out, |x| x.get(block * SUMS..).unwrap_or(&[]));
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += i32::from(*x as i8) << shift);
        }
        out.iter_mut().zip(sums).for_each(|(y, sum)| *y = finish.of(sum, 0) as u8);
    }
}

/// Every element activated and shifted.
pub(super) fn requantize(act: Act, shift: i8, input: Operand<'_>, output: &mut [u8]) {
    let finish = Finish::new(act, shift, 0);
    let f = |x: u8| finish.of((x as i8).into(), 0) as u8;
    match input {
        Some(input) => output.iter_mut().zip(input).for_each(|(y, x)| *y = f(*x)),
        None => output.iter_mut().for_each(|y| *y = f(*y)),
    }
}
