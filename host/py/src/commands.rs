//! Commands that look at networks and files: each returns the JSON of its report.

use std::path::PathBuf;

use pyo3::prelude::*;
use serde_json::{Map, Value};
use shiftwise::analyze::{Request, analyze as analyzed, glance};
use shiftwise::device::{Device, clock, find_board};
use shiftwise::dump::{self as dumps, Dumped};
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise::report::{Report as Page, Timing};
use shiftwise::verify::Verification;
use shiftwise::{Error, diff as diffs, estimate as estimates, inspect as inspections};
use shiftwise_formats::{LoadOptions, Model as Still, save_quantized, write_file};
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::eval::Samples as _;
use shiftwise_integer::lower;

use crate::error::{Raised, json as text, work};
use crate::model::{Kind, Model, whole};
use crate::quantize::{Calibration, made};
use crate::samples::Source;
use crate::strategy::Strategy;

/// The device of a target or a board; `None` for a board without a DPU.
pub(crate) fn device(target: Option<&str>, board: Option<&str>) -> Result<Option<Device>, Error> {
    match (target, board) {
        (Some(_), Some(_)) => Err(Error::Options("`target` and `board` are both given; one of them is enough".into())),
        (Some(name), None) => Device::named(name).map(Some),
        (None, Some(board)) => Device::of_board(board),
        (None, None) => Ok(None),
    }
}

/// A clock such as `300MHz`, in MHz.
fn megahertz(text: &str) -> Result<u32, Error> {
    clock(text).map_err(|e| Error::Options(format!("`clock` is {text}: {e}")))
}

pub(crate) fn numerics(name: &str) -> Result<Numerics, Error> {
    match name {
        "dpu" => Ok(Numerics::Dpu),
        "vendor" => Ok(Numerics::Vendor),
        other => Err(Error::Options(format!("`numerics` is {other}; dpu or vendor is expected"))),
    }
}

/// Where each layer would run. Returns the report and the inspected network; the files that are named are written.
#[pyfunction]
#[pyo3(signature = (model, strategy, target = None, board = None, text_file = None, plot_file = None, model_file = None, verbose = false))]
#[allow(clippy::too_many_arguments, reason = "the arguments of the vendor's call")]
pub(crate) fn inspect(
    py: Python<'_>,
    model: &Model,
    strategy: &Strategy,
    target: Option<&str>,
    board: Option<&str>,
    text_file: Option<PathBuf>,
    plot_file: Option<PathBuf>,
    model_file: Option<PathBuf>,
    verbose: bool,
) -> PyResult<(String, Vec<String>, Model)> {
    let strategy = strategy.get();
    let (report, summary, quantized) = work(py, &model.raised, || {
        let still = model.still();
        let device = device(target, board)?;
        let layers = match model.layers.is_empty() {
            true => shiftwise_formats::user_layers(model.graph(), None),
            false => model.layers.clone(),
        };
        let inspection = inspections::inspect(&still, &layers, &strategy, device.as_ref())?;
        if let Some(path) = &text_file {
            write_file(path, inspection.text(verbose).as_bytes())?;
        }
        if let Some(path) = &plot_file {
            write_file(path, inspection.svg().as_bytes())?;
        }
        if let Some(path) = &model_file {
            save_quantized(&inspection.quantized, path)?;
        }
        Ok((text(&inspection)?, inspection.summary(verbose), inspection.quantized))
    })?;
    Ok((report, summary, model.with(Kind::Still(Still::Quantized(quantized)))))
}

/// Writes every tensor of a quantized network in the vendor's layout.
#[pyfunction]
#[pyo3(signature = (model, output_dir, data = None, dump_float = false, weights_only = false, samples = 1, numerics = "vendor"))]
#[allow(clippy::too_many_arguments, reason = "the flags of the command")]
pub(crate) fn dump(
    py: Python<'_>,
    model: &Model,
    output_dir: PathBuf,
    data: Option<&Bound<'_, PyAny>>,
    dump_float: bool,
    weights_only: bool,
    samples: usize,
    numerics: &str,
) -> PyResult<String> {
    let source = data.map(|data| Source::new(data, model.graph(), &model.raised)).transpose()?;
    work(py, &model.raised, || {
        let quantized = match &model.kind {
            // Converted instead of quantized: a dump of such a network has floats or nothing.
            Kind::Still(Still::Float(graph)) if graph.nodes.iter().any(|node| node.dtype != Dtype::Float32) => {
                std::borrow::Cow::Owned(whole(graph))
            }
            Kind::Still(_) | Kind::Training(_) => model.quantized()?,
        };
        let inputs = match (&source, weights_only) {
            (_, true) => None,
            (Some(own), false) if own.len() > 0 => Some(own.batch(0, samples.clamp(1, own.len()))?),
            (Some(_) | None, false) => {
                return Err(Error::Dataset("a dump of activations needs samples: `dataset` has none".into()));
            }
        };
        let options = DumpOptions { float: dump_float, weights_only, vendor_gaps: false };
        let all = golden(&quantized, inputs, self::numerics(numerics)?, &options)?;
        dumps::write(&output_dir, &all, true)?;
        let values = all.weights.iter().chain(&all.activations).map(|t| t.values.len()).sum();
        let (weights, activations) = (all.weights.len(), all.activations.len());
        text(&Dumped { output_dir, weights, activations, values })
    })
}

/// Compares two folders of dumps.
#[pyfunction]
pub(crate) fn compare(py: Python<'_>, first: PathBuf, second: PathBuf) -> PyResult<(String, bool)> {
    work(py, &Raised::default(), || {
        let (first, second) = dumps::read_both(&first, &second)?;
        let result = dumps::compare(&first, &second);
        Ok((text(&result)?, result.is_equal() && result.is_whole()))
    })
}

/// How fast a network will be.
#[pyfunction]
#[pyo3(signature = (model, target = None, board = None, clock = None, cores = None, trace = None))]
pub(crate) fn estimate(
    py: Python<'_>,
    model: &Model,
    target: Option<&str>,
    board: Option<&str>,
    clock: Option<&str>,
    cores: Option<u32>,
    trace: Option<PathBuf>,
) -> PyResult<String> {
    work(py, &model.raised, || {
        let device = device(target, board)?;
        let (quantized, _) = estimates::timed(model.still().into_owned())?;
        let graph = lower::lower(&quantized)?;
        let Some(mut device) = device else {
            if cores.is_some() || trace.is_some() {
                let text = "`cores` and `trace` are for a DPU: name one by `target`, or its board";
                return Err(Error::Options(text.into()));
            }
            let board = board.map(find_board).transpose()?;
            let estimated = estimates::estimate_cpu(&graph, board.as_ref())?;
            return text(&estimated.report(board.as_ref(), clock.map(megahertz).transpose()?));
        };
        if let Some(clock) = clock {
            device.clock_mhz = megahertz(clock)?;
        }
        if let Some(cores) = cores {
            if !(1..=16).contains(&cores) {
                return Err(Error::Options(format!("`cores` is {cores}; 1 to 16 are expected")));
            }
            device.cores = cores;
        }
        let estimated = estimates::estimate(&graph, &device)?;
        if let Some(path) = &trace {
            write_file(path, estimated.times.trace.as_bytes())?;
        }
        text(&estimated.report(&device))
    })
}

/// Where quantization hurts. Returns the report and the strategy that is proposed, if one is.
#[pyfunction]
#[pyo3(signature = (model, strategy, data, batch_size = 32, steps = None, seed = 0, samples = 32, measured = None, for_dpu = false, remedies = true))]
#[allow(clippy::too_many_arguments, reason = "the flags of the command")]
pub(crate) fn analyze(
    py: Python<'_>,
    model: &Model,
    strategy: &Strategy,
    data: &Bound<'_, PyAny>,
    batch_size: usize,
    steps: Option<usize>,
    seed: u64,
    samples: usize,
    measured: Option<&Bound<'_, PyAny>>,
    for_dpu: bool,
    remedies: bool,
) -> PyResult<(String, Option<String>)> {
    let calibration = Calibration::new(model, strategy.get(), (Some(data), batch_size, steps), seed, None)?;
    let own = measured.map(|own| Source::new(own, model.graph(), &model.raised)).transpose()?;
    work(py, &model.raised, || {
        let graph = model.float()?;
        let quantized = made(model, &calibration)?.quantized;
        let source = calibration.samples.as_ref().ok_or_else(|| Error::Dataset("an analysis needs data".into()))?;
        let request = Request {
            graph,
            options: &calibration.options,
            quantized: &quantized,
            calibration: source,
            samples: own.as_ref().unwrap_or(source),
            most: samples,
            remedies,
            for_dpu,
            effects: true,
            labels: None,
        };
        let (analysis, strategy) = analyzed(&request)?;
        Ok((text(&analysis)?, strategy.map(|own| own.dump(2))))
    })
}

/// What differs between two files.
#[pyfunction]
pub(crate) fn diff(py: Python<'_>, a: PathBuf, b: PathBuf) -> PyResult<String> {
    work(py, &Raised::default(), || text(&diffs::diff(&a, &b, &LoadOptions::default())?.0))
}

/// What a file is.
#[pyfunction]
pub(crate) fn info(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    work(py, &Raised::default(), || text(&shiftwise::info::info(&path, &LoadOptions::default())?))
}

/// All targets and boards, or one.
#[pyfunction]
#[pyo3(signature = (name = None))]
pub(crate) fn targets(py: Python<'_>, name: Option<&str>) -> PyResult<String> {
    work(py, &Raised::default(), || match name {
        Some(name) => text(&shiftwise::targets::one(name)?),
        None => text(&shiftwise::targets::list()),
    })
}

/// The proof that quantizer, simulator and kernels compute the same bits.
#[pyfunction]
#[pyo3(signature = (model, data, target = None, board = None, samples = 1))]
pub(crate) fn verify(
    py: Python<'_>,
    model: &Model,
    data: &Bound<'_, PyAny>,
    target: Option<&str>,
    board: Option<&str>,
    samples: usize,
) -> PyResult<(String, bool)> {
    let source = Source::new(data, model.graph(), &model.raised)?;
    work(py, &model.raised, || {
        if source.is_empty() {
            return Err(Error::Dataset("the data has no samples".into()));
        }
        let device = device(target, board)?;
        let quantized = model.quantized()?;
        let mut verification = Verification::new(&quantized, source.batch(0, samples.clamp(1, source.len()))?)?;
        let program = verification.compile(device.as_ref())?;
        match &device {
            Some(device) => verification.simulate(&program, device)?,
            None => verification.run_on_cpu(&program)?,
        }
        let proof = verification.proof(Value::Null)?;
        Ok((text(&proof)?, proof.holds))
    })
}

/// A page about a network: where its layers run, how long they take, where accuracy goes. Returns the report and the page.
#[pyfunction]
#[pyo3(signature = (model, strategy, output = None, target = None, board = None, data = None, batch_size = 32, steps = None))]
#[allow(clippy::too_many_arguments, reason = "the flags of the command")]
pub(crate) fn report(
    py: Python<'_>,
    model: &Model,
    strategy: &Strategy,
    output: Option<PathBuf>,
    target: Option<&str>,
    board: Option<&str>,
    data: Option<&Bound<'_, PyAny>>,
    batch_size: usize,
    steps: Option<usize>,
) -> PyResult<(String, String)> {
    let calibration = Calibration::new(model, strategy.get(), (data, batch_size, steps), 0, None)?;
    work(py, &model.raised, || {
        let (still, device) = (model.still(), device(target, board)?);
        let strategy = &calibration.options.strategy;
        let inspection = inspections::inspect(&still, &model.layers, strategy, device.as_ref())?;
        let timing = match &device {
            Some(device) => {
                let (quantized, _) = estimates::timed(still.as_ref().clone())?;
                Some(Timing::of(&estimates::estimate(&lower::lower(&quantized)?, device)?, device)?)
            }
            None => None,
        };
        let analysis = match (&calibration.samples, still.as_ref()) {
            (Some(samples), Still::Float(graph)) => {
                Some(glance(graph, &calibration.options, &made(model, &calibration)?.quantized, samples)?)
            }
            (Some(_), Still::Quantized(_)) | (None, _) => None,
        };
        let provenance = shiftwise::provenance::provenance(&Map::new(), &[])?;
        let page = Page { output: output.clone().unwrap_or_default(), inspection, timing, analysis, provenance };
        let html = page.html();
        if let Some(path) = &output {
            write_file(path, html.as_bytes())?;
        }
        Ok((text(&page)?, html))
    })
}
