//! Averages that the DPU computes otherwise than the vendor's simulation: measured on data, reported, and recorded beside
//! the quantized model.

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::averages::{Averages, Difference};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_quant::quant_graph::QuantGraph;

use shiftwise_formats::files::sha256;

/// Most bytes of a `provenance.json` that is looked at.
const MAX_RECORD: u64 = 16 << 20;
/// The key in the provenance.
const KEY: &str = "averages";

/// Runs `count` samples, `batch` at once, if the network has averages that may differ. What can't be lowered has no
/// integers to differ: it is refused where they are needed.
///
/// Errors: those of the data.
pub fn measure(
    quantized: &QuantGraph,
    samples: &dyn Samples,
    batch: usize,
    count: usize,
) -> Result<Vec<Difference>, Error> {
    let Ok(graph) = lower::lower(quantized) else { return Ok(Vec::new()) };
    let averages = Averages::new(quantized, &graph);
    if averages.is_empty() {
        return Ok(Vec::new());
    }
    let engine = Engine::new(&graph);
    let count = count.min(samples.len());
    for start in (0..count).step_by(batch.max(1)) {
        let inputs = samples.batch(start, batch.min(count - start))?;
        engine.run_batch_seeing(&inputs, |ix| averages.needs(ix), |values| averages.see(values))?;
    }
    Ok(averages.differences())
}

/// Those of a whole run, from what its parts have seen: layers with the largest difference in steps.
pub fn joined(quantized: &QuantGraph, parts: &[(String, u32)]) -> Vec<Difference> {
    let Ok(graph) = lower::lower(quantized) else { return Vec::new() };
    let averages = Averages::new(quantized, &graph);
    parts.iter().for_each(|(layer, steps)| averages.recall(layer, *steps));
    averages.differences()
}

/// One of them in a report.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Row {
    /// The user's layer.
    pub layer: String,
    /// Why it differs.
    pub cause: &'static str,
    /// By how much at most, as a real number.
    pub difference: f32,
    /// The same in steps of the result's position.
    pub steps: u32,
    /// What to do about it.
    pub remedy: &'static str,
}

/// For reports.
pub fn rows(differences: &[Difference]) -> Vec<Row> {
    let one = |d: &Difference| {
        let (cause, remedy) = d.words();
        Row { layer: d.layer.clone(), cause, difference: d.value, steps: d.steps, remedy }
    };
    differences.iter().map(one).collect()
}

/// Adds them to the provenance of a quantized model, whose bytes these are, for [`recorded`].
pub fn record(differences: &[Difference], quantized: &[u8], provenance: &mut Value) {
    if let (false, Some(map)) = (differences.is_empty(), provenance.as_object_mut()) {
        let digest = sha256(quantized);
        map.insert(KEY.into(), json!({ "quantized_sha256": digest, "layers": rows(differences) }));
    }
}

/// What the `provenance.json` beside a quantized model says of it. A file that is missing, damaged, or another model's
/// says nothing.
pub fn recorded(file: &Path, quantized: &QuantGraph, graph: &IntGraph) -> Vec<Difference> {
    let averages = Averages::new(quantized, graph);
    let read = || {
        let mut text = Vec::new();
        let record = std::fs::File::open(file.with_file_name("provenance.json")).ok()?;
        record.take(MAX_RECORD).read_to_end(&mut text).ok()?;
        let mut record: Value = serde_json::from_slice(&text).ok()?;
        let record = record.get_mut(KEY)?.take();
        let own = sha256(&std::fs::read(file).ok()?);
        (record.get("quantized_sha256")?.as_str()? == own).then_some(record)
    };
    if averages.is_empty() {
        return Vec::new();
    }
    let record = read().unwrap_or_default();
    for row in record.get("layers").and_then(Value::as_array).into_iter().flatten() {
        let steps = row.get("steps").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        if let (Some(layer), Some(steps)) = (row.get("layer").and_then(Value::as_str), steps) {
            averages.recall(layer, steps.min(255));
        }
    }
    averages.differences()
}
