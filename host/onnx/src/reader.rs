//! A network of layers out of a file's nodes.
//!
//! Layers work on one sample with channels last, ONNX' operators on batches with channels first. So every value is
//! [`Traced`]: the node that holds it, and which of the node's axes each of its own is. A `Transpose` only changes what
//! is said of a value; a permutation is made where an operator asks for axes in another order than the node has them, which
//! within a convolutional network never happens. What depends on constants alone is computed while reading.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use shiftwise_graph::builder::Builder;
use shiftwise_graph::error::Error;
#[cfg(test)]
use shiftwise_graph::graph::Graph;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Flatten, Input, Op, Permute, Reshape};
use shiftwise_tensor::tensor::Tensor;

use crate::expand::expand;
use crate::file::{Dim, Network, Port, label, unknown};
use crate::ops;
use crate::ops::call::Call;
use crate::proto::NodeProto;
use crate::value::{self, Element, Value};
use shiftwise_files::Files;
use shiftwise_files::LoadOptions;
use shiftwise_graph::budget::Budget;
use shiftwise_keras::layers::functions::CALL;
use shiftwise_keras::layers::{self as keras_layers, Config, NoWeights, attributes};
use shiftwise_quant::quant_graph::Model;
use shiftwise_quant::regroup::{self, Apart};
use shiftwise_quant::scheme::Quantizer;

mod by_parts;
pub(crate) mod layers;
mod linear;
mod merges;
mod pools;
pub(crate) mod quantized;
mod resizing;
mod shapes;

/// A value that is known once a sample is given.
#[derive(Clone, Debug)]
pub(crate) struct Traced {
    /// The node that holds it.
    pub(crate) id: NodeId,
    /// Axis i of the value's sample is axis `order[i]` of the node's.
    pub(crate) order: Vec<usize>,
    /// Where a value with several axes has been flattened in the order of its node: that value.
    pub(crate) flat: Option<Box<Traced>>,
}

impl Traced {
    /// A value whose axes are its node's.
    pub(crate) fn plain(id: NodeId, rank: usize) -> Self {
        Self { id, order: (0..rank).collect(), flat: None }
    }

    /// A value with these of the node's axes.
    pub(crate) fn ordered(id: NodeId, order: &[usize]) -> Self {
        Self { id, order: order.to_vec(), flat: None }
    }

    /// Another node in the place of this value's.
    pub(crate) fn at(&self, id: NodeId) -> Self {
        Self { id, ..self.clone() }
    }
}

/// What is known of a value while reading.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// All of it.
    Constant(Arc<Value>),
    /// All of it, but it has not been decoded: a large array of the file, by name.
    Stored(String),
    /// What is made of samples.
    Layer(Traced),
}

/// Elements up to which constants are kept decoded.
const SMALL: usize = 1 << 14;

/// The maker of a graph.
pub(crate) struct Reader<'a> {
    network: &'a Network,
    builder: Builder,
    known: HashMap<&'a str, Known>,
    /// The nodes that read each value, and how often it is an output.
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
    outputs: HashSet<&'a str>,
    makers: HashMap<&'a str, &'a NodeProto>,
    /// Results that a layer of an earlier node has taken with it.
    taken: HashSet<&'a str>,
    permuted: BTreeMap<(NodeId, Vec<usize>), NodeId>,
    batch: usize,
    /// Values of samples that are integers in the file; their nodes have what they stand for.
    integers: HashMap<&'a str, quantized::Grid>,
    /// Constants that the file has as integers, by what these stand for.
    constants: HashMap<&'a str, quantized::Grid>,
    /// What each Quantize node does.
    results: BTreeMap<NodeId, Quantizer>,
    /// Quantizers of layers' weights.
    weights: BTreeMap<NodeId, Vec<Option<Quantizer>>>,
}

/// Reads a model as a network of layers: a quantized one if there are quantizers in it.
///
/// Errors: a file that is damaged; an operator that no layer computes, with its node and the reason.
pub fn read(files: Files, options: &LoadOptions, _: &Budget) -> Result<Model, Error> {
    let path = files.path().to_owned();
    let mut network = Network::read(files)?;
    network.nodes = expand(std::mem::take(&mut network.nodes));
    let mut apart = apart(&network, options, &path)?;
    apart.said =
        quantized::said(network.positions.as_deref(), &network.budget).map_err(|why| Error::format(&path, why))?;
    regroup::model(apart)
}

/// The layers that a file's model is.
///
/// Errors: as [`read`].
#[cfg(test)]
pub(crate) fn graph(network: &Network, options: &LoadOptions, path: &std::path::Path) -> Result<Graph, Error> {
    apart(network, options, path).map(|apart| apart.graph)
}

/// The network of layers that a file's model is, with its quantizers between them.
fn apart(network: &Network, options: &LoadOptions, path: &std::path::Path) -> Result<Apart, Error> {
    let mut reader = Reader::new(network);
    reader.inputs(options)?;
    let fail = |why: String| Error::format(path, why);
    for node in &network.nodes {
        reader.node(node).map_err(fail)?;
    }
    reader.finish().map_err(|e| match e {
        Failure::Own(error) => error,
        Failure::Why(why) => fail(why),
    })
}

enum Failure {
    Own(Error),
    Why(String),
}

/// A name as layers may have it.
fn sane(name: &str) -> String {
    let trimmed = name.trim_start_matches('/');
    if trimmed.is_empty() { "node".into() } else { trimmed.to_owned() }
}

impl<'a> Reader<'a> {
    fn new(network: &'a Network) -> Self {
        let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        let mut makers = HashMap::new();
        for node in &network.nodes {
            node.input.iter().for_each(|name| readers.entry(name).or_default().push(node));
            makers.extend(node.output.iter().map(|name| (name.as_str(), node)));
        }
        let name = if network.name.is_empty() { "model" } else { &network.name };
        Self {
            network,
            builder: Builder::new(name),
            known: HashMap::new(),
            readers,
            outputs: network.outputs.iter().map(|p| p.name.as_str()).collect(),
            makers,
            taken: HashSet::new(),
            permuted: BTreeMap::new(),
            batch: 1,
            integers: HashMap::new(),
            constants: HashMap::new(),
            results: BTreeMap::new(),
            weights: BTreeMap::new(),
        }
    }

    /// The shape of an input's batch: the file's, or the one that is asked for.
    fn input_shape(&self, port: &Port, options: &LoadOptions) -> Result<Vec<usize>, Error> {
        let single = self.network.inputs.len() == 1;
        let own = |name: &Option<String>| name.as_ref().map_or(single, |name| *name == port.name);
        if let Some((_, shape)) = options.input_shapes.iter().find(|(name, _)| own(name)) {
            let rank = port.dims.as_ref().map_or(shape.len(), Vec::len);
            if shape.len() != rank || shape.is_empty() {
                return Err(Error::InputShape(format!(
                    "input `{}` has {rank} dimensions and not {shape:?}",
                    port.name
                )));
            }
            return Ok(shape.clone());
        }
        let open =
            || Error::InputShape(format!("input `{}` leaves its size open; give it with --input-shape", port.name));
        let dims = port.dims.as_ref().ok_or_else(open)?;
        let size = |(i, dim): (usize, &Dim)| match dim {
            Dim::Size(n) if *n > 0 => Ok(*n),
            Dim::Size(_) | Dim::Open(_) if i == 0 => Ok(1),
            Dim::Size(_) | Dim::Open(_) => Err(open()),
        };
        dims.iter().enumerate().map(size).collect()
    }

    fn inputs(&mut self, options: &LoadOptions) -> Result<(), Error> {
        let mut batches = Vec::new();
        let mut ids = Vec::new();
        for port in &self.network.inputs {
            let fail = |why: &str| Err(Error::layer(&port.name, "Input", why));
            let casts =
                || self.readers.get(port.name.as_str()).is_some_and(|all| all.iter().all(|n| n.op_type == "Cast"));
            let small = port.element.is_some_and(|e| !e.is_float() && e.bits() <= 16);
            if port.element.is_some_and(|e| e != Element::Float) && !(small && casts()) {
                return fail("its elements are no 32-bit floats, and layers compute in those");
            }
            let shape = self.input_shape(port, options)?;
            let Some((batch, sample)) = shape.split_first() else {
                return fail("it is a single number, and no batch of samples");
            };
            batches.push(*batch);
            let id = self.builder.layer(&port.name, Op::Input(Input { shape: sample.to_vec() }), &[])?;
            ids.push(id);
            self.known.insert(&port.name, Known::Layer(Traced::plain(id, sample.len())));
        }
        self.builder.inputs(&ids);
        self.batch = batches.first().copied().unwrap_or(1);
        if batches.iter().any(|b| *b != self.batch) {
            return Err(Error::model("inputs have different numbers of samples"));
        }
        Ok(())
    }

    fn operand(&mut self, name: &'a str) -> Result<Option<Known>, String> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.known.get(name) {
            return Ok(Some(known.clone()));
        }
        let Some(tensor) = self.network.stored.get(name) else {
            return Err(format!("has a result `{name}` that is not computed"));
        };
        let size: usize = value::dims(tensor)?.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).unwrap_or(usize::MAX);
        let known = if size > SMALL {
            Known::Stored(name.to_owned())
        } else {
            Known::Constant(Arc::new(self.network.constant(tensor)?))
        };
        self.known.insert(name, known.clone());
        Ok(Some(known))
    }

    /// The value of what is known in full.
    fn constant(&self, known: &Known) -> Result<Option<Arc<Value>>, String> {
        match known {
            Known::Constant(value) => Ok(Some(value.clone())),
            Known::Stored(name) => self.network.constant(&self.network.stored[name]).map(|v| Some(Arc::new(v))),
            Known::Layer(_) => Ok(None),
        }
    }

    fn node(&mut self, node: &'a NodeProto) -> Result<(), String> {
        self.network.budget.work(64)?;
        if node.output.first().is_some_and(|name| self.taken.contains(name.as_str())) {
            return Ok(());
        }
        let operator = ops::of(node).ok_or_else(|| unknown(node))?;
        let known = node.input.iter().map(|name| self.operand(name)).collect::<Result<Vec<_>, _>>()?;
        let samples = known.iter().flatten().any(|k| matches!(k, Known::Layer(_)));
        let small = |k: &Option<Known>| match k {
            Some(Known::Stored(_)) if samples => Ok(None),
            Some(known) => self.constant(known),
            None => Ok(None),
        };
        let constants = known.iter().map(small).collect::<Result<Vec<_>, String>>()?;
        let constants: Vec<Option<&Value>> = constants.iter().map(Option::as_deref).collect();
        if !samples {
            let results = self.network.evaluate(node, &constants, &self.network.budget)?;
            let call = Call { node, inputs: &constants, version: self.network.opset, budget: &self.network.budget };
            self.graded(node, &call);
            for (name, value) in node.output.iter().zip(results) {
                self.known.insert(name, Known::Constant(Arc::new(value)));
            }
            return Ok(());
        }
        let fail = |why: String| format!("has a node {} that {why}", label(node));
        self.moved(node).map_err(fail)?;
        let layer = operator
            .layer
            .ok_or_else(|| format!("has a node {}: no layer computes `{}` of samples", label(node), node.op_type))?;
        let call = Call { node, inputs: &constants, version: self.network.opset, budget: &self.network.budget };
        let mut step = Step { reader: self, node, call, known: &known };
        let results = layer(&mut step).map_err(fail)?;
        if let Some(Known::Layer(made)) = results.first() {
            let names: Vec<&str> = node.input.iter().skip(1).map(String::as_str).collect();
            self.weigh(made.id, &names);
        }
        for (name, value) in node.output.iter().zip(results) {
            self.known.insert(name, value);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Apart, Failure> {
        let mut outputs = Vec::new();
        for port in &self.network.outputs {
            let known = self.operand(&port.name).map_err(Failure::Why)?;
            let Some(Known::Layer(traced)) = known else {
                return Err(Failure::Why(format!("has an output `{}` that no sample changes", port.name)));
            };
            let id = self.plain(&traced).map_err(Failure::Why)?;
            let node = self.builder.node_mut(id);
            if node.origin.last() != Some(&port.name) {
                node.origin.push(port.name.clone());
            }
            outputs.push(id);
        }
        let (graph, ids) = self.builder.finish_with_ids(&outputs).map_err(Failure::Own)?;
        let (results, weights) = (quantized::renumbered(self.results, &ids), quantized::renumbered(self.weights, &ids));
        Ok(Apart { graph, results, weights, ..Apart::default() })
    }

    /// The first result of a node of stored constants, which is behind the one that is being made.
    fn ahead(&mut self, node: &'a NodeProto) -> Result<Option<Arc<Value>>, String> {
        let stored = |name: &String| name.is_empty() || self.network.stored.contains_key(name.as_str());
        if !node.input.iter().all(stored) {
            return Ok(None);
        }
        let known = node.input.iter().map(|name| self.operand(name)).collect::<Result<Vec<_>, _>>()?;
        let value = |k: &Option<Known>| k.as_ref().map_or(Ok(None), |k| self.constant(k));
        let values = known.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<Option<&Value>> = values.iter().map(Option::as_deref).collect();
        let budget = &self.network.budget;
        let all = self.network.evaluate(node, &inputs, budget)?;
        self.graded(node, &Call { node, inputs: &inputs, version: self.network.opset, budget });
        Ok(all.into_iter().next().map(Arc::new))
    }

    /// A name that no layer has yet.
    fn free(&self, name: &str) -> String {
        let name = sane(name);
        let all = std::iter::once(name.clone()).chain((1..).map(|n| format!("{name}_{n}")));
        all.into_iter().find(|name| !self.builder.has(name)).unwrap_or_default()
    }

    /// Adds a layer under a free name; errors without the layer's name, which the caller's node stands for.
    fn add(&mut self, name: &str, op: Op, inputs: &[NodeId], origin: String) -> Result<NodeId, String> {
        let name = self.free(name);
        self.builder.layer_of(&name, op, inputs, vec![origin]).map_err(|e| match e {
            Error::Layer { message, .. } => format!("makes no layer: {message}"),
            other => format!("makes no layer: {other}"),
        })
    }

    /// The shape of a node's sample.
    fn shape(&self, id: NodeId) -> Vec<usize> {
        self.builder.graph().node(id).shape.clone()
    }

    /// The shape of a value's sample.
    pub(crate) fn sample(&self, traced: &Traced) -> Vec<usize> {
        let shape = &self.builder.graph().node(traced.id).shape;
        traced.order.iter().map(|i| shape[*i]).collect()
    }

    /// The node in which axis i of a value is axis `want[i]`.
    pub(crate) fn arranged(&mut self, traced: &Traced, want: &[usize]) -> Result<NodeId, String> {
        if let Some(source) = traced.flat.clone() {
            let id = self.plain(&source)?;
            let (name, origin) = self.around(id, "flatten");
            return self.add(&name, Op::Flatten(Flatten), &[id], origin);
        }
        let mut dims = vec![0; want.len()];
        traced.order.iter().zip(want).for_each(|(own, want)| dims[*want] = *own);
        if dims.iter().copied().eq(0..dims.len()) {
            return Ok(traced.id);
        }
        if let Some(known) = self.permuted.get(&(traced.id, dims.clone())) {
            return Ok(*known);
        }
        let sizes = self.shape(traced.id);
        // A permutation that only moves axes of one element is a view.
        let long: Vec<usize> = dims.iter().copied().filter(|d| sizes[*d] != 1).collect();
        let turned: Vec<usize> = dims.iter().map(|d| sizes[*d]).collect();
        let source = self.builder.graph().node(traced.id);
        if let (true, Op::Reshape(_), [viewed]) = (long.is_sorted(), &source.op, &source.inputs[..]) {
            // Exporters write the permutation of an image of one channel as a reshaping.
            if self.shape(*viewed) == turned {
                return Ok(*viewed);
            }
        }
        let op = if long.is_sorted() {
            Op::Reshape(Reshape { target: turned.iter().map(|d| *d as i64).collect() })
        } else {
            Op::Permute(Permute { dims: dims.clone() })
        };
        let (name, origin) = self.around(traced.id, "permute");
        let id = self.add(&name, op, &[traced.id], origin)?;
        self.permuted.insert((traced.id, dims), id);
        Ok(id)
    }

    /// The node that holds a value with its axes in the value's own order.
    pub(crate) fn plain(&mut self, traced: &Traced) -> Result<NodeId, String> {
        self.arranged(traced, &(0..traced.order.len()).collect::<Vec<_>>())
    }

    /// Name and origin of a layer that stands behind a node.
    fn around(&self, id: NodeId, what: &str) -> (String, String) {
        let node = self.builder.graph().node(id);
        (format!("{}_{what}", node.name), node.origin.last().cloned().unwrap_or_default())
    }
}

/// Shape and bytes of weights as the file has them.
pub(crate) type Plain<'a> = (Vec<usize>, &'a [u8]);

/// A node whose layers are being made.
pub(crate) struct Step<'r, 'a> {
    pub(crate) reader: &'r mut Reader<'a>,
    /// The node.
    pub(crate) node: &'a NodeProto,
    /// Its attributes, and those operands that are small constants.
    pub(crate) call: Call<'r>,
    /// Its operands.
    known: &'r [Option<Known>],
}

impl<'a> Step<'_, 'a> {
    /// What the node is called.
    pub(crate) fn name(&self) -> &'a str {
        let output = || self.node.output.first().map_or("", String::as_str);
        if self.node.name.is_empty() { output() } else { &self.node.name }
    }

    /// An operand, if it is there.
    pub(crate) fn operand(&self, k: usize) -> Option<&Known> {
        self.known.get(k).and_then(Option::as_ref)
    }

    /// Number of operands.
    pub(crate) fn operands(&self) -> usize {
        self.known.len()
    }

    /// An operand that is made of samples.
    pub(crate) fn layer(&self, k: usize) -> Result<Traced, String> {
        match self.operand(k) {
            Some(Known::Layer(traced)) => Ok(traced.clone()),
            Some(_) => Err("has a constant where samples are expected".into()),
            None => Err(format!("has no operand {k}")),
        }
    }

    /// Shape and bytes of the usual weights: 32-bit floats that stand in the model's own file.
    pub(crate) fn plain_weights(&self, k: usize) -> Result<Option<Plain<'_>>, String> {
        let Some(Known::Stored(name)) = self.operand(k) else { return Ok(None) };
        let stored = &self.reader.network.stored[name];
        let raw = stored.raw_data.as_deref().filter(|_| (stored.data_type, stored.data_location) == (1, 0));
        let shape = value::dims(stored)?;
        let whole = |raw: &&[u8]| shape.iter().try_fold(4usize, |n, d| n.checked_mul(*d)) == Some(raw.len());
        Ok(raw.filter(whole).map(|raw| (shape.clone(), raw)))
    }

    /// The shape of an operand that is a constant.
    pub(crate) fn weights_shape(&self, k: usize) -> Result<Vec<usize>, String> {
        match self.operand(k) {
            Some(Known::Constant(value)) => Ok(value.shape.clone()),
            Some(Known::Stored(name)) => value::dims(&self.reader.network.stored[name]),
            Some(Known::Layer(_)) => Err("has weights that are made of samples".into()),
            None => Err(format!("has no operand {k}")),
        }
    }

    /// An operand that is a constant, as weights.
    pub(crate) fn weights(&self, k: usize) -> Result<Tensor, String> {
        let damaged = || "has weights that are damaged".to_owned();
        // The usual weights go from the file's bytes to floats without a step between.
        if let Some((shape, raw)) = self.plain_weights(k)? {
            self.call.budget.elements(&shape, 4)?;
            return Tensor::new(shape, raw.chunks_exact(4).map(cell).collect()).ok_or_else(damaged);
        }
        match self.operand(k) {
            Some(Known::Constant(value)) => value.tensor().ok_or_else(damaged),
            Some(Known::Stored(name)) => {
                let stored = &self.reader.network.stored[name];
                self.reader.network.constant(stored)?.tensor().ok_or_else(damaged)
            }
            Some(Known::Layer(_)) => Err("has weights that are made of samples".into()),
            None => Err(format!("has no operand {k}")),
        }
    }

    /// An operand that is a constant matrix, as weights, its axes exchanged.
    pub(crate) fn turned_weights(&self, k: usize) -> Result<Tensor, String> {
        let Some((shape, raw)) = self.plain_weights(k)?.filter(|(shape, _)| shape.len() == 2) else {
            let own = self.weights(k)?;
            let matrix = own.shape().len() == 2;
            return if matrix { Ok(shiftwise_tensor::array::transpose(&own, &[1, 0])) } else { Ok(own) };
        };
        self.call.budget.elements(&shape, 4)?;
        let (m, n) = (shape[0], shape[1]);
        let data = (0..n).flat_map(|j| (0..m).map(move |i| i * n + j)).map(|at| cell(&raw[4 * at..])).collect();
        Tensor::new(vec![n, m], data).ok_or_else(|| "has weights that are damaged".into())
    }

    /// The shape of one sample of a value.
    pub(crate) fn sample(&self, traced: &Traced) -> Vec<usize> {
        self.reader.sample(traced)
    }

    /// The shape of a whole batch of a value.
    pub(crate) fn whole(&self, traced: &Traced) -> Vec<usize> {
        [&[self.reader.batch], self.sample(traced).as_slice()].concat()
    }

    /// An axis of a batch as one of a value's sample.
    pub(crate) fn axis(&self, axis: i64, traced: &Traced) -> Result<usize, String> {
        let axis = shiftwise_tensor::array::axis(axis, traced.order.len() + 1)?;
        axis.checked_sub(1).ok_or_else(|| "works along the batch, which keeps samples apart".into())
    }

    /// Adds the node's layer, or with a suffix one beside it.
    pub(crate) fn add(&mut self, suffix: &str, op: Op, inputs: &[NodeId]) -> Result<NodeId, String> {
        let name = format!("{}{suffix}", self.name());
        self.reader.add(&name, op, inputs, self.name().to_owned())
    }

    /// Adds a function of TensorFlow's, as Keras records a call of it: `{"tensor": k}` in the arguments is input k.
    pub(crate) fn function(
        &mut self,
        suffix: &str,
        function: &str,
        inputs: &[NodeId],
        (first, named): (Json, Json),
    ) -> Result<NodeId, String> {
        let class = if function == "__operators__.getitem" { "SlicingOpLambda" } else { "TFOpLambda" };
        let call = json!({ "args": [first], "kwargs": named });
        let mut config = Map::new();
        config.insert("function".into(), json!(function));
        config.insert(CALL.into(), call.clone());
        let shapes: Vec<Vec<usize>> = inputs.iter().map(|id| self.reader.shape(*id)).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let op = keras_layers::read(class, Config(&config), &shapes, &mut NoWeights);
        let op = op.ok_or("is a function that is not known")?.map_err(|why| format!("makes no layer: {why}"))?;
        let id = self.add(suffix, op, inputs)?;
        self.reader.builder.node_mut(id).extras.insert(CALL, attributes::attribute(&call));
        Ok(id)
    }

    /// The operation of a node that has been made.
    pub(crate) fn made(&self, id: NodeId) -> (&Op, &[NodeId]) {
        let node = self.reader.builder.graph().node(id);
        (&node.op, &node.inputs)
    }

    /// The only node that reads the node's first result, which is no output.
    pub(crate) fn only_reader(&self, name: &str) -> Option<&'a NodeProto> {
        match self.reader.readers.get(name).map(Vec::as_slice) {
            Some([only]) if !self.reader.outputs.contains(name) => Some(only),
            _ => None,
        }
    }

    /// The node that makes a value.
    pub(crate) fn maker(&self, name: &str) -> Option<&'a NodeProto> {
        self.reader.makers.get(name).copied()
    }

    /// A constant by its name, if it is one.
    pub(crate) fn constant(&mut self, name: &'a str) -> Result<Option<Arc<Value>>, String> {
        match self.reader.operand(name) {
            Ok(Some(known)) => self.reader.constant(&known),
            // It may stand behind the node that is being made.
            Ok(None) | Err(_) => {
                match self.maker(name).filter(|n| ["Constant", "DequantizeLinear"].contains(&n.op_type.as_str())) {
                    Some(node) => self.reader.ahead(node),
                    None => Ok(None),
                }
            }
        }
    }

    /// Lets this node's layer stand for the first result of a later node too, which is then not read.
    pub(crate) fn take(&mut self, node: &'a NodeProto, value: Traced) {
        if let Some(name) = node.output.first() {
            self.reader.taken.insert(name);
            self.reader.known.insert(name, Known::Layer(value));
        }
    }
}

/// The float that four bytes are.
pub(crate) fn cell(bytes: &[u8]) -> f32 {
    f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A single result.
pub(crate) fn one(traced: Traced) -> Result<Vec<Known>, String> {
    Ok(vec![Known::Layer(traced)])
}
