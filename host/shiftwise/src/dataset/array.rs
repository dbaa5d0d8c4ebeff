//! NumPy arrays, read by rows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;

use crate::dataset::member::Member;
use shiftwise_graph::budget::reserve;
use shiftwise_graph::error::Error;

/// No header of a sane array is longer.
const MAX_HEADER: usize = 1 << 16;

/// Values that are read at once.
const BLOCK: usize = 1 << 18;

/// Element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Float(usize),
    Signed(usize),
    Unsigned(usize),
}

impl Element {
    /// NumPy's name.
    fn name(self) -> String {
        let (kind, bytes) = match self {
            Self::Float(bytes) => ("float", bytes),
            Self::Signed(bytes) => ("int", bytes),
            Self::Unsigned(bytes) => ("uint", bytes),
        };
        format!("{kind}{}", 8 * bytes)
    }

    /// NumPy's code, in little-endian order.
    fn code(self) -> String {
        let order = if self.size() == 1 { '|' } else { '<' };
        let kind = match self {
            Self::Float(_) => 'f',
            Self::Signed(_) => 'i',
            Self::Unsigned(_) => 'u',
        };
        format!("{order}{kind}{}", self.size())
    }

    fn size(self) -> usize {
        match self {
            Self::Float(n) | Self::Signed(n) | Self::Unsigned(n) => n,
        }
    }

    /// The value of little-endian bytes, of which there are as many as the size says.
    fn value(self, bytes: &[u8]) -> f64 {
        let mut wide = [0u8; 8];
        wide.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let bits = u64::from_le_bytes(wide);
        match self {
            Self::Float(2) => half(bits as u16),
            Self::Float(4) => f32::from_bits(bits as u32).into(),
            Self::Float(_) => f64::from_bits(bits),
            Self::Unsigned(_) => bits as f64,
            Self::Signed(n) => {
                let unused = 64 - 8 * n as u32;
                (bits.cast_signed() << unused >> unused) as f64
            }
        }
    }
}

/// The value of an IEEE half.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        e => (1024.0 + fraction) * 2f64.powi(e - 25),
    };
    if bits >> 15 == 1 { -size } else { size }
}

/// What a `.npy` header says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    element: Element,
    big_endian: bool,
    shape: Vec<usize>,
    /// Bytes before the values.
    offset: usize,
}

impl Header {
    fn parse(start: &[u8]) -> Result<Self, String> {
        let cut = || "its header is cut short".to_owned();
        let rest = start.strip_prefix(b"\x93NUMPY").ok_or("it is not a NumPy array")?;
        let (len, prefix) = match rest {
            [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([*a, *b])), 10),
            [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
            [1..=3, ..] => return Err(cut()),
            [v, ..] => return Err(format!("its format version {v} is unknown")),
            [] => return Err(cut()),
        };
        let offset = prefix + len;
        let text = start.get(prefix..offset).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
        let fortran = field(text, "fortran_order")?.starts_with("True");
        let descr = field(text, "descr")?;
        let shape = shape(field(text, "shape")?)?;
        if fortran && shape.len() > 1 {
            return Err("it is in Fortran order; save numpy.ascontiguousarray of it".into());
        }
        let quote = descr.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let code = quote.and_then(|q| descr[1..].split(q).next()).unwrap_or_default();
        let (order, kind) = code.split_at_checked(1).unwrap_or_default();
        let element = match kind {
            "f2" => Element::Float(2),
            "f4" => Element::Float(4),
            "f8" => Element::Float(8),
            "i1" => Element::Signed(1),
            "i2" => Element::Signed(2),
            "i4" => Element::Signed(4),
            "i8" => Element::Signed(8),
            "u1" | "b1" => Element::Unsigned(1),
            "u2" => Element::Unsigned(2),
            "u4" => Element::Unsigned(4),
            "u8" => Element::Unsigned(8),
            _ => {
                let own = if code.is_empty() { "of records".into() } else { format!("`{code:.20}`") };
                return Err(format!("its element type {own} is not a plain number of up to 64 bits"));
            }
        };
        if !matches!(order, "<" | ">" | "|" | "=") {
            return Err(format!("its byte order `{order}` is unknown"));
        }
        Ok(Self { element, big_endian: order == ">", shape, offset })
    }

    /// Bytes of all values.
    fn bytes(&self) -> Option<u64> {
        let size = self.element.size() as u64;
        self.shape.iter().try_fold(size, |n, d| n.checked_mul(*d as u64)).filter(|n| *n <= usize::MAX as u64)
    }
}

/// What stands behind a key of the header's dictionary.
fn field<'a>(text: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no `{key}`");
    let at = text.find(key).ok_or_else(missing)? + key.len();
    let value = text.get(at..).and_then(|t| t.split_once(':')).ok_or_else(missing)?.1;
    Ok(value.trim_start())
}

/// `(3, 4)`, `(3,)` or `()`.
fn shape(text: &str) -> Result<Vec<usize>, String> {
    let bad = || "its shape is not a tuple of whole numbers".to_owned();
    let inner = text.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(bad)?.0;
    let parts = inner.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts.map(|p| p.parse().map_err(|_| bad())).collect()
}

#[derive(Debug)]
enum Storage {
    /// Values begin at the header's end.
    File(Mutex<File>),
    /// A member of a `.npz`, which is a `.npy` again.
    Member(Member),
}

/// An array whose values are read when asked for.
#[derive(Debug)]
pub(super) struct Array {
    header: Header,
    storage: Storage,
    name: String,
}

impl Array {
    /// Opens a `.npy`, or an array of a `.npz`: the one of `key`, else that of `input`, else the only one, else the only
    /// one of `x`, `x_cal`, `x_eval`.
    pub(super) fn open(path: &Path, key: Option<&str>, input: Option<&str>) -> Result<Self, Error> {
        Self::open_as(path, key, input, &["x", "x_cal", "x_eval"])
    }

    /// [`Array::open`] for labels.
    pub(super) fn open_labels(path: &Path, key: Option<&str>) -> Result<Self, Error> {
        Self::open_as(path, key, None, &["y", "y_eval", "labels"])
    }

    fn open_as(path: &Path, key: Option<&str>, input: Option<&str>, usual: &[&str]) -> Result<Self, Error> {
        // A pipe would be waited for, and can't be read from its middle.
        let kind = std::fs::metadata(path).map_err(Error::io(path))?;
        if !(kind.is_file() || kind.is_dir()) {
            return Err(Error::Dataset(format!("{}: is neither a file nor a folder", path.display())));
        }
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut magic = Vec::new();
        file.by_ref().take(MAX_HEADER as u64).read_to_end(&mut magic).map_err(Error::io(path))?;
        let name = path.display().to_string();
        if magic.starts_with(b"PK") {
            let (member, key) = Member::open(path, file, &|keys| choose(keys, key, input, usual))?;
            let name = format!("{name}:{key}");
            let start = member.start(MAX_HEADER).map_err(|e| Error::Dataset(format!("{name}: {e}")))?;
            let size = member.size();
            return Self::checked(Header::parse(&start), Storage::Member(member), size, name);
        }
        if let Some(key) = key {
            return Err(Error::Dataset(format!("{name}: it is not a .npz, so it has no array `{key}`")));
        }
        let known: [(&[u8], &str); 3] = [
            (b"\x89PNG", "it is an image; give the folder that holds it"),
            (b"\xff\xd8\xff", "it is an image; give the folder that holds it"),
            (b"\x89HDF", "it is an HDF5 file, an array is expected"),
        ];
        if let Some((_, what)) = known.iter().find(|(start, _)| magic.starts_with(start)) {
            return Err(Error::Dataset(format!("{name}: {what}")));
        }
        let size = file.metadata().map_err(Error::io(path))?.len();
        Self::checked(Header::parse(&magic), Storage::File(Mutex::new(file)), size, name)
    }

    fn checked(header: Result<Header, String>, storage: Storage, size: u64, name: String) -> Result<Self, Error> {
        let header = header.map_err(|e| Error::Dataset(format!("{name}: {e}")))?;
        let needed = header.bytes().and_then(|n| n.checked_add(header.offset as u64));
        if needed.is_none_or(|n| n > size) {
            return Err(Error::Dataset(format!("{name}: shape {:?} needs more than its {size} bytes", header.shape)));
        }
        Ok(Self { header, storage, name })
    }

    /// NumPy's name of the elements' type.
    pub(super) fn dtype(&self) -> String {
        self.header.element.name()
    }

    /// NumPy's code of the elements' type, in little-endian order.
    pub(super) fn code(&self) -> String {
        self.header.element.code()
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// The bytes of all values, in little-endian order.
    pub(super) fn bytes(&self) -> Result<Vec<u8>, Error> {
        let fail = |e: String| Error::Dataset(format!("{}: {e}", self.name));
        let count = self.header.bytes().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let mut bytes = shiftwise_graph::budget::filled(count, 0u8).map_err(|e| fail(e.to_string()))?;
        self.read(self.header.offset, &mut bytes).map_err(|e| fail(e.to_string()))?;
        if self.header.big_endian {
            bytes.chunks_exact_mut(self.header.element.size()).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    }

    /// Rows `start .. start + n` of the first axis, which the caller has checked, as f32.
    pub(super) fn rows(&self, start: usize, n: usize) -> Result<Vec<f32>, Error> {
        let per: usize = self.header.shape.iter().skip(1).product();
        self.floats(start * per, n * per)
    }

    /// All values as f32.
    pub(super) fn all(&self) -> Result<Vec<f32>, Error> {
        self.floats(0, self.header.shape.iter().product())
    }

    /// `count` values from `start` on as f32: those that are f32 already are not looked at one by one.
    fn floats(&self, start: usize, count: usize) -> Result<Vec<f32>, Error> {
        if self.header.element != Element::Float(4) {
            return self.values(start, count, |_, v| Ok(v as f32));
        }
        self.blocks(start, count, |_, block, values| {
            values.extend(block.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            Ok(())
        })
    }

    /// What becomes of all values, each with its index.
    pub(super) fn each<T>(&self, convert: impl Fn(usize, f64) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        self.values(0, self.header.shape.iter().product(), convert)
    }

    fn values<T>(
        &self,
        start: usize,
        count: usize,
        convert: impl Fn(usize, f64) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let (element, size) = (self.header.element, self.header.element.size());
        self.blocks(start, count, |first, block, values| {
            for (i, b) in (first..).zip(block.chunks_exact(size)) {
                values.push(convert(i, element.value(b))?);
            }
            Ok(())
        })
    }

    /// What `convert` appends for blocks of little-endian values: the index of the first, their bytes, all values so far.
    fn blocks<T>(
        &self,
        start: usize,
        count: usize,
        convert: impl Fn(usize, &[u8], &mut Vec<T>) -> Result<(), Error>,
    ) -> Result<Vec<T>, Error> {
        let size = self.header.element.size();
        let fail = |e: String| Error::Dataset(format!("{}: {e}", self.name));
        let mut values = reserve(count).map_err(|e| fail(e.to_string()))?;
        // Block by block: the values may take more memory than their bytes, and need not both be there as a whole.
        let mut bytes = vec![0; BLOCK.min(count) * size];
        while values.len() < count {
            let (first, n) = (start + values.len(), BLOCK.min(count - values.len()));
            let block = bytes.get_mut(..n * size).unwrap_or_default();
            self.read(self.header.offset + first * size, block).map_err(|e| fail(e.to_string()))?;
            if self.header.big_endian {
                block.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            }
            convert(first, block, &mut values)?;
        }
        Ok(values)
    }

    fn read(&self, from: usize, to: &mut [u8]) -> std::io::Result<()> {
        match &self.storage {
            Storage::Member(member) => member.read(from as u64, to),
            Storage::File(file) => {
                let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                file.seek(SeekFrom::Start(from as u64)).and_then(|_| file.read_exact(to))
            }
        }
    }
}

/// The names of the arrays of a `.npz`, in its order.
pub(super) fn keys(path: &Path) -> Result<Vec<String>, Error> {
    let file = File::open(path).map_err(Error::io(path))?;
    let damaged = |e| Error::Dataset(format!("{}: the .npz is damaged: {e}", path.display()));
    let archive = zip::ZipArchive::new(file).map_err(damaged)?;
    let name = |n: &str| n.strip_suffix(".npy").map(str::to_owned);
    Ok(archive.file_names().filter_map(Result::ok).filter_map(|n| name(&n)).collect())
}

/// The array that is meant among those of a `.npz`.
fn choose(keys: &[String], key: Option<&str>, input: Option<&str>, usual: &[&str]) -> Result<String, String> {
    let listed = || keys.join(", ");
    let has = |k: &str| keys.iter().any(|n| n == k);
    let known: Vec<&str> = usual.iter().copied().filter(|k| has(k)).collect();
    let chosen = match (key, input, keys, known.as_slice()) {
        (Some(key), ..) | (None, Some(key), ..) if has(key) => key,
        (Some(key), ..) | (None, Some(key), ..) => {
            return Err(format!("there is no array `{key}`; there are {}", listed()));
        }
        (None, None, [only], _) => only,
        (None, None, _, [only]) => only,
        _ => return Err(format!("it holds several arrays; add :KEY for one of {}", listed())),
    };
    Ok(chosen.to_owned())
}
