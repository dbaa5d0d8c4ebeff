//! Layers that merge several tensors.

use super::{Config, Layer, WeightSource};
use crate::tensor::Tensor;

/// Element-wise sum of tensors of one shape, from left to right.
#[derive(Clone, Debug)]
pub struct Add;

impl Add {
    pub(crate) fn class(&self) -> &'static str {
        "Add"
    }
    pub(crate) fn from_keras(_: &str, _: Config<'_>, _: &[&[usize]], _: &mut dyn WeightSource) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Layer for Add {
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs {
            [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|s| s == first) => Ok(first.to_vec()),
            [_, _, ..] => Err(format!("its inputs have different shapes {inputs:?}; broadcasting is not supported")),
            _ => Err(format!("it has {} inputs, at least two are expected", inputs.len())),
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        for other in &inputs[1..] {
            out.data_mut().iter_mut().zip(other.data()).for_each(|(a, b)| *a += b);
        }
        out
    }
}
