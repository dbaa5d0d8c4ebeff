//! What differs between two quantized models, two strategies or two compiled programs: for reviews, and for scripts.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shiftwise_core::model::{Deployable, MAGIC, Region, Step};
use shiftwise_formats::{self as format, Files, LoadOptions, Model};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_quant::quant_graph::QuantGraph;

use crate::analyze::decibels_by_layer;
use crate::device::Device;
use crate::estimate::Times;
use crate::run;

/// What differs between two files.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Difference {
    /// What both are.
    pub kind: &'static str,
    /// Whether nothing differs.
    pub equal: bool,
    /// What differs, by name.
    pub rows: Vec<Row>,
    /// Layers that won or lost, on the data that was given.
    pub layers: Vec<LayerChange>,
}

/// Something that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Row {
    /// What it is: parts from the whole to the detail, with `/` between them.
    pub what: String,
    /// In the first file; `None` if it isn't there.
    pub a: Option<Value>,
    /// In the second.
    pub b: Option<Value>,
    /// The second less the first, of numbers.
    pub change: Option<f64>,
}

/// How much cleaner a layer is in the second model than in the first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerChange {
    /// The layer in the quantized model.
    pub layer: String,
    /// Signal to noise up to here, in decibels.
    pub a_db: Option<f64>,
    /// In the second model.
    pub b_db: Option<f64>,
    /// The second less the first.
    pub change_db: Option<f64>,
}

/// A file and its facts by name, which are compared one by one.
struct Subject {
    kind: &'static str,
    facts: BTreeMap<String, Value>,
    model: Option<QuantGraph>,
}

const MODEL: &str = "quantized models";
const PROGRAM: &str = "compiled programs";
const STRATEGY: &str = "strategies";

/// Compares two files; `samples` are for models only, and tell which layers won or lost.
///
/// Errors: files that can't be read, are of different kinds, or of a kind without comparison; samples for other files
/// than models.
pub fn diff(a: &Path, b: &Path, options: &LoadOptions) -> Result<(Difference, Option<[QuantGraph; 2]>), Error> {
    let (a, b) = (Subject::read(a, options)?, Subject::read(b, options)?);
    if a.kind != b.kind {
        return Err(Error::Options(format!("the first file is one of {}, the second one of {}", a.kind, b.kind)));
    }
    let names: std::collections::BTreeSet<&String> = a.facts.keys().chain(b.facts.keys()).collect();
    let row = |what: &String| {
        let (a, b) = (a.facts.get(what).cloned(), b.facts.get(what).cloned());
        let number = |v: &Option<Value>| v.as_ref().and_then(Value::as_f64);
        let change = number(&a).zip(number(&b)).map(|(a, b)| b - a);
        (a != b).then(|| Row { what: what.clone(), a, b, change })
    };
    let rows: Vec<Row> = names.into_iter().filter_map(row).collect();
    let models = a.model.zip(b.model).map(|(a, b)| [a, b]);
    Ok((Difference { kind: a.kind, equal: rows.is_empty(), rows, layers: Vec::new() }, models))
}

/// Layers of two models that won or lost at least this much are told.
const LEAST_DB: f64 = 0.05;

/// Which layers of two models won or lost on samples; layers are matched by their names.
///
/// Errors: samples that are not the models'.
pub fn layers(models: &[QuantGraph; 2], samples: &dyn Samples, most: usize) -> Result<Vec<LayerChange>, Error> {
    let [a, b] = models;
    let (a, b) = (decibels_by_layer(a, samples, most)?, decibels_by_layer(b, samples, most)?);
    let other: BTreeMap<&str, Option<f64>> = b.iter().map(|(name, db)| (name.as_str(), *db)).collect();
    let row = |(name, a_db): &(String, Option<f64>)| {
        let b_db = *other.get(name.as_str())?;
        let change_db = a_db.zip(b_db).map(|(a, b)| b - a);
        let moved = change_db.map_or(*a_db != b_db, |change| change.abs() >= LEAST_DB);
        moved.then(|| LayerChange { layer: name.clone(), a_db: *a_db, b_db, change_db })
    };
    Ok(a.iter().filter_map(row).collect())
}

impl Subject {
    fn read(path: &Path, options: &LoadOptions) -> Result<Self, Error> {
        let files = Files::open(path)?;
        if let Some(bytes) = files.bytes() {
            if bytes.starts_with(&MAGIC) {
                return Ok(Self { kind: PROGRAM, facts: program(path, bytes)?, model: None });
            }
            if bytes.trim_ascii_start().starts_with(b"{")
                && let Ok(value) = format::json(bytes)
                && value.get("class_name").is_none()
            {
                let mut facts = BTreeMap::new();
                flatten("", &value, &mut facts);
                return Ok(Self { kind: STRATEGY, facts, model: None });
            }
        }
        match format::open_files(files, options)? {
            Model::Quantized(q) => Ok(Self { kind: MODEL, facts: model(&q), model: Some(q) }),
            Model::Float(_) => {
                Err(Error::wrong_kind(path, "is a float model; quantized models, strategies and programs are compared"))
            }
        }
    }
}

/// The values of a document that are no objects, by their paths.
fn flatten(path: &str, value: &Value, facts: &mut BTreeMap<String, Value>) {
    let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}/{key}") };
    match value {
        Value::Object(map) if !map.is_empty() => map.iter().for_each(|(key, value)| flatten(&at(key), value, facts)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (i, item) in items.iter().enumerate() {
                // An entry of the registry is known by its class, so that one more is one more.
                let name = item.get("layer_type").and_then(Value::as_str);
                flatten(&at(&name.map_or_else(|| i.to_string(), str::to_owned)), item, facts);
            }
        }
        other => drop(facts.insert(path.to_owned(), other.clone())),
    }
}

fn digest(bytes: impl Iterator<Item = u8>) -> Value {
    let mut hash = Sha256::new();
    hash.update(bytes.collect::<Vec<u8>>());
    let hex: String = hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect();
    json!(format!("sha256 {hex}…"))
}

/// Grids by layer and role, settings and weights by layer.
fn model(q: &QuantGraph) -> BTreeMap<String, Value> {
    let mut facts = BTreeMap::new();
    for entry in format::quantize_info(q).as_array().into_iter().flatten() {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let name = format!("{}/{}", text("layer"), text("role"));
        for (key, value) in entry.as_object().into_iter().flatten() {
            if !["layer", "wrapped", "role"].contains(&key.as_str()) {
                facts.insert(format!("{name}/{key}"), value.clone());
            }
        }
    }
    for id in q.graph.ids() {
        let node = q.graph.node(id);
        let name = q.quant_name(id);
        facts.insert(format!("{name}/class"), json!(node.op.class()));
        let inputs: Vec<String> = node.inputs.iter().map(|i| q.quant_name(*i)).collect();
        facts.insert(format!("{name}/reads"), json!(inputs));
        for (weight, tensor) in node.op.layer().weights() {
            let bytes = tensor.data().iter().flat_map(|v| v.to_le_bytes());
            facts.insert(format!("{name}/{weight}/shape"), json!(tensor.shape()));
            facts.insert(format!("{name}/{weight}/values"), digest(bytes));
        }
    }
    facts
}

/// Sizes, contents, and the time of each layer.
fn program(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Value>, Error> {
    let model = run::parse(path, bytes)?;
    let jobs = model.steps().filter(|step| matches!(step, Step::Dpu(_))).count();
    let mut facts: BTreeMap<String, Value> = [
        ("target", json!(model.facts().target)),
        ("dpu jobs", json!(jobs)),
        ("cpu steps", json!(model.steps().count() - jobs)),
        ("code/bytes", json!(model.code().len())),
        ("code/contents", digest(model.code().iter().copied())),
        ("constants/bytes", json!(model.constants().len())),
        ("constants/contents", digest(model.constants().iter().copied())),
        ("workspace/bytes", json!(model.region_bytes(Region::Workspace))),
        ("inputs/bytes", json!(model.region_bytes(Region::Inputs))),
        ("outputs/bytes", json!(model.region_bytes(Region::Outputs))),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    for (_, tensor) in model.inputs().chain(model.outputs()) {
        facts.insert(format!("ports/{}/position", tensor.name), json!(tensor.pos.0));
    }
    times(&model, &mut facts);
    Ok(facts)
}

/// Cycles and bytes of each layer, where the target is known.
fn times(model: &Deployable<'_>, facts: &mut BTreeMap<String, Value>) {
    let device = Device::named(&format!("{:#018x}", model.fingerprint()));
    let Some(report) = device.ok().and_then(|device| Times::of(model, &device).ok()).map(|times| times.report) else {
        return;
    };
    facts.insert("cycles".into(), json!(report.cycles));
    facts.insert("bytes loaded".into(), json!(report.bytes_in));
    facts.insert("bytes saved".into(), json!(report.bytes_out));
    for layer in &report.layers {
        let name = format!("layers/{}/{}", layer.step, layer.layer);
        facts.insert(format!("{name}/cycles"), json!(layer.cycles));
        facts.insert(format!("{name}/bytes"), json!(layer.bytes_in + layer.bytes_out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_a_fact_for_every_value() {
        let mut facts = BTreeMap::new();
        let document = json!({"a": {"b": 1, "c": {}}, "l": [{"layer_type": "X", "k": 2}], "n": [1, 2]});
        flatten("", &document, &mut facts);
        let names: Vec<&str> = facts.keys().map(String::as_str).collect();
        assert_eq!(names, ["a/b", "a/c", "l/X/k", "l/X/layer_type", "n"]);
    }
}
