//! Arithmetic on shapes: what `tf.shape` begins and a reshaping ends is known when a model is read, but for the batch.

use serde_json::{Map, Value, json};

use crate::layers::functions::arguments::parts;
use crate::layers::functions::{TENSOR, canonical};
use shiftwise_graph::ops::tfop::subscript;

/// A size in a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// This many.
    Fixed(i64),
    /// This many times the batch.
    Batches(i64),
}

/// Sizes that a function of shapes yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    list: Vec<Size>,
    /// One number, and no list of one.
    scalar: bool,
}

/// Whether a function yields the shape of its operand.
pub(crate) fn is_shape(function: &str) -> bool {
    canonical(function) == "shape"
}

/// Whether a function gives its operand a shape, in which −1 is what remains.
pub(crate) fn is_reshape(function: &str) -> bool {
    canonical(function) == "reshape"
}

impl Sizes {
    /// Whether one of them depends on the batch.
    pub(crate) fn has_batch(&self) -> bool {
        self.list.iter().any(|size| matches!(size, Size::Batches(_)))
    }

    /// The shape of a tensor of which one sample has this one.
    pub(crate) fn of(sample: &[usize]) -> Self {
        let rest = sample.iter().map(|d| Size::Fixed(*d as i64));
        Self { list: std::iter::once(Size::Batches(1)).chain(rest).collect(), scalar: false }
    }

    fn constant(value: &Value) -> Option<Self> {
        let list = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        let list = list.iter().map(|v| v.as_i64().map(Size::Fixed)).collect::<Option<_>>()?;
        Some(Self { list, scalar: !value.is_array() })
    }

    /// As an argument for a function of tensors: the batch is what remains.
    pub(crate) fn value(&self) -> Result<Value, String> {
        let one = |size: &Size| match size {
            Size::Fixed(n) => Ok(json!(n)),
            Size::Batches(1) => Ok(json!(-1)),
            Size::Batches(n) => Err(format!("a size is {n} times that of the batch, which would mix samples")),
        };
        let list = self.list.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        Ok(if self.scalar { list.into_iter().next().unwrap_or_default() } else { Value::Array(list) })
    }

    /// What a function makes of shapes: `values` has those among its arguments.
    ///
    /// Errors name a function that no shape is computed by.
    pub(crate) fn compute(
        function: &str,
        args: &[Value],
        kwargs: &Map<String, Value>,
        values: &dyn Fn(usize) -> Option<Self>,
    ) -> Result<Self, String> {
        let name = canonical(function);
        let of = |value: &Value| -> Result<Self, String> {
            let tensor = value.get(TENSOR).and_then(Value::as_u64);
            let found = tensor.map_or_else(|| Self::constant(value), |k| values(k as usize));
            found.ok_or_else(|| "it computes with a shape and something else".to_owned())
        };
        let first = args.first().or_else(|| kwargs.values().next()).ok_or("it is called without arguments")?;
        let all = |value: &Value| -> Result<Vec<Self>, String> {
            value.as_array().into_iter().flatten().map(of).collect::<Result<Vec<_>, _>>()
        };
        let joined = |parts: Vec<Self>| Self { list: parts.into_iter().flat_map(|p| p.list).collect(), scalar: false };
        match name.as_str() {
            "stack" | "concat" => all(first).map(joined),
            "identity" | "cast" | "stop_gradient" => of(first),
            "__operators__.getitem" => {
                let spec = kwargs.get("slice_spec").or(args.get(1)).ok_or("its argument `slice_spec` is missing")?;
                of(first)?.sliced(spec)
            }
            "math.reduce_prod" => of(first)?
                .list
                .into_iter()
                .try_fold(Size::Fixed(1), times)
                .map(|size| Self { list: vec![size], scalar: true }),
            _ => {
                let operator =
                    operator(&name).ok_or_else(|| format!("the function `{function}` of a shape is not supported"))?;
                let second = kwargs.get("y").or(args.get(1)).ok_or("its second argument is missing")?;
                of(first)?.zip(&of(second)?, operator)
            }
        }
    }

    fn sliced(&self, spec: &Value) -> Result<Self, String> {
        let parts = parts(spec).ok_or_else(|| format!("its slice {spec} is not supported"))?;
        let (at, shape) = subscript(&parts, &[self.list.len()])?;
        let [(start, count, step)] = at[..] else { return Err("it slices a list in several dimensions".into()) };
        let index = |i: usize| start.checked_add_signed(step * i.cast_signed()).and_then(|i| self.list.get(i)).copied();
        let list = (0..count).map(index).collect::<Option<_>>().ok_or("it slices beyond the end")?;
        Ok(Self { list, scalar: shape.is_empty() })
    }

    fn zip(&self, other: &Self, operator: Operator) -> Result<Self, String> {
        let count = self.list.len().max(other.list.len());
        if ![self, other].iter().all(|s| s.list.len() == count || s.list.len() == 1) {
            return Err("it combines shapes of different lengths".into());
        }
        let at = |s: &Self, i: usize| s.list[if s.list.len() == 1 { 0 } else { i }];
        let list = (0..count).map(|i| operator(at(self, i), at(other, i))).collect::<Result<_, _>>()?;
        Ok(Self { list, scalar: self.scalar && other.scalar })
    }
}

type Operator = fn(Size, Size) -> Result<Size, String>;

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "math.multiply" | "__operators__.mul" => times,
        "math.add" | "__operators__.add" => |a, b| linear(a, b, i64::checked_add),
        "math.subtract" | "__operators__.sub" => |a, b| linear(a, b, i64::checked_sub),
        "math.floordiv" | "__operators__.floordiv" | "floor_div" | "floordiv" => divided,
        _ => return None,
    })
}

fn unknown() -> String {
    "it computes a size that depends on the batch in another way than by a factor".into()
}

fn times(a: Size, b: Size) -> Result<Size, String> {
    let product = match (a, b) {
        (Size::Fixed(a), Size::Fixed(b)) => a.checked_mul(b).map(Size::Fixed),
        (Size::Fixed(a), Size::Batches(b)) | (Size::Batches(a), Size::Fixed(b)) => a.checked_mul(b).map(Size::Batches),
        _ => None,
    };
    product.ok_or_else(unknown)
}

fn linear(a: Size, b: Size, f: fn(i64, i64) -> Option<i64>) -> Result<Size, String> {
    let sum = match (a, b) {
        (Size::Fixed(a), Size::Fixed(b)) => f(a, b).map(Size::Fixed),
        (Size::Batches(a), Size::Batches(b)) => f(a, b).map(Size::Batches),
        (Size::Batches(a), Size::Fixed(0)) => Some(Size::Batches(a)),
        _ => None,
    };
    sum.ok_or_else(unknown)
}

fn divided(a: Size, b: Size) -> Result<Size, String> {
    let quotient = match (a, b) {
        (Size::Fixed(a), Size::Fixed(b)) if b > 0 => Some(Size::Fixed(a.div_euclid(b))),
        (Size::Batches(a), Size::Fixed(b)) if b > 0 && a % b == 0 => Some(Size::Batches(a / b)),
        _ => None,
    };
    quotient.ok_or_else(unknown)
}

/// The target of a reshaping with the open size filled in, where the batch needs the −1 for itself; `elements` is the
/// number of one sample's.
pub(crate) fn close(target: &mut Value, elements: usize) {
    let Some(list) = target.as_array_mut() else { return };
    let open: Vec<usize> = (0..list.len()).filter(|i| list[*i].as_i64() == Some(-1)).collect();
    let known = list.iter().filter_map(Value::as_u64).try_fold(1u64, u64::checked_mul);
    if let ([0, other], Some(known @ 1..)) = (&open[..], known)
        && (elements as u64).is_multiple_of(known)
    {
        list[*other] = json!(elements as u64 / known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(function: &str, args: Value, values: &[Sizes]) -> Result<Sizes, String> {
        let kwargs = args["kwargs"].as_object().cloned().unwrap_or_default();
        let list = args["args"].as_array().cloned().unwrap_or_default();
        Sizes::compute(function, &list, &kwargs, &|k| values.get(k).cloned())
    }

    #[test]
    fn a_shape_is_computed_but_for_the_batch() {
        let shape = Sizes::of(&[6, 8, 3]);
        let item = |i: i64| {
            compute(
                "__operators__.getitem",
                json!({ "args": [{ "tensor": 0 }], "kwargs": { "slice_spec": [i] } }),
                std::slice::from_ref(&shape),
            )
            .unwrap()
        };
        let area = compute(
            "math.multiply",
            json!({ "args": [{ "tensor": 0 }], "kwargs": { "y": { "tensor": 1 } } }),
            &[item(1), item(2)],
        );
        let stack = json!({ "args": [[{ "tensor": 0 }, { "tensor": 1 }, { "tensor": 2 }]] });
        let target = compute("stack", stack, &[item(0), area.unwrap(), item(-1)]).unwrap();
        assert_eq!(target.value(), Ok(json!([-1, 48, 3])));
        let half = compute("math.floordiv", json!({ "args": [{ "tensor": 0 }], "kwargs": { "y": 2 } }), &[item(1)]);
        assert_eq!(half.unwrap().value(), Ok(json!(3)));
        let twice = compute("math.multiply", json!({ "args": [{ "tensor": 0 }], "kwargs": { "y": 2 } }), &[item(0)]);
        assert!(twice.unwrap().value().unwrap_err().contains("2 times"));
        let sum = compute("__operators__.add", json!({ "args": [{ "tensor": 0 }], "kwargs": { "y": 2 } }), &[item(0)]);
        assert!(sum.unwrap_err().contains("depends on the batch"));
    }

    #[test]
    fn an_open_size_gives_way_to_the_batch() {
        let mut target = json!([-1, 4, -1]);
        close(&mut target, 48);
        assert_eq!(target, json!([-1, 4, 12]));
    }
}
