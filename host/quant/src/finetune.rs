//! Where finetuning joins post-training quantization: a trait, since what finetunes needs gradients, which are in a crate
//! above this one.

use serde::Serialize;

use crate::calibrate::Batches;
use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;

/// What finetuning works from.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The settings.
    pub strategy: &'a Strategy,
    /// The calibration data.
    pub samples: &'a dyn Samples,
    /// How it is cut into batches.
    pub batches: &'a Batches,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("batches", self.batches).finish_non_exhaustive()
    }
}

/// What finetuning did to one layer, with its activation where that is a layer behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finetuned {
    /// The layers, in order.
    pub layers: Vec<String>,
    /// Mean squared error of its result against the float network's, before.
    pub before: f64,
    /// The same after.
    pub after: f64,
    /// What was done, as a phrase.
    pub done: String,
    /// Every loss that was looked at, in order: before, then after each epoch, a rejected one included.
    #[serde(skip)]
    pub losses: Vec<f64>,
}

/// Changes weights, and what algorithms of ours may change besides, so that a quantized network comes closer to the float
/// one.
pub trait Finetune {
    /// Whether the algorithm that the strategy names wants dead channels folded first.
    fn folds_dead_channels(&self, strategy: &Strategy) -> bool {
        let _ = strategy;
        false
    }

    /// Changes the optimized float graph before it is calibrated; what it computes on the calibration data stays. By
    /// default nothing.
    fn prepare(&mut self, graph: &mut Graph, job: &Job<'_>) -> Result<(), Error> {
        let _ = (graph, job);
        Ok(())
    }

    /// Finetunes a calibrated and adjusted network. `optimized` is the float graph that it was made of. One row for each
    /// layer that was tried, in the network's order.
    fn finetune(&mut self, q: &mut QuantGraph, optimized: &Graph, job: &Job<'_>) -> Result<Vec<Finetuned>, Error>;
}

/// Nothing that finetunes: a strategy that asks for it is refused.
#[derive(Clone, Copy, Debug)]
pub struct NoFinetuning;

impl Finetune for NoFinetuning {
    fn finetune(&mut self, _: &mut QuantGraph, _: &Graph, _: &Job<'_>) -> Result<Vec<Finetuned>, Error> {
        Err(Error::Options("`include_fast_ft` is set to true, and what was called here does not finetune".into()))
    }
}
