//! Epochs of steps over data.
//!
//! Every epoch goes once over the data, from its first sample on or in an order that is drawn for the epoch; the last batch
//! may be short. Whatever is drawn depends on the seed and the epoch, so that a run that goes on from a checkpoint takes
//! the batches that it would have taken.

use crate::augment::Augment;
use crate::loss::Target;
use crate::random::Random;
use crate::schedule::Schedule;
use crate::trainer::Trainer;
use shiftwise_graph::error::Error;
use shiftwise_tensor::spare::Hold;
use shiftwise_tensor::tensor::Tensor;

/// Labelled samples.
pub trait Examples {
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The inputs of these samples, one tensor for each input of the network.
    fn inputs(&self, samples: &[usize]) -> Result<Vec<Tensor>, Error>;
    /// What the outputs are compared with, of these samples, whose inputs are given as the network sees them.
    fn targets(&self, samples: &[usize], inputs: &[Tensor]) -> Result<Vec<Option<Target>>, Error>;
}

/// How long and over what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Epochs.
    pub epochs: u64,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Batches in an epoch at most.
    pub steps_per_epoch: Option<usize>,
    /// Whether each epoch has an order of its own.
    pub shuffle: bool,
    /// How the rate goes.
    pub schedule: Schedule,
    /// The rate at its highest.
    pub rate: f64,
    /// That of thresholds, if it is another.
    pub threshold_rate: Option<f64>,
    /// What is done to images.
    pub augment: Vec<Augment>,
    /// What is random is drawn from it.
    pub seed: u64,
}

impl Plan {
    /// Steps in an epoch over so many samples.
    pub fn steps(&self, samples: usize) -> usize {
        samples.div_ceil(self.batch_size.max(1)).min(self.steps_per_epoch.unwrap_or(usize::MAX))
    }
}

/// A step that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Its epoch, from 0.
    pub epoch: u64,
    /// Its number in the epoch, from 0.
    pub step: usize,
    /// Steps in the epoch.
    pub steps: usize,
    /// Samples in its batch.
    pub samples: usize,
    /// The loss of its batch, before it.
    pub loss: f64,
    /// The rate that it was made with.
    pub rate: f64,
}

/// What happens between steps.
pub trait Watch {
    /// A step was made. Returns whether training goes on.
    fn step(&mut self, made: &Made, trainer: &Trainer) -> Result<bool, Error>;
    /// An epoch is over. Returns whether training goes on.
    fn epoch(&mut self, epoch: u64, trainer: &Trainer) -> Result<bool, Error>;
}

/// Trains; steps that the trainer has made already are passed over.
///
/// Errors: no samples; those of data and steps.
pub fn fit(trainer: &mut Trainer, plan: &Plan, examples: &dyn Examples, watch: &mut dyn Watch) -> Result<(), Error> {
    if examples.is_empty() {
        return Err(Error::Dataset("the training set is empty".into()));
    }
    let steps = plan.steps(examples.len());
    let all = plan.epochs.saturating_mul(steps as u64);
    for epoch in 0..plan.epochs {
        let before = epoch * steps as u64;
        if trainer.steps() >= before + steps as u64 {
            continue;
        }
        // Orders and images are drawn from other streams than Dropout's, which are numbered by step.
        let random = Random::new(!plan.seed).stream(epoch);
        // Every step of the epoch wants the same memory; what comes between epochs wants other.
        let memory = trainer.keeps_all().then(Hold::new);
        let order: Vec<usize> = match plan.shuffle {
            true => random.order(examples.len()),
            false => (0..examples.len()).collect(),
        };
        for (step, samples) in order.chunks(plan.batch_size.max(1)).take(steps).enumerate() {
            let number = before + step as u64;
            if number < trainer.steps() {
                continue;
            }
            let mut inputs = examples.inputs(samples)?;
            for input in inputs.iter_mut().filter(|_| !plan.augment.is_empty()) {
                Augment::apply(&plan.augment, input, samples, random.stream(1));
            }
            let targets = examples.targets(samples, &inputs)?;
            let factor = plan.schedule.factor(number, all, epoch);
            let rate = plan.rate * factor;
            trainer.set_rates(rate, plan.threshold_rate.map(|rate| rate * factor));
            let loss = trainer.step(inputs, &targets)?;
            let made = Made { epoch, step, steps, samples: samples.len(), loss, rate };
            if !watch.step(&made, trainer)? {
                return Ok(());
            }
        }
        drop(memory);
        if !watch.epoch(epoch, trainer)? {
            return Ok(());
        }
    }
    Ok(())
}
