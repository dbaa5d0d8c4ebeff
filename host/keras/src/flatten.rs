//! Models inside models and shared layers, as one list of layer calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::call::{Call, TensorRef, tensor_of};
use crate::parts;
use crate::record::{LayerConfig, ModelConfig};
use crate::scope::Scope;
use shiftwise_graph::error::Error;

/// More calls than this are refused: models within models multiply.
const MAX_CALLS: usize = 100_000;

/// Steps that a walk through models within models may take: one for each application of a model, each layer in it, each
/// call and each tensor that it reads, and one for some letters of the names that the calls get.
const MAX_STEPS: usize = 1_000_000;

/// Letters of a name that count as one step.
const LETTERS: usize = 64;

/// A layer of the flat model.
pub(crate) struct FlatLayer<'a> {
    /// Unique name.
    pub(crate) name: String,
    /// Names of the models around it, outermost first, and its own.
    pub(crate) path: Vec<&'a str>,
    pub(crate) config: &'a LayerConfig,
    /// How often it is applied.
    pub(crate) calls: usize,
    /// Which of its results this is, for an operation that has several: each is a layer of its own here.
    pub(crate) result: usize,
}

/// One application of a layer.
pub(crate) struct FlatCall<'a> {
    /// Index into the layers.
    pub(crate) layer: usize,
    /// Which application of the layer, from 0.
    pub(crate) number: usize,
    /// Calls whose results it reads, in argument order.
    pub(crate) inputs: Vec<usize>,
    /// The arguments.
    pub(crate) call: &'a Call,
}

/// A model without models inside.
#[derive(Default)]
pub(crate) struct Flat<'a> {
    pub(crate) layers: Vec<FlatLayer<'a>>,
    /// Each stands behind those it reads.
    pub(crate) calls: Vec<FlatCall<'a>>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
    /// What of the outermost model has no effect.
    pub(crate) warnings: Vec<String>,
}

impl<'a> Flat<'a> {
    /// Errors name a layer whose input is missing or comes from itself.
    pub(crate) fn new(model: &'a ModelConfig) -> Result<Self, Error> {
        let mut walk = Walk { flat: Self::default(), places: HashMap::new(), index: HashMap::new(), steps: MAX_STEPS };
        let ends = walk.model(model, 0, &[], None)?;
        let mut flat = walk.flat;
        (flat.inputs, flat.outputs) = (ends.inputs, ends.outputs);
        flat.name_layers()?;
        flat.find_unused();
        Ok(flat)
    }

    /// A layer keeps its name if no other has it; otherwise layers of inner models are told apart by the models' names.
    fn name_layers(&mut self) -> Result<(), Error> {
        let mut depth: Vec<usize> = vec![1; self.layers.len()];
        loop {
            let name = |i: usize| {
                let FlatLayer { path, result, .. } = &self.layers[i];
                let name = path[path.len() - depth[i]..].join("/");
                if *result == 0 { name } else { format!("{name}.{result}") }
            };
            let names: Vec<String> = (0..depth.len()).map(name).collect();
            let mut count: HashMap<&str, usize> = HashMap::new();
            for name in &names {
                *count.entry(name).or_default() += 1;
            }
            let mut longer = false;
            for (i, name) in names.iter().enumerate() {
                if count[name.as_str()] > 1 && depth[i] < self.layers[i].path.len() {
                    depth[i] += 1;
                    longer = true;
                }
            }
            if !longer {
                if let Some(i) = names.iter().position(|n| count[n.as_str()] > 1) {
                    let class = &self.layers[i].config.class;
                    return Err(Error::layer(&names[i], class, "its name stands twice in the model"));
                }
                self.layers.iter_mut().zip(names).for_each(|(layer, name)| layer.name = name);
                return Ok(());
            }
        }
    }
}

/// The calls at the ends of a model.
struct Ends {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
}

struct Walk<'a> {
    flat: Flat<'a>,
    /// Numbers of models and layers by the number of the model around them and their index in it; the outermost is 0.
    places: HashMap<(usize, usize), usize>,
    /// Layers by their number and the result.
    index: HashMap<(usize, usize), usize>,
    /// Steps that are left.
    steps: usize,
}

/// Where a layer stands.
struct Place<'a> {
    number: usize,
    path: Vec<&'a str>,
}

impl<'a> Walk<'a> {
    fn spend(&mut self, steps: usize) -> Result<(), Error> {
        let fail = || Error::model(format!("models within models make more than {MAX_STEPS} steps of this model"));
        self.steps = self.steps.checked_sub(steps).ok_or_else(fail)?;
        Ok(())
    }

    /// Adds the calls of one application of a model; `bound` are its inputs if it is inside another.
    fn model(
        &mut self,
        model: &'a ModelConfig,
        number: usize,
        path: &[&'a str],
        bound: Option<&[usize]>,
    ) -> Result<Ends, Error> {
        let work = model.layers.iter().flat_map(|l| &l.calls).map(|call| 1 + call.tensors.len());
        self.spend(1 + model.layers.len() + work.sum::<usize>())?;
        let scope = Scope::new(model)?;
        if let Some(bound) = bound.filter(|b| b.len() != model.inputs.len()) {
            let message = format!("it has {} inputs and is given {}", model.inputs.len(), bound.len());
            return Err(Error::layer(&model.name, "Functional", message));
        }
        let mut given: HashMap<&str, usize> = HashMap::new();
        for (input, call) in model.inputs.iter().zip(bound.unwrap_or_default()) {
            given.entry(&input.layer).or_insert(*call);
        }
        // What each call yields.
        let mut results: BTreeMap<(usize, usize), BTreeMap<usize, usize>> = BTreeMap::new();
        let read = |results: &BTreeMap<(usize, usize), BTreeMap<usize, usize>>, reader, tensor: &TensorRef, at_end| {
            let key = scope.producer(reader, tensor, at_end)?;
            let output = results.get(&key).and_then(|outputs| outputs.get(&tensor.tensor)).copied();
            output.ok_or_else(|| missing_result(&model.layers[key.0], reader, tensor.tensor))
        };
        for (layer, call_number) in scope.sorted()? {
            let config = &model.layers[layer];
            let call = &config.calls[call_number];
            let inputs =
                call.tensors.iter().map(|t| read(&results, &config.name, t, false)).collect::<Result<Vec<_>, _>>()?;
            let next = self.places.len() + 1;
            let own = Place {
                number: *self.places.entry((number, layer)).or_insert(next),
                path: path.iter().copied().chain([config.name.as_str()]).collect(),
            };
            let outputs = match (&config.inner, given.get(config.name.as_str())) {
                (Some(inner), _) => {
                    let bound = arguments(config, inner, call, &inputs)?;
                    let outputs = self.model(inner, own.number, &own.path, Some(&bound))?.outputs;
                    outputs.into_iter().enumerate().collect()
                }
                (None, Some(bound)) if config.class == "InputLayer" => BTreeMap::from([(0, *bound)]),
                _ if parts::has_parts(config) => {
                    let wanted = scope.results(layer, call_number);
                    let one = |k| Ok((k, self.call(&own, config, call, inputs.clone(), k)?));
                    wanted.into_iter().map(one).collect::<Result<_, Error>>()?
                }
                _ => BTreeMap::from([(0, self.call(&own, config, call, inputs, 0)?)]),
            };
            results.insert((layer, call_number), outputs);
        }
        let all = |ends: &[TensorRef], of| ends.iter().map(|t| read(&results, of, t, true)).collect::<Result<_, _>>();
        Ok(Ends { inputs: all(&model.inputs, "the model")?, outputs: all(&model.outputs, "the model")? })
    }

    fn call(
        &mut self,
        place: &Place<'a>,
        config: &'a LayerConfig,
        call: &'a Call,
        inputs: Vec<usize>,
        result: usize,
    ) -> Result<usize, Error> {
        self.spend(1 + place.path.iter().map(|name| name.len()).sum::<usize>() / LETTERS)?;
        let flat = &mut self.flat;
        if flat.calls.len() >= MAX_CALLS {
            return Err(Error::model(format!("the model applies layers more than {MAX_CALLS} times")));
        }
        let layer = *self.index.entry((place.number, result)).or_insert_with(|| {
            flat.layers.push(FlatLayer { name: String::new(), path: place.path.clone(), config, calls: 0, result });
            flat.layers.len() - 1
        });
        let number = flat.layers[layer].calls;
        flat.layers[layer].calls += 1;
        flat.calls.push(FlatCall { layer, number, inputs, call });
        Ok(flat.calls.len() - 1)
    }
}

/// A result that a layer doesn't have: as far as is known here, every layer has one.
fn missing_result(layer: &LayerConfig, reader: &str, result: usize) -> Error {
    let unknown = layer.inner.is_none() && !crate::layers::CLASSES.contains(&layer.class.as_str());
    match parts::unsupported(layer) {
        Some(class) => Error::UnsupportedLayer { layer: layer.name.clone(), class },
        None if unknown => {
            let class = format!("{} with several results", layer.class);
            Error::UnsupportedLayer { layer: layer.name.clone(), class }
        }
        None => {
            let message = format!("`{reader}` reads result {result} of it, which doesn't exist");
            Error::layer(&layer.name, &layer.class, message)
        }
    }
}

/// The inputs of a model inside a model in its own order. An object gives them by their names.
fn arguments(layer: &LayerConfig, inner: &ModelConfig, call: &Call, inputs: &[usize]) -> Result<Vec<usize>, Error> {
    let [Value::Object(named)] = call.args.as_slice() else { return Ok(inputs.to_vec()) };
    if tensor_of(&call.args[0]).is_some() {
        return Ok(inputs.to_vec());
    }
    let one = |key: &String| {
        let found = named.get(key).and_then(tensor_of).and_then(|k| inputs.get(k)).copied();
        found.ok_or_else(|| {
            let message = format!("it is called without its input `{key}`, or with something that is no tensor");
            Error::layer(&layer.name, &layer.class, message)
        })
    };
    inner.input_keys.iter().map(one).collect()
}

impl Flat<'_> {
    /// Warns of inputs and layers that no output depends on.
    fn find_unused(&mut self) {
        let mut used = vec![false; self.calls.len()];
        self.outputs.iter().for_each(|output| used[*output] = true);
        // Each call stands behind those it reads.
        for i in (0..self.calls.len()).rev() {
            if used[i] {
                self.calls[i].inputs.iter().for_each(|input| used[*input] = true);
            }
        }
        let mut reached = vec![false; self.layers.len()];
        for (call, used) in self.calls.iter().zip(&used) {
            reached[call.layer] |= used;
        }
        let inputs: BTreeSet<usize> = self.inputs.iter().map(|call| self.calls[*call].layer).collect();
        let unused = |layer: &usize| !reached[*layer];
        let name = |layer: usize| self.layers[layer].name.as_str();
        let idle: Vec<&str> = inputs.iter().copied().filter(unused).map(name).collect();
        // Inside a model that is applied once, what is beside its way to the outputs is dropped as Keras drops it.
        let lost = (0..self.layers.len()).filter(unused).filter(|layer| !inputs.contains(layer));
        let lost: Vec<&str> = lost.filter(|layer| self.layers[*layer].path.len() == 1).map(name).collect();
        let mut warnings = Vec::new();
        if !idle.is_empty() {
            warnings.push(format!("no output depends on the input{}", listed(&idle)));
        }
        if !lost.is_empty() {
            warnings.push(format!("no output depends on the layer{}, which the model's file holds", listed(&lost)));
        }
        self.warnings = warnings;
    }
}

/// ` a`, or `s a, b and 3 more`.
fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = names.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
    let more = names.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{rest}", if names.len() > 1 { "s" } else { "" }, shown.join(", "))
}
