//! Quantized models in the vendor's form: `quantized.h5`.
//!
//! Every wrapped layer is a `QuantizeWrapper` with the layer's own config and the strategy's entry inside; positions
//! and ranges are scalar variables beside the unquantized float weights. Key order, names and types are the vendor's,
//! so that its tools read what we write.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::conv_norm;
use crate::flatten::{Flat, FlatLayer};
use crate::float_graph::Assembly;
use crate::h5::{Data, H5, Tree};
use crate::layers::functions::{CALL, TENSOR};
use crate::layers::{self, WeightSource, attributes};
use crate::record::{LayerConfig, ModelConfig};
use crate::stored::LayerWeights;
use crate::wrapped::Wrapped;
use shiftwise_files::LoadOptions;
use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::layer_quant::{ActivationPlace, ActivationQuant, LayerQuant};
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::python;
use shiftwise_quant::qat::{ConvNorm, Qat};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::role::Role;
use shiftwise_quant::scheme::channels::Channels;
use shiftwise_quant::scheme::{Numbers, Quantizer};
use shiftwise_tensor::tensor::Tensor;

/// The calibrated state of the vendor's layers.
const MODE: &str = "QCBEV";

/// The state of the vendor's layers in training.
const TRAINING_MODE: &str = "QAT";

/// The state of custom layers and of those that quantize what they read: the vendor's tool forgets to switch them.
const UNSWITCHED_MODE: &str = "QCB";

/// The wrapper of a quantized layer.
const WRAPPER: &str = "Vitis>QuantizeWrapper";

/// The wrapper of a layer that also quantizes what it reads.
const READING_WRAPPER: &str = "Vitis>QuantizeWrapperV2";

/// The Keras version whose files these are.
const KERAS_VERSION: &str = "2.12.0";

/// The name that the vendor registered a class under.
fn registered(class: &str) -> &str {
    match class {
        "VitisAveragePooling2D" => "Vitis>AveragePooling2D",
        "VitisGlobalAveragePooling2D" => "Vitis>VitisGlobalAveragePooling2D",
        "VitisSigmoid" => "Vitis>VitisSigmoid",
        "VitisSoftmax" => "Vitis>VitisSoftmax",
        "VitisLayernorm" => "Vitis>VitisLayernorm",
        other => other,
    }
}

/// The class of a registered name.
fn unregistered(class: &str) -> &str {
    match class {
        "Vitis>AveragePooling2D" => "VitisAveragePooling2D",
        other => other.strip_prefix("Vitis>").unwrap_or(other),
    }
}

// Writing.

/// Layers of the file with the nodes that are their calls. A shared layer stands where its first call does.
pub(crate) fn file_layers(graph: &Graph) -> Vec<Vec<NodeId>> {
    let mut layers: Vec<Vec<NodeId>> = Vec::new();
    let mut shared: HashMap<&str, usize> = HashMap::new();
    for id in graph.ids() {
        match &graph.node(id).shared {
            Some(call) => match shared.entry(&call.layer) {
                Entry::Occupied(at) => layers[*at.get()].push(id),
                Entry::Vacant(at) => {
                    at.insert(layers.len());
                    layers.push(vec![id]);
                }
            },
            None => layers.push(vec![id]),
        }
    }
    for calls in &mut layers {
        calls.sort_by_key(|id| graph.node(*id).shared.as_ref().map(|call| call.number));
    }
    layers
}

/// What the file calls each node: layer and number of the call.
fn references(form: &Form<'_>, layers: &[Vec<NodeId>]) -> Vec<(String, usize)> {
    let mut names = vec![(String::new(), 0); form.quantized.graph.nodes.len()];
    for calls in layers {
        for (number, id) in calls.iter().enumerate() {
            names[id.0] = (form.layer_name(calls[0]), number);
        }
    }
    names
}

/// What is written: a network at inference, or in training.
pub(crate) struct Form<'a> {
    quantized: &'a QuantGraph,
    /// Normalizations that are trained with their convolutions; `None` at inference.
    norms: Option<&'a BTreeMap<NodeId, ConvNorm>>,
}

impl<'a> Form<'a> {
    /// A network at inference.
    pub(crate) fn calibrated(quantized: &'a QuantGraph) -> Self {
        Self { quantized, norms: None }
    }

    /// The normalization that is one layer with a convolution.
    fn norm(&self, id: NodeId) -> Option<&'a ConvNorm> {
        self.norms?.get(&id)
    }

    /// The name of a node's layer in the file.
    fn layer_name(&self, id: NodeId) -> String {
        let node = self.quantized.graph.node(id);
        match (&node.shared, self.norm(id)) {
            (Some(call), _) => call.layer.clone(),
            (None, Some(own)) => conv_norm::name(node, own),
            (None, None) => self.quantized.quant_name(id),
        }
    }

    /// The state of the vendor's layers; some are forgotten when the others are switched to evaluation.
    fn mode(&self, unswitched: bool) -> &'static str {
        match self.norms {
            Some(_) => TRAINING_MODE,
            None if self.quantized.trained => TRAINING_MODE,
            None if unswitched => UNSWITCHED_MODE,
            None => MODE,
        }
    }
}

/// The file's attribute with what travels beside the numbers; other readers pass it over.
const METADATA: &str = "shiftwise_metadata";

/// The bytes of a quantized model's file.
pub fn write(quantized: &QuantGraph, path: &Path) -> Result<Vec<u8>, Error> {
    write_form(&Form::calibrated(quantized), path)
}

/// The bytes of the file of a network in training: the vendor's `qat.h5`.
pub fn write_training(qat: &Qat, path: &Path) -> Result<Vec<u8>, Error> {
    write_form(&Form { quantized: &qat.quantized, norms: Some(&qat.norms) }, path)
}

/// The variables of a network in training with their shapes and values, by the path and in the order of its file.
pub fn training_variables(qat: &Qat) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let form = Form { quantized: &qat.quantized, norms: Some(&qat.norms) };
    let layers = file_layers(&qat.quantized.graph);
    let of_layer = |calls: &Vec<NodeId>| {
        let name = form.layer_name(calls[0]);
        let flat = move |(short, data): (String, Data)| {
            let (shape, values) = match data {
                Data::Floats(tensor, _) => (tensor.shape().to_vec(), tensor.into_data()),
                Data::Int(value) => (Vec::new(), vec![value as f32]),
                Data::Ints(values) => (vec![values.len()], values.iter().map(|v| *v as f32).collect()),
            };
            (format!("{name}/{short}:0"), shape, values)
        };
        layer_data(&form, calls[0]).into_iter().map(flat).collect::<Vec<_>>()
    };
    layers.iter().flat_map(of_layer).collect()
}

fn write_form(form: &Form<'_>, path: &Path) -> Result<Vec<u8>, Error> {
    let quantized = form.quantized;
    let layers = file_layers(&quantized.graph);
    let mut root = Tree::default();
    root.text("backend", "tensorflow");
    root.text("keras_version", KERAS_VERSION);
    root.ascii("model_config", &python::dumps(&model_config(form, &layers)));
    match quantized.metadata.to_text() {
        text if text.is_empty() => {}
        text => root.text(METADATA, &text),
    }
    let weights = root.group("model_weights");
    weights.ascii("backend", "tensorflow");
    weights.ascii("keras_version", KERAS_VERSION);
    weights.list("layer_names", layers.iter().map(|calls| form.layer_name(calls[0])).collect());
    weights.group("top_level_model_weights").list("weight_names", Vec::new());
    for calls in &layers {
        let name = form.layer_name(calls[0]);
        let group = weights.group(&name);
        let data = layer_data(form, calls[0]);
        let paths: Vec<String> = data.iter().map(|(short, _)| format!("{name}/{short}:0")).collect();
        group.list("weight_names", paths.clone());
        for (path, (_, data)) in paths.iter().zip(data) {
            group.dataset(path, data);
        }
    }
    root.to_bytes(path)
}

/// Variables of a layer in the vendor's order: what is trained, with the quantized weights behind the others; then the rest.
fn layer_data(form: &Form<'_>, id: NodeId) -> Vec<(String, Data)> {
    let quantized = form.quantized;
    let node = quantized.graph.node(id);
    let integers = layers::integers(&node.op).into_iter().map(|(name, v)| (name.to_owned(), Data::Int(v)));
    let weights = node.op.layer().weights().into_iter();
    let weights = weights.map(|(name, tensor)| (name, Data::Floats(tensor.clone(), node.dtype)));
    let Some(quant) = quantized.layers.get(&id) else {
        return weights.map(|(name, data)| (name.to_owned(), data)).chain(integers).collect();
    };
    if let Some(own) = form.norm(id) {
        let states = quant
            .quantizers(node)
            .map(|(role, prefix, q)| (prefix, state_shape(&tensor_shape(node, role, prefix), q), q));
        return conv_norm::data(node, own, states.flat_map(|(prefix, shape, q)| variables(prefix, &shape, q)));
    }
    // Statistics of a normalization are not trained.
    let (moving, weights): (Vec<_>, Vec<_>) = weights.partition(|(name, _)| name.starts_with("moving_"));
    let (mut own, mut trained, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    let mut weights: Vec<Option<(&str, Data)>> = weights.into_iter().map(Some).collect();
    for (role, prefix, q) in quant.quantizers(node) {
        let shape = state_shape(&tensor_shape(node, role, prefix), q);
        for (is_trained, name, data) in variables(prefix, &shape, q) {
            let to = if is_trained { &mut trained } else { &mut rest };
            to.push((name, data));
        }
        let named = |slot: &&mut Option<(&str, Data)>| slot.as_ref().is_some_and(|(name, _)| *name == prefix);
        // The wrapper of layers that quantize what they read leaves the order alone.
        let weight = weights.iter_mut().find(named).filter(|_| role.is_weight() && !quant.reads());
        trained.extend(weight.and_then(Option::take).map(|(name, data)| (name.to_owned(), data)));
    }
    own.extend(weights.into_iter().flatten().map(|(name, d)| (name.to_owned(), d)));
    own.append(&mut trained);
    own.extend(moving.into_iter().map(|(name, d)| (name.to_owned(), d)));
    let step = ("optimizer_step".to_owned(), Data::Int(quant.steps));
    if matches!(node.op, Op::Quantize(_)) {
        own.append(&mut rest);
        own.push(step);
    } else {
        own.extend(integers.chain([step]));
        own.append(&mut rest);
    }
    own
}

/// The variables of a quantizer, and whether training changes them.
fn variables(prefix: &str, shape: &[usize], q: &Quantizer) -> Vec<(bool, String, Data)> {
    let parts = q.scheme().parts().into_iter();
    parts.map(|part| (part.trained, format!("{prefix}_{}", part.name), data(part.values, shape))).collect()
}

/// The values of a quantizer's variable.
fn data(values: Numbers, shape: &[usize]) -> Data {
    match values {
        Numbers::State(values) => {
            Data::Floats(Tensor::new(shape.to_vec(), values).unwrap_or_else(|| Tensor::zeros(&[0])), Dtype::Float32)
        }
        Numbers::Floats(values) => Data::Floats(Tensor::vector(values), Dtype::Float32),
        Numbers::Integers(values) => Data::Ints(values),
    }
}

/// The shape of a layer's tensor in a role: a weight by its name, or the result with the batch.
fn tensor_shape(node: &Node, role: Role, name: &str) -> Vec<usize> {
    let weights = node.op.layer().weights();
    let weight = weights.into_iter().find(|(own, _)| role.is_weight() && *own == name);
    weight.map_or_else(|| [&[1], node.shape.as_slice()].concat(), |(_, tensor)| tensor.shape().to_vec())
}

/// The shape of a quantizer's variables: a scalar, or one value for each channel of its tensor.
fn state_shape(tensor: &[usize], q: &Quantizer) -> Vec<usize> {
    q.scheme().channel_axis().map_or_else(Vec::new, |axis| Channels::variable_shape(tensor, axis))
}

pub(crate) fn model_config(form: &Form<'_>, layers: &[Vec<NodeId>]) -> Value {
    let graph = &form.quantized.graph;
    let names = references(form, layers);
    let ends =
        |ids: &[NodeId]| -> Vec<Value> { ids.iter().map(|id| json!([names[id.0].0, names[id.0].1, 0])).collect() };
    let layers: Vec<Value> = layers.iter().map(|calls| layer_config(form, calls, &names)).collect();
    json!({
        "class_name": "Functional",
        "config": {
            "name": graph.name,
            "trainable": true,
            "layers": layers,
            "input_layers": ends(&graph.inputs),
            "output_layers": ends(&graph.outputs),
        }
    })
}

/// The inbound node of a call: its tensors, each with the keyword arguments.
fn inbound(node: &Node, names: &[(String, usize)]) -> Value {
    let tensor = |k: usize| node.inputs.get(k).map(|id| json!([names[id.0].0, names[id.0].1, 0]));
    let function = matches!(node.op, Op::TfOp(_));
    let Some(call) = node.extras.get(CALL).map(attributes::value) else {
        let mut tensors: Vec<Value> = (0..node.inputs.len()).filter_map(tensor).map(|t| with(t, &json!({}))).collect();
        // The arguments of a function are no list, unlike those of a layer.
        return if function && tensors.len() == 1 { tensors.remove(0) } else { Value::Array(tensors) };
    };
    // Tensors among the keyword arguments are written like the positional ones, without arguments of their own.
    fn resolve(value: &Value, tensor: &dyn Fn(usize) -> Option<Value>) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|v| resolve(v, tensor)).collect(),
            Value::Object(o) => match o.get(TENSOR).and_then(Value::as_u64).and_then(|k| tensor(k as usize)) {
                Some(found) => found,
                None => Value::Object(o.iter().map(|(k, v)| (k.clone(), resolve(v, tensor))).collect()),
            },
            other => other.clone(),
        }
    }
    let kwargs = resolve(call.get("kwargs").unwrap_or(&json!({})), &tensor);
    let argument = |value: &Value| match resolve(value, &tensor) {
        found if value.get(TENSOR).is_some() => with(found, &kwargs),
        constant => json!(["_CONSTANT_VALUE", -1, constant, kwargs]),
    };
    let args = call.get("args").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match args {
        [Value::Array(list)] => list.iter().map(argument).collect(),
        [one] if function => argument(one),
        args => args.iter().map(argument).collect(),
    }
}

/// A tensor's reference with the keyword arguments behind it.
fn with(mut reference: Value, kwargs: &Value) -> Value {
    if let Some(parts) = reference.as_array_mut() {
        parts.push(kwargs.clone());
    }
    reference
}

fn layer_config(form: &Form<'_>, calls: &[NodeId], names: &[(String, usize)]) -> Value {
    let (id, quantized) = (calls[0], form.quantized);
    let node = quantized.graph.node(id);
    let name = form.layer_name(id);
    let nodes: Vec<Value> = calls
        .iter()
        .map(|id| quantized.graph.node(*id))
        .filter(|n| !n.inputs.is_empty())
        .map(|n| inbound(n, names))
        .collect();
    let custom = matches!(node.op, Op::Custom(_));
    let (mut class, mut config) = match (quantized.layers.get(&id), &node.op) {
        (quant, Op::Quantize(_)) => {
            let quantizer = quant
                .and_then(|q| q.output.as_ref())
                .map(|q| json!({ "class_name": format!("Vitis>{}", q.class()), "config": q.scheme().config() }));
            let config = json!({
                "name": name, "trainable": true, "dtype": "float32", "quantizer": quantizer,
                "mode": form.mode(false),
            });
            ("Vitis>VitisQuantize", config)
        }
        (Some(quant), _) if form.norm(id).is_some() => {
            let mut activation = json!(node.op.layer().activation().name());
            wrap_activation(&mut activation, &quant.activation);
            let rest = conv_norm::Rest { activation, quantize_config: quantize_config(quant), mode: form.mode(false) };
            form.norm(id).map_or(("", Value::Null), |own| conv_norm::config(node, own, &name, rest))
        }
        (Some(quant), _) => {
            let mut inner = layers::node::config(node);
            if let Some(activation) = inner.get_mut("activation") {
                wrap_activation(activation, &quant.activation);
            }
            let layer = json!({ "class_name": registered(node.op.class()), "config": inner });
            let mode = form.mode(custom || quant.reads());
            let config = json!({
                "name": name, "trainable": true, "dtype": "float32", "layer": layer,
                "quantize_config": quantize_config(quant), "mode": mode,
            });
            (if quant.reads() { READING_WRAPPER } else { WRAPPER }, config)
        }
        (None, _) => {
            let mut config = layers::node::config(node);
            config.insert("name".into(), json!(name));
            (registered(node.op.class()), Value::Object(config))
        }
    };
    if custom {
        let layer = json!({ "class_name": class, "config": config });
        config = json!({ "name": name, "trainable": true, "dtype": "float32", "layer": layer });
        class = "Vitis>CustomOpWrapper";
    }
    json!({ "class_name": class, "config": config, "name": name, "inbound_nodes": nodes })
}

fn wrap_activation(activation: &mut Value, quant: &ActivationQuant) {
    let inner = match quant {
        ActivationQuant::Absent => return,
        ActivationQuant::Deferred => json!({ "class_name": "Vitis>NoQuantizeActivation", "config": {} }),
        ActivationQuant::Before(_) | ActivationQuant::After(_) => activation.take(),
    };
    *activation = json!({ "class_name": "Vitis>QuantizeAwareActivation", "config": { "activation": inner } });
}

fn quantize_config(quant: &LayerQuant) -> Value {
    let Some(entry) = quant.to_entry() else { return json!({ "class_name": "Vitis>NoQuantizeConfig", "config": {} }) };
    json!({ "class_name": "Vitis>VitisQuantizeConfig", "config": entry })
}

// Reading.

/// A quantized model from its file; one in training as it is at inference.
pub(crate) fn read(model: ModelConfig, file: &H5, options: &LoadOptions) -> Result<QuantGraph, Error> {
    let qat = read_training(model, file, options)?;
    Ok(if qat.norms.is_empty() { qat.quantized } else { qat.folded() })
}

/// A quantized model from its file, to be trained.
pub(crate) fn read_training(mut model: ModelConfig, file: &H5, options: &LoadOptions) -> Result<Qat, Error> {
    model.override_shapes(options)?;
    let flat = Flat::new(&model)?;
    let mut assembly = Assembly::new(&model.name, &flat, options);
    let (mut layers, mut norms) = (Vec::new(), Vec::new());
    let mode = |layer: &LayerConfig| layer.config.get("mode").and_then(Value::as_str) == Some(TRAINING_MODE);
    let trained = flat.layers.iter().any(|layer| mode(layer.config));
    for call in &flat.calls {
        if assembly.part(call)? {
            continue;
        }
        let FlatLayer { path, config: layer, calls, .. } = &flat.layers[call.layer];
        let fail = |message: String| Error::layer(&layer.name, &layer.class, message);
        let mut weights = LayerWeights::new(file, "model_weights", path);
        // A custom layer has a wrapper of its own, around the quantizing one if it is quantized.
        let (class, config) = match layer.class.as_str() {
            "Vitis>CustomOpWrapper" => {
                let inner = Wrapped::any(&layer.config).map_err(fail)?;
                (inner.class, inner.config)
            }
            class => (class, &layer.config),
        };
        let normalized = conv_norm::is_class(class);
        let wrapped = normalized || matches!(class, WRAPPER | READING_WRAPPER | "Vitis>VitisQuantize");
        if wrapped && (*calls > 1 || path.len() > 1) {
            return Err(fail("a quantized layer is applied once, in the outermost model".into()));
        }
        let (id, quant) = match class {
            WRAPPER | READING_WRAPPER => {
                let inner = Wrapped::of(&layer.name, config).map_err(fail)?;
                let op = assembly.op(inner.name, unregistered(inner.class), inner.config, call, &mut weights)?;
                let id = assembly.add(inner.name, op, inner.config, call)?;
                let mut quant =
                    wrapped_quant(assembly.made.graph().node(id), config, inner.config, &mut weights).map_err(fail)?;
                // What was no convolution with its normalization has no number there, or −1.
                quant.steps = weights.integer("optimizer_step").unwrap_or(quant.steps);
                (id, Some(quant))
            }
            _ if normalized => {
                let parts = conv_norm::Parts::of(&layer.name, config).map_err(fail)?;
                let op = assembly.op(parts.conv.name, parts.conv.class, parts.conv.config, call, &mut weights)?;
                let id = assembly.add(parts.conv.name, op, parts.conv.config, call)?;
                let own = parts.norm(&assembly.made.graph().node(id).shape, &mut weights).map_err(fail)?;
                let (biased, node) = (own.biased, assembly.made.node_mut(id));
                if let (Some(w), false) = (node.op.weighted_mut(), biased) {
                    w.bias = Some(Tensor::zeros(own.norm.mean.shape()));
                }
                norms.push((id, own));
                let node = assembly.made.graph().node(id);
                (id, Some(wrapped_quant(node, config, config, &mut weights).map_err(fail)?))
            }
            "Vitis>VitisQuantize" => {
                let op = assembly.op(&layer.name, "VitisQuantize", config, call, &mut weights)?;
                let id = assembly.add(&layer.name, op, config, call)?;
                let quantizer = standalone(layer, &assembly.made.graph().node(id).shape, &mut weights).map_err(fail)?;
                (id, Some(LayerQuant { output: Some(quantizer), ..LayerQuant::bare() }))
            }
            class => {
                let class = if registered(unregistered(class)) == class { unregistered(class) } else { class };
                let name = &flat.layers[call.layer].name;
                let op = match assembly.earlier(call) {
                    Some(op) => op,
                    None => assembly.op(name, class, config, call, &mut weights)?,
                };
                (assembly.add(name, op, config, call)?, None)
            }
        };
        layers.extend(quant.map(|q| (id, q)));
    }
    assembly.check_custom()?;
    let (made, outputs) = assembly.ends();
    let (graph, renumbered) = made.finish_with_ids(&outputs)?;
    let layers = layers.into_iter().filter_map(|(id, q)| Some((*renumbered.get(&id)?, q))).collect();
    let norms = norms.into_iter().filter_map(|(id, own)| Some((*renumbered.get(&id)?, own))).collect();
    let metadata = file.string("/", METADATA).ok().flatten().unwrap_or_default();
    let metadata = Metadata::parse(&metadata).map_err(|why| file.error(why))?;
    Ok(Qat { quantized: QuantGraph { graph, layers, metadata, trained }, norms })
}

/// Quantizers of a wrapper, with their calibrated state.
fn wrapped_quant(
    node: &Node,
    wrapper: &Map<String, Value>,
    inner: &Map<String, Value>,
    weights: &mut LayerWeights<'_>,
) -> Result<LayerQuant, String> {
    let op = &node.op;
    let config = wrapper.get("quantize_config").ok_or("its wrapper has no quantize_config")?;
    let entry = match config.get("class_name").and_then(Value::as_str) {
        Some("Vitis>NoQuantizeConfig") => return Ok(LayerQuant::bare()),
        Some("Vitis>VitisQuantizeConfig") => config.get("config").and_then(Value::as_object),
        _ => None,
    };
    let entry = entry.ok_or_else(|| format!("its quantize_config {config} is not understood"))?;
    let activation = inner.get("activation");
    let class = |v: Option<&Value>| v.and_then(|v| v.get("class_name")).and_then(Value::as_str).map(str::to_owned);
    let innermost = activation.and_then(|a| a.get("config")).and_then(|c| c.get("activation"));
    let place = match class(innermost).as_deref() {
        _ if class(activation).is_none() && layers::write(op, node.shape.len()).find("activation").is_some() => {
            ActivationPlace::Nowhere
        }
        Some("Vitis>NoQuantizeActivation") => ActivationPlace::Behind,
        Some(_) | None => ActivationPlace::Here,
    };
    let mut quant = LayerQuant::from_entry(op, entry, place).map_err(|e| e.to_string())?;
    for (role, prefix, q) in quant.quantizers_mut(node) {
        restore(q, prefix, &tensor_shape(node, role, prefix), weights)?;
    }
    Ok(quant)
}

/// The quantizer of a VitisQuantize layer.
fn standalone(layer: &LayerConfig, shape: &[usize], weights: &mut LayerWeights<'_>) -> Result<Quantizer, String> {
    let value = layer.config.get("quantizer").ok_or("it has no quantizer")?;
    let class = value.get("class_name").and_then(Value::as_str).unwrap_or_default();
    let entry = json!({ "quantizer_type": unregistered(class), "quantizer_params": value.get("config") });
    let mut quantizer = Quantizer::from_entry(&entry).map_err(|e| e.to_string())?;
    restore(&mut quantizer, &layer.name, &[&[1], shape].concat(), weights)?;
    Ok(quantizer)
}

/// Reads positions and ranges of a quantizer of a tensor of this shape.
fn restore(
    quantizer: &mut Quantizer,
    prefix: &str,
    shape: &[usize],
    weights: &mut LayerWeights<'_>,
) -> Result<(), String> {
    // Only the last part of a variable's path tells it, and a layer's name may have several.
    let prefix = prefix.rsplit('/').next().unwrap_or(prefix);
    let shape = state_shape(shape, quantizer);
    let mut values = Vec::new();
    for part in quantizer.scheme().parts() {
        let name = format!("{prefix}_{}", part.name);
        values.push(match part.values {
            Numbers::State(_) if part.infinite => Numbers::State(weights.state(&name, Some(&shape))?.into_data()),
            Numbers::State(_) => Numbers::State(weights.take(&name, &shape)?.into_data()),
            Numbers::Floats(_) => Numbers::Floats(weights.state(&name, None)?.into_data()),
            Numbers::Integers(_) => Numbers::Integers(weights.integers(&name)?),
        });
    }
    quantizer.scheme_mut().restore(prefix, values)
}
