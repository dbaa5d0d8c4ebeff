//! What must hold in an integer graph, recomputed op by op.
//!
//! Graphs come from files of two kinds, and engines and compilers index by their shapes: whoever makes one asks here, and
//! nobody else needs to. A shape, a count or a shift that is only claimed is an error with the layer's name.

use crate::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx, image};
use crate::scaled::{ScaledOp, ScaledPooling};
use shiftwise_core::shape::Window;
use shiftwise_graph::budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::Op;
use shiftwise_tensor::tensor::Tensor;

/// Positions are 8 bits, and no shift is made of more than three of them and a constant of at most 16.
const MOST_SHIFT: u32 = 400;

/// Left shift of an operand of a sum, so that sums stay exact in 64 bits.
const MOST_SHIFT_READ: u32 = 40;

/// Taps of a window that sums, so that sums of 8-bit integers stay exact in 32 bits.
const MOST_TAPS: usize = 1 << 24;

impl IntGraph {
    /// Checks the graph: tensors are made once and before they are read, shapes are those that the ops compute, weights
    /// have the sizes that their shapes ask for, shifts are those of 8-bit positions.
    ///
    /// Errors: the first that doesn't hold, with the op's layer.
    pub fn verify(&self) -> Result<(), Error> {
        let fail = |name: &str, why: String| Error::layer(name, "integer form", why);
        for t in &self.tensors {
            budget::layer_elements(&t.shape).map_err(|why| fail(&t.name, why))?;
        }
        let mut made = vec![false; self.tensors.len()];
        for ix in &self.inputs {
            make(&mut made, *ix).map_err(|why| fail("input", why))?;
        }
        for op in &self.ops {
            let own = |why: String| fail(&op.layer, why);
            let read = |ix: &TensorIx| {
                let tensor = self.tensors.get(ix.0).filter(|_| made[ix.0]);
                tensor.ok_or_else(|| own("it reads a tensor that nothing before it computes".into()))
            };
            let inputs = op.inputs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
            make(&mut made, op.output).map_err(own)?;
            Checked { op, inputs: &inputs, out: &self.tensors[op.output.0] }.check().map_err(own)?;
        }
        match self.outputs.iter().all(|ix| made.get(ix.0) == Some(&true)) {
            true => Ok(()),
            false => Err(Error::model("an output of the integer form is computed by nothing")),
        }
    }
}

fn make(made: &mut [bool], ix: TensorIx) -> Result<(), String> {
    match made.get_mut(ix.0) {
        Some(made) if !*made => *made = true,
        Some(_) => return Err("its tensor is computed twice".into()),
        None => return Err("its tensor doesn't exist".into()),
    }
    Ok(())
}

/// One op with its tensors.
struct Checked<'a> {
    op: &'a IntOp,
    inputs: &'a [&'a IntTensor],
    out: &'a IntTensor,
}

/// The product of a shape that has been checked.
fn elements(shape: &[usize]) -> usize {
    shape.iter().product()
}

fn is(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl Checked<'_> {
    fn check(&self) -> Result<(), String> {
        self.count()?;
        self.kinds()?;
        self.shifts()?;
        match (self.op.kind.conv(), &self.op.kind) {
            (Some((c, _)), _) => self.conv(c),
            (None, IntOpKind::Float { op, weights, .. }) => self.float(op, weights),
            (None, IntOpKind::Scaled(op)) => self.scaled(op),
            (None, _) => self.shape(),
        }
    }

    /// The number of operands.
    fn count(&self) -> Result<(), String> {
        let seen = self.inputs.len();
        // Only the layer itself says how many a layer in floats takes; nothing is made of nothing.
        let wanted = self.op.kind.operands().map_or(seen, |n| n.max(1));
        is(seen == wanted, || format!("it has {seen} operands, {wanted} are expected"))
    }

    /// Integers or floats.
    fn kinds(&self) -> Result<(), String> {
        let fixed = |t: &IntTensor| matches!(t.kind, Kind::Fixed(_));
        let integers = |t: &IntTensor| t.kind != Kind::Float;
        let same = self.inputs.iter().all(|t| t.kind == self.out.kind);
        let (all, out) = (self.inputs.iter().all(|t| fixed(t)), fixed(self.out));
        let none = !self.inputs.iter().any(|t| integers(t));
        let fits = match &self.op.kind {
            IntOpKind::View => same,
            IntOpKind::Softmax | IntOpKind::Float { .. } => !integers(self.out),
            IntOpKind::FakeQuantize(_) => none && !integers(self.out),
            IntOpKind::Quantize => none && integers(self.out),
            IntOpKind::Dequantize => self.inputs.iter().all(|t| integers(t)) && !integers(self.out),
            IntOpKind::Scaled(_) => self.inputs.iter().all(|t| integers(t)) && integers(self.out),
            // Nothing but moved.
            IntOpKind::Pad { .. } | IntOpKind::Permute { .. } | IntOpKind::UpSample { shift: 0, .. } if !out => {
                same && integers(self.out)
            }
            IntOpKind::Conv(_)
            | IntOpKind::Depthwise(_)
            | IntOpKind::ConvTranspose(_)
            | IntOpKind::MaxPool { .. }
            | IntOpKind::AveragePool { .. }
            | IntOpKind::Add { .. }
            | IntOpKind::Multiply { .. }
            | IntOpKind::Concat { .. }
            | IntOpKind::UpSample { .. }
            | IntOpKind::HardSigmoid { .. }
            | IntOpKind::Pad { .. }
            | IntOpKind::PRelu { .. }
            | IntOpKind::Permute { .. }
            | IntOpKind::Requantize { .. } => all && out,
        };
        is(fits, || "it has floats where integers are expected, or the other way round".into())
    }

    /// Shifts that positions of 8 bits can make.
    fn shifts(&self) -> Result<(), String> {
        if let IntOpKind::Add { shift_read, .. } = &self.op.kind
            && let Some(wide) = shift_read.iter().find(|s| **s > MOST_SHIFT_READ)
        {
            let most = MOST_SHIFT_READ;
            return Err(format!("its operands' positions are {wide} bits apart, at most {most} can be aligned"));
        }
        let all = self.op.kind.shifts();
        match all.iter().find(|s| s.unsigned_abs() > MOST_SHIFT) {
            Some(wide) => Err(format!("it shifts by {wide}, at most {MOST_SHIFT} is possible")),
            None => Ok(()),
        }
    }

    fn differs(&self, shape: &[usize]) -> String {
        format!("its result has shape {:?}, and {shape:?} is what it computes", self.out.shape)
    }

    /// A layer in floats says itself what it computes.
    fn float(&self, op: &Op, weights: &[Tensor]) -> Result<(), String> {
        let inputs: Vec<&[usize]> = self.inputs.iter().map(|t| t.shape.as_slice()).collect();
        let own = op.layer().output_shape(&inputs)?;
        is(own == self.out.shape, || self.differs(&own))?;
        let own = op.layer().weights();
        let same = own.len() == weights.len() && own.iter().zip(weights).all(|((_, own), w)| own.shape() == w.shape());
        is(same, || "its weights have other shapes than the layer's".into())
    }

    /// The result's shape from those of the operands, of everything but convolutions and layers in floats.
    fn shape(&self) -> Result<(), String> {
        let out = self.out.shape.as_slice();
        let first = self.inputs.first().map_or(&[][..], |t| t.shape.as_slice());
        let ([h, w, c], [oh, ow, oc]) = (image(first), image(out));
        match &self.op.kind {
            IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => self.pool(window, [h, w, c]),
            IntOpKind::Add { .. } => match self.inputs.iter().find(|t| t.shape != out) {
                Some(t) => Err(self.differs(&t.shape)),
                None => Ok(()),
            },
            IntOpKind::Multiply { .. } => self.repeats(first, &self.inputs[1].shape),
            IntOpKind::PRelu { alpha, alpha_shape, .. } => {
                let slopes = alpha_shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
                let fits = slopes == Some(alpha.len());
                is(fits, || format!("it has {} slopes of shape {alpha_shape:?}", alpha.len()))?;
                is(first == out, || self.differs(first))?;
                self.repeats(first, alpha_shape)
            }
            IntOpKind::Concat { axis, .. } => self.concat(*axis),
            IntOpKind::UpSample { factor: [y, x], .. } => {
                let sizes = (h.checked_mul(*y), w.checked_mul(*x), c);
                is(sizes == (Some(oh), Some(ow), oc), || format!("{first:?} enlarged {y} × {x} is not {out:?}"))
            }
            IntOpKind::Pad { before, after } => {
                let sum = |n: usize, k: usize| n.checked_add(before[k])?.checked_add(after[k]);
                is((sum(h, 0), sum(w, 1), c) == (Some(oh), Some(ow), oc), || format!("{first:?} padded is not {out:?}"))
            }
            IntOpKind::Permute { dims } => {
                let mut sorted = dims.clone();
                sorted.sort_unstable();
                is(sorted.into_iter().eq(0..first.len()), || format!("{dims:?} is no order of {first:?}"))?;
                let own: Vec<usize> = dims.iter().map(|d| first[*d]).collect();
                is(own == out, || self.differs(&own))
            }
            IntOpKind::Softmax | IntOpKind::FakeQuantize(_) => is(first == out, || self.differs(first)),
            IntOpKind::HardSigmoid { .. }
            | IntOpKind::View
            | IntOpKind::Requantize { .. }
            | IntOpKind::Quantize
            | IntOpKind::Dequantize => is(elements(first) == elements(out), || self.differs(first)),
            // Checked by their own geometry.
            IntOpKind::Conv(_) | IntOpKind::Depthwise(_) | IntOpKind::ConvTranspose(_) => Ok(()),
            IntOpKind::Scaled(_) | IntOpKind::Float { .. } => Ok(()),
        }
    }

    /// An op on integers of any step: geometry, and the domain of its arithmetic.
    fn scaled(&self, op: &ScaledOp) -> Result<(), String> {
        let scale =
            |t: &IntTensor| t.kind.scale().ok_or_else(|| "it has floats where integers are expected".to_owned());
        let (from, to) = (self.inputs.iter().map(|t| scale(t)).collect::<Result<Vec<_>, _>>()?, scale(self.out)?);
        is(op.is_exact(&from), || "its sums leave 64 bits".into())?;
        let [low, high] = op.bounds();
        is(to.low <= low && low <= high && high <= to.high, || format!("its bounds {low}..={high} leave its grid"))?;
        let (first, out) = (self.inputs[0].shape.as_slice(), self.out.shape.as_slice());
        match op {
            ScaledOp::Conv(c) => {
                let kind = match c.transposed {
                    true => IntOpKind::ConvTranspose,
                    false => IntOpKind::Conv,
                };
                // The same geometry as that of a convolution by shifts.
                let kernel = vec![0; c.kernel.len()];
                let act = IntAct::None;
                let (window, input, output, groups) = (c.window, c.input, c.output, c.groups);
                let conv =
                    IntConv { window, input, output, kernel, bias: None, groups, shift_cut: 0, shift_bias: 0, act };
                let op = IntOp { kind: kind(conv.clone()), ..self.op.clone() };
                Checked { op: &op, ..*self }.conv(&conv)?;
                is(c.channels.len() == c.output[2], || format!("{} channels, not {}", c.channels.len(), c.output[2]))
            }
            ScaledOp::Pool { window, pooling, multipliers, .. } => {
                let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
                let wanted = if *pooling == ScaledPooling::Counted { taps } else { 1 };
                is(multipliers.len() == wanted, || format!("{} multipliers, not {wanted}", multipliers.len()))?;
                self.pool(window, image(first))
            }
            ScaledOp::Sum { .. } => match self.inputs.iter().find(|t| t.shape != out) {
                Some(t) => Err(self.differs(&t.shape)),
                None => Ok(()),
            },
            ScaledOp::Product { .. } => self.repeats(first, &self.inputs[1].shape),
            ScaledOp::Concat { axis, .. } => self.concat(*axis),
        }
    }

    /// Two operands that repeat to the result, which is not larger than they make it.
    fn repeats(&self, a: &[usize], b: &[usize]) -> Result<(), String> {
        let out = self.out.shape.as_slice();
        let size = |s: &[usize], back: usize| s.len().checked_sub(back).map_or(1, |k| s[k]);
        let fits = |back: usize| {
            let (a, b, out) = (size(a, back), size(b, back), size(out, back));
            (a == out || a == 1) && (b == out || b == 1) && (a == out || b == out)
        };
        let rank = out.len();
        let all = a.len() <= rank && b.len() <= rank && (1..=rank).all(fits);
        is(all, || format!("{a:?} and {b:?} don't make {out:?}"))
    }

    fn concat(&self, axis: usize) -> Result<(), String> {
        let out = self.out.shape.as_slice();
        let like =
            |s: &[usize]| s.len() == out.len() && s.iter().zip(out).enumerate().all(|(k, (a, b))| a == b || k == axis);
        let sum: Option<usize> = self.inputs.iter().map(|t| t.shape.get(axis).copied()).sum();
        let fits = sum.is_some() && sum == out.get(axis).copied() && self.inputs.iter().all(|t| like(&t.shape));
        is(fits, || {
            let all: Vec<&[usize]> = self.inputs.iter().map(|t| t.shape.as_slice()).collect();
            format!("{all:?} behind each other along axis {axis} are not {out:?}")
        })
    }

    fn pool(&self, window: &Window, [h, w, c]: [usize; 3]) -> Result<(), String> {
        let [oh, ow] = self.window(window, [h, w])?;
        // The result may have lost dimensions of size 1.
        let out = self.out.shape.as_slice();
        let fits = elements(out) == oh * ow * c && out.last() == Some(&c);
        is(fits, || self.differs(&[oh, ow, c]))?;
        let taps = |axis: usize, n: usize| usize::from(window.kernel[axis]).min(n);
        is(taps(0, h) * taps(1, w) < MOST_TAPS, || format!("its window has {MOST_TAPS} taps or more"))
    }

    /// The places of a window, which is valid.
    fn window(&self, window: &Window, [h, w]: [usize; 2]) -> Result<[usize; 2], String> {
        is(window.is_valid(), || "its window has a size, stride or dilation of 0".into())?;
        // No dimension of a checked shape leaves 32 bits.
        Ok([window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize])
    }

    fn conv(&self, c: &IntConv) -> Result<(), String> {
        let first = self.inputs[0].shape.as_slice();
        let product = |s: &[usize; 3]| s.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let ([h, w, ic], [oh, ow, oc]) = (c.input, c.output);
        is(product(&c.input) == Some(elements(first)), || format!("it reads {first:?} as {:?}", c.input))?;
        is(product(&c.output) == Some(elements(&self.out.shape)), || self.differs(&c.output))?;
        let places = self.window(&c.window, [h, w])?;
        let transposed = matches!(self.op.kind, IntOpKind::ConvTranspose(_));
        let depthwise = matches!(self.op.kind, IntOpKind::Depthwise(_));
        if transposed {
            // Behind the taps of the last pixel there may be outputs that a stride steps over.
            let most =
                |axis: usize, n: usize| (n + 1) * usize::from(c.window.stride[axis]) + c.window.extent(axis) as usize;
            is(oh <= most(0, h) && ow <= most(1, w), || self.differs(&[most(0, h), most(1, w), oc]))?;
        } else {
            is(places == [oh, ow], || self.differs(&[places[0], places[1], oc]))?;
        }
        let groups = c.groups.max(1);
        let divides = c.groups > 0 && ic % groups == 0 && oc % groups == 0;
        is(divides, || format!("{} groups don't divide {ic} and {oc} channels", c.groups))?;
        is(groups == 1 || !(transposed || depthwise), || format!("{groups} groups, one is expected"))?;
        is(!depthwise || ic == oc, || format!("{ic} channels, each on its own, don't make {oc}"))?;
        let taps = usize::from(c.window.kernel[0]) * usize::from(c.window.kernel[1]);
        let per_tap = if depthwise { Some(ic) } else { (ic / groups).checked_mul(oc) };
        let weights = per_tap.and_then(|n| n.checked_mul(taps));
        let seen = c.kernel.len();
        is(weights == Some(seen), || format!("it has {seen} weights for {taps} taps of {ic} × {oc} channels"))?;
        let biases = c.bias.as_ref().map_or(oc, Vec::len);
        is(biases == oc, || format!("it has {biases} biases for {oc} channels"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::fix::FixPos;

    fn tensor(shape: &[usize]) -> IntTensor {
        IntTensor { name: "t".into(), shape: shape.to_vec(), kind: Kind::Fixed(FixPos(3)) }
    }

    fn op(kind: IntOpKind, inputs: &[usize], output: usize) -> IntOp {
        let inputs = inputs.iter().map(|i| TensorIx(*i)).collect();
        IntOp { kind, inputs, output: TensorIx(output), layer: "layer".into() }
    }

    fn conv() -> IntConv {
        IntConv {
            window: Window { kernel: [3, 3], ..Window::POINT },
            input: [6, 5, 2],
            output: [4, 3, 4],
            kernel: vec![1; 72],
            bias: Some(vec![0; 4]),
            groups: 1,
            shift_cut: 7,
            shift_bias: 2,
            act: IntAct::None,
        }
    }

    fn graph(kind: IntOpKind, shape: &[usize]) -> IntGraph {
        IntGraph {
            name: "g".into(),
            tensors: vec![tensor(&[6, 5, 2]), tensor(shape)],
            ops: vec![op(kind, &[0], 1)],
            inputs: vec![TensorIx(0)],
            outputs: vec![TensorIx(1)],
        }
    }

    #[test]
    fn a_convolution_is_what_its_geometry_says() {
        let of = |change: fn(&mut IntConv)| {
            let mut c = conv();
            change(&mut c);
            graph(IntOpKind::Conv(c), &[4, 3, 4]).verify()
        };
        of(|_| {}).unwrap();
        let changes: [fn(&mut IntConv); 10] = [
            |c| c.window.kernel = [2, 3],
            |c| c.window.stride = [0, 1],
            |c| c.input = [5, 6, 2],
            |c| c.output = [3, 4, 4],
            |c| c.kernel.truncate(71),
            |c| c.bias = Some(vec![0; 3]),
            |c| c.groups = 0,
            |c| c.groups = 2,
            |c| c.shift_bias = 500,
            |c| c.shift_cut = i32::MIN,
        ];
        for (k, change) in changes.into_iter().enumerate() {
            let error = of(change).expect_err(&format!("change {k}")).to_string();
            assert!(error.contains("`layer`"), "{error}");
        }
        assert!(graph(IntOpKind::Conv(conv()), &[4, 3, 5]).verify().is_err());
        assert!(graph(IntOpKind::Depthwise(conv()), &[4, 3, 4]).verify().is_err());
    }

    #[test]
    fn shapes_are_recomputed() {
        let window = Window { kernel: [2, 5], ..Window::POINT };
        let act = IntAct::None;
        let table: Vec<(IntOpKind, &[usize], &[usize])> = vec![
            (IntOpKind::MaxPool { window, shift: 0, act }, &[5, 1, 2], &[6, 5, 2]),
            (IntOpKind::MaxPool { window, shift: 0, act }, &[5, 2], &[2, 5]),
            (IntOpKind::UpSample { factor: [2, 1], shift: 0 }, &[12, 5, 2], &[12, 10, 2]),
            (IntOpKind::Pad { before: [1, 0], after: [0, 2] }, &[7, 7, 2], &[7, 5, 2]),
            (IntOpKind::Permute { dims: vec![1, 0, 2] }, &[5, 6, 2], &[6, 5, 2]),
            (IntOpKind::View, &[60], &[61]),
            (IntOpKind::Requantize { shift: 1, act: IntAct::Relu }, &[6, 5, 2], &[6, 5, 3]),
            (IntOpKind::Add { shift_read: vec![0], shift_write: 1, act }, &[6, 5, 2], &[60]),
            (IntOpKind::Concat { axis: 1, shifts: vec![0] }, &[6, 5, 2], &[6, 6, 2]),
        ];
        for (kind, right, wrong) in table {
            graph(kind.clone(), right).verify().unwrap();
            assert!(graph(kind.clone(), wrong).verify().is_err(), "{kind:?} to {wrong:?}");
        }
        assert!(graph(IntOpKind::Permute { dims: vec![0, 0, 2] }, &[6, 6, 2]).verify().is_err());
        assert!(graph(IntOpKind::Add { shift_read: vec![60], shift_write: 1, act }, &[6, 5, 2]).verify().is_err());
        assert!(graph(IntOpKind::Quantize, &[6, 5, 2]).verify().is_err(), "integers are read as floats");
    }

    #[test]
    fn tensors_are_made_once_and_before_they_are_read() {
        let act = IntAct::None;
        let good = graph(IntOpKind::Requantize { shift: 0, act }, &[6, 5, 2]);
        good.verify().unwrap();
        let changes: [fn(&mut IntGraph); 6] = [
            |g| g.ops[0].inputs[0] = TensorIx(1),
            |g| g.ops[0].inputs[0] = TensorIx(9),
            |g| g.ops[0].output = TensorIx(0),
            |g| g.inputs.clear(),
            |g| g.outputs.push(TensorIx(2)),
            |g| g.ops[0].inputs.clear(),
        ];
        for (k, change) in changes.into_iter().enumerate() {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(bad.verify().is_err(), "change {k}");
        }
        let mut empty = good.clone();
        empty.tensors[1].shape = vec![0, 5];
        assert!(empty.verify().unwrap_err().to_string().contains("is 0"));
    }
}
