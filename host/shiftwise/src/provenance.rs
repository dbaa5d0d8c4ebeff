//! Where a result came from.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use shiftwise_graph::error::Error;

/// `provenance.json`: tool version, options, and the SHA-256 of every input file. A folder counts as its files, in
/// name order, without hidden ones.
pub fn provenance(options: &Map<String, Value>, inputs: &[(&str, &Path)]) -> Result<Value, Error> {
    let mut files = Vec::new();
    for (role, path) in inputs {
        for file in files_of(path)? {
            let (bytes, sha256) = digest(&file)?;
            files.push(json!({ "role": role, "path": file.to_string_lossy(), "bytes": bytes, "sha256": sha256 }));
        }
    }
    Ok(json!({
        "tool": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION"), "options": options, "inputs": files,
    }))
}

/// The SHA-256 of every file, and of every file of a folder.
///
/// Errors: a file that can't be read.
pub(crate) fn digests(paths: &[&Path]) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            all.push(digest(&file)?.1);
        }
    }
    Ok(all)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(Error::io(path))?;
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .filter(|e| !e.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|e| e.path())
        .filter(|p| p.is_file())
        .collect();
    files.sort();
    Ok(files)
}

/// Length and SHA-256 of a file, read in pieces.
fn digest(path: &Path) -> Result<(u64, String), Error> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let mut hash = Sha256::new();
    let bytes = std::io::copy(&mut file, &mut hash).map_err(Error::io(path))?;
    let hex = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok((bytes, hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_hashed() {
        let path = std::env::temp_dir().join(format!("shiftwise-provenance-{}", std::process::id()));
        std::fs::write(&path, b"abc").unwrap();
        let value = provenance(&Map::new(), &[("model", &path)]).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(value["inputs"][0]["sha256"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(value["inputs"][0]["bytes"], 3);
    }
}
