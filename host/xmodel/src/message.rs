//! The protobuf messages of the vendor's graph files (layout "v2"), by field number. What isn't listed is skipped.

use std::collections::BTreeMap;

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(string, tag = "1")]
    pub(super) graph_name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) op_node: Vec<OpNode>,
    #[prost(message, optional, tag = "10")]
    pub(super) subg_root: Option<SubGraph>,
    #[prost(btree_map = "string, message", tag = "11")]
    pub(super) graph_attr: BTreeMap<String, AttrValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpNode {
    #[prost(string, tag = "1")]
    pub(super) op_name: String,
    #[prost(string, tag = "2")]
    pub(super) op_type: String,
    #[prost(btree_map = "string, message", tag = "3")]
    pub(super) op_attr: BTreeMap<String, AttrValue>,
    #[prost(message, repeated, tag = "4")]
    pub(super) args: Vec<OpArg>,
    #[prost(message, optional, tag = "5")]
    pub(super) output_tensor: Option<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpArg {
    #[prost(string, tag = "1")]
    pub(super) arg_name: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) arg_ops: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(string, tag = "1")]
    pub(super) tensor_name: String,
    #[prost(uint32, repeated, tag = "2")]
    pub(super) tensor_dim: Vec<u32>,
    #[prost(int32, tag = "5")]
    pub(super) data_type: i32,
    #[prost(int32, tag = "6")]
    pub(super) tensor_bit_width: i32,
    #[prost(btree_map = "string, message", tag = "10")]
    pub(super) tensor_attr: BTreeMap<String, AttrValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SubGraph {
    #[prost(string, tag = "1")]
    pub(super) subgraph_name: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) op_name: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    pub(super) subg_attr: BTreeMap<String, AttrValue>,
    #[prost(message, repeated, tag = "10")]
    pub(super) subg_child: Vec<SubGraph>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttrValue {
    #[prost(
        oneof = "Value",
        tags = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32"
    )]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(int32, tag = "5")]
    Int32(i32),
    #[prost(uint32, tag = "6")]
    Uint32(u32),
    #[prost(int64, tag = "7")]
    Int64(i64),
    #[prost(uint64, tag = "8")]
    Uint64(u64),
    #[prost(float, tag = "9")]
    Float(f32),
    #[prost(double, tag = "10")]
    Double(f64),
    #[prost(string, tag = "11")]
    Text(String),
    #[prost(message, tag = "12")]
    Bytes(Bytes),
    #[prost(message, tag = "13")]
    BoolVec(BoolVec),
    #[prost(message, tag = "14")]
    Int32Vec(Int32Vec),
    #[prost(message, tag = "15")]
    Uint32Vec(Uint32Vec),
    #[prost(message, tag = "16")]
    Int64Vec(Int64Vec),
    #[prost(message, tag = "17")]
    Uint64Vec(Uint64Vec),
    #[prost(message, tag = "18")]
    FloatVec(FloatVec),
    #[prost(message, tag = "19")]
    DoubleVec(DoubleVec),
    #[prost(message, tag = "20")]
    TextVec(TextVec),
    #[prost(message, tag = "21")]
    BytesVec(BytesVec),
    #[prost(message, tag = "22")]
    MapInt32(MapInt32),
    #[prost(message, tag = "23")]
    MapUint32(MapUint32),
    #[prost(message, tag = "24")]
    MapInt64(MapInt64),
    #[prost(message, tag = "25")]
    MapUint64(MapUint64),
    #[prost(message, tag = "26")]
    MapText(MapText),
    #[prost(message, tag = "27")]
    MapBytes(MapBytes),
    #[prost(message, tag = "28")]
    MapInt32Vec(MapInt32Vec),
    #[prost(message, tag = "29")]
    MapUint32Vec(MapUint32Vec),
    #[prost(message, tag = "30")]
    MapInt64Vec(MapInt64Vec),
    #[prost(message, tag = "31")]
    MapUint64Vec(MapUint64Vec),
    #[prost(message, tag = "32")]
    MapTextVec(MapTextVec),
}

// The messages below have one field, `value` = 1.

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bytes {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BoolVec {
    #[prost(bool, repeated, tag = "1")]
    pub(super) value: Vec<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Int32Vec {
    #[prost(int32, repeated, tag = "1")]
    pub(super) value: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Uint32Vec {
    #[prost(uint32, repeated, tag = "1")]
    pub(super) value: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Int64Vec {
    #[prost(int64, repeated, tag = "1")]
    pub(super) value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Uint64Vec {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) value: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FloatVec {
    #[prost(float, repeated, tag = "1")]
    pub(super) value: Vec<f32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DoubleVec {
    #[prost(double, repeated, tag = "1")]
    pub(super) value: Vec<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TextVec {
    #[prost(string, repeated, tag = "1")]
    pub(super) value: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct BytesVec {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub(super) value: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapInt32 {
    #[prost(btree_map = "string, int32", tag = "1")]
    pub(super) value: BTreeMap<String, i32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapUint32 {
    #[prost(btree_map = "string, uint32", tag = "1")]
    pub(super) value: BTreeMap<String, u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapInt64 {
    #[prost(btree_map = "string, int64", tag = "1")]
    pub(super) value: BTreeMap<String, i64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapUint64 {
    #[prost(btree_map = "string, uint64", tag = "1")]
    pub(super) value: BTreeMap<String, u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapText {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(super) value: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapBytes {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, Bytes>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapInt32Vec {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, Int32Vec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapUint32Vec {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, Uint32Vec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapInt64Vec {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, Int64Vec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapUint64Vec {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, Uint64Vec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MapTextVec {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(super) value: BTreeMap<String, TextVec>,
}
