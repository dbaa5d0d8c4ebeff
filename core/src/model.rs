//! The deployable: one file that holds a compiled network.
//!
//! A fixed header, a postcard record of facts, tables of tensors and steps, then raw sections for constants and DPU
//! code, and a CRC-32 over all of it. `FORMAT.md` beside this crate has the byte tables. [`Deployable::parse`] checks
//! everything once and borrows from the bytes; afterwards no accessor fails or panics. Records stay encoded and are
//! decoded one at a time, so a reader needs no memory beyond the file itself.

mod apart;
mod check;
#[cfg(feature = "floats")]
mod check_floats;
#[cfg(feature = "floats")]
mod check_scaled;
mod deployable;
#[cfg(feature = "floats")]
mod floats;
#[cfg(all(test, feature = "depthwise", feature = "extra", feature = "floats"))]
mod format_page;
mod ids;
#[cfg(not(feature = "floats"))]
mod no_floats;
mod ops;
mod parse;
mod parse_error;
mod records;
mod rows;
mod scaled;

pub(crate) use apart::apart;
pub use deployable::{
    CODE_ALIGN, CONST_ALIGN, Deployable, FORMAT_VERSION, HEADER_BYTES, MAGIC, PLAIN_VERSION, SECTIONS, Section, crc32,
    crc32_of,
};
#[cfg(feature = "floats")]
pub use floats::{
    Combine, CopyOp, FloatConvOp, FloatOp, FloatPoolKind, FloatPoolOp, Function, ProductOp, ResizeOp, RowFunction,
    RowsOp,
};
pub use ids::{Place, Region, TensorId, TensorList};
#[cfg(not(feature = "floats"))]
pub use no_floats::FloatOp;
pub(crate) use ops::layers;
pub use ops::{
    Act, AddOp, ConcatOp, ConvOp, CpuOp, MAX_OPERANDS, MultiplyOp, PReluOp, PadOp, PermuteOp, PoolKind, PoolOp,
    SoftmaxOp, UpSampleOp,
};
pub use parse_error::ParseError;
pub use records::{DType, DpuJob, Facts, LayerSpan, Role, Step, TensorDesc};
pub(crate) use rows::Band;
pub use rows::Rows;
pub use scaled::{
    ScaledConcatOp, ScaledConvOp, ScaledCopyOp, ScaledOp, ScaledPoolKind, ScaledPoolOp, ScaledProductOp, ScaledSumOp,
};
