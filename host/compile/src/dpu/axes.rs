//! Axes and dimensions of tensors as the DPU's maps have them.

use crate::operand::shape;
use crate::reason::Reason;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, TensorIx, image};

/// A tensor's dimensions as `[h, w, c]`.
pub(crate) fn dims(graph: &IntGraph, t: TensorIx) -> Result<[u32; 3], Reason> {
    narrow(image(shape(graph, t)))
}

pub(crate) fn narrow(dims: [usize; 3]) -> Result<[u32; 3], Reason> {
    // 65535 a side and 29 bits in all keep every address of the map in 32 bits.
    let [h, w, c] = dims;
    if dims.iter().any(|d| *d == 0 || *d > 0xFFFF) || h * w * c > 1 << 29 {
        return Err(Reason::Map { dims });
    }
    Ok(dims.map(|d| d as u32))
}

/// An axis of a shape of `rank` dimensions as one of `[h, w, c]`.
pub(crate) fn image_axis(rank: usize, axis: usize) -> Result<usize, Reason> {
    match rank {
        0..=3 => Ok(axis + 3 - rank),
        _ => Err(Reason::Rank { rank }),
    }
}

/// Whether an op reads or writes `t` as anything but the map of its shape.
pub(crate) fn needs_dense(graph: &IntGraph, op: &IntOp, t: TensorIx) -> bool {
    let alike = |u: TensorIx| dims(graph, u).ok() == dims(graph, t).ok();
    match &op.kind {
        IntOpKind::Permute { .. } | IntOpKind::View => true,
        IntOpKind::Add { .. } | IntOpKind::Requantize { .. } | IntOpKind::HardSigmoid { .. } => !alike(op.output),
        IntOpKind::Multiply { .. } => !alike(op.output) && dims(graph, t).is_ok_and(|d| d[..2] != [1, 1]),
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => {
            narrow(if t == op.output { c.output } else { c.input }).ok() != dims(graph, t).ok()
        }
        IntOpKind::MaxPool { .. }
        | IntOpKind::AveragePool { .. }
        | IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Softmax
        | IntOpKind::Float { .. }
        | IntOpKind::Scaled(_)
        | IntOpKind::FakeQuantize(_)
        | IntOpKind::Quantize
        | IntOpKind::Dequantize => false,
    }
}
