use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value};

use crate::write::*;

/// What happens at the call of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It fails, and everything after it works.
    Fail,
    /// The process is killed before it: nothing happens any more.
    Killed,
    /// The process is killed in it: half of what is written arrives.
    Half,
}

struct Faulty {
    calls: AtomicUsize,
    at: usize,
    end: End,
}

impl Faulty {
    fn new(at: usize, end: End) -> Self {
        Self { calls: AtomicUsize::new(0), at, end }
    }

    /// Nothing ever fails.
    fn whole() -> Self {
        Self::new(usize::MAX, End::Fail)
    }

    fn call(&self) -> io::Result<()> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let fails = if self.end == End::Fail { number == self.at } else { number >= self.at };
        if fails { Err(io::Error::other("injected")) } else { Ok(()) }
    }
}

impl Disk for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| System.create_dir(path))
    }
    fn create(&self, dir: &Path) -> io::Result<(File, PathBuf)> {
        self.call().and_then(|()| System.create(dir))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.call().and_then(|()| System.open(path))
    }
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let here = self.calls.load(Ordering::Relaxed) == self.at;
        if self.end == End::Half && here {
            System.write(file, &bytes[..bytes.len() / 2])?;
        }
        self.call().and_then(|()| System.write(file, bytes))
    }
    fn sync(&self, _: &File) -> io::Result<()> {
        // The disk itself is not waited for: no machine fails here.
        self.call()
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call().and_then(|()| System.rename(from, to))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| System.remove(path))
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.call().and_then(|()| System.remove_dir(path))
    }
}

const MANIFEST: &str = "manifest.json";

type Files<'a> = &'a [(&'a str, &'a [u8])];

const OLD: Files<'_> = &[("a/x.bin", b"old x"), ("a/stale.bin", b"old stale"), ("b.json", b"old b")];
const NEW: Files<'_> = &[("a/x.bin", b"new x!"), ("a/y.bin", b"new y"), ("b.json", b"new b")];

fn write_set(disk: &dyn Disk, dir: &Path, files: Files<'_>) -> Result<(), Error> {
    let mut set = Set::on(disk, dir, MANIFEST)?;
    for (path, bytes) in files {
        set.add(path, bytes)?;
    }
    set.commit(Map::new())
}

/// The set that a reader finds: `None` if it is refused.
fn found(dir: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    let manifest = Manifest::read(dir, MANIFEST).unwrap()?;
    manifest.check(dir, MANIFEST).ok()?;
    let contents = |e: &Entry| Some((e.path.clone(), manifest.contents(dir, MANIFEST, e).ok()?));
    manifest.files.iter().map(contents).collect()
}

fn of(files: Files<'_>) -> BTreeMap<String, Vec<u8>> {
    files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match entry.path().is_dir() {
            true => all.extend(names(&entry.path()).into_iter().map(|n| format!("{name}/{n}"))),
            false => all.push(name),
        }
    }
    all.sort();
    all
}

#[test]
fn whatever_ends_a_run_a_set_is_old_or_new_or_says_that_it_is_neither() {
    let mut seen = [0; 3];
    for end in [End::Fail, End::Killed, End::Half] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let set = dir.path().join("out/set");
            write_set(&Faulty::whole(), &set, OLD).unwrap();
            std::fs::write(set.join("a/foreign.bin"), "foreign").unwrap();
            let disk = Faulty::new(at, end);
            let done = write_set(&disk, &set, NEW);
            let reached = disk.calls.load(Ordering::Relaxed) > at;
            assert_eq!(done.is_err(), reached, "{end:?} at {at}: {done:?}");
            match found(&set) {
                Some(files) if files == of(OLD) => seen[0] += 1,
                Some(files) if files == of(NEW) => seen[1] += 1,
                Some(files) => panic!("{end:?} at {at}: a mixture passes: {:?}", files.keys()),
                None => seen[2] += 1,
            }
            let litter = names(&set).into_iter().any(|n| n.contains(PREFIX));
            assert!(!litter || end != End::Fail, "{end:?} at {at}: {:?}", names(&set));
            // The next run makes everything right again.
            write_set(&Faulty::whole(), &set, NEW).unwrap();
            assert_eq!(found(&set), Some(of(NEW)));
            assert_eq!(names(&set), ["a/foreign.bin", "a/x.bin", "a/y.bin", "b.json", MANIFEST], "{end:?} at {at}");
            if !reached {
                break;
            }
        }
    }
    assert!(seen.iter().all(|n| *n > 2), "old, new, neither: {seen:?}");
}

#[test]
fn a_first_set_that_fails_leaves_nothing_or_says_so() {
    for at in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("out/set");
        let disk = Faulty::new(at, End::Fail);
        if write_set(&disk, &set, NEW).is_ok() {
            break;
        }
        let nothing = names(dir.path()).is_empty() && !dir.path().join("out").exists();
        assert!(nothing || found(&set).is_none() && set.join(MANIFEST).exists(), "{at}: {:?}", names(dir.path()));
    }
}

#[test]
fn a_pair_of_files_is_never_mixed() {
    for end in [End::Fail, End::Killed, End::Half] {
        for at in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let (a, b) = (dir.path().join("a"), dir.path().join("b"));
            write_on(&Faulty::whole(), &[(&a, b"old"), (&b, b"old")]).unwrap();
            let disk = Faulty::new(at, end);
            let done = write_on(&disk, &[(&a, b"new"), (&b, b"new")]);
            let (first, second) = (std::fs::read(&a).unwrap(), std::fs::read(&b).ok());
            assert!(second.is_none() || second == Some(first), "{end:?} at {at}");
            if done.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn two_runs_do_not_write_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = Set::new(dir.path(), MANIFEST).unwrap();
    first.add("x", b"1").unwrap();
    #[cfg(unix)]
    assert!(Set::new(dir.path(), MANIFEST).unwrap_err().to_string().contains("another command"));
    // A single file beside it is nobody's business, and its temporary file is no leftover.
    write_file(&dir.path().join("other"), b"2").unwrap();
    first.commit(Map::new()).unwrap();
    assert_eq!(names(dir.path()), [MANIFEST, "other", "x"]);
    let manifest: Value = serde_json::from_slice(&std::fs::read(dir.path().join(MANIFEST)).unwrap()).unwrap();
    assert_eq!(manifest["files"][0]["bytes"], 1);
}

#[test]
fn a_manifest_names_files_below_its_folder_only() {
    let dir = tempfile::tempdir().unwrap();
    let outside = dir.path().join("mine");
    std::fs::write(&outside, "mine").unwrap();
    let set = dir.path().join("set");
    std::fs::create_dir(&set).unwrap();
    for path in ["../mine", outside.to_str().unwrap(), "", "a/b/c", "./x", "a\0b"] {
        let text = serde_json::json!({ "state": "incomplete", "files": [{ "path": path }] }).to_string();
        std::fs::write(set.join(MANIFEST), text).unwrap();
        assert!(path == "./x" || Manifest::read(&set, MANIFEST).is_err(), "{path}");
        write_set(&Faulty::whole(), &set, NEW).unwrap();
        assert!(outside.exists(), "{path}");
    }
    for text in ["", "{}", "[]", r#"{"state":"done"}"#, r#"{"state":"complete","files":[7]}"#] {
        std::fs::write(set.join(MANIFEST), text).unwrap();
        assert!(Manifest::read(&set, MANIFEST).is_err(), "{text}");
    }
}

#[test]
fn long_names_are_possible() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n".repeat(255));
    write_file(&path, b"x").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"x");
}

#[cfg(unix)]
#[test]
fn links_modes_and_devices_are_kept() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("v1"), "old").unwrap();
    std::fs::set_permissions(at("v1"), std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("v1", at("latest")).unwrap();
    symlink("v2", at("next")).unwrap();
    symlink("loop", at("loop")).unwrap();
    write_file(&at("latest"), b"new").unwrap();
    write_file(&at("next"), b"first").unwrap();
    assert_eq!(
        (std::fs::read(at("v1")).unwrap(), std::fs::read(at("v2")).unwrap()),
        (b"new".to_vec(), b"first".to_vec())
    );
    assert!(at("latest").is_symlink() && at("next").is_symlink());
    assert_eq!(std::fs::metadata(at("v1")).unwrap().mode() & 0o777, 0o600);
    // A new file has the mode that the user's mask leaves.
    std::fs::write(at("plain"), "").unwrap();
    let mode = |name: &str| std::fs::metadata(at(name)).unwrap().mode();
    assert_eq!(mode("v2"), mode("plain"));
    assert!(write_file(&at("loop"), b"x").is_err());
    assert!(write_file(dir.path(), b"x").is_err());

    // A pipe is written to, and stays one.
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || std::fs::read(pipe).unwrap()
    });
    write_file(&at("pipe"), b"through").unwrap();
    assert_eq!(reader.join().unwrap(), b"through");
    assert!(!std::fs::metadata(at("pipe")).unwrap().is_file());
    // So is a device; this one is full.
    let full = Path::new("/dev/full");
    if full.exists() {
        symlink(full, at("full")).unwrap();
        assert!(write_file(&at("full"), b"x").is_err());
        assert!(at("full").is_symlink() && full.exists());
    }
}
