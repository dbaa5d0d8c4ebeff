//! Quantizers that stand in a network as operations of their own, given to the layers that they quantize.
//!
//! Files of other tools have quantizers between layers: as pairs of operators, or as arithmetic. A reader makes of each a
//! Quantize node, as far as it knows one, and `regroup` makes of these a network as our own passes would have: the result
//! of a layer is quantized by the layer, that of a convolution behind its activation, and weights by quantizers of theirs.
//! A Quantize node that no layer can take in stays a node, so nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::layer_quant::{ActivationPlace, ActivationQuant, LayerQuant};
use crate::metadata::Metadata;
use crate::owners::is_activation;
use crate::passes::adjust_pos;
use crate::quant_graph::{Model, QuantGraph};
use crate::role::{self, Role};
use crate::scheme::{Quantizer, Spelling};
use crate::strategy::Strategy;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op};

mod chains;
mod disguises;
pub mod grids;
pub(crate) mod integers;
mod names;

/// A network with its quantizers apart from its layers.
#[derive(Clone, Debug, Default)]
pub struct Apart {
    /// The layers, with Quantize nodes between them.
    pub graph: Graph,
    /// What each Quantize node does.
    pub results: BTreeMap<NodeId, Quantizer>,
    /// Quantizers of weights, in the order of the layer's weights; layers that are not here have none that is known.
    pub weights: BTreeMap<NodeId, Vec<Option<Quantizer>>>,
    /// Quantizers of weights that a file names apart, by the layers' and the weights' names.
    pub said: BTreeMap<(String, String), Quantizer>,
}

impl Apart {
    /// Makes Quantize nodes of quantizers that are written as arithmetic: for readers that make something else of functions
    /// which follow each other. [`model`] does it for all others.
    pub fn find_chains(&mut self) {
        chains::find(self);
    }

    /// Drops what no output needs, and puts the rest in order.
    fn prune(&mut self) {
        let ids = self.graph.normalize();
        let results = std::mem::take(&mut self.results).into_iter();
        self.results = results.filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect();
        let weights = std::mem::take(&mut self.weights).into_iter();
        self.weights = weights.filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect();
    }
}

/// The model that a file's network is: a float model if nothing in it is quantized.
///
/// Errors: a quantizer that the layers around it leave no place for.
pub fn model(mut apart: Apart) -> Result<Model, Error> {
    apart.find_chains();
    if apart.results.is_empty() { Ok(Model::Float(apart.graph)) } else { regroup(apart).map(Model::Quantized) }
}

/// Gives quantizers to the layers that they quantize; warns of positions that a DPU's shifters asked to change.
fn regroup(mut apart: Apart) -> Result<QuantGraph, Error> {
    let strategy = Strategy::built_in("pof2s")?;
    // What a chain was made of is read by nothing, and reads what its quantizer reads.
    apart.prune();
    disguises::undo(&mut apart);
    let scope = names::scope(&apart.graph);
    let between = scope.as_ref().map(|model| disguises::attributes(&mut apart, model)).unwrap_or_default();
    let names: Vec<String> = between.iter().map(|id| apart.graph.node(*id).name.clone()).collect();
    apart.prune();
    let between = names.iter().filter_map(|name| apart.graph.find(name)).collect();
    if let Some(model) = &scope {
        names::restore(&mut apart.graph, model);
    }
    drop_repeated(&mut apart);
    let mut grouping = Grouping::new(strategy, apart.graph, between);
    let mut left = BTreeMap::new();
    for (id, quantizer) in apart.results {
        if !grouping.take_in(id, &quantizer) {
            left.insert(id, quantizer);
        }
    }
    grouping.pass_on();
    let mut layers = grouping.layers(&apart.weights, &apart.said)?;
    for (id, quantizer) in left {
        layers.insert(id, LayerQuant { output: Some(quantizer), ..LayerQuant::bare() });
    }
    let mut graph = grouping.graph;
    let ids = graph.normalize();
    graph.verify()?;
    let layers = layers.into_iter().filter_map(|(id, own)| Some((*ids.get(&id)?, own))).collect();
    let mut quantized = QuantGraph { graph, layers, metadata: Metadata::default(), trained: false };
    quantized.check_names()?;
    narrow_biases(&mut quantized);
    // What comes from the vendor's tool is refined; only positions of biases are not in its files.
    let wanted = |rule: &str| scope.is_none() || rule.starts_with("adjust_dpu_shift_bias");
    refine(&mut quantized, |rule| wanted(rule) && grouping.strategy.enabled(rule));
    Ok(quantized)
}

/// Drops quantizers of values that are on their grid already.
fn drop_repeated(apart: &mut Apart) {
    let ids: Vec<NodeId> = apart.results.keys().copied().collect();
    for id in ids {
        let mut source = apart.graph.node(id).inputs.first().copied();
        // What only moves values leaves them on their grid.
        while let Some(at) = source {
            let node = apart.graph.node(at);
            match (&node.op, &node.inputs[..]) {
                (Op::Reshape(_) | Op::Flatten(_) | Op::Permute(_) | Op::ZeroPadding2D(_) | Op::Dropout(_), [x]) => {
                    source = Some(*x);
                }
                _ => break,
            }
        }
        if source.is_some_and(|at| at != id && apart.results.get(&at) == apart.results.get(&id)) {
            apart.graph.remove(id);
            apart.results.remove(&id);
        }
    }
}

struct Grouping {
    strategy: Strategy,
    graph: Graph,
    /// What quantizes the results of layers.
    results: BTreeMap<NodeId, Quantizer>,
    /// What quantizes the operand of activations whose function comes behind, as the vendor's layers have it.
    before: BTreeMap<NodeId, Quantizer>,
    /// The layers that read each node; outputs of the model are no readers.
    readers: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    /// Quantizers within a layer, behind which its function comes.
    between: BTreeSet<NodeId>,
}

impl Grouping {
    fn new(strategy: Strategy, graph: Graph, between: BTreeSet<NodeId>) -> Self {
        let mut is_output = vec![false; graph.nodes.len()];
        graph.outputs.iter().for_each(|id| is_output[id.0] = true);
        let readers = graph.consumers();
        Self { strategy, graph, results: BTreeMap::new(), before: BTreeMap::new(), readers, is_output, between }
    }

    /// What the strategy says of a layer.
    fn entry(&self, id: NodeId) -> Option<Map<String, Value>> {
        let op = &self.graph.node(id).op;
        if matches!(op, Op::Input(_) | Op::Quantize(_)) { None } else { self.strategy.layer_entry(op.class(), false) }
    }

    /// Whether a layer has a place for the quantizer of its result.
    fn quantizes_its_result(&self, id: NodeId) -> bool {
        let has = |entry: &Map<String, Value>, key: &str| {
            entry.get(key).and_then(Value::as_array).is_some_and(|list| !list.is_empty())
        };
        self.entry(id).is_some_and(|e| has(&e, "quantizable_activations") || has(&e, "quantizable_outputs"))
    }

    /// The only node that reads a node.
    fn only_reader(&self, id: NodeId) -> Option<NodeId> {
        match self.readers[id.0][..] {
            [only] if !self.is_output[id.0] => Some(only),
            _ => None,
        }
    }

    /// Gives a Quantize node's quantizer to the layer before it, if that layer's result is read by nothing else.
    fn take_in(&mut self, id: NodeId, quantizer: &Quantizer) -> bool {
        let [producer] = self.graph.node(id).inputs[..] else { return false };
        let node = self.graph.node(producer);
        if self.only_reader(producer) != Some(id) || node.shared.is_some() || !self.quantizes_its_result(producer) {
            return false;
        }
        // A layer whose function stands behind its quantizer has no place for one behind that.
        if node.op.layer().activation().quantized_before() && !self.between.contains(&id) {
            return false;
        }
        // Between a convolution and such a function the quantizer is the function's.
        let function = self.only_reader(id).filter(|reader| {
            let op = &self.graph.node(*reader).op;
            matches!(op, Op::Activation(a) if a.function.quantized_before()) && self.entry(*reader).is_some()
        });
        let weighted = self.graph.node(producer).op.weighted().is_some();
        match function.filter(|_| weighted) {
            Some(function) => drop(self.before.insert(function, quantizer.clone())),
            None => drop(self.results.insert(producer, quantizer.clone())),
        }
        self.graph.remove(id);
        self.readers[producer.0] = std::mem::take(&mut self.readers[id.0]);
        self.is_output[producer.0] = self.is_output[id.0];
        true
    }

    /// Gives the quantizer of layers that only join values to what they join, where that has none: the vendor's graphs for
    /// its compiler say it once, and both are the same.
    fn pass_on(&mut self) {
        let joins = |id: &NodeId| matches!(self.graph.node(*id).op, Op::Concatenate(_));
        let all: Vec<NodeId> = self.graph.ids().filter(joins).collect();
        for id in all.into_iter().rev() {
            let Some(own) = self.results.get(&id).cloned() else { continue };
            for input in self.graph.node(id).inputs.clone() {
                let free = !self.results.contains_key(&input) && !self.before.contains_key(&input);
                let function = self.graph.node(input).op.layer().activation().quantized_before();
                if free && !function && self.only_reader(input) == Some(id) && self.quantizes_its_result(input) {
                    self.results.insert(input, own.clone());
                }
            }
        }
    }

    /// Whether the activation behind a layer quantizes its result.
    fn is_deferred(&self, id: NodeId) -> bool {
        let op = &self.graph.node(id).op;
        let linear = op.weighted().is_some_and(|w| w.activation == ActivationFn::Linear);
        if !(linear || matches!(op, Op::Add(_) | Op::Multiply(_))) || self.results.contains_key(&id) {
            return false;
        }
        let behind = self.only_reader(id).filter(|reader| is_activation(&self.graph.node(*reader).op));
        behind.is_some_and(|a| self.results.contains_key(&a) || self.before.contains_key(&a))
    }

    /// Every layer that is quantized, with its quantizers.
    fn layers(
        &self,
        known: &BTreeMap<NodeId, Vec<Option<Quantizer>>>,
        named: &BTreeMap<(String, String), Quantizer>,
    ) -> Result<BTreeMap<NodeId, LayerQuant>, Error> {
        let mut layers = BTreeMap::new();
        for id in self.graph.ids() {
            let (Some(template), node) = (self.entry(id), self.graph.node(id)) else { continue };
            let (result, deferred) = (self.results.get(&id).or(self.before.get(&id)), self.is_deferred(id));
            if deferred && node.op.weighted().is_none() {
                layers.insert(id, LayerQuant::bare());
                continue;
            }
            let quantized = result.is_some() || deferred;
            if !quantized && self.quantizes_its_result(id) && !known.contains_key(&id) {
                continue;
            }
            let mut weights = match known.get(&id) {
                Some(known) => known.clone(),
                None => grids::of_weights(&node.op),
            };
            for ((weight, _), own) in node.op.layer().weights().into_iter().zip(&mut weights) {
                if let Some(known) = named.get(&(node.name.clone(), weight.to_owned())) {
                    *own = Some(known.clone());
                }
            }
            let entry = said(&template, &node.op, (&weights, result, deferred));
            let place = match (deferred, result) {
                (true, _) => ActivationPlace::Behind,
                (false, Some(_)) => ActivationPlace::Here,
                (false, None) => ActivationPlace::Nowhere,
            };
            let mut own = LayerQuant::from_entry(&node.op, &entry, place)?;
            own.weights.iter_mut().zip(weights).for_each(|(own, known)| *own = known);
            if let Some(result) = result {
                // The entry has made the place, and the quantizer in it has no state yet.
                match (&mut own.activation, &mut own.output) {
                    (ActivationQuant::Before(q) | ActivationQuant::After(q), _) | (_, Some(q)) => *q = result.clone(),
                    (ActivationQuant::Absent | ActivationQuant::Deferred, None) => {}
                }
            }
            layers.insert(id, own);
        }
        Ok(layers)
    }
}

/// What a strategy's entry says of a layer, with those quantizers that there are.
fn said(
    template: &Map<String, Value>,
    op: &Op,
    (weights, result, deferred): (&[Option<Quantizer>], Option<&Quantizer>, bool),
) -> Map<String, Value> {
    let spelled = |own: &Quantizer| own.to_entry(&Spelling::whole(own));
    let mut entry = template.clone();
    for row in role::lists() {
        let list = |key: &str| template.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let items = list(row.names).into_iter().zip(list(row.quantizers));
        let kept = items.filter_map(|(name, own)| match row.role {
            Role::Input => None,
            Role::Weight | Role::Bias => {
                let index = op.layer().weights().iter().position(|(weight, _)| name == *weight);
                match index.map(|k| weights.get(k).and_then(Option::as_ref)) {
                    Some(known) => Some((name, spelled(known?))),
                    // The layer has no such weight, and the vendor's entry says how it would be quantized.
                    None => Some((name, own)),
                }
            }
            Role::PreActivation | Role::PostActivation | Role::Output if deferred => Some((name, own)),
            Role::PreActivation | Role::PostActivation | Role::Output => result.map(|q| (name, spelled(q))),
        });
        let (names, quantizers): (Vec<Value>, Vec<Value>) = kept.unzip();
        entry.insert(row.names.into(), names.into());
        entry.insert(row.quantizers.into(), quantizers.into());
    }
    entry
}

/// Gives biases of 32 bits, or floats, as other tools have them beside positions, the 8 bits that a DPU adds.
fn narrow_biases(q: &mut QuantGraph) {
    let mut warnings = Vec::new();
    for (id, layer) in &mut q.layers {
        let node = q.graph.node(*id);
        let [Some(Quantizer::Pof2(_)), bias] = &mut layer.weights[..] else { continue };
        let (Some(w), true) = (node.op.weighted(), bias.as_ref().is_none_or(Quantizer::is_wide)) else { continue };
        let Some(values) = &w.bias else { continue };
        let own = bias.as_ref().and_then(|bias| bias.scheme().pos());
        let narrow = grids::nearest(values, own);
        let pos = narrow.scheme().pos();
        let mut rounded = values.clone();
        narrow.scheme().fake_quantize(&mut rounded);
        if let Some(pos) = pos.filter(|_| rounded.data() != values.data()) {
            let name = &node.name;
            warnings
                .push(format!("`{name}`: its bias has more than 8 bits, and is rounded to 8 at position {}", pos.0));
        }
        *bias = Some(narrow);
    }
    q.graph.warnings.extend(warnings);
}

/// Brings positions within what a DPU's shifters can do, and says of each what it was.
fn refine(q: &mut QuantGraph, wanted: impl Fn(&str) -> bool) {
    let before = q.layers.clone();
    adjust_pos::apply(q, wanted);
    let mut warnings = Vec::new();
    for (id, layer) in &q.layers {
        let node = q.graph.node(*id);
        let Some(old) = before.get(id) else { continue };
        for ((_, name, new), (_, _, old)) in layer.quantizers(node).zip(old.quantizers(node)) {
            // A tensor of zeros has any position.
            let zeros = node.op.layer().weights().iter().any(|(w, t)| *w == name && t.data().iter().all(|x| *x == 0.0));
            if let (Some(to), Some(from)) = (new.scheme().pos(), old.scheme().pos())
                && to != from
                && !zeros
            {
                let (layer, to, from) = (&node.name, to.0, from.0);
                warnings.push(format!("`{layer}`: the position of {name} is {to} and not {from}, for a DPU's shifts"));
            }
        }
    }
    q.graph.warnings.extend(warnings);
}

#[cfg(test)]
mod tests;
