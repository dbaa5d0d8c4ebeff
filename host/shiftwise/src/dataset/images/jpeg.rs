//! JPEG as libjpeg decodes it, to the last bit: what a network has learnt from came through libjpeg, in PIL, TensorFlow
//! and OpenCV alike.
//!
//! Decoders differ where the standard leaves them free: in the inverse transform, and in how colours of half the
//! resolution are spread, above all at a picture's edges. Here are libjpeg's accurate integer transform, its "fancy"
//! spreading and its conversion of colours. Sequential and progressive files of 8 bits are read; a file that is cut
//! short is refused, as PIL refuses it.

mod entropy;
mod samples;

use self::entropy::{Huffman, Scan};
use crate::dataset::images::pixels::Pixels;

/// Most scans of a file, and most visits of all of them to a coefficient, on average: ten and four are usual. A scan of a
/// few bytes can visit every coefficient.
const MAX_SCANS: usize = 128;
const MAX_VISITS: usize = 16;

/// Order in which a block's coefficients are stored.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// One plane of a picture.
#[derive(Debug)]
struct Component {
    id: u8,
    /// Samples across and down in the least group of blocks that holds all components.
    sampling: [usize; 2],
    /// Which quantization table.
    table: u8,
    /// Its factors, from the first scan on.
    factors: Option<[u16; 64]>,
    /// Samples across and down, without padding.
    size: [usize; 2],
    /// Blocks across and down, padded to whole groups.
    blocks: [usize; 2],
    /// In rows of blocks.
    coefficients: Vec<[i16; 64]>,
}

/// What a file says before its first scan.
#[derive(Debug, Default)]
struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    components: Vec<Component>,
    /// The largest of the components' samplings, across and down.
    most: [usize; 2],
}

/// How the values of a pixel are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Grey,
    Rgb,
    YCbCr,
    /// Inverted, as Adobe writes it, and as PIL takes it from anyone.
    Cmyk,
    Ycck,
}

/// Size and Exif data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) exif: Option<Vec<u8>>,
}

/// Everything that segments have said so far.
#[derive(Debug, Default)]
struct Decoder {
    frame: Option<Frame>,
    quantization: [Option<[u16; 64]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Groups of blocks between two restart markers; 0 without any.
    restart: usize,
    jfif: bool,
    /// Adobe's number for the meaning of values.
    adobe: Option<u8>,
    exif: Option<Vec<u8>>,
    scans: usize,
    visits: usize,
}

const CUT: &str = "the JPEG file is cut short";

fn damaged<T>(what: &str) -> Result<T, String> {
    Err(format!("the JPEG file is damaged: {what}"))
}

/// Position in a file.
#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next marker's code; what stands before it is skipped.
    fn marker(&mut self) -> Option<u8> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            self.at += rest.iter().position(|b| *b == 0xFF)? + 1;
            match self.bytes.get(self.at)? {
                // Filling, and the second of two bytes that stand for a byte of data.
                0xFF | 0 => {}
                code => {
                    self.at += 1;
                    return Some(*code);
                }
            }
        }
    }

    /// The bytes behind a marker.
    fn segment(&mut self) -> Result<&'a [u8], String> {
        let length = self.bytes.get(self.at..self.at + 2).ok_or(CUT)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = self.bytes.get(self.at + 2..self.at + length.max(2)).ok_or(CUT)?;
        self.at += length.max(2);
        Ok(segment)
    }
}

/// Reads up to the first scan.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let mut decoder = Decoder::default();
    decoder.segments(&mut Reader { bytes, at: 0 })?;
    let frame = decoder.frame.unwrap_or_default();
    Ok(Header { width: frame.width, height: frame.height, exif: decoder.exif })
}

/// Decodes everything. The caller has looked at the size.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let (mut decoder, mut reader) = (Decoder::default(), Reader { bytes, at: 0 });
    decoder.segments(&mut reader)?;
    if let Some(frame) = &mut decoder.frame {
        for component in &mut frame.components {
            component.coefficients = vec![[0; 64]; component.blocks[0] * component.blocks[1]];
        }
    }
    loop {
        decoder.scan(&mut reader)?;
        if !decoder.segments(&mut reader)? {
            break;
        }
    }
    let meaning = decoder.meaning();
    let frame = decoder.frame.unwrap_or_default();
    Ok(samples::pixels(frame, meaning))
}

impl Decoder {
    /// Reads segments up to the header of a scan, where the reader stays behind its marker. Whether there is one.
    fn segments(&mut self, reader: &mut Reader<'_>) -> Result<bool, String> {
        loop {
            let Some(code) = reader.marker() else {
                // A sequential file without its end marker has all that it needs.
                let whole = |f: &Frame| !f.progressive && f.components.iter().all(|c| c.factors.is_some());
                return if self.frame.as_ref().is_some_and(whole) { Ok(false) } else { Err(CUT.into()) };
            };
            match code {
                0xD8 | 0xD0..=0xD7 | 0x01 => {}
                0xD9 => {
                    let whole = |f: &Frame| f.components.iter().all(|c| c.factors.is_some());
                    return if self.frame.as_ref().is_some_and(whole) { Ok(false) } else { Err(CUT.into()) };
                }
                0xDA if self.frame.is_none() => return damaged("a scan comes before the size"),
                0xDA => return Ok(true),
                _ => self.segment(code, reader.segment()?)?,
            }
        }
    }

    fn segment(&mut self, code: u8, bytes: &[u8]) -> Result<(), String> {
        match code {
            0xC4 => return self.huffman(bytes),
            0xDB => return self.quantization(bytes),
            0xDD => self.restart = bytes.first_chunk().map_or(0, |n| u16::from_be_bytes(*n).into()),
            0xE0 => self.jfif |= bytes.starts_with(b"JFIF\0"),
            0xE1 if self.exif.is_none() => self.exif = bytes.strip_prefix(b"Exif\0\0").map(<[u8]>::to_vec),
            0xEE if bytes.starts_with(b"Adobe") => self.adobe = bytes.get(11).copied().or(self.adobe),
            0xC0..=0xC2 if self.frame.is_some() => return damaged("it has two sizes"),
            0xC0..=0xC2 => self.frame = Some(Frame::parse(bytes, code == 0xC2)?),
            // The other ways to compress.
            0xC3 | 0xC5..=0xCF => return Err("lossless, hierarchical and arithmetic JPEG files are not read".into()),
            _ => {}
        }
        Ok(())
    }

    fn quantization(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some((head, rest)) = bytes.split_first() {
            let wide = usize::from(head >> 4 != 0) + 1;
            let (Some(values), Some(table)) =
                (rest.get(..64 * wide), self.quantization.get_mut(usize::from(head & 15)))
            else {
                return damaged("a quantization table");
            };
            let mut factors = [0; 64];
            for (value, at) in values.chunks_exact(wide).zip(ZIGZAG) {
                factors[at] = value.iter().fold(0, |v, b| v << 8 | u16::from(*b));
            }
            *table = Some(factors);
            bytes = rest.get(64 * wide..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn huffman(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some((head, rest)) = bytes.split_first() {
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let Some((slot, (table, length))) = tables.get_mut(usize::from(head & 15)).zip(Huffman::parse(rest)) else {
                return damaged("a Huffman table");
            };
            *slot = Some(table);
            bytes = rest.get(length..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Reads one scan, from its header on.
    fn scan(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err(format!("the JPEG file has more than {MAX_SCANS} scans"));
        }
        let Some(frame) = &mut self.frame else { return damaged("a scan without a size") };
        let header = reader.segment()?;
        let scan = Scan::parse(header, frame, (&self.dc, &self.ac), self.restart)?;
        for index in scan.components() {
            let component = &mut frame.components[index];
            self.visits = self.visits.saturating_add(component.coefficients.len() * scan.width());
            if component.factors.is_none() {
                component.factors = self.quantization.get(usize::from(component.table)).copied().flatten();
                if component.factors.is_none() {
                    return damaged("a quantization table is missing");
                }
            }
        }
        let coefficients: usize = frame.components.iter().map(|c| 64 * c.coefficients.len()).sum();
        if self.visits > MAX_VISITS * coefficients {
            return Err(format!("the scans of the JPEG file visit its picture more than {MAX_VISITS} times"));
        }
        reader.at = scan.run(reader.bytes, reader.at, frame)?;
        Ok(())
    }

    /// As libjpeg guesses it.
    fn meaning(&self) -> Meaning {
        let ids: Vec<u8> = self.frame.iter().flat_map(|f| f.components.iter().map(|c| c.id)).collect();
        match (ids.as_slice(), self.jfif, self.adobe) {
            ([_], ..) => Meaning::Grey,
            ([_, _, _], false, Some(0)) | (b"RGB", false, None) => Meaning::Rgb,
            ([_, _, _], ..) => Meaning::YCbCr,
            (_, _, None | Some(0)) => Meaning::Cmyk,
            _ => Meaning::Ycck,
        }
    }
}

impl Frame {
    fn parse(bytes: &[u8], progressive: bool) -> Result<Self, String> {
        let [bits, h1, h0, w1, w0, count, rest @ ..] = bytes else { return damaged("its size") };
        if *bits != 8 {
            return Err(format!("JPEG files of {bits} bits are not read, 8 are expected"));
        }
        let [height, width] = [[*h1, *h0], [*w1, *w0]].map(|n| usize::from(u16::from_be_bytes(n)));
        let parts = rest.as_chunks::<3>().0;
        if !matches!(count, 1 | 3 | 4) || parts.len() < usize::from(*count) || width == 0 || height == 0 {
            return damaged("its size or its components");
        }
        let parts = &parts[..usize::from(*count)];
        let sampling = |byte: u8| [usize::from(byte >> 4), usize::from(byte & 15)];
        let most = [0, 1].map(|axis| parts.iter().map(|p| sampling(p[1])[axis]).max().unwrap_or(1));
        let component = |[id, factors, table]: &[u8; 3]| {
            let sampling = sampling(*factors);
            let fits = |axis: usize| (1..=4).contains(&sampling[axis]) && most[axis].is_multiple_of(sampling[axis]);
            if !(fits(0) && fits(1)) {
                return damaged("the resolution of a component");
            }
            let size = [0, 1].map(|axis| ([width, height][axis] * sampling[axis]).div_ceil(most[axis]));
            let blocks = [0, 1].map(|axis| [width, height][axis].div_ceil(8 * most[axis]) * sampling[axis]);
            let (id, table, factors, coefficients) = (*id, *table, None, Vec::new());
            Ok(Component { id, sampling, table, factors, size, blocks, coefficients })
        };
        let components = parts.iter().map(component).collect::<Result<_, _>>()?;
        Ok(Self { width, height, progressive, components, most })
    }
}
