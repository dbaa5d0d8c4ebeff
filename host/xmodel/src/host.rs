//! Operations that run on the CPU beside a DPU: conversions, moves, float arithmetic, and custom operations. One table,
//! `OPS`, and the custom layers that the user provides; what is in neither is refused by name.

use std::sync::Arc;

use shiftwise_core::cpu;
use shiftwise_core::model::Function;

use crate::value::{Held, quantization, quantize};
use crate::{Attr, XOp};
use shiftwise_graph::attributes::Attribute;
use shiftwise_graph::ops::{Custom, CustomLayer, CustomLayers, Layer};
use shiftwise_tensor::tensor::Tensor;

mod windows;

/// What an operation does with its operands; the result has the tensor's declared shape.
type Compute = fn(&XOp, &[&Held]) -> Result<Held, String>;

/// The operations by type. `PPScatterV2` is the custom operation of the vendor's example, with its meaning there (DOC).
const OPS: &[(&str, Compute)] = &[
    ("fix2float", |op, x| Ok(Held::float(&op.tensor.shape, one(x)?.floats()))),
    ("float2fix", |op, x| {
        let (pos, round) = quantization(&op.attrs)?;
        Ok(Held::fixed(&op.tensor.shape, pos, quantize(&one(x)?.floats(), pos, round)))
    }),
    // On the CPU a `fix` gives floats on the grid; held as integers they are the same numbers.
    ("fix", |op, x| {
        let (pos, round) = quantization(&op.attrs)?;
        Ok(Held::fixed(&op.tensor.shape, pos, quantize(&one(x)?.floats(), pos, round)))
    }),
    ("upload", same),
    ("download", same),
    ("identity", same),
    ("reshape", same),
    ("reshape-fix", same),
    ("flatten", same),
    ("squeeze", same),
    ("transpose", transpose),
    ("concat", concat),
    ("concat-fix", concat),
    ("relu", |op, x| map(op, x, |v| v.max(0.0))),
    ("relu6", |op, x| map(op, x, |v| v.clamp(0.0, 6.0))),
    ("sigmoid", |op, x| map(op, x, |v| 1.0 / (1.0 + libm::expf(-v)))),
    ("tanh", |op, x| map(op, x, libm::tanhf)),
    ("leaky-relu", |op, x| {
        let alpha = op.attrs.float("alpha").ok_or("it has no alpha")? as f32;
        map(op, x, move |v| if v < 0.0 { v * alpha } else { v })
    }),
    ("prelu", prelu),
    ("elu", |op, x| {
        let alpha = op.attrs.float("alpha").unwrap_or(1.0) as f32;
        map(op, x, move |v| Function::Elu(alpha).apply(v))
    }),
    ("selu", |op, x| map(op, x, |v| Function::Selu.apply(v))),
    ("gelu", |op, x| map(op, x, |v| Function::Gelu.apply(v))),
    ("swish", |op, x| map(op, x, |v| Function::Swish.apply(v))),
    ("exp", |op, x| map(op, x, |v| Function::Exponential.apply(v))),
    ("hard-sigmoid", |op, x| map(op, x, |v| Function::DpuHardSigmoid.apply(v))),
    ("hard-swish", |op, x| map(op, x, |v| Function::HardSwish.apply(v))),
    ("conv2d", windows::convolution),
    ("depthwise-conv2d", windows::convolution),
    ("transposed-conv2d", windows::transposed),
    ("matmul", windows::product),
    ("inner-product", windows::product),
    ("maxpool2d", windows::pool),
    ("avgpool2d", windows::pool),
    ("resize", windows::resize),
    ("pad", windows::pad),
    ("add", |op, x| fold(op, x, |a, b| a + b)),
    ("sub", |op, x| fold(op, x, |a, b| a - b)),
    ("mul", |op, x| fold(op, x, |a, b| a * b)),
    ("div", |op, x| fold(op, x, |a, b| a / b)),
    ("max", |op, x| fold(op, x, f32::max)),
    ("min", |op, x| fold(op, x, f32::min)),
    ("softmax", softmax),
    ("argmax", argmax),
    ("reduction_max", |op, x| reduce(op, x, |v| v.iter().copied().fold(f32::NEG_INFINITY, f32::max))),
    ("reduction_sum", |op, x| reduce(op, x, |v| v.iter().sum())),
    ("reduction_mean", |op, x| reduce(op, x, |v| v.iter().sum::<f32>() / v.len().max(1) as f32)),
    ("PPScatterV2", scatter),
];

/// Whether an operation of this type can be computed here.
pub fn is_known(kind: &str, custom: &CustomLayers) -> bool {
    OPS.iter().any(|(name, _)| *name == kind) || custom.get(kind).is_some()
}

/// Computes a custom operation as the Keras layer that it came from. `constants` are those operands that are constants,
/// with their operations' names.
///
/// Errors: operands that don't fit the layer.
pub fn compute_custom(
    op: &XOp,
    layer: Arc<dyn CustomLayer>,
    operands: &[&Held],
    constants: &[(&str, &Held)],
) -> Result<Held, String> {
    let tensor =
        |h: &Held| Tensor::new(h.shape.clone(), h.floats()).ok_or("an operand has another size than its shape");
    let inputs = operands.iter().map(|h| tensor(h)).collect::<Result<Vec<_>, _>>()?;
    let named = constants.iter().map(|(name, h)| {
        let name = name.strip_suffix("_const").unwrap_or(name);
        Ok((name.strip_suffix(":0").unwrap_or(name).to_owned(), tensor(h)?))
    });
    let mut custom = Custom::new(&op.kind, layer);
    custom.weights = named.collect::<Result<_, &str>>()?;
    for (name, value) in settings(op) {
        custom.config.insert(name, value);
    }
    let shapes: Vec<&[usize]> = inputs.iter().map(|t| t.shape().get(1..).unwrap_or(&[])).collect();
    custom.output_shape(&shapes)?;
    let own: Vec<&Tensor> = custom.weights.iter().map(|(_, t)| t).collect();
    let y = custom.eval(&inputs.iter().collect::<Vec<_>>(), &own);
    if Some(y.data().len()) != op.tensor.elements() {
        return Err(format!("it gives the shape {:?}, its own is {:?}", y.shape(), op.tensor.shape));
    }
    Ok(Held::float(&op.tensor.shape, y.into_data()))
}

/// What an operation says that a layer of the user's own may ask for: numbers and words.
pub(super) fn settings(op: &XOp) -> impl Iterator<Item = (&String, Attribute)> {
    op.attrs.iter().filter_map(|(name, attr)| {
        let value = match attr {
            Attr::Int(v) => Attribute::Integer((*v).into()),
            Attr::Float(v) => Attribute::Number(*v),
            Attr::Text(v) => Attribute::Text(v.clone()),
            _ => return None,
        };
        Some((name, value))
    })
}

/// Computes an operation. Operands that are integers are read as the numbers that they stand for.
///
/// Errors: an operation that isn't known, attributes or operands that don't fit it.
pub fn compute(op: &XOp, operands: &[&Held]) -> Result<Held, String> {
    let (_, compute) =
        OPS.iter().find(|(name, _)| *name == op.kind).ok_or("it is no operation that can be computed here")?;
    let size = op.tensor.elements().ok_or("its result is too large")?;
    let held = compute(op, operands)?;
    if held.len() != size {
        return Err(format!("it gives {} values, its shape is {:?}", held.len(), op.tensor.shape));
    }
    Ok(held)
}

fn one<'a>(x: &[&'a Held]) -> Result<&'a Held, String> {
    x.first().copied().ok_or_else(|| "it has no operand".into())
}

fn two<'a>(x: &[&'a Held]) -> Result<(&'a Held, &'a Held), String> {
    match x {
        [a, b] => Ok((a, b)),
        _ => Err(format!("it has {} operands, two are expected", x.len())),
    }
}

/// The same values under the declared shape.
fn same(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    Ok(Held { shape: op.tensor.shape.clone(), ..one(x)?.clone() })
}

fn map(op: &XOp, x: &[&Held], f: impl Fn(f32) -> f32) -> Result<Held, String> {
    Ok(Held::float(&op.tensor.shape, one(x)?.floats().into_iter().map(f).collect()))
}

fn fold(op: &XOp, x: &[&Held], f: impl Fn(f32, f32) -> f32) -> Result<Held, String> {
    let shape = &op.tensor.shape;
    let mut all = x.iter().map(|x| broadcast(x, shape));
    let mut acc = all.next().ok_or("it has no operand")??;
    for next in all {
        acc.iter_mut().zip(next?).for_each(|(a, b)| *a = f(*a, b));
    }
    Ok(Held::float(shape, acc))
}

/// Real numbers repeated to a shape, as numpy does: aligned at the last dimension, sizes of 1 repeat.
fn broadcast(x: &Held, shape: &[usize]) -> Result<Vec<f32>, String> {
    let values = x.floats();
    if x.shape == shape {
        return Ok(values);
    }
    let fits =
        x.shape.len() <= shape.len() && x.shape.iter().rev().zip(shape.iter().rev()).all(|(a, b)| a == b || *a == 1);
    if !fits || values.len() != x.shape.iter().product::<usize>() {
        return Err(format!("an operand of shape {:?} doesn't fit {shape:?}", x.shape));
    }
    let count: usize = shape.iter().product();
    let at = |flat: usize| {
        let (mut rest, mut at, mut stride) = (flat, 0, 1);
        for (k, dim) in shape.iter().rev().enumerate() {
            let i = rest % dim;
            rest /= dim;
            if let Some(own) = x.shape.len().checked_sub(k + 1).and_then(|k| x.shape.get(k)) {
                at += if *own == 1 { 0 } else { i * stride };
                stride *= own;
            }
        }
        at
    };
    Ok((0..count).map(|flat| values.get(at(flat)).copied().unwrap_or(0.0)).collect())
}

fn prelu(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let (x, alpha) = two(x)?;
    let shape = &op.tensor.shape;
    let (x, alpha) = (broadcast(x, shape)?, broadcast(alpha, shape)?);
    let sloped = |(x, a): (f32, f32)| if x < 0.0 { x * a } else { x };
    Ok(Held::float(shape, x.into_iter().zip(alpha).map(sloped).collect()))
}

/// Indices along an axis; negative ones count from the end.
fn axis(value: i64, rank: usize) -> Result<usize, String> {
    let at = if value < 0 { value + rank as i64 } else { value };
    usize::try_from(at).ok().filter(|a| *a < rank).ok_or_else(|| format!("axis {value} is outside a rank of {rank}"))
}

/// The single axis that an operation names.
pub(super) fn one_axis(op: &XOp, rank: usize) -> Result<usize, String> {
    match op.attrs.ints("axis") {
        Some([a]) => axis(*a, rank),
        Some(other) => Err(format!("axes {other:?}; one is expected")),
        None => axis(op.attrs.int("axis").ok_or("it has no axis")?, rank),
    }
}

/// Values `[outer, n, inner]` around an axis.
fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

fn softmax(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let held = one(x)?;
    let (outer, n, inner) = around(&held.shape, one_axis(op, held.shape.len())?);
    let x = held.floats();
    let mut y = vec![0.0; x.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| (o * n + k) * inner + i;
        cpu::softmax(n, |k| x[at(k)], |k, v| y[at(k)] = v);
    }
    Ok(Held::float(&op.tensor.shape, y))
}

fn argmax(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    reduce(op, x, |v| {
        let best = v.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, v)| if *v > b.1 { (i, *v) } else { b });
        best.0 as f32
    })
}

/// One number of each line along one axis.
fn reduce(op: &XOp, x: &[&Held], f: impl Fn(&[f32]) -> f32) -> Result<Held, String> {
    let held = one(x)?;
    let (outer, n, inner) = around(&held.shape, one_axis(op, held.shape.len())?);
    let x = held.floats();
    let mut line = vec![0.0; n];
    let mut y = Vec::with_capacity(outer * inner);
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        line.iter_mut().enumerate().for_each(|(k, v)| *v = x[(o * n + k) * inner + i]);
        y.push(f(&line));
    }
    Ok(Held::float(&op.tensor.shape, y))
}

/// The order of a `transpose`: axis i of the result is axis `order[i]` of the operand.
pub(super) fn order(op: &XOp, rank: usize) -> Result<Vec<usize>, String> {
    let order = op.attrs.ints("order").ok_or("it has no order")?;
    let order: Vec<usize> = order.iter().map(|a| axis(*a, rank)).collect::<Result<_, _>>()?;
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(format!("order {order:?} is no order of {rank} axes"));
    }
    Ok(order)
}

fn transpose(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let held = one(x)?;
    let order = order(op, held.shape.len())?;
    let mut strides = vec![1usize; held.shape.len()];
    for i in (1..strides.len()).rev() {
        strides[i - 1] = strides[i] * held.shape[i];
    }
    let shape: Vec<usize> = order.iter().map(|a| held.shape[*a]).collect();
    let from = |flat: usize| {
        let (mut rest, mut at) = (flat, 0);
        for (dim, axis) in shape.iter().zip(&order).rev() {
            at += rest % dim * strides[*axis];
            rest /= dim;
        }
        at
    };
    let value = held.value.select((0..held.len()).map(from));
    Ok(Held { value, kind: held.kind, shape: op.tensor.shape.clone() })
}

fn concat(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let first = one(x)?;
    let axis = one_axis(op, first.shape.len())?;
    let fits = |h: &&Held| {
        h.shape.len() == first.shape.len()
            && h.shape.iter().zip(&first.shape).enumerate().all(|(k, (a, b))| a == b || k == axis)
    };
    if !x.iter().all(fits) {
        return Err("its operands have shapes that don't fit each other".into());
    }
    let (outer, _, inner) = around(&first.shape, axis);
    let rows: Vec<(Vec<f32>, usize)> = x.iter().map(|h| (h.floats(), h.shape[axis] * inner)).collect();
    let mut y = Vec::new();
    for o in 0..outer {
        rows.iter().for_each(|(v, len)| y.extend_from_slice(&v[o * len..(o + 1) * len]));
    }
    let all = Held::float(&op.tensor.shape, y);
    match crate::value::declared(&op.tensor)? {
        shiftwise_integer::graph::Kind::Fixed(pos) => {
            let q = quantize(&all.floats(), pos.0, shiftwise_core::arith::Round::HalfUp);
            Ok(Held::fixed(&op.tensor.shape, pos.0, q))
        }
        shiftwise_integer::graph::Kind::Float | shiftwise_integer::graph::Kind::Scaled(_) => Ok(all),
    }
}

/// Features `[1, c, n, 1]` put on a canvas `[1, c, h, w]` at the row and column that coordinates `[1, n, 4]` give in
/// places 2 and 3; a negative column ends the list.
fn scatter(op: &XOp, x: &[&Held]) -> Result<Held, String> {
    let (features, places) = two(x)?;
    let (&[1, c, n, 1], &[1, m, 4], &[1, oc, h, w]) = (&features.shape[..], &places.shape[..], &op.tensor.shape[..])
    else {
        return Err("features [1, c, n, 1], coordinates [1, n, 4] and a canvas [1, c, h, w] are expected".into());
    };
    if n != m || c != oc {
        return Err(format!("{n} features of {c} channels, {m} coordinates, a canvas of {oc} channels"));
    }
    let (features, places) = (features.floats(), places.floats());
    let mut canvas = vec![0.0; c * h * w];
    for i in 0..n {
        let (y, x) = (places[4 * i + 2], places[4 * i + 3]);
        if x < 0.0 {
            break;
        }
        if !(y >= 0.0 && (y as usize) < h && (x as usize) < w) {
            return Err(format!("coordinate {i} is ({y}, {x}), outside the canvas of {h} × {w}"));
        }
        let at = y as usize * w + x as usize;
        (0..c).for_each(|k| canvas[k * h * w + at] = features[k * n + i]);
    }
    Ok(Held::float(&op.tensor.shape, canvas))
}
