//! The vendor's fast finetuning, after AdaQuant: one layer at a time, with what enters and leaves it in the float network.
//!
//! For each layer with a kernel, in the network's order: kernel and bias follow Adam down the squared error of the
//! quantized layer's result against the float one, with the input of the float network. After each epoch the loss over the
//! whole calibration set is looked at; an epoch that doesn't lower it is taken back and ends the layer. Positions stay.
//!
//! The vendor's order of batches is not recorded anywhere; ours comes from a seed.

use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::NoPoints;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::finetune::{Finetuned, Job};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use super::Finetuner;
use super::block::{Block, set_weights};
use crate::optim::{Optimizer, Settings};
use crate::subjects::{float_weights, samples_of, targets};

/// The vendor's rate for kernels.
const KERNEL_RATE: f64 = 1e-5;
/// The vendor's rate for biases.
const BIAS_RATE: f64 = 1e-3;

/// Finetunes every layer with a kernel; one row for each.
///
/// Losses are means over all elements. Errors: `fast_ft_epochs` that is no whole number; those of running the network; a
/// layer without a gradient.
pub(super) fn adaquant(
    q: &mut QuantGraph,
    optimized: &Graph,
    job: &Job<'_>,
    tuner: &mut Finetuner<'_>,
) -> Result<Vec<Finetuned>, Error> {
    let epochs = job.strategy.number("fast_ft_epochs").unwrap_or(10.0);
    if epochs.fract() != 0.0 || !(0.0..=1e6).contains(&epochs) {
        return Err(Error::Options(format!("`fast_ft_epochs` is set to {epochs}, a whole number is expected")));
    }
    let optimizer = Optimizer::find("adam").ok_or_else(|| Error::Run("there is no optimizer adam".into()))?;
    let all = targets(q);
    let mut rows = Vec::with_capacity(all.len());
    for (number, id) in all.iter().enumerate() {
        let block = Block::new(q, *id)?;
        let name = |id: &shiftwise_graph::graph::NodeId| q.graph.node(*id).name.clone();
        let layers: Vec<String> = block.layers.iter().map(name).collect();
        let data = FloatData::new(optimized, &layers, job, tuner.memory)?;
        let order = Order { seed: tuner.seed, layer: number as u64 };
        let mut tuning = Tuning { block, data, optimizer, batch: job.batches.size.max(1), order };
        let losses = tuning.run(epochs as usize)?;
        set_weights(q.graph.node_mut(*id), &tuning.block.weights());
        let (before, after) = (losses[0], losses.iter().copied().fold(losses[0], f64::min));
        let kept = losses.windows(2).filter(|pair| pair[1] < pair[0]).count();
        let done = match kept {
            1 => "1 epoch".to_owned(),
            kept => format!("{kept} epochs"),
        };
        rows.push(Finetuned { layers, before, after, done, losses });
        (tuner.progress)(number + 1, all.len());
    }
    Ok(rows)
}

/// One layer's finetuning.
struct Tuning<'a> {
    block: Block,
    data: FloatData<'a>,
    optimizer: &'static Optimizer,
    batch: usize,
    order: Order,
}

impl Tuning<'_> {
    /// Runs up to so many epochs; every loss that was looked at, the first before any step.
    fn run(&mut self, epochs: usize) -> Result<Vec<f64>, Error> {
        let settings = [KERNEL_RATE, BIAS_RATE].map(|rate| Settings { rate, momentum: 0.0, weight_decay: None });
        let mut weights = self.block.weights();
        weights.truncate(settings.len());
        let state = |(w, s): (&Tensor, &Settings)| self.optimizer.state(s, w.data().len());
        let mut states: Vec<Vec<Vec<f32>>> = weights.iter().zip(&settings).map(state).collect();
        let mut losses = vec![self.loss()?];
        let mut step = 0;
        for epoch in 0..epochs {
            let before = weights.clone();
            for batch in self.order.shuffled(self.data.count, epoch as u64).chunks(self.batch) {
                step += 1;
                let [x, y] = self.data.batch(batch)?;
                let gradients = self.block.gradients(x, &y)?;
                for (k, (w, d)) in weights.iter_mut().zip(&gradients).enumerate() {
                    if let Some(d) = d {
                        self.optimizer.step(&settings[k], step, w.data_mut(), d.data(), &mut states[k]);
                    }
                }
                self.block.set_weights(&weights);
            }
            let (best, new) = (losses[losses.len() - 1], self.loss()?);
            losses.push(new);
            // A loss that is no number is no less.
            if !matches!(new.partial_cmp(&best), Some(std::cmp::Ordering::Less)) {
                self.block.set_weights(&before);
                break;
            }
        }
        Ok(losses)
    }

    /// The mean squared error over all samples.
    fn loss(&self) -> Result<f64, Error> {
        let all: Vec<usize> = (0..self.data.count).collect();
        let (mut sum, mut count) = (0.0f64, 0usize);
        for batch in all.chunks(self.batch) {
            let [x, y] = self.data.batch(batch)?;
            let own = self.block.run(x)?;
            let square = |(a, b): (&f32, &f32)| f64::from(a - b) * f64::from(a - b);
            sum += own.data().iter().zip(y.data()).map(square).sum::<f64>();
            count += y.data().len();
        }
        Ok(sum / count.max(1) as f64)
    }
}

/// What enters and leaves a block in the float network, sample by sample.
struct FloatData<'a> {
    /// The float network up to the block.
    prefix: Graph,
    weights: Vec<Vec<Tensor>>,
    job: Job<'a>,
    count: usize,
    /// Both for every sample, where that fits.
    kept: Option<Vec<[Tensor; 2]>>,
}

impl<'a> FloatData<'a> {
    fn new(optimized: &Graph, layers: &[String], job: &Job<'a>, memory: usize) -> Result<Self, Error> {
        let find = |name: &String| {
            optimized.find(name).ok_or_else(|| Error::Run(format!("layer `{name}` is not in the float network")))
        };
        let first = layers.first().map(find).transpose()?;
        let first = first.ok_or_else(|| Error::Run("a block has no layer".into()))?;
        let input = optimized.node(first).inputs.first().copied();
        let input = input.ok_or_else(|| Error::Run(format!("layer `{}` has no input", optimized.node(first).name)))?;
        // An activation behind the layer may be another one in the quantized network, under another name.
        let behind = || optimized.ids().find(|c| optimized.node(*c).inputs.contains(&first));
        let last = match layers.get(1) {
            Some(name) => optimized.find(name).or_else(behind).unwrap_or(first),
            None => first,
        };
        let mut prefix = optimized.clone();
        prefix.outputs = vec![input, last];
        prefix.normalize();
        let weights = float_weights(&prefix);
        let count = samples_of(job);
        let mut data = Self { prefix, weights, job: *job, count, kept: None };
        let per: usize =
            data.prefix.outputs.iter().map(|id| data.prefix.node(*id).shape.iter().product::<usize>()).sum();
        if per.saturating_mul(count).saturating_mul(4) <= memory {
            let mut kept = Vec::with_capacity(count);
            for start in (0..count).step_by(job.batches.size.max(1)) {
                let size = job.batches.size.max(1).min(count - start);
                let [x, y] = data.run(job.samples.batch(start, size)?)?;
                kept.extend((0..size).map(|k| [sample(&x, k), sample(&y, k)]));
            }
            data.kept = Some(kept);
        }
        Ok(data)
    }

    /// Runs the float network up to the block.
    fn run(&self, inputs: Vec<Tensor>) -> Result<[Tensor; 2], Error> {
        let outputs = eval::run(&self.prefix, &self.weights, inputs, &mut NoPoints)?;
        outputs.try_into().map_err(|_| Error::Run("the float network up to a block has not two outputs".into()))
    }

    /// Input and output for a batch of these samples.
    fn batch(&self, samples: &[usize]) -> Result<[Tensor; 2], Error> {
        if let Some(kept) = &self.kept {
            return Ok([0, 1].map(|k| stacked(samples.iter().map(|s| &kept[*s][k]))));
        }
        let parts = samples.iter().map(|s| self.job.samples.batch(*s, 1)).collect::<Result<Vec<_>, _>>()?;
        let inputs = (0..parts.first().map_or(0, Vec::len)).map(|k| stacked(parts.iter().map(|part| &part[k])));
        self.run(inputs.collect())
    }
}

/// One sample of a batch, as a batch of one.
pub(crate) fn sample(batch: &Tensor, k: usize) -> Tensor {
    let per = batch.data().len() / batch.shape().first().copied().unwrap_or(1).max(1);
    let shape = [&[1], batch.shape().get(1..).unwrap_or_default()].concat();
    Tensor::new(shape, batch.data()[k * per..(k + 1) * per].to_vec()).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// Batches one behind the other as one.
pub(crate) fn stacked<'t>(parts: impl Iterator<Item = &'t Tensor> + Clone) -> Tensor {
    let count = parts.clone().map(|part| part.shape().first().copied().unwrap_or(0)).sum();
    let rest = parts.clone().next().and_then(|first| first.shape().get(1..)).unwrap_or_default();
    let shape = [&[count], rest].concat();
    let data = parts.flat_map(|part| part.data().iter().copied()).collect();
    Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// The order of samples in each epoch of a layer.
#[derive(Clone, Copy, Debug)]
struct Order {
    seed: u64,
    layer: u64,
}

impl Order {
    /// A permutation: Fisher and Yates' shuffle with numbers of SplitMix64.
    fn shuffled(self, count: usize, epoch: u64) -> Vec<usize> {
        let mut state = [self.seed, self.layer, epoch].into_iter().fold(0, |state, part| mixed(state ^ part));
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            state = state.wrapping_add(GOLDEN);
            // The share of 2^64 that a number is, times i + 1: no remainder that favours small numbers.
            let j = (u128::from(mixed(state)) * (i as u128 + 1)) >> 64;
            order.swap(i, j as usize);
        }
        order
    }
}

/// 2^64 over the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's function of its state.
fn mixed(state: u64) -> u64 {
    let z = state.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_seed_layer_and_epoch_decide() {
        let order = |seed, layer, epoch| Order { seed, layer }.shuffled(40, epoch);
        let mut sorted = order(0, 0, 0);
        assert!(sorted != (0..40).collect::<Vec<_>>());
        assert_eq!(sorted, order(0, 0, 0));
        assert!(order(1, 0, 0) != sorted && order(0, 1, 0) != sorted && order(0, 0, 1) != sorted);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
    }
}
