//! Metrics: THE table of what a validation set chooses the best weights by.

use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::loss::Target;

/// The sum over a batch of an output, and the number of its terms; `None` if labels are of another kind.
type Of = fn(&Tensor, &Target) -> Option<(f64, usize)>;

/// A metric: a row of [`METRICS`].
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is, as the end of a sentence.
    pub doc: &'static str,
    /// Whether more is better.
    pub larger: bool,
    /// What it takes of an output. Without it, the metric is the loss.
    pub(super) of: Option<Of>,
}

/// Every metric.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    Metric { name: "accuracy", doc: "the share of rows whose largest value is that of the label", larger: true,
             of: Some(accuracy) },
    Metric { name: "loss", doc: "the sum of the outputs' losses", larger: false, of: None },
    Metric { name: "mae", doc: "the mean distance from the label's values", larger: false,
             of: Some(|output, target| distance(output, target, f64::abs)) },
    Metric { name: "mse", doc: "the mean squared distance from the label's values", larger: false,
             of: Some(|output, target| distance(output, target, |d| d * d)) },
];

impl Metric {
    /// The metric of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|own| own.name == name)
    }

    /// What is larger for a better network.
    pub fn merit(&self, value: f64) -> f64 {
        if self.larger { value } else { -value }
    }
}

/// The first of the largest values, as argmax takes it.
pub(super) fn largest(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

fn accuracy(output: &Tensor, target: &Target) -> Option<(f64, usize)> {
    let width = output.shape().last().copied().unwrap_or(1).max(1);
    let rows = output.data().chunks_exact(width);
    let (right, count) = match target {
        Target::Classes(classes) => {
            (rows.zip(classes).filter(|(row, class)| largest(row) as i64 == **class).count(), classes.len())
        }
        Target::Values(values) => {
            let labels = values.data().chunks_exact(width);
            (
                rows.zip(labels).filter(|(row, label)| largest(row) == largest(label)).count(),
                values.data().len() / width,
            )
        }
    };
    Some((right as f64, count))
}

fn distance(output: &Tensor, target: &Target, of: fn(f64) -> f64) -> Option<(f64, usize)> {
    let Target::Values(values) = target else { return None };
    let pairs = output.data().iter().zip(values.data());
    Some((pairs.map(|(a, b)| of(f64::from(*a) - f64::from(*b))).sum(), output.data().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_what_their_names_say() {
        let output = Tensor::new(vec![2, 3], vec![0.1, 0.7, 0.2, 0.5, 0.25, 0.25]).unwrap();
        let of = |name: &str, target: &Target| {
            Metric::find(name).and_then(|metric| metric.of?(&output, target)).map(|(sum, count)| sum / count as f64)
        };
        assert_eq!(of("accuracy", &Target::Classes(vec![1, 2])), Some(0.5));
        let values = Target::Values(Tensor::new(vec![2, 3], vec![0.1, 0.7, 0.2, 1.5, 0.25, -0.75]).unwrap());
        assert_eq!(of("accuracy", &values), Some(1.0));
        assert_eq!(of("mae", &values), Some(2.0 / 6.0));
        assert_eq!(of("mse", &values), Some(2.0 / 6.0));
        assert_eq!(of("mae", &Target::Classes(vec![1, 2])), None);
        assert!(Metric::find("loss").is_some_and(|own| own.of.is_none() && own.merit(2.0) == -2.0));
    }
}
