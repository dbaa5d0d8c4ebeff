//! What reading and running one file may take: memory, and steps of work.
//!
//! A file is a claim. Shapes multiply, links share, compressed bytes expand, so no limit of one item bounds the whole.
//! One [`Budget`] is made for a file from its size and travels through everything that is read from it; each reader
//! charges what it is about to make, before it makes it, and memory is reserved in a way that can fail. A charge is never
//! given back: what a reader drops again it has paid for, so a file can't make it work for ever either.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// Memory that any file may take, however small: what the largest of the usual architectures needs without its weights.
const FLOOR_BYTES: u64 = 384 << 20;

/// Bytes of memory for each byte of the file: the file, its weights as floats, quantized, and as integers.
const BYTES_PER_BYTE: u64 = 8;

/// Steps that any file may take; one is a value made or a name compared, some nanoseconds.
const FLOOR_WORK: u64 = 1 << 28;

/// Steps for each byte of the file.
const WORK_PER_BYTE: u64 = 16;

/// Multiply-accumulates that one sample of any network may take: some seconds on two processor cores.
const FLOOR_SUMS: u64 = 1 << 38;

/// More of them for each weight: large networks read each weight at some hundred places.
const SUMS_PER_WEIGHT: u64 = 1 << 10;

/// Elements that the result of one layer may have: those of a map of 1448 × 1448 pixels with 64 channels; the largest of the
/// vendor's networks, for point clouds, has more than half of that. What is alive at once is bounded by [`Run`].
pub const MAX_ELEMENTS: usize = 1 << 27;

/// What is left of a file's memory and work. Copies share what is left.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Left>);

#[derive(Debug)]
struct Left {
    size: u64,
    bytes: AtomicU64,
    work: Arc<AtomicU64>,
}

/// Takes from what is left; where that is too little, nothing is left from then on.
fn take(left: &AtomicU64, amount: u64) -> bool {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount));
    taken.inspect_err(|_| left.store(0, Ordering::Relaxed)).is_ok()
}

/// A file asks for more than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// More memory than the budget of a file of `size` bytes.
    Bytes {
        /// The file's size.
        size: u64,
    },
    /// More steps.
    Work {
        /// The file's size.
        size: u64,
    },
    /// The system has no more memory.
    NoMemory {
        /// What was asked for.
        bytes: u64,
    },
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { size } => {
                let most = most_bytes(*size) >> 20;
                write!(
                    f,
                    "it needs more than {most} MB of memory, which is the most that a file of {size} bytes may take"
                )
            }
            Self::Work { size } => write!(f, "it needs more work than a file of {size} bytes may take"),
            Self::NoMemory { bytes } => write!(f, "there is no memory for {bytes} bytes"),
        }
    }
}

impl std::error::Error for Exceeded {}

impl From<Exceeded> for String {
    fn from(e: Exceeded) -> Self {
        e.to_string()
    }
}

fn most_bytes(size: u64) -> u64 {
    FLOOR_BYTES.saturating_add(size.saturating_mul(BYTES_PER_BYTE))
}

impl Budget {
    /// The budget of a file of this many bytes.
    pub fn for_file(size: usize) -> Self {
        let size = size as u64;
        let work = FLOOR_WORK.saturating_add(size.saturating_mul(WORK_PER_BYTE));
        Self(Arc::new(Left { size, bytes: AtomicU64::new(most_bytes(size)), work: Arc::new(AtomicU64::new(work)) }))
    }

    /// The budget of one step of a run that gives memory back: the same work, and all memory but what is held.
    pub fn with_held(&self, bytes: u64) -> Self {
        let left = most_bytes(self.0.size).saturating_sub(bytes);
        Self(Arc::new(Left { size: self.0.size, bytes: AtomicU64::new(left), work: self.0.work.clone() }))
    }

    /// The file's size.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Takes memory.
    pub fn bytes(&self, bytes: u64) -> Result<(), Exceeded> {
        if take(&self.0.bytes, bytes) { Ok(()) } else { Err(Exceeded::Bytes { size: self.0.size }) }
    }

    /// Memory that is left.
    pub fn left(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// What a charge has exceeded, for a reader that can't pass the error on.
    pub fn exceeded(&self) -> Option<Exceeded> {
        let size = self.0.size;
        match (self.0.bytes.load(Ordering::Relaxed), self.0.work.load(Ordering::Relaxed)) {
            (0, _) => Some(Exceeded::Bytes { size }),
            (_, 0) => Some(Exceeded::Work { size }),
            _ => None,
        }
    }

    /// Takes the memory of values, `size` bytes for each element of `shape`, and returns how many they are.
    pub fn elements<T: Copy + TryInto<u64>>(&self, shape: &[T], size: u64) -> Result<usize, Exceeded> {
        let exceeded = Exceeded::Bytes { size: self.0.size };
        let product = |n: u64, d: &T| n.checked_mul((*d).try_into().ok()?);
        let count = shape.iter().try_fold(1, product).ok_or(exceeded)?;
        self.bytes(count.checked_mul(size).ok_or(exceeded)?)?;
        usize::try_from(count).map_err(|_| exceeded)
    }

    /// Takes steps of work.
    pub fn work(&self, steps: u64) -> Result<(), Exceeded> {
        if take(&self.0.work, steps) { Ok(()) } else { Err(Exceeded::Work { size: self.0.size }) }
    }

    /// An empty vector with room for `len` values, charged; the system may still refuse.
    pub fn vec<T>(&self, len: usize) -> Result<Vec<T>, Exceeded> {
        self.elements(&[len], size_of::<T>() as u64)?;
        reserve(len)
    }
}

/// An empty vector with room for `len` values; the system may refuse.
pub fn reserve<T>(len: usize) -> Result<Vec<T>, Exceeded> {
    let mut values = Vec::new();
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    values.try_reserve_exact(len).map_err(|_| Exceeded::NoMemory { bytes })?;
    Ok(values)
}

/// `len` values; the system may refuse the memory.
pub fn filled<T: Clone>(len: usize, value: T) -> Result<Vec<T>, Exceeded> {
    let mut values = reserve(len)?;
    values.resize(len, value);
    Ok(values)
}

/// The elements of the result of one layer, of which no dimension may be 0.
///
/// Errors: a sentence without the layer, which the caller names.
pub fn layer_elements(shape: &[usize]) -> Result<usize, String> {
    if shape.contains(&0) {
        return Err(format!("its result has shape {shape:?}, in which a dimension is 0"));
    }
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MAX_ELEMENTS);
    elements.ok_or_else(|| format!("its result has shape {shape:?}; at most {MAX_ELEMENTS} values are supported"))
}

/// What one sample of a network takes, before it is run: memory of what is alive at once, and multiply-accumulates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Bytes of the tensors that are needed at the same time.
    pub bytes: u64,
    /// Multiply-accumulates, or elements where a layer has none.
    pub sums: u64,
    /// Weights of the network.
    pub weights: u64,
}

impl Run {
    /// Whether a run may take this, of `samples` at once.
    ///
    /// Errors: out of proportion to the network's weights; more memory than the system has.
    pub fn check(&self, samples: usize) -> Result<(), Error> {
        let most = most_bytes(self.weights.saturating_mul(4));
        if self.bytes > most {
            let (needs, most) = (self.bytes >> 20, most >> 20);
            return Err(Error::model(format!(
                "one sample of the network needs {needs} MB of memory, at most {most} MB are given to a network of {} weights",
                self.weights
            )));
        }
        let most = FLOOR_SUMS.saturating_add(self.weights.saturating_mul(SUMS_PER_WEIGHT));
        if self.sums > most {
            return Err(Error::model(format!(
                "one sample of the network takes {} multiply-accumulates, at most {most} are supported for one of {} weights",
                self.sums, self.weights
            )));
        }
        // The engines take memory piece by piece where nothing can fail: asking for all of it first can.
        let bytes = usize::try_from(self.bytes.saturating_mul(samples as u64)).unwrap_or(usize::MAX);
        reserve::<u8>(bytes).map(drop).map_err(|e| Error::model(format!("{samples} samples at once: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_and_are_not_given_back() {
        let budget = Budget::for_file(1000);
        let most = FLOOR_BYTES + 8000;
        budget.bytes(most - 100).unwrap();
        assert_eq!(budget.elements(&[2u64, 10], 4), Ok(20));
        assert_eq!(budget.exceeded(), None);
        assert_eq!(budget.elements(&[5u64, 6], 4), Err(Exceeded::Bytes { size: 1000 }));
        // Copies share it, and nothing is left of it.
        assert_eq!(budget.clone().bytes(1), Err(Exceeded::Bytes { size: 1000 }));
        assert_eq!(budget.exceeded(), Some(Exceeded::Bytes { size: 1000 }));
        assert_eq!(budget.work(FLOOR_WORK + 16_000), Ok(()));
        assert_eq!(budget.work(1), Err(Exceeded::Work { size: 1000 }));
    }

    #[test]
    fn what_a_run_gives_back_may_be_taken_again_but_not_its_work() {
        let budget = Budget::for_file(0);
        for held in [0, FLOOR_BYTES / 2] {
            let step = budget.with_held(held);
            step.bytes(FLOOR_BYTES - held).unwrap();
            assert_eq!(step.bytes(1), Err(Exceeded::Bytes { size: 0 }));
            step.work(FLOOR_WORK / 2).unwrap();
        }
        assert_eq!(budget.with_held(0).work(1), Err(Exceeded::Work { size: 0 }));
        assert_eq!(budget.left(), FLOOR_BYTES);
    }

    #[test]
    fn products_of_claims_do_not_wrap() {
        let budget = Budget::for_file(1);
        for shape in [&[u64::MAX, 2][..], &[1 << 32, 1 << 32], &[1 << 62], &[1 << 40]] {
            assert!(budget.elements(shape, 4).is_err(), "{shape:?}");
        }
        assert!(budget.vec::<u64>(usize::MAX).is_err());
        assert!(matches!(reserve::<u64>(usize::MAX / 16), Err(Exceeded::NoMemory { .. })));
        assert_eq!(budget.elements(&[0u64, 1 << 60], 4), Ok(0));
    }

    #[test]
    fn results_of_layers_are_bounded() {
        assert_eq!(layer_elements(&[]), Ok(1));
        assert_eq!(layer_elements(&[1024, 1024, 128]), Ok(MAX_ELEMENTS));
        assert!(layer_elements(&[1024, 1024, 129]).unwrap_err().contains("[1024, 1024, 129]"));
        assert!(layer_elements(&[usize::MAX, usize::MAX]).is_err());
        assert!(layer_elements(&[4, 0, 4]).unwrap_err().contains("is 0"));
    }
}
