//! Cross-layer equalization: the channels between two convolutions are scaled so that both kernels use the same range.

use crate::passes::fold_bn::trained_with;
use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op};

/// What stands between the two convolutions. The vendor treats all pairs of one kind before the next, and later pairs
/// see weights that earlier ones changed.
#[derive(Clone, Copy)]
enum Between {
    Nothing,
    Activation,
    Relu,
    ReluAndPad,
}

/// Repeats the equalization `cle_steps` times over all pairs, in graph order.
pub(super) fn include_cle(graph: &mut Graph, strategy: &Strategy) -> Result<(), Error> {
    let steps = strategy.number("cle_steps").unwrap_or(10.0) as usize;
    let threshold = strategy.number("cle_weight_threshold").unwrap_or(0.1) as f32;
    let average = match strategy.value("cle_balance_method").and_then(|v| v.as_str()) {
        Some("max") | None => false,
        Some("avg") => true,
        Some(other) => {
            return Err(Error::Options(format!("cle_balance_method is `{other}`, `max` or `avg` is expected")));
        }
    };
    let any_activation = strategy.enabled("cle_to_relu6");
    // A convolution that is trained with its normalization is another class, which takes no part.
    let with_norms: Vec<NodeId> = match strategy.enabled("train_with_bn") {
        true => graph.ids().filter_map(|id| trained_with(graph, id)).collect(),
        false => Vec::new(),
    };
    let kinds = [Between::Nothing, Between::Activation, Between::Relu, Between::ReluAndPad];
    let pairs: Vec<(NodeId, NodeId)> = kinds
        .into_iter()
        .flat_map(|kind| {
            let graph = &*graph;
            graph.ids().filter_map(move |tail| Some((head(graph, tail, kind, any_activation)?, tail)))
        })
        .filter(|(head, tail)| !with_norms.contains(head) && !with_norms.contains(tail))
        .collect();
    for _ in 0..steps {
        for (head, tail) in &pairs {
            equalize(graph, *head, *tail, average, threshold);
        }
    }
    Ok(())
}

fn equalizable(op: &Op) -> bool {
    matches!(op, Op::Conv2D(_) | Op::DepthwiseConv2D(_))
}

/// The convolution before `tail` with `between` in the middle, if nothing else reads any of them.
fn head(graph: &Graph, tail: NodeId, between: Between, any_activation: bool) -> Option<NodeId> {
    if !equalizable(&graph.node(tail).op) || !graph.is_candidate(tail) {
        return None;
    }
    let uses = graph.uses();
    let before = |id: NodeId| match graph.node(id).inputs[..] {
        [input] if uses[input.0] == 1 && graph.is_candidate(input) => Some(input),
        _ => None,
    };
    let passes = |f: ActivationFn| any_activation || matches!(f, ActivationFn::Linear | ActivationFn::Relu);
    let mut at = before(tail)?;
    match between {
        Between::Nothing => {}
        Between::Activation => match &graph.node(at).op {
            Op::Activation(a) if passes(a.function) => at = before(at)?,
            _ => return None,
        },
        Between::Relu => match &graph.node(at).op {
            Op::Relu(r) if any_activation || r.max_value.is_none() => at = before(at)?,
            _ => return None,
        },
        Between::ReluAndPad => {
            let Op::ZeroPadding2D(_) = graph.node(at).op else { return None };
            at = before(at)?;
            match &graph.node(at).op {
                // Without `cle_to_relu6` the vendor's pattern asks for a maximum of zero, which no ordinary ReLU has.
                Op::Relu(r) if any_activation || r.max_value == Some(0.0) => at = before(at)?,
                _ => return None,
            }
        }
    }
    let op = &graph.node(at).op;
    let activation = op.layer().activation();
    let fits = match between {
        Between::Nothing => passes(activation),
        _ => any_activation || activation == ActivationFn::Linear,
    };
    (equalizable(op) && fits).then_some(at)
}

/// Values that are compared side by side.
const LANES: usize = 16;

/// Absolute values of each channel: the largest, and the sum where means are asked for.
struct Channels {
    largest: Vec<f32>,
    sums: Option<Vec<f32>>,
    /// Values of each channel.
    terms: usize,
}

impl Channels {
    /// Of a kernel whose runs of `run` values belong to the channels in turn, and of a vector with a value of each channel.
    fn of(count: usize, average: bool, (kernel, run): (&[f32], usize), vector: &[f32]) -> Self {
        let mut all = Self { largest: vec![0.0; count], sums: average.then(|| vec![0.0; count]), terms: 0 };
        for row in kernel.chunks_exact((count * run).max(1)) {
            if run == 1 { all.add_row(row) } else { all.add_runs(row, run) }
        }
        if !vector.is_empty() {
            all.add_row(vector);
        }
        all
    }

    /// A value of each channel.
    fn add_row(&mut self, row: &[f32]) {
        self.terms += 1;
        self.largest.iter_mut().zip(row).for_each(|(most, v)| *most = larger(*most, v.abs()));
        if let Some(sums) = &mut self.sums {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v.abs());
        }
    }

    /// `run` values of each channel.
    fn add_runs(&mut self, row: &[f32], run: usize) {
        self.terms += run;
        for (most, run) in self.largest.iter_mut().zip(row.chunks_exact(run.max(1))) {
            let (parts, rest) = run.as_chunks::<LANES>();
            let mut lanes = [0.0f32; LANES];
            for part in parts {
                lanes.iter_mut().zip(part).for_each(|(lane, v)| *lane = larger(*lane, v.abs()));
            }
            *most = lanes.iter().chain(rest).fold(*most, |most, v| larger(most, v.abs()));
        }
        if let Some(sums) = &mut self.sums {
            for (sum, run) in sums.iter_mut().zip(row.chunks_exact(run.max(1))) {
                run.iter().for_each(|v| *sum += v.abs());
            }
        }
    }

    /// What decides: the means, or the largest.
    fn reach(&self) -> Vec<f32> {
        let means = self.sums.as_ref().map(|sums| sums.iter().map(|s| s / self.terms.max(1) as f32).collect());
        means.unwrap_or_else(|| self.largest.clone())
    }
}

/// The larger of two numbers; what is none is left out.
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Scales the head's output channels by s = clip(sqrt(tail / head), 0.1, 10) and the tail's inputs by 1 / s, where head
/// and tail are the largest (or mean) absolute weights of the channel; channels with small weights stay.
fn equalize(graph: &mut Graph, head: NodeId, tail: NodeId, average: bool, threshold: f32) {
    // Output channels of the head: the last axis, or the last two of a depthwise kernel [kh, kw, c, m].
    let depthwise = matches!(graph.node(head).op, Op::DepthwiseConv2D(_));
    let Some(w) = graph.node_mut(head).op.weighted_mut() else { return };
    let shape = w.kernel.shape();
    let count = if depthwise { shape[2] * shape[3] } else { shape[3] };
    let bias = w.bias.as_ref().map_or(&[][..], |b| b.data());
    let h = Channels::of(count, average, (w.kernel.data(), 1), bias);

    // Input channels of the tail: the third axis of both kernels.
    let Some(w) = graph.node_mut(tail).op.weighted_mut() else { return };
    let (inputs, per_input) = (w.kernel.shape()[2], w.kernel.shape()[3]);
    if inputs != count {
        // A grouped convolution: its kernel doesn't list all input channels.
        return;
    }
    let t = Channels::of(count, average, (w.kernel.data(), per_input), &[]);

    let (a, b) = (t.reach(), h.reach());
    let scale: Vec<f32> = (0..count)
        .map(|c| {
            // A channel without weights on either side gives NaN here and 1 by the threshold.
            let s = (a[c] / b[c]).sqrt().clamp(0.1, 10.0);
            if h.largest[c] + t.largest[c] < threshold { 1.0 } else { s }
        })
        .collect();
    for row in w.kernel.data_mut().chunks_exact_mut((inputs * per_input).max(1)) {
        for (run, s) in row.chunks_exact_mut(per_input.max(1)).zip(&scale) {
            run.iter_mut().for_each(|k| *k /= s);
        }
    }
    if let Some(w) = graph.node_mut(head).op.weighted_mut() {
        for row in w.kernel.data_mut().chunks_exact_mut(count.max(1)) {
            row.iter_mut().zip(&scale).for_each(|(k, s)| *k *= s);
        }
        if let Some(bias) = &mut w.bias {
            bias.data_mut().iter_mut().zip(&scale).for_each(|(b, s)| *b *= s);
        }
    }
}
