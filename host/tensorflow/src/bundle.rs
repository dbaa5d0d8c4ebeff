//! Tensor bundles: the variables of a checkpoint or a SavedModel.
//!
//! `NAME.index` is a table of LevelDB: blocks of sorted keys, the last one an index of the others, and a footer with its
//! place. A key shares a stretch with the one before. Blocks may be compressed (Snappy). Each value is a message that says
//! where in `NAME.data-K-of-N` the tensor lies; the value of the empty key is the header.

use std::collections::{BTreeMap, HashMap};

use prost::Message;

use crate::constants::Constant;
use crate::proto::{BundleEntry, BundleHeader, TrackableObjectGraph};
use crate::tensors;
use shiftwise_files::Files;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

/// Size of the footer, and how it ends.
const FOOTER: usize = 48;
const MAGIC: u64 = 0xdb47_7524_8b80_fb57;

/// Kind of compression and checksum behind each block.
const TRAILER: usize = 5;

/// The key of the graph of objects.
const OBJECTS: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// The suffix of the keys of variables of objects.
const VALUE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";

/// The tensors of a bundle.
pub(crate) struct Bundle {
    entries: BTreeMap<String, BundleEntry>,
    shards: Vec<Vec<u8>>,
    /// Keys by the names that the graph has for variables.
    names: HashMap<String, String>,
    /// Keys by the number of the variable's object.
    objects: HashMap<usize, String>,
}

impl Bundle {
    /// Reads the bundle whose files begin with a name, such as `variables/variables`.
    pub(crate) fn open(files: &Files, prefix: &str, budget: &Budget) -> Result<Self, Error> {
        let fail = |message: String| Error::format(files.path(), format!("{prefix}.index {message}"));
        let index = files.read(&format!("{prefix}.index"), u64::from(u32::MAX), budget)?;
        let mut values = table(&index, budget).map_err(fail)?;
        let header = values.remove("").ok_or_else(|| fail("has no header".into()))?;
        let header = BundleHeader::decode(&*header).map_err(|e| fail(format!("has a damaged header: {e}")))?;
        if header.big_endian != 0 {
            return Err(fail("was written on a machine whose numbers begin with the highest byte".into()));
        }
        let count = usize::try_from(header.shards).ok().filter(|n| (1..=4096).contains(n));
        let count = count.ok_or_else(|| fail(format!("claims {} files of data", header.shards)))?;
        let shard = |k: usize| files.read(&format!("{prefix}.data-{k:05}-of-{count:05}"), u64::MAX, budget);
        let shards = (0..count).map(shard).collect::<Result<Vec<_>, _>>()?;
        let entry = |(key, value): (String, Vec<u8>)| {
            let entry = BundleEntry::decode(&*value).map_err(|e| fail(format!("has a damaged entry: {e}")))?;
            Ok::<_, Error>((key, entry))
        };
        let entries = values.into_iter().map(entry).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut bundle = Self { entries, shards, names: HashMap::new(), objects: HashMap::new() };
        bundle.name();
        Ok(bundle)
    }

    /// Notes what variables are called, as far as the graph of objects says.
    fn name(&mut self) {
        let text = self.entries.get(OBJECTS).and_then(|entry| self.bytes(entry)).map(text_of);
        let graph = text.flatten().and_then(|bytes| TrackableObjectGraph::decode(bytes).ok());
        for (number, object) in graph.into_iter().flat_map(|g| g.nodes).enumerate() {
            for tensor in object.attributes {
                self.objects.entry(number).or_insert_with(|| tensor.key.clone());
                self.names.insert(tensor.full_name, tensor.key);
            }
        }
    }

    fn bytes(&self, entry: &BundleEntry) -> Option<&[u8]> {
        let shard = self.shards.get(usize::try_from(entry.shard).ok()?)?;
        let from = usize::try_from(entry.offset).ok()?;
        shard.get(from..from.checked_add(usize::try_from(entry.size).ok()?)?)
    }

    /// The key of a variable's object.
    pub(crate) fn of_object(&self, number: usize) -> Option<&str> {
        self.objects.get(&number).map(String::as_str)
    }

    /// A variable by a key or by the name that the graph has for it.
    pub(crate) fn variable(&self, name: &str, budget: &Budget) -> Result<Constant, String> {
        let object = || format!("{name}{VALUE}");
        let found = self.entries.get(name).or_else(|| self.entries.get(&object()));
        let found = found.or_else(|| self.names.get(name).and_then(|key| self.entries.get(key)));
        let entry = found.ok_or_else(|| format!("the variable `{name:.80}` has no value in the file"))?;
        let bytes = self.bytes(entry).ok_or_else(|| format!("the value of `{name:.80}` lies outside of the file"))?;
        let shape = entry.shape.clone().unwrap_or_default();
        let constant = tensors::of_bytes(entry.element, &shape, bytes, budget)?;
        constant.ok_or_else(|| format!("the variable `{name:.80}` has a type that networks don't compute with"))
    }
}

/// The only text of a tensor of texts: its length, a checksum of four bytes, the text.
fn text_of(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    let length = usize::try_from(varint(&mut rest)?).ok()?;
    rest.get(4..4usize.checked_add(length)?)
}

/// The next number, seven bits a byte, the lowest first.
pub(crate) fn varint(rest: &mut &[u8]) -> Option<u64> {
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

/// Keys and values of a table.
fn table(file: &[u8], budget: &Budget) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let damaged = || "is no table of a checkpoint, or damaged".to_owned();
    let footer = file.len().checked_sub(FOOTER).and_then(|at| file.get(at..)).ok_or_else(damaged)?;
    let (mut places, magic) = footer.split_at(FOOTER - 8);
    if magic != MAGIC.to_le_bytes() {
        return Err(damaged());
    }
    // The first place is that of a block that says more about the others, which nobody writes.
    let _meta = (varint(&mut places), varint(&mut places));
    let index = block(file, &mut places, budget)?;
    let mut values = BTreeMap::new();
    for (_, place) in entries(&index, budget).ok_or_else(damaged)?? {
        let own = block(file, &mut &*place, budget)?;
        for (key, value) in entries(&own, budget).ok_or_else(damaged)?? {
            values.insert(String::from_utf8(key).map_err(|_| damaged())?, value);
        }
    }
    Ok(values)
}

/// The block at a place, which is where and how long.
fn block(file: &[u8], place: &mut &[u8], budget: &Budget) -> Result<Vec<u8>, String> {
    let damaged = || "points out of itself: it is cut short or damaged".to_owned();
    let number = |place: &mut &[u8]| usize::try_from(varint(place)?).ok();
    let (from, length) = number(place).zip(number(place)).ok_or_else(damaged)?;
    let end = from.checked_add(length).and_then(|end| end.checked_add(TRAILER)).ok_or_else(damaged)?;
    let whole = file.get(from..end).ok_or_else(damaged)?;
    let (bytes, trailer) = whole.split_at(length);
    budget.bytes(length as u64).map_err(|e| e.to_string())?;
    match trailer[0] {
        0 => Ok(bytes.to_vec()),
        1 => snappy(bytes, budget),
        other => Err(format!("is compressed in a way that is not known (number {other})")),
    }
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// The entries of a block: how much of the key is the last one's, lengths of the rest and of the value, both. The block
/// ends with places of keys that are whole, and their count. `None` for a damaged one.
fn entries(block: &[u8], budget: &Budget) -> Option<Result<Entries, String>> {
    let (rest, count) = block.split_last_chunk::<4>()?;
    let restarts = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(4)?;
    let mut rest = rest.get(..rest.len().checked_sub(restarts)?)?;
    let (mut all, mut last) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let mut number = || usize::try_from(varint(&mut rest)?).ok();
        let (shared, own, value) = (number()?, number()?, number()?);
        let mut key: Vec<u8> = last;
        key.truncate(shared);
        (key.len() == shared).then_some(())?;
        key.extend_from_slice(rest.get(..own)?);
        let end = own.checked_add(value)?;
        if let Err(e) = budget.bytes((key.len() + value) as u64) {
            return Some(Err(e.to_string()));
        }
        all.push((key.clone(), rest.get(own..end)?.to_vec()));
        last = key;
        rest = rest.get(end..)?;
    }
    Some(Ok(all))
}

/// Bytes that Snappy has compressed: their length, then stretches that stand here and copies of earlier ones.
fn snappy(bytes: &[u8], budget: &Budget) -> Result<Vec<u8>, String> {
    let mut rest = bytes;
    let length = varint(&mut rest).ok_or("has a damaged block")?;
    // No element of two bytes makes more than 64.
    if length > (bytes.len() as u64).saturating_mul(64) {
        return Err("has a block that claims more than its bytes can make".into());
    }
    let mut out: Vec<u8> = budget.vec(length as usize).map_err(|e| e.to_string())?;
    while !rest.is_empty() {
        element(&mut rest, &mut out, length as usize).ok_or("has a damaged block")?;
    }
    if out.len() as u64 == length { Ok(out) } else { Err("has a block of another size than it claims".into()) }
}

/// The next element of a compressed block.
fn element(rest: &mut &[u8], out: &mut Vec<u8>, most: usize) -> Option<()> {
    let mut take = |n: usize| {
        let (own, behind) = rest.split_at_checked(n)?;
        *rest = behind;
        Some(own)
    };
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |n, b| n << 8 | usize::from(*b));
    let tag = usize::from(take(1)?[0]);
    let (offset, count) = match tag & 3 {
        0 => {
            let count = match tag >> 2 {
                short @ 0..60 => short,
                long => number(take(long - 59)?),
            };
            (0, count.checked_add(1)?)
        }
        1 => ((tag >> 5) << 8 | number(take(1)?), (tag >> 2 & 7) + 4),
        2 => (number(take(2)?), (tag >> 2) + 1),
        _ => (number(take(4)?), (tag >> 2) + 1),
    };
    (out.len().checked_add(count)? <= most).then_some(())?;
    if tag & 3 == 0 {
        out.extend_from_slice(take(count)?);
        return Some(());
    }
    let from = out.len().checked_sub(offset).filter(|_| offset > 0)?;
    // A copy may reach into what it makes.
    for i in 0..count {
        out.push(*out.get(from + i)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_blocks_are_what_was_compressed() {
        let budget = Budget::for_file(100);
        // "abcd", then eight bytes from four back, then "e".
        let bytes = [13u8, 3 << 2, b'a', b'b', b'c', b'd', 4 << 2 | 1, 4, 0, b'e'];
        assert_eq!(snappy(&bytes, &budget).unwrap(), b"abcdabcdabcde");
        for damaged in [&[][..], &[5, 3 << 2, b'a'], &[200, 1, 0], &[4, 1, 9], &[1, 0], &[255, 255, 3, 0, 0]] {
            assert!(snappy(damaged, &budget).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn keys_share_a_stretch_with_the_one_before() {
        // shared 0, own 2, value 1: "ab" = x; shared 1, own 1, value 1: "ac" = y; one restart.
        let block = [0u8, 2, 1, b'a', b'b', b'x', 1, 1, 1, b'c', b'y', 0, 0, 0, 0, 1, 0, 0, 0];
        let own = entries(&block, &Budget::for_file(100)).unwrap().unwrap();
        assert_eq!(own, [(b"ab".to_vec(), b"x".to_vec()), (b"ac".to_vec(), b"y".to_vec())]);
        assert!(entries(&[9, 0, 0, 0, 0, 0, 0], &Budget::for_file(100)).is_none());
    }
}
