//! The values of one tensor, of the types that tensors have here: what engines, dumps and proofs speak of.

/// Values of one tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Integers of a position, or of a step and a zero point.
    Int8(Vec<i8>),
    /// The same of 9 to 16 bits.
    Int16(Vec<i16>),
    /// Integers of any width. No engine computes with them: they are what dumps tell of other quantizers, and of biases.
    Int32(Vec<i32>),
    /// Floats.
    Float(Vec<f32>),
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int8(v) => v.len(),
            Self::Int16(v) => v.len(),
            Self::Int32(v) => v.len(),
            Self::Float(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in memory, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Int8(v) => v.iter().map(|v| v.cast_unsigned()).collect(),
            Self::Int16(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Int32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Float(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// Adds the values of the same tensor in another sample.
    ///
    /// Errors: gives back values of another type, of which nothing is added.
    pub fn append(&mut self, other: Self) -> Result<(), Self> {
        match (self, other) {
            (Self::Int8(all), Self::Int8(new)) => all.extend(new),
            (Self::Int16(all), Self::Int16(new)) => all.extend(new),
            (Self::Int32(all), Self::Int32(new)) => all.extend(new),
            (Self::Float(all), Self::Float(new)) => all.extend(new),
            (_, other) => return Err(other),
        }
        Ok(())
    }

    /// The values at these indices, in their order; an index past the end has none.
    pub fn select(&self, indices: impl Iterator<Item = usize>) -> Self {
        fn of<T: Copy>(v: &[T], indices: impl Iterator<Item = usize>) -> Vec<T> {
            indices.filter_map(|i| v.get(i).copied()).collect()
        }
        match self {
            Self::Int8(v) => Self::Int8(of(v, indices)),
            Self::Int16(v) => Self::Int16(of(v, indices)),
            Self::Int32(v) => Self::Int32(of(v, indices)),
            Self::Float(v) => Self::Float(of(v, indices)),
        }
    }

    /// Integers of 16 bits as those of 32, which are what dumps have; all else as it is.
    pub fn widened(self) -> Self {
        match self {
            Self::Int16(v) => Self::Int32(v.into_iter().map(i32::from).collect()),
            other => other,
        }
    }

    /// Indices at which two tensors of one type differ. NaNs are equal to each other; 0.0 and -0.0 are not.
    pub fn differences(&self, other: &Self) -> Vec<usize> {
        fn indices<T: Copy>(a: &[T], b: &[T], same: impl Fn(T, T) -> bool) -> Vec<usize> {
            a.iter().zip(b).enumerate().filter(|(_, (a, b))| !same(**a, **b)).map(|(i, _)| i).collect()
        }
        match (self, other) {
            (Self::Int8(a), Self::Int8(b)) => indices(a, b, |a, b| a == b),
            (Self::Int16(a), Self::Int16(b)) => indices(a, b, |a, b| a == b),
            (Self::Int32(a), Self::Int32(b)) => indices(a, b, |a, b| a == b),
            (Self::Float(a), Self::Float(b)) => {
                indices(a, b, |a, b| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Values::{Float, Int8, Int16, Int32};

    #[test]
    fn only_values_of_one_type_are_joined_and_compared() {
        let mut all = Int8(vec![1]);
        all.append(Int8(vec![-128])).unwrap();
        assert_eq!(all.append(Float(vec![2.0])), Err(Float(vec![2.0])));
        assert_eq!((all.len(), all.to_bytes()), (2, vec![1, 0x80]));
        assert_eq!(all.differences(&Int8(vec![1, 2])), [1]);
        assert_eq!(all.differences(&Int16(vec![3, 4])), [0; 0]);
    }

    #[test]
    fn floats_differ_by_their_bits_but_for_nan() {
        let (a, b) = (Float(vec![0.0, f32::NAN, 1.0]), Float(vec![-0.0, -f32::NAN, 1.0]));
        assert_eq!(a.differences(&b), [0]);
    }

    #[test]
    fn values_are_little_endian_and_widen_to_32_bits() {
        let wide = Int16(vec![-2, 258]);
        assert_eq!(wide.to_bytes(), [0xfe, 0xff, 2, 1]);
        assert_eq!(wide.select([1, 0, 7].into_iter()), Int16(vec![258, -2]));
        assert_eq!(wide.widened(), Int32(vec![-2, 258]));
    }
}
