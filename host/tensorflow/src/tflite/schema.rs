//! FlatBuffers, and the tables of TensorFlow Lite's schema (version 3) that a network needs.
//!
//! A table begins with the distance to its vtable, which has the offset of each of its fields, or 0. Vectors and texts are
//! their length, then their elements. All numbers are little-endian. What points out of the file is an error; what is
//! absent has the schema's default.

use shiftwise_graph::budget::Budget;

/// Part of a file that is no such file.
pub(super) type Damaged = String;

/// A place in a file: a table, or a vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Vectors are charged as often as they are read: many tables may share one.
    budget: &'a Budget,
}

fn damaged() -> Damaged {
    "an offset of it points out of the file: it is cut short or damaged".into()
}

impl<'a> Table<'a> {
    /// The file's root table.
    pub(super) fn root(bytes: &'a [u8], budget: &'a Budget) -> Result<Self, Damaged> {
        Self { bytes, at: 0, budget }.follow(0)
    }

    fn number<const N: usize>(&self, at: usize) -> Result<[u8; N], Damaged> {
        let end = at.checked_add(N).ok_or_else(damaged)?;
        self.bytes.get(at..end).and_then(|b| b.try_into().ok()).ok_or_else(damaged)
    }

    /// What the offset at a place points to.
    fn follow(&self, at: usize) -> Result<Self, Damaged> {
        let offset = u32::from_le_bytes(self.number(at)?) as usize;
        let target = at.checked_add(offset).filter(|t| offset > 0 && *t < self.bytes.len());
        target.map(|at| Self { at, ..*self }).ok_or_else(damaged)
    }

    /// Where a field lies, if the table has it.
    fn field(&self, index: usize) -> Result<Option<usize>, Damaged> {
        let back = i64::from(i32::from_le_bytes(self.number(self.at)?));
        let vtable = i64::try_from(self.at).ok().and_then(|at| at.checked_sub(back));
        let vtable = vtable.and_then(|v| usize::try_from(v).ok()).ok_or_else(damaged)?;
        let size = usize::from(u16::from_le_bytes(self.number(vtable)?));
        let entry = 4 + 2 * index;
        if entry + 2 > size {
            return Ok(None);
        }
        let offset = usize::from(u16::from_le_bytes(self.number(vtable + entry)?));
        Ok((offset > 0).then(|| self.at + offset))
    }

    /// A field of one byte.
    pub(super) fn byte(&self, index: usize) -> Result<u8, Damaged> {
        self.field(index)?.map_or(Ok(0), |at| self.number::<1>(at).map(|[b]| b))
    }

    /// A field that is true or false.
    pub(super) fn flag(&self, index: usize) -> Result<bool, Damaged> {
        self.byte(index).map(|b| b != 0)
    }

    /// A field of 32 bits.
    pub(super) fn int(&self, index: usize, default: i32) -> Result<i32, Damaged> {
        self.field(index)?.map_or(Ok(default), |at| self.number(at).map(i32::from_le_bytes))
    }

    /// A field of 64 bits.
    pub(super) fn long(&self, index: usize) -> Result<u64, Damaged> {
        self.field(index)?.map_or(Ok(0), |at| self.number(at).map(u64::from_le_bytes))
    }

    /// A float.
    pub(super) fn float(&self, index: usize, default: f32) -> Result<f32, Damaged> {
        self.field(index)?.map_or(Ok(default), |at| self.number(at).map(f32::from_le_bytes))
    }

    /// A table below.
    pub(super) fn table(&self, index: usize) -> Result<Option<Self>, Damaged> {
        self.field(index)?.map(|at| self.follow(at)).transpose()
    }

    /// The bytes of a vector of elements of this size.
    fn elements(&self, index: usize, size: usize) -> Result<Option<&'a [u8]>, Damaged> {
        let Some(vector) = self.table(index)? else { return Ok(None) };
        let count = u32::from_le_bytes(self.number(vector.at)?) as usize;
        let length = count.checked_mul(size).ok_or_else(damaged)?;
        let start = vector.at + 4;
        let end = start.checked_add(length).ok_or_else(damaged)?;
        self.bytes.get(start..end).map(Some).ok_or_else(damaged)
    }

    /// A vector of bytes.
    pub(super) fn bytes(&self, index: usize) -> Result<&'a [u8], Damaged> {
        self.charged(index, 1)
    }

    /// [`Table::elements`], charged; none where there is no vector.
    fn charged(&self, index: usize, size: usize) -> Result<&'a [u8], Damaged> {
        let bytes = self.elements(index, size)?.unwrap_or_default();
        self.budget.work(bytes.len() as u64).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// A text; what is no UTF-8 is replaced.
    pub(super) fn text(&self, index: usize) -> Result<String, Damaged> {
        self.bytes(index).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A vector of 32-bit numbers.
    pub(super) fn ints(&self, index: usize) -> Result<Vec<i32>, Damaged> {
        let bytes = self.charged(index, 4)?;
        Ok(bytes.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// A vector of 64-bit numbers.
    pub(super) fn longs(&self, index: usize) -> Result<Vec<i64>, Damaged> {
        let bytes = self.charged(index, 8)?;
        let long = |b: &[u8]| b.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte)).cast_signed();
        Ok(bytes.chunks_exact(8).map(long).collect())
    }

    /// A vector of floats.
    pub(super) fn floats(&self, index: usize) -> Result<Vec<f32>, Damaged> {
        Ok(self.ints(index)?.into_iter().map(|bits| f32::from_bits(bits.cast_unsigned())).collect())
    }

    /// How many tables a vector has.
    pub(super) fn count(&self, index: usize) -> Result<usize, Damaged> {
        Ok(self.elements(index, 4)?.map_or(0, |bytes| bytes.len() / 4))
    }

    /// A table of a vector.
    pub(super) fn of(&self, index: usize, k: usize) -> Result<Self, Damaged> {
        let bytes = self.elements(index, 4)?.unwrap_or_default();
        let place = k.checked_mul(4).filter(|at| at + 4 <= bytes.len());
        let place = place.ok_or_else(|| format!("it refers to number {k} of {} entries", bytes.len() / 4))?;
        let vector = self.table(index)?.ok_or_else(damaged)?;
        self.follow(vector.at + 4 + place)
    }

    /// The bytes of the file from here: a buffer that lies behind the tables.
    pub(super) fn outside(&self, from: u64, length: u64) -> Result<&'a [u8], Damaged> {
        let range = usize::try_from(from).ok().zip(from.checked_add(length).and_then(|end| usize::try_from(end).ok()));
        range.and_then(|(from, end)| self.bytes.get(from..end)).ok_or_else(damaged)
    }
}

/// Fields of the schema's tables, by the names that it has for them.
pub(super) mod fields {
    pub(in super::super) const MODEL_OPERATOR_CODES: usize = 1;
    pub(in super::super) const MODEL_SUBGRAPHS: usize = 2;
    pub(in super::super) const MODEL_BUFFERS: usize = 4;
    pub(in super::super) const CODE_SMALL: usize = 0;
    pub(in super::super) const CODE_CUSTOM: usize = 1;
    pub(in super::super) const CODE: usize = 3;
    pub(in super::super) const GRAPH_TENSORS: usize = 0;
    pub(in super::super) const GRAPH_INPUTS: usize = 1;
    pub(in super::super) const GRAPH_OUTPUTS: usize = 2;
    pub(in super::super) const GRAPH_OPERATORS: usize = 3;
    pub(in super::super) const GRAPH_NAME: usize = 4;
    pub(in super::super) const TENSOR_SHAPE: usize = 0;
    pub(in super::super) const TENSOR_TYPE: usize = 1;
    pub(in super::super) const TENSOR_BUFFER: usize = 2;
    pub(in super::super) const TENSOR_NAME: usize = 3;
    pub(in super::super) const TENSOR_QUANTIZATION: usize = 4;
    pub(in super::super) const TENSOR_SPARSITY: usize = 6;
    pub(in super::super) const QUANTIZATION_SCALE: usize = 2;
    pub(in super::super) const QUANTIZATION_ZERO: usize = 3;
    pub(in super::super) const QUANTIZATION_AXIS: usize = 6;
    pub(in super::super) const BUFFER_DATA: usize = 0;
    pub(in super::super) const BUFFER_OFFSET: usize = 1;
    pub(in super::super) const BUFFER_SIZE: usize = 2;
    pub(in super::super) const OPERATOR_CODE: usize = 0;
    pub(in super::super) const OPERATOR_INPUTS: usize = 1;
    pub(in super::super) const OPERATOR_OUTPUTS: usize = 2;
    pub(in super::super) const OPERATOR_OPTIONS: usize = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_that_lead_out_of_the_file_are_refused() {
        // A root table at 10, whose vtable at 4 has one field, four bytes behind the table's begin.
        let file = [10u8, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0, 7, 0, 0, 0];
        let budget = Budget::for_file(file.len());
        let root = Table::root(&file, &budget).unwrap();
        assert_eq!((root.int(0, 3), root.int(1, 3)), (Ok(7), Ok(3)), "what is absent has its default");
        for bytes in [&[][..], &[1], &[0xff, 0xff, 0xff, 0xff], &[4, 0, 0, 0], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f]] {
            assert!(Table::root(bytes, &budget).and_then(|t| t.int(0, 0)).is_err(), "{bytes:?}");
        }
    }
}
