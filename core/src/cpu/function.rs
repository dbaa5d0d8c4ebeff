//! Functions of floats. Their one definition: evaluation on a host and every board compute exactly this.
//!
//! Exponentials and the like are those of the `libm` crate, so that no machine's own library has a say in the bytes.

use libm::{expf, expm1f, log1pf, logf, tanhf};

use super::exponential;
use super::float::softmax;
use crate::model::{Combine, Function, RowFunction};

impl Function {
    /// max(x, 0).
    pub const RELU: Self = Self::Relu { max: f32::INFINITY, slope: 0.0, threshold: 0.0 };
    /// min(max(x, 0), 6).
    pub const RELU6: Self = Self::Relu { max: 6.0, slope: 0.0, threshold: 0.0 };

    /// Its value at `x`. Every operation is f32, in the order of the formula.
    pub fn apply(self, x: f32) -> f32 {
        self.value(x)
    }

    /// Replaces every value by the function's. The functions of mobile networks are chosen once, not for each value, so
    /// that compilers turn them into vectors.
    pub fn apply_all(self, values: &mut [f32]) {
        self.replace(values);
    }

    /// [`Function::apply_all`] for a caller that is compiled for vectors of its own, which this then is too. It takes more
    /// code, for exponentials of several values at once.
    #[inline(always)]
    pub fn apply_lanes(self, values: &mut [f32]) {
        if self == Self::Sigmoid {
            exponential::each(values, |x| -x, |_, e| 1.0 / (1.0 + e));
        } else if self == Self::Swish {
            exponential::each(values, |x| -x, |x, e| x / (1.0 + e));
        } else if self == Self::Exponential {
            exponential::each(values, |x| x, |_, e| e);
        } else {
            self.replace(values);
        }
    }

    #[inline(always)]
    fn replace(self, values: &mut [f32]) {
        #[inline(always)]
        fn each(values: &mut [f32], function: impl Fn(f32) -> f32) {
            values.iter_mut().for_each(|x| *x = function(*x));
        }
        if let Self::Relu { max, slope: 0.0, threshold: 0.0 } = self {
            each(values, |x| Self::Relu { max, slope: 0.0, threshold: 0.0 }.value(x));
        } else if let Self::LeakyRelu(alpha) = self {
            each(values, |x| Self::LeakyRelu(alpha).value(x));
        } else if self == Self::HardSigmoid6 {
            each(values, |x| Self::HardSigmoid6.value(x));
        } else if self == Self::HardSwish {
            each(values, |x| Self::HardSwish.value(x));
        } else if self != Self::Identity {
            each(values, |x| self.apply(x));
        }
    }

    #[inline(always)]
    fn value(self, x: f32) -> f32 {
        match self {
            Self::Identity => x,
            Self::Relu { max, slope: 0.0, threshold: 0.0 } => relu(x, max),
            Self::Relu { max, slope, threshold } => {
                if x >= max {
                    max
                } else if x >= threshold {
                    x
                } else {
                    slope * (x - threshold)
                }
            }
            Self::LeakyRelu(alpha) => if_positive(x, alpha * x),
            Self::Sigmoid => 1.0 / (1.0 + expf(-x)),
            Self::Tanh => tanhf(x),
            Self::Elu(alpha) => if_positive(x, alpha * expm1f(x)),
            Self::Selu => 1.050_701 * if_positive(x, 1.673_263_2 * expm1f(x)),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Swish => x / (1.0 + expf(-x)),
            Self::Gelu => 0.5 * x * (1.0 + libm::erff(x * core::f32::consts::FRAC_1_SQRT_2)),
            Self::Exponential => expf(x),
            Self::HardSigmoid => (0.2 * x + 0.5).clamp(0.0, 1.0),
            Self::HardSigmoid6 => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Self::DpuHardSigmoid => (x + 3.0).clamp(0.0, 6.0) * (2731.0 / 16384.0),
            Self::HardSwish => x * ((x + 3.0).clamp(0.0, 6.0) / 6.0),
            Self::Mish => x * tanhf(softplus(x)),
            Self::Scale(factor) => x * factor,
            Self::Negative => -x,
            Self::Absolute => x.abs(),
            Self::Square => x * x,
            Self::SquareRoot => libm::sqrtf(x),
            Self::InverseRoot => 1.0 / libm::sqrtf(x),
            Self::Reciprocal => 1.0 / x,
            Self::Logarithm => logf(x),
            Self::Sign => {
                if x > 0.0 {
                    1.0
                } else if x < 0.0 {
                    -1.0
                } else {
                    x
                }
            }
            Self::Floor => libm::floorf(x),
            Self::Ceiling => libm::ceilf(x),
            Self::Round => libm::rintf(x),
            Self::GeluTanh => 0.5 * x * (1.0 + tanhf(0.797_884_6 * (x + 0.044_715 * x * x * x))),
        }
    }
}

/// [`Function::Relu`] without slope and threshold.
#[inline(always)]
pub fn relu(x: f32, max: f32) -> f32 {
    // Not f32::max, which keeps −0.0 or not as the machine likes.
    if x >= max {
        max
    } else if x > 0.0 {
        x
    } else {
        0.0
    }
}

fn if_positive(x: f32, otherwise: f32) -> f32 {
    if x > 0.0 { x } else { otherwise }
}

fn softplus(x: f32) -> f32 {
    if x > 30.0 { x } else { log1pf(expf(x)) }
}

impl Combine {
    /// Its value for `a` and `b`, in f32.
    pub fn apply(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
            Self::Maximum => larger(a, b),
            Self::Minimum => {
                if a < b {
                    a
                } else {
                    b
                }
            }
            Self::Power => libm::powf(a, b),
            Self::SquaredDifference => (a - b) * (a - b),
            Self::DivideNoNan => {
                if b == 0.0 {
                    0.0
                } else {
                    a / b
                }
            }
            Self::Slope => if_positive(a, 0.0) + b * if a < 0.0 { a } else { 0.0 },
        }
    }
}

impl RowFunction {
    /// Replaces a row of `n` values; sums are taken in its order. A value is not read again once it is replaced, so that
    /// `get` and `put` may share memory.
    pub fn apply(self, n: usize, get: impl Fn(usize) -> f32, mut put: impl FnMut(usize, f32)) {
        let sum = |f: &dyn Fn(f32) -> f32| (0..n).fold(0.0f32, |sum, i| sum + f(get(i)));
        match self {
            Self::Softmax => softmax(n, get, put),
            Self::LogSoftmax => {
                let largest = (0..n).fold(f32::NEG_INFINITY, |m, i| larger(get(i), m));
                let log = logf(sum(&|x| expf(x - largest)));
                (0..n).for_each(|i| put(i, (get(i) - largest) - log));
            }
            Self::Standardize(epsilon) | Self::Deviation(epsilon) => {
                let mean = sum(&|x| x) / n as f32;
                let variance = sum(&|x| (x - mean) * (x - mean)) / n as f32;
                let r = 1.0 / libm::sqrtf(variance + epsilon);
                let less = if matches!(self, Self::Standardize(_)) { mean } else { 0.0 };
                (0..n).for_each(|i| put(i, (get(i) - less) * r));
            }
            Self::RootMeanSquare(epsilon) => {
                let r = 1.0 / libm::sqrtf(sum(&|x| x * x) / n as f32 + epsilon);
                (0..n).for_each(|i| put(i, get(i) * r));
            }
            Self::Unit(epsilon) => {
                let r = 1.0 / libm::sqrtf(larger(sum(&|x| x * x), epsilon));
                (0..n).for_each(|i| put(i, get(i) * r));
            }
        }
    }
}

/// a > b → a, else b. Unlike `f32::max` the same for zeros of both signs on every machine.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_at_once_are_single_values() {
        let functions = [
            Function::Identity,
            Function::RELU,
            Function::RELU6,
            Function::Relu { max: -1.0, slope: 0.0, threshold: 0.0 },
            Function::Relu { max: 6.0, slope: 0.1, threshold: 0.5 },
            Function::LeakyRelu(0.1),
            Function::HardSigmoid6,
            Function::HardSwish,
            Function::Sigmoid,
            Function::Square,
        ];
        let special =
            [0.0, -0.0, 6.0, -3.0, 3.0, 0.5, 1e-45, -1e-45, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY];
        let value = |i: usize| special.get(i).copied().unwrap_or((i as f32 - 60.0) * 0.173);
        for function in functions {
            let mut all: [f32; 101] = core::array::from_fn(value);
            function.apply_all(&mut all);
            for (i, y) in all.iter().enumerate() {
                assert_eq!(y.to_bits(), function.apply(value(i)).to_bits(), "{function:?} of {}", value(i));
            }
            let mut nan = [f32::NAN; 17];
            function.apply_all(&mut nan);
            assert!(nan.iter().all(|y| y.is_nan() == function.apply(f32::NAN).is_nan()), "{function:?}");
        }
    }
}
