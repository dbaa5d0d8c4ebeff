//! The layers.
//!
//! `layers!` is the one table: a row names the Keras class, the variant of [`Op`] and the struct that implements
//! [`Layer`]. Reading, shapes, evaluation, weights and writing all go through it, so adding a layer is one struct
//! with its `impl Layer` in the file of its family, and one row here.

use serde_json::{Map, Value, json};

use shiftwise_tensor::tensor::Tensor;

pub mod act;
pub mod cubic;
pub mod custom;
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
pub use custom::{Custom, CustomLayer, CustomLayers};
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
    /// Whole-number variables that Keras keeps beside the weights, with the value to be written.
    fn integers(&self) -> Vec<(&'static str, i32)> {
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
    /// The layer's own settings as Keras writes them, without name, dtype and initializers.
    fn to_keras(&self) -> Map<String, Value> {
        Map::new()
    }
    /// The settings that matter to a reader, for the textual form.
    fn settings(&self) -> String {
        self.to_keras().iter().map(|(k, v)| format!(" {k}={v}")).collect()
    }
    /// Multiply-accumulates for one sample.
    fn macs(&self, output: &[usize]) -> u64 {
        let _ = output;
        0
    }
}

/// Where a reader takes weights from: a file, or a generator of random ones.
pub trait WeightSource {
    /// The weight of a Keras name (`kernel`, `bias`, …) and shape.
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String>;
    /// Every weight that is there for the layer, with its path below the layer, in order.
    fn all(&mut self) -> Result<Vec<(String, Tensor)>, String> {
        Ok(Vec::new())
    }
}

/// Settings of one layer in a Keras config.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a>(pub &'a Map<String, Value>);

impl<'a> Config<'a> {
    /// The value of a key, unless absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A positive integer.
    pub fn usize(&self, key: &str) -> Result<usize, String> {
        let value = self.get(key).ok_or_else(|| format!("`{key}` is missing"))?;
        // Bounded so that products of a few sizes stay within 64 bits.
        let sane = value.as_u64().filter(|v| *v <= 1 << 24).map(|v| v as usize);
        sane.ok_or_else(|| format!("`{key}` is {value}, a whole number of at most {} is expected", 1 << 24))
    }

    /// One or two positive integers of at most 65535; `default` if absent.
    pub fn pair(&self, key: &str, default: [usize; 2]) -> Result<[usize; 2], String> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let one = |v: &Value| v.as_u64().filter(|v| (1..=65535).contains(v)).map(|v| v as usize);
        let pair = match value {
            Value::Array(a) if a.len() == 2 => one(&a[0]).zip(one(&a[1])),
            other => one(other).map(|v| (v, v)),
        };
        pair.map(|(a, b)| [a, b])
            .ok_or_else(|| format!("`{key}` is {value}, one or two whole numbers from 1 to 65535 are expected"))
    }

    /// A flag; old writers put 0 or 1.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, String> {
        self.get(key).map_or(Ok(default), |v| {
            let number = v.as_u64().filter(|n| *n < 2).map(|n| n == 1);
            v.as_bool().or(number).ok_or_else(|| format!("`{key}` is {v}, true or false is expected"))
        })
    }

    /// A number that is finite as f32, in which all is computed.
    pub fn f32_or(&self, key: &str, default: f32) -> Result<f32, String> {
        self.get(key).map_or(Ok(default), |v| {
            single(v)
                .ok_or_else(|| format!("`{key}` is {v:.60}, a number within the range of 32-bit floats is expected"))
        })
    }

    /// A word.
    pub fn str_or(&self, key: &str, default: &'a str) -> Result<&'a str, String> {
        self.get(key).map_or(Ok(default), |v| v.as_str().ok_or_else(|| format!("`{key}` is {v}, a word is expected")))
    }

    /// Fails unless channels come last.
    pub fn channels_last(&self) -> Result<(), String> {
        match self.str_or("data_format", "channels_last")? {
            "channels_last" => Ok(()),
            other => Err(format!("data_format is `{other}`, only `channels_last` is supported")),
        }
    }
}

/// A JSON number as f32; `None` for anything else and for what is beyond its range.
pub(crate) fn single(value: &Value) -> Option<f32> {
    value.as_f64().map(|v| v as f32).filter(|v| v.is_finite())
}

/// Rows of the table: `Variant(Struct) = "KerasClass", …;` where a struct may serve several classes.
macro_rules! layers {
    ($($variant:ident($layer:ty) = $($class:literal)|+;)*) => {
        /// Any layer.
        #[derive(Clone, Debug)]
        pub enum Op {
            $(#[doc = concat!("Keras class ", $($class, " "),+)] $variant($layer),)*
            /// A class that is none of Keras' own.
            Custom(Custom),
        }

        impl Op {
            /// The layer behind it.
            pub fn layer(&self) -> &dyn Layer {
                match self { $(Self::$variant(layer) => layer,)* Self::Custom(layer) => layer }
            }

            /// The Keras class, as the vendor's quantizer names it too.
            pub fn class(&self) -> &str {
                match self { $(Self::$variant(layer) => layer.class(),)* Self::Custom(layer) => layer.class() }
            }

            /// A layer from its Keras class and settings; `None` for a class that isn't in the table.
            pub fn from_keras(
                class: &str,
                config: Config<'_>,
                inputs: &[&[usize]],
                weights: &mut dyn WeightSource,
            ) -> Option<Result<Self, String>> {
                match class {
                    $($($class)|+ => Some(<$layer>::from_keras(class, config, inputs, weights).map(Self::$variant)),)*
                    _ => None,
                }
            }
        }

        /// Every Keras class that can be read.
        pub const CLASSES: &[&str] = &[$($($class,)+)*];
    };
}

layers! {
    Input(Input) = "InputLayer";
    Conv2D(Conv2D) = "Conv2D";
    DepthwiseConv2D(DepthwiseConv2D) = "DepthwiseConv2D";
    Conv2DTranspose(Conv2DTranspose) = "Conv2DTranspose";
    SeparableConv2D(SeparableConv2D) = "SeparableConv2D";
    Dense(Dense) = "Dense";
    BatchNormalization(BatchNormalization) = "BatchNormalization";
    LayerNormalization(LayerNormalization) = "LayerNormalization";
    GroupNormalization(GroupNormalization) = "GroupNormalization";
    UnitNormalization(UnitNormalization) = "UnitNormalization";
    RmsNormalization(RmsNormalization) = "RMSNormalization";
    LayerScale(LayerScale) = "LayerScale";
    DpuLayerNorm(DpuLayerNorm) = "VitisLayernorm";
    Normalization(Normalization) = "Normalization";
    Rescaling(Rescaling) = "Rescaling";
    Relu(Relu) = "ReLU";
    Elu(Elu) = "ELU";
    LeakyRelu(LeakyRelu) = "LeakyReLU";
    PRelu(PRelu) = "PReLU";
    HardSigmoid(HardSigmoid) = "VitisSigmoid";
    Activation(Activate) = "Activation";
    Softmax(Softmax) = "Softmax";
    DpuSoftmax(DpuSoftmax) = "VitisSoftmax";
    Add(Add) = "Add";
    Multiply(Multiply) = "Multiply";
    Merge(Merge) = "Subtract" | "Maximum" | "Minimum" | "Average";
    ScaledAdd(ScaledAdd) = "CustomScaleLayer";
    Dot(Dot) = "Dot";
    Concatenate(Concatenate) = "Concatenate";
    MaxPooling2D(MaxPooling2D) = "MaxPooling2D";
    AveragePooling2D(AveragePooling2D) = "AveragePooling2D" | "VitisAveragePooling2D";
    GlobalAveragePooling2D(GlobalAveragePooling2D) = "GlobalAveragePooling2D" | "VitisGlobalAveragePooling2D";
    GlobalMaxPooling2D(GlobalMaxPooling2D) = "GlobalMaxPooling2D";
    Flatten(Flatten) = "Flatten";
    Reshape(Reshape) = "Reshape";
    ZeroPadding2D(ZeroPadding2D) = "ZeroPadding2D";
    Cropping2D(Cropping2D) = "Cropping2D";
    UpSampling2D(UpSampling2D) = "UpSampling2D";
    Resizing(Resizing) = "Resizing";
    RepeatVector(RepeatVector) = "RepeatVector";
    OneD(OneD) = "Conv1D" | "DepthwiseConv1D" | "SeparableConv1D" | "Conv1DTranspose" | "MaxPooling1D" | "AveragePooling1D"
        | "GlobalAveragePooling1D" | "GlobalMaxPooling1D" | "UpSampling1D" | "ZeroPadding1D" | "Cropping1D";
    TimeDistributed(TimeDistributed) = "TimeDistributed";
    Permute(Permute) = "Permute";
    Dropout(Dropout) = "Dropout" | "SpatialDropout2D" | "SpatialDropout1D" | "AlphaDropout" | "GaussianDropout" | "GaussianNoise"
        | "ActivityRegularization" | "RandomFlip" | "RandomRotation" | "RandomTranslation" | "RandomZoom"
        | "RandomContrast" | "RandomBrightness"
        | "Identity" | "StochasticDepth" | "SpatialDropout3D" | "RandomHeight" | "RandomWidth" | "RandomColorDegeneration" | "RandomColorJitter" | "RandomElasticTransform" | "RandomErasing" | "RandomGaussianBlur" | "RandomGrayscale" | "RandomHue" | "RandomInvert" | "RandomPerspective" | "RandomPosterization" | "RandomSaturation" | "RandomSharpness" | "RandomShear" | "AugMix" | "CutMix" | "MixUp" | "RandAugment";
    TfOp(TfOp) = "TFOpLambda" | "SlicingOpLambda";
    Quantize(Quantize) = "VitisQuantize";
}

impl Op {
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
pub(crate) fn one<'a>(inputs: &[&'a [usize]]) -> Result<&'a [usize], String> {
    match inputs {
        [only] => Ok(only),
        _ => Err(format!("it has {} inputs, exactly one is expected", inputs.len())),
    }
}

/// The single input of a layer over images, as (height, width, channels).
pub(crate) fn image(inputs: &[&[usize]]) -> Result<[usize; 3], String> {
    match one(inputs)? {
        [h, w, c] => Ok([*h, *w, *c]),
        other => Err(format!("its input has shape {other:?}, [height, width, channels] is expected")),
    }
}

/// A map from a JSON object literal.
pub(crate) fn settings(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => Map::from_iter([("value".to_owned(), json!(other))]),
    }
}
