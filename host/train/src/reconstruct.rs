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

use crate::subjects::{float_weights, samples_of, targets};
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
const FEWEST: usize = 2048;
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
    if rows.is_empty() && !all.is_empty() {
        return Err(Error::Options(
            "`fast_ft_algorithm` is reconstruct, which needs quantizers with one position for each tensor; no layer of this \
             network has them"
                .into(),
        ));
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
    let now = layer_weights(q, id);
    let Some(limits) = limits(q, id, &now) else {
        return Ok((own.linear(&q.graph, id, &now, Some(q), true)?, None));
    };
    let node = q.graph.node(id);
    let layers = vec![node.name.clone()];
    let (fit, held) = pixels(y, node.shape.last().copied().unwrap_or(1), limits.groups.inputs);
    let solved = match (node.op.weighted(), node.inputs.first()) {
        (Some(w), Some(input)) if limits.groups.inputs <= LARGEST => {
            let task = Task {
                groups: &limits.groups,
                kernel: &w.kernel,
                quantized: &now[0],
                bias: now.get(1),
                integers: limits.kernel,
                position: limits.now.w,
                positions: limits.positions.clone(),
            };
            Some(solve(&task, own.of(*input), y, &fit, &held))
        }
        (_, _) => None,
    };
    let new_kernel = solved.as_ref().is_some_and(|solved| apply_kernel(q, id, solved));
    // Without a bias first: what is then missing in the mean is the bias.
    let mut kernel = layer_weights(q, id);
    kernel.truncate(1);
    let mut z = own.linear(&q.graph, id, &kernel, Some(q), true)?;
    let bias = refit_bias(q, id, &limits, y, &z, new_kernel);
    let [before, after] = match (&solved, &bias) {
        (Some(solved), _) if new_kernel => [solved.errors[0], solved.errors[2]],
        (_, Some(errors)) => *errors,
        (Some(solved), None) => [solved.errors[0]; 2],
        (None, None) => [0.0; 2],
    };
    let done = match (new_kernel, bias.is_some()) {
        (true, true) => "kernel and bias",
        (true, false) => "kernel",
        (false, true) => "bias",
        (false, false) => "nothing",
    };
    if let Some(bias) = layer_weights(q, id).get(1) {
        add_bias(&mut z, bias.data());
    }
    Ok((z, Some(Finetuned { layers, before, after, done: done.into(), losses: vec![before, after] })))
}

/// What a layer's integers may be.
#[derive(Clone, Debug)]
struct Limits {
    groups: Groups,
    /// Positions around the layer as they are.
    now: ConvPositions,
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

/// The limits of a layer whose quantizers all have positions.
fn limits(q: &QuantGraph, id: NodeId, weights: &[Tensor]) -> Option<Limits> {
    let node = q.graph.node(id);
    let [input] = node.inputs[..] else { return None };
    let own = q.layers.get(&id)?;
    let kernel = integers(own.weights.first()?.as_ref())?;
    let bias = match weights.len() {
        1 => None,
        _ => Some(integers(own.weights.get(1)?.as_ref())?),
    };
    let now = conv_positions(q, id)?;
    let positions = shift::CUT_ADJUSTED.start() + now.o - now.i..=shift::CUT_ADJUSTED.end() + now.o - now.i;
    let groups = Groups::of(&node.op, &q.graph.node(input).shape)?;
    let leaky = q.graph.ids().any(|c| {
        let behind = q.graph.node(c);
        behind.inputs.contains(&id) && matches!(behind.op, Op::LeakyRelu(_))
    });
    Some(Limits { groups, now, kernel, positions, bias, leaky })
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

/// Gives a layer the kernel that was solved for, if it is another one.
fn apply_kernel(q: &mut QuantGraph, id: NodeId, solved: &Solved) -> bool {
    let (Some(kernel), Some(own)) = (&solved.kernel, q.graph.node_mut(id).op.weighted_mut()) else { return false };
    own.kernel = kernel.clone();
    set_position(q, id, 0, solved.position);
    true
}

/// Moves the position of a weight.
fn set_position(q: &mut QuantGraph, id: NodeId, weight: usize, position: i32) {
    if let Some(Some(own)) = q.layers.get_mut(&id).and_then(|own| own.weights.get_mut(weight)) {
        own.scheme_mut().set_pos(FixPos(position.clamp(-128, 127) as i8));
    }
}

/// Gives a layer the bias that `z`, its results without one, lack in the mean of the float results `y`, at the position of the
/// least error among those that the shifter allows. The mean squared errors before and after over all pixels; `None` if the
/// bias stays, which it does if the error would not fall. `needed`: the bias belongs to another kernel and can't stay.
fn refit_bias(
    q: &mut QuantGraph,
    id: NodeId,
    limits: &Limits,
    y: &[Tensor],
    z: &[Tensor],
    needed: bool,
) -> Option<[f64; 2]> {
    let (integers, p) = (limits.bias?, conv_positions(q, id)?);
    let now: Vec<f64> = layer_weights(q, id).get(1)?.data().iter().map(|b| f64::from(*b)).collect();
    let lacking = Lacking::of(y, z, now.len());
    let least = if limits.leaky { 0 } else { (p.shift_cut() - shift::MOST_BIAS).min(0) };
    let position = integers.best(&lacking.means, p.w + p.i - shift::MOST_BIAS..=p.w + p.i - least);
    let rounded: Vec<f64> = lacking.means.iter().map(|m| integers.nearest(*m, position)).collect();
    let errors = [lacking.error(&now), lacking.error(&rounded)];
    if !needed && errors[1] >= errors[0] {
        return None;
    }
    let bias = q.graph.node_mut(id).op.weighted_mut()?.bias.as_mut()?;
    bias.data_mut().iter_mut().zip(&lacking.means).for_each(|(b, m)| *b = *m as f32);
    set_position(q, id, 1, position);
    Some(errors)
}

/// What results lack in others, for each channel over all pixels.
struct Lacking {
    means: Vec<f64>,
    /// Mean squares.
    squares: Vec<f64>,
}

impl Lacking {
    fn of(y: &[Tensor], z: &[Tensor], channels: usize) -> Self {
        let channels = channels.max(1);
        let sums = |(y, z): (&Tensor, &Tensor)| {
            let mut sums = vec![[0.0f64; 2]; channels];
            for (y, z) in y.data().chunks_exact(channels).zip(z.data().chunks_exact(channels)) {
                for ([sum, square], (y, z)) in sums.iter_mut().zip(y.iter().zip(z)) {
                    let lacks = f64::from(*y) - f64::from(*z);
                    *sum += lacks;
                    *square += lacks * lacks;
                }
            }
            sums
        };
        let parts: Vec<Vec<[f64; 2]>> = y.par_iter().zip(z).map(sums).collect();
        let pixels: usize = y.iter().map(|y| y.data().len() / channels).sum();
        let total = |k: usize| {
            let of = |c: usize| parts.iter().map(|part| part[c][k]).sum::<f64>() / pixels.max(1) as f64;
            (0..channels).map(of).collect()
        };
        Self { means: total(0), squares: total(1) }
    }

    /// The mean squared error that is left with a bias.
    fn error(&self, bias: &[f64]) -> f64 {
        let of = |((mean, square), b): ((&f64, &f64), &f64)| square - 2.0 * b * mean + b * b;
        self.means.iter().zip(&self.squares).zip(bias).map(of).sum::<f64>() / self.means.len().max(1) as f64
    }
}
