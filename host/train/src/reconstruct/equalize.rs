//! Equalization that knows the ranges of activations: channels are scaled so that rounding does the least harm.
//!
//! Tensors that must have one scale for each channel are a *set*: what a convolution gives, what ReLUs, poolings, padding and
//! sums make of it, up to the convolutions that read it. Multiplying channel c of a set by s is exact if the kernels that
//! write it are multiplied and those that read it divided by s. The error of rounding then is, summed over channels,
//!
//! ```text
//! t² / s² · (Σ δ²(activations) + Σ δ²(biases) + Σ δ²(writers) · energy of their inputs) + s² · m² · Σ δ²(readers)
//! ```
//!
//! with the steps δ of the tensors' grids, the squared weights t² of readers and the mean square m² of the channel. Each
//! channel takes the s at which that is least, within what lets no grid become coarser. A ReLU that clips at a maximum leaves
//! a channel alone that reaches it on the calibration data, and lets no other come near it.

use rayon::prelude::*;

use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Points, Samples};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op};
use shiftwise_tensor::tensor::Tensor;

use crate::subjects::float_weights;

/// Times that all sets are visited: each time the grids have become finer.
const ROUNDS: usize = 20;

/// How close to its maximum a ReLU's channel may be scaled.
const NEAR_MAXIMUM: f32 = 0.85;

/// Scales of one visit, at most and at least.
const STRONGEST: f64 = 8.0;

/// What is seen of each channel of a layer's result.
#[derive(Clone, Debug)]
struct Seen {
    largest: Vec<f32>,
    /// Mean square.
    power: Vec<f64>,
    count: usize,
}

/// Sees the results of all layers.
struct Watch {
    all: Vec<Option<Seen>>,
}

impl Points for Watch {
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        let channels = tensor.shape().last().copied().unwrap_or(0);
        let Some(Some(seen)) = self.all.get_mut(id.0) else { return };
        if channels == 0 || channels != seen.largest.len() {
            return;
        }
        // Samples side by side, then in order: the same sums for any number of threads.
        let per = tensor.data().len() / tensor.shape().first().copied().unwrap_or(1).max(1);
        let part = |sample: &[f32]| {
            let (mut largest, mut sums) = (vec![0.0f32; channels], vec![0.0f32; channels]);
            let mut totals = vec![0.0f64; channels];
            for (k, pixel) in sample.chunks_exact(channels).enumerate() {
                largest.iter_mut().zip(pixel).for_each(|(l, v)| *l = l.max(v.abs()));
                sums.iter_mut().zip(pixel).for_each(|(s, v)| *s += v * v);
                if k % 64 == 63 {
                    totals.iter_mut().zip(&mut sums).for_each(|(t, s)| *t += f64::from(std::mem::take(s)));
                }
            }
            totals.iter_mut().zip(&sums).for_each(|(t, s)| *t += f64::from(*s));
            (largest, totals)
        };
        let parts: Vec<(Vec<f32>, Vec<f64>)> = tensor.data().par_chunks_exact(per.max(1)).map(part).collect();
        for (largest, sums) in parts {
            seen.largest.iter_mut().zip(largest).for_each(|(l, v)| *l = l.max(v));
            seen.power.iter_mut().zip(sums).for_each(|(p, v)| *p += v);
        }
        seen.count += tensor.data().len() / channels;
    }
    fn wants(&self, id: NodeId) -> bool {
        self.all.get(id.0).is_some_and(Option::is_some)
    }
}

/// Layers whose results share the scales of their channels.
#[derive(Clone, Debug, Default)]
struct Set {
    /// All of them.
    members: Vec<NodeId>,
    /// Layers with kernels among them.
    writers: Vec<NodeId>,
    /// Layers with kernels that read them, each with the member that it reads.
    readers: Vec<(NodeId, NodeId)>,
    /// Something cannot be scaled.
    fixed: bool,
}

/// What scales of a layer's channels mean to it.
enum Kind {
    /// It has a kernel: its result is scaled apart from its input.
    Kernel,
    /// It has no kernel, and scaling its inputs scales its result.
    Passes,
    /// Anything else.
    Fixed,
}

/// The maximum at which an activation clips.
fn maximum(op: &Op) -> Option<f32> {
    match op {
        Op::Relu(relu) => relu.max_value,
        Op::Activation(own) if own.function == ActivationFn::Relu6 => Some(6.0),
        op if op.layer().activation() == ActivationFn::Relu6 => Some(6.0),
        _ => None,
    }
}

/// Whether scaling by positive factors goes through a function.
fn scales(function: ActivationFn) -> bool {
    matches!(function, ActivationFn::Linear | ActivationFn::Relu | ActivationFn::Relu6 | ActivationFn::LeakyRelu)
}

fn kind(op: &Op) -> Kind {
    match op {
        Op::Conv2D(conv) if conv.groups == 1 && scales(conv.w.activation) => Kind::Kernel,
        Op::DepthwiseConv2D(conv) if scales(conv.w.activation) => Kind::Kernel,
        Op::Dense(dense) if scales(dense.w.activation) => Kind::Kernel,
        Op::Relu(relu) if relu.threshold == 0.0 => Kind::Passes,
        Op::Activation(own) if scales(own.function) => Kind::Passes,
        Op::LeakyRelu(_) | Op::Add(_) | Op::MaxPooling2D(_) | Op::AveragePooling2D(_) => Kind::Passes,
        Op::GlobalAveragePooling2D(_) | Op::ZeroPadding2D(_) => Kind::Passes,
        _ => Kind::Fixed,
    }
}

/// The sets of a graph, those of more than one layer with kernels.
fn sets(graph: &Graph) -> Vec<Set> {
    // Which set a layer's result is in, by the first layer of the set.
    let mut root: Vec<usize> = (0..graph.nodes.len()).collect();
    fn find(root: &mut [usize], mut id: usize) -> usize {
        while root[id] != id {
            root[id] = root[root[id]];
            id = root[id];
        }
        id
    }
    let (mut fixed, mut reads) = (vec![false; graph.nodes.len()], Vec::new());
    for id in graph.ids() {
        let node = graph.node(id);
        let kind = if graph.is_candidate(id) && node.shared.is_none() { kind(&node.op) } else { Kind::Fixed };
        match kind {
            Kind::Kernel => reads.extend(node.inputs.iter().map(|input| (id, *input))),
            Kind::Passes => {
                for input in &node.inputs {
                    fixed[input.0] |= graph.node(*input).shape.last() != node.shape.last();
                    let (a, b) = (find(&mut root, input.0), find(&mut root, id.0));
                    root[a.max(b)] = a.min(b);
                }
            }
            Kind::Fixed => {
                fixed[id.0] = true;
                node.inputs.iter().for_each(|input| fixed[input.0] = true);
            }
        }
    }
    graph.outputs.iter().for_each(|id| fixed[id.0] = true);
    let mut sets: Vec<Set> = vec![Set::default(); graph.nodes.len()];
    for id in graph.ids() {
        let set = &mut sets[find(&mut root, id.0)];
        set.members.push(id);
        set.fixed |= fixed[id.0];
        if graph.node(id).op.weighted().is_some() {
            set.writers.push(id);
        }
    }
    for (reader, member) in reads {
        sets[find(&mut root, member.0)].readers.push((reader, member));
    }
    sets.retain(|set| !set.fixed && !set.writers.is_empty() && !set.readers.is_empty());
    sets
}

/// One side of a kernel: for each channel the largest weight and the sum of squares.
struct Side {
    largest: Vec<f32>,
    squares: Vec<f64>,
}

/// Where the channel of a kernel's element is: `element / inner % count`.
fn channel(op: &Op, reads: bool) -> (usize, usize) {
    let shape = op.weighted().map_or(&[][..], |w| w.kernel.shape());
    match (op, shape, reads) {
        (Op::DepthwiseConv2D(_), [.., channels, multiplier], true) => (*multiplier, *channels),
        (Op::DepthwiseConv2D(_), [.., channels, multiplier], false) => (1, channels * multiplier),
        (_, [.., inputs, outputs], true) => (*outputs, *inputs),
        (_, [.., outputs], false) => (1, *outputs),
        (_, _, _) => (1, 1),
    }
}

fn side(op: &Op, reads: bool) -> Side {
    let (inner, count) = channel(op, reads);
    let mut side = Side { largest: vec![0.0; count], squares: vec![0.0; count] };
    for (i, v) in op.weighted().iter().flat_map(|w| w.kernel.data()).enumerate() {
        let c = i / inner % count;
        side.largest[c] = side.largest[c].max(v.abs());
        side.squares[c] += f64::from(*v) * f64::from(*v);
    }
    side
}

/// Equalizes all sets of a graph by what its layers give for the samples.
///
/// Errors: those of running the graph.
pub(super) fn equalize(graph: &mut Graph, samples: &dyn Samples, batches: &[(usize, usize)]) -> Result<(), Error> {
    let sets = sets(graph);
    let mut all = vec![None; graph.nodes.len()];
    let readers_inputs = sets.iter().flat_map(|set| set.writers.iter().flat_map(|id| graph.node(*id).inputs.clone()));
    for id in sets.iter().flat_map(|set| set.members.iter().copied()).chain(readers_inputs) {
        let channels = graph.node(id).shape.last().copied().unwrap_or(0);
        all[id.0] = Some(Seen { largest: vec![0.0; channels], power: vec![0.0; channels], count: 0 });
    }
    let mut watch = Watch { all };
    let weights = float_weights(graph);
    for (start, count) in batches {
        eval::run(graph, &weights, samples.batch(*start, *count)?, &mut watch)?;
    }
    let mut seen = watch.all;
    for seen in seen.iter_mut().flatten() {
        seen.power.iter_mut().for_each(|p| *p /= seen.count.max(1) as f64);
    }
    let behind = graph.consumers();
    for _ in 0..ROUNDS {
        for set in &sets {
            let scales = best_scales(graph, set, &seen, &behind);
            apply(graph, set, &mut seen, &scales);
        }
    }
    Ok(())
}

/// What each channel's writers may not do and what their rounding costs.
struct Sums {
    /// Squared weights of readers.
    read: Vec<f64>,
    /// What rounding before the readers adds, at their input.
    before: Vec<f64>,
    /// What rounding the readers' weights adds, over s².
    weights: Vec<f64>,
    /// Bounds of s.
    low: Vec<f64>,
    high: Vec<f64>,
}

/// The scales of a set's channels, 1 where nothing is won.
fn best_scales(graph: &Graph, set: &Set, seen: &[Option<Seen>], behind: &[Vec<NodeId>]) -> Vec<f64> {
    let channels = set.members.first().and_then(|id| graph.node(*id).shape.last()).copied().unwrap_or(0);
    let zeros = || vec![0.0f64; channels];
    let mut sums = Sums {
        read: zeros(),
        before: zeros(),
        weights: zeros(),
        low: vec![1.0 / STRONGEST; channels],
        high: vec![STRONGEST; channels],
    };
    for id in &set.members {
        let Some(Some(seen)) = seen.get(id.0) else { continue };
        // What only an activation reads is not rounded.
        let activation = |c: &NodeId| matches!(graph.node(*c).op, Op::Relu(_) | Op::Activation(_) | Op::LeakyRelu(_));
        let rounded = !behind[id.0].iter().all(activation);
        let most = seen.largest.iter().copied().fold(0.0f32, f32::max);
        let most_allowed = maximum(&graph.node(*id).op);
        for c in 0..channels {
            let own = seen.largest[c];
            if rounded {
                sums.before[c] += f64::from(most).powi(2);
                sums.high[c] = sums.high[c].min(f64::from(most / own.max(f32::MIN_POSITIVE)));
            }
            if let Some(maximum) = most_allowed {
                let room = f64::from(maximum * NEAR_MAXIMUM / own.max(f32::MIN_POSITIVE)).max(1.0);
                sums.high[c] = sums.high[c].min(room);
                if own >= maximum {
                    sums.low[c] = 1.0;
                }
            }
        }
    }
    for id in &set.writers {
        writer(graph, *id, seen, &mut sums);
    }
    for (id, member) in &set.readers {
        let own = side(&graph.node(*id).op, true);
        let most = own.largest.iter().copied().fold(0.0f32, f32::max);
        let Some(Some(seen)) = seen.get(member.0) else { return vec![1.0; channels] };
        for c in 0..channels {
            sums.read[c] += own.squares[c];
            sums.weights[c] += f64::from(most).powi(2) * seen.power[c] * reads_per_input(&graph.node(*id).op);
            sums.low[c] = sums.low[c].max(f64::from(own.largest[c] / most.max(f32::MIN_POSITIVE)));
        }
    }
    let best = |c: usize| {
        let (read, before, weights) = (sums.read[c], sums.before[c], sums.weights[c]);
        let (low, high) = (sums.low[c].min(1.0), sums.high[c].max(1.0));
        match read > 0.0 && weights > 0.0 && before > 0.0 {
            true => (read * before / weights).sqrt().sqrt().max(low).min(high),
            false => 1.0,
        }
    };
    (0..channels).map(best).collect()
}

/// Weights that one value of the input meets, for each output channel's pixel: of a kernel of taps, all of them.
fn reads_per_input(op: &Op) -> f64 {
    let shape = op.weighted().map_or(&[][..], |w| w.kernel.shape());
    match (op, shape) {
        (Op::Dense(_), [_, outputs]) => *outputs as f64,
        (_, [h, w, _, outputs]) => (h * w * outputs) as f64,
        (_, _) => 1.0,
    }
}

/// Adds what a writer's kernel and bias mean to the channels.
fn writer(graph: &Graph, id: NodeId, seen: &[Option<Seen>], sums: &mut Sums) {
    let node = graph.node(id);
    let own = side(&node.op, false);
    let most = own.largest.iter().copied().fold(0.0f32, f32::max);
    let input = node.inputs.first().and_then(|input| seen.get(input.0)?.as_ref());
    let shape = node.op.weighted().map_or(&[][..], |w| w.kernel.shape());
    let taps = shape.iter().rev().skip(2).product::<usize>() as f64;
    let all: f64 = input.map_or(1.0, |input| input.power.iter().sum::<f64>() * taps);
    let bias = node.op.weighted().and_then(|w| w.bias.as_ref()).map_or(&[][..], Tensor::data);
    let most_bias = bias.iter().fold(0.0f32, |most, b| most.max(b.abs()));
    let depthwise = matches!(node.op, Op::DepthwiseConv2D(_));
    let multiplier = shape.last().copied().unwrap_or(1).max(1);
    for c in 0..own.largest.len().min(sums.high.len()) {
        let energy = match input {
            Some(input) if depthwise => input.power.get(c / multiplier).copied().unwrap_or(0.0) * taps,
            Some(_) | None => all,
        };
        sums.before[c] += f64::from(most).powi(2) * energy + f64::from(most_bias).powi(2);
        sums.high[c] = sums.high[c].min(f64::from(most / own.largest[c].max(f32::MIN_POSITIVE)));
        if let Some(b) = bias.get(c) {
            sums.high[c] = sums.high[c].min(f64::from(most_bias / b.abs().max(f32::MIN_POSITIVE)));
        }
    }
}

/// Scales the channels of a set.
fn apply(graph: &mut Graph, set: &Set, seen: &mut [Option<Seen>], scales: &[f64]) {
    for id in &set.members {
        if let Some(Some(seen)) = seen.get_mut(id.0) {
            seen.largest.iter_mut().zip(scales).for_each(|(l, s)| *l *= *s as f32);
            seen.power.iter_mut().zip(scales).for_each(|(p, s)| *p *= s * s);
        }
    }
    let mut scale = |id: NodeId, reads: bool| {
        let op = &mut graph.node_mut(id).op;
        let (inner, count) = channel(op, reads);
        let Some(w) = op.weighted_mut() else { return };
        let factor = |c: usize| if reads { 1.0 / scales[c] } else { scales[c] };
        let kernel = w.kernel.data_mut().iter_mut().enumerate();
        kernel.for_each(|(i, k)| *k = (f64::from(*k) * factor(i / inner % count)) as f32);
        if let (Some(bias), false) = (&mut w.bias, reads) {
            bias.data_mut().iter_mut().enumerate().for_each(|(c, b)| *b = (f64::from(*b) * factor(c)) as f32);
        }
    };
    set.writers.iter().for_each(|id| scale(*id, false));
    set.readers.iter().for_each(|(id, _)| scale(*id, true));
}
