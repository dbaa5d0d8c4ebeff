//! What must hold of a step in floats before it may run.

use super::apart::apart;
use super::deployable::Deployable;
use super::floats::FloatOp;
use super::ids::TensorId;
use super::records::{DType, TensorDesc};
use crate::shape::Window;

/// The first and last element that indices below `sizes` reach; `None` beyond 64 bits.
pub(super) fn span(sizes: &[u32], steps: &[i64], start: u32) -> Option<(i64, i64)> {
    let mut ends = (i64::from(start), i64::from(start));
    for (n, step) in sizes.iter().zip(steps) {
        // Below 2^32 each; five of them stay far inside 64 bits.
        let reach = i64::from(n.checked_sub(1)?).checked_mul(*step)?;
        if reach < 0 {
            ends.0 = ends.0.checked_add(reach)?;
        } else {
            ends.1 = ends.1.checked_add(reach)?;
        }
    }
    Some(ends)
}

/// Checks a step's references and geometry against the deployable; `None` if anything is off.
pub(super) fn check(model: &Deployable<'_>, op: &FloatOp) -> Option<()> {
    // Empty tensors would let the other dimensions be any numbers.
    let floats = |id: TensorId| {
        let t = model.tensor(id)?;
        (t.dtype == DType::F32 && t.shape.elements()? > 0).then_some(t)
    };
    let size = |t: &TensorDesc<'_>| t.shape.elements().map_or(0, u64::from);
    let volume = |d: [u16; 3]| d.iter().map(|v| u64::from(*v)).product::<u64>();
    let constants = |offset: u32, count: u64| {
        let end = count.checked_mul(4)?.checked_add(offset.into())?;
        (offset.is_multiple_of(4) && end <= model.constants().len() as u64).then_some(())
    };
    let out = floats(op.output())?;
    let apart = |t: &TensorDesc<'_>| apart(t, &out).then_some(());
    let overwritten = |t: &TensorDesc<'_>| {
        if t.place == out.place && t.bytes() == out.bytes() { Some(()) } else { apart(t) }
    };
    let inside =
        |(low, high): (i64, i64), t: &TensorDesc<'_>| (low >= 0 && u64::try_from(high).ok()? < size(t)).then_some(());
    let total = |sizes: &[u32]| sizes.iter().try_fold(1u64, |n, size| n.checked_mul(u64::from(*size)));
    // Outputs along both axes, as far as the window has a say.
    let slides = |window: &Window, input: [u16; 3], output: [u16; 2]| {
        (window.is_valid()
            && output.iter().chain(&input).all(|d| *d > 0)
            && (0..2).all(|a| window.outputs(a, input[a].into()) == u32::from(output[a])))
        .then_some(())
    };
    match op {
        FloatOp::Map { input, .. } => {
            let input = floats(*input)?;
            overwritten(&input)?;
            (size(&input) == size(&out)).then_some(())
        }
        FloatOp::Zip { a, b, .. } => {
            let (a, b) = (floats(*a)?, floats(*b)?);
            overwritten(&a)?;
            apart(&b)?;
            (a.place != out.place || a.shape == out.shape).then_some(())?;
            (a.shape.broadcasts_to(&out.shape) && b.shape.broadcasts_to(&out.shape)).then_some(())
        }
        FloatOp::Conv(c) => {
            let input = floats(c.input)?;
            apart(&input)?;
            (size(&input) == volume(c.in_dims) && size(&out) == volume(c.out_dims)).then_some(())?;
            let [[_, _, ic], [oh, ow, oc]] = [c.in_dims, c.out_dims];
            (c.groups > 0 && ic % c.groups == 0 && oc % c.groups == 0).then_some(())?;
            if c.transposed {
                (c.window.is_valid() && c.groups == 1).then_some(())?;
            } else {
                slides(&c.window, c.in_dims, [oh, ow])?;
            }
            let taps = u64::from(c.window.kernel[0]) * u64::from(c.window.kernel[1]);
            constants(c.kernel, (taps * u64::from(ic / c.groups)).checked_mul(oc.into())?)?;
            c.bias.map_or(Some(()), |at| constants(at, oc.into()))
        }
        FloatOp::Pool(p) => {
            let input = floats(p.input)?;
            apart(&input)?;
            (size(&input) == volume(p.in_dims)).then_some(())?;
            (size(&out) == volume([p.out_dims[0], p.out_dims[1], p.in_dims[2]])).then_some(())?;
            (p.window.dilation == [1, 1]).then_some(())?;
            slides(&p.window, p.in_dims, p.out_dims)
        }
        FloatOp::Copy(c) => {
            let input = floats(c.input)?;
            apart(&input)?;
            c.sizes.iter().all(|n| *n > 0).then_some(())?;
            // No more than the output has, so that the work is bounded by the file's own sizes.
            (total(&c.sizes)? <= size(&out)).then_some(())?;
            inside(span(&c.sizes, &c.steps_in.map(i64::from), c.from)?, &input)?;
            inside(span(&c.sizes, &c.steps_out.map(i64::from), c.to)?, &out)
        }
        FloatOp::Resize(r) => {
            let input = floats(r.input)?;
            apart(&input)?;
            r.in_dims.iter().chain(&r.out_dims).all(|d| *d > 0).then_some(())?;
            (size(&input) == volume(r.in_dims)).then_some(())?;
            (size(&out) == volume([r.out_dims[0], r.out_dims[1], r.in_dims[2]])).then_some(())
        }
        FloatOp::Rows(r) => {
            let input = floats(r.input)?;
            overwritten(&input)?;
            (size(&input) == size(&out) && total(&r.sizes)? <= size(&out)).then_some(())?;
            inside(span(&r.sizes, &r.steps.map(i64::from), 0)?, &out)
        }
        FloatOp::Reduce { input, axes, .. } => {
            let input = floats(*input)?;
            apart(&input)?;
            let kept = (0..4).zip(input.shape.aligned()).filter(|(axis, _)| axes >> axis & 1 == 0);
            (*axes < 16 && kept.map(|(_, n)| u64::from(n)).product::<u64>() == size(&out)).then_some(())
        }
        FloatOp::Product(p) => {
            let (a, b) = (floats(p.a)?, floats(p.b)?);
            apart(&a)?;
            apart(&b)?;
            let [outputs @ .., depth] = p.sizes;
            // The depth is no more than an operand has, so that the work is bounded by the file's own sizes.
            (total(&outputs)? == size(&out) && depth > 0 && u64::from(depth) <= size(&a)).then_some(())?;
            inside(span(&p.sizes, &p.steps_a.map(i64::from), 0)?, &a)?;
            inside(span(&p.sizes, &p.steps_b.map(i64::from), 0)?, &b)
        }
    }
}
