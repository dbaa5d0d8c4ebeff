//! Operators of several operands, and the functions that exporters write as several of them.

use serde_json::{Value as Json, json};

use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{Activate, ActivationFn, Add, Concatenate, Merge, Multiply, Op, Operand};
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

use crate::proto::NodeProto;
use crate::reader::{Known, Step, Traced, one};
use shiftwise_core::model::Combine;

/// Functions of two operands: ONNX' name, TensorFlow's.
const FUNCTIONS: &[(&str, &str)] = &[
    ("Add", "math.add"),
    ("Sum", "math.add"),
    ("Sub", "math.subtract"),
    ("Mul", "math.multiply"),
    ("Div", "math.truediv"),
    ("Pow", "math.pow"),
    ("Max", "math.maximum"),
    ("Min", "math.minimum"),
];

/// The layer of operands that are all made of samples, where Keras has one.
fn merging(operator: &str) -> Option<Op> {
    Some(match operator {
        "Add" | "Sum" => Op::Add(Add),
        "Mul" => Op::Multiply(Multiply),
        "Sub" => Op::Merge(Merge::Subtract),
        "Max" => Op::Merge(Merge::Maximum),
        "Min" => Op::Merge(Merge::Minimum),
        _ => return None,
    })
}

/// Elements of a constant that is an argument of a function: such constants are kept as text.
const MOST: usize = 1 << 20;

/// An array as nested lists, without leading axes of one element.
pub(super) fn nested(tensor: &Tensor) -> Result<Json, String> {
    if tensor.data().len() > MOST {
        return Err(format!("has a constant of {} elements, at most {MOST} are an argument", tensor.data().len()));
    }
    if tensor.data().iter().any(|x| !x.is_finite()) {
        return Err("has a constant that is no finite number".into());
    }
    fn list(shape: &[usize], data: &[f32]) -> Json {
        match shape {
            [] => json!(data.first()),
            [n, rest @ ..] => data.chunks_exact((data.len() / n.max(&1)).max(1)).map(|part| list(rest, part)).collect(),
        }
    }
    Ok(list(tensor.shape(), tensor.data()))
}

/// A constant operand with its axes as the node of a value has them.
fn aligned(step: &Step<'_, '_>, constant: &Tensor, x: &Traced) -> Result<Tensor, String> {
    let rank = x.order.len();
    let mut shape = constant.shape().to_vec();
    if shape.len() > rank + 1 {
        return Err(format!("has a constant of shape {shape:?}, of more axes than its samples have"));
    }
    if constant.data().len() == 1 {
        return constant.clone().reshaped(Vec::new()).ok_or_else(|| "has a damaged constant".into());
    }
    if step.call.version < 7 && step.call.int("broadcast", 0) == 1 && step.call.has("axis") {
        let behind = (rank + 1).checked_sub(step.call.axis("axis", 0, rank + 1)? + shape.len());
        shape.extend(std::iter::repeat_n(1, behind.ok_or("has an axis that its operands don't allow")?));
    }
    if shape.len() == rank + 1 && shape.remove(0) != 1 {
        return Err("has a constant that differs between samples".into());
    }
    while shape.len() < rank {
        shape.insert(0, 1);
    }
    let constant = constant.clone().reshaped(shape).ok_or("has a damaged constant")?;
    let mut dims = vec![0; rank];
    x.order.iter().enumerate().for_each(|(own, node)| dims[*node] = own);
    let turned = array::transpose(&constant, &dims);
    // Leading axes of one element are what broadcasting adds.
    let lead = turned.shape().iter().take_while(|d| **d == 1).count();
    let rest = turned.shape()[lead..].to_vec();
    turned.reshaped(rest).ok_or_else(|| "has a damaged constant".into())
}

pub(crate) fn binary(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    if let Some(found) = pattern(step)? {
        return one(found);
    }
    if step.operands() == 1 {
        return one(step.layer(0)?);
    }
    let layers: Vec<usize> =
        (0..step.operands()).filter(|k| matches!(step.operand(*k), Some(Known::Layer(_)))).collect();
    if layers.len() == step.operands() {
        return merged(step);
    }
    if step.operands() != 2 {
        return Err("has constants among more than two operands, which no layer has".into());
    }
    let own = FUNCTIONS.iter().find(|(own, _)| *own == step.node.op_type);
    let function = own.map(|(_, function)| *function).ok_or("is no function of two operands")?;
    let k = layers.first().copied().ok_or("has no samples")?;
    let x = step.layer(k)?;
    // A flattened value has another order than its node.
    let x = if x.flat.is_some() { Traced::plain(step.reader.plain(&x)?, 1) } else { x };
    let constant = step.weights(1 - k)?;
    let constant = aligned(step, &constant, &x)?;
    let (first, second) = if k == 0 {
        (json!({ "tensor": 0 }), nested(&constant)?)
    } else {
        (nested(&constant)?, json!({ "tensor": 0 }))
    };
    let id = step.function("", function, &[x.id], (first, json!({ "y": second })))?;
    one(x.at(id))
}

/// Operands that are all made of samples, with their axes in one order.
fn merged(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let all = (0..step.operands()).map(|k| step.layer(k)).collect::<Result<Vec<_>, _>>()?;
    let (ids, order) = alike(step, &all)?;
    let id = match merging(&step.node.op_type) {
        Some(op) => step.add("", op, &ids)?,
        None => {
            let own = FUNCTIONS.iter().find(|(own, _)| *own == step.node.op_type);
            let function = own.map(|(_, function)| *function).ok_or("is no function of two operands")?;
            step.function("", function, &ids, (json!({ "tensor": 0 }), json!({ "y": { "tensor": 1 } })))?
        }
    };
    one(Traced::ordered(id, &order))
}

/// Nodes that hold values with their axes in one order, and that order.
fn alike(step: &mut Step<'_, '_>, all: &[Traced]) -> Result<(Vec<NodeId>, Vec<usize>), String> {
    let rank = all.first().map_or(0, |x| x.order.len());
    if all.iter().any(|x| x.order.len() != rank) {
        return Err("has operands of different numbers of axes, which would mix samples".into());
    }
    // The order that the largest operand's node has.
    let size = |x: &&Traced| step.sample(x).iter().product::<usize>();
    let best = all.iter().filter(|x| x.flat.is_none()).max_by_key(size);
    let order = best.map_or_else(|| (0..rank).collect(), |x| x.order.clone());
    let ids = all.iter().map(|x| step.reader.arranged(x, &order)).collect::<Result<Vec<_>, _>>()?;
    Ok((ids, order))
}

/// The quotient that is 0 where its divisor is, as exporters write it: `Where(Equal(y, 0), 0, Div(x, y))`.
pub(crate) fn guarded_quotient(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let alone = || "compares samples, which no layer does".to_owned();
    let node = step.node;
    let output = node.output.first().map_or("", String::as_str);
    let chosen = step.only_reader(output).filter(|next| next.op_type == "Where" && next.input.len() == 3);
    let chosen = chosen.filter(|next| next.input[0] == output).ok_or_else(alone)?;
    let quotient = step.maker(&chosen.input[2]).filter(|n| n.op_type == "Div" && n.input.len() == 2);
    let quotient = quotient.ok_or_else(alone)?;
    let divisor = &quotient.input[1];
    let zero = other(node, divisor).ok_or_else(alone)?;
    for name in [zero, chosen.input[1].as_str()] {
        let constant = step.constant(name)?.ok_or_else(alone)?;
        if constant.len() != 1 || constant.numbers() != [0.0] {
            return Err(alone());
        }
    }
    let sides = [quotient.input[0].as_str(), divisor.as_str()].map(|name| step.reader.operand(name));
    let [Ok(Some(Known::Layer(x))), Ok(Some(Known::Layer(y)))] = sides else { return Err(alone()) };
    let (ids, order) = alike(step, &[x, y])?;
    let call = (json!({ "tensor": 0 }), json!({ "y": { "tensor": 1 } }));
    let made = Traced::ordered(step.function("", "math.divide_no_nan", &ids, call)?, &order);
    step.take(chosen, made.clone());
    one(made)
}

/// The functions of mobile networks that exporters write as products: x · sigmoid(x), x · hardsigmoid(x), and the hard
/// sigmoid itself as relu6(x + 3) / 6.
fn pattern(step: &mut Step<'_, '_>) -> Result<Option<Traced>, String> {
    if !["Mul", "Div"].contains(&step.node.op_type.as_str()) || step.operands() != 2 {
        return Ok(None);
    }
    let layers: Vec<Traced> = (0..2).filter_map(|k| step.layer(k).ok()).collect();
    let found = match &layers[..] {
        [a, b] if step.node.op_type == "Mul" => [(a, b), (b, a)].into_iter().find_map(|(x, gate)| {
            let (op, inputs) = step.made(gate.id);
            let own = inputs == [x.id] && x.order == gate.order;
            match op {
                Op::Activation(a) if own && a.function == ActivationFn::Sigmoid => {
                    Some((x.clone(), ActivationFn::Swish))
                }
                Op::Activation(a) if own && a.function == ActivationFn::HardSigmoid6 => {
                    Some((x.clone(), ActivationFn::HardSwish))
                }
                _ => None,
            }
        }),
        [y] => {
            let k = usize::from(matches!(step.operand(0), Some(Known::Layer(_))));
            let factor = step.call.optional(k).filter(|v| v.len() == 1).map(|v| v.numbers()[0]);
            let sixth = match (step.node.op_type.as_str(), k) {
                ("Mul", _) => factor.is_some_and(|f| (f - 1.0 / 6.0).abs() < 1e-6),
                ("Div", 1) => factor == Some(6.0),
                _ => false,
            };
            if sixth { sixth_of(step, y) } else { None }
        }
        _ => None,
    };
    let Some((x, function)) = found else { return Ok(None) };
    let id = step.add("", Op::Activation(Activate { function }), &[x.id])?;
    Ok(Some(x.at(id)))
}

/// What a sixth of a value is: of relu6(x + 3) the hard sigmoid, of x · relu6(x + 3) the hard swish.
fn sixth_of(step: &Step<'_, '_>, y: &Traced) -> Option<(Traced, ActivationFn)> {
    let (op, inputs) = step.made(y.id);
    match (op, inputs) {
        (Op::Relu(_), _) => lifted(step, y.id).map(|id| (y.at(id), ActivationFn::HardSigmoid6)),
        (Op::Multiply(_), [a, b]) => {
            let x = [(*a, *b), (*b, *a)].into_iter().find(|(x, gate)| lifted(step, *gate) == Some(*x));
            x.map(|(x, _)| (y.at(x), ActivationFn::HardSwish))
        }
        _ => None,
    }
}

/// The node x of relu6(x + 3).
fn lifted(step: &Step<'_, '_>, id: NodeId) -> Option<NodeId> {
    let (Op::Relu(relu), [sum]) = step.made(id) else { return None };
    let six = relu.max_value == Some(6.0) && relu.negative_slope == 0.0 && relu.threshold == 0.0;
    let (Op::TfOp(add), [x]) = step.made(*sum) else { return None };
    let three = |o: &Operand| matches!(o, Operand::Constant(t) if t.data() == [3.0]);
    (six && matches!(add.kind, Kind::Binary(Combine::Add)) && add.operands.iter().any(three)).then_some(*x)
}

/// The GELU that is written with the error function: 0.5 · x · (1 + erf(x / √2)) in any of its orders.
pub(crate) fn erf(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let node = step.node;
    let scaled = node.input.first().and_then(|name| step.maker(name)).ok_or_else(alone)?;
    let (x, factor) = scalar(step, scaled)?.ok_or_else(alone)?;
    let root = std::f64::consts::FRAC_1_SQRT_2;
    let factor = if scaled.op_type == "Div" { 1.0 / factor } else { factor };
    if (factor - root).abs() > 1e-4 || !["Div", "Mul"].contains(&scaled.op_type.as_str()) {
        return Err(alone());
    }
    let add = next(step, node, "Add")?;
    if scalar(step, add)?.is_none_or(|(_, one)| one != 1.0) {
        return Err(alone());
    }
    let first = next(step, add, "Mul")?;
    let sum = add.output.first().map_or("", String::as_str);
    let last = match scalar(step, first)? {
        // (1 + erf) · 0.5, then · x.
        Some((_, 0.5)) => {
            let own = first.output.first().map_or("", String::as_str);
            Some(next(step, first, "Mul")?).filter(|last| other(last, own) == Some(x))
        }
        Some(_) => None,
        None => {
            let factor = other(first, sum).ok_or_else(alone)?;
            let half = step.maker(factor).filter(|n| n.op_type == "Mul");
            let halved = match half {
                Some(half) => scalar(step, half)?.is_some_and(|(name, value)| name == x && value == 0.5),
                None => false,
            };
            if factor == x {
                let last = next(step, first, "Mul")?;
                let halves = scalar(step, last)?.is_some_and(|(_, value)| value == 0.5);
                halves.then_some(last)
            } else if halved {
                Some(first)
            } else {
                None
            }
        }
    };
    let last = last.ok_or_else(alone)?;
    let Some(Known::Layer(source)) = step.reader.operand(x)? else { return Err(alone()) };
    let id = step.add("", Op::Activation(Activate { function: ActivationFn::Gelu }), &[source.id])?;
    let gelu = source.at(id);
    for node in [add, first, last] {
        step.take(node, gelu.clone());
    }
    one(gelu)
}

/// The only reader of a node's result, if that is of an operator.
fn next<'a>(step: &Step<'_, 'a>, node: &NodeProto, operator: &str) -> Result<&'a NodeProto, String> {
    let reader = node.output.first().and_then(|name| step.only_reader(name));
    reader.filter(|n| n.op_type == operator).ok_or_else(alone)
}

/// What is said of an error function that is no part of a GELU.
fn alone() -> String {
    "is an error function outside of a GELU, which no layer computes".into()
}

/// The operand of a node of two that is not this one.
fn other<'a>(node: &'a NodeProto, name: &str) -> Option<&'a str> {
    match &node.input[..] {
        [a, b] if a == name => Some(b),
        [a, b] if b == name => Some(a),
        _ => None,
    }
}

/// A node's operand that is no constant, and its operand that is one number.
fn scalar<'a>(step: &mut Step<'_, 'a>, node: &'a NodeProto) -> Result<Option<(&'a str, f64)>, String> {
    let [a, b] = &node.input[..] else { return Ok(None) };
    for (x, c) in [(a, b), (b, a)] {
        if let Some(value) = step.constant(c)?.filter(|v| v.len() == 1) {
            return Ok(Some((x, value.numbers()[0])));
        }
    }
    Ok(None)
}

pub(crate) fn concat(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let all = (0..step.operands()).map(|k| step.layer(k)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = all.first() else { return Err("has no operands".into()) };
    if let [only] = &all[..] {
        return one(only.clone());
    }
    let axis = step.axis(step.call.int("axis", 1), first)?;
    let best = all.iter().find(|x| x.flat.is_none() && x.order.len() == first.order.len());
    let order = best.map_or_else(|| vec![0], |x| x.order.clone());
    if all.iter().any(|x| x.order.len() != order.len()) {
        return Err("joins samples of different numbers of axes".into());
    }
    let ids = all.iter().map(|x| step.reader.arranged(x, &order)).collect::<Result<Vec<_>, _>>()?;
    let id = step.add("", Op::Concatenate(Concatenate { axis: order[axis] }), &ids)?;
    one(Traced::ordered(id, &order))
}
