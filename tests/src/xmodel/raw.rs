//! Files of the vendor's graph format as field numbers: what an operation, a tensor or a subgraph says of itself, with the
//! type of each value. It shares nothing with the reader.

use std::collections::{BTreeMap, BTreeSet};

/// A field: number, and its bytes or its number.
#[derive(Clone, Debug)]
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message; panics at damage, for the files are good ones.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).expect("a tag");
        let mut take = |n: usize| {
            let (taken, rest) = bytes.split_at(n);
            bytes = rest;
            taken
        };
        let field = match tag & 7 {
            1 => Field::Bytes(take(8)),
            5 => Field::Bytes(take(4)),
            0 => Field::Number(varint(&mut bytes).expect("a number")),
            _ => {
                let n = varint(&mut bytes).expect("a length") as usize;
                let (taken, rest) = bytes.split_at(n);
                bytes = rest;
                Field::Bytes(taken)
            }
        };
        all.push((tag >> 3, field));
    }
    all
}

fn parts(bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(bytes).into_iter().filter_map(move |(n, field)| match field {
        Field::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    })
}

fn text(bytes: &[u8], number: u64) -> String {
    parts(bytes, number).last().map_or_else(String::new, |b| String::from_utf8_lossy(b).into_owned())
}

/// Attributes by name, each with the number of its value's type.
pub type Said = BTreeMap<String, BTreeSet<u64>>;

fn attributes(bytes: &[u8], number: u64, into: &mut Said) {
    for entry in parts(bytes, number) {
        let kind = parts(entry, 2).next().and_then(|value| fields(value).first().map(|(n, _)| *n)).unwrap_or(0);
        into.entry(text(entry, 1)).or_default().insert(kind);
    }
}

/// What is said in a file, by what says it.
#[derive(Clone, Debug, Default)]
pub struct Sayings {
    /// Operations by type.
    pub operations: BTreeMap<String, Said>,
    /// Names of arguments by an operation's type.
    pub arguments: BTreeMap<String, BTreeSet<String>>,
    /// Tensors by the type of the operation that makes them.
    pub tensors: BTreeMap<String, Said>,
    /// Element type and bits, by the type of the operation.
    pub elements: BTreeMap<String, BTreeSet<(u64, u64)>>,
    /// Runs on a device, by the device.
    pub runs: BTreeMap<String, Said>,
    /// The root of the subgraphs.
    pub root: Said,
    /// Numbers of the file's fields.
    pub fields: BTreeSet<u64>,
}

/// What a file says.
pub fn sayings(file: &[u8]) -> Sayings {
    let mut all = Sayings { fields: fields(file).iter().map(|(n, _)| *n).collect(), ..Sayings::default() };
    for op in parts(file, 5) {
        let kind = text(op, 2);
        attributes(op, 3, all.operations.entry(kind.clone()).or_default());
        all.arguments.entry(kind.clone()).or_default().extend(parts(op, 4).map(|arg| text(arg, 1)));
        for tensor in parts(op, 5) {
            attributes(tensor, 10, all.tensors.entry(kind.clone()).or_default());
            let number = |n: u64| {
                let found = fields(tensor).into_iter().find(|(own, _)| *own == n);
                found.map_or(0, |(_, field)| if let Field::Number(v) = field { v } else { 0 })
            };
            all.elements.entry(kind.clone()).or_default().insert((number(5), number(6)));
        }
    }
    for root in parts(file, 10) {
        attributes(root, 5, &mut all.root);
        for run in parts(root, 10) {
            let device = parts(run, 5).find(|entry| text(entry, 1) == "device");
            let device =
                device.and_then(|entry| parts(entry, 2).next()).map_or_else(String::new, |value| text(value, 11));
            attributes(run, 5, all.runs.entry(device).or_default());
        }
    }
    all
}
