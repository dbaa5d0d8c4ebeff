//! Tensors and numbers of an op in the widths that a deployable gives them.

use shiftwise_core::fix::FixPos;
use shiftwise_core::model::TensorId;

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, Kind, TensorIx};

pub(crate) fn refuse(layer: &str, text: String) -> Error {
    Error::Compile(format!("layer `{layer}`: {text}"))
}

/// A tensor's shape.
pub(crate) fn shape(graph: &IntGraph, t: TensorIx) -> &[usize] {
    graph.tensors.get(t.0).map_or(&[], |t| &t.shape)
}

/// Fraction bits of an integer tensor; 0 for floats.
pub(crate) fn position(graph: &IntGraph, t: TensorIx) -> FixPos {
    match graph.tensors.get(t.0).map(|t| t.kind) {
        Some(Kind::Fixed(pos)) => pos,
        _ => FixPos(0),
    }
}

pub(crate) fn id(t: TensorIx) -> Result<TensorId, Error> {
    u16::try_from(t.0).map(TensorId).map_err(|_| Error::Compile("more than 65535 tensors".into()))
}

pub(crate) fn dims(layer: &str, d: [usize; 3]) -> Result<[u16; 3], Error> {
    let [h, w, c] = d;
    Ok([narrow(layer, "height", h)?, narrow(layer, "width", w)?, narrow(layer, "number of channels", c)?])
}

/// A right shift. Kernels shift 32 bits, left or right.
pub(crate) fn shift_i8(layer: &str, shift: i32) -> Result<i8, Error> {
    if (-31..=31).contains(&shift) {
        return Ok(shift as i8);
    }
    Err(refuse(
        layer,
        format!("a shift by {shift} is outside -31..=31; let the quantizer adjust positions to the target"),
    ))
}

/// Whether dimensions of size 1, aligned at the last, make `shape` into `out`.
pub(crate) fn broadcasts(shape: &[usize], out: &[usize]) -> bool {
    shape.len() <= out.len() && shape.iter().rev().zip(out.iter().rev()).all(|(own, out)| own == out || *own == 1)
}

/// A number in the width that the deployable gives it.
pub(crate) fn narrow<T, U>(layer: &str, what: &str, value: T) -> Result<U, Error>
where
    U: TryFrom<T>,
    T: Copy + std::fmt::Display,
{
    U::try_from(value)
        .map_err(|_| Error::Compile(format!("layer `{layer}`: {what} {value} is too large for a deployable")))
}
