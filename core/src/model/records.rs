//! Records of a deployable: facts, tensors, steps, origins of instructions.

use serde::{Deserialize, Serialize};

use super::ids::{Place, TensorId, TensorList};
use super::ops::CpuOp;
use crate::arith::Round;
use crate::fix::{FixPos, FixSpec, dequantize, quantize};
use crate::scale::Scale;
use crate::shape::Shape;

/// What the deployable is and what it needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts<'a> {
    /// The network's name.
    pub name: &'a str,
    /// Target it was compiled for: a DPU's name, or `cpu`.
    pub target: &'a str,
    /// Tool and version that wrote it.
    pub tool: &'a str,
    /// Bytes of the workspace region.
    pub workspace_bytes: u32,
    /// Bytes of the input region.
    pub input_bytes: u32,
    /// Bytes of the output region.
    pub output_bytes: u32,
    /// Samples in the self-test section.
    pub self_test_samples: u16,
}

/// Element type of a tensor in memory, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum DType {
    /// Signed 8-bit integers with a fix position.
    I8,
    /// 32-bit floats; the position is meaningless.
    F32,
    /// Signed integers of one or two bytes with a step of any size; the position is meaningless.
    Scaled(Scale),
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u32 {
        match self {
            Self::I8 => 1,
            Self::F32 => 4,
            Self::Scaled(scale) => scale.bytes(),
        }
    }
}

/// What a tensor is to the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Role {
    /// The network's n-th input.
    Input(u8),
    /// The network's n-th output.
    Output(u8),
    /// Between layers.
    Inner,
}

/// One tensor of one sample: dense, row-major, channels last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorDesc<'a> {
    /// Name in the golden dump, such as `quant_conv1_relu`.
    pub name: &'a str,
    /// The user's layer it came from.
    pub origin: &'a str,
    /// `[h, w, c]` or `[c]`, without the batch.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
    /// Fraction bits of an integer tensor.
    pub pos: FixPos,
    /// Where it lies while it is alive; planned memory is reused after its last reader.
    pub place: Place,
    /// Input, output or inner.
    pub role: Role,
}

/// [`TensorDesc`] with its names as they lie in the file: to see that they are text takes a third of the decoding.
#[derive(Deserialize)]
pub(super) struct Unnamed<'a> {
    _name: &'a [u8],
    _origin: &'a [u8],
    pub(super) shape: Shape,
    pub(super) dtype: DType,
    pub(super) pos: FixPos,
    pub(super) place: Place,
    pub(super) role: Role,
}

impl TensorDesc<'_> {
    /// What its integers stand for; `None` if it holds floats.
    pub fn scale(&self) -> Option<Scale> {
        match self.dtype {
            DType::I8 => Some(Scale::of_position(self.pos)),
            DType::F32 => None,
            DType::Scaled(scale) => Some(scale),
        }
    }

    /// A value as the element's bytes, of which the first [`DType::bytes`] count: rounded half up, then saturated.
    pub fn element(&self, x: f32) -> [u8; 4] {
        match self.dtype {
            DType::I8 => [quantize(x, FixSpec::int8(self.pos.0), Round::HalfUp) as u8, 0, 0, 0],
            DType::F32 => x.to_le_bytes(),
            DType::Scaled(scale) => i32::from(scale.quantize(x)).to_le_bytes(),
        }
    }

    /// The value of an element's bytes; 0 for another number of bytes than [`DType::bytes`].
    pub fn value(&self, element: &[u8]) -> f32 {
        match (self.dtype, element) {
            (DType::I8, [q]) => dequantize((*q as i8).into(), self.pos),
            (DType::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
            (DType::Scaled(scale), [q]) => scale.dequantize((*q as i8).into()),
            (DType::Scaled(scale), [a, b]) => scale.dequantize(i16::from_le_bytes([*a, *b])),
            _ => 0.0,
        }
    }

    /// Bytes in memory; checked when the deployable is parsed.
    pub fn bytes(&self) -> u32 {
        self.shape.elements().unwrap_or(0).saturating_mul(self.dtype.bytes())
    }
}

/// One entry of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step<'a> {
    /// Instructions for the DPU.
    Dpu(#[serde(borrow)] DpuJob<'a>),
    /// A layer computed by the CPU.
    Cpu(#[serde(borrow)] CpuOp<'a>),
}

/// A run of DPU instructions up to END.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DpuJob<'a> {
    /// Name of the subgraph.
    pub name: &'a str,
    /// Byte offset in the code section, a multiple of [`CODE_ALIGN`](super::CODE_ALIGN).
    pub offset: u32,
    /// Bytes of code, a multiple of 4.
    pub bytes: u32,
    /// Tensors in memory that are complete when it ends, in the order of their layers.
    pub outputs: TensorList<'a>,
}

/// Which instructions of a DPU job came from which layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerSpan<'a> {
    /// The user's layer.
    pub layer: &'a str,
    /// Step that holds the instructions.
    pub step: u16,
    /// First instruction, counted from the start of the job.
    pub first: u32,
    /// Number of instructions.
    pub count: u32,
    /// Multiply-accumulates of the layer as the user counts them, without the hardware's padding.
    pub macs: u64,
    /// The tensor that the layer completes.
    pub output: TensorId,
}
