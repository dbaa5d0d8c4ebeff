//! One stretch of memory for many arrays that are not all needed at once.
//!
//! **Invariant.** Two arrays that are needed at the same step share no element. An array is needed from the step that
//! writes it to the last step that reads it, both included, so that a step never reads where it writes.

use core::ops::Range;

/// An array that has to lie somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Its elements.
    pub len: usize,
    /// The step that writes it.
    pub first: usize,
    /// The last step that reads it, at least `first`.
    pub last: usize,
}

/// Where arrays lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arena {
    /// The elements of each array.
    pub places: Vec<Range<usize>>,
    /// Elements of the whole stretch.
    pub len: usize,
}

/// Arrays begin at multiples of this many elements: whole lines of a cache.
const ALIGN: usize = 64;

impl Arena {
    /// Places arrays from the largest to the smallest, each into the smallest gap that holds it between the arrays that are
    /// needed at the same time.
    #[must_use]
    pub fn place(arrays: &[Lifetime]) -> Self {
        let mut order: Vec<usize> = (0..arrays.len()).filter(|i| arrays[*i].len > 0).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(arrays[*i].len), *i));
        let mut arena = Self { places: vec![0..0; arrays.len()], len: 0 };
        let mut placed: Vec<usize> = Vec::with_capacity(order.len());
        let mut taken: Vec<(usize, usize)> = Vec::new();
        for i in order {
            let Lifetime { len, first, last } = arrays[i];
            let together = placed.iter().filter(|k| arrays[**k].first <= last && first <= arrays[**k].last);
            taken.clear();
            taken.extend(together.map(|k| (arena.places[*k].start, arena.places[*k].end.next_multiple_of(ALIGN))));
            taken.sort_unstable();
            let (mut best, mut free) = (None::<(usize, usize)>, 0);
            for (start, end) in &taken {
                let gap = start.saturating_sub(free);
                if gap >= len && best.is_none_or(|(smallest, _)| gap < smallest) {
                    best = Some((gap, free));
                }
                free = free.max(*end);
            }
            let start = best.map_or(free, |(_, start)| start);
            arena.places[i] = start..start + len;
            arena.len = arena.len.max((start + len).next_multiple_of(ALIGN));
            placed.push(i);
        }
        arena
    }
}

/// An array to be written, and the rest of the stretch that it lies in.
pub fn split<T>(all: &mut [T], at: Range<usize>) -> (&mut [T], Rest<'_, T>) {
    let (before, others) = all.split_at_mut(at.start);
    let (array, after) = others.split_at_mut(at.len());
    (array, Rest { before, after, from: at.end })
}

/// A stretch of memory without the array that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Rest<'a, T> {
    before: &'a [T],
    after: &'a [T],
    /// Where `after` begins.
    from: usize,
}

impl<'a, T> Rest<'a, T> {
    /// The whole of a stretch of which no array is being written.
    #[must_use]
    pub fn whole(all: &'a [T]) -> Self {
        Self { before: all, after: &[], from: all.len() }
    }

    /// An array.
    ///
    /// # Panics
    /// If it lies, even in part, where the array that is being written lies.
    #[must_use]
    pub fn get(&self, at: Range<usize>) -> &'a [T] {
        if at.end <= self.before.len() {
            &self.before[at]
        } else {
            &self.after[at.start - self.from..at.end - self.from]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lifetimes() -> impl Strategy<Value = Vec<Lifetime>> {
        let one = (0..3000usize, 0..40usize, 0..10usize);
        proptest::collection::vec(one.prop_map(|(len, first, more)| Lifetime { len, first, last: first + more }), 0..40)
    }

    proptest! {
        #[test]
        fn arrays_that_are_needed_together_share_no_element(arrays in lifetimes()) {
            let arena = Arena::place(&arrays);
            for (a, at) in arrays.iter().zip(&arena.places) {
                prop_assert!(at.len() == a.len && at.end <= arena.len);
                for (b, other) in arrays.iter().zip(&arena.places).filter(|(b, _)| !std::ptr::eq(*b, a)) {
                    let together = a.first <= b.last && b.first <= a.last;
                    let apart = at.end <= other.start || other.end <= at.start;
                    prop_assert!(!together || apart, "{a:?} at {at:?}, {b:?} at {other:?}");
                }
            }
        }
    }

    #[test]
    fn a_chain_takes_no_more_than_its_largest_two_neighbours() {
        let chain: Vec<Lifetime> = [640, 64, 1280, 128, 320]
            .iter()
            .enumerate()
            .map(|(i, len)| Lifetime { len: *len, first: i, last: i + 1 })
            .collect();
        assert_eq!(Arena::place(&chain).len, 1280 + 128);
    }
}
