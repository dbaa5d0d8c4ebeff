//! A node's settings for its file: what the layer is computed with, what its file said besides, Keras' defaults.

use serde_json::{Map, Value, json};

use crate::layers::functions::CALL;
use crate::layers::{Setting, attributes, write};
use crate::model::input_shape;
use shiftwise_graph::attributes::Attributes;
use shiftwise_graph::graph::Node;
use shiftwise_graph::ops::Op;

/// Key of a fixed batch size among what a file says of an input.
const BATCH_SIZE: &str = "batch_size";

/// Keras 2's config of a node.
pub(crate) fn config(node: &Node) -> Map<String, Value> {
    let mut config = Map::new();
    let input = matches!(node.op, Op::Input(_));
    if !input {
        config.insert("name".into(), json!(node.name));
        config.insert("trainable".into(), said(node, "trainable").unwrap_or(json!(true)));
        config.insert("dtype".into(), said(node, "dtype").unwrap_or(json!("float32")));
    }
    let settings = write(&node.op, node.shape.len());
    for (key, setting) in settings.iter() {
        let value = match (setting, said(node, key)) {
            (Setting::Kept(default), file) => file.unwrap_or_else(|| default.clone()),
            // Modelled as f32; the file may have more digits, or none behind the point.
            (own, Some(file)) if own.same(&file) => file,
            (own, _) => own.value(),
        };
        config.insert(key.to_owned(), value);
    }
    if settings.has_rest() {
        for (key, _) in node.extras.iter().filter(|(key, _)| !matches!(*key, "trainable" | "dtype" | BATCH_SIZE | CALL))
        {
            if !config.contains_key(key) {
                config.insert(key.to_owned(), said(node, key).unwrap_or_default());
            }
        }
    }
    if input {
        let batch = config.get_mut("batch_input_shape").and_then(|shape| shape.get_mut(0));
        if let (Some(batch), Some(size)) = (batch, node.extras.get(BATCH_SIZE)) {
            *batch = attributes::value(size);
        }
        config.insert("name".into(), json!(node.name));
    }
    config
}

/// A setting from the file, in Keras 2's form: Keras 3 says more about objects.
fn said(node: &Node, key: &str) -> Option<Value> {
    let value = attributes::value(node.extras.get(key)?);
    match value.as_object() {
        Some(o) if o.contains_key("registered_name") && key == "dtype" => value.get("config")?.get("name").cloned(),
        Some(o) if o.contains_key("registered_name") => {
            Some(json!({ "class_name": value.get("class_name"), "config": value.get("config") }))
        }
        _ => Some(value),
    }
}

/// What a config says of a layer beyond what the layer models, in its order, and the more exact forms of what it does
/// model. `rank`: dimensions of one sample of the result.
pub(crate) fn extras(op: &Op, config: &Map<String, Value>, rank: usize) -> Attributes {
    let settings = write(op, rank);
    let keep = |key: &str, value: &Value| match settings.find(key) {
        Some(own) => own.value() != *value && own.same(value),
        None => key != "name",
    };
    let mut extras: Attributes = config
        .iter()
        .filter(|(key, value)| keep(key, value))
        .map(|(key, value)| (key.clone(), attributes::attribute(value)))
        .collect();
    if matches!(op, Op::Input(_)) {
        let (_, shape) = input_shape(config);
        if let Some(size) = shape.get(0).filter(|v| v.is_u64()) {
            extras.insert(BATCH_SIZE, attributes::attribute(size));
        }
    }
    extras
}
