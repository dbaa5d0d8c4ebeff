//! Graphs in the making: the one door for all that make a graph, whatever they make it of.
//!
//! A [`Builder`] takes a layer only behind its inputs, under a name that no other has, with settings and weights that
//! belong together and fit the inputs' shapes. [`Builder::finish`] puts the layers in Keras' order and verifies the whole.
//!
//! ```
//! use shiftwise_graph::builder::Builder;
//! use shiftwise_graph::ops::{Flatten, Input, Op, Reshape};
//!
//! let mut builder = Builder::new("small");
//! let image = builder.layer("image", Op::Input(Input { shape: vec![4, 4, 3] }), &[])?;
//! let flat = builder.layer("flat", Op::Flatten(Flatten), &[image])?;
//! let wrong = builder.layer("wrong", Op::Reshape(Reshape { target: vec![7, 7] }), &[flat]);
//! assert!(wrong.unwrap_err().to_string().contains("[48] can't be reshaped to [7, 7]"));
//! let graph = builder.finish(&[flat])?;
//! assert_eq!(graph.node(graph.outputs[0]).shape, [48]);
//! # Ok::<(), shiftwise_graph::error::Error>(())
//! ```

use std::collections::{BTreeMap, HashSet};

use crate::error::Error;
use crate::graph::{Graph, Node, NodeId};
use crate::ops::Op;

/// A graph in the making.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    graph: Graph,
    names: HashSet<String>,
    /// The model's inputs, if they are not all input layers in their order.
    inputs: Option<Vec<NodeId>>,
}

impl Builder {
    /// A graph of this name, without layers.
    pub fn new(name: &str) -> Self {
        Self { graph: Graph { name: name.to_owned(), ..Graph::default() }, ..Self::default() }
    }

    /// The graph as far as it is made; its ends are not set.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What a layer is marked with: where it comes from, whether it may be rewritten, what its file says besides.
    /// Operation, inputs and shape are as they were checked, and stay.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.graph.node_mut(id)
    }

    /// Says what its source has that is strange, a sentence each.
    pub fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.graph.warnings.extend(warnings);
    }

    /// Whether a layer has this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds a layer that stands for itself: its origin is its name.
    ///
    /// Errors: a name that is taken, an input that is not there yet, a layer whose settings and weights don't belong
    /// together or don't fit its inputs.
    pub fn layer(&mut self, name: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, Error> {
        self.layer_of(name, op, inputs, vec![name.to_owned()])
    }

    /// [`Builder::layer`] with the names of the source's layers that it stands for.
    pub fn layer_of(&mut self, name: &str, op: Op, inputs: &[NodeId], origin: Vec<String>) -> Result<NodeId, Error> {
        let fail = |message: &str| Err(Error::layer(name, op.class(), message));
        if self.has(name) {
            return fail("its name stands twice in the graph");
        }
        if inputs.iter().any(|id| id.0 >= self.graph.nodes.len()) {
            return fail("it stands before one of its inputs");
        }
        let id = self.graph.add(name, op, inputs.to_vec(), origin)?;
        self.names.insert(name.to_owned());
        Ok(id)
    }

    /// The model's inputs in their order, where that is not the order in which the input layers were added.
    pub fn inputs(&mut self, inputs: &[NodeId]) {
        self.inputs = Some(inputs.to_vec());
    }

    /// The graph with these outputs, in Keras' order.
    ///
    /// Errors: what [`Graph::verify`] finds.
    pub fn finish(self, outputs: &[NodeId]) -> Result<Graph, Error> {
        self.finish_with_ids(outputs).map(|(graph, _)| graph)
    }

    /// [`Builder::finish`], with the new id of each layer that the outputs need.
    pub fn finish_with_ids(self, outputs: &[NodeId]) -> Result<(Graph, BTreeMap<NodeId, NodeId>), Error> {
        let mut graph = self.unordered(outputs)?;
        let ids = graph.normalize();
        graph.verify()?;
        Ok((graph, ids))
    }

    /// The graph with these outputs, its layers in the order in which they were added: for makers that rewrite it before
    /// they put it in order and verify it themselves.
    pub fn unordered(self, outputs: &[NodeId]) -> Result<Graph, Error> {
        let mut graph = self.graph;
        let is_input = |id: &NodeId| matches!(graph.node(*id).op, Op::Input(_));
        let inputs = self.inputs.unwrap_or_else(|| graph.ids().filter(is_input).collect());
        if inputs.iter().chain(outputs).any(|id| id.0 >= graph.nodes.len()) {
            return Err(Error::model("an end of the model is none of its layers"));
        }
        (graph.inputs, graph.outputs) = (inputs, outputs.to_vec());
        Ok(graph)
    }
}

#[cfg(test)]
mod tests;
