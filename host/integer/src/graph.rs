//! The integer form of a quantized network: what a DPU, a microcontroller and the integer evaluation all compute.
//!
//! Lowering fuses each run of layers that shares one quantizer (convolution and its ReLU, Add and its ReLU) into one
//! [`IntOp`] with shifts instead of scales. Evaluation, both compilers and the report of what stays float read this
//! form; none of them looks at float weights again. The numbers are exact: see [`shiftwise_core::arith`].

use shiftwise_core::fix::{self, FixPos};
use shiftwise_core::scale::Scale;
use shiftwise_core::shape::Window;
use shiftwise_tensor::values::Values;

mod verify;

pub use crate::op::{Class, IntOpKind};

/// Index of a tensor in [`IntGraph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorIx(pub usize);

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signed 8-bit integers with a position.
    Fixed(FixPos),
    /// Signed integers of 8 or 16 bits with a step of any size.
    Scaled(Scale),
    /// f32.
    Float,
}

impl Kind {
    /// What the integers stand for; `None` for floats.
    pub fn scale(self) -> Option<Scale> {
        match self {
            Self::Fixed(pos) => Some(Scale::of_position(pos)),
            Self::Scaled(scale) => Some(scale),
            Self::Float => None,
        }
    }

    /// What values of this type stand for.
    pub fn reals(self, values: &Values) -> Vec<f32> {
        match (values, self) {
            (Values::Float(x), _) => x.clone(),
            (Values::Int8(q), Self::Fixed(pos)) => q.iter().map(|q| fix::dequantize((*q).into(), pos)).collect(),
            (Values::Int8(q), Self::Scaled(scale)) => q.iter().map(|q| scale.dequantize((*q).into())).collect(),
            (Values::Int16(q), Self::Scaled(scale)) => q.iter().map(|q| scale.dequantize(*q)).collect(),
            (Values::Int8(q), Self::Float) => q.iter().map(|q| f32::from(*q)).collect(),
            (Values::Int16(q), Self::Float | Self::Fixed(_)) => q.iter().map(|q| f32::from(*q)).collect(),
            (Values::Int32(q), _) => q.iter().map(|q| *q as f32).collect(),
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        self.scale().map_or(4, |scale| scale.bytes() as usize)
    }
}

/// One tensor of one sample.
#[derive(Clone, Debug)]
pub struct IntTensor {
    /// Name in the quantized model: `quant_<layer>`. A tensor that the vendor's dump doesn't show (the integers before
    /// a softmax) has its layer's name with `_input` behind it.
    pub name: String,
    /// Shape without the batch: `[h, w, c]` or `[c]`.
    pub shape: Vec<usize>,
    /// Element type.
    pub kind: Kind,
}

/// Activation between accumulation and requantization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntAct {
    /// Identity.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6) — exact in steps of the output position, and applied there: clamp(y, 0, 6·2^opos).
    Relu6,
    /// x < 0 becomes x · 26/256 exactly, rounded once together with the shift: round(26·x / 2^(8 + shift)).
    LeakyRelu,
}

/// Geometry, weights and shifts of a convolution, see [`IntOpKind`] for what the window means.
#[derive(Clone, Debug)]
pub struct IntConv {
    /// Taps, strides, padding, dilation.
    pub window: Window,
    /// Input read as `[h, w, c]`. A dense layer over a flattened `[h, w, c]` map has the map's dimensions and a kernel of
    /// the map's size; otherwise `[1, 1, c]` (or `[1, n, c]` for n rows).
    pub input: [usize; 3],
    /// Output as `[h, w, c]`.
    pub output: [usize; 3],
    /// Integers, `[kh, kw, ic / groups, oc]`; depthwise `[kh, kw, c]`.
    pub kernel: Vec<i8>,
    /// Integers of the bias, `[oc]`.
    pub bias: Option<Vec<i8>>,
    /// Channel groups (1 for depthwise, which has its own kind, and transposed). A depthwise convolution with m outputs
    /// per channel is a convolution with a group per input channel.
    pub groups: usize,
    /// wpos + ipos − opos.
    pub shift_cut: i32,
    /// wpos + ipos − bpos.
    pub shift_bias: i32,
    /// Activation.
    pub act: IntAct,
}

/// What a convolution's window means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConvKind {
    /// All input channels of the group.
    Dense,
    /// One input channel for each output.
    Depthwise,
    /// Outputs spread over the window.
    Transposed,
}

/// One op.
#[derive(Clone, Debug)]
pub struct IntOp {
    /// What it computes.
    pub kind: IntOpKind,
    /// Operands.
    pub inputs: Vec<TensorIx>,
    /// Result.
    pub output: TensorIx,
    /// The user's layers it came from, joined with `+`.
    pub layer: String,
}

/// A network in integer form. Ops stand in execution order; every tensor is an input or the output of one op. What makes
/// one calls [`IntGraph::verify`], so that engines and compilers trust it.
#[derive(Clone, Debug)]
pub struct IntGraph {
    /// The model's name.
    pub name: String,
    /// All tensors.
    pub tensors: Vec<IntTensor>,
    /// All ops.
    pub ops: Vec<IntOp>,
    /// Inputs in the model's order: the quantized ones (`quant_<input>`), or floats where the model reads floats.
    pub inputs: Vec<TensorIx>,
    /// Outputs in the model's order; views are resolved by the reader.
    pub outputs: Vec<TensorIx>,
}

impl IntOp {
    /// Multiply-accumulates as the user counts them.
    pub fn macs(&self) -> u64 {
        self.kind.macs()
    }
}

/// A shape read as `[h, w, c]`: missing leading dimensions are 1, surplus ones are rows.
pub fn image(shape: &[usize]) -> [usize; 3] {
    match shape {
        [rows @ .., w, c] => [rows.iter().product(), *w, *c],
        [c] => [1, 1, *c],
        [] => [1, 1, 1],
    }
}
