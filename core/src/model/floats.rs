//! Records of layers in floats: what a strategy leaves float, and what has no integer form.
//!
//! A layer of the network becomes one step or several on the same output tensor; only the last one completes it.

use serde::{Deserialize, Serialize};

use super::ids::TensorId;
use crate::shape::Window;

/// A function of one f32. [`Function::apply`] defines it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Function {
    /// x.
    Identity,
    /// x ≥ max → max; threshold ≤ x < max → x; else slope · (x − threshold). With zeros and no bound: x > 0 → x, else 0.
    Relu {
        /// Upper bound; +∞ for none.
        max: f32,
        /// Slope below the threshold.
        slope: f32,
        /// Where the identity begins.
        threshold: f32,
    },
    /// x > 0 → x, else x · this.
    LeakyRelu(f32),
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// tanh(x).
    Tanh,
    /// x > 0 → x, else this · (exp(x) − 1).
    Elu(f32),
    /// Scaled elu.
    Selu,
    /// ln(1 + exp(x)); x beyond 30.
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    /// x / (1 + exp(−x)).
    Swish,
    /// x · Φ(x), exact form.
    Gelu,
    /// exp(x).
    Exponential,
    /// clamp(0.2 · x + 0.5, 0, 1): Keras 2's hard sigmoid.
    HardSigmoid,
    /// clamp(x + 3, 0, 6) / 6: Keras 3's hard sigmoid.
    HardSigmoid6,
    /// clamp(x + 3, 0, 6) · 2731 / 2^14: the DPU's hard sigmoid.
    DpuHardSigmoid,
    /// x · clamp(x + 3, 0, 6) / 6.
    HardSwish,
    /// x · tanh(ln(1 + exp(x))).
    Mish,
    /// x · this.
    Scale(f32),
    /// −x.
    Negative,
    /// |x|.
    Absolute,
    /// x².
    Square,
    /// √x.
    SquareRoot,
    /// 1 / √x.
    InverseRoot,
    /// 1 / x.
    Reciprocal,
    /// ln(x).
    Logarithm,
    /// −1, 0 or 1.
    Sign,
    /// Largest whole number that is not above x.
    Floor,
    /// Smallest whole number that is not below x.
    Ceiling,
    /// Nearest whole number, ties to even.
    Round,
    /// x · Φ(x) with tanh: 0.5 · x · (1 + tanh(√(2/π) · (x + 0.044715 · x³))).
    GeluTanh,
}

/// A function of two f32. [`Combine::apply`] defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Combine {
    /// a + b.
    Add,
    /// a − b.
    Subtract,
    /// a · b.
    Multiply,
    /// a / b.
    Divide,
    /// a > b → a, else b.
    Maximum,
    /// a < b → a, else b.
    Minimum,
    /// a^b.
    Power,
    /// (a − b)².
    SquaredDifference,
    /// a / b, or 0 where b is 0.
    DivideNoNan,
    /// PReLU: max(a, 0) + b · min(a, 0).
    Slope,
}

/// A convolution, dense layer (one tap), depthwise or transposed convolution in f32.
///
/// Each output is one chain of fused multiply-adds from +0 over (ky, kx, input channel); padding is skipped; then the
/// bias is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatConvOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor, written as `[h, w, c]` = `out_dims`.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// Output height, width, channels.
    pub out_dims: [u16; 3],
    /// Taps, strides, padding; transposed: the stride is between outputs, and the padding what is cropped of them. The
    /// chain of a transposed convolution runs over its taps from the last to the first.
    pub window: Window,
    /// Equal parts of input and output channels that see only each other: as many as input channels when depthwise.
    pub groups: u16,
    /// Whether it is transposed.
    pub transposed: bool,
    /// Offset in the constants of f32 `[kh][kw][ic / groups][oc]`.
    pub kernel: u32,
    /// Offset in the constants of f32 `[oc]`.
    pub bias: Option<u32>,
}

/// Pooling in f32; padding is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatPoolOp {
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
    pub kind: FloatPoolKind,
}

/// What pooling takes of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FloatPoolKind {
    /// The largest value.
    Max,
    /// The smallest value.
    Min,
    /// The sum, in the order of rows and columns.
    Sum,
    /// The sum divided by the number of values.
    Average,
}

/// Elements copied along strides: permutations, slices, crops, padding, concatenations, repetitions.
///
/// Element (i, j, k, l, m) of `sizes` goes from `from + Σ index · steps_in` to `to + Σ index · steps_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOp {
    /// Input tensor, floats.
    pub input: TensorId,
    /// Output tensor, floats.
    pub output: TensorId,
    /// Number of indices along each axis.
    pub sizes: [u32; 5],
    /// First element of the input.
    pub from: u32,
    /// Elements of the input from one index to the next.
    pub steps_in: [i32; 5],
    /// First element of the output.
    pub to: u32,
    /// Elements of the output from one index to the next.
    pub steps_out: [u32; 5],
    /// Bits of the f32 that fills the output before; `None` keeps what is there.
    pub fill: Option<u32>,
}

/// An image of another size: pixel centres lie at half-integers, all in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResizeOp {
    /// Input tensor, read as `[h, w, c]` = `in_dims`.
    pub input: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Input height, width, channels.
    pub in_dims: [u16; 3],
    /// Output height, width.
    pub out_dims: [u16; 2],
    /// The nearest pixel instead of the weighted mean of four.
    pub nearest: bool,
}

/// What is done to the values of a row. [`RowFunction::apply`] defines it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum RowFunction {
    /// exp(x − max) / Σ exp(x − max).
    Softmax,
    /// (x − max) − ln Σ exp(x − max).
    LogSoftmax,
    /// Mean 0 and variance 1: (x − mean) · (1 / √(variance + this)).
    Standardize(f32),
    /// Length 1: x · (1 / √max(Σ x², this)).
    Unit(f32),
    /// Mean square 1: x · (1 / √(Σ x² / n + this)).
    RootMeanSquare(f32),
    /// Variance 1: x · (1 / √(variance + this)).
    Deviation(f32),
}

/// A function of rows of values, which lie anywhere in a tensor; the output may lie in the input's place.
///
/// Row (i, j) has the elements (k, l) at `Σ index · steps`; it is read in that order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowsOp {
    /// Input tensor.
    pub input: TensorId,
    /// Output tensor of the same number of elements.
    pub output: TensorId,
    /// Number of indices i, j, k, l.
    pub sizes: [u32; 4],
    /// Elements from one index to the next.
    pub steps: [u32; 4],
    /// The function.
    pub function: RowFunction,
}

/// Products of matrices: element (i, j, k, l) of the output, which is written in that order, is
/// Σ a\[i, j, k, l, m\] · b\[i, j, k, l, m\] over m, in order from +0, each product rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProductOp {
    /// Left operand.
    pub a: TensorId,
    /// Right operand.
    pub b: TensorId,
    /// Output tensor.
    pub output: TensorId,
    /// Number of indices i, j, k, l, m.
    pub sizes: [u32; 5],
    /// Elements of the left operand from one index to the next.
    pub steps_a: [u32; 5],
    /// Elements of the right operand from one index to the next.
    pub steps_b: [u32; 5],
}

/// One step of a layer in floats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum FloatOp {
    /// A function of each element; the output may lie in the input's place.
    Map {
        /// Source.
        input: TensorId,
        /// Destination of the same number of elements.
        output: TensorId,
        /// The function.
        function: Function,
    },
    /// A function of two tensors that broadcast to the output as in numpy. The first may lie in the output's place, if it
    /// has its shape.
    Zip {
        /// Left operand.
        a: TensorId,
        /// Right operand.
        b: TensorId,
        /// Result.
        output: TensorId,
        /// The function.
        combine: Combine,
    },
    /// Convolution.
    Conv(FloatConvOp),
    /// Pooling.
    Pool(FloatPoolOp),
    /// Copies along strides.
    Copy(CopyOp),
    /// An image of another size.
    Resize(ResizeOp),
    /// A function of rows.
    Rows(RowsOp),
    /// Folds along axes, in the order of the input.
    Reduce {
        /// Source.
        input: TensorId,
        /// Destination; axes that are folded are 1 in its shape, or left out of it.
        output: TensorId,
        /// Bit i: axis i of the input's shape is folded, counted after leading ones have brought it to 4.
        axes: u8,
        /// What is taken of the values.
        kind: FloatPoolKind,
    },
    /// Products of matrices.
    Product(ProductOp),
}

impl FloatOp {
    /// The tensor it writes.
    pub fn output(&self) -> TensorId {
        match self {
            Self::Conv(op) => op.output,
            Self::Pool(op) => op.output,
            Self::Copy(op) => op.output,
            Self::Resize(op) => op.output,
            Self::Rows(op) => op.output,
            Self::Product(op) => op.output,
            Self::Map { output, .. } | Self::Zip { output, .. } | Self::Reduce { output, .. } => *output,
        }
    }
}
