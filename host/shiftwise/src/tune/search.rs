//! Which trials are made, one after the other.
//!
//! First remedies about the whole network: those that the analysis of the strategy as it was given suggests, then the others
//! in the order of the table; each is tried on top of the best trial so far and stays if that becomes better, round after
//! round until nothing helps. If the drop is not kept then, layers that lose most by themselves get 16 bits, or stay in floats,
//! twice as many each time, until it is kept; and of those, one after the other is taken back that is not needed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use shiftwise_formats::{self as formats, files::sha256};
use shiftwise_graph::error::Error;
use shiftwise_quant::pipeline::{PtqOptions, ptq_with};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_train::finetune::{self, Finetuner};

use super::measure::Reference;
use super::trial::{self, Applied, Trial};
use super::{Ended, Request, Watch};
use crate::analyze;
use crate::part::Shard;
use crate::remedies::{self, Case, Remedy, remedy};

/// Samples that the analysis looks at.
const LOOK: usize = 32;
/// Calibrations' worth of time from which on a remedy is tried only where nothing cheaper keeps the drop.
const DEAR: u32 = 20;

/// What an attempt comes to.
enum Attempt {
    /// A trial of this number, made now or before.
    Trial(usize),
    /// The changes change nothing, or are nothing for this network.
    Unfit,
    /// The search is over.
    Over(Ended),
}

/// Whether an error says that a strategy is nothing for this network, or no strategy at all.
const fn is_unfit(why: &Error) -> bool {
    matches!(why, Error::Options(_) | Error::LayerConfig { .. } | Error::UnsupportedLayer { .. } | Error::Layer { .. })
}

/// A search at work.
pub(super) struct Search<'s, 'r> {
    request: &'s Request<'r>,
    reference: &'s Reference<'r>,
    /// Trials of an earlier run, by their strategies.
    known: BTreeMap<String, Trial>,
    watch: &'s mut Watch<'s>,
    pub(super) trials: Vec<Trial>,
    /// The network of the trial that was made last: what comes next may look at it again.
    last: Option<(String, QuantGraph)>,
    began: Instant,
    /// How long quantizing and measuring the strategy as it was given took.
    first: [Duration; 2],
    /// Where trials are only foreseen: those that were wanted and not made, as if none of them helped.
    wanted: Option<Vec<(Vec<Applied>, Strategy)>>,
}

impl<'s, 'r> Search<'s, 'r> {
    pub(super) fn new(
        request: &'s Request<'r>,
        reference: &'s Reference<'r>,
        known: Vec<Trial>,
        watch: &'s mut Watch<'s>,
        began: Instant,
    ) -> Self {
        let known = known.into_iter().map(|t| (t.strategy.clone(), t)).collect();
        let (trials, last, first) = (Vec::new(), None, [Duration::ZERO; 2]);
        Self { request, reference, known, watch, trials, last, began, first, wanted: None }
    }

    /// Searches; why it has ended.
    pub(super) fn run(&mut self) -> Result<Ended, Error> {
        self.made(Vec::new(), self.request.options.strategy.clone())?;
        let mut best = 0;
        match self.climb(&mut best)? {
            Some(ended) => Ok(ended),
            None if self.keeps(best) => Ok(Ended::Exhausted),
            None => Ok(self.layers(best)?.unwrap_or(Ended::Exhausted)),
        }
    }

    /// Makes a shard of the trials that are wanted next, if none of them helps.
    pub(super) fn foresee(&mut self, shard: Shard) -> Result<Vec<Trial>, Error> {
        self.wanted = Some(Vec::new());
        self.run()?;
        let wanted = self.wanted.take().unwrap_or_default();
        let own = wanted.into_iter().skip(shard.number - 1).step_by(shard.of);
        let mut made: Vec<Trial> = self.trials.first().cloned().into_iter().collect();
        for (changes, strategy) in own {
            match self.measured(made.len(), changes, &strategy, trial::key(&strategy)) {
                Ok(trial) => made.push(trial),
                Err(why) if is_unfit(&why) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(made)
    }

    fn keeps(&self, trial: usize) -> bool {
        self.trials
            .get(trial)
            .is_some_and(|t| t.price.is_some() && self.reference.keeps(t.right, self.request.max_drop))
    }

    /// The strategy of a trial.
    fn strategy(&self, trial: usize) -> Strategy {
        let base = &self.request.options.strategy;
        let changes = self.trials.get(trial).map_or(&[][..], |t| &t.changes);
        trial::strategy(base, changes).unwrap_or_else(|| base.clone())
    }

    /// Whether nobody has decided what a remedy moves.
    fn is_open(&self, own: &Remedy, decided: &[String]) -> bool {
        let taken =
            |key: &&'static str| decided.iter().any(|d| d == key) || self.request.fixed.iter().any(|f| f == key);
        !own.keys.iter().any(taken)
    }

    /// Remedies that are open and may help, those that the analysis of a trial suggests first.
    fn order(&mut self, of_layer: bool) -> Result<Vec<&'static Remedy>, Error> {
        let case = Case::of(self.request.graph, &self.request.options.strategy);
        let decided = self.request.options.strategy.decided();
        let analysis = self.analysis(0)?;
        let suggested = analyze::suggested(&analysis).into_iter().map(|(own, _)| own.name);
        let suggested: Vec<&str> = suggested.collect();
        let fits = |own: &&Remedy| own.of_layer == of_layer && (own.applies)(&case) && self.is_open(own, &decided);
        let mut order: Vec<&Remedy> = remedies::all().filter(fits).collect();
        let keeps = self.keeps(0);
        // What solves for the weights helps most where much is lost, whatever the cause.
        order.sort_by_key(|own| {
            let rank = suggested.iter().position(|name| *name == own.name).unwrap_or(usize::MAX);
            (own.cost >= DEAR, if own.cost > 2 && !keeps { 0 } else { 1 }, rank)
        });
        Ok(order)
    }

    /// Tries remedies about the whole network on top of the best trial, until none helps.
    fn climb(&mut self, best: &mut usize) -> Result<Option<Ended>, Error> {
        let order = self.order(false)?;
        loop {
            let before = *best;
            for own in &order {
                if own.cost >= DEAR && self.keeps(*best) {
                    continue;
                }
                match self.attempt(self.with(*best, &[(own, None)]), own.cost)? {
                    Attempt::Trial(new) if self.beats(new, *best) => *best = new,
                    Attempt::Trial(_) | Attempt::Unfit => {}
                    Attempt::Over(ended) => return Ok(Some(ended)),
                }
            }
            if before == *best {
                return Ok(None);
            }
        }
    }

    fn beats(&self, new: usize, old: usize) -> bool {
        let pair = self.trials.get(new).zip(self.trials.get(old));
        pair.is_some_and(|(a, b)| a.beats(b, self.keeps(old)))
    }

    /// The changes of a trial and some more; what moves the same settings goes.
    fn with(&self, trial: usize, more: &[(&Remedy, Option<&str>)]) -> Vec<Applied> {
        let mut all = self.trials.get(trial).map_or_else(Vec::new, |t| t.changes.clone());
        for (own, layer) in more {
            all.retain(|c| {
                own.of_layer || remedy(&c.remedy).is_none_or(|r| !r.keys.iter().any(|k| own.keys.contains(k)))
            });
            all.push(Applied { remedy: own.name.to_owned(), layer: layer.map(str::to_owned) });
        }
        all
    }

    /// Gives the layers that lose most more bits, or leaves them in floats, until the drop is kept.
    fn layers(&mut self, best: usize) -> Result<Option<Ended>, Error> {
        let analysis = self.analysis(best)?;
        let mut names: Vec<String> = Vec::new();
        for layer in analysis.worst(analysis.layers.len()) {
            if !names.contains(&layer.layer) {
                names.push(layer.layer.clone());
            }
        }
        for own in self.order(true)? {
            let mut count = 1;
            let mut kept = None;
            while kept.is_none() && !names.is_empty() {
                let some: Vec<(&Remedy, Option<&str>)> =
                    names.iter().take(count).map(|name| (own, Some(name.as_str()))).collect();
                match self.attempt(self.with(best, &some), own.cost)? {
                    Attempt::Trial(new) => kept = self.keeps(new).then_some(new),
                    Attempt::Unfit => {}
                    Attempt::Over(ended) => return Ok(Some(ended)),
                }
                if count >= names.len() {
                    break;
                }
                count = (2 * count).min(names.len());
            }
            if let Some(kept) = kept
                && let Some(ended) = self.prune(kept)?
            {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Takes back what was done to layers, from the least bad one on, as long as the drop is kept.
    fn prune(&mut self, mut kept: usize) -> Result<Option<Ended>, Error> {
        let layers: Vec<Applied> = self.trials.get(kept).map_or_else(Vec::new, |t| t.changes.clone());
        for change in layers.iter().rev().filter(|change| change.layer.is_some()) {
            let rest: Vec<Applied> = self.trials[kept].changes.iter().filter(|c| *c != change).cloned().collect();
            match self.attempt(rest, 1)? {
                Attempt::Trial(new) if self.keeps(new) && self.trials[new].price <= self.trials[kept].price => {
                    kept = new
                }
                Attempt::Trial(_) | Attempt::Unfit => {}
                Attempt::Over(ended) => return Ok(Some(ended)),
            }
        }
        Ok(None)
    }

    /// Makes a trial, unless it was made already or the search is over.
    fn attempt(&mut self, changes: Vec<Applied>, cost: u32) -> Result<Attempt, Error> {
        let Some(strategy) = trial::strategy(&self.request.options.strategy, &changes) else {
            return Ok(Attempt::Unfit);
        };
        let key = trial::key(&strategy);
        if let Some(done) = self.trials.iter().find(|t| t.strategy == key) {
            return Ok(Attempt::Trial(done.trial));
        }
        let limits = &self.request.limits;
        let so_far = self.trials.len() + self.wanted.as_ref().map_or(0, Vec::len);
        if limits.trials.is_some_and(|most| so_far >= most) {
            return Ok(Attempt::Over(Ended::Trials));
        }
        if let Some(wanted) = self.wanted.as_mut().filter(|_| !self.known.contains_key(&key)) {
            if !wanted.iter().any(|(_, own)| trial::key(own) == key) {
                wanted.push((changes, strategy));
            }
            return Ok(Attempt::Unfit);
        }
        let takes = self.first[0] * cost + self.first[1];
        if !self.known.contains_key(&key) && limits.time.is_some_and(|most| self.began.elapsed() + takes > most) {
            return Ok(Attempt::Over(Ended::Time));
        }
        match self.made(changes, strategy) {
            Ok(trial) => Ok(Attempt::Trial(trial)),
            Err(why) if is_unfit(&why) => Ok(Attempt::Unfit),
            Err(other) => Err(other),
        }
    }

    /// A new trial, out of the earlier run if it is one of its.
    fn made(&mut self, changes: Vec<Applied>, strategy: Strategy) -> Result<usize, Error> {
        let key = trial::key(&strategy);
        let number = self.trials.len();
        let trial = match self.known.get(&key) {
            Some(known) => {
                let settings = trial::settings(&self.request.options.strategy, &strategy);
                Trial { trial: number, changes, settings, same_as: self.same(&known.quantized), ..known.clone() }
            }
            None => self.measured(number, changes, &strategy, key)?,
        };
        self.trials.push(trial);
        (self.watch)(self.reference.answers, &self.trials)?;
        Ok(number)
    }

    /// The first trial with the same quantized model.
    fn same(&self, quantized: &str) -> Option<usize> {
        self.trials.iter().find(|t| t.quantized == quantized).map(|t| t.trial)
    }

    fn measured(
        &mut self,
        number: usize,
        changes: Vec<Applied>,
        strategy: &Strategy,
        key: String,
    ) -> Result<Trial, Error> {
        let start = Instant::now();
        let q = self.quantized(strategy)?;
        let quantizing = start.elapsed();
        let quantized = sha256(&formats::quantized_bytes(&q, Path::new("trial"))?);
        let settings = trial::settings(&self.request.options.strategy, strategy);
        if let Some(same) = self.same(&quantized) {
            let old = &self.trials[same];
            return Ok(Trial { trial: number, changes, settings, strategy: key, same_as: Some(same), ..old.clone() });
        }
        let (price, problem) = match self.request.price.of(&q) {
            Ok(price) => (Some(price), None),
            Err(why) => (None, Some(why.to_string())),
        };
        let quality = self.reference.quality(q.clone())?;
        if number == 0 {
            self.first = [quantizing, start.elapsed().saturating_sub(quantizing)];
        }
        self.last = Some((key.clone(), q));
        let (same_as, right, noise, exact) = (None, quality.right, quality.noise, quality.exact);
        Ok(Trial {
            trial: number,
            changes,
            settings,
            strategy: key,
            quantized,
            same_as,
            right,
            noise,
            exact,
            price,
            problem,
        })
    }

    fn quantized(&self, strategy: &Strategy) -> Result<QuantGraph, Error> {
        let r = self.request;
        let options = PtqOptions { strategy: strategy.clone(), ..r.options.clone() };
        let mut finetuner = Finetuner { seed: r.seed, memory: finetune::MEMORY, progress: &mut |_, _| () };
        Ok(ptq_with(r.graph.clone(), r.calibration, &options, &mut finetuner, |_, _| ())?.quantized)
    }

    /// Where the network of a trial hurts.
    fn analysis(&mut self, trial: usize) -> Result<analyze::Analysis, Error> {
        let strategy = self.strategy(trial);
        let key = trial::key(&strategy);
        let q = match self.last.take().filter(|(own, _)| *own == key) {
            Some((_, q)) => q,
            None => self.quantized(&strategy)?,
        };
        let r = self.request;
        let options = PtqOptions { strategy, ..r.options.clone() };
        let request = analyze::Request {
            graph: r.graph,
            options: &options,
            quantized: &q,
            calibration: r.calibration,
            samples: r.calibration,
            most: LOOK,
            remedies: false,
            for_dpu: false,
            effects: false,
            labels: None,
        };
        let analysis = analyze::analyze(&request)?.0;
        self.last = Some((key, q));
        Ok(analysis)
    }
}
