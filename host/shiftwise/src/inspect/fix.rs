//! Rewrites of float networks that let the DPU do more: THE table of them, what each would give, and their doing.

use shiftwise_core::target::Target;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{
    Activate, ActivationFn, AveragePooling2D, Conv2D, DepthwiseConv2D, Flatten, LeakyRelu, MaxPooling2D, Merge, Op,
    Padding, Weighted,
};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

use super::place::{Subject, cost_of};
use super::verdict::{Cost, Done, Proposal};
use crate::device::Device;

/// A rewrite of a float network.
#[derive(Debug)]
pub struct Rewrite {
    /// Its name, for options and reports.
    pub name: &'static str,
    /// What it does, as a clause.
    pub what: &'static str,
    /// Whether the network computes the same afterwards, up to rounding.
    pub exact: bool,
    /// Does it everywhere, and returns the user's layers that it was done to; the caller normalizes the graph.
    apply: fn(&mut Graph, &Target) -> Result<Vec<String>, Error>,
}

/// A row per rewrite, in the order in which they are done.
pub const REWRITES: &[Rewrite] = &[
    Rewrite {
        name: "fold_bn_forward",
        what: "a batch normalization behind an activation goes into the weights of the layer that reads it",
        exact: true,
        apply: fold_bn_forward,
    },
    Rewrite {
        name: "global_max_to_pool",
        what: "a global maximum becomes max pooling over the whole map",
        exact: true,
        apply: global_max_to_pool,
    },
    Rewrite {
        name: "split_pool",
        what: "a pooling window beyond the engine's limit becomes several smaller ones",
        exact: true,
        apply: split_pool,
    },
    Rewrite {
        name: "subtract_to_add",
        what: "a difference becomes a sum with the second operand negated by a depthwise convolution",
        exact: true,
        apply: subtract_to_add,
    },
    Rewrite {
        name: "leaky_relu_slope",
        what: "the slope of a LeakyReLU becomes the DPU's 26/256",
        exact: false,
        apply: leaky_relu_slope,
    },
    Rewrite {
        name: "sigmoid_to_hard_sigmoid",
        what: "a sigmoid becomes relu6(x + 3) / 6",
        exact: false,
        apply: sigmoid_to_hard_sigmoid,
    },
];

/// A rewritten network.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// The network.
    pub graph: Graph,
    /// What was done.
    pub done: Vec<Done>,
}

/// One rewrite of a copy of a network; `None` if there is nothing to do.
fn rewritten(graph: &Graph, rewrite: &Rewrite, target: &Target) -> Result<Option<(Graph, Vec<String>)>, Error> {
    let mut own = graph.clone();
    let layers = (rewrite.apply)(&mut own, target)?;
    if layers.is_empty() {
        return Ok(None);
    }
    own.normalize();
    own.verify()?;
    Ok(Some((own, layers)))
}

/// Does all rewrites of the table, and measures what each changes.
///
/// Errors: those of the graph, which name a bug of a rewrite.
pub fn fix(graph: &Graph, target: &Target) -> Result<Fixed, Error> {
    let mut fixed = Fixed { graph: graph.clone(), done: Vec::new() };
    for rewrite in REWRITES {
        if let Some((next, layers)) = rewritten(&fixed.graph, rewrite, target)? {
            let error = difference(&fixed.graph, &next)?;
            fixed.done.push(Done { rewrite: rewrite.name.to_owned(), layers, exact: rewrite.exact, error });
            fixed.graph = next;
        }
    }
    Ok(fixed)
}

/// What each rewrite alone would give on a device.
pub(super) fn proposals(
    graph: &Graph,
    strategy: &Strategy,
    device: &Device,
    before: Cost,
) -> Result<Vec<Proposal>, Error> {
    let mut all = Vec::new();
    for rewrite in REWRITES {
        let Some((next, layers)) = rewritten(graph, rewrite, &device.target)? else { continue };
        let subject = Subject::of(&Model::Float(next), strategy)?;
        let after = cost_of(&subject.quantized, device)?;
        // What changes nothing of where layers run is no advice.
        if after.total_us < before.total_us {
            let (name, what) = (rewrite.name.to_owned(), rewrite.what.to_owned());
            all.push(Proposal { rewrite: name, what, layers, exact: rewrite.exact, before, after });
        }
    }
    Ok(all)
}

/// Samples that a difference is measured on.
const SAMPLES: usize = 2;

/// The largest difference between outputs of two networks, as a share of the output's largest value.
fn difference(before: &Graph, after: &Graph) -> Result<f64, Error> {
    let inputs = || -> Vec<Tensor> {
        let mut state = 1u64;
        let shapes = before.inputs.iter().map(|id| [&[SAMPLES], before.node(*id).shape.as_slice()].concat());
        shapes.map(|shape| normal(shape, &mut state)).collect()
    };
    let (a, b) = (run_float(before, inputs())?, run_float(after, inputs())?);
    let worst = |(a, b): (&Tensor, &Tensor)| {
        let largest = a.data().iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let apart = a.data().iter().zip(b.data()).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        f64::from(apart) / f64::from(largest)
    };
    Ok(a.iter().zip(&b).map(worst).fold(0.0, f64::max))
}

/// Numbers of mean 0 and variance 1: sums of twelve uniform ones.
fn normal(shape: Vec<usize>, state: &mut u64) -> Tensor {
    let mut uniform = || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    };
    let count = shape.iter().product::<usize>();
    let data = (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    Tensor::new(shape.clone(), data).unwrap_or_else(|| Tensor::vector(vec![0.0; count]))
}

/// Nodes that passes may rewrite.
fn candidates(graph: &Graph) -> Vec<NodeId> {
    graph.ids().filter(|id| graph.is_candidate(*id) && graph.node(*id).shared.is_none()).collect()
}

/// A name that no layer has.
fn fresh(graph: &Graph, name: &str) -> String {
    let mut number = 0;
    loop {
        let own = if number == 0 { name.to_owned() } else { format!("{name}_{number}") };
        if graph.find(&own).is_none() {
            return own;
        }
        number += 1;
    }
}

fn leaky_relu_slope(graph: &mut Graph, _: &Target) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    for id in candidates(graph) {
        let node = graph.node_mut(id);
        let slope = match &node.op {
            Op::LeakyRelu(l) => l.alpha,
            // Keras' function has a slope of 0.2.
            Op::Activation(Activate { function: ActivationFn::LeakyRelu }) => 0.2,
            _ => continue,
        };
        // One of 0.1 is converted by the quantizer.
        if (slope - 0.1).abs() >= 1e-7 && (slope - LeakyRelu::DPU_ALPHA).abs() >= 1e-7 {
            node.op = Op::LeakyRelu(LeakyRelu { alpha: LeakyRelu::DPU_ALPHA });
            node.extras.clear();
            layers.push(node.name.clone());
        }
    }
    Ok(layers)
}

fn sigmoid_to_hard_sigmoid(graph: &mut Graph, _: &Target) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    for id in candidates(graph) {
        let node = graph.node_mut(id);
        let function = match &mut node.op {
            Op::Activation(a) => &mut a.function,
            op => match op.weighted_mut() {
                Some(w) => &mut w.activation,
                None => continue,
            },
        };
        if *function == ActivationFn::Sigmoid {
            *function = ActivationFn::HardSigmoid6;
            node.extras.clear();
            layers.push(node.name.clone());
        }
    }
    Ok(layers)
}

fn global_max_to_pool(graph: &mut Graph, _: &Target) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    for id in candidates(graph) {
        let Op::GlobalMaxPooling2D(pool) = graph.node(id).op.clone() else { continue };
        let [input] = graph.node(id).inputs[..] else { continue };
        let [h, w, _] = graph.node(input).shape[..] else { continue };
        let (name, origin) = (graph.node(id).name.clone(), graph.node(id).origin.clone());
        let window = PoolWindow { size: [h, w], strides: [h, w], padding: Padding::Valid };
        let max = Op::MaxPooling2D(MaxPooling2D { pool: window });
        let (pooled, flat) = (fresh(graph, &format!("{name}_pool")), fresh(graph, &format!("{name}_flatten")));
        let max = graph.add(pooled, max, vec![input], origin.clone())?;
        let last = if pool.keepdims { max } else { graph.add(flat, Op::Flatten(Flatten), vec![max], origin)? };
        graph.redirect(id, last);
        layers.push(name);
    }
    Ok(layers)
}

fn subtract_to_add(graph: &mut Graph, _: &Target) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    for id in candidates(graph) {
        let Op::Merge(Merge::Subtract) = graph.node(id).op else { continue };
        let [first, second] = graph.node(id).inputs[..] else { continue };
        let (name, origin) = (graph.node(id).name.clone(), graph.node(id).origin.clone());
        let [_, _, channels] = graph.node(second).shape[..] else { continue };
        if graph.node(first).shape != graph.node(second).shape {
            continue;
        }
        let Some(kernel) = Tensor::new(vec![1, 1, channels, 1], vec![-1.0; channels]) else { continue };
        let negate = Op::DepthwiseConv2D(DepthwiseConv2D {
            w: Weighted { kernel, bias: None, activation: ActivationFn::Linear },
            strides: [1, 1],
            dilation: [1, 1],
            padding: Padding::Valid,
        });
        let negated = fresh(graph, &format!("{name}_negative"));
        let negated = graph.add(negated, negate, vec![second], origin)?;
        let node = graph.node_mut(id);
        (node.op, node.inputs) = (Op::Add(shiftwise_graph::ops::Add), vec![first, negated]);
        node.extras.clear();
        layers.push(name);
    }
    Ok(layers)
}

/// Windows that one after the other have the maxima of one of `size`: all but the last with strides of 1.
fn max_windows(size: [usize; 2], strides: [usize; 2], most: usize) -> Vec<([usize; 2], [usize; 2])> {
    let mut left = size;
    let mut all = Vec::new();
    while left.iter().any(|n| *n > most) {
        // A window of n behind one of m sees n + m − 1 pixels.
        let own = left.map(|n| if n > most { most } else { 1 });
        all.push((own, [1, 1]));
        left = [left[0] - (own[0] - 1), left[1] - (own[1] - 1)];
    }
    all.push((left, strides));
    all
}

/// Windows of means of means that are means over one of `size`: its factors, as far as strides keep blocks apart.
fn mean_windows(size: [usize; 2], strides: [usize; 2], most: usize) -> Option<[([usize; 2], [usize; 2]); 2]> {
    let factor = |axis: usize| {
        let (n, s) = (size[axis], strides[axis]);
        if n <= most {
            return Some(1);
        }
        (2..=most).find(|f| n.is_multiple_of(*f) && s.is_multiple_of(*f) && n / f <= most)
    };
    let (a, b) = (factor(0)?, factor(1)?);
    Some([([a, b], [a, b]), ([size[0] / a, size[1] / b], [strides[0] / a, strides[1] / b])])
}

fn split_pool(graph: &mut Graph, target: &Target) -> Result<Vec<String>, Error> {
    let most = target.limits.alu_kernel.max as usize;
    let mut layers = Vec::new();
    for id in candidates(graph) {
        let [input] = graph.node(id).inputs[..] else { continue };
        let (pool, mean, keepdims) = match &graph.node(id).op {
            Op::MaxPooling2D(p) => (p.pool.clone(), None, true),
            Op::AveragePooling2D(p) => (p.pool.clone(), Some(p.dpu), true),
            Op::GlobalAveragePooling2D(p) => match graph.node(input).shape[..] {
                [h, w, _] => {
                    let window = PoolWindow { size: [h, w], strides: [h, w], padding: Padding::Valid };
                    (window, Some(p.dpu), p.keepdims)
                }
                _ => continue,
            },
            _ => continue,
        };
        let beyond = pool.size.iter().any(|n| *n > most);
        if !beyond || most < 2 || matches!(pool.padding, Padding::Same) {
            continue;
        }
        let windows = match mean {
            None => max_windows(pool.size, pool.strides, most),
            Some(_) => match mean_windows(pool.size, pool.strides, most) {
                Some(windows) => windows.to_vec(),
                None => continue,
            },
        };
        let (name, origin) = (graph.node(id).name.clone(), graph.node(id).origin.clone());
        let mut at = input;
        for (i, (size, strides)) in windows.into_iter().enumerate() {
            let pool = PoolWindow { size, strides, padding: Padding::Valid };
            let op = match mean {
                None => Op::MaxPooling2D(MaxPooling2D { pool }),
                Some(dpu) => Op::AveragePooling2D(AveragePooling2D { pool, dpu }),
            };
            let own = fresh(graph, &format!("{name}_part{i}"));
            at = graph.add(own, op, vec![at], origin.clone())?;
        }
        if !keepdims {
            let own = fresh(graph, &format!("{name}_flatten"));
            at = graph.add(own, Op::Flatten(Flatten), vec![at], origin)?;
        }
        graph.redirect(id, at);
        layers.push(name);
    }
    Ok(layers)
}

/// The weights of a layer that reads every pixel it is given and no padding, with input channels as the last axis but one.
fn unpadded(op: &mut Op) -> Option<&mut Weighted> {
    match op {
        Op::Conv2D(Conv2D { w, padding, groups: 1, .. }) => {
            let whole = matches!(padding, Padding::Valid) || matches!(w.kernel.shape(), [1, 1, ..]);
            whole.then_some(w)
        }
        Op::Dense(dense) => Some(&mut dense.w),
        _ => None,
    }
}

fn fold_bn_forward(graph: &mut Graph, _: &Target) -> Result<Vec<String>, Error> {
    let mut layers = Vec::new();
    let consumers = graph.consumers();
    for id in candidates(graph) {
        let Op::BatchNormalization(bn) = graph.node(id).op.clone() else { continue };
        let ([producer], [reader]) = (&graph.node(id).inputs[..], &consumers[id.0][..]) else { continue };
        let (producer, reader) = (*producer, *reader);
        let behind = graph.node(producer).op.layer().activation() != ActivationFn::Linear
            || matches!(graph.node(producer).op, Op::Relu(_) | Op::LeakyRelu(_));
        let own = graph.is_candidate(reader) && graph.node(reader).shared.is_none();
        if !behind || !own || graph.outputs.contains(&id) {
            continue;
        }
        let Some(w) = unpadded(&mut graph.node_mut(reader).op) else { continue };
        let factors = bn.multiplier();
        let offsets: Vec<f32> =
            bn.offset().iter().zip(bn.mean.data()).zip(&factors).map(|((b, m), k)| b - m * k).collect();
        let [.., inputs, outputs] = *w.kernel.shape() else { continue };
        if inputs != factors.len() {
            continue;
        }
        let mut bias = w.bias.as_ref().map_or_else(|| vec![0.0; outputs], |b| b.data().to_vec());
        for tap in w.kernel.data_mut().chunks_exact_mut(inputs * outputs) {
            for (row, (factor, offset)) in tap.chunks_exact_mut(outputs).zip(factors.iter().zip(&offsets)) {
                for (k, b) in row.iter_mut().zip(&mut bias) {
                    *b += *k * offset;
                    *k *= factor;
                }
            }
        }
        w.bias = Some(Tensor::vector(bias));
        graph.node_mut(reader).extras.clear();
        layers.push(graph.node(id).name.clone());
        graph.redirect(id, producer);
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maximum, or the mean, of each window of a row of numbers.
    fn pooled(row: &[f64], size: usize, stride: usize, of: fn(&[f64]) -> f64) -> Vec<f64> {
        row.windows(size).step_by(stride).map(of).collect()
    }

    #[test]
    fn windows_in_parts_have_the_maxima_of_the_whole() {
        let row: Vec<f64> = (0..60).map(|i| f64::from(i * 37 % 61)).collect();
        let max = |w: &[f64]| w.iter().copied().fold(f64::MIN, f64::max);
        for (size, stride) in [(9, 1), (9, 3), (16, 16), (23, 5), (60, 60)] {
            let mut parts = row.clone();
            for ([own, _], [step, _]) in max_windows([size, size], [stride, stride], 8) {
                assert!(own <= 8);
                parts = pooled(&parts, own, step, max);
            }
            assert_eq!(parts, pooled(&row, size, stride, max), "{size} {stride}");
        }
    }

    #[test]
    fn windows_in_parts_have_the_means_of_the_whole_or_there_are_none() {
        let row: Vec<f64> = (0..120).map(|i| f64::from(i * 37 % 61)).collect();
        let mean = |w: &[f64]| w.iter().sum::<f64>() / w.len() as f64;
        for (size, stride) in [(10, 10), (16, 8), (49, 49), (12, 30)] {
            let parts = mean_windows([size, size], [stride, stride], 8).unwrap();
            let all = parts.iter().fold(row.clone(), |row, ([own, _], [step, _])| pooled(&row, *own, *step, mean));
            let whole = pooled(&row, size, stride, mean);
            assert_eq!(all.len(), whole.len());
            assert!(all.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-9), "{size} {stride}");
        }
        assert!(mean_windows([11, 11], [11, 11], 8).is_none());
        assert!(mean_windows([10, 10], [1, 1], 8).is_none());
    }
}
