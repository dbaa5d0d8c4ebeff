//! Keras 3's `.keras` archives: a zip file with `config.json` and `model.weights.h5`.

use std::io::{Cursor, Read};
use std::path::Path;

use serde_json::Value;
use zip::ZipArchive;

use super::h5::H5;
use crate::error::Error;

/// A config may not be larger than this: 64 MiB, where those of the largest networks have a few.
const MAX_CONFIG: u64 = 64 << 20;

/// Weights may be compressed, which the writer doesn't do: at most by this much.
const MAX_RATIO: u64 = 16;

/// The model's JSON and its weights.
pub(super) fn open(path: &Path, bytes: &[u8]) -> Result<(Value, H5), Error> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| Error::format(path, format!("the archive is damaged: {e}")))?;
    let config = member(path, &mut archive, "config.json", MAX_CONFIG)?;
    let config = serde_json::from_slice(&config)
        .map_err(|e| Error::format(path, format!("config.json in the archive is not JSON: {e}")))?;
    let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO);
    let weights = member(path, &mut archive, "model.weights.h5", limit)?;
    Ok((config, H5::from_bytes(path, weights)?))
}

fn member(path: &Path, archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, limit: u64) -> Result<Vec<u8>, Error> {
    let fail = |message: String| Error::format(path, format!("{name} in the archive {message}"));
    let file = archive.by_name(name).map_err(|e| match e {
        zip::result::ZipError::FileNotFound => {
            Error::format(path, format!("is a zip archive without {name}, so not a Keras model"))
        }
        e => fail(format!("can't be read: {e}")),
    })?;
    let mut bytes = Vec::new();
    // The size in the header is only a claim; reading stops behind the limit whatever it says.
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| fail(format!("is damaged: {e}")))?;
    if read as u64 > limit {
        return Err(fail(format!("has more than {limit} bytes, which is more than a model of this size can have")));
    }
    Ok(bytes)
}
