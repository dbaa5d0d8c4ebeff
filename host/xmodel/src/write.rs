//! Files of the vendor's graph format, written: operations with attributes of the types that the format has for them, and
//! the tree of subgraphs.
//!
//! Maps are written in the order of their keys, so that a file's bytes follow from its contents alone. Definitions of
//! operations (`op_defs`) are left out: the vendor's runtime has those of its own operations, and registers others by
//! their name.

use std::collections::{BTreeMap, HashSet};

use prost::Message;

use crate::Element;
use crate::message::{self, AttrValue, Value};

pub mod float;
pub mod form;
mod quantized;

pub use quantized::write;

/// The value of an attribute, in exactly one of the format's types.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting(AttrValue);

impl Setting {
    fn of(value: Value) -> Self {
        Self(AttrValue { value: Some(value) })
    }

    /// A truth value.
    pub fn flag(value: bool) -> Self {
        Self::of(Value::Bool(value))
    }

    /// An integer of 32 bits.
    pub fn int(value: i32) -> Self {
        Self::of(Value::Int32(value))
    }

    /// An unsigned integer of 64 bits.
    pub fn wide(value: u64) -> Self {
        Self::of(Value::Uint64(value))
    }

    /// The unsigned integer of 64 bits that it is, if it is one.
    pub fn as_wide(&self) -> Option<u64> {
        match self.0.value {
            Some(Value::Uint64(value)) => Some(value),
            _ => None,
        }
    }

    /// A float of 32 bits.
    pub fn float(value: f32) -> Self {
        Self::of(Value::Float(value))
    }

    /// Text.
    pub fn text(value: &str) -> Self {
        Self::of(Value::Text(value.to_owned()))
    }

    /// Bytes.
    pub fn bytes(value: Vec<u8>) -> Self {
        Self::of(Value::Bytes(message::Bytes { value }))
    }

    /// Integers of 32 bits.
    pub fn ints(value: impl IntoIterator<Item = i32>) -> Self {
        Self::of(Value::Int32Vec(message::Int32Vec { value: value.into_iter().collect() }))
    }

    /// Floats of 32 bits.
    pub fn floats(value: Vec<f32>) -> Self {
        Self::of(Value::FloatVec(message::FloatVec { value }))
    }

    /// Texts.
    pub fn texts(value: Vec<String>) -> Self {
        Self::of(Value::TextVec(message::TextVec { value }))
    }

    /// Integers of 32 bits by name.
    pub fn int_map(value: BTreeMap<String, i32>) -> Self {
        Self::of(Value::MapInt32(message::MapInt32 { value }))
    }

    /// Texts by name.
    pub fn text_map(value: BTreeMap<String, String>) -> Self {
        Self::of(Value::MapText(message::MapText { value }))
    }

    /// Bytes by name.
    pub fn bytes_map(value: BTreeMap<String, Vec<u8>>) -> Self {
        let value = value.into_iter().map(|(name, value)| (name, message::Bytes { value })).collect();
        Self::of(Value::MapBytes(message::MapBytes { value }))
    }

    /// A shape; sizes beyond 31 bits, which no reader takes, become the largest one.
    pub fn shape(shape: &[usize]) -> Self {
        Self::ints(shape.iter().map(|d| i32::try_from(*d).unwrap_or(i32::MAX)))
    }
}

/// Attributes by name.
pub type Settings = Vec<(String, Setting)>;

/// Attributes of a list of names and values.
pub fn settings<const N: usize>(list: [(&str, Setting); N]) -> Settings {
    list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The result of an operation.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name.
    pub name: String,
    /// Dimensions, batch first.
    pub shape: Vec<usize>,
    /// Element type.
    pub element: Element,
    /// Attributes.
    pub settings: Settings,
}

/// An operation.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Attributes.
    pub settings: Settings,
    /// Arguments: name, and the operations that it reads.
    pub args: Vec<(&'static str, Vec<String>)>,
    /// Its result.
    pub tensor: Made,
}

impl Node {
    /// An operation on floats without attributes, whose tensor has its name.
    pub fn float(name: &str, kind: &str, shape: &[usize]) -> Self {
        let tensor =
            Made { name: name.to_owned(), shape: shape.to_vec(), element: Element::Float, settings: Vec::new() };
        Self { name: name.to_owned(), kind: kind.to_owned(), settings: Vec::new(), args: Vec::new(), tensor }
    }

    /// With another argument.
    #[must_use]
    pub fn reads(mut self, arg: &'static str, names: &[String]) -> Self {
        self.args.push((arg, names.to_vec()));
        self
    }

    /// With another attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: Setting) -> Self {
        self.settings.push((name.to_owned(), value));
        self
    }

    /// With more attributes.
    #[must_use]
    pub fn and(mut self, all: Settings) -> Self {
        self.settings.extend(all);
        self
    }
}

/// A subgraph.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its own operations: of a leaf.
    pub nodes: Vec<String>,
    /// Its parts.
    pub parts: Vec<Self>,
    /// Attributes.
    pub settings: Settings,
}

/// A file in the making.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The graph's name.
    pub name: String,
    /// Operations, producers before consumers.
    pub nodes: Vec<Node>,
    /// The tree of subgraphs.
    pub root: Part,
    /// Attributes.
    pub settings: Settings,
}

impl Drawn {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let graph = message::Graph {
            graph_name: self.name.clone(),
            op_node: self.nodes.iter().map(node).collect(),
            subg_root: Some(part(&self.root)),
            graph_attr: map(&self.settings),
        };
        graph.encode_to_vec()
    }
}

fn map(settings: &Settings) -> BTreeMap<String, AttrValue> {
    settings.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()
}

fn node(own: &Node) -> message::OpNode {
    let (data_type, tensor_bit_width) = match own.tensor.element {
        Element::Fixed => (2, 8),
        Element::Float => (4, 32),
        Element::Other(kind, bits) => (kind, bits),
    };
    let tensor = message::Tensor {
        tensor_name: own.tensor.name.clone(),
        tensor_dim: own.tensor.shape.iter().map(|d| u32::try_from(*d).unwrap_or(u32::MAX)).collect(),
        data_type,
        tensor_bit_width,
        tensor_attr: map(&own.tensor.settings),
    };
    let args = own.args.iter().map(|(name, ops)| message::OpArg { arg_name: (*name).to_owned(), arg_ops: ops.clone() });
    message::OpNode {
        op_name: own.name.clone(),
        op_type: own.kind.clone(),
        op_attr: map(&own.settings),
        args: args.collect(),
        output_tensor: Some(tensor),
    }
}

fn part(own: &Part) -> message::SubGraph {
    message::SubGraph {
        subgraph_name: own.name.clone(),
        op_name: own.nodes.clone(),
        subg_attr: map(&own.settings),
        subg_child: own.parts.iter().map(part).collect(),
    }
}

/// Names that are taken: operations, tensors and subgraphs are found by name.
#[derive(Clone, Debug, Default)]
pub struct Names(HashSet<String>);

impl Names {
    /// Whether a name is taken.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The name, or one with a number behind it where it is taken.
    pub fn free(&mut self, name: &str) -> String {
        let numbered = (1..).map(|n| format!("{name}_{n}"));
        let found = std::iter::once(name.to_owned()).chain(numbered).find(|name| !self.0.contains(name));
        let name = found.unwrap_or_default();
        self.0.insert(name.clone());
        name
    }
}
