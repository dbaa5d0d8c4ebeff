//! Networks as TensorFlow's graphs: frozen, and as SavedModels that serve.
//!
//! Weights stand in the graph as constants, quantized ones as the floats that they stand for; quantizers are TensorFlow's
//! operations. Names are those of the vendor's graphs as far as they follow from the layers'.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

use crate::proto::{
    AttrList, AttrValue, Attribute, Dimension, GraphDef, MetaGraphDef, MetaInfo, NodeDef, SavedModel, SignatureDef,
    TensorInfo, TensorProto, TensorShape, Versions,
};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::quant_graph::{Model, QuantGraph};
use shiftwise_tensor::tensor::Tensor;

mod functions;
mod layers;
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
    let (graph, quantized) = match model {
        Model::Float(graph) => (graph, None),
        Model::Quantized(quantized) => (&quantized.graph, Some(quantized)),
    };
    let writer =
        Writer { graph, quantized, nodes: Vec::new(), names: HashSet::new(), values: HashMap::new(), counted: 0 };
    writer.write()
}

/// A graph in the making.
struct Writer<'a> {
    graph: &'a Graph,
    quantized: Option<&'a QuantGraph>,
    nodes: Vec<NodeDef>,
    names: HashSet<String>,
    /// The values of the layers.
    values: HashMap<NodeId, String>,
    /// Quantizers that the layer being written has had so far.
    counted: usize,
}

/// A name as TensorFlow's nodes may have it.
fn sane(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_./>-".contains(c);
    let name: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.') { name } else { format!("n{name}") }
}

impl Writer<'_> {
    /// The layer's name in the model.
    fn layer_name(&self, id: NodeId) -> String {
        self.quantized.map_or_else(|| self.graph.node(id).name.clone(), |q| q.quant_name(id))
    }

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

    fn write(mut self) -> Result<(GraphDef, SignatureDef), Error> {
        let mut inputs = BTreeMap::new();
        for id in &self.graph.inputs {
            let node = self.graph.node(*id);
            let shape = batch(&node.shape);
            let attributes = vec![("dtype", Attribute::Type(FLOAT)), ("shape", Attribute::Shape(shape.clone()))];
            let name = self.node("Placeholder", &node.name, &[], attributes);
            inputs.insert(
                node.name.clone(),
                TensorInfo { name: format!("{name}:0"), element: FLOAT, shape: Some(shape) },
            );
            self.values.insert(*id, name);
        }
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            self.counted = 0;
            let fail = |why: String| Error::layer(&node.name, node.op.class(), why);
            if node.dtype.is_half() {
                return Err(fail(format!("layers in {} are not written for TensorFlow", node.dtype.name())));
            }
            let weights = match self.quantized {
                Some(q) => layer_weights(q, id),
                None => node.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect(),
            };
            let value = self.layer(id, &weights).map_err(fail)?;
            self.values.insert(id, value);
        }
        let mut outputs = BTreeMap::new();
        for id in self.graph.outputs.clone() {
            let own = self.layer_name(id);
            let value = self.values[&id].clone();
            let name = self.float_node("Identity", &own, &[&value], Vec::new());
            let shape = Some(batch(&self.graph.node(id).shape));
            outputs.insert(name.clone(), TensorInfo { name: format!("{name}:0"), element: FLOAT, shape });
        }
        let versions = Some(Versions { producer: PRODUCER, min_consumer: 12 });
        let graph = GraphDef { nodes: self.nodes, library: None, versions };
        Ok((graph, SignatureDef { inputs, outputs, method: "tensorflow/serving/predict".into() }))
    }

    /// Writes a layer with its quantizers; returns its value.
    fn layer(&mut self, id: NodeId, weights: &[Tensor]) -> Result<String, String> {
        let node = self.graph.node(id);
        let name = format!("{}/{}", self.graph.name, self.layer_name(id));
        if let Op::Input(_) = node.op {
            let value = self.values.get(&id).cloned().ok_or("is no input of the model")?;
            return self.quantized_at(Point::Output(id), &name, value);
        }
        let mut inputs = Vec::new();
        for (k, input) in node.inputs.iter().enumerate() {
            inputs.push(self.quantized_at(Point::Input(id, k), &name, self.values[input].clone())?);
        }
        let quantizers = self.quantized.and_then(|q| q.layers.get(&id)).map_or(&[][..], |l| &l.weights);
        self.counted += quantizers.iter().flatten().count();
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|i| self.graph.node(*i).shape.as_slice()).collect();
        let written = layers::Written { name: &name, inputs: &inputs, shapes: &shapes, shape: &node.shape, weights };
        let mut value = self.op(&node.op, &written)?;
        value = self.quantized_at(Point::PreActivation(id), &name, value)?;
        value = self.activation(node.op.layer().activation(), &name, value)?;
        value = self.quantized_at(Point::PostActivation(id), &name, value)?;
        self.quantized_at(Point::Output(id), &name, value)
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
