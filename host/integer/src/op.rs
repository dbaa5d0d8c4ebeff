//! The table of integer ops: one row per kind.

use crate::graph::{ConvKind, IntAct, IntConv};
use crate::reasons::FloatWhy;
use crate::scaled::ScaledOp;
use shiftwise_core::shape::Window;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::ops::Op;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

/// What ops have in common that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Sums of products with a kernel: [`IntOpKind::conv`].
    Convolution,
    /// One value from each window of a map.
    Pooling,
    /// Each element of the result from the elements at its place; an operand of the result's size may be overwritten.
    ElementWise,
    /// Values that move, maybe shifted.
    Move,
    /// No work and no memory.
    View,
    /// Requantized by multipliers: [`IntOpKind::Scaled`].
    Scaled,
    /// Floats are read or made.
    Float,
}

/// Declares the kinds of ops, one row per kind: documentation, name and fields, then its name in tables and messages, and
/// its class. What else is known of a kind stands in a `match` that names all of them.
macro_rules! int_ops {
    (
        $(#[$meta:meta])*
        pub enum $name:ident;
        $(
            $(#[$doc:meta])*
            $kind:ident
            $(($($inner:ty),*))?
            $({ $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })?
            = $text:literal, $class:ident;
        )+
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub enum $name {
            $(
                $(#[$doc])*
                $kind $(($($inner),*))? $({ $($(#[$field_doc])* $field: $type,)* })?,
            )+
        }

        impl $name {
            /// A short name, for tables and messages.
            pub fn name(&self) -> &'static str {
                if let Self::Scaled(op) = self {
                    return op.name();
                }
                match self {
                    $(Self::$kind { .. } => $text,)+
                }
            }

            /// What it has in common with others.
            pub fn class(&self) -> Class {
                match self {
                    $(Self::$kind { .. } => Class::$class,)+
                }
            }
        }
    };
}

int_ops! {
    /// What an op computes. All shifts round half up and saturate to 8 bits, after the activation.
    pub enum IntOpKind;

    /// Convolution or dense layer.
    Conv(IntConv) = "conv", Convolution;
    /// Depthwise convolution with one output per channel.
    Depthwise(IntConv) = "depthwise", Convolution;
    /// Transposed convolution: out\[oy, ox, oc\] sums x\[iy, ix, ic\] · w\[ky, kx, ic, oc\] over all taps with
    /// oy + pad_before = iy·stride + ky·dilation, and the same along the width.
    ///
    /// `pad_before` and `pad_after` are what is cropped from the full (i − 1)·stride + extent outputs. The output's size
    /// is `IntConv::output`; where it is larger than the cropped one, an output has the taps that exist, maybe none.
    ConvTranspose(IntConv) = "conv_transpose", Convolution;
    /// Largest of each window; padding never wins; then right shift by `shift`.
    MaxPool {
        /// Geometry.
        window: Window,
        /// ipos − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    } = "max_pool", Pooling;
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
    } = "average_pool", Pooling;
    /// Operands shifted left by `shift_read[i]` = max(ipos) − ipos_i, summed, activated, right shift `shift_write`.
    Add {
        /// Left shift of each operand.
        shift_read: Vec<u32>,
        /// max(ipos) − opos.
        shift_write: i32,
        /// Activation.
        act: IntAct,
    } = "add", ElementWise;
    /// Product of two operands, right shift by `shift`. Shapes broadcast as in numpy: aligned at the last dimension, and
    /// dimensions of size 1 repeat.
    Multiply {
        /// ipos_0 + ipos_1 − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    } = "multiply", ElementWise;
    /// Operands behind each other along one axis of the sample's shape.
    Concat {
        /// Axis, counted from 0 without the batch.
        axis: usize,
        /// Right shift of each operand: ipos_i − opos.
        shifts: Vec<i32>,
    } = "concat", Move;
    /// Nearest-neighbour upsampling of `[h, w, c]`: each pixel `factor[0]` × `factor[1]` times.
    UpSample {
        /// Repetitions, vertical and horizontal.
        factor: [usize; 2],
        /// ipos − opos.
        shift: i32,
    } = "upsample", Move;
    /// The DPU's hard sigmoid: clamp(x + 3·2^ipos, 0, 6·2^ipos) · 2731, right shift by `shift`. The operand's position
    /// is 0..=15.
    HardSigmoid {
        /// 14 + ipos − opos.
        shift: i32,
    } = "hard_sigmoid", ElementWise;
    /// Zeros around the rows and columns of `[h, w, c]`.
    Pad {
        /// Rows above, columns left.
        before: [usize; 2],
        /// Rows below, columns right.
        after: [usize; 2],
    } = "pad", Move;
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
    } = "prelu", ElementWise;
    /// Axis i of the result is axis `dims[i]` of the operand.
    Permute {
        /// Axes, counted from 0 without the batch.
        dims: Vec<usize>,
    } = "permute", Move;
    /// The same integers under another shape: no work, no memory.
    View = "view", View;
    /// Right shift by `shift`.
    Requantize {
        /// ipos − opos.
        shift: i32,
        /// Activation.
        act: IntAct,
    } = "requantize", ElementWise;
    /// An op on integers with steps of any size.
    Scaled(Box<ScaledOp>) = "scaled", Scaled;
    /// Softmax over the last axis, integers or floats in, floats out; computed by [`shiftwise_core::cpu::softmax`].
    Softmax = "softmax", Float;
    /// A layer without an integer form, in floats: its activation attribute included, its quantizers not.
    Float {
        /// The layer.
        op: Box<Op>,
        /// Its weights, fake-quantized where the graph says so; the op's own are not looked at.
        weights: Vec<Tensor>,
        /// What it computes in.
        dtype: Dtype,
        /// Why it has no integer form.
        why: FloatWhy,
    } = "float", Float;
    /// Floats to floats on a grid that is not the integers of a DPU's tensor: other widths, signs and rounding, a position
    /// for each channel, a zero that isn't zero.
    FakeQuantize(Box<Quantizer>) = "fake quantize", Float;
    /// Floats to integers.
    Quantize = "quantize", Float;
    /// Integers to floats: a quantized tensor that is read as float.
    Dequantize = "dequantize", Float;
}

impl IntOpKind {
    /// The convolution, if it is one.
    pub fn conv(&self) -> Option<(&IntConv, ConvKind)> {
        match self {
            Self::Conv(c) => Some((c, ConvKind::Dense)),
            Self::Depthwise(c) => Some((c, ConvKind::Depthwise)),
            Self::ConvTranspose(c) => Some((c, ConvKind::Transposed)),
            Self::MaxPool { .. }
            | Self::AveragePool { .. }
            | Self::Add { .. }
            | Self::Multiply { .. }
            | Self::Concat { .. }
            | Self::UpSample { .. }
            | Self::HardSigmoid { .. }
            | Self::Pad { .. }
            | Self::PRelu { .. }
            | Self::Permute { .. }
            | Self::View
            | Self::Requantize { .. }
            | Self::Scaled(_)
            | Self::Softmax
            | Self::Float { .. }
            | Self::FakeQuantize(_)
            | Self::Quantize
            | Self::Dequantize => None,
        }
    }

    /// Multiply-accumulates as the user counts them.
    pub fn macs(&self) -> u64 {
        if let Self::Scaled(op) = self {
            return op.macs();
        }
        match self.conv() {
            Some((c, ConvKind::Dense | ConvKind::Depthwise)) => {
                let per_output = c.kernel.len() / c.output[2].max(1);
                (c.output.iter().product::<usize>() * per_output) as u64
            }
            // Every input meets every tap; what is cropped counts too.
            Some((c, ConvKind::Transposed)) => (c.input[0] * c.input[1] * c.kernel.len()) as u64,
            None => 0,
        }
    }

    /// Number of operands; `None` where only the layer in floats knows it.
    pub fn operands(&self) -> Option<usize> {
        match self {
            Self::Add { shift_read, .. } => Some(shift_read.len()),
            Self::Concat { shifts, .. } => Some(shifts.len()),
            Self::Multiply { .. } => Some(2),
            Self::Scaled(op) => Some(op.operands()),
            Self::Float { .. } => None,
            Self::Conv(_)
            | Self::Depthwise(_)
            | Self::ConvTranspose(_)
            | Self::MaxPool { .. }
            | Self::AveragePool { .. }
            | Self::UpSample { .. }
            | Self::HardSigmoid { .. }
            | Self::Pad { .. }
            | Self::PRelu { .. }
            | Self::Permute { .. }
            | Self::View
            | Self::Requantize { .. }
            | Self::Softmax
            | Self::FakeQuantize(_)
            | Self::Quantize
            | Self::Dequantize => Some(1),
        }
    }

    /// Shifts of accumulators and operands, but the left shifts of a sum's operands; none where values keep their steps.
    pub fn shifts(&self) -> Vec<i32> {
        match self {
            Self::Conv(c) | Self::Depthwise(c) | Self::ConvTranspose(c) => vec![c.shift_cut, c.shift_bias],
            Self::MaxPool { shift, .. }
            | Self::AveragePool { shift, .. }
            | Self::Multiply { shift, .. }
            | Self::UpSample { shift, .. }
            | Self::HardSigmoid { shift }
            | Self::Requantize { shift, .. } => vec![*shift],
            Self::Add { shift_write, .. } => vec![*shift_write],
            Self::Concat { shifts, .. } => shifts.clone(),
            Self::PRelu { shift_positive, shift_negative, .. } => vec![*shift_positive, *shift_negative],
            Self::Pad { .. }
            | Self::Permute { .. }
            | Self::View
            | Self::Scaled(_)
            | Self::Softmax
            | Self::Float { .. }
            | Self::FakeQuantize(_)
            | Self::Quantize
            | Self::Dequantize => Vec::new(),
        }
    }
}
