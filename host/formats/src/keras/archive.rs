//! Keras 3's `.keras` archives: a zip file with `config.json` and `model.weights.h5`.

use std::io::{Cursor, Read};
use std::path::Path;

use serde_json::Value;
use zip::ZipArchive;

use crate::json;
use crate::keras::h5::H5;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

/// A config may not be larger than this, where those of the largest networks have a few MB.
const MAX_CONFIG: u64 = 64 << 20;

/// Any archive may have a config of this size; a larger one belongs to a larger archive, by [`MAX_RATIO`].
const SMALL_CONFIG: u64 = 16 << 20;

/// Weights may be compressed, which the writer doesn't do: at most by this much.
const MAX_RATIO: u64 = 16;

/// The model's JSON and its weights.
pub(crate) fn open(path: &Path, bytes: &[u8], budget: &Budget) -> Result<(Value, H5), Error> {
    let mut archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|e| Error::format(path, format!("the archive is damaged: {e}")))?;
    let limit = (bytes.len() as u64).saturating_mul(MAX_RATIO);
    let config = member(path, &mut archive, "config.json", limit.clamp(SMALL_CONFIG, MAX_CONFIG), budget)?;
    let config =
        json::parse(&config, budget).map_err(|e| Error::format(path, format!("config.json in the archive {e}")))?;
    let weights = member(path, &mut archive, "model.weights.h5", limit, budget)?;
    Ok((config, H5::from_bytes(path, weights, budget)?))
}

fn member(
    path: &Path,
    archive: &mut ZipArchive<Cursor<&[u8]>>,
    name: &str,
    limit: u64,
    budget: &Budget,
) -> Result<Vec<u8>, Error> {
    let fail = |message: String| Error::format(path, format!("{name} in the archive {message}"));
    let file = archive.by_name(name).map_err(|e| match e {
        zip::result::ZipError::FileNotFound => {
            Error::format(path, format!("is a zip archive without {name}, so not a Keras model"))
        }
        e => fail(format!("can't be read: {e}")),
    })?;
    let too_large = || fail(format!("has more than {limit} bytes, which is more than a model of this size can have"));
    // The size in the header is only a claim: reading stops behind it, and the checksum tells.
    let size = usize::try_from(file.size()).ok().filter(|size| *size as u64 <= limit).ok_or_else(too_large)?;
    let mut bytes = budget.vec(size).map_err(|e| fail(format!("is too large: {e}")))?;
    file.take(size as u64 + 1).read_to_end(&mut bytes).map_err(|e| fail(format!("is damaged: {e}")))?;
    if bytes.len() != size {
        return Err(fail(format!("has another size than the {size} bytes that it claims")));
    }
    Ok(bytes)
}
