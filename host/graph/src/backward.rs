//! Layers with parameters and gradients: what training needs of a layer, and a graph's forward and backward pass.
//!
//! [`params`] says what a layer's weights are to training, [`evaluate`] computes a layer and keeps what its gradient
//! needs, [`differentiate`] computes the gradients of its inputs and weights. [`forward`] and [`backward`] do so for a
//! whole graph. A `match` over [`Op`] lists every layer: one without a gradient names its reason in [`NoGradient`].
//!
//! All is f32, and deterministic: every sum has an order that the shapes alone decide, whatever the number of threads;
//! sums over more than a row are kept in f64 or, in the kernels, in blocks. Where a function has no derivative, the
//! gradient is the one that TensorFlow gives on a CPU.

pub mod channels;
mod convolutions;
mod functions;
mod merges;
mod moves;
mod norms;
mod pools;
mod run;
mod segments;
#[cfg(test)]
mod tests;
mod wrappers;

pub(crate) use functions::{
    combined, derivative, elementwise, reduced_to, rows, scaled_by, spread, spread_to_extremes,
};
pub(crate) use moves::{moved, resized, split};
pub use run::{Gradients, NewStatistic, Run, Tape, Wanted, backward, forward, forward_within};
pub use segments::{Footprint, footprint};

use crate::ops::Op;
use shiftwise_core::model::{Function, RowFunction};
use shiftwise_tensor::tensor::Tensor;

/// What a layer's weight is to training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// A kernel, scale or slope: trained, and what weight decay is for.
    Weight,
    /// An offset: trained.
    Bias,
    /// A statistic of the data: follows from forward passes in [`Mode::Train`], and has no gradient.
    Statistic,
}

/// A weight of a layer, as training sees it.
#[derive(Clone, Copy, Debug)]
pub struct Param<'a> {
    /// Keras' name.
    pub name: &'a str,
    /// What it is.
    pub kind: ParamKind,
    /// Its value.
    pub value: &'a Tensor,
}

/// Weights that are no [`ParamKind::Weight`], by Keras' name.
const KINDS: &[(&str, ParamKind)] = &[
    ("bias", ParamKind::Bias),
    ("beta", ParamKind::Bias),
    ("moving_mean", ParamKind::Statistic),
    ("moving_variance", ParamKind::Statistic),
    ("mean", ParamKind::Statistic),
    ("variance", ParamKind::Statistic),
];

/// The weights of a layer with their kinds, in the order of [`Layer::weights`](crate::ops::Layer::weights).
pub fn params(op: &Op) -> Vec<Param<'_>> {
    // A weight of a layer within a layer has a path.
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let kind =
        |name: &str| KINDS.iter().find(|(known, _)| *known == last(name)).map_or(ParamKind::Weight, |(_, kind)| *kind);
    op.layer().weights().into_iter().map(|(name, value)| Param { name, kind: kind(name), value }).collect()
}

/// How layers behave that are not the same in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch normalization with its moving averages.
    Infer,
    /// Batch normalization with the statistics of the batch. Layers that drop or change values at random (`Dropout`, …)
    /// are the identity here too.
    Train,
}

/// Why a layer has no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoGradient {
    /// The user's code computes the layer forwards only.
    #[error("is computed by a custom layer, which has no gradient")]
    Custom,
    /// The vendor's form of the function works in steps of bfloat16, which are flat nearly everywhere.
    #[error("works in steps of bfloat16, which have no gradient; train with the layer that it stands for")]
    Bfloat16Steps,
    /// What it is given is not what it was verified with: a bug of the caller.
    #[error("was given tensors that don't fit it")]
    Shapes,
}

/// What a layer's forward pass keeps for its gradient, besides inputs and weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Saved {
    /// Nothing.
    Nothing,
    /// Mean and biased variance of each channel over the batch and its positions, in f64.
    Moments {
        /// Means.
        mean: Vec<f64>,
        /// Variances.
        variance: Vec<f64>,
        /// Values that each of them is of.
        count: usize,
    },
    /// Of a ReLU without a slope: a byte for each element, 1 where its derivative is 1, and 0 where it is 0. Its input is
    /// then not read.
    Passed(Vec<u8>),
}

/// Gradients of a layer. `None` where there is none or nobody wants it.
#[derive(Clone, Debug, Default)]
pub struct Grads {
    /// One for each input.
    pub inputs: Vec<Option<Tensor>>,
    /// One for each weight, in the order of [`Layer::weights`](crate::ops::Layer::weights).
    pub params: Vec<Option<Tensor>>,
}

/// One application of a layer, as its gradient sees it. Shapes and tensors include the batch.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The shape of each input.
    pub shapes: &'a [Vec<usize>],
    /// The inputs; empty for a layer that does not [read them](reads_inputs).
    pub inputs: &'a [Tensor],
    /// The weights that it was computed with.
    pub weights: &'a [Tensor],
    /// What the forward pass kept.
    pub saved: &'a Saved,
    /// For each input, whether its gradient is wanted.
    pub wanted: &'a [bool],
}

impl Call<'_> {
    /// The first input, which a layer with a gradient that reads it has.
    fn x(&self) -> Result<&Tensor, NoGradient> {
        self.inputs.first().ok_or(NoGradient::Shapes)
    }
    /// The shape of the first input.
    fn shape(&self) -> Result<&[usize], NoGradient> {
        self.shapes.first().map(Vec::as_slice).ok_or(NoGradient::Shapes)
    }
    /// Whether the gradient of input `k` is wanted.
    fn wants(&self, k: usize) -> bool {
        self.wanted.get(k).copied().unwrap_or(false)
    }
}

/// A tensor of a shape, of data that was counted by it.
pub(crate) fn tensor(shape: &[usize], data: Vec<f32>) -> Result<Tensor, NoGradient> {
    Tensor::new(shape.to_vec(), data).ok_or(NoGradient::Shapes)
}

/// The same values under another shape.
pub(crate) fn reshaped(x: &Tensor, shape: &[usize]) -> Result<Tensor, NoGradient> {
    x.clone().reshaped(shape.to_vec()).ok_or(NoGradient::Shapes)
}

/// Computes a layer up to its activation attribute, and what its gradient needs.
///
/// In [`Mode::Infer`] the bytes are those of [`Layer::eval`](crate::ops::Layer::eval).
pub fn evaluate(op: &Op, inputs: &[&Tensor], weights: &[Tensor], mode: Mode) -> (Tensor, Saved) {
    let plain = || (op.layer().eval(inputs, &weights.iter().collect::<Vec<_>>()), Saved::Nothing);
    match (op, mode) {
        (Op::BatchNormalization(norm), Mode::Train) => norms::with_moments_of_batch(norm, inputs[0], weights),
        (Op::TimeDistributed(steps), Mode::Train) => wrappers::evaluate_steps(steps, inputs[0], weights, mode),
        (_, Mode::Infer | Mode::Train) => plain(),
    }
}

/// Whether a layer's gradient reads its inputs; of the others only shapes are kept.
pub fn reads_inputs(op: &Op) -> bool {
    match op {
        Op::Input(_) | Op::Quantize(_) | Op::Dropout(_) | Op::Activation(_) => false,
        Op::Flatten(_) | Op::Reshape(_) | Op::Permute(_) | Op::RepeatVector(_) => false,
        Op::ZeroPadding2D(_) | Op::Cropping2D(_) | Op::UpSampling2D(_) | Op::Resizing(_) => false,
        Op::Add(_) | Op::ScaledAdd(_) | Op::Concatenate(_) => false,
        Op::AveragePooling2D(_) | Op::GlobalAveragePooling2D(_) => false,
        Op::Rescaling(_) | Op::Normalization(_) | Op::Custom(_) => false,
        Op::OneD(one) => reads_inputs(&one.image),
        Op::TimeDistributed(steps) => reads_inputs(&steps.layer),
        Op::Conv2D(_) | Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_) | Op::SeparableConv2D(_) | Op::Dense(_) => true,
        Op::BatchNormalization(_) | Op::LayerNormalization(_) | Op::GroupNormalization(_) => true,
        Op::UnitNormalization(_) | Op::RmsNormalization(_) | Op::LayerScale(_) => true,
        Op::Relu(_) | Op::Elu(_) | Op::LeakyRelu(_) | Op::PRelu(_) | Op::HardSigmoid(_) | Op::Softmax(_) => true,
        Op::DpuLayerNorm(_) | Op::DpuSoftmax(_) => false,
        Op::Multiply(_) | Op::Merge(_) | Op::Dot(_) | Op::MultiHeadAttention(_) => true,
        Op::MaxPooling2D(_) | Op::GlobalMaxPooling2D(_) | Op::TfOp(_) => true,
    }
}

/// The gradients of a layer, up to its activation attribute, from that of its result.
///
/// Gradients of weights are sums over the batch. Errors say why there is none.
pub fn differentiate(op: &Op, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    consume(op, call, dy.clone())
}

/// [`differentiate`] in the memory of `dy`, if nobody else has it and the layer works element by element; otherwise that
/// memory is recycled.
pub(crate) fn consume(op: &Op, call: &Call<'_>, dy: Tensor) -> Result<Grads, NoGradient> {
    let own = match op {
        Op::Relu(layer) => match call.saved {
            Saved::Passed(passed) => functions::gated(passed, dy),
            Saved::Nothing | Saved::Moments { .. } => functions::elementwise_in(layer.function(), call.x()?, dy),
        },
        Op::Quantize(_) | Op::Dropout(_) | Op::Activation(_) => dy,
        Op::BatchNormalization(layer) => return norms::batch(layer, call, dy),
        op => {
            let found = by_layer(op, call, &dy);
            dy.recycle();
            return found;
        }
    };
    Ok(Grads { inputs: vec![Some(own)], params: Vec::new() })
}

fn by_layer(op: &Op, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let one = |dx: Tensor| Grads { inputs: vec![Some(dx)], params: Vec::new() };
    let each = |inputs: Vec<Option<Tensor>>| Grads { inputs, params: Vec::new() };
    let map = |function: Function| -> Result<Grads, NoGradient> { Ok(one(elementwise(function, call.x()?, dy))) };
    match op {
        Op::Input(_) => Ok(Grads::default()),
        Op::Quantize(_) | Op::Dropout(_) | Op::Activation(_) => Ok(one(dy.clone())),
        Op::Conv2D(layer) => convolutions::conv(layer, call, dy),
        Op::DepthwiseConv2D(layer) => convolutions::depthwise(layer, call, dy),
        Op::Conv2DTranspose(layer) => convolutions::transposed(layer, call, dy),
        Op::SeparableConv2D(layer) => convolutions::separable(layer, call, dy),
        Op::Dense(_) => convolutions::dense(call, dy),
        Op::BatchNormalization(layer) => norms::batch(layer, call, dy.clone()),
        Op::LayerNormalization(layer) => norms::layer(layer, call, dy),
        Op::GroupNormalization(layer) => norms::group(layer, call, dy),
        Op::UnitNormalization(_) => rows(crate::ops::UnitNormalization::FUNCTION, call.x()?, dy).map(one),
        Op::RmsNormalization(layer) => norms::scaled(Some(RowFunction::RootMeanSquare(layer.epsilon)), call, dy),
        Op::LayerScale(_) => norms::scaled(None, call, dy),
        Op::DpuLayerNorm(_) | Op::DpuSoftmax(_) => Err(NoGradient::Bfloat16Steps),
        Op::Normalization(layer) => {
            let factors: Vec<f32> = layer.statistics().1.iter().map(|deviation| 1.0 / deviation).collect();
            Ok(Grads { params: vec![None; call.weights.len()], ..one(scaled_by(dy, &factors)) })
        }
        Op::Rescaling(layer) => Ok(one(scaled_by(dy, &layer.scale))),
        Op::Relu(layer) => map(layer.function()),
        Op::Elu(layer) => map(Function::Elu(layer.alpha)),
        Op::LeakyRelu(layer) => map(Function::LeakyRelu(layer.alpha)),
        Op::HardSigmoid(_) => map(Function::DpuHardSigmoid),
        Op::PRelu(_) => functions::slopes(call, dy),
        Op::Softmax(_) => rows(RowFunction::Softmax, call.x()?, dy).map(one),
        Op::Add(_) => merges::add(call, dy).map(each),
        Op::Multiply(_) => merges::folded(shiftwise_core::model::Combine::Multiply, call, dy).map(each),
        Op::Merge(merge) => merges::merge(*merge, call, dy).map(each),
        Op::ScaledAdd(layer) => Ok(each(vec![Some(dy.clone()), Some(scaled_by(dy, &[layer.scale]))])),
        Op::Dot(layer) => merges::dot(layer, call, dy).map(each),
        Op::MultiHeadAttention(layer) => layer.gradients(call, dy),
        Op::Concatenate(layer) => Ok(each(split(call.shapes, layer.axis + 1, dy))),
        Op::MaxPooling2D(layer) => pools::max(&layer.pool, call, dy).map(one),
        Op::AveragePooling2D(layer) => pools::average(layer, call, dy).map(one),
        Op::GlobalAveragePooling2D(layer) => pools::global_average(layer, call, dy).map(one),
        Op::GlobalMaxPooling2D(_) => pools::global_max(call, dy).map(one),
        Op::Flatten(_) | Op::Reshape(_) => reshaped(dy, call.shape()?).map(one),
        Op::ZeroPadding2D(_) | Op::Cropping2D(_) | Op::RepeatVector(_) | Op::Permute(_) => {
            moved(call.shape()?, dy, |x| op.layer().eval(&[x], &[])).map(one)
        }
        Op::UpSampling2D(layer) => moves::upsampled(layer, call.shape()?, dy).map(one),
        Op::Resizing(layer) => resized(layer.interpolation, layer.size, call.shape()?, dy).map(one),
        Op::OneD(layer) => wrappers::one_d(layer, call, dy),
        Op::TimeDistributed(layer) => wrappers::steps(layer, call, dy),
        Op::TfOp(function) => function.gradients(call, dy).map(each),
        Op::Custom(_) => Err(NoGradient::Custom),
    }
}
