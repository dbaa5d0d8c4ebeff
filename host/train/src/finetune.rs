//! Finetuning after calibration: the weights of a quantized network are changed so that it comes closer to the float one.
//!
//! [`Finetuner`] is what post-training quantization is given. Which algorithm it uses is the strategy's
//! `fast_ft_algorithm`: [`adaquant`] is the vendor's, [`crate::reconstruct`] ours.

use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::finetune::{Finetune, Finetuned, Job};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;

use crate::reconstruct;

pub mod adaquant;
mod block;

/// What finetuning is given beside the strategy.
pub struct Finetuner<'a> {
    /// Everything random is drawn from it.
    pub seed: u64,
    /// Bytes that copies of activations may take. What needs more is computed again when it is needed, or done with fewer
    /// samples, as the algorithm says.
    pub memory: usize,
    /// Called with what is done and the total, in layers.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

impl std::fmt::Debug for Finetuner<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Finetuner").field("seed", &self.seed).field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Bytes of activations that finetuning keeps where the caller has no other wish.
pub const MEMORY: usize = 200 << 20;

/// The word of the setting `fast_ft_algorithm` for [`crate::reconstruct`].
const RECONSTRUCT: &str = "reconstruct";

impl Finetune for Finetuner<'_> {
    fn folds_dead_channels(&self, strategy: &Strategy) -> bool {
        strategy.own_word("fast_ft_algorithm") == RECONSTRUCT
    }

    fn prepare(&mut self, graph: &mut Graph, job: &Job<'_>) -> Result<(), Error> {
        match job.strategy.own_word("fast_ft_algorithm") == RECONSTRUCT {
            true => reconstruct::prepare(graph, job),
            false => Ok(()),
        }
    }

    fn finetune(&mut self, q: &mut QuantGraph, optimized: &Graph, job: &Job<'_>) -> Result<Vec<Finetuned>, Error> {
        match job.strategy.own_word("fast_ft_algorithm") == RECONSTRUCT {
            true => reconstruct::reconstruct(q, job, self.memory, self.progress),
            false => adaquant::adaquant(q, optimized, job, self),
        }
    }
}
