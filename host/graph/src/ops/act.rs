//! Activations.

use crate::ops::{Layer, finite, one};
use shiftwise_core::model::{Combine, Function, RowFunction};
use shiftwise_tensor::broadcast::offsets;
use shiftwise_tensor::tensor::Tensor;

/// Activation functions by Keras name. The class of a function decides where the vendor quantizes around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationFn {
    /// Identity.
    Linear,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// exp(x) / Σ exp(x) over the last axis.
    Softmax,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// tanh(x).
    Tanh,
    /// x for x > 0, else exp(x) − 1.
    Elu,
    /// Scaled elu.
    Selu,
    /// ln(1 + exp(x)).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// x · sigmoid(x).
    Swish,
    /// x · Φ(x), exact form.
    Gelu,
    /// exp(x).
    Exponential,
    /// clamp(0.2·x + 0.5, 0, 1), Keras 2's form.
    HardSigmoid,
    /// relu6(x + 3) / 6, Keras 3's form.
    HardSigmoid6,
    /// x · relu6(x + 3) / 6.
    HardSwish,
    /// x for x > 0, else 0.2·x.
    LeakyRelu,
    /// x · tanh(ln(1 + exp(x))).
    Mish,
    /// x − ln Σ exp(x) over the last axis.
    LogSoftmax,
}

/// Keras names.
const NAMES: &[(&str, ActivationFn)] = &[
    ("linear", ActivationFn::Linear),
    ("relu", ActivationFn::Relu),
    ("relu6", ActivationFn::Relu6),
    ("softmax", ActivationFn::Softmax),
    ("sigmoid", ActivationFn::Sigmoid),
    ("tanh", ActivationFn::Tanh),
    ("elu", ActivationFn::Elu),
    ("selu", ActivationFn::Selu),
    ("softplus", ActivationFn::Softplus),
    ("softsign", ActivationFn::Softsign),
    ("swish", ActivationFn::Swish),
    ("silu", ActivationFn::Swish),
    ("gelu", ActivationFn::Gelu),
    ("exponential", ActivationFn::Exponential),
    ("hard_sigmoid", ActivationFn::HardSigmoid),
    (HARD_SIGMOID_6, ActivationFn::HardSigmoid6),
    ("hard_silu", ActivationFn::HardSwish),
    ("hard_swish", ActivationFn::HardSwish),
    ("leaky_relu", ActivationFn::LeakyRelu),
    ("mish", ActivationFn::Mish),
    ("log_softmax", ActivationFn::LogSoftmax),
];

/// Our name for what Keras 3 calls `hard_sigmoid`: in Keras 2 that is another function.
pub const HARD_SIGMOID_6: &str = "hard_sigmoid_6";

impl ActivationFn {
    /// The function of a Keras name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
    }

    /// All Keras names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(name, _)| *name)
    }

    /// Its Keras name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, f)| *f == self).map_or("linear", |(n, _)| n)
    }

    /// Whether the vendor quantizes before the function and leaves its result float.
    pub fn quantized_before(self) -> bool {
        !matches!(self, Self::Linear | Self::Relu | Self::Relu6)
    }

    /// Applies the function in place; softmax works along the last axis.
    pub fn apply(self, tensor: &mut Tensor) {
        if self == Self::Softmax {
            rows(tensor, RowFunction::Softmax);
        } else if self == Self::LogSoftmax {
            rows(tensor, RowFunction::LogSoftmax);
        } else if self != Self::Linear {
            self.function().apply_all(tensor.data_mut());
        }
    }

    /// What it does to each element. The softmaxes, which look at a whole row, do nothing to an element.
    pub fn function(self) -> Function {
        match self {
            Self::Linear | Self::Softmax | Self::LogSoftmax => Function::Identity,
            Self::Relu => Function::RELU,
            Self::Relu6 => Function::RELU6,
            Self::Sigmoid => Function::Sigmoid,
            Self::Tanh => Function::Tanh,
            Self::Elu => Function::Elu(1.0),
            Self::Selu => Function::Selu,
            Self::Softplus => Function::Softplus,
            Self::Softsign => Function::Softsign,
            Self::Swish => Function::Swish,
            Self::Gelu => Function::Gelu,
            Self::Exponential => Function::Exponential,
            Self::HardSigmoid => Function::HardSigmoid,
            Self::HardSigmoid6 => Function::HardSigmoid6,
            Self::HardSwish => Function::HardSwish,
            Self::LeakyRelu => Function::LeakyRelu(0.2),
            Self::Mish => Function::Mish,
        }
    }
}

/// `function` of each stretch along the last axis.
pub(crate) fn rows(tensor: &mut Tensor, function: RowFunction) {
    let n = tensor.shape().last().copied().unwrap_or(1).max(1);
    for row in tensor.data_mut().chunks_exact_mut(n) {
        let x = row.to_vec();
        function.apply(n, |i| x[i], |i, v| row[i] = v);
    }
}

/// An activation as a layer of its own.
#[derive(Clone, Debug)]
pub struct Activate {
    /// Which function.
    pub function: ActivationFn,
}

impl Layer for Activate {
    fn class(&self) -> &str {
        "Activation"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn activation(&self) -> ActivationFn {
        self.function
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Ok(input)
    }
}

/// ReLU with Keras' three settings: x ≥ max → max; threshold ≤ x < max → x; else slope·(x − threshold).
#[derive(Clone, Debug)]
pub struct Relu {
    /// Upper bound.
    pub max_value: Option<f32>,
    /// Slope below the threshold.
    pub negative_slope: f32,
    /// Where the identity begins.
    pub threshold: f32,
}

impl Relu {
    /// max(x, 0).
    pub const PLAIN: Self = Self { max_value: None, negative_slope: 0.0, threshold: 0.0 };

    fn apply(&self, data: &mut [f32]) {
        self.function().apply_all(data);
    }

    /// What it does to each element.
    pub fn function(&self) -> Function {
        let max = self.max_value.unwrap_or(f32::INFINITY);
        Function::Relu { max, slope: self.negative_slope, threshold: self.threshold }
    }

    /// Whether it is max(x, 0) without more.
    pub fn is_plain(&self) -> bool {
        self.max_value.is_none() && self.negative_slope == 0.0 && self.threshold == 0.0
    }
}

impl Layer for Relu {
    fn class(&self) -> &str {
        "ReLU"
    }
    fn check(&self) -> Result<(), String> {
        finite("max_value", self.max_value.unwrap_or_default())?;
        finite("negative_slope", self.negative_slope)?;
        finite("threshold", self.threshold)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        self.apply(out.data_mut());
        out
    }
    fn reuse(&self, mut input: Tensor) -> Result<Tensor, Tensor> {
        self.apply(input.data_mut());
        Ok(input)
    }
}

/// Softmax as a layer.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// Axis of the batched tensor; only the last one is supported.
    pub axis: i64,
}

impl Layer for Softmax {
    fn class(&self) -> &str {
        "Softmax"
    }
    fn check(&self) -> Result<(), String> {
        let last = self.axis == -1;
        last.then_some(())
            .ok_or_else(|| format!("softmax over axis {}, only the last axis (-1) is supported", self.axis))
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        rows(&mut out, RowFunction::Softmax);
        out
    }
}

/// x for x > 0, else alpha · (exp(x) − 1).
#[derive(Clone, Debug)]
pub struct Elu {
    /// Minus the limit at −∞.
    pub alpha: f32,
}

impl Layer for Elu {
    fn class(&self) -> &str {
        "ELU"
    }
    fn check(&self) -> Result<(), String> {
        finite("alpha", self.alpha)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, mut input: Tensor) -> Result<Tensor, Tensor> {
        Function::Elu(self.alpha).apply_all(input.data_mut());
        Ok(input)
    }
}

/// x for x ≥ 0, else alpha·x.
#[derive(Clone, Debug)]
pub struct LeakyRelu {
    /// Slope of negative values.
    pub alpha: f32,
}

impl LeakyRelu {
    /// The slope that the DPU has instead of 0.1.
    pub const DPU_ALPHA: f32 = 26.0 / 256.0;

    fn apply(&self, data: &mut [f32]) {
        Function::LeakyRelu(self.alpha).apply_all(data);
    }
}

impl Layer for LeakyRelu {
    fn class(&self) -> &str {
        "LeakyReLU"
    }
    fn check(&self) -> Result<(), String> {
        finite("alpha", self.alpha)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        self.apply(out.data_mut());
        out
    }
    fn reuse(&self, mut input: Tensor) -> Result<Tensor, Tensor> {
        self.apply(input.data_mut());
        Ok(input)
    }
}

/// max(x, 0) + alpha·min(x, 0) with a learned slope for every element, or for all elements that share axes.
#[derive(Clone, Debug)]
pub struct PRelu {
    /// Slopes; the sample's shape with 1 at the shared axes.
    pub alpha: Tensor,
    /// Axes of the batched tensor along which one slope is shared, from 1.
    pub shared_axes: Vec<usize>,
}

impl Layer for PRelu {
    fn class(&self) -> &str {
        "PReLU"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        let fits = |(a, d): (&usize, &usize)| *a == 1 || a == d;
        if self.shared_axes.iter().any(|axis| !(1..=input.len()).contains(axis)) {
            return Err(format!(
                "its shared_axes are {:?}, axes from 1 to {} are expected",
                self.shared_axes,
                input.len()
            ));
        }
        if self.alpha.shape().len() != input.len() || !self.alpha.shape().iter().zip(input).all(fits) {
            return Err(format!("its slopes have shape {:?} and its input {input:?}", self.alpha.shape()));
        }
        Ok(input.to_vec())
    }
    fn weights(&self) -> Vec<(&'static str, &Tensor)> {
        vec![("alpha", &self.alpha)]
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let sample = &inputs[0].shape()[1..];
        let slopes = offsets(weights[0].shape(), sample);
        for x in out.data_mut().chunks_exact_mut(slopes.len().max(1)) {
            x.iter_mut().zip(&slopes).for_each(|(x, a)| *x = Combine::Slope.apply(*x, weights[0].data()[*a]));
        }
        out
    }
}
