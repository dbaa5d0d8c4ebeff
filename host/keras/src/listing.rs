//! The layers of a network as its user wrote them: what an inspector lists.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::layers::write;
use crate::open;
use crate::record::ModelConfig;
use shiftwise_files::Files;
use shiftwise_graph::graph::{Graph, Node};

/// A layer in its user's words.
#[derive(Clone, Debug, PartialEq)]
pub struct UserLayer {
    /// Name.
    pub name: String,
    /// Class as Keras calls it.
    pub class: String,
    /// Its settings, name and type included.
    pub config: Map<String, Value>,
}

/// The layers of a graph in its user's words.
///
/// A Keras file has its own: its layers in its order, with all their settings, layers of models inside it among the others.
/// Where there are no `files`, or they are of another format, or a layer of the graph is not among theirs, every layer of the graph that a user
/// named stands for itself.
pub fn user_layers(graph: &Graph, files: Option<&Files>) -> Vec<UserLayer> {
    let own: BTreeSet<&str> = graph.nodes.iter().flat_map(|n| &n.origin).map(String::as_str).collect();
    let mut listed = Vec::new();
    if let Some(model) = files.and_then(open::architecture_of) {
        leaves(&model, false, &mut listed);
    }
    let names: BTreeSet<&str> = listed.iter().map(|l| l.name.as_str()).collect();
    // A name that stands twice belongs to layers of different models, which the graph calls otherwise.
    if names.len() == listed.len() && own.is_subset(&names) {
        return listed;
    }
    let mut seen = BTreeSet::new();
    let first =
        |node: &Node| node.origin.first().filter(|name| seen.insert((*name).clone())).map(|n| described(n, node));
    graph.nodes.iter().filter_map(first).collect()
}

/// The layers of a model that compute, in the file's order.
fn leaves(model: &ModelConfig, inside: bool, listed: &mut Vec<UserLayer>) {
    for layer in &model.layers {
        if let Some(inner) = &layer.inner {
            leaves(inner, true, listed);
        } else if !(inside && layer.class == "InputLayer") {
            let mut config = layer.config.clone();
            config.entry("name").or_insert_with(|| layer.name.clone().into());
            listed.push(UserLayer { name: layer.name.clone(), class: layer.class.clone(), config });
        }
    }
}

/// A layer of a graph, with the settings that Keras would give it.
fn described(name: &str, node: &Node) -> UserLayer {
    let settings = write(&node.op, node.shape.len());
    let mut config: Map<String, Value> = settings.own_values().map(|(k, v)| (k.to_owned(), v)).collect();
    config.insert("name".into(), json!(name));
    config.insert("dtype".into(), json!(node.dtype.name()));
    UserLayer { name: name.to_owned(), class: node.op.class().to_owned(), config }
}
