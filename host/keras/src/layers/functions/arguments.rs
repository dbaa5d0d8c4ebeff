//! The arguments of functions, as Keras records them.

use serde_json::{Map, Value};

use crate::layers::Config;
use crate::layers::attributes::attribute;
use crate::layers::config::single;
use crate::layers::functions::{CALL, TENSOR};
use shiftwise_graph::ops::tfop::{Operand, Part};

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
    attribute(value).tensor().map(Operand::Constant).ok_or_else(fail)
}

/// Elements of a subscript: one, or a list of them.
pub(super) fn parts(value: &Value) -> Option<Vec<Part>> {
    match value {
        Value::Array(parts) => parts.iter().map(part).collect(),
        one => part(one).map(|part| vec![part]),
    }
}

/// One element of a subscript.
fn part(value: &Value) -> Option<Part> {
    let end = |key: &str| match value.get(key) {
        None | Some(Value::Null) => Some(None),
        Some(v) => v.as_i64().map(Some),
    };
    match value {
        Value::Number(n) => n.as_i64().map(Part::Index),
        Value::Null => Some(Part::NewAxis),
        Value::Object(o) if o.contains_key("start") => {
            Some(Part::Range(end("start")?, end("stop")?, end("step")?.unwrap_or(1)))
                .filter(|_| end("step") != Some(Some(0)))
        }
        Value::Object(o) if o.get("class_name").and_then(Value::as_str) == Some("__ellipsis__") => Some(Part::Ellipsis),
        Value::String(s) if s.eq_ignore_ascii_case("ellipsis") || s == "..." => Some(Part::Ellipsis),
        _ => None,
    }
}
