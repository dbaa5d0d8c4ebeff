//! The native module `shiftwise._native`: functions of the façade for the Python package beside it.
//!
//! Python parses arguments, keeps datasets of every kind behind one small interface, and shows results; this module runs
//! the work without the interpreter's lock and hands back arrays and the JSON of reports.
//!
//! Invariants
//! - Whatever is passed, a call ends in a result or a Python exception.
//! - The lock is held only while arguments and results change hands, and while a callback into Python runs.
//! - Arrays that a dataset hands out are read in place; of a dataset, one batch is in memory at a time.
//!
//! API boundary: no; the Python package `shiftwise` is.
//!
//! - `error`: exceptions; `samples`: datasets; `pictures`: folders of them; `custom`: layers that Python computes
//! - `model`: networks; `strategy`: how they are quantized; `quantize`: quantizing, preparing for training, deploying
//! - `commands`: the other commands; `compiled`: programs; `trainer`: steps of training

mod commands;
mod compiled;
mod custom;
mod error;
mod model;
mod pictures;
mod quantize;
mod samples;
mod strategy;
mod trainer;

use pyo3::prelude::*;

/// The program `shiftwise` with these arguments, of which the first is its name. Returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| shiftwise_cli::run(arguments))
}

/// The module.
#[pymodule(name = "_native")]
fn native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<strategy::Strategy>()?;
    module.add_class::<pictures::Pictures>()?;
    module.add_class::<trainer::Trainer>()?;
    module.add_class::<compiled::Deployable>()?;
    module.add_function(wrap_pyfunction!(strategy::settings, module)?)?;
    module.add_function(wrap_pyfunction!(strategy::strategies, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::quantize, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::prepare, module)?)?;
    module.add_function(wrap_pyfunction!(quantize::deploy, module)?)?;
    module.add_function(wrap_pyfunction!(commands::analyze, module)?)?;
    module.add_function(wrap_pyfunction!(commands::compare, module)?)?;
    module.add_function(wrap_pyfunction!(commands::diff, module)?)?;
    module.add_function(wrap_pyfunction!(commands::dump, module)?)?;
    module.add_function(wrap_pyfunction!(commands::estimate, module)?)?;
    module.add_function(wrap_pyfunction!(commands::info, module)?)?;
    module.add_function(wrap_pyfunction!(commands::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(commands::report, module)?)?;
    module.add_function(wrap_pyfunction!(commands::targets, module)?)?;
    module.add_function(wrap_pyfunction!(commands::verify, module)?)?;
    module.add_function(wrap_pyfunction!(main, module)?)?;
    module.add_function(wrap_pyfunction!(compiled::compile, module)?)?;
    Ok(())
}
