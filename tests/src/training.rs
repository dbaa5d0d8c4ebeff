//! The vendor's runs of quantization-aware training, made again: every variable after every step, losses, the deployed
//! network and what it computes.

use std::path::Path;

use ndarray_npy::NpzReader;
use serde_json::Value;
use shiftwise_formats::{self as format, LoadOptions, training_variables};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples as _;
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::pipeline::PtqOptions;
use shiftwise_quant::qat::{DeployOptions, Qat, deploy, initialize, prepare};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_train::conv_norm::Correction;
use shiftwise_train::loss::{Loss, Target};
use shiftwise_train::optim::{Optimizer, Settings};
use shiftwise_train::trainer::{Goal, Options, Trainer};

use crate::golden::{Outcome, array, results};

/// A variable: its path in the file, shape and values.
pub type Variable = (String, Vec<usize>, Vec<f32>);

/// What is compared of a case.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// What differs, in sentences.
    pub differences: Vec<String>,
    /// Variables compared, over all steps.
    pub variables: usize,
    /// The largest difference of a variable, in parts of its range.
    pub largest: f64,
}

/// The settings of a training case; `None` for another.
pub fn config(case: &Path) -> Option<Value> {
    let config: Value = serde_json::from_str(&std::fs::read_to_string(case.join("config.json")).ok()?).ok()?;
    (config["mode"] == "qat" && config["train"].is_object()).then_some(config)
}

/// The variables that a case has after a step, in the file's order.
pub fn recorded(case: &Path, step: usize) -> Option<Vec<Variable>> {
    let mut npz = NpzReader::new(std::fs::File::open(case.join(format!("weights_step{step}.npz"))).ok()?).ok()?;
    let mut names = npz.names().ok()?;
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let path = name.split_once('|').map_or(name.as_str(), |(_, path)| path).trim_end_matches(".npy").to_owned();
        let (shape, values) = match npz.by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(&name) {
            Ok(a) => (a.shape().to_vec(), a.iter().copied().collect()),
            Err(_) => {
                let a = npz.by_name::<ndarray::OwnedRepr<i32>, ndarray::IxDyn>(&name).ok()?;
                (a.shape().to_vec(), a.iter().map(|v| *v as f32).collect())
            }
        };
        all.push((path, shape, values));
    }
    Some(all)
}

/// Compares variables; `allowed` is a part of a variable's range. Counts of histograms may move at an edge.
fn compare(step: usize, ours: &[Variable], theirs: &[Variable], allowed: f64, into: &mut Comparison) {
    let names = |all: &[Variable]| all.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    if names(ours) != names(theirs) {
        let (a, b) = (names(ours), names(theirs));
        let first = a.iter().zip(&b).find(|(a, b)| a != b);
        into.differences.push(format!("step {step}: {} variables and not {}, first {first:?}", a.len(), b.len()));
        return;
    }
    for ((name, shape, a), (_, wanted, b)) in ours.iter().zip(theirs) {
        into.variables += 1;
        if shape != wanted {
            into.differences.push(format!("step {step}: {name} has shape {shape:?} and not {wanted:?}"));
            continue;
        }
        if name.ends_with("calib_hist:0") {
            let moved: f32 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
            if moved > 4.0 {
                into.differences.push(format!("step {step}: {name}: {moved} counts elsewhere"));
            }
            continue;
        }
        let largest = b.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        // A threshold is the logarithm of a range: what matters of it is absolute.
        let range = f64::from(largest.max(if name.ends_with("_log_th:0") { 1.0 } else { 1e-12 }));
        let worst = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max) / range;
        into.largest = into.largest.max(worst);
        let exact = name.ends_with("_pos:0") || name.ends_with("optimizer_step:0");
        if worst > if exact { 0.0 } else { allowed } || a.iter().any(|v| v.is_nan()) {
            into.differences.push(format!("step {step}: {name} differs by {worst:.1e} of its range"));
        }
    }
}

/// Compares outputs of an untrained or trained network outside training.
fn outputs(qat: &Qat, case: &Path, name: &str, into: &mut Comparison) -> Result<(), Error> {
    let (Some(input), Some(theirs)) = (array(&case.join("input.npy")), array(&case.join(name))) else { return Ok(()) };
    let ours = run_vendor(&qat.folded(), vec![input])?;
    let differ = |a: f32, b: f32| (a - b).abs() > 1e-5 * b.abs().max(1.0);
    let n = ours[0].data().iter().zip(theirs.data()).filter(|(a, b)| differ(**a, **b)).count();
    if n > 0 {
        into.differences.push(format!("{name}: {n} of {} values", theirs.data().len()));
    }
    Ok(())
}

/// The network of a case before its first step.
pub fn untrained(case: &Path, config: &Value) -> Result<Qat, Error> {
    let mut strategy = Strategy::built_in(config["strategy"].as_str().unwrap_or_default())?;
    let mut init = false;
    for (key, value) in config["quantize_kwargs"].as_object().into_iter().flatten() {
        match key.as_str() {
            "init_quant" => init = value == true,
            key => drop(strategy.set(key, value.clone())?),
        }
    }
    let graph = format::load(&case.join("model.h5"), &LoadOptions::default())?;
    let (mut qat, _) = prepare(graph, &strategy)?;
    if init {
        let calib: Vec<Tensor> = array(&case.join("calib.npy")).into_iter().collect();
        let batch_size = config["calib_batch_size"].as_u64().map_or(32, |b| b as usize);
        initialize(&mut qat, &calib, &PtqOptions { strategy, batch_size, steps: None }, |_, _| {})?;
    }
    Ok(qat)
}

/// Trains a case's network again and compares everything.
pub fn check(case: &Path) -> Option<Result<Comparison, Error>> {
    let config = config(case)?;
    Some(train(case, &config))
}

fn train(case: &Path, config: &Value) -> Result<Comparison, Error> {
    let mut found = Comparison::default();
    let qat = untrained(case, config)?;
    if let Some(theirs) = recorded(case, 0) {
        compare(0, &training_variables(&qat), &theirs, 1e-6, &mut found);
    }
    outputs(&qat, case, "qat_output_step0.npy", &mut found)?;
    let train = &config["train"];
    let name = train["optimizer"].as_str().unwrap_or("sgd").to_lowercase();
    let options = Options {
        optimizer: Optimizer::find(&name).ok_or_else(|| Error::Options(format!("optimizer {name}")))?,
        settings: Settings { rate: train["lr"].as_f64().unwrap_or(0.0), momentum: 0.0, weight_decay: None },
        threshold_rate: None,
        correction: Correction::Vendor,
        goals: vec![Loss::find("mse").map(|loss| Goal { loss, weight: 1.0 })],
        seed: 0,
    };
    let data: Vec<Tensor> = array(&case.join("calib.npy")).into_iter().collect();
    let labels: Vec<Tensor> = array(&case.join("train_y.npy")).into_iter().collect();
    let size = config["calib_batch_size"].as_u64().map_or(32, |b| b as usize);
    let mut trainer = Trainer::new(qat, options);
    for (k, loss) in train["losses"].as_array().into_iter().flatten().enumerate() {
        // The vendor's run goes round its data.
        let samples = data.first().map_or(1, |x| x.shape()[0]);
        let start = k * size % samples;
        let count = size.min(samples - start);
        let target = labels.batch(start, count)?.into_iter().next().map(Target::Values);
        let own = trainer.step(data.batch(start, count)?, &[target])?;
        let theirs = loss.as_f64().unwrap_or(f64::NAN);
        if (own - theirs).abs() > 1e-5 * theirs.abs() {
            found.differences.push(format!("step {}: the loss is {own} and not {theirs}", k + 1));
        }
        if let Some(theirs) = recorded(case, k + 1) {
            let allowed = if k < 2 { 1e-5 } else { 1e-4 };
            compare(k + 1, &training_variables(trainer.qat()), &theirs, allowed, &mut found);
        }
    }
    outputs(trainer.qat(), case, "qat_output.npy", &mut found)?;
    let deployed = deploy(trainer.qat(), &DeployOptions::default())?;
    if config["status"] == "ok" {
        let input: Vec<Tensor> = array(&case.join("input.npy")).into_iter().collect();
        if let Outcome::Differs(all) = results(&deployed.quantized, input, case, config, true)? {
            found.differences.extend(all.into_iter().map(|text| format!("deployed: {text}")));
        }
    }
    Ok(found)
}
