//! Calls that compute with shapes have no place in a graph: they are replaced by what they yield.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::call::Call;
use crate::flatten::{Flat, FlatCall};
use crate::layers::functions::TENSOR;
use crate::layers::functions::shapes::{self, Sizes};
use crate::record::LayerConfig;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::graph::NodeId;

/// What calls yield that compute with shapes, by the number of the call.
#[derive(Default)]
pub(crate) struct ShapeValues(HashMap<usize, Sizes>);

impl ShapeValues {
    /// What the call of this number yields, if that is a shape or part of one; the call then needs no node.
    pub(crate) fn fold(
        &mut self,
        number: usize,
        layer: &LayerConfig,
        call: &FlatCall<'_>,
        (graph, ids): (&Graph, &[NodeId]),
    ) -> Result<bool, Error> {
        let function = layer.config.get("function").and_then(Value::as_str);
        let Some(function) = function.filter(|_| layer.class.ends_with("OpLambda")) else { return Ok(false) };
        let known = |k: &usize| self.0.contains_key(k);
        let sizes = match call.inputs[..] {
            [input] if shapes::is_shape(function) && !known(&input) => {
                ids.get(input).map(|id| Ok(Sizes::of(&graph.node(*id).shape)))
            }
            _ if !call.inputs.is_empty() && call.inputs.iter().all(known) => {
                let values = |k: usize| call.inputs.get(k).and_then(|i| self.0.get(i)).cloned();
                Some(Sizes::compute(function, &call.call.args, &call.call.kwargs, &values))
            }
            _ => None,
        };
        let Some(sizes) = sizes else { return Ok(false) };
        let sizes = sizes.map_err(|message| Error::layer(&layer.name, &layer.class, message))?;
        self.0.insert(number, sizes);
        Ok(true)
    }

    /// A call with the shapes among its arguments as constants, and the inputs that remain; `None` for one without.
    pub(crate) fn resolve(
        &self,
        layer: &LayerConfig,
        call: &FlatCall<'_>,
        (graph, ids): (&Graph, &[NodeId]),
    ) -> Result<Option<(Vec<usize>, Call)>, Error> {
        if !call.inputs.iter().any(|i| self.0.contains_key(i)) {
            return Ok(None);
        }
        let fail = |message: String| Error::layer(&layer.name, &layer.class, message);
        if !layer.class.ends_with("OpLambda") {
            return Err(fail("it reads a shape as if that were a tensor".into()));
        }
        let inputs: Vec<usize> = call.inputs.iter().copied().filter(|i| !self.0.contains_key(i)).collect();
        let place = |k: usize| call.inputs[..k].iter().filter(|i| !self.0.contains_key(i)).count();
        let function = layer.config.get("function").and_then(Value::as_str).unwrap_or_default();
        let reshapes = shapes::is_reshape(function);
        // Only there the size that remains is that of the batch.
        let open = |k: &usize| self.0.get(k).is_some_and(Sizes::has_batch);
        if !reshapes && call.inputs.iter().any(open) {
            return Err(fail("it takes the size of the batch as a number, which is known at run time only".into()));
        }
        let own = |value: &Value| self.replaced(value, &call.inputs, &place).map_err(fail);
        let args = call.call.args.iter().map(own).collect::<Result<Vec<_>, _>>()?;
        let kwargs = call.call.kwargs.iter().map(|(key, value)| Ok((key.clone(), own(value)?)));
        let mut kwargs = kwargs.collect::<Result<Map<String, Value>, Error>>()?;
        let from = inputs.first().and_then(|i| ids.get(*i)).map(|id| graph.node(*id).shape.iter().product());
        if let (true, Some(target), Some(elements)) = (reshapes, kwargs.get_mut("shape"), from) {
            shapes::close(target, elements);
        }
        let tensors = call.call.tensors.iter().zip(&call.inputs).filter(|(_, i)| !self.0.contains_key(i));
        Ok(Some((inputs, Call { tensors: tensors.map(|(t, _)| t.clone()).collect(), args, kwargs })))
    }

    /// Fails if a result of the model is a shape.
    pub(crate) fn check_outputs(&self, flat: &Flat<'_>) -> Result<(), Error> {
        let Some(output) = flat.outputs.iter().find(|call| self.0.contains_key(call)) else { return Ok(()) };
        let layer = &flat.layers[flat.calls[*output].layer];
        Err(Error::layer(&layer.name, &layer.config.class, "a result of the model is a shape and no tensor"))
    }

    fn replaced(&self, value: &Value, inputs: &[usize], place: &dyn Fn(usize) -> usize) -> Result<Value, String> {
        Ok(match value {
            Value::Array(items) => {
                Value::Array(items.iter().map(|v| self.replaced(v, inputs, place)).collect::<Result<_, _>>()?)
            }
            Value::Object(object) => match object.get(TENSOR).and_then(Value::as_u64).map(|k| k as usize) {
                Some(k) if k < inputs.len() => match self.0.get(&inputs[k]) {
                    Some(sizes) => sizes.value()?,
                    None => serde_json::json!({ TENSOR: place(k) }),
                },
                _ => value.clone(),
            },
            other => other.clone(),
        })
    }
}
