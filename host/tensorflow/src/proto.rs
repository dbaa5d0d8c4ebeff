//! The messages of TensorFlow's files, as far as a network needs them.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

/// `SavedModel`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedModel {
    #[prost(int64, tag = "1")]
    pub(crate) schema: i64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) meta_graphs: Vec<MetaGraphDef>,
}

/// `MetaGraphDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaGraphDef {
    #[prost(message, optional, tag = "1")]
    pub(crate) info: Option<MetaInfo>,
    #[prost(message, optional, tag = "2")]
    pub(crate) graph: Option<GraphDef>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(crate) signatures: BTreeMap<String, SignatureDef>,
    #[prost(message, optional, tag = "7")]
    pub(crate) objects: Option<SavedObjectGraph>,
}

/// `MetaInfoDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaInfo {
    #[prost(string, repeated, tag = "4")]
    pub(crate) tags: Vec<String>,
    #[prost(string, tag = "5")]
    pub(crate) version: String,
}

/// `VersionDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Versions {
    #[prost(int32, tag = "1")]
    pub(crate) producer: i32,
    #[prost(int32, tag = "2")]
    pub(crate) min_consumer: i32,
}

/// `SignatureDef`: the ends of a function by the user's names.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SignatureDef {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) inputs: BTreeMap<String, TensorInfo>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub(crate) outputs: BTreeMap<String, TensorInfo>,
    #[prost(string, tag = "3")]
    pub(crate) method: String,
}

/// `TensorInfo`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int32, tag = "2")]
    pub(crate) element: i32,
    #[prost(message, optional, tag = "3")]
    pub(crate) shape: Option<TensorShape>,
}

/// `SavedObjectGraph`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedObjectGraph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<SavedObject>,
}

/// `SavedObject`: of the kinds only variables, whose names graphs have them by.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedObject {
    #[prost(message, optional, tag = "7")]
    pub(crate) variable: Option<SavedVariable>,
}

/// `SavedVariable`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SavedVariable {
    #[prost(string, tag = "6")]
    pub(crate) name: String,
}

/// `TrackableObjectGraph`, which a checkpoint has as a tensor of its own: object k is object k of `SavedObjectGraph`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackableObjectGraph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<TrackableObject>,
}

/// `TrackableObject`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TrackableObject {
    #[prost(message, repeated, tag = "2")]
    pub(crate) attributes: Vec<SerializedTensor>,
}

/// `SerializedTensor`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SerializedTensor {
    #[prost(string, tag = "2")]
    pub(crate) full_name: String,
    #[prost(string, tag = "3")]
    pub(crate) key: String,
}

/// `GraphDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphDef {
    #[prost(message, repeated, tag = "1")]
    pub(crate) nodes: Vec<NodeDef>,
    #[prost(message, optional, tag = "2")]
    pub(crate) library: Option<FunctionLibrary>,
    #[prost(message, optional, tag = "4")]
    pub(crate) versions: Option<Versions>,
}

/// `FunctionDefLibrary`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionLibrary {
    #[prost(message, repeated, tag = "1")]
    pub(crate) functions: Vec<FunctionDef>,
}

/// `FunctionDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct FunctionDef {
    #[prost(message, optional, tag = "1")]
    pub(crate) signature: Option<OpDef>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) nodes: Vec<NodeDef>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub(crate) results: BTreeMap<String, String>,
}

/// `OpDef`: what a function is called, and its ends.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OpDef {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "2")]
    pub(crate) inputs: Vec<ArgDef>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) outputs: Vec<ArgDef>,
}

/// `OpDef.ArgDef`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ArgDef {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// `NodeDef`: an operation.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeDef {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) op: String,
    #[prost(string, repeated, tag = "3")]
    pub(crate) inputs: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(crate) attributes: BTreeMap<String, AttrValue>,
}

/// `AttrValue`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttrValue {
    #[prost(oneof = "Attribute", tags = "1, 2, 3, 4, 5, 6, 7, 8, 10")]
    pub(crate) value: Option<Attribute>,
}

/// The kinds of attributes.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Attribute {
    #[prost(message, tag = "1")]
    List(AttrList),
    #[prost(bytes, tag = "2")]
    Text(Vec<u8>),
    #[prost(int64, tag = "3")]
    Integer(i64),
    #[prost(float, tag = "4")]
    Float(f32),
    #[prost(bool, tag = "5")]
    Flag(bool),
    #[prost(int32, tag = "6")]
    Type(i32),
    #[prost(message, tag = "7")]
    Shape(TensorShape),
    #[prost(message, tag = "8")]
    Tensor(TensorProto),
    #[prost(message, tag = "10")]
    Function(NameAttrList),
}

/// `AttrValue.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttrList {
    #[prost(int64, repeated, tag = "3")]
    pub(crate) integers: Vec<i64>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) shapes: Vec<TensorShape>,
}

/// `NameAttrList`: a function that is called.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NameAttrList {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

/// `TensorShapeProto`; sizes are −1 where they are open.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "2")]
    pub(crate) dimensions: Vec<Dimension>,
    #[prost(bool, tag = "3")]
    pub(crate) unknown_rank: bool,
}

/// `TensorShapeProto.Dim`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(int64, tag = "1")]
    pub(crate) size: i64,
}

impl TensorShape {
    /// The sizes.
    pub(crate) fn sizes(&self) -> Vec<i64> {
        self.dimensions.iter().map(|d| d.size).collect()
    }
}

/// `TensorProto`: a constant.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int32, tag = "1")]
    pub(crate) element: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) content: Vec<u8>,
    #[prost(float, repeated, tag = "5")]
    pub(crate) floats: Vec<f32>,
    #[prost(double, repeated, tag = "6")]
    pub(crate) doubles: Vec<f64>,
    #[prost(int32, repeated, tag = "7")]
    pub(crate) ints: Vec<i32>,
    #[prost(int64, repeated, tag = "10")]
    pub(crate) longs: Vec<i64>,
    #[prost(bool, repeated, tag = "11")]
    pub(crate) flags: Vec<bool>,
    #[prost(int32, repeated, tag = "13")]
    pub(crate) halves: Vec<i32>,
}

/// `BundleHeaderProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleHeader {
    #[prost(int32, tag = "1")]
    pub(crate) shards: i32,
    #[prost(int32, tag = "2")]
    pub(crate) big_endian: i32,
}

/// `BundleEntryProto`: where a tensor of a checkpoint lies.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BundleEntry {
    #[prost(int32, tag = "1")]
    pub(crate) element: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
    #[prost(int32, tag = "3")]
    pub(crate) shard: i32,
    #[prost(int64, tag = "4")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "5")]
    pub(crate) size: i64,
}
