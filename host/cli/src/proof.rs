//! `shiftwise verify`: the same bits in quantizer, simulator and firmware.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shiftwise::dump;
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_core::model::{DType, Deployable};
use shiftwise_formats as format;
use shiftwise_graph::error::Error;
use shiftwise_integer::averages::Averages;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::engine::Value as TensorValue;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::command::Outcome;
use crate::data::{ModelArgs, Preprocess, take};
use crate::quantize::{Recipe, pretty};
use crate::screen::{Screen, count};
use crate::{averages, boards, data};
use shiftwise::build::program;
use shiftwise::device::Device;
use shiftwise::run;
use shiftwise::run::Tensors;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    recipe: Recipe,
    /// Data to run: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// DPU to compile for and simulate: a name, a fingerprint, an arch.json
    #[arg(long, value_name = "TARGET")]
    target: String,
    /// Also run the firmware on this board: qemu:NAME or serial:PATH
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
    /// Samples to run, from the first
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = crate::command::positive())]
    samples: usize,
    /// Proof to write
    #[arg(short, long, default_value = "proof.json", value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// Every tensor of the integer form, per sample, by name.
type Golden = Vec<BTreeMap<String, TensorValue>>;

/// What one backend's tensors showed.
#[derive(Debug, Default)]
struct Check {
    backend: String,
    target: String,
    tensors: usize,
    values: u64,
    mismatches: u64,
    /// Tensors of the backend that the golden dump doesn't have: nothing to compare with.
    unknown: Vec<String>,
    first: Option<String>,
}

impl Check {
    /// Compares every tensor of every sample with the golden one.
    fn run(backend: &str, target: &str, model: &Deployable<'_>, golden: &Golden, samples: &[Tensors]) -> Self {
        let mut check = Self { backend: backend.into(), target: target.into(), ..Self::default() };
        let mut names = std::collections::BTreeSet::new();
        for (index, (sample, golden)) in samples.iter().zip(golden).enumerate() {
            for (id, bytes) in &sample.0 {
                let Some(t) = model.tensor(*id) else { continue };
                let Some(expected) = golden.get(t.name) else {
                    check.unknown.push(t.name.into());
                    continue;
                };
                names.insert(t.name);
                let expected = expected.to_bytes();
                let size = t.dtype.bytes() as usize;
                check.values += (expected.len() / size) as u64;
                let pairs = || expected.chunks(size).zip(bytes.chunks(size)).enumerate().filter(|(_, (a, b))| a != b);
                let differing = pairs().count() + expected.len().abs_diff(bytes.len()) / size;
                check.mismatches += differing as u64;
                if differing > 0 && check.first.is_none() {
                    let show = |b: &[u8]| match (t.dtype, b) {
                        (DType::I8, [b]) => (*b as i8).to_string(),
                        (DType::F32, b) => run::floats(b).first().map_or_else(String::new, f32::to_string),
                        _ => "?".into(),
                    };
                    let place = pairs().next().map_or_else(
                        || format!("{} bytes instead of {}", bytes.len(), expected.len()),
                        |(at, (a, b))| format!("index {at}: expected {}, computed {}", show(a), show(b)),
                    );
                    check.first = Some(format!("sample {index}, layer {}, tensor {}, {place}", t.origin, t.name));
                }
            }
        }
        check.tensors = names.len();
        check
    }

    fn holds(&self) -> bool {
        self.mismatches == 0 && self.tensors > 0 && self.unknown.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "backend": self.backend, "target": self.target, "tensors": self.tensors, "values": self.values,
            "mismatches": self.mismatches, "unknown_tensors": self.unknown, "first_mismatch": self.first,
        })
    }

    fn say(&self, screen: &Screen) {
        let what = format!("{} ({}):", self.backend, self.target);
        screen.say(format!(
            "{what:<52} {} tensors, {} values, {} mismatches",
            self.tensors,
            count(self.values),
            self.mismatches
        ));
        if let Some(first) = &self.first {
            screen.say(format!("  first: {first}"));
        }
        for name in &self.unknown {
            screen.say(format!("  tensor {name} is not in the golden dump"));
        }
    }
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
        let activations = d.activations.into_iter().filter(|t| matches!(t.values, dump::Values::Int8(_))).collect();
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

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let (calib, run) = (args.recipe.calib_files(), data::files(&args.data));
    let inputs = args.model.files().chain(&calib).chain(&run).map(PathBuf::as_path);
    data::keep(inputs, &[&args.output])?;
    // Bad names fail before the work, not after it.
    let dpu = Device::named(&args.target)?;
    let board = args.board.as_deref().map(|b| Ok::<_, Error>((boards::spec(b)?, b))).transpose()?;
    let (quantized, _) =
        args.recipe.quantize(args.recipe.open(&args.model, &args.preprocess, screen)?, &args.preprocess, screen)?;
    let samples = args.preprocess.for_graph(&args.data, &quantized.graph)?;
    let total = shiftwise_graph::eval::Samples::len(&samples);
    let inputs = take(&samples, Some(args.samples))?;
    let graph = lower::lower(&quantized)?;
    let averages = Averages::new(&quantized, &graph);
    let golden = golden_values(&graph, &inputs, &averages)?;
    let differences = averages.differences();
    averages::tell(&differences, screen);
    let n = golden.len();
    let file = args.model.path.file_name().map_or_else(|| graph.name.clone(), |n| n.to_string_lossy().into_owned());
    screen.say(format!("{file}: {n} of {total} samples (--samples for more)"));

    let mut checks = Vec::new();
    let compiled = program(&graph, Some(&dpu), false, true)?;
    for layer in compiled.layers.iter().filter_map(|l| Some(format!("{}: {}", l.layer, l.reason.as_ref()?))) {
        screen.detail(format!("on the CPU: {layer}"));
    }
    let file = compiled.to_bytes(&[])?;
    let model = run::parse(&args.output, &file)?;
    let bytes = (0..n).map(|i| run::input_bytes(&model, &samples, i)).collect::<Result<Vec<_>, _>>()?;
    let (tensors, cycles) = simulated(&model, &dpu, &bytes)?;
    checks.push(Check::run("simulator", &dpu.target.name, &model, &golden, &tensors));

    let mut artefacts = vec![
        json!({ "target": dpu.target.name.as_str(), "sha256": sha256(&file), "bytes": file.len(), "cycles": cycles }),
    ];
    if let Some((spec, name)) = &board {
        // A board without a DPU runs the same network on its CPU; `serial:` boards are such until they say otherwise.
        let own = match spec {
            shiftwise_board::BoardSpec::Qemu(_) => Device::of_board(name)?,
            shiftwise_board::BoardSpec::Serial(_) => None,
        };
        let file = program(&graph, own.as_ref(), false, true)?.to_bytes(&[])?;
        let model = run::parse(&args.output, &file)?;
        let bytes = (0..n).map(|i| run::input_bytes(&model, &samples, i)).collect::<Result<Vec<_>, _>>()?;
        let session = boards::session(spec, &file, bytes, screen)?;
        let tensors: Vec<Tensors> = session.samples.iter().map(boards::tensors).collect();
        let target = format!("{} on {name}", model.facts().target);
        checks.push(Check::run("firmware", &target, &model, &golden, &tensors));
        let instructions: u64 = session.samples.first().map_or(0, |s| s.steps.iter().sum());
        artefacts.push(
            json!({ "target": target, "sha256": sha256(&file), "bytes": file.len(), "instructions": instructions }),
        );
    }
    let vendor = against_vendor(&quantized, &inputs)?;

    checks.iter().for_each(|c| c.say(screen));
    let differing: usize = vendor.differences.iter().map(|d| d.count).sum();
    screen.say(format!(
        "{:<52} {} tensors, {} values, {differing} differ{}",
        "for comparison, the vendor's float arithmetic:",
        vendor.tensors,
        count(vendor.values),
        if differing == 0 {
            ""
        } else {
            " (not a mismatch: another operation at padded averages, or sums beyond 2^24)"
        },
    ));
    let yes = checks.iter().all(Check::holds);
    let mismatches: u64 = checks.iter().map(|c| c.mismatches).sum();
    let tensors: usize = checks.iter().map(|c| c.tensors).sum();
    let values: u64 = checks.iter().map(|c| c.values).sum();
    let parties = ["quantizer".to_owned()].into_iter().chain(checks.iter().map(|c| c.backend.clone()));
    let parties = parties.collect::<Vec<_>>().join(", ");
    let verdict = format!("{tensors} tensors, {} values, {mismatches} mismatches across {parties}", count(values));
    let digests = |g: &BTreeMap<String, TensorValue>| {
        g.iter().map(|(name, v)| (name.clone(), json!(sha256(&v.to_bytes())))).collect::<serde_json::Map<_, _>>()
    };
    let mut proof = json!({
        "verdict": verdict,
        "holds": yes,
        "model": graph.name,
        "samples": n,
        "checks": checks.iter().map(Check::to_json).collect::<Vec<_>>(),
        "vendor_numerics": { "tensors": vendor.tensors, "values": vendor.values, "differing_values": differing },
        "deployables": artefacts,
        "golden_sha256": golden.iter().map(digests).collect::<Vec<_>>(),
        "provenance": provenance(args)?,
    });
    averages::add(&differences, &mut proof);
    format::write_file(&args.output, pretty(&proof).as_bytes())?;
    screen.say(verdict);
    screen.note(format!("proof in {}", args.output.display()));
    Ok(Outcome { json: proof, yes })
}

fn provenance(args: &Args) -> Result<Value, Error> {
    let mut provenance = args.recipe.provenance(&args.model)?;
    let data = data::files(&args.data);
    let inputs: Vec<(&str, &Path)> = data.iter().map(|p| ("data", p.as_path())).collect();
    let of_data = shiftwise::provenance::provenance(&serde_json::Map::new(), &inputs)?;
    if let (Some(all), Some(more)) = (provenance["inputs"].as_array_mut(), of_data["inputs"].as_array()) {
        all.extend(more.iter().cloned());
    }
    Ok(provenance)
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
