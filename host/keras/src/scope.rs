//! One model's own layers and their references to one another.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::call::TensorRef;
use crate::parts;
use crate::record::{LayerConfig, ModelConfig};
use shiftwise_graph::error::Error;

/// One model's own layers and their references to one another.
pub(crate) struct Scope<'a> {
    model: &'a ModelConfig,
    index: HashMap<&'a str, usize>,
    /// The number that stands for the first call of each layer: among arguments, and at the ends of the model.
    first: Vec<[usize; 2]>,
    /// Which results are read of the calls of operations that have several.
    results: HashMap<(usize, usize), BTreeSet<usize>>,
}

/// The numbers by which calls of one layer are referred to.
#[derive(Default)]
struct Numbers {
    arguments: BTreeSet<usize>,
    ends: BTreeSet<usize>,
}

impl Numbers {
    /// Whether all of them are calls if the first ones have these numbers, and whether each call is among them.
    fn fit(&self, first: [usize; 2], calls: usize) -> (bool, bool) {
        let from = |numbers: &BTreeSet<usize>, first: usize| {
            numbers.iter().map(|n| n.checked_sub(first).filter(|n| *n < calls)).collect::<Option<BTreeSet<usize>>>()
        };
        match (from(&self.arguments, first[0]), from(&self.ends, first[1])) {
            (Some(a), Some(b)) => (true, a.union(&b).count() == calls),
            _ => (false, false),
        }
    }
}

impl<'a> Scope<'a> {
    pub(crate) fn new(model: &'a ModelConfig) -> Result<Self, Error> {
        let mut index = HashMap::new();
        for (i, layer) in model.layers.iter().enumerate() {
            if index.insert(layer.name.as_str(), i).is_some() {
                return Err(Error::layer(&layer.name, &layer.class, "its name stands twice in the model"));
            }
        }
        let first = vec![[0, 0]; model.layers.len()];
        let mut scope = Self { model, index, first, results: HashMap::new() };
        scope.count()?;
        scope.find_results();
        Ok(scope)
    }

    /// Finds how the calls of models inside are counted: by the file's generation. A file that doesn't follow it, and
    /// in which one way of counting meets every call, is counted that way.
    fn count(&mut self) -> Result<(), Error> {
        let mut numbers: BTreeMap<usize, Numbers> = BTreeMap::new();
        let inner = self.model.layers.iter().enumerate().filter(|(_, layer)| layer.inner.is_some());
        inner.for_each(|(i, _)| drop(numbers.insert(i, Numbers::default())));
        // The edges of a sequential model are ours, and count from 0.
        if numbers.is_empty() || !self.model.functional {
            return Ok(());
        }
        let arguments = self.model.layers.iter().flat_map(|l| &l.calls).flat_map(|call| &call.tensors);
        let ends = self.model.inputs.iter().chain(&self.model.outputs);
        for (tensor, at_end) in arguments.map(|t| (t, false)).chain(ends.map(|t| (t, true))) {
            let of = self.index.get(tensor.layer.as_str()).and_then(|i| numbers.get_mut(i));
            let Some(of) = of else { continue };
            if at_end {
                of.ends.insert(tensor.node)
            } else {
                of.arguments.insert(tensor.node)
            };
        }
        for (i, numbers) in numbers {
            let layer = &self.model.layers[i];
            let calls = layer.calls.len();
            let functional = layer.inner.as_ref().is_some_and(|inner| inner.functional);
            let rule = self.model.generation.first_calls(functional);
            // Where only one of both kinds is there, the last is one of the others.
            let mixed = (!numbers.arguments.is_empty() && !numbers.ends.is_empty()).then_some([0, 1]);
            let others = [[0, 0], [1, 1]].into_iter().chain(mixed).filter(|first| *first != rule);
            let mut meeting = others.filter(|first| numbers.fit(*first, calls) == (true, true));
            self.first[i] = match (numbers.fit(rule, calls), meeting.next(), meeting.next()) {
                ((true, true), ..) | ((true, false), None, _) => rule,
                (_, Some(only), None) => only,
                _ => return Err(uncountable(layer, &numbers)),
            };
        }
        Ok(())
    }

    /// Layer and call of a tensor. `at_end`: the tensor is an end of the model.
    pub(crate) fn producer(&self, reader: &str, tensor: &TensorRef, at_end: bool) -> Result<(usize, usize), Error> {
        let Some(&i) = self.index.get(tensor.layer.as_str()) else {
            let message = format!("layer `{reader}` reads layer `{}`, which is not in the model", tensor.layer);
            return Err(Error::model(message));
        };
        let layer = &self.model.layers[i];
        let calls = layer.calls.len();
        let number = tensor.node.checked_sub(self.first[i][usize::from(at_end)]).filter(|n| *n < calls);
        let message = || format!("`{reader}` reads its call {}, and it is called {calls} times", tensor.node);
        number.map(|n| (i, n)).ok_or_else(|| Error::layer(&layer.name, &layer.class, message()))
    }

    fn find_results(&mut self) {
        let arguments = self.model.layers.iter().flat_map(|l| &l.calls).flat_map(|call| &call.tensors);
        for tensor in arguments.chain(&self.model.outputs) {
            let layer = self.index.get(tensor.layer.as_str()).copied();
            if let Some(layer) = layer.filter(|layer| parts::has_parts(&self.model.layers[*layer])) {
                self.results.entry((layer, tensor.node)).or_default().insert(tensor.tensor);
            }
        }
    }

    /// Which results of a call of an operation with several are read.
    pub(crate) fn results(&self, layer: usize, call: usize) -> BTreeSet<usize> {
        self.results.get(&(layer, call)).cloned().unwrap_or_default()
    }

    /// Calls as (layer, number), each behind those that it reads.
    pub(crate) fn sorted(&self) -> Result<Vec<(usize, usize)>, Error> {
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
                    let (producer, of) = self.producer(&layer.name, tensor, false)?;
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

/// A model inside a model to whose calls the references fit by no way of counting.
fn uncountable(layer: &LayerConfig, numbers: &Numbers) -> Error {
    let mut all: Vec<&usize> = numbers.arguments.union(&numbers.ends).collect();
    all.truncate(8);
    let message = format!(
        "its calls are referred to as {all:?}, and it is called {} times: neither counting from 0 nor from 1 holds",
        layer.calls.len()
    );
    Error::layer(&layer.name, &layer.class, message)
}
