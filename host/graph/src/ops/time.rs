//! A layer that is applied to every step of a sequence.

use serde_json::{Map, Value, json};

use crate::ops::{ActivationFn, Config, Layer, Op, WeightSource, one};
use shiftwise_tensor::tensor::Tensor;

/// A layer applied to each step: the steps are samples to the layer inside. The vendor's tool leaves it float.
#[derive(Clone, Debug)]
pub struct TimeDistributed {
    /// The layer inside.
    pub layer: Box<Op>,
    /// Its settings as the file has them.
    config: Map<String, Value>,
}

/// Layers that compute each position from its channels alone: to them, steps are positions.
fn is_pointwise(op: &Op) -> bool {
    matches!(op, Op::Dense(_) | Op::Activation(_) | Op::Relu(_) | Op::LeakyRelu(_) | Op::Elu(_) | Op::Dropout(_))
}

impl TimeDistributed {
    pub(crate) fn class(&self) -> &'static str {
        "TimeDistributed"
    }

    pub(crate) fn from_keras(
        _: &str,
        config: Config<'_>,
        inputs: &[&[usize]],
        weights: &mut dyn WeightSource,
    ) -> Result<Self, String> {
        let wrapped = config.get("layer").ok_or("it has no layer inside")?;
        let class = wrapped.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let settings = wrapped.get("config").and_then(Value::as_object).ok_or("the layer inside has no settings")?;
        let (_, step) = steps(one(inputs)?)?;
        let unsupported = || refused(class);
        let layer = Some(class).filter(|class| *class != "TimeDistributed" && *class != "InputLayer");
        let layer = layer.and_then(|class| Op::from_keras(class, Config(settings), &[step], weights));
        Ok(Self { layer: Box::new(layer.ok_or_else(unsupported)??), config: settings.clone() })
    }

    /// The layer inside, if steps are to it what positions are.
    pub fn pointwise(&self) -> Option<&Op> {
        Some(&*self.layer).filter(|op| is_pointwise(op))
    }
}

fn refused(class: &str) -> String {
    format!("it wraps a layer of class `{class:.60}`, which is not supported inside")
}

/// The number of steps and the shape of one.
fn steps(shape: &[usize]) -> Result<(usize, &[usize]), String> {
    match shape.split_first() {
        Some((steps, step)) if !step.is_empty() => Ok((*steps, step)),
        _ => Err(format!("its input has shape {shape:?}, steps of something are expected")),
    }
}

impl Layer for TimeDistributed {
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
    fn to_keras(&self) -> Map<String, Value> {
        let mut config = self.config.clone();
        config.extend(self.layer.layer().to_keras());
        crate::ops::settings(json!({ "layer": { "class_name": self.layer.class(), "config": config } }))
    }
    fn settings(&self) -> String {
        format!(" {}{}", self.layer.class(), self.layer.layer().settings())
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

    struct Ones;

    impl WeightSource for Ones {
        fn take(&mut self, _: &str, shape: &[usize]) -> Result<Tensor, String> {
            Tensor::new(shape.to_vec(), vec![1.0; shape.iter().product()]).ok_or_else(|| "no".into())
        }
    }

    fn wrapped(class: &str, config: Value, input: &[usize]) -> Result<TimeDistributed, String> {
        let config = json!({ "layer": { "class_name": class, "config": config } });
        TimeDistributed::from_keras("TimeDistributed", Config(config.as_object().unwrap()), &[input], &mut Ones)
    }

    #[test]
    fn steps_are_samples() {
        let layer = wrapped("GlobalMaxPooling2D", json!({}), &[2, 1, 2, 1]).unwrap();
        assert_eq!(layer.output_shape(&[&[2, 1, 2, 1]]).unwrap(), [2, 1]);
        let x = Tensor::new(vec![1, 2, 1, 2, 1], vec![1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!(layer.eval(&[&x], &[]).into_data(), [2.0, 4.0]);
        let dense = wrapped("Dense", json!({ "units": 2, "activation": "relu" }), &[3, 4]).unwrap();
        assert!(dense.pointwise().is_some() && dense.activation() == ActivationFn::Relu);
        assert_eq!((dense.weights().len(), dense.macs(&[3, 2])), (2, 3 * dense.layer.layer().macs(&[2])));
    }

    #[test]
    fn what_can_not_be_inside_is_refused() {
        for (class, input) in [("LSTM", &[2, 3][..]), ("TimeDistributed", &[2, 3, 4]), ("Flatten", &[2])] {
            assert!(wrapped(class, json!({ "layer": {} }), input).is_err(), "{class}");
        }
    }
}
