//! Datasets of Python: anything with `batch(start, count)`, which gives an array for each input.

use numpy::{PyArrayDyn, PyArrayMethods as _, PyReadonlyArrayDyn, PyUntypedArrayMethods as _};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shiftwise::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_tensor::tensor::Tensor;

use crate::error::Raised;

/// Samples that a Python object hands out batch by batch: `len(object)` of them, `object.batch(start, count)` is a list of
/// float32 arrays `[count, …]`, one for each input of the network.
#[derive(Debug)]
pub(crate) struct Source {
    object: Py<PyAny>,
    len: usize,
    inputs: Vec<(String, Vec<usize>)>,
    raised: Raised,
}

impl Source {
    /// Samples for the inputs of a graph.
    pub(crate) fn new(object: &Bound<'_, PyAny>, graph: &Graph, raised: &Raised) -> PyResult<Self> {
        let inputs = graph.inputs.iter().map(|id| graph.node(*id));
        let inputs = inputs.map(|node| (node.name.clone(), node.shape.clone())).collect();
        Ok(Self { object: object.clone().unbind(), len: object.len()?, inputs, raised: raised.clone() })
    }

    fn checked(&self, start: usize, count: usize, batch: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        if batch.len() != self.inputs.len() {
            let names = self.inputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            let text = format!("the data has {} arrays, and the model has the inputs {names}", batch.len());
            return Err(Error::Dataset(text));
        }
        for (tensor, (name, shape)) in batch.iter().zip(&self.inputs) {
            if tensor.shape() != [&[count], shape.as_slice()].concat() {
                let seen = &tensor.shape()[1.min(tensor.shape().len())..];
                let text = format!("input `{name}`: samples have shape {seen:?}, {shape:?} is expected");
                return Err(Error::Dataset(text));
            }
            if let Some(at) = tensor.data().iter().position(|v| !v.is_finite()) {
                let sample = start + at / shape.iter().product::<usize>().max(1);
                return Err(Error::Dataset(format!(
                    "input `{name}`: sample {sample} has the value {}",
                    tensor.data()[at]
                )));
            }
        }
        Ok(batch)
    }
}

impl Samples for Source {
    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        self.checked(start, count, fetched(&self.object, start, count, &self.raised)?)
    }
}

/// A batch of a Python dataset. An interrupt of the user's comes through here.
pub(crate) fn fetched(object: &Py<PyAny>, start: usize, count: usize, raised: &Raised) -> Result<Vec<Tensor>, Error> {
    let batch = Python::attach(|py| {
        py.check_signals()?;
        tensors(&object.bind(py).call_method1("batch", (start, count))?)
    });
    batch.map_err(|e| raised.keep(e))
}

/// An array as a tensor.
pub(crate) fn tensor(array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let array: PyReadonlyArrayDyn<'_, f32> = array.extract()?;
    let data = match array.as_slice() {
        Ok(data) => data.to_vec(),
        Err(_) => array.as_array().iter().copied().collect(),
    };
    Tensor::new(array.shape().to_vec(), data).ok_or_else(|| PyValueError::new_err("an array is too large"))
}

/// Arrays as tensors.
pub(crate) fn tensors(arrays: &Bound<'_, PyAny>) -> PyResult<Vec<Tensor>> {
    arrays.try_iter()?.map(|array| tensor(&array?)).collect()
}

/// A tensor as an array, which takes its memory.
pub(crate) fn array(py: Python<'_>, tensor: Tensor) -> PyResult<Bound<'_, PyArrayDyn<f32>>> {
    let shape = tensor.shape().to_vec();
    numpy::PyArray1::from_vec(py, tensor.into_data()).reshape(shape)
}

/// Tensors as arrays.
pub(crate) fn arrays(py: Python<'_>, tensors: Vec<Tensor>) -> PyResult<Vec<Bound<'_, PyArrayDyn<f32>>>> {
    tensors.into_iter().map(|tensor| array(py, tensor)).collect()
}

/// Tells Python how far the work is: `progress(done, total)`. What it raises stops the work with the next batch.
pub(crate) fn tell(progress: Option<&Py<PyAny>>, raised: &Raised, done: usize, total: usize) {
    let Some(progress) = progress else { return };
    if let Err(e) = Python::attach(|py| progress.call1(py, (done, total))) {
        raised.keep(e);
    }
}
