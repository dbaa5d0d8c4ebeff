//! Operations with several results, each of which is a slice of the operand.

use serde_json::{Map, Value, json};

use crate::call::{Call, tensor_argument, tensor_of};
use crate::layers::functions::supports;
use crate::record::LayerConfig;

/// How an operation cuts its operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Into equally many or given numbers of elements.
    Sizes,
    /// Into equally many elements, or at given places.
    Places,
    /// Into single elements, whose axis goes.
    Elements,
}

/// Functions below `tf.`, the names of their arguments behind the operand, and how they cut.
const FUNCTIONS: &[(&str, &[&str], Cut)] = &[
    ("split", &["num_or_size_splits", "axis"], Cut::Sizes),
    ("compat.v1.split", &["num_or_size_splits", "axis"], Cut::Sizes),
    (SPLIT_AT, &["indices_or_sections", "axis"], Cut::Places),
    ("unstack", &["num", "axis"], Cut::Elements),
    ("compat.v1.unstack", &["num", "axis"], Cut::Elements),
];

/// Our name for Keras 3's `split`, which is told places where TensorFlow's is told sizes.
pub(crate) const SPLIT_AT: &str = "split_at";

fn cut(layer: &LayerConfig) -> Option<(&'static [&'static str], Cut)> {
    let function =
        layer.config.get("function").and_then(Value::as_str).filter(|_| layer.class.ends_with("OpLambda"))?;
    FUNCTIONS.iter().find(|(name, ..)| *name == function).map(|(_, names, cut)| (*names, *cut))
}

/// Whether a layer is an operation with several results.
pub(crate) fn has_parts(layer: &LayerConfig) -> bool {
    cut(layer).is_some()
}

/// The class by which a function that nobody knows is named.
pub(crate) fn unsupported(layer: &LayerConfig) -> Option<String> {
    let function =
        layer.config.get("function").and_then(Value::as_str).filter(|_| layer.class.ends_with("OpLambda"))?;
    (!has_parts(layer) && !supports(function)).then(|| format!("{} tf.{function}", layer.class))
}

/// Where a part begins and ends, of an axis of `size` elements.
fn range(value: &Value, cut: Cut, size: usize, part: usize) -> Option<(usize, usize)> {
    let whole = |v: &Value| v.as_i64();
    match (value, cut) {
        (Value::Array(list), Cut::Sizes) => {
            let list: Vec<i64> = list.iter().map(whole).collect::<Option<_>>()?;
            let known = list.iter().filter(|n| **n >= 0).try_fold(0i64, |sum, n| sum.checked_add(*n))?;
            let open = list.iter().filter(|n| **n < 0).count();
            let rest =
                (size as i64).checked_sub(known).filter(|rest| if open == 0 { *rest == 0 } else { *rest >= 0 })?;
            let sizes: Vec<i64> = list.iter().map(|n| if *n < 0 { rest } else { *n }).collect();
            let start: i64 = sizes.get(..part)?.iter().sum();
            (open < 2).then_some((start as usize, (start + sizes.get(part)?) as usize))
        }
        (Value::Array(list), _) => {
            let list: Vec<i64> = list.iter().map(whole).collect::<Option<_>>()?;
            let at = |i: i64| (if i < 0 { i.saturating_add(size as i64) } else { i }).clamp(0, size as i64) as usize;
            let start = if part == 0 { 0 } else { at(*list.get(part - 1)?) };
            let end = if part == list.len() { size } else { at(*list.get(part)?) };
            (start < end).then_some((start, end))
        }
        (value, _) => {
            let count =
                usize::try_from(whole(value)?).ok().filter(|n| *n > 0 && size.is_multiple_of(*n) && part < *n)?;
            let each = size / count;
            Some((part * each, (part + 1) * each))
        }
    }
}

/// The settings of a layer that is one of the parts, as a subscript, and its call. `shape` is the operand's, of one
/// sample.
///
/// Errors say what doesn't fit.
pub(crate) fn part(
    layer: &LayerConfig,
    call: &Call,
    shape: &[usize],
    part: usize,
) -> Result<(Map<String, Value>, Call), String> {
    let (names, cut) = cut(layer).ok_or("it has one result")?;
    let argument = |place: usize, name: &str| call.args.get(place).or_else(|| call.kwargs.get(name));
    let operand = argument(0, "value").or_else(|| call.kwargs.get("x")).and_then(tensor_of);
    let operand = operand.ok_or("its operand is no tensor")?;
    let axis = argument(2, names[1]).filter(|v| !v.is_null()).map_or(Some(0), Value::as_i64);
    let rank = shape.len() as i64 + 1;
    let axis = axis.map(|axis| if axis < 0 { axis + rank } else { axis }).filter(|axis| (1..rank).contains(axis));
    let axis = axis.ok_or("it is cut along an axis that doesn't exist or is the batch's")? as usize;
    let size = shape[axis - 1];
    let all = json!({ "start": null, "stop": null, "step": null });
    let mut subscript = vec![all; axis];
    if cut == Cut::Elements {
        if part >= size {
            return Err(format!("it has {size} results, and result {part} is read"));
        }
        subscript.push(json!(part));
    } else {
        let value = argument(1, names[0]).ok_or_else(|| format!("its argument `{}` is missing", names[0]))?;
        let found = range(value, cut, size, part);
        let (start, stop) =
            found.ok_or_else(|| format!("an axis of {size} elements has no part {part} of {value:.80}"))?;
        subscript.push(json!({ "start": start, "stop": stop, "step": null }));
    }
    let mut config = layer.config.clone();
    config.insert("function".into(), json!("__operators__.getitem"));
    let mut sliced = Call { tensors: call.tensors.clone(), args: vec![tensor_argument(operand)], ..Call::default() };
    sliced.kwargs.insert("slice_spec".into(), Value::Array(subscript));
    Ok((config, sliced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_up(function: &str, kwargs: Value, number: usize) -> Result<Value, String> {
        let config = json!({ "function": function }).as_object().cloned().unwrap();
        let layer =
            LayerConfig { name: "s".into(), class: "TFOpLambda".into(), config, calls: Vec::new(), inner: None };
        let kwargs = kwargs.as_object().cloned().unwrap();
        let call = Call { tensors: Vec::new(), args: vec![tensor_argument(0)], kwargs };
        part(&layer, &call, &[4, 6], number).map(|(_, call)| call.kwargs["slice_spec"].clone())
    }

    #[test]
    fn parts_are_slices() {
        let all = json!({ "start": null, "stop": null, "step": null });
        let slice = |start: usize, stop: usize| json!([all, all, { "start": start, "stop": stop, "step": null }]);
        let table = [
            ("split", json!({ "num_or_size_splits": 3, "axis": -1 }), 2, slice(4, 6)),
            ("split", json!({ "num_or_size_splits": [1, -1, 2], "axis": 2 }), 1, slice(1, 4)),
            (SPLIT_AT, json!({ "indices_or_sections": [1, -2], "axis": -1 }), 1, slice(1, 4)),
            (SPLIT_AT, json!({ "indices_or_sections": [1, -2], "axis": -1 }), 2, slice(4, 6)),
            (SPLIT_AT, json!({ "indices_or_sections": 2, "axis": -1 }), 0, slice(0, 3)),
            ("unstack", json!({ "axis": 1 }), 3, json!([all, 3])),
        ];
        for (function, kwargs, number, want) in table {
            assert_eq!(cut_up(function, kwargs.clone(), number).unwrap(), want, "{function} {kwargs}");
        }
    }

    #[test]
    fn parts_that_do_not_exist_are_refused() {
        for (function, kwargs, number) in [
            ("split", json!({ "num_or_size_splits": 4, "axis": -1 }), 0),
            ("split", json!({ "num_or_size_splits": 3, "axis": -1 }), 3),
            ("split", json!({ "num_or_size_splits": 3 }), 0),
            ("split", json!({ "num_or_size_splits": 2, "axis": 7 }), 0),
            ("split", json!({ "num_or_size_splits": [1, 2], "axis": -1 }), 0),
            ("split", json!({ "num_or_size_splits": [-1, -1, 2], "axis": -1 }), 0),
            ("split", json!({ "axis": -1 }), 0),
            ("unstack", json!({ "axis": 1 }), 4),
        ] {
            assert!(cut_up(function, kwargs.clone(), number).is_err(), "{function} {kwargs} {number}");
        }
    }
}
