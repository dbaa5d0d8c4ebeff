//! Results and data: dumps, arrays, and JSON documents of ours.

use serde_json::Value;
use shiftwise_formats::files::Manifest;
use shiftwise_formats::{self as format, Files, LoadOptions};
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;

use super::{Content, Dump, Info, Input, Origin, Proof, Subject};
use crate::dump::Values;
use crate::part::Part;
use crate::{dataset, dump as dumps};

pub(super) fn arrays(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    let archive = subject.head.starts_with(b"PK") && {
        let files = Files::open(subject.path)?;
        files.any(|name| name.ends_with(".npy")) && !files.has("config.json")
    };
    if !archive && !subject.head.starts_with(b"\x93NUMPY") {
        return Ok(None);
    }
    let kind = if archive { "an archive of arrays (.npz)" } else { "an array (.npy)" };
    Ok(Some(subject.info(kind, Content::Arrays(dataset::describe(subject.path, archive)?))))
}

pub(super) fn dump(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    let is = |folder: &str| subject.path.join(folder).is_dir();
    if !is(dumps::WEIGHTS) && !is(dumps::ACTIVATIONS) {
        return Ok(None);
    }
    let has_manifest = Manifest::read(subject.path, dumps::MANIFEST)?.is_some();
    let read = dumps::read(subject.path)?;
    let all = || read.weights.iter().chain(&read.activations);
    let content = Dump {
        weights: read.weights.len(),
        activations: read.activations.len(),
        values: all().map(|t| t.values.len()).sum(),
        has_manifest,
    };
    let mut info = subject.info("a dump folder", Content::Dump(content));
    let size = |values: &Values| match values {
        Values::Int8(_) => 1,
        Values::Int16(_) | Values::Int32(_) | Values::Float(_) => 4,
    };
    info.bytes = all().map(|t| (t.values.len() * size(&t.values)) as u64).sum();
    Ok(Some(info))
}

/// What a shard of a run has given.
pub(super) fn part(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    if subject.head.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    let Some(part) = Part::read(subject.path)? else { return Ok(None) };
    let content = Content::Part {
        command: part.arguments.join(" "),
        shard: part.shard,
        of: part.of,
        samples: part.samples,
        tool: part.tool,
    };
    Ok(Some(subject.info("a part of a run that is shared (.part)", content)))
}

/// JSON that is no model: its keys say what it is.
pub(super) fn document(subject: &Subject<'_>, _: &LoadOptions) -> Result<Option<Info>, Error> {
    if subject.head.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    let text = std::fs::read(subject.path).map_err(Error::io(subject.path))?;
    let value = format::json(&text).map_err(|why| Error::format(subject.path, why))?;
    let has = |key: &str| value.get(key).is_some();
    if has("class_name") {
        return Ok(None);
    }
    if has("verdict") && has("holds") {
        return proof(subject, &value).map(Some);
    }
    if let (true, Some(origin)) = (has("options"), origin(&value)) {
        let kind = "where a result came from (provenance.json)";
        return Ok(Some(subject.info(kind, Content::Provenance(origin))));
    }
    let sections: Vec<String> = value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect();
    if sections.iter().any(|key| key.ends_with("_config") || key == "quantize_registry_config") {
        return Ok(Some(subject.info("a quantize strategy (.json)", Content::Strategy { sections })));
    }
    let keys = sections.iter().take(3).map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let keys = if keys.is_empty() { "is empty".to_owned() } else { format!("begins with {keys}") };
    let known = "a Keras model's architecture, a strategy, proof.json and provenance.json are known";
    Err(Error::format(subject.path, format!("is JSON that {keys}, which is no document of ours; {known}")))
}

fn proof(subject: &Subject<'_>, value: &Value) -> Result<Info, Error> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let checks = value.get("checks").and_then(Value::as_array).into_iter().flatten();
    let content = Proof {
        verdict: text(value, "verdict"),
        holds: value.get("holds").and_then(Value::as_bool).unwrap_or(false),
        samples: value.get("samples").and_then(Value::as_u64).unwrap_or(0),
        checks: checks.map(|check| format!("{} on {}", text(check, "backend"), text(check, "target"))).collect(),
        origin: value.get("provenance").and_then(origin),
    };
    let mut info = subject.info("a proof (proof.json)", Content::Proof(content));
    info.name = Some(text(value, "model"));
    if let Some(metadata) = value.get("metadata") {
        info.metadata = Metadata::parse(&metadata.to_string()).map_err(|why| Error::format(subject.path, why))?;
    }
    Ok(info)
}

/// What provenance says; `None` for another document.
pub(super) fn origin(value: &Value) -> Option<Origin> {
    let text = |value: &Value, key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let input = |file: &Value| {
        Some(Input { role: text(file, "role")?, path: text(file, "path")?, sha256: text(file, "sha256")? })
    };
    Some(Origin {
        tool: format!("{} {}", text(value, "tool")?, text(value, "version")?),
        options: value.get("options")?.as_object()?.clone(),
        inputs: value.get("inputs")?.as_array()?.iter().map(input).collect::<Option<_>>()?,
    })
}
