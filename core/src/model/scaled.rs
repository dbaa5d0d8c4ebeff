//! Records of layers on integers with steps of any size: each result is requantized by a multiplier.
//!
//! Tensors are those of `DType::Scaled`, or 8-bit integers of a position, whose zero point is 0. A requantization is
//! [`rescale`](crate::scale::rescale) by m / 2^n, then the result's zero point is added, then it is kept within `bounds`,
//! which an activation such as ReLU has narrowed.

use serde::{Deserialize, Serialize};

use super::ids::{TensorId, TensorList};
use crate::shape::Window;

/// Convolution, dense layer, depthwise (as many groups as input channels) or transposed convolution:
/// `bounds(rescale(Σ (x − zero) · w + bias))`; padding is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledConvOp {
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
    /// Equal parts of input and output channels that see only each other; 1 for transposed.
    pub groups: u16,
    /// Whether it is transposed.
    pub transposed: bool,
    /// Offset in the constants of the weights `[oc][kh][kw][ic / groups]`, their zero points taken off.
    pub kernel: u32,
    /// Whether a weight takes two bytes instead of one.
    pub wide: bool,
    /// Offset in the constants of `[oc]` records: bias in steps of the sum (i64), m (u32), n (u32).
    pub channels: u32,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// What pooling takes of its window; padding is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScaledPoolKind {
    /// The largest value, requantized by the only multiplier.
    Max,
    /// The sum, requantized by the only multiplier.
    Sum,
    /// The sum, requantized by the multiplier of the number of values less one: of a window that reaches into padding.
    Counted,
}

/// Pooling over windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledPoolOp {
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
    pub kind: ScaledPoolKind,
    /// Offset in the constants of the multipliers: m (u32), n (u32); of a counted average one for each tap.
    pub multipliers: u32,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// Element-wise sum of tensors of one shape: `bounds((Σ (x_i − zero_i) · m_i + 2^(n−1)) >> n)`. Of one operand it is a
/// requantization. An operand of the result's element size may lie in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledSumOp<'a> {
    /// Operands.
    #[serde(borrow)]
    pub inputs: TensorList<'a>,
    /// Output tensor.
    pub output: TensorId,
    /// Offset in the constants of the factors m_i (u32).
    pub factors: u32,
    /// Right shift of the sum, 1..=62.
    pub n: u8,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// Element-wise product of two tensors, which broadcast as in numpy: `bounds(rescale((a − zero_a) · (b − zero_b)))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledProductOp {
    /// Operands.
    pub inputs: [TensorId; 2],
    /// Output tensor.
    pub output: TensorId,
    /// The multiplier's m.
    pub m: u32,
    /// The multiplier's n.
    pub n: u8,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// Tensors behind each other along one axis, each requantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledConcatOp<'a> {
    /// Operands.
    #[serde(borrow)]
    pub inputs: TensorList<'a>,
    /// Output tensor.
    pub output: TensorId,
    /// Axis of the output's shape.
    pub axis: u8,
    /// Offset in the constants of a multiplier for each operand: m (u32), n (u32).
    pub multipliers: u32,
    /// Smallest and largest result.
    pub bounds: [i16; 2],
}

/// Integers copied along strides between tensors of one grid: permutations, padding, repetitions.
///
/// Element (i, j, k, l, m) of `sizes` goes from `Σ index · steps_in` to `to + Σ index · steps_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaledCopyOp {
    /// Input tensor.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Number of indices along each axis.
    pub sizes: [u32; 5],
    /// Elements of the input from one index to the next.
    pub steps_in: [u32; 5],
    /// First element of the output.
    pub to: u32,
    /// Elements of the output from one index to the next.
    pub steps_out: [u32; 5],
    /// Whether the output is filled with its zero point before.
    pub fill: bool,
}

/// A layer on integers with steps of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScaledOp<'a> {
    /// Convolution.
    Conv(ScaledConvOp),
    /// Pooling.
    Pool(ScaledPoolOp),
    /// Sum or requantization.
    Sum(#[serde(borrow)] ScaledSumOp<'a>),
    /// Product.
    Product(ScaledProductOp),
    /// Concatenation.
    Concat(#[serde(borrow)] ScaledConcatOp<'a>),
    /// Copies along strides.
    Copy(ScaledCopyOp),
}

impl ScaledOp<'_> {
    /// The tensor it writes.
    pub fn output(&self) -> TensorId {
        match self {
            Self::Conv(op) => op.output,
            Self::Pool(op) => op.output,
            Self::Sum(op) => op.output,
            Self::Product(op) => op.output,
            Self::Concat(op) => op.output,
            Self::Copy(op) => op.output,
        }
    }
}
