//! Operators on quantized numbers: what they make of values.

use crate::ops::call::Call;
use crate::ops::call::Results;
use crate::ops::moves::strides;
use crate::ops::sums::{convolve, product};
use crate::value::{Data, Element, Value};

/// For each element of a shape the scale's place: one for all, one along an axis, or one for each block of an axis.
fn scale_places(call: &Call<'_>, shape: &[usize], scale: &Value) -> Result<Vec<usize>, String> {
    let total: usize = shape.iter().product();
    if scale.len() == 1 {
        return Ok(vec![0; total]);
    }
    let axis = call.axis("axis", 1, shape.len())?;
    let steps = strides(shape);
    let along = |i: usize| i / steps[axis] % shape[axis];
    let block = call.size("block_size", 0)?;
    if block == 0 {
        if scale.len() != shape[axis] {
            return Err(format!("has {} scales along an axis of {} elements", scale.len(), shape[axis]));
        }
        return Ok((0..total).map(along).collect());
    }
    let mut own = shape.to_vec();
    own[axis] = shape[axis].div_ceil(block);
    if own != scale.shape {
        return Err(format!("has scales of shape {:?}, {own:?} is expected", scale.shape));
    }
    let inner = steps[axis];
    Ok((0..total).map(|i| (i / (inner * shape[axis]) * own[axis] + along(i) / block) * inner + i % inner).collect())
}

/// The zero point at each of these places.
fn zeros(zero: Option<&Value>, places: &[usize]) -> Vec<i128> {
    match zero {
        Some(zero) => {
            let own = zero.integers();
            places.iter().map(|i| own.get(*i).or(own.first()).map_or(0, |v| zero.element.widen(*v))).collect()
        }
        None => vec![0; places.len()],
    }
}

/// The nearest whole number of a type, ties to even, at a zero point.
fn quantized(to: Element, x: f64, zero: i128) -> i64 {
    let near = libm::rint(x);
    let near = if near.is_nan() { 0 } else { near.clamp(-1e18, 1e18) as i128 };
    to.saturate(near + zero)
}

pub(crate) fn quantize(call: &Call<'_>) -> Results {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let to = match (call.optional(2), call.int("output_dtype", 0)) {
        (Some(zero), _) => zero.element,
        (None, 0) => Element::Uint8,
        (None, code) => Element::of(i32::try_from(code).unwrap_or(0))?,
    };
    if to.is_float() {
        return Err(format!("quantizes to {}, which is not supported", to.name()));
    }
    let places = scale_places(call, &x.shape, scale)?;
    let zero = zeros(call.optional(2), &places);
    let steps = scale.numbers();
    // Divided in the operand's type, as the standard's `x / y_scale`.
    let of = |(i, x): (usize, f64)| quantized(to, Element::round(scale.element, x / steps[places[i]]), zero[i]);
    Ok(vec![Value::whole(to, x.shape.clone(), x.numbers().into_iter().enumerate().map(of).collect())])
}

/// The floats that quantized numbers stand for.
fn dequantized(call: &Call<'_>, x: &Value, scale: &Value, zero: Option<&Value>) -> Result<Value, String> {
    let places = scale_places(call, &x.shape, scale)?;
    let zero = zeros(zero, &places);
    let steps = scale.numbers();
    let of = |(i, q): (usize, i64)| (x.element.widen(q) - zero[i]) as f64 * steps[places[i]];
    Ok(Value::real(scale.element, x.shape.clone(), x.integers().into_iter().enumerate().map(of).collect()))
}

pub(crate) fn dequantize(call: &Call<'_>) -> Results {
    Ok(vec![dequantized(call, call.input(0)?, call.input(1)?, call.optional(2))?])
}

pub(crate) fn dynamic(call: &Call<'_>) -> Results {
    let x = call.input(0)?;
    let data = x.numbers();
    let (low, high) = data.iter().fold((0.0f64, 0.0f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let step = Element::Float.round((high - low) / 255.0);
    let zero = quantized(Element::Uint8, -low / step, 0);
    let of = |v: &f64| quantized(Element::Uint8, Element::Float.round(v / step), zero.into());
    Ok(vec![
        Value::whole(Element::Uint8, x.shape.clone(), data.iter().map(of).collect()),
        Value::real(Element::Float, vec![], vec![step]),
        Value::whole(Element::Uint8, vec![], vec![zero]),
    ])
}

/// Quantized numbers less their zero point, of which there may be one for each slice along an axis.
fn centred(x: &Value, zero: Option<&Value>, axis: usize) -> Result<Value, String> {
    let own = zero.map(Value::integers).unwrap_or_default();
    let step = strides(&x.shape).get(axis).copied().unwrap_or(1).max(1);
    let size = x.shape.get(axis).copied().unwrap_or(1);
    if own.len() > 1 && own.len() != size {
        return Err("has other zero points than slices".into());
    }
    let of = |(i, q): (usize, &i64)| q - own.get(i / step % size.max(1)).or(own.first()).copied().unwrap_or(0);
    Ok(Value::int64(x.shape.clone(), x.integers().iter().enumerate().map(of).collect()))
}

/// Sums in whole numbers brought to a result's grid: sum · factor, rounded to even, at its zero point.
fn requantized(sums: &Value, factor: impl Fn(usize) -> f64, zero: &Value) -> Value {
    let offset = zero.integers().first().copied().unwrap_or(0);
    let of = |(i, x): (usize, f64)| quantized(zero.element, x * factor(i), zero.element.widen(offset));
    Value::whole(zero.element, sums.shape.clone(), sums.numbers().into_iter().enumerate().map(of).collect())
}

pub(crate) fn conv(call: &Call<'_>) -> Results {
    let [x_scale, w_scale, y_scale] = [1, 4, 6].map(|k| call.input(k).map(Value::numbers));
    let (x_scale, w_scale, y_scale) = (x_scale?, w_scale?, y_scale?);
    let x = centred(call.input(0)?, Some(call.input(2)?), usize::MAX)?;
    let w = centred(call.input(3)?, Some(call.input(5)?), 0)?;
    let sums = convolve(call, &x, &w, call.optional(8))?;
    let filters = w.shape[0];
    let pixels: usize = sums.shape[2..].iter().product();
    let own = |i: usize| w_scale.get(i / pixels.max(1) % filters.max(1)).or(w_scale.first()).copied().unwrap_or(1.0);
    let (a, b) = (x_scale.first().copied().unwrap_or(1.0), y_scale.first().copied().unwrap_or(1.0));
    Ok(vec![requantized(&sums, |i| a * own(i) / b, call.input(7)?)])
}

pub(crate) fn matmul(call: &Call<'_>) -> Results {
    let a = centred(call.input(0)?, Some(call.input(2)?), call.input(0)?.shape.len().saturating_sub(2))?;
    let b = centred(call.input(3)?, Some(call.input(5)?), call.input(3)?.shape.len().saturating_sub(1))?;
    let sums = product(call, &a, &b)?;
    let one = |k: usize| call.input(k).map(|v| v.numbers().first().copied().unwrap_or(1.0));
    if [1, 4, 6].iter().any(|k| call.input(*k).is_ok_and(|v| v.len() != 1)) {
        return Err("has a scale for each row or column, which is not supported".into());
    }
    let factor = one(1)? * one(4)? / one(6)?;
    Ok(vec![requantized(&sums, |_| factor, call.input(7)?)])
}

/// Convolution and product of quantized numbers without scales.
pub(crate) fn integers(call: &Call<'_>, convolution: bool) -> Results {
    let zero = |k: usize| call.optional(k);
    let sums = if convolution {
        convolve(call, &centred(call.input(0)?, zero(2), usize::MAX)?, &centred(call.input(1)?, zero(3), 0)?, None)?
    } else {
        let (a, b) = (call.input(0)?, call.input(1)?);
        let a = centred(a, zero(2), a.shape.len().saturating_sub(2))?;
        let b = centred(b, zero(3), b.shape.len().saturating_sub(1))?;
        product(call, &a, &b)?
    };
    let all = match &sums.data {
        Data::Real(data) => data.iter().map(|x| *x as i64).collect(),
        Data::Whole(data) => data.clone(),
    };
    Ok(vec![Value::whole(Element::Int32, sums.shape, all)])
}
