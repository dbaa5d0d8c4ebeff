//! Functions of elements, and those of TensorFlow, as operators.

use shiftwise_core::model::{Combine, Function};
use shiftwise_graph::ops::tfop::{Kind, Part, subscript};
use shiftwise_graph::ops::{Operand, TfOp};
use shiftwise_tensor::tensor::Tensor;

use crate::{Along, Operators, Walk, Written};

/// Two values combined. Every format has the combinations that this is called for.
pub(crate) fn combined<F: Operators>(f: &mut F, combine: Combine, name: &str, both: [&str; 2]) -> String {
    let operator = f.binary(combine).unwrap_or_default();
    f.operator(operator, name, &both)
}

/// A value combined with a constant. The operator is named after a label, or after itself.
fn with<F: Operators>(f: &mut F, combine: Combine, scope: &str, label: Option<&str>, x: &str, constant: f32) -> String {
    let operator = f.binary(combine).unwrap_or_default();
    let name = f.named_with(operator, scope, label);
    let constant = f.number(&format!("{name}/y"), constant);
    f.operator(operator, &name, &[x, &constant])
}

/// A function of each element.
pub(crate) fn function<F: Operators>(f: &mut F, function: Function, scope: &str, x: String) -> Result<String, String> {
    if function == Function::Identity {
        return Ok(x);
    }
    match f.unary(function, scope, &x) {
        Some(value) => Ok(value),
        None => by_parts(f, function, scope, &x),
    }
}

/// Functions that are several operators.
fn by_parts<F: Operators>(f: &mut F, function: Function, scope: &str, x: &str) -> Result<String, String> {
    use Combine::{Add, Divide, Minimum, Multiply, Subtract};
    let part = |part: &str| format!("{scope}/{part}");
    Ok(match function {
        Function::Relu { max, slope: 0.0, threshold: 0.0 } => f.bounded(scope, x, max),
        Function::Relu { max, slope, threshold } => {
            let bound = f.number(&part("threshold"), threshold);
            let below = f.operator("Less", &part("Less"), &[x, &bound]);
            let moved = match F::SHARES_CONSTANTS {
                true => combined(f, Subtract, &part("sub"), [x, &bound]),
                false => with(f, Subtract, scope, None, x, threshold),
            };
            let small = with(f, Multiply, scope, None, &moved, slope);
            let y = f.operator(F::SELECT, &part(F::SELECT), &[&below, &small, x]);
            if max == f32::INFINITY { y } else { with(f, Minimum, scope, None, &y, max) }
        }
        Function::Swish => {
            let gate = f.operator("Sigmoid", &part("Sigmoid"), &[x]);
            combined(f, Multiply, &part("mul"), [x, &gate])
        }
        Function::Gelu => {
            let inner = with(f, Multiply, scope, Some("inner"), x, std::f32::consts::FRAC_1_SQRT_2);
            let erf = f.operator("Erf", &part("Erf"), &[&inner]);
            let sum = with(f, Add, scope, None, &erf, 1.0);
            let half = with(f, Multiply, scope, Some("half"), x, 0.5);
            combined(f, Multiply, &part("mul"), [&half, &sum])
        }
        Function::GeluTanh => {
            let square = f.squared(scope, "square", x);
            let cube = combined(f, Multiply, &part("cube"), [&square, x]);
            let small = with(f, Multiply, scope, Some("part"), &cube, 0.044_715);
            let sum = combined(f, Add, &part("sum"), [x, &small]);
            let inner = with(f, Multiply, scope, Some("inner"), &sum, 0.797_884_6);
            let tanh = f.operator("Tanh", &part("Tanh"), &[&inner]);
            let one = with(f, Add, scope, None, &tanh, 1.0);
            let half = with(f, Multiply, scope, Some("half"), x, 0.5);
            combined(f, Multiply, &part("mul"), [&half, &one])
        }
        Function::HardSigmoid => {
            let scaled = with(f, Multiply, scope, None, x, 0.2);
            let moved = with(f, Add, scope, None, &scaled, 0.5);
            f.bounded(scope, &moved, 1.0)
        }
        Function::HardSigmoid6 | Function::DpuHardSigmoid | Function::HardSwish => {
            let sum = with(f, Add, scope, None, x, 3.0);
            let six = f.bounded(scope, &sum, 6.0);
            match function {
                Function::DpuHardSigmoid => with(f, Multiply, scope, None, &six, 2731.0 / 16384.0),
                Function::HardSigmoid6 => with(f, Divide, scope, None, &six, 6.0),
                _ => {
                    let gate = with(f, Divide, scope, None, &six, 6.0);
                    combined(f, Multiply, &part("mul"), [x, &gate])
                }
            }
        }
        Function::Mish => {
            let soft = f.operator("Softplus", &part("Softplus"), &[x]);
            let tanh = f.operator("Tanh", &part("Tanh"), &[&soft]);
            combined(f, Multiply, &part("mul"), [x, &tanh])
        }
        Function::Scale(factor) => with(f, Multiply, scope, None, x, factor),
        Function::Square => f.squared(scope, "Square", x),
        Function::InverseRoot => {
            let root = f.operator("Sqrt", &part("Sqrt"), &[x]);
            f.operator("Reciprocal", &part("Reciprocal"), &[&root])
        }
        other => return Err(format!("the function {other:?} is not written {}", F::FORMAT)),
    })
}

impl<F: Operators> Walk<'_, F> {
    /// A function of TensorFlow's.
    pub(crate) fn tf_op(&mut self, op: &TfOp, w: &Written<'_>) -> Result<String, String> {
        if let Kind::MatMul { transpose } = op.kind {
            return self.format.product(w, op, transpose);
        }
        let f = &mut self.format;
        let operands = op.operands.iter().enumerate().map(|(k, own)| operand(f, w, k, own));
        let operands = operands.collect::<Result<Vec<_>, _>>()?;
        let all: Vec<&str> = operands.iter().map(String::as_str).collect();
        let x = *all.first().ok_or("has no operands")?;
        match &op.kind {
            Kind::Unary(own) => function(f, *own, w.name, x.to_owned()),
            Kind::Chain(functions) => {
                functions.iter().try_fold(x.to_owned(), |value, own| function(f, *own, w.name, value))
            }
            Kind::Binary(combine) => binary(f, *combine, w.name, all.get(..2).ok_or("has not two operands")?),
            Kind::Clip => {
                let [_, low, high] = all[..] else { return Err("has not two bounds".into()) };
                Ok(f.clipped(w.name, x, low, high))
            }
            Kind::Rows(rows, axis) => f.row_function(*rows, w.name, x, *axis, w.shape.len() + 1),
            Kind::Resize { method, .. } => f.resized(w, *method),
            _ => moves(f, op, w, &all),
        }
    }
}

/// An operand of a function of TensorFlow's.
///
/// Errors: an operand that is no input.
pub fn operand<F: Operators>(f: &mut F, w: &Written<'_>, k: usize, own: &Operand) -> Result<String, String> {
    match own {
        Operand::Tensor(i) => w.inputs.get(*i).cloned().ok_or_else(|| "has an operand that is no input".into()),
        Operand::Constant(tensor) => Ok(constant(f, w, k, tensor)),
    }
}

/// The constant that is operand `k` of a function of TensorFlow's.
pub fn constant<F: Operators>(f: &mut F, w: &Written<'_>, k: usize, tensor: &Tensor) -> String {
    f.tensor(&format!("{}/constant_{k}", w.name), tensor)
}

/// Functions that only move or fold elements.
fn moves<F: Operators>(f: &mut F, op: &TfOp, w: &Written<'_>, all: &[&str]) -> Result<String, String> {
    let part = |p: &str| format!("{}/{p}", w.name);
    let x = all[0];
    let rank = w.shapes.first().map_or(0, |s| s.len() + 1) as i64;
    let axis = |a: i64| if a < 0 { a + rank } else { a };
    Ok(match &op.kind {
        Kind::Reduce { by, axes, keep } => {
            let axes = axes.as_ref().ok_or("a fold of everything mixes samples")?;
            let axes: Vec<i64> = axes.iter().map(|a| axis(*a)).collect();
            f.reduced(*by, w.name, None, x, &axes, *keep)
        }
        Kind::Concat(a) => f.joined(&part("concat"), all, axis(*a)),
        Kind::Reshape(_) | Kind::ExpandDims(_) | Kind::Squeeze(_) => f.reshaped(&part("Reshape"), x, w.shape),
        Kind::Transpose(Some(order)) => {
            let order: Vec<i64> = order.iter().map(|a| axis(*a)).collect();
            f.turned(&part("transpose"), x, &order)
        }
        Kind::Pad { widths, value } => f.padded(w.name, x, widths, Some(*value)),
        Kind::Slice(parts) => subscripted(f, parts, w, x)?,
        Kind::Gather { axis, indices, .. } => {
            let y = f.gathered(w.name, x, indices, *axis);
            f.reshaped(&part("Reshape"), &y, w.shape)
        }
        Kind::Reverse(axes) => f.reversed(w.name, x, axes),
        Kind::DepthToSpace(block) => f.blocks(true, w.name, x, *block),
        Kind::SpaceToDepth(block) => f.blocks(false, w.name, x, *block),
        _ => return Err(format!("the function `{}` is not written {}", op.function, F::FORMAT)),
    })
}

/// Two values combined, under the operator's own name.
fn binary<F: Operators>(f: &mut F, combine: Combine, scope: &str, both: &[&str]) -> Result<String, String> {
    match (f.binary(combine), combine) {
        (Some(operator), _) => Ok(f.operator(operator, &format!("{scope}/{operator}"), both)),
        (None, Combine::SquaredDifference) => {
            let difference = combined(f, Combine::Subtract, &format!("{scope}/sub"), [both[0], both[1]]);
            Ok(combined(f, Combine::Multiply, &format!("{scope}/mul"), [&difference, &difference]))
        }
        (None, other) => Err(format!("the function {other:?} of two is not written {}", F::FORMAT)),
    }
}

/// A subscript: of each axis its elements, where they are not all.
fn subscripted<F: Operators>(f: &mut F, parts: &[Part], w: &Written<'_>, x: &str) -> Result<String, String> {
    let shape = w.shapes.first().ok_or("has no operands")?;
    let whole = [&[1], *shape].concat();
    let (along, _) = subscript(parts, &whole)?;
    let all = along.into_iter().enumerate().skip(1);
    let some = all.filter(|(axis, own)| *own != (0, whole[*axis], 1));
    let along: Vec<Along> = some.map(|(axis, (start, count, step))| Along { axis, start, count, step }).collect();
    let y = f.strided(w.name, x, &along);
    Ok(f.reshaped(&format!("{}/Reshape", w.name), &y, w.shape))
}
