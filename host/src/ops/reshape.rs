//! Layers that only move values, and the ends of a graph.

use serde_json::{Map, Value, json};

use super::{Config, Layer, WeightSource, image, one, settings};
use crate::tensor::Tensor;

/// The batch of a tensor under a new per-sample shape.
fn reshaped(x: Tensor, shape: &[usize]) -> Tensor {
    let batched = [&x.shape()[..1], shape].concat();
    x.reshaped(batched).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// A model input.
#[derive(Clone, Debug)]
pub struct Input {
    /// Shape of one sample.
    pub shape: Vec<usize>,
}

impl Input {
    pub(crate) fn class(&self) -> &'static str {
        "InputLayer"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let value =
            config.get("batch_input_shape").or(config.get("batch_shape")).ok_or("it has no batch_input_shape")?;
        let dims = value.as_array().and_then(|a| a.get(1..)).ok_or_else(|| format!("its shape is {value}"))?;
        let known = |d: &Value| d.as_u64().filter(|d| *d > 0).map(|d| d as usize);
        let shape = dims.iter().map(known).collect::<Option<Vec<usize>>>();
        shape.map(|shape| Self { shape }).ok_or_else(|| format!("its shape {value} is not fixed; pass --input-shape"))
    }
}

impl Layer for Input {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if inputs.is_empty() { Ok(self.shape.clone()) } else { Err("an input layer has no inputs".into()) }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn to_keras(&self) -> Map<String, Value> {
        let dims: Vec<Value> = std::iter::once(Value::Null).chain(self.shape.iter().map(|d| json!(d))).collect();
        settings(json!({ "batch_input_shape": dims, "sparse": false, "ragged": false }))
    }
}

/// A quantizer as a layer of its own; the identity in the float graph.
#[derive(Clone, Debug)]
pub struct Quantize;

impl Quantize {
    pub(crate) fn class(&self) -> &'static str {
        "VitisQuantize"
    }
    pub(crate) fn from_keras(_: &str, _: Config<'_>, _: &[&[usize]], _: &mut dyn WeightSource) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Layer for Quantize {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Ok(input)
    }
}

/// Identity at inference.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Fraction dropped in training.
    pub rate: f32,
}

impl Dropout {
    pub(crate) fn class(&self) -> &'static str {
        "Dropout"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        Ok(Self { rate: config.f32_or("rate", 0.5)? })
    }
}

impl Layer for Dropout {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        inputs[0].clone()
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Ok(input)
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "rate": self.rate }))
    }
}

/// All dimensions in one.
#[derive(Clone, Debug)]
pub struct Flatten;

impl Flatten {
    pub(crate) fn class(&self) -> &'static str {
        "Flatten"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        config.channels_last()?;
        Ok(Self)
    }
}

impl Layer for Flatten {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok(vec![one(inputs)?.iter().product()])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        let size = input.shape()[1..].iter().product();
        Ok(reshaped(input, &[size]))
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "data_format": "channels_last" }))
    }
}

/// A new shape for the same values; one dimension may be −1.
#[derive(Clone, Debug)]
pub struct Reshape {
    /// Target shape of one sample.
    pub target: Vec<i64>,
}

impl Reshape {
    pub(crate) fn class(&self) -> &'static str {
        "Reshape"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let value = config.get("target_shape").and_then(Value::as_array).ok_or("it has no target_shape")?;
        let target = value
            .iter()
            .map(Value::as_i64)
            .collect::<Option<Vec<i64>>>()
            .ok_or("its target_shape is not a list of whole numbers")?;
        Ok(Self { target })
    }
}

impl Layer for Reshape {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = one(inputs)?;
        let total: usize = input.iter().product();
        let given = self.target.iter().filter(|d| **d >= 0);
        let known = given.fold(1usize, |n, d| n.saturating_mul(usize::try_from(*d).unwrap_or(usize::MAX)));
        let open = self.target.iter().filter(|d| **d < 0).count();
        let fail = || format!("{input:?} can't be reshaped to {:?}", self.target);
        match open {
            0 if known == total => Ok(self.target.iter().map(|d| *d as usize).collect()),
            1 if known > 0 && total.is_multiple_of(known) => {
                Ok(self.target.iter().map(|d| if *d < 0 { total / known } else { *d as usize }).collect())
            }
            _ => Err(fail()),
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        let shape = self.output_shape(&[&input.shape()[1..]]).unwrap_or_default();
        Ok(reshaped(input, &shape))
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "target_shape": self.target }))
    }
}

/// Rows and columns of zeros around an image.
#[derive(Clone, Debug)]
pub struct ZeroPadding2D {
    /// Rows above and below.
    pub rows: [usize; 2],
    /// Columns left and right.
    pub columns: [usize; 2],
}

impl ZeroPadding2D {
    pub(crate) fn class(&self) -> &'static str {
        "ZeroPadding2D"
    }
    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        _: &[&[usize]],
        _: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        config.channels_last()?;
        let value = config.get("padding").cloned().unwrap_or(json!(1));
        let one = |v: &Value| v.as_u64().filter(|v| *v <= 65535).map(|v| v as usize);
        let two = |v: &Value| match v {
            Value::Array(a) if a.len() == 2 => one(&a[0]).zip(one(&a[1])).map(|(a, b)| [a, b]),
            v => one(v).map(|v| [v, v]),
        };
        let both = match &value {
            Value::Array(a) if a.len() == 2 => two(&a[0]).zip(two(&a[1])),
            v => two(v).map(|v| (v, v)),
        };
        both.map(|(rows, columns)| Self { rows, columns }).ok_or_else(|| format!("its padding is {value}"))
    }
}

impl Layer for ZeroPadding2D {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [h, w, c] = image(inputs)?;
        Ok(vec![h + self.rows[0] + self.rows[1], w + self.columns[0] + self.columns[1], c])
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let x = inputs[0];
        let [n, h, w, c] = [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]];
        let (oh, ow) = (h + self.rows[0] + self.rows[1], w + self.columns[0] + self.columns[1]);
        let mut out = Tensor::zeros(&[n, oh, ow, c]);
        for (i, row) in x.data().chunks_exact((w * c).max(1)).enumerate() {
            let (image, y) = (i / h, i % h);
            let at = ((image * oh + y + self.rows[0]) * ow + self.columns[0]) * c;
            out.data_mut()[at..at + w * c].copy_from_slice(row);
        }
        out
    }
    fn to_keras(&self) -> Map<String, Value> {
        settings(json!({ "padding": [self.rows, self.columns], "data_format": "channels_last" }))
    }
}
