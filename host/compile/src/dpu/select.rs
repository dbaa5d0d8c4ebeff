//! Ops of the integer form as layers of DPU engines, one arm per op.

mod conv;
mod elementwise;
mod moves;
mod pool;
mod transposed;

use shiftwise_core::isa::alu_mode;

use crate::dpu::context::{Context, Way};
use crate::operand::position;
use crate::reason::Reason;
use shiftwise_integer::graph::{IntOp, IntOpKind, Kind, TensorIx};
use shiftwise_integer::lower::why_float;

use self::pool::Pooling;

/// Ways to do `op`, at least one, or why the DPU can't do it.
pub(crate) fn select(cx: &Context<'_>, op: &IntOp) -> Result<Vec<Way>, Reason> {
    let Some(&input) = op.inputs.first() else { return Err(Reason::NoOperands {}) };
    let fixed = |t: &TensorIx| cx.graph.tensors.get(t.0).is_some_and(|t| matches!(t.kind, Kind::Fixed(_)));
    if !matches!(op.kind, IntOpKind::Float { .. } | IntOpKind::Softmax)
        && !op.inputs.iter().chain([&op.output]).all(fixed)
    {
        return Err(Reason::NoFloats {});
    }
    let pos = position(cx.graph, op.output);
    let one = |plan: Result<Way, Reason>| plan.map(|p| vec![p]);
    match &op.kind {
        IntOpKind::Conv(c) => cx.conv(op, c, input, pos),
        IntOpKind::Depthwise(c) => one(cx.depthwise(op, c, input, pos)),
        IntOpKind::ConvTranspose(c) => one(cx.transposed(op, c, input, pos)),
        IntOpKind::MaxPool { window, shift, act } if *shift < 0 => one(cx.max_and_shift(op, window, *shift, *act)),
        IntOpKind::MaxPool { window, shift, act } => {
            one(cx.pool(op, window, &Pooling { mode: alu_mode::MAX_POOL, factor: 0, shift: *shift, act: *act }))
        }
        IntOpKind::AveragePool { window, m, shift, act } => one(cx.pool(
            op,
            window,
            &Pooling { mode: alu_mode::AVG_POOL, factor: (*m).into(), shift: *shift, act: *act },
        )),
        IntOpKind::Add { shift_read, shift_write, act } => one(cx.sum(op, shift_read.clone(), *shift_write, *act)),
        IntOpKind::Multiply { shift, act } => one(cx.multiply(op, *shift, *act)),
        IntOpKind::Requantize { shift, act } => one(cx.requantize(op, *shift, *act)),
        IntOpKind::HardSigmoid { shift } => one(cx.hard_sigmoid(op, *shift)),
        IntOpKind::Concat { axis, shifts } => one(cx.concat(op, *axis, shifts)),
        IntOpKind::UpSample { factor, shift } => one(cx.upsample(op, *factor, *shift)),
        IntOpKind::Pad { before, after } => one(cx.pad(op, *before, *after)),
        IntOpKind::Permute { dims } => one(cx.permute(op, dims)),
        IntOpKind::PRelu { .. } => Err(Reason::PRelu {}),
        IntOpKind::Softmax => Err(Reason::Softmax {}),
        IntOpKind::Float { why, .. } => Err(Reason::Float { why: why.clone() }),
        IntOpKind::FakeQuantize(q) => Err(why_float(q).map_or(Reason::NoFloats {}, |why| Reason::Float { why })),
        IntOpKind::Scaled(_) | IntOpKind::Quantize | IntOpKind::Dequantize => Err(Reason::NoFloats {}),
        IntOpKind::View => Err(Reason::View {}),
    }
}
