//! What the weights alone say.

use std::collections::BTreeMap;

use shiftwise_graph::ops::Op;
use shiftwise_integer::graph::{IntConv, IntOp, IntOpKind};
use shiftwise_integer::lower;
use shiftwise_quant::quant_graph::QuantGraph;

/// Largest magnitude of each output channel of a layer's kernel.
pub(super) fn weight_channels(op: &Op) -> Vec<f32> {
    let (kernel, run) = match op {
        Op::Conv2D(c) => (&c.w.kernel, 1),
        Op::Dense(d) => (&d.w.kernel, 1),
        Op::DepthwiseConv2D(d) => (&d.w.kernel, 1),
        Op::Conv2DTranspose(c) => (&c.w.kernel, c.w.kernel.shape().last().copied().unwrap_or(1)),
        _ => return Vec::new(),
    };
    // The last axis, or the last two of a depthwise kernel, are the output channels; of a transposed one the last but one.
    let outputs = match (op, kernel.shape()) {
        (Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_), [.., a, b]) => {
            if run > 1 {
                *a
            } else {
                a * b
            }
        }
        (_, [.., last]) => *last,
        (_, []) => 1,
    };
    let mut most = vec![0f32; outputs.max(1)];
    for (i, w) in kernel.data().iter().enumerate() {
        let channel = i / run % most.len();
        most[channel] = most[channel].max(w.abs());
    }
    most
}

/// Bits of a 32-bit accumulator that no input can reach, by the first of the user's layers: −128 times the sum of the
/// weights' magnitudes, and the bias, bound every sum.
pub(super) fn spare_bits(q: &QuantGraph) -> BTreeMap<String, u32> {
    // What has no integer form has no accumulator.
    let Ok(integers) = lower::lower(q) else { return BTreeMap::new() };
    let bits = |conv: &IntConv| {
        let channels = conv.output[2].max(1);
        let mut sums = vec![0i64; channels];
        for (i, w) in conv.kernel.iter().enumerate() {
            sums[i % channels] += 128 * i64::from(w.unsigned_abs());
        }
        if let Some(bias) = &conv.bias {
            for (sum, b) in sums.iter_mut().zip(bias) {
                *sum += i64::from(b.unsigned_abs()) << conv.shift_bias.clamp(0, 32);
            }
        }
        let most = sums.into_iter().max().unwrap_or(0);
        31u32.saturating_sub(64 - most.leading_zeros())
    };
    let row = |op: &IntOp| match &op.kind {
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => {
            Some((op.layer.split('+').next()?.to_owned(), bits(c)))
        }
        _ => None,
    };
    integers.ops.iter().filter_map(row).collect()
}
