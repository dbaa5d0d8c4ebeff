//! Arrays of ONNX's element types, wherever their values must be exactly those of their type.
//!
//! A value of a float type is held as an `f64` that its type has, one of an integer type or a truth value as an `i64`
//! (of `uint64` the bits). Operations compute in the wide type and round once to the element's own.

use shiftwise_graph::budget::Budget;
use shiftwise_tensor::half;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::TensorProto;

/// What kind of number an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A float.
    Float,
    /// A whole number with a sign.
    Signed,
    /// A whole number without one.
    Unsigned,
    /// True or false.
    Bool,
}

/// Rows of the table: `Variant = code, "numpy's name", "numpy's code", bits, kind`.
macro_rules! elements {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $numpy:literal, $bits:literal, $kind:ident;)*) => {
        /// An element type of ONNX.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Element { $($(#[$doc])* $variant,)* }

        impl Element {
            /// All types.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// ONNX' number of the type.
            pub const fn code(self) -> i32 { match self { $(Self::$variant => $code,)* } }
            /// NumPy's name.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name,)* } }
            /// How NumPy writes the type into files.
            pub const fn numpy(self) -> &'static str { match self { $(Self::$variant => $numpy,)* } }
            /// Bits of a value.
            pub const fn bits(self) -> u32 { match self { $(Self::$variant => $bits,)* } }
            /// What kind of number it is.
            pub const fn kind(self) -> Kind { match self { $(Self::$variant => Kind::$kind,)* } }
        }
    };
}

elements! {
    /// IEEE binary32.
    Float = 1, "float32", "<f4", 32, Float;
    /// 8 bits without sign.
    Uint8 = 2, "uint8", "|u1", 8, Unsigned;
    /// 8 bits with sign.
    Int8 = 3, "int8", "|i1", 8, Signed;
    /// 16 bits without sign.
    Uint16 = 4, "uint16", "<u2", 16, Unsigned;
    /// 16 bits with sign.
    Int16 = 5, "int16", "<i2", 16, Signed;
    /// 32 bits with sign.
    Int32 = 6, "int32", "<i4", 32, Signed;
    /// 64 bits with sign.
    Int64 = 7, "int64", "<i8", 64, Signed;
    /// True or false.
    Bool = 9, "bool", "|b1", 8, Bool;
    /// IEEE binary16.
    Float16 = 10, "float16", "<f2", 16, Float;
    /// IEEE binary64.
    Double = 11, "float64", "<f8", 64, Float;
    /// 32 bits without sign.
    Uint32 = 12, "uint32", "<u4", 32, Unsigned;
    /// 64 bits without sign.
    Uint64 = 13, "uint64", "<u8", 64, Unsigned;
    /// The upper half of a binary32; NumPy has no such type and stores its values as binary32.
    BFloat16 = 16, "bfloat16", "<f4", 16, Float;
    /// 4 bits without sign, two in a byte; NumPy stores them in bytes.
    Uint4 = 21, "uint4", "|u1", 4, Unsigned;
    /// 4 bits with sign, two in a byte; NumPy stores them in bytes.
    Int4 = 22, "int4", "|i1", 4, Signed;
}

impl Element {
    /// The type of a number.
    ///
    /// Errors: a type that is not supported, as the rest of a sentence.
    pub fn of(code: i32) -> Result<Self, String> {
        const OTHERS: &[(i32, &str)] = &[
            (8, "text"),
            (14, "complex64"),
            (15, "complex128"),
            (17, "float8e4m3fn"),
            (18, "float8e4m3fnuz"),
            (19, "float8e5m2"),
            (20, "float8e5m2fnuz"),
            (23, "float4e2m1"),
            (24, "float8e8m0"),
            (25, "uint2"),
            (26, "int2"),
        ];
        let other = OTHERS.iter().find(|(own, _)| *own == code).map_or("unknown", |(_, name)| name);
        let found = Self::ALL.iter().copied().find(|element| element.code() == code);
        found.ok_or_else(|| format!("has elements of type {other} ({code}), which is not supported"))
    }

    /// The type of NumPy's code for it, such as `<f4`.
    pub fn of_numpy(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|element| element.numpy() == code)
    }

    /// Whether it is a float type.
    pub fn is_float(self) -> bool {
        self.kind() == Kind::Float
    }

    /// The nearest float of this type, ties to even; for types that are no floats the number itself.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::Float => f64::from(x as f32),
            // To odd first: two roundings to nearest may miss the nearest.
            Self::Float16 => f64::from(half::f16(odd(x))),
            Self::BFloat16 => f64::from(half::bf16(odd(x))),
            _ => x,
        }
    }

    /// A whole number as this type wraps it around.
    pub fn wrap(self, x: i128) -> i64 {
        let bits = self.bits();
        match self.kind() {
            Kind::Bool => i64::from(x != 0),
            Kind::Unsigned => (x as u64 & (u64::MAX >> (64 - bits))).cast_signed(),
            Kind::Signed => (x as i64) << (64 - bits) >> (64 - bits),
            Kind::Float => x as i64,
        }
    }

    /// A whole number brought into the type's range.
    pub fn saturate(self, x: i128) -> i64 {
        let (low, high) = self.range();
        self.wrap(x.clamp(low, high))
    }

    /// The smallest and the largest whole number of an integer type.
    pub fn range(self) -> (i128, i128) {
        let bits = self.bits();
        match self.kind() {
            Kind::Signed => (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1),
            Kind::Unsigned => (0, (1i128 << bits) - 1),
            Kind::Bool => (0, 1),
            Kind::Float => (i128::from(i64::MIN), i128::from(i64::MAX)),
        }
    }

    /// The number behind 64 bits that hold it.
    pub fn widen(self, bits: i64) -> i128 {
        if self == Self::Uint64 { i128::from(bits.cast_unsigned()) } else { i128::from(bits) }
    }
}

/// An f64 as an f32 whose last bit says whether anything was cut off, so that the next rounding is the only one.
fn odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || !near.is_finite() || x == 0.0 {
        return near;
    }
    let bits = near.to_bits();
    let toward_zero = if f64::from(near).abs() > x.abs() { bits - 1 } else { bits };
    f32::from_bits(toward_zero | 1)
}

/// Values of an array.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Of a float type.
    Real(Vec<f64>),
    /// Of an integer type, or truth values.
    Whole(Vec<i64>),
}

/// An array.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Type of its elements.
    pub element: Element,
    /// Its dimensions; without one it is a single value.
    pub shape: Vec<usize>,
    /// Its elements, row-major; as many as the shape says.
    pub data: Data,
}

impl Value {
    /// An array of floats, rounded to their type.
    pub fn real(element: Element, shape: Vec<usize>, mut data: Vec<f64>) -> Self {
        data.iter_mut().for_each(|x| *x = element.round(*x));
        Self { element, shape, data: Data::Real(data) }
    }

    /// An array of whole numbers that are in their type's range.
    pub fn whole(element: Element, shape: Vec<usize>, data: Vec<i64>) -> Self {
        Self { element, shape, data: Data::Whole(data) }
    }

    /// An array of `int64`.
    pub fn int64(shape: Vec<usize>, data: Vec<i64>) -> Self {
        Self::whole(Element::Int64, shape, data)
    }

    /// An array of truth values.
    pub fn bools(shape: Vec<usize>, data: impl IntoIterator<Item = bool>) -> Self {
        Self::whole(Element::Bool, shape, data.into_iter().map(i64::from).collect())
    }

    /// An array of `float32`.
    pub fn of_tensor(tensor: &Tensor) -> Self {
        let data = tensor.data().iter().map(|x| f64::from(*x)).collect();
        Self { element: Element::Float, shape: tensor.shape().to_vec(), data: Data::Real(data) }
    }

    /// The values as `float32`, whatever they are.
    pub fn tensor(&self) -> Option<Tensor> {
        Tensor::new(self.shape.clone(), self.numbers().into_iter().map(|x| x as f32).collect())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Real(data) => data.len(),
            Data::Whole(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as floats.
    pub fn numbers(&self) -> Vec<f64> {
        match &self.data {
            Data::Real(data) => data.clone(),
            Data::Whole(data) => data.iter().map(|x| self.element.widen(*x) as f64).collect(),
        }
    }

    /// The values as whole numbers; floats are cut off.
    pub fn integers(&self) -> Vec<i64> {
        match &self.data {
            Data::Real(data) => data.iter().map(|x| *x as i64).collect(),
            Data::Whole(data) => data.clone(),
        }
    }

    /// The same elements under another shape; the caller knows that they are as many.
    pub fn shaped(self, shape: Vec<usize>) -> Self {
        Self { shape, ..self }
    }

    /// The elements at these places.
    pub fn picked(&self, shape: Vec<usize>, places: impl IntoIterator<Item = usize>) -> Self {
        let data = match &self.data {
            Data::Real(data) => Data::Real(places.into_iter().map(|i| data[i]).collect()),
            Data::Whole(data) => Data::Whole(places.into_iter().map(|i| data[i]).collect()),
        };
        Self { element: self.element, shape, data }
    }

    /// The elements with those of another array of the same type behind them, in one dimension.
    pub fn behind(self, other: &Self) -> Self {
        let data = match (self.data, &other.data) {
            (Data::Real(mut all), Data::Real(more)) => {
                all.extend(more);
                Data::Real(all)
            }
            (Data::Whole(mut all), Data::Whole(more)) => {
                all.extend(more);
                Data::Whole(all)
            }
            (data, _) => data,
        };
        let len = match &data {
            Data::Real(data) => data.len(),
            Data::Whole(data) => data.len(),
        };
        Self { element: self.element, shape: vec![len], data }
    }

    /// The values of another type, as ONNX' `Cast` makes them.
    pub fn cast(&self, to: Element) -> Self {
        let shape = self.shape.clone();
        match (&self.data, to.kind()) {
            (Data::Real(data), Kind::Float) => Self::real(to, shape, data.clone()),
            (Data::Real(data), Kind::Bool) => Self::bools(shape, data.iter().map(|x| *x != 0.0)),
            // Towards zero; beyond the type's range ONNX leaves it open.
            (Data::Real(data), Kind::Signed | Kind::Unsigned) => {
                Self::whole(to, shape, data.iter().map(|x| to.wrap(*x as i128)).collect())
            }
            (Data::Whole(_), Kind::Float) => Self::real(to, shape, self.numbers()),
            (Data::Whole(data), Kind::Bool | Kind::Signed | Kind::Unsigned) => {
                Self::whole(to, shape, data.iter().map(|x| to.wrap(self.element.widen(*x))).collect())
            }
        }
    }

    /// The elements in little-endian bytes, as NumPy stores them.
    pub fn bytes(&self) -> Vec<u8> {
        let size = (self.element.bits() / 8).max(1) as usize;
        match (&self.data, self.element) {
            (Data::Real(data), Element::Double) => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
            (Data::Real(data), Element::Float16) => data.iter().flat_map(|x| half_bits(*x).to_le_bytes()).collect(),
            (Data::Real(data), _) => data.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            (Data::Whole(data), _) => data.iter().flat_map(|x| x.to_le_bytes().into_iter().take(size)).collect(),
        }
    }

    /// The array of little-endian bytes, in which each element has its own; `None` if they are not as many as the shape
    /// says.
    pub fn of_bytes(element: Element, shape: Vec<usize>, bytes: &[u8]) -> Option<Self> {
        let count = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        let size = (element.bits() / 8).max(1) as usize;
        (bytes.len() == count.checked_mul(size)?).then_some(())?;
        let cells = bytes.chunks_exact(size).map(|cell| {
            let mut wide = [0u8; 8];
            wide[..size].copy_from_slice(cell);
            u64::from_le_bytes(wide)
        });
        let data = match element {
            Element::Float => Data::Real(cells.map(|b| f64::from(f32::from_bits(b as u32))).collect()),
            Element::Double => Data::Real(cells.map(f64::from_bits).collect()),
            Element::Float16 => Data::Real(cells.map(|b| half_value(b as u16)).collect()),
            Element::BFloat16 => Data::Real(cells.map(|b| f64::from(f32::from_bits((b as u32) << 16))).collect()),
            _ => Data::Whole(cells.map(|b| element.wrap(i128::from(b))).collect()),
        };
        Some(Self { element, shape, data })
    }
}

/// The bits of the IEEE half that a number is; the number is one.
pub(crate) fn half_bits(x: f64) -> u16 {
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let size = x.abs();
    let bits = if x.is_nan() {
        0x7e00
    } else if size.is_infinite() {
        0x7c00
    } else if size < 2f64.powi(-14) {
        (size * 2f64.powi(24)) as u16
    } else {
        let exponent = ((size.to_bits() >> 52) as i32) - 1023;
        let fraction = (size * 2f64.powi(10 - exponent)) as u16 - 1024;
        (((exponent + 15) as u16) << 10) + fraction
    };
    sign | bits
}

/// The value of an IEEE half.
pub(crate) fn half_value(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// The dimensions of a stored array.
///
/// Errors: the rest of a sentence about the array.
pub(crate) fn dims(tensor: &TensorProto) -> Result<Vec<usize>, String> {
    let dim = |d: &i64| usize::try_from(*d).map_err(|_| format!("has dimensions {:?}", tensor.dims));
    tensor.dims.iter().map(dim).collect()
}

/// A stored array; `raw` are its bytes where they stand elsewhere.
///
/// Errors: the rest of a sentence about the array.
pub(crate) fn decode(tensor: &TensorProto, raw: Option<&[u8]>, budget: &Budget) -> Result<Value, String> {
    let element = Element::of(tensor.data_type)?;
    let shape = dims(tensor)?;
    let count = budget.elements(&shape, 8)?;
    let wrong = || format!("has dimensions {shape:?} and other data");
    if let Some(raw) = raw.or(tensor.raw_data.as_deref()) {
        return if element.bits() == 4 {
            let cells: Vec<u8> = raw.iter().flat_map(|b| [b & 15, b >> 4]).take(count).collect();
            Value::of_bytes(element, shape.clone(), &cells).ok_or_else(wrong)
        } else {
            Value::of_bytes(element, shape.clone(), raw).ok_or_else(wrong)
        };
    }
    let whole =
        |data: Vec<i128>| Value::whole(element, shape.clone(), data.into_iter().map(|x| element.wrap(x)).collect());
    let value = match element {
        Element::Float => {
            Value::real(element, shape.clone(), tensor.float_data.iter().map(|x| f64::from(*x)).collect())
        }
        Element::Double => Value::real(element, shape.clone(), tensor.double_data.clone()),
        Element::Float16 => {
            let bits = tensor.int32_data.iter().map(|b| half_value(*b as u16));
            Value::real(element, shape.clone(), bits.collect())
        }
        Element::BFloat16 => {
            let bits = tensor.int32_data.iter().map(|b| f64::from(f32::from_bits((*b as u32) << 16)));
            Value::real(element, shape.clone(), bits.collect())
        }
        Element::Int64 => whole(tensor.int64_data.iter().map(|x| i128::from(*x)).collect()),
        Element::Uint32 | Element::Uint64 => whole(tensor.uint64_data.iter().map(|x| i128::from(*x)).collect()),
        Element::Uint4 | Element::Int4 => {
            whole(tensor.int32_data.iter().flat_map(|b| [b & 15, b >> 4 & 15]).take(count).map(i128::from).collect())
        }
        Element::Uint8 | Element::Int8 | Element::Uint16 | Element::Int16 | Element::Int32 | Element::Bool => {
            whole(tensor.int32_data.iter().map(|x| i128::from(*x)).collect())
        }
    };
    if value.len() == count { Ok(value) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for element in Element::ALL {
            let value = match element.kind() {
                Kind::Float => Value::real(*element, vec![2, 2], vec![0.5, -1.25, 65504.0, 0.0]),
                Kind::Bool => Value::bools(vec![4], [true, false, true, true]),
                Kind::Signed => Value::whole(*element, vec![4], vec![-8, 7, 0, -1]),
                Kind::Unsigned => Value::whole(*element, vec![4], vec![15, 7, 0, 1]),
            };
            if matches!(element, Element::BFloat16) {
                continue; // NumPy has no such type.
            }
            assert_eq!(Value::of_bytes(*element, value.shape.clone(), &value.bytes()), Some(value), "{element:?}");
        }
        assert_eq!(Value::of_bytes(Element::Float, vec![2], &[0; 7]), None);
    }

    #[test]
    fn halves_are_the_nearest_ones() {
        for bits in 0..=u16::MAX {
            let value = half_value(bits);
            if !value.is_nan() {
                assert_eq!(half_bits(value), bits);
                assert_eq!(Element::Float16.round(value).to_bits(), value.to_bits());
            }
        }
        // Just above the middle between two halves: by way of f32 it would be the even one below.
        assert_eq!(Element::Float16.round(1.0 + 2f64.powi(-11) + 2f64.powi(-40)), 1.0 + 2f64.powi(-10));
    }

    #[test]
    fn whole_numbers_wrap_around() {
        assert_eq!((Element::Int8.wrap(200), Element::Uint8.wrap(-1), Element::Int4.wrap(9)), (-56, 255, -7));
        assert_eq!(Element::Uint64.widen(Element::Uint64.wrap(-1)), i128::from(u64::MAX));
        assert_eq!((Element::Int8.saturate(200), Element::Uint8.saturate(-1)), (127, 0));
    }
}
