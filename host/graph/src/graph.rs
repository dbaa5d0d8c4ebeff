//! The graph of a network.
//!
//! A [`Graph`] is a list of nodes; a node is one layer applied to the outputs of other nodes, and has exactly one
//! output itself, so a [`NodeId`] names a layer and its tensor alike. Weights live in the [`Op`]. Shapes are per
//! sample, without the batch, channels last; unknown dimensions don't exist here: a reader fixes them.
//!
//! Nodes stand in Keras' functional order, which the vendor's passes depend on: by decreasing depth (edges on the
//! longest path to an output), ties by the first visit of a depth-first walk back from the outputs.
//! [`Graph::normalize`] restores that order, drops what no output needs and renumbers; every pass ends with it.
//! [`verify`](Graph::verify) lists what must hold.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::budget;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::ops::Op;

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One layer in its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Unique name: the user's layer, or what a pass derived from it.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// Producers, in the layer's argument order.
    pub inputs: Vec<NodeId>,
    /// Output shape of one sample.
    pub shape: Vec<usize>,
    /// The user's layers it came from, in order.
    pub origin: Vec<String>,
    /// Keras settings that the op doesn't model (initializers, `trainable`, …), kept for writing.
    pub extras: Map<String, Value>,
    /// Not to be rewritten or quantized: outside what the user chose, or one of several calls of a shared layer.
    pub excluded: bool,
    /// What it computes in.
    pub dtype: Dtype,
    /// For a layer that is applied several times: which application this is. Each has its own copy of the weights.
    pub shared: Option<SharedCall>,
}

/// One of several applications of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedCall {
    /// The layer's name, which is also the name of the node of its first application.
    pub layer: String,
    /// From 0, in the order of the model's file.
    pub number: usize,
}

/// A network.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    /// Layers in Keras' functional order after [`Graph::normalize`].
    pub nodes: Vec<Node>,
    /// Input layers, in the model's order.
    pub inputs: Vec<NodeId>,
    /// Output layers, in the model's order; a layer may be listed twice.
    pub outputs: Vec<NodeId>,
    /// What the reader of its file found strange, a sentence each.
    pub warnings: Vec<String>,
}

/// The shape of a layer's result. The one place where sizes of all layers are bounded, those to come included: a shape is a
/// product of a file's claims, and everything that runs, lowers or compiles a graph makes room for it.
fn result_shape(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let shape = op.layer().output_shape(inputs)?;
    budget::layer_elements(&shape)?;
    Ok(shape)
}

impl Graph {
    /// The node of an id. Ids come from this graph, so they are in range.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node of an id, writable.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0]
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// The node of a name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| n.name == name).map(NodeId)
    }

    /// Consumers of every node, in node order; a consumer that reads a node twice is listed twice.
    pub fn consumers(&self) -> Vec<Vec<NodeId>> {
        let mut all = vec![Vec::new(); self.nodes.len()];
        for id in self.ids() {
            for input in &self.node(id).inputs {
                all[input.0].push(id);
            }
        }
        all
    }

    /// Whether passes may rewrite or quantize a node.
    pub fn is_candidate(&self, id: NodeId) -> bool {
        !self.node(id).excluded
    }

    /// How often each node is read: consumers plus model outputs.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses: Vec<usize> = self.consumers().iter().map(Vec::len).collect();
        for out in &self.outputs {
            uses[out.0] += 1;
        }
        uses
    }

    /// Adds a node at the end; its shape follows from the inputs. [`Graph::normalize`] later finds its place.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        op: Op,
        inputs: Vec<NodeId>,
        origin: Vec<String>,
    ) -> Result<NodeId, Error> {
        let name = name.into();
        let shapes: Vec<&[usize]> = inputs.iter().map(|i| self.node(*i).shape.as_slice()).collect();
        let shape = result_shape(&op, &shapes).map_err(|message| Error::layer(&name, op.class(), message))?;
        let (extras, dtype) = (Map::new(), Dtype::default());
        self.nodes.push(Node { name, op, inputs, shape, origin, extras, excluded: false, dtype, shared: None });
        Ok(NodeId(self.nodes.len() - 1))
    }

    /// Puts a new node between `producer` and everything that reads it.
    pub fn insert_after(
        &mut self,
        producer: NodeId,
        name: impl Into<String>,
        op: Op,
        origin: Vec<String>,
    ) -> Result<NodeId, Error> {
        let id = self.add(name, op, vec![producer], origin)?;
        self.redirect(producer, id);
        Ok(id)
    }

    /// Lets every reader of `from` (consumers and outputs) read `to` instead, except node `to` itself.
    pub fn redirect(&mut self, from: NodeId, to: NodeId) {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if i != to.0 {
                node.inputs.iter_mut().filter(|x| **x == from).for_each(|x| *x = to);
            }
        }
        self.outputs.iter_mut().filter(|x| **x == from).for_each(|x| *x = to);
    }

    /// Bypasses a node of one input: its readers read its producer. The node itself goes with the next
    /// [`Graph::normalize`]. Its origin moves to the producer.
    pub fn remove(&mut self, id: NodeId) {
        if let [input] = self.node(id).inputs[..] {
            self.redirect(id, input);
            let origin = self.node(id).origin.clone();
            self.node_mut(input).origin.extend(origin);
            self.node_mut(id).inputs.clear();
        }
    }

    /// Restores Keras' order, drops nodes that no output needs (inputs stay) and renumbers. Returns the new id of each
    /// old node that survived.
    pub fn normalize(&mut self) -> BTreeMap<NodeId, NodeId> {
        let order = self.functional_order();
        let map: BTreeMap<NodeId, NodeId> = order.iter().enumerate().map(|(new, old)| (*old, NodeId(new))).collect();
        let mut old: Vec<Option<Node>> = std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        self.nodes = order.iter().filter_map(|id| old[id.0].take()).collect();
        let inner = self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut());
        inner.chain(&mut self.inputs).chain(&mut self.outputs).for_each(|id| *id = map[id]);
        map
    }

    /// Nodes in Keras' order; the calls of a shared layer have the depth of its deepest one.
    fn functional_order(&self) -> Vec<NodeId> {
        // A depth-first walk back from the outputs, as Keras does it: layers are numbered when first seen, and a node
        // is listed behind those it reads. The stack holds a node and how many of its inputs have been visited.
        let layer = |id: NodeId| match &self.node(id).shared {
            Some(call) => Err(call.layer.as_str()),
            None => Ok(id),
        };
        let mut seen: HashMap<NodeId, usize> = HashMap::new();
        let mut layers: HashMap<Result<NodeId, &str>, usize> = HashMap::new();
        let mut listed = Vec::with_capacity(self.nodes.len());
        for output in self.outputs.iter().chain(&self.inputs) {
            let mut stack = vec![(*output, 0)];
            while let Some((id, next)) = stack.pop() {
                if next == 0 {
                    let number = seen.len();
                    if seen.contains_key(&id) {
                        continue;
                    }
                    seen.insert(id, number);
                    let number = layers.len();
                    layers.entry(layer(id)).or_insert(number);
                }
                match self.node(id).inputs.get(next) {
                    Some(input) => stack.extend([(id, next + 1), (*input, 0)]),
                    None => listed.push(id),
                }
            }
        }
        // Longest path to any output; readers come before what they read.
        let mut depth: HashMap<NodeId, usize> = HashMap::new();
        let mut layer_depth: HashMap<Result<NodeId, &str>, usize> = HashMap::new();
        for id in listed.iter().rev() {
            let of_layer = layer_depth.entry(layer(*id)).or_default();
            let own = depth.get(id).copied().unwrap_or(0).max(*of_layer);
            *of_layer = own;
            depth.insert(*id, own);
            for input in &self.node(*id).inputs {
                depth.entry(*input).and_modify(|d| *d = (*d).max(own + 1)).or_insert(own + 1);
            }
        }
        listed.sort_by_key(|id| (std::cmp::Reverse(depth[id]), layers[&layer(*id)], seen[id]));
        listed
    }

    /// Checks the graph: inputs stand before their readers (so there is no cycle), names are unique, every recorded
    /// shape is the one its op computes, inputs are Input layers, and there is at least one output.
    pub fn verify(&self) -> Result<(), Error> {
        let mut names = std::collections::HashSet::new();
        for (i, node) in self.nodes.iter().enumerate() {
            let fail = |message: String| Err(Error::layer(&node.name, node.op.class(), message));
            if !names.insert(&node.name) {
                return fail("its name stands twice in the graph".into());
            }
            if node.inputs.iter().any(|x| x.0 >= i) {
                return fail("it stands before one of its inputs".into());
            }
            let shapes: Vec<&[usize]> = node.inputs.iter().map(|x| self.node(*x).shape.as_slice()).collect();
            match result_shape(&node.op, &shapes) {
                Ok(shape) if shape == node.shape => {}
                Ok(shape) => return fail(format!("its recorded shape {:?} is not {shape:?}", node.shape)),
                Err(message) => return fail(message),
            }
        }
        if self.inputs.iter().any(|id| !matches!(self.nodes.get(id.0).map(|n| &n.op), Some(Op::Input(_)))) {
            return Err(Error::model("an input of the model is not an input layer"));
        }
        if self.outputs.is_empty() || self.outputs.iter().any(|id| id.0 >= self.nodes.len()) {
            return Err(Error::model("the model has no output"));
        }
        Ok(())
    }

    /// One line per node: name, class, shape, inputs, settings.
    pub fn to_text(&self) -> String {
        let mut text = format!("graph {}\n", self.name);
        for node in &self.nodes {
            let inputs: Vec<&str> = node.inputs.iter().map(|i| self.node(*i).name.as_str()).collect();
            let settings = node.op.layer().settings();
            text += &format!(
                "  {} = {}({}) -> {:?}{settings}\n",
                node.name,
                node.op.class(),
                inputs.join(", "),
                node.shape
            );
        }
        let outputs: Vec<&str> = self.outputs.iter().map(|i| self.node(*i).name.as_str()).collect();
        text + &format!("  return {}\n", outputs.join(", "))
    }
}
