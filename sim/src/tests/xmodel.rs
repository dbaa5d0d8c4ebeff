//! Just enough of the vendor's graph file to test with: protobuf fields by number, no schema.

use std::collections::HashMap;

#[derive(Debug)]
pub(crate) enum Attr {
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
    Map(HashMap<String, Attr>),
    Other,
}

#[derive(Debug, Default)]
pub(crate) struct Op {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) attrs: HashMap<String, Attr>,
    pub(crate) args: Vec<(String, Vec<String>)>,
    pub(crate) dims: Vec<i64>,
    pub(crate) tensor_attrs: HashMap<String, Attr>,
}

impl Op {
    pub(crate) fn tensor_int(&self, name: &str) -> Option<i64> {
        match self.tensor_attrs.get(name) {
            Some(Attr::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// Not a constant and no mere move.
    pub(crate) fn is_computed(&self) -> bool {
        !matches!(self.kind.as_str(), "const-fix" | "upload" | "download" | "concat-fix" | "reshape-fix")
    }
}

#[derive(Debug, Default)]
pub(crate) struct Subgraph {
    pub(crate) name: String,
    pub(crate) ops: Vec<String>,
    pub(crate) attrs: HashMap<String, Attr>,
    pub(crate) children: Vec<Subgraph>,
}

impl Subgraph {
    pub(crate) fn code(&self) -> Option<&[u8]> {
        match self.attrs.get("mc_code") {
            Some(Attr::Bytes(code)) => Some(code),
            _ => None,
        }
    }

    /// Multiply-accumulates of its convolutions, from the vendor's count of operations.
    pub(crate) fn macs(&self) -> usize {
        match self.attrs.get("workload") {
            Some(Attr::Int(operations)) => *operations as usize / 2,
            _ => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) ops: HashMap<String, Op>,
    pub(crate) root: Subgraph,
}

enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(b) => b,
            Self::Int(_) => &[],
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn ints(&self) -> Vec<i64> {
        match self {
            Self::Int(v) => vec![*v as i64],
            Self::Bytes(b) => {
                let mut rest = *b;
                std::iter::from_fn(|| (!rest.is_empty()).then(|| varint(&mut rest) as i64)).collect()
            }
        }
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    while let [first, rest @ ..] = *bytes {
        *bytes = rest;
        value |= u64::from(first & 127) << shift;
        shift += 7;
        if first & 128 == 0 {
            break;
        }
    }
    value
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let mut take = |n: usize| {
            let (now, rest) = bytes.split_at(n);
            bytes = rest;
            now
        };
        let value = match key & 7 {
            0 => Value::Int(varint(&mut bytes)),
            1 => Value::Bytes(take(8)),
            5 => Value::Bytes(take(4)),
            2 => {
                let n = varint(&mut bytes) as usize;
                let (now, rest) = bytes.split_at(n);
                bytes = rest;
                Value::Bytes(now)
            }
            other => panic!("wire type {other}"),
        };
        out.push((key >> 3, value));
    }
    out
}

fn inner(value: &Value<'_>) -> Vec<u8> {
    fields(value.bytes()).iter().flat_map(|(_, v)| v.bytes().to_vec()).collect()
}

fn attr(bytes: &[u8]) -> Attr {
    let Some((number, value)) = fields(bytes).into_iter().next() else { return Attr::Other };
    match (number, &value) {
        (4..=8, Value::Int(v)) => Attr::Int(*v as i64),
        (11, v) => Attr::Text(v.text()),
        (12, v) => Attr::Bytes(inner(v)),
        (14..=17, v) => Attr::Ints(fields(v.bytes()).iter().flat_map(|(_, v)| v.ints()).collect()),
        (20, v) => Attr::Texts(fields(v.bytes()).iter().map(|(_, v)| v.text()).collect()),
        (22..=27, v) => {
            let entry = |bytes: &[u8]| {
                let (mut name, mut entry) = (String::new(), Attr::Other);
                for (f, v) in fields(bytes) {
                    match (f, &v) {
                        (1, v) => name = v.text(),
                        (_, Value::Int(v)) => entry = Attr::Int(*v as i64),
                        (_, v) if number == 27 => entry = Attr::Bytes(inner(v)),
                        (_, v) => entry = Attr::Text(v.text()),
                    }
                }
                (name, entry)
            };
            Attr::Map(fields(v.bytes()).iter().map(|(_, v)| entry(v.bytes())).collect())
        }
        _ => Attr::Other,
    }
}

fn named(bytes: &[u8]) -> (String, Attr) {
    let (mut name, mut value) = (String::new(), Attr::Other);
    for (f, v) in fields(bytes) {
        match f {
            1 => name = v.text(),
            _ => value = attr(v.bytes()),
        }
    }
    (name, value)
}

fn op(bytes: &[u8]) -> Op {
    let mut op = Op::default();
    for (f, v) in fields(bytes) {
        match f {
            1 => op.name = v.text(),
            2 => op.kind = v.text(),
            3 => op.attrs.extend([named(v.bytes())]),
            4 => {
                let list = fields(v.bytes());
                let name = list.iter().find(|(f, _)| *f == 1).map_or(String::new(), |(_, v)| v.text());
                op.args.push((name, list.iter().filter(|(f, _)| *f == 2).map(|(_, v)| v.text()).collect()));
            }
            5 => {
                for (f, v) in fields(v.bytes()) {
                    match f {
                        2 => op.dims.extend(v.ints()),
                        10 => op.tensor_attrs.extend([named(v.bytes())]),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    op
}

fn subgraph(bytes: &[u8]) -> Subgraph {
    let mut s = Subgraph::default();
    for (f, v) in fields(bytes) {
        match f {
            1 => s.name = v.text(),
            3 => s.ops.push(v.text()),
            5 => s.attrs.extend([named(v.bytes())]),
            10 => s.children.push(subgraph(v.bytes())),
            _ => {}
        }
    }
    s
}

pub(crate) fn read(bytes: &[u8]) -> Graph {
    let mut graph = Graph::default();
    for (f, v) in fields(bytes) {
        match f {
            5 => {
                let op = op(v.bytes());
                graph.ops.insert(op.name.clone(), op);
            }
            10 => graph.root = subgraph(v.bytes()),
            _ => {}
        }
    }
    graph
}
