//! Where the weights of a model come from.

use std::cell::Cell;

use rayon::prelude::*;

use crate::layers::WeightSource;
use shiftwise_graph::budget::filled;
use shiftwise_tensor::tensor::Tensor;

/// More random weights than this are refused; the largest of the usual image classifiers have a little over half.
const MAX_RANDOM: usize = 1 << 28;

/// Weights of a whole model.
pub(crate) trait ModelWeights {
    /// The weights of one layer.
    ///
    /// `path` are the names of the models around it and its own.
    fn layer(&self, path: &[&str], class: &str) -> Box<dyn WeightSource + '_>;
}

/// Random weights of a plausible size: activations keep their magnitude from layer to layer.
///
/// A value depends on the seed, the names of layer and weight, and its index only, and is computed by integer
/// arithmetic and correctly rounded f32 operations: the same on every platform, whatever is read before.
pub(crate) struct RandomWeights {
    seed: u64,
    left: Cell<usize>,
}

impl RandomWeights {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, left: Cell::new(MAX_RANDOM) }
    }
}

impl ModelWeights for RandomWeights {
    fn layer(&self, path: &[&str], class: &str) -> Box<dyn WeightSource + '_> {
        Box::new(RandomLayer {
            stream: path.iter().fold(self.seed, |seed, name| hash(seed, name)),
            transposed: class == "Conv2DTranspose",
            left: &self.left,
        })
    }
}

struct RandomLayer<'a> {
    stream: u64,
    /// Kernels are `[kh, kw, out, in]`.
    transposed: bool,
    left: &'a Cell<usize>,
}

impl WeightSource for RandomLayer<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let rest = count.and_then(|n| self.left.get().checked_sub(n));
        let (Some(count), Some(rest)) = (count, rest) else {
            return Err(format!(
                "with its weight `{name}` of shape {shape:?} the model has more than {MAX_RANDOM} weights"
            ));
        };
        self.left.set(rest);
        let (center, spread) = self.distribution(name, shape);
        let stream = hash(self.stream, name);
        let mut data = filled(count, 0.0f32).map_err(|e| format!("its weight `{name}`: {e}"))?;
        data.par_chunks_mut(1 << 14).enumerate().for_each(|(block, values)| {
            let start = (block << 14) as u64;
            for (i, v) in values.iter_mut().enumerate() {
                *v = center + spread * unit(mix(stream.wrapping_add((start + i as u64).wrapping_mul(STEP))));
            }
        });
        Tensor::new(shape.to_vec(), data).ok_or_else(|| format!("its weight `{name}` has the shape {shape:?}"))
    }
}

impl RandomLayer<'_> {
    /// Center and largest deviation of a weight's uniform distribution.
    fn distribution(&self, name: &str, shape: &[usize]) -> (f32, f32) {
        match name {
            "gamma" => (1.0, 0.1),
            "moving_variance" | "variance" => (1.0, 0.2),
            "alpha" => (0.2, 0.1),
            _ if shape.len() < 2 => (0.0, 0.1),
            _ => {
                let fan_in = match shape {
                    [h, w, _, _] if name == "depthwise_kernel" => h * w,
                    [h, w, _, input] if self.transposed => h * w * input,
                    [inputs @ .., _] => inputs.iter().product(),
                    [] => 1,
                };
                // He: a variance of 2 / fan-in keeps the magnitude behind a ReLU; a uniform one has limit² / 3.
                (0.0, (6.0 / fan_in.max(1) as f32).sqrt())
            }
        }
    }
}

/// Increment of the SplitMix64 sequence.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea, Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seed that a name branches off.
fn hash(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed.wrapping_add(STEP)), |state, byte| mix(state ^ u64::from(byte)).wrapping_add(STEP))
}

/// The upper 24 bits as a value in [−1, 1), exactly.
fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_weights_are_reproducible_and_of_plausible_size() {
        let take = |seed: u64, layer: &str, class: &str, name: &str, shape: &[usize]| {
            RandomWeights::new(seed).layer(&[layer], class).take(name, shape).unwrap()
        };
        let kernel = take(1, "conv", "Conv2D", "kernel", &[3, 3, 16, 64]);
        assert_eq!(kernel, take(1, "conv", "Conv2D", "kernel", &[3, 3, 16, 64]));
        for other in
            [take(2, "conv", "Conv2D", "kernel", &[3, 3, 16, 64]), take(1, "c", "Conv2D", "kernel", &[3, 3, 16, 64])]
        {
            assert_ne!(kernel, other);
        }
        // Fixed for ever, so that a seed names the same network in every version.
        assert_eq!(kernel.data()[..3], [-0.201_703_04, -0.134_799_21, -0.081_977_55]);
        let variance = |t: &Tensor| t.data().iter().map(|v| f64::from(v * v)).sum::<f64>() / t.data().len() as f64;
        let near = |t: &Tensor, want: f64| assert!((variance(t) / want - 1.0).abs() < 0.1, "{}", variance(t));
        near(&kernel, 2.0 / 144.0);
        near(&take(1, "d", "DepthwiseConv2D", "depthwise_kernel", &[3, 3, 256, 1]), 2.0 / 9.0);
        near(&take(1, "t", "Conv2DTranspose", "kernel", &[2, 2, 64, 8]), 2.0 / 32.0);
        let positive = take(1, "bn", "BatchNormalization", "moving_variance", &[64]);
        assert!(positive.data().iter().all(|v| (0.8..1.2).contains(v)));
    }

    #[test]
    fn a_model_has_a_limit() {
        let weights = RandomWeights::new(0);
        let refused = |shape: &[usize]| weights.layer(&["a"], "Dense").take("kernel", shape).unwrap_err();
        assert!(refused(&[usize::MAX, 2]).contains("more than"));
        assert!(refused(&[1 << 24, 1 << 24]).contains("more than"));
        weights.layer(&["a"], "Dense").take("kernel", &[10, 10]).unwrap();
        assert_eq!(weights.left.get(), MAX_RANDOM - 100);
    }
}
