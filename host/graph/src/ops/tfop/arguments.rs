//! The arguments of functions, as Keras records them.

use serde_json::{Map, Value};

use crate::ops::tfop::{CALL, Operand, TENSOR};
use crate::ops::{Config, single};
use shiftwise_tensor::tensor::Tensor;

/// Arguments of a call, each asked for once: what remains is not understood.
pub(super) struct Arguments {
    first: Option<Value>,
    rest: Map<String, Value>,
}

impl Arguments {
    pub(super) fn of(config: Config<'_>) -> Result<Self, String> {
        let call = config.get(CALL).ok_or("the arguments of its call are missing")?;
        let args = call.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let rest = call.get("kwargs").and_then(Value::as_object).cloned().unwrap_or_default();
        match args {
            [first] => Ok(Self { first: Some(first.clone()), rest }),
            [] => Ok(Self { first: None, rest }),
            _ => Err(format!("it is called with {} arguments without names", args.len())),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name).filter(|v| !v.is_null())
    }

    /// The first argument, which most writers give without its name.
    pub(super) fn first(&mut self) -> Result<Value, String> {
        const NAMES: [&str; 11] =
            ["x", "input", "a", "features", "tensor", "values", "t", "input_tensor", "logits", "value", "inputs"];
        let named = || NAMES.iter().find_map(|name| self.rest.shift_remove(*name));
        self.first.take().or_else(named).ok_or_else(|| "it is called without arguments".into())
    }

    pub(super) fn operand(&mut self, name: &str) -> Result<Operand, String> {
        operand(&self.take(name).ok_or_else(|| format!("its argument `{name}` is missing"))?)
    }

    pub(super) fn integer(&mut self, name: &str, default: i64) -> Result<i64, String> {
        self.take(name).map_or(Ok(default), |v| v.as_i64().ok_or_else(|| wrong(name, &v, "a whole number is")))
    }

    pub(super) fn integers(&mut self, name: &str) -> Result<Option<Vec<i64>>, String> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let list = match &value {
            Value::Array(list) => list.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|v| vec![v]),
        };
        list.map(Some).ok_or_else(|| wrong(name, &value, "whole numbers are"))
    }

    pub(super) fn number(&mut self, name: &str, default: f32) -> Result<f32, String> {
        self.take(name).map_or(Ok(default), |v| {
            single(&v).ok_or_else(|| wrong(name, &v, "a number within the range of 32-bit floats is"))
        })
    }

    pub(super) fn flag(&mut self, names: &[&str]) -> Result<bool, String> {
        for name in names {
            if let Some(value) = self.take(name) {
                return value.as_bool().ok_or_else(|| wrong(name, &value, "true or false is"));
            }
        }
        Ok(false)
    }

    /// Fails if an argument was given that nobody asked for.
    pub(super) fn finish(mut self) -> Result<(), String> {
        self.rest.shift_remove("name");
        match self.rest.iter().find(|(_, v)| !v.is_null() && **v != Value::Bool(false)) {
            Some((name, value)) => Err(format!("its argument `{name}` = {value} is not supported")),
            None => Ok(()),
        }
    }
}

pub(super) fn wrong(name: &str, value: &Value, expected: &str) -> String {
    format!("its argument `{name}` is {value}, {expected} expected")
}

pub(super) fn operand(value: &Value) -> Result<Operand, String> {
    if let Some(k) = value.get(TENSOR).and_then(Value::as_u64) {
        return Ok(Operand::Tensor(k as usize));
    }
    let fail = || format!("{value:.80} is neither a tensor nor an array of numbers within the range of 32-bit floats");
    constant(value).map(Operand::Constant).ok_or_else(fail)
}

/// A number or nested lists of numbers as an array.
pub(in crate::ops) fn constant(value: &Value) -> Option<Tensor> {
    match value {
        Value::Array(items) => {
            let parts = items.iter().map(constant).collect::<Option<Vec<Tensor>>>()?;
            let inner = parts.first().map_or(&[][..], |p| p.shape());
            let shape = [&[parts.len()], inner].concat();
            parts.iter().all(|p| p.shape() == inner).then_some(())?;
            Tensor::new(shape, parts.iter().flat_map(|p| p.data().iter().copied()).collect())
        }
        value => Tensor::new(Vec::new(), vec![single(value)?]),
    }
}

/// One element of a subscript.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// `start:stop:step`.
    Range(Option<i64>, Option<i64>, i64),
    /// One index; the axis goes.
    Index(i64),
    /// All axes that are not mentioned.
    Ellipsis,
    /// A new axis of 1.
    NewAxis,
}

impl Part {
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let end = |key: &str| match value.get(key) {
            None | Some(Value::Null) => Some(None),
            Some(v) => v.as_i64().map(Some),
        };
        match value {
            Value::Number(n) => n.as_i64().map(Self::Index),
            Value::Null => Some(Self::NewAxis),
            Value::Object(o) if o.contains_key("start") => {
                Some(Self::Range(end("start")?, end("stop")?, end("step")?.unwrap_or(1)))
                    .filter(|_| end("step") != Some(Some(0)))
            }
            Value::Object(o) if o.get("class_name").and_then(Value::as_str) == Some("__ellipsis__") => {
                Some(Self::Ellipsis)
            }
            Value::String(s) if s.eq_ignore_ascii_case("ellipsis") || s == "..." => Some(Self::Ellipsis),
            _ => None,
        }
    }
}

/// A subscript on a shape: (start, count, step) of each axis, and the shape of the result.
pub(super) type Subscript = (Vec<(usize, usize, isize)>, Vec<usize>);

pub(super) fn subscript(parts: &[Part], shape: &[usize]) -> Result<Subscript, String> {
    let named = parts.iter().filter(|p| matches!(p, Part::Range(..) | Part::Index(_))).count();
    let hidden =
        shape.len().checked_sub(named).ok_or_else(|| format!("{named} subscripts of a tensor of shape {shape:?}"))?;
    let all = Part::Range(None, None, 1);
    let mut expanded = Vec::new();
    for part in parts {
        match part {
            Part::Ellipsis => expanded.extend(std::iter::repeat_n(all, hidden)),
            part => expanded.push(*part),
        }
    }
    let used = expanded.iter().filter(|p| !matches!(p, Part::NewAxis)).count();
    expanded.extend(std::iter::repeat_n(all, shape.len().saturating_sub(used)));
    let (mut at, mut out) = (Vec::new(), Vec::new());
    for part in expanded {
        let size = shape.get(at.len()).copied().unwrap_or(1) as i64;
        match part {
            Part::NewAxis => out.push(1),
            Part::Ellipsis => return Err("two ellipses in one subscript".into()),
            Part::Index(i) => {
                let index = if i < 0 { i.saturating_add(size) } else { i };
                if !(0..size).contains(&index) {
                    return Err(format!("subscript {i} of {size} elements"));
                }
                at.push((index as usize, 1, 1));
            }
            Part::Range(start, stop, step) => {
                let clamp =
                    |i: i64, low: i64, high: i64| (if i < 0 { i.saturating_add(size) } else { i }).clamp(low, high);
                let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
                let from = start.map_or(if step > 0 { low } else { high }, |i| clamp(i, low, high));
                let to = stop.map_or(if step > 0 { high } else { low }, |i| clamp(i, low, high));
                let distance = if step > 0 { to - from } else { from - to };
                let count = (distance.max(0) as u64).div_ceil(step.unsigned_abs()) as usize;
                at.push((from.max(0) as usize, count, step as isize));
                out.push(count);
            }
        }
    }
    if at.len() == shape.len() { Ok((at, out)) } else { Err("two ellipses in one subscript".into()) }
}
