//! Operators on elements of equal places: what they compute of values.

use shiftwise_tensor::broadcast::{broadcast, offsets};

use crate::ops::call::{Call, Results};
use crate::value::{Data, Element, Value};

/// A function of each element. `whole` is the function of whole numbers, for operators that have one.
pub(crate) fn unary(call: &Call<'_>, real: impl Fn(f64) -> f64, whole: Option<fn(i128) -> i128>) -> Results {
    let x = call.input(0)?;
    let shape = x.shape.clone();
    Ok(vec![match (&x.data, whole) {
        (Data::Real(data), _) => Value::real(x.element, shape, data.iter().map(|x| real(*x)).collect()),
        (Data::Whole(data), Some(whole)) => {
            let of = |v: &i64| x.element.wrap(whole(x.element.widen(*v)));
            Value::whole(x.element, shape, data.iter().map(of).collect())
        }
        (Data::Whole(_), None) => return Err(format!("is not defined for elements of type {}", x.element.name())),
    }])
}

/// The shape that operands broadcast to, its memory charged.
fn common(call: &Call<'_>, shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
    let shape = broadcast(shapes).map_err(|_| format!("has operands of shapes {shapes:?}, which don't broadcast"))?;
    call.budget.elements(&shape, 32)?;
    Ok(shape)
}

/// The second operand where opsets before 7 align it at an axis of the first one.
fn aligned(call: &Call<'_>, a: &Value, b: &Value) -> Result<Vec<usize>, String> {
    let mut shape = b.shape.clone();
    if call.version < 7 && call.int("broadcast", 0) == 1 && call.has("axis") {
        let axis = call.axis("axis", 0, a.shape.len())?;
        let behind = a.shape.len().checked_sub(axis + shape.len());
        shape.extend(std::iter::repeat_n(1, behind.ok_or("has an axis that its operands don't allow")?));
    }
    Ok(shape)
}

/// What two numbers make.
pub(crate) struct Two {
    /// Of floats.
    pub(crate) real: fn(f64, f64) -> f64,
    /// Of whole numbers; `None` where the result is none.
    pub(crate) whole: fn(i128, i128) -> Option<i128>,
}

fn pair(call: &Call<'_>, a: &Value, b: &Value, two: &Two) -> Result<Value, String> {
    let b_shape = aligned(call, a, b)?;
    let shape = common(call, &[&a.shape, &b_shape])?;
    let (from_a, from_b) = (offsets(&a.shape, &shape), offsets(&b_shape, &shape));
    let places = from_a.iter().zip(&from_b);
    match (&a.data, &b.data) {
        (Data::Real(x), Data::Real(y)) => {
            Ok(Value::real(a.element, shape, places.map(|(p, q)| (two.real)(x[*p], y[*q])).collect()))
        }
        (Data::Whole(x), Data::Whole(y)) => {
            let of = |(p, q): (&usize, &usize)| {
                let made = (two.whole)(a.element.widen(x[*p]), b.element.widen(y[*q]));
                made.map(|v| a.element.wrap(v))
                    .ok_or("divides by zero, or has no whole number as its result".to_owned())
            };
            Ok(Value::whole(a.element, shape, places.map(of).collect::<Result<_, _>>()?))
        }
        _ => {
            // A base and an exponent may be of different types.
            let (x, y) = (a.numbers(), b.numbers());
            let data: Vec<f64> = places.map(|(p, q)| (two.real)(x[*p], y[*q])).collect();
            Ok(Value::real(Element::Double, shape, data).cast(a.element))
        }
    }
}

/// A function of the elements of two operands, which broadcast.
pub(crate) fn binary(call: &Call<'_>, two: &Two) -> Results {
    Ok(vec![pair(call, call.input(0)?, call.input(1)?, two)?])
}

/// A function of two folded over all operands, from the first to the last.
pub(crate) fn folded(call: &Call<'_>, two: &Two) -> Results {
    let mut all = call.input(0)?.clone();
    for k in 1..call.inputs.len() {
        all = pair(call, &all, call.input(k)?, two)?;
    }
    Ok(vec![all])
}

/// The mean of all operands.
pub(crate) fn mean(call: &Call<'_>) -> Results {
    let sum = folded(call, &ADD)?.remove(0);
    let count = call.inputs.len() as f64;
    Ok(vec![Value::real(sum.element, sum.shape.clone(), sum.numbers().iter().map(|x| x / count).collect())])
}

/// Sums.
pub(crate) const ADD: Two = Two { real: |a, b| a + b, whole: |a, b| a.checked_add(b) };
/// Differences.
pub(crate) const SUB: Two = Two { real: |a, b| a - b, whole: |a, b| a.checked_sub(b) };
/// Products.
pub(crate) const MUL: Two = Two { real: |a, b| a * b, whole: |a, b| a.checked_mul(b) };
/// Quotients, of whole numbers cut off towards zero.
pub(crate) const DIV: Two = Two { real: |a, b| a / b, whole: |a, b| a.checked_div(b) };
/// Powers.
pub(crate) const POW: Two =
    Two { real: libm::pow, whole: |a, b| u32::try_from(b).ok().and_then(|exponent| a.checked_pow(exponent)) };
/// The larger of two; what is not a number stays.
pub(crate) const MAX: Two = Two { real: |a, b| if a > b || a.is_nan() { a } else { b }, whole: |a, b| Some(a.max(b)) };
/// The smaller of two; what is not a number stays.
pub(crate) const MIN: Two = Two { real: |a, b| if a < b || a.is_nan() { a } else { b }, whole: |a, b| Some(a.min(b)) };

/// The rest of a division: with the divisor's sign, or with the dividend's where `fmod` is 1.
pub(crate) fn modulo(call: &Call<'_>) -> Results {
    let own = Two { real: libm::fmod, whole: |a, b| a.checked_rem(b) };
    let floored = Two {
        real: |a, b| a - b * (a / b).floor(),
        whole: |a, b| a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
    };
    binary(call, if call.int("fmod", 0) == 1 { &own } else { &floored })
}

/// A comparison of two operands.
pub(crate) fn compare(call: &Call<'_>, is: fn(std::cmp::Ordering) -> bool) -> Results {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = common(call, &[&a.shape, &b.shape])?;
    let (from_a, from_b) = (offsets(&a.shape, &shape), offsets(&b.shape, &shape));
    let places = from_a.iter().zip(&from_b);
    let all: Vec<bool> = match (&a.data, &b.data) {
        (Data::Whole(x), Data::Whole(y)) => {
            places.map(|(p, q)| is(a.element.widen(x[*p]).cmp(&b.element.widen(y[*q])))).collect()
        }
        _ => {
            let (x, y) = (a.numbers(), b.numbers());
            places.map(|(p, q)| x[*p].partial_cmp(&y[*q]).is_some_and(is)).collect()
        }
    };
    Ok(vec![Value::bools(shape, all)])
}

/// A function of two truth values.
pub(crate) fn logic(call: &Call<'_>, of: fn(bool, bool) -> bool) -> Results {
    let (a, b) = (call.input(0)?, call.input(1)?);
    let shape = common(call, &[&a.shape, &b.shape])?;
    let (x, y) = (a.integers(), b.integers());
    let (from_a, from_b) = (offsets(&a.shape, &shape), offsets(&b.shape, &shape));
    let all: Vec<bool> = from_a.iter().zip(&from_b).map(|(p, q)| of(x[*p] != 0, y[*q] != 0)).collect();
    Ok(vec![Value::bools(shape, all)])
}

/// Elements of one operand or of another, as a truth value says.
pub(crate) fn choose(call: &Call<'_>) -> Results {
    let (which, a, b) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let shape = common(call, &[&which.shape, &a.shape, &b.shape])?;
    let [w, p, q] = [which, a, b].map(|v| offsets(&v.shape, &shape));
    let which = which.integers();
    let data = match (&a.data, &b.data) {
        (Data::Real(x), Data::Real(y)) => {
            Data::Real((0..w.len()).map(|i| if which[w[i]] != 0 { x[p[i]] } else { y[q[i]] }).collect())
        }
        (Data::Whole(x), Data::Whole(y)) => {
            Data::Whole((0..w.len()).map(|i| if which[w[i]] != 0 { x[p[i]] } else { y[q[i]] }).collect())
        }
        _ => return Err("chooses between elements of different types".into()),
    };
    Ok(vec![Value { element: a.element, shape, data }])
}

/// Elements brought into a range, whose ends are attributes in old opsets and operands in others.
pub(crate) fn clip(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let end = |k: usize, name: &str| match call.optional(k) {
        Some(value) => Some(value.clone()),
        None if call.has(name) => Some(Value::real(Element::Float, vec![], vec![f64::from(call.float(name, 0.0))])),
        None => None,
    };
    let mut out = x.clone();
    if let Some(low) = end(1, "min") {
        out = pair(call, &out, &low, &MAX)?;
    }
    if let Some(high) = end(2, "max") {
        out = pair(call, &out, &high, &MIN)?;
    }
    Ok(vec![out])
}

/// x for x ≥ 0, else slope · x, with a slope for each element that broadcasts.
pub(crate) fn prelu(call: &Call<'_>) -> Results {
    let (x, slope) = (call.input(0)?, call.input(1)?);
    let mut shape = slope.shape.clone();
    // Before opset 7 a vector has a slope for each channel; later ones broadcast as NumPy does.
    if call.version < 7 && shape.len() == 1 && x.shape.len() > 1 {
        shape.extend(std::iter::repeat_n(1, x.shape.len() - 2));
    }
    let own = Value { shape, ..slope.clone() };
    Ok(vec![pair(
        call,
        x,
        &own,
        &Two { real: |x, a| if x < 0.0 { a * x } else { x }, whole: |x, a| Some(if x < 0 { a * x } else { x }) },
    )?])
}

/// The error function.
pub(crate) fn gelu(call: &Call<'_>) -> Results {
    if call.text("approximate", "none") == "tanh" {
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        return unary(call, |x| 0.5 * x * (1.0 + libm::tanh(inner(x))), None);
    }
    unary(call, |x| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)), None)
}

/// Elements of another type.
pub(crate) fn cast(call: &Call<'_>) -> Results {
    let to = i32::try_from(call.int("to", 1)).unwrap_or(0);
    Ok(vec![call.input(0)?.cast(Element::of(to)?)])
}

/// Elements of the type of a second operand.
pub(crate) fn cast_like(call: &Call<'_>) -> Results {
    Ok(vec![call.input(0)?.cast(call.input(1)?.element)])
}

/// The operand itself, and for `Dropout` which elements it keeps.
pub(crate) fn dropout(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let training = call.version >= 12 && call.optional(2).is_some_and(|t| t.integers().first() == Some(&1));
    let ratio = call.optional(1).and_then(|r| r.numbers().first().copied()).unwrap_or(0.5);
    if training && ratio != 0.0 {
        return Err("drops elements at random, as in training; only inference is supported".into());
    }
    let kept = Value::bools(x.shape.clone(), std::iter::repeat_n(true, x.len()));
    // Before opset 10 the mask is of the operand's type.
    let mask = if call.version < 10 { kept.cast(x.element) } else { kept };
    Ok(vec![x.clone(), mask])
}

/// Powers of e over their sum, along an axis; before opset 13 along all axes from it on.
pub(crate) fn softmax(call: &Call<'_>, log: bool) -> Results {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axis = call.axis("axis", if call.version < 13 { 1 } else { -1 }, rank.max(1))?;
    let last = if call.version < 13 { rank } else { (axis + 1).min(rank) };
    let (outer, count, inner) = blocks(&x.shape, axis.min(rank), last);
    let data = x.numbers();
    let mut out = vec![0.0; data.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| (o * count + k) * inner + i;
        let largest = (0..count).fold(f64::NEG_INFINITY, |m, k| m.max(data[at(k)]));
        let sum: f64 = (0..count).map(|k| libm::exp(data[at(k)] - largest)).sum();
        for k in 0..count {
            let shifted = data[at(k)] - largest;
            out[at(k)] = if log { shifted - libm::log(sum) } else { libm::exp(shifted) / sum };
        }
    }
    Ok(vec![Value::real(x.element, x.shape.clone(), out)])
}

/// Products of sizes before, from `first` to `last`, and behind.
pub(crate) fn blocks(shape: &[usize], first: usize, last: usize) -> (usize, usize, usize) {
    (shape[..first].iter().product(), shape[first..last].iter().product(), shape[last..].iter().product())
}

/// A function of each element with the attribute `alpha`.
pub(crate) fn with_alpha(call: &Call<'_>, default: f32, of: fn(f64, f64) -> f64) -> Results {
    let alpha = f64::from(call.float("alpha", default));
    unary(call, |x| of(x, alpha), None)
}

/// alpha · x + beta between 0 and 1.
pub(crate) fn hard_sigmoid(call: &Call<'_>) -> Results {
    let (alpha, beta) = (f64::from(call.float("alpha", 0.2)), f64::from(call.float("beta", 0.5)));
    unary(call, |x| (alpha * x + beta).clamp(0.0, 1.0), None)
}

/// gamma · x for x > 0, else gamma · alpha · (exp(x) − 1).
pub(crate) fn selu(call: &Call<'_>) -> Results {
    let alpha = f64::from(call.float("alpha", 1.673_263_2));
    let gamma = f64::from(call.float("gamma", 1.050_701));
    unary(call, |x| gamma * if x > 0.0 { x } else { alpha * libm::expm1(x) }, None)
}

/// Whether each element is no number, or infinite with a sign that is asked for.
pub(crate) fn is(call: &Call<'_>, which: impl Fn(f64) -> bool) -> Results {
    let x = call.input(0)?;
    Ok(vec![Value::bools(x.shape.clone(), x.numbers().iter().map(|v| which(*v)))])
}

/// Infinite elements; those of one sign may be left out.
pub(crate) fn is_infinite(call: &Call<'_>) -> Results {
    let (below, above) = (call.int("detect_negative", 1) == 1, call.int("detect_positive", 1) == 1);
    is(call, |x| x == f64::INFINITY && above || x == f64::NEG_INFINITY && below)
}

/// Elements moved towards 0 by `bias`, and 0 within `lambd` of it.
pub(crate) fn shrink(call: &Call<'_>) -> Results {
    let (bias, bound) = (f64::from(call.float("bias", 0.0)), f64::from(call.float("lambd", 0.5)));
    let of = |x: f64| match x {
        x if x < -bound => x + bias,
        x if x > bound => x - bias,
        _ => 0.0,
    };
    let x = call.input(0)?;
    let data = x.numbers().iter().map(|x| of(*x)).collect();
    Ok(vec![Value::real(Element::Double, x.shape.clone(), data).cast(x.element)])
}

/// Elements moved by as many bits as another operand says.
pub(crate) fn shift(call: &Call<'_>) -> Results {
    fn by(b: i128) -> Option<u32> {
        u32::try_from(b).ok().filter(|b| *b < 64)
    }
    match call.text("direction", "").as_str() {
        "LEFT" => binary(call, &Two { real: |a, _| a, whole: |a, b| by(b).map(|b| a << b) }),
        "RIGHT" => binary(call, &Two { real: |a, _| a, whole: |a, b| by(b).map(|b| a >> b) }),
        other => Err(format!("moves bits in the direction `{other}`, which is unknown")),
    }
}
