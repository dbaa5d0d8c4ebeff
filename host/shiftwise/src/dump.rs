//! Dumps: every tensor of a run as a file, in the vendor's folder layout.
//!
//! A folder holds `dump_results_weights` and `dump_results_0` (activations). A tensor is `NAME.bin`, its raw values
//! row-major without a header, and `NAME.txt`, one value per line. Integers are int8; floats are f32 and have `_float`
//! behind the name. A `/` in a name becomes `_`, and of a name that is too long for a file the end becomes a digest.
//!
//! Beside the two folders stands [`MANIFEST`], which a vendor's dump lacks: it names every tensor with its type and
//! digest, and tells whether the dump is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, json};

use crate::text;
use shiftwise_formats::files::{Entry, Manifest, Set, sha256};
use shiftwise_graph::error::Error;
use shiftwise_graph::ops::Op;
use shiftwise_integer::engine::Value;
use shiftwise_quant::python::repr32;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::channels::Channels;

/// Values of one tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Integers.
    Int8(Vec<i8>),
    /// Integers of any width: what the vendor's dumps lack, with names of their own.
    Int32(Vec<i32>),
    /// Floats; their file's name ends in `_float`.
    Float(Vec<f32>),
}

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

impl Values {
    /// Those of the integer engine.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Fixed(v) => Self::Int8(v.clone()),
            Value::Float(v) => Self::Float(v.clone()),
        }
    }

    /// Their type.
    pub fn kind(&self) -> Type {
        match self {
            Self::Int8(_) => Type::Int8,
            Self::Int32(_) => Type::Int32,
            Self::Float(_) => Type::Float,
        }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int8(v) => v.len(),
            Self::Int32(v) => v.len(),
            Self::Float(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Int8(v) => v.iter().map(|v| v.cast_unsigned()).collect(),
            Self::Int32(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Float(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// One value per line.
    fn text(&self) -> String {
        match self {
            // Most of a dump: each of the 256 lines is made once.
            Self::Int8(v) => {
                let lines: [String; 256] = std::array::from_fn(|q| format!("{}\n", (q as u8).cast_signed()));
                let mut text = String::with_capacity(5 * v.len());
                v.iter().for_each(|q| text.push_str(&lines[usize::from(q.cast_unsigned())]));
                text
            }
            Self::Int32(v) => v.iter().flat_map(|v| [v.to_string(), "\n".into()]).collect(),
            Self::Float(v) => v.iter().flat_map(|v| [repr32(*v), "\n".into()]).collect(),
        }
    }

    /// One value as text; empty past the end.
    fn value(&self, i: usize) -> String {
        match self {
            Self::Int8(v) => v.get(i).map(i8::to_string),
            Self::Int32(v) => v.get(i).map(i32::to_string),
            Self::Float(v) => v.get(i).map(|v| repr32(*v)),
        }
        .unwrap_or_default()
    }

    /// Indices at which two tensors of one kind differ. NaNs are equal to each other; 0.0 and -0.0 are not.
    pub fn differences(&self, other: &Self) -> Vec<usize> {
        fn indices<T: Copy>(a: &[T], b: &[T], same: impl Fn(T, T) -> bool) -> Vec<usize> {
            a.iter().zip(b).enumerate().filter(|(_, (a, b))| !same(**a, **b)).map(|(i, _)| i).collect()
        }
        match (self, other) {
            (Self::Int8(a), Self::Int8(b)) => indices(a, b, |a, b| a == b),
            (Self::Int32(a), Self::Int32(b)) => indices(a, b, |a, b| a == b),
            (Self::Float(a), Self::Float(b)) => {
                indices(a, b, |a, b| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
            }
            _ => Vec::new(),
        }
    }
}

impl DumpTensor {
    /// A tensor of the integer engine.
    pub fn of(name: &str, value: &Value) -> Self {
        Self { name: name.into(), values: Values::of(value) }
    }

    /// Name of its files without extension.
    pub fn file_name(&self) -> String {
        file_name(&self.name, self.values.kind())
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
            let about = [("tensor", json!(t.name)), ("type", json!(t.values.kind().name()))];
            about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        };
        set.add_all(files("bin", about), |number| tensors[number].values.bytes())?;
        if text {
            set.add_all(files("txt", |_| Map::new()), |number| tensors[number].values.text().into_bytes())?;
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
    /// The types of its tensors.
    pub fn types(&self) -> Types {
        self.weights.iter().chain(&self.activations).map(|t| (t.file_name(), t.values.kind())).collect()
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

/// A tensor that is not the same in two dumps.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Folder and name of its files.
    pub name: String,
    /// Number of values in each dump.
    pub len: (usize, usize),
    /// Values that differ, as far as both reach.
    pub count: usize,
    /// Index of the first one, with the two values as text; absent if only the lengths differ.
    pub first: Option<(usize, String, String)>,
}

/// How two dumps compare.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Tensors that both have.
    pub tensors: usize,
    /// Values compared.
    pub values: u64,
    /// Tensors that differ.
    pub differences: Vec<Difference>,
    /// Tensors that only the first dump has.
    pub only_first: Vec<String>,
    /// Tensors that only the second dump has.
    pub only_second: Vec<String>,
}

impl Comparison {
    /// Whether every tensor that both have is the same, and there is one. Tensors that only one dump has don't count.
    pub fn is_equal(&self) -> bool {
        self.tensors > 0 && self.differences.is_empty()
    }

    /// Whether both have the same tensors. What the vendor's own dumps lack may be missing on one side: some weights
    /// ([`dump_weight_is_shown`]), and integers under names of their own.
    pub fn is_whole(&self) -> bool {
        let gap = |name: &String| {
            if name.ends_with(INTEGERS) {
                return true;
            }
            let weight = name.strip_prefix(WEIGHTS).and_then(|n| n.strip_prefix('/'));
            weight.is_some_and(|name| !dump_weight_is_shown(name))
        };
        self.only_first.iter().chain(&self.only_second).all(gap)
    }
}

/// Compares two dumps by file names.
pub fn compare(first: &Dump, second: &Dump) -> Comparison {
    let mut result = Comparison::default();
    for (folder, a, b) in
        [(WEIGHTS, &first.weights, &second.weights), (ACTIVATIONS, &first.activations, &second.activations)]
    {
        let index = |tensors: &'_ [DumpTensor]| -> BTreeMap<String, usize> {
            tensors.iter().enumerate().map(|(i, t)| (t.file_name(), i)).collect()
        };
        let (in_first, in_second) = (index(a), index(b));
        let missing = |from: &BTreeMap<String, usize>| -> Vec<String> {
            from.keys()
                .filter(|n| !in_first.contains_key(*n) || !in_second.contains_key(*n))
                .map(|n| format!("{folder}/{n}"))
                .collect()
        };
        result.only_first.extend(missing(&in_first));
        result.only_second.extend(missing(&in_second));
        // In the model's order, so that the first difference is the earliest.
        for a in a {
            let Some(b) = in_second.get(&a.file_name()).and_then(|i| b.get(*i)) else { continue };
            let (x, y) = (&a.values, &b.values);
            let differences = x.differences(y);
            result.tensors += 1;
            result.values += x.len().min(y.len()) as u64;
            // Files of one name may still be of two types, where a manifest says so.
            if differences.is_empty() && x.len() == y.len() && x.kind() == y.kind() {
                continue;
            }
            result.differences.push(Difference {
                name: format!("{folder}/{}", a.file_name()),
                len: (x.len(), y.len()),
                count: differences.len(),
                first: differences.first().map(|i| (*i, x.value(*i), y.value(*i))),
            });
        }
    }
    result
}

/// Lines of one kind that a comparison shows.
const MOST_LINES: usize = 100;

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |f: &mut fmt::Formatter<'_>, all: usize, what: &str| match all.checked_sub(MOST_LINES) {
            Some(more @ 1..) => writeln!(f, "and {more} more {what}"),
            _ => Ok(()),
        };
        let shown: Vec<(String, &Difference)> =
            self.differences.iter().take(MOST_LINES).map(|d| (text::name(&d.name), d)).collect();
        let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, d) in shown {
            write!(f, "{name:width$}  ")?;
            if d.len.0 != d.len.1 {
                write!(f, "{} values against {}; ", d.len.0, d.len.1)?;
            }
            write!(f, "{} of {} differ", d.count, d.len.0.min(d.len.1))?;
            match &d.first {
                Some((i, a, b)) => writeln!(f, ", first at {i}: {a} against {b}")?,
                None => writeln!(f)?,
            }
        }
        more(f, self.differences.len(), "that differ")?;
        for (which, names) in [("first", &self.only_first), ("second", &self.only_second)] {
            for name in names.iter().take(MOST_LINES) {
                writeln!(f, "{}  only in the {which}", text::name(name))?;
            }
            more(f, names.len(), &format!("only in the {which}"))?;
        }
        let differing = self.differences.len();
        write!(f, "{} tensors, {} values, {differing} tensors differ", self.tensors, self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, values: Values) -> DumpTensor {
        DumpTensor { name: name.into(), values }
    }

    fn folder(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("shiftwise-dump-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_dump_comes_back_and_its_text_is_numpys() {
        let dir = folder("round");
        let dump = Dump {
            weights: vec![tensor("quant_block1/conv/kernel", Values::Int8(vec![-128, 0, 127]))],
            activations: vec![
                tensor("quant_conv", Values::Int8(vec![1, -1])),
                tensor("quant_sm", Values::Float(vec![0.015_625, 1e-5, -0.0, f32::NAN])),
            ],
        };
        write(&dir, &dump, true).unwrap();
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(text("dump_results_weights/quant_block1_conv_kernel.txt"), "-128\n0\n127\n");
        assert_eq!(text("dump_results_0/quant_sm_float.txt"), "0.015625\n1e-05\n-0.0\nnan\n");
        let back = read(&dir).unwrap();
        let same = compare(&dump, &back);
        assert!(same.is_equal() && same.tensors == 3 && same.values == 9, "{same}");
        assert!(same.only_first.is_empty() && same.only_second.is_empty(), "{same}");
        std::fs::write(dir.join("dump_results_0/quant_sm_float.bin"), b"12345").unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains("other bytes than manifest.json says"));
        std::fs::remove_file(dir.join(MANIFEST)).unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains("not whole floats"));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(read(&dir), Err(Error::Format { .. })));
    }

    #[test]
    fn names_of_files_fit_and_tell_types_with_a_manifest_only() {
        let long = "block/".repeat(60) + "conv";
        let name = file_name(&long, Type::Float);
        assert!(name.len() == 206 && name.starts_with("block_block_") && name.ends_with(FLOAT), "{name}");
        assert_ne!(name, file_name(&(long.clone() + "x"), Type::Float));
        assert_eq!(file_name("a\0b/c", Type::Int8), "a_b_c");
        let activations = vec![
            tensor(&long, Values::Float(vec![1.5])),
            tensor("a", Values::Int8(vec![1])),
            tensor("a_float", Values::Int8(vec![1, 2, 3, 4])),
        ];
        let dump = Dump { weights: Vec::new(), activations };
        let (dir, plain) = (folder("names"), folder("plain"));
        write(&dir, &dump, true).unwrap();
        assert_eq!(read(&dir).unwrap(), dump);
        // The names alone say floats; what is known beside them says otherwise.
        write(&plain, &dump, false).unwrap();
        std::fs::remove_file(plain.join(MANIFEST)).unwrap();
        let floats = |d: &Dump| d.activations.iter().filter(|t| t.values.kind() == Type::Float).count();
        assert_eq!(floats(&read(&plain).unwrap()), 2);
        let (first, second) = read_both(&plain, &dir).unwrap();
        assert!((floats(&first), floats(&second)) == (1, 1) && compare(&first, &second).is_equal());
        let mixed = compare(&read(&plain).unwrap(), &dump);
        assert!(!mixed.is_equal(), "{mixed}");
        [dir, plain].iter().for_each(|d| std::fs::remove_dir_all(d).unwrap());
    }

    #[test]
    fn stale_tensors_go_and_half_a_dump_is_refused() {
        let dir = folder("stale");
        let of = |name: &str| Dump { activations: vec![tensor(name, Values::Int8(vec![1]))], ..Dump::default() };
        write(&dir, &of("old"), true).unwrap();
        std::fs::write(dir.join("dump_results_0/mine.bin"), b"mine").unwrap();
        write(&dir, &of("new"), false).unwrap();
        let names = |d: &Dump| d.activations.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&read(&dir).unwrap()), ["new"]);
        assert!(!dir.join("dump_results_0/old.bin").exists() && !dir.join("dump_results_0/old.txt").exists());
        assert!(dir.join("dump_results_0/mine.bin").exists());
        let manifest = std::fs::read_to_string(dir.join(MANIFEST)).unwrap();
        std::fs::write(dir.join(MANIFEST), manifest.replace("\"complete\"", "\"incomplete\"")).unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains("is incomplete"));
        std::fs::write(dir.join(MANIFEST), manifest.replace("int8", "float32")).unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains("contradicts itself"));
        std::fs::write(dir.join(MANIFEST), manifest).unwrap();
        std::fs::remove_file(dir.join("dump_results_0/new.bin")).unwrap();
        assert!(matches!(read(&dir), Err(Error::Io { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_tensor_that_one_side_lacks_is_told() {
        let dump = |weights: &[&str]| Dump {
            weights: weights.iter().map(|n| tensor(n, Values::Int8(vec![1]))).collect(),
            activations: vec![tensor("quant_x\n", Values::Int8(vec![1]))],
        };
        let whole = |a: &[&str], b: &[&str]| compare(&dump(a), &dump(b)).is_whole();
        assert!(whole(&["quant_conv/kernel"], &["quant_conv/kernel"]));
        assert!(!whole(&["quant_conv/kernel"], &[]) && !whole(&[], &["quant_conv/kernel"]));
        // The vendor's own gaps.
        assert!(whole(&["quant_tanhc/kernel"], &[]));
        let other = Dump { activations: vec![tensor("quant_x\n", Values::Int8(vec![2]))], ..Dump::default() };
        let text = compare(&dump(&[]), &other).to_string();
        assert!(text.starts_with("dump_results_0/quant_x\\n  1 of 1"), "{text}");
    }

    #[test]
    fn the_first_difference_is_named_and_extras_are_not_differences() {
        let a = Dump {
            activations: vec![
                tensor("b", Values::Int8(vec![1, 2, 3])),
                tensor("a", Values::Int8(vec![1, 2, 4])),
                tensor("c", Values::Int8(vec![7])),
            ],
            ..Dump::default()
        };
        let mut b = a.clone();
        b.activations.pop();
        b.activations.push(tensor("d", Values::Float(vec![])));
        let extras = compare(&a, &b);
        assert!(extras.is_equal(), "{extras}");
        assert_eq!((extras.only_first.len(), extras.only_second.len()), (1, 1));
        b.activations[0].values = Values::Int8(vec![1, 9, 8]);
        b.activations[1].values = Values::Int8(vec![1, 2]);
        let text = compare(&a, &b).to_string();
        assert!(text.starts_with("dump_results_0/b  2 of 3 differ, first at 1: 2 against 9\n"), "{text}");
        assert!(text.contains("dump_results_0/a  3 values against 2; 0 of 2 differ\n"), "{text}");
        assert!(!compare(&Dump::default(), &Dump::default()).is_equal());
    }

    #[test]
    fn the_vendors_gaps() {
        let shown = ["quant_conv/kernel", "quant_fc/bias"];
        let lost = ["quant_tanhc/kernel", "quant_attention/bias", "quant_unit1/kernel", "quant_quant_c/kernel"];
        assert!(shown.iter().all(|n| dump_weight_is_shown(n)));
        assert!(!lost.iter().any(|n| dump_weight_is_shown(n)));
        assert_eq!(weight_name("quant_x/w0:0"), "quant_x/w");
    }
}
