//! What the layers of a graph are called.
//!
//! Graphs that were Keras models have operations `quant_NAME` for the quantized layer NAME, a `fix` `quant_NAME_fix` for its
//! quantizer, and `quant_NAME/relu` for an activation that is the layer's attribute. These become scopes as the vendor's other
//! exports have them, `MODEL/quant_NAME/…`, of which [`shiftwise_quant::regroup`] makes the layers again.

use std::collections::HashSet;

use crate::graph::is_input;
use crate::{XOp, Xmodel};

/// Names of the layers that operations become.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The model's scope, if the layers are called as Keras' are.
    scope: Option<String>,
    /// By operation: the layer that it belongs to, and its name within that.
    parts: Vec<(String, String)>,
}

impl Names {
    /// Of all operations.
    pub(super) fn of(model: &Xmodel) -> Self {
        let keras = model.attrs.text("origin").is_some_and(|origin| origin.starts_with("tensorflow"));
        let scope = keras.then(|| match model.name.as_str() {
            "" => "model".to_owned(),
            name => name.replace('/', "_"),
        });
        let known: HashSet<&str> = model.ops.iter().map(|op| op.name.as_str()).collect();
        let parts = model.ops.iter().map(|op| part(model, op, &known)).collect();
        Self { scope, parts }
    }

    /// The name of the layer that an operation becomes.
    pub(super) fn layer(&self, op: usize) -> String {
        self.named(op, "")
    }

    /// The name of another layer that an operation needs beside its own.
    pub(super) fn beside(&self, op: usize, suffix: &str) -> String {
        self.named(op, suffix)
    }

    fn named(&self, op: usize, suffix: &str) -> String {
        let Some((layer, part)) = self.parts.get(op) else { return String::new() };
        let layer = if suffix.is_empty() { layer.clone() } else { format!("{layer}_{suffix}") };
        match &self.scope {
            Some(scope) => format!("{scope}/{layer}/{part}"),
            None => layer,
        }
    }
}

/// The layer that an operation belongs to, and its name within that. Without a scope the layer has the operation's name.
fn part(model: &Xmodel, op: &XOp, known: &HashSet<&str>) -> (String, String) {
    let keras = model.attrs.text("origin").is_some_and(|origin| origin.starts_with("tensorflow"));
    let own = || (op.name.clone(), op.kind.clone());
    if !keras || is_input(op) {
        return own();
    }
    if op.kind == "fix" {
        let layer = op.name.strip_suffix("_fix").unwrap_or(&op.name);
        // What goes into a function is called after that, and is the layer's before it.
        let before = op.inputs().next().map(|i| model.ops[i].name.as_str());
        let layer = match before {
            Some(before) if layer.ends_with("_input") && !known.contains(layer) => before,
            _ => layer,
        };
        return (layer.to_owned(), format!("Pof2SQuantize/{}", op.name));
    }
    let source = op.inputs().next().map(|i| &model.ops[i]);
    let source = match source {
        Some(fix) if fix.kind == "fix" => fix.inputs().next().map(|i| &model.ops[i]),
        other => other,
    };
    let function = source.filter(|from| {
        let weighted = WEIGHTED.contains(&from.kind.as_str());
        weighted && op.name.strip_prefix(&from.name).and_then(|rest| rest.strip_prefix('/')) == Some(&op.kind)
    });
    match function {
        Some(layer) => (layer.name.clone(), op.kind.clone()),
        None => own(),
    }
}

/// Operations with weights, of which activations may be attributes.
const WEIGHTED: [&str; 5] = ["conv2d", "depthwise-conv2d", "transposed-conv2d", "matmul", "inner-product"];
