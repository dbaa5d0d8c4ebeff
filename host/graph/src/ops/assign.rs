//! New values for a layer's weights: what training makes of them.

use crate::ops::linear::Weighted;
use crate::ops::{LayerNormalization, OneD, Op, shaped};
use shiftwise_tensor::tensor::Tensor;

impl Op {
    /// Gives the layer other values for all its weights, in the order of [`Layer::weights`](crate::ops::Layer::weights).
    ///
    /// Errors: another number of values, or one of another shape, as a clause about the layer; nothing is changed then.
    pub fn set_weights(&mut self, values: Vec<Tensor>) -> Result<(), String> {
        let own = self.layer().weights();
        if own.len() != values.len() {
            return Err(format!("it has {} weights, and {} values are given", own.len(), values.len()));
        }
        own.iter().zip(&values).try_for_each(|((name, own), new)| shaped(name, new, own.shape()))?;
        self.assign(values);
        Ok(())
    }

    /// [`Op::set_weights`] with values that fit.
    fn assign(&mut self, values: Vec<Tensor>) {
        // Sequences keep their weights as those of an image of one row too.
        if let Self::OneD(one) = self {
            let wide = one.image_weights(&values.iter().collect::<Vec<_>>());
            one.image.assign(wide);
            if let Ok(new) = OneD::new((*one.image).clone()) {
                *one = new;
            }
            return;
        }
        self.slots().into_iter().zip(values).for_each(|(slot, value)| *slot = value);
    }

    /// Where the weights are, in their order.
    fn slots(&mut self) -> Vec<&mut Tensor> {
        match self {
            Self::Conv2D(layer) => weighted(&mut layer.w),
            Self::DepthwiseConv2D(layer) => weighted(&mut layer.w),
            Self::Conv2DTranspose(layer) => weighted(&mut layer.w),
            Self::Dense(layer) => weighted(&mut layer.w),
            Self::SeparableConv2D(layer) => {
                std::iter::once(&mut layer.depthwise).chain(weighted(&mut layer.w)).collect()
            }
            Self::BatchNormalization(layer) => {
                let trained = layer.gamma.iter_mut().chain(&mut layer.beta);
                trained.chain([&mut layer.mean, &mut layer.variance]).collect()
            }
            Self::LayerNormalization(layer) => scale_and_offset(layer),
            Self::GroupNormalization(layer) => scale_and_offset(&mut layer.norm),
            Self::DpuLayerNorm(layer) => scale_and_offset(&mut layer.norm),
            Self::RmsNormalization(layer) => vec![&mut layer.scale],
            Self::LayerScale(layer) => vec![&mut layer.gamma],
            Self::PRelu(layer) => vec![&mut layer.alpha],
            Self::Normalization(layer) if !layer.constant => vec![&mut layer.mean, &mut layer.variance],
            Self::Custom(layer) => layer.weights.iter_mut().map(|(_, weight)| weight).collect(),
            Self::TimeDistributed(steps) => steps.layer.slots(),
            Self::MultiHeadAttention(layer) => {
                let projections = layer.inputs.iter_mut().chain([&mut layer.output]);
                projections.flat_map(|own| std::iter::once(&mut own.kernel).chain(&mut own.bias)).collect()
            }
            Self::Input(_) | Self::UnitNormalization(_) | Self::Normalization(_) | Self::Rescaling(_) => Vec::new(),
            Self::Relu(_) | Self::Elu(_) | Self::LeakyRelu(_) | Self::HardSigmoid(_) | Self::Activation(_) => {
                Vec::new()
            }
            Self::Softmax(_) | Self::DpuSoftmax(_) | Self::Dropout(_) | Self::Quantize(_) | Self::TfOp(_) => Vec::new(),
            Self::Add(_) | Self::Multiply(_) | Self::Merge(_) | Self::ScaledAdd(_) | Self::Dot(_) => Vec::new(),
            Self::Concatenate(_) | Self::MaxPooling2D(_) | Self::AveragePooling2D(_) => Vec::new(),
            Self::GlobalAveragePooling2D(_) | Self::GlobalMaxPooling2D(_) | Self::Flatten(_) => Vec::new(),
            Self::Reshape(_) | Self::ZeroPadding2D(_) | Self::Cropping2D(_) | Self::UpSampling2D(_) => Vec::new(),
            Self::Resizing(_) | Self::RepeatVector(_) | Self::Permute(_) | Self::OneD(_) => Vec::new(),
        }
    }
}

fn weighted(w: &mut Weighted) -> Vec<&mut Tensor> {
    std::iter::once(&mut w.kernel).chain(&mut w.bias).collect()
}

fn scale_and_offset(norm: &mut LayerNormalization) -> Vec<&mut Tensor> {
    norm.gamma.iter_mut().chain(&mut norm.beta).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{ActivationFn, BatchNormalization, Conv2D, Padding, TimeDistributed};

    fn numbered(shape: &[usize], from: f32) -> Tensor {
        Tensor::new(shape.to_vec(), (0..shape.iter().product()).map(|i| from + i as f32).collect()).unwrap()
    }

    #[test]
    fn every_weight_takes_its_own_value_and_no_other_shape() {
        let norm = Op::BatchNormalization(BatchNormalization {
            gamma: None,
            beta: Some(Tensor::zeros(&[2])),
            mean: Tensor::zeros(&[2]),
            variance: Tensor::zeros(&[2]),
            epsilon: 1e-3,
            momentum: 0.9,
        });
        let conv = Op::Conv2D(Conv2D {
            w: Weighted {
                kernel: Tensor::zeros(&[1, 3, 2, 2]),
                bias: Some(Tensor::zeros(&[2])),
                activation: ActivationFn::Linear,
            },
            strides: [1, 1],
            dilation: [1, 1],
            padding: Padding::Valid,
            groups: 1,
        });
        let steps =
            Op::TimeDistributed(TimeDistributed { layer: Box::new(norm.clone()), settings: Default::default() });
        for mut op in [norm, conv.clone(), Op::OneD(OneD::new(conv).unwrap()), steps] {
            let shapes: Vec<Vec<usize>> = op.layer().weights().iter().map(|(_, w)| w.shape().to_vec()).collect();
            let new: Vec<Tensor> = shapes.iter().enumerate().map(|(k, s)| numbered(s, 100.0 * k as f32)).collect();
            op.set_weights(new.clone()).unwrap();
            let now: Vec<Tensor> = op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
            assert_eq!(now, new);
            assert!(op.set_weights(vec![Tensor::zeros(&[9]); new.len()]).unwrap_err().contains("is expected"));
            assert!(op.set_weights(Vec::new()).is_err());
        }
    }
}
