//! Graphs from Keras models.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::call::Call;
use crate::custom_use::CustomUse;
use crate::expand::Expansion;
use crate::flatten::{Flat, FlatCall};
use crate::layers::attention;
use crate::layers::functions::{CALL, TENSOR, supports};
use crate::layers::node::extras;
use crate::layers::{CLASSES, Config, NoWeights, WeightSource, attributes, read, unknown_name};
use crate::record::ModelConfig;
use crate::shape_values::ShapeValues;
use crate::weights::ModelWeights;
use crate::{dtype, layout, parts};
use shiftwise_files::LoadOptions;
use shiftwise_graph::builder::Builder;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId, SharedCall};
use shiftwise_graph::ops::custom::Unknown;
use shiftwise_graph::ops::{Custom, CustomLayer, Op};

/// The float graph of a model.
pub(crate) fn float_graph(
    mut model: ModelConfig,
    weights: &dyn ModelWeights,
    options: &LoadOptions,
) -> Result<Graph, Error> {
    model.override_shapes(options)?;
    let flat = Flat::new(&model)?;
    let mut assembly = Assembly::new(&model.name, &flat, options);
    let mut shapes = ShapeValues::default();
    for (number, call) in flat.calls.iter().enumerate() {
        let layer = &flat.layers[call.layer];
        let config = layer.config;
        let so_far = (assembly.made.graph(), assembly.ids.as_slice());
        if shapes.fold(number, config, call, so_far)? {
            assembly.stand_in(call);
            continue;
        }
        let resolved = shapes.resolve(config, call, so_far)?;
        let resolved = resolved.as_ref().map(|(inputs, own)| FlatCall { inputs: inputs.clone(), call: own, ..*call });
        let call = resolved.as_ref().unwrap_or(call);
        if assembly.part(call)? {
            continue;
        }
        let own = assembly.activation(&layer.name, &config.class, &config.config)?;
        if config.class == "Activation"
            && let Some(own) = own
        {
            assembly.add(&layer.name, own.op(), &own.rest, call)?;
            continue;
        }
        let settings = own.as_ref().map_or(&config.config, |own| &own.rest);
        let op = match assembly.earlier(call) {
            Some(op) => op,
            None => {
                let mut source = weights.layer(&layer.path, &config.class);
                assembly.op(&layer.name, &config.class, settings, call, &mut *source)?
            }
        };
        assembly.add(&layer.name, op, settings, call)?;
        if let Some(own) = own {
            assembly.activate(&layer.name, &own, call)?;
        }
    }
    shapes.check_outputs(&flat)?;
    assembly.check_custom()?;
    let permutations = std::mem::take(&mut assembly.permutations);
    let (made, outputs) = assembly.ends();
    let mut graph = made.unordered(&outputs)?;
    layout::cancel(&mut graph, &permutations)?;
    graph.normalize();
    renumber_calls(&mut graph);
    graph.verify()?;
    Ok(graph)
}

/// The shapes that readers note of what they read, by the number of the call that yields it.
fn recorded(flat: &Flat<'_>) -> BTreeMap<usize, Vec<usize>> {
    let of_call = |call: &FlatCall<'_>| {
        let pairs = call.inputs.iter().copied().zip(call.call.tensors.iter().map(|t| t.shape.clone()));
        pairs.filter_map(|(input, shape)| Some((input, shape?))).collect::<Vec<_>>()
    };
    flat.calls.iter().flat_map(of_call).collect()
}

/// Classes of `keras.applications`, each with a setting that tells it from others of its name.
const APPLICATIONS: &[(&str, &str)] =
    &[("LayerScale", "projection_dim"), ("CustomScaleLayer", "scale"), ("StochasticDepth", "drop_path_rate")];

/// The class of `keras.applications` that a layer is of, with or without a package.
fn application(class: &str, config: &Map<String, Value>) -> Option<&'static str> {
    let short = class.rsplit('>').next().unwrap_or(class);
    let found = APPLICATIONS.iter().find(|(known, key)| *known == short && config.contains_key(*key));
    found.map(|(known, _)| *known)
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
pub(crate) struct Assembly<'a> {
    pub(crate) made: Builder,
    flat: &'a Flat<'a>,
    custom: CustomUse<'a>,
    /// The first node of each layer.
    first: Vec<Option<NodeId>>,
    /// The node of each call so far.
    ids: Vec<NodeId>,
    /// What each layer is made of, if it is more than itself.
    expansions: Vec<Option<Expansion>>,
    /// Shapes of results that the file has, by the number of the call.
    recorded: BTreeMap<usize, Vec<usize>>,
    keep_unknown: bool,
    /// Names that are taken.
    names: HashSet<String>,
    /// Permutations that stand around layers which the file has without.
    permutations: BTreeSet<NodeId>,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(name: &str, flat: &'a Flat<'a>, options: &'a LoadOptions) -> Self {
        Self {
            made: Builder::new(name),
            flat,
            custom: CustomUse::new(&options.custom),
            first: vec![None; flat.layers.len()],
            ids: Vec::with_capacity(flat.calls.len()),
            expansions: vec![None; flat.layers.len()],
            recorded: recorded(flat),
            keep_unknown: options.keep_unknown,
            names: flat.layers.iter().map(|layer| layer.name.clone()).collect(),
            permutations: BTreeSet::new(),
        }
    }

    /// Lets a call that has no node be its input, which nobody reads in its name.
    fn stand_in(&mut self, call: &FlatCall<'_>) {
        let input = call.inputs.first().map_or(NodeId(0), |i| self.ids[*i]);
        self.ids.push(input);
    }

    fn input_ids(&self, call: &FlatCall<'_>) -> Vec<NodeId> {
        call.inputs.iter().map(|i| self.ids[*i]).collect()
    }

    /// The op of an earlier call of the same layer, if it is the same for every call.
    pub(crate) fn earlier(&self, call: &FlatCall<'_>) -> Option<Op> {
        let op = self.first[call.layer].map(|id| &self.made.graph().node(id).op);
        // A function is what its arguments make of it.
        op.filter(|op| !matches!(op, Op::TfOp(_))).cloned()
    }

    /// The op of a Keras class and settings.
    pub(crate) fn op(
        &mut self,
        name: &str,
        class: &str,
        config: &Map<String, Value>,
        call: &FlatCall<'_>,
        weights: &mut dyn WeightSource,
    ) -> Result<Op, Error> {
        let is_function = class.ends_with("OpLambda");
        let function = config.get("function").and_then(Value::as_str).filter(|_| is_function);
        let unknown = function.filter(|function| !supports(function)).map(|f| format!("{class} tf.{f}"));
        // Only these read their arguments from the config.
        let with_call = (is_function || class == attention::CLASS).then(|| {
            let mut config = config.clone();
            config.insert(CALL.to_owned(), json!({ "args": call.call.args, "kwargs": call.call.kwargs }));
            config
        });
        let config = with_call.as_ref().unwrap_or(config);
        let ids = self.input_ids(call);
        let mut shapes: Vec<&[usize]> = ids.iter().map(|id| self.made.graph().node(*id).shape.as_slice()).collect();
        let expansion = match shapes[..] {
            [input] => Expansion::of(class, config, input).map_err(|message| Error::layer(name, class, message))?,
            _ => None,
        };
        if let Some(own) = &expansion {
            shapes = vec![&own.input];
            let op = read(&own.class, Config(&own.config), &shapes, &mut own.weights(weights));
            let op = op.unwrap_or_else(|| Err("its counterpart is unknown".into()));
            let op = op.map_err(|message| Error::layer(name, class, message))?;
            self.expansions[call.layer] = expansion;
            return Ok(op);
        }
        // What the user says of a class that others have too counts.
        let application = application(class, config);
        let known = match application {
            _ if unknown.is_some() => None,
            Some(class) if !self.custom.has(class) => read(class, Config(config), &shapes, weights),
            None if !APPLICATIONS.iter().any(|(known, _)| *known == class) => {
                read(class, Config(config), &shapes, weights)
            }
            _ => None,
        };
        match known {
            None => {
                let unknown = || Error::UnsupportedLayer { layer: name.into(), class: unknown.unwrap_or(class.into()) };
                let kept = || {
                    let shape = self.recorded.get(&self.ids.len()).filter(|_| self.keep_unknown)?;
                    Some(Arc::new(Unknown::new(class, shape)) as Arc<dyn CustomLayer>)
                };
                let implementation = self.custom.layer(name, class, config).or_else(kept).ok_or_else(unknown)?;
                let mut custom = Custom::new(class, implementation);
                custom.config = attributes::of(config);
                custom.weights = weights.all().map_err(|message| Error::layer(name, class, message))?;
                Ok(Op::Custom(custom))
            }
            Some(Err(message)) => Err(Error::layer(name, class, message)),
            Some(Ok(op)) => Ok(op),
        }
    }

    /// Adds the node of the next call. `layer` is the layer's name in the graph.
    pub(crate) fn add(
        &mut self,
        layer: &str,
        op: Op,
        config: &Map<String, Value>,
        call: &FlatCall<'_>,
    ) -> Result<NodeId, Error> {
        let shared = self.flat.layers[call.layer].calls > 1;
        let expansion = self.expansions[call.layer].clone();
        let name = call_name(layer, call.number);
        let mut inputs = self.input_ids(call);
        for before in expansion.iter().flat_map(|e| e.before.iter().cloned()) {
            inputs = vec![self.around(&name, layer, before, inputs)?];
        }
        let id = self.made.layer_of(&name, op, &inputs, vec![layer.to_owned()])?;
        let mut last = id;
        for after in expansion.iter().flat_map(|e| e.after(&self.made.graph().node(id).shape)).collect::<Vec<_>>() {
            last = self.around(&name, layer, after, vec![last])?;
        }
        let config = expansion.as_ref().map_or(config, |e| &e.config);
        let node = self.made.node_mut(id);
        // The vendor's tool leaves a layer that is applied several times alone.
        node.excluded = shared;
        node.shared = shared.then(|| SharedCall { layer: layer.to_owned(), number: call.number });
        node.extras = extras(&node.op, config, node.shape.len());
        node.dtype = dtype::of_config(config);
        if let Some(arguments) = arguments(call.call) {
            node.extras.insert(CALL, attributes::attribute(&arguments));
        }
        self.first[call.layer].get_or_insert(id);
        self.ids.push(last);
        Ok(id)
    }

    /// Adds a node that stands around one of the file's layers, under a name that nothing else has.
    fn around(&mut self, name: &str, layer: &str, op: Op, inputs: Vec<NodeId>) -> Result<NodeId, Error> {
        const WORDS: [(&str, &str); 3] = [("Permute", "permute"), ("Reshape", "reshape"), ("Cropping2D", "crop")];
        let what = WORDS.iter().find(|(class, _)| *class == op.class()).map_or("padding", |(_, word)| word);
        let names = std::iter::once(format!("{name}_{what}")).chain((1..).map(|n| format!("{name}_{what}_{n}")));
        let name = names.into_iter().find(|name| !self.names.contains(name)).unwrap_or_default();
        self.names.insert(name.clone());
        let permutation = matches!(op, Op::Permute(_));
        let id = self.made.layer_of(&name, op, &inputs, vec![layer.to_owned()])?;
        if permutation {
            self.permutations.insert(id);
        }
        Ok(id)
    }

    /// Adds the node of the next call if it is one of several results of an operation.
    pub(crate) fn part(&mut self, call: &FlatCall<'_>) -> Result<bool, Error> {
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
    pub(crate) fn activation(
        &mut self,
        layer: &str,
        class: &str,
        config: &Map<String, Value>,
    ) -> Result<Option<OwnActivation>, Error> {
        let known = CLASSES.contains(&class);
        let Some(setting) = config.get("activation").filter(|_| known) else { return Ok(None) };
        let Some(name) = unknown_name(setting) else { return Ok(None) };
        let unknown =
            || Error::UnsupportedActivation { layer: layer.into(), class: class.into(), activation: name.into() };
        let implementation = self.custom.activation(layer, name, setting).ok_or_else(unknown)?;
        let mut rest = config.clone();
        rest.insert("activation".into(), json!("linear"));
        Ok(Some(OwnActivation { name: name.into(), rest, implementation }))
    }

    /// The shape of a call's first input.
    fn input_shape(&self, call: &FlatCall<'_>) -> Vec<usize> {
        self.input_ids(call).first().map(|id| self.made.graph().node(*id).shape.clone()).unwrap_or_default()
    }

    /// Adds the node of an activation behind the node that was added last; its readers read the activation.
    fn activate(&mut self, layer: &str, own: &OwnActivation, call: &FlatCall<'_>) -> Result<(), Error> {
        let Some(id) = self.ids.last().copied() else { return Ok(()) };
        let word: String = own.name.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect();
        let layer = format!("{layer}_{word}");
        let added = self.made.layer_of(&call_name(&layer, call.number), own.op(), &[id], vec![layer.clone()])?;
        let shared = self.made.graph().node(id).shared.is_some();
        let node = self.made.node_mut(added);
        node.excluded = shared;
        node.shared = shared.then_some(SharedCall { layer, number: call.number });
        self.ids.pop();
        self.ids.push(added);
        Ok(())
    }

    /// Fails if a formula stands for layers that are not the same; afterwards, formulas without a layer are warned of.
    pub(crate) fn check_custom(&mut self) -> Result<(), Error> {
        self.custom.check()?;
        self.made.warn(self.custom.warnings());
        Ok(())
    }

    /// All layers, with the model's inputs named; and its outputs.
    pub(crate) fn ends(mut self) -> (Builder, Vec<NodeId>) {
        self.made.warn(self.flat.warnings.iter().cloned());
        let ids = |ends: &[usize]| ends.iter().map(|i| self.ids[*i]).collect::<Vec<_>>();
        self.made.inputs(&ids(&self.flat.inputs));
        let outputs = ids(&self.flat.outputs);
        (self.made, outputs)
    }
}

/// An activation of the user's own, as a layer behind the one that has it.
pub(crate) struct OwnActivation {
    name: String,
    /// The settings of the layer without it.
    pub(crate) rest: Map<String, Value>,
    implementation: Arc<dyn CustomLayer>,
}

impl OwnActivation {
    /// The layer that computes it.
    fn op(&self) -> Op {
        Op::Custom(Custom::new(&self.name, self.implementation.clone()))
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
