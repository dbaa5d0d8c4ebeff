//! Batch normalization into weights.

use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, BatchNormalization, DepthwiseConv2D, Op, Padding, Weighted};
use shiftwise_tensor::tensor::Tensor;

/// Folds a normalization into the convolution or dense layer before it:
/// kernel · m along the output channels, bias = beta + (bias − mean) · m, with m = gamma / sqrt(variance + epsilon).
///
/// The convolution keeps its name. Skipped when it has an activation or other readers.
pub(super) fn fold_conv_bn(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for id in graph.ids() {
        let Op::BatchNormalization(bn) = graph.node(id).op.clone() else { continue };
        let [conv] = graph.node(id).inputs[..] else { continue };
        let inside = graph.is_candidate(id) && graph.is_candidate(conv);
        if graph.uses()[conv.0] != 1 || !inside {
            continue;
        }
        let transposed = matches!(graph.node(conv).op, Op::Conv2DTranspose(_));
        let Some(w) = graph.node_mut(conv).op.weighted_mut() else { continue };
        if w.activation == ActivationFn::Linear {
            fold(w, &bn, transposed);
            graph.remove(id);
        }
    }
    Ok(())
}

/// Kernel and bias with a normalization in them. The output channels of a transposed convolution are the last axis but one.
pub(crate) fn fold(w: &mut Weighted, bn: &BatchNormalization, transposed: bool) {
    let mult = bn.multiplier();
    // Output channels are the fastest axes of the kernels: [.., oc], and [kh, kw, c, m] with channel c·m + i; but the last
    // but one of a transposed convolution: [kh, kw, oc, ic].
    let run = if transposed { w.kernel.shape()[3] } else { 1 };
    w.kernel.data_mut().chunks_exact_mut(mult.len() * run).for_each(|tap| {
        tap.chunks_exact_mut(run).zip(&mult).for_each(|(channel, m)| channel.iter_mut().for_each(|k| *k *= m));
    });
    let (mean, beta) = (bn.mean.data(), bn.offset());
    let bias = (0..mult.len()).map(|c| {
        let centred = w.bias.as_ref().map_or(-mean[c], |b| b.data()[c] - mean[c]);
        beta[c] + centred * mult[c]
    });
    w.bias = Some(Tensor::vector(bias.collect()));
}

/// The convolution before a normalization that is trained together with it: what `train_with_bn` keeps apart.
pub(crate) fn trained_with(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let (Op::BatchNormalization(_), [conv]) = (&graph.node(id).op, &graph.node(id).inputs[..]) else { return None };
    let conv = *conv;
    let inside = graph.is_candidate(id) && graph.is_candidate(conv) && graph.uses()[conv.0] == 1;
    let kind = matches!(graph.node(conv).op, Op::Conv2D(_) | Op::DepthwiseConv2D(_));
    (inside && kind && graph.node(conv).op.layer().activation() == ActivationFn::Linear).then_some(conv)
}

/// Turns a normalization of an image that could not be folded into a 1×1 depthwise convolution of the same name.
///
/// On other shapes it stays a normalization: a depthwise convolution needs rows and columns.
pub(super) fn convert_bn_to_dwconv(graph: &mut Graph, _: &Strategy) -> Result<(), Error> {
    for node in graph.nodes.iter_mut().filter(|n| !n.excluded) {
        let Op::BatchNormalization(bn) = &node.op else { continue };
        if node.shape.len() != 3 {
            continue;
        }
        let mult = bn.multiplier();
        let bias = bn.offset().iter().zip(bn.mean.data()).zip(&mult).map(|((b, m), k)| b - m * k).collect();
        let channels = mult.len();
        let Some(kernel) = Tensor::new(vec![1, 1, channels, 1], mult) else { continue };
        node.op = Op::DepthwiseConv2D(DepthwiseConv2D {
            w: Weighted { kernel, bias: Some(Tensor::vector(bias)), activation: ActivationFn::Linear },
            strides: [1, 1],
            dilation: [1, 1],
            padding: Padding::Valid,
        });
        node.extras.clear();
    }
    Ok(())
}
