//! Float tensors: a shape and its values, row-major, channels last.

use std::sync::Arc;

/// A dense f32 tensor. Copies share their values until one of them is written, so a layer that is applied in many places
/// has its weights once. Activations are `[n, h, w, c]` (batch first), kernels as Keras stores them.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Arc<Vec<f32>>,
}

impl Tensor {
    /// A tensor of `data`; `None` if its length is not the product of `shape`.
    pub fn new(shape: Vec<usize>, data: Vec<f32>) -> Option<Self> {
        (shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(data.len()))
            .then(|| Self { shape, data: Arc::new(data) })
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: Arc::new(vec![0.0; shape.iter().product()]) }
    }

    /// A tensor of any values, to be overwritten: memory of recycled tensors, where some of that size is left.
    pub fn scratch(shape: &[usize]) -> Self {
        let data = SPARE.with_borrow_mut(|spare| spare.take(shape.iter().product()));
        Self { shape: shape.to_vec(), data: Arc::new(data) }
    }

    /// Gives the memory of a tensor to the next [`Tensor::scratch`] on this thread.
    pub fn recycle(self) {
        if let Ok(data) = Arc::try_unwrap(self.data) {
            SPARE.with_borrow_mut(|spare| spare.0.push(data));
        }
    }

    /// Returns the memory of all recycled tensors of this thread to the system.
    pub fn release_recycled() {
        SPARE.with_borrow_mut(|spare| spare.0.clear());
    }

    /// A vector.
    pub fn vector(data: Vec<f32>) -> Self {
        Self { shape: vec![data.len()], data: Arc::new(data) }
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Values, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Values, writable.
    pub fn data_mut(&mut self) -> &mut [f32] {
        Arc::make_mut(&mut self.data).as_mut_slice()
    }

    /// The values alone.
    pub fn into_data(self) -> Vec<f32> {
        Arc::unwrap_or_clone(self.data)
    }

    /// The same values under another shape; `None` if the element counts differ.
    pub fn reshaped(self, shape: Vec<usize>) -> Option<Self> {
        let fits = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(self.data.len());
        fits.then_some(Self { shape, data: self.data })
    }
}

/// Memory of tensors that are no longer needed. Fresh memory of this size costs more than filling it: the system hands it
/// out page by page.
#[derive(Default)]
struct Spare(Vec<Vec<f32>>);

thread_local! {
    static SPARE: std::cell::RefCell<Spare> = std::cell::RefCell::default();
}

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
