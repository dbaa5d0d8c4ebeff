//! ONNX's protobuf messages, by field number, and what reading them may take. What isn't listed is skipped.
//!
//! Source: `onnx.proto` of ONNX 1.22. Weights stay in the file's bytes: a message holds a view of them.

use prost::bytes::Bytes;
use prost::{Message, Oneof};

use shiftwise_graph::budget::Budget;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Entry {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, optional, tag = "2")]
    pub(crate) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(crate) i: Option<i64>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub(crate) s: Option<Bytes>,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<TensorProto>,
    #[prost(message, optional, boxed, tag = "6")]
    pub(crate) g: Option<Box<GraphProto>>,
    #[prost(float, repeated, tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub(crate) strings: Vec<Bytes>,
    #[prost(int32, tag = "20")]
    pub(crate) kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(crate) raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    pub(crate) double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub(crate) uint64_data: Vec<u64>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<Entry>,
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShape>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Dimension {
    #[prost(oneof = "Size", tags = "1, 2")]
    pub(crate) size: Option<Size>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Size {
    #[prost(int64, tag = "1")]
    Value(i64),
    #[prost(string, tag = "2")]
    Name(String),
}

/// What a length-delimited field holds, as far as its memory goes.
#[derive(Clone, Copy)]
enum Field {
    /// A message of a kind.
    Message(Kind),
    /// Text or raw bytes.
    Bytes,
    /// Packed numbers, of which one may take a byte in the file and eight in memory.
    Numbers,
}

/// Messages that contain messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Other,
}

impl Kind {
    fn field(self, tag: u64) -> Field {
        match (self, tag) {
            (Self::Model, 7) | (Self::Attribute, 6) => Field::Message(Self::Graph),
            (Self::Graph, 1) => Field::Message(Self::Node),
            (Self::Node, 5) => Field::Message(Self::Attribute),
            (Self::Graph, 5) | (Self::Attribute, 5) => Field::Message(Self::Tensor),
            (Self::Model, 8 | 14) | (Self::Graph, 11 | 12) | (Self::Tensor, 13) => Field::Message(Self::Other),
            (Self::Attribute, 7 | 8) | (Self::Tensor, 1 | 4 | 5 | 7 | 10 | 11) => Field::Numbers,
            // Types of values are messages in messages of a few bytes each: as many as there are bytes.
            (Self::Other, _) => Field::Numbers,
            (Self::Model | Self::Graph | Self::Node | Self::Attribute | Self::Tensor, _) => Field::Bytes,
        }
    }
}

/// The deepest graph within a graph that is looked at; the decoder's own limit is not far from it.
const DEEPEST: usize = 48;

/// Memory of a decoded message without what it holds, from above.
const MESSAGE: u64 = 384;

/// The next number of a message, seven bits a byte.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for i in 0..10 {
        let (first, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(first & 0x7f).checked_shl(7 * i)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Charges what decoding a message will take.
fn charge(mut rest: &[u8], kind: Kind, depth: usize, budget: &Budget) -> Result<(), String> {
    let damaged = || "is damaged: a message ends within a field".to_owned();
    if depth > DEEPEST {
        return Err("has graphs within graphs deeper than is supported".into());
    }
    budget.bytes(MESSAGE)?;
    while !rest.is_empty() {
        let key = varint(&mut rest).ok_or_else(damaged)?;
        budget.work(1)?;
        let skip = match key & 7 {
            0 => {
                varint(&mut rest).ok_or_else(damaged)?;
                budget.bytes(8)?;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let length = varint(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or_else(damaged)?;
                let inner = rest.get(..length).ok_or_else(damaged)?;
                match kind.field(key >> 3) {
                    Field::Message(inner_kind) => charge(inner, inner_kind, depth + 1, budget)?,
                    Field::Numbers if kind == Kind::Other => budget.bytes(64 + 96 * length as u64)?,
                    Field::Numbers => budget.bytes(32 + 8 * length as u64)?,
                    Field::Bytes if length < 1 << 16 => budget.bytes(32 + length as u64)?,
                    // A view of the file's own bytes.
                    Field::Bytes => budget.bytes(64)?,
                }
                length
            }
            _ => return Err("is damaged: a field has an unknown kind".into()),
        };
        rest = rest.get(skip..).ok_or_else(damaged)?;
    }
    Ok(())
}

/// The model in a file's bytes, which large weights stay in.
///
/// Errors: the rest of a sentence about the file.
pub(crate) fn decode(bytes: Vec<u8>, budget: &Budget) -> Result<ModelProto, String> {
    charge(&bytes, Kind::Model, 0, budget)?;
    ModelProto::decode(Bytes::from(bytes)).map_err(|e| format!("is damaged: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_small_messages_are_charged_before_they_are_made() {
        // Nodes without content, two bytes each, take a hundred times their bytes.
        let graph: Vec<u8> = std::iter::repeat_n([0x0a, 0x00], 4 << 20).flatten().collect();
        let mut file = vec![0x08, 0x07, 0x3a];
        let mut length = graph.len();
        while length >= 0x80 {
            file.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        file.push(length as u8);
        file.extend(graph);
        let budget = Budget::for_file(file.len());
        assert!(decode(file, &budget).unwrap_err().contains("it needs more than"));
    }

    #[test]
    fn a_message_that_is_cut_short_is_damaged() {
        let model = ModelProto { ir_version: 7, producer_name: "p".into(), ..ModelProto::default() };
        let bytes = model.encode_to_vec();
        for end in 1..bytes.len() {
            let budget = Budget::for_file(end);
            assert!(decode(bytes[..end].to_vec(), &budget).is_err() || end == 2, "{end}");
        }
        assert_eq!(decode(bytes.clone(), &Budget::for_file(bytes.len())).unwrap(), model);
    }
}
