//! What must hold of a layer before it may run.

use super::apart::apart;
use super::deployable::Deployable;
use super::ids::TensorId;
use super::ops::{CpuOp, MAX_OPERANDS, layers};
use super::records::DType;
use super::rows::Rows;
use crate::shape::Window;
use crate::shift::SIGMOID_POSITIONS;

/// Checks an op's references and geometry against the deployable; `None` if anything is off.
pub(super) fn check(model: &Deployable<'_>, op: &CpuOp<'_>) -> Option<()> {
    let tensor = |id: TensorId, dtype: DType, elements: u64| {
        let t = model.tensor(id)?;
        (t.dtype == dtype && t.shape.elements().map(u64::from) == Some(elements)).then_some(())
    };
    let any = |id: TensorId| Some((model.tensor(id)?.dtype, u64::from(model.tensor(id)?.shape.elements()?)));
    let of_integers = |id: TensorId, elements: u64| {
        let t = model.tensor(id)?;
        (t.dtype != DType::F32 && t.shape.elements().map(u64::from) == Some(elements)).then_some(())
    };
    let volume = |d: [u16; 3]| d.iter().map(|v| u64::from(*v)).product::<u64>();
    let constants = |offset: u32, bytes: u64| {
        (u64::from(offset).checked_add(bytes)? <= model.constants().len() as u64).then_some(())
    };
    let fits = |w: &Window, input: [u16; 3], output: [u16; 2]| {
        (w.is_valid()
            && (0..2).all(|a| w.outputs(a, input[a].into()) == u32::from(output[a]))
            && output.iter().chain(&input).all(|d| *d > 0))
        .then_some(())
    };
    let shift_ok = |s: i8| (-31..=31).contains(&s).then_some(());
    // Empty tensors would let the other dimensions be any numbers.
    let integers = |id: TensorId| {
        let t = model.tensor(id)?;
        (t.dtype == DType::I8 && t.shape.elements()? > 0).then_some(t)
    };
    let apart = |a: TensorId, b: TensorId| apart(&model.tensor(a)?, &model.tensor(b)?).then_some(());
    // In the output's place, or nowhere near it.
    let overwritten = |a: TensorId, b: TensorId| {
        let (from, to) = (model.tensor(a)?, model.tensor(b)?);
        if from.place == to.place && from.bytes() == to.bytes() { Some(()) } else { apart(a, b) }
    };
    // Away from the input, or over it where the layer's rows allow that.
    let follows = |a: TensorId, b: TensorId| {
        let (from, to) = (model.tensor(a)?, model.tensor(b)?);
        let allowed = || Rows::of(op).is_some_and(|rows| rows.allow(from.place, to.place));
        (self::apart(&from, &to) || allowed()).then_some(())
    };
    match op {
        CpuOp::Conv(c) | CpuOp::Depthwise(c) | CpuOp::ConvTranspose(c) => {
            tensor(c.input, DType::I8, volume(c.in_dims))?;
            tensor(c.output, DType::I8, volume(c.out_dims))?;
            let [_, _, ic] = c.in_dims;
            let [oh, ow, oc] = c.out_dims;
            (ic > 0 && oc > 0 && c.groups > 0).then_some(())?;
            let share = match op {
                CpuOp::Conv(_) => {
                    (ic.is_multiple_of(c.groups) && oc.is_multiple_of(c.groups)).then_some(ic.checked_div(c.groups)?)
                }
                CpuOp::Depthwise(_) => (oc.is_multiple_of(ic) && c.groups == 1).then_some(1),
                _ => (c.groups == 1).then_some(ic),
            }?;
            if matches!(op, CpuOp::ConvTranspose(_)) {
                (c.window.is_valid() && c.in_dims.iter().chain(&c.out_dims).all(|d| *d > 0)).then_some(())?;
            } else {
                fits(&c.window, c.in_dims, [oh, ow])?;
            }
            let taps = u64::from(c.window.kernel[0]) * u64::from(c.window.kernel[1]);
            let per_output = taps * u64::from(share);
            // |Σ x·w| ≤ 2^14 per product must stay inside 31 bits.
            (per_output <= 1 << 16).then_some(())?;
            constants(c.kernel, per_output * u64::from(oc))?;
            if let Some(bias) = c.bias {
                (bias % 4 == 0).then_some(())?;
                constants(bias, 4 * u64::from(oc))?;
            }
            (c.fine <= 24).then_some(())?;
            shift_ok(c.shift_cut)?;
            follows(c.input, c.output)
        }
        CpuOp::Pool(p) => {
            tensor(p.input, DType::I8, volume(p.in_dims))?;
            tensor(p.output, DType::I8, volume([p.out_dims[0], p.out_dims[1], p.in_dims[2]]))?;
            fits(&p.window, p.in_dims, p.out_dims)?;
            // A window that lies wholly in the padding has no largest value.
            let meets_input = |a: usize| {
                let w = &p.window;
                let last = (u32::from(p.out_dims[a]) - 1) * u32::from(w.stride[a]);
                (u32::from(w.pad_before[a]) < w.extent(a)
                    && last < u32::from(p.in_dims[a]) + u32::from(w.pad_before[a])
                    && w.dilation[a] == 1)
                    .then_some(())
            };
            meets_input(0)?;
            meets_input(1)?;
            p.fits_accumulator().then_some(())?;
            shift_ok(p.shift)?;
            follows(p.input, p.output)
        }
        CpuOp::Add(a) => {
            let n = a.inputs.iter().len();
            (a.inputs.0.len() == 2 * n && n > 0 && n <= MAX_OPERANDS && a.shift_read.len() == n).then_some(())?;
            let (_, elements) = any(a.output)?;
            tensor(a.output, DType::I8, elements)?;
            a.inputs.iter().try_for_each(|id| {
                overwritten(id, a.output)?;
                tensor(id, DType::I8, elements)
            })?;
            a.shift_read.iter().all(|s| *s <= 20).then_some(())?;
            shift_ok(a.shift_write)
        }
        CpuOp::Multiply(m) if layers::EXTRA => {
            let out = integers(m.output)?;
            m.inputs.iter().try_for_each(|id| {
                overwritten(*id, m.output)?;
                integers(*id)?.shape.broadcasts_to(&out.shape).then_some(())
            })?;
            shift_ok(m.shift)
        }
        CpuOp::Concat(c) if layers::EXTRA => {
            let n = c.inputs.iter().len();
            (c.inputs.0.len() == 2 * n && n > 0 && c.shifts.len() == n).then_some(())?;
            let out = integers(c.output)?;
            let axis = usize::from(c.axis);
            let mut rest = *out.shape.dims().get(axis)?;
            for id in c.inputs.iter() {
                apart(id, c.output)?;
                let part = integers(id)?;
                let (own, whole) = (part.shape.dims(), out.shape.dims());
                let same = own.len() == whole.len() && (0..own.len()).all(|i| i == axis || own.get(i) == whole.get(i));
                rest = rest.checked_sub(*own.get(axis).filter(|_| same)?)?;
            }
            c.shifts.iter().try_for_each(|s| shift_ok(*s as i8))?;
            (rest == 0).then_some(())
        }
        CpuOp::UpSample(u) if layers::EXTRA => {
            apart(u.input, u.output)?;
            (u.in_dims.iter().chain(&u.factor).all(|d| *d > 0)).then_some(())?;
            tensor(u.input, DType::I8, volume(u.in_dims))?;
            let times = u64::from(u.factor[0]) * u64::from(u.factor[1]);
            tensor(u.output, DType::I8, volume(u.in_dims).checked_mul(times)?)?;
            shift_ok(u.shift)
        }
        CpuOp::HardSigmoid { input, output, shift } if layers::EXTRA => {
            overwritten(*input, *output)?;
            tensor(*output, DType::I8, any(*input)?.1)?;
            let from = model.tensor(*input)?;
            (from.dtype == DType::I8 && SIGMOID_POSITIONS.contains(&from.pos.0.into())).then_some(())?;
            shift_ok(*shift)
        }
        CpuOp::Pad(p) if layers::EXTRA => {
            apart(p.input, p.output)?;
            p.in_dims.iter().all(|d| *d > 0).then_some(())?;
            tensor(p.input, DType::I8, volume(p.in_dims))?;
            let side = |a: usize| u64::from(p.in_dims[a]) + u64::from(p.before[a]) + u64::from(p.after[a]);
            // Both sides are below 2^18.
            tensor(p.output, DType::I8, side(0) * side(1) * u64::from(p.in_dims[2]))
        }
        CpuOp::PRelu(p) if layers::EXTRA => {
            overwritten(p.input, p.output)?;
            let (from, to) = (integers(p.input)?, integers(p.output)?);
            (from.shape == to.shape && p.alpha_shape.broadcasts_to(&to.shape)).then_some(())?;
            constants(p.alpha, p.alpha_shape.elements()?.into())?;
            shift_ok(p.shift_positive)?;
            shift_ok(p.shift_negative)
        }
        CpuOp::Permute(p) if layers::EXTRA => {
            apart(p.input, p.output)?;
            let (from, to) = (integers(p.input)?, integers(p.output)?);
            let (own, whole) = (from.shape.dims(), to.shape.dims());
            let mut seen = [false; 4];
            for (axis, size) in p.axes.iter().zip(whole) {
                let seen = seen.get_mut(usize::from(*axis)).filter(|seen| !**seen)?;
                (own.get(usize::from(*axis)) == Some(size)).then_some(())?;
                *seen = true;
            }
            (own.len() == whole.len()).then_some(())
        }
        CpuOp::Softmax(s) => {
            apart(s.input, s.output)?;
            let (_, elements) = any(s.input)?;
            tensor(s.output, DType::F32, elements)?;
            // An empty tensor would let the axis be any number, and four times it leave 32 bits.
            (s.axis > 0 && elements > 0 && (elements as u32).checked_rem(s.axis) == Some(0)).then_some(())
        }
        #[cfg(feature = "floats")]
        CpuOp::Float { op, .. } => super::check_floats::check(model, op),
        #[cfg(feature = "floats")]
        CpuOp::Scaled(op) => super::check_scaled::check(model, op),
        CpuOp::View { input, output } => {
            let (from, to) = (model.tensor(*input)?, model.tensor(*output)?);
            (from.place == to.place && from.dtype == to.dtype && from.bytes() == to.bytes()).then_some(())
        }
        CpuOp::Requantize { input, output, shift, .. } => {
            overwritten(*input, *output)?;
            tensor(*input, DType::I8, any(*output)?.1)?;
            tensor(*output, DType::I8, any(*input)?.1)?;
            shift_ok(*shift)
        }
        CpuOp::Quantize { input, output } => {
            apart(*input, *output)?;
            tensor(*input, DType::F32, any(*output)?.1)?;
            of_integers(*output, any(*input)?.1)
        }
        CpuOp::Dequantize { input, output } => {
            apart(*input, *output)?;
            of_integers(*input, any(*output)?.1)?;
            tensor(*output, DType::F32, any(*input)?.1)
        }
        // Layers that are left out.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}
