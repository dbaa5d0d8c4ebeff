//! The vendor's graph files (`.xmodel`): quantized graphs for the compiler, and compiled programs.
//!
//! A file is one protobuf message without a header. What is read here is the structure: operations with their tensors
//! and attributes, the tree of subgraphs, and for a subgraph on a DPU its code, registers and constants. What the
//! operations mean is [`graph`]'s and [`host`]'s business.
//!
//! Sizes: everything read is bounded by the file's own length; shapes are claims, and whoever makes room for a tensor
//! asks [`Tensor::elements`], which refuses more than [`MOST_ELEMENTS`].

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use prost::Message;

use shiftwise_graph::budget::{Budget, reserve};
use shiftwise_graph::error::Error;

pub mod graph;
pub mod host;
mod message;
mod model;
pub mod spans;
pub mod value;
mod window;
pub mod write;

pub use model::{is_model, read_model};

/// Elements that one tensor may have: far beyond any network, and less than what a forged file could ask for.
pub const MOST_ELEMENTS: usize = shiftwise_graph::budget::MAX_ELEMENTS;

/// Memory of a run of a graph as a multiple of what reading it may take: all tensors of a sample are kept, to be compared, and
/// those of networks for point clouds have gigabytes.
const RUN: u64 = 8;

/// An attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attr {
    /// A truth value.
    Bool(bool),
    /// Any integer; unsigned 64-bit ones keep their bits.
    Int(i64),
    /// A float of either width.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Integers or truth values.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Texts.
    Texts(Vec<String>),
    /// Lists of bytes.
    BytesList(Vec<Vec<u8>>),
    /// A map from text.
    Map(BTreeMap<String, Attr>),
}

/// Attributes by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attrs(BTreeMap<String, Attr>);

impl Attrs {
    /// An attribute.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Attr)> {
        self.0.iter()
    }

    /// An integer or a truth value.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)? {
            Attr::Int(v) => Some(*v),
            Attr::Bool(v) => Some((*v).into()),
            _ => None,
        }
    }

    /// A number.
    pub fn float(&self, name: &str) -> Option<f64> {
        match self.get(name)? {
            Attr::Float(v) => Some(*v),
            Attr::Int(v) => Some(*v as f64),
            _ => None,
        }
    }

    /// A text; maps and lists of names hold bytes or texts, see the others.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Attr::Text(v) => Some(v),
            _ => None,
        }
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.get(name)? {
            Attr::Ints(v) => Some(v),
            _ => None,
        }
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        match self.get(name)? {
            Attr::Texts(v) => Some(v),
            _ => None,
        }
    }

    /// Bytes; an empty attribute is none.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.get(name)? {
            Attr::Bytes(v) if !v.is_empty() => Some(v),
            _ => None,
        }
    }

    /// A map.
    pub fn map(&self, name: &str) -> Option<&BTreeMap<String, Attr>> {
        match self.get(name)? {
            Attr::Map(v) => Some(v),
            _ => None,
        }
    }
}

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// Fixed-point integers of 8 bits, signed.
    Fixed,
    /// f32.
    Float,
    /// Another type: the vendor's number and the bits.
    Other(i32, i32),
}

/// The result of an operation.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name; often not the operation's.
    pub name: String,
    /// Dimensions, batch first.
    pub shape: Vec<usize>,
    /// Element type.
    pub element: Element,
    /// Attributes.
    pub attrs: Attrs,
}

/// Where a compiled tensor lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Base register.
    pub register: u32,
    /// Byte offset from it.
    pub offset: usize,
    /// Elements between neighbours along each dimension.
    pub stride: Vec<usize>,
}

impl Tensor {
    /// Number of elements; `None` if it doesn't fit the memory that a tensor may take.
    pub fn elements(&self) -> Option<usize> {
        self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= MOST_ELEMENTS)
    }

    /// Position of its integers, if it has one.
    pub fn position(&self) -> Option<i8> {
        self.attrs.int("fix_point").and_then(|p| i8::try_from(p).ok())
    }

    /// Where it lies in memory; `None` for what has no place there, or is only ever on the chip.
    pub fn place(&self) -> Option<Place> {
        if self.attrs.int("location") == Some(0) {
            return None;
        }
        let register = u32::try_from(self.attrs.int("reg_id")?).ok()?;
        let offset = usize::try_from(self.attrs.int("ddr_addr")?).ok()?;
        let dense = || {
            let mut strides = vec![1usize; self.shape.len()];
            for i in (1..self.shape.len()).rev() {
                strides[i - 1] = strides[i].saturating_mul(self.shape[i]);
            }
            strides
        };
        let stride = match self.attrs.ints("stride") {
            Some(s) => s.iter().map(|s| usize::try_from(*s).ok()).collect::<Option<Vec<_>>>()?,
            None => dense(),
        };
        (stride.len() == self.shape.len()).then_some(Place { register, offset, stride })
    }
}

/// An operation.
#[derive(Clone, Debug)]
pub struct XOp {
    /// Its name.
    pub name: String,
    /// Its type, such as `conv2d-fix`.
    pub kind: String,
    /// Attributes.
    pub attrs: Attrs,
    /// Arguments: name, and the operations that it reads.
    pub args: Vec<(String, Vec<usize>)>,
    /// Its result.
    pub tensor: Tensor,
}

impl XOp {
    /// The first operation of an argument.
    pub fn arg(&self, name: &str) -> Option<usize> {
        self.args.iter().find(|(n, _)| n == name)?.1.first().copied()
    }

    /// All operations that it reads, in order.
    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        self.args.iter().flat_map(|(_, ops)| ops.iter().copied())
    }

    /// Whether it is a constant of either kind.
    pub fn is_const(&self) -> bool {
        matches!(self.kind.as_str(), "const" | "const-fix")
    }
}

/// Which device a subgraph runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The user's inputs.
    User,
    /// A DPU.
    Dpu,
    /// The CPU.
    Cpu,
    /// Not said: the root, or a part of a subgraph.
    Unsaid,
    /// Another one.
    Other(String),
}

/// What a base register points at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Constants.
    Constants,
    /// Memory of the program's own.
    Workspace,
    /// Inputs or outputs.
    Interface,
    /// Data of either kind: older files don't say more.
    Data,
}

/// A base register of a DPU subgraph.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its number.
    pub id: u32,
    /// Bytes behind it.
    pub bytes: usize,
    /// What they are.
    pub context: Context,
    /// Their initial contents, for constants.
    pub contents: Option<Vec<u8>>,
}

/// A subgraph.
#[derive(Clone, Debug)]
pub struct Subgraph {
    /// Its name.
    pub name: String,
    /// Its own operations: of a leaf.
    pub ops: Vec<usize>,
    /// Its parts.
    pub children: Vec<Subgraph>,
    /// Attributes.
    pub attrs: Attrs,
    /// Its device.
    pub device: Device,
}

impl Subgraph {
    /// Its code: instruction words for the whole of it.
    pub fn code(&self) -> Option<&[u8]> {
        self.attrs.bytes("mc_code")
    }

    /// The target it was compiled for: name and fingerprint.
    pub fn target(&self) -> (Option<&str>, Option<u64>) {
        (self.attrs.text("dpu_name"), self.attrs.int("dpu_fingerprint").map(i64::cast_unsigned))
    }

    /// All operations in it and its parts.
    pub fn all_ops(&self) -> Vec<usize> {
        let mut all = self.ops.clone();
        self.children.iter().for_each(|c| all.extend(c.all_ops()));
        all
    }

    /// Its parts in the order in which they execute: those with code first, as the file orders them.
    pub fn layers(&self) -> Vec<&Self> {
        let order = self.attrs.texts("children_topological_sort").unwrap_or_default();
        let index: HashMap<&str, &Self> = self.children.iter().rev().map(|c| (c.name.as_str(), c)).collect();
        order.iter().filter_map(|name| index.get(name.as_str()).copied()).collect()
    }

    /// Its registers, by number.
    ///
    /// Errors: a register without a number or size, or more contents than bytes.
    pub fn registers(&self) -> Result<Vec<Register>, String> {
        let number = |name: &str| {
            name.strip_prefix("REG_")
                .and_then(|n| n.parse::<u32>().ok())
                .ok_or_else(|| format!("`{name}` is no register"))
        };
        let mut registers = Vec::new();
        for (name, size) in self.attrs.map("reg_id_to_size").into_iter().flatten() {
            let id = number(name)?;
            let bytes = match size {
                Attr::Int(v) => usize::try_from(*v).ok(),
                _ => None,
            };
            let bytes = bytes.ok_or_else(|| format!("the size of {name} is no number of bytes"))?;
            let said = |map: &str| match self.attrs.map(map)?.get(name)? {
                Attr::Text(t) => Some(t.as_str()),
                _ => None,
            };
            let context = match said("reg_id_to_context_type_v2").or_else(|| said("reg_id_to_context_type")) {
                Some("CONST") => Context::Constants,
                Some("WORKSPACE") => Context::Workspace,
                Some("INTERFACE") => Context::Interface,
                _ => Context::Data,
            };
            let contents = match self.attrs.map("reg_id_to_parameter_value").and_then(|m| m.get(name)) {
                Some(Attr::Bytes(b)) if b.len() > bytes => {
                    return Err(format!("{name} has {bytes} bytes and is given {}", b.len()));
                }
                Some(Attr::Bytes(b)) => Some(b.clone()),
                _ => None,
            };
            registers.push(Register { id, bytes, context, contents });
        }
        registers.sort_by_key(|r| r.id);
        Ok(registers)
    }
}

/// A file.
#[derive(Clone, Debug)]
pub struct Xmodel {
    /// The graph's name.
    pub name: String,
    /// Operations, producers before consumers.
    pub ops: Vec<XOp>,
    /// The tree of subgraphs.
    pub root: Subgraph,
    /// Attributes.
    pub attrs: Attrs,
    /// Size of the file.
    pub bytes: usize,
}

impl Xmodel {
    /// Refuses tensors that together are out of proportion to the file: a run keeps each of them, and many may be claimed.
    pub fn check_size(&self) -> Result<(), Error> {
        let most = Budget::for_file(self.bytes).left().saturating_mul(RUN);
        let mut total = 0u64;
        for op in self.ops.iter().filter(|op| !op.is_const()) {
            let size = if op.tensor.element == Element::Float { 4 } else { 1 };
            let elements = op.tensor.shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
            total = total.saturating_add(elements.saturating_mul(size));
            if total > most {
                let (shape, most) = (&op.tensor.shape, most >> 20);
                let why = format!("with its result {shape:?} the tensors take more than {most} MB of memory");
                return Err(Error::layer(&op.name, &op.kind, why));
            }
        }
        // They are made one by one, where nothing can fail.
        let all = reserve::<u8>(usize::try_from(total).unwrap_or(usize::MAX)).map(drop);
        all.map_err(|e| Error::model(format!("one sample of the graph: {e}")))
    }

    /// The operation with this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.ops.iter().position(|op| op.name == name)
    }

    /// Whether it is a compiled program: some subgraph has code.
    pub fn is_compiled(&self) -> bool {
        self.root.children.iter().any(|s| s.device == Device::Dpu)
    }

    /// The code streams of a compiled program, each with its subgraph: whole subgraphs and their layers, in order.
    pub fn streams(&self) -> Vec<Stream<'_>> {
        let mut all = Vec::new();
        for run in &self.root.children {
            all.extend(run.code().map(|code| Stream { run, layer: None, code }));
            for layer in &run.children {
                all.extend(layer.code().map(|code| Stream { run, layer: Some(layer), code }));
            }
        }
        all
    }

    /// Operations that nothing reads, or those that the file names as results, in order.
    pub fn results(&self) -> Vec<usize> {
        let mut read = vec![false; self.ops.len()];
        self.ops.iter().flat_map(XOp::inputs).for_each(|i| read[i] = true);
        let unread = || (0..self.ops.len()).filter(|i| !read[*i]).collect::<Vec<_>>();
        let named = self.attrs.texts("return_ops").unwrap_or_default();
        let index: HashMap<&str, usize> =
            self.ops.iter().enumerate().rev().map(|(i, op)| (op.name.as_str(), i)).collect();
        let named: Vec<usize> = named.iter().filter_map(|name| index.get(name.as_str()).copied()).collect();
        if named.is_empty() { unread() } else { named }
    }
}

/// A piece of code in a file.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'a> {
    /// The subgraph that runs on a device.
    pub run: &'a Subgraph,
    /// The layer of it, if it is a layer's own code.
    pub layer: Option<&'a Subgraph>,
    /// Instruction words.
    pub code: &'a [u8],
}

impl Stream<'_> {
    /// `SUBGRAPH` or `SUBGRAPH/LAYER`.
    pub fn name(&self) -> String {
        match self.layer {
            Some(layer) => format!("{}/{}", self.run.name, layer.name),
            None => self.run.name.clone(),
        }
    }
}

/// Whether bytes look like such a file: its outermost fields are those of a graph, as far as the bytes go.
pub fn is_xmodel(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let mut whole = 0;
    while let Some((tag, after)) = varint(rest) {
        // graph_name, op_node, subg_root, graph_attr, op_defs: all length-delimited.
        if !matches!(tag, 0x0A | 0x2A | 0x52 | 0x5A | 0x32A) || (whole == 0 && tag == 0x32A) {
            return false;
        }
        let Some((len, after)) = varint(after) else { break };
        match usize::try_from(len).ok().and_then(|len| after.get(len..)) {
            Some(next) => rest = next,
            // Cut short: the reader says so.
            None => break,
        }
        whole += 1;
    }
    whole > 1
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 127).checked_shl(7 * i as u32)?;
        if byte & 128 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

/// Reads a file that is in memory already; `path` only appears in messages.
///
/// Errors: [`Error::Format`].
pub fn read(path: &Path, bytes: &[u8]) -> Result<Xmodel, Error> {
    if !is_xmodel(bytes) {
        return Err(Error::format(path, "is no xmodel"));
    }
    let graph = message::Graph::decode(bytes)
        .map_err(|e| Error::format(path, format!("is an xmodel, and is damaged or cut short: {e}")))?;
    build(graph, bytes.len()).map_err(|why| Error::format(path, why))
}

/// Reads a file.
///
/// Errors: [`Error::Io`], [`Error::Format`].
pub fn open(path: &Path) -> Result<Xmodel, Error> {
    read(path, &std::fs::read(path).map_err(Error::io(path))?)
}

fn build(graph: message::Graph, bytes: usize) -> Result<Xmodel, String> {
    let mut index: HashMap<String, usize> = HashMap::with_capacity(graph.op_node.len());
    let mut ops: Vec<XOp> = Vec::with_capacity(graph.op_node.len());
    for node in graph.op_node {
        let find = |name: &String| {
            let why = || format!("operation `{}` reads `{name}`, which doesn't come before it", node.op_name);
            index.get(name).copied().ok_or_else(why)
        };
        let arg = |a: message::OpArg| Ok((a.arg_name, a.arg_ops.iter().map(find).collect::<Result<_, String>>()?));
        let args = node.args.into_iter().map(arg).collect::<Result<_, String>>()?;
        let tensor = node.output_tensor.ok_or_else(|| format!("operation `{}` has no result", node.op_name))?;
        let element = match (tensor.data_type, tensor.tensor_bit_width) {
            (2, 8) => Element::Fixed,
            (4, 32) => Element::Float,
            (kind, bits) => Element::Other(kind, bits),
        };
        let tensor = Tensor {
            name: tensor.tensor_name,
            shape: tensor.tensor_dim.iter().map(|d| *d as usize).collect(),
            element,
            attrs: attrs(tensor.tensor_attr),
        };
        if index.insert(node.op_name.clone(), ops.len()).is_some() {
            return Err(format!("two operations are named `{}`", node.op_name));
        }
        ops.push(XOp { name: node.op_name, kind: node.op_type, attrs: attrs(node.op_attr), args, tensor });
    }
    let root = match graph.subg_root {
        Some(root) => subgraph(root, &index)?,
        None => {
            let ops = (0..ops.len()).collect();
            let attrs = Attrs::default();
            Subgraph { name: "root".into(), ops, children: Vec::new(), attrs, device: Device::Unsaid }
        }
    };
    Ok(Xmodel { name: graph.graph_name, ops, root, attrs: attrs(graph.graph_attr), bytes })
}

fn subgraph(s: message::SubGraph, index: &HashMap<String, usize>) -> Result<Subgraph, String> {
    let name = s.subgraph_name;
    let find = |op: &String| {
        index.get(op).copied().ok_or_else(|| format!("subgraph `{name}` holds `{op}`, and there is no such operation"))
    };
    let ops = s.op_name.iter().map(find).collect::<Result<_, String>>()?;
    // Not deeper than the decoder's own limit.
    let children = s.subg_child.into_iter().map(|c| subgraph(c, index)).collect::<Result<_, String>>()?;
    let attrs = attrs(s.subg_attr);
    let device = match attrs.text("device") {
        Some("USER") => Device::User,
        Some("DPU") => Device::Dpu,
        Some("CPU") => Device::Cpu,
        Some(other) => Device::Other(other.into()),
        None => Device::Unsaid,
    };
    Ok(Subgraph { name, ops, children, attrs, device })
}

fn attrs(map: BTreeMap<String, message::AttrValue>) -> Attrs {
    Attrs(map.into_iter().filter_map(|(name, v)| Some((name, attr(v.value?)))).collect())
}

fn attr(value: message::Value) -> Attr {
    use message::Value as V;
    fn ints<T: Into<i64>>(v: Vec<T>) -> Attr {
        Attr::Ints(v.into_iter().map(Into::into).collect())
    }
    fn map<T>(v: BTreeMap<String, T>, one: impl Fn(T) -> Attr) -> Attr {
        Attr::Map(v.into_iter().map(|(k, v)| (k, one(v))).collect())
    }
    let unsigned = |v: Vec<u64>| Attr::Ints(v.into_iter().map(u64::cast_signed).collect());
    match value {
        V::Bool(v) => Attr::Bool(v),
        V::Int32(v) => Attr::Int(v.into()),
        V::Uint32(v) => Attr::Int(v.into()),
        V::Int64(v) => Attr::Int(v),
        V::Uint64(v) => Attr::Int(v.cast_signed()),
        V::Float(v) => Attr::Float(v.into()),
        V::Double(v) => Attr::Float(v),
        V::Text(v) => Attr::Text(v),
        V::Bytes(v) => Attr::Bytes(v.value),
        V::BoolVec(v) => ints(v.value),
        V::Int32Vec(v) => ints(v.value),
        V::Uint32Vec(v) => ints(v.value),
        V::Int64Vec(v) => ints(v.value),
        V::Uint64Vec(v) => unsigned(v.value),
        V::FloatVec(v) => Attr::Floats(v.value.into_iter().map(Into::into).collect()),
        V::DoubleVec(v) => Attr::Floats(v.value),
        V::TextVec(v) => Attr::Texts(v.value),
        V::BytesVec(v) => Attr::BytesList(v.value),
        V::MapInt32(v) => map(v.value, |v| Attr::Int(v.into())),
        V::MapUint32(v) => map(v.value, |v| Attr::Int(v.into())),
        V::MapInt64(v) => map(v.value, Attr::Int),
        V::MapUint64(v) => map(v.value, |v| Attr::Int(v.cast_signed())),
        V::MapText(v) => map(v.value, Attr::Text),
        V::MapBytes(v) => map(v.value, |v| Attr::Bytes(v.value)),
        V::MapInt32Vec(v) => map(v.value, |v| ints(v.value)),
        V::MapUint32Vec(v) => map(v.value, |v| ints(v.value)),
        V::MapInt64Vec(v) => map(v.value, |v| ints(v.value)),
        V::MapUint64Vec(v) => map(v.value, |v| unsigned(v.value)),
        V::MapTextVec(v) => map(v.value, |v| Attr::Texts(v.value)),
    }
}
