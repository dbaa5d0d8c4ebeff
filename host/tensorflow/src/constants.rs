//! Constants of graphs, and what is computed of them while a graph is read.

use std::sync::Arc;

use shiftwise_tensor::tensor::Tensor;

/// The number that stands in shapes for the batch, which no layer knows. No file can mean it as a number: it lies far from
/// those that sizes, axes and the ends of slices have.
pub(crate) const BATCH: i64 = i64::MIN / 2;

/// A constant: numbers that a network computes with, or whole numbers (shapes, axes, truth values) that say how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Constant {
    /// Floats of any width, as 32-bit ones.
    Floats(Tensor),
    /// Whole numbers with their shape.
    Integers(Vec<usize>, Arc<Vec<i64>>),
}

impl Constant {
    /// A vector of whole numbers.
    pub(crate) fn integers(values: Vec<i64>) -> Self {
        Self::Integers(vec![values.len()], Arc::new(values))
    }

    /// A whole number.
    pub(crate) fn integer(value: i64) -> Self {
        Self::Integers(Vec::new(), Arc::new(vec![value]))
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(tensor) => tensor.shape(),
            Self::Integers(shape, _) => shape,
        }
    }

    /// The numbers as floats.
    ///
    /// Errors: the size of the batch is one of them.
    pub(crate) fn tensor(&self) -> Result<Tensor, String> {
        match self {
            Self::Floats(tensor) => Ok(tensor.clone()),
            Self::Integers(_, values) if values.contains(&BATCH) => {
                Err("it computes with the size of the batch".into())
            }
            Self::Integers(shape, values) => {
                let floats = values.iter().map(|v| *v as f32).collect();
                Tensor::new(shape.clone(), floats).ok_or_else(|| "a constant has another size than its shape".into())
            }
        }
    }

    /// The numbers, which are whole.
    pub(crate) fn whole(&self) -> Result<Vec<i64>, String> {
        match self {
            Self::Integers(_, values) => Ok(values.to_vec()),
            Self::Floats(t) if t.data().iter().all(|v| v.fract() == 0.0 && v.abs() < 1e9) => {
                Ok(t.data().iter().map(|v| *v as i64).collect())
            }
            Self::Floats(_) => Err("whole numbers are expected where it has floats".into()),
        }
    }

    /// What a function that only moves elements makes of this constant. `moved` moves a tensor of the elements' numbers,
    /// so whole numbers stay exact.
    pub(crate) fn moved(&self, moved: impl FnOnce(&Tensor) -> Result<Tensor, String>) -> Result<Self, String> {
        match self {
            Self::Floats(tensor) => moved(tensor).map(Self::Floats),
            Self::Integers(shape, values) => {
                if values.len() >= 1 << 24 {
                    return Err(format!("{} whole numbers are too many to be moved", values.len()));
                }
                let numbers = (0..values.len()).map(|i| i as f32).collect();
                let numbers =
                    Tensor::new(shape.clone(), numbers).ok_or("a constant has another size than its shape")?;
                let from = moved(&numbers)?;
                let pick = |i: &f32| values.get(*i as usize).copied().unwrap_or_default();
                Ok(Self::Integers(from.shape().to_vec(), Arc::new(from.data().iter().map(pick).collect())))
            }
        }
    }
}

/// A function of two whole numbers, where it is one that shapes are computed with.
pub(crate) fn combine(function: &str, a: i64, b: i64) -> Option<i64> {
    if a == BATCH || b == BATCH {
        // A multiple of the batch is still the size that is not known.
        let known = if a == BATCH { b } else { a };
        return match function {
            "math.multiply" | "math.floordiv" => Some(BATCH),
            "math.add" | "math.subtract" if known == 0 => Some(BATCH),
            "math.maximum" if known <= 1 => Some(BATCH),
            "math.equal" => Some(i64::from(a == b)),
            _ => None,
        };
    }
    match function {
        "math.add" => a.checked_add(b),
        "math.subtract" => a.checked_sub(b),
        "math.multiply" => a.checked_mul(b),
        "math.floordiv" => (b != 0).then(|| a.checked_div_euclid(b)).flatten(),
        "math.floormod" => (b != 0).then(|| a.checked_rem_euclid(b)).flatten(),
        "math.maximum" => Some(a.max(b)),
        "math.minimum" => Some(a.min(b)),
        "math.equal" => Some(i64::from(a == b)),
        "math.not_equal" => Some(i64::from(a != b)),
        "math.less" => Some(i64::from(a < b)),
        "math.less_equal" => Some(i64::from(a <= b)),
        "math.greater" => Some(i64::from(a > b)),
        "math.greater_equal" => Some(i64::from(a >= b)),
        "math.logical_and" => Some(i64::from(a != 0 && b != 0)),
        "math.logical_or" => Some(i64::from(a != 0 || b != 0)),
        _ => None,
    }
}

/// A fold of whole numbers, where it is one that shapes are computed with.
pub(crate) fn fold(function: &str, values: &[i64]) -> Option<i64> {
    let (first, step): (i64, &str) = match function {
        "math.reduce_prod" => (1, "math.multiply"),
        "math.reduce_sum" => (0, "math.add"),
        "math.reduce_all" => (1, "math.logical_and"),
        "math.reduce_any" => (0, "math.logical_or"),
        "math.reduce_max" => (*values.first()?, "math.maximum"),
        "math.reduce_min" => (*values.first()?, "math.minimum"),
        _ => return None,
    };
    values.iter().try_fold(first, |sum, v| combine(step, sum, *v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiple_of_the_batch_is_the_batch_and_a_sum_with_it_is_nothing() {
        assert_eq!(combine("math.multiply", BATCH, 7), Some(BATCH));
        assert_eq!(combine("math.add", 3, BATCH), None);
        assert_eq!(fold("math.reduce_prod", &[BATCH, 49, 10]), Some(BATCH));
        assert_eq!(fold("math.reduce_prod", &[2, 3, 7]), Some(42));
        assert_eq!(combine("math.floordiv", -7, 2), Some(-4));
        assert_eq!(combine("math.floordiv", 1, 0), None);
        assert_eq!(combine("math.multiply", i64::MAX, 2), None);
    }

    #[test]
    fn whole_numbers_that_move_stay_exact() {
        let large = Constant::integers(vec![i64::MAX, 1, BATCH]);
        let back = large.moved(|t| Ok(Tensor::vector(t.data().iter().rev().copied().collect()))).unwrap();
        assert_eq!(back, Constant::integers(vec![BATCH, 1, i64::MAX]));
        assert!(back.tensor().is_err());
    }
}
