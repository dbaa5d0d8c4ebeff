//! Functions in the form in which the vendor's hardware computes them.

use crate::ops::norm::LayerNormalization;
use crate::ops::{Layer, one};
use shiftwise_core::model::Function;
use shiftwise_tensor::tensor::Tensor;

/// Hard sigmoid: min(max(x + 3, 0), 6) · 2731 / 16384, every step in f32.
#[derive(Clone, Debug)]
pub struct HardSigmoid;

impl Layer for HardSigmoid {
    fn class(&self) -> &str {
        "VitisSigmoid"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        one(inputs).map(<[usize]>::to_vec)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        self.reuse(inputs[0].clone()).unwrap_or_else(|x| x)
    }
    fn reuse(&self, mut input: Tensor) -> Result<Tensor, Tensor> {
        input.data_mut().iter_mut().for_each(|x| *x = Function::DpuHardSigmoid.apply(*x));
        Ok(input)
    }
}

/// To bfloat16 and back: rounded to the nearest, ties to even.
fn bf16(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

/// Adds the upper half to the lower until one value is left; the length is a power of two.
fn tree(values: &mut [f32]) -> f32 {
    let mut n = values.len();
    while n > 1 {
        n /= 2;
        let (low, high) = values.split_at_mut(n);
        low.iter_mut().zip(high.iter()).for_each(|(a, b)| *a += b);
    }
    values.first().copied().unwrap_or(0.0)
}

/// Sums of every `N`-th element, then their tree sum.
fn lanes<const N: usize>(row: impl Iterator<Item = f32>) -> f32 {
    let mut sums = [0.0f32; N];
    row.enumerate().for_each(|(i, x)| sums[i % N] += x);
    tree(&mut sums)
}

/// Softmax in bfloat16 over the last axis, which is a multiple of 16, with a reciprocal by table.
#[derive(Clone, Debug)]
pub struct DpuSoftmax {
    /// Keras' axis, which has no influence.
    pub axis: i64,
}

impl DpuSoftmax {
    const LANES: usize = 16;

    /// 1 / sum from its exponent and 7 bits of its mantissa, rounded up.
    fn reciprocal(sum: f32) -> f32 {
        let bits = sum.to_bits();
        let exponent = bits >> 23 & 0xFF;
        let mantissa = ((bits & 0x7F_FFFF) >> 16) + (bits >> 15 & 1);
        let table = libm::rintf(256.0 * 128.0 / (128.0 + mantissa as f32) - 128.0) as u32;
        f32::from_bits((253u32.wrapping_sub(exponent) << 23).wrapping_add(table << 16))
    }
}

impl Layer for DpuSoftmax {
    fn class(&self) -> &str {
        "VitisSoftmax"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let shape = one(inputs)?;
        match shape.last() {
            Some(axis) if axis.is_multiple_of(Self::LANES) => Ok(shape.to_vec()),
            _ => {
                Err(format!("its input has shape {shape:?}; the last dimension must be a multiple of {}", Self::LANES))
            }
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let axis = out.shape().last().copied().unwrap_or(1).max(1);
        for row in out.data_mut().chunks_exact_mut(axis) {
            row.iter_mut().for_each(|x| *x = bf16(x.exp()));
            let inverse = Self::reciprocal(lanes::<16>(row.iter().copied()));
            row.iter_mut().for_each(|x| *x = bf16(*x * inverse));
        }
        out
    }
}

/// Layer normalization in bfloat16 over the last axis, which is a multiple of 8, with a reciprocal square root by
/// Newton's method.
#[derive(Clone, Debug)]
pub struct DpuLayerNorm {
    /// Weights and epsilon.
    pub norm: LayerNormalization,
}

impl DpuLayerNorm {
    const LANES: usize = 8;

    fn rsqrt(v: f32) -> f32 {
        let v = bf16(v);
        // The first guess halves the 16-bit pattern, rounded to even.
        let pattern = v.to_bits() >> 16;
        let half = pattern >> 1;
        let a = half + (half & pattern & 1);
        let mut y = f32::from_bits(0x5F37u32.wrapping_sub(a) << 16);
        let x2 = bf16(v * 0.5);
        for _ in 0..4 {
            let v0 = bf16(y * y);
            let v1 = bf16(-x2 * v0);
            let v2 = bf16(1.5 + v1);
            y = bf16(y * v2);
        }
        y
    }
}

impl Layer for DpuLayerNorm {
    fn class(&self) -> &str {
        "VitisLayernorm"
    }
    fn check(&self) -> Result<(), String> {
        self.norm.check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let shape = self.norm.output_shape(inputs)?;
        match shape.last() {
            Some(axis) if axis.is_multiple_of(Self::LANES) => Ok(shape),
            _ => {
                Err(format!("its input has shape {shape:?}; the last dimension must be a multiple of {}", Self::LANES))
            }
        }
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.norm.weights()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        let axis = out.shape().last().copied().unwrap_or(1).max(1);
        let (gamma, beta) = self.norm.scale_and_offset(weights, axis);
        let per = 1.0 / axis as f32;
        for row in out.data_mut().chunks_exact_mut(axis) {
            row.iter_mut().for_each(|x| *x = bf16(*x));
            let mean = lanes::<8>(row.iter().copied()) * per;
            row.iter_mut().for_each(|x| *x = bf16(*x - mean));
            let variance = lanes::<8>(row.iter().map(|d| d * d)) * per + self.norm.epsilon;
            let r = Self::rsqrt(variance);
            row.iter_mut().zip(&gamma).zip(&beta).for_each(|((d, g), b)| *d = g * bf16(*d * r) + b);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values observed from the vendor's tool.
    #[test]
    fn functions_by_example() {
        let x = Tensor::new(vec![1, 6], vec![-4.0, -1.0, 0.0, 0.5, 1.0, 3.0]).unwrap();
        let y = HardSigmoid.eval(&[&x], &[]);
        assert_eq!(y.data(), [0.0, 0.333_374_02, 0.500_061_04, 0.583_404_54, 0.666_748_05, 1.000_122_1]);
        let x = Tensor::new(vec![1, 16], [[0.0; 8], [1.0; 8]].concat()).unwrap();
        let y = DpuSoftmax { axis: -1 }.eval(&[&x], &[]);
        assert_eq!((y.data()[0], y.data()[15]), (0.033_691_406, 0.091_796_875));
        let norm = LayerNormalization { gamma: None, beta: None, epsilon: 1e-3, rms_scaling: false };
        let x = Tensor::new(vec![1, 8], (1..9).map(|i| i as f32).collect()).unwrap();
        let y = DpuLayerNorm { norm }.eval(&[&x], &[]);
        assert_eq!(y.data()[..4], [-1.523_437_5, -1.085_937_5, -0.652_343_75, -0.217_773_44]);
    }
}
