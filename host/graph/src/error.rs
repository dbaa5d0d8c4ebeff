//! One error type for the library, with stable codes.

use std::path::{Path, PathBuf};

/// What went wrong. `Display` is one lower-case sentence; [`Error::code`] is stable. What to do about it
/// depends on how it was asked for, and is said there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer can't be what it claims to be.
    #[error("layer `{layer}` ({class}): {message}")]
    Layer {
        /// The user's name of the layer.
        layer: String,
        /// Its Keras class.
        class: String,
        /// What was seen and what is allowed.
        message: String,
    },
    /// A layer class that shiftwise doesn't know.
    #[error("layer `{layer}`: class `{class}` is not supported")]
    UnsupportedLayer {
        /// The user's name of the layer.
        layer: String,
        /// Its Keras class.
        class: String,
    },
    /// An activation function that shiftwise doesn't know.
    #[error("layer `{layer}` ({class}): activation `{activation:.80}` is unknown")]
    UnsupportedActivation {
        /// The user's name of the layer.
        layer: String,
        /// Its Keras class.
        class: String,
        /// The function's name.
        activation: String,
    },
    /// A strategy's entry for a layer class that makes no quantizer.
    #[error("layer_type {layer}: {message}")]
    LayerConfig {
        /// The entry's `layer_type`.
        layer: String,
        /// What is wrong with it.
        message: String,
    },
    /// The model as a whole can't be used.
    #[error("{0}")]
    Model(String),
    /// The file is not what was asked for, or is damaged.
    #[error("{path}: {message}")]
    Format {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The file is fine, and of another kind than the command takes.
    #[error("{path}: {message}")]
    WrongKind {
        /// File.
        path: PathBuf,
        /// What it is, and what is expected.
        message: String,
    },
    /// A model of another tool.
    #[error("{path}: {message}")]
    Foreign {
        /// File or folder.
        path: PathBuf,
        /// What it is, and what is expected.
        message: String,
    },
    /// An architecture without weights, where a model with weights is expected.
    #[error("{path}: holds an architecture without weights")]
    NoWeights {
        /// File.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// An input shape that doesn't fit the model.
    #[error("{0}")]
    InputShape(String),
    /// Calibration or evaluation data that can't be used.
    #[error("{0}")]
    Dataset(String),
    /// An option of the command line or of a strategy.
    #[error("{0}")]
    Options(String),
    /// A target that doesn't exist or can't do what is asked.
    #[error("{0}")]
    Target(String),
    /// The quantized model can't be compiled.
    #[error("{0}")]
    Compile(String),
    /// Running a deployable failed.
    #[error("{0}")]
    Run(String),
}

impl Error {
    /// [`Error::Layer`].
    pub fn layer(layer: &str, class: &str, message: impl Into<String>) -> Self {
        Self::Layer { layer: layer.into(), class: class.into(), message: message.into() }
    }

    /// [`Error::Model`].
    pub fn model(message: impl Into<String>) -> Self {
        Self::Model(message.into())
    }

    /// [`Error::Format`].
    pub fn format(path: &Path, message: impl Into<String>) -> Self {
        Self::Format { path: path.into(), message: message.into() }
    }

    /// [`Error::WrongKind`].
    pub fn wrong_kind(path: &Path, message: impl Into<String>) -> Self {
        Self::WrongKind { path: path.into(), message: message.into() }
    }

    /// [`Error::Io`], for `map_err`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }

    /// Stable code; the first five are the vendor's documented ones.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnsupportedLayer { .. } | Self::LayerConfig { .. } => "Quantizer_TF2_Unsupported_Layer",
            Self::Model(_) => "Quantizer_TF2_Unsupported_Model",
            Self::InputShape(_) => "Quantizer_TF2_Invalid_Input_Shape",
            Self::Dataset(_) => "Quantizer_TF2_Invalid_Calib_Dataset",
            Self::Target(_) => "Quantizer_TF2_Invalid_Target",
            Self::Layer { .. } | Self::UnsupportedActivation { .. } => "Shiftwise_Invalid_Layer",
            Self::Format { .. } => "Shiftwise_Invalid_File",
            Self::WrongKind { .. } | Self::Foreign { .. } => "Shiftwise_Wrong_Kind_Of_File",
            Self::NoWeights { .. } => "Shiftwise_No_Weights",
            Self::Io { .. } => "Shiftwise_Io",
            Self::Options(_) => "Shiftwise_Invalid_Option",
            Self::Compile(_) => "Shiftwise_Cannot_Compile",
            Self::Run(_) => "Shiftwise_Run_Failed",
        }
    }
}
