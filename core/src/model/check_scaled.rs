//! What must hold of a layer on integers with steps of any size before it may run.
//!
//! Beside references and geometry that is the domain of the arithmetic: no sum times its multiplier leaves 62 bits.

use super::apart::apart;
use super::check_floats::span;
use super::deployable::{Deployable, word};
use super::ids::TensorId;
use super::ops::MAX_OPERANDS;
use super::records::TensorDesc;
use super::scaled::{ScaledConcatOp, ScaledConvOp, ScaledCopyOp, ScaledOp, ScaledPoolKind, ScaledPoolOp, ScaledSumOp};
use crate::cpu::weight;
use crate::scale::{Scale, fits};
use crate::shape::Window;

/// A deployable and what is known of its tensors.
struct Checked<'m, 'a>(&'m Deployable<'a>);

/// Checks a layer; `None` if anything is off.
pub(super) fn check(model: &Deployable<'_>, op: &ScaledOp<'_>) -> Option<()> {
    let this = Checked(model);
    match op {
        ScaledOp::Conv(op) => this.conv(op),
        ScaledOp::Pool(op) => this.pool(op),
        ScaledOp::Sum(op) => this.sum(op),
        ScaledOp::Product(op) => {
            let (out, scale) = this.integers(op.output)?;
            let mut bound = 1u64;
            for id in op.inputs {
                let (t, from) = this.integers(id)?;
                (t.shape.broadcasts_to(&out.shape) && apart(&t, &out)).then_some(())?;
                bound = bound.checked_mul(from.reach().into())?;
            }
            is_multiplier(bound, op.m, op.n.into())?;
            within(op.bounds, &scale)
        }
        ScaledOp::Concat(op) => this.concat(op),
        ScaledOp::Copy(op) => this.copy(op),
    }
}

fn size(t: &TensorDesc<'_>) -> u64 {
    t.shape.elements().map_or(0, u64::from)
}

fn volume(dims: [u16; 3]) -> u64 {
    dims.iter().map(|d| u64::from(*d)).product()
}

/// Bounds in their order, inside the grid.
fn within([low, high]: [i16; 2], scale: &Scale) -> Option<()> {
    (scale.low <= low && low <= high && high <= scale.high).then_some(())
}

/// m / 2^n with which accumulators of at most this magnitude stay exact.
fn is_multiplier(bound: u64, m: u32, n: u32) -> Option<()> {
    let n = u8::try_from(n).ok().filter(|n| (1..=62).contains(n))?;
    ((1 << 30..1 << 31).contains(&m) && fits(bound, m, n)).then_some(())
}

/// Outputs along both axes of a window that slides.
fn slides(window: &Window, input: [u16; 3], output: [u16; 2]) -> Option<()> {
    let dims = input.iter().chain(&output).all(|d| *d > 0);
    let outputs = |axis: usize| Some(window.outputs(axis, (*input.get(axis)?).into()) == u32::from(*output.get(axis)?));
    (window.is_valid() && dims && outputs(0)? && outputs(1)?).then_some(())
}

impl Checked<'_, '_> {
    /// A tensor of integers that isn't empty, and its grid.
    fn integers(&self, id: TensorId) -> Option<(TensorDesc<'_>, Scale)> {
        let t = self.0.tensor(id)?;
        let scale = t.scale()?;
        (size(&t) > 0).then_some((t, scale))
    }

    fn constants(&self, offset: u32, bytes: u64) -> Option<()> {
        (u64::from(offset).checked_add(bytes)? <= self.0.constants().len() as u64).then_some(())
    }

    fn word(&self, offset: u32, index: u32) -> Option<u32> {
        word(self.0.constants(), (offset as usize).checked_add(4 * index as usize)?)
    }

    fn conv(&self, c: &ScaledConvOp) -> Option<()> {
        let ((input, from), (output, to)) = (self.integers(c.input)?, self.integers(c.output)?);
        (apart(&input, &output) && size(&input) == volume(c.in_dims) && size(&output) == volume(c.out_dims))
            .then_some(())?;
        let ([_, _, ic], [oh, ow, oc]) = (c.in_dims, c.out_dims);
        (c.groups > 0 && ic.is_multiple_of(c.groups) && oc.is_multiple_of(c.groups)).then_some(())?;
        if c.transposed {
            (c.window.is_valid() && c.groups == 1).then_some(())?;
        } else {
            slides(&c.window, c.in_dims, [oh, ow])?;
        }
        let [kh, kw] = c.window.kernel.map(u64::from);
        let per_output = (kh * kw).checked_mul(ic.checked_div(c.groups)?.into())?;
        let bytes = if c.wide { 2 } else { 1 };
        self.constants(c.kernel, per_output.checked_mul(oc.into())?.checked_mul(bytes)?)?;
        self.constants(c.channels, 16 * u64::from(oc))?;
        within(c.bounds, &to)?;
        let weights = self.0.constants().get(c.kernel as usize..)?;
        (0..oc).try_for_each(|o| {
            let first = usize::from(o) * per_output as usize;
            let own = |i: usize| u64::from(weight(weights, first + i, c.wide).unsigned_abs());
            let reach = (0..per_output as usize).map(own).sum::<u64>().checked_mul(from.reach().into())?;
            let at = 4 * u32::from(o);
            let word = |i: u32| self.word(c.channels, at + i);
            let bias = (u64::from(word(0)?) | u64::from(word(1)?) << 32) as i64;
            is_multiplier(reach.checked_add(bias.unsigned_abs())?, word(2)?, word(3)?)
        })
    }

    fn pool(&self, p: &ScaledPoolOp) -> Option<()> {
        let ((input, from), (output, to)) = (self.integers(p.input)?, self.integers(p.output)?);
        let [oh, ow] = p.out_dims;
        let sizes = size(&input) == volume(p.in_dims) && size(&output) == volume([oh, ow, p.in_dims[2]]);
        (apart(&input, &output) && sizes && p.window.dilation == [1, 1]).then_some(())?;
        slides(&p.window, p.in_dims, p.out_dims)?;
        // A window that lies wholly in the padding has no values.
        for axis in 0..2 {
            let of = |pair: [u16; 2]| pair.get(axis).map(|d| u32::from(*d));
            let (stride, pad, out) = (of(p.window.stride)?, of(p.window.pad_before)?, of(p.out_dims)?);
            let rows = u32::from(*p.in_dims.get(axis)?);
            let last = (out - 1) * stride;
            (pad < p.window.extent(axis) && last < rows + pad).then_some(())?;
        }
        let taps = p.window.kernel.map(u64::from).iter().product::<u64>();
        let (values, count) = match p.kind {
            ScaledPoolKind::Max => (1, 1),
            ScaledPoolKind::Sum => (taps, 1),
            ScaledPoolKind::Counted => (taps, taps),
        };
        self.constants(p.multipliers, count.checked_mul(8)?)?;
        within(p.bounds, &to)?;
        let bound = values.checked_mul(from.reach().into())?;
        (0..count as u32).try_for_each(|i| {
            is_multiplier(bound, self.word(p.multipliers, 2 * i)?, self.word(p.multipliers, 2 * i + 1)?)
        })
    }

    fn sum(&self, s: &ScaledSumOp<'_>) -> Option<()> {
        let n = s.inputs.iter().len();
        (s.inputs.0.len() == 2 * n && n > 0 && n <= MAX_OPERANDS && (1..=62).contains(&s.n)).then_some(())?;
        let (output, to) = self.integers(s.output)?;
        let mut bound = 1u64 << 61;
        for (i, id) in (0u32..).zip(s.inputs.iter()) {
            let (input, from) = self.integers(id)?;
            let over = input.place == output.place && from.bytes() == to.bytes();
            (size(&input) == size(&output) && (over || apart(&input, &output))).then_some(())?;
            bound = bound.checked_add(u64::from(from.reach()).checked_mul(self.word(s.factors, i)?.into())?)?;
        }
        // Half of the largest shift's unit is 2^61.
        (bound <= 1 << 62).then_some(())?;
        within(s.bounds, &to)
    }

    fn concat(&self, c: &ScaledConcatOp<'_>) -> Option<()> {
        let n = c.inputs.iter().len();
        (c.inputs.0.len() == 2 * n && n > 0).then_some(())?;
        let (output, to) = self.integers(c.output)?;
        let axis = usize::from(c.axis);
        let mut rest = *output.shape.dims().get(axis)?;
        for (i, id) in (0u32..).zip(c.inputs.iter()) {
            let (part, from) = self.integers(id)?;
            let (own, whole) = (part.shape.dims(), output.shape.dims());
            let same = own.len() == whole.len() && (0..own.len()).all(|k| k == axis || own.get(k) == whole.get(k));
            rest = rest.checked_sub(*own.get(axis).filter(|_| same && apart(&part, &output))?)?;
            is_multiplier(from.reach().into(), self.word(c.multipliers, 2 * i)?, self.word(c.multipliers, 2 * i + 1)?)?;
        }
        (rest == 0).then_some(())?;
        within(c.bounds, &to)
    }

    fn copy(&self, c: &ScaledCopyOp) -> Option<()> {
        let ((input, from), (output, to)) = (self.integers(c.input)?, self.integers(c.output)?);
        (apart(&input, &output) && from == to && c.sizes.iter().all(|n| *n > 0)).then_some(())?;
        // No more than the output has, so that the work is bounded by the file's own sizes.
        let total = c.sizes.iter().try_fold(1u64, |n, size| n.checked_mul(u64::from(*size)))?;
        (total <= size(&output)).then_some(())?;
        let inside = |steps: [u32; 5], start: u32, t: &TensorDesc<'_>| {
            let (_, last) = span(&c.sizes, &steps.map(i64::from), start)?;
            (u64::try_from(last).ok()? < size(t)).then_some(())
        };
        inside(c.steps_in, 0, &input)?;
        inside(c.steps_out, c.to, &output)
    }
}
