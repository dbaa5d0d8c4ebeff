//! Convolutions, and dense layers as convolutions.

use super::Lowering;
use crate::graph::{IntConv, IntOpKind, image};
use crate::reasons::FloatWhy;
use shiftwise_core::shape::Window;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::Op;

/// The sizes of a convolution.
pub(super) struct Geometry {
    pub(super) window: Window,
    /// Rows, columns and channels.
    pub(super) input: [usize; 3],
    /// Rows, columns and channels.
    pub(super) output: [usize; 3],
    pub(super) groups: usize,
}

/// A transposed convolution's kernel `[taps, outputs, inputs]` as `[taps, inputs, outputs]`.
pub(super) fn outputs_last<T: Copy>(kernel: &[T], shape: &[usize]) -> Vec<T> {
    let (oc, ic) = (shape[2], shape[3]);
    let taps = kernel.chunks_exact((oc * ic).max(1));
    taps.flat_map(|tap| (0..ic).flat_map(move |i| (0..oc).map(move |o| tap[o * ic + i]))).collect()
}

impl Lowering<'_> {
    pub(super) fn conv(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let (input, i) = self.fixed_operand(id, 0)?;
        let mut weights = node.op.layer().weights().into_iter().enumerate().map(|(k, (_, t))| self.integers(id, k, t));
        let (w, mut kernel) = weights.next().ok_or(FloatWhy::NoKernel {})??;
        let bias = weights.next().transpose()?;
        if let Op::Conv2DTranspose(c) = &node.op {
            kernel = outputs_last(&kernel, c.w.kernel.shape());
        }
        let Geometry { window, input: input_dims, output, groups } = self.geometry(id)?;
        let depthwise = matches!(&node.op, Op::DepthwiseConv2D(c) if c.w.kernel.shape()[3] == 1);
        let transposed = matches!(node.op, Op::Conv2DTranspose(_));
        self.fused(id, vec![input], |tail| {
            let o = i32::from(tail.pos.0);
            let conv = IntConv {
                window,
                input: input_dims,
                output,
                kernel: kernel.clone(),
                bias: bias.as_ref().map(|(_, b)| b.clone()),
                groups,
                shift_cut: w + i - o,
                shift_bias: bias.as_ref().map_or(0, |(b, _)| w + i - b),
                act: tail.act,
            };
            match (depthwise, transposed) {
                (true, _) => IntOpKind::Depthwise(conv),
                (_, true) => IntOpKind::ConvTranspose(conv),
                _ => IntOpKind::Conv(conv),
            }
        })
    }

    pub(super) fn geometry(&self, id: NodeId) -> Result<Geometry, FloatWhy> {
        let node = self.q.graph.node(id);
        let from = self.q.graph.node(node.inputs[0]);
        let (input, output) = (image(&from.shape), image(&node.shape));
        let of = |window: Result<Window, String>, groups| {
            window.map(|window| Geometry { window, input, output, groups }).map_err(|text| FloatWhy::Window { text })
        };
        match &node.op {
            Op::Conv2D(c) => of(c.window(&from.shape), c.groups),
            // With several outputs for each channel it is a convolution with a group for each channel.
            Op::DepthwiseConv2D(c) => {
                of(c.window(&from.shape), if c.w.kernel.shape()[3] == 1 { 1 } else { c.w.kernel.shape()[2] })
            }
            Op::Conv2DTranspose(c) => of(c.window(&from.shape), 1),
            _ => {
                // A dense layer over a flattened map is a convolution with a kernel of the map's size, if a window has
                // such a size.
                let map = match (&from.op, &from.inputs[..]) {
                    (Op::Flatten(_), [map]) => image(&self.q.graph.node(*map).shape),
                    _ => input,
                };
                let flattened = match (u16::try_from(map[0]), u16::try_from(map[1])) {
                    (Ok(h), Ok(w)) if from.shape.len() == 1 => Some([h, w]),
                    _ => None,
                };
                let window = Window { kernel: flattened.unwrap_or([1, 1]), ..Window::POINT };
                Ok(Geometry { window, input: if flattened.is_some() { map } else { input }, output, groups: 1 })
            }
        }
    }
}
