//! Layers in floats as steps on the CPU: what the strategy leaves float, and what has no integer form.
//!
//! Each step computes exactly what the layer's evaluation does, in its order; constants become tensors of their own.

use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{
    Combine, CopyOp, CpuOp, DType, FloatConvOp, FloatOp, FloatPoolKind, FloatPoolOp, Function, Place, ProductOp,
    Region, ResizeOp, Role, RowFunction, RowsOp, SoftmaxOp, TensorId,
};
use shiftwise_core::shape::{Shape, Window};

use crate::operand::{dims, id, narrow, refuse, shape};
use crate::program::{Program, ProgramStep, ProgramTensor};
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::tfop::Elements;
use shiftwise_graph::ops::{ActivationFn, Dot, Interpolation, Op, Operand, TfOp};
use shiftwise_integer::graph::{IntGraph, IntOp, image};
use shiftwise_integer::reasons::FloatWhy;
use shiftwise_tensor::tensor::Tensor;

mod layers;

/// The steps of `op`, which is a `layer` in floats with these weights.
///
/// Errors: [`Error::Compile`] with the layer's name where there is no kernel for it, and why it is float.
pub(crate) fn lower(
    graph: &IntGraph,
    op: &IntOp,
    (float, weights, why): (&Op, &[Tensor], &FloatWhy),
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
        ActivationFn::Softmax => steps.last_axis(RowFunction::Softmax)?,
        ActivationFn::LogSoftmax => steps.last_axis(RowFunction::LogSoftmax)?,
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
    fn function(&mut self, f: &TfOp) -> Result<bool, Error> {
        let sample = match f.operands.first() {
            Some(Operand::Tensor(k)) => self.shapes[*k].clone(),
            Some(Operand::Constant(t)) => t.shape().get(1..).unwrap_or_default().to_vec(),
            None => return Ok(false),
        };
        let Some(elements) = f.elements(&sample) else { return Ok(false) };
        let matrices = matches!(elements, Elements::Product(_));
        let operands = f.operands.iter().map(|operand| match operand {
            Operand::Tensor(k) => Ok((self.inputs[*k], self.shapes[*k].clone())),
            Operand::Constant(t) => {
                // A constant has no batch to leave out; one along it is the same for all samples.
                let own = t.shape();
                let batched = own.len() > self.out.len().max(if matrices { 2 } else { 0 }) && own[0] == 1;
                let own = if batched { &own[1..] } else { own };
                Ok((self.constant(own, t.data())?, own.to_vec()))
            }
        });
        let operands: Vec<(TensorId, Vec<usize>)> = operands.collect::<Result<_, Error>>()?;
        (self.inputs, self.shapes) = operands.into_iter().unzip();
        match elements {
            Elements::Unary(functions) => {
                self.map(Function::Identity);
                functions.into_iter().for_each(|function| self.map_in_place(function));
            }
            Elements::Binary(combines) => {
                for (combine, operand) in combines.into_iter().zip(self.inputs.clone().into_iter().skip(1)) {
                    self.zip(combine, operand);
                }
            }
            Elements::Reshaped => self.map(Function::Identity),
            Elements::Permuted(order) => self.permute(&order)?,
            Elements::Joined(axis) => self.join(axis)?,
            Elements::Stacked(axis) => {
                self.shapes.iter_mut().for_each(|shape| shape.insert(axis, 1));
                self.join(axis)?;
            }
            Elements::Sliced(parts) => self.slice(&parts)?,
            Elements::Padded(widths, value) => self.pad(&widths, value)?,
            Elements::Reduced(kind, axes) => self.reduce(kind, &axes)?,
            Elements::Rows(function, axis) => {
                let [outer, n, inner] = Dot::blocks(&self.shapes[0], axis);
                self.rows([outer, inner, 1, n], [n * inner, 1, 0, inner], function)?;
            }
            Elements::Gathered(axis, indices) => self.gather(axis, &indices)?,
            Elements::Blocks(block, to_pixels) => self.blocks(block, to_pixels)?,
            Elements::Product(transpose) => self.matrices(transpose)?,
            Elements::Resized(size, method) => self.resize(size, method)?,
        }
        Ok(true)
    }

    /// What the next step reads: the input, or what the steps so far have made of it.
    fn current(&self) -> TensorId {
        if self.list.is_empty() { self.inputs[0] } else { self.output }
    }

    /// A function of rows along the last axis of the result.
    fn last_axis(&mut self, function: RowFunction) -> Result<(), Error> {
        let n = self.out.last().copied().unwrap_or(1).max(1);
        // A layer that is nothing but this function.
        if matches!(self.list[..], [FloatOp::Map { function: Function::Identity, .. }]) {
            self.list.clear();
        }
        self.rows([self.out.iter().product::<usize>() / n, 1, 1, n], [n, 0, 0, 1], function)
    }

    /// See [`RowsOp`].
    fn rows(&mut self, sizes: [usize; 4], steps: [usize; 4], function: RowFunction) -> Result<(), Error> {
        let (sizes, steps) = (self.all("row", sizes)?, self.all("stride", steps)?);
        self.list.push(FloatOp::Rows(RowsOp { input: self.current(), output: self.output, sizes, steps, function }));
        Ok(())
    }

    fn resize(&mut self, size: [usize; 2], method: Interpolation) -> Result<(), Error> {
        let in_dims = dims(self.layer, image(&self.shapes[0]))?;
        let out_dims = [narrow(self.layer, "height", size[0])?, narrow(self.layer, "width", size[1])?];
        if method == Interpolation::Bicubic {
            return Err(refuse(self.layer, "a bicubic resizing that is not two products of matrices".into()));
        }
        let (input, output, nearest) = (self.inputs[0], self.output, method == Interpolation::Nearest);
        self.list.push(FloatOp::Resize(ResizeOp { input, output, in_dims, out_dims, nearest }));
        Ok(())
    }

    fn reduce(&mut self, kind: FloatPoolKind, axes: &[usize]) -> Result<(), Error> {
        let rank = self.shapes[0].len();
        if rank > 4 {
            return Err(refuse(self.layer, format!("{rank} dimensions; up to 4 can be folded")));
        }
        let axes = axes.iter().fold(0, |mask, axis| mask | 1 << (axis + 4 - rank));
        self.list.push(FloatOp::Reduce { input: self.inputs[0], output: self.output, axes, kind });
        Ok(())
    }

    /// See [`ProductOp`].
    fn product(&mut self, sizes: [usize; 5], steps_a: [usize; 5], steps_b: [usize; 5]) -> Result<(), Error> {
        self.list.push(FloatOp::Product(ProductOp {
            a: self.inputs[0],
            b: self.inputs[1],
            output: self.output,
            sizes: self.all("matrix", sizes)?,
            steps_a: self.all("stride", steps_a)?,
            steps_b: self.all("stride", steps_b)?,
        }));
        Ok(())
    }

    /// Product of the matrices in the last two axes of both operands; up to two axes before them broadcast.
    fn matrices(&mut self, transpose: [bool; 2]) -> Result<(), Error> {
        // A sample of one dimension is a row: the batch is the other.
        let four = |shape: &[usize]| -> Option<[usize; 4]> {
            let mut four = [1; 4];
            four.get_mut(4usize.checked_sub(shape.len())?..)?.copy_from_slice(shape);
            Some(four)
        };
        let (Some(a), Some(b)) = (four(&self.shapes[0]), four(&self.shapes[1])) else {
            return Err(refuse(self.layer, "matrices of more than 4 dimensions".into()));
        };
        // Elements from one index to the next: two leading axes, rows, columns.
        let steps = |[i, j, rows, columns]: [usize; 4], turned: bool| {
            let matrix = rows * columns;
            let lead = [if i == 1 { 0 } else { j * matrix }, if j == 1 { 0 } else { matrix }];
            (lead, if turned { [1, columns] } else { [columns, 1] })
        };
        let ((lead_a, [row, depth_a]), (lead_b, [depth_b, column])) = (steps(a, transpose[0]), steps(b, transpose[1]));
        let (m, k) = if transpose[0] { (a[3], a[2]) } else { (a[2], a[3]) };
        let n = if transpose[1] { b[2] } else { b[3] };
        let sizes = [a[0].max(b[0]), a[1].max(b[1]), m, n, k];
        self.product(sizes, [lead_a[0], lead_a[1], row, 0, depth_a], [lead_b[0], lead_b[1], 0, column, depth_b])
    }

    /// Along each axis `count` elements from `start`, `step` apart.
    fn slice(&mut self, parts: &[(usize, usize, isize)]) -> Result<(), Error> {
        let own = strides(&self.shapes[0]);
        let to = strides(&parts.iter().map(|(_, count, _)| *count).collect::<Vec<_>>());
        let from = parts.iter().zip(&own).map(|((start, ..), stride)| start * stride).sum();
        let along = |i: usize| (parts[i].1, parts[i].2 * own[i].cast_signed(), to[i]);
        self.strided((0..parts.len()).map(along).collect(), from, 0, None)
    }

    /// Elements along an axis, in runs of a constant distance.
    fn gather(&mut self, axis: usize, indices: &[usize]) -> Result<(), Error> {
        let [outer, n, inner] = Dot::blocks(&self.shapes[0], axis);
        let mut start = 0;
        while start < indices.len() {
            let step = indices.get(start + 1).map_or(0, |next| next.cast_signed() - indices[start].cast_signed());
            let run = indices[start..].windows(2).take_while(|w| w[1].cast_signed() - w[0].cast_signed() == step);
            let count = run.count() + 1;
            let axes = vec![
                (outer, (n * inner).cast_signed(), indices.len() * inner),
                (count, step * inner.cast_signed(), inner),
                (inner, 1, 1),
            ];
            self.strided(axes, indices[start] * inner, start * inner, None)?;
            start += count;
        }
        Ok(())
    }

    /// Blocks of channels as blocks of pixels, or the reverse.
    fn blocks(&mut self, b: usize, to_pixels: bool) -> Result<(), Error> {
        // The side with many channels is [h, w, b, b, c], the other [h, b, w, b, c]; the last two lie together in both.
        let deep = if to_pixels { &self.shapes[0] } else { &self.out };
        let [h, w, whole] = image(deep);
        let run = whole / b.max(1);
        let (channels, pixels) = ([w * whole, run, whole, 1], [b * w * run, w * run, run, 1]);
        let (from, to) = if to_pixels { (channels, pixels) } else { (pixels, channels) };
        let sizes = [h, b, w, run];
        self.strided((0..4).map(|i| (sizes[i], from[i].cast_signed(), to[i])).collect(), 0, 0, None)
    }

    fn pad(&mut self, widths: &[(usize, usize)], value: f32) -> Result<(), Error> {
        let (own, to) = (strides(&self.shapes[0]), strides(&self.out));
        let start = widths.iter().zip(&to).map(|((before, _), stride)| before * stride).sum();
        let along = |i: usize| (self.shapes[0][i], own[i].cast_signed(), to[i]);
        self.strided((0..widths.len()).map(along).collect(), 0, start, Some(value))
    }

    /// Numbers that must fit 32 bits.
    fn all<const N: usize>(&self, what: &str, values: [usize; N]) -> Result<[u32; N], Error> {
        let mut narrowed = [0; N];
        for (to, value) in narrowed.iter_mut().zip(values) {
            *to = narrow(self.layer, what, value)?;
        }
        Ok(narrowed)
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
        let along = |i: usize| (sizes[i], steps_in[i].cast_signed(), steps_out[i]);
        self.strided((0..5).map(along).collect(), from, to, fill)
    }

    /// A copy along axes of (size, step of the input, step of the output).
    fn strided(
        &mut self,
        axes: Vec<(usize, isize, usize)>,
        from: usize,
        to: usize,
        fill: Option<f32>,
    ) -> Result<(), Error> {
        if axes.len() > 5 {
            return Err(refuse(self.layer, format!("{} dimensions; up to 5 can be moved", axes.len())));
        }
        let (mut sizes, mut steps_in, mut steps_out) = ([1; 5], [0; 5], [0; 5]);
        for (i, (size, step_in, step_out)) in axes.into_iter().enumerate() {
            (sizes[i], steps_out[i]) = (size, step_out);
            steps_in[i] = i32::try_from(step_in)
                .map_err(|_| refuse(self.layer, format!("a stride of {step_in} elements; 32 bits fit")))?;
        }
        self.list.push(FloatOp::Copy(CopyOp {
            input: self.inputs[0],
            output: self.output,
            sizes: self.all("size", sizes)?,
            from: narrow(self.layer, "offset", from)?,
            steps_in,
            to: narrow(self.layer, "offset", to)?,
            steps_out: self.all("stride", steps_out)?,
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
            self.inputs[0] = input;
            self.copy([1, 1, 1, outer, part], (0, [0, 0, 0, part, 1]), (start, [0, 0, 0, whole, 1]), None)?;
            start += part;
        }
        Ok(())
    }

    /// Axis i of the result is axis `order[i]` of the input.
    fn permute(&mut self, order: &[usize]) -> Result<(), Error> {
        let (own, out) = (strides(&self.shapes[0]), strides(&self.out));
        let along = |(axis, from): (usize, &usize)| (self.out[axis], own[*from].cast_signed(), out[axis]);
        self.strided(order.iter().enumerate().map(along).collect(), 0, 0, None)
    }
}

/// Elements from one index to the next along each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    (1..=shape.len()).map(|i| shape[i..].iter().product()).collect()
}
