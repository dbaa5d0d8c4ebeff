//! The command line as a user runs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The `shiftwise` program: `SHIFTWISE_BIN`, or built here in the profile of the running test.
///
/// Cargo tells the path of a program only to tests of the program's own package, and builds it only for those.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("SHIFTWISE_BIN").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // …/PROFILE/deps/it-HASH; the profiles `dev` and `test` share the folder `debug`.
    let own = std::env::current_exe().expect("a test knows where it is");
    let folder = own.ancestors().nth(2).and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
    let profile = folder.filter(|f| f != "debug").unwrap_or_else(|| "test".into());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        // Of the whole workspace, so that its crates have the features that they were built with for the tests.
        .args(["build", "--workspace", "--bin", "shiftwise", "--profile", &profile])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).expect("JSON lines");
    let executable = |line: &str| serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from);
    messages.lines().find_map(executable).expect("cargo names the program that it built")
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// The JSON document on standard output; nothing else may be there.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: not one JSON document: {self:?}"))
    }
}

/// A folder that goes away with its owner, holding copies of the repository's models and data.
#[derive(Debug)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
}

impl Folder {
    /// A new one; `name` must be unique among the tests of one process.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shiftwise-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        for file in ["digits_resnet.h5", "digits_lenet.h5", "digits.npz"] {
            std::fs::copy(data().join(file), path.join(file)).expect("the repository's data");
        }
        Self { path }
    }

    /// Runs `shiftwise` here; arguments are separated by spaces.
    pub fn run(&self, arguments: &str) -> Ran {
        self.run_words(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `shiftwise` here.
    pub fn run_words(&self, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Ran {
        self.run_in(arguments, &[])
    }

    /// [`Folder::run_words`] with variables of the environment.
    pub fn run_in(&self, arguments: &[impl AsRef<std::ffi::OsStr>], variables: &[(&str, &str)]) -> Ran {
        let output = Command::new(binary())
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(&self.path)
            .env("NO_COLOR", "1")
            .output()
            .expect("the program starts");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Writes a file here.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, bytes).expect("a file");
    }

    /// Reads a file here.
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Every file below, with its bytes.
    pub fn tree(&self) -> BTreeMap<String, Vec<u8>> {
        let (mut tree, mut folders) = (BTreeMap::new(), vec![self.path.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(&self.path).expect("it is below").to_string_lossy().into_owned();
                    tree.insert(name, std::fs::read(&path).expect("a file"));
                }
            }
        }
        tree
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The folder of the repository's models and data.
pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}
