//! One trial of a search, which of them are worth having, and which one is chosen.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use shiftwise_formats::files::sha256;
use shiftwise_quant::strategy::Strategy;

use super::measure::Reference;
use crate::remedies::remedy;

/// A remedy in a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Applied {
    /// Its name.
    pub remedy: String,
    /// The layer that it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.layer {
            Some(layer) => write!(f, "{}({layer})", self.remedy),
            None => f.write_str(&self.remedy),
        }
    }
}

/// One trial. Numbers that are compared are whole, so that a trial that is read back is the one that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Trial {
    /// Its number, from 0.
    pub trial: usize,
    /// What it has otherwise than the strategy that was given, in the order in which it was applied.
    pub changes: Vec<Applied>,
    /// The same as settings.
    pub settings: Map<String, Value>,
    /// SHA-256 of all that its strategy decides.
    pub strategy: String,
    /// SHA-256 of the quantized model without what was learned of the data.
    pub quantized: String,
    /// An earlier trial whose quantized model is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<usize>,
    /// Right answers.
    pub right: u64,
    /// Signal to noise of the worst output, in ten-thousandths of a decibel; `None` where nothing differs.
    pub noise: Option<i64>,
    /// Whether answers are those of exact integers, as a device computes; else of f32.
    pub exact: bool,
    /// Thousandths of the unit of prices; `None` for a network that can't run on what it is tuned for.
    pub price: Option<u64>,
    /// Why it can't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Prices that differ by less than one part in so many count as one where accuracy is chosen.
const ALIKE: u64 = 100;

impl Trial {
    /// Signal to noise, where nothing is better than no noise.
    fn signal(&self) -> i64 {
        self.noise.unwrap_or(i64::MAX)
    }

    /// Accuracy, for comparing.
    fn merit(&self) -> (u64, i64) {
        (self.right, self.signal())
    }

    /// Whether it is more accurate than another, and no slower, unless the other one is not accurate enough.
    pub(super) fn beats(&self, other: &Self, other_keeps: bool) -> bool {
        let Some(price) = self.price else { return false };
        let slower = other.price.is_some_and(|own| price > own + own / ALIKE);
        self.merit() > other.merit() && !(slower && other_keeps) || other.price.is_none()
    }

    /// Decibels, for people.
    pub fn decibels(&self) -> Option<f64> {
        self.noise.map(|noise| noise as f64 / 1e4)
    }

    /// What it changes, in few words.
    pub fn label(&self) -> String {
        let changes: Vec<String> = self.changes.iter().map(ToString::to_string).collect();
        if changes.is_empty() { "as given".into() } else { changes.join(" + ") }
    }
}

/// The strategy with some changes; `None` if one of them changes nothing.
pub(super) fn strategy(base: &Strategy, changes: &[Applied]) -> Option<Strategy> {
    let mut own = base.clone();
    for change in changes {
        own = remedy(&change.remedy)?.applied(&own, change.layer.as_deref().unwrap_or_default())?;
    }
    Some(own)
}

/// What tells a strategy from every other that quantizes otherwise.
pub(super) fn key(strategy: &Strategy) -> String {
    sha256(strategy.effective().to_string().as_bytes())
}

/// Settings of a strategy that are not the base's.
pub(super) fn settings(base: &Strategy, own: &Strategy) -> Map<String, Value> {
    let keys = own.decided();
    let value = |s: &Strategy, key: &str| s.setting(key).cloned().unwrap_or_default();
    let other = |key: &&String| value(own, key) != value(base, key);
    keys.iter().filter(other).map(|key| (key.clone(), value(own, key))).collect()
}

/// Trials that no other one beats in accuracy and price at once, the cheapest first; of equal ones the first.
pub(super) fn front(trials: &[Trial]) -> Vec<usize> {
    let priced = |t: &&Trial| t.price.is_some();
    let mut order: Vec<&Trial> = trials.iter().filter(priced).collect();
    order.sort_by(|a, b| a.price.cmp(&b.price).then(b.merit().cmp(&a.merit())).then(a.trial.cmp(&b.trial)));
    let mut front: Vec<&Trial> = Vec::new();
    for trial in order {
        if front.last().is_none_or(|last| trial.merit() > last.merit()) {
            front.push(trial);
        }
    }
    front.iter().map(|t| t.trial).collect()
}

/// The chosen trial, and whether it keeps the drop: of those that do, the most accurate one among those that cost as much as
/// the cheapest within a hundredth, and of equally accurate ones the cheapest. If none does, the most accurate one.
pub(super) fn choose(trials: &[Trial], reference: &Reference<'_>, max_drop: f64) -> (usize, bool) {
    let keeps = |t: &&Trial| t.price.is_some() && reference.keeps(t.right, max_drop);
    match most_accurate_of_the_cheapest(trials.iter().filter(keeps)) {
        Some(trial) => (trial, true),
        None => {
            let rank = |t: &&Trial| (t.price.is_some(), t.merit(), std::cmp::Reverse(t.trial));
            (trials.iter().max_by_key(rank).map_or(0, |t| t.trial), false)
        }
    }
}

fn most_accurate_of_the_cheapest<'t>(trials: impl Iterator<Item = &'t Trial> + Clone) -> Option<usize> {
    let cheapest = trials.clone().filter_map(|t| t.price).min()?;
    let within = trials.filter(|t| t.price.is_some_and(|price| price <= cheapest + cheapest / ALIKE));
    // Of equally many right answers the cheaper one goes first, so that a tie is never slower than what it ties with.
    let rank = |t: &&Trial| {
        (
            t.right,
            std::cmp::Reverse(t.price),
            t.signal(),
            std::cmp::Reverse(t.changes.len()),
            std::cmp::Reverse(t.trial),
        )
    };
    within.max_by_key(rank).map(|t| t.trial)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(trial: usize, right: u64, noise: i64, price: u64) -> Trial {
        Trial {
            trial,
            changes: Vec::new(),
            settings: Map::new(),
            strategy: String::new(),
            quantized: String::new(),
            same_as: None,
            right,
            noise: Some(noise),
            exact: true,
            price: Some(price),
            problem: None,
        }
    }

    #[test]
    fn the_front_has_what_nothing_beats_in_accuracy_and_price_at_once() {
        let trials = [
            trial(0, 90, 5, 100),
            trial(1, 95, 5, 100),
            trial(2, 95, 5, 100),
            trial(3, 94, 9, 120),
            trial(4, 99, 1, 300),
        ];
        assert_eq!(front(&trials), [1, 4]);
    }

    #[test]
    fn of_equal_accuracy_the_choice_is_never_slower() {
        let chosen = |trials: &[Trial]| most_accurate_of_the_cheapest(trials.iter()).unwrap();
        assert_eq!(chosen(&[trial(0, 95, 1, 1000), trial(1, 95, 9, 1005)]), 0);
        assert_eq!(chosen(&[trial(0, 95, 1, 1000), trial(1, 96, 1, 1005)]), 1, "a thousandth more is no price");
        assert_eq!(chosen(&[trial(0, 95, 1, 1000), trial(1, 99, 1, 1100)]), 0, "a tenth more is");
        assert_eq!(chosen(&[trial(0, 95, 1, 1000), trial(1, 95, 9, 1000)]), 1);
    }
}
