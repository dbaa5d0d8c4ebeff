//! Dumps: every tensor of a run as a file, in the vendor's folder layout.
//!
//! A folder holds `dump_results_weights` and `dump_results_0` (activations). A tensor is `NAME.bin`, its raw values
//! row-major without a header, and `NAME.txt`, one value per line. Integers are int8; floats are f32 and have `_float`
//! behind the name. A `/` in a name becomes `_`, and of a name that is too long for a file the end becomes a digest.
//!
//! Beside the two folders stands [`MANIFEST`], which a vendor's dump lacks: it names every tensor with its type and
//! digest, and tells whether the dump is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, json};

mod compare;

pub use compare::{Comparison, Difference, FirstDifference, compare};
use shiftwise_formats::files::{Entry, Manifest, Set, sha256};
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::Op;
use shiftwise_quant::python::repr32;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::channels::Channels;
pub use shiftwise_tensor::values::Values;

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct DumpTensor {
    /// Name in the quantized model: `quant_conv1`, or `quant_conv1/kernel` for a weight.
    pub name: String,
    /// Its values.
    pub values: Values,
}

/// All tensors of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// Weights and biases, in the model's order.
    pub weights: Vec<DumpTensor>,
    /// Layer results, in the model's order.
    pub activations: Vec<DumpTensor>,
}

/// What `dump` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Dumped {
    /// The folder.
    pub output_dir: PathBuf,
    /// Weights and biases.
    pub weights: usize,
    /// Layer results.
    pub activations: usize,
    /// Values of all of them.
    pub values: usize,
}

/// The manifest of a folder of results.
pub const MANIFEST: &str = "manifest.json";
/// Folder of weights.
pub const WEIGHTS: &str = "dump_results_weights";
/// Folder of activations.
pub const ACTIVATIONS: &str = "dump_results_0";

/// The type of a tensor's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Integers.
    Int8,
    /// Integers of any width.
    Int32,
    /// Floats.
    Float,
}

impl Type {
    /// With their names in manifests.
    const ALL: [(Self, &str); 3] = [(Self::Int8, "int8"), (Self::Int32, "int32"), (Self::Float, "float32")];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(t, _)| *t == self).map_or("", |(_, name)| name)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(t, _)| *t)
    }
}

/// Types of tensors by the names of their files without extension.
pub type Types = BTreeMap<String, Type>;

impl Type {
    /// The type of values; those of 16 bits are written as 32.
    pub fn of(values: &Values) -> Self {
        match values {
            Values::Int8(_) => Self::Int8,
            Values::Int16(_) | Values::Int32(_) => Self::Int32,
            Values::Float(_) => Self::Float,
        }
    }
}

/// The bytes of a file of values.
fn bytes(values: &Values) -> Vec<u8> {
    match values {
        Values::Int16(_) => values.clone().widened().to_bytes(),
        Values::Int8(_) | Values::Int32(_) | Values::Float(_) => values.to_bytes(),
    }
}

/// One value per line.
fn lines(values: &Values) -> String {
    match values {
        // Most of a dump: each of the 256 lines is made once.
        Values::Int8(v) => {
            let each: [String; 256] = std::array::from_fn(|q| format!("{}\n", (q as u8).cast_signed()));
            let mut text = String::with_capacity(5 * v.len());
            v.iter().for_each(|q| text.push_str(&each[usize::from(q.cast_unsigned())]));
            text
        }
        Values::Int16(_) | Values::Int32(_) | Values::Float(_) => {
            (0..values.len()).flat_map(|i| [value_text(values, i), "\n".into()]).collect()
        }
    }
}

/// One value as text; empty past the end.
pub fn value_text(values: &Values, i: usize) -> String {
    match values {
        Values::Int8(v) => v.get(i).map(i8::to_string),
        Values::Int16(v) => v.get(i).map(i16::to_string),
        Values::Int32(v) => v.get(i).map(i32::to_string),
        Values::Float(v) => v.get(i).map(|v| repr32(*v)),
    }
    .unwrap_or_default()
}

impl DumpTensor {
    /// A tensor of the integer engine.
    pub fn of(name: &str, value: &Values) -> Self {
        Self { name: name.into(), values: value.clone().widened() }
    }

    /// Name of its files without extension.
    pub fn file_name(&self) -> String {
        file_name(&self.name, Type::of(&self.values))
    }
}

/// What stands behind the name of a file of floats.
const FLOAT: &str = "_float";

/// What stands behind the name of a file of integers that the vendor's dump lacks, or has as zeros.
const INTEGERS: &str = "_integers";

/// Bytes that a tensor's name may have in a file's: file systems take 255, of which the ending needs some.
const LONGEST_NAME: usize = 200;

/// The name of a tensor's files without extension.
pub fn file_name(tensor: &str, kind: Type) -> String {
    let suffix = match kind {
        Type::Int8 => "",
        Type::Int32 => INTEGERS,
        Type::Float => FLOAT,
    };
    short_name(&tensor.replace(['/', '\0'], "_")) + suffix
}

/// A name that a file may have: of a longer one the beginning, and a digest of the whole.
pub fn short_name(name: &str) -> String {
    if name.len() <= LONGEST_NAME {
        return name.to_owned();
    }
    let head = (0..=LONGEST_NAME - 17).rev().find_map(|n| name.get(..n)).unwrap_or_default();
    let digest = sha256(name.as_bytes());
    format!("{head}_{}", digest.get(..16).unwrap_or_default())
}

/// The name of a weight's files: the variable's name without what the vendor strips from its end, which is every `:`
/// and `0`, so that a weight `w0:0` becomes `w`.
pub fn weight_name(variable: &str) -> &str {
    variable.trim_end_matches([':', '0'])
}

/// Whether the vendor's dump shows a weight `quant_<layer>/<weight>`.
///
/// It looks the weight up under a name from which it strips not the prefix `quant_` but every leading letter out of
/// `q u a n t _`, and so loses the weights of layers whose name begins with one of these.
pub fn dump_weight_is_shown(variable: &str) -> bool {
    let layer = variable.strip_prefix("quant_").unwrap_or(variable);
    !layer.starts_with(['q', 'u', 'a', 'n', 't', '_'])
}

/// The integers of all quantized weights; `vendor_gaps` leaves out those that the vendor's dump lacks.
///
/// Rounded half to even and clipped to int8, whatever the quantizer's own rounding and width: the vendor's rule.
pub fn weights(quantized: &QuantGraph, vendor_gaps: bool) -> Vec<DumpTensor> {
    let mut all = Vec::new();
    for (id, quant) in &quantized.layers {
        let node = quantized.graph.node(*id);
        // The vendor's tool writes nothing of custom layers.
        if matches!(node.op, Op::Quantize(_)) || (vendor_gaps && matches!(node.op, Op::Custom(_))) {
            continue;
        }
        for ((short, tensor), quantizer) in node.op.layer().weights().iter().zip(&quant.weights) {
            let Some(q) = quantizer else { continue };
            let name = format!("{}/{short}", quantized.quant_name(*id));
            if vendor_gaps && !dump_weight_is_shown(&name) {
                continue;
            }
            let name = weight_name(&name).to_owned();
            let factors = q.scheme().dump_factors();
            let channels = q.scheme().channel_axis().map(|axis| Channels::of(tensor.shape(), axis));
            let factor = |i: usize| factors.get(channels.map_or(0, |channels| channels.of_element(i))).unwrap_or(&1.0);
            let round = |(i, v): (usize, &f32)| libm::rintf(v * factor(i)).clamp(-128.0, 127.0) as i8;
            if !factors.is_empty() {
                let values = Values::Int8(tensor.data().iter().enumerate().map(round).collect());
                all.push(DumpTensor { name: name.clone(), values });
            }
            let integers = q.scheme().integers(tensor).filter(|_| !vendor_gaps);
            all.extend(integers.map(|q| DumpTensor { name, values: Values::Int32(q) }));
        }
    }
    all
}

/// Writes a dump below `dir`; `text` adds the `.txt` files. Files of the dump that was there before go, foreign files
/// stay.
pub fn write(dir: &Path, dump: &Dump, text: bool) -> Result<(), Error> {
    let mut set = Set::new(dir, MANIFEST)?;
    add(&mut set, dump, text)?;
    set.commit(Map::new())
}

/// Adds a dump to a folder's results.
pub fn add(set: &mut Set<'_>, dump: &Dump, text: bool) -> Result<(), Error> {
    for (folder, tensors) in [(WEIGHTS, &dump.weights), (ACTIVATIONS, &dump.activations)] {
        let mut names = BTreeSet::new();
        if let Some(twice) = tensors.iter().find_map(|tensor| names.replace(tensor.file_name())) {
            return Err(Error::model(format!("two tensors have the file name `{twice}`; rename a layer")));
        }
        let files = |ending: &str, about: fn(&DumpTensor) -> Map<_, _>| {
            tensors.iter().map(|t| (format!("{folder}/{}.{ending}", t.file_name()), about(t))).collect()
        };
        let about = |t: &DumpTensor| {
            let about = [("tensor", json!(t.name)), ("type", json!(Type::of(&t.values).name()))];
            about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        };
        set.add_all(files("bin", about), |number| bytes(&tensors[number].values))?;
        if text {
            set.add_all(files("txt", |_| Map::new()), |number| lines(&tensors[number].values).into_bytes())?;
        }
    }
    Ok(())
}

/// Reads a dump folder, ours or the vendor's. Only `.bin` files are read: those that a manifest names, or all in name
/// order.
///
/// Errors: a manifest that says that the dump is incomplete, or that its files are other ones.
pub fn read(dir: &Path) -> Result<Dump, Error> {
    read_with(dir, &Types::new())
}

/// As [`read`], with the types of tensors that are known: of a folder without a manifest, other files hold floats if
/// their names end so.
pub fn read_with(dir: &Path, types: &Types) -> Result<Dump, Error> {
    std::fs::metadata(dir).map_err(Error::io(dir))?;
    let folder = |folder: &str| read_folder(&dir.join(folder), types);
    let dump = match Manifest::read(dir, MANIFEST)? {
        Some(manifest) => {
            manifest.check(dir, MANIFEST)?;
            let of = |folder: &str| read_listed(dir, folder, &manifest);
            Dump { weights: of(WEIGHTS)?, activations: of(ACTIVATIONS)? }
        }
        None => Dump { weights: folder(WEIGHTS)?, activations: folder(ACTIVATIONS)? },
    };
    if dump.weights.is_empty() && dump.activations.is_empty() {
        return Err(Error::format(dir, format!("holds no dump: no .bin files in {WEIGHTS} or {ACTIVATIONS}")));
    }
    Ok(dump)
}

/// Reads two dumps to compare. Where one has a manifest and the other has none, it tells the types of both.
pub fn read_both(first: &Path, second: &Path) -> Result<(Dump, Dump), Error> {
    if Manifest::read(first, MANIFEST)?.is_some() {
        let first = read(first)?;
        let second = read_with(second, &first.types())?;
        return Ok((first, second));
    }
    let second = read(second)?;
    Ok((read_with(first, &second.types())?, second))
}

impl Dump {
    /// Appends a dump of the same network on further samples: layers' results one behind the other, weights once.
    ///
    /// Errors: a dump of another network.
    pub fn append(&mut self, more: Self) -> Result<(), Error> {
        let other = || Error::Options("a part's dump is of another network".into());
        if more.weights != self.weights || more.activations.len() != self.activations.len() {
            return Err(other());
        }
        for (own, more) in self.activations.iter_mut().zip(more.activations) {
            let same = own.name == more.name;
            own.values.append(more.values).ok().filter(|()| same).ok_or_else(other)?;
        }
        Ok(())
    }

    /// The types of its tensors.
    pub fn types(&self) -> Types {
        self.weights.iter().chain(&self.activations).map(|t| (t.file_name(), Type::of(&t.values))).collect()
    }
}

/// The tensors that a manifest names below a folder.
fn read_listed(dir: &Path, folder: &str, manifest: &Manifest) -> Result<Vec<DumpTensor>, Error> {
    let below = |entry: &&Entry| entry.path.strip_prefix(folder).is_some_and(|name| name.starts_with('/'));
    let tensors: Vec<&Entry> = manifest.files.iter().filter(below).filter(|e| e.more.contains_key("tensor")).collect();
    let tensor = |entry: &&Entry| {
        let text = |key: &str| entry.more.get(key).and_then(serde_json::Value::as_str);
        let known = text("tensor").zip(text("type").and_then(Type::named));
        let (name, kind) = known
            .filter(|(name, kind)| entry.path == format!("{folder}/{}.bin", file_name(name, *kind)))
            .ok_or_else(|| Error::format(&dir.join(MANIFEST), format!("contradicts itself at `{}`", entry.path)))?;
        let bytes = manifest.contents(dir, MANIFEST, entry)?;
        Ok(DumpTensor { name: name.to_owned(), values: values(&dir.join(&entry.path), bytes, kind)? })
    };
    tensors.par_iter().map(tensor).collect()
}

fn read_folder(folder: &Path, types: &Types) -> Result<Vec<DumpTensor>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<_> = entries.map_err(Error::io(folder))?.into_iter().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "bin") && p.is_file());
    files.sort();
    files.iter().map(|path| read_tensor(path, types)).collect()
}

fn read_tensor(path: &Path, types: &Types) -> Result<DumpTensor, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let plain = types.get(&*stem) == Some(&Type::Int8);
    let ending = |ending: &str, kind| stem.strip_suffix(ending).filter(|_| !plain).map(|name| (name, kind));
    // Unlike that of floats, the ending of integers is ours, and only a manifest tells it.
    let wide = ending(INTEGERS, Type::Int32).filter(|_| types.get(&*stem) == Some(&Type::Int32));
    let (name, kind) = ending(FLOAT, Type::Float).or(wide).unwrap_or((&*stem, Type::Int8));
    Ok(DumpTensor { name: name.to_owned(), values: values(path, bytes, kind)? })
}

/// A file's bytes as values.
fn values(path: &Path, bytes: Vec<u8>, kind: Type) -> Result<Values, Error> {
    if kind == Type::Int8 {
        return Ok(Values::Int8(bytes.into_iter().map(u8::cast_signed).collect()));
    }
    let (words, []) = bytes.as_chunks::<4>() else {
        let what = if kind == Type::Float { "floats" } else { "integers" };
        return Err(Error::format(path, format!("has {} bytes, which are not whole {what}", bytes.len())));
    };
    Ok(match kind {
        Type::Int8 => Values::Int8(bytes.iter().map(|b| b.cast_signed()).collect()),
        Type::Int32 => Values::Int32(words.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        Type::Float => Values::Float(words.iter().map(|b| f32::from_le_bytes(*b)).collect()),
    })
}

#[cfg(test)]
mod tests;
