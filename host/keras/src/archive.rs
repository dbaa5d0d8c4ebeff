//! Keras 3's `.keras` archives: a zip file with `config.json` and `model.weights.h5`.

use serde_json::Value;

use crate::h5::H5;
use shiftwise_files::Files;
use shiftwise_files::json;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;

/// A config may not be larger than this, where those of the largest networks have a few MB.
const MAX_CONFIG: u64 = 64 << 20;

/// Any archive may have a config of this size; a larger one belongs to a larger archive, by [`MAX_RATIO`].
const SMALL_CONFIG: u64 = 16 << 20;

/// Weights may be compressed, which the writer doesn't do: at most by this much.
const MAX_RATIO: u64 = 16;

/// The model's JSON and its weights.
pub(crate) fn open(files: &Files, budget: &Budget) -> Result<(Value, H5), Error> {
    let limit = (files.bytes().map_or(0, <[u8]>::len) as u64).saturating_mul(MAX_RATIO);
    let config = files.read("config.json", limit.clamp(SMALL_CONFIG, MAX_CONFIG), budget)?;
    let config = json::parse(&config, budget)
        .map_err(|e| Error::format(files.path(), format!("config.json in the archive {e}")))?;
    let weights = files.read("model.weights.h5", limit, budget)?;
    Ok((config, H5::from_bytes(files.path(), weights, budget)?))
}
