//! Sets of files in a folder, with a manifest.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::write::{Disk, Folder, Staged, System};
use shiftwise_graph::error::Error;

/// Keys of a manifest, beside others that a kind of set may have.
const STATE: &str = "state";
const FILES: &str = "files";
const COMPLETE: &str = "complete";
const INCOMPLETE: &str = "incomplete";

/// The largest manifest that is read: that of half a million files.
const MOST_BYTES: u64 = 100 << 20;

/// SHA-256 as text.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// One file of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name below the manifest's folder, with `/` between folder and file.
    pub path: String,
    /// SHA-256 of its contents; empty in a manifest that is incomplete.
    pub sha256: String,
    /// What else the manifest says of it.
    pub more: Map<String, Value>,
}

/// What a set's manifest says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Whether the set was written to its end.
    pub complete: bool,
    /// Its files.
    pub files: Vec<Entry>,
}

impl Manifest {
    /// Reads the manifest of a folder; `None` without one.
    ///
    /// Errors: one that can't be read or is none of ours.
    pub fn read(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let path = dir.join(name);
        let bytes = match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(meta) if meta.len() > MOST_BYTES || !meta.is_file() => {
                return Err(Error::format(&path, format!("is no manifest: a file of at most {MOST_BYTES} bytes is")));
            }
            _ => std::fs::read(&path).map_err(Error::io(&path))?,
        };
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|e| Error::format(&path, format!("is a manifest that is not whole JSON: {e}")))?;
        let complete = match value.get(STATE).and_then(Value::as_str) {
            Some(COMPLETE) => true,
            Some(INCOMPLETE) => false,
            _ => return Err(Error::format(&path, "is no manifest: its `state` is neither complete nor incomplete")),
        };
        let files = value.get(FILES).and_then(Value::as_array).map_or(&[][..], Vec::as_slice).iter().map(entry);
        let files = files.collect::<Option<Vec<_>>>();
        let files = files.ok_or_else(|| Error::format(&path, "is a manifest with a file that has no plain name"))?;
        Ok(Some(Self { complete, files }))
    }

    /// The contents of a file, which must be those that were written.
    pub fn contents(&self, dir: &Path, name: &str, entry: &Entry) -> Result<Vec<u8>, Error> {
        let path = dir.join(&entry.path);
        let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
        if sha256(&bytes) == entry.sha256 {
            return Ok(bytes);
        }
        Err(Error::format(&path, format!("has other bytes than {name} says: the files are not those of one run")))
    }

    /// Fails if the set was not written to its end.
    pub fn check(&self, dir: &Path, name: &str) -> Result<(), Error> {
        if self.complete {
            return Ok(());
        }
        Err(Error::format(dir, format!("is incomplete: {name} says that the run which writes it has not ended")))
    }
}

/// A file's entry; `None` unless its name stays below the folder, in it or in one below.
fn entry(value: &Value) -> Option<Entry> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let path = text("path")?;
    let plain = Path::new(&path).components().all(|c| matches!(c, Component::Normal(_)));
    if !plain || path.is_empty() || path.contains('\0') || Path::new(&path).components().count() > 2 {
        return None;
    }
    let more = value.as_object()?.iter().filter(|(k, _)| !["path", "bytes", "sha256"].contains(&k.as_str()));
    Some(Entry {
        sha256: text("sha256").unwrap_or_default(),
        more: more.map(|(k, v)| (k.clone(), v.clone())).collect(),
        path,
    })
}

/// A new file of a set.
struct Part<'d> {
    entry: Value,
    path: String,
    staged: Staged<'d>,
}

/// Files of one run in one folder, which become visible together.
pub struct Set<'d> {
    disk: &'d dyn Disk,
    dir: PathBuf,
    /// The manifest's name.
    name: &'static str,
    folders: Vec<(PathBuf, Folder)>,
    /// Folders that were made for it and go again if nothing is written there.
    made: Vec<PathBuf>,
    parts: Vec<Part<'d>>,
}

impl std::fmt::Debug for Set<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").field("dir", &self.dir).field("parts", &self.parts.len()).finish_non_exhaustive()
    }
}

impl Set<'static> {
    /// A set in `dir`, which is made if need be, with a manifest of this name.
    ///
    /// Errors: another process is writing a set there.
    pub fn new(dir: &Path, name: &'static str) -> Result<Self, Error> {
        Self::on(&System, dir, name)
    }
}

impl<'d> Set<'d> {
    pub(super) fn on(disk: &'d dyn Disk, dir: &Path, name: &'static str) -> Result<Self, Error> {
        let (folders, made, parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut set = Self { disk, dir: dir.to_owned(), name, folders, made, parts };
        set.folder(dir)?;
        Ok(set)
    }

    /// Makes a folder and takes it.
    fn folder(&mut self, path: &Path) -> Result<(), Error> {
        if self.folders.iter().any(|(p, _)| p == path) {
            return Ok(());
        }
        let missing: Vec<&Path> =
            path.ancestors().take_while(|p| !p.as_os_str().is_empty() && std::fs::metadata(p).is_err()).collect();
        for dir in missing.into_iter().rev() {
            match self.disk.create_dir(dir) {
                Ok(()) => self.made.push(dir.to_owned()),
                // Another process was faster.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
                Err(e) => return Err(Error::io(dir)(e)),
            }
        }
        let folder = Folder::alone(self.disk, path);
        if folder.busy {
            return Err(Error::format(
                path,
                "is being written to by another command; wait for it or choose another folder",
            ));
        }
        self.folders.push((path.to_owned(), folder));
        Ok(())
    }

    /// Adds a file under a name below the folder. Nothing is visible before [`Set::commit`].
    pub fn add(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.add_all(vec![(path.to_owned(), Map::new())], |_| bytes.to_vec())
    }

    /// Adds files with what the manifest says of each beside its digest; `bytes` gives the contents by number, in
    /// parallel.
    pub fn add_all(
        &mut self,
        files: Vec<(String, Map<String, Value>)>,
        bytes: impl Fn(usize) -> Vec<u8> + Sync,
    ) -> Result<(), Error> {
        let mut names: BTreeSet<&str> = self.parts.iter().map(|p| p.path.as_str()).collect();
        if let Some((twice, _)) = files.iter().find(|(path, _)| !names.insert(path)) {
            return Err(Error::model(format!("two results have the file name `{twice}`; rename a layer")));
        }
        let folders: BTreeSet<PathBuf> =
            files.iter().filter_map(|(path, _)| Some(self.dir.join(Path::new(path).parent()?))).collect();
        for folder in &folders {
            self.folder(folder)?;
        }
        let (disk, dir) = (self.disk, &self.dir);
        let part = |(number, (path, more)): (usize, (String, Map<String, Value>))| {
            let bytes = bytes(number);
            let staged = Staged::new(disk, &dir.join(&path), &bytes)?;
            let mut entry = json!({ "path": path, "bytes": bytes.len(), "sha256": sha256(&bytes) });
            if let Some(entry) = entry.as_object_mut() {
                entry.extend(more);
            }
            Ok(Part { entry, path, staged })
        };
        let parts: Vec<Part<'d>> = files.into_par_iter().enumerate().map(part).collect::<Result<_, Error>>()?;
        self.parts.extend(parts);
        Ok(())
    }

    /// Makes all files visible and removes those that only the set before had. `about` goes into the manifest, before
    /// the list of files.
    pub fn commit(mut self, about: Map<String, Value>) -> Result<(), Error> {
        // A manifest that can't be read says nothing about what is old.
        let old = Manifest::read(&self.dir, self.name).ok().flatten().unwrap_or_default();
        let parts = std::mem::take(&mut self.parts);
        let new: BTreeSet<&str> = parts.iter().map(|p| p.path.as_str()).collect();
        let stale: Vec<String> = old.files.into_iter().map(|e| e.path).filter(|p| !new.contains(p.as_str())).collect();
        let touched = new.iter().copied().chain(stale.iter().map(String::as_str));
        let touched: Vec<Value> = touched.map(|path| json!({ "path": path })).collect();
        let files: Vec<Value> = parts.iter().map(|p| p.entry.clone()).collect();
        let begin = self.manifest(&about, INCOMPLETE, touched)?;
        let end = self.manifest(&about, COMPLETE, files)?;

        begin.publish()?;
        parts.into_iter().try_for_each(|part| part.staged.publish())?;
        for path in stale.iter().map(|path| self.dir.join(path)) {
            // Only what a set may consist of is removed, and never by way of a link.
            let regular = |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|m| m.is_file());
            if regular(&path) && path.parent().is_some_and(|p| p == self.dir || !p.is_symlink()) {
                self.disk.remove(&path).map_err(Error::io(&path))?;
            }
        }
        end.publish()?;
        self.made.clear();
        Ok(())
    }

    /// A manifest that is not visible yet.
    fn manifest(&self, about: &Map<String, Value>, state: &str, files: Vec<Value>) -> Result<Staged<'d>, Error> {
        let mut manifest = Map::new();
        manifest.insert("tool".into(), json!("shiftwise"));
        manifest.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        manifest.extend(about.clone());
        manifest.insert(STATE.into(), json!(state));
        manifest.insert(FILES.into(), Value::Array(files));
        let text = format!("{:#}\n", Value::Object(manifest));
        Staged::new(self.disk, &self.dir.join(self.name), text.as_bytes())
    }
}

impl Drop for Set<'_> {
    fn drop(&mut self) {
        // Temporary files go before the folders that they are in.
        self.parts.clear();
        self.made.iter().rev().for_each(|dir| drop(self.disk.remove_dir(dir)));
    }
}
