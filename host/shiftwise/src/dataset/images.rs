//! Samples from pictures.
//!
//! Every step gives what PIL gives, for that is what networks are trained on: `Image.open`, `ImageOps.exif_transpose` if
//! asked for, `convert("RGB")` or `convert("L")`, then `resize` with BILINEAR.

mod jpeg;
mod pixels;
mod resample;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use image::codecs::{bmp::BmpDecoder, png::PngDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageDecoder, Limits, RgbImage};

use pixels::{Pixels, flat};
use resample::Axis;
use shiftwise_graph::error::Error;

/// Order of colours in the channels of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelOrder {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// How pictures are scaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResizeFilter {
    /// PIL's BILINEAR: antialiased, and rounded to 8 bits.
    #[default]
    Pil,
    /// `tf.image.resize`: bilinear without antialiasing, not rounded.
    Tf,
}

/// What is done to a picture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steps {
    /// Height and width to scale to.
    pub(super) resize: Option<[usize; 2]>,
    pub(super) filter: ResizeFilter,
    pub(super) order: ChannelOrder,
    /// Turned as the file asks for.
    pub(super) exif: bool,
}

/// Most pixels of a picture: a file of a few bytes may claim any number.
const MAX_PIXELS: u64 = 40_000_000;
/// Most bytes of memory for what a PNG holds beside its pixels, which is compressed as well.
const MAX_BESIDE: u64 = 64 << 20;
/// Most bytes of a file.
const MAX_BYTES: u64 = 1 << 30;

/// A kind of picture, told by a file's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Jpeg,
    Bmp,
    /// Known, and not read.
    Other(&'static str),
}

/// Where a signature stands, the signature, and what has it.
const SIGNATURES: [(usize, &[u8], Format); 10] = [
    (0, b"\x89PNG\r\n\x1a\n", Format::Png),
    (0, b"\xff\xd8\xff", Format::Jpeg),
    (0, b"BM", Format::Bmp),
    (0, b"GIF8", Format::Other("a GIF")),
    (8, b"WEBP", Format::Other("a WebP picture")),
    (0, b"II*\0", Format::Other("a TIFF")),
    (0, b"MM\0*", Format::Other("a TIFF")),
    (4, b"ftyp", Format::Other("a HEIC or AVIF picture or a film")),
    (0, b"\0\0\0\x0cjP  ", Format::Other("a JPEG 2000 picture")),
    (0, b"\xff\x0a", Format::Other("a JPEG XL picture")),
];

/// Names of files that are read.
pub(super) const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "jpe", "bmp"];
/// Names of other pictures.
pub(super) const OTHER_EXTENSIONS: [&str; 10] =
    ["gif", "webp", "tif", "tiff", "heic", "heif", "avif", "jp2", "jxl", "ppm"];

/// What may be surprising about a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Note {
    /// It asks to be turned, and is not.
    NotTurned,
    /// 16 bits of grey became 8 by limiting them.
    Limited,
    /// It lies among the others and is of a kind that is not read.
    NotRead,
}

impl Note {
    fn text(self, count: usize, first: &Path) -> String {
        let first = first.display();
        let (some, s) = if count == 1 { ("1 picture".to_owned(), "s") } else { (format!("{count} pictures"), "") };
        match self {
            Self::NotTurned => format!(
                "{some} ask{s} to be turned (Exif orientation), {first} first; PIL and TensorFlow don't, and neither \
                 does shiftwise without --exif"
            ),
            Self::Limited => format!(
                "{some} of 16 bits of grey hold{s} values beyond 255, {first} first: PIL's conversion to 8 bits makes all \
                 of those 255; save 8 bits, or an array"
            ),
            Self::NotRead => format!(
                "{some} in the folder {}, {first} first, of a kind that is not read; PNG, JPEG and BMP are",
                if count == 1 { "is" } else { "are" }
            ),
        }
    }
}

/// What reading pictures has shown, across all that share it.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<BTreeMap<Note, BTreeSet<PathBuf>>>>);

impl Notes {
    pub(super) fn add(&self, note: Note, path: &Path) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.entry(note).or_default().insert(path.to_owned());
    }

    /// A sentence for each thing that a user should know of the pictures that were read.
    pub fn warnings(&self) -> Vec<String> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.iter().filter_map(|(note, files)| Some(note.text(files.len(), files.first()?))).collect()
    }
}

/// A picture of 8 bits.
struct Picture {
    bytes: Vec<u8>,
    channels: usize,
    size: [usize; 2],
}

impl Picture {
    /// Turned and mirrored as the file asks for.
    fn turned(self, orientation: Orientation) -> Option<Self> {
        let [h, w] = self.size.map(|n| n as u32);
        let mut picture: DynamicImage = match self.channels {
            1 => GrayImage::from_raw(w, h, self.bytes)?.into(),
            _ => RgbImage::from_raw(w, h, self.bytes)?.into(),
        };
        picture.apply_orientation(orientation);
        let size = [picture.height() as usize, picture.width() as usize];
        Some(Self { bytes: picture.into_bytes(), size, ..self })
    }

    /// As floats, scaled to `size` if it has another.
    fn scaled(self, size: [usize; 2], filter: ResizeFilter) -> Vec<f32> {
        let axis = |k: usize| Axis { from: self.size[k], to: size[k] };
        let (rows, columns) = (axis(0), axis(1));
        match filter {
            ResizeFilter::Tf if self.size != size => resample::tf(&self.bytes, self.channels, rows, columns),
            _ => resample::pil(self.bytes, self.channels, rows, columns).into_iter().map(f32::from).collect(),
        }
    }
}

/// A PNG whose profiles, texts and rows may take some memory and no more.
fn png(bytes: &[u8]) -> Result<PngDecoder<Cursor<&[u8]>>, String> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_BESIDE);
    PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(|e| e.to_string())
}

/// A file that is not decoded yet.
struct Encoded {
    bytes: Vec<u8>,
    format: Format,
    size: [usize; 2],
    orientation: Orientation,
}

impl Encoded {
    /// Looks at the header.
    fn open(path: &Path) -> Result<Result<Self, String>, Error> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::io(path))?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
        Ok(Self::parse(bytes))
    }

    fn parse(bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.len() as u64 > MAX_BYTES {
            return Err("a picture of more than 1 GB is not read".into());
        }
        let has = |(at, start, _): &&(usize, &[u8], Format)| bytes.get(*at..).is_some_and(|b| b.starts_with(start));
        let format = SIGNATURES.iter().find(has).map(|(.., format)| *format);
        let header = |mut decoder: Box<dyn ImageDecoder + '_>| {
            let (w, h) = decoder.dimensions();
            let exif = decoder.exif_metadata().ok().flatten();
            ([h as usize, w as usize], exif)
        };
        let (size, exif) = match format {
            Some(Format::Png) => header(Box::new(png(&bytes)?)),
            Some(Format::Bmp) => header(Box::new(BmpDecoder::new(Cursor::new(&bytes)).map_err(|e| e.to_string())?)),
            Some(Format::Jpeg) => {
                let header = jpeg::header(&bytes)?;
                ([header.height, header.width], header.exif)
            }
            Some(Format::Other(what)) => return Err(format!("it is {what}; PNG, JPEG and BMP files are read")),
            None => return Err("it is no picture; PNG, JPEG and BMP files are read".into()),
        };
        if size[0] as u64 * size[1] as u64 > MAX_PIXELS {
            return Err(format!("it claims {}x{} pixels, more than {MAX_PIXELS}", size[0], size[1]));
        }
        let orientation = exif.and_then(|e| Orientation::from_exif_chunk(&e)).unwrap_or(Orientation::NoTransforms);
        let Some(format) = format else { return Err("it is no picture".into()) };
        Ok(Self { bytes, format, size, orientation })
    }

    /// The pixels, and whether 16 bits of grey were limited.
    fn decode(&self) -> Result<(Pixels, bool), String> {
        let whole = |decoder| DynamicImage::from_decoder(decoder).map_err(|e: image::ImageError| e.to_string());
        match self.format {
            Format::Jpeg => Ok((jpeg::decode(&self.bytes)?, false)),
            Format::Bmp => {
                let decoder = BmpDecoder::new(Cursor::new(&self.bytes)).map_err(|e| e.to_string())?;
                Ok(flat(DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?, false))
            }
            _ => {
                let decoder = png(&self.bytes)?;
                // The header's colour type: 0 is grey without an alpha channel.
                Ok(flat(whole(decoder)?, self.bytes.get(25) == Some(&0)))
            }
        }
    }
}

/// A picture as `[h, w, c]` values from 0 to 255. One channel means grey, three colours.
pub(super) fn read(path: &Path, steps: &Steps, shape: &[usize], notes: &Notes) -> Result<Vec<f32>, Error> {
    let fail = |message: String| Error::Dataset(format!("{}: {message}", path.display()));
    let [height, width, channels @ (1 | 3)] = *shape else {
        return Err(fail(format!("images can't be samples of shape {shape:?}, [h, w, 1] or [h, w, 3] is expected")));
    };
    let encoded = Encoded::open(path)?.map_err(fail)?;
    let turns = encoded.orientation != Orientation::NoTransforms;
    if turns && !steps.exif {
        notes.add(Note::NotTurned, path);
    }
    let lies = matches!(
        encoded.orientation,
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH
    );
    let [h, w] = encoded.size;
    let size = steps.resize.unwrap_or(if steps.exif && lies { [w, h] } else { [h, w] });
    // Told before the work.
    if size != [height, width] {
        let (what, then) =
            if steps.resize.is_some() { ("is scaled to", "") } else { ("has", "; --resize scales them") };
        return Err(fail(format!(
            "the image {what} {}x{} pixels, {height}x{width} are expected{then}",
            size[0], size[1]
        )));
    }
    let (pixels, limited) = encoded.decode().map_err(fail)?;
    if limited {
        notes.add(Note::Limited, path);
    }
    let mut picture = Picture { bytes: pixels.into_channels(channels), channels, size: encoded.size };
    if turns && steps.exif {
        picture =
            picture.turned(encoded.orientation).ok_or_else(|| fail("its pixels are not as many as its size".into()))?;
    }
    let mut values = picture.scaled(size, steps.filter);
    if steps.order == ChannelOrder::Bgr && channels == 3 {
        values.chunks_exact_mut(3).for_each(<[f32]>::reverse);
    }
    Ok(values)
}
