//! Calls of layers as configs record them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::generation::is_keras3_call;
use crate::layers::functions::TENSOR;

/// A tensor as a config names it.
#[derive(Clone, Debug)]
pub(crate) struct TensorRef {
    pub(crate) layer: String,
    /// Which call of the layer, as the file counts.
    pub(crate) node: usize,
    /// Which output.
    pub(crate) tensor: usize,
    /// Shape of one sample, if the file has it here.
    pub(crate) shape: Option<Vec<usize>>,
}

/// One application of a layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    /// Every tensor among the arguments, in their order.
    pub(crate) tensors: Vec<TensorRef>,
    /// Positional arguments, in which `{"tensor": k}` stands for the k-th of the tensors.
    pub(crate) args: Vec<Value>,
    /// Arguments by name, likewise.
    pub(crate) kwargs: Map<String, Value>,
}

/// An argument that stands for the k-th tensor.
pub(crate) fn tensor_argument(k: usize) -> Value {
    json!({ TENSOR: k })
}

/// Which tensor an argument is.
pub(crate) fn tensor_of(value: &Value) -> Option<usize> {
    let k = value.as_object().filter(|o| o.len() == 1)?.get(TENSOR)?.as_u64()?;
    usize::try_from(k).ok()
}

/// Whether there is a tensor anywhere in an argument.
fn holds_tensor(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_tensor),
        Value::Object(o) => tensor_of(value).is_some() || o.values().any(holds_tensor),
        _ => false,
    }
}

impl Call {
    /// The call of a layer that takes tensors and nothing else: they are all that its arguments say, in their order.
    /// What is left are settings by name.
    pub(crate) fn plain(&mut self) {
        let list = matches!(self.args.as_slice(), [Value::Array(list)] if list.iter().all(|v| tensor_of(v).is_some()));
        let flat = self.args.iter().all(|v| tensor_of(v).is_some());
        let named = self.kwargs.values().any(holds_tensor);
        if named || !(list || flat) {
            self.kwargs.retain(|_, value| !holds_tensor(value));
            self.args = (0..self.tensors.len()).map(tensor_argument).collect();
        }
    }
}

/// `["layer", node, tensor, …]`.
pub(crate) fn reference(parts: &[Value]) -> Option<TensorRef> {
    let number = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
    match parts {
        [Value::String(layer), node, tensor, ..] => {
            Some(TensorRef { layer: layer.clone(), node: number(node)?, tensor: number(tensor)?, shape: None })
        }
        _ => None,
    }
}

/// Whether nothing in a mask is set; Keras 3 fills in such ones by itself.
fn is_empty(mask: &Value) -> bool {
    match mask {
        Value::Null => true,
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(named) => named.values().all(is_empty),
        _ => false,
    }
}

/// Reads calls.
pub(crate) struct CallParser<'a> {
    /// The layers of the model, which tell a tensor from a list.
    pub(crate) names: &'a HashSet<String>,
    /// Whether the layer is a TensorFlow function, where a list of one tensor is not the tensor.
    pub(crate) function: bool,
}

impl CallParser<'_> {
    pub(crate) fn parse(&self, node: &Value) -> Result<Call, String> {
        let mut call = Call::default();
        let bad = || {
            let text: String = node.to_string().chars().take(80).collect();
            format!("its inbound node {text} is not understood")
        };
        if is_keras3_call(node) {
            let args = node.get("args").unwrap_or(&Value::Null);
            call.args = match self.keras3(args, &mut call.tensors)? {
                Value::Array(args) => args,
                _ => return Err(bad()),
            };
            if let Value::Object(kwargs) = self.keras3(node.get("kwargs").unwrap_or(&json!({})), &mut call.tensors)? {
                call.kwargs = kwargs;
            }
            call.kwargs.retain(|key, value| !(key == "mask" && is_empty(value)));
            return Ok(call);
        }
        match node {
            Value::Array(list) if list.first().is_some_and(Value::is_string) => {
                let value = self.keras2(list, &mut call)?;
                call.args.push(value);
            }
            Value::Array(list) => {
                let values = list.iter().map(|part| self.keras2_nested(part, &mut call).ok_or_else(bad)?);
                let values = values.collect::<Result<Vec<_>, _>>()?;
                call.args = if values.len() == 1 && !self.function { values } else { vec![Value::Array(values)] };
            }
            Value::Object(_) => call.args = vec![self.keras2_nested(node, &mut call).ok_or_else(bad)??],
            _ => return Err(bad()),
        }
        Ok(call)
    }

    /// A tensor or a constant, or a list or an object of them.
    fn keras2_nested(&self, value: &Value, call: &mut Call) -> Option<Result<Value, String>> {
        match value {
            Value::Array(parts) if parts.first().is_some_and(Value::is_string) => Some(self.keras2(parts, call)),
            Value::Array(parts) => parts
                .iter()
                .map(|part| self.keras2_nested(part, call))
                .collect::<Option<Result<_, _>>>()
                .map(|all| all.map(Value::Array)),
            Value::Object(named) => {
                let entry = |(key, part): (&String, &Value)| {
                    Some(self.keras2_nested(part, call)?.map(|value| (key.clone(), value)))
                };
                named.iter().map(entry).collect::<Option<Result<_, _>>>().map(|all| all.map(Value::Object))
            }
            _ => None,
        }
    }

    /// `["layer", node, tensor, kwargs]` or `["_CONSTANT_VALUE", -1, value, kwargs]`.
    fn keras2(&self, parts: &[Value], call: &mut Call) -> Result<Value, String> {
        let value = match parts {
            [Value::String(name), _, value, ..] if name == "_CONSTANT_VALUE" => value.clone(),
            parts => {
                let tensor = reference(parts).ok_or("one of its inputs is not the result of a layer")?;
                call.tensors.push(tensor);
                tensor_argument(call.tensors.len() - 1)
            }
        };
        // A list of tensors repeats the keyword arguments at each.
        if let Some(Value::Object(kwargs)) = parts.get(3)
            && call.kwargs.is_empty()
        {
            for (key, value) in kwargs {
                let value = self.keras2_value(value, &mut call.tensors);
                call.kwargs.insert(key.clone(), value);
            }
        }
        Ok(value)
    }

    fn keras2_value(&self, value: &Value, tensors: &mut Vec<TensorRef>) -> Value {
        match value {
            Value::Array(parts) => match (parts.first(), parts.len(), reference(parts)) {
                (Some(Value::String(name)), 3 | 4, _) if name == "_CONSTANT_VALUE" => parts[2].clone(),
                (_, 3 | 4, Some(tensor)) if self.names.contains(&tensor.layer) => {
                    tensors.push(tensor);
                    tensor_argument(tensors.len() - 1)
                }
                _ => Value::Array(parts.iter().map(|v| self.keras2_value(v, tensors)).collect()),
            },
            Value::Object(named) => {
                Value::Object(named.iter().map(|(k, v)| (k.clone(), self.keras2_value(v, tensors))).collect())
            }
            other => other.clone(),
        }
    }

    fn keras3(&self, value: &Value, tensors: &mut Vec<TensorRef>) -> Result<Value, String> {
        let object = match value {
            Value::Array(items) => {
                return items.iter().map(|v| self.keras3(v, tensors)).collect::<Result<_, _>>().map(Value::Array);
            }
            Value::Object(object) => object,
            other => return Ok(other.clone()),
        };
        let config = object.get("config");
        match object.get("class_name").and_then(Value::as_str) {
            Some("__keras_tensor__") => {
                let history = config.and_then(|c| c.get("keras_history")).and_then(Value::as_array);
                let tensor = history.and_then(|parts| reference(parts));
                let tensor = tensor.ok_or("one of its inputs is not the result of a layer")?;
                let dims = config.and_then(|c| c.get("shape")).and_then(Value::as_array).and_then(|dims| dims.get(1..));
                let shape = dims.and_then(|dims| dims.iter().map(|d| usize::try_from(d.as_u64()?).ok()).collect());
                tensors.push(TensorRef { shape, ..tensor });
                Ok(tensor_argument(tensors.len() - 1))
            }
            Some("__tensor__" | "__numpy__") => Ok(config.and_then(|c| c.get("value")).cloned().unwrap_or(Value::Null)),
            Some("__slice__") => Ok(config.cloned().unwrap_or(Value::Null)),
            Some(_) => Ok(value.clone()),
            None => {
                let entry = |(k, v): (&String, &Value)| Ok((k.clone(), self.keras3(v, tensors)?));
                object.iter().map(entry).collect::<Result<_, String>>().map(Value::Object)
            }
        }
    }
}
