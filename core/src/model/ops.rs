//! Records of layers on the CPU.

use serde::{Deserialize, Serialize};

#[cfg(feature = "floats")]
use super::floats::FloatOp;
use super::ids::{TensorId, TensorList};
#[cfg(not(feature = "floats"))]
use super::no_floats::FloatOp;
use super::scaled::ScaledOp;
use crate::shape::{Shape, Window};

/// Largest number of operands of an element-wise sum.
pub const MAX_OPERANDS: usize = 8;

/// Activation applied to an accumulator before it is requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Act {
    /// Identity.
    None,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), n) with n in steps of the accumulator.
    ReluMax(i32),
    /// x < 0 becomes x · 26/256, rounded once together with the shift.
    LeakyRelu,
}

/// A convolution, dense layer (one tap over all inputs), depthwise or transposed convolution.
///
/// Integer order: sum of products, plus bias, activation, then shift by `shift_cut`, rounded half up, saturated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor, written as `[h, w, c]` = `out_dims`.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// Output height, width, channels.
    pub out_dims: [u16; 3],
    /// Taps, strides, padding; transposed: the stride is between outputs, and the padding what is cropped of them.
    pub window: Window,
    /// Equal parts of input and output channels that see only each other; 1 for depthwise and transposed.
    pub groups: u16,
    /// Offset in the constants: i8 `[oc][kh][kw][ic / groups]`, or `[kh][kw][oc]` when depthwise.
    pub kernel: u32,
    /// Offset in the constants of i32 `[oc]` in accumulator steps (see [`crate::arith::align_bias`]).
    pub bias: Option<u32>,
    /// Left shift of the sum of products before the bias is added: bits of the bias below the products' step, where no
    /// plain right shift follows that would let them be rounded first. At most 24.
    pub fine: u8,
    /// Right shift after the activation, `fine` included.
    pub shift_cut: i8,
    /// Activation on the accumulator.
    pub act: Act,
}

/// Pooling over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// Output height, width.
    pub out_dims: [u16; 2],
    /// Taps, strides, padding.
    pub window: Window,
    /// What is taken of the window.
    pub kind: PoolKind,
    /// Right shift to the output position, after the activation; average: the `n` of the factor is included.
    pub shift: i8,
    /// Activation before the shift.
    pub act: Act,
}

impl PoolOp {
    /// Whether every sum times its factor stays inside 31 bits. Only what lies inside the input is summed, and the
    /// largest value is no sum.
    pub fn fits_accumulator(&self) -> bool {
        let PoolKind::Average(factor) = self.kind else { return true };
        let [h, w, _] = self.in_dims.map(u64::from);
        let [rows, columns] = self.window.kernel.map(u64::from);
        // Below 2^16 each, of 8 bits.
        rows.min(h) * columns.min(w) * u64::from(factor) <= 1 << 23
    }
}

/// What pooling takes of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PoolKind {
    /// The largest value; padding never wins.
    Max,
    /// Sum times this factor; padding counts as zeros.
    Average(u16),
}

/// Element-wise sum of tensors of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddOp<'a> {
    /// Operands.
    #[serde(borrow)]
    pub inputs: TensorList<'a>,
    /// Left shift of each operand to the finest position among them.
    pub shift_read: &'a [u8],
    /// Output tensor.
    pub output: TensorId,
    /// Activation on the sum.
    pub act: Act,
    /// Right shift from the finest position to the output's.
    pub shift_write: i8,
}

/// Element-wise product of two tensors. Shapes broadcast as in numpy: aligned at the last dimension, and dimensions of
/// size 1 repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiplyOp {
    /// Operands.
    pub inputs: [TensorId; 2],
    /// Output tensor.
    pub output: TensorId,
    /// Right shift of the product.
    pub shift: i8,
    /// Activation on the product.
    pub act: Act,
}

/// Tensors behind each other along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConcatOp<'a> {
    /// Operands.
    #[serde(borrow)]
    pub inputs: TensorList<'a>,
    /// Right shift of each operand, an `i8` in one byte.
    pub shifts: &'a [u8],
    /// Output tensor.
    pub output: TensorId,
    /// Axis of the output's shape.
    pub axis: u8,
}

/// Nearest-neighbour upsampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpSampleOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// How often each pixel is repeated, vertically and horizontally.
    pub factor: [u16; 2],
    /// Right shift.
    pub shift: i8,
}

/// Zeros around the rows and columns of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PadOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// Rows above, columns left.
    pub before: [u16; 2],
    /// Rows below, columns right.
    pub after: [u16; 2],
}

/// x for x ≥ 0, else x · alpha.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PReluOp {
    /// Input tensor.
    pub input: TensorId,
    /// Output tensor of the same shape.
    pub output: TensorId,
    /// Offset in the constants of the slopes, i8.
    pub alpha: u32,
    /// Their shape, which broadcasts as in [`MultiplyOp`].
    pub alpha_shape: Shape,
    /// Right shift where x ≥ 0.
    pub shift_positive: i8,
    /// Right shift of the product where x < 0.
    pub shift_negative: i8,
}

/// Axes in another order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermuteOp {
    /// Input tensor.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Axis i of the output is axis `axes[i]` of the input; as many as there are dimensions, the rest 0.
    pub axes: [u8; 4],
}

/// Softmax over the last axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftmaxOp {
    /// Input tensor, integers or floats.
    pub input: TensorId,
    /// Output tensor, floats.
    pub output: TensorId,
    /// Length of the last axis.
    pub axis: u32,
}

/// A layer on the CPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CpuOp<'a> {
    /// Convolution or dense layer.
    Conv(ConvOp),
    /// Depthwise convolution: output channel o sees input channel o / m, with m outputs per input channel.
    #[cfg_attr(not(feature = "depthwise"), serde(deserialize_with = "layers::none"))]
    Depthwise(ConvOp),
    /// Transposed convolution: y\[oy, ox\] sums x\[iy, ix\] · w\[ky, kx\] where o + pad_before = i · stride + k · dilation
    /// along both axes.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    ConvTranspose(ConvOp),
    /// Pooling.
    Pool(PoolOp),
    /// Element-wise sum.
    Add(#[serde(borrow)] AddOp<'a>),
    /// Element-wise product.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    Multiply(MultiplyOp),
    /// Concatenation.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    Concat(#[serde(borrow)] ConcatOp<'a>),
    /// Nearest-neighbour upsampling.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    UpSample(UpSampleOp),
    /// clamp(x + 3·2^p, 0, 6·2^p) · 2731 for integers of position p in 0..=15, then right shift.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    HardSigmoid {
        /// Source.
        input: TensorId,
        /// Destination of the same shape.
        output: TensorId,
        /// Right shift: 14 + input position − output position.
        shift: i8,
    },
    /// Zero padding.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    Pad(PadOp),
    /// PReLU.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    PRelu(PReluOp),
    /// Transposition.
    #[cfg_attr(not(feature = "extra"), serde(deserialize_with = "layers::none"))]
    Permute(PermuteOp),
    /// Softmax in f32.
    Softmax(SoftmaxOp),
    /// The same bytes under another shape and name: no work, both tensors lie in one place.
    View {
        /// Source.
        input: TensorId,
        /// The other name.
        output: TensorId,
    },
    /// Integers to another position: right shift `shift`, half up.
    Requantize {
        /// Source.
        input: TensorId,
        /// Destination.
        output: TensorId,
        /// Right shift.
        shift: i8,
        /// Activation before the shift.
        act: Act,
    },
    /// Floats to integers of the output's position, half up.
    Quantize {
        /// Source, floats.
        input: TensorId,
        /// Destination.
        output: TensorId,
    },
    /// Integers to floats.
    Dequantize {
        /// Source.
        input: TensorId,
        /// Destination, floats.
        output: TensorId,
    },
    /// A step of a layer in floats.
    Float {
        /// What it computes.
        op: FloatOp,
        /// Whether it is the last one of its layer: only then is the output complete.
        last: bool,
    },
    /// A layer on integers with steps of any size.
    #[cfg_attr(not(feature = "floats"), serde(deserialize_with = "layers::none"))]
    Scaled(#[serde(borrow)] ScaledOp<'a>),
}

/// Which layers are built in: the features of this crate, as constants that let a compiler drop what is left out.
pub(crate) mod layers {
    pub(crate) const DEPTHWISE: bool = cfg!(feature = "depthwise");
    pub(crate) const EXTRA: bool = cfg!(feature = "extra");
    pub(crate) const FLOATS: bool = cfg!(feature = "floats");

    /// Whether the [`super::CpuOp`] with this tag is one that no record decodes to in this build.
    pub(crate) const fn left_out(tag: u8) -> bool {
        match tag {
            1 => !DEPTHWISE,
            2 | 5..=11 => !EXTRA,
            17 | 18 => !FLOATS,
            _ => false,
        }
    }

    /// Decodes nothing.
    #[cfg(not(all(feature = "depthwise", feature = "extra", feature = "floats")))]
    pub(super) fn none<'de, D: serde::Deserializer<'de>, T>(_: D) -> Result<T, D::Error> {
        Err(serde::de::Error::custom("left out"))
    }
}

impl CpuOp<'_> {
    /// The tensor it writes.
    pub fn output(&self) -> TensorId {
        match self {
            Self::Conv(op) | Self::Depthwise(op) | Self::ConvTranspose(op) => op.output,
            Self::Pool(op) => op.output,
            Self::Add(op) => op.output,
            Self::Multiply(op) => op.output,
            Self::Concat(op) => op.output,
            Self::UpSample(op) => op.output,
            Self::Pad(op) => op.output,
            Self::PRelu(op) => op.output,
            Self::Permute(op) => op.output,
            Self::Softmax(op) => op.output,
            Self::Float { op, .. } => op.output(),
            Self::Scaled(op) => op.output(),
            Self::View { output, .. }
            | Self::Requantize { output, .. }
            | Self::HardSigmoid { output, .. }
            | Self::Quantize { output, .. }
            | Self::Dequantize { output, .. } => *output,
        }
    }

    /// The feature of this crate that builds in such layers; `None` for those that are always there.
    pub const fn feature(&self) -> Option<&'static str> {
        match self {
            Self::Conv(_) | Self::Pool(_) | Self::Add(_) | Self::Softmax(_) => None,
            Self::View { .. } | Self::Requantize { .. } | Self::Quantize { .. } | Self::Dequantize { .. } => None,
            Self::Depthwise(_) => Some("depthwise"),
            Self::ConvTranspose(_) | Self::Multiply(_) | Self::Concat(_) | Self::UpSample(_) => Some("extra"),
            Self::HardSigmoid { .. } | Self::Pad(_) | Self::PRelu(_) | Self::Permute(_) => Some("extra"),
            Self::Float { .. } | Self::Scaled(_) => Some("floats"),
        }
    }

    /// Whether the output is complete after it.
    pub fn completes(&self) -> bool {
        !matches!(self, Self::Float { last: false, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_decodes_from_no_record() {
        for tag in 0..=18 {
            // Zeros decode to any record.
            let mut bytes = [0; 64];
            bytes[0] = tag;
            let op = postcard::from_bytes::<CpuOp<'_>>(&bytes).ok();
            assert_eq!(op.is_none(), layers::left_out(tag), "{tag}");
            let built_in = op.as_ref().is_none_or(|op| match op.feature() {
                None => true,
                Some("depthwise") => layers::DEPTHWISE && tag == 1,
                Some("extra") => layers::EXTRA,
                Some("floats") => layers::FLOATS && tag >= 17,
                Some(_) => false,
            });
            assert!(built_in, "{op:?}");
        }
        let left_out = (0..=u8::MAX).filter(|tag| layers::left_out(*tag)).count();
        let of = |built_in: bool, layers: usize| if built_in { 0 } else { layers };
        assert_eq!(left_out, of(layers::DEPTHWISE, 1) + of(layers::EXTRA, 8) + of(layers::FLOATS, 2));
    }
}
