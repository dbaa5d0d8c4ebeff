//! Dead and constant channels: what a convolution computes for them doesn't depend on its kernel.
//!
//! A normalization over a channel without variance leaves, once it is folded, a kernel of enormous weights whose result
//! never gets through the ReLU behind it. One such channel coarsens the grid of the whole kernel. Here its kernel becomes
//! zero and its bias the value that the channel always has: exact on the calibration data, and elsewhere wrong by no more
//! than what other data would have got through. The margin says how far that is away.

use serde::Serialize;

use crate::calibrate::Batches;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points, Samples};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op, Weighted};
use shiftwise_tensor::tensor::Tensor;

/// Channels of one layer that were folded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DeadChannels {
    /// The layer.
    pub layer: String,
    /// Channels that a ReLU lets nothing of through.
    pub dead: usize,
    /// Channels with one value other than that.
    pub constant: usize,
    /// How far below zero the dead channels stay at least, in units of the layer's result. `None` without any.
    pub margin: Option<f32>,
    /// The largest weight of the layer before and after.
    pub largest: [f32; 2],
}

/// Least and largest value of each channel.
#[derive(Clone, Debug)]
struct Range {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Range {
    fn new(channels: usize) -> Self {
        Self { low: vec![f32::INFINITY; channels], high: vec![f32::NEG_INFINITY; channels] }
    }

    fn see(&mut self, tensor: &Tensor) {
        for pixel in tensor.data().chunks_exact(self.low.len().max(1)) {
            self.low.iter_mut().zip(pixel).for_each(|(low, v)| *low = low.min(*v));
            self.high.iter_mut().zip(pixel).for_each(|(high, v)| *high = high.max(*v));
        }
    }
}

/// A convolution or dense layer whose channels are looked at.
#[derive(Debug)]
struct Watched {
    layer: NodeId,
    /// The ReLU behind it that is a layer; the activation attribute otherwise.
    activation: Option<NodeId>,
    /// Before the activation.
    linear: Range,
    /// Behind it.
    result: Range,
}

struct Watch {
    all: Vec<Watched>,
}

impl Points for Watch {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        for own in &mut self.all {
            match point {
                Point::PreActivation(id) if id == own.layer => own.linear.see(tensor),
                Point::Output(id) if id == own.activation.unwrap_or(own.layer) => own.result.see(tensor),
                Point::PreActivation(_) | Point::PostActivation(_) | Point::Output(_) | Point::Input(..) => {}
            }
        }
        Ok(())
    }
}

/// Whether negative values become zero.
fn clips(op: &Op) -> bool {
    match op {
        Op::Relu(r) => r.negative_slope == 0.0 && r.threshold == 0.0,
        Op::Activation(a) => matches!(a.function, ActivationFn::Relu | ActivationFn::Relu6),
        op => matches!(op.layer().activation(), ActivationFn::Relu | ActivationFn::Relu6),
    }
}

/// Channels of a layer with weights.
fn channels(node: &shiftwise_graph::graph::Node) -> usize {
    node.shape.last().copied().unwrap_or(0)
}

/// What is watched: every layer with a kernel and a ReLU that alone reads it, or a bias. A transposed convolution has its
/// channels elsewhere and is left alone.
fn watched(graph: &Graph) -> Vec<Watched> {
    let (uses, consumers) = (graph.uses(), graph.consumers());
    let of = |id: NodeId| {
        let node = graph.node(id);
        if !graph.is_candidate(id) || node.shared.is_some() {
            return None;
        }
        let (Op::Conv2D(_) | Op::DepthwiseConv2D(_) | Op::Dense(_)) = node.op else { return None };
        let behind = match consumers.get(id.0).map(Vec::as_slice) {
            Some(&[only]) if uses[id.0] == 1 && clips(&graph.node(only).op) => match graph.node(only).op {
                Op::Relu(_) | Op::Activation(_) => Some(only),
                _ => None,
            },
            _ => None,
        };
        let linear = node.op.layer().activation();
        (behind.is_some() || clips(&node.op) || linear == ActivationFn::Linear).then(|| Watched {
            layer: id,
            activation: behind,
            linear: Range::new(channels(node)),
            result: Range::new(channels(node)),
        })
    };
    graph.ids().filter_map(of).collect()
}

/// Zeroes the kernels of dead and constant channels; returns where.
///
/// The data is run through the graph once, batch by batch. Errors: those of the run, and data without samples.
pub(crate) fn fold_dead_channels(
    graph: &mut Graph,
    samples: &dyn Samples,
    batches: &Batches,
) -> Result<Vec<DeadChannels>, Error> {
    let mut watch = Watch { all: watched(graph) };
    let weights: Vec<Vec<Tensor>> =
        graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect();
    for (start, count) in batches.parts(samples.len())? {
        eval::run(graph, &weights, samples.batch(start, count)?, &mut watch)?;
    }
    let mut folded = Vec::new();
    for own in &watch.all {
        let clipped = own.activation.is_some() || clips(&graph.node(own.layer).op);
        let name = graph.node(own.layer).name.clone();
        if let Some(weighted) = graph.node_mut(own.layer).op.weighted_mut()
            && let Some(found) = fold(weighted, own, clipped)
        {
            folded.push(DeadChannels { layer: name, ..found });
        }
    }
    Ok(folded)
}

/// The largest weight.
fn largest(kernel: &Tensor) -> f32 {
    kernel.data().iter().fold(0.0, |most, k| most.max(k.abs()))
}

/// Folds the channels of one layer. The channel is the last index of every kernel here; that of a depthwise one is made of
/// its last two.
fn fold(w: &mut Weighted, own: &Watched, clipped: bool) -> Option<DeadChannels> {
    let before = largest(&w.kernel);
    let count = own.linear.low.len();
    let (mut dead, mut constant, mut margin) = (0, 0, None);
    for c in 0..count {
        let (low, high) = (own.result.low[c], own.result.high[c]);
        let has_kernel = w.kernel.data().iter().skip(c).step_by(count).any(|k| *k != 0.0);
        if low != high || !has_kernel {
            continue;
        }
        // A constant other than zero needs a bias to stand in; without activation the bias is that constant.
        let is_dead = clipped && high == 0.0 && own.linear.high[c] < 0.0;
        match &mut w.bias {
            Some(bias) => bias.data_mut()[c] = high,
            None if high == 0.0 => {}
            None => continue,
        }
        w.kernel.data_mut().iter_mut().skip(c).step_by(count).for_each(|k| *k = 0.0);
        if is_dead {
            dead += 1;
            let distance = -own.linear.high[c];
            margin = Some(margin.map_or(distance, |m: f32| m.min(distance)));
        } else {
            constant += 1;
        }
    }
    let largest = [before, largest(&w.kernel)];
    (dead + constant > 0).then(|| DeadChannels { layer: String::new(), dead, constant, margin, largest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_graph::eval::run_float;
    use shiftwise_graph::ops::{Dense, Input, Relu};

    /// Channels: alive, dead by −2 at least, always 3, without weights.
    fn network() -> Graph {
        let mut graph = Graph::default();
        let x = graph.add("x", Op::Input(Input { shape: vec![2] }), vec![], vec![]).unwrap();
        let kernel = Tensor::new(vec![2, 4], vec![1.0, 50.0, 0.0, 0.0, -1.0, 50.0, 7.0, 0.0]).unwrap();
        let w = Weighted {
            kernel,
            bias: Some(Tensor::vector(vec![0.5, -102.0, 3.0, 1.0])),
            activation: ActivationFn::Linear,
        };
        let dense = graph.add("dense", Op::Dense(Dense { w }), vec![x], vec![]).unwrap();
        let relu = Relu { max_value: None, negative_slope: 0.0, threshold: 0.0 };
        let relu = graph.add("relu", Op::Relu(relu), vec![dense], vec![]).unwrap();
        (graph.inputs, graph.outputs) = (vec![x], vec![relu]);
        graph
    }

    #[test]
    fn dead_and_constant_channels_lose_their_kernels_and_nothing_else_changes() {
        let mut graph = network();
        let x = Tensor::new(vec![3, 2], vec![2.0, 0.0, 1.0, 0.0, 0.5, 0.0]).unwrap();
        let before = run_float(&graph, vec![x.clone()]).unwrap();
        let batches = Batches { size: 2, most: None, vote: true };
        let found = fold_dead_channels(&mut graph, &vec![x.clone()], &batches).unwrap();
        assert_eq!(
            found,
            [DeadChannels { layer: "dense".into(), dead: 1, constant: 1, margin: Some(2.0), largest: [50.0, 1.0] }]
        );
        assert_eq!(run_float(&graph, vec![x]).unwrap(), before);
    }
}
