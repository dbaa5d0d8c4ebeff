//! Reference data that is too large for the repository, and may be absent.

use std::path::{Path, PathBuf};

/// The folder of reference data: `SHIFTWISE_SHARED`, or `shared` beside the workspace. `None` if there is none; tests
/// that need it then pass without checking, and say so.
pub fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = std::env::var_os("SHIFTWISE_SHARED").map_or_else(beside, PathBuf::from);
    let found = folder.join("golden").is_dir().then_some(folder);
    if found.is_none() {
        eprintln!("no reference data: not checked");
    }
    found
}

/// Folders of the reference cases, sorted by name.
pub fn golden_cases() -> Vec<PathBuf> {
    let Some(shared) = shared() else { return Vec::new() };
    let entries = std::fs::read_dir(shared.join("golden")).into_iter().flatten().flatten();
    let mut cases: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.join("config.json").is_file()).collect();
    cases.sort();
    cases
}
