//! How good a quantized network's answers are: counted against labels, or against the float network's own answers, which are
//! computed once.

use serde::Serialize;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{FloatEngine, Samples};
use shiftwise_graph::graph::Graph;
use shiftwise_integer::lower;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::evaluate;
use crate::golden::Numerics;

/// Samples that are computed at once: bounds memory.
const BATCH: usize = 64;
/// Bytes of the float network's outputs that are kept, for signal to noise: of the first samples.
const KEPT: usize = 64 << 20;
/// Parts of a signal's energy that count as answers where there is nothing else to count.
const PARTS: u64 = 1_000_000;

/// What right answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Measure {
    /// Samples whose label has the largest value of the first output.
    Top1,
    /// Largest values along the last axis of every output that stand where they do in the float network.
    Agreement,
    /// Of outputs without classes: millionths of the energy that are no noise.
    Signal,
}

impl Measure {
    /// Its name for people.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Top1 => "right answers",
            Self::Agreement => "agreement with the float network",
            Self::Signal => "signal kept",
        }
    }
}

/// What a network's answers are worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quality {
    /// Right answers.
    pub(super) right: u64,
    /// Signal to noise of the worst output against the float network, in ten-thousandths of a decibel; `None` where nothing differs.
    pub(super) noise: Option<i64>,
    /// Whether they are exact integers, as a device computes; else f32, for a network without an integer form.
    pub(super) exact: bool,
}

/// The float network's answers, and what is right.
pub(super) struct Reference<'r> {
    samples: &'r dyn Samples,
    labels: Option<&'r [i64]>,
    pub(super) measure: Measure,
    /// Answers in all.
    pub(super) answers: u64,
    /// Right ones of the float network.
    pub(super) float_right: u64,
    /// Of each output: its largest value of each row, where it has rows.
    largest: Vec<Vec<u32>>,
    /// Outputs of the first batches.
    outputs: Vec<Vec<Tensor>>,
}

/// Positions of the largest values along the last axis; of equal ones the first. Nothing where the axis has one value.
fn largest(output: &Tensor) -> Vec<u32> {
    let classes = output.shape().last().copied().unwrap_or(1);
    if classes < 2 || output.shape().len() < 2 {
        return Vec::new();
    }
    let best = |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as u32;
    output.data().chunks_exact(classes).map(best).collect()
}

/// Answers that are equal.
fn agree(a: &[u32], b: &[u32]) -> u64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as u64
}

impl<'r> Reference<'r> {
    /// Runs the float network over all samples.
    ///
    /// Errors: no samples; labels that are not one for each sample, or no class.
    pub(super) fn of(graph: &Graph, samples: &'r dyn Samples, labels: Option<&'r [i64]>) -> Result<Self, Error> {
        if samples.is_empty() {
            return Err(Error::Dataset("the data has no samples".into()));
        }
        if let Some(labels) = labels {
            evaluate::check_labels((graph, &graph.name), samples.len(), labels)?;
        }
        let engine = FloatEngine::new(graph);
        let mut own = Self {
            samples,
            labels,
            measure: if labels.is_some() { Measure::Top1 } else { Measure::Agreement },
            answers: 0,
            float_right: 0,
            largest: vec![Vec::new(); graph.outputs.len()],
            outputs: Vec::new(),
        };
        let mut bytes = 0;
        for start in (0..samples.len()).step_by(BATCH) {
            let out = engine.run(&samples.batch(start, BATCH.min(samples.len() - start))?)?;
            own.float_right += own.right(start, &out);
            own.largest.iter_mut().zip(&out).for_each(|(all, out)| all.extend(largest(out)));
            bytes += out.iter().map(|t| 4 * t.data().len()).sum::<usize>();
            if start == 0 || bytes <= KEPT {
                own.outputs.push(out);
            }
        }
        let rows = own.largest.iter().map(Vec::len).sum::<usize>() as u64;
        (own.measure, own.answers, own.float_right) = match labels {
            Some(labels) => (Measure::Top1, labels.len() as u64, own.float_right),
            None if rows > 0 => (Measure::Agreement, rows, rows),
            None => (Measure::Signal, PARTS, PARTS),
        };
        Ok(own)
    }

    /// Labels that a batch of outputs has right.
    fn right(&self, start: usize, out: &[Tensor]) -> u64 {
        let (Some(labels), Some(out)) = (self.labels, out.first()) else { return 0 };
        let labels = labels.get(start..).unwrap_or_default();
        let classes = (out.data().len() / out.shape().first().copied().unwrap_or(1).max(1)).max(1);
        let flat = Tensor::new(vec![out.data().len() / classes, classes], out.data().to_vec());
        // A network with one class has it right.
        let answers = flat.map_or_else(Vec::new, |flat| largest(&flat));
        if answers.is_empty() {
            return out.shape().first().copied().unwrap_or(0) as u64;
        }
        answers.iter().zip(labels).filter(|(own, label)| i64::from(**own) == **label).count() as u64
    }

    /// What a quantized network's answers are worth.
    ///
    /// Errors: those of running it.
    pub(super) fn quality(&self, q: QuantGraph) -> Result<Quality, Error> {
        let exact = !q.layers.is_empty() && lower::lower(&q).is_ok();
        let model = Model::Quantized(q);
        let numerics = if exact { Numerics::Dpu } else { Numerics::Vendor };
        let (mut right, mut agreed) = (0, 0);
        let mut seen = vec![0; self.largest.len()];
        let mut sums = vec![[0.0f64; 2]; self.largest.len()];
        let each = |start: usize, out: Vec<Tensor>| {
            right += self.right(start, &out);
            for ((out, float), seen) in out.iter().zip(&self.largest).zip(&mut seen) {
                let own = largest(out);
                agreed += agree(&own, float.get(*seen..).unwrap_or_default());
                *seen += own.len();
            }
            let float = self.outputs.get(start / BATCH).map_or(&[][..], Vec::as_slice);
            for ([signal, noise], (a, b)) in sums.iter_mut().zip(float.iter().zip(&out)) {
                for (a, b) in a.data().iter().zip(b.data()) {
                    *signal += f64::from(*a) * f64::from(*a);
                    *noise += (f64::from(*a) - f64::from(*b)).powi(2);
                }
            }
            Ok(())
        };
        evaluate::outputs(&model, numerics, self.samples, BATCH, each, &mut |_| ())?;
        let worst = sums.iter().filter(|[_, noise]| *noise > 0.0).map(|[signal, noise]| signal / noise);
        let worst = worst.fold(f64::INFINITY, f64::min);
        let noise = (worst < f64::INFINITY).then(|| (1e5 * worst.max(1e-30).log10()).round() as i64);
        let parts = if worst > 1.0 { ((1.0 - 1.0 / worst) * PARTS as f64).floor() as u64 } else { 0 };
        let right = match self.measure {
            Measure::Top1 => right,
            Measure::Agreement => agreed,
            Measure::Signal => parts,
        };
        Ok(Quality { right, noise, exact })
    }

    /// Whether at most a share of the float network's right answers is lost. Counts decide, so that a drop of exactly the limit
    /// passes whatever the floats say.
    pub(super) fn keeps(&self, right: u64, max_drop: f64) -> bool {
        self.float_right as f64 - right as f64 <= max_drop * self.answers as f64 + 1e-9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_values_the_first_is_the_answer_and_one_value_is_none() {
        let of = |shape: Vec<usize>, data: Vec<f32>| largest(&Tensor::new(shape, data).unwrap());
        assert_eq!(of(vec![2, 3], vec![1.0, 2.0, 2.0, 3.0, 3.0, 1.0]), [1, 0]);
        assert_eq!(of(vec![1, 2, 2], vec![0.0, 1.0, 5.0, 4.0]), [1, 0]);
        assert!(of(vec![3, 1], vec![1.0; 3]).is_empty());
    }
}
