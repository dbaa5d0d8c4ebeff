//! Keras' files as rows of the formats: how each is told and read.

use std::path::Path;

use serde_json::Value;

use crate::record::ModelConfig;
use crate::weights::{ModelWeights, RandomWeights};
use crate::{archive, float_graph, h5, quantized, stored};
use shiftwise_files::Files;
use shiftwise_files::{LoadOptions, json};
use shiftwise_graph::budget::Budget;
use shiftwise_graph::error::Error;
use shiftwise_quant::qat::Qat;
use shiftwise_quant::quant_graph::Model;

/// Whether a file is JSON, as `model.to_json()` writes it.
pub fn is_json(files: &Files) -> bool {
    matches!(files.bytes().and_then(|bytes| bytes.trim_ascii_start().first()), Some(b'{' | b'"'))
}

/// Whether a file is HDF5.
pub fn is_h5(files: &Files) -> bool {
    files.bytes().is_some_and(h5::is_hdf5)
}

/// An architecture, with weights from a file of their own or random ones.
pub fn read_json(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    let config = ModelConfig::parse(&architecture(&files, budget)?, None)?;
    let weights: Box<dyn ModelWeights> = match (weights_of(&config, options)?, options.random_weights) {
        (Some(weights), _) => weights,
        (None, Some(seed)) => Box::new(RandomWeights::new(seed)),
        (None, None) => return Err(Error::NoWeights { path: files.path().to_owned() }),
    };
    float_graph::float_graph(config, &*weights, options).map(Model::Float)
}

/// A model of Keras 3.
pub fn read_archive(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    has_weights(&files, options)?;
    let (value, file) = archive::open(&files, budget)?;
    let config = ModelConfig::parse(&value, None)?;
    let weights: Box<dyn ModelWeights> = match weights_of(&config, options)? {
        Some(weights) => weights,
        None => Box::new(stored::Store::new(file, &config).map_err(|e| Error::format(files.path(), e))?),
    };
    float_graph::float_graph(config, &*weights, options).map(Model::Float)
}

/// A quantized model in HDF5, to be trained.
pub fn read_training(files: Files, options: &LoadOptions) -> Result<Qat, Error> {
    let (path, budget) = (files.path().to_owned(), files.budget());
    let file = open_h5(files, &budget)?;
    let config = model_config(&file)?;
    match config.is_quantized() {
        true => quantized::read_training(config, &file, options),
        false => Err(Error::wrong_kind(&path, "is a float model, and one in training is expected")),
    }
}

/// A model in HDF5, of either kind.
pub fn read_h5(files: Files, options: &LoadOptions, budget: &Budget) -> Result<Model, Error> {
    has_weights(&files, options)?;
    let path = files.path().to_owned();
    let file = open_h5(files, budget)?;
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

/// Fails if random weights are wanted for a file that has weights.
fn has_weights(files: &Files, options: &LoadOptions) -> Result<(), Error> {
    let message = || format!("{} has weights of its own, so random ones have no use", files.path().display());
    options.random_weights.map_or(Ok(()), |_| Err(Error::Options(message())))
}

/// The weights of a model in a file of their own: one that `save_weights` wrote in either form, or a whole model of
/// the same layers.
fn weights_of(config: &ModelConfig, options: &LoadOptions) -> Result<Option<Box<dyn ModelWeights>>, Error> {
    let Some(path) = &options.weights else { return Ok(None) };
    if options.random_weights.is_some() {
        return Err(Error::Options("weights are either read from a file or drawn, not both".into()));
    }
    let files = Files::open(path)?;
    let budget = files.budget();
    let file = match files.is_zip() {
        true => archive::open(&files, &budget)?.1,
        false => open_h5(files, &budget)?,
    };
    let weights: Box<dyn ModelWeights> = match stored::Named::new(file, config).map_err(|e| Error::format(path, e))? {
        Ok(named) => Box::new(named),
        Err(file) => Box::new(stored::Store::new(file, config).map_err(|e| Error::format(path, e))?),
    };
    Ok(Some(weights))
}

/// The value of a JSON file as `model.to_json()` writes it, perhaps as a JSON string once more.
fn architecture(files: &Files, budget: &Budget) -> Result<Value, Error> {
    let fail = |why: &str| Error::format(files.path(), why);
    let parse = |text: &[u8]| json::parse(text, budget).map_err(|why| fail(&why));
    let value = match parse(files.bytes().unwrap_or_default())? {
        Value::String(text) => parse(text.as_bytes())?,
        value => value,
    };
    match value.get("class_name") {
        Some(_) => Ok(value),
        None => Err(fail("is JSON, but not a model as `model.to_json()` writes it")),
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

/// The version of Keras that wrote a file, where the file says so; nothing else of it need be readable.
pub fn keras_version(files: &Files) -> Option<String> {
    /// A file that has little more than this version.
    const MOST: u64 = 1 << 16;
    let budget = files.budget();
    let said = |text: &[u8]| Some(json::parse(text, &budget).ok()?.get("keras_version")?.as_str()?.to_owned());
    if files.is_zip() {
        return said(&files.read("metadata.json", MOST, &budget).ok()?);
    }
    if is_h5(files) {
        let file = h5::H5::from_bytes(files.path(), files.bytes()?.to_vec(), &budget).ok()?;
        return file.string("/", "keras_version").ok().flatten();
    }
    if is_json(files) { said(files.bytes()?) } else { None }
}

/// The architecture in a Keras file of any form; `None` where there is none that can be read.
pub(crate) fn architecture_of(files: &Files) -> Option<ModelConfig> {
    let budget = files.budget();
    if is_json(files) {
        return ModelConfig::parse(&architecture(files, &budget).ok()?, None).ok();
    }
    if files.is_zip() {
        return ModelConfig::parse(&archive::open(files, &budget).ok()?.0, None).ok();
    }
    let bytes = files.bytes().filter(|bytes| h5::is_hdf5(bytes))?;
    model_config(&h5::H5::from_bytes(files.path(), bytes.to_vec(), &budget).ok()?).ok()
}

/// An HDF5 file.
fn open_h5(files: Files, budget: &Budget) -> Result<h5::H5, Error> {
    if !is_h5(&files) {
        return Err(Error::format(files.path(), "is not an HDF5 file; weights in a .h5 or .keras file are expected"));
    }
    let path = files.path().to_owned();
    h5::H5::from_bytes(Path::new(&path), files.into_bytes().unwrap_or_default(), budget)
}
