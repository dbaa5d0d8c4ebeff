//! Keras' `model_config` and weights, as Keras 2 and 3 put them into an `.h5` file.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::LoadOptions;
use super::h5::H5;
use super::weights::ModelWeights;
use crate::error::Error;
use crate::ir::{Graph, NodeId};
use crate::ops::{Config, Op, WeightSource};
use crate::tensor::Tensor;

const MAX_INPUT_ELEMENTS: usize = 1 << 28;

/// Key of a fixed batch size in the extras of an input.
pub(super) const BATCH_SIZE: &str = "batch_size";

/// One layer as the config has it.
pub(super) struct LayerConfig {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) config: Map<String, Value>,
    /// Producers by name, in argument order.
    pub(super) inputs: Vec<String>,
}

/// A functional or sequential model without its weights; sequential ones are given an input layer and edges.
pub(super) struct ModelConfig {
    pub(super) name: String,
    pub(super) layers: Vec<LayerConfig>,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
}

impl ModelConfig {
    pub(super) fn read(file: &H5) -> Result<Self, Error> {
        let text = file.string("/", "model_config").map_err(|e| file.error(e))?.ok_or_else(|| {
            file.error(
                "holds no model_config: it was saved with save_weights() or is not a Keras model; save the whole model",
            )
        })?;
        let value: Value =
            serde_json::from_str(&text).map_err(|e| file.error(format!("model_config is not JSON: {e}")))?;
        Self::parse(&value)
    }

    /// From the JSON of `model.to_json()`.
    pub(super) fn parse(value: &Value) -> Result<Self, Error> {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
        let config = value.get("config").ok_or_else(|| Error::model("model_config has no `config`"))?;
        let layers = match config.get("layers").or(Some(config)).and_then(Value::as_array) {
            Some(layers) if matches!(class, "Functional" | "Model" | "Sequential") => layers,
            _ => {
                return Err(Error::model(format!(
                    "the model's class is `{class}`; functional and sequential models can be read"
                )));
            }
        };
        let mut model = Self {
            name: config.get("name").and_then(Value::as_str).unwrap_or("model").to_owned(),
            layers: layers.iter().map(LayerConfig::parse).collect::<Result<_, _>>()?,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        if class == "Sequential" {
            model.chain(config)?;
        } else {
            model.inputs = ends(config, "input_layers")?;
            model.outputs = ends(config, "output_layers")?;
        }
        Ok(model)
    }

    /// Turns a sequential model into a functional one.
    fn chain(&mut self, config: &Value) -> Result<(), Error> {
        let Some(first) = self.layers.first() else { return Err(Error::model("the model has no layers")) };
        if first.class != "InputLayer" {
            let own = ["batch_input_shape", "batch_shape"].iter().find_map(|k| first.config.get(*k));
            let shape = own.or_else(|| config.get("build_input_shape")).cloned().unwrap_or(Value::Null);
            let name = format!("{}_input", first.name);
            let config = json!({ "batch_input_shape": shape, "dtype": "float32", "sparse": false, "ragged": false });
            let config = config.as_object().cloned().unwrap_or_default();
            self.layers.insert(0, LayerConfig { name, class: "InputLayer".into(), config, inputs: Vec::new() });
        }
        for i in 1..self.layers.len() {
            self.layers[i].inputs = vec![self.layers[i - 1].name.clone()];
        }
        self.inputs = self.layers.first().map(|l| l.name.clone()).into_iter().collect();
        self.outputs = self.layers.last().map(|l| l.name.clone()).into_iter().collect();
        Ok(())
    }

    /// Whether the vendor's quantizer wrote it.
    pub(super) fn is_quantized(&self) -> bool {
        self.layers.iter().any(|l| l.class.starts_with("Vitis>"))
    }

    /// Layers so that each stands behind its inputs; an error names a layer whose input is missing or comes from itself.
    pub(super) fn sorted(&self) -> Result<Vec<&LayerConfig>, Error> {
        let mut index = HashMap::new();
        for (i, layer) in self.layers.iter().enumerate() {
            if index.insert(layer.name.as_str(), i).is_some() {
                return Err(Error::layer(&layer.name, &layer.class, "its name stands twice in the model"));
            }
        }
        let mut waiting = Vec::with_capacity(self.layers.len());
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.layers.len()];
        for (i, layer) in self.layers.iter().enumerate() {
            for input in &layer.inputs {
                match index.get(input.as_str()) {
                    Some(producer) => readers[*producer].push(i),
                    None => {
                        let message = format!("it reads layer `{input}`, which is not in the model");
                        return Err(Error::layer(&layer.name, &layer.class, message));
                    }
                }
            }
            waiting.push(layer.inputs.len());
        }
        let mut ready: Vec<usize> = (0..waiting.len()).rev().filter(|i| waiting[*i] == 0).collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(i) = ready.pop() {
            order.push(&self.layers[i]);
            for reader in readers[i].iter().rev() {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.push(*reader);
                }
            }
        }
        match waiting.iter().position(|n| *n > 0) {
            Some(i) => Err(Error::layer(&self.layers[i].name, &self.layers[i].class, "its inputs depend on itself")),
            None => Ok(order),
        }
    }

    /// The float graph.
    pub(super) fn float_graph(mut self, weights: &dyn ModelWeights, options: &LoadOptions) -> Result<Graph, Error> {
        self.override_shapes(options)?;
        let mut builder = Builder::new(&self.name);
        for layer in self.sorted()? {
            let mut source = weights.layer(&layer.name, &layer.class);
            let op = builder.op(&layer.name, &layer.class, &layer.config, &layer.inputs, &mut *source)?;
            let id = builder.add(&layer.name, &layer.name, op, &layer.inputs)?;
            builder.graph.node_mut(id).origin = vec![layer.name.clone()];
            builder.graph.node_mut(id).extras = extras(&builder.graph.node(id).op, &layer.config);
        }
        builder.finish(&self.inputs, &self.outputs)
    }

    /// Puts the shapes that the user gave into the input layers, and checks that all shapes are known.
    pub(super) fn override_shapes(&mut self, options: &LoadOptions) -> Result<(), Error> {
        let names = self.inputs.clone();
        for (name, shape) in &options.input_shapes {
            let target = match (name, names.as_slice()) {
                (Some(name), _) => names.iter().find(|n| *n == name),
                (None, [only]) => Some(only),
                (None, _) => None,
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
fn input_shape(config: &Map<String, Value>) -> (&'static str, Value) {
    let key = if config.contains_key("batch_shape") { "batch_shape" } else { "batch_input_shape" };
    (key, config.get(key).cloned().unwrap_or(Value::Null))
}

/// Layers at the ends of a functional model: `[["a", 0, 0], …]`, or `["a", 0, 0]` alone.
fn ends(config: &Value, key: &str) -> Result<Vec<String>, Error> {
    let fail = || Error::model(format!("model_config has no usable `{key}`"));
    let list = config.get(key).and_then(Value::as_array).ok_or_else(fail)?;
    if let Some(Value::String(one)) = list.first() {
        return Ok(vec![one.clone()]);
    }
    let name = |v: &Value| v.get(0).and_then(Value::as_str).map(str::to_owned);
    list.iter().map(name).collect::<Option<Vec<_>>>().filter(|l| !l.is_empty()).ok_or_else(fail)
}

impl LayerConfig {
    fn parse(value: &Value) -> Result<Self, Error> {
        let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let config = value.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = value.get("name").or_else(|| config.get("name")).and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::model(format!("a layer of class `{class}` has no name")))?.to_owned();
        let fail = |message: String| Err(Error::layer(&name, &class, message));
        if matches!(class.as_str(), "Functional" | "Model" | "Sequential") {
            return fail("it is a model inside the model; put its layers into the outer model".into());
        }
        let nodes = value.get("inbound_nodes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let inputs = match nodes {
            [] => Vec::new(),
            [node] => match tensors(node) {
                Ok(inputs) => inputs,
                Err(message) => return fail(message),
            },
            many => {
                let n = many.len();
                return fail(format!("it is applied {n} times; give each place a layer of its own"));
            }
        };
        Ok(Self { name, class, config, inputs })
    }
}

/// Producers of one call: `[["name", 0, 0, {}], …]`, or Keras 3's `{"args": […]}`.
fn tensors(node: &Value) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    if let Some(args) = node.get("args") {
        keras3_tensors(args, &mut found)?;
        return Ok(found);
    }
    let bad = || format!("its inbound node {node} is not understood");
    let list = node.as_array().ok_or_else(bad)?;
    let calls = if list.first().is_some_and(Value::is_string) { std::slice::from_ref(node) } else { list.as_slice() };
    for call in calls {
        let parts = call.as_array().ok_or_else(bad)?;
        found.push(history(parts)?);
        let training = parts.get(3).and_then(|kwargs| kwargs.get("training"));
        if training.and_then(Value::as_bool) == Some(true) {
            return Err("it is called with training=True".into());
        }
    }
    Ok(found)
}

/// The layer of `["name", node, tensor]`; only first nodes and tensors exist in what we read.
fn history(parts: &[Value]) -> Result<String, String> {
    match parts {
        [Value::String(name), node, tensor, ..] if node.as_u64() == Some(0) && tensor.as_u64() == Some(0) => {
            Ok(name.clone())
        }
        [Value::String(name), ..] => Err(format!("it reads another than the first result of `{name}`")),
        _ => Err("one of its inputs is not the result of a layer".into()),
    }
}

fn keras3_tensors(value: &Value, found: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::Array(items) => items.iter().try_for_each(|v| keras3_tensors(v, found)),
        Value::Object(o) => match o.get("config").and_then(|c| c.get("keras_history")).and_then(Value::as_array) {
            Some(parts) => {
                found.push(history(parts)?);
                Ok(())
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A graph in the making, whose nodes are looked up by the names that the file uses.
pub(super) struct Builder {
    pub(super) graph: Graph,
    ids: HashMap<String, NodeId>,
}

impl Builder {
    pub(super) fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, ids: HashMap::new() }
    }

    fn input_ids(&self, inputs: &[String]) -> Result<Vec<NodeId>, Error> {
        inputs.iter().map(|n| self.id(n)).collect()
    }

    /// The node of a layer's name in the file.
    pub(super) fn id(&self, name: &str) -> Result<NodeId, Error> {
        self.ids.get(name).copied().ok_or_else(|| Error::model(format!("layer `{name}` is not in the model")))
    }

    /// The op of a Keras class and settings.
    pub(super) fn op(
        &self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
        inputs: &[String],
        weights: &mut dyn WeightSource,
    ) -> Result<Op, Error> {
        let ids = self.input_ids(inputs)?;
        let shapes: Vec<&[usize]> = ids.iter().map(|id| self.graph.node(*id).shape.as_slice()).collect();
        match Op::from_keras(class, Config(config), &shapes, weights) {
            None => Err(Error::UnsupportedLayer { layer: name.into(), class: class.into() }),
            Some(Err(message)) => Err(Error::layer(name, class, message)),
            Some(Ok(op)) => Ok(op),
        }
    }

    /// Adds a node called `name` that the file calls `key`.
    pub(super) fn add(&mut self, key: &str, name: &str, op: Op, inputs: &[String]) -> Result<NodeId, Error> {
        let ids = self.input_ids(inputs)?;
        let id = self.graph.add(name, op, ids, Vec::new())?;
        self.ids.insert(key.to_owned(), id);
        Ok(id)
    }

    /// Sets the ends, without bringing the nodes into order.
    pub(super) fn set_ends(&mut self, inputs: &[String], outputs: &[String]) -> Result<(), Error> {
        self.graph.inputs = self.input_ids(inputs)?;
        self.graph.outputs = self.input_ids(outputs)?;
        Ok(())
    }

    fn finish(mut self, inputs: &[String], outputs: &[String]) -> Result<Graph, Error> {
        self.set_ends(inputs, outputs)?;
        self.graph.normalize();
        self.graph.verify()?;
        Ok(self.graph)
    }
}

/// The settings of an op as they go into a file. An f32 is written as its shortest decimal, 0.001 and not
/// 0.0010000000474974513; except those of ReLU, which Keras itself has turned into f32.
pub(super) fn own_settings(op: &Op) -> Map<String, Value> {
    let mut own = op.layer().to_keras();
    for value in own.values_mut().filter(|v| v.is_f64()) {
        let Some(single) = value.as_f64().map(|v| v as f32) else { continue };
        let shortest = single.to_string().parse::<f64>().unwrap_or(single.into());
        *value = if matches!(op, Op::Relu(_)) { json!(f64::from(single)) } else { json!(shortest) };
    }
    own
}

/// Settings of a config that its op doesn't model, in their order. The fixed batch size of an input goes by the name
/// [`BATCH_SIZE`].
pub(super) fn extras(op: &Op, config: &Map<String, Value>) -> Map<String, Value> {
    let own = own_settings(op);
    let unmodelled = |key: &str| key != "name" && !own.contains_key(key);
    let mut extras: Map<String, Value> =
        config.iter().filter(|(key, _)| unmodelled(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if matches!(op, Op::Input(_)) {
        let (_, shape) = input_shape(config);
        extras.extend(shape.get(0).filter(|v| v.is_u64()).map(|v| (BATCH_SIZE.to_owned(), v.clone())));
    }
    extras
}

impl ModelWeights for H5 {
    fn layer(&self, name: &str, _: &str) -> Box<dyn WeightSource + '_> {
        let root = if self.has_group("model_weights") { "model_weights" } else { "/" };
        Box::new(LayerWeights::new(self, root, name))
    }
}

/// The weights of one layer in the file.
pub(super) struct LayerWeights<'a> {
    file: &'a H5,
    group: String,
    /// Paths below the group; read when the first weight is asked for.
    names: Option<Vec<String>>,
}

impl<'a> LayerWeights<'a> {
    pub(super) fn new(file: &'a H5, root: &str, layer: &str) -> Self {
        Self { file, group: format!("{}/{layer}", root.trim_end_matches('/')), names: None }
    }

    /// Names of all weights as the file lists them.
    pub(super) fn names(&mut self) -> Result<&[String], String> {
        if self.names.is_none() {
            self.names = Some(self.file.strings(&self.group, "weight_names")?.unwrap_or_default());
        }
        Ok(self.names.as_deref().unwrap_or_default())
    }
}

/// The last part of a weight's path, without the output number.
pub(super) fn short_name(path: &str) -> &str {
    let last = path.rsplit('/').next().unwrap_or(path);
    last.strip_suffix(":0").unwrap_or(last)
}

impl WeightSource for LayerWeights<'_> {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        let names = self.names()?;
        let Some(path) = names.iter().find(|n| short_name(n) == name).cloned() else {
            let known: Vec<&str> = names.iter().map(|n| short_name(n)).collect();
            return Err(format!("its weight `{name}` is not in the file, which has [{}] for it", known.join(", ")));
        };
        let tensor = self.file.floats(&format!("{}/{path}", self.group))?;
        if tensor.shape() != shape {
            return Err(format!("its weight `{name}` has shape {:?}, {shape:?} is expected", tensor.shape()));
        }
        if let Some(i) = tensor.data().iter().position(|v| !v.is_finite()) {
            return Err(format!("its weight `{name}` has the value {} at index {i}", tensor.data()[i]));
        }
        Ok(tensor)
    }
}
