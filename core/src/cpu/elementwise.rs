//! Element-wise layers. Where an operand lies in the output's place, it is overwritten element by element.

use super::operand::{Operand, finish, walk};
use crate::arith::requantize_i8;
use crate::memory::Memory;
use crate::model::{Act, AddOp, Deployable, MultiplyOp, PReluOp, TensorId};
use crate::shift::sigmoid_position;

/// Element-wise sum: operands shifted left to the finest position, summed, activated, rounded once.
pub fn add(op: &AddOp<'_>, operands: &[Operand<'_>], output: &mut [u8]) {
    // One element at a time, reading before writing: operands may be in the output's place.
    for (i, y) in output.iter_mut().enumerate() {
        let mut sum = 0i32;
        for (x, shift) in operands.iter().zip(op.shift_read) {
            let x = x.map_or(*y, |x| x.get(i).copied().unwrap_or(0));
            sum += i32::from(x as i8) << shift;
        }
        *y = finish(sum, op.act, op.shift_write) as u8;
    }
}

/// Every element activated, shifted right, rounded half up, saturated.
pub fn requantize_all(act: Act, shift: i8, input: Operand<'_>, output: &mut [u8]) {
    let f = |x: u8| finish((x as i8).into(), act, shift) as u8;
    match input {
        Some(input) => input.iter().zip(output).for_each(|(x, y)| *y = f(*x)),
        None => output.iter_mut().for_each(|y| *y = f(*y)),
    }
}

/// Element-wise product, activated, rounded once.
pub(super) fn multiply(model: &Deployable<'_>, op: &MultiplyOp, memory: &mut Memory<'_>) -> Option<()> {
    let [a, b] = [model.tensor(op.inputs[0])?, model.tensor(op.inputs[1])?];
    let out = model.tensor(op.output)?;
    let mut complete = Some(());
    walk(out.shape.aligned(), [a.shape.strides(), b.shape.strides(), out.shape.strides()], |[i, j, o]| {
        let element = |t: &crate::model::TensorDesc<'_>, i: usize| {
            let [x] = memory.read(t.place.region, t.place.offset as usize + i, 1)? else { return None };
            Some(i32::from(*x as i8))
        };
        let y = element(&a, i).zip(element(&b, j)).map(|(x, y)| finish(x * y, op.act, op.shift));
        let to = memory.write(out.place.region, out.place.offset as usize + o, 1).and_then(<[u8]>::first_mut);
        match (y, to) {
            (Some(y), Some(to)) => *to = y as u8,
            _ => complete = None,
        }
    });
    complete
}

/// One function of each element.
pub(super) fn map(
    model: &Deployable<'_>,
    input: TensorId,
    output: TensorId,
    memory: &mut Memory<'_>,
    f: impl Fn(i8) -> i8,
) -> Option<()> {
    let (from, to) = (model.tensor(input)?, model.tensor(output)?);
    if from.place == to.place {
        memory.tensor_mut(&to)?.iter_mut().for_each(|x| *x = f(*x as i8) as u8);
        return Some(());
    }
    let (x, y) = memory.pair(&from, &to)?;
    x.iter().zip(y).for_each(|(x, y)| *y = f(*x as i8) as u8);
    Some(())
}

/// clamp(x + 3·2^p, 0, 6·2^p) · 2731, shifted right: (x + 3) / 6 with 1/6 ≈ 2731 / 2^14.
pub(super) fn hard_sigmoid(
    model: &Deployable<'_>,
    input: TensorId,
    output: TensorId,
    shift: i8,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let one = 1i32 << sigmoid_position(model.tensor(input)?.pos);
    map(model, input, output, memory, |x| {
        // Not `clamp`, which has to refuse limits below 0.
        requantize_i8((i32::from(x) + 3 * one).max(0).min(6 * one) * 2731, shift.into())
    })
}

/// x for x ≥ 0, else x · alpha.
pub(super) fn prelu(model: &Deployable<'_>, op: &PReluOp, memory: &mut Memory<'_>) -> Option<()> {
    let (from, to) = (model.tensor(op.input)?, model.tensor(op.output)?);
    let alpha = memory.constants.get(op.alpha as usize..).unwrap_or(&[]);
    let f = |x: u8, slope: usize| match x as i8 {
        x @ 0.. => requantize_i8(x.into(), op.shift_positive.into()) as u8,
        x => {
            let slope = alpha.get(slope).copied().unwrap_or(0) as i8;
            requantize_i8(i32::from(x) * i32::from(slope), op.shift_negative.into()) as u8
        }
    };
    let strides = [op.alpha_shape.strides(), to.shape.strides()];
    if from.place == to.place {
        let bytes = memory.tensor_mut(&to)?;
        walk(to.shape.aligned(), strides, |[slope, i]| {
            if let Some(x) = bytes.get_mut(i) {
                *x = f(*x, slope);
            }
        });
        return Some(());
    }
    let (x, y) = memory.pair(&from, &to)?;
    walk(to.shape.aligned(), strides, |[slope, i]| {
        if let (Some(x), Some(y)) = (x.get(i), y.get_mut(i)) {
            *y = f(*x, slope);
        }
    });
    Some(())
}
