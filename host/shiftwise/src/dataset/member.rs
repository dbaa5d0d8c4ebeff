//! A member of a zip archive, read at any place without being unpacked as a whole.
//!
//! What is stored as it is can be read anywhere. What is deflated can only be read forwards, so a few readers are kept where
//! they stand: samples are read in order, by each thread from a place of its own.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use flate2::CrcReader;
use flate2::read::DeflateDecoder;
use zip::{CompressionMethod, ZipArchive};

use shiftwise_graph::error::Error;

/// Archives may unpack to this much, however small they are.
const FLOOR: u64 = 64 << 20;

/// And to this many times their size: quantized pictures and much repeated data stay below, empty data doesn't.
const MAX_RATIO: u64 = 64;

/// Readers that are kept.
const READERS: usize = 16;

/// Members of an archive; more are no set of arrays.
const MOST_MEMBERS: usize = 10_000;

/// Where a member lies in its archive.
#[derive(Debug)]
pub(super) struct Member {
    path: PathBuf,
    start: u64,
    packed: u64,
    size: u64,
    crc: u32,
    deflated: bool,
    readers: Mutex<Vec<Reader>>,
}

/// A reader and the place where it stands.
#[derive(Debug)]
struct Reader {
    at: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Stored(File),
    Deflated(Box<CrcReader<DeflateDecoder<Take<File>>>>),
}

impl Member {
    /// The member that `choose` says, of those that there are, without `.npy`; and its name.
    pub(super) fn open(
        path: &Path,
        file: File,
        choose: &dyn Fn(&[String]) -> Result<String, String>,
    ) -> Result<(Self, String), Error> {
        let fail = |message: String| Error::Dataset(format!("{}: {message}", path.display()));
        let archive_size = file.metadata().map_err(Error::io(path))?.len();
        let mut archive = ZipArchive::new(file).map_err(|e| fail(format!("the .npz is damaged: {e}")))?;
        if archive.len() > MOST_MEMBERS {
            return Err(fail(format!("it has {} members, at most {MOST_MEMBERS} are read", archive.len())));
        }
        let name = |n: &str| n.strip_suffix(".npy").unwrap_or(n).to_owned();
        let keys = archive.file_names().map(|n| n.map(|n| name(&n))).collect::<Result<Vec<String>, _>>();
        let keys = keys.map_err(|e| fail(format!("the .npz is damaged: {e}")))?;
        let key = choose(&keys).map_err(fail)?;
        let index = archive.index_for_name(&key).or_else(|| archive.index_for_name(&format!("{key}.npy")));
        let own = |message: String| fail(format!("array `{key}`: {message}"));
        let index = index.ok_or_else(|| own("it is not there".into()))?;
        let entry = archive.by_index(index).map_err(|e| own(e.to_string()))?;
        let deflated = match entry.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            other => return Err(own(format!("it is compressed by {other}, stored or deflated is expected"))),
        };
        let start = entry.data_start().ok_or_else(|| own("it has no beginning".into()))?;
        let (packed, size, crc) = (entry.compressed_size(), entry.size(), entry.crc32());
        if entry.encrypted() || start.checked_add(packed).is_none_or(|end| end > archive_size) {
            return Err(own("it is encrypted or cut short".into()));
        }
        let most = if deflated { FLOOR.saturating_add(archive_size.saturating_mul(MAX_RATIO)) } else { packed };
        if size > most {
            return Err(own(format!(
                "it unpacks to {size} bytes, at most {most} are supported in a file of {archive_size}; save it as .npy"
            )));
        }
        drop(entry);
        let path = path.to_owned();
        let member = Self { path, start, packed, size, crc, deflated, readers: Mutex::default() };
        match member.is_whole() {
            Ok(true) => Ok((member, key)),
            Ok(false) => Err(own("its checksum is wrong: the archive is damaged".into())),
            Err(e) => Err(own(e.to_string())),
        }
    }

    /// Whether the checksum of what is stored as it is fits; of what is deflated it is known at the end only.
    fn is_whole(&self) -> std::io::Result<bool> {
        if self.deflated {
            return Ok(true);
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.start))?;
        let mut sum = CrcReader::new(file.take(self.packed));
        std::io::copy(&mut sum, &mut std::io::sink())?;
        Ok(self.packed == self.size && sum.crc().sum() == self.crc)
    }

    /// Bytes when unpacked, as the archive claims.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The first bytes, at most `most`.
    pub(super) fn start(&self, most: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; most.min(usize::try_from(self.size).unwrap_or(most))];
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }

    fn reader(&self) -> std::io::Result<Reader> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.start))?;
        let source = match self.deflated {
            false => Source::Stored(file),
            true => Source::Deflated(Box::new(CrcReader::new(DeflateDecoder::new(file.take(self.packed))))),
        };
        Ok(Reader { at: 0, source })
    }

    /// The reader that has the shortest way to a place, or a new one.
    fn nearest(&self, from: u64) -> std::io::Result<Reader> {
        let mut readers = self.readers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = |r: &Reader| !self.deflated || r.at <= from;
        let best = (0..readers.len()).filter(|i| before(&readers[*i])).max_by_key(|i| readers[*i].at);
        match best {
            Some(i) => Ok(readers.swap_remove(i)),
            None => self.reader(),
        }
    }

    /// Bytes from a place on, all of them.
    pub(super) fn read(&self, from: u64, to: &mut [u8]) -> std::io::Result<()> {
        if from.checked_add(to.len() as u64).is_none_or(|end| end > self.size) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut reader = self.nearest(from)?;
        match &mut reader.source {
            Source::Stored(file) => {
                file.seek(SeekFrom::Start(self.start + from))?;
                file.read_exact(to)?;
            }
            Source::Deflated(unpacked) => {
                let skip = from - reader.at;
                let skipped = std::io::copy(&mut unpacked.by_ref().take(skip), &mut std::io::sink())?;
                if skipped < skip {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                unpacked.read_exact(to)?;
                // A reader never goes back, so at the end it has seen everything.
                if from + to.len() as u64 == self.size && unpacked.crc().sum() != self.crc {
                    return Err(IoError::new(ErrorKind::InvalidData, "its checksum is wrong: the archive is damaged"));
                }
            }
        }
        reader.at = from + to.len() as u64;
        let mut readers = self.readers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The one that is furthest behind goes.
        if readers.len() >= READERS
            && let Some(i) = (0..readers.len()).min_by_key(|i| readers[*i].at)
        {
            readers.swap_remove(i);
        }
        readers.push(reader);
        Ok(())
    }
}
