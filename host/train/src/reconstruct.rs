//! Ours: every layer's weights solved for, on the inputs that the quantized network gives it.
//!
//! One walk through the network, layer by layer, with the float network beside the quantized one. For each layer with a
//! kernel the least squares between what it is given and what it should give, both over pixels of the calibration data, are
//! solved in closed form; the kernel is rounded with errors passed on, at the position of the least error; the bias then
//! takes up what is left of the means. A layer changes only if its error falls on pixels that were held out. No label, no
//! rate of learning, nothing random.

use rayon::prelude::*;

use shiftwise_core::fix::FixPos;
use shiftwise_core::shift;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::finetune::{Finetuned, Job};
use shiftwise_quant::owners::{ConvPositions, conv_positions};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

use crate::finetune::{float_weights, samples_of, targets};
use equalize::equalize;
use layer::{Integers, Solved, Task, solve};
use moments::Groups;
use walk::{Values, add_bias, finish};

mod equalize;
mod layer;
mod moments;
mod solve;
mod sums;
mod walk;

/// Pixels that decide a kernel, for each weight of an output channel; at least [`FEWEST`].
const PIXELS_PER_INPUT: usize = 6;
/// Pixels at least, where there are so many.
const FEWEST: usize = 4096;
/// Inputs of all of a layer's pixels at most: each is kept as an f64.
const MOST_INPUTS: usize = 6 << 20;
/// Weights of an output channel of which a kernel is solved for: their moments are the square of that many f64. Of larger
/// kernels only the bias is refitted.
const LARGEST: usize = 2304;

/// What is done to the float graph before calibration.
pub(crate) fn prepare(graph: &mut Graph, job: &Job<'_>) -> Result<(), Error> {
    equalize(graph, job.samples, &job.batches.parts(job.samples.len())?)
}

/// Reconstructs every layer with a kernel; one row for each.
///
/// `memory` bounds the copies of activations: samples are left out evenly until the rest fits. Errors are those of running
/// the network.
pub(crate) fn reconstruct(
    q: &mut QuantGraph,
    job: &Job<'_>,
    memory: usize,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Finetuned>, Error> {
    let inputs = chosen(q, job, memory)?;
    let graph = q.graph.clone();
    let weights = float_weights(&graph);
    let mut float = Values::new(&graph, &inputs);
    let mut own = Values::new(&graph, &inputs);
    drop(inputs);
    let all = targets(q);
    let (mut rows, mut done) = (Vec::new(), 0);
    for id in graph.ids() {
        let mut y = float.linear(&graph, id, &weights[id.0], None, true)?;
        let mut z = match all.contains(&id) {
            true => {
                let (z, row) = reconstruct_layer(q, id, &mut own, &y)?;
                rows.extend(row);
                done += 1;
                progress(done, all.len());
                z
            }
            false => own.linear(&graph, id, &layer_weights(q, id), Some(q), true)?,
        };
        finish(&graph, id, None, &mut y)?;
        finish(&graph, id, Some(q), &mut z)?;
        float.set(&graph, id, y);
        own.set(&graph, id, z);
    }
    Ok(rows)
}

/// Samples for the walk, each as one tensor for each input: all of the calibration data, or as many of them, evenly
/// spread, as the memory allows.
fn chosen(q: &QuantGraph, job: &Job<'_>, memory: usize) -> Result<Vec<Vec<Tensor>>, Error> {
    let all = samples_of(job);
    let each = eval::needs(&q.graph).bytes.max(1);
    let fitting = usize::try_from(memory as u64 / each).unwrap_or(usize::MAX);
    let count = all.min(fitting.max(2));
    (0..count).map(|k| job.samples.batch(k * all / count, 1)).collect()
}

/// Reconstructs one layer; what it then gives before its activation, and the row of the report.
fn reconstruct_layer(
    q: &mut QuantGraph,
    id: NodeId,
    own: &mut Values,
    y: &[Tensor],
) -> Result<(Vec<Tensor>, Option<Finetuned>), Error> {
    let graph = &q.graph;
    let node = graph.node(id);
    let now = layer_weights(q, id);
    let Some((task, positions, input)) = task(q, id, &now) else {
        return Ok((own.linear(graph, id, &now, Some(q), true)?, None));
    };
    let (fit, held) = pixels(y, node.shape.last().copied().unwrap_or(1), task.groups_inputs);
    let solved = {
        let Some(groups) = Groups::of(&node.op, &graph.node(input).shape) else {
            return Ok((own.linear(graph, id, &now, Some(q), true)?, None));
        };
        let Some(w) = node.op.weighted() else { return Ok((own.linear(graph, id, &now, Some(q), true)?, None)) };
        let task = Task {
            groups: &groups,
            kernel: &w.kernel,
            quantized: &now[0],
            bias: now.get(1),
            integers: task.kernel,
            position: positions.w,
            positions: task.positions.clone(),
        };
        solve(&task, own.of(input), y, &fit, &held)
    };
    let name = node.name.clone();
    apply_kernel(q, id, &solved);
    // Without a bias first: what is missing in the mean is the bias.
    let mut kernel = layer_weights(q, id);
    kernel.truncate(1);
    let graph = q.graph.clone();
    let mut z = own.linear(&graph, id, &kernel, Some(q), true)?;
    let [before, refitted, after] = solved.errors;
    let mut done = if solved.kernel.is_some() { "kernel".to_owned() } else { String::new() };
    if now.len() > 1 {
        if solved.kernel.is_some() || refitted < before {
            refit_bias(q, id, &task, y, &z);
            done += if done.is_empty() { "bias" } else { " and bias" };
        }
        if let Some(bias) = layer_weights(q, id).get(1) {
            add_bias(&mut z, bias.data());
        }
    }
    if done.is_empty() {
        done = "nothing".into();
    }
    let after = if done == "nothing" { before } else { after };
    Ok((z, Some(Finetuned { layers: vec![name], before, after, done, losses: vec![before, after] })))
}

/// What a layer's integers may be.
#[derive(Clone, Debug)]
struct Limits {
    /// Weights of an output channel.
    groups_inputs: usize,
    kernel: Integers,
    /// Positions of the kernel.
    positions: std::ops::RangeInclusive<i32>,
    bias: Option<Integers>,
    /// Whether a LeakyReLU behind the layer takes less of the bias.
    leaky: bool,
}

/// Integers of a quantizer with one position for a tensor.
fn integers(own: Option<&Quantizer>) -> Option<Integers> {
    match own {
        Some(Quantizer::Pof2(own)) if own.params.is_plain() => {
            let (low, high) = own.params.bounds();
            Some(Integers { low: low.into(), high: high.into() })
        }
        Some(Quantizer::Pof2(_) | Quantizer::Affine(_) | Quantizer::Tqt(_) | Quantizer::Block(_)) | None => None,
    }
}

/// Limits, positions and input of a layer whose quantizers all have positions.
fn task(q: &QuantGraph, id: NodeId, now: &[Tensor]) -> Option<(Limits, ConvPositions, NodeId)> {
    let node = q.graph.node(id);
    let [input] = node.inputs[..] else { return None };
    let own = q.layers.get(&id)?;
    let kernel = integers(own.weights.first()?.as_ref())?;
    let bias = match now.len() {
        1 => None,
        _ => Some(integers(own.weights.get(1)?.as_ref())?),
    };
    let p = conv_positions(q, id)?;
    let positions = shift::CUT_ADJUSTED.start() + p.o - p.i..=shift::CUT_ADJUSTED.end() + p.o - p.i;
    let groups_inputs = Groups::of(&node.op, &q.graph.node(input).shape)?.inputs;
    let leaky = q.graph.ids().any(|c| {
        let behind = q.graph.node(c);
        behind.inputs.contains(&id) && matches!(behind.op, Op::LeakyRelu(_))
    });
    Some((Limits { groups_inputs, kernel, positions, bias, leaky }, p, input))
}

/// Pixels as (sample, pixel).
type Pixels = Vec<(usize, usize)>;

/// Pixels that kernels are fitted to, and pixels held out: evenly spread, of alternate samples; of one sample, alternate
/// pixels.
fn pixels(y: &[Tensor], channels: usize, inputs: usize) -> (Pixels, Pixels) {
    let per = y.first().map_or(0, |y| y.data().len() / channels.max(1));
    let total = y.len() * per;
    let count = total.min((PIXELS_PER_INPUT * inputs).max(FEWEST)).min(MOST_INPUTS / inputs.max(1));
    let chosen = (0..count).map(|k| k * total / count.max(1)).map(|at| (at / per.max(1), at % per.max(1)));
    let (mut fit, mut held) = (Pixels::new(), Pixels::new());
    for (k, (sample, pixel)) in chosen.enumerate() {
        let odd = if y.len() > 1 { sample % 2 == 1 } else { k % 2 == 1 };
        if odd { held.push((sample, pixel)) } else { fit.push((sample, pixel)) }
    }
    (fit, held)
}

/// Gives a layer the kernel that was solved for.
fn apply_kernel(q: &mut QuantGraph, id: NodeId, solved: &Solved) {
    let Some(kernel) = &solved.kernel else { return };
    if let Some(own) = q.graph.node_mut(id).op.weighted_mut() {
        own.kernel = kernel.clone();
    }
    set_position(q, id, 0, solved.position);
}

/// Moves the position of a weight.
fn set_position(q: &mut QuantGraph, id: NodeId, weight: usize, position: i32) {
    if let Some(Some(own)) = q.layers.get_mut(&id).and_then(|own| own.weights.get_mut(weight)) {
        own.scheme_mut().set_pos(FixPos(position.clamp(-128, 127) as i8));
    }
}

/// Gives a layer the bias that `z`, its results without one, lack in the mean of the float results `y`, at the position of the
/// least error among those that the shifter allows.
fn refit_bias(q: &mut QuantGraph, id: NodeId, limits: &Limits, y: &[Tensor], z: &[Tensor]) {
    let (Some(integers), Some(p)) = (limits.bias, conv_positions(q, id)) else { return };
    let Some(bias) = q.graph.node_mut(id).op.weighted_mut().and_then(|own| own.bias.as_mut()) else { return };
    let channels = bias.data().len();
    let sums = |(y, z): (&Tensor, &Tensor)| {
        let mut sums = vec![0.0f64; channels];
        for (y, z) in y.data().chunks_exact(channels.max(1)).zip(z.data().chunks_exact(channels.max(1))) {
            sums.iter_mut().zip(y.iter().zip(z)).for_each(|(s, (y, z))| *s += f64::from(*y) - f64::from(*z));
        }
        sums
    };
    let parts: Vec<Vec<f64>> = y.par_iter().zip(z).map(sums).collect();
    let pixels: usize = y.iter().map(|y| y.data().len() / channels.max(1)).sum();
    let mut means = vec![0.0f64; channels];
    parts.iter().for_each(|part| means.iter_mut().zip(part).for_each(|(m, v)| *m += v));
    means.iter_mut().for_each(|m| *m /= pixels.max(1) as f64);
    bias.data_mut().iter_mut().zip(&means).for_each(|(b, m)| *b = *m as f32);
    let least = if limits.leaky { 0 } else { (p.shift_cut() - shift::MOST_BIAS).min(0) };
    let positions = p.w + p.i - shift::MOST_BIAS..=p.w + p.i - least;
    set_position(q, id, 1, integers.best(&means, positions));
}
