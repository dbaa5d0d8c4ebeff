//! The walk over a network's layers and their quantizers.

use std::collections::HashMap;

use shiftwise_graph::dtype::Dtype;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::quant_graph::{Model, QuantGraph};
use shiftwise_tensor::tensor::Tensor;

use crate::{Operators, Written};

/// A network that is being written as operators.
#[derive(Debug)]
pub struct Walk<'a, F> {
    /// The network.
    pub graph: &'a Graph,
    /// Its quantizers.
    pub quantized: Option<&'a QuantGraph>,
    /// The format, and what it has written so far.
    pub format: F,
    /// The values of the layers that are written; a format puts those of the inputs here first.
    pub values: HashMap<NodeId, String>,
    /// Quantizers that the layer being written has had so far.
    pub(crate) counted: usize,
}

impl<'a, F: Operators> Walk<'a, F> {
    /// Nothing is written yet.
    pub fn new(model: ModelRef<'a>, format: F) -> Self {
        let (graph, quantized) = model;
        Self { graph, quantized, format, values: HashMap::new(), counted: 0 }
    }

    /// The layer's name in the model.
    pub fn layer_name(&self, id: NodeId) -> String {
        self.quantized.map_or_else(|| self.graph.node(id).name.clone(), |q| q.quant_name(id))
    }

    /// A layer's weights as they stand in the graph: the floats that quantized ones stand for, unless their quantizers stand
    /// there too.
    pub fn weights(&self, id: NodeId) -> Vec<Tensor> {
        match self.quantized {
            Some(quantized) if !self.format.keeps_quantizers() => layer_weights(quantized, id),
            _ => self.graph.node(id).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect(),
        }
    }

    /// Writes all layers.
    ///
    /// Errors: a layer that has no form in the format, with its name.
    pub fn write(&mut self) -> Result<(), Error> {
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            self.counted = 0;
            let fail = |why: String| Error::layer(&node.name, node.op.class(), why);
            self.format.takes(node).map_err(fail)?;
            let value = self.layer(id).map_err(fail)?;
            let value = self.format.finished(node, value);
            self.values.insert(id, value);
        }
        Ok(())
    }

    /// Writes a layer with its quantizers; returns its value.
    fn layer(&mut self, id: NodeId) -> Result<String, String> {
        let node = self.graph.node(id);
        let name = format!("{}/{}", self.graph.name, self.layer_name(id));
        if let Op::Input(_) = node.op {
            let value = self.values.get(&id).cloned().ok_or("is no input of the model")?;
            let value = self.format.halved(node.dtype, &name, value);
            return self.quantized_at(Point::Output(id), &name, value);
        }
        let mut inputs = Vec::new();
        for (k, input) in node.inputs.iter().enumerate() {
            let value = self.format.halved(node.dtype, &name, self.values[input].clone());
            inputs.push(self.quantized_at(Point::Input(id, k), &name, value)?);
        }
        let mut weights = self.weights(id);
        weights.iter_mut().for_each(|w| node.dtype.cast(w));
        // A layer of 16-bit floats rounds before and behind its bias, but for convolutions in bfloat16.
        let convolution = matches!(node.op, Op::Conv2D(_) | Op::DepthwiseConv2D(_));
        let apart = node.dtype.is_half() && node.op.weighted().is_some_and(|w| w.bias.is_some());
        let apart = apart && !(node.dtype == Dtype::BFloat16 && convolution);
        let bias = if apart && weights.len() == 2 { weights.pop() } else { None };
        let stored = self.stored(id, weights.len())?;
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|i| self.graph.node(*i).shape.as_slice()).collect();
        let written = Written {
            name: &name,
            inputs: &inputs,
            shapes: &shapes,
            shape: &node.shape,
            weights: &weights,
            stored: &stored,
        };
        let mut value = self.op(&node.op, &written)?;
        value = self.format.halved(node.dtype, &name, value);
        if let Some(bias) = bias {
            let bias = self.format.tensor(&format!("{name}/BiasAdd/bias"), &bias);
            value = self.format.operator(self.add(), &format!("{name}/BiasAdd"), &[&value, &bias]);
            value = self.format.halved(node.dtype, &name, value);
        }
        value = self.quantized_at(Point::PreActivation(id), &name, value)?;
        let before = value.clone();
        value = self.activation(node.op.layer().activation(), &name, value, node.shape.len() + 1)?;
        if value != before {
            value = self.format.halved(node.dtype, &name, value);
        }
        value = self.quantized_at(Point::PostActivation(id), &name, value)?;
        self.quantized_at(Point::Output(id), &name, value)
    }
}

/// A network with its quantizers, if it has any.
pub type ModelRef<'a> = (&'a Graph, Option<&'a QuantGraph>);

/// A model as [`Walk`] takes it.
pub fn parts(model: &Model) -> ModelRef<'_> {
    match model {
        Model::Float(graph) => (graph, None),
        Model::Quantized(quantized) => (&quantized.graph, Some(quantized)),
    }
}
