//! A deployable on the simulated DPU: its tensors and cycles, and where they part from a golden dump.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;
use shiftwise_core::model::{DType, Deployable, TensorDesc, TensorId};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_sim::{CycleReport, SimDpu};

use crate::device::Device;
use crate::dump::{self, Comparison, Difference, Type};
use crate::run::{self, Tensors};

/// What came of a simulation.
#[derive(Debug)]
pub struct Simulated {
    /// Every tensor, sample by sample.
    pub tensors: Vec<Tensors>,
    /// The simulator behind the first sample, with its cycles; absent where only values were asked for.
    pub sim: Option<SimDpu>,
}

/// What `simulate` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Simulation {
    /// Folder of the results.
    pub output_dir: PathBuf,
    /// Samples that were run.
    pub samples: usize,
    /// Cycles of a sample; absent where only values were asked for, or the CPU computes everything.
    pub cycles: Option<CycleReport>,
    /// The comparison with a golden dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden: Option<GoldenCheck>,
}

/// How a simulation compares with a golden dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct GoldenCheck {
    /// Tensors that were compared.
    pub tensors: usize,
    /// Their values.
    pub values: u64,
    /// Tensors that differ.
    pub differing_tensors: usize,
}

impl GoldenCheck {
    /// Counts of a comparison.
    pub fn of(compared: &Comparison) -> Self {
        Self { tensors: compared.tensors, values: compared.values, differing_tensors: compared.differences.len() }
    }
}

/// Where a simulation parts from a golden dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The layer, the index and the two values, in words.
    pub words: String,
    /// The instruction and the sums behind the value, in lines, where they are known.
    pub why: Option<String>,
}

/// Runs the first `count` samples on a device, or on the CPU if there is none; `functional` computes values only, in
/// program order. `sample_done` is called after every sample, from any thread.
///
/// Errors: those of the data and of the machine.
pub fn simulate(
    model: &Deployable<'_>,
    device: Option<&Device>,
    samples: &(dyn Samples + Sync),
    (count, functional): (usize, bool),
    sample_done: &(dyn Fn() + Sync),
) -> Result<Simulated, Error> {
    let sample = |index| {
        let inputs = run::input_bytes(model, samples, index)?;
        let mut sim = device.filter(|_| !functional).map(Device::simulator).transpose()?;
        let tensors = match device {
            Some(device) if functional => run::functional(model, &device.target, &inputs)?,
            _ => run::frame(model, sim.as_mut(), &inputs)?,
        };
        sample_done();
        // Cycles do not depend on values: those of the first sample are those of all.
        Ok((tensors, sim.filter(|_| index == 0)))
    };
    let (tensors, mut sims): (Vec<Tensors>, Vec<Option<SimDpu>>) = (0..count)
        .into_par_iter()
        .with_min_len(count.div_ceil(run::together(model)))
        .map(sample)
        .collect::<Result<Vec<_>, Error>>()?
        .into_iter()
        .unzip();
    Ok(Simulated { tensors, sim: sims.first_mut().and_then(Option::take) })
}

/// Explains the first difference from a golden dump.
///
/// Errors: those of the data and of the machine, which runs the sample again.
pub fn first_difference(
    (model, device, samples): (&Deployable<'_>, Option<&Device>, &dyn Samples),
    difference: &Difference,
) -> Result<Parting, Error> {
    let tensor = tensor_of(model, &difference.tensor);
    let layer = tensor.as_ref().map_or_else(|| difference.tensor.clone(), |(_, t)| t.origin.to_owned());
    let Some(first) = &difference.first_difference else {
        let (expected, computed) = difference.values;
        let words = format!("layer {layer}: {computed} values, expected {expected}");
        return Ok(Parting { words, why: None });
    };
    let (name, index) = (&difference.tensor, first.index);
    let values = format!("expected {}, computed {}", first.first, first.second);
    let words = format!("first difference: layer {layer}, {name} at {index}: {values}");
    let Some((id, t)) = tensor else { return Ok(Parting { words, why: None }) };
    if model.inputs().any(|(input, _)| input == id) {
        let words = format!(
            "the inputs differ, the dump is of other samples or another preparation: {name} at {index}: {values}"
        );
        return Ok(Parting { words, why: None });
    }
    let Some(device) = device else { return Ok(Parting { words, why: None }) };
    // A dump holds samples one after the other.
    let elements = (t.bytes() / t.dtype.bytes()).max(1) as usize;
    let inputs = run::input_bytes(model, samples, index / elements)?;
    Ok(Parting { words, why: run::explain(model, device, &inputs, id, index % elements)? })
}

/// The name of a tensor's files in a dump, and its type.
fn file_of(t: &TensorDesc<'_>) -> (String, Type) {
    let kind = match t.dtype {
        DType::F32 => Type::Float,
        DType::Scaled(scale) if scale.is_wide() => Type::Int32,
        DType::I8 | DType::Scaled(_) => Type::Int8,
    };
    (dump::file_name(t.name, kind), kind)
}

/// The types of all tensors, by the names of their files.
pub fn types(model: &Deployable<'_>) -> dump::Types {
    model.tensors().map(|(_, t)| file_of(&t)).collect()
}

/// The tensor behind a dump file's name.
fn tensor_of<'a>(model: &Deployable<'a>, file: &str) -> Option<(TensorId, TensorDesc<'a>)> {
    let name = file.rsplit('/').next()?;
    model.tensors().find(|(_, t)| file_of(t).0 == name)
}
