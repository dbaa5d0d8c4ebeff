//! Networks as TensorFlow's graphs: frozen, and as SavedModels that serve.
//!
//! Weights stand in the graph as constants, quantized ones as the floats that they stand for; quantizers are TensorFlow's
//! operations. Names are those of the vendor's graphs as far as they follow from the layers'.

use std::collections::{BTreeMap, HashSet};

use prost::Message;

use crate::proto::{
    AttrList, AttrValue, Attribute, Dimension, GraphDef, MetaGraphDef, MetaInfo, NodeDef, SavedModel, SignatureDef,
    TensorInfo, TensorProto, TensorShape, Versions,
};
use shiftwise_graph::error::Error;
use shiftwise_operators::{Operators, Walk, parts};
use shiftwise_quant::quant_graph::Model;
use shiftwise_tensor::tensor::Tensor;

mod layers;
mod operators;
mod quantizers;

/// TensorFlow's numbers of element types.
pub(super) const FLOAT: i32 = 1;
const INT32: i32 = 3;

/// The oldest version of graphs that has every operation which is written.
const PRODUCER: i32 = 1286;

/// The bytes of a frozen graph.
///
/// Errors: a layer that has no form in TensorFlow's operations, with its name.
pub fn write_graph(model: &Model) -> Result<Vec<u8>, Error> {
    written(model).map(|(graph, _)| graph.encode_to_vec())
}

/// The bytes of a SavedModel's `saved_model.pb`, which is all of it: nothing in it is a variable. It serves what it
/// computes as `serving_default`.
///
/// Errors: as [`write_graph`].
pub fn write_saved_model(model: &Model) -> Result<Vec<u8>, Error> {
    let (graph, signature) = written(model)?;
    let meta = MetaGraphDef {
        info: Some(MetaInfo { tags: vec!["serve".into()], version: "2.12.0".into() }),
        graph: Some(graph),
        signatures: BTreeMap::from([("serving_default".to_owned(), signature)]),
        objects: None,
    };
    Ok(SavedModel { schema: 1, meta_graphs: vec![meta] }.encode_to_vec())
}

fn written(model: &Model) -> Result<(GraphDef, SignatureDef), Error> {
    let mut walk = Walk::new(parts(model), Writer::default());
    let graph = walk.graph;
    let mut inputs = BTreeMap::new();
    for id in &graph.inputs {
        let node = graph.node(*id);
        let shape = batch(&node.shape);
        let attributes = vec![("dtype", Attribute::Type(FLOAT)), ("shape", Attribute::Shape(shape.clone()))];
        let name = walk.format.node("Placeholder", &node.name, &[], attributes);
        let port = TensorInfo { name: format!("{name}:0"), element: FLOAT, shape: Some(shape) };
        inputs.insert(node.name.clone(), port);
        walk.values.insert(*id, name);
    }
    walk.write()?;
    let mut outputs = BTreeMap::new();
    for id in &graph.outputs {
        let own = walk.layer_name(*id);
        let name = walk.format.operator("Identity", &own, &[&walk.values[id]]);
        let shape = Some(batch(&graph.node(*id).shape));
        outputs.insert(name.clone(), TensorInfo { name: format!("{name}:0"), element: FLOAT, shape });
    }
    let versions = Some(Versions { producer: PRODUCER, min_consumer: 12 });
    let graph = GraphDef { nodes: walk.format.nodes, library: None, versions };
    Ok((graph, SignatureDef { inputs, outputs, method: "tensorflow/serving/predict".into() }))
}

/// A graph in the making.
#[derive(Debug, Default)]
struct Writer {
    nodes: Vec<NodeDef>,
    names: HashSet<String>,
}

/// A name as TensorFlow's nodes may have it.
fn sane(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_./>-".contains(c);
    let name: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.') { name } else { format!("n{name}") }
}

impl Writer {
    /// Adds a node, and returns its name.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: Vec<(&str, Attribute)>) -> String {
        let name = sane(name);
        let all = std::iter::once(name.clone()).chain((1..).map(|n| format!("{name}_{n}")));
        let name = all.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        let attributes = attributes.into_iter().map(|(key, value)| (key.to_owned(), AttrValue { value: Some(value) }));
        let inputs = inputs.iter().map(|i| (*i).to_owned()).collect();
        self.nodes.push(NodeDef { name: name.clone(), op: op.to_owned(), inputs, attributes: attributes.collect() });
        name
    }

    /// Adds an operation on floats.
    fn float_node(&mut self, op: &str, name: &str, inputs: &[&str], more: Vec<(&str, Attribute)>) -> String {
        let attributes = std::iter::once(("T", Attribute::Type(FLOAT))).chain(more).collect();
        self.node(op, name, inputs, attributes)
    }

    fn constant(&mut self, name: &str, element: i32, shape: &[usize], content: Vec<u8>) -> String {
        let tensor = TensorProto { element, shape: Some(sizes(shape)), content, ..TensorProto::default() };
        self.node("Const", name, &[], vec![("dtype", Attribute::Type(element)), ("value", Attribute::Tensor(tensor))])
    }

    /// A constant of floats.
    fn floats(&mut self, name: &str, tensor: &Tensor) -> String {
        self.constant(name, FLOAT, tensor.shape(), tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A constant that is one float.
    fn float(&mut self, name: &str, value: f32) -> String {
        self.constant(name, FLOAT, &[], value.to_le_bytes().to_vec())
    }

    /// A constant of whole numbers.
    fn integers(&mut self, name: &str, shape: &[usize], values: &[i64]) -> String {
        let content = values.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect();
        self.constant(name, INT32, shape, content)
    }
}

fn sizes(shape: &[usize]) -> TensorShape {
    TensorShape { dimensions: shape.iter().map(|d| Dimension { size: *d as i64 }).collect(), unknown_rank: false }
}

/// The shape of a batch, whose size is left open.
fn batch(shape: &[usize]) -> TensorShape {
    let mut all = sizes(shape);
    all.dimensions.insert(0, Dimension { size: -1 });
    all
}

fn text(value: &str) -> Attribute {
    Attribute::Text(value.as_bytes().to_vec())
}

fn list(integers: &[i64]) -> Attribute {
    Attribute::List(AttrList { integers: integers.to_vec(), shapes: Vec::new() })
}
