//! Target `cpu`: every op is a CPU step; memory is planned to be as small as possible.

use shiftwise_core::cpu::MAX_OPERANDS;
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{Act, ConvOp, CpuOp, PoolKind, PoolOp, SoftmaxOp, TensorId};
use shiftwise_core::shape::Window;

use super::pack;
use super::plan::{Policy, Sharing};
use super::program::{Engine, LayerRow, Program, ProgramStep, op_name};
use crate::Error;
use crate::integer::{IntConv, IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};

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
    let sharing = Sharing::of(graph, Policy { separate_io: options.separate_io, in_place: true })?;
    let layout = sharing.lay_out(4)?;
    let mut program = Program::new(graph, "cpu", 0, &layout)?;
    for op in &graph.ops {
        let before = program.constants.len();
        let step = lower(graph, op, &mut program.constants)?;
        program.layers.push(LayerRow {
            constant_bytes: (program.constants.len() - before) as u64,
            ..LayerRow::new(graph, op, Engine::Cpu, Some(program.steps.len()))
        });
        program.steps.push(step);
    }
    Ok(program)
}

/// One op as a CPU step; its weights are appended to `constants`.
pub(super) fn lower(graph: &IntGraph, op: &IntOp, constants: &mut Vec<u8>) -> Result<ProgramStep, Error> {
    let layer = op.layer.as_str();
    let arity = |n: usize| {
        (op.inputs.len() == n)
            .then_some(())
            .ok_or_else(|| refuse(layer, format!("{} operands instead of {n}", op.inputs.len())))
    };
    if !matches!(
        op.kind,
        IntOpKind::Add { .. } | IntOpKind::Multiply { .. } | IntOpKind::Concat { .. } | IntOpKind::Float { .. }
    ) {
        arity(1)?;
    }
    let input = op.inputs.first().map_or(op.output, |t| *t);
    let (from, to) = (id(input)?, id(op.output)?);
    let step = match &op.kind {
        IntOpKind::Float { op: float, why, .. } => {
            return Err(refuse(
                layer,
                format!("{} is computed in floats and has no kernel here: {why}", float.class()),
            ));
        }
        IntOpKind::FakeQuantize(_) => {
            return Err(refuse(layer, "is quantized to a grid that has no kernel here".into()));
        }
        IntOpKind::Conv(c) => CpuOp::Conv(conv(layer, graph, op, c, constants, false)?),
        IntOpKind::Depthwise(c) => CpuOp::Depthwise(conv(layer, graph, op, c, constants, true)?),
        IntOpKind::MaxPool { window, shift, act } => CpuOp::Pool(PoolOp {
            act: pack::act(layer, *act, position(graph, op.output), *shift)?,
            ..pool(graph, op, window, PoolKind::Max, *shift)?
        }),
        IntOpKind::AveragePool { window, m, shift, act } => CpuOp::Pool(PoolOp {
            act: pack::act(layer, *act, position(graph, op.output), *shift)?,
            ..pool(graph, op, window, PoolKind::Average(*m), *shift)?
        }),
        IntOpKind::Add { shift_read, shift_write, act } => {
            arity(shift_read.len())?;
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
                shift_write: narrow(layer, "shift", *shift_write)?,
            });
        }
        IntOpKind::ConvTranspose(_)
        | IntOpKind::Multiply { .. }
        | IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. } => {
            return Err(refuse(layer, format!("{} has no kernel here yet", op_name(&op.kind))));
        }
        IntOpKind::View => CpuOp::View { input: from, output: to },
        IntOpKind::Requantize { shift, act } => CpuOp::Requantize {
            input: from,
            output: to,
            shift: narrow(layer, "shift", *shift)?,
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
    depthwise: bool,
) -> Result<ConvOp, Error> {
    pack::check(layer, c, depthwise)?;
    let packed = if depthwise { c.kernel.clone() } else { pack::by_output(layer, c)? };
    let per_output = packed.len() / c.output[2].max(1);
    if per_output > 1 << 16 {
        let text = format!("{per_output} products for one output; a 32-bit accumulator holds up to 65536");
        return Err(refuse(layer, text));
    }
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
        kernel,
        bias: has_bias.then_some(bias_at),
        shift_cut: narrow(layer, "shift_cut", c.shift_cut)?,
        act: pack::act(layer, c.act, position(graph, op.output), c.shift_cut)?,
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
    Ok(PoolOp {
        input: id(input)?,
        output: id(op.output)?,
        in_dims,
        out_dims: [h, w],
        window: *window,
        kind,
        shift: narrow(layer, "shift", shift)?,
        act: Act::None,
    })
}

fn refuse(layer: &str, text: String) -> Error {
    Error::Compile(format!("layer `{layer}`: {text}"))
}

/// A tensor's shape.
pub(super) fn shape(graph: &IntGraph, t: TensorIx) -> &[usize] {
    graph.tensors.get(t.0).map_or(&[], |t| &t.shape)
}

/// Fraction bits of an integer tensor; 0 for floats.
pub(super) fn position(graph: &IntGraph, t: TensorIx) -> FixPos {
    match graph.tensors.get(t.0).map(|t| t.kind) {
        Some(Kind::Fixed(pos)) => pos,
        _ => FixPos(0),
    }
}

fn id(t: TensorIx) -> Result<TensorId, Error> {
    u16::try_from(t.0).map(TensorId).map_err(|_| Error::Compile("more than 65535 tensors".into()))
}

fn dims(layer: &str, d: [usize; 3]) -> Result<[u16; 3], Error> {
    let [h, w, c] = d;
    Ok([narrow(layer, "height", h)?, narrow(layer, "width", w)?, narrow(layer, "number of channels", c)?])
}

/// A number in the width that the deployable gives it.
fn narrow<T, U>(layer: &str, what: &str, value: T) -> Result<U, Error>
where
    U: TryFrom<T>,
    T: Copy + std::fmt::Display,
{
    U::try_from(value)
        .map_err(|_| Error::Compile(format!("layer `{layer}`: {what} {value} is too large for a deployable")))
}
