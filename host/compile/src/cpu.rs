//! Target `cpu`: every op is a CPU step; memory is planned to be as small as possible.

mod floats;

use shiftwise_core::cpu::{MAX_OPERANDS, Rows};
use shiftwise_core::model::{
    Act, ConvOp, CpuOp, MultiplyOp, PReluOp, PadOp, PermuteOp, PoolKind, PoolOp, SoftmaxOp, UpSampleOp,
};
use shiftwise_core::shape::{Shape, Window};

use crate::memory::{Policy, Sharing};
use crate::operand::{broadcasts, dims, id, narrow, position, refuse, shape, shift_i8};
use crate::pack;
use crate::program::{Engine, LayerRow, Program, ProgramStep};
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{ConvKind, IntConv, IntGraph, IntOp, IntOpKind, image};

/// Largest left shift of an operand of a sum on the CPU.
const MAX_READ_SHIFT: u32 = 20;

/// How [`compile`] lays a network out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Inputs and outputs in regions of their own. Default: all tensors share the workspace, where an input's memory is
    /// used again after its last reader; a run then destroys its inputs.
    pub separate_io: bool,
}

/// Compiles a network for processors without a DPU.
///
/// Errors: [`Error::Compile`], naming the layer, where a dimension or an accumulator does not fit.
pub fn compile(graph: &IntGraph, options: &CpuOptions) -> Result<Program, Error> {
    let mut sharing = Sharing::of(graph, Policy { separate_io: options.separate_io, in_place: true })?;
    for (step, op) in (1..).zip(&graph.ops) {
        if let Some(rows) = rows(graph, op)? {
            sharing.follow(op, step, &rows);
        }
    }
    let mut program = Program::new(graph, "cpu", 0, &sharing.lay_out(4)?)?;
    for op in &graph.ops {
        let before = program.constants.len();
        let steps = lower(graph, op, &mut program)?;
        program.layers.push(LayerRow {
            constant_bytes: (program.constants.len() - before) as u64,
            ..LayerRow::new(graph, op, Engine::Cpu, Some(program.steps.len()))
        });
        program.steps.extend(steps);
    }
    // Fast kernels read weights in words: with this the last ones are no exception.
    if !program.constants.is_empty() {
        program.constants.resize(program.constants.len().next_multiple_of(4) + 4, 0);
    }
    Ok(program)
}

/// How an op goes down the rows of its input; `None` for one that takes it as a whole.
fn rows(graph: &IntGraph, op: &IntOp) -> Result<Option<Rows>, Error> {
    let layer = op.layer.as_str();
    Ok(match &op.kind {
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) => {
            Rows::new(dims(layer, c.input)?, dims(layer, c.output)?, c.window)
        }
        IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => {
            Rows::of(&CpuOp::Pool(pool(graph, op, window, PoolKind::Max, 0)?))
        }
        _ => None,
    })
}

/// One op as CPU steps, of which the last one completes its tensor; its weights are appended to the program's constants.
pub(crate) fn lower(graph: &IntGraph, op: &IntOp, program: &mut Program) -> Result<Vec<ProgramStep>, Error> {
    if let IntOpKind::Float { op: float, weights, why } = &op.kind {
        return floats::lower(graph, op, (float, weights, why), program);
    }
    step(graph, op, &mut program.constants).map(|step| vec![step])
}

/// An op with integers as one step.
fn step(graph: &IntGraph, op: &IntOp, constants: &mut Vec<u8>) -> Result<ProgramStep, Error> {
    let layer = op.layer.as_str();
    let arity = |n: usize| {
        (op.inputs.len() == n)
            .then_some(())
            .ok_or_else(|| refuse(layer, format!("{} operands instead of {n}", op.inputs.len())))
    };
    match &op.kind {
        IntOpKind::Add { shift_read: s, .. } => arity(s.len())?,
        IntOpKind::Concat { shifts, .. } => arity(shifts.len())?,
        IntOpKind::Multiply { .. } => arity(2)?,
        IntOpKind::Float { .. } => {}
        _ => arity(1)?,
    }
    let input = op.inputs.first().map_or(op.output, |t| *t);
    let (from, to) = (id(input)?, id(op.output)?);
    let step = match &op.kind {
        IntOpKind::Float { .. } | IntOpKind::FakeQuantize(_) => {
            return Err(refuse(layer, "is quantized to a grid that has no kernel here".into()));
        }
        IntOpKind::Conv(c) if c.groups > 1 && c.groups == c.input[2] => {
            // Every output sees one input channel.
            CpuOp::Depthwise(conv(layer, graph, op, c, constants, ConvKind::Dense)?)
        }
        IntOpKind::Conv(c) => CpuOp::Conv(conv(layer, graph, op, c, constants, ConvKind::Dense)?),
        IntOpKind::Depthwise(c) => CpuOp::Depthwise(conv(layer, graph, op, c, constants, ConvKind::Depthwise)?),
        IntOpKind::ConvTranspose(c) => {
            CpuOp::ConvTranspose(conv(layer, graph, op, c, constants, ConvKind::Transposed)?)
        }
        IntOpKind::MaxPool { window, shift, act } => CpuOp::Pool(PoolOp {
            act: pack::act(layer, *act, position(graph, op.output), *shift)?,
            ..pool(graph, op, window, PoolKind::Max, *shift)?
        }),
        IntOpKind::AveragePool { window, m, shift, act } => CpuOp::Pool(PoolOp {
            act: pack::act(layer, *act, position(graph, op.output), *shift)?,
            ..pool(graph, op, window, PoolKind::Average(*m), *shift)?
        }),
        IntOpKind::Add { shift_read, shift_write, act } => {
            if op.inputs.len() > MAX_OPERANDS {
                return Err(refuse(layer, format!("{} operands; up to {MAX_OPERANDS} can be added", op.inputs.len())));
            }
            if let Some(shift) = shift_read.iter().find(|s| **s > MAX_READ_SHIFT) {
                let text = format!("operands whose positions differ by {shift}; up to {MAX_READ_SHIFT} fit 32 bits");
                return Err(refuse(layer, text));
            }
            let shift_read = shift_read.iter().map(|s| *s as u8).collect();
            let inputs = op.inputs.iter().map(|t| id(*t)).collect::<Result<Vec<_>, _>>()?;
            return Ok(ProgramStep::Add {
                inputs,
                shift_read,
                output: to,
                act: pack::act(layer, *act, position(graph, op.output), *shift_write)?,
                shift_write: shift_i8(layer, *shift_write)?,
            });
        }
        IntOpKind::Multiply { shift, act } => {
            let out = shape(graph, op.output);
            if let Some(t) = op.inputs.iter().find(|t| !broadcasts(shape(graph, **t), out)) {
                return Err(refuse(layer, format!("{:?} does not broadcast to {out:?}", shape(graph, *t))));
            }
            CpuOp::Multiply(MultiplyOp {
                inputs: [id(op.inputs[0])?, id(op.inputs[1])?],
                output: to,
                shift: shift_i8(layer, *shift)?,
                act: pack::act(layer, *act, position(graph, op.output), *shift)?,
            })
        }
        IntOpKind::Concat { axis, shifts } => {
            return Ok(ProgramStep::Concat {
                inputs: op.inputs.iter().map(|t| id(*t)).collect::<Result<_, _>>()?,
                shifts: shifts.iter().map(|s| Ok(shift_i8(layer, *s)? as u8)).collect::<Result<_, Error>>()?,
                output: to,
                axis: narrow(layer, "axis", *axis)?,
            });
        }
        IntOpKind::UpSample { factor, shift } => CpuOp::UpSample(UpSampleOp {
            input: from,
            output: to,
            in_dims: dims(layer, image(shape(graph, input)))?,
            factor: [narrow(layer, "factor", factor[0])?, narrow(layer, "factor", factor[1])?],
            shift: shift_i8(layer, *shift)?,
        }),
        IntOpKind::HardSigmoid { shift } => {
            let pos = position(graph, input);
            if !(0..=15).contains(&pos.0) {
                return Err(refuse(layer, format!("a hard sigmoid of position {pos}, outside 0..=15")));
            }
            CpuOp::HardSigmoid { input: from, output: to, shift: shift_i8(layer, *shift)? }
        }
        IntOpKind::Pad { before, after } => {
            let sides = |p: &[usize; 2]| Ok([narrow(layer, "padding", p[0])?, narrow(layer, "padding", p[1])?]);
            CpuOp::Pad(PadOp {
                input: from,
                output: to,
                in_dims: dims(layer, image(shape(graph, input)))?,
                before: sides(before)?,
                after: sides(after)?,
            })
        }
        IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => {
            let own = alpha_shape.iter().product::<usize>();
            if !broadcasts(alpha_shape, shape(graph, op.output)) || own != alpha.len() {
                return Err(refuse(layer, format!("slopes of shape {alpha_shape:?} do not broadcast to its input")));
            }
            let sizes: Vec<u32> = alpha_shape.iter().map(|d| *d as u32).collect();
            let at = narrow(layer, "offset of the slopes", constants.len())?;
            constants.extend(alpha.iter().map(|a| *a as u8));
            CpuOp::PRelu(PReluOp {
                input: from,
                output: to,
                alpha: at,
                alpha_shape: Shape::new(&sizes).ok_or_else(|| refuse(layer, "more than 4 dimensions".into()))?,
                shift_positive: shift_i8(layer, *shift_positive)?,
                shift_negative: shift_i8(layer, *shift_negative)?,
            })
        }
        IntOpKind::Permute { dims } => {
            let mut axes = [0; 4];
            if dims.len() > axes.len() {
                return Err(refuse(layer, format!("{} dimensions; up to 4 can be permuted", dims.len())));
            }
            for (to, axis) in axes.iter_mut().zip(dims) {
                *to = narrow(layer, "axis", *axis)?;
            }
            CpuOp::Permute(PermuteOp { input: from, output: to, axes })
        }
        IntOpKind::View => CpuOp::View { input: from, output: to },
        IntOpKind::Requantize { shift, act } => CpuOp::Requantize {
            input: from,
            output: to,
            shift: shift_i8(layer, *shift)?,
            act: pack::act(layer, *act, position(graph, op.output), *shift)?,
        },
        IntOpKind::Softmax => {
            let axis = shape(graph, input).last().copied().unwrap_or(1);
            CpuOp::Softmax(SoftmaxOp { input: from, output: to, axis: narrow(layer, "softmax axis", axis)? })
        }
        IntOpKind::Quantize => CpuOp::Quantize { input: from, output: to },
        IntOpKind::Dequantize => CpuOp::Dequantize { input: from, output: to },
    };
    Ok(ProgramStep::Cpu(step))
}

fn conv(
    layer: &str,
    graph: &IntGraph,
    op: &IntOp,
    c: &IntConv,
    constants: &mut Vec<u8>,
    kind: ConvKind,
) -> Result<ConvOp, Error> {
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

fn pool(graph: &IntGraph, op: &IntOp, window: &Window, kind: PoolKind, shift: i32) -> Result<PoolOp, Error> {
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
