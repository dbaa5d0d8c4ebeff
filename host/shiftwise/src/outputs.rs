//! A run's results as `output_K.npy`.

use shiftwise_core::model::{Deployable, TensorDesc, TensorId};
use shiftwise_formats::files::Set;
use shiftwise_graph::error::Error;

use crate::run;
use crate::run::Tensors;

/// Adds `output_K.npy`: outputs of all samples as floats.
///
/// Errors: those of the files.
pub fn add_outputs(set: &mut Set<'_>, model: &Deployable<'_>, samples: &[Tensors]) -> Result<(), Error> {
    let all: Vec<Vec<Vec<f32>>> = samples.iter().map(|s| floats(model, s)).collect();
    for (k, (_, t)) in model.outputs().enumerate() {
        let values = all.iter().filter_map(|s| s.get(k)).flatten().copied().collect();
        let mut shape = vec![samples.len()];
        shape.extend(t.shape.dims().iter().map(|d| *d as usize));
        add_output(set, k, shape, values)?;
    }
    Ok(())
}

/// The outputs of one sample as floats, in the model's order.
pub fn floats(model: &Deployable<'_>, sample: &Tensors) -> Vec<Vec<f32>> {
    let of = |(id, t): (TensorId, TensorDesc<'_>)| {
        // A tensor that is an input or another output too is computed under its first name.
        let same =
            |i: TensorId| i == id || model.tensor(i).is_some_and(|o| o.place == t.place && o.bytes() == t.bytes());
        let bytes = sample.0.iter().rev().find(|(i, _)| same(*i)).map_or(&[][..], |(_, bytes)| bytes.as_slice());
        run::reals(&t, bytes)
    };
    model.outputs().map(of).collect()
}

/// Adds an array of floats as a `.npy` file.
///
/// Errors: those of the files; [`Error::Run`] for values that don't fill the shape.
pub fn add_output(set: &mut Set<'_>, k: usize, shape: Vec<usize>, values: Vec<f32>) -> Result<(), Error> {
    let array = ndarray::ArrayD::from_shape_vec(shape, values).map_err(|e| Error::Run(e.to_string()))?;
    let mut bytes = Vec::new();
    ndarray_npy::WriteNpyExt::write_npy(&array, &mut bytes).map_err(|e| Error::Run(e.to_string()))?;
    set.add(&format!("output_{k}.npy"), &bytes)
}
