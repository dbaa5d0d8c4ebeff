//! Dumps: every tensor of a run as a file, in the vendor's folder layout.
//!
//! A folder holds `dump_results_weights` and `dump_results_0` (activations). A tensor is `NAME.bin`, its raw values
//! row-major without a header, and `NAME.txt`, one value per line. Integers are int8; floats are f32 and have `_float`
//! behind the name. A `/` in a name becomes `_`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use rayon::prelude::*;

use crate::error::Error;
use crate::format::python::repr32;
use crate::format::write_file;
use crate::ops::Op;
use crate::quant::QuantGraph;
use crate::quantizer::Channels;

/// Values of one tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Integers.
    Int8(Vec<i8>),
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

/// Folder of weights.
pub const WEIGHTS: &str = "dump_results_weights";
/// Folder of activations.
pub const ACTIVATIONS: &str = "dump_results_0";

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int8(v) => v.len(),
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
            Self::Float(v) => v.iter().flat_map(|v| [repr32(*v), "\n".into()]).collect(),
        }
    }

    /// One value as text; empty past the end.
    fn value(&self, i: usize) -> String {
        match self {
            Self::Int8(v) => v.get(i).map(i8::to_string),
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
            (Self::Float(a), Self::Float(b)) => {
                indices(a, b, |a, b| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
            }
            _ => Vec::new(),
        }
    }
}

impl DumpTensor {
    /// Name of its files without extension.
    pub fn file_name(&self) -> String {
        let suffix = if matches!(self.values, Values::Float(_)) { "_float" } else { "" };
        format!("{}{suffix}", self.name.replace('/', "_"))
    }
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
            let scales: Vec<f32> = q.fits().iter().map(|fit| fit.pos.scale()).collect();
            let channels = Channels::of(tensor.shape(), q.params.channel_axis);
            let scale = |i: usize| if q.params.per_channel { scales[channels.of_element(i)] } else { scales[0] };
            let round = |(i, v): (usize, &f32)| libm::rintf(v * scale(i)).clamp(-128.0, 127.0) as i8;
            let values = Values::Int8(tensor.data().iter().enumerate().map(round).collect());
            all.push(DumpTensor { name: weight_name(&name).to_owned(), values });
        }
    }
    all
}

/// Writes a dump below `dir`; `text` adds the `.txt` files. Existing files of the same names are replaced, nothing else
/// is touched.
pub fn write(dir: &Path, dump: &Dump, text: bool) -> Result<(), Error> {
    for (folder, tensors) in [(WEIGHTS, &dump.weights), (ACTIVATIONS, &dump.activations)] {
        if tensors.is_empty() {
            continue;
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = tensors.iter().find_map(|tensor| names.replace(tensor.file_name())) {
            return Err(Error::model(format!("two tensors have the file name `{twice}`; rename a layer")));
        }
        let folder = dir.join(folder);
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        tensors.par_iter().try_for_each(|tensor| {
            let name = tensor.file_name();
            write_file(&folder.join(format!("{name}.bin")), &tensor.values.bytes())?;
            if text {
                write_file(&folder.join(format!("{name}.txt")), tensor.values.text().as_bytes())?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Reads a dump folder, ours or the vendor's, in name order. Only `.bin` files are read.
pub fn read(dir: &Path) -> Result<Dump, Error> {
    let dump = Dump { weights: read_folder(&dir.join(WEIGHTS))?, activations: read_folder(&dir.join(ACTIVATIONS))? };
    if dump.weights.is_empty() && dump.activations.is_empty() {
        return Err(Error::format(dir, format!("holds no dump: no .bin files in {WEIGHTS} or {ACTIVATIONS}")));
    }
    Ok(dump)
}

fn read_folder(folder: &Path) -> Result<Vec<DumpTensor>, Error> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<_> = entries.map_err(Error::io(folder))?.into_iter().map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "bin") && p.is_file());
    files.sort();
    files.iter().map(|path| read_tensor(path)).collect()
}

fn read_tensor(path: &Path) -> Result<DumpTensor, Error> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    match stem.strip_suffix("_float") {
        None => {
            let values = Values::Int8(bytes.into_iter().map(u8::cast_signed).collect());
            Ok(DumpTensor { name: stem.into_owned(), values })
        }
        Some(name) => {
            let (floats, []) = bytes.as_chunks::<4>() else {
                return Err(Error::format(path, format!("has {} bytes, which are not whole floats", bytes.len())));
            };
            let values = Values::Float(floats.iter().map(|b| f32::from_le_bytes(*b)).collect());
            Ok(DumpTensor { name: name.to_owned(), values })
        }
    }
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
            if differences.is_empty() && x.len() == y.len() {
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

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.differences.iter().map(|d| d.name.len()).max().unwrap_or(0);
        for d in &self.differences {
            write!(f, "{:width$}  ", d.name)?;
            if d.len.0 != d.len.1 {
                write!(f, "{} values against {}; ", d.len.0, d.len.1)?;
            }
            write!(f, "{} of {} differ", d.count, d.len.0.min(d.len.1))?;
            match &d.first {
                Some((i, a, b)) => writeln!(f, ", first at {i}: {a} against {b}")?,
                None => writeln!(f)?,
            }
        }
        for (which, names) in [("first", &self.only_first), ("second", &self.only_second)] {
            for name in names {
                writeln!(f, "{name}  only in the {which}")?;
            }
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
        assert!(matches!(read(&dir), Err(Error::Format { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(matches!(read(&dir), Err(Error::Format { .. })));
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
