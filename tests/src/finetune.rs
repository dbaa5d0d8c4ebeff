//! The vendor's fast finetuning against ours.
//!
//! The vendor shuffles samples in an order that nothing records, so weights are not comparable one by one. Comparable are
//! positions, the loss of each layer before its first step, and whether later losses lie among those of many orders of ours.

use std::path::Path;

use serde_json::Value;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::finetune::Finetuned;
use shiftwise_quant::pipeline::{Ptq, PtqOptions, ptq_with};
use shiftwise_train::finetune::{Finetuner, MEMORY};

/// Orders of samples whose losses are the range for the vendor's.
const SEEDS: u64 = 50;

/// How far the first loss of a layer may be off, relative to itself.
const FIRST: f64 = 1e-5;

/// Quantizes with finetuning as a seed has it.
///
/// Errors: those of [`ptq_with`].
pub fn finetuned(graph: Graph, samples: &dyn Samples, options: &PtqOptions, seed: u64) -> Result<Ptq, Error> {
    with_memory(graph, samples, options, seed, MEMORY)
}

/// [`finetuned`] with so many bytes for copies of activations.
///
/// Errors: those of [`ptq_with`].
pub fn with_memory(
    graph: Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
    seed: u64,
    memory: usize,
) -> Result<Ptq, Error> {
    let mut finetuner = Finetuner { seed, memory, progress: &mut |_, _| {} };
    ptq_with(graph, samples, options, &mut finetuner, |_, _| {})
}

/// The losses that the vendor's tool looked at, layer by layer.
fn vendors(case: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(case.join("fast_ft_losses.json")).unwrap_or_default();
    let rows: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let mut layers: Vec<(Value, Vec<f64>)> = Vec::new();
    for row in rows {
        let loss = row["loss"].as_f64().unwrap_or(f64::NAN);
        match layers.last_mut() {
            Some((layer, losses)) if *layer == row["sub_model_layer"] => losses.push(loss),
            _ => layers.push((row["sub_model_layer"].clone(), vec![loss])),
        }
    }
    layers.into_iter().map(|(_, losses)| losses).collect()
}

/// Compares the losses of a case: how many there are, and what is wrong with them.
///
/// Errors: those of [`ptq_with`].
pub fn losses(
    case: &Path,
    graph: &Graph,
    samples: &dyn Samples,
    options: &PtqOptions,
) -> Result<(usize, Vec<String>), Error> {
    let theirs = vendors(case);
    let runs: Result<Vec<Vec<Finetuned>>, Error> =
        (0..SEEDS).map(|seed| Ok(finetuned(graph.clone(), samples, options, seed)?.finetuned)).collect();
    let runs = runs?;
    let mut wrong = Vec::new();
    for (k, theirs) in theirs.iter().enumerate() {
        for (epoch, loss) in theirs.iter().enumerate() {
            let ours = runs.iter().filter_map(|run| run.get(k)?.losses.get(epoch).copied());
            let (low, high) = ours.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
            // Sums are taken in another order than the vendor's.
            let slack = if epoch == 0 { FIRST * loss } else { 1e-6 * loss };
            if !(low - slack..=high + slack).contains(loss) {
                wrong.push(format!("layer {k}: loss {loss} after {epoch} epochs and not {low} to {high}"));
            }
        }
    }
    if runs.iter().any(|run| run.len() != theirs.len()) {
        wrong.push(format!("{} layers finetuned, {} in the vendor's run", runs[0].len(), theirs.len()));
    }
    Ok((theirs.iter().map(Vec::len).sum(), wrong))
}
