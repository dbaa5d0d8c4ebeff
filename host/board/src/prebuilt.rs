//! The images that this binary carries: a released one has all boards', so that nobody needs sources or a compiler.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::image_error::ImageError;

/// Boards and their ELF files.
const IMAGES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/prebuilt.rs"));

/// The image of a board as a file in the user's cache; `None` if this binary carries none.
pub(crate) fn find(board: &str) -> Option<Result<PathBuf, ImageError>> {
    let (_, elf) = IMAGES.iter().find(|(name, _)| *name == board)?;
    Some(written(&cache(), board, elf))
}

/// Where files that can be made again belong.
fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA")).or_else(home);
    base.unwrap_or_else(std::env::temp_dir).join("shiftwise").join(env!("CARGO_PKG_VERSION"))
}

/// Writes an image, unless it is there. Another process never sees a part of it.
fn written(directory: &Path, board: &str, elf: &[u8]) -> Result<PathBuf, ImageError> {
    let path = directory.join(board).with_extension("elf");
    if std::fs::read(&path).is_ok_and(|there| there == elf) {
        return Ok(path);
    }
    let part = directory.join(format!("{board}.{}.part", std::process::id()));
    let write = || {
        std::fs::create_dir_all(directory)?;
        std::fs::File::create(&part)?.write_all(elf)?;
        std::fs::rename(&part, &path)
    };
    write().map_err(|e| ImageError::Read { path: path.clone(), why: e.to_string() })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_written_once_and_again_where_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        let path = written(&inner, "board", b"one").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(written(&inner, "board", b"one").unwrap(), path);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
        written(&inner, "board", b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 1);
    }
}
