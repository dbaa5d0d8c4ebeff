//! Models inside models and shared layers, as one list of layer calls.

use std::collections::{BTreeMap, HashMap};

use super::model::{Call, LayerConfig, ModelConfig, TensorRef};
use crate::error::Error;

/// More calls than this are refused: models within models multiply.
const MAX_CALLS: usize = 100_000;

/// A layer of the flat model.
pub(super) struct FlatLayer<'a> {
    /// Unique name.
    pub(super) name: String,
    /// Names of the models around it, outermost first, and its own.
    pub(super) path: Vec<&'a str>,
    pub(super) config: &'a LayerConfig,
    /// How often it is applied.
    pub(super) calls: usize,
}

/// One application of a layer.
pub(super) struct FlatCall<'a> {
    /// Index into the layers.
    pub(super) layer: usize,
    /// Which application of the layer, from 0.
    pub(super) number: usize,
    /// Calls whose results it reads, in argument order.
    pub(super) inputs: Vec<usize>,
    /// The arguments.
    pub(super) call: &'a Call,
}

/// A model without models inside.
#[derive(Default)]
pub(super) struct Flat<'a> {
    pub(super) layers: Vec<FlatLayer<'a>>,
    /// Each stands behind those it reads.
    pub(super) calls: Vec<FlatCall<'a>>,
    pub(super) inputs: Vec<usize>,
    pub(super) outputs: Vec<usize>,
}

impl<'a> Flat<'a> {
    /// Errors name a layer whose input is missing or comes from itself.
    pub(super) fn new(model: &'a ModelConfig) -> Result<Self, Error> {
        let mut walk = Walk { flat: Self::default(), index: HashMap::new() };
        let ends = walk.model(model, &[], None)?;
        let mut flat = walk.flat;
        (flat.inputs, flat.outputs) = (ends.inputs, ends.outputs);
        flat.name_layers()?;
        Ok(flat)
    }

    /// A layer keeps its name if no other has it; otherwise layers of inner models are told apart by the models' names.
    fn name_layers(&mut self) -> Result<(), Error> {
        let mut depth: Vec<usize> = vec![1; self.layers.len()];
        loop {
            let name = |i: usize| {
                let path: &[&str] = &self.layers[i].path;
                path[path.len() - depth[i]..].join("/")
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
    /// Layers by their path.
    index: HashMap<Vec<&'a str>, usize>,
}

impl<'a> Walk<'a> {
    /// Adds the calls of one application of a model; `bound` are its inputs if it is inside another.
    fn model(&mut self, model: &'a ModelConfig, path: &[&'a str], bound: Option<&[usize]>) -> Result<Ends, Error> {
        let scope = Scope::new(model)?;
        if let Some(bound) = bound.filter(|b| b.len() != model.inputs.len()) {
            let message = format!("it has {} inputs and is given {}", model.inputs.len(), bound.len());
            return Err(Error::layer(&model.name, "Functional", message));
        }
        // What each call yields.
        let mut results: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        let read = |results: &BTreeMap<(usize, usize), Vec<usize>>, reader: &str, tensor: &TensorRef| {
            let key = scope.producer(reader, tensor)?;
            let output = results.get(&key).and_then(|outputs| outputs.get(tensor.tensor)).copied();
            let layer = &model.layers[key.0];
            let message = || format!("`{reader}` reads result {} of it, which doesn't exist", tensor.tensor);
            output.ok_or_else(|| Error::layer(&layer.name, &layer.class, message()))
        };
        for (layer, number) in scope.sorted()? {
            let config = &model.layers[layer];
            let call = &config.calls[number];
            let inputs = call.tensors.iter().map(|t| read(&results, &config.name, t)).collect::<Result<Vec<_>, _>>()?;
            let own: Vec<&'a str> = path.iter().copied().chain([config.name.as_str()]).collect();
            let place = model.inputs.iter().position(|i| i.layer == config.name);
            let outputs = match (&config.inner, bound, place) {
                (Some(inner), ..) => self.model(inner, &own, Some(&inputs))?.outputs,
                (None, Some(bound), Some(place)) if config.class == "InputLayer" => vec![bound[place]],
                _ => vec![self.call(own, config, call, inputs)?],
            };
            results.insert((layer, number), outputs);
        }
        let all = |ends: &[TensorRef]| ends.iter().map(|t| read(&results, "the model", t)).collect::<Result<_, _>>();
        Ok(Ends { inputs: all(&model.inputs)?, outputs: all(&model.outputs)? })
    }

    fn call(
        &mut self,
        path: Vec<&'a str>,
        config: &'a LayerConfig,
        call: &'a Call,
        inputs: Vec<usize>,
    ) -> Result<usize, Error> {
        let flat = &mut self.flat;
        if flat.calls.len() >= MAX_CALLS {
            return Err(Error::model(format!("the model applies layers more than {MAX_CALLS} times")));
        }
        let layer = *self.index.entry(path).or_insert_with_key(|path| {
            flat.layers.push(FlatLayer { name: String::new(), path: path.clone(), config, calls: 0 });
            flat.layers.len() - 1
        });
        let number = flat.layers[layer].calls;
        flat.layers[layer].calls += 1;
        flat.calls.push(FlatCall { layer, number, inputs, call });
        Ok(flat.calls.len() - 1)
    }
}

/// One model's own layers and their references to one another.
struct Scope<'a> {
    model: &'a ModelConfig,
    index: HashMap<&'a str, usize>,
}

impl<'a> Scope<'a> {
    fn new(model: &'a ModelConfig) -> Result<Self, Error> {
        let mut index = HashMap::new();
        for (i, layer) in model.layers.iter().enumerate() {
            if index.insert(layer.name.as_str(), i).is_some() {
                return Err(Error::layer(&layer.name, &layer.class, "its name stands twice in the model"));
            }
        }
        Ok(Self { model, index })
    }

    /// Layer and call of a tensor.
    fn producer(&self, reader: &str, tensor: &TensorRef) -> Result<(usize, usize), Error> {
        let Some(&i) = self.index.get(tensor.layer.as_str()) else {
            let message = format!("layer `{reader}` reads layer `{}`, which is not in the model", tensor.layer);
            return Err(Error::model(message));
        };
        let layer = &self.model.layers[i];
        let calls = layer.calls.len();
        // A model inside the model has been called once when it was made, and most writers count that call.
        let shifted = tensor.node.checked_sub(tensor.first).filter(|n| layer.inner.is_some() && *n < calls);
        let number = shifted.or(Some(tensor.node).filter(|n| *n < calls));
        let message = || format!("`{reader}` reads its call {}, and it is called {calls} times", tensor.node);
        number.map(|n| (i, n)).ok_or_else(|| Error::layer(&layer.name, &layer.class, message()))
    }

    /// Calls as (layer, number), each behind those that it reads.
    fn sorted(&self) -> Result<Vec<(usize, usize)>, Error> {
        let layers = &self.model.layers;
        let starts: Vec<usize> = layers
            .iter()
            .scan(0, |next, layer| {
                *next += layer.calls.len();
                Some(*next - layer.calls.len())
            })
            .collect();
        let total = layers.iter().map(|l| l.calls.len()).sum();
        let (mut all, mut waiting) = (Vec::with_capacity(total), Vec::with_capacity(total));
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); total];
        for (i, layer) in layers.iter().enumerate() {
            for (number, call) in layer.calls.iter().enumerate() {
                for tensor in &call.tensors {
                    let (producer, of) = self.producer(&layer.name, tensor)?;
                    readers[starts[producer] + of].push(all.len());
                }
                all.push((i, number));
                waiting.push(call.tensors.len());
            }
        }
        let mut ready: Vec<usize> = (0..total).rev().filter(|i| waiting[*i] == 0).collect();
        let mut order = Vec::with_capacity(total);
        while let Some(i) = ready.pop() {
            order.push(all[i]);
            for reader in readers[i].iter().rev() {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.push(*reader);
                }
            }
        }
        match waiting.iter().position(|n| *n > 0) {
            Some(i) => {
                let layer = &layers[all[i].0];
                Err(Error::layer(&layer.name, &layer.class, "its inputs depend on itself"))
            }
            None => Ok(order),
        }
    }
}
