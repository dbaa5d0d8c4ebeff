//! Constants and variables of graphs, from their bytes.

use std::sync::Arc;

use crate::constants::Constant;
use crate::proto::{TensorProto, TensorShape};
use shiftwise_graph::budget::Budget;
use shiftwise_tensor::half::{bf16_value, f16_value};
use shiftwise_tensor::tensor::Tensor;

/// How numbers of a type stand in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Float,
    Double,
    Half,
    BFloat,
    /// So many bytes, with a sign or not.
    Whole(usize, bool),
}

/// Types by TensorFlow's numbers for them.
const ELEMENTS: &[(i32, Element)] = &[
    (1, Element::Float),
    (2, Element::Double),
    (3, Element::Whole(4, true)),
    (4, Element::Whole(1, false)),
    (5, Element::Whole(2, true)),
    (6, Element::Whole(1, true)),
    (9, Element::Whole(8, true)),
    (10, Element::Whole(1, false)),
    (14, Element::BFloat),
    (17, Element::Whole(2, false)),
    (19, Element::Half),
    (22, Element::Whole(4, false)),
    (23, Element::Whole(8, false)),
];

impl Element {
    fn of(number: i32) -> Option<Self> {
        ELEMENTS.iter().find(|(own, _)| *own == number).map(|(_, element)| *element)
    }

    fn size(self) -> usize {
        match self {
            Self::Float => 4,
            Self::Double => 8,
            Self::Half | Self::BFloat => 2,
            Self::Whole(size, _) => size,
        }
    }
}

/// Whether a type is one that networks compute with.
pub(crate) fn is_number(element: i32) -> bool {
    Element::of(element).is_some()
}

/// The sizes of a shape, all known.
fn sizes(shape: &TensorShape) -> Result<Vec<usize>, String> {
    let size = |d: i64| usize::try_from(d).map_err(|_| format!("a constant has a size of {d}"));
    shape.sizes().into_iter().map(size).collect()
}

/// Numbers of a type and shape; `None` for types that networks don't compute with.
///
/// Errors: another number of bytes than the shape has elements, more than the budget.
pub(crate) fn of_bytes(
    element: i32,
    shape: &TensorShape,
    bytes: &[u8],
    budget: &Budget,
) -> Result<Option<Constant>, String> {
    let Some(element) = Element::of(element) else { return Ok(None) };
    let shape = sizes(shape)?;
    let count = budget.elements(&shape, 8).map_err(|e| e.to_string())?;
    if count.checked_mul(element.size()) != Some(bytes.len()) {
        return Err(format!("a constant of shape {shape:?} has {} bytes", bytes.len()));
    }
    let bits =
        bytes.chunks_exact(element.size()).map(|b| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte)));
    Ok(Some(match element {
        Element::Float => floats(shape, bits.map(|b| f32::from_bits(b as u32)).collect())?,
        Element::Double => floats(shape, bits.map(|b| f64::from_bits(b) as f32).collect())?,
        Element::Half => floats(shape, bits.map(|b| f16_value(b as u16)).collect())?,
        Element::BFloat => floats(shape, bits.map(|b| bf16_value(b as u16)).collect())?,
        Element::Whole(size, signed) => {
            let unused = 64 - 8 * size as u32;
            let number = |b: u64| if signed { (b << unused).cast_signed() >> unused } else { b.cast_signed() };
            Constant::Integers(shape, Arc::new(bits.map(number).collect()))
        }
    }))
}

fn floats(shape: Vec<usize>, data: Vec<f32>) -> Result<Constant, String> {
    Tensor::new(shape, data).map(Constant::Floats).ok_or_else(|| "a constant has another size than its shape".into())
}

/// A constant of a graph; `None` for types that networks don't compute with. Where the last numbers are equal, a file may
/// leave all but the first of them out.
pub(crate) fn of_proto(proto: &TensorProto, budget: &Budget) -> Result<Option<Constant>, String> {
    let shape = proto.shape.clone().unwrap_or_default();
    let Some(element) = Element::of(proto.element) else { return Ok(None) };
    if !proto.content.is_empty() {
        return of_bytes(proto.element, &shape, &proto.content, budget);
    }
    let shape = sizes(&shape)?;
    let count = budget.elements(&shape, 8).map_err(|e| e.to_string())?;
    let filled = |values: Vec<f32>| {
        let last = values.last().copied().unwrap_or(0.0);
        floats(shape.clone(), values.into_iter().chain(std::iter::repeat(last)).take(count).collect())
    };
    let half = |value: fn(u16) -> f32| proto.halves.iter().map(|h| value((*h & 0xffff) as u16)).collect();
    Ok(Some(match element {
        Element::Float => filled(proto.floats.clone())?,
        Element::Double => filled(proto.doubles.iter().map(|d| *d as f32).collect())?,
        Element::Half => filled(half(f16_value))?,
        Element::BFloat => filled(half(bf16_value))?,
        Element::Whole(..) => {
            let ints = proto.ints.iter().map(|v| i64::from(*v));
            let all = ints.chain(proto.longs.iter().copied()).chain(proto.flags.iter().map(|f| i64::from(*f)));
            let all: Vec<i64> = all.collect();
            let last = all.last().copied().unwrap_or(0);
            let all = all.into_iter().chain(std::iter::repeat(last)).take(count).collect();
            Constant::Integers(shape.clone(), Arc::new(all))
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Dimension;

    fn shape(sizes: &[i64]) -> TensorShape {
        let dimensions = sizes.iter().map(|size| Dimension { size: *size }).collect();
        TensorShape { dimensions, unknown_rank: false }
    }

    #[test]
    fn the_last_number_of_a_constant_stands_for_the_rest() {
        let budget = Budget::for_file(100);
        let proto =
            TensorProto { element: 1, shape: Some(shape(&[2, 2])), floats: vec![1.0, 2.0], ..Default::default() };
        let expected = Tensor::new(vec![2, 2], vec![1.0, 2.0, 2.0, 2.0]).map(Constant::Floats);
        assert_eq!(of_proto(&proto, &budget).unwrap(), expected);
        let huge = TensorProto { shape: Some(shape(&[1 << 40, 1 << 40])), ..proto.clone() };
        assert!(of_proto(&huge, &budget).is_err());
        let negative = TensorProto { shape: Some(shape(&[-1])), ..proto };
        assert!(of_proto(&negative, &budget).is_err());
    }

    #[test]
    fn whole_numbers_have_a_sign_if_their_type_has() {
        let budget = Budget::for_file(100);
        let of = |element, bytes: &[u8]| of_bytes(element, &shape(&[1]), bytes, &budget).unwrap();
        assert_eq!(of(6, &[0xff]), Some(Constant::Integers(vec![1], Arc::new(vec![-1]))));
        assert_eq!(of(4, &[0xff]), Some(Constant::Integers(vec![1], Arc::new(vec![255]))));
        assert_eq!(of(7, &[0xff]), None, "texts are no numbers");
        assert!(of_bytes(1, &shape(&[1]), &[1], &budget).is_err());
    }
}
