//! Checkpoints: a folder with the network in the vendor's layout, the best one so far, and the state of the optimizer.
//!
//! The state is a file of little-endian numbers: a count and as many values for each list. Losses are kept as they are, not
//! as text, so that a run which goes on ends with the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use shiftwise_formats::files::{Manifest, Set};
use shiftwise_formats::{LoadOptions, load_training, training_bytes};
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::qat::Qat;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_train::trainer::Trainer;

use super::{Epoch, History, Progress};

/// The folder's manifest.
const MANIFEST: &str = "checkpoint.json";
const NETWORK: &str = "network.h5";
const BEST: &str = "best.h5";
const STATE: &str = "state.bin";

/// What a run goes on from.
#[derive(Debug)]
pub struct Checkpoint {
    /// The network.
    pub qat: Qat,
    /// Steps that were made.
    pub steps: u64,
    /// The optimizer's state.
    pub state: Vec<Vec<f32>>,
    /// Everything else.
    pub progress: Progress,
}

/// Writes a checkpoint; an older one in the folder is replaced. `about` is what decides the run's numbers.
pub fn write(dir: &Path, trainer: &Trainer, progress: &Progress, about: &Value) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let mut list = |values: &[f64]| {
        bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|v| bytes.extend(v.to_le_bytes()));
    };
    let history = &progress.history;
    let merit = progress.best.as_ref().map_or(f64::NAN, |(merit, _)| *merit);
    let best_epoch = history.best_epoch.unwrap_or(0) as f64;
    list(&[trainer.steps() as f64, progress.sum.0, progress.sum.1, merit, best_epoch, progress.since_best as f64]);
    list(&history.step_losses);
    let row = |e: &Epoch| {
        let value = |value: Option<f64>| value.unwrap_or(f64::NAN);
        [e.epoch as f64, e.loss, e.rate, value(e.val_loss), value(e.val_accuracy), value(e.val_metric)]
    };
    list(&history.epochs.iter().flat_map(row).collect::<Vec<f64>>());
    trainer.state().iter().for_each(|state| list(&state.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()));
    let mut set = Set::new(dir, MANIFEST)?;
    set.add(NETWORK, &training_bytes(trainer.qat(), &dir.join(NETWORK))?)?;
    if let Some((_, best)) = &progress.best {
        set.add(BEST, &training_bytes(best, &dir.join(BEST))?)?;
    }
    set.add(STATE, &bytes)?;
    let about = json!({ "run": about });
    set.commit(about.as_object().cloned().unwrap_or_default())
}

/// The lists of a state's file; `None` if it is cut short.
fn lists(mut bytes: &[u8]) -> Option<Vec<Vec<f64>>> {
    let mut lists = Vec::new();
    while !bytes.is_empty() {
        let count = usize::try_from(u64::from_le_bytes(*bytes.first_chunk()?)).ok()?;
        let values = bytes.get(8..)?.get(..count.checked_mul(8)?)?;
        lists.push(values.chunks_exact(8).filter_map(|v| Some(f64::from_le_bytes(*v.first_chunk()?))).collect());
        bytes = bytes.get(8 + count * 8..)?;
    }
    Some(lists)
}

/// Reads a checkpoint; `None` where there is none.
///
/// Errors: one that is incomplete or damaged, or of a run with other options.
pub fn read(dir: &Path, about: &Value, options: &LoadOptions) -> Result<Option<Checkpoint>, Error> {
    let Some(manifest) = Manifest::read(dir, MANIFEST)? else { return Ok(None) };
    manifest.check(dir, MANIFEST)?;
    let text = std::fs::read(dir.join(MANIFEST)).map_err(Error::io(dir))?;
    let stored: Value = serde_json::from_slice(&text).unwrap_or_default();
    if stored.get("run") != Some(about) {
        return Err(Error::Options(format!(
            "{} is the checkpoint of a run with other options; give the same ones, or another --output-dir",
            dir.display()
        )));
    }
    let mut found = Vec::new();
    for entry in &manifest.files {
        found.push((entry.path.as_str(), manifest.contents(dir, MANIFEST, entry)?));
    }
    let damaged = || Error::format(&dir.join(STATE), "is no whole state of a training");
    let bytes = found.iter().find(|(path, _)| *path == STATE).map(|(_, bytes)| bytes).ok_or_else(damaged)?;
    let mut lists = lists(bytes).ok_or_else(damaged)?.into_iter();
    let (Some(head), Some(step_losses), Some(epochs)) = (lists.next(), lists.next(), lists.next()) else {
        return Err(damaged());
    };
    let [steps, sum, count, merit, best_epoch, since_best] = head[..] else { return Err(damaged()) };
    let some = |v: f64| (!v.is_nan()).then_some(v);
    let epoch = |row: &[f64]| Epoch {
        epoch: row[0] as u64,
        loss: row[1],
        rate: row[2],
        val_loss: some(row[3]),
        val_accuracy: some(row[4]),
        val_metric: some(row[5]),
    };
    let history = History {
        epochs: epochs.chunks_exact(6).map(epoch).collect(),
        step_losses,
        best_epoch: (best_epoch > 0.0).then_some(best_epoch as u64),
    };
    let best = match some(merit) {
        Some(merit) => Some((merit, network(&dir.join(BEST), options)?)),
        None => None,
    };
    let progress = Progress { history, sum: (sum, count), best, since_best: since_best as usize };
    let state = lists.map(|list| list.into_iter().map(|v| v as f32).collect()).collect();
    Ok(Some(Checkpoint { qat: network(&dir.join(NETWORK), options)?, steps: steps as u64, state, progress }))
}

/// A network in training. One that is trained without quantizers is a float model to its file.
fn network(path: &Path, options: &LoadOptions) -> Result<Qat, Error> {
    load_training(path, options).or_else(|error| {
        let Ok(graph) = shiftwise_formats::load(path, options) else { return Err(error) };
        let (layers, metadata) = (BTreeMap::new(), Metadata::default());
        Ok(Qat { quantized: QuantGraph { graph, layers, metadata, trained: false }, norms: BTreeMap::new() })
    })
}
