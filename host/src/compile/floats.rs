//! Layers in floats as steps on the CPU: what the strategy leaves float, and what has no integer form.
//!
//! Each step computes exactly what the layer's evaluation does, in its order; constants become tensors of their own.

use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{
    Combine, CopyOp, CpuOp, DType, FloatConvOp, FloatOp, FloatPoolKind, FloatPoolOp, Function, Place, Region, Role,
    SoftmaxOp, TensorId,
};
use shiftwise_core::shape::{Shape, Window};

use super::cpu::{dims, id, narrow, refuse, shape};
use super::program::{Program, ProgramStep, ProgramTensor};
use crate::Error;
use crate::integer::{IntGraph, IntOp, image};
use crate::ops::tfop::Elements;
use crate::ops::{ActivationFn, Interpolation, Op, Operand, TfOp};
use crate::tensor::Tensor;

/// The steps of `op`, which is a `layer` in floats with these weights.
///
/// Errors: [`Error::Compile`] with the layer's name where there is no kernel for it, and why it is float.
pub(super) fn lower(
    graph: &IntGraph,
    op: &IntOp,
    (float, weights, why): (&Op, &[Tensor], &str),
    program: &mut Program,
) -> Result<Vec<ProgramStep>, Error> {
    let input = *op.inputs.first().ok_or_else(|| refuse(&op.layer, "a float layer without operands".into()))?;
    if let Op::Activation(a) = float
        && a.function == ActivationFn::Softmax
    {
        let axis = narrow(&op.layer, "softmax axis", shape(graph, input).last().copied().unwrap_or(1))?;
        let step = CpuOp::Softmax(SoftmaxOp { input: id(input)?, output: id(op.output)?, axis });
        return Ok(vec![ProgramStep::Cpu(step)]);
    }
    let mut steps = Steps {
        layer: &op.layer,
        program,
        inputs: op.inputs.iter().map(|t| id(*t)).collect::<Result<_, _>>()?,
        shapes: op.inputs.iter().map(|t| shape(graph, *t).to_vec()).collect(),
        output: id(op.output)?,
        out: shape(graph, op.output).to_vec(),
        list: Vec::new(),
    };
    if !steps.layer_of(float, weights)? {
        let what = match float {
            Op::TfOp(f) => format!("the function {}", f.function),
            other => other.class().to_owned(),
        };
        return Err(refuse(&op.layer, format!("{what} is computed in floats and has no kernel here: {why}")));
    }
    match float.layer().activation() {
        ActivationFn::Softmax => return Err(refuse(&op.layer, "a softmax right behind float sums".into())),
        ActivationFn::LogSoftmax if steps.list.len() > 1 => {
            return Err(refuse(&op.layer, "a log_softmax right behind float sums".into()));
        }
        activation => steps.map_in_place(activation.function()),
    }
    let last = steps.list.len().saturating_sub(1);
    let step = |(i, op)| ProgramStep::Cpu(CpuOp::Float { op, last: i == last });
    Ok(steps.list.into_iter().enumerate().map(step).collect())
}

/// The steps of one layer while they are found.
struct Steps<'a> {
    layer: &'a str,
    program: &'a mut Program,
    inputs: Vec<TensorId>,
    shapes: Vec<Vec<usize>>,
    output: TensorId,
    out: Vec<usize>,
    list: Vec<FloatOp>,
}

impl Steps<'_> {
    /// The layer up to its activation attribute; false if there is no kernel for it.
    fn layer_of(&mut self, float: &Op, weights: &[Tensor]) -> Result<bool, Error> {
        let [h, w, c] = image(&self.shapes[0]);
        match float {
            Op::Rescaling(r) => {
                self.with_constant(Combine::Multiply, &r.scale)?;
                self.with_constant(Combine::Add, &r.offset)?;
            }
            Op::Normalization(n) => {
                let (mean, deviation) = n.statistics();
                self.with_constant(Combine::Subtract, &mean)?;
                self.with_constant(Combine::Divide, &deviation)?;
            }
            Op::BatchNormalization(b) => {
                let (factor, offset) = b.affine(&weights.iter().collect::<Vec<_>>());
                self.with_constant(Combine::Multiply, &factor)?;
                self.with_constant(Combine::Add, &offset)?;
            }
            Op::LayerNormalization(n) => {
                let axis = self.axis()?;
                let (gamma, beta) = n.scale_and_offset(&weights.iter().collect::<Vec<_>>(), axis as usize);
                let (input, output) = (self.inputs[0], self.output);
                self.list.push(FloatOp::Standardize { input, output, axis, epsilon: n.epsilon });
                self.with_constant(Combine::Multiply, &gamma)?;
                self.with_constant(Combine::Add, &beta)?;
            }
            Op::Relu(r) => self.map(r.function()),
            Op::LeakyRelu(r) => self.map(Function::LeakyRelu(r.alpha)),
            Op::HardSigmoid(_) => self.map(Function::DpuHardSigmoid),
            Op::Activation(a) if a.function == ActivationFn::LogSoftmax => {
                let axis = self.axis()?;
                self.list.push(FloatOp::LogSoftmax { input: self.inputs[0], output: self.output, axis });
            }
            // The activation attribute follows.
            Op::Activation(_) | Op::Dropout(_) | Op::Flatten(_) | Op::Reshape(_) | Op::Quantize(_) => {
                self.map(Function::Identity);
            }
            Op::PRelu(_) => {
                let Some(alpha) = weights.first() else { return Ok(false) };
                let alpha = self.constant(alpha.shape(), alpha.data())?;
                self.zip(Combine::Slope, alpha);
            }
            Op::Add(_) => self.fold(Combine::Add)?,
            Op::Multiply(_) => self.fold(Combine::Multiply)?,
            Op::Merge(m) => {
                self.fold(m.combine())?;
                if *m == crate::ops::Merge::Average {
                    self.with_constant(Combine::Divide, &[self.inputs.len() as f32])?;
                }
            }
            Op::Concatenate(c) => self.join(c.axis)?,
            Op::Permute(p) => self.permute(&p.dims)?,
            Op::ZeroPadding2D(p) => {
                let ow = self.out.get(1).copied().unwrap_or(1);
                let to = (p.rows[0] * ow + p.columns[0]) * c;
                let (from, steps) = ([0, 0, w * c, c, 1], [0, 0, ow * c, c, 1]);
                self.copy([1, 1, h, w, c], (0, from), (to, steps), Some(0.0))?;
            }
            Op::Cropping2D(p) => {
                let [oh, ow, _] = image(&self.out);
                let from = (p.rows[0] * w + p.columns[0]) * c;
                self.copy([1, 1, oh, ow, c], (from, [0, 0, w * c, c, 1]), (0, [0, 0, ow * c, c, 1]), None)?;
            }
            Op::UpSampling2D(u) if u.interpolation == Interpolation::Nearest => {
                let [fy, fx] = u.size;
                let row = w * fx * c;
                self.copy([h, fy, w, fx, c], (0, [w * c, 0, c, 0, 1]), (0, [fy * row, row, fx * c, c, 1]), None)?;
            }
            Op::UpSampling2D(u) => {
                let factor = [narrow(self.layer, "factor", u.size[0])?, narrow(self.layer, "factor", u.size[1])?];
                let in_dims = dims(self.layer, [h, w, c])?;
                self.list.push(FloatOp::Bilinear { input: self.inputs[0], output: self.output, in_dims, factor });
            }
            Op::MaxPooling2D(p) => self.pool(p.pool.window(&self.shapes[0]), FloatPoolKind::Max, 1.0)?,
            Op::AveragePooling2D(p) => {
                self.pool(p.pool.window(&self.shapes[0]), FloatPoolKind::Average, p.dpu_factor(&self.out))?;
            }
            Op::GlobalAveragePooling2D(p) => {
                self.pool(self.whole(), FloatPoolKind::Average, p.dpu_factor(&self.shapes[0]))?;
            }
            Op::GlobalMaxPooling2D(_) => self.pool(self.whole(), FloatPoolKind::Max, 1.0)?,
            Op::Conv2D(l) => self.conv(l.window(&self.shapes[0]), weights, l.groups, false)?,
            Op::DepthwiseConv2D(l) => self.conv(l.window(&self.shapes[0]), weights, c, false)?,
            Op::Conv2DTranspose(l) => {
                let Some(kernel) = weights.first() else { return Ok(false) };
                let (oc, ic) = (kernel.shape()[2], kernel.shape()[3]);
                let turned = |tap: &[f32]| {
                    (0..ic).flat_map(|i| (0..oc).map(|o| tap[o * ic + i]).collect::<Vec<_>>()).collect::<Vec<_>>()
                };
                let data: Vec<f32> = kernel.data().chunks_exact((oc * ic).max(1)).flat_map(turned).collect();
                let kernel = Tensor::new(kernel.shape().to_vec(), data).unwrap_or_else(|| Tensor::zeros(&[0]));
                let weights: Vec<Tensor> = std::iter::once(kernel).chain(weights.get(1).cloned()).collect();
                self.conv(l.window(&self.shapes[0]), &weights, 1, true)?;
            }
            Op::Dense(_) => self.conv(Ok(Window::POINT), weights, 1, false)?,
            Op::TfOp(f) => return self.function(f),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn function(&mut self, f: &TfOp) -> Result<bool, Error> {
        let Some(elements) = f.elements(self.shapes[0].len()) else { return Ok(false) };
        let operands = f.operands.iter().map(|operand| match operand {
            Operand::Tensor(k) => Ok((self.inputs[*k], self.shapes[*k].clone())),
            Operand::Constant(t) => {
                // A constant has no batch to leave out; one along it is the same for all samples.
                let own = t.shape();
                let own = if own.len() > self.out.len() && own[0] == 1 { &own[1..] } else { own };
                Ok((self.constant(own, t.data())?, own.to_vec()))
            }
        });
        let operands: Vec<(TensorId, Vec<usize>)> = operands.collect::<Result<_, Error>>()?;
        (self.inputs, self.shapes) = operands.into_iter().unzip();
        match elements {
            Elements::Unary(function) => self.map(function),
            Elements::Binary(combines) => {
                for (combine, operand) in combines.into_iter().zip(self.inputs.clone().into_iter().skip(1)) {
                    self.zip(combine, operand);
                }
            }
            Elements::Reshaped => self.map(Function::Identity),
            Elements::Permuted(order) => self.permute(&order)?,
            Elements::Joined(axis) => self.join(axis)?,
        }
        Ok(true)
    }

    /// What the next step reads: the input, or what the steps so far have made of it.
    fn current(&self) -> TensorId {
        if self.list.is_empty() { self.inputs[0] } else { self.output }
    }

    fn axis(&self) -> Result<u32, Error> {
        narrow(self.layer, "last axis", self.shapes[0].last().copied().unwrap_or(1))
    }

    fn map(&mut self, function: Function) {
        self.list.push(FloatOp::Map { input: self.current(), output: self.output, function });
    }

    /// `function` of the result, unless it changes nothing.
    fn map_in_place(&mut self, function: Function) {
        match (self.list.last_mut(), function) {
            (_, Function::Identity) => {}
            // A layer that is nothing but its activation.
            (Some(FloatOp::Map { function: identity @ Function::Identity, .. }), _) => *identity = function,
            _ => self.map(function),
        }
    }

    fn zip(&mut self, combine: Combine, b: TensorId) {
        self.list.push(FloatOp::Zip { a: self.current(), b, output: self.output, combine });
    }

    /// All operands, from left to right.
    fn fold(&mut self, combine: Combine) -> Result<(), Error> {
        if self.inputs.len() == 1 {
            self.map(Function::Identity);
        }
        for operand in self.inputs.clone().into_iter().skip(1) {
            self.zip(combine, operand);
        }
        Ok(())
    }

    /// `combine` with one value, or one for each channel.
    fn with_constant(&mut self, combine: Combine, values: &[f32]) -> Result<(), Error> {
        let constant = self.constant(&[values.len()], values)?;
        self.zip(combine, constant);
        Ok(())
    }

    /// A tensor among the constants.
    fn constant(&mut self, shape: &[usize], values: &[f32]) -> Result<TensorId, Error> {
        let sizes: Option<Vec<u32>> = shape.iter().map(|d| u32::try_from(*d).ok()).collect();
        let shape = sizes.and_then(|s| Shape::new(&s));
        let shape = shape.ok_or_else(|| refuse(self.layer, "a constant of more than 4 dimensions".into()))?;
        let index = self.program.tensors.len();
        let place = Place { region: Region::Constants, offset: self.floats(values)? };
        self.program.tensors.push(ProgramTensor {
            name: format!("{}_constant_{index}", self.layer),
            origin: self.layer.to_owned(),
            shape,
            dtype: DType::F32,
            pos: FixPos(0),
            place,
            role: Role::Inner,
        });
        Ok(TensorId(narrow(self.layer, "number of tensors", index)?))
    }

    /// Floats appended to the constants; their offset.
    fn floats(&mut self, values: &[f32]) -> Result<u32, Error> {
        let constants = &mut self.program.constants;
        constants.resize(constants.len().next_multiple_of(4), 0);
        let at = narrow(self.layer, "offset of its constants", constants.len())?;
        constants.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        Ok(at)
    }

    /// The window of the whole input.
    fn whole(&self) -> Result<Window, String> {
        let [h, w, _] = image(&self.shapes[0]);
        let size = |n: usize| u16::try_from(n).map_err(|_| format!("{n} rows or columns; up to 65535 fit"));
        Ok(Window { kernel: [size(h)?, size(w)?], ..Window::POINT })
    }

    fn pool(&mut self, window: Result<Window, String>, kind: FloatPoolKind, factor: f32) -> Result<(), Error> {
        let window = window.map_err(|text| refuse(self.layer, text))?;
        let in_dims = dims(self.layer, image(&self.shapes[0]))?;
        let size = |axis: usize| narrow(self.layer, "output", window.outputs(axis, in_dims[axis].into()) as usize);
        let out_dims = [size(0)?, size(1)?];
        let (input, output) = (self.inputs[0], self.output);
        self.list.push(FloatOp::Pool(FloatPoolOp { input, output, in_dims, out_dims, window, kind }));
        if factor != 1.0 {
            self.map(Function::Scale(factor));
        }
        Ok(())
    }

    fn conv(
        &mut self,
        window: Result<Window, String>,
        weights: &[Tensor],
        groups: usize,
        transposed: bool,
    ) -> Result<(), Error> {
        let window = window.map_err(|text| refuse(self.layer, text))?;
        let kernel = weights.first().ok_or_else(|| refuse(self.layer, "has no kernel".into()))?;
        let kernel = self.floats(kernel.data())?;
        let bias = weights.get(1).map(|b| self.floats(b.data())).transpose()?;
        self.list.push(FloatOp::Conv(FloatConvOp {
            input: self.inputs[0],
            output: self.output,
            in_dims: dims(self.layer, image(&self.shapes[0]))?,
            out_dims: dims(self.layer, image(&self.out))?,
            window,
            groups: narrow(self.layer, "number of groups", groups)?,
            transposed,
            kernel,
            bias,
        }));
        Ok(())
    }

    fn copy(
        &mut self,
        sizes: [usize; 5],
        (from, steps_in): (usize, [usize; 5]),
        (to, steps_out): (usize, [usize; 5]),
        fill: Option<f32>,
    ) -> Result<(), Error> {
        self.copy_of(self.inputs[0], sizes, (from, steps_in), (to, steps_out), fill)
    }

    fn copy_of(
        &mut self,
        input: TensorId,
        sizes: [usize; 5],
        (from, steps_in): (usize, [usize; 5]),
        (to, steps_out): (usize, [usize; 5]),
        fill: Option<f32>,
    ) -> Result<(), Error> {
        let layer = self.layer;
        let five = |values: [usize; 5]| -> Result<[u32; 5], Error> {
            let mut narrowed = [0; 5];
            for (to, value) in narrowed.iter_mut().zip(values) {
                *to = narrow(layer, "stride", value)?;
            }
            Ok(narrowed)
        };
        let signed = |steps: [u32; 5]| -> Result<[i32; 5], Error> {
            let mut all = [0; 5];
            for (to, value) in all.iter_mut().zip(steps) {
                *to = narrow(layer, "stride", value as usize)?;
            }
            Ok(all)
        };
        self.list.push(FloatOp::Copy(CopyOp {
            input,
            output: self.output,
            sizes: five(sizes)?,
            from: narrow(layer, "offset", from)?,
            steps_in: signed(five(steps_in)?)?,
            to: narrow(layer, "offset", to)?,
            steps_out: five(steps_out)?,
            fill: fill.map(f32::to_bits),
        }));
        Ok(())
    }

    /// Operands behind each other along an axis of the sample.
    fn join(&mut self, axis: usize) -> Result<(), Error> {
        let block = |shape: &[usize]| shape.iter().skip(axis).product::<usize>();
        let (outer, whole) = (self.out.iter().take(axis).product::<usize>(), block(&self.out));
        let mut start = 0;
        for (input, shape) in self.inputs.clone().into_iter().zip(self.shapes.clone()) {
            let part = block(&shape);
            self.copy_of(input, [1, 1, 1, outer, part], (0, [0, 0, 0, part, 1]), (start, [0, 0, 0, whole, 1]), None)?;
            start += part;
        }
        Ok(())
    }

    /// Axis i of the result is axis `order[i]` of the input.
    fn permute(&mut self, order: &[usize]) -> Result<(), Error> {
        if order.len() > 4 || order.len() != self.shapes[0].len() {
            return Err(refuse(self.layer, format!("{} dimensions; up to 4 can be permuted", order.len())));
        }
        let strides =
            |shape: &[usize]| -> Vec<usize> { (1..=shape.len()).map(|i| shape[i..].iter().product()).collect() };
        let (own, out) = (strides(&self.shapes[0]), strides(&self.out));
        let (mut sizes, mut steps_in, mut steps_out) = ([1; 5], [0; 5], [0; 5]);
        for (i, axis) in order.iter().enumerate() {
            (sizes[i], steps_in[i], steps_out[i]) = (self.out[i], own[*axis], out[i]);
        }
        self.copy(sizes, (0, steps_in), (0, steps_out), None)
    }
}
