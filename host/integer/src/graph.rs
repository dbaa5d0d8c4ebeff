//! The integer form of a quantized network: what a DPU, a microcontroller and the integer evaluation all compute.
//!
//! Lowering fuses each run of layers that shares one quantizer (convolution and its ReLU, Add and its ReLU) into one
//! [`IntOp`] with shifts instead of scales. Evaluation, both compilers and the report of what stays float read this
//! form; none of them looks at float weights again. The numbers are exact: see [`shiftwise_core::arith`].

use crate::reasons::FloatWhy;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_graph::ops::Op;
use shiftwise_quant::quant_graph::Quantizer;
use shiftwise_tensor::tensor::Tensor;

mod verify;

/// Index of a tensor in [`IntGraph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorIx(pub usize);

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signed 8-bit integers with a position.
    Fixed(FixPos),
    /// f32.
    Float,
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

/// What an op computes. All shifts round half up and saturate to 8 bits, after the activation.
#[derive(Clone, Debug)]
pub enum IntOpKind {
    /// Convolution or dense layer.
    Conv(IntConv),
    /// Depthwise convolution with one output per channel.
    Depthwise(IntConv),
    /// Transposed convolution: out\[oy, ox, oc\] sums x\[iy, ix, ic\] · w\[ky, kx, ic, oc\] over all taps with
    /// oy + pad_before = iy·stride + ky·dilation, and the same along the width.
    ///
    /// `pad_before` and `pad_after` are what is cropped from the full (i − 1)·stride + extent outputs. The output's size
    /// is `IntConv::output`; where it is larger than the cropped one, an output has the taps that exist, maybe none.
    ConvTranspose(IntConv),
    /// Largest of each window; padding never wins; then right shift by `shift`.
    MaxPool {
        /// Geometry.
        window: Window,
        /// ipos − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    },
    /// Sum of each window (padding is zero) times `m`, then right shift by `shift`.
    AveragePool {
        /// Geometry.
        window: Window,
        /// Factor.
        m: u16,
        /// n + ipos − opos, where m / 2^n replaces the division.
        shift: i32,
        /// Activation.
        act: IntAct,
    },
    /// Operands shifted left by `shift_read[i]` = max(ipos) − ipos_i, summed, activated, right shift `shift_write`.
    Add {
        /// Left shift of each operand.
        shift_read: Vec<u32>,
        /// max(ipos) − opos.
        shift_write: i32,
        /// Activation.
        act: IntAct,
    },
    /// Product of two operands, right shift by `shift`. Shapes broadcast as in numpy: aligned at the last dimension, and
    /// dimensions of size 1 repeat.
    Multiply {
        /// ipos_0 + ipos_1 − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    },
    /// Operands behind each other along one axis of the sample's shape.
    Concat {
        /// Axis, counted from 0 without the batch.
        axis: usize,
        /// Right shift of each operand: ipos_i − opos.
        shifts: Vec<i32>,
    },
    /// Nearest-neighbour upsampling of `[h, w, c]`: each pixel `factor[0]` × `factor[1]` times.
    UpSample {
        /// Repetitions, vertical and horizontal.
        factor: [usize; 2],
        /// ipos − opos.
        shift: i32,
    },
    /// The DPU's hard sigmoid: clamp(x + 3·2^ipos, 0, 6·2^ipos) · 2731, right shift by `shift`. The operand's position
    /// is 0..=15.
    HardSigmoid {
        /// 14 + ipos − opos.
        shift: i32,
    },
    /// Zeros around the rows and columns of `[h, w, c]`.
    Pad {
        /// Rows above, columns left.
        before: [usize; 2],
        /// Rows below, columns right.
        after: [usize; 2],
    },
    /// x for x ≥ 0, else x · alpha; one shift for each case.
    PRelu {
        /// Integers of the slopes.
        alpha: Vec<i8>,
        /// Their shape; broadcasts against the sample's shape as in numpy.
        alpha_shape: Vec<usize>,
        /// ipos − opos.
        shift_positive: i32,
        /// ipos + apos − opos.
        shift_negative: i32,
    },
    /// Axis i of the result is axis `dims[i]` of the operand.
    Permute {
        /// Axes, counted from 0 without the batch.
        dims: Vec<usize>,
    },
    /// The same integers under another shape: no work, no memory.
    View,
    /// Right shift by `shift`.
    Requantize {
        /// ipos − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    },
    /// Softmax over the last axis, integers or floats in, floats out; computed by [`shiftwise_core::cpu::softmax`].
    Softmax,
    /// A layer without an integer form, in floats: its activation attribute included, its quantizers not.
    Float {
        /// The layer.
        op: Box<Op>,
        /// Its weights, fake-quantized where the graph says so; the op's own are not looked at.
        weights: Vec<Tensor>,
        /// Why it has no integer form.
        why: FloatWhy,
    },
    /// Floats to floats on a grid that is not the integers of a DPU's tensor: other widths, signs and rounding, a position
    /// for each channel, a zero that isn't zero.
    FakeQuantize(Box<Quantizer>),
    /// Floats to integers.
    Quantize,
    /// Integers to floats: a quantized tensor that is read as float.
    Dequantize,
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

impl IntOpKind {
    /// The convolution, if it is one.
    pub fn conv(&self) -> Option<(&IntConv, ConvKind)> {
        match self {
            Self::Conv(c) => Some((c, ConvKind::Dense)),
            Self::Depthwise(c) => Some((c, ConvKind::Depthwise)),
            Self::ConvTranspose(c) => Some((c, ConvKind::Transposed)),
            _ => None,
        }
    }
}

impl IntOp {
    /// Multiply-accumulates as the user counts them.
    pub fn macs(&self) -> u64 {
        match &self.kind {
            IntOpKind::Conv(c) | IntOpKind::Depthwise(c) => {
                let per_output = c.kernel.len() / c.output[2].max(1);
                (c.output.iter().product::<usize>() * per_output) as u64
            }
            // Every input meets every tap; what is cropped counts too.
            IntOpKind::ConvTranspose(c) => (c.input[0] * c.input[1] * c.kernel.len()) as u64,
            _ => 0,
        }
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
