//! Memory of tensors that are no longer needed, by thread. Fresh memory of their size costs more than filling it: the system
//! hands it out page by page.
//!
//! Spare memory is kept in one of two ways. As a rule a tensor takes spare memory that is not much too large for it, and where
//! none fits all of it is returned, so that little is kept. While a [`Hold`] lives, a tensor takes memory of exactly its
//! size, and as much is kept of each size as was once needed at a time: work that is the same again and again then needs no
//! fresh memory from its second time on.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static SPARE: RefCell<Spare> = RefCell::default();
    static HELD: RefCell<Option<Held>> = RefCell::default();
}

/// While it lives, spare memory of the thread that made it is kept for tensors of the same size.
#[derive(Debug)]
pub struct Hold {
    /// It is the thread's, and must not be dropped by another.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Hold {
    /// Begins to keep memory, or goes on with it: the first one that is dropped ends it.
    #[must_use]
    pub fn new() -> Self {
        HELD.with_borrow_mut(|held| {
            held.get_or_insert_default();
        });
        Self { _thread: std::marker::PhantomData }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| *held = None);
    }
}

/// Memory of this length, of any values.
pub(crate) fn take(len: usize) -> Vec<f32> {
    take_held(len).unwrap_or_else(|| SPARE.with_borrow_mut(|spare| spare.take(len)))
}

/// [`take`], while there is a [`Hold`].
pub(crate) fn take_held(len: usize) -> Option<Vec<f32>> {
    HELD.with_borrow_mut(|held| Some(held.as_mut()?.take(len)))
}

/// Keeps memory for a later [`take`].
pub(crate) fn give(data: Vec<f32>) {
    HELD.with_borrow_mut(|held| match held {
        Some(held) => held.give(data),
        None => SPARE.with_borrow_mut(|spare| spare.0.push(data)),
    });
}

/// Returns all spare memory of this thread to the system; what a [`Hold`] keeps stays.
pub(crate) fn release() {
    SPARE.with_borrow_mut(|spare| spare.0.clear());
}

/// Memory of any sizes.
#[derive(Default)]
struct Spare(Vec<Vec<f32>>);

impl Spare {
    /// Memory of this length: the smallest spare one that isn't more than twice as large, else fresh memory, before which
    /// all spare memory is returned.
    fn take(&mut self, len: usize) -> Vec<f32> {
        let fits = |data: &Vec<f32>| (len..=2 * len).contains(&data.capacity());
        let best = (0..self.0.len()).filter(|i| fits(&self.0[*i])).min_by_key(|i| self.0[*i].capacity());
        match best {
            Some(i) => {
                let mut data = self.0.swap_remove(i);
                data.resize(len, 0.0);
                data
            }
            None => {
                self.0.clear();
                vec![0.0; len]
            }
        }
    }
}

/// Memory of one size.
#[derive(Debug, Default)]
struct Size {
    /// How often fresh memory was needed: no more is kept, whatever else is given.
    made: usize,
    spare: Vec<Vec<f32>>,
}

/// Memory by its size.
#[derive(Debug, Default)]
struct Held(BTreeMap<usize, Size>);

impl Held {
    fn take(&mut self, len: usize) -> Vec<f32> {
        let size = self.0.entry(len).or_default();
        size.spare.pop().unwrap_or_else(|| {
            size.made += 1;
            vec![0.0; len]
        })
    }

    fn give(&mut self, data: Vec<f32>) {
        if let Some(size) = self.0.get_mut(&data.len()).filter(|size| size.spare.len() < size.made) {
            size.spare.push(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_memory_is_taken_again_and_does_not_grow() {
        let hold = Hold::new();
        let (a, b) = (take(100), take(100));
        let places = [a.as_ptr(), b.as_ptr()];
        give(a);
        give(b);
        give(vec![1.0; 100]);
        give(vec![1.0; 7]);
        let kept =
            |len: usize| HELD.with_borrow(|held| held.as_ref().unwrap().0.get(&len).map_or(0, |s| s.spare.len()));
        assert_eq!((kept(100), kept(7)), (2, 0), "what nobody needed is not kept");
        let (c, d) = (take(100), take(100));
        assert!(places.contains(&c.as_ptr()) && places.contains(&d.as_ptr()));
        drop(hold);
        assert!(HELD.with_borrow(Option::is_none));
    }
}
