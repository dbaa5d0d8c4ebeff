//! Values of a graph's tensors, and how real numbers become integers in such files.

use shiftwise_core::arith::Round;
use shiftwise_core::fix::{self, FixPos, FixSpec};

use crate::{Attrs, Element, Tensor, XOp};
use shiftwise_integer::graph::Kind;
use shiftwise_tensor::values::Values;

/// A tensor's values with their type and shape, batch first.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The values.
    pub value: Values,
    /// Their type.
    pub kind: Kind,
    /// Dimensions.
    pub shape: Vec<usize>,
}

impl Held {
    /// Floats.
    pub fn float(shape: &[usize], values: Vec<f32>) -> Self {
        Self { value: Values::Float(values), kind: Kind::Float, shape: shape.to_vec() }
    }

    /// Integers of a position.
    pub fn fixed(shape: &[usize], pos: i8, values: Vec<i8>) -> Self {
        Self { value: Values::Int8(values), kind: Kind::Fixed(FixPos(pos)), shape: shape.to_vec() }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.value.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Real numbers.
    pub fn floats(&self) -> Vec<f32> {
        self.kind.reals(&self.value)
    }

    /// The integers, if it has any.
    pub fn integers(&self) -> Option<&[i8]> {
        match &self.value {
            Values::Int8(v) => Some(v),
            Values::Int16(_) | Values::Int32(_) | Values::Float(_) => None,
        }
    }
}

/// The rounding that attributes name, towards +∞ at ties without a name.
///
/// Errors: an unknown name.
pub fn rounding(attrs: &Attrs) -> Result<Round, String> {
    match attrs.text("round_mode") {
        None | Some("DPU_ROUND") => Ok(Round::HalfUp),
        Some("PY3_ROUND") => Ok(Round::HalfToEven),
        Some("STD_ROUND") => Ok(Round::HalfAwayFromZero),
        Some(other) => Err(format!("round_mode {other} is unknown")),
    }
}

/// What a quantizing operation's attributes say: position and rounding.
///
/// Errors: no position, another width than 8 bits, unsigned integers.
pub fn quantization(attrs: &Attrs) -> Result<(i8, Round), String> {
    let pos = attrs.int("fix_point").ok_or("it has no fix_point")?;
    let pos = i8::try_from(pos).map_err(|_| format!("fix_point {pos} is outside -128..=127"))?;
    match (attrs.int("bit_width").unwrap_or(8), attrs.int("if_signed").unwrap_or(1)) {
        (8, 1) => Ok((pos, rounding(attrs)?)),
        (bits, signed) => Err(format!("bit_width {bits}, if_signed {signed}; 8-bit signed integers are expected")),
    }
}

/// Floats as integers of a position.
pub fn quantize(x: &[f32], pos: i8, round: Round) -> Vec<i8> {
    x.iter().map(|x| fix::quantize(*x, FixSpec::int8(pos), round) as i8).collect()
}

/// The floats of a `const` operation.
///
/// Errors: another type or number of bytes than its shape asks for.
pub fn constant(op: &XOp) -> Result<Vec<f32>, String> {
    let data = op.attrs.bytes("data").unwrap_or_default();
    let (floats, rest) = data.as_chunks::<4>();
    if op.tensor.element != Element::Float || !rest.is_empty() || Some(floats.len()) != op.tensor.elements() {
        let (kind, shape) = (op.attrs.text("data_type").unwrap_or("?"), &op.tensor.shape);
        return Err(format!("{} bytes of type {kind} don't make a constant of shape {shape:?}", data.len()));
    }
    Ok(floats.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// What a tensor is declared to hold.
///
/// Errors: another type than f32 or signed 8-bit integers with a position.
pub fn declared(tensor: &Tensor) -> Result<Kind, String> {
    match (tensor.element, tensor.position()) {
        (Element::Float, _) => Ok(Kind::Float),
        (Element::Fixed, Some(pos)) => Ok(Kind::Fixed(FixPos(pos))),
        (Element::Fixed, None) => Err("its integers have no fix_point".into()),
        (Element::Other(kind, bits), _) => Err(format!("data type {kind} of {bits} bits is not supported")),
    }
}
