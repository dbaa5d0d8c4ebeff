//! Networks as ONNX models.
//!
//! A value between nodes has the layout of our layers, channels last; around what ONNX computes with channels first stand
//! transpositions, and a value that comes from one is not turned twice. Names are those that the vendor's export has, as far as
//! they follow from the layers'.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost::bytes::Bytes;

use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node};
use shiftwise_operators::{ModelRef, Walk};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSet, Size, TensorProto, TensorShape,
    TensorType, TypeProto, ValueInfo,
};

mod blocks;
mod layers;
mod operators;
mod quantizers;

/// How quantizers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As the vendor's export: arithmetic for steps that are powers of two, pairs of QuantizeLinear and DequantizeLinear for
    /// others; weights as the floats that they stand for.
    #[default]
    Vendor,
    /// Pairs of QuantizeLinear and DequantizeLinear with `int8`, also on weights, which are stored as integers.
    Qdq,
}

/// What is written, and how.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// The form of quantizers.
    pub form: Form,
    /// The version of ONNX' operators, from [`WriteOptions::OPSETS`].
    pub opset: i64,
}

impl WriteOptions {
    /// Versions of ONNX' operators that are written.
    pub const OPSETS: std::ops::RangeInclusive<i64> = 13..=21;
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { form: Form::Vendor, opset: 13 }
    }
}

/// The bytes of a float model's file.
///
/// Errors: a layer that has no form in ONNX' operators, with its name; an opset that is not written.
pub fn write_float(graph: &Graph, options: &WriteOptions) -> Result<Vec<u8>, Error> {
    model((graph, None), options)
}

/// The bytes of a quantized model's file.
///
/// Errors: as [`write_float`].
pub fn write_quantized(quantized: &QuantGraph, options: &WriteOptions) -> Result<Vec<u8>, Error> {
    model((&quantized.graph, Some(quantized)), options)
}

fn model(model: ModelRef<'_>, options: &WriteOptions) -> Result<Vec<u8>, Error> {
    let mut walk = Walk::new(model, Writer::new(options)?);
    let graph = walk.graph;
    for id in &graph.inputs {
        let name = &graph.node(*id).name;
        walk.format.names.insert(name.clone());
        walk.values.insert(*id, name.clone());
    }
    walk.write()?;
    let output = outputs(&mut walk);
    let metadata_props = quantizers::said(&walk);
    let written = walk.format;
    let graph = GraphProto {
        node: written.nodes,
        name: graph.name.clone(),
        initializer: written.stored,
        input: graph.inputs.iter().map(|id| port(&graph.node(*id).name, graph.node(*id))).collect(),
        output,
    };
    let model = ModelProto {
        // The oldest version of the format that has the operators.
        ir_version: match options.opset {
            ..=14 => 7,
            15..=18 => 8,
            19..=20 => 9,
            _ => 10,
        },
        producer_name: "shiftwise".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: options.opset }],
        metadata_props,
    };
    Ok(model.encode_to_vec())
}

/// The values of the outputs under the names of their layers.
fn outputs(walk: &mut Walk<'_, Writer>) -> Vec<ValueInfo> {
    let mut all: Vec<ValueInfo> = Vec::new();
    for id in &walk.graph.outputs {
        let name = walk.layer_name(*id);
        let value = walk.values[id].clone();
        let written = &mut walk.format;
        // A value that is an input or another output already keeps that name.
        let own = written.nodes.iter().any(|n| n.output.contains(&value));
        let taken = written.names.contains(&name);
        let name = written.free(&if taken { format!("{name}_output") } else { name });
        if own && !all.iter().any(|port| port.name == value) {
            let renamed = |v: &mut String| {
                if *v == value {
                    *v = name.clone()
                }
            };
            written.nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)).for_each(renamed);
            walk.values.values_mut().for_each(renamed);
        } else {
            written.push("Identity", format!("{name}_identity"), vec![value], name.clone(), Vec::new());
        }
        all.push(port(&name, walk.graph.node(*id)));
    }
    all
}

/// A model in the making.
#[derive(Debug)]
struct Writer {
    options: WriteOptions,
    nodes: Vec<NodeProto>,
    stored: Vec<TensorProto>,
    names: HashSet<String>,
    /// Each value with channels last that comes from one with channels first.
    first: HashMap<String, String>,
}

/// From channels last to channels first, and back.
const FIRST: [i64; 4] = [0, 3, 1, 2];
const LAST: [i64; 4] = [0, 2, 3, 1];

impl Writer {
    fn new(options: &WriteOptions) -> Result<Self, Error> {
        if !WriteOptions::OPSETS.contains(&options.opset) {
            let (first, last) = WriteOptions::OPSETS.into_inner();
            return Err(Error::Options(format!("opset {} is not written; {first} to {last} are", options.opset)));
        }
        let (nodes, stored, names, first) = (Vec::new(), Vec::new(), HashSet::new(), HashMap::new());
        Ok(Self { options: *options, nodes, stored, names, first })
    }

    /// A name that nothing has yet.
    fn free(&mut self, name: &str) -> String {
        let all = std::iter::once(name.to_owned()).chain((1..).map(|n| format!("{name}__{n}")));
        let name = all.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        name
    }

    /// Adds a node of one result, and returns that.
    fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.free(name);
        let output = format!("{name}:0");
        let inputs = inputs.iter().map(|i| (*i).to_owned()).collect();
        self.push(operator, name, inputs, output.clone(), attributes);
        output
    }

    fn push(
        &mut self,
        operator: &str,
        name: String,
        input: Vec<String>,
        output: String,
        attribute: Vec<AttributeProto>,
    ) {
        let (op_type, domain) = (operator.to_owned(), String::new());
        self.nodes.push(NodeProto { input, output: vec![output], name, op_type, attribute, domain });
    }

    fn store(&mut self, name: &str, kind: i32, dims: &[usize], raw: Vec<u8>) -> String {
        let name = self.free(&format!("{name}:0"));
        self.stored.push(TensorProto {
            dims: dims.iter().map(|d| *d as i64).collect(),
            data_type: kind,
            name: name.clone(),
            raw_data: Some(Bytes::from(raw)),
            ..TensorProto::default()
        });
        name
    }

    /// A constant of floats.
    fn floats(&mut self, name: &str, tensor: &Tensor) -> String {
        self.store(name, 1, tensor.shape(), tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A constant that is one float.
    fn float(&mut self, name: &str, value: f32) -> String {
        self.store(name, 1, &[], value.to_le_bytes().to_vec())
    }

    /// A constant of whole numbers.
    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.store(name, 7, &[values.len()], values.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A value with channels first.
    fn channels_first(&mut self, name: &str, value: &str) -> String {
        match self.first.get(value) {
            Some(own) => own.clone(),
            None => self.node("Transpose", &format!("{name}__first"), &[value], vec![ints("perm", &FIRST)]),
        }
    }

    /// A value with channels last, of one with channels first.
    fn channels_last(&mut self, name: &str, value: &str) -> String {
        let turned = self.node("Transpose", &format!("{name}__last"), &[value], vec![ints("perm", &LAST)]);
        self.first.insert(turned.clone(), value.to_owned());
        turned
    }
}

/// An input or an output, its batch left open.
fn port(name: &str, node: &Node) -> ValueInfo {
    let open = Dimension { size: Some(Size::Name("batch".into())) };
    let sizes = node.shape.iter().map(|d| Dimension { size: Some(Size::Value(*d as i64)) });
    let shape = Some(TensorShape { dim: std::iter::once(open).chain(sizes).collect() });
    ValueInfo { name: name.to_owned(), kind: Some(TypeProto { tensor_type: Some(TensorType { elem_type: 1, shape }) }) }
}

/// ONNX' numbers of attributes' types.
const KIND_FLOAT: i32 = 1;
const KIND_INT: i32 = 2;
const KIND_STRING: i32 = 3;
const KIND_INTS: i32 = 7;

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(value), kind: KIND_INT, ..AttributeProto::default() }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), ints: values.to_vec(), kind: KIND_INTS, ..AttributeProto::default() }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(value), kind: KIND_FLOAT, ..AttributeProto::default() }
}

fn text(name: &str, value: &'static str) -> AttributeProto {
    let s = Some(Bytes::from_static(value.as_bytes()));
    AttributeProto { name: name.into(), s, kind: KIND_STRING, ..AttributeProto::default() }
}
