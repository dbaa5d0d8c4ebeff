//! A model's JSON (`model_config`, `config.json`, `model.to_json()`), as Keras 2 and Keras 3 write it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::LoadOptions;
use super::operation;
use crate::error::Error;
use crate::ops::CLASSES;
use crate::ops::act::HARD_SIGMOID_6;
use crate::ops::tfop::TENSOR;

const MAX_INPUT_ELEMENTS: usize = 1 << 28;

/// A tensor as a config names it.
#[derive(Clone, Debug)]
pub(super) struct TensorRef {
    pub(super) layer: String,
    /// Which call of the layer.
    pub(super) node: usize,
    /// Number of the first call, if the layer is a model inside the model.
    pub(super) first: usize,
    /// Which output.
    pub(super) tensor: usize,
    /// Shape of one sample, if the file has it here.
    pub(super) shape: Option<Vec<usize>>,
}

/// One application of a layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// Every tensor among the arguments, in their order.
    pub(super) tensors: Vec<TensorRef>,
    /// Positional arguments, in which `{"tensor": k}` stands for the k-th of the tensors.
    pub(super) args: Vec<Value>,
    /// Arguments by name, likewise.
    pub(super) kwargs: Map<String, Value>,
}

/// One layer as the config has it.
pub(super) struct LayerConfig {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) config: Map<String, Value>,
    /// One for each place where it is applied.
    pub(super) calls: Vec<Call>,
    /// For a model inside the model.
    pub(super) inner: Option<ModelConfig>,
}

/// A functional or sequential model without its weights; sequential ones are given an input layer and edges.
pub(super) struct ModelConfig {
    pub(super) name: String,
    pub(super) layers: Vec<LayerConfig>,
    pub(super) inputs: Vec<TensorRef>,
    pub(super) outputs: Vec<TensorRef>,
}

impl ModelConfig {
    /// From the JSON of `model.to_json()`.
    pub(super) fn parse(value: &Value) -> Result<Self, Error> {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let config = value.get("config").ok_or_else(|| Error::model("the model's JSON has no `config`"))?;
        let fail =
            || Error::model(format!("the model's class is `{class}`; functional and sequential models can be read"));
        Self::from_config(class, config)?.ok_or_else(fail)
    }

    /// `None` for a layer that is no model.
    fn from_config(class: &str, config: &Value) -> Result<Option<Self>, Error> {
        // Subclasses of functional models have names of their own and the same config.
        let functional = config.get("output_layers").is_some();
        let layers = config.get("layers").or(Some(config)).and_then(Value::as_array);
        let Some(layers) = layers.filter(|_| functional || class == "Sequential") else {
            return Ok(None);
        };
        let name_of = |l: &Value| l.get("name").or_else(|| l.get("config")?.get("name"))?.as_str().map(str::to_owned);
        let names: HashSet<String> = layers.iter().filter_map(name_of).collect();
        let mut model = Self {
            name: config.get("name").and_then(Value::as_str).unwrap_or("model").to_owned(),
            layers: layers.iter().map(|l| LayerConfig::parse(l, &names)).collect::<Result<_, _>>()?,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        if functional {
            model.inputs = ends(config, "input_layers")?;
            model.outputs = ends(config, "output_layers")?;
        } else {
            model.chain(config)?;
        }
        Ok(Some(model))
    }

    /// Turns a sequential model into a functional one.
    fn chain(&mut self, config: &Value) -> Result<(), Error> {
        let Some(first) = self.layers.first() else { return Err(Error::model("the model has no layers")) };
        if first.class != "InputLayer" {
            // The first layer knows the shape, or the first of the model that it is.
            let mut inner = first;
            while let Some(next) = inner.inner.as_ref().and_then(|m| m.layers.first()) {
                inner = next;
            }
            let own = ["batch_input_shape", "batch_shape"].iter().find_map(|k| inner.config.get(*k));
            let shape = own.or_else(|| config.get("build_input_shape")).cloned().unwrap_or(Value::Null);
            let name = format!("{}_input", first.name);
            let config = json!({ "batch_input_shape": shape, "dtype": "float32", "sparse": false, "ragged": false });
            let config = config.as_object().cloned().unwrap_or_default();
            self.layers.insert(
                0,
                LayerConfig { name, class: "InputLayer".into(), config, calls: vec![Call::default()], inner: None },
            );
        }
        let end =
            |layer: &LayerConfig| TensorRef { layer: layer.name.clone(), node: 0, first: 0, tensor: 0, shape: None };
        for i in 1..self.layers.len() {
            let tensors = vec![end(&self.layers[i - 1])];
            self.layers[i].calls = vec![Call { tensors, args: vec![json!({ TENSOR: 0 })], kwargs: Map::new() }];
        }
        self.inputs = self.layers.first().map(end).into_iter().collect();
        self.outputs = self.layers.last().map(end).into_iter().collect();
        Ok(())
    }

    /// Whether the vendor's quantizer wrote it.
    pub(super) fn is_quantized(&self) -> bool {
        self.layers.iter().any(|l| l.class.starts_with("Vitis>"))
    }

    /// Puts the shapes that the user gave into the input layers, and checks that all shapes are known.
    pub(super) fn override_shapes(&mut self, options: &LoadOptions) -> Result<(), Error> {
        let names: Vec<String> = self.inputs.iter().map(|i| i.layer.clone()).collect();
        // A shape for each input, none with a name, stand in the model's order.
        let in_order = options.input_shapes.len() == names.len();
        for (k, (name, shape)) in options.input_shapes.iter().enumerate() {
            let target = match (name, names.as_slice()) {
                (Some(name), _) => names.iter().find(|n| *n == name),
                (None, [only]) => Some(only),
                (None, all) => all.get(k).filter(|_| in_order),
            };
            let Some(target) = target else {
                let listed = names.join(", ");
                return Err(Error::InputShape(match name {
                    Some(name) => format!("the model has no input `{name}`; its inputs are {listed}"),
                    None => format!("the model has {} inputs ({listed}), so a shape needs a name", names.len()),
                }));
            };
            for layer in self.layers.iter_mut().filter(|l| &l.name == target) {
                let (key, own) = input_shape(&layer.config);
                let rank = own.as_array().map(Vec::len);
                if rank.is_some_and(|r| r != shape.len()) || shape.len() < 2 {
                    return Err(Error::InputShape(format!(
                        "the input_shape {shape:?} ndim does not match the ndim of input `{}`, {own}",
                        layer.name
                    )));
                }
                layer.config.insert(key.to_owned(), json!(shape));
            }
        }
        for layer in self.layers.iter().filter(|l| l.class == "InputLayer") {
            let (_, shape) = input_shape(&layer.config);
            let dims = shape.as_array().and_then(|a| a.get(1..)).unwrap_or_default();
            let known = |d: &Value| d.as_u64().filter(|d| *d > 0).and_then(|d| usize::try_from(d).ok());
            let total = dims.iter().try_fold(1usize, |n, d| known(d).and_then(|d| n.checked_mul(d)));
            if dims.is_empty() || total.is_none_or(|n| n > MAX_INPUT_ELEMENTS) {
                return Err(Error::InputShape(format!(
                    "input `{}` has shape {shape}, and every dimension but the first must be known",
                    layer.name
                )));
            }
        }
        Ok(())
    }
}

/// Key and value of an input layer's shape, with the batch.
pub(super) fn input_shape(config: &Map<String, Value>) -> (&'static str, Value) {
    let key = if config.contains_key("batch_shape") { "batch_shape" } else { "batch_input_shape" };
    (key, config.get(key).cloned().unwrap_or(Value::Null))
}

/// Tensors at the ends of a functional model: `[["a", 0, 0], …]`, `["a", 0, 0]` alone, or `{"key": ["a", 0, 0], …}`.
fn ends(config: &Value, key: &str) -> Result<Vec<TensorRef>, Error> {
    let fail = || Error::model(format!("the model's config has no usable `{key}`"));
    let mut found = Vec::new();
    collect_ends(config.get(key).ok_or_else(fail)?, &mut found).ok_or_else(fail)?;
    if found.is_empty() { Err(fail()) } else { Ok(found) }
}

fn collect_ends(value: &Value, found: &mut Vec<TensorRef>) -> Option<()> {
    match value {
        Value::Object(named) => named.values().try_for_each(|v| collect_ends(v, found)),
        Value::Array(parts) if parts.first().is_some_and(Value::is_string) => {
            found.push(reference(parts)?);
            Some(())
        }
        Value::Array(parts) => parts.iter().try_for_each(|v| collect_ends(v, found)),
        _ => None,
    }
}

/// `["layer", node, tensor, …]`.
fn reference(parts: &[Value]) -> Option<TensorRef> {
    let number = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
    match parts {
        [Value::String(layer), node, tensor, ..] => Some(TensorRef {
            layer: layer.clone(),
            node: number(node)?,
            first: 1,
            tensor: number(tensor)?,
            shape: None,
        }),
        _ => None,
    }
}

impl LayerConfig {
    fn parse(value: &Value, names: &HashSet<String>) -> Result<Self, Error> {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let config = value.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::model(format!("a layer of class `{class}` has no name")))?.to_owned();
        let inner = value.get("config").map(|c| ModelConfig::from_config(&class, c)).transpose()?.flatten();
        let nodes = value.get("inbound_nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let parser = CallParser { names, function: class.ends_with("OpLambda") };
        let calls = nodes.iter().map(|node| parser.parse(node)).collect::<Result<_, _>>();
        let mut calls: Vec<Call> = calls.map_err(|message| Error::layer(&name, &class, message))?;
        if calls.is_empty() {
            calls.push(Call::default());
        }
        let mut layer = Self { name, class, config, calls, inner };
        // Keras 3's operations bear the names of layers and have none of their settings; not every file names modules,
        // and a few layers leave out `trainable`.
        let module = value.get("module").and_then(Value::as_str);
        let keras3 = nodes.iter().any(|node| node.get("args").is_some())
            || layer.config.get("dtype").and_then(|d| d.get("class_name")).is_some_and(|c| c == "DTypePolicy");
        let may_be_operation = !layer.config.contains_key("trainable")
            && (operation::is_known(&layer.class) || !CLASSES.contains(&layer.class.as_str()));
        if module.map_or(keras3 && may_be_operation, |m| m.contains(".ops.")) && layer.inner.is_none() {
            operation::to_function(&mut layer)?;
        }
        if keras3 && let Some(activation) = layer.config.get_mut("activation").filter(|a| *a == "hard_sigmoid") {
            *activation = json!(HARD_SIGMOID_6);
        }
        Ok(layer)
    }
}

/// Reads calls.
struct CallParser<'a> {
    /// The layers of the model, which tell a tensor from a list.
    names: &'a HashSet<String>,
    /// Whether the layer is a TensorFlow function, where a list of one tensor is not the tensor.
    function: bool,
}

impl CallParser<'_> {
    fn parse(&self, node: &Value) -> Result<Call, String> {
        let mut call = Call::default();
        let bad = || format!("its inbound node {node} is not understood");
        if let Some(args) = node.get("args") {
            call.args = match self.keras3(args, &mut call.tensors)? {
                Value::Array(args) => args,
                _ => return Err(bad()),
            };
            if let Value::Object(kwargs) = self.keras3(node.get("kwargs").unwrap_or(&json!({})), &mut call.tensors)? {
                call.kwargs = kwargs;
            }
            // What Keras 3 fills in by itself.
            call.kwargs.retain(|key, value| !(key == "mask" && value.is_null()));
        } else {
            match node {
                Value::Array(list) if list.first().is_some_and(Value::is_string) => {
                    let value = self.keras2(list, &mut call)?;
                    call.args.push(value);
                }
                Value::Array(list) => {
                    let mut values = Vec::new();
                    for part in list {
                        values.push(self.keras2(part.as_array().ok_or_else(bad)?, &mut call)?);
                    }
                    call.args = if values.len() == 1 && !self.function { values } else { vec![Value::Array(values)] };
                }
                Value::Object(named) => {
                    for part in named.values() {
                        let value = self.keras2(part.as_array().ok_or_else(bad)?, &mut call)?;
                        call.args.push(value);
                    }
                }
                _ => return Err(bad()),
            }
        }
        if call.kwargs.get("training").and_then(Value::as_bool) == Some(true) {
            return Err("it is called with training=True".into());
        }
        Ok(call)
    }

    /// `["layer", node, tensor, kwargs]` or `["_CONSTANT_VALUE", -1, value, kwargs]`.
    fn keras2(&self, parts: &[Value], call: &mut Call) -> Result<Value, String> {
        if parts.first().is_some_and(Value::is_array) {
            let bad = "one of its inputs is not the result of a layer";
            let inner = parts.iter().map(|part| self.keras2(part.as_array().ok_or(bad)?, call));
            return inner.collect::<Result<_, _>>().map(Value::Array);
        }
        let value = match parts {
            [Value::String(name), _, value, ..] if name == "_CONSTANT_VALUE" => value.clone(),
            parts => {
                let tensor = reference(parts).ok_or("one of its inputs is not the result of a layer")?;
                call.tensors.push(tensor);
                json!({ TENSOR: call.tensors.len() - 1 })
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
                    json!({ TENSOR: tensors.len() - 1 })
                }
                _ => Value::Array(parts.iter().map(|v| self.keras2_value(v, tensors)).collect()),
            },
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
                // Keras 3 counts the calls of inner models from 1 at the ends of a model only.
                let dims = config.and_then(|c| c.get("shape")).and_then(Value::as_array).and_then(|dims| dims.get(1..));
                let shape = dims.and_then(|dims| dims.iter().map(|d| usize::try_from(d.as_u64()?).ok()).collect());
                tensors.push(TensorRef { first: 0, shape, ..tensor });
                Ok(json!({ TENSOR: tensors.len() - 1 }))
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
