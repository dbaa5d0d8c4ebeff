//! Activations.

use serde_json::{Map, Value, json};

use crate::ops::{Config, Layer, WeightSource, finite, one, settings};
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

/// How Python names every function that has no name.
pub(crate) const LAMBDA: &str = "<lambda>";

/// Our name for what Keras 3 calls `hard_sigmoid`: in Keras 2 that is another function.
pub const HARD_SIGMOID_6: &str = "hard_sigmoid_6";

impl ActivationFn {
    /// The function of a Keras name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(_, f)| *f)
    }

    /// Its Keras name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, f)| *f == self).map_or("linear", |(n, _)| n)
    }

    /// Whether the vendor quantizes before the function and leaves its result float.
    pub fn quantized_before(self) -> bool {
        !matches!(self, Self::Linear | Self::Relu | Self::Relu6)
    }

    /// The setting `key` of a config: a name, or an object that wraps one.
    pub fn from_keras(config: Config<'_>, key: &str) -> Result<Self, String> {
        let Some(mut value) = config.get(key) else { return Ok(Self::Linear) };
        // Quantized models wrap the function: {"class_name": …, "config": {"activation": "relu"}}; the innermost
        // class NoQuantizeActivation is the identity.
        loop {
            match value {
                Value::String(name) => {
                    return Self::from_name(name).ok_or_else(|| {
                        let known: Vec<&str> = NAMES.iter().map(|(n, _)| *n).collect();
                        format!("activation `{name}` is unknown; known are {}", known.join(", "))
                    });
                }
                Value::Object(o)
                    if o.get("class_name").and_then(Value::as_str) == Some("Vitis>NoQuantizeActivation") =>
                {
                    return Ok(Self::Linear);
                }
                Value::Object(o) => match (o.get("config"), o.get("activation")) {
                    (Some(inner), _) | (None, Some(inner)) => value = inner,
                    _ => return Err(format!("`{key}` is {value}, the name of an activation is expected")),
                },
                other => return Err(format!("`{key}` is {other}, the name of an activation is expected")),
            }
        }
    }

    /// The name in a setting that stands for no known function; `None` if it is known, or no name at all.
    pub fn unknown_name(mut value: &Value) -> Option<&str> {
        loop {
            value = match value {
                Value::String(name) => return Some(name.as_str()).filter(|name| Self::from_name(name).is_none()),
                // A function without a name, as its code.
                Value::Object(o)
                    if o.get("class_name").is_some_and(|class| class == "__lambda__")
                        || o.get("value").is_some_and(Value::is_array) =>
                {
                    return Some(LAMBDA);
                }
                Value::Object(o) => o.get("config").or_else(|| o.get("activation"))?,
                _ => return None,
            }
        }
    }

    /// Applies the function in place; softmax works along the last axis.
    pub fn apply(self, tensor: &mut Tensor) {
        match self {
            Self::Linear => {}
            Self::Softmax => rows(tensor, RowFunction::Softmax),
            Self::LogSoftmax => rows(tensor, RowFunction::LogSoftmax),
            _ => {
                let function = self.function();
                tensor.data_mut().iter_mut().for_each(|x| *x = function.apply(*x));
            }
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

impl Activate {
    pub(crate) fn class(&self) -> &'static str {
        "Activation"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        Ok(Self { function: ActivationFn::from_keras(config, "activation")? })
    }
}

impl Layer for Activate {
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "activation": self.function.name() }))
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

    pub(crate) fn class(&self) -> &'static str {
        "ReLU"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        Ok(Self {
            max_value: config.get("max_value").map(|_| config.f32_or("max_value", 0.0)).transpose()?,
            negative_slope: config.f32_or("negative_slope", 0.0)?,
            threshold: config.f32_or("threshold", 0.0)?,
        })
    }
    fn apply(&self, data: &mut [f32]) {
        let function = self.function();
        data.iter_mut().for_each(|x| *x = function.apply(*x));
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(
            json!({ "max_value": self.max_value, "negative_slope": self.negative_slope, "threshold": self.threshold }),
        )
    }
}

/// Softmax as a layer.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// Axis of the batched tensor; only the last one is supported.
    pub axis: i64,
}

impl Softmax {
    pub(crate) fn class(&self) -> &'static str {
        "Softmax"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let minus_one = json!(-1);
        let axis = match config.get("axis") {
            None => &minus_one,
            Some(Value::Array(a)) if a.len() == 1 => &a[0],
            Some(v) => v,
        };
        let rank = one(inputs)?.len() as i64;
        if !axis.as_i64().is_some_and(|a| a == -1 || a == rank) {
            return Err(format!("softmax over axis {axis}, only the last axis (-1 or {rank}) is supported"));
        }
        Ok(Self { axis: -1 })
    }
}

impl Layer for Softmax {
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "axis": self.axis }))
    }
}

/// x for x > 0, else alpha · (exp(x) − 1).
#[derive(Clone, Debug)]
pub struct Elu {
    /// Minus the limit at −∞.
    pub alpha: f32,
}

impl Elu {
    pub(crate) fn class(&self) -> &'static str {
        "ELU"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        Ok(Self { alpha: config.f32_or("alpha", 1.0)? })
    }
}

impl Layer for Elu {
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
        let function = Function::Elu(self.alpha);
        input.data_mut().iter_mut().for_each(|x| *x = function.apply(*x));
        Ok(input)
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "alpha": self.alpha }))
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

    pub(crate) fn class(&self) -> &'static str {
        "LeakyReLU"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        // Keras 3 calls the slope as it is called in ReLU.
        let key = if config.get("negative_slope").is_some() { "negative_slope" } else { "alpha" };
        Ok(Self { alpha: config.f32_or(key, 0.3)? })
    }
    fn apply(&self, data: &mut [f32]) {
        let function = Function::LeakyRelu(self.alpha);
        data.iter_mut().for_each(|x| *x = function.apply(*x));
    }
}

impl Layer for LeakyRelu {
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
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "alpha": self.alpha }))
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

impl PRelu {
    pub(crate) fn class(&self) -> &'static str {
        "PReLU"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let mut shape = one(inputs)?.to_vec();
        let shared_axes: Vec<usize> = match config.get("shared_axes") {
            None => Vec::new(),
            Some(value) => {
                let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
                let axis = |v: &Value| v.as_u64().map(|v| v as usize).filter(|v| (1..=shape.len()).contains(v));
                list.iter().map(axis).collect::<Option<_>>().ok_or_else(|| format!("its shared_axes are {value}"))?
            }
        };
        shared_axes.iter().for_each(|axis| shape[axis - 1] = 1);
        Ok(Self { alpha: weights.take("alpha", &shape)?, shared_axes })
    }
}

impl Layer for PRelu {
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
    fn to_keras(&self) -> Map<String, Value> {
        let shared = if self.shared_axes.is_empty() { Value::Null } else { json!(self.shared_axes) };
        settings(json!({ "shared_axes": shared }))
    }
}
