//! Images of another size.

use serde_json::json;

use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Interpolation, Op, Reshape, Resizing, UpSampling2D, cubic};
use shiftwise_tensor::tensor::Tensor;

use crate::ops::resize::{Axis, axes};
use crate::reader::layers::channels_last;
use crate::reader::merges::nested;
use crate::reader::{Known, Step, Traced, one};

/// The weights of an axis as a matrix `[result, operand]`.
fn matrix(axis: &Axis, input: usize) -> Tensor {
    let mut out = Tensor::zeros(&[axis.size, input]);
    for (row, taps) in out.data_mut().chunks_exact_mut(input.max(1)).zip(&axis.taps) {
        taps.iter().for_each(|(at, weight)| row[*at] += *weight as f32);
    }
    out
}

/// The weights with which our own layers resize, from the documented rule of each method.
fn own(method: Interpolation, input: usize, output: usize) -> Tensor {
    let mut out = Tensor::zeros(&[output, input]);
    let scale = input as f32 / output as f32;
    for (o, row) in out.data_mut().chunks_exact_mut(input.max(1)).enumerate() {
        match method {
            Interpolation::Nearest => row[(((o as f32 + 0.5) * scale).floor() as usize).min(input - 1)] = 1.0,
            Interpolation::Bilinear => {
                let at = (o as f32 + 0.5) * scale - 0.5;
                let (low, high) = (at.floor().max(0.0) as usize, (at.ceil().max(0.0) as usize).min(input - 1));
                row[low.min(input - 1)] += 1.0 - (at - at.floor());
                row[high] += at - at.floor();
            }
            Interpolation::Bicubic => return cubic::matrix(input, output),
        }
    }
    out
}

fn alike(a: &Tensor, b: &Tensor) -> bool {
    a.shape() == b.shape() && a.data().iter().zip(b.data()).all(|(x, y)| (x - y).abs() < 1e-5)
}

/// Elements of the weights along both axes, above which none of our layers is looked for.
const MANY: usize = 1 << 22;

pub(crate) fn resize(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let whole = step.whole(&x);
    let along = axes(&step.call, &whole)?;
    let &[_, _, h, w] = whole.as_slice() else {
        return Err(format!("resizes samples of shape {:?}; images are supported", &whole[1..]));
    };
    let (image, order) = match &along[..] {
        [None, None, rows, columns] => ([(rows, h), (columns, w)], channels_last(3)),
        // The file's channels may come last.
        [None, rows, columns, None] => ([(rows, whole[1]), (columns, whole[2])], vec![0, 1, 2]),
        _ => return Err("resizes more than height and width".into()),
    };
    let sizes = image.each_ref().map(|(axis, n)| axis.as_ref().map_or(*n, |a| a.size));
    if sizes.contains(&0) || sizes.iter().zip(&image).any(|(s, (_, n))| s.saturating_mul(*n) > MANY) {
        return Err(format!("resizes to {sizes:?} pixels"));
    }
    let mut identity = image.each_ref().map(|(_, n)| own(Interpolation::Nearest, *n, *n));
    for (k, (axis, n)) in image.iter().enumerate() {
        if let Some(axis) = axis {
            if axis.taps.iter().any(Vec::is_empty) {
                return Err("takes pixels from outside of the image, which no layer does".into());
            }
            identity[k] = matrix(axis, *n);
        }
    }
    let mut id = step.reader.arranged(&x, &order)?;
    let inputs = image.each_ref().map(|(_, n)| *n);
    let methods = [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::Bicubic];
    let fits = |method: &Interpolation| (0..2).all(|k| alike(&identity[k], &own(*method, inputs[k], sizes[k])));
    id = match methods.into_iter().find(fits) {
        Some(interpolation) => {
            let factors = [0, 1].map(|k| sizes[k] / inputs[k]);
            let op = if [0, 1].map(|k| factors[k] * inputs[k]) == sizes {
                Op::UpSampling2D(UpSampling2D { size: factors, interpolation })
            } else {
                Op::Resizing(Resizing { size: sizes, interpolation })
            };
            step.add("", op, &[id])?
        }
        None => products(step, id, &identity)?,
    };
    one(Traced::ordered(id, &order))
}

/// Rows and then columns as products with matrices: any method that works along each axis.
fn products(step: &mut Step<'_, '_>, id: NodeId, weights: &[Tensor; 2]) -> Result<NodeId, String> {
    let [_, w, c] = step.reader.shape(id)[..] else { return Err("resizes what is no image".into()) };
    let rows = weights[0].shape()[0];
    let shape = |sizes: &[usize]| Op::Reshape(Reshape { target: sizes.iter().map(|d| *d as i64).collect() });
    let flat = step.add("_rows", shape(&[weights[0].shape()[1], w * c]), &[id])?;
    let tensor = json!({ "b": { "tensor": 0 } });
    let product = step.function("_height", "linalg.matmul", &[flat], (nested(&weights[0])?, tensor.clone()))?;
    let image = step.add("_columns", shape(&[rows, w, c]), &[product])?;
    step.function("", "linalg.matmul", &[image], (nested(&weights[1])?, tensor))
}
