//! Files out: the one layer that everything written goes through.
//!
//! A file is written under a temporary name and renamed, so that nobody sees half of it. Files that belong together are a
//! [`Set`]: its manifest says "incomplete" while it changes, and "complete" with every file's SHA-256 once it has. Whatever
//! ends a run in between, a set is the old one, the new one, or says that it is neither.
//!
//! What is no regular file is written to and not replaced; a link's target is replaced and not the link; a file that is
//! replaced leaves its mode, and its owner where that is allowed, to the new one.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shiftwise_graph::error::Error;

mod set;
#[cfg(test)]
mod tests;

pub use set::sha256;
pub use set::{Entry, Manifest, Set};

/// How the names of temporary files begin and end; between them are random letters.
const PREFIX: &str = ".shiftwise-";
const SUFFIX: &str = ".part";

/// The calls that change a file system. Tests let each of them fail.
trait Disk: Sync {
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// A file in `dir` of a name that nobody could foresee, and that did not exist.
    fn create(&self, dir: &Path) -> io::Result<(File, PathBuf)>;
    fn open(&self, path: &Path) -> io::Result<File>;
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    fn sync(&self, file: &File) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// The machine's own.
struct System;

impl Disk for System {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn create(&self, dir: &Path) -> io::Result<(File, PathBuf)> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(10);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(dir)?.keep().map_err(|e| e.error)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::options().write(true).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        file.flush()
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }
}

/// Writes one file.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write_files(&[(path, bytes)])
}

/// Writes one file as its contents come. A regular file appears when `fill` is done, and not at all where it fails; a
/// device or a pipe gets everything at once.
///
/// Errors: those of `fill`, and of the file.
pub fn write_streamed(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<(), Error> {
    let target = Target::of(path).map_err(Error::io(path))?;
    let mut stream = match target {
        Target::File { path: end, old } => {
            let _folder = Folder::shared(&System, parent(&end));
            let (file, own) = System.create(parent(&end)).map_err(Error::io(path))?;
            let mut temporary = Temporary { disk: &System, path: own, renamed: false };
            let file = filled(file, path, fill)?;
            if let Some(old) = &old {
                dress(&file, old).map_err(Error::io(path))?;
            }
            System.sync(&file).and_then(|()| System.rename(&temporary.path, &end)).map_err(Error::io(path))?;
            temporary.renamed = true;
            return Ok(());
        }
        Target::Stream(end) => System.open(&end).map_err(Error::io(path))?,
        Target::Standard(file) => file,
    };
    stream = filled(stream, path, fill)?;
    stream.flush().map_err(Error::io(path))
}

fn filled(file: File, path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<File, Error> {
    let mut buffered = io::BufWriter::new(file);
    fill(&mut buffered)?;
    buffered.into_inner().map_err(|e| Error::io(path)(e.into_error()))
}

/// What has no place in memory until it goes into a file: a temporary file in the same folder, which goes with it.
pub struct Spool {
    file: io::BufWriter<File>,
    path: PathBuf,
    _temporary: Temporary<'static>,
    /// So that nobody takes the file for a leftover.
    _folder: Folder,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Spool {
    /// An empty one beside `path`.
    pub fn beside(path: &Path) -> Result<Self, Error> {
        let folder = Folder::shared(&System, parent(path));
        let (file, own) = System.create(parent(path)).map_err(Error::io(path))?;
        let temporary = Temporary { disk: &System, path: own, renamed: false };
        Ok(Self { file: io::BufWriter::new(file), path: path.to_owned(), _temporary: temporary, _folder: folder })
    }

    /// Appends bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io(&self.path))
    }

    /// Copies everything to a writer.
    pub fn copy(mut self, to: &mut dyn Write) -> Result<(), Error> {
        use std::io::Seek as _;
        let done = self.file.flush().and_then(|()| {
            let file = self.file.get_mut();
            file.rewind()?;
            io::copy(file, to)
        });
        done.map(|_| ()).map_err(Error::io(&self.path))
    }
}

/// Writes files that belong together and are no folder's: all or none if nothing fails but a write. The last one's old
/// version goes before the others change, so that a run that was killed leaves it out, and never beside the wrong ones.
pub fn write_files(files: &[(&Path, &[u8])]) -> Result<(), Error> {
    write_on(&System, files)
}

fn write_on(disk: &dyn Disk, files: &[(&Path, &[u8])]) -> Result<(), Error> {
    let folder = |(path, _): &(&Path, &[u8])| match Target::of(path) {
        Ok(Target::File { path, .. }) => Some(Folder::shared(disk, parent(&path))),
        _ => None,
    };
    let folders: Vec<Folder> = files.iter().filter_map(folder).collect();
    let staged = files.iter().map(|(path, bytes)| Staged::new(disk, path, bytes)).collect::<Result<Vec<_>, _>>()?;
    if let [_, .., last] = staged.as_slice() {
        last.withdraw()?;
    }
    staged.into_iter().try_for_each(Staged::publish)?;
    drop(folders);
    Ok(())
}

/// The folder of a path that may be a bare name.
fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a path leads.
enum Target {
    /// A regular file, or nothing yet, at the end of all links.
    File { path: PathBuf, old: Option<Metadata> },
    /// A device, a pipe or a socket.
    Stream(PathBuf),
    /// The file that this process' standard output or error goes to.
    Standard(File),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        if path.file_name().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of a file"));
        }
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a folder")),
            Ok(meta) if !meta.is_file() => Ok(Self::Stream(path.to_owned())),
            Ok(meta) => match standard(&meta) {
                Some(stream) => Ok(Self::Standard(stream)),
                None => Ok(Self::File { path: path.canonicalize()?, old: Some(meta) }),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::File { path: end_of_links(path)?, old: None }),
            Err(e) => Err(e),
        }
    }
}

/// Where links that lead to nothing end.
fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        match std::fs::read_link(&path) {
            // An absolute target replaces the whole path.
            Ok(target) => path = parent(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("it is a link that leads to itself"))
}

/// Standard output or error, if that is this file: who names `/dev/stdout` wants it behind what was printed.
#[cfg(unix)]
fn standard(meta: &Metadata) -> Option<File> {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let streams = [io::stdout().as_fd().try_clone_to_owned(), io::stderr().as_fd().try_clone_to_owned()];
    let same = |file: &File| file.metadata().is_ok_and(|m| (m.dev(), m.ino()) == (meta.dev(), meta.ino()));
    streams.into_iter().filter_map(Result::ok).map(File::from).find(same)
}

#[cfg(not(unix))]
fn standard(_: &Metadata) -> Option<File> {
    None
}

/// A temporary file, which goes unless it is renamed.
struct Temporary<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    renamed: bool,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // The first error is the one to report; a leftover is not worth another.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// A file that is written and not visible yet.
struct Staged<'d> {
    disk: &'d dyn Disk,
    /// The user's name of it.
    path: PathBuf,
    target: Target,
    /// Contents of a regular file.
    temporary: Option<Temporary<'d>>,
    /// Contents of what is no regular file: nothing can be prepared there.
    bytes: Vec<u8>,
}

impl<'d> Staged<'d> {
    fn new(disk: &'d dyn Disk, path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut staged = Self {
            disk,
            path: path.to_owned(),
            target: Target::of(path).map_err(Error::io(path))?,
            temporary: None,
            bytes: Vec::new(),
        };
        match &staged.target {
            Target::File { path: end, old } => {
                staged.temporary = Some(temporary(disk, parent(end), old.as_ref(), bytes).map_err(Error::io(path))?);
            }
            Target::Stream(_) | Target::Standard(_) => bytes.clone_into(&mut staged.bytes),
        }
        Ok(staged)
    }

    /// Takes the old version away.
    fn withdraw(&self) -> Result<(), Error> {
        match &self.target {
            Target::File { path, old: Some(_) } => self.disk.remove(path).map_err(Error::io(&self.path)),
            _ => Ok(()),
        }
    }

    /// Makes the file visible.
    fn publish(mut self) -> Result<(), Error> {
        let done = match (&mut self.target, &mut self.temporary) {
            (Target::File { path, .. }, Some(temporary)) => {
                self.disk.rename(&temporary.path, path).map(|()| temporary.renamed = true)
            }
            (Target::Standard(file), _) => self.disk.write(file, &self.bytes),
            (Target::File { path, .. } | Target::Stream(path), _) => {
                self.disk.open(path).and_then(|mut file| self.disk.write(&mut file, &self.bytes))
            }
        };
        done.map_err(Error::io(&self.path))
    }
}

/// A file with these contents on the disk, under a temporary name.
fn temporary<'d>(disk: &'d dyn Disk, dir: &Path, old: Option<&Metadata>, bytes: &[u8]) -> io::Result<Temporary<'d>> {
    let (mut file, path) = disk.create(dir)?;
    let temporary = Temporary { disk, path, renamed: false };
    disk.write(&mut file, bytes)?;
    if let Some(old) = old {
        dress(&file, old)?;
    }
    disk.sync(&file)?;
    Ok(temporary)
}

/// Gives a file the owner and the mode of the one that it replaces.
fn dress(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let own = file.metadata()?;
        // Only the system's administrator may give files away; the mode is kept in any case.
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
            let _ = fchown(file, None, Some(old.gid()));
        }
        file.set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o777))
    }
    #[cfg(not(unix))]
    {
        let _ = (file, old);
        Ok(())
    }
}

/// How often a share of a folder is asked for, a millisecond longer apart each time.
#[cfg(unix)]
const TRIES: u64 = 10;

/// A folder in which files are being written: who has it to himself knows that its temporary files are leftovers.
struct Folder {
    /// Holds the lock as long as it is open; `None` where folders can't be locked, or somebody else has it.
    _lock: Option<File>,
    /// Whether another process is writing here.
    busy: bool,
}

impl Folder {
    /// The folder, together with others that write single files.
    fn shared(disk: &dyn Disk, path: &Path) -> Self {
        Self::lock(disk, path, false)
    }

    /// The folder alone.
    fn alone(disk: &dyn Disk, path: &Path) -> Self {
        Self::lock(disk, path, true)
    }

    #[cfg(unix)]
    fn lock(disk: &dyn Disk, path: &Path, alone: bool) -> Self {
        use rustix::fs::{FlockOperation, flock};
        let Ok(folder) = File::open(path) else { return Self { _lock: None, busy: false } };
        // Who removes leftovers has the folder alone for that moment; who writes a file then waits for his share, lest his
        // own temporary file be taken for one of them. Going from the one lock to the other may lose both.
        let share = || {
            (0..TRIES).any(|n| {
                std::thread::sleep(std::time::Duration::from_millis(n));
                flock(&folder, FlockOperation::NonBlockingLockShared).is_ok()
            })
        };
        let (held, busy) = match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                leftovers(path).iter().for_each(|file| drop(disk.remove(file)));
                (alone || share(), false)
            }
            Err(e) => (!alone && share(), e == rustix::io::Errno::WOULDBLOCK),
        };
        Self { _lock: held.then_some(folder), busy }
    }

    #[cfg(not(unix))]
    fn lock(_: &dyn Disk, _: &Path, _: bool) -> Self {
        Self { _lock: None, busy: false }
    }
}

/// Temporary files of runs that were killed.
#[cfg(unix)]
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let old = entries.filter(|e| e.file_name().to_str().is_some_and(ours) && e.file_type().is_ok_and(|t| t.is_file()));
    old.map(|e| e.path()).collect()
}
