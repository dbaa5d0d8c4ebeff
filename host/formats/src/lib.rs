//! Files: float models in, quantized models in and out.
//!
//! A file's kind is told by its content, never by its name. Readers take hostile input: every count is checked against
//! the file's size before memory is taken, and everything that can be wrong is an [`Error`] that says what.

pub mod files;
pub mod json;
pub mod keras;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use crate::files::write_file;
use keras::model::ModelConfig;
use keras::{archive, float_graph, foreign, h5, quantized, stored, weights};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_quant::quant_graph::QuantGraph;
use weights::ModelWeights;

pub use keras::back::read_back;
pub use keras::quantized::quantize_info;

/// What a reader may be told.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Shapes that replace those of the model's inputs, batch first; without a name for a model with one input.
    pub input_shapes: Vec<(Option<String>, Vec<usize>)>,
    /// Seed of the weights of a model that has none.
    pub random_weights: Option<u64>,
    /// A file with the weights of a float model, instead of those that are in its own, if any.
    pub weights: Option<PathBuf>,
    /// What computes layers that are none of Keras' own.
    pub custom: CustomLayers,
    /// Keeps layers of unknown classes whose result's shape the file says: enough for timing, and nothing can be computed.
    pub keep_unknown: bool,
}

/// A model of either kind.
#[derive(Clone, Debug)]
pub enum Model {
    /// Before quantization.
    Float(Graph),
    /// After it.
    Quantized(QuantGraph),
}

/// The value of a JSON file, with no more values than a file of its size pays for.
///
/// Errors: the rest of a sentence about the file.
pub fn json(text: &[u8]) -> Result<Value, String> {
    json::parse(text, &Budget::for_file(text.len()))
}

/// Reads a model of either kind.
pub fn open(path: &Path, options: &LoadOptions) -> Result<Model, Error> {
    if let Some(foreign) = foreign::folder(path) {
        return Err(foreign);
    }
    open_bytes(path, std::fs::read(path).map_err(Error::io(path))?, options)
}

/// [`open`] of a file that is in memory already; `path` only appears in messages.
pub fn open_bytes(path: &Path, bytes: Vec<u8>, options: &LoadOptions) -> Result<Model, Error> {
    let budget = Budget::for_file(bytes.len());
    if let Some(value) = architecture(path, &bytes, &budget)? {
        let config = ModelConfig::parse(&value, None)?;
        let weights: Box<dyn ModelWeights> = match (weights_of(&config, options)?, options.random_weights) {
            (Some(weights), _) => weights,
            (None, Some(seed)) => Box::new(weights::RandomWeights::new(seed)),
            (None, None) => return Err(Error::NoWeights { path: path.to_owned() }),
        };
        return float_graph::float_graph(config, &*weights, options).map(Model::Float);
    }
    if options.random_weights.is_some() {
        return Err(Error::Options(format!("{} has weights of its own, so random ones have no use", path.display())));
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let (value, file) = open_archive(path, &bytes, &budget)?;
        let config = ModelConfig::parse(&value, None)?;
        let weights: Box<dyn ModelWeights> = match weights_of(&config, options)? {
            Some(weights) => weights,
            None => Box::new(stored::Store::new(file, &config).map_err(|e| Error::format(path, e))?),
        };
        return float_graph::float_graph(config, &*weights, options).map(Model::Float);
    }
    let file = open_h5(path, bytes, &budget)?;
    let config = model_config(&file)?;
    match weights_of(&config, options)? {
        Some(_) if config.is_quantized() => {
            Err(Error::Options(format!("{} is quantized; --weights belongs to a float model", path.display())))
        }
        Some(weights) => float_graph::float_graph(config, &*weights, options).map(Model::Float),
        None if config.is_quantized() => quantized::read(config, &file, options).map(Model::Quantized),
        None => float_graph::float_graph(config, &file, options).map(Model::Float),
    }
}

/// The weights of a model in a file of their own: one that `save_weights` wrote in either form, or a whole model of
/// the same layers.
fn weights_of(config: &ModelConfig, options: &LoadOptions) -> Result<Option<Box<dyn ModelWeights>>, Error> {
    let Some(path) = &options.weights else { return Ok(None) };
    if options.random_weights.is_some() {
        return Err(Error::Options("weights are either read from a file or drawn, not both".into()));
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let budget = Budget::for_file(bytes.len());
    let zipped = bytes.starts_with(b"PK\x03\x04");
    let file = if zipped { open_archive(path, &bytes, &budget)?.1 } else { open_h5(path, bytes, &budget)? };
    let weights: Box<dyn ModelWeights> = match stored::Named::new(file, config).map_err(|e| Error::format(path, e))? {
        Ok(named) => Box::new(named),
        Err(file) => Box::new(stored::Store::new(file, config).map_err(|e| Error::format(path, e))?),
    };
    Ok(Some(weights))
}

fn open_archive(path: &Path, bytes: &[u8], budget: &Budget) -> Result<(Value, h5::H5), Error> {
    archive::open(path, bytes, budget).map_err(|e| foreign::archive(path, bytes).unwrap_or(e))
}

/// Reads a float model.
pub fn load(path: &Path, options: &LoadOptions) -> Result<Graph, Error> {
    match open(path, options)? {
        Model::Float(graph) => Ok(graph),
        Model::Quantized(_) => Err(Error::wrong_kind(path, "is a quantized model, and a float model is expected")),
    }
}

/// Reads a quantized model, ours or the vendor's.
pub fn load_quantized(path: &Path) -> Result<QuantGraph, Error> {
    match open(path, &LoadOptions::default())? {
        Model::Quantized(quantized) => Ok(quantized),
        Model::Float(_) => Err(Error::wrong_kind(path, "is a float model, and a quantized model is expected")),
    }
}

/// The bytes of a quantized model's `.h5` file; `path` only appears in messages.
pub fn quantized_bytes(quantized: &QuantGraph, path: &Path) -> Result<Vec<u8>, Error> {
    quantized::write(quantized, path)
}

/// Writes a quantized model as the vendor's tool would save it.
pub fn save_quantized(quantized: &QuantGraph, path: &Path) -> Result<(), Error> {
    write_file(path, &quantized_bytes(quantized, path)?)
}

/// The value of a JSON file as `model.to_json()` writes it, perhaps as a JSON string once more; `None` for other files.
fn architecture(path: &Path, bytes: &[u8], budget: &Budget) -> Result<Option<Value>, Error> {
    if !matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'"')) {
        return Ok(None);
    }
    let parse = |text: &[u8]| json::parse(text, budget).map_err(|why| Error::format(path, why));
    let value = match parse(bytes)? {
        Value::String(text) => parse(text.as_bytes())?,
        value => value,
    };
    match value.get("class_name") {
        Some(_) => Ok(Some(value)),
        None => Err(Error::format(path, "is JSON, but not a model as `model.to_json()` writes it")),
    }
}

/// The model in the attribute of an `.h5` file.
fn model_config(file: &h5::H5) -> Result<ModelConfig, Error> {
    let text = file.string("/", "model_config").map_err(|e| file.error(e))?.ok_or_else(|| {
        file.error(
            "holds no model_config: it was saved with save_weights() or is not a Keras model; save the whole model, or \
             give the model's JSON with this file as its --weights",
        )
    })?;
    let value = json::parse(text.as_bytes(), file.budget()).map_err(|e| file.error(format!("model_config {e}")))?;
    let version = file.string("/", "keras_version").ok().flatten();
    ModelConfig::parse(&value, version.as_deref())
}

fn open_h5(path: &Path, bytes: Vec<u8>, budget: &Budget) -> Result<h5::H5, Error> {
    if h5::is_hdf5(&bytes) {
        return h5::H5::from_bytes(path, bytes, budget);
    }
    if let Some(foreign) = foreign::file(path, &bytes) {
        return Err(foreign);
    }
    let kind = match bytes.get(..4) {
        _ if bytes.is_empty() => "is empty",
        Some([0x1f, 0x8b, ..]) => "is gzip-compressed; unpack it first",
        _ => "is not an HDF5 file",
    };
    let expected = "a Keras model in a .keras or .h5 file, or its architecture as .json, is expected";
    Err(Error::format(path, format!("{kind}; {expected}")))
}
