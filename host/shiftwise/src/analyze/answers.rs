//! The network's answers: whether the quantized network still says what the float network says, and what is right.

use serde::Serialize;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{FloatEngine, Samples};
use shiftwise_graph::graph::Graph;
use shiftwise_quant::eval::VendorEngine;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::evaluate::{BATCH, check_labels};

/// Classes at most of which the whole confusion matrix is reported.
const MATRIX: usize = 100;
/// Changes of answers that are reported, the most frequent first.
const CHANGES: usize = 20;

/// Answers of the first output, whose last axis are the classes. Of equal scores the first class is the answer.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Answers {
    /// Samples that were looked at.
    pub samples: usize,
    /// Classes.
    pub classes: usize,
    /// Share of the samples to which both networks give the same answer.
    pub agreement: f64,
    /// Mean Kullback-Leibler divergence of the quantized network's probabilities from the float network's, in nats. Outputs
    /// that are no probabilities go through a softmax first.
    pub kl: f64,
    /// What labels say of the answers.
    pub labelled: Option<Labelled>,
    /// Answers that quantization changes, the most frequent first.
    pub changes: Vec<Change>,
}

/// Answers beside labels.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Labelled {
    /// Share of right answers of the float network.
    pub float_top1: f64,
    /// Share of right answers of the quantized network.
    pub quantized_top1: f64,
    /// Samples by label (row) and answer of the quantized network (column); left out where there are more than 100 classes.
    pub confusion: Vec<Vec<usize>>,
}

/// Samples that quantization moves from one class to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Change {
    /// The label; `None` without labels.
    pub label: Option<usize>,
    /// What the float network answers.
    pub float: usize,
    /// What the quantized network answers.
    pub quantized: usize,
    /// How many samples.
    pub samples: usize,
}

/// The first of the largest scores.
fn answer(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// Scores as probabilities: themselves where they are some, else their softmax.
fn probabilities(scores: &[f32]) -> Vec<f64> {
    let all: Vec<f64> = scores.iter().map(|v| f64::from(*v)).collect();
    // Probabilities on a grid of 8 bits may miss 1 by half a step for each class.
    let slack = 0.004 * all.len() as f64 / 2.0 + 1e-3;
    if all.iter().all(|p| *p >= 0.0) && (all.iter().sum::<f64>() - 1.0).abs() <= slack {
        return all;
    }
    let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = all.iter().map(|v| (v - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|p| p / sum).collect()
}

/// Divergence of `q` from `p`, in nats; what `q` calls impossible counts as a probability of 10⁻⁶.
fn divergence(p: &[f64], q: &[f64]) -> f64 {
    let term = |(p, q): (&f64, &f64)| if *p > 0.0 { p * (p / q.max(1e-6)).ln() } else { 0.0 };
    p.iter().zip(q).map(term).sum::<f64>().max(0.0)
}

/// Counts, as samples come.
struct Count<'l> {
    labels: Option<&'l [i64]>,
    samples: usize,
    agreed: usize,
    kl: f64,
    right: [usize; 2],
    confusion: Vec<Vec<usize>>,
    changes: std::collections::BTreeMap<(Option<usize>, usize, usize), usize>,
}

impl Count<'_> {
    fn add(&mut self, float: &[f32], quantized: &[f32]) {
        let own = [answer(float), answer(quantized)];
        // Labels were checked to be classes.
        let label = self.labels.map(|all| all[self.samples] as usize);
        self.samples += 1;
        self.agreed += usize::from(own[0] == own[1]);
        self.kl += divergence(&probabilities(float), &probabilities(quantized));
        if let Some(label) = label {
            self.right.iter_mut().zip(own).for_each(|(n, a)| *n += usize::from(a == label));
            if let Some(cell) = self.confusion.get_mut(label).and_then(|row| row.get_mut(own[1])) {
                *cell += 1;
            }
        }
        if own[0] != own[1] {
            *self.changes.entry((label, own[0], own[1])).or_default() += 1;
        }
    }

    fn answers(self, classes: usize) -> Answers {
        let share = |n: usize| n as f64 / self.samples.max(1) as f64;
        let row = |((label, float, quantized), samples)| Change { label, float, quantized, samples };
        let mut changes: Vec<Change> = self.changes.into_iter().map(row).collect();
        changes.sort_by_key(|change| std::cmp::Reverse(change.samples));
        changes.truncate(CHANGES);
        Answers {
            samples: self.samples,
            classes,
            agreement: share(self.agreed),
            kl: self.kl / self.samples.max(1) as f64,
            labelled: self.labels.map(|_| Labelled {
                float_top1: share(self.right[0]),
                quantized_top1: share(self.right[1]),
                confusion: self.confusion,
            }),
            changes,
        }
    }
}

/// The answers to the first `count` samples; `None` for a network whose first output is not one score for each of two
/// classes or more.
///
/// Errors: [`Error::Dataset`] for another number of labels than samples, and for labels that are no class; those of the data.
pub fn answers(
    (graph, q): (&Graph, &QuantGraph),
    samples: &dyn Samples,
    count: usize,
    labels: Option<&[i64]>,
) -> Result<Option<Answers>, Error> {
    let shape = graph.outputs.first().map_or(&[][..], |id| &graph.node(*id).shape[..]);
    let classes = match *shape {
        [classes] if classes > 1 => classes,
        _ if labels.is_some() => {
            let text = "there are labels, and the first output is not one score for each class";
            return Err(Error::Dataset(text.into()));
        }
        _ => return Ok(None),
    };
    if let Some(labels) = labels {
        check_labels((graph, &graph.name), samples.len(), labels)?;
    }
    let matrix = if labels.is_some() && classes <= MATRIX { classes } else { 0 };
    let mut all = Count {
        labels,
        samples: 0,
        agreed: 0,
        kl: 0.0,
        right: [0; 2],
        confusion: vec![vec![0; matrix]; matrix],
        changes: std::collections::BTreeMap::new(),
    };
    let (float, quantized) = (FloatEngine::new(graph), VendorEngine::new(q));
    for start in (0..count).step_by(BATCH) {
        let batch = samples.batch(start, BATCH.min(count - start))?;
        let first = |out: Vec<Tensor>| out.into_iter().next().map(Tensor::into_data).unwrap_or_default();
        let own = [first(float.run(&batch)?), first(quantized.run(batch)?)];
        own[0].chunks_exact(classes).zip(own[1].chunks_exact(classes)).for_each(|(a, b)| all.add(a, b));
    }
    Ok(Some(all.answers(classes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(labels: Option<&[i64]>) -> Count<'_> {
        let confusion = vec![vec![0; 2]; 2];
        Count { labels, samples: 0, agreed: 0, kl: 0.0, right: [0; 2], confusion, changes: Default::default() }
    }

    #[test]
    fn changed_answers_are_counted_by_label_and_class() {
        let mut all = count(Some(&[0, 0, 1]));
        all.add(&[2.0, 1.0], &[1.0, 2.0]);
        all.add(&[2.0, 1.0], &[1.0, 2.0]);
        all.add(&[0.0, 3.0], &[0.0, 3.0]);
        let all = all.answers(2);
        assert_eq!(all.changes, [Change { label: Some(0), float: 0, quantized: 1, samples: 2 }]);
        let labelled = all.labelled.unwrap();
        assert_eq!(labelled.confusion, [[0, 2], [0, 1]]);
        assert_eq!((labelled.float_top1, labelled.quantized_top1), (1.0, 1.0 / 3.0));
        assert!((all.agreement - 1.0 / 3.0).abs() < 1e-12 && all.kl > 0.0);
    }

    #[test]
    fn equal_scores_have_no_divergence_and_the_first_is_the_answer() {
        let mut all = count(None);
        all.add(&[1.0, 1.0], &[1.0, 1.0]);
        let all = all.answers(2);
        assert_eq!((all.kl, all.agreement), (0.0, 1.0));
        assert_eq!(answer(&[0.0, 5.0, 5.0]), 1);
    }

    #[test]
    fn divergence_is_that_of_the_formula() {
        // 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.14384…
        assert!((divergence(&[0.5, 0.5], &[0.25, 0.75]) - 0.143_841_036).abs() < 1e-8);
        let own = probabilities(&[0.0, 3f32.ln()]);
        assert!((own[0] - 0.25).abs() < 1e-6 && (own[1] - 0.75).abs() < 1e-6, "{own:?}");
        assert_eq!(probabilities(&[0.25, 0.75]), [0.25, 0.75]);
    }
}
