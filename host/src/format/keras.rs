//! Graphs from Keras models.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::call::Call;
use super::flatten::{Flat, FlatCall};
use super::model::{ModelConfig, input_shape};
use super::weights::ModelWeights;
use super::{LoadOptions, config, parts};
use crate::error::Error;
use crate::ir::{Graph, NodeId, SharedCall};
use crate::ops::custom::CustomUse;
use crate::ops::tfop::{CALL, TENSOR, TfOp};
use crate::ops::{ActivationFn, CLASSES, Config, Custom, CustomLayer, Op, WeightSource};
use crate::tensor::Tensor;

/// Key of a fixed batch size in the extras of an input.
pub(super) const BATCH_SIZE: &str = "batch_size";

/// The float graph of a model.
pub(super) fn float_graph(
    mut model: ModelConfig,
    weights: &dyn ModelWeights,
    options: &LoadOptions,
) -> Result<Graph, Error> {
    model.override_shapes(options)?;
    let flat = Flat::new(&model)?;
    let mut builder = Builder::new(&model.name, &flat, options);
    for call in &flat.calls {
        if builder.part(call)? {
            continue;
        }
        let layer = &flat.layers[call.layer];
        let config = layer.config;
        let own = builder.activation(&layer.name, &config.class, &config.config)?;
        if config.class == "Activation"
            && let Some(own) = own
        {
            let shape = builder.input_shape(call);
            let op = own.op(&layer.name, &shape)?;
            builder.add(&layer.name, op, &own.rest, call)?;
            continue;
        }
        let settings = own.as_ref().map_or(&config.config, |own| &own.rest);
        let op = match builder.earlier(call) {
            Some(op) => op,
            None => {
                let mut source = weights.layer(&layer.path, &config.class);
                builder.op(&layer.name, &config.class, settings, call, &mut *source)?
            }
        };
        builder.add(&layer.name, op, settings, call)?;
        if let Some(own) = own {
            builder.activate(&layer.name, &own, call)?;
        }
    }
    builder.check_custom()?;
    let mut graph = builder.finish();
    graph.normalize();
    renumber_calls(&mut graph);
    graph.verify()?;
    Ok(graph)
}

/// The name of a call's node.
fn call_name(layer: &str, number: usize) -> String {
    if number == 0 { layer.to_owned() } else { format!("{layer}:{number}") }
}

/// Counts the calls of shared layers anew: an inner model may compute what its outer one doesn't use.
fn renumber_calls(graph: &mut Graph) {
    let mut layers: BTreeMap<String, Vec<(usize, NodeId)>> = BTreeMap::new();
    for id in graph.ids() {
        if let Some(SharedCall { layer, number }) = graph.node(id).shared.clone() {
            layers.entry(layer).or_default().push((number, id));
        }
    }
    for (layer, mut calls) in layers {
        calls.sort();
        for (number, (_, id)) in calls.iter().enumerate() {
            let node = graph.node_mut(*id);
            node.name = call_name(&layer, number);
            node.excluded = calls.len() > 1;
            node.shared = node.excluded.then(|| SharedCall { layer: layer.clone(), number });
        }
    }
}

/// A graph in the making: one node for each call, in the order of the flat model.
pub(super) struct Builder<'a> {
    pub(super) graph: Graph,
    flat: &'a Flat<'a>,
    custom: CustomUse<'a>,
    /// The first node of each layer.
    first: Vec<Option<NodeId>>,
    /// The node of each call so far.
    ids: Vec<NodeId>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(name: &str, flat: &'a Flat<'a>, options: &'a LoadOptions) -> Self {
        let graph = Graph { name: name.to_owned(), ..Graph::default() };
        Self {
            graph,
            flat,
            custom: CustomUse::new(&options.custom),
            first: vec![None; flat.layers.len()],
            ids: Vec::with_capacity(flat.calls.len()),
        }
    }

    fn input_ids(&self, call: &FlatCall<'_>) -> Vec<NodeId> {
        call.inputs.iter().map(|i| self.ids[*i]).collect()
    }

    /// The op of an earlier call of the same layer, if it is the same for every call.
    pub(super) fn earlier(&self, call: &FlatCall<'_>) -> Option<Op> {
        let op = self.first[call.layer].map(|id| &self.graph.node(id).op);
        // A function is what its arguments make of it.
        op.filter(|op| !matches!(op, Op::TfOp(_))).cloned()
    }

    /// The op of a Keras class and settings.
    pub(super) fn op(
        &mut self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
        call: &FlatCall<'_>,
        weights: &mut dyn WeightSource,
    ) -> Result<Op, Error> {
        let is_function = class.ends_with("OpLambda");
        let function = config.get("function").and_then(Value::as_str).filter(|_| is_function);
        let unknown = function.filter(|function| !TfOp::supports(function)).map(|f| format!("{class} tf.{f}"));
        // Only these read their arguments from the config.
        let with_call = is_function.then(|| {
            let mut config = config.clone();
            config.insert(CALL.to_owned(), json!({ "args": call.call.args, "kwargs": call.call.kwargs }));
            config
        });
        let config = with_call.as_ref().unwrap_or(config);
        let ids = self.input_ids(call);
        let shapes: Vec<&[usize]> = ids.iter().map(|id| self.graph.node(*id).shape.as_slice()).collect();
        let known = match unknown {
            Some(_) => None,
            None => Op::from_keras(class, Config(config), &shapes, weights),
        };
        match known {
            None => {
                let unknown = || Error::UnsupportedLayer { layer: name.into(), class: unknown.unwrap_or(class.into()) };
                let implementation = self.custom.layer(name, class, config).ok_or_else(unknown)?;
                let custom = Custom::from_keras(class, Config(config), &shapes, weights, implementation);
                custom.map(Op::Custom).map_err(|message| Error::layer(name, class, message))
            }
            Some(Err(message)) => Err(Error::layer(name, class, message)),
            Some(Ok(op)) => Ok(op),
        }
    }

    /// Adds the node of the next call. `layer` is the layer's name in the graph.
    pub(super) fn add(
        &mut self,
        layer: &str,
        op: Op,
        config: &Map<String, Value>,
        call: &FlatCall<'_>,
    ) -> Result<NodeId, Error> {
        let shared = self.flat.layers[call.layer].calls > 1;
        let id = self.graph.add(call_name(layer, call.number), op, self.input_ids(call), vec![layer.to_owned()])?;
        let node = self.graph.node_mut(id);
        // The vendor's tool leaves a layer that is applied several times alone.
        node.excluded = shared;
        node.shared = shared.then(|| SharedCall { layer: layer.to_owned(), number: call.number });
        node.extras = extras(&node.op, config);
        node.extras.extend(arguments(call.call).map(|value| (CALL.to_owned(), value)));
        self.first[call.layer].get_or_insert(id);
        self.ids.push(id);
        Ok(id)
    }

    /// Adds the node of the next call if it is one of several results of an operation.
    pub(super) fn part(&mut self, call: &FlatCall<'_>) -> Result<bool, Error> {
        let layer = &self.flat.layers[call.layer];
        if !parts::has_parts(layer.config) {
            return Ok(false);
        }
        let shape = self.input_shape(call);
        let part = parts::part(layer.config, call.call, &shape, layer.result);
        let (config, sliced) = part.map_err(|message| Error::layer(&layer.name, &layer.config.class, message))?;
        let call = FlatCall { call: &sliced, inputs: call.inputs.clone(), ..*call };
        let op = self.op(&layer.name, "SlicingOpLambda", &config, &call, &mut NoWeights)?;
        self.add(&layer.name, op, &config, &call)?;
        Ok(true)
    }

    /// The activation of a layer that is none of Keras' own. `None` where the layer is one that computes no function of
    /// its own, or a known one.
    pub(super) fn activation(
        &mut self,
        layer: &str,
        class: &str,
        config: &Map<String, Value>,
    ) -> Result<Option<OwnActivation>, Error> {
        let known = CLASSES.contains(&class);
        let Some(setting) = config.get("activation").filter(|_| known) else { return Ok(None) };
        let Some(name) = ActivationFn::unknown_name(setting) else { return Ok(None) };
        let unknown =
            || Error::UnsupportedActivation { layer: layer.into(), class: class.into(), activation: name.into() };
        let implementation = self.custom.activation(layer, name, setting).ok_or_else(unknown)?;
        let mut rest = config.clone();
        rest.insert("activation".into(), json!("linear"));
        Ok(Some(OwnActivation { name: name.into(), rest, implementation }))
    }

    /// The shape of a call's first input.
    fn input_shape(&self, call: &FlatCall<'_>) -> Vec<usize> {
        self.input_ids(call).first().map(|id| self.graph.node(*id).shape.clone()).unwrap_or_default()
    }

    /// Adds the node of an activation behind the node that was added last; its readers read the activation.
    fn activate(&mut self, layer: &str, own: &OwnActivation, call: &FlatCall<'_>) -> Result<(), Error> {
        let Some(id) = self.ids.last().copied() else { return Ok(()) };
        let op = own.op(layer, &self.graph.node(id).shape)?;
        let word: String = own.name.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
        let layer = format!("{layer}_{word}");
        let added = self.graph.add(call_name(&layer, call.number), op, vec![id], vec![layer.clone()])?;
        let shared = self.graph.node(id).shared.is_some();
        let node = self.graph.node_mut(added);
        node.excluded = shared;
        node.shared = shared.then_some(SharedCall { layer, number: call.number });
        self.ids.pop();
        self.ids.push(added);
        Ok(())
    }

    /// Fails if a formula stands for layers that are not the same; afterwards, formulas without a layer are warned of.
    pub(super) fn check_custom(&mut self) -> Result<(), Error> {
        self.custom.check()?;
        self.graph.warnings.extend(self.custom.warnings());
        Ok(())
    }

    /// The graph with its ends; the nodes are not yet in Keras' order.
    pub(super) fn finish(mut self) -> Graph {
        self.graph.warnings.extend(self.flat.warnings.iter().cloned());
        let ids = |ends: &[usize]| ends.iter().map(|i| self.ids[*i]).collect();
        (self.graph.inputs, self.graph.outputs) = (ids(&self.flat.inputs), ids(&self.flat.outputs));
        self.graph
    }
}

/// An activation of the user's own, as a layer behind the one that has it.
pub(super) struct OwnActivation {
    name: String,
    /// The settings of the layer without it.
    pub(super) rest: Map<String, Value>,
    implementation: Arc<dyn CustomLayer>,
}

impl OwnActivation {
    /// The layer that computes it.
    fn op(&self, layer: &str, shape: &[usize]) -> Result<Op, Error> {
        let (settings, implementation) = (Map::new(), self.implementation.clone());
        let custom = Custom::from_keras(&self.name, Config(&settings), &[shape], &mut NoWeights, implementation);
        custom.map(Op::Custom).map_err(|message| Error::layer(layer, &self.name, message))
    }
}

/// The weights of what has none.
struct NoWeights;

impl WeightSource for NoWeights {
    fn take(&mut self, name: &str, _: &[usize]) -> Result<Tensor, String> {
        Err(format!("it has no weight `{name}`"))
    }
}

/// The arguments of a call for its file, unless they are nothing but its tensors.
fn arguments(call: &Call) -> Option<Value> {
    let is_tensor = |value: &Value| value.get(TENSOR).is_some();
    let plain = call.kwargs.is_empty()
        && match call.args.as_slice() {
            [Value::Array(list)] => list.len() > 1 && list.iter().all(is_tensor),
            args => args.iter().all(is_tensor),
        };
    (!plain).then(|| json!({ "args": call.args, "kwargs": call.kwargs }))
}

/// The settings of an op as they go into a file. An f32 is written as its shortest decimal, 0.001 and not
/// 0.0010000000474974513; except those of ReLU and LeakyReLU, which Keras itself has turned into f32, and what an op keeps as f64.
pub(super) fn own_settings(op: &Op) -> Map<String, Value> {
    let mut own = op.layer().to_keras();
    if matches!(op, Op::Rescaling(_) | Op::Custom(_)) {
        return own;
    }
    for value in own.values_mut().filter(|v| v.is_f64()) {
        let Some(single) = value.as_f64().map(|v| v as f32) else { continue };
        let shortest = single.to_string().parse::<f64>().unwrap_or(single.into());
        *value = if matches!(op, Op::Relu(_) | Op::LeakyRelu(_)) { json!(f64::from(single)) } else { json!(shortest) };
    }
    own
}

/// Settings of a config that its op doesn't model, in their order, and numbers that it holds as f32. The fixed batch size of an input goes by the name
/// [`BATCH_SIZE`].
pub(super) fn extras(op: &Op, config: &Map<String, Value>) -> Map<String, Value> {
    let own = own_settings(op);
    let keep = |key: &str, value: &Value| match own.get(key) {
        Some(own) => own != value && config::same(own, value),
        None => key != "name",
    };
    let mut extras: Map<String, Value> =
        config.iter().filter(|(key, value)| keep(key, value)).map(|(k, v)| (k.clone(), v.clone())).collect();
    if matches!(op, Op::Input(_)) {
        let (_, shape) = input_shape(config);
        extras.extend(shape.get(0).filter(|v| v.is_u64()).map(|v| (BATCH_SIZE.to_owned(), v.clone())));
    }
    extras
}
