//! Folders of pictures as samples, prepared as the command line prepares them.

use std::path::PathBuf;

use numpy::PyArrayDyn;
use pyo3::prelude::*;
use shiftwise::Error;
use shiftwise::dataset::{ChannelOrder, DataSpec, Dataset, Notes, ResizeFilter};

use crate::error::{Raised, exception, work};
use crate::samples::array;

/// A folder of PNG, JPEG and BMP files, or of `.npy`: one sample a file, in the order of their names.
#[pyclass(frozen, module = "shiftwise._native")]
#[derive(Debug)]
pub(crate) struct Pictures {
    own: Dataset,
    notes: Notes,
}

fn filter(name: &str) -> Result<ResizeFilter, Error> {
    match name {
        "pil" => Ok(ResizeFilter::Pil),
        "tf" => Ok(ResizeFilter::Tf),
        other => Err(Error::Options(format!("`filter` is {other}; pil or tf is expected"))),
    }
}

fn order(name: &str) -> Result<ChannelOrder, Error> {
    match name {
        "rgb" => Ok(ChannelOrder::Rgb),
        "bgr" => Ok(ChannelOrder::Bgr),
        other => Err(Error::Options(format!("`order` is {other}; rgb or bgr is expected"))),
    }
}

#[pymethods]
impl Pictures {
    /// The samples of a folder: x' = (x − mean) · scale, of `shape` `[h, w, c]`.
    #[new]
    #[pyo3(signature = (path, shape, resize = None, filter = "pil", order = "rgb", exif = false, mean = Vec::new(), scale = None))]
    #[allow(clippy::too_many_arguments, reason = "the flags of the command line's data")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        shape: Vec<usize>,
        resize: Option<[usize; 2]>,
        filter: &str,
        order: &str,
        exif: bool,
        mean: Vec<f32>,
        scale: Option<f32>,
    ) -> PyResult<Self> {
        work(py, &Raised::default(), || {
            if resize.is_some_and(|size| size.iter().any(|n| !(1..=MOST_SIDE).contains(n))) {
                let text = format!("`resize` is {resize:?}; height and width from 1 to {MOST_SIDE} are expected");
                return Err(Error::Options(text));
            }
            if !mean.iter().chain(&scale).all(|v| v.is_finite()) {
                return Err(Error::Options("`mean` and `scale` are finite numbers".into()));
            }
            let (filter, order, notes) = (self::filter(filter)?, self::order(order)?, Notes::default());
            let spec = DataSpec { path, key: None, resize, filter, exif, order, mean, scale, notes: notes.clone() };
            Ok(Self { own: Dataset::open(&spec, &shape)?, notes })
        })
    }

    fn __len__(&self) -> usize {
        self.own.len()
    }

    /// Samples `start .. start + count`, float32 `[count, …]`.
    fn batch<'py>(&self, py: Python<'py>, start: usize, count: usize) -> PyResult<Bound<'py, PyArrayDyn<f32>>> {
        let batch = py.detach(|| self.own.batch(start, count));
        array(py, batch.map_err(|e| exception(py, &e))?)
    }

    /// What the pictures that were read so far let one doubt.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        self.notes.warnings()
    }
}

/// The most pixels of a side that a picture is scaled to, as in the command line.
const MOST_SIDE: usize = 8192;
