//! The proof: the same bits in quantizer, simulator and firmware.
//!
//! The golden values are those of the exact engine on the integer form. Each backend's tensors are compared with them by
//! name, every value of every sample.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shiftwise_compile::Program;
use shiftwise_core::model::{DType, Deployable};
use shiftwise_formats::files::sha256;
use shiftwise_graph::error::Error;
use shiftwise_integer::averages::{Averages, Difference};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tensor::values::Values;

use crate::build::{check_grids, program};
use crate::device::Device;
use crate::golden::{DumpOptions, Numerics, golden};
use crate::run::Tensors;
use crate::text::count;
use crate::{averages, dump, run};

/// Every tensor of the integer form, per sample, by name.
pub type Golden = Vec<BTreeMap<String, Values>>;

/// What one backend's tensors showed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Check {
    /// What computed them.
    pub backend: String,
    /// What it was compiled for.
    pub target: String,
    /// Tensors that were compared.
    pub tensors: usize,
    /// Values of all samples that were compared.
    pub values: u64,
    /// Values that are not the golden ones.
    pub mismatches: u64,
    /// Tensors of the backend that the golden dump doesn't have: nothing to compare with.
    pub unknown_tensors: Vec<String>,
    /// The first value that differs, in words.
    pub first_mismatch: Option<String>,
}

impl Check {
    /// Compares every tensor of every sample with the golden one. `first` is the number of the first sample in the run.
    pub fn of(
        (backend, target): (&str, &str),
        model: &Deployable<'_>,
        golden: &Golden,
        samples: &[Tensors],
        first: usize,
    ) -> Self {
        let mut check = Self { backend: backend.into(), target: target.into(), ..Self::default() };
        let mut names = std::collections::BTreeSet::new();
        for (index, (sample, golden)) in samples.iter().zip(golden).enumerate() {
            for (id, bytes) in &sample.0 {
                let Some(t) = model.tensor(*id) else { continue };
                let Some(expected) = golden.get(t.name) else {
                    check.unknown_tensors.push(t.name.into());
                    continue;
                };
                names.insert(t.name);
                let expected = expected.to_bytes();
                let size = t.dtype.bytes() as usize;
                check.values += (expected.len() / size) as u64;
                let pairs = || expected.chunks(size).zip(bytes.chunks(size)).enumerate().filter(|(_, (a, b))| a != b);
                let differing = pairs().count() + expected.len().abs_diff(bytes.len()) / size;
                check.mismatches += differing as u64;
                if differing > 0 && check.first_mismatch.is_none() {
                    let show = |b: &[u8]| match (t.dtype, b) {
                        (DType::I8 | DType::Scaled(_), [b]) => (*b as i8).to_string(),
                        (DType::Scaled(_), [a, b]) => i16::from_le_bytes([*a, *b]).to_string(),
                        (DType::F32, b) => run::floats(b).first().map_or_else(String::new, f32::to_string),
                        _ => "?".into(),
                    };
                    let place = pairs().next().map_or_else(
                        || format!("{} bytes instead of {}", bytes.len(), expected.len()),
                        |(at, (a, b))| format!("index {at}: expected {}, computed {}", show(a), show(b)),
                    );
                    check.first_mismatch =
                        Some(format!("sample {}, layer {}, tensor {}, {place}", first + index, t.origin, t.name));
                }
            }
        }
        check.tensors = names.len();
        check
    }

    /// Whether something was compared, and all of it was equal.
    pub fn holds(&self) -> bool {
        self.mismatches == 0 && self.tensors > 0 && self.unknown_tensors.is_empty()
    }
}

/// A deployable that was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Artefact {
    /// What it was compiled for.
    pub target: String,
    /// Its digest.
    pub sha256: String,
    /// Its size.
    pub bytes: usize,
    /// What the first sample took.
    #[serde(flatten)]
    pub took: Took,
}

/// What a sample takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Took {
    /// Cycles of the DPU.
    Cycles(u64),
    /// Instructions, or ticks of the board's own clock.
    Instructions(u64),
    /// Multiply-accumulates, where nothing else was counted.
    Macs(u64),
}

/// How the vendor's float arithmetic compares with the integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VendorNumerics {
    /// Tensors that its dump shows.
    pub tensors: usize,
    /// Their values.
    pub values: u64,
    /// Values that differ; not a mismatch.
    pub differing_values: usize,
}

/// What `verify` reports and writes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proof {
    /// The result in a sentence.
    pub verdict: String,
    /// Whether every check holds.
    pub holds: bool,
    /// The network's name.
    pub model: String,
    /// Samples that were run.
    pub samples: usize,
    /// One for each backend.
    pub checks: Vec<Check>,
    /// For comparison.
    pub vendor_numerics: VendorNumerics,
    /// What was run.
    pub deployables: Vec<Artefact>,
    /// Digests of the golden tensors, per sample, by name.
    pub golden_sha256: Vec<BTreeMap<String, String>>,
    /// Where it came from: options and inputs.
    pub provenance: Value,
    /// How data is prepared, and what the calibration data looked like.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Averages that the DPU computes otherwise than the vendor's simulation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub averages: Vec<averages::Row>,
}

/// A proof in the making.
#[derive(Debug)]
pub struct Verification<'a> {
    quantized: &'a QuantGraph,
    inputs: Vec<Tensor>,
    /// The integer form.
    pub graph: IntGraph,
    /// What every backend has to compute.
    pub golden: Golden,
    /// Averages that the DPU computes otherwise on these samples.
    pub differences: Vec<Difference>,
    /// What the backends showed so far.
    pub checks: Vec<Check>,
    deployables: Vec<Artefact>,
    /// The number of the first of these samples in the whole run.
    pub first: usize,
}

impl<'a> Verification<'a> {
    /// Computes the golden values; `inputs` are one batch for each input.
    ///
    /// Errors: [`Error::Compile`] for what has no integer form.
    pub fn new(quantized: &'a QuantGraph, inputs: Vec<Tensor>) -> Result<Self, Error> {
        check_grids(quantized)?;
        let graph = lower::lower(quantized)?;
        let averages = Averages::new(quantized, &graph);
        let golden = golden_values(&graph, &inputs, &averages)?;
        let differences = averages.differences();
        Ok(Self {
            quantized,
            inputs,
            graph,
            golden,
            differences,
            checks: Vec::new(),
            deployables: Vec::new(),
            first: 0,
        })
    }

    /// Compiles for a device, so that every tensor is seen.
    ///
    /// Errors: [`Error::Compile`].
    pub fn compile(&self, device: Option<&Device>) -> Result<Program, Error> {
        let mut program = program(&self.graph, device, false, true)?;
        program.metadata = self.quantized.metadata.to_text();
        Ok(program)
    }

    /// The samples as a deployable's inputs.
    ///
    /// Errors: those of the data.
    pub fn input_bytes(&self, model: &Deployable<'_>) -> Result<Vec<Vec<Vec<u8>>>, Error> {
        (0..self.golden.len()).map(|i| run::input_bytes(model, &self.inputs, i)).collect()
    }

    /// Runs a program in the simulator of a device and compares.
    ///
    /// Errors: [`Error::Run`], [`Error::Target`].
    pub fn simulate(&mut self, program: &Program, device: &Device) -> Result<(), Error> {
        let file = program.to_bytes(&[])?;
        let model = parse(&file)?;
        let (tensors, cycles) = simulated(&model, device, &self.input_bytes(&model)?)?;
        self.add("simulator", device.target.name.to_string(), (&model, &file), &tensors, Took::Cycles(cycles));
        Ok(())
    }

    /// Runs a program without a DPU on the kernels that define every board's, and compares.
    ///
    /// Errors: [`Error::Run`].
    pub fn run_on_cpu(&mut self, program: &Program) -> Result<(), Error> {
        let file = program.to_bytes(&[])?;
        let model = parse(&file)?;
        let inputs = self.input_bytes(&model)?;
        let tensors: Vec<Tensors> =
            inputs.par_iter().map(|inputs| run::frame(&model, None, inputs)).collect::<Result<_, _>>()?;
        let macs = program.layers.iter().map(|l| l.macs).sum();
        self.add("kernels", program.target.clone(), (&model, &file), &tensors, Took::Macs(macs));
        Ok(())
    }

    /// Compares what a backend made of a deployable, `(model, its bytes)`.
    pub fn add(
        &mut self,
        backend: &str,
        target: String,
        (model, file): (&Deployable<'_>, &[u8]),
        samples: &[Tensors],
        took: Took,
    ) {
        self.checks.push(Check::of((backend, &target), model, &self.golden, samples, self.first));
        self.deployables.push(Artefact { target, sha256: sha256(file), bytes: file.len(), took });
    }

    /// The proof.
    ///
    /// Errors: those of the vendor's arithmetic, which is run for comparison.
    pub fn proof(self, provenance: Value) -> Result<Proof, Error> {
        let (quantized, name) = (self.quantized, self.graph.name.clone());
        Ok(self.shown()?.proof(quantized, name, provenance))
    }

    /// What these samples have shown.
    ///
    /// Errors: those of the vendor's arithmetic, which is run for comparison.
    pub fn shown(self) -> Result<Shown, Error> {
        let vendor = against_vendor(self.quantized, &self.inputs)?;
        let digests =
            |g: &BTreeMap<String, Values>| g.iter().map(|(name, v)| (name.clone(), sha256(&v.to_bytes()))).collect();
        Ok(Shown {
            samples: self.golden.len(),
            checks: self.checks,
            vendor_numerics: VendorNumerics {
                tensors: vendor.tensors,
                values: vendor.values,
                differing_values: vendor.differences.iter().map(|d| d.differing).sum(),
            },
            deployables: self.deployables,
            golden_sha256: self.golden.iter().map(digests).collect(),
            averages: self.differences.iter().map(|d| (d.layer.clone(), d.steps)).collect(),
        })
    }
}

/// What samples have shown: the numbers of a proof, which those of further samples can be added to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shown {
    samples: usize,
    checks: Vec<Check>,
    vendor_numerics: VendorNumerics,
    deployables: Vec<Artefact>,
    golden_sha256: Vec<BTreeMap<String, String>>,
    /// Layers and steps of averages that the DPU computes otherwise.
    averages: Vec<(String, u32)>,
}

impl Shown {
    /// Adds what further samples have shown.
    ///
    /// Errors: other backends, or programs with other bytes.
    pub fn append(&mut self, more: Self) -> Result<(), Error> {
        let programs = |own: &Self| own.deployables.iter().map(|d| d.sha256.clone()).collect::<Vec<_>>();
        if programs(self) != programs(&more) || self.checks.len() != more.checks.len() {
            return Err(Error::Options("a part was run with other programs".into()));
        }
        self.samples = self.samples.saturating_add(more.samples);
        for (own, more) in self.checks.iter_mut().zip(more.checks) {
            own.tensors = own.tensors.max(more.tensors);
            own.values = own.values.saturating_add(more.values);
            own.mismatches = own.mismatches.saturating_add(more.mismatches);
            own.unknown_tensors.extend(more.unknown_tensors);
            own.first_mismatch = own.first_mismatch.take().or(more.first_mismatch);
        }
        let (own, more_vendor) = (&mut self.vendor_numerics, more.vendor_numerics);
        own.tensors = own.tensors.max(more_vendor.tensors);
        own.values = own.values.saturating_add(more_vendor.values);
        own.differing_values = own.differing_values.saturating_add(more_vendor.differing_values);
        self.golden_sha256.extend(more.golden_sha256);
        self.averages.extend(more.averages);
        Ok(())
    }

    /// The proof of a quantized network whose integer form has this name.
    pub fn proof(self, quantized: &QuantGraph, name: String, provenance: Value) -> Proof {
        let checks = self.checks;
        let mismatches: u64 = checks.iter().map(|c| c.mismatches).fold(0, u64::saturating_add);
        let tensors: usize = checks.iter().map(|c| c.tensors).fold(0, usize::saturating_add);
        let values: u64 = checks.iter().map(|c| c.values).fold(0, u64::saturating_add);
        let parties = ["quantizer".to_owned()].into_iter().chain(checks.iter().map(|c| c.backend.clone()));
        let parties = parties.collect::<Vec<_>>().join(", ");
        let averages = match self.averages.as_slice() {
            [] => Vec::new(),
            some => averages::rows(&averages::joined(quantized, some)),
        };
        Proof {
            verdict: format!("{tensors} tensors, {} values, {mismatches} mismatches across {parties}", count(values)),
            holds: checks.iter().all(Check::holds),
            model: name,
            samples: self.samples,
            checks,
            vendor_numerics: self.vendor_numerics,
            deployables: self.deployables,
            golden_sha256: self.golden_sha256,
            provenance,
            metadata: quantized.metadata.clone(),
            averages,
        }
    }
}

/// Proves a quantized network on a device's simulator; `inputs` are one batch for each input.
///
/// Errors: those of compiling and running. A mismatch is none: see [`Proof::holds`].
pub fn verify(quantized: &QuantGraph, device: &Device, inputs: Vec<Tensor>) -> Result<Proof, Error> {
    let mut verification = Verification::new(quantized, inputs)?;
    let program = verification.compile(Some(device))?;
    verification.simulate(&program, device)?;
    verification.proof(Value::Null)
}

/// The deployable that was just written.
///
/// Errors: [`Error::Compile`]; a program is always one.
pub fn parse(file: &[u8]) -> Result<Deployable<'_>, Error> {
    Deployable::parse(file).map_err(|e| Error::Compile(e.to_string()))
}

fn golden_values(graph: &IntGraph, inputs: &[Tensor], averages: &Averages<'_>) -> Result<Golden, Error> {
    let engine = Engine::new(graph);
    let n = inputs.first().map_or(0, |t| t.shape()[0]);
    let sample = |index| {
        let values = engine.run(engine.sample(inputs, index)?, |_| true);
        averages.see(&values);
        Ok(graph.tensors.iter().zip(values).filter_map(|(t, v)| Some((t.name.clone(), v?))).collect())
    };
    (0..n).into_par_iter().map(sample).collect()
}

/// How the vendor's float arithmetic compares with the integers on the tensors that its dump shows.
fn against_vendor(q: &QuantGraph, inputs: &[Tensor]) -> Result<dump::Comparison, Error> {
    let options = DumpOptions::default();
    let exact = golden(q, Some(inputs.to_vec()), Numerics::Dpu, &options)?;
    let vendor = golden(q, Some(inputs.to_vec()), Numerics::Vendor, &options)?;
    let integers = |d: dump::Dump| {
        let activations = d.activations.into_iter().filter(|t| matches!(t.values, Values::Int8(_))).collect();
        dump::Dump { weights: Vec::new(), activations }
    };
    Ok(dump::compare(&integers(exact), &integers(vendor)))
}

fn simulated(model: &Deployable<'_>, device: &Device, inputs: &[Vec<Vec<u8>>]) -> Result<(Vec<Tensors>, u64), Error> {
    let run = |inputs: &Vec<Vec<u8>>| {
        let mut sim = device.simulator()?;
        let tensors = run::frame(model, Some(&mut sim), inputs)?;
        Ok((tensors, sim.report(model).cycles))
    };
    let all: Vec<(Tensors, u64)> = inputs.par_iter().map(run).collect::<Result<_, Error>>()?;
    let cycles = all.first().map_or(0, |(_, cycles)| *cycles);
    Ok((all.into_iter().map(|(t, _)| t).collect(), cycles))
}
