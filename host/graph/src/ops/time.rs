//! A layer that is applied to every step of a sequence.

use crate::attributes::Attributes;
use crate::ops::{ActivationFn, Layer, Op, one};
use shiftwise_tensor::tensor::Tensor;

/// A layer applied to each step: the steps are samples to the layer inside. The vendor's tool leaves it float.
#[derive(Clone, Debug)]
pub struct TimeDistributed {
    /// The layer inside.
    pub layer: Box<Op>,
    /// Its settings as the file has them, for writing.
    pub settings: Attributes,
}

/// Layers that compute each position from its channels alone: to them, steps are positions.
fn is_pointwise(op: &Op) -> bool {
    matches!(op, Op::Dense(_) | Op::Activation(_) | Op::Relu(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Dropout(_))
}

impl TimeDistributed {
    /// The layer inside, if steps are to it what positions are.
    pub fn pointwise(&self) -> Option<&Op> {
        Some(&*self.layer).filter(|op| is_pointwise(op))
    }
}

/// Why a layer of this class can't be inside.
pub fn refused(class: &str) -> String {
    format!("it wraps a layer of class `{class:.60}`, which is not supported inside")
}

/// The number of steps and the shape of one.
pub fn steps(shape: &[usize]) -> Result<(usize, &[usize]), String> {
    match shape.split_first() {
        Some((steps, step)) if !step.is_empty() => Ok((*steps, step)),
        _ => Err(format!("its input has shape {shape:?}, steps of something are expected")),
    }
}

impl Layer for TimeDistributed {
    fn class(&self) -> &str {
        "TimeDistributed"
    }
    fn check(&self) -> Result<(), String> {
        match &*self.layer {
            // A wrapper in a wrapper would allow any depth.
            Op::TimeDistributed(_) | Op::Input(_) => Err(refused(self.layer.class())),
            inside => inside.layer().check(),
        }
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let (count, step) = steps(one(inputs)?)?;
        let out = self.layer.layer().output_shape(&[step])?;
        Ok([&[count], out.as_slice()].concat())
    }
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        self.layer.layer().weights()
    }
    fn activation(&self) -> ActivationFn {
        self.layer.layer().activation()
    }
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
        let shape = inputs[0].shape();
        let (samples, count) = (shape[0], shape[1]);
        let folded = inputs[0].clone().reshaped([&[samples * count], &shape[2..]].concat());
        let folded = folded.unwrap_or_else(|| Tensor::zeros(&[0]));
        let out = self.layer.layer().eval(&[&folded], weights);
        let shape = [&[samples, count], &out.shape()[1..]].concat();
        out.reshaped(shape).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
    fn macs(&self, output: &[usize]) -> u64 {
        match output.split_first() {
            Some((count, out)) => (*count as u64).saturating_mul(self.layer.layer().macs(out)),
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Dense, Flatten, GlobalMaxPooling2D, Weighted};

    fn wrapped(layer: Op) -> TimeDistributed {
        TimeDistributed { layer: Box::new(layer), settings: Attributes::default() }
    }

    #[test]
    fn steps_are_samples() {
        let layer = wrapped(Op::GlobalMaxPooling2D(GlobalMaxPooling2D { keepdims: false }));
        assert_eq!(layer.output_shape(&[&[2, 1, 2, 1]]).unwrap(), [2, 1]);
        let x = Tensor::new(vec![1, 2, 1, 2, 1], vec![1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!(layer.eval(&[&x], &[]).into_data(), [2.0, 4.0]);
        let bias = Some(Tensor::zeros(&[2]));
        let w = Weighted { kernel: Tensor::zeros(&[4, 2]), bias, activation: ActivationFn::Relu };
        let dense = wrapped(Op::Dense(Dense { w }));
        assert!(dense.pointwise().is_some() && dense.activation() == ActivationFn::Relu);
        assert_eq!((dense.weights().len(), dense.macs(&[3, 2])), (2, 3 * dense.layer.layer().macs(&[2])));
    }

    #[test]
    fn what_can_not_be_inside_is_refused() {
        let flatten = || Op::Flatten(Flatten);
        assert!(wrapped(flatten()).check().is_ok());
        let twice = wrapped(Op::TimeDistributed(wrapped(flatten())));
        assert!(twice.check().unwrap_err().contains("`TimeDistributed`, which is not supported inside"));
        assert!(wrapped(flatten()).output_shape(&[&[2]]).unwrap_err().contains("steps of something"));
    }
}
