//! Layers as operators.

use shiftwise_core::model::{Combine, Function};
use shiftwise_graph::ops::tfop::Reduction;
use shiftwise_graph::ops::{ActivationFn, Layer, LayerNormalization, Merge, OneD, Op, SeparableConv2D};
use shiftwise_tensor::tensor::Tensor;

use crate::functions::{combined, function};
use crate::quantizers::by;
use crate::{Operators, Pool, Walk, Written};

impl<F: Operators> Walk<'_, F> {
    /// The operator that adds.
    pub(crate) fn add(&self) -> &'static str {
        self.format.binary(Combine::Add).unwrap_or_default()
    }

    /// The value of a layer before its activation.
    pub(crate) fn op(&mut self, op: &Op, w: &Written<'_>) -> Result<String, String> {
        let f = &mut self.format;
        match op {
            Op::Conv2D(l) => f.conv(w, l),
            Op::DepthwiseConv2D(l) => f.depthwise(w, l),
            Op::Conv2DTranspose(l) => f.transposed(w, l),
            Op::SeparableConv2D(l) => self.separable(w, l),
            Op::Dense(_) => f.dense(w),
            Op::MaxPooling2D(l) => f.pool(Pool::Max, w, &l.pool),
            Op::AveragePooling2D(l) => {
                let y = f.pool(Pool::Average, w, &l.pool)?;
                Ok(rescaled(f, w.name, y, l.dpu_factor(w.shape)))
            }
            Op::GlobalAveragePooling2D(l) => {
                let y = f.reduced(Reduction::Mean, w.name, Some("Mean"), w.x()?, &[1, 2], l.keepdims);
                Ok(rescaled(f, w.name, y, l.dpu_factor(w.shapes[0])))
            }
            Op::GlobalMaxPooling2D(l) => {
                Ok(f.reduced(Reduction::Max, w.name, Some("Max"), w.x()?, &[1, 2], l.keepdims))
            }
            Op::Relu(l) => function(f, l.function(), w.name, w.x()?.to_owned()),
            Op::Elu(l) => function(f, Function::Elu(l.alpha), w.name, w.x()?.to_owned()),
            Op::LeakyRelu(l) => function(f, Function::LeakyRelu(l.alpha), w.name, w.x()?.to_owned()),
            Op::HardSigmoid(_) => function(f, Function::DpuHardSigmoid, w.name, w.x()?.to_owned()),
            Op::PRelu(_) => f.prelu(w),
            Op::Softmax(l) => Ok(f.rows(false, w.name, w.x()?, l.axis, w.shape.len() + 1)),
            Op::Activation(_) | Op::Dropout(_) | Op::Quantize(_) | Op::Input(_) => Ok(w.x()?.to_owned()),
            Op::Concatenate(_)
            | Op::Flatten(_)
            | Op::Reshape(_)
            | Op::Permute(_)
            | Op::ZeroPadding2D(_)
            | Op::Cropping2D(_)
            | Op::UpSampling2D(_)
            | Op::Resizing(_) => moved(f, op, w),
            Op::Add(_) | Op::Multiply(_) | Op::Merge(_) | Op::ScaledAdd(_) => merged(f, op, w),
            Op::BatchNormalization(_)
            | Op::LayerNormalization(_)
            | Op::LayerScale(_)
            | Op::Rescaling(_)
            | Op::Normalization(_) => normalized(f, op, w),
            Op::OneD(l) => self.one_d(w, l),
            Op::TfOp(l) => self.tf_op(l, w),
            Op::GroupNormalization(_)
            | Op::UnitNormalization(_)
            | Op::RmsNormalization(_)
            | Op::DpuLayerNorm(_)
            | Op::DpuSoftmax(_)
            | Op::Dot(_)
            | Op::MultiHeadAttention(_)
            | Op::RepeatVector(_)
            | Op::TimeDistributed(_)
            | Op::Custom(_) => unwritten::<F>(),
        }
    }

    /// A convolution of each channel, and one of all at each pixel.
    fn separable(&mut self, w: &Written<'_>, layer: &SeparableConv2D) -> Result<String, String> {
        let (first, second) = layer.parts();
        let between = first.output_shape(w.shapes)?;
        let name = self.format.named(w.name, "separable_conv2d");
        let inner = Written { name: &name, shape: &between, weights: &w.weights[..1], stored: &[None], ..*w };
        let middle = [self.op(&Op::DepthwiseConv2D(first), &inner)?];
        let rest = vec![None; w.weights.len() - 1];
        let shapes: &[&[usize]] = &[&between];
        let outer = Written { inputs: &middle, shapes, weights: &w.weights[1..], stored: &rest, ..*w };
        self.op(&Op::Conv2D(second), &outer)
    }

    /// A layer of sequences as one of images with one row.
    fn one_d(&mut self, w: &Written<'_>, layer: &OneD) -> Result<String, String> {
        let from = [&[1], *w.shapes.first().ok_or("has no operands")?].concat();
        let image = [self.format.reshaped(&format!("{}/ExpandDims", w.name), w.x()?, &from)];
        let to = layer.image.layer().output_shape(&[&from])?;
        let weights = layer.image_weights(&w.weights.iter().collect::<Vec<_>>());
        let inner = Written { inputs: &image, shapes: &[&from], shape: &to, weights: &weights, ..*w };
        let y = self.op(&layer.image, &inner)?;
        Ok(self.format.reshaped(&format!("{}/Squeeze", w.name), &y, w.shape))
    }

    /// A layer's activation attribute. `rank`: axes of the batch.
    pub(crate) fn activation(
        &mut self,
        own: ActivationFn,
        name: &str,
        x: String,
        rank: usize,
    ) -> Result<String, String> {
        match own {
            ActivationFn::Linear => Ok(x),
            ActivationFn::Softmax => Ok(self.format.rows(false, name, &x, -1, rank)),
            ActivationFn::LogSoftmax => Ok(self.format.rows(true, name, &x, -1, rank)),
            other => function(&mut self.format, other.function(), name, x),
        }
    }
}

fn unwritten<F: Operators>() -> Result<String, String> {
    Err(format!("is not written {}", F::FORMAT))
}

/// Layers that move elements.
fn moved<F: Operators>(f: &mut F, op: &Op, w: &Written<'_>) -> Result<String, String> {
    let named = |part: &str| format!("{}/{part}", w.name);
    match op {
        Op::Concatenate(l) => {
            let all: Vec<&str> = w.inputs.iter().map(String::as_str).collect();
            Ok(f.joined(&named("concat"), &all, l.axis as i64 + 1))
        }
        Op::Flatten(_) | Op::Reshape(_) => Ok(f.reshaped(&named("Reshape"), w.x()?, w.shape)),
        Op::Permute(l) => {
            let order: Vec<i64> = std::iter::once(0).chain(l.dims.iter().map(|d| *d as i64 + 1)).collect();
            Ok(f.turned(&named("transpose"), w.x()?, &order))
        }
        Op::ZeroPadding2D(l) => {
            let widths = [(0, 0), (l.rows[0], l.rows[1]), (l.columns[0], l.columns[1]), (0, 0)];
            Ok(f.padded(w.name, w.x()?, &widths, None))
        }
        Op::Cropping2D(l) => f.cropped(w, l),
        Op::UpSampling2D(l) => f.resized(w, l.interpolation),
        Op::Resizing(l) => f.resized(w, l.interpolation),
        _ => unwritten::<F>(),
    }
}

/// Layers that make one value of several.
fn merged<F: Operators>(f: &mut F, op: &Op, w: &Written<'_>) -> Result<String, String> {
    match op {
        Op::Add(_) => folded(f, Combine::Add, "add", w),
        Op::Multiply(_) => folded(f, Combine::Multiply, "mul", w),
        Op::Merge(Merge::Subtract) => folded(f, Combine::Subtract, "sub", w),
        Op::Merge(Merge::Maximum) => folded(f, Combine::Maximum, "Maximum", w),
        Op::Merge(Merge::Minimum) => folded(f, Combine::Minimum, "Minimum", w),
        Op::Merge(Merge::Average) => {
            let sum = folded(f, Combine::Add, "add", w)?;
            let count = f.number(&f.named(w.name, "truediv/count"), w.inputs.len() as f32);
            Ok(combined(f, Combine::Divide, &format!("{}/truediv", w.name), [&sum, &count]))
        }
        Op::ScaledAdd(l) => {
            let scale = f.number(&f.named(w.name, "mul/scale"), l.scale);
            let second = combined(f, Combine::Multiply, &format!("{}/mul", w.name), [&w.inputs[1], &scale]);
            Ok(combined(f, Combine::Add, &format!("{}/add", w.name), [&w.inputs[0], &second]))
        }
        _ => unwritten::<F>(),
    }
}

/// Operands combined from the first to the last.
fn folded<F: Operators>(f: &mut F, combine: Combine, part: &str, w: &Written<'_>) -> Result<String, String> {
    if w.shapes.iter().any(|s| s.len() != w.shape.len()) {
        return Err(format!("has operands of different numbers of axes, which is not written {}", F::FORMAT));
    }
    let (first, rest) = w.inputs.split_first().ok_or("has no operands")?;
    let name = format!("{}/{part}", w.name);
    Ok(rest.iter().fold(first.clone(), |all, other| combined(f, combine, &name, [&all, other])))
}

/// Layers that move and scale channels.
fn normalized<F: Operators>(f: &mut F, op: &Op, w: &Written<'_>) -> Result<String, String> {
    let named = |part: &str| format!("{}/{part}", w.name);
    let weights = || w.weights.iter().collect::<Vec<_>>();
    match op {
        Op::BatchNormalization(l) => {
            let (factors, offsets) = l.affine(&weights());
            let y = scaled(f, w.name, "batchnorm", w.x()?, &Tensor::vector(factors));
            let offsets = f.tensor(&named("batchnorm/offset"), &Tensor::vector(offsets));
            Ok(combined(f, Combine::Add, &named("batchnorm/add_1"), [&y, &offsets]))
        }
        Op::LayerNormalization(l) if !l.rms_scaling => layer_norm(f, w, l),
        Op::LayerScale(_) => {
            let factors = f.tensor(&named("scale"), &w.weights[0]);
            Ok(combined(f, Combine::Multiply, &named("mul"), [w.x()?, &factors]))
        }
        Op::Rescaling(l) => {
            let scale = f.tensor(&named("scale"), &Tensor::vector(l.scale.clone()));
            let y = combined(f, Combine::Multiply, &named("mul"), [w.x()?, &scale]);
            let offset = f.tensor(&named("offset"), &Tensor::vector(l.offset.clone()));
            Ok(combined(f, Combine::Add, &named("add"), [&y, &offset]))
        }
        Op::Normalization(l) => {
            let (mean, deviation) = l.statistics();
            let mean = f.tensor(&named("mean"), &Tensor::vector(mean));
            let deviation = f.tensor(&named("deviation"), &Tensor::vector(deviation));
            let y = combined(f, Combine::Subtract, &named("sub"), [w.x()?, &mean]);
            Ok(combined(f, Combine::Divide, &named("truediv"), [&y, &deviation]))
        }
        _ => unwritten::<F>(),
    }
}

/// Each row of channels with mean 0 and variance 1, scaled and moved.
fn layer_norm<F: Operators>(f: &mut F, w: &Written<'_>, l: &LayerNormalization) -> Result<String, String> {
    let named = |part: &str| format!("{}/{part}", w.name);
    let (x, axis) = (w.x()?, [w.shape.len() as i64]);
    let mean = f.reduced(Reduction::Mean, w.name, Some("moments/mean"), x, &axis, true);
    let centred = combined(f, Combine::Subtract, &named("sub"), [x, &mean]);
    let square = f.squared(w.name, "moments/Square", &centred);
    let variance = f.reduced(Reduction::Mean, w.name, Some("moments/variance"), &square, &axis, true);
    let sum = by(f, Combine::Add, w.name, "batchnorm/add", &variance, l.epsilon);
    let root = f.operator("Sqrt", &named("Sqrt"), &[&sum]);
    let y = combined(f, Combine::Divide, &named("truediv"), [&centred, &root]);
    let channels = w.shape.last().copied().ok_or("has no channels")?;
    let (gamma, beta) = l.scale_and_offset(&w.weights.iter().collect::<Vec<_>>(), channels);
    let y = scaled(f, w.name, "gamma", &y, &Tensor::vector(gamma));
    let beta = f.tensor(&named("beta"), &Tensor::vector(beta));
    Ok(combined(f, Combine::Add, &named("add_1"), [&y, &beta]))
}

/// A value times a factor for each channel, in a part of a scope.
fn scaled<F: Operators>(f: &mut F, scope: &str, part: &str, x: &str, factors: &Tensor) -> String {
    let factors = f.tensor(&f.named(scope, &format!("{part}/scale")), factors);
    combined(f, Combine::Multiply, &f.named(scope, &format!("{part}/mul")), [x, &factors])
}

/// A value times a factor, unless that is 1.
fn rescaled<F: Operators>(f: &mut F, scope: &str, value: String, factor: f32) -> String {
    if factor == 1.0 { value } else { by(f, Combine::Multiply, scope, "mul", &value, factor) }
}
