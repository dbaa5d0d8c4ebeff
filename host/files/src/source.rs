//! The files that a model is read from: the only door for readers, whether they stand on a disk, in an archive or in memory.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use zip::ZipArchive;

use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

/// How zip archives begin.
const ZIP: &[u8] = b"PK\x03\x04";

/// One file, which may be a zip archive of files, or a folder of files.
///
/// Files of an archive or a folder are named by their path below it, with `/` on every system.
#[derive(Clone, Debug)]
pub struct Files {
    path: PathBuf,
    content: Content,
    /// Paths of the files of an archive, once somebody has asked.
    members: OnceLock<Vec<String>>,
}

#[derive(Clone, Debug)]
enum Content {
    /// The bytes of a file.
    File(Vec<u8>),
    /// A folder on the disk.
    Folder,
    /// A folder that is in memory: bytes by path.
    Memory(BTreeMap<String, Vec<u8>>),
}

impl Files {
    /// A file, which is read whole, or a folder, of which nothing is read yet.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let content = match path.is_dir() {
            true => Content::Folder,
            false => Content::File(std::fs::read(path).map_err(Error::io(path))?),
        };
        Ok(Self::new(path, content))
    }

    /// A file that is in memory already; `path` only appears in messages.
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        Self::new(path, Content::File(bytes))
    }

    /// A folder that is in memory already: bytes by path below it; `path` only appears in messages.
    pub fn of_folder(path: &Path, files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::new(path, Content::Memory(files))
    }

    fn new(path: &Path, content: Content) -> Self {
        Self { path: path.to_owned(), content, members: OnceLock::new() }
    }

    /// What it is called in messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes, unless it is a folder.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::File(bytes) => Some(bytes),
            Content::Folder | Content::Memory(_) => None,
        }
    }

    /// [`Files::bytes`], given away.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.content {
            Content::File(bytes) => Some(bytes),
            Content::Folder | Content::Memory(_) => None,
        }
    }

    /// Whether it is a zip archive, by how it begins.
    pub fn is_zip(&self) -> bool {
        self.bytes().is_some_and(|bytes| bytes.starts_with(ZIP))
    }

    /// What everything that is read from here may take: by the file's size, or by that of all files of a folder.
    pub fn budget(&self) -> Budget {
        Budget::for_file(match &self.content {
            Content::File(bytes) => bytes.len(),
            Content::Memory(files) => files.values().map(Vec::len).fold(0, usize::saturating_add),
            Content::Folder => folder_size(&self.path, 0),
        })
    }

    /// The archive, if it is one.
    fn archive(&self) -> Option<Result<ZipArchive<Cursor<&[u8]>>, Error>> {
        let bytes = self.bytes().filter(|bytes| bytes.starts_with(ZIP))?;
        let damaged = |e| Error::format(&self.path, format!("the archive is damaged: {e}"));
        Some(ZipArchive::new(Cursor::new(bytes)).map_err(damaged))
    }

    /// Whether there is a file of this path below.
    pub fn has(&self, name: &str) -> bool {
        match &self.content {
            Content::File(_) => self.any(|own| own == name),
            Content::Memory(files) => files.contains_key(name),
            Content::Folder => below(&self.path, name).is_some_and(|path| path.is_file()),
        }
    }

    /// Whether an archive that can be read has a file whose path is as asked for.
    pub fn any(&self, wanted: impl Fn(&str) -> bool) -> bool {
        let members = self.members.get_or_init(|| match self.archive() {
            Some(Ok(archive)) => archive.file_names().flatten().map(|name| name.into_owned()).collect(),
            Some(Err(_)) | None => Vec::new(),
        });
        members.iter().any(|name| wanted(name))
    }

    /// The bytes of a file below, charged to the budget. `limit`: the largest size that it may have.
    ///
    /// Errors: no such file, one that is larger than the limit or the budget, a damaged one, and a path that leads out
    /// of the folder.
    pub fn read(&self, name: &str, limit: u64, budget: &Budget) -> Result<Vec<u8>, Error> {
        match &self.content {
            Content::Memory(files) => {
                let bytes = files.get(name).ok_or_else(|| self.fail(format!("has no file {name}")))?;
                let size = self.sized(name, bytes.len() as u64, limit)?;
                let mut own = budget.vec(size).map_err(|e| self.fail(format!("{name} is too large: {e}")))?;
                own.extend_from_slice(bytes);
                Ok(own)
            }
            Content::Folder => {
                let path = below(&self.path, name).ok_or_else(|| self.fail(format!("{name} leads out of it")))?;
                let file = std::fs::File::open(&path).map_err(Error::io(&path))?;
                let size = file.metadata().map_err(Error::io(&path))?.len();
                let size = self.sized(name, size, limit)?;
                let mut own = budget.vec(size).map_err(|e| Error::format(&path, format!("is too large: {e}")))?;
                file.take(size as u64).read_to_end(&mut own).map_err(Error::io(&path))?;
                Ok(own)
            }
            Content::File(_) => {
                let archive = self.archive().unwrap_or_else(|| Err(self.fail(format!("has no file {name}"))));
                self.member(&mut archive?, name, limit, budget)
            }
        }
    }

    fn member(
        &self,
        archive: &mut ZipArchive<Cursor<&[u8]>>,
        name: &str,
        limit: u64,
        budget: &Budget,
    ) -> Result<Vec<u8>, Error> {
        let fail = |message: String| self.fail(format!("{name} in the archive {message}"));
        let file = archive.by_name(name).map_err(|e| match e {
            zip::result::ZipError::FileNotFound => {
                self.fail(format!("is a zip archive without {name}, so not a Keras model"))
            }
            e => fail(format!("can't be read: {e}")),
        })?;
        // The size in the header is only a claim: reading stops behind it, and the checksum tells.
        let size = self.sized(&format!("{name} in the archive"), file.size(), limit)?;
        let mut bytes = budget.vec(size).map_err(|e| fail(format!("is too large: {e}")))?;
        file.take(size as u64 + 1).read_to_end(&mut bytes).map_err(|e| fail(format!("is damaged: {e}")))?;
        if bytes.len() != size {
            return Err(fail(format!("has another size than the {size} bytes that it claims")));
        }
        Ok(bytes)
    }

    /// A file's size, if it is within a limit.
    fn sized(&self, name: &str, size: u64, limit: u64) -> Result<usize, Error> {
        let fits = usize::try_from(size).ok().filter(|size| *size as u64 <= limit);
        fits.ok_or_else(|| {
            self.fail(format!("{name} has more than {limit} bytes, which is more than a model of this size can have"))
        })
    }

    fn fail(&self, message: String) -> Error {
        Error::format(&self.path, message)
    }
}

/// The path of a file below a folder; `None` for one that leads out of it.
fn below(folder: &Path, name: &str) -> Option<PathBuf> {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    (inside && !name.is_empty()).then(|| folder.join(name))
}

/// Bytes of all files below a folder, as far as they can be seen; links are not followed, and folders not without end.
fn folder_size(folder: &Path, depth: usize) -> usize {
    const DEEPEST: usize = 8;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() && depth < DEEPEST => folder_size(&entry.path(), depth + 1),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |m| usize::try_from(m.len()).unwrap_or(usize::MAX)),
        Ok(_) | Err(_) => 0,
    };
    entries.map(size).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The same two files as a folder on the disk, a folder in memory and an archive.
    fn three_ways(dir: &Path) -> [Files; 3] {
        let files = [("a.bin", &b"first"[..]), ("below/b.bin", b"second")];
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
            archive.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            archive.write_all(bytes).unwrap();
        }
        let memory = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let packed = archive.finish().unwrap().into_inner();
        [Files::open(dir).unwrap(), Files::of_folder(Path::new("m"), memory), Files::of_bytes(Path::new("m"), packed)]
    }

    #[test]
    fn a_file_is_the_same_from_disk_memory_and_archive() {
        let dir = tempfile::tempdir().unwrap();
        for files in three_ways(dir.path()) {
            let budget = files.budget();
            assert!(files.has("a.bin") && files.has("below/b.bin") && !files.has("below"), "{:?}", files.path());
            assert_eq!(files.read("a.bin", 5, &budget).unwrap(), b"first");
            assert_eq!(files.read("below/b.bin", 100, &budget).unwrap(), b"second");
            let large = files.read("below/b.bin", 5, &budget).unwrap_err().to_string();
            assert!(large.contains("has more than 5 bytes"), "{large}");
            assert!(files.read("c.bin", 100, &budget).is_err());
            let left = budget.left();
            files.read("a.bin", 5, &budget).unwrap();
            assert!(budget.left() <= left.saturating_sub(5), "what is read is charged");
        }
    }

    #[test]
    fn no_path_leads_out_of_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("secret"), "s").unwrap();
        std::fs::create_dir(dir.path().join("model")).unwrap();
        let files = Files::open(&dir.path().join("model")).unwrap();
        let absolute = dir.path().join("secret");
        for name in ["../secret", "", ".", "a/../../secret", absolute.to_str().unwrap()] {
            assert!(!files.has(name) && files.read(name, 10, &files.budget()).is_err(), "{name}");
        }
    }
}
