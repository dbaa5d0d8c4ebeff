//! One op with integers as one CPU step.

use shiftwise_core::cpu::MAX_OPERANDS;
use shiftwise_core::model::{
    Act, ConvOp, CpuOp, MultiplyOp, PReluOp, PadOp, PermuteOp, PoolKind, PoolOp, SoftmaxOp, TensorId, UpSampleOp,
};
use shiftwise_core::shape::{Shape, Window};
use shiftwise_core::shift::SIGMOID_POSITIONS;

use crate::operand::{broadcasts, dims, id, narrow, position, refuse, shape, shift_i8};
use crate::pack;
use crate::program::ProgramStep;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv, IntGraph, IntOp, IntOpKind, TensorIx, image};

/// Largest left shift of an operand of a sum on the CPU.
const MAX_READ_SHIFT: u32 = 20;

/// An op with integers as one step; its weights are appended to `constants`.
///
/// Errors: [`Error::Compile`], naming the layer, where a dimension, a shift or an accumulator does not fit.
pub(crate) fn step(graph: &IntGraph, op: &IntOp, constants: &mut Vec<u8>) -> Result<ProgramStep, Error> {
    if let Some(n) = op.kind.operands().filter(|n| *n != op.inputs.len()) {
        return Err(refuse(&op.layer, format!("{} operands instead of {n}", op.inputs.len())));
    }
    let input = op.inputs.first().map_or(op.output, |t| *t);
    Lowering { graph, op, input, from: id(input)?, to: id(op.output)?, constants }.step()
}

/// An op on its way to a step.
struct Lowering<'a> {
    graph: &'a IntGraph,
    op: &'a IntOp,
    /// First operand, in the graph and in the program.
    input: TensorIx,
    from: TensorId,
    /// Result.
    to: TensorId,
    constants: &'a mut Vec<u8>,
}

impl Lowering<'_> {
    fn step(mut self) -> Result<ProgramStep, Error> {
        let (input, output) = (self.from, self.to);
        let step = match &self.op.kind {
            IntOpKind::Float { .. } | IntOpKind::FakeQuantize(_) | IntOpKind::Scaled(_) => {
                return Err(self.refuse("is quantized to a grid that has no kernel here"));
            }
            IntOpKind::Add { shift_read, shift_write, act } => return self.add(shift_read, *shift_write, *act),
            IntOpKind::Concat { axis, shifts } => return self.concat(*axis, shifts),
            // Every output sees one input channel.
            IntOpKind::Conv(c) if c.groups > 1 && c.groups == c.input[2] => {
                CpuOp::Depthwise(self.conv(c, ConvKind::Dense)?)
            }
            IntOpKind::Conv(c) => CpuOp::Conv(self.conv(c, ConvKind::Dense)?),
            IntOpKind::Depthwise(c) => CpuOp::Depthwise(self.conv(c, ConvKind::Depthwise)?),
            IntOpKind::ConvTranspose(c) => CpuOp::ConvTranspose(self.conv(c, ConvKind::Transposed)?),
            IntOpKind::MaxPool { window, shift, act } => self.pool(window, PoolKind::Max, *shift, *act)?,
            IntOpKind::AveragePool { window, m, shift, act } => {
                self.pool(window, PoolKind::Average(*m), *shift, *act)?
            }
            IntOpKind::Multiply { shift, act } => self.multiply(*shift, *act)?,
            IntOpKind::UpSample { factor, shift } => self.upsample(*factor, *shift)?,
            IntOpKind::HardSigmoid { shift } => self.hard_sigmoid(*shift)?,
            IntOpKind::Pad { before, after } => self.pad(*before, *after)?,
            IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => {
                self.prelu((alpha, alpha_shape), *shift_positive, *shift_negative)?
            }
            IntOpKind::Permute { dims } => self.permute(dims)?,
            IntOpKind::View => CpuOp::View { input, output },
            IntOpKind::Requantize { shift, act } => {
                CpuOp::Requantize { input, output, shift: self.shift(*shift)?, act: self.act(*act, *shift)? }
            }
            IntOpKind::Softmax => {
                let axis = shape(self.graph, self.input).last().copied().unwrap_or(1);
                CpuOp::Softmax(SoftmaxOp { input, output, axis: narrow(&self.op.layer, "softmax axis", axis)? })
            }
            IntOpKind::Quantize => CpuOp::Quantize { input, output },
            IntOpKind::Dequantize => CpuOp::Dequantize { input, output },
        };
        Ok(ProgramStep::Cpu(step))
    }

    fn refuse(&self, text: impl Into<String>) -> Error {
        refuse(&self.op.layer, text.into())
    }

    fn shift(&self, shift: i32) -> Result<i8, Error> {
        shift_i8(&self.op.layer, shift)
    }

    fn act(&self, act: IntAct, shift: i32) -> Result<Act, Error> {
        pack::act(&self.op.layer, act, position(self.graph, self.op.output), shift)
    }

    fn inputs(&self) -> Result<Vec<TensorId>, Error> {
        self.op.inputs.iter().map(|t| id(*t)).collect()
    }

    /// The first operand as `[h, w, c]`.
    fn in_dims(&self) -> Result<[u16; 3], Error> {
        dims(&self.op.layer, image(shape(self.graph, self.input)))
    }

    fn add(&self, shift_read: &[u32], shift_write: i32, act: IntAct) -> Result<ProgramStep, Error> {
        if self.op.inputs.len() > MAX_OPERANDS {
            return Err(self.refuse(format!("{} operands; up to {MAX_OPERANDS} can be added", self.op.inputs.len())));
        }
        if let Some(shift) = shift_read.iter().find(|s| **s > MAX_READ_SHIFT) {
            let text = format!("operands whose positions differ by {shift}; up to {MAX_READ_SHIFT} fit 32 bits");
            return Err(self.refuse(text));
        }
        Ok(ProgramStep::Add {
            inputs: self.inputs()?,
            shift_read: shift_read.iter().map(|s| *s as u8).collect(),
            output: self.to,
            act: self.act(act, shift_write)?,
            shift_write: self.shift(shift_write)?,
        })
    }

    fn concat(&self, axis: usize, shifts: &[i32]) -> Result<ProgramStep, Error> {
        Ok(ProgramStep::Concat {
            inputs: self.inputs()?,
            shifts: shifts.iter().map(|s| Ok(self.shift(*s)? as u8)).collect::<Result<_, Error>>()?,
            output: self.to,
            axis: narrow(&self.op.layer, "axis", axis)?,
        })
    }

    fn multiply(&self, shift: i32, act: IntAct) -> Result<CpuOp<'static>, Error> {
        let out = shape(self.graph, self.op.output);
        if let Some(t) = self.op.inputs.iter().find(|t| !broadcasts(shape(self.graph, **t), out)) {
            return Err(self.refuse(format!("{:?} does not broadcast to {out:?}", shape(self.graph, *t))));
        }
        Ok(CpuOp::Multiply(MultiplyOp {
            inputs: [id(self.op.inputs[0])?, id(self.op.inputs[1])?],
            output: self.to,
            shift: self.shift(shift)?,
            act: self.act(act, shift)?,
        }))
    }

    fn upsample(&self, [y, x]: [usize; 2], shift: i32) -> Result<CpuOp<'static>, Error> {
        let factor = |f| narrow(&self.op.layer, "factor", f);
        Ok(CpuOp::UpSample(UpSampleOp {
            input: self.from,
            output: self.to,
            in_dims: self.in_dims()?,
            factor: [factor(y)?, factor(x)?],
            shift: self.shift(shift)?,
        }))
    }

    fn hard_sigmoid(&self, shift: i32) -> Result<CpuOp<'static>, Error> {
        let pos = position(self.graph, self.input);
        if !SIGMOID_POSITIONS.contains(&pos.0.into()) {
            return Err(self.refuse(format!("a hard sigmoid of position {pos}, outside {SIGMOID_POSITIONS:?}")));
        }
        Ok(CpuOp::HardSigmoid { input: self.from, output: self.to, shift: self.shift(shift)? })
    }

    fn pad(&self, before: [usize; 2], after: [usize; 2]) -> Result<CpuOp<'static>, Error> {
        let side = |p: usize| narrow(&self.op.layer, "padding", p);
        Ok(CpuOp::Pad(PadOp {
            input: self.from,
            output: self.to,
            in_dims: self.in_dims()?,
            before: [side(before[0])?, side(before[1])?],
            after: [side(after[0])?, side(after[1])?],
        }))
    }

    fn prelu(
        &mut self,
        (alpha, alpha_shape): (&[i8], &[usize]),
        shift_positive: i32,
        shift_negative: i32,
    ) -> Result<CpuOp<'static>, Error> {
        let own = alpha_shape.iter().product::<usize>();
        if !broadcasts(alpha_shape, shape(self.graph, self.op.output)) || own != alpha.len() {
            return Err(self.refuse(format!("slopes of shape {alpha_shape:?} do not broadcast to its input")));
        }
        let sizes: Vec<u32> = alpha_shape.iter().map(|d| *d as u32).collect();
        let at = narrow(&self.op.layer, "offset of the slopes", self.constants.len())?;
        self.constants.extend(alpha.iter().map(|a| *a as u8));
        Ok(CpuOp::PRelu(PReluOp {
            input: self.from,
            output: self.to,
            alpha: at,
            alpha_shape: Shape::new(&sizes).ok_or_else(|| self.refuse("more than 4 dimensions"))?,
            shift_positive: self.shift(shift_positive)?,
            shift_negative: self.shift(shift_negative)?,
        }))
    }

    fn permute(&self, order: &[usize]) -> Result<CpuOp<'static>, Error> {
        let mut axes = [0; 4];
        if order.len() > axes.len() {
            return Err(self.refuse(format!("{} dimensions; up to 4 can be permuted", order.len())));
        }
        for (to, axis) in axes.iter_mut().zip(order) {
            *to = narrow(&self.op.layer, "axis", *axis)?;
        }
        Ok(CpuOp::Permute(PermuteOp { input: self.from, output: self.to, axes }))
    }

    fn pool(&self, window: &Window, kind: PoolKind, shift: i32, act: IntAct) -> Result<CpuOp<'static>, Error> {
        let act = self.act(act, shift)?;
        Ok(CpuOp::Pool(PoolOp { act, ..pool(self.graph, self.op, window, kind, shift)? }))
    }

    fn conv(&mut self, c: &IntConv, kind: ConvKind) -> Result<ConvOp, Error> {
        conv(self.graph, self.op, c, self.constants, kind)
    }
}

fn conv(graph: &IntGraph, op: &IntOp, c: &IntConv, constants: &mut Vec<u8>, kind: ConvKind) -> Result<ConvOp, Error> {
    let layer = op.layer.as_str();
    pack::check(layer, c, kind)?;
    // Every output sees one input channel.
    let depthwise = kind == ConvKind::Depthwise || c.groups > 1 && c.groups == c.input[2];
    let packed = if depthwise { c.kernel.clone() } else { pack::by_output(c) };
    let per_output = packed.len() / c.output[2].max(1);
    if per_output > 1 << 16 {
        let text = format!("{per_output} products for one output; a 32-bit accumulator holds up to 65536");
        return Err(refuse(layer, text));
    }
    let fine = pack::fine_bits(c);
    let bias = pack::bias_i32(layer, c, &pack::reach(&packed, c.output[2], depthwise))?;
    constants.resize(constants.len().next_multiple_of(4), 0);
    let bias_at = narrow(layer, "offset of the bias", constants.len())?;
    let has_bias = bias.is_some();
    constants.extend(bias.into_iter().flatten().flat_map(i32::to_le_bytes));
    let kernel = narrow(layer, "offset of the kernel", constants.len())?;
    constants.extend(packed.iter().map(|w| *w as u8));
    Ok(ConvOp {
        input: id(op.inputs[0])?,
        output: id(op.output)?,
        in_dims: dims(layer, c.input)?,
        out_dims: dims(layer, c.output)?,
        window: c.window,
        groups: if depthwise { 1 } else { narrow(layer, "number of groups", c.groups)? },
        kernel,
        bias: has_bias.then_some(bias_at),
        fine: fine as u8,
        shift_cut: shift_i8(layer, c.shift_cut + fine as i32)?,
        act: pack::act(layer, c.act, position(graph, op.output), c.shift_cut + fine as i32)?,
    })
}

/// A pooling layer, without its activation.
pub(crate) fn pool(graph: &IntGraph, op: &IntOp, window: &Window, kind: PoolKind, shift: i32) -> Result<PoolOp, Error> {
    let layer = op.layer.as_str();
    let input = op.inputs[0];
    let in_dims = dims(layer, image(shape(graph, input)))?;
    if !window.is_valid() {
        return Err(refuse(layer, "a pooling window without taps or strides".into()));
    }
    let outputs = [0, 1].map(|axis| window.outputs(axis, in_dims[axis].into()) as usize);
    let [h, w, _] = dims(layer, [outputs[0], outputs[1], 1])?;
    for axis in [0, 1] {
        let last = (outputs[axis].max(1) - 1) * usize::from(window.stride[axis]);
        let inside = last < usize::from(in_dims[axis]) + usize::from(window.pad_before[axis]);
        if window.dilation[axis] != 1 || u32::from(window.pad_before[axis]) >= window.extent(axis) || !inside {
            return Err(refuse(layer, "a pooling window that is dilated or lies wholly in the padding".into()));
        }
    }
    let pool = PoolOp {
        input: id(input)?,
        output: id(op.output)?,
        in_dims,
        out_dims: [h, w],
        window: *window,
        kind,
        shift: shift_i8(layer, shift)?,
        act: Act::None,
    };
    let [rows, columns] = window.kernel;
    let large = || refuse(layer, format!("an average over {rows}x{columns} pixels leaves a 32-bit accumulator"));
    pool.fits_accumulator().then_some(pool).ok_or_else(large)
}
