//! Losses: THE table of what training makes small, with Keras' formulas.
//!
//! A loss is the mean over a batch (and, of images, over their positions) of what a row of the last axis gives. The
//! cross-entropies are computed from what the last softmax or sigmoid was given, as Keras does where it can, so that no
//! probability is too small for a logarithm. Sums are f64, in the order of the elements.

use shiftwise_tensor::tensor::Tensor;

/// What an output ends with, which decides what a cross-entropy is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A softmax over the last axis; its input is at hand.
    Softmax,
    /// A sigmoid; its input is at hand.
    Sigmoid,
    /// A softmax, sigmoid or hard sigmoid whose input is not at hand: values are probabilities.
    Probabilities,
    /// None of them: values are logits.
    Logits,
}

impl Ending {
    /// Whether a loss of this ending reads what the last function was given, instead of its result.
    pub fn is_fused(self) -> bool {
        matches!(self, Self::Softmax | Self::Sigmoid)
    }
}

/// What an output is compared with, one for each sample of a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Numbers of classes, one for each row of the last axis.
    Classes(Vec<i64>),
    /// Values of the output's shape.
    Values(Tensor),
}

/// What labels a loss takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Numbers of classes.
    Classes,
    /// Values of the output's shape.
    Values,
}

/// A loss: a row of [`LOSSES`].
#[derive(Debug)]
pub struct Loss {
    /// Keras' name.
    pub name: &'static str,
    /// What it is, as the end of a sentence.
    pub doc: &'static str,
    /// What it compares with.
    pub labels: Labels,
    /// Whether it reads what the last softmax or sigmoid is given: the endings for which it does.
    fused: &'static [Ending],
    /// Loss of a row; adds its gradient, of the row's own loss, to the third argument.
    row: fn(Ending, &[f32], Row<'_>, &mut [f32]) -> f64,
}

/// The target of a row.
#[derive(Clone, Copy, Debug)]
enum Row<'a> {
    Class(usize),
    Values(&'a [f32]),
}

impl Row<'_> {
    /// The wanted value at a place of the row.
    fn at(&self, i: usize) -> f64 {
        match self {
            Self::Class(class) => f64::from(u8::from(*class == i)),
            Self::Values(values) => values.get(i).copied().map_or(0.0, f64::from),
        }
    }
}

/// Every loss.
#[rustfmt::skip]
pub const LOSSES: &[Loss] = &[
    Loss { name: "sparse_categorical_crossentropy", doc: "cross-entropy of class numbers",
           labels: Labels::Classes, fused: &[Ending::Softmax], row: categorical },
    Loss { name: "categorical_crossentropy", doc: "cross-entropy of probabilities of classes",
           labels: Labels::Values, fused: &[Ending::Softmax], row: categorical },
    Loss { name: "binary_crossentropy", doc: "cross-entropy of each output by itself",
           labels: Labels::Values, fused: &[Ending::Sigmoid], row: binary },
    Loss { name: "mse", doc: "mean squared error", labels: Labels::Values, fused: &[], row: squared },
    Loss { name: "mae", doc: "mean absolute error", labels: Labels::Values, fused: &[], row: absolute },
    Loss { name: "huber", doc: "squared error up to a distance of 1, absolute error beyond",
           labels: Labels::Values, fused: &[], row: huber },
];

/// Keras' bound of a probability from 0 and from 1, before a logarithm.
const PROBABILITY: f64 = 1e-7;

impl Loss {
    /// The loss of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        LOSSES.iter().find(|own| own.name == name)
    }

    /// Whether it reads what an output's last function is given.
    pub fn is_fused(&self, ending: Ending) -> bool {
        self.fused.contains(&ending)
    }

    /// The mean loss of a batch and its gradient by `values`, times `weight`. `values` are the output, or, where the loss
    /// [is fused](Loss::is_fused) with its ending, what the last function was given.
    ///
    /// Errors: a target of another size, or a class that there isn't, as a clause about the labels.
    pub fn evaluate(
        &self,
        ending: Ending,
        values: &Tensor,
        target: &Target,
        weight: f64,
    ) -> Result<(f64, Tensor), String> {
        // What isn't read before the last function is the function's result.
        let ending = if ending.is_fused() && !self.is_fused(ending) { Ending::Probabilities } else { ending };
        let width = values.shape().last().copied().unwrap_or(1).max(1);
        let rows = values.data().len() / width;
        let mut gradient = vec![0.0f32; values.data().len()];
        let scale = weight / rows.max(1) as f64;
        let mut sum = 0.0f64;
        let target = |k: usize| match target {
            Target::Classes(classes) if classes.len() == rows => {
                let class = classes.get(k).copied().unwrap_or(-1);
                let known = usize::try_from(class).ok().filter(|class| *class < width);
                known
                    .map(Row::Class)
                    .ok_or_else(|| format!("a label is {class}, and there are {width} classes from 0 on"))
            }
            Target::Values(wanted) if wanted.data().len() == values.data().len() => {
                Ok(Row::Values(&wanted.data()[k * width..][..width]))
            }
            Target::Classes(classes) => Err(format!("there are {} labels for {rows} rows of an output", classes.len())),
            Target::Values(wanted) => {
                Err(format!("labels have shape {:?}, and the output {:?}", wanted.shape(), values.shape()))
            }
        };
        for (k, (row, to)) in values.data().chunks_exact(width).zip(gradient.chunks_exact_mut(width)).enumerate() {
            sum += (self.row)(ending, row, target(k)?, to);
            to.iter_mut().for_each(|d| *d = (f64::from(*d) * scale) as f32);
        }
        let gradient = Tensor::new(values.shape().to_vec(), gradient).ok_or("the output has no shape")?;
        Ok((sum * scale, gradient))
    }
}

/// The mean over a row of a term and its derivative.
fn mean(row: &[f32], target: Row<'_>, to: &mut [f32], term: impl Fn(f64) -> (f64, f64)) -> f64 {
    let count = row.len().max(1) as f64;
    let mut sum = 0.0;
    for (i, (x, d)) in row.iter().zip(to).enumerate() {
        let (value, slope) = term(f64::from(*x) - target.at(i));
        sum += value;
        *d = (slope / count) as f32;
    }
    sum / count
}

fn squared(_: Ending, row: &[f32], target: Row<'_>, to: &mut [f32]) -> f64 {
    mean(row, target, to, |e| (e * e, 2.0 * e))
}

fn absolute(_: Ending, row: &[f32], target: Row<'_>, to: &mut [f32]) -> f64 {
    mean(row, target, to, |e| (e.abs(), if e == 0.0 { 0.0 } else { e.signum() }))
}

fn huber(_: Ending, row: &[f32], target: Row<'_>, to: &mut [f32]) -> f64 {
    mean(row, target, to, |e| if e.abs() <= 1.0 { (0.5 * e * e, e) } else { (e.abs() - 0.5, e.signum()) })
}

/// −Σ t · ln p, with p from logits, or the row over its sum, as Keras takes probabilities.
fn categorical(ending: Ending, row: &[f32], target: Row<'_>, to: &mut [f32]) -> f64 {
    let wide = || row.iter().map(|x| f64::from(*x));
    let all: f64 = (0..row.len()).map(|i| target.at(i)).sum();
    let mut sum = 0.0;
    match ending {
        Ending::Softmax | Ending::Logits | Ending::Sigmoid => {
            let largest = wide().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = wide().map(|x| (x - largest).exp()).sum();
            for (i, (x, d)) in wide().zip(to).enumerate() {
                sum -= target.at(i) * (x - largest - total.ln());
                *d = (all * (x - largest).exp() / total - target.at(i)) as f32;
            }
        }
        Ending::Probabilities => {
            let total: f64 = wide().sum();
            let share = |x: f64| x / total;
            let inside = |p: f64| (PROBABILITY..=1.0 - PROBABILITY).contains(&p);
            // Of the clipped ones nothing flows back but through the sum.
            let through: f64 = wide().enumerate().filter(|(_, x)| inside(share(*x))).map(|(i, _)| target.at(i)).sum();
            for (i, (x, d)) in wide().zip(to).enumerate() {
                let p = share(x);
                sum -= target.at(i) * p.clamp(PROBABILITY, 1.0 - PROBABILITY).ln();
                let own = if inside(p) { target.at(i) / x } else { 0.0 };
                *d = (through / total - own) as f32;
            }
        }
    }
    sum
}

/// The mean of −t · ln p − (1 − t) · ln(1 − p).
fn binary(ending: Ending, row: &[f32], target: Row<'_>, to: &mut [f32]) -> f64 {
    let count = row.len().max(1) as f64;
    let mut sum = 0.0;
    for (i, (x, d)) in row.iter().zip(to).enumerate() {
        let (x, t) = (f64::from(*x), target.at(i));
        let slope = match ending {
            Ending::Sigmoid | Ending::Logits | Ending::Softmax => {
                sum += x.max(0.0) - x * t + (-x.abs()).exp().ln_1p();
                1.0 / (1.0 + (-x).exp()) - t
            }
            Ending::Probabilities => {
                let p = x.clamp(PROBABILITY, 1.0 - PROBABILITY);
                sum -= t * (p + PROBABILITY).ln() + (1.0 - t) * (1.0 - p + PROBABILITY).ln();
                let slope = (1.0 - t) / (1.0 - p + PROBABILITY) - t / (p + PROBABILITY);
                if p == x { slope } else { 0.0 }
            }
        };
        *d = (slope / count) as f32;
    }
    sum / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(vec![2, values.len() / 2], values.to_vec()).unwrap()
    }

    #[test]
    fn every_gradient_is_the_difference_of_its_loss() {
        let targets = [tensor(&[0.0, 1.0, 0.0, 0.25, 0.5, 0.25]), tensor(&[0.3, 0.7, 0.4, 0.1, 0.9, 1.0])];
        for loss in LOSSES {
            for ending in [Ending::Softmax, Ending::Sigmoid, Ending::Probabilities, Ending::Logits] {
                let values = [0.2f32, 0.5, 0.35, 0.125, 0.75, 0.6];
                let target = match loss.labels {
                    Labels::Classes => Target::Classes(vec![1, 2]),
                    Labels::Values => {
                        Target::Values(targets[usize::from(loss.name != "categorical_crossentropy")].clone())
                    }
                };
                let at = |values: &[f32]| loss.evaluate(ending, &tensor(values), &target, 0.5).unwrap();
                let (_, gradient) = at(&values);
                for i in 0..values.len() {
                    let moved = |h: f32| {
                        let mut values = values;
                        values[i] += h;
                        at(&values).0
                    };
                    let h = 1.0 / 1024.0;
                    let difference = (moved(h) - moved(-h)) / f64::from(2.0 * h);
                    let own = f64::from(gradient.data()[i]);
                    assert!((own - difference).abs() < 1e-4, "{} {ending:?} [{i}]: {own} {difference}", loss.name);
                }
            }
        }
    }

    /// Numbers from Keras 2.12: `keras.losses.X()(y_true, y_pred)`.
    #[test]
    fn losses_are_those_of_keras() {
        let (wanted, values) = (tensor(&[0.0, 1.0, 0.0, 1.0]), tensor(&[0.25, 0.5, -0.5, 3.0]));
        let of = |name: &str, ending| {
            let target = Target::Values(wanted.clone());
            Loss::find(name).unwrap().evaluate(ending, &values, &target, 1.0).unwrap().0
        };
        assert_eq!(of("mse", Ending::Logits), (0.0625 + 0.25 + 0.25 + 4.0) / 4.0);
        assert_eq!(of("mae", Ending::Logits), (0.25 + 0.5 + 0.5 + 2.0) / 4.0);
        assert_eq!(of("huber", Ending::Logits), (0.03125 + 0.125 + 0.125 + 1.5) / 4.0);
        let logits: f64 = [(0.25f64, 0.5f64), (-0.5, 3.0)].iter().map(|(a, b)| (a.exp() + b.exp()).ln() - b).sum();
        assert!((of("categorical_crossentropy", Ending::Softmax) - logits / 2.0).abs() < 1e-12);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let loss = Loss::find("sparse_categorical_crossentropy").unwrap();
        let refused = |classes: Vec<i64>| {
            loss.evaluate(Ending::Softmax, &tensor(&[0.0; 6]), &Target::Classes(classes), 1.0).unwrap_err()
        };
        assert!(refused(vec![0, 3]).contains("a label is 3"));
        assert!(refused(vec![0, -1]).contains("a label is -1"));
        assert!(refused(vec![0]).contains("1 labels for 2 rows"));
    }
}
