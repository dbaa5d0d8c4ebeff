//! Float networks in; quantized ones, and ones to be trained, out.

use pyo3::prelude::*;
use serde_json::json;
use shiftwise::Error;
use shiftwise::dataset::Observed;
use shiftwise::deployment::adjusted;
use shiftwise_formats::{self as format, Model as Still};
use shiftwise_quant::finetune::Finetuned;
use shiftwise_quant::passes::dead::DeadChannels;
use shiftwise_quant::pipeline::{PtqOptions, ptq, ptq_with};
use shiftwise_quant::qat::{DeployOptions, deploy as deployed, initialize, prepare as prepared};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy as Own;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::finetune;
use shiftwise_train::finetune::Finetuner;

use crate::error::{Raised, work};
use crate::model::{Kind, Model};
use crate::samples::{Source, tell};
use crate::strategy::Strategy;

/// A quantized network and what happened on the way.
pub(crate) struct Made {
    pub(crate) quantized: QuantGraph,
    warnings: Vec<String>,
    dead_channels: Vec<DeadChannels>,
    finetuned: Vec<Finetuned>,
}

/// Data and how it is taken.
pub(crate) struct Calibration {
    pub(crate) samples: Option<Source>,
    pub(crate) options: PtqOptions,
    pub(crate) seed: u64,
    pub(crate) progress: Option<Py<PyAny>>,
    pub(crate) raised: Raised,
}

/// The quantized form of a float network, as the command `quantize` makes it.
pub(crate) fn made(model: &Model, calibration: &Calibration) -> Result<Made, Error> {
    let graph = model.float()?.clone();
    let Calibration { samples, options, seed, progress, raised } = calibration;
    let of_reader = graph.warnings.clone();
    let all = |warnings: Vec<String>| of_reader.into_iter().chain(warnings).collect();
    if !options.strategy.needs_data()? {
        let none: Vec<Tensor> = Vec::new();
        let result = ptq(graph, &none, options, |_, _| ())?;
        let warnings = all(result.warnings);
        let (dead_channels, finetuned) = (Vec::new(), Vec::new());
        return Ok(Made { quantized: result.quantized, warnings, dead_channels, finetuned });
    }
    let samples = samples.as_ref().ok_or_else(no_data)?;
    let names: Vec<String> = graph.inputs.iter().map(|id| graph.node(*id).name.clone()).collect();
    let observed = Observed::new(samples, names.iter().map(String::as_str));
    let told = progress.as_ref();
    let mut layers = |done: usize, total: usize| tell(told, raised, done, total);
    let mut finetuner = Finetuner { seed: *seed, memory: finetune::MEMORY, progress: &mut layers };
    let result = ptq_with(graph, &observed, options, &mut finetuner, |done, total| tell(told, raised, done, total))?;
    let mut quantized = result.quantized;
    quantized.metadata.inputs = observed.statistics();
    let mut warnings = result.warnings;
    for input in quantized.metadata.inputs.iter().filter(|input| input.is_zero()) {
        warnings.push(format!("input `{}`: every value of the calibration data is 0", input.name));
    }
    let warnings = all(warnings);
    Ok(Made { quantized, warnings, dead_channels: result.dead_channels, finetuned: result.finetuned })
}

fn no_data() -> Error {
    Error::Dataset("calibration needs data, and `calib_dataset` is None".into())
}

impl Calibration {
    pub(crate) fn new(
        model: &Model,
        strategy: Own,
        (data, batch_size, steps): (Option<&Bound<'_, PyAny>>, usize, Option<usize>),
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let raised = model.raised.clone();
        let samples = data.map(|data| Source::new(data, model.graph(), &raised)).transpose()?;
        let options = PtqOptions { strategy, batch_size: batch_size.max(1), steps };
        Ok(Self { samples, options, seed, progress, raised })
    }
}

/// Quantizes a float network. Returns the network and a report as JSON.
#[pyfunction]
#[pyo3(signature = (model, strategy, data = None, batch_size = 32, steps = None, seed = 0, progress = None))]
#[allow(clippy::too_many_arguments, reason = "the arguments of the vendor's call")]
pub(crate) fn quantize(
    py: Python<'_>,
    model: &Model,
    strategy: &Strategy,
    data: Option<&Bound<'_, PyAny>>,
    batch_size: usize,
    steps: Option<usize>,
    seed: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Model, String)> {
    let calibration = Calibration::new(model, strategy.get(), (data, batch_size, steps), seed, progress)?;
    let (quantized, report) = work(py, &model.raised, || {
        let made = made(model, &calibration)?;
        // What is written is read again, so that no result is one that other programs refuse.
        let path = std::path::Path::new("quantized.h5");
        let bytes = format::quantized_bytes(&made.quantized, path)?;
        format::read_back(&made.quantized, &bytes, path, &model.load_options())?;
        let report = json!({
            "quantize_info": format::quantize_info(&made.quantized),
            "warnings": made.warnings,
            "dead_channels": made.dead_channels,
            "finetuned": made.finetuned,
        });
        Ok((made.quantized, report.to_string()))
    })?;
    Ok((model.with(Kind::Still(Still::Quantized(quantized))), report))
}

/// Prepares a float network for training with quantizers; with data, every quantizer begins where calibration leaves it.
/// Returns the network and warnings.
#[pyfunction]
#[pyo3(signature = (model, strategy, data = None, batch_size = 32, steps = None, progress = None))]
pub(crate) fn prepare(
    py: Python<'_>,
    model: &Model,
    strategy: &Strategy,
    data: Option<&Bound<'_, PyAny>>,
    batch_size: usize,
    steps: Option<usize>,
    progress: Option<Py<PyAny>>,
) -> PyResult<(Model, Vec<String>)> {
    let calibration = Calibration::new(model, strategy.get(), (data, batch_size, steps), 0, progress)?;
    let Calibration { samples, options, progress, raised, .. } = &calibration;
    let (qat, warnings) = work(py, &model.raised, || {
        let (mut qat, warnings) = prepared(model.float()?.clone(), &options.strategy)?;
        if let Some(samples) = samples {
            initialize(&mut qat, samples, options, |done, total| tell(progress.as_ref(), raised, done, total))?;
        }
        Ok((qat, warnings))
    })?;
    Ok((model.with(Kind::Training(Box::new(qat))), warnings))
}

/// Turns a trained network into what runs. Returns the network and the adjusted positions as JSON.
#[pyfunction]
#[pyo3(signature = (model, to_pof2s = true, to_fs = false, fix_neuron = false))]
pub(crate) fn deploy(
    py: Python<'_>,
    model: &Model,
    to_pof2s: bool,
    to_fs: bool,
    fix_neuron: bool,
) -> PyResult<(Model, String)> {
    let (quantized, report) = work(py, &model.raised, || {
        let Kind::Training(qat) = &model.kind else {
            let what = "is not in training: `get_qat_model` makes such a model of a float one";
            return Err(Error::wrong_kind(std::path::Path::new("the model"), what));
        };
        let made = deployed(qat, &DeployOptions { to_pof2s, to_fs, fix_neuron })?;
        let report = crate::error::json(&adjusted(&made))?;
        Ok((made.quantized, report))
    })?;
    Ok((model.with(Kind::Still(Still::Quantized(quantized))), report))
}
