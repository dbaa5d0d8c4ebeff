//! The layers.
//!
//! `layers!` is the one table: a row names the variant of [`Op`] and the struct that implements [`Layer`]. Shapes,
//! evaluation and weights all go through it, so adding a layer is one struct with its `impl Layer` in the file of its
//! family, and one row here; how files describe it is a row of each format that has it.

use shiftwise_tensor::tensor::Tensor;

pub mod act;
mod assign;
pub mod attention;
pub mod cubic;
pub mod custom;
mod custom_layers;
pub mod dpu;
pub mod formula;
pub mod linear;
pub mod merge;
pub mod norm;
pub mod one_d;
pub mod pool;
pub mod reshape;
pub mod tfop;
pub mod time;
pub mod transposed;

pub use act::{Activate, ActivationFn, Elu, LeakyRelu, PRelu, Relu, Softmax};
pub use attention::MultiHeadAttention;
pub use custom::{Custom, CustomLayer};
pub use custom_layers::{CustomLayers, EXAMPLE};
pub use dpu::{DpuLayerNorm, DpuSoftmax, HardSigmoid};
pub use linear::{Conv2D, Dense, DepthwiseConv2D, Padding, Weighted};
pub use merge::{Add, Concatenate, Dot, Merge, Multiply, ScaledAdd};
pub use norm::{
    BatchNormalization, GroupNormalization, LayerNormalization, LayerScale, Normalization, Rescaling, RmsNormalization,
    UnitNormalization,
};
pub use one_d::OneD;
pub use pool::{AveragePooling2D, GlobalAveragePooling2D, GlobalMaxPooling2D, MaxPooling2D};
pub use reshape::{
    Cropping2D, Dropout, Flatten, Input, Interpolation, Permute, Quantize, RepeatVector, Reshape, Resizing,
    UpSampling2D, ZeroPadding2D,
};
pub use tfop::{Operand, TfOp};
pub use time::TimeDistributed;
pub use transposed::{Conv2DTranspose, SeparableConv2D};

/// What every layer can say and do. Shapes exclude the batch; tensors include it as their first dimension.
pub trait Layer {
    /// Its class, as Keras and the vendor's quantizer name it.
    fn class(&self) -> &str;
    /// Fails unless the layer's own settings and weights belong together, whatever its inputs are. Nothing else of a
    /// layer may be asked before: [`Graph`](crate::graph::Graph) does so when a layer is added and when it is verified.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
    /// Output shape of one sample; errors say which dimension doesn't fit.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;
    /// Keras' name and the value of each weight, in Keras' order.
    fn weights(&self) -> Vec<(&str, &Tensor)> {
        Vec::new()
    }
    /// The activation attribute, which runs after [`Layer::eval`].
    fn activation(&self) -> ActivationFn {
        ActivationFn::Linear
    }
    /// The float computation on a batch up to the activation attribute, with `weights` in the order of
    /// [`Layer::weights`] (possibly fake-quantized).
    ///
    /// Every operation is f32, in TensorFlow's order where the order matters.
    fn eval(&self, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor;
    /// [`Layer::eval`] in the memory of a single input that nobody else reads; a layer that can't gives it back.
    fn reuse(&self, input: Tensor) -> Result<Tensor, Tensor> {
        Err(input)
    }
    /// Multiply-accumulates for one sample.
    fn macs(&self, output: &[usize]) -> u64 {
        let _ = output;
        0
    }
}

/// Rows of the table: `Variant(Struct);`.
macro_rules! layers {
    ($($variant:ident($layer:ty);)*) => {
        /// Any layer.
        #[derive(Clone, Debug)]
        pub enum Op {
            $(#[doc = concat!("[`", stringify!($layer), "`].")] $variant($layer),)*
            /// A class that is none of Keras' own.
            Custom(Custom),
        }

        impl Op {
            /// The layer behind it.
            pub fn layer(&self) -> &dyn Layer {
                match self { $(Self::$variant(layer) => layer,)* Self::Custom(layer) => layer }
            }
        }
    };
}

layers! {
    Input(Input);
    Conv2D(Conv2D);
    DepthwiseConv2D(DepthwiseConv2D);
    Conv2DTranspose(Conv2DTranspose);
    SeparableConv2D(SeparableConv2D);
    Dense(Dense);
    BatchNormalization(BatchNormalization);
    LayerNormalization(LayerNormalization);
    GroupNormalization(GroupNormalization);
    UnitNormalization(UnitNormalization);
    RmsNormalization(RmsNormalization);
    LayerScale(LayerScale);
    DpuLayerNorm(DpuLayerNorm);
    Normalization(Normalization);
    Rescaling(Rescaling);
    Relu(Relu);
    Elu(Elu);
    LeakyRelu(LeakyRelu);
    PRelu(PRelu);
    HardSigmoid(HardSigmoid);
    Activation(Activate);
    Softmax(Softmax);
    DpuSoftmax(DpuSoftmax);
    Add(Add);
    Multiply(Multiply);
    Merge(Merge);
    ScaledAdd(ScaledAdd);
    Dot(Dot);
    MultiHeadAttention(MultiHeadAttention);
    Concatenate(Concatenate);
    MaxPooling2D(MaxPooling2D);
    AveragePooling2D(AveragePooling2D);
    GlobalAveragePooling2D(GlobalAveragePooling2D);
    GlobalMaxPooling2D(GlobalMaxPooling2D);
    Flatten(Flatten);
    Reshape(Reshape);
    ZeroPadding2D(ZeroPadding2D);
    Cropping2D(Cropping2D);
    UpSampling2D(UpSampling2D);
    Resizing(Resizing);
    RepeatVector(RepeatVector);
    OneD(OneD);
    TimeDistributed(TimeDistributed);
    Permute(Permute);
    Dropout(Dropout);
    TfOp(TfOp);
    Quantize(Quantize);
}

impl Op {
    /// [`Layer::class`].
    pub fn class(&self) -> &str {
        self.layer().class()
    }

    /// Kernel, bias and activation of a convolution or dense layer.
    pub fn weighted(&self) -> Option<&Weighted> {
        match self {
            Self::Conv2D(l) => Some(&l.w),
            Self::DepthwiseConv2D(l) => Some(&l.w),
            Self::Conv2DTranspose(l) => Some(&l.w),
            Self::Dense(l) => Some(&l.w),
            _ => None,
        }
    }

    /// [`Op::weighted`], writable.
    pub fn weighted_mut(&mut self) -> Option<&mut Weighted> {
        match self {
            Self::Conv2D(l) => Some(&mut l.w),
            Self::DepthwiseConv2D(l) => Some(&mut l.w),
            Self::Conv2DTranspose(l) => Some(&mut l.w),
            Self::Dense(l) => Some(&mut l.w),
            _ => None,
        }
    }
}

/// Largest number of pixels by which a window, a stride or a margin is given: the DPU's and all kernels' geometry has
/// 16 bits.
pub const MAX_SIDE: usize = 65535;

/// Fails unless all numbers of a setting are from `least` to [`MAX_SIDE`].
pub(crate) fn sides(name: &str, least: usize, sides: &[usize]) -> Result<(), String> {
    if sides.iter().all(|side| (least..=MAX_SIDE).contains(side)) {
        return Ok(());
    }
    Err(format!("its {name} is {sides:?}, whole numbers from {least} to {MAX_SIDE} are expected"))
}

/// Fails unless a weight has this shape.
pub(crate) fn shaped(name: &str, weight: &Tensor, shape: &[usize]) -> Result<(), String> {
    let fits = weight.shape() == shape;
    fits.then_some(()).ok_or_else(|| format!("its {name} has shape {:?}, {shape:?} is expected", weight.shape()))
}

/// Fails unless a setting is a number that is finite as f32.
pub(crate) fn finite(name: &str, value: f32) -> Result<(), String> {
    value.is_finite().then_some(()).ok_or_else(|| format!("its {name} is {value}, a finite number is expected"))
}

/// The single input of a layer that takes one.
pub fn one<'a>(inputs: &[&'a [usize]]) -> Result<&'a [usize], String> {
    match inputs {
        [only] => Ok(only),
        _ => Err(format!("it has {} inputs, exactly one is expected", inputs.len())),
    }
}

/// The single input of a layer over images, as (height, width, channels).
pub fn image(inputs: &[&[usize]]) -> Result<[usize; 3], String> {
    match one(inputs)? {
        [h, w, c] => Ok([*h, *w, *c]),
        other => Err(format!("its input has shape {other:?}, [height, width, channels] is expected")),
    }
}
