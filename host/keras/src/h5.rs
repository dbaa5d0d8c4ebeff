//! HDF5, as much of it as Keras uses. The only file that knows the crate behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, DType, Datatype, File, FileBuilder, FinishedGroup, FormatError, Group, Source};

use shiftwise_graph::budget::Budget;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_tensor::half;
use shiftwise_tensor::tensor::Tensor;

/// Steps of work of one request to the file, beside its bytes.
const REQUEST: u64 = 32;

/// Bytes that are read in one step of work.
const BYTES_PER_STEP: u64 = 8;

/// The file's bytes. Links may lead to the same bytes again and again, so what is read is charged, not what there is.
struct Metered {
    bytes: Vec<u8>,
    budget: Budget,
}

impl Source for Metered {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let steps = REQUEST + buf.len() as u64 / BYTES_PER_STEP;
        self.budget.work(steps).map_err(|e| FormatError::Source(e.to_string()))?;
        let from = usize::try_from(offset).ok().and_then(|at| self.bytes.get(at..)?.get(..buf.len()));
        let past = || FormatError::Source(format!("byte {offset} is past the end"));
        buf.copy_from_slice(from.ok_or_else(past)?);
        Ok(())
    }
}

/// Whether the HDF5 signature is where it may be.
pub fn is_hdf5(bytes: &[u8]) -> bool {
    hdf5_pure::is_hdf5_bytes(bytes)
}

/// The size that a file's superblock claims; `None` for superblocks that don't begin the file or have short offsets.
///
/// Source: HDF5 File Format Specification, "Disk Format: Level 0A". Base addresses other than 0 are not looked at.
fn stored_size(bytes: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(b"\x89HDF\r\n\x1a\n")?;
    let (offset_size, at) = match *rest.first()? {
        0 => (*rest.get(5)?, 40),
        1 => (*rest.get(5)?, 44),
        2 | 3 => (*rest.get(1)?, 28),
        _ => return None,
    };
    let end = bytes.get(at..at + 8)?.first_chunk()?;
    (offset_size == 8).then_some(u64::from_le_bytes(*end))
}

/// An open file.
pub(crate) struct H5 {
    file: File,
    budget: Budget,
    /// Where it came from, for messages.
    pub(crate) path: PathBuf,
}

impl H5 {
    pub(crate) fn from_bytes(path: &Path, bytes: Vec<u8>, budget: &Budget) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if let Some(whole) = stored_size(&bytes).filter(|whole| *whole > size) {
            return Err(Error::format(path, format!("is cut short: it has {size} of {whole} bytes")));
        }
        let file = File::from_source(Metered { bytes, budget: budget.clone() })
            .map_err(|e| Error::format(path, format!("the HDF5 file is damaged: {e}")))?;
        Ok(Self { file, budget: budget.clone(), path: path.to_owned() })
    }

    /// What is left of the file's memory and work.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// An error about this file.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::format(&self.path, message)
    }

    fn group(&self, path: &str) -> Result<Group, String> {
        self.file.group(path).map_err(|e| format!("group `{path}`: {e}"))
    }

    /// The strings of an attribute's value, if it has any.
    fn kept(&self, value: &AttrValue) -> Result<Option<Vec<String>>, String> {
        let Some(strings) = value.as_strings() else { return Ok(None) };
        let bytes: u64 = strings.iter().map(|s| (s.len() + size_of::<String>()) as u64).sum();
        self.budget.bytes(bytes)?;
        Ok(Some(strings.to_vec()))
    }

    /// The strings of an attribute of a group; `None` if it isn't there or holds no strings.
    pub(crate) fn strings(&self, group: &str, name: &str) -> Result<Option<Vec<String>>, String> {
        let attrs = self.group(group)?.attrs().map_err(|e| format!("attributes of `{group}`: {e}"))?;
        if let Some(value) = attrs.get(name) {
            return self.kept(value);
        }
        // Keras cuts long lists into name0, name1, … to keep an object header below 64 KiB.
        let mut all = Vec::new();
        let mut parts = (0..).map_while(|i| attrs.get(&format!("{name}{i}")).and_then(|v| v.as_strings()));
        let first = parts.next();
        let found = first.is_some();
        first.into_iter().chain(parts).for_each(|part| all.extend_from_slice(part));
        Ok(found.then_some(all))
    }

    /// The single string of an attribute.
    pub(crate) fn string(&self, group: &str, name: &str) -> Result<Option<String>, String> {
        Ok(self.strings(group, name)?.and_then(|s| <[String; 1]>::try_from(s).ok()).map(|[s]| s))
    }

    /// Whether a group exists.
    pub(crate) fn has_group(&self, path: &str) -> bool {
        self.file.group(path).is_ok()
    }

    /// Names of the groups inside a group.
    pub(crate) fn groups(&self, path: &str) -> Result<Vec<String>, String> {
        self.group(path)?.groups().map_err(|e| format!("group `{path}`: {e}"))
    }

    /// Names of the datasets in a group.
    pub(crate) fn datasets(&self, path: &str) -> Result<Vec<String>, String> {
        self.group(path)?.datasets().map_err(|e| format!("group `{path}`: {e}"))
    }

    /// Floats of a dataset, of the shape that `wanted` says; 16- and 64-bit floats are converted, anything else is refused.
    ///
    /// Shape and size are looked at and charged before any value is read: a dataset may be empty storage that claims any
    /// size, and any number of links may lead to it.
    pub(crate) fn floats(&self, path: &str, wanted: Option<&[usize]>) -> Result<Tensor, String> {
        let fail = |e: hdf5_pure::Error| format!("weight `{path}`: {e}");
        let data = self.file.dataset(path).map_err(fail)?;
        let datatype = data.datatype().map_err(fail)?;
        // Keras has no other two bytes that HDF5 knows no name for.
        let brain = matches!(&datatype, Datatype::Opaque { size: 2, .. });
        let size = match &datatype {
            Datatype::FloatingPoint { size, .. } => u64::from(*size),
            _ if brain => 2,
            _ => return Err(format!("weight `{path}` is stored as {datatype}, floats are expected")),
        };
        let shape = data.shape().map_err(fail)?;
        if let Some(wanted) = wanted.filter(|w| !w.iter().map(|d| *d as u64).eq(shape.iter().copied())) {
            return Err(format!("weight `{path}` has shape {shape:?}, {wanted:?} is expected"));
        }
        let chunk = data.chunk_shape().map_err(fail)?.unwrap_or_default();
        // Chunks are whole where the data ends within one.
        let stored: Vec<u64> = shape
            .iter()
            .enumerate()
            .map(|(k, d)| chunk.get(k).map_or(*d, |c| d.checked_next_multiple_of(*c).unwrap_or(u64::MAX)))
            .collect();
        let charged = self.budget.elements(&stored, size).and_then(|_| self.budget.elements(&shape, 4));
        charged.map_err(|e| format!("weight `{path}` has shape {shape:?}: {e}"))?;
        if brain {
            let raw = data.read_raw().map_err(fail)?;
            let values = raw.as_chunks::<2>().0.iter().map(|b| half::bf16_value(u16::from_le_bytes(*b))).collect();
            let dims = shape.iter().map(|d| *d as usize).collect();
            return Tensor::new(dims, values).ok_or_else(|| format!("weight `{path}` is cut short"));
        }
        let values = match (data.dtype().map_err(fail)?, size) {
            (DType::F32 | DType::F64, _) => data.read_f32().map_err(fail)?,
            (_, 2) => halves(&datatype, &data.read_raw().map_err(fail)?)
                .ok_or_else(|| format!("weight `{path}` is stored as {datatype}, which is not an IEEE float"))?,
            _ => return Err(format!("weight `{path}` is stored as {datatype}, which is not an IEEE float")),
        };
        let dims = shape.iter().map(|d| *d as usize).collect();
        Tensor::new(dims, values).ok_or_else(|| format!("weight `{path}` is cut short"))
    }
}

impl H5 {
    /// A list of 32-bit integers of any length, charged before it is read.
    pub(crate) fn integers(&self, path: &str) -> Result<Vec<i32>, String> {
        let fail = |e: hdf5_pure::Error| format!("weight `{path}`: {e}");
        let data = self.file.dataset(path).map_err(fail)?;
        let datatype = data.datatype().map_err(fail)?;
        let shape = data.shape().map_err(fail)?;
        if !matches!(data.dtype().map_err(fail)?, DType::I32) || shape.len() != 1 {
            return Err(format!("weight `{path}` is {datatype} of shape {shape:?}, a list of int32 is expected"));
        }
        let chunk = data.chunk_shape().map_err(fail)?.unwrap_or_default();
        let stored = shape[0].checked_next_multiple_of(chunk.first().copied().unwrap_or(1).max(1)).unwrap_or(u64::MAX);
        let charged = self.budget.elements(&[stored], 4).and_then(|_| self.budget.elements(&shape, 4));
        charged.map_err(|e| format!("weight `{path}` has shape {shape:?}: {e}"))?;
        let values = data.read_i32().map_err(fail)?;
        if values.len() as u64 == shape[0] { Ok(values) } else { Err(format!("weight `{path}` is cut short")) }
    }
}

impl H5 {
    /// A dataset of one int32.
    pub(crate) fn integer(&self, path: &str) -> Result<i32, String> {
        let fail = |e: hdf5_pure::Error| format!("weight `{path}`: {e}");
        let data = self.file.dataset(path).map_err(fail)?;
        let shape = data.shape().map_err(fail)?;
        if !matches!(data.dtype().map_err(fail)?, DType::I32) || !shape.is_empty() {
            return Err(format!("weight `{path}` has shape {shape:?}, one int32 is expected"));
        }
        let values = data.read_i32().map_err(fail)?;
        values.first().copied().ok_or_else(|| format!("weight `{path}` is cut short"))
    }
}

/// A dataset to be written.
pub(crate) enum Data {
    /// Of the type, in which they are rounded.
    Floats(Tensor, Dtype),
    /// A scalar.
    Int(i32),
    /// A list of any length.
    Ints(Vec<i32>),
}

/// A group to be written, with everything below it.
#[derive(Default)]
pub(crate) struct Tree {
    attrs: Vec<(String, AttrValue)>,
    groups: BTreeMap<String, Tree>,
    data: BTreeMap<String, Data>,
}

impl Tree {
    /// A string that h5py reads as `str`.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.attrs.push((name.into(), AttrValue::VarLenString(value.into())));
    }

    /// A string that h5py reads as `bytes` or `str`, by version.
    pub(crate) fn ascii(&mut self, name: &str, value: &str) {
        self.attrs.push((name.into(), AttrValue::VarLenAsciiString(value.into())));
    }

    /// A list of strings; an empty one is a list of no floats, as h5py makes of it.
    pub(crate) fn list(&mut self, name: &str, values: Vec<String>) {
        let value = match values.is_empty() {
            true => AttrValue::F64Array(Vec::new()),
            false => AttrValue::VarLenAsciiStringArray(values),
        };
        self.attrs.push((name.into(), value));
    }

    /// The group of a path below this one, made where missing.
    pub(crate) fn group(&mut self, path: &str) -> &mut Self {
        path.split('/').filter(|p| !p.is_empty()).fold(self, |tree, part| tree.groups.entry(part.into()).or_default())
    }

    /// Adds a dataset at a path below this group.
    pub(crate) fn dataset(&mut self, path: &str, data: Data) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.group(folder).data.insert(name.into(), data);
    }

    /// The bytes of a file with this root.
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let mut file = FileBuilder::new();
        for (name, value) in &self.attrs {
            file.set_attr(name, value.clone());
        }
        for (name, data) in &self.data {
            put(file.create_dataset(name), data);
        }
        for (name, tree) in &self.groups {
            let builder = file.create_group(name);
            file.add_group(tree.finish(builder));
        }
        file.finish().map_err(|e| Error::format(path, format!("can't be written: {e}")))
    }

    fn finish(&self, mut group: hdf5_pure::GroupBuilder) -> FinishedGroup {
        for (name, value) in &self.attrs {
            group.set_attr(name, value.clone());
        }
        for (name, data) in &self.data {
            put(group.create_dataset(name), data);
        }
        for (name, tree) in &self.groups {
            let builder = group.create_group(name);
            group.add_group(tree.finish(builder));
        }
        group.finish()
    }
}

fn put(to: &mut hdf5_pure::DatasetBuilder, data: &Data) {
    match data {
        Data::Floats(t, dtype) => {
            let shape: Vec<u64> = t.shape().iter().map(|d| *d as u64).collect();
            let (count, values) = (t.data().len() as u64, t.data().iter());
            let halves = |bits: fn(f32) -> u16| values.clone().flat_map(|x| bits(*x).to_le_bytes()).collect();
            match dtype {
                Dtype::Float16 => to.with_raw_data(HALF, halves(half::f16_bits), count),
                // As h5py names what HDF5 has no name for.
                Dtype::BFloat16 => {
                    to.with_raw_data(Datatype::Opaque { size: 2, tag: Vec::new() }, halves(half::bf16_bits), count)
                }
                Dtype::Float32 => to.with_f32_data(t.data()),
                Dtype::Float64 => to.with_f64_data(&values.map(|x| f64::from(*x)).collect::<Vec<_>>()),
            }
            .with_shape(&shape);
        }
        Data::Int(v) => {
            to.with_i32_data(&[*v]).with_shape(&[]);
        }
        Data::Ints(list) => {
            to.with_i32_data(list).with_shape(&[list.len() as u64]);
        }
    }
}

/// IEEE half floats, little-endian, as a file's type.
const HALF: Datatype = Datatype::FloatingPoint {
    size: 2,
    byte_order: hdf5_pure::DatatypeByteOrder::LittleEndian,
    layout: hdf5_pure::FloatingPointLayout {
        bit_offset: 0,
        bit_precision: 16,
        exponent_location: 10,
        exponent_size: 5,
        mantissa_location: 0,
        mantissa_size: 10,
        exponent_bias: 15,
    },
};

/// IEEE half floats, little-endian.
fn halves(datatype: &Datatype, raw: &[u8]) -> Option<Vec<f32>> {
    let Datatype::FloatingPoint { byte_order: hdf5_pure::DatatypeByteOrder::LittleEndian, layout, .. } = datatype
    else {
        return None;
    };
    if (layout.exponent_size, layout.mantissa_size) != (5, 10) {
        return None;
    }
    Some(raw.as_chunks::<2>().0.iter().map(|b| half::f16_value(u16::from_le_bytes(*b))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that every type has, and what each makes of one that it has not.
    #[test]
    fn values_come_back_in_every_type() {
        let values = Tensor::vector(vec![0.5, -2.0, 1.0 + f32::EPSILON, 65504.0]);
        for dtype in Dtype::ALL {
            let mut tree = Tree::default();
            tree.dataset("a/w", Data::Floats(values.clone(), dtype));
            let bytes = tree.to_bytes(Path::new("t.h5")).unwrap();
            let budget = Budget::for_file(bytes.len());
            let back = H5::from_bytes(Path::new("t.h5"), bytes, &budget).unwrap().floats("a/w", None).unwrap();
            let mut want = values.clone();
            dtype.cast(&mut want);
            assert_eq!(back, want, "{}", dtype.name());
        }
    }

    /// Whatever leads to the same values again: they are paid for each time.
    #[test]
    fn what_is_read_is_bounded_in_total() {
        let mut tree = Tree::default();
        tree.dataset("a/w", Data::Floats(Tensor::zeros(&[100, 100]), Dtype::Float32));
        let bytes = tree.to_bytes(Path::new("t.h5")).unwrap();
        let open = || H5::from_bytes(Path::new("t.h5"), bytes.clone(), &Budget::for_file(bytes.len())).unwrap();
        let file = open();
        file.budget().bytes(file.budget().left() - 200_000).unwrap();
        assert_eq!(file.floats("a/w", Some(&[100, 100])).unwrap().shape(), [100, 100]);
        assert!(file.floats("a/w", None).is_ok());
        assert!(file.floats("a/w", None).unwrap_err().contains("memory"));
        // Another shape is refused before anything is read.
        assert!(open().floats("a/w", Some(&[100, 99])).unwrap_err().contains("[100, 99]"));
        // So is work: every request to the file is one.
        let file = open();
        while file.budget().work(1 << 20).is_ok() {}
        assert!(file.floats("a/w", None).is_err() && file.strings("a", "names").is_err());
    }
}
