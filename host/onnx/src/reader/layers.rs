//! The layers of every operator that has some; what concerns a family stands in a file of its own.

use serde_json::json;

use shiftwise_graph::ops::BatchNormalization;
use shiftwise_graph::ops::{
    Activate, ActivationFn, Elu, GroupNormalization, LayerNormalization, LeakyRelu, Multiply, Op, PRelu, Relu, Softmax,
};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::reader::{Known, Step, Traced, one};
use crate::value::Element;

pub(crate) use super::by_parts::{
    einsum, lp_norm, reduced as reduced_by_parts, root_mean_square, swish, thresholded_relu,
};
pub(crate) use super::linear::{conv, conv_transpose, gemm, matmul};
pub(crate) use super::merges::{binary, concat, erf, guarded_quotient};
pub(crate) use super::pools::{average_pool, global_pool, max_pool, reduce};
pub(crate) use super::resizing::resize;
pub(crate) use super::shapes::{
    depth_to_space, flatten, gather, pad, reshape, shape, slice, space_to_depth, split, transpose,
};

/// What makes the layers of a node.
pub(crate) type LayerOf = fn(&mut Step<'_, '_>) -> Result<Vec<Known>, String>;

/// The order in which a value has its first axis, the channels, at the end of its node.
pub(crate) fn channels_last(rank: usize) -> Vec<usize> {
    if rank == 0 { Vec::new() } else { std::iter::once(rank - 1).chain(0..rank - 1).collect() }
}

/// The order in which an axis of a value is the last one of its node.
pub(crate) fn last(axis: usize, rank: usize) -> Vec<usize> {
    (0..rank).map(|i| if i == axis { rank - 1 } else { i - usize::from(i > axis) }).collect()
}

/// Adds a layer on elements, whatever the order of axes.
fn elementwise(step: &mut Step<'_, '_>, op: Op) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let id = step.add("", op, &[x.id])?;
    one(x.at(id))
}

/// Functions of TensorFlow's by ONNX' names.
const FUNCTIONS: &[(&str, &str)] = &[
    ("Abs", "math.abs"),
    ("Ceil", "math.ceil"),
    ("Exp", "math.exp"),
    ("Floor", "math.floor"),
    ("Log", "math.log"),
    ("Neg", "math.negative"),
    ("Reciprocal", "math.reciprocal"),
    ("Round", "math.round"),
    ("Sign", "math.sign"),
    ("Sqrt", "math.sqrt"),
];

pub(crate) fn function(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let name = FUNCTIONS.iter().find(|(own, _)| *own == step.node.op_type).map_or("identity", |(_, name)| name);
    let id = step.function("", name, &[x.id], (json!({ "tensor": 0 }), json!({})))?;
    one(x.at(id))
}

/// Activation functions by ONNX' names.
const ACTIVATIONS: &[(&str, ActivationFn)] = &[
    ("HardSwish", ActivationFn::HardSwish),
    ("Mish", ActivationFn::Mish),
    ("Sigmoid", ActivationFn::Sigmoid),
    ("Softplus", ActivationFn::Softplus),
    ("Softsign", ActivationFn::Softsign),
    ("Tanh", ActivationFn::Tanh),
];

pub(crate) fn activation(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let own = ACTIVATIONS.iter().find(|(own, _)| *own == step.node.op_type);
    let function = own.map_or(ActivationFn::Linear, |(_, function)| *function);
    elementwise(step, Op::Activation(Activate { function }))
}

pub(crate) fn relu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    elementwise(step, Op::Relu(Relu::PLAIN))
}

pub(crate) fn leaky_relu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let alpha = step.call.float("alpha", 0.01);
    elementwise(step, Op::LeakyRelu(LeakyRelu { alpha }))
}

pub(crate) fn elu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let alpha = step.call.float("alpha", 1.0);
    elementwise(step, Op::Elu(Elu { alpha }))
}

pub(crate) fn selu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let (alpha, gamma) = (step.call.float("alpha", 1.673_263_2), step.call.float("gamma", 1.050_701));
    if (alpha - 1.673_263_2).abs() > 1e-5 || (gamma - 1.050_701).abs() > 1e-5 {
        return Err(format!("has alpha {alpha} and gamma {gamma}; layers have 1.6732632 and 1.050701"));
    }
    elementwise(step, Op::Activation(Activate { function: ActivationFn::Selu }))
}

pub(crate) fn gelu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    if step.call.text("approximate", "none") == "tanh" {
        let x = step.layer(0)?;
        let id = step.function("", "nn.gelu", &[x.id], (json!({ "tensor": 0 }), json!({ "approximate": true })))?;
        return one(x.at(id));
    }
    elementwise(step, Op::Activation(Activate { function: ActivationFn::Gelu }))
}

pub(crate) fn hard_sigmoid(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let (alpha, beta) = (step.call.float("alpha", 0.2), step.call.float("beta", 0.5));
    let function = match (alpha, beta) {
        (0.2, 0.5) => ActivationFn::HardSigmoid,
        (a, 0.5) if (a - 1.0 / 6.0).abs() < 1e-6 => ActivationFn::HardSigmoid6,
        _ => {
            let x = step.layer(0)?;
            let tensor = json!({ "tensor": 0 });
            let scaled = step.function("_scale", "math.multiply", &[x.id], (tensor.clone(), json!({ "y": alpha })))?;
            let moved = step.function("_offset", "math.add", &[scaled], (tensor, json!({ "y": beta })))?;
            let id = step.add("", Op::Relu(Relu { max_value: Some(1.0), ..Relu::PLAIN }), &[moved])?;
            return one(x.at(id));
        }
    };
    elementwise(step, Op::Activation(Activate { function }))
}

pub(crate) fn clip(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let end = |k: usize, name: &str| -> Result<Option<f32>, String> {
        match (step.operand(k), step.call.optional(k)) {
            (Some(_), Some(value)) if value.len() == 1 => Ok(Some(value.numbers()[0] as f32)),
            (Some(_), _) => Err("has ends that are no numbers".into()),
            (None, _) if step.call.has(name) => Ok(Some(step.call.float(name, 0.0))),
            (None, _) => Ok(None),
        }
    };
    let (low, high) = (end(1, "min")?, end(2, "max")?);
    // Exporters write the largest float for no end.
    let high = high.filter(|h| *h < 1e30);
    if low == Some(0.0) && high.is_none_or(|h| h > 0.0) {
        return elementwise(step, Op::Relu(Relu { max_value: high, ..Relu::PLAIN }));
    }
    let x = step.layer(0)?;
    let ends = json!({
        "clip_value_min": low.unwrap_or(f32::MIN).max(f32::MIN), "clip_value_max": high.unwrap_or(f32::MAX),
    });
    let id = step.function("", "clip_by_value", &[x.id], (json!({ "tensor": 0 }), ends))?;
    one(x.at(id))
}

/// Layers that do nothing at inference.
pub(crate) fn identity(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    if step.call.optional(2).is_some_and(|t| t.integers().first() == Some(&1)) {
        return Err("drops elements at random, as in training; only inference is supported".into());
    }
    let x = step.layer(0)?;
    let masked = step.node.output.len() > 1 && step.reader.readers.contains_key(step.node.output[1].as_str());
    if masked || step.node.output.get(1).is_some_and(|name| step.reader.outputs.contains(name.as_str())) {
        return Err("has its mask read, which is no tensor of floats".into());
    }
    one(x)
}

pub(crate) fn cast(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let to = Element::of(i32::try_from(step.call.int("to", 1)).unwrap_or(0))?;
    match to {
        Element::Float => one(step.layer(0)?),
        other => Err(format!("makes {} of samples, and layers compute in float32", other.name())),
    }
}

/// A slope for each element or each channel.
pub(crate) fn prelu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let slopes = step.weights(1)?;
    let rank = x.order.len();
    let mut shape = slopes.shape().to_vec();
    if step.call.version < 7 && shape.len() == 1 && rank > 1 {
        shape.extend(std::iter::repeat_n(1, rank - 1));
    }
    while shape.len() > rank && shape[0] == 1 {
        shape.remove(0);
    }
    while shape.len() < rank {
        shape.insert(0, 1);
    }
    let slopes = slopes.reshaped(shape).filter(|s| s.shape().len() == rank);
    let slopes = slopes.ok_or("has slopes that differ between samples")?;
    let mut dims = vec![0; rank];
    x.order.iter().enumerate().for_each(|(own, node)| dims[*node] = own);
    let alpha = array::transpose(&slopes, &dims);
    let sizes = step.reader.shape(x.id);
    let shared =
        alpha.shape().iter().zip(&sizes).enumerate().filter(|(_, (a, d))| **a == 1 && **d != 1).map(|(i, _)| i + 1);
    let shared_axes = shared.collect();
    let id = step.add("", Op::PRelu(PRelu { alpha, shared_axes }), &[x.id])?;
    one(x.at(id))
}

pub(crate) fn softmax(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let rank = x.order.len();
    let old = step.call.version < 13;
    let axis = step.axis(step.call.int("axis", if old { 1 } else { -1 }), &x)?;
    let sample = step.sample(&x);
    if old && sample[axis + 1..].iter().any(|d| *d != 1) {
        return Err("works along several axes at once, which no layer does".into());
    }
    let want = last(axis, rank);
    // The node's own order will do if it has the axis at its end.
    let order = if x.flat.is_none() && x.order[axis] == rank - 1 { x.order.clone() } else { want };
    let id = step.reader.arranged(&x, &order)?;
    let op = match step.node.op_type.as_str() {
        "LogSoftmax" => Op::Activation(Activate { function: ActivationFn::LogSoftmax }),
        _ => Op::Softmax(Softmax { axis: -1 }),
    };
    let id = step.add("", op, &[id])?;
    one(Traced::ordered(id, &order))
}

pub(crate) fn batch_norm(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    if step.call.int("training_mode", 0) == 1 {
        return Err("normalizes by the batch's own statistics, as in training; only inference is supported".into());
    }
    let order = channels_last(x.order.len());
    let weights = |k: usize| -> Result<Tensor, String> {
        let own = step.weights(k)?;
        let len = own.data().len();
        own.reshaped(vec![len]).ok_or_else(|| "has weights that are damaged".to_owned())
    };
    let op = BatchNormalization {
        gamma: Some(weights(1)?),
        beta: Some(weights(2)?),
        mean: weights(3)?,
        variance: weights(4)?,
        epsilon: step.call.float("epsilon", 1e-5),
        momentum: f64::from(step.call.float("momentum", 0.9)),
    };
    let id = step.reader.arranged(&x, &order)?;
    let id = step.add("", Op::BatchNormalization(op), &[id])?;
    one(Traced::ordered(id, &order))
}

/// Scale and offset of a normalization, which are vectors.
fn scale_and_offset(step: &Step<'_, '_>, size: usize) -> Result<(Option<Tensor>, Option<Tensor>), String> {
    let of = |k: usize| -> Result<Option<Tensor>, String> {
        if step.operand(k).is_none() {
            return Ok(None);
        }
        let own = step.weights(k)?;
        let fits = own.data().len() == size;
        own.reshaped(vec![size]).filter(|_| fits).map(Some).ok_or_else(|| "has parameters that are no vector".into())
    };
    Ok((of(1)?, of(2)?))
}

pub(crate) fn layer_norm(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let rank = x.order.len();
    let axis = step.axis(step.call.int("axis", -1), &x)?;
    if axis + 1 != rank || step.node.output.len() > 1 {
        return Err("normalizes along several axes, or gives its statistics, which no layer does".into());
    }
    let size = step.sample(&x)[axis];
    let (gamma, beta) = scale_and_offset(step, size)?;
    let epsilon = step.call.float("epsilon", 1e-5);
    let order = if x.flat.is_none() && x.order[axis] == rank - 1 { x.order.clone() } else { (0..rank).collect() };
    let id = step.reader.arranged(&x, &order)?;
    let op = LayerNormalization { gamma, beta, epsilon, rms_scaling: false };
    let id = step.add("", Op::LayerNormalization(op), &[id])?;
    one(Traced::ordered(id, &order))
}

/// Group normalization, and instance normalization, whose groups are single channels.
pub(crate) fn group_norm(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let channels = step.sample(&x).first().copied().unwrap_or(1);
    let groups =
        if step.node.op_type == "InstanceNormalization" { channels } else { step.call.size("num_groups", 1)? };
    let (gamma, beta) = scale_and_offset(step, channels)?;
    let order = channels_last(x.order.len());
    let id = step.reader.arranged(&x, &order)?;
    let norm = LayerNormalization { gamma, beta, epsilon: step.call.float("epsilon", 1e-5), rms_scaling: false };
    let id = step.add("", Op::GroupNormalization(GroupNormalization { groups, norm }), &[id])?;
    one(Traced::ordered(id, &order))
}

/// Each element over a power of the sum of its neighbours' squares, along channels: the sums are a product with a matrix.
pub(crate) fn lrn(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let order = channels_last(x.order.len());
    let channels = step.sample(&x).first().copied().unwrap_or(1);
    let size = step.call.size("size", 1)?;
    let (alpha, beta) = (step.call.float("alpha", 1e-4), step.call.float("beta", 0.75));
    let bias = step.call.float("bias", 1.0);
    if size == 0 || channels > 1 << 10 {
        return Err(format!("sums {size} of {channels} channels, which no layer does"));
    }
    let (before, after) = ((size - 1) / 2, size / 2);
    let weight = |(from, to): (usize, usize)| {
        let near = from + before >= to && from <= to + after;
        if near { alpha / size as f32 } else { 0.0 }
    };
    let places = (0..channels).flat_map(|from| (0..channels).map(move |to| (from, to)));
    let band = Tensor::new(vec![channels, channels], places.map(weight).collect()).ok_or("has no channels")?;
    let id = step.reader.arranged(&x, &order)?;
    let tensor = json!({ "tensor": 0 });
    let square = step.function("_square", "math.square", &[id], (tensor.clone(), json!({})))?;
    let near = json!({ "b": super::merges::nested(&band)? });
    let sum = step.function("_sum", "linalg.matmul", &[square], (tensor.clone(), near))?;
    let moved = step.function("_bias", "math.add", &[sum], (tensor.clone(), json!({ "y": bias })))?;
    let power = step.function("_power", "math.pow", &[moved], (tensor.clone(), json!({ "y": -beta })))?;
    let id = step.add("", Op::Multiply(Multiply), &[id, power])?;
    one(Traced::ordered(id, &order))
}
