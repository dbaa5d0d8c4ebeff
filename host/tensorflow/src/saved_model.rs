//! SavedModels and frozen graphs.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

use crate::bundle::Bundle;
use crate::graph::Graph;
use crate::network::{Network, Slot};
use crate::proto::{GraphDef, MetaGraphDef, NodeDef, SavedModel, SignatureDef, TensorInfo};
use crate::{check_inputs, has_weights, input_shape, names, tensors};
use shiftwise_files::{Files, LoadOptions};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::NodeId;
use shiftwise_quant::quant_graph::Model;

/// Memory that the messages of a graph take for each byte of the file.
const UNPACKED: u64 = 6;

/// The signature that serves, where a model has several.
const SERVING: &str = "serving_default";

/// Where a folder has its variables.
const VARIABLES: &str = "variables/variables";

/// Kinds of nodes that compute nothing, so no result of a graph.
const NO_RESULTS: [&str; 8] =
    ["Const", "NoOp", "Assert", "Placeholder", "PlaceholderWithDefault", "VarHandleOp", "VariableV2", "SaveV2"];

/// A message from its bytes, charged.
fn decode<M: Message + Default>(files: &Files, bytes: &[u8], budget: &Budget) -> Result<M, Error> {
    let fail = |message: String| Error::format(files.path(), message);
    budget.bytes((bytes.len() as u64).saturating_mul(UNPACKED)).map_err(|e| fail(e.to_string()))?;
    M::decode(bytes).map_err(|e| fail(format!("is damaged: {e}")))
}

/// Reads a SavedModel: a folder, an archive of one, or its `saved_model.pb` alone where that has no variables.
pub fn read(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    has_weights(options)?;
    let fail = |message: &str| Error::format(files.path(), message);
    let saved: SavedModel = match files.bytes().filter(|_| !files.is_zip()) {
        Some(bytes) => decode(&files, bytes, budget)?,
        None if files.has("saved_model.pb") => {
            let bytes = files.read("saved_model.pb", u64::MAX, budget)?;
            decode(&files, &bytes, budget)?
        }
        None => return Err(fail("is a SavedModel as text (.pbtxt), which is not read; save it as saved_model.pb")),
    };
    let has_variables = files.has(&format!("{VARIABLES}.index"));
    let bundle = has_variables.then(|| Bundle::open(&files, VARIABLES, budget)).transpose()?;
    let meta = saved.meta_graphs.iter().find(|meta| meta.graph.is_some());
    let meta = meta.ok_or_else(|| fail("is a SavedModel without a graph"))?;
    let graph = meta.graph.as_ref().ok_or_else(|| fail("is a SavedModel without a graph"))?;
    let signature = signature(meta)?;
    let network = Network::new("model", budget);
    let keys = keys(meta, bundle.as_ref());
    let mut graph_of = Graph::new(graph, network, bundle.as_ref(), keys);
    let (mut given, mut inputs) = (HashMap::new(), Vec::new());
    for (name, info) in &signature.inputs {
        let node = info.name.split(':').next().unwrap_or_default().to_owned();
        let sizes = info.shape.as_ref().filter(|shape| !shape.unknown_rank).map(|shape| shape.sizes());
        let (slot, id) = input(&mut graph_of.network, options, name, sizes)?;
        given.insert(node, slot);
        inputs.push(id);
    }
    check_inputs(options, &signature.inputs.keys().cloned().collect::<Vec<_>>())?;
    let end = |(own, info): (&'_ String, &'_ TensorInfo)| {
        let (node, number) = place(&info.name);
        (node.to_owned(), number, own.clone())
    };
    let mut ends: Vec<(String, usize, String)> = signature.outputs.iter().map(end).collect();
    ends.sort_unstable();
    let references: Vec<String> = ends.iter().map(|(node, k, _)| format!("{node}:{k}")).collect();
    let called: Vec<Option<String>> = ends.into_iter().map(|(_, _, own)| Some(own)).collect();
    let results = graph_of.results(graph, given, &references)?;
    finish(graph_of.network, &results, &inputs, &called)
}

/// Reads a frozen graph: its inputs are its placeholders, its outputs what nothing else reads.
pub fn read_graph(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    has_weights(options)?;
    let graph: GraphDef = decode(&files, files.bytes().unwrap_or_default(), budget)?;
    let mut graph_of = Graph::new(&graph, Network::new("model", budget), None, HashMap::new());
    let read: HashSet<&str> = graph
        .nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .map(|name| name.trim_start_matches('^').split(':').next().unwrap_or_default())
        .collect();
    let is_end = |node: &&NodeDef| !read.contains(node.name.as_str()) && !NO_RESULTS.contains(&node.op.as_str());
    let references: Vec<String> = graph.nodes.iter().filter(is_end).map(|node| node.name.clone()).collect();
    if references.is_empty() {
        return Err(Error::model("the graph has no result: all of its nodes are read by others"));
    }
    let (mut given, mut inputs, mut all) = (HashMap::new(), Vec::new(), Vec::new());
    for node in graph.nodes.iter().filter(|node| node.op == "Placeholder") {
        // What tells a graph how to run (whether it trains, where a file lies) is no tensor of samples.
        let tensor = node.element("dtype").is_none_or(|t| tensors::is_number(t) && t != BOOL);
        let sizes = node.sizes("shape");
        if !tensor || !read.contains(node.name.as_str()) || sizes.as_ref().is_some_and(Vec::is_empty) {
            continue;
        }
        let own = names::path(&node.name, &[]).last().copied().unwrap_or(&node.name).to_owned();
        let (slot, id) = input(&mut graph_of.network, options, &own, sizes)?;
        given.insert(node.name.clone(), slot);
        inputs.push(id);
        all.push(own);
    }
    check_inputs(options, &all)?;
    let results = graph_of.results(&graph, given, &references)?;
    finish(graph_of.network, &results, &inputs, &[])
}

/// TensorFlow's number of truth values.
const BOOL: i32 = 10;

/// The signature that is read.
fn signature(meta: &MetaGraphDef) -> Result<&SignatureDef, Error> {
    let usable: BTreeMap<_, _> = meta.signatures.iter().filter(|(_, s)| !s.inputs.is_empty()).collect();
    let serving = usable.iter().find(|(name, _)| name.as_str() == SERVING).or_else(|| usable.iter().next());
    serving.map(|(_, signature)| *signature).ok_or_else(|| {
        Error::model(
            "the SavedModel has no signature, so nothing says what goes in and comes out (a subclassed model that was \
             never called); give it one: tf.saved_model.save(model, path, signatures=tf.function(model.call)\
             .get_concrete_function(tf.TensorSpec([None, …], tf.float32)))",
        )
    })
}

/// Keys of variables by the names that the graph has for them.
fn keys(meta: &MetaGraphDef, bundle: Option<&Bundle>) -> HashMap<String, String> {
    let objects = meta.objects.iter().flat_map(|objects| objects.nodes.iter().enumerate());
    let key = |(number, object): (usize, &crate::proto::SavedObject)| {
        let name = object.variable.as_ref()?.name.clone();
        Some((name, bundle?.of_object(number)?.to_owned()))
    };
    objects.filter_map(key).collect()
}

/// Node and number of a result.
fn place(name: &str) -> (&str, usize) {
    let (node, number) = name.rsplit_once(':').unwrap_or((name, "0"));
    (node, number.parse().unwrap_or(0))
}

/// An input of the model.
fn input(
    network: &mut Network<'_>,
    options: &LoadOptions,
    name: &str,
    sizes: Option<Vec<i64>>,
) -> Result<(Slot, NodeId), Error> {
    let shape = input_shape(options, name, &sizes.unwrap_or_default())?;
    let fail = |why: String| Error::layer(name, "InputLayer", why);
    let slot = network.input(name, shape).map_err(fail)?;
    let id = network.layer_of(&slot).map_err(fail)?;
    Ok((slot, id))
}

/// The network with these results.
fn finish(
    network: Network<'_>,
    results: &[Slot],
    inputs: &[NodeId],
    called: &[Option<String>],
) -> Result<Model, Error> {
    let fail = |why: String| Error::model(format!("a result of the graph: {why}"));
    let outputs = results.iter().map(|slot| network.layer_of(slot)).collect::<Result<Vec<_>, _>>().map_err(fail)?;
    network.finish(&outputs, inputs, called)
}
