//! Layers around others: over sequences, and over steps.

use crate::backward::{Call, Grads, Mode, NoGradient, Saved, differentiate, evaluate, reshaped};
use crate::ops::{Layer, OneD, TimeDistributed};
use shiftwise_tensor::tensor::Tensor;

/// Gradients of the layer inside, with all shapes as that layer sees them.
fn inside(
    op: &crate::ops::Op,
    call: &Call<'_>,
    shape: &[usize],
    weights: &[Tensor],
    dy: &Tensor,
) -> Result<Grads, NoGradient> {
    let inputs: Vec<Tensor> = call.inputs.iter().map(|x| reshaped(x, shape)).collect::<Result<_, _>>()?;
    let own = Call { shapes: &[shape.to_vec()], inputs: &inputs, weights, ..*call };
    let Grads { inputs, params } = differentiate(op, &own, dy)?;
    let outside = |dx: Option<Tensor>| dx.map(|dx| reshaped(&dx, call.shape()?)).transpose();
    Ok(Grads { inputs: inputs.into_iter().map(outside).collect::<Result<_, _>>()?, params })
}

/// Gradients of a layer over sequences: of the layer over images of one row.
pub(super) fn one_d(layer: &OneD, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let [n, steps, channels] = call.shape()?[..] else { return Err(NoGradient::Shapes) };
    let shape = [n, 1, steps, channels];
    let out = layer.image.layer().output_shape(&[&shape[1..]]).map_err(|_| NoGradient::Shapes)?;
    let weights = layer.image_weights(&call.weights.iter().collect::<Vec<_>>());
    let dy = reshaped(dy, &[&[n], out.as_slice()].concat())?;
    let mut grads = inside(&layer.image, call, &shape, &weights, &dy)?;
    for (own, weight) in grads.params.iter_mut().zip(call.weights) {
        *own = own.take().map(|d| reshaped(&d, weight.shape())).transpose()?;
    }
    Ok(grads)
}

/// A shape with its steps as samples.
fn folded(shape: &[usize]) -> Result<Vec<usize>, NoGradient> {
    match shape {
        [samples, steps, rest @ ..] => Ok([&[samples * steps], rest].concat()),
        _ => Err(NoGradient::Shapes),
    }
}

/// Gradients of a layer applied to each step: steps are samples.
pub(super) fn steps(layer: &TimeDistributed, call: &Call<'_>, dy: &Tensor) -> Result<Grads, NoGradient> {
    let shape = folded(call.shape()?)?;
    inside(&layer.layer, call, &shape, call.weights, &reshaped(dy, &folded(dy.shape())?)?)
}

/// [`evaluate`] of the layer inside over all steps.
pub(super) fn evaluate_steps(layer: &TimeDistributed, x: &Tensor, weights: &[Tensor], mode: Mode) -> (Tensor, Saved) {
    let plain = |_: NoGradient| (layer.eval(&[x], &weights.iter().collect::<Vec<_>>()), Saved::Nothing);
    let folded = folded(x.shape()).and_then(|shape| reshaped(x, &shape));
    let inner = folded.map(|x| evaluate(&layer.layer, &[&x], weights, mode));
    let outer = inner.and_then(|(y, saved)| {
        let shape = [&x.shape()[..2], &y.shape()[1..]].concat();
        reshaped(&y, &shape).map(|y| (y, saved))
    });
    outer.unwrap_or_else(plain)
}
