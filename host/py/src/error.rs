//! Errors of the library as exceptions of `shiftwise.errors`, and exceptions of callbacks on their way through the library.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use serde::Serialize;
use shiftwise::Error;

/// What a callback into Python has raised while the library worked; the call that began the work raises it again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raised(Arc<Mutex<Option<PyErr>>>);

impl Raised {
    /// Keeps the first exception; the error stops the library's work and is never shown.
    pub(crate) fn keep(&self, exception: PyErr) -> Error {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(exception);
        Error::Run("a Python function has raised an exception".into())
    }

    fn take(&self) -> Option<PyErr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The exception for an error: `shiftwise.errors` knows the class and the hint of its code.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    let made = || py.import("shiftwise.errors")?.getattr("of")?.call1((error.code(), error.to_string()));
    match made() {
        Ok(exception) => PyErr::from_value(exception),
        Err(e) => e,
    }
}

/// Does the library's work without the interpreter's lock.
pub(crate) fn work<T: Send>(
    py: Python<'_>,
    raised: &Raised,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> PyResult<T> {
    let result = py.detach(work);
    match (raised.take(), result) {
        (Some(exception), _) => Err(exception),
        (None, result) => result.map_err(|e| exception(py, &e)),
    }
}

/// A report as JSON.
pub(crate) fn json(report: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(report).map_err(|e| Error::Run(format!("the result can't be written as JSON: {e}")))
}
