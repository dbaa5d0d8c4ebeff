//! Reads a model's JSON (`model_config`, `config.json`, `model.to_json()`), as Keras 2 and Keras 3 write it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::call::{Call, CallParser, TensorRef, reference, tensor_argument};
use crate::generation::{Generation, check_policy, class_of, training_matters};
use crate::layers::{CLASSES, attention};
use crate::record::{LayerConfig, ModelConfig};
use crate::{node_def, operation};
use shiftwise_files::LoadOptions;
use shiftwise_graph::error::Error;

const MAX_INPUT_ELEMENTS: usize = 1 << 28;

/// A compiled model numbers its inputs and outputs with a byte.
const MAX_ENDS: usize = 256;

impl ModelConfig {
    /// From the JSON of `model.to_json()`; `version` is the Keras version that the file names beside it.
    pub(crate) fn parse(value: &Value, version: Option<&str>) -> Result<Self, Error> {
        check_numbers(value)?;
        let generation = Generation::of(value, version)?;
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let config = value.get("config").ok_or_else(|| Error::model("the model's JSON has no `config`"))?;
        let fail =
            || Error::model(format!("the model's class is `{class}`; functional and sequential models can be read"));
        Self::from_config(class, config, generation)?.ok_or_else(fail)
    }

    /// `None` for a layer that is no model.
    fn from_config(class: &str, config: &Value, generation: Generation) -> Result<Option<Self>, Error> {
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
            layers: layers.iter().map(|l| LayerConfig::parse(l, &names, generation)).collect::<Result<_, _>>()?,
            functional,
            generation,
            inputs: Vec::new(),
            input_keys: Vec::new(),
            outputs: Vec::new(),
        };
        if functional {
            (model.input_keys, model.inputs) = ends(config, "input_layers")?.into_iter().unzip();
            model.outputs = ends(config, "output_layers")?.into_iter().map(|(_, tensor)| tensor).collect();
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
        let end = |layer: &LayerConfig| TensorRef { layer: layer.name.clone(), node: 0, tensor: 0, shape: None };
        for i in 1..self.layers.len() {
            let tensors = vec![end(&self.layers[i - 1])];
            self.layers[i].calls = vec![Call { tensors, args: vec![tensor_argument(0)], kwargs: Map::new() }];
        }
        self.inputs = self.layers.first().map(end).into_iter().collect();
        self.input_keys = self.inputs.iter().map(|input| input.layer.clone()).collect();
        self.outputs = self.layers.last().map(end).into_iter().collect();
        Ok(())
    }

    /// Whether the vendor's quantizer wrote it.
    pub(crate) fn is_quantized(&self) -> bool {
        self.layers.iter().any(|l| l.class.starts_with("Vitis>"))
    }

    /// Puts the shapes that the user gave into the input layers, and checks that all shapes are known.
    pub(crate) fn override_shapes(&mut self, options: &LoadOptions) -> Result<(), Error> {
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
pub(crate) fn input_shape(config: &Map<String, Value>) -> (&'static str, Value) {
    let key = if config.contains_key("batch_shape") { "batch_shape" } else { "batch_input_shape" };
    (key, config.get(key).cloned().unwrap_or(Value::Null))
}

/// Fails at a number that no f64 holds: what isn't modelled is written as it was read, and must be readable.
fn check_numbers(value: &Value) -> Result<(), Error> {
    match value {
        Value::Number(n) if n.as_f64().is_none_or(|v| !v.is_finite()) => {
            let text: String = n.to_string().chars().take(40).collect();
            Err(Error::model(format!(
                "the model's JSON has the number {text}, which is beyond the range of 64-bit floats"
            )))
        }
        Value::Array(items) => items.iter().try_for_each(check_numbers),
        Value::Object(named) => named.values().try_for_each(check_numbers),
        _ => Ok(()),
    }
}

/// Tensors at the ends of a functional model with the names by which calls give them: `[["a", 0, 0], …]`,
/// `["a", 0, 0]` alone, or `{"key": ["a", 0, 0], …}`.
fn ends(config: &Value, key: &str) -> Result<Vec<(String, TensorRef)>, Error> {
    let fail = || Error::model(format!("the model's config has no usable `{key}`"));
    let mut found = Vec::new();
    collect_ends(config.get(key).ok_or_else(fail)?, None, &mut found).ok_or_else(fail)?;
    match found.len() {
        0 => Err(fail()),
        1..=MAX_ENDS => Ok(found),
        n => Err(Error::model(format!("the model has {n} `{key}`, at most {MAX_ENDS} are supported"))),
    }
}

/// Objects are gone through by sorted keys at every level, as both generations of Keras flatten them.
fn collect_ends(value: &Value, key: Option<&str>, found: &mut Vec<(String, TensorRef)>) -> Option<()> {
    match value {
        Value::Object(named) => {
            let mut named: Vec<_> = named.iter().collect();
            named.sort_by_key(|(name, _)| *name);
            named.into_iter().try_for_each(|(name, v)| collect_ends(v, key.or(Some(name)), found))
        }
        Value::Array(parts) if parts.first().is_some_and(Value::is_string) => {
            let tensor = reference(parts)?;
            found.push((key.map_or_else(|| tensor.layer.clone(), str::to_owned), tensor));
            Some(())
        }
        Value::Array(parts) => parts.iter().try_for_each(|v| collect_ends(v, key, found)),
        _ => None,
    }
}

impl LayerConfig {
    fn parse(value: &Value, names: &HashSet<String>, generation: Generation) -> Result<Self, Error> {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let class = class_of(class).to_owned();
        let config = value.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::model(format!("a layer of class `{class}` has no name")))?.to_owned();
        let inner = value.get("config").map(|c| ModelConfig::from_config(&class, c, generation)).transpose()?.flatten();
        let nodes = value.get("inbound_nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let parser = CallParser { names, function: class.ends_with("OpLambda") };
        let calls = nodes.iter().map(|node| parser.parse(node)).collect::<Result<_, _>>();
        let mut calls: Vec<Call> = calls.map_err(|message| Error::layer(&name, &class, message))?;
        if calls.is_empty() {
            calls.push(Call::default());
        }
        let mut layer = Self { name, class, config, calls, inner };
        check_policy(&layer.config).map_err(|message| Error::layer(&layer.name, &layer.class, message))?;
        // Operations bear the names of layers and have none of their settings; not every file names modules, and a few
        // layers leave out `trainable`.
        let module = value.get("module").and_then(Value::as_str);
        let may_be_operation = !layer.config.contains_key("trainable")
            && (operation::is_known(&layer.class) || !CLASSES.contains(&layer.class.as_str()));
        let is_operation = module.map_or(generation.has_operations() && may_be_operation, |m| m.contains(".ops."));
        if is_operation && layer.inner.is_none() {
            operation::to_function(&mut layer)?;
        }
        if layer.class == node_def::CLASS && layer.config.contains_key("node_def") {
            node_def::to_function(&mut layer)?;
        }
        layer.settle_calls(generation)?;
        generation.name_activations(&mut layer.config);
        Ok(layer)
    }

    /// Brings calls into the form that later stages know.
    fn settle_calls(&mut self, generation: Generation) -> Result<(), Error> {
        let plain = self.inner.is_none() && !self.class.ends_with("OpLambda");
        for call in &mut self.calls {
            let on = |v: &Value| v.as_bool() == Some(true) || v.as_f64().is_some_and(|n| n != 0.0);
            if call.kwargs.get("training").is_some_and(on) {
                if generation.keeps_training() && training_matters(&self.class, &self.config) {
                    let message = "it is called with training=True, so it trains when the model predicts";
                    return Err(Error::layer(&self.name, &self.class, message));
                }
                call.kwargs.shift_remove("training");
            }
            if !plain {
                continue;
            }
            if self.class == attention::CLASS {
                attention::settle(call).map_err(|message| Error::layer(&self.name, &self.class, message))?;
                continue;
            }
            call.plain();
            // Keras' own layers know two settings of a call.
            let other =
                |(key, value): &(&String, &Value)| !matches!(key.as_str(), "training" | "mask") && !value.is_null();
            if CLASSES.contains(&self.class.as_str())
                && let Some((key, _)) = call.kwargs.iter().find(other)
            {
                let message = format!("it is called with the argument `{key:.60}`, which it doesn't know");
                return Err(Error::layer(&self.name, &self.class, message));
            }
        }
        if self.class == attention::CLASS && self.calls.windows(2).any(|two| two[0].kwargs != two[1].kwargs) {
            let message = "it is called several times, with a causal mask and without, or with a key and without";
            return Err(Error::layer(&self.name, &self.class, message));
        }
        Ok(())
    }
}
