//! A search of what a strategy leaves open, for accuracy and time.
//!
//! A *trial* is the strategy with some remedies: the network is quantized with it, its answers are counted against those of
//! the float network, and its program is priced. Trials follow from the results of the trials before them alone, so a search
//! is the same for any number of threads, and one that was interrupted goes on from the trials that it has kept.

use std::time::{Duration, Instant};

use serde::Serialize;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::pipeline::PtqOptions;
use shiftwise_quant::strategy::Strategy;

mod measure;
mod plot;
mod price;
mod search;
mod trial;

pub use measure::Measure;
pub use plot::svg;
pub use price::{Price, Unit};
pub use trial::{Applied, Trial};

use crate::part::Shard;
use measure::Reference;
use search::Search;

/// When a search ends, if nothing else ends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Trials at most, those of an earlier run included.
    pub trials: Option<usize>,
    /// Time at most; a trial that would last longer is not begun.
    pub time: Option<Duration>,
}

/// What is tuned, and for what.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "samples are anything that gives some")]
pub struct Request<'r> {
    /// The float network.
    pub graph: &'r Graph,
    /// How it is quantized before anything is tried.
    pub options: &'r PtqOptions,
    /// Settings that are not open, beside those that differ from the built-in strategy.
    pub fixed: &'r [String],
    /// Everything random is drawn from it.
    pub seed: u64,
    /// What it is calibrated with.
    pub calibration: &'r dyn Samples,
    /// What it is measured on.
    pub samples: &'r dyn Samples,
    /// The right answers of the first output, one for each sample; without them the float network's answers are right.
    pub labels: Option<&'r [i64]>,
    /// What a program is priced in.
    pub price: Price<'r>,
    /// The share of right answers that may be lost against the float network.
    pub max_drop: f64,
    /// When the search ends.
    pub limits: Limits,
}

/// The trials that a search wants next, as far as they can be told before one of them is made, shared by processes: those of
/// one shard, and the first trial, which every shard needs. `known` are trials of an earlier run.
///
/// A search for which all shards' trials are known goes on from there; it is the same search.
///
/// Errors as of [`tune`].
pub fn tune_shard(request: &Request<'_>, known: Vec<Trial>, shard: Shard) -> Result<Vec<Trial>, Error> {
    let reference = Reference::of(request.graph, request.samples, request.labels)?;
    let mut quiet = |_: u64, _: &[Trial]| Ok::<(), Error>(());
    let mut search = Search::new(request, &reference, known, &mut quiet, Instant::now());
    search.foresee(shard)
}

/// Why a search has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Nothing more is to be tried.
    Exhausted,
    /// The number of trials.
    Trials,
    /// The time.
    Time,
}

/// What a search finds.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Tuned {
    /// What right answers are.
    pub measure: Measure,
    /// The unit of prices.
    pub unit: Unit,
    /// Answers that were counted, for each trial.
    pub answers: u64,
    /// Right ones of the float network.
    pub float_right: u64,
    /// The share of right answers that may be lost.
    pub max_drop: f64,
    /// Every trial, in the order of the search; the first is the strategy as it was given.
    pub trials: Vec<Trial>,
    /// Numbers of the trials that no other one beats in accuracy and price at once, the cheapest first.
    pub pareto: Vec<usize>,
    /// The chosen trial: of those that keep the drop, among the cheapest the most accurate; if there is none, the most accurate.
    pub chosen: usize,
    /// Whether it keeps the drop.
    pub kept: bool,
    /// Why the search has ended.
    pub ended: Ended,
}

/// What sees the number of answers and all trials after each new one.
pub type Watch<'w> = dyn FnMut(u64, &[Trial]) -> Result<(), Error> + 'w;

/// Searches. `known` are trials of an earlier run of the same search, which are not made again. `watch` sees the number of answers and all trials
/// after each new one. Also returns the chosen strategy.
///
/// Errors: those of the data, of the strategy as it was given, and of `watch`. A trial that can't be made is none.
pub fn tune(request: &Request<'_>, known: Vec<Trial>, watch: &mut Watch<'_>) -> Result<(Tuned, Strategy), Error> {
    let began = Instant::now();
    let reference = Reference::of(request.graph, request.samples, request.labels)?;
    let mut search = Search::new(request, &reference, known, watch, began);
    let ended = search.run()?;
    let trials = std::mem::take(&mut search.trials);
    let (chosen, kept) = trial::choose(&trials, &reference, request.max_drop);
    let strategy = trials.get(chosen).and_then(|t| trial::strategy(&request.options.strategy, &t.changes));
    let strategy = strategy.ok_or_else(|| Error::Run("a search has no first trial".into()))?;
    let tuned = Tuned {
        measure: reference.measure,
        unit: request.price.unit(),
        answers: reference.answers,
        float_right: reference.float_right,
        max_drop: request.max_drop,
        pareto: trial::front(&trials),
        trials,
        chosen,
        kept,
        ended,
    };
    Ok((tuned, strategy))
}
