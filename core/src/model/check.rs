//! What must hold of a layer before it may run.

use super::apart::apart;
use super::deployable::Deployable;
use super::ids::TensorId;
use super::ops::{
    AddOp, ConcatOp, ConvOp, CpuOp, MAX_OPERANDS, MultiplyOp, PReluOp, PadOp, PermuteOp, PoolOp, SoftmaxOp, UpSampleOp,
    layers,
};
use super::records::{DType, TensorDesc};
use super::rows::Rows;
use crate::shape::Window;
use crate::shift::SIGMOID_POSITIONS;

/// Checks an op's references and geometry against the deployable; `None` if anything is off.
pub(super) fn check(model: &Deployable<'_>, op: &CpuOp<'_>) -> Option<()> {
    let check = Check { model, op };
    match op {
        CpuOp::Conv(c) => check.conv(c),
        CpuOp::Depthwise(c) => check.depthwise(c),
        CpuOp::ConvTranspose(c) => check.transposed(c),
        CpuOp::Pool(p) => check.pool(p),
        CpuOp::Add(a) => check.add(a),
        CpuOp::Multiply(m) if layers::EXTRA => check.multiply(m),
        CpuOp::Concat(c) if layers::EXTRA => check.concat(c),
        CpuOp::UpSample(u) if layers::EXTRA => check.upsample(u),
        CpuOp::HardSigmoid { input, output, shift } if layers::EXTRA => check.hard_sigmoid(*input, *output, *shift),
        CpuOp::Pad(p) if layers::EXTRA => check.pad(p),
        CpuOp::PRelu(p) if layers::EXTRA => check.prelu(p),
        CpuOp::Permute(p) if layers::EXTRA => check.permute(p),
        CpuOp::Softmax(s) => check.softmax(s),
        #[cfg(feature = "floats")]
        CpuOp::Float { op, .. } => super::check_floats::check(model, op),
        #[cfg(feature = "floats")]
        CpuOp::Scaled(op) => super::check_scaled::check(model, op),
        CpuOp::View { input, output } => check.view(*input, *output),
        CpuOp::Requantize { input, output, shift, .. } => {
            check.overwritten(*input, *output)?;
            check.tensor(*input, DType::I8, check.elements(*output)?)?;
            check.tensor(*output, DType::I8, check.elements(*input)?)?;
            shift_ok(*shift)
        }
        CpuOp::Quantize { input, output } => check.converts(*input, *output),
        CpuOp::Dequantize { input, output } => check.converts(*output, *input),
        // Layers that are left out.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

/// What an op is checked against. Everything here is `None` if anything is off.
struct Check<'a, 'm> {
    model: &'a Deployable<'m>,
    op: &'a CpuOp<'m>,
}

fn volume(dims: [u16; 3]) -> u64 {
    dims.iter().map(|v| u64::from(*v)).product()
}

fn shift_ok(shift: i8) -> Option<()> {
    (-31..=31).contains(&shift).then_some(())
}

/// A window that slides over an input of these sides as often as the output is long.
fn fits(w: &Window, input: [u16; 3], output: [u16; 2]) -> Option<()> {
    (w.is_valid()
        && (0..2).all(|a| w.outputs(a, input[a].into()) == u32::from(output[a]))
        && output.iter().chain(&input).all(|d| *d > 0))
    .then_some(())
}

impl<'m> Check<'_, 'm> {
    fn elements(&self, id: TensorId) -> Option<u64> {
        self.model.tensor(id)?.shape.elements().map(u64::from)
    }

    /// A tensor of this type and size.
    fn tensor(&self, id: TensorId, dtype: DType, elements: u64) -> Option<()> {
        (self.model.tensor(id)?.dtype == dtype && self.elements(id)? == elements).then_some(())
    }

    /// A tensor of bytes with at least one element: an empty one would let the other dimensions be any numbers.
    fn bytes(&self, id: TensorId) -> Option<TensorDesc<'m>> {
        let t = self.model.tensor(id)?;
        (t.dtype == DType::I8 && t.shape.elements()? > 0).then_some(t)
    }

    fn constants(&self, offset: u32, bytes: u64) -> Option<()> {
        (u64::from(offset).checked_add(bytes)? <= self.model.constants().len() as u64).then_some(())
    }

    fn apart(&self, a: TensorId, b: TensorId) -> Option<()> {
        apart(&self.model.tensor(a)?, &self.model.tensor(b)?).then_some(())
    }

    /// In the output's place, or nowhere near it.
    fn overwritten(&self, a: TensorId, b: TensorId) -> Option<()> {
        let (from, to) = (self.model.tensor(a)?, self.model.tensor(b)?);
        if from.place == to.place && from.bytes() == to.bytes() { Some(()) } else { self.apart(a, b) }
    }

    /// Away from the input, or over it where the layer's rows allow that.
    fn follows(&self, a: TensorId, b: TensorId) -> Option<()> {
        let (from, to) = (self.model.tensor(a)?, self.model.tensor(b)?);
        let allowed = || Rows::of(self.op).is_some_and(|rows| rows.allow(from.place, to.place));
        (apart(&from, &to) || allowed()).then_some(())
    }

    fn conv(&self, c: &ConvOp) -> Option<()> {
        let ([_, _, ic], [oh, ow, oc]) = (c.in_dims, c.out_dims);
        fits(&c.window, c.in_dims, [oh, ow])?;
        (c.groups > 0 && ic.is_multiple_of(c.groups) && oc.is_multiple_of(c.groups)).then_some(())?;
        self.products(c, ic.checked_div(c.groups)?)
    }

    fn depthwise(&self, c: &ConvOp) -> Option<()> {
        let ([_, _, ic], [oh, ow, oc]) = (c.in_dims, c.out_dims);
        fits(&c.window, c.in_dims, [oh, ow])?;
        (oc.is_multiple_of(ic) && c.groups == 1).then_some(())?;
        self.products(c, 1)
    }

    fn transposed(&self, c: &ConvOp) -> Option<()> {
        let [_, _, ic] = c.in_dims;
        (c.window.is_valid() && c.in_dims.iter().chain(&c.out_dims).all(|d| *d > 0) && c.groups == 1).then_some(())?;
        self.products(c, ic)
    }

    /// What convolutions have in common; each output channel sees `share` input channels.
    fn products(&self, c: &ConvOp, share: u16) -> Option<()> {
        self.tensor(c.input, DType::I8, volume(c.in_dims))?;
        self.tensor(c.output, DType::I8, volume(c.out_dims))?;
        let [_, _, oc] = c.out_dims;
        (share > 0 && oc > 0).then_some(())?;
        let taps = u64::from(c.window.kernel[0]) * u64::from(c.window.kernel[1]);
        let per_output = taps * u64::from(share);
        // |Σ x·w| ≤ 2^14 per product must stay inside 31 bits.
        (per_output <= 1 << 16).then_some(())?;
        self.constants(c.kernel, per_output * u64::from(oc))?;
        if let Some(bias) = c.bias {
            (bias % 4 == 0).then_some(())?;
            self.constants(bias, 4 * u64::from(oc))?;
        }
        (c.fine <= 24).then_some(())?;
        shift_ok(c.shift_cut)?;
        self.follows(c.input, c.output)
    }

    fn pool(&self, p: &PoolOp) -> Option<()> {
        self.tensor(p.input, DType::I8, volume(p.in_dims))?;
        self.tensor(p.output, DType::I8, volume([p.out_dims[0], p.out_dims[1], p.in_dims[2]]))?;
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
        self.follows(p.input, p.output)
    }

    fn add(&self, a: &AddOp<'_>) -> Option<()> {
        let n = a.inputs.iter().len();
        (a.inputs.0.len() == 2 * n && n > 0 && n <= MAX_OPERANDS && a.shift_read.len() == n).then_some(())?;
        let elements = self.elements(a.output)?;
        self.tensor(a.output, DType::I8, elements)?;
        a.inputs.iter().try_for_each(|id| {
            self.overwritten(id, a.output)?;
            self.tensor(id, DType::I8, elements)
        })?;
        a.shift_read.iter().all(|s| *s <= 20).then_some(())?;
        shift_ok(a.shift_write)
    }

    fn multiply(&self, m: &MultiplyOp) -> Option<()> {
        let out = self.bytes(m.output)?;
        m.inputs.iter().try_for_each(|id| {
            self.overwritten(*id, m.output)?;
            self.bytes(*id)?.shape.broadcasts_to(&out.shape).then_some(())
        })?;
        shift_ok(m.shift)
    }

    fn concat(&self, c: &ConcatOp<'_>) -> Option<()> {
        let n = c.inputs.iter().len();
        (c.inputs.0.len() == 2 * n && n > 0 && c.shifts.len() == n).then_some(())?;
        let out = self.bytes(c.output)?;
        let axis = usize::from(c.axis);
        let mut rest = *out.shape.dims().get(axis)?;
        for id in c.inputs.iter() {
            self.apart(id, c.output)?;
            let part = self.bytes(id)?;
            let (own, whole) = (part.shape.dims(), out.shape.dims());
            let same = own.len() == whole.len() && (0..own.len()).all(|i| i == axis || own.get(i) == whole.get(i));
            rest = rest.checked_sub(*own.get(axis).filter(|_| same)?)?;
        }
        c.shifts.iter().try_for_each(|s| shift_ok(*s as i8))?;
        (rest == 0).then_some(())
    }

    fn upsample(&self, u: &UpSampleOp) -> Option<()> {
        self.apart(u.input, u.output)?;
        (u.in_dims.iter().chain(&u.factor).all(|d| *d > 0)).then_some(())?;
        self.tensor(u.input, DType::I8, volume(u.in_dims))?;
        let times = u64::from(u.factor[0]) * u64::from(u.factor[1]);
        self.tensor(u.output, DType::I8, volume(u.in_dims).checked_mul(times)?)?;
        shift_ok(u.shift)
    }

    fn hard_sigmoid(&self, input: TensorId, output: TensorId, shift: i8) -> Option<()> {
        self.overwritten(input, output)?;
        self.tensor(output, DType::I8, self.elements(input)?)?;
        let from = self.model.tensor(input)?;
        (from.dtype == DType::I8 && SIGMOID_POSITIONS.contains(&from.pos.0.into())).then_some(())?;
        shift_ok(shift)
    }

    fn pad(&self, p: &PadOp) -> Option<()> {
        self.apart(p.input, p.output)?;
        p.in_dims.iter().all(|d| *d > 0).then_some(())?;
        self.tensor(p.input, DType::I8, volume(p.in_dims))?;
        let side = |a: usize| u64::from(p.in_dims[a]) + u64::from(p.before[a]) + u64::from(p.after[a]);
        // Both sides are below 2^18.
        self.tensor(p.output, DType::I8, side(0) * side(1) * u64::from(p.in_dims[2]))
    }

    fn prelu(&self, p: &PReluOp) -> Option<()> {
        self.overwritten(p.input, p.output)?;
        let (from, to) = (self.bytes(p.input)?, self.bytes(p.output)?);
        (from.shape == to.shape && p.alpha_shape.broadcasts_to(&to.shape)).then_some(())?;
        self.constants(p.alpha, p.alpha_shape.elements()?.into())?;
        shift_ok(p.shift_positive)?;
        shift_ok(p.shift_negative)
    }

    fn permute(&self, p: &PermuteOp) -> Option<()> {
        self.apart(p.input, p.output)?;
        let (from, to) = (self.bytes(p.input)?, self.bytes(p.output)?);
        let (own, whole) = (from.shape.dims(), to.shape.dims());
        let mut seen = [false; 4];
        for (axis, size) in p.axes.iter().zip(whole) {
            let seen = seen.get_mut(usize::from(*axis)).filter(|seen| !**seen)?;
            (own.get(usize::from(*axis)) == Some(size)).then_some(())?;
            *seen = true;
        }
        (own.len() == whole.len()).then_some(())
    }

    fn softmax(&self, s: &SoftmaxOp) -> Option<()> {
        self.apart(s.input, s.output)?;
        let elements = self.elements(s.input)?;
        self.tensor(s.output, DType::F32, elements)?;
        // An empty tensor would let the axis be any number, and four times it leave 32 bits.
        (s.axis > 0 && elements > 0 && (elements as u32).checked_rem(s.axis) == Some(0)).then_some(())
    }

    fn view(&self, input: TensorId, output: TensorId) -> Option<()> {
        let (from, to) = (self.model.tensor(input)?, self.model.tensor(output)?);
        (from.place == to.place && from.dtype == to.dtype && from.bytes() == to.bytes()).then_some(())
    }

    /// A tensor of floats and one of integers of any width, of one size: one is made of the other.
    fn converts(&self, floats: TensorId, integers: TensorId) -> Option<()> {
        self.apart(floats, integers)?;
        self.tensor(floats, DType::F32, self.elements(integers)?)?;
        (self.model.tensor(integers)?.dtype != DType::F32).then_some(())
    }
}
