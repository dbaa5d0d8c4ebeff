//! Operators that are several layers: folds of functions, norms, sums of products by letters.

use serde_json::json;

use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Activate, ActivationFn, Multiply, Op, Relu, RmsNormalization, UnitNormalization};
use shiftwise_tensor::array;

use crate::ops::einsum::Equation;
use crate::ops::sums::fold_axes;
use crate::reader::layers::last;
use crate::reader::linear::dense;
use crate::reader::{Known, Step, Traced, one};

/// A function of one value.
fn of(step: &mut Step<'_, '_>, suffix: &str, function: &str, id: NodeId) -> Result<NodeId, String> {
    step.function(suffix, function, &[id], (json!({ "tensor": 0 }), json!({})))
}

/// A value with its axes where an operator wants them: axis i is axis `order[i]` of the old one.
fn reordered(step: &mut Step<'_, '_>, x: &Traced, order: &[usize]) -> Result<Traced, String> {
    let x = if x.flat.is_some() { Traced::plain(step.reader.plain(x)?, x.order.len()) } else { x.clone() };
    Ok(Traced::ordered(x.id, &order.iter().map(|i| x.order[*i]).collect::<Vec<_>>()))
}

/// Functions before and behind a fold: of `reduce_max` for the logarithm of a sum of exponentials too.
const FOLDS: &[(&str, Option<&str>, Option<&str>)] = &[
    ("ReduceL1", Some("math.abs"), None),
    ("ReduceL2", Some("math.square"), Some("math.sqrt")),
    ("ReduceLogSum", None, Some("math.log")),
    ("ReduceLogSumExp", Some("math.exp"), Some("math.log")),
    ("ReduceSumSquare", Some("math.square"), None),
];

/// Folds of functions of elements.
pub(crate) fn reduced(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let rank = x.order.len();
    let x = reordered(step, &x, &(0..rank).collect::<Vec<_>>())?;
    let axes = fold_axes(&step.call, rank + 1)?;
    if axes.contains(&0) || axes.is_empty() {
        return Err("folds the batch, which mixes samples, or nothing".into());
    }
    let keep = step.call.int("keepdims", 1) == 1;
    let mut own: Vec<usize> = axes.iter().map(|a| x.order[a - 1] + 1).collect();
    own.sort_unstable();
    own.dedup();
    let kept: Vec<usize> = (0..rank).filter(|i| keep || !axes.contains(&(i + 1))).map(|i| x.order[i]).collect();
    let order: Vec<usize> = kept.iter().map(|a| kept.iter().filter(|b| *b < a).count()).collect();
    let fold = |step: &mut Step<'_, '_>, suffix: &str, by: &str, id: NodeId, keep: bool| {
        let call = (json!({ "tensor": 0 }), json!({ "axis": own, "keepdims": keep }));
        step.function(suffix, &format!("math.reduce_{by}"), &[id], call)
    };
    let row = FOLDS.iter().find(|(name, ..)| *name == step.node.op_type);
    let (_, before, behind) = row.ok_or("is a fold that no layer does")?;
    let stable = step.node.op_type == "ReduceLogSumExp";
    let mut id = x.id;
    if stable {
        // Exponentials of what is left without the largest never overflow.
        let most = fold(step, "_most", "max", id, true)?;
        let both = (json!({ "tensor": 0 }), json!({ "y": { "tensor": 1 } }));
        id = step.function("_less", "math.subtract", &[id, most], both)?;
    }
    if let Some(function) = before {
        id = of(step, "_each", function, id)?;
    }
    let end = behind.map_or("", |_| "_sum");
    id = fold(step, end, "sum", id, keep)?;
    if let Some(function) = behind {
        id = of(step, if stable { "_log" } else { "" }, function, id)?;
    }
    if stable {
        let most = fold(step, "_largest", "max", x.id, keep)?;
        let both = (json!({ "tensor": 0 }), json!({ "y": { "tensor": 1 } }));
        id = step.function("", "math.add", &[id, most], both)?;
    }
    one(Traced::ordered(id, &order))
}

/// Rows along an axis brought to length 1.
pub(crate) fn lp_norm(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let axis = step.axis(step.call.int("axis", -1), &x)?;
    if step.call.int("p", 2) != 2 {
        return Err("divides by sums of magnitudes, which no layer does".into());
    }
    let order = last(axis, x.order.len());
    let id = step.reader.arranged(&x, &order)?;
    let id = step.add("", Op::UnitNormalization(UnitNormalization), &[id])?;
    one(Traced::ordered(id, &order))
}

/// Rows along the last axis over their root mean square.
pub(crate) fn root_mean_square(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let rank = x.order.len();
    let axis = step.axis(step.call.int("axis", -1), &x)?;
    let scale = step.weights(1)?;
    let size = step.sample(&x)[axis];
    if axis + 1 != rank || scale.data().len() != size {
        return Err("normalizes along several axes, which no layer does".into());
    }
    let scale = scale.reshaped(vec![size]).ok_or("has a scale that is no vector")?;
    let id = step.reader.plain(&x)?;
    let op = RmsNormalization { scale, epsilon: step.call.float("epsilon", 1e-5) };
    let id = step.add("", Op::RmsNormalization(op), &[id])?;
    one(Traced::plain(id, rank))
}

/// x for x > alpha, else 0: the layer's own threshold belongs to what is kept.
pub(crate) fn thresholded_relu(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let threshold = step.call.float("alpha", 1.0).next_up();
    let id = step.add("", Op::Relu(Relu { threshold, ..Relu::PLAIN }), &[x.id])?;
    one(x.at(id))
}

/// x · sigmoid(alpha · x).
pub(crate) fn swish(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    let x = step.layer(0)?;
    let alpha = step.call.float("alpha", 1.0);
    let activate = |function| Op::Activation(Activate { function });
    if alpha == 1.0 {
        let id = step.add("", activate(ActivationFn::Swish), &[x.id])?;
        return one(x.at(id));
    }
    let factor = (json!({ "tensor": 0 }), json!({ "y": alpha }));
    let scaled = step.function("_scale", "math.multiply", &[x.id], factor)?;
    let gate = step.add("_gate", activate(ActivationFn::Sigmoid), &[scaled])?;
    let id = step.add("", Op::Multiply(Multiply), &[x.id, gate])?;
    one(x.at(id))
}

/// Sums of products of two operands that are products of matrices, and axes in another order.
pub(crate) fn einsum(step: &mut Step<'_, '_>) -> Result<Vec<Known>, String> {
    const UNDONE: &str = "has an equation that is no product of matrices, which no layer does";
    let text = step.call.text("equation", "");
    let mut ranks = Vec::new();
    for k in 0..step.operands() {
        ranks.push(match step.layer(k) {
            Ok(traced) => traced.order.len() + 1,
            Err(_) => step.weights(k)?.shape().len(),
        });
    }
    let Equation { operands, result } = Equation::read(&text, &ranks)?;
    let made = match (&operands[..], step.layer(0), step.layer(1)) {
        ([a], Ok(x), _) => {
            let x = reordered(step, &x, &(0..x.order.len()).collect::<Vec<_>>())?;
            (a.first() == result.first() && a.len() == result.len()).then(|| (x, a[1..].to_vec()))
        }
        ([a, w], Ok(x), Err(_)) => by_constant(step, (&x, a), (1, w), &result)?,
        ([w, a], Err(_), Ok(x)) => by_constant(step, (&x, a), (0, w), &result)?,
        ([a, b], Ok(x), Ok(y)) => products(step, (&x, a), (&y, b), &result)?,
        _ => None,
    };
    let (value, letters) = made.ok_or(UNDONE)?;
    let order: Option<Vec<usize>> = result[1..].iter().map(|c| letters.iter().position(|own| own == c)).collect();
    let order = order.filter(|all| all.len() == letters.len()).ok_or(UNDONE)?;
    one(reordered(step, &value, &order)?)
}

/// A value of samples and the letters of its axes, without that of the batch.
type Lettered = Option<(Traced, Vec<char>)>;

/// Samples times a constant matrix: one letter of both is summed, one of the constant is new.
fn by_constant(
    step: &mut Step<'_, '_>,
    (x, own): (&Traced, &[char]),
    (k, weights): (usize, &[char]),
    result: &[char],
) -> Result<Lettered, String> {
    let [batch, rest @ ..] = own else { return Ok(None) };
    let (summed, new) = match weights {
        [a, b] if rest.contains(a) && !own.contains(b) => (*a, *b),
        [a, b] if rest.contains(b) && !own.contains(a) => (*b, *a),
        _ => return Ok(None),
    };
    if result.first() != Some(batch) || result.contains(&summed) || !result.contains(&new) {
        return Ok(None);
    }
    let kernel = step.weights(k)?;
    let kernel = if weights[0] == summed { kernel } else { array::transpose(&kernel, &[1, 0]) };
    let at = rest.iter().position(|c| *c == summed).unwrap_or(0);
    let order: Vec<usize> = (0..rest.len()).filter(|i| *i != at).chain([at]).collect();
    let x = reordered(step, x, &order)?;
    let made = dense(step, &x, kernel, None)?;
    let letters = order[..order.len() - 1].iter().map(|i| rest[*i]).chain([new]).collect();
    Ok(Some((made, letters)))
}

/// Products of the matrices of two values: letters of both and the result are kept apart, one of both is summed, and each has
/// one of its own.
fn products(
    step: &mut Step<'_, '_>,
    (x, a): (&Traced, &[char]),
    (y, b): (&Traced, &[char]),
    result: &[char],
) -> Result<Lettered, String> {
    let (Some(batch), Some(other)) = (a.first(), b.first()) else { return Ok(None) };
    if batch != other || result.first() != Some(batch) {
        return Ok(None);
    }
    let of =
        |all: &[char], keep: &dyn Fn(&char) -> bool| all[1..].iter().copied().filter(|c| keep(c)).collect::<Vec<_>>();
    let apart = of(a, &|c| b.contains(c) && result.contains(c));
    let summed = of(a, &|c| b.contains(c) && !result.contains(c));
    let (mine, theirs) = (of(a, &|c| !b.contains(c)), of(b, &|c| !a.contains(c)));
    let ([k], [m], [n]) = (&summed[..], &mine[..], &theirs[..]) else { return Ok(None) };
    if a.len() != apart.len() + 3 || b.len() != apart.len() + 3 {
        return Ok(None);
    }
    let placed = |all: &[char], end: [char; 2]| -> Vec<usize> {
        let want = apart.iter().copied().chain(end);
        want.filter_map(|c| all[1..].iter().position(|own| *own == c)).collect()
    };
    let (x, y) = (reordered(step, x, &placed(a, [*m, *k]))?, reordered(step, y, &placed(b, [*k, *n]))?);
    let ids = [step.reader.plain(&x)?, step.reader.plain(&y)?];
    let call = (json!({ "tensor": 0 }), json!({ "b": { "tensor": 1 } }));
    let id = step.function("", "linalg.matmul", &ids, call)?;
    Ok(Some((Traced::plain(id, apart.len() + 2), apart.iter().copied().chain([*m, *n]).collect())))
}
