//! Float tensors: a shape and its values, row-major, channels last.

use std::sync::Arc;

use crate::spare;

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
        Self { shape: shape.to_vec(), data: Arc::new(spare::take(shape.iter().product())) }
    }

    /// Gives the memory of a tensor to the next [`Tensor::scratch`] on this thread.
    pub fn recycle(self) {
        if let Ok(data) = Arc::try_unwrap(self.data) {
            spare::give(data);
        }
    }

    /// Returns the memory of all recycled tensors of this thread to the system.
    pub fn release_recycled() {
        spare::release();
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
        if Arc::get_mut(&mut self.data).is_none()
            && let Some(mut own) = spare::take_held(self.data.len())
        {
            own.copy_from_slice(&self.data);
            self.data = Arc::new(own);
        }
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
