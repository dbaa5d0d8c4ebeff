//! Memory that begins at a line of the cache, so that a vector of 64 bytes never reaches into two of them.

use core::ops::{Deref, DerefMut};

/// Bytes of a line of the cache, and of the widest vectors.
const LINE: usize = 64;

/// A slice of its own that begins at a line of the cache.
#[derive(Debug)]
pub struct Aligned<T> {
    data: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// So many default values, zeros for numbers.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let more = LINE / size_of::<T>().max(1);
        let data = vec![T::default(); len + more];
        // Where the machine can't tell, the beginning is as good as any.
        let start = data.as_ptr().align_offset(LINE);
        Self { start: if start <= more { start } else { 0 }, data, len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.data[self.start..][..self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..][..self.len]
    }
}

impl<T: Copy + Default> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_and_its_copies_begin_at_a_line() {
        for len in [0, 1, 63, 1000] {
            let mut bytes = Aligned::<i8>::new(len);
            bytes.iter_mut().for_each(|b| *b = 3);
            let floats = Aligned::<f32>::new(len);
            for copy in [&bytes, &bytes.clone()] {
                assert_eq!((copy.len(), copy.as_ptr().align_offset(LINE)), (len, 0));
                assert!(copy.iter().all(|b| *b == 3));
            }
            assert_eq!((floats.len(), floats.as_ptr().align_offset(LINE)), (len, 0));
        }
    }
}
