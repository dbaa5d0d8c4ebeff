//! Networks of TensorFlow's operations, whose values are tensors with channels last: what graphs of TensorFlow and files
//! of TensorFlow Lite have in common.
//!
//! # Invariants
//! - `network::Network` takes one operation after the other and makes layers of them; constants are computed at once.
//! - `recognize` makes one layer of what its author wrote as one: a convolution with its bias and activation, a
//!   normalization by parts.
//! - Names of layers are those of the author's layers, as far as the names of operations tell them.

mod bundle;
mod constants;
mod graph;
mod layers;
mod names;
mod network;
mod ops;
mod proto;
mod recognize;
mod saved_model;
mod shapes;
mod simple;
mod tensors;
mod tflite;
mod windows;
mod writer;

use shiftwise_files::LoadOptions;
use shiftwise_graph::error::Error;

pub use saved_model::{read as read_saved_model, read_graph};
pub use tflite::read as read_tflite;
pub use writer::{write_graph, write_saved_model};

/// Fails if weights are wanted for a file that has its own.
pub(crate) fn has_weights(options: &LoadOptions) -> Result<(), Error> {
    match options.weights.is_some() || options.random_weights.is_some() {
        true => Err(Error::Options("the model has weights of its own, so others have no use".into())),
        false => Ok(()),
    }
}

/// Fails if the user has a shape for an input that the model doesn't have.
pub(crate) fn check_inputs(options: &LoadOptions, names: &[String]) -> Result<(), Error> {
    for (name, _) in &options.input_shapes {
        match name {
            Some(name) if !names.contains(name) => {
                return Err(Error::InputShape(format!(
                    "the model has no input `{name:.80}`, but {}",
                    names.join(", ")
                )));
            }
            None if names.len() != 1 => {
                return Err(Error::InputShape(format!("the model has {} inputs: say whose shape it is", names.len())));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

/// The sample's shape of an input: the user's, else the file's, whose sizes are −1 where they are open.
///
/// Errors: a size that nobody says.
pub(crate) fn input_shape(options: &LoadOptions, name: &str, shape: &[i64]) -> Result<Vec<usize>, Error> {
    let own = options.input_shapes.iter().find(|(of, _)| of.as_deref().is_none_or(|of| of == name));
    if let Some((_, own)) = own {
        let sample = own.get(1..).unwrap_or_default();
        if sample.contains(&0) || (!shape.is_empty() && shape.len() != own.len()) {
            return Err(Error::InputShape(format!("{own:?} is no shape for the input `{name}`, which has {shape:?}")));
        }
        return Ok(sample.to_vec());
    }
    let sample = shape.get(1..).ok_or_else(|| Error::InputShape(format!("input `{name}` has no batch")))?;
    let open = || {
        let message =
            format!("input `{name}` has the shape {shape:?}, in which sizes are open: say it with --input-shape");
        Error::InputShape(message)
    };
    sample.iter().map(|d| usize::try_from(*d).map_err(|_| open())).collect()
}
