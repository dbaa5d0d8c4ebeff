//! A model's file: its nodes in an order in which they can be computed, its constants, its inputs and outputs.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

use crate::POSITIONS;
use crate::ops;
use crate::ops::call::Call;
use crate::proto::{self, Entry, GraphProto, ModelProto, NodeProto, Size, TensorProto, ValueInfo};
use crate::value::{self, Element, Value};
use shiftwise_files::Files;

/// A dimension that a file states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Of this size.
    Size(usize),
    /// Left open, under a name or none.
    Open(String),
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in the file.
    pub name: String,
    /// Type of its elements; `None` where the file does not say it.
    pub element: Option<Element>,
    /// Its dimensions; `None` where the file does not say them.
    pub dims: Option<Vec<Dim>>,
}

/// An ONNX model.
#[derive(Clone, Debug)]
pub struct Network {
    /// What the model calls itself.
    pub name: String,
    /// What wrote it.
    pub producer: String,
    /// The version of its operators.
    pub opset: i64,
    /// What is to be given.
    pub inputs: Vec<Port>,
    /// What is computed.
    pub outputs: Vec<Port>,
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) stored: HashMap<String, TensorProto>,
    pub(crate) budget: Budget,
    /// Positions of weights that are said apart, as text.
    pub(crate) positions: Option<String>,
    folder: Option<std::path::PathBuf>,
}

fn port(info: &ValueInfo) -> Result<Port, String> {
    let tensor = info.kind.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let bad = |why: String| format!("has a port `{}` that {why}", info.name);
    let dim = |d: &proto::Dimension| match &d.size {
        Some(Size::Value(n)) => usize::try_from(*n).map(Dim::Size).or(Ok(Dim::Open(String::new()))),
        Some(Size::Name(name)) => Ok(Dim::Open(name.clone())),
        None => Ok(Dim::Open(String::new())),
    };
    let dims = tensor.and_then(|t| t.shape.as_ref()).map(|s| s.dim.iter().map(dim).collect::<Result<Vec<_>, String>>());
    let element = tensor.filter(|t| t.elem_type != 0).map(|t| Element::of(t.elem_type)).transpose().map_err(bad)?;
    Ok(Port { name: info.name.clone(), element, dims: dims.transpose()? })
}

/// Nodes behind those whose results they read.
fn ordered(graph: &mut GraphProto, given: HashSet<String>) -> Result<Vec<NodeProto>, String> {
    let mut waiting: HashMap<String, Vec<usize>> = HashMap::new();
    let nodes = std::mem::take(&mut graph.node);
    let mut missing: Vec<usize> = Vec::with_capacity(nodes.len());
    let mut made = given;
    for (i, node) in nodes.iter().enumerate() {
        let absent: HashSet<&String> = node.input.iter().filter(|n| !n.is_empty() && !made.contains(*n)).collect();
        absent.iter().for_each(|name| waiting.entry((*name).clone()).or_default().push(i));
        missing.push(absent.len());
    }
    // Files have their nodes in order; a node that is ready early keeps its place among those that are.
    let mut ready: std::collections::BTreeSet<usize> = (0..nodes.len()).filter(|i| missing[*i] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for output in nodes[i].output.iter().filter(|name| !name.is_empty()) {
            if !made.insert(output.clone()) {
                return Err(format!("has two nodes with the result `{output}`"));
            }
            for reader in waiting.remove(output).unwrap_or_default() {
                missing[reader] -= 1;
                if missing[reader] == 0 {
                    ready.insert(reader);
                }
            }
        }
    }
    if let Some(i) = (0..nodes.len()).find(|i| missing[*i] > 0) {
        let absent = nodes[i].input.iter().find(|n| !n.is_empty() && !made.contains(*n)).map_or("", String::as_str);
        return Err(format!("has a node {} that reads `{absent}`, which nothing makes", label(&nodes[i])));
    }
    let mut nodes: Vec<Option<NodeProto>> = nodes.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|i| nodes[i].take()).collect())
}

/// What a node is called: its name, or its first result's.
pub(crate) fn label(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
    format!("`{name}` ({})", node.op_type)
}

/// The most bytes of a file that holds weights apart from the model.
const MOST_EXTERNAL: u64 = 2 << 30;

impl Network {
    /// Reads a model. `files` is the model's file, whose folder has the weights that are stored apart.
    ///
    /// Errors: what is damaged, element types that are not supported, results that nothing makes.
    pub fn read(files: Files) -> Result<Self, Error> {
        let (path, budget) = (files.path().to_owned(), files.budget());
        let bytes = files.into_bytes().ok_or_else(|| Error::format(&path, "is no file"))?;
        Self::decode(bytes, &path, budget).map_err(|why| Error::format(&path, why))
    }

    fn decode(bytes: Vec<u8>, path: &Path, budget: Budget) -> Result<Self, String> {
        let ModelProto { producer_name, producer_version, graph, opset_import, metadata_props, .. } =
            proto::decode(bytes, &budget)?;
        let mut graph = graph.ok_or("has no graph")?;
        let own = opset_import.iter().find(|set| ["", "ai.onnx"].contains(&set.domain.as_str()));
        let opset = own.map_or(1, |set| set.version);
        let names: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs = graph.input.iter().filter(|info| !names.contains(info.name.as_str())).map(port);
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let outputs = graph.output.iter().map(port).collect::<Result<Vec<_>, _>>()?;
        let given = graph.initializer.iter().map(|t| t.name.clone()).chain(inputs.iter().map(|p| p.name.clone()));
        let given: HashSet<String> = given.collect();
        let nodes = ordered(&mut graph, given.clone())?;
        let made: HashSet<&String> = nodes.iter().flat_map(|n| &n.output).chain(&given).collect();
        if let Some(output) = outputs.iter().find(|o| !made.contains(&o.name)) {
            return Err(format!("has an output `{}`, which nothing makes", output.name));
        }
        if outputs.is_empty() {
            return Err("has no output".into());
        }
        let stored = graph.initializer.into_iter().map(|t| (t.name.clone(), t)).collect();
        let producer = format!("{producer_name} {producer_version}").trim().to_owned();
        let folder = path.parent().map(Path::to_owned);
        let positions = metadata_props.into_iter().find(|entry| entry.key == POSITIONS).map(|entry| entry.value);
        Ok(Self { name: graph.name, producer, opset, inputs, outputs, nodes, stored, budget, positions, folder })
    }

    /// The array of a stored constant.
    ///
    /// Errors: the rest of a sentence about the file.
    pub(crate) fn constant(&self, tensor: &TensorProto) -> Result<Value, String> {
        let bad = |why: String| format!("has an array `{}` that {why}", tensor.name);
        let raw = if tensor.data_location == 1 { Some(self.external(tensor).map_err(bad)?) } else { None };
        value::decode(tensor, raw.as_deref(), &self.budget).map_err(bad)
    }

    /// Bytes of an array that stand in another file of the folder.
    fn external(&self, tensor: &TensorProto) -> Result<Vec<u8>, String> {
        let of = |key: &str| tensor.external_data.iter().find(|e: &&Entry| e.key == key).map(|e| e.value.as_str());
        let location = of("location").ok_or("is stored in a file that is not named")?;
        let number = |key: &str| of(key).map(|text| text.parse::<u64>().map_err(|_| format!("has a {key} `{text}`")));
        let inside = Path::new(location).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let path = self.folder.as_ref().filter(|_| inside && !location.is_empty());
        let path = path.ok_or_else(|| format!("is stored in `{location}`, which is outside of the model's folder"))?;
        let path = path.join(location);
        let why = |e: std::io::Error| format!("is stored in {}, which can't be read: {e}", path.display());
        let mut file = std::fs::File::open(&path).map_err(why)?;
        let size = file.metadata().map_err(why)?.len();
        let start = number("offset").transpose()?.unwrap_or(0);
        let length = number("length").transpose()?.unwrap_or(size.saturating_sub(start));
        if start.checked_add(length).is_none_or(|end| end > size) || length > MOST_EXTERNAL {
            return Err(format!(
                "is stored in bytes {start} to {} of {}, which has {size}",
                start.saturating_add(length),
                path.display()
            ));
        }
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(start)).map_err(why)?;
        // These bytes are the model's too, and not part of its file's size; they are there, and bounded.
        let mut bytes = shiftwise_graph::budget::reserve(length as usize)?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, length), &mut bytes).map_err(why)?;
        Ok(bytes)
    }

    /// The results of a node.
    ///
    /// Errors: the rest of a sentence about the file: an operator that is unknown, operands that it does not take.
    pub(crate) fn evaluate(
        &self,
        node: &NodeProto,
        inputs: &[Option<&Value>],
        budget: &Budget,
    ) -> Result<Vec<Value>, String> {
        let operator = ops::of(node).ok_or_else(|| unknown(node))?;
        let call = Call { node, inputs, version: self.opset, budget };
        let results = (operator.eval)(&call).map_err(|why| format!("has a node {} that {why}", label(node)))?;
        // What an operator makes of arrays without elements must still be as many as its shape says.
        let whole = |v: &Value| v.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)) == Some(v.len());
        let fits = results.iter().all(whole);
        fits.then_some(results).ok_or_else(|| format!("has a node {} that makes nothing of its operands", label(node)))
    }

    /// Computes all outputs, in the file's order, of inputs in the file's order, by the definition of every operator.
    ///
    /// Errors: operators that are not supported, and operands that an operator does not take; values beyond what a model of
    /// this size may take.
    pub fn run(&self, inputs: Vec<Value>, path: &Path) -> Result<Vec<Value>, Error> {
        let bytes: usize = inputs.iter().map(|v| 8 * v.len()).sum();
        let budget = Budget::for_file(bytes.saturating_add(usize::try_from(self.budget.size()).unwrap_or(usize::MAX)));
        self.compute(inputs, &budget).map_err(|why| Error::format(path, why))
    }

    fn compute(&self, inputs: Vec<Value>, budget: &Budget) -> Result<Vec<Value>, String> {
        let mut uses: HashMap<&str, usize> = HashMap::new();
        let read = self.nodes.iter().flat_map(|n| &n.input).chain(self.outputs.iter().map(|o| &o.name));
        read.for_each(|name| *uses.entry(name.as_str()).or_default() += 1);
        let mut known: HashMap<&str, Arc<Value>> = HashMap::new();
        for (port, value) in self.inputs.iter().zip(inputs) {
            known.insert(&port.name, Arc::new(value));
        }
        for name in self.stored.keys().filter(|name| uses.contains_key(name.as_str())) {
            known.insert(name, Arc::new(self.constant(&self.stored[name])?));
        }
        for node in &self.nodes {
            let operands: Vec<Option<Arc<Value>>> = node.input.iter().map(|n| known.get(n.as_str()).cloned()).collect();
            let operands: Vec<Option<&Value>> = operands.iter().map(Option::as_deref).collect();
            // What earlier nodes needed beside their results is free again.
            let held: usize = known.values().map(|v| 8 * v.len()).sum();
            let results = self.evaluate(node, &operands, &budget.with_held(held as u64))?;
            for (name, value) in node.output.iter().zip(results) {
                known.insert(name, Arc::new(value));
            }
            for name in &node.input {
                if let Some(left) = uses.get_mut(name.as_str()) {
                    *left -= 1;
                    if *left == 0 {
                        known.remove(name.as_str());
                    }
                }
            }
        }
        let value = |port: &Port| {
            let own = known.get(port.name.as_str()).map(|v| (**v).clone());
            own.ok_or_else(|| format!("has an output `{}`, which its node leaves out", port.name))
        };
        self.outputs.iter().map(value).collect()
    }
}

/// What is said of an operator that is not known.
pub(crate) fn unknown(node: &NodeProto) -> String {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}::", node.domain) };
    format!("has a node {} of the operator `{domain}{}`, which is not supported", label(node), node.op_type)
}
