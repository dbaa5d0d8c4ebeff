//! Samples from files: arrays, folders of arrays, folders of images.
//!
//! Every dataset hands out batches `[n, …]` of f32 in what the model's input expects, x' = (x − mean) · scale. A `.npy`
//! stays on disk and is read batch by batch, so memory doesn't grow with its length; so do folders and members of a `.npz`.

use std::path::{Path, PathBuf};

use serde::Serialize;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_tensor::tensor::Tensor;

mod array;
mod images;
mod member;
mod statistics;

use array::Array;
pub use images::{ChannelOrder, Notes, ResizeFilter};
use images::{Note, Steps};
pub use statistics::{Doubt, Observed, doubt, looks_raw};

/// Where samples come from and how they are prepared.
#[derive(Clone, Debug, Default)]
pub struct DataSpec {
    /// A `.npy`, a `.npz`, or a folder of `.npy` or of PNG, JPEG and BMP files.
    pub path: PathBuf,
    /// The array inside a `.npz`.
    pub key: Option<String>,
    /// Height and width that images are scaled to; without it they must have the model's size.
    pub resize: Option<[usize; 2]>,
    /// How images are scaled.
    pub filter: ResizeFilter,
    /// Whether images are turned as their Exif data asks for.
    pub exif: bool,
    /// Order of an image's colours in the model's channels.
    pub order: ChannelOrder,
    /// Subtracted, one value or one per channel; nothing if empty.
    pub mean: Vec<f32>,
    /// Multiplied after the subtraction.
    pub scale: Option<f32>,
    /// Where reading images leaves what a user should know.
    pub notes: Notes,
}

impl DataSpec {
    /// `PATH`, or `FILE.npz:KEY`.
    pub fn parse(text: &str) -> Self {
        let (path, key) = match text.rsplit_once(':') {
            Some((path, key)) if path.ends_with(".npz") && !Path::new(text).exists() => (path, Some(key.to_owned())),
            _ => (text, None),
        };
        Self { path: path.into(), key, ..Self::default() }
    }
}

/// Samples of one input.
#[derive(Debug)]
pub struct Dataset {
    source: Source,
    shape: Vec<usize>,
    mean: Vec<f32>,
    scale: f32,
    name: String,
    notes: Notes,
}

#[derive(Debug)]
enum Source {
    /// Samples along the first axis of one array.
    Array(Array),
    /// One sample a file.
    Arrays(Vec<PathBuf>),
    /// One sample a file.
    Images(Vec<PathBuf>, Steps),
}

fn fail<T>(message: String) -> Result<T, Error> {
    Err(Error::Dataset(message))
}

impl Dataset {
    /// Opens samples of `shape`, which excludes the batch.
    ///
    /// Errors: nothing there, another shape (both are named), an element type that isn't a number. Arrays are checked
    /// here, files of a folder when they are read.
    pub fn open(spec: &DataSpec, shape: &[usize]) -> Result<Self, Error> {
        Self::open_keyed(spec, shape, None)
    }

    /// [`Dataset::open`]; `input` is the array of a `.npz` that is tried first.
    fn open_keyed(spec: &DataSpec, shape: &[usize], input: Option<&str>) -> Result<Self, Error> {
        let name = spec.path.display().to_string();
        let channels = shape.last().copied().unwrap_or(1);
        if !(spec.mean.len() <= 1 || spec.mean.len() == channels) {
            return fail(format!("{} means are given for {channels} channels", spec.mean.len()));
        }
        let source = if spec.path.is_dir() {
            folder(spec)?
        } else {
            let array = Array::open(&spec.path, spec.key.as_deref(), input)?;
            let (dims, n) = (array.shape(), array.shape().first().copied().unwrap_or(0));
            if dims.get(1..) != Some(shape) {
                let seen = array.shape();
                return fail(format!(
                    "{name}: the array has shape {seen:?}, [n, …] with samples of {shape:?} is expected"
                ));
            }
            if n == 0 {
                return fail(format!("{name}: the array holds no samples"));
            }
            Source::Array(array)
        };
        let scale = spec.scale.unwrap_or(1.0);
        let (mean, notes) = (spec.mean.clone(), spec.notes.clone());
        Ok(Self { source, shape: shape.to_vec(), mean, scale, name, notes })
    }

    /// Number of samples, at least one.
    pub fn len(&self) -> usize {
        match &self.source {
            Source::Array(array) => array.shape().first().copied().unwrap_or(0),
            Source::Arrays(files) | Source::Images(files, ..) => files.len(),
        }
    }

    /// Never: an empty dataset can't be opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Samples `start .. start + n` as `[n, …]`.
    ///
    /// Errors: past the end, a file that can't be read or has another shape, a value that isn't finite; the sample's
    /// index is named.
    pub fn batch(&self, start: usize, n: usize) -> Result<Tensor, Error> {
        let end = start.checked_add(n).filter(|end| *end <= self.len());
        let Some(end) = end else {
            return fail(format!(
                "{}: samples from {start} on, {n} of them, are past the end at {}",
                self.name,
                self.len()
            ));
        };
        let mut data = match &self.source {
            Source::Array(array) => array.rows(start, n)?,
            Source::Arrays(files) => {
                let parts = files[start..end].iter().map(|file| self.one_array(file));
                parts.collect::<Result<Vec<_>, _>>()?.concat()
            }
            Source::Images(files, steps) => {
                let parts = files[start..end].iter().map(|file| images::read(file, steps, &self.shape, &self.notes));
                parts.collect::<Result<Vec<_>, _>>()?.concat()
            }
        };
        self.prepare(&mut data);
        let per = self.shape.iter().product::<usize>().max(1);
        if let Some(at) = data.iter().position(|v| !v.is_finite()) {
            return fail(format!("{}: sample {} has the value {}", self.name, start + at / per, data[at]));
        }
        Tensor::new([&[n], self.shape.as_slice()].concat(), data)
            .ok_or_else(|| Error::Dataset(format!("{}: a sample is cut short", self.name)))
    }

    fn one_array(&self, file: &Path) -> Result<Vec<f32>, Error> {
        let array = Array::open(file, None, None)?;
        // A sample may have been saved with a batch of one around it.
        let dims = array.shape().strip_prefix(&[1]).filter(|d| *d == self.shape).unwrap_or(array.shape());
        if dims != self.shape {
            return fail(format!("{}: the sample has shape {dims:?}, {:?} is expected", file.display(), self.shape));
        }
        array.all()
    }

    fn prepare(&self, data: &mut [f32]) {
        match self.mean.as_slice() {
            [] => {}
            [mean] => data.iter_mut().for_each(|v| *v -= mean),
            means => {
                for pixel in data.chunks_exact_mut(means.len()) {
                    pixel.iter_mut().zip(means).for_each(|(v, m)| *v -= m);
                }
            }
        }
        if self.scale != 1.0 {
            data.iter_mut().for_each(|v| *v *= self.scale);
        }
    }
}

/// The shape of a sample, where the data tells it by itself: an array, or images that are scaled to a size.
pub fn sample_shape(spec: &DataSpec) -> Option<Vec<usize>> {
    if !spec.path.is_dir() {
        let array = Array::open(&spec.path, spec.key.as_deref(), None).ok()?;
        return array.shape().get(1..).map(<[usize]>::to_vec);
    }
    match folder(spec).ok()? {
        Source::Arrays(files) => Some(Array::open(files.first()?, None, None).ok()?.shape().to_vec()),
        Source::Images(_, steps) => steps.resize.map(|[h, w]| vec![h, w, 3]),
        Source::Array(_) => None,
    }
}

/// An array as its file has it: NumPy's code of the elements' type in little-endian order, all dimensions, and its bytes.
///
/// `input` is the array of a `.npz` that is meant where the data names none. Errors: no array; preparation that was asked
/// for, which is for samples of floats.
pub fn whole(spec: &DataSpec, input: &str) -> Result<(String, Vec<usize>, Vec<u8>), Error> {
    if !spec.mean.is_empty() || spec.scale.is_some() || spec.resize.is_some() {
        return fail(format!(
            "input `{input}` takes arrays as they are; mean, scale and size are for samples of floats"
        ));
    }
    let own = Array::open(&spec.path, spec.key.as_deref(), Some(input));
    let array = match (own, &spec.key) {
        // A file with one array has no need of a name.
        (Err(_), None) => Array::open(&spec.path, None, None)?,
        (own, _) => own?,
    };
    Ok((array.code(), array.shape().to_vec(), array.bytes()?))
}

/// An array of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Described {
    /// Its name in a `.npz`; `None` for a `.npy`.
    pub key: Option<String>,
    /// NumPy's name of its elements' type; `None` for an array that can't be read.
    pub dtype: Option<String>,
    /// All dimensions.
    pub shape: Vec<usize>,
    /// Why it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Described {
    fn of(path: &Path, key: Option<String>) -> Self {
        match Array::open(path, key.as_deref(), None) {
            Ok(array) => Self { key, dtype: Some(array.dtype()), shape: array.shape().to_vec(), problem: None },
            Err(e) => Self { key, dtype: None, shape: Vec::new(), problem: Some(e.to_string()) },
        }
    }
}

/// What arrays a `.npy` or a `.npz` has; of the values nothing is kept.
///
/// Errors: an archive that can't be opened. Of a single array that can't be read, the answer says why.
pub fn describe(path: &Path, archive: bool) -> Result<Vec<Described>, Error> {
    if !archive {
        return Array::open(path, None, None).map(|_| vec![Described::of(path, None)]);
    }
    Ok(array::keys(path)?.into_iter().map(|key| Described::of(path, Some(key))).collect())
}

/// The files of a folder in name order: all `.npy`, or all images. Files whose names begin with a dot are hidden, as those
/// that macOS writes beside others, and no samples.
fn folder(spec: &DataSpec) -> Result<Source, Error> {
    let name = spec.path.display();
    let entries = std::fs::read_dir(&spec.path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(Error::io(&spec.path))?.into_iter();
    let shown = entries.filter(|e| !e.file_name().as_encoded_bytes().starts_with(b"."));
    let mut files: Vec<PathBuf> = shown.map(|e| e.path()).collect();
    files.sort();
    let with = |extensions: &[&str]| -> Vec<PathBuf> {
        let extension = |p: &PathBuf| p.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let fits = |p: &&PathBuf| extension(p).is_some_and(|e| extensions.contains(&e.as_str())) && p.is_file();
        files.iter().filter(fits).cloned().collect()
    };
    let (arrays, images, others) = (with(&["npy"]), with(&images::EXTENSIONS), with(&images::OTHER_EXTENSIONS));
    match (arrays.is_empty(), images.is_empty()) {
        (true, true) => {
            let file = others.first().and_then(|f| f.file_name()).map(|f| f.to_string_lossy());
            let of = file.map_or_else(String::new, |f| format!("; {f} is a picture of a kind that is not read"));
            fail(format!("{name}: the folder holds no .npy, .png, .jpg or .bmp files{of}"))
        }
        (false, false) => fail(format!("{name}: the folder holds both arrays and images; split it")),
        (false, true) => Ok(Source::Arrays(arrays)),
        (true, false) => {
            others.iter().for_each(|file| spec.notes.add(Note::NotRead, file));
            let (resize, filter, order, exif) = (spec.resize, spec.filter, spec.order, spec.exif);
            Ok(Source::Images(images, Steps { resize, filter, order, exif }))
        }
    }
}

/// Samples of all inputs of a model.
#[derive(Debug)]
pub struct Inputs(Vec<Dataset>);

impl Inputs {
    /// Opens one dataset per input. `specs` are `NAME=DATA` in any order; a single one without a name serves a model
    /// with one input, or is a `.npz` whose keys are the inputs' names. `inputs` are names and shapes in model order.
    pub fn open(specs: &[(Option<String>, DataSpec)], inputs: &[(&str, &[usize])]) -> Result<Self, Error> {
        let names = || inputs.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
        for (name, _) in specs {
            if let Some(name) = name.as_deref().filter(|n| !inputs.iter().any(|(i, _)| i == n)) {
                return fail(format!("the model has no input `{name}`; its inputs are {}", names()));
            }
        }
        let find = |input: &str| specs.iter().find(|(name, _)| name.as_deref() == Some(input));
        let alone = match specs {
            [(None, spec)] => Some(spec),
            _ => None,
        };
        let mut all = Vec::new();
        for (input, shape) in inputs {
            let spec = match (find(input), alone) {
                (Some((_, spec)), _) => spec,
                (None, Some(spec)) if inputs.len() == 1 || spec.key.is_none() => spec,
                _ => return fail(format!("no data for input `{input}`; give NAME=DATA for each of {}", names())),
            };
            let key = (inputs.len() > 1).then_some(*input);
            all.push(Dataset::open_keyed(spec, shape, key)?);
        }
        let lengths: Vec<usize> = all.iter().map(Dataset::len).collect();
        if lengths.windows(2).any(|w| w[0] != w[1]) {
            return fail(format!("the inputs {} have different numbers of samples: {lengths:?}", names()));
        }
        Ok(Self(all))
    }
}

impl Samples for Inputs {
    fn len(&self) -> usize {
        self.0.first().map_or(0, Dataset::len)
    }
    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        self.0.iter().map(|d| d.batch(start, count)).collect()
    }
}

/// Class numbers, `[n]` or `[n, 1]` of any number type. In a `.npz` the array may be called `y`, `y_eval` or `labels`.
pub fn labels(spec: &DataSpec) -> Result<Vec<i64>, Error> {
    let name = spec.path.display();
    let array = Array::open_labels(&spec.path, spec.key.as_deref())?;
    if !matches!(array.shape(), [n, rest @ ..] if *n > 0 && rest.iter().all(|d| *d == 1)) {
        return fail(format!("{name}: the labels have shape {:?}, [n] is expected", array.shape()));
    }
    let whole = |i: usize, v: f64| {
        if v.fract() == 0.0 && v.abs() < 1e15 { Ok(v as i64) } else { fail(format!("{name}: label {i} is {v}")) }
    };
    array.each(whole)
}

#[cfg(test)]
mod tests;
