//! Strategies: how networks are quantized.

use std::sync::Mutex;

use pyo3::prelude::*;
use serde_json::Value;
use shiftwise::Error;
use shiftwise_quant::settings::{Effect, SETTINGS, Section, find};
use shiftwise_quant::strategy::{BUILT_IN, Strategy as Own};

use crate::error::{Raised, exception, json, work};

/// A strategy; changes of settings are JSON.
#[pyclass(frozen, module = "shiftwise._native")]
#[derive(Debug)]
pub(crate) struct Strategy(Mutex<Own>);

impl Strategy {
    /// The strategy as it is now.
    pub(crate) fn get(&self) -> Own {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn change<T: Send>(
        &self,
        py: Python<'_>,
        text: &str,
        change: impl FnOnce(&mut Own, Value) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        work(py, &Raised::default(), || {
            let value = serde_json::from_str(text)
                .map_err(|e| Error::Options(format!("a strategy's settings are no JSON: {e}")))?;
            // What fails leaves the strategy as it was.
            let mut own = self.get();
            let result = change(&mut own, value)?;
            *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = own;
            Ok(result)
        })
    }
}

#[pymethods]
impl Strategy {
    #[new]
    #[pyo3(signature = (name = "pof2s"))]
    fn new(py: Python<'_>, name: &str) -> PyResult<Self> {
        Own::built_in(name).map(|own| Self(Mutex::new(own))).map_err(|e| exception(py, &e))
    }

    /// A strategy of its own with the same settings.
    fn copy(&self) -> Self {
        Self(Mutex::new(self.get()))
    }

    /// Replaces whole sections by those of a strategy file.
    fn replace(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        self.change(py, text, |own, value| own.replace(&value))
    }

    /// Overrides parts and adds entries, by the vendor's rules.
    fn update(&self, py: Python<'_>, text: &str) -> PyResult<()> {
        self.change(py, text, |own, value| own.update(&value))
    }

    /// Sets a keyword argument to a JSON value; returns a warning, if there is one.
    fn set(&self, py: Python<'_>, key: &str, value: &str) -> PyResult<Option<String>> {
        self.change(py, value, |own, value| own.set(key, value))
    }

    /// The JSON text; `verbose` 2 has everything.
    fn dump(&self, verbose: u32) -> String {
        self.get().dump(verbose)
    }

    /// A setting as JSON; `null` for one that the strategy has not.
    fn value(&self, key: &str) -> String {
        self.get().value(key).map_or_else(|| "null".to_owned(), Value::to_string)
    }

    /// Whether quantizing by it looks at data.
    fn needs_data(&self, py: Python<'_>) -> PyResult<bool> {
        self.get().needs_data().map_err(|e| exception(py, &e))
    }

    /// What differs from the built-in strategy of a name, as JSON.
    fn changes(&self, py: Python<'_>, name: &str) -> PyResult<String> {
        let own = self.get();
        let changes = Own::built_in(name).and_then(|base| json(&own.changes(&base)));
        changes.map_err(|e| exception(py, &e))
    }
}

/// The names of the built-in strategies, each with its aliases.
#[pyfunction]
pub(crate) fn strategies() -> Vec<Vec<&'static str>> {
    BUILT_IN.iter().map(|own| own.names.to_vec()).collect()
}

/// A keyword argument as Python needs it: name, what it takes, default as JSON, whether it is of the call, what it means,
/// its old name, whether it changes anything.
type Row = (&'static str, &'static str, &'static str, bool, &'static str, Option<&'static str>, bool);

/// Every keyword argument of `quantize_model`.
#[pyfunction]
pub(crate) fn settings() -> Vec<Row> {
    let row = |own: &'static shiftwise_quant::settings::Setting| {
        let of_call = find(own.name).is_some_and(|own| own.section == Section::Call);
        let works = !matches!(own.effect, Effect::Idle(_));
        (own.name, own.takes.phrase(), own.default, of_call, own.doc, own.old, works)
    };
    SETTINGS.iter().map(row).collect()
}
