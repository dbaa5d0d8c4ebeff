//! A network in the making, operation by operation.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value as Json, json};

use crate::constants::{self, BATCH, Constant};
use crate::names::{self, Names};
use crate::recognize;
use shiftwise_graph::budget::Budget;
use shiftwise_graph::builder::Builder;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::{Input, Op, Operand, Permute, Quantize, TfOp};
use shiftwise_keras::layers::functions::{CALL, TENSOR};
use shiftwise_keras::layers::{Config, NoWeights, attributes, read};
use shiftwise_keras::layout;
use shiftwise_quant::quant_graph::Model;
use shiftwise_quant::regroup::{self, Apart};
use shiftwise_quant::scheme::Quantizer;

/// What an operation reads or yields.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// Known while the graph is read.
    Constant(Constant),
    /// The result of a layer, batch first. `merged`: all axes but the last are one with the batch, as matrix products
    /// over the last axis of a tensor want it.
    Layer { id: NodeId, merged: bool },
    /// Where a layer's result is 0: what graphs ask before they divide by it.
    IsZero(NodeId),
    /// Nothing that is computed with: no tensor, or one of a kind that networks don't compute with.
    Nothing,
}

impl Slot {
    /// The constant.
    pub(crate) fn constant(&self) -> Option<&Constant> {
        match self {
            Self::Constant(constant) => Some(constant),
            Self::Layer { .. } | Self::IsZero(_) | Self::Nothing => None,
        }
    }
}

/// Functions that take their operands as a list.
const LISTS: [&str; 2] = ["concat", "stack"];

/// Functions that only move elements, whose types they don't ask for.
const MOVES: [&str; 14] = [
    "concat",
    "stack",
    "reshape",
    "transpose",
    "expand_dims",
    "squeeze",
    "__operators__.getitem",
    "gather",
    "tile",
    "reverse",
    "identity",
    "stop_gradient",
    "nn.depth_to_space",
    "nn.space_to_depth",
];

/// Largest constant among the operands of a function that stays in the network.
const MAX_OPERAND: usize = 1 << 22;

/// How outputs are called that have no name of their own.
const NUMBERED: &str = "output_";

/// Most operands of a function.
const MAX_OPERANDS: usize = 4096;

/// Memory of a layer beside its weights.
const LAYER: u64 = 1024;

/// Memory of a number as a file of the quantized model describes it.
const DESCRIBED: u64 = 64;

/// A network in the making.
pub(crate) struct Network<'a> {
    builder: Builder,
    /// Permutations around operations whose channels come first, which cancel where such operations follow each other.
    permutations: BTreeSet<NodeId>,
    /// Whether a quantizer was left out.
    unquantized: bool,
    /// What Quantize layers do, by the layers' numbers.
    quantizers: HashMap<NodeId, Quantizer>,
    pub(crate) budget: &'a Budget,
}

impl<'a> Network<'a> {
    pub(crate) fn new(name: &str, budget: &'a Budget) -> Self {
        Self {
            builder: Builder::new(name),
            permutations: BTreeSet::new(),
            unquantized: false,
            quantizers: HashMap::new(),
            budget,
        }
    }

    /// Says what the file has that is strange.
    pub(crate) fn warn(&mut self, warning: String) {
        self.builder.warn([warning]);
    }

    /// Leaves a quantizer out, and says so once.
    pub(crate) fn leave_quantizer_out(&mut self) {
        if !self.unquantized {
            self.warn("the model is quantized: it is read as the float network that it stands for".into());
        }
        self.unquantized = true;
    }

    /// Adds a quantizer.
    pub(crate) fn quantize(&mut self, operation: &str, x: &Slot, quantizer: Quantizer) -> Result<Slot, String> {
        let id = self.layer_of(x)?;
        let slot = self.add(operation, Op::Quantize(Quantize), &[id])?;
        self.quantizers.extend(self.layer_of(&slot).map(|id| (id, quantizer)));
        Ok(slot)
    }

    /// A layer so far.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.builder.graph().node(id)
    }

    /// Shape of one sample of a layer's result.
    pub(crate) fn sample(&self, id: NodeId) -> &[usize] {
        &self.builder.graph().node(id).shape
    }

    /// The layer of a slot.
    ///
    /// Errors: a constant, or a tensor whose samples are not apart.
    pub(crate) fn layer_of(&self, slot: &Slot) -> Result<NodeId, String> {
        match slot {
            Slot::Layer { id, merged: false } => Ok(*id),
            Slot::Layer { merged: true, .. } => Err("its operand has the batch and another axis in one".into()),
            Slot::Constant(_) => Err("its first operand is a constant, and a tensor is expected".into()),
            Slot::IsZero(_) | Slot::Nothing => {
                Err("its operand is missing, or of a type that networks don't compute with".into())
            }
        }
    }

    /// The shape of a slot, batch first for layers.
    pub(crate) fn shape(&self, slot: &Slot) -> Result<Vec<i64>, String> {
        let whole = |d: &usize| i64::try_from(*d).map_err(|_| "a tensor is too large".to_owned());
        match slot {
            Slot::Constant(constant) => constant.shape().iter().map(whole).collect(),
            Slot::Layer { id, merged: false } => {
                let sample = self.sample(*id).iter().map(whole).collect::<Result<Vec<_>, _>>()?;
                Ok([&[BATCH], sample.as_slice()].concat())
            }
            Slot::Layer { id, merged: true } => {
                Ok([BATCH].into_iter().chain(self.sample(*id).last().map(|d| *d as i64)).collect())
            }
            Slot::IsZero(_) | Slot::Nothing => self.layer_of(slot).map(|_| Vec::new()),
        }
    }

    /// Number of axes of a slot, the batch included.
    pub(crate) fn rank(&self, slot: &Slot) -> Result<usize, String> {
        self.shape(slot).map(|shape| shape.len())
    }

    /// Adds a layer. `operation` is what the file calls it.
    pub(crate) fn add(&mut self, operation: &str, op: Op, inputs: &[NodeId]) -> Result<Slot, String> {
        self.budget.bytes(LAYER).map_err(|e| e.to_string())?;
        let name = self.builder.graph().nodes.len().to_string();
        let message = |error: Error| match error {
            Error::Layer { message, .. } => message,
            other => other.to_string(),
        };
        let id = self.builder.layer_of(&name, op, inputs, vec![operation.to_owned()]).map_err(message)?;
        Ok(Slot::Layer { id, merged: false })
    }

    /// Adds an input of the model.
    pub(crate) fn input(&mut self, name: &str, shape: Vec<usize>) -> Result<Slot, String> {
        self.add(name, Op::Input(Input { shape }), &[])
    }

    /// An image with its axes in another order, as operations whose channels come first need it around them.
    pub(crate) fn permuted(&mut self, operation: &str, x: &Slot, dims: [usize; 3]) -> Result<Slot, String> {
        let id = self.layer_of(x)?;
        let slot = self.add(operation, Op::Permute(Permute { dims: dims.to_vec() }), &[id])?;
        self.permutations.extend(self.layer_of(&slot));
        Ok(slot)
    }

    /// A function by TensorFlow's name below `tf.`, of operands whose names behind the first are given, and with settings.
    /// Of constants it is computed.
    pub(crate) fn function(
        &mut self,
        operation: &str,
        function: &str,
        operands: &[Slot],
        names: &[&str],
        settings: Json,
    ) -> Result<Slot, String> {
        if operands.len() > MAX_OPERANDS {
            return Err(format!("it has {} operands, at most {MAX_OPERANDS} are supported", operands.len()));
        }
        let constants: Option<Vec<&Constant>> = operands.iter().map(Slot::constant).collect();
        if let Some(constants) = constants {
            return self.folded(function, &constants, names, &settings).map(Slot::Constant);
        }
        let merged = operands.iter().any(|o| matches!(o, Slot::Layer { merged: true, .. }));
        if merged {
            self.check_merged(operands)?;
        }
        let (mut inputs, mut places, mut constants) = (Vec::new(), Vec::new(), Vec::new());
        for operand in operands {
            match operand {
                Slot::Layer { id, .. } => {
                    let at = inputs.iter().position(|i| i == id).unwrap_or_else(|| {
                        inputs.push(*id);
                        inputs.len() - 1
                    });
                    places.push(Operand::Tensor(at));
                }
                Slot::Constant(constant) => places.push(Operand::Constant(constant.tensor()?)),
                Slot::IsZero(_) | Slot::Nothing => return Err(self.layer_of(operand).err().unwrap_or_default()),
            }
        }
        for place in &places {
            if let Operand::Constant(tensor) = place {
                self.charge(tensor.data().len())?;
                constants.push(tensor.data().len());
            }
        }
        let shapes: Vec<Vec<usize>> = places.iter().map(|place| self.place_shape(place, &inputs)).collect();
        let mut op = described(function, operands.len(), &shapes, names, &settings)?;
        relocate(&mut op, &places)?;
        let arguments = arguments(function, &places, names, &settings);
        let slot = self.add(operation, Op::TfOp(op), &inputs)?;
        let Slot::Layer { id, .. } = slot else { return Ok(slot) };
        self.builder.node_mut(id).extras.insert(CALL, attributes::attribute(&arguments));
        Ok(Slot::Layer { id, merged })
    }

    /// Fails unless a function of tensors that are matrices of rows is one of their rows.
    fn check_merged(&self, operands: &[Slot]) -> Result<(), String> {
        let fits = |slot: &Slot| match slot {
            Slot::Layer { merged, .. } => *merged,
            Slot::Constant(constant) => constant.shape().len() <= 1,
            Slot::IsZero(_) | Slot::Nothing => false,
        };
        let all = operands.iter().all(fits);
        all.then_some(()).ok_or_else(|| "one of its operands has the batch and another axis in one".into())
    }

    fn charge(&self, numbers: usize) -> Result<(), String> {
        if numbers > MAX_OPERAND {
            return Err(format!("a constant of {numbers} numbers is no operand of a layer"));
        }
        self.budget.elements(&[numbers], DESCRIBED).map(|_| ()).map_err(|e| e.to_string())
    }

    /// The sample's shape of an operand, as if constants had a batch too.
    fn place_shape(&self, place: &Operand, inputs: &[NodeId]) -> Vec<usize> {
        match place {
            Operand::Tensor(k) => inputs.get(*k).map(|id| self.sample(*id).to_vec()).unwrap_or_default(),
            Operand::Constant(t) => t.shape().get(1..).unwrap_or_default().to_vec(),
        }
    }

    /// The function of constants.
    fn folded(
        &self,
        function: &str,
        operands: &[&Constant],
        names: &[&str],
        settings: &Json,
    ) -> Result<Constant, String> {
        if let Some(whole) = self.whole(function, operands, settings) {
            return whole;
        }
        let shapes: Vec<Vec<usize>> =
            operands.iter().map(|o| o.shape().get(1..).unwrap_or_default().to_vec()).collect();
        let op = described(function, operands.len(), &shapes, names, settings)?;
        let integers = operands.iter().all(|o| matches!(o, Constant::Integers(..)));
        if MOVES.contains(&function) && integers {
            // All operands in one, so that a number names an element of any of them.
            let mut all = Vec::new();
            let mut numbered = Vec::new();
            for operand in operands {
                let values = operand.whole()?;
                let count = all.len()..all.len() + values.len();
                let numbers = count.map(|i| i as i64).collect();
                numbered.push(Constant::Integers(operand.shape().to_vec(), std::sync::Arc::new(numbers)).tensor()?);
                all.extend(values);
            }
            let whole = Constant::integers(all);
            return whole.moved(|_| op.fold(&numbered.iter().collect::<Vec<_>>(), self.budget));
        }
        let tensors = operands.iter().map(|o| o.tensor()).collect::<Result<Vec<_>, _>>()?;
        op.fold(&tensors.iter().collect::<Vec<_>>(), self.budget).map(Constant::Floats)
    }

    /// A function that shapes are computed with, of whole numbers; `None` for others.
    fn whole(&self, function: &str, operands: &[&Constant], settings: &Json) -> Option<Result<Constant, String>> {
        let pair = |k: usize| match operands.get(k) {
            Some(Constant::Integers(shape, values)) => Some((shape, values)),
            _ => None,
        };
        match operands.len() {
            1 => {
                let (_, values) = pair(0)?;
                let keep = settings.get("keepdims").and_then(Json::as_bool) == Some(true);
                let axes = settings.get("axis").and_then(Json::as_array).map_or(0, Vec::len);
                let all = operands[0].shape().len() == 1 && axes == 1 && !keep;
                let folded = constants::fold(function, values).filter(|_| all)?;
                Some(Ok(Constant::integer(folded)))
            }
            2 => {
                let ((a_shape, a), (b_shape, b)) = (pair(0)?, pair(1)?);
                let n = a.len().max(b.len());
                let shape = if b.len() > a.len() || b_shape.len() > a_shape.len() { b_shape } else { a_shape };
                let fits = n > 0 && (a_shape == b_shape || a.len() == 1 || b.len() == 1);
                let at = |v: &[i64], i: usize| v[if v.len() == 1 { 0 } else { i }];
                let values = (0..n).map(|i| constants::combine(function, at(a, i), at(b, i)));
                let values: Option<Vec<i64>> = if fits { values.collect() } else { None };
                Some(Ok(Constant::Integers(shape.clone(), std::sync::Arc::new(values?))))
            }
            _ => None,
        }
    }

    /// The model with these ends, its layers recognized and named: a quantized one if there are quantizers in it. `called`: what the file calls its outputs beside.
    pub(crate) fn finish(
        self,
        outputs: &[NodeId],
        inputs: &[NodeId],
        called: &[Option<String>],
    ) -> Result<Model, Error> {
        let mut builder = self.builder;
        builder.inputs(inputs);
        let results = self.quantizers.into_iter().collect();
        let mut apart = Apart { graph: builder.unordered(outputs)?, results, ..Apart::default() };
        // Before functions are recognized as layers, which chains of them may look like.
        apart.find_chains();
        let graph = &mut apart.graph;
        let own = |id: &NodeId| graph.node(*id).name.clone();
        let results: HashMap<String, Quantizer> = apart.results.iter().map(|(id, q)| (own(id), q.clone())).collect();
        layout::cancel(graph, &self.permutations)?;
        recognize::layers(graph, self.budget)?;
        graph.normalize();
        let id_of = |id: NodeId| Some((id, results.get(&graph.node(id).name)?.clone()));
        apart.results = graph.ids().filter_map(id_of).collect();
        match scopes(graph) {
            true => operations(graph),
            false => name(graph, called),
        }
        graph.verify()?;
        regroup::model(apart)
    }
}

/// Whether a network has the vendor's quantizers, whose scopes tell the layers.
fn scopes(graph: &Graph) -> bool {
    let quantizer = |node: &Node| matches!(node.op, Op::Quantize(_));
    let scoped = |name: &String| name.contains("/quant_") && name.contains("Quantize/");
    graph.nodes.iter().any(|node| quantizer(node) && node.origin.first().is_some_and(scoped))
}

/// Gives layers the names of their operations.
fn operations(graph: &mut Graph) {
    let mut taken = std::collections::HashSet::new();
    for (number, node) in graph.nodes.iter_mut().enumerate() {
        let own = node.origin.first().cloned().unwrap_or_default();
        let own = if taken.insert(own.clone()) { own } else { format!("{own}_{number}") };
        node.name.clone_from(&own);
        taken.insert(own);
    }
}

/// Gives layers the names that their author has for them, and lets them come from the layers of those names.
fn name(graph: &mut Graph, called: &[Option<String>]) {
    let mut names = Names::default();
    let mut given = HashMap::new();
    for (id, own) in graph.outputs.iter().zip(called) {
        if let Some(own) = own.as_ref().filter(|own| !own.starts_with(NUMBERED)) {
            given.entry(*id).or_insert_with(|| names.take(&[own.as_str()], ""));
        }
    }
    for id in graph.ids() {
        let node = graph.node_mut(id);
        let operation = node.origin.first().cloned().unwrap_or_default();
        let of_operation = || names.take(&names::path(&operation, recognize::words(&node.op)), node.op.class());
        node.name = given.remove(&id).unwrap_or_else(of_operation);
        let mut origin = vec![node.name.clone()];
        let merged = node.origin.iter().filter_map(|other| names::path(other, &[]).last().map(|n| (*n).to_owned()));
        for other in merged {
            if !origin.contains(&other) {
                origin.push(other);
            }
        }
        node.origin = origin;
    }
}

/// The function of `count` operands, each of which is an input of its own.
fn described(
    function: &str,
    count: usize,
    shapes: &[Vec<usize>],
    names: &[&str],
    settings: &Json,
) -> Result<TfOp, String> {
    let places: Vec<Operand> = (0..count).map(Operand::Tensor).collect();
    let mut config = Map::new();
    config.insert("function".into(), json!(function));
    config.insert(CALL.into(), arguments(function, &places, names, settings));
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    match read("TFOpLambda", Config(&config), &shapes, &mut NoWeights) {
        Some(Ok(Op::TfOp(op))) => Ok(op),
        Some(Err(message)) => Err(message),
        Some(Ok(_)) | None => Err(format!("the function `{function}` is not supported")),
    }
}

/// Puts the operands of a function where they are.
fn relocate(op: &mut TfOp, places: &[Operand]) -> Result<(), String> {
    for operand in &mut op.operands {
        if let Operand::Tensor(k) = operand {
            *operand = places.get(*k).cloned().ok_or("it has too few operands")?;
        }
    }
    Ok(())
}

/// The arguments of a call, as Keras records them.
fn arguments(function: &str, places: &[Operand], names: &[&str], settings: &Json) -> Json {
    let place = |place: &Operand| match place {
        Operand::Tensor(k) => json!({ TENSOR: k }),
        Operand::Constant(tensor) => nested(tensor.shape(), tensor.data()),
    };
    let mut kwargs = settings.as_object().cloned().unwrap_or_default();
    if LISTS.contains(&function) {
        return json!({ "args": [places.iter().map(place).collect::<Vec<_>>()], "kwargs": kwargs });
    }
    for (name, operand) in names.iter().zip(places.iter().skip(1)) {
        kwargs.insert((*name).to_owned(), place(operand));
    }
    json!({ "args": places.first().map(place).into_iter().collect::<Vec<_>>(), "kwargs": kwargs })
}

/// An array as lists of lists.
fn nested(shape: &[usize], data: &[f32]) -> Json {
    match shape.split_first() {
        None => data.first().map_or(Json::Null, |v| json!(f64::from(*v))),
        Some((count, rest)) => {
            let stretch = data.len().checked_div(*count).unwrap_or(0).max(1);
            data.chunks(stretch).map(|part| nested(rest, part)).collect()
        }
    }
}
