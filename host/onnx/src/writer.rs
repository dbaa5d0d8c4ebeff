//! Networks as ONNX models.
//!
//! A value between nodes has the layout of our layers, channels last; around what ONNX computes with channels first stand
//! transpositions, and a value that comes from one is not turned twice. Names are those that the vendor's export has, as far as
//! they follow from the layers'.

use std::collections::{HashMap, HashSet};

use prost::Message;
use prost::bytes::Bytes;

use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSet, Size, TensorProto, TensorShape,
    TensorType, TypeProto, ValueInfo,
};

mod blocks;
mod functions;
mod layers;
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
    let weights = |id: NodeId| graph.node(id).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
    Writer::new(graph, None, options)?.model(&weights)
}

/// The bytes of a quantized model's file.
///
/// Errors: as [`write_float`].
pub fn write_quantized(quantized: &QuantGraph, options: &WriteOptions) -> Result<Vec<u8>, Error> {
    let weights = |id: NodeId| match options.form {
        Form::Vendor => layer_weights(quantized, id),
        // Quantizers of weights stand in the graph.
        Form::Qdq => quantized.graph.node(id).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect(),
    };
    Writer::new(&quantized.graph, Some(quantized), options)?.model(&weights)
}

/// A model in the making.
struct Writer<'a> {
    graph: &'a Graph,
    quantized: Option<&'a QuantGraph>,
    options: WriteOptions,
    nodes: Vec<NodeProto>,
    stored: Vec<TensorProto>,
    names: HashSet<String>,
    /// Each value with channels last that comes from one with channels first.
    first: HashMap<String, String>,
    /// The values of the layers.
    values: HashMap<NodeId, String>,
    /// Quantizers that the layer being written has had so far.
    counted: usize,
}

/// From channels last to channels first, and back.
const FIRST: [i64; 4] = [0, 3, 1, 2];
const LAST: [i64; 4] = [0, 2, 3, 1];

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, quantized: Option<&'a QuantGraph>, options: &WriteOptions) -> Result<Self, Error> {
        if !WriteOptions::OPSETS.contains(&options.opset) {
            let (first, last) = WriteOptions::OPSETS.into_inner();
            return Err(Error::Options(format!("opset {} is not written; {first} to {last} are", options.opset)));
        }
        Ok(Self {
            graph,
            quantized,
            options: *options,
            nodes: Vec::new(),
            stored: Vec::new(),
            names: HashSet::new(),
            first: HashMap::new(),
            values: HashMap::new(),
            counted: 0,
        })
    }

    /// The layer's name in the model.
    fn layer_name(&self, id: NodeId) -> String {
        self.quantized.map_or_else(|| self.graph.node(id).name.clone(), |q| q.quant_name(id))
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
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|i| (*i).to_owned()).collect(),
            output: vec![output.clone()],
            name,
            op_type: operator.to_owned(),
            attribute: attributes,
            domain: String::new(),
        });
        output
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

    fn model(mut self, weights: &dyn Fn(NodeId) -> Vec<Tensor>) -> Result<Vec<u8>, Error> {
        let inputs: Vec<ValueInfo> =
            self.graph.inputs.iter().map(|id| port(&self.graph.node(*id).name, self.graph.node(*id))).collect();
        self.names.extend(inputs.iter().map(|input| input.name.clone()));
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            self.counted = 0;
            let fail = |why: String| Error::layer(&node.name, node.op.class(), why);
            let value = self.layer(id, weights(id)).map_err(fail)?;
            let value = self.in_type(&node.name, value, node.dtype);
            self.values.insert(id, value);
        }
        let outputs = self.outputs();
        let metadata_props = self.said(weights);
        let graph = GraphProto {
            node: self.nodes,
            name: self.graph.name.clone(),
            initializer: self.stored,
            input: inputs,
            output: outputs,
        };
        let model = ModelProto {
            // The oldest version of the format that has the operators.
            ir_version: match self.options.opset {
                ..=14 => 7,
                15..=18 => 8,
                19..=20 => 9,
                _ => 10,
            },
            producer_name: "shiftwise".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: vec![OperatorSet { domain: String::new(), version: self.options.opset }],
            metadata_props,
        };
        Ok(model.encode_to_vec())
    }

    /// A value rounded to a layer's type, which the layers behind it take as f32 again.
    fn in_type(&mut self, name: &str, value: String, dtype: Dtype) -> String {
        let kind = match dtype {
            Dtype::Float16 => 10,
            Dtype::BFloat16 => 16,
            Dtype::Float32 | Dtype::Float64 => return value,
        };
        let half = self.node("Cast", &format!("{name}__half"), &[&value], vec![int("to", kind)]);
        self.node("Cast", &format!("{name}__whole"), &[&half], vec![int("to", 1)])
    }

    /// The values of the outputs under the names of their layers.
    fn outputs(&mut self) -> Vec<ValueInfo> {
        let mut all: Vec<ValueInfo> = Vec::new();
        for id in self.graph.outputs.clone() {
            let name = self.layer_name(id);
            let value = self.values[&id].clone();
            // A value that is an input or another output already keeps that name.
            let own = self.nodes.iter().any(|n| n.output.contains(&value));
            let name = if self.names.contains(&name) { self.free(&format!("{name}_output")) } else { self.free(&name) };
            if own && !all.iter().any(|port| port.name == value) {
                let renamed = |v: &mut String| {
                    if *v == value {
                        *v = name.clone()
                    }
                };
                self.nodes.iter_mut().flat_map(|n| n.input.iter_mut().chain(&mut n.output)).for_each(renamed);
                self.values.values_mut().for_each(renamed);
            } else {
                let attribute = Vec::new();
                let (input, output) = (vec![value], vec![name.clone()]);
                let node = NodeProto {
                    input,
                    output,
                    name: format!("{name}_identity"),
                    op_type: "Identity".into(),
                    attribute,
                    domain: String::new(),
                };
                self.nodes.push(node);
            }
            all.push(port(&name, self.graph.node(id)));
        }
        all
    }

    /// A value rounded to a layer's type, if that has 16 bits; it stays an f32, which holds every such number.
    fn halved(&mut self, dtype: Dtype, name: &str, value: String) -> String {
        let kind = match dtype {
            Dtype::Float16 => 10,
            Dtype::BFloat16 => 16,
            Dtype::Float32 | Dtype::Float64 => return value,
        };
        let half = self.node("Cast", &format!("{name}/Cast"), &[&value], vec![int("to", kind)]);
        self.node("Cast", &format!("{name}/Cast_1"), &[&half], vec![int("to", 1)])
    }

    /// Writes a layer with its quantizers; returns its value.
    fn layer(&mut self, id: NodeId, weights: Vec<Tensor>) -> Result<String, String> {
        let node = self.graph.node(id);
        let name = format!("{}/{}", self.graph.name, self.layer_name(id));
        if let Op::Input(_) = node.op {
            let value = self.halved(node.dtype, &name, node.name.clone());
            return self.quantized_at(Point::Output(id), &name, value);
        }
        let mut inputs = Vec::new();
        for (k, input) in node.inputs.iter().enumerate() {
            let value = self.halved(node.dtype, &name, self.values[input].clone());
            inputs.push(self.quantized_at(Point::Input(id, k), &name, value)?);
        }
        let mut weights = weights;
        weights.iter_mut().for_each(|w| node.dtype.cast(w));
        // A layer of 16-bit floats rounds before and behind its bias, but for convolutions in bfloat16.
        let convolution = matches!(node.op, Op::Conv2D(_) | Op::DepthwiseConv2D(_));
        let apart = node.dtype.is_half() && node.op.weighted().is_some_and(|w| w.bias.is_some());
        let apart = apart && !(node.dtype == Dtype::BFloat16 && convolution);
        let bias = if apart && weights.len() == 2 { weights.pop() } else { None };
        let stored = self.weights(id, &weights)?;
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|i| self.graph.node(*i).shape.as_slice()).collect();
        let written = layers::Written {
            name: &name,
            inputs: &inputs,
            shapes: &shapes,
            shape: &node.shape,
            weights: &weights,
            stored: &stored,
        };
        let mut value = self.op(&node.op, &written)?;
        value = self.halved(node.dtype, &name, value);
        if let Some(bias) = bias {
            let bias = self.floats(&format!("{name}/BiasAdd/bias"), &bias);
            value = self.node("Add", &format!("{name}/BiasAdd"), &[&value, &bias], Vec::new());
            value = self.halved(node.dtype, &name, value);
        }
        value = self.quantized_at(Point::PreActivation(id), &name, value)?;
        let before = value.clone();
        value = self.activation(node.op.layer().activation(), &name, value)?;
        if value != before {
            value = self.halved(node.dtype, &name, value);
        }
        value = self.quantized_at(Point::PostActivation(id), &name, value)?;
        self.quantized_at(Point::Output(id), &name, value)
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
