//! HDF5, as much of it as Keras uses. The only file that knows the crate behind it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hdf5_pure::{AttrValue, DType, Datatype, File, FileBuilder, FinishedGroup, Group};

use crate::error::Error;
use crate::tensor::Tensor;

/// Deflate can't expand data further than this; a filtered dataset may be larger than its file by this factor.
const MAX_EXPANSION: u64 = 1032;

/// Whether the HDF5 signature is where it may be.
pub(super) fn is_hdf5(bytes: &[u8]) -> bool {
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
pub(super) struct H5 {
    file: File,
    size: u64,
    /// Where it came from, for messages.
    pub(super) path: PathBuf,
    /// Whether bfloat16 is read. The vendor's tool computes with such weights in their own format, so its quantized
    /// models of them are other models.
    pub(super) brain_floats: bool,
}

impl H5 {
    pub(super) fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, Error> {
        let size = bytes.len() as u64;
        if let Some(whole) = stored_size(&bytes).filter(|whole| *whole > size) {
            return Err(Error::format(path, format!("is cut short: it has {size} of {whole} bytes")));
        }
        let file =
            File::from_bytes(bytes).map_err(|e| Error::format(path, format!("the HDF5 file is damaged: {e}")))?;
        Ok(Self { file, size, path: path.to_owned(), brain_floats: true })
    }

    /// An error about this file.
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::format(&self.path, message)
    }

    fn group(&self, path: &str) -> Result<Group, String> {
        self.file.group(path).map_err(|e| format!("group `{path}`: {e}"))
    }

    /// The strings of an attribute of a group; `None` if it isn't there or holds no strings.
    pub(super) fn strings(&self, group: &str, name: &str) -> Result<Option<Vec<String>>, String> {
        let attrs = self.group(group)?.attrs().map_err(|e| format!("attributes of `{group}`: {e}"))?;
        if let Some(value) = attrs.get(name) {
            return Ok(value.as_strings().map(<[String]>::to_vec));
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
    pub(super) fn string(&self, group: &str, name: &str) -> Result<Option<String>, String> {
        Ok(self.strings(group, name)?.and_then(|s| <[String; 1]>::try_from(s).ok()).map(|[s]| s))
    }

    /// Whether a group exists.
    pub(super) fn has_group(&self, path: &str) -> bool {
        self.file.group(path).is_ok()
    }

    /// Names of the groups inside a group.
    pub(super) fn groups(&self, path: &str) -> Result<Vec<String>, String> {
        self.group(path)?.groups().map_err(|e| format!("group `{path}`: {e}"))
    }

    /// Names of the datasets in a group.
    pub(super) fn datasets(&self, path: &str) -> Result<Vec<String>, String> {
        self.group(path)?.datasets().map_err(|e| format!("group `{path}`: {e}"))
    }

    /// Floats of a dataset; 16- and 64-bit floats are converted, anything else is refused.
    pub(super) fn floats(&self, path: &str) -> Result<Tensor, String> {
        let fail = |e: hdf5_pure::Error| format!("weight `{path}`: {e}");
        let data = self.file.dataset(path).map_err(fail)?;
        let datatype = data.datatype().map_err(fail)?;
        // Keras 3 has no other two bytes that HDF5 knows no name for.
        let brain = self.brain_floats && matches!(&datatype, Datatype::Opaque { size: 2, .. });
        let size = match &datatype {
            Datatype::FloatingPoint { size, .. } => u64::from(*size),
            _ if brain => 2,
            _ => return Err(format!("weight `{path}` is stored as {datatype}, floats are expected")),
        };
        let shape = data.shape().map_err(fail)?;
        let budget = if data.filters().is_empty() { self.size } else { self.size.saturating_mul(MAX_EXPANSION) };
        let bytes = shape.iter().try_fold(size, |n, d| n.checked_mul(*d)).filter(|n| *n <= budget);
        if bytes.is_none() {
            return Err(format!("weight `{path}` has shape {shape:?}, which is more than the file can hold"));
        }
        if brain {
            let raw = data.read_raw().map_err(fail)?;
            let values = raw.as_chunks::<2>().0.iter().map(|b| brain_float(u16::from_le_bytes(*b))).collect();
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

/// A dataset to be written.
pub(super) enum Data {
    Floats(Tensor),
    /// A scalar.
    Int(i32),
}

/// A group to be written, with everything below it.
#[derive(Default)]
pub(super) struct Tree {
    attrs: Vec<(String, AttrValue)>,
    groups: BTreeMap<String, Tree>,
    data: BTreeMap<String, Data>,
}

impl Tree {
    /// A string that h5py reads as `str`.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.attrs.push((name.into(), AttrValue::VarLenString(value.into())));
    }

    /// A string that h5py reads as `bytes` or `str`, by version.
    pub(super) fn ascii(&mut self, name: &str, value: &str) {
        self.attrs.push((name.into(), AttrValue::VarLenAsciiString(value.into())));
    }

    /// A list of strings; an empty one is a list of no floats, as h5py makes of it.
    pub(super) fn list(&mut self, name: &str, values: Vec<String>) {
        let value = match values.is_empty() {
            true => AttrValue::F64Array(Vec::new()),
            false => AttrValue::VarLenAsciiStringArray(values),
        };
        self.attrs.push((name.into(), value));
    }

    /// The group of a path below this one, made where missing.
    pub(super) fn group(&mut self, path: &str) -> &mut Self {
        path.split('/').filter(|p| !p.is_empty()).fold(self, |tree, part| tree.groups.entry(part.into()).or_default())
    }

    /// Adds a dataset at a path below this group.
    pub(super) fn dataset(&mut self, path: &str, data: Data) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.group(folder).data.insert(name.into(), data);
    }

    /// The bytes of a file with this root.
    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, Error> {
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
        Data::Floats(t) => {
            let shape: Vec<u64> = t.shape().iter().map(|d| *d as u64).collect();
            to.with_f32_data(t.data()).with_shape(&shape);
        }
        Data::Int(v) => {
            to.with_i32_data(&[*v]).with_shape(&[]);
        }
    }
}

/// IEEE half floats, little-endian.
fn halves(datatype: &Datatype, raw: &[u8]) -> Option<Vec<f32>> {
    let Datatype::FloatingPoint { byte_order: hdf5_pure::DatatypeByteOrder::LittleEndian, layout, .. } = datatype
    else {
        return None;
    };
    if (layout.exponent_size, layout.mantissa_size) != (5, 10) {
        return None;
    }
    Some(raw.as_chunks::<2>().0.iter().map(|b| half(u16::from_le_bytes(*b))).collect())
}

/// The value of a bfloat16: the upper half of an f32.
fn brain_float(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The value of an IEEE half float, exactly.
fn half(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (u32::from(bits >> 15) << 31, bits >> 10 & 31, u32::from(bits & 1023));
    match exponent {
        31 => f32::from_bits(sign | 0x7f80_0000 | mantissa << 13),
        0 => f32::from_bits(sign | (mantissa as f32 * (1.0 / 16_777_216.0)).to_bits()),
        e => f32::from_bits(sign | (u32::from(e) + 112) << 23 | mantissa << 13),
    }
}

#[cfg(test)]
mod tests {
    use super::{brain_float, half};

    #[test]
    fn brain_floats_are_upper_halves() {
        for (bits, want) in [(0x3f80, 1.0), (0xc000, -2.0), (0x3e80, 0.25), (0x0000, 0.0)] {
            assert_eq!(brain_float(bits), want, "{bits:#x}");
        }
    }

    #[test]
    fn half_floats_convert_exactly() {
        let table = [(0x0000, 0.0), (0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (bits, want) in table {
            assert_eq!(half(bits), want, "{bits:#x}");
        }
        assert_eq!(half(0xfc00), f32::NEG_INFINITY);
        assert!(half(0x7e00).is_nan());
        assert_eq!(half(0x8000).to_bits(), (-0.0f32).to_bits());
    }
}
