//! A network in training, and one step of it.

use std::collections::BTreeMap;

use crate::conv_norm::Correction;
use crate::loss::{Ending, Loss, Target};
use crate::optim::{Optimizer, Settings};
use crate::points::StepPoints;
use crate::random::Random;
use crate::seat::Seat;
use shiftwise_graph::attributes::Attribute;
pub use shiftwise_graph::backward::Footprint;
use shiftwise_graph::backward::{Mode, ParamKind, Wanted, backward, footprint, forward_within, params};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Point, Points};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op};
use shiftwise_quant::qat::Qat;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_tensor::tensor::Tensor;

/// What an output is trained for.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Its loss.
    pub loss: &'static Loss,
    /// The share that it has in the sum.
    pub weight: f64,
}

/// Sees every output of a step, by its place, and answers with the loss and its gradient by the output's values where an
/// output without a [`Goal`] is trained by a loss that only the caller knows.
pub type Judge<'a> = dyn FnMut(usize, &Tensor) -> Result<Option<(f64, Tensor)>, Error> + 'a;

/// How a network is trained.
#[derive(Clone, Debug)]
pub struct Options {
    /// The rule.
    pub optimizer: &'static Optimizer,
    /// What it is set to.
    pub settings: Settings,
    /// The rate of thresholds, if it is another.
    pub threshold_rate: Option<f64>,
    /// How normalized convolutions are corrected.
    pub correction: Correction,
    /// One for each output; `None` for one that isn't trained.
    pub goals: Vec<Option<Goal>>,
    /// What is random is drawn from it.
    pub seed: u64,
}

/// What training changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A weight of a layer, the same in all its calls.
    Weight(Vec<NodeId>, usize),
    /// The scale of a normalized convolution.
    Gamma(NodeId),
    /// Its offset.
    Beta(NodeId),
    /// The threshold of a quantizer.
    Threshold(NodeId, Seat),
}

/// Something that training changes, with the optimizer's state for it.
#[derive(Clone, Debug)]
struct Variable {
    place: Place,
    state: Vec<Vec<f32>>,
}

/// A network in training.
#[derive(Clone, Debug)]
pub struct Trainer {
    qat: Qat,
    options: Options,
    variables: Vec<Variable>,
    steps: u64,
    /// Bytes of activations that a step keeps.
    memory: usize,
}

/// Whether a file says that a layer is not trained.
fn is_frozen(graph: &Graph, id: NodeId) -> bool {
    graph.node(id).extras.get("trainable") == Some(&Attribute::Flag(false))
}

/// Whether a weight is no weight of the layer in training: the bias that a normalized convolution only has folded.
fn is_zero_bias(qat: &Qat, id: NodeId, k: usize) -> bool {
    k == 1 && qat.norms.get(&id).is_some_and(|own| !own.biased)
}

/// Everything that training changes, in the network's order.
fn places(qat: &Qat) -> Vec<Place> {
    let graph = &qat.quantized.graph;
    let mut places: Vec<Place> = Vec::new();
    let mut shared: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for id in graph.ids() {
        if !is_frozen(graph, id) {
            for (k, param) in params(&graph.node(id).op).iter().enumerate() {
                if param.kind == ParamKind::Statistic || is_zero_bias(qat, id, k) {
                    continue;
                }
                let call = graph.node(id).shared.as_ref().map(|call| (call.layer.as_str(), k));
                match call.and_then(|call| shared.get(&call)) {
                    Some(at) => {
                        if let Place::Weight(ids, _) = &mut places[*at] {
                            ids.push(id);
                        }
                    }
                    None => {
                        shared.extend(call.map(|call| (call, places.len())));
                        places.push(Place::Weight(vec![id], k));
                    }
                }
            }
        }
        if let Some(own) = qat.norms.get(&id) {
            places.extend(own.norm.gamma.as_ref().map(|_| Place::Gamma(id)));
            places.extend(own.norm.beta.as_ref().map(|_| Place::Beta(id)));
        }
        let Some(layer) = qat.quantized.layers.get(&id) else { continue };
        let trained = |seat: &Seat| matches!(seat.quantizer(layer), Some(Quantizer::Tqt(_)));
        places.extend(Seat::taken(layer).into_iter().filter(trained).map(|seat| Place::Threshold(id, seat)));
    }
    places
}

/// What an output's values are to a cross-entropy.
pub fn ending(q: &QuantGraph, id: NodeId) -> Ending {
    let node = q.graph.node(id);
    let alone = q.graph.uses()[id.0] == 1;
    let layer = q.layers.get(&id);
    let quantized_behind = layer.is_some_and(|layer| {
        let at = |point| Seat::at(layer, point).is_some();
        at(Point::PostActivation(id)) || at(Point::Output(id))
    });
    let at_hand = alone && !quantized_behind;
    match (&node.op, node.op.layer().activation()) {
        (Op::Softmax(_), _) | (_, ActivationFn::Softmax) if at_hand => Ending::Softmax,
        (_, ActivationFn::Sigmoid) if at_hand => Ending::Sigmoid,
        (Op::Softmax(_) | Op::DpuSoftmax(_) | Op::HardSigmoid(_), _) => Ending::Probabilities,
        (_, ActivationFn::Softmax | ActivationFn::Sigmoid | ActivationFn::HardSigmoid) => Ending::Probabilities,
        (Op::Reshape(_) | Op::Flatten(_) | Op::Quantize(_) | Op::Dropout(_), _) => match node.inputs[..] {
            [input] if matches!(ending(q, input), Ending::Softmax | Ending::Sigmoid | Ending::Probabilities) => {
                Ending::Probabilities
            }
            _ => Ending::Logits,
        },
        _ => Ending::Logits,
    }
}

impl Trainer {
    /// A network before its first step.
    pub fn new(qat: Qat, options: Options) -> Self {
        let found = places(&qat);
        let mut own = Self { qat, options, variables: Vec::new(), steps: 0, memory: usize::MAX };
        own.variables = found
            .into_iter()
            .map(|place| {
                let len = own.value(&place).map_or(0, |value| value.data().len());
                Variable { place, state: own.options.optimizer.state(&own.options.settings, len) }
            })
            .collect();
        own
    }

    /// The same with about so many bytes of activations kept in a step, or as few as there can be. What isn't kept is
    /// computed twice, to the same bytes.
    #[must_use]
    pub fn within(self, memory: usize) -> Self {
        Self { memory, ..self }
    }

    /// Whether a step keeps all of its activations.
    pub fn keeps_all(&self) -> bool {
        self.memory == usize::MAX
    }

    /// What a step on so many samples keeps of its activations.
    pub fn footprint(&mut self, samples: usize) -> Footprint {
        let (memory, correction, random) = (self.memory, self.options.correction, Random::new(self.options.seed));
        let Qat { quantized: QuantGraph { graph, layers, .. }, norms } = &mut self.qat;
        let points = StepPoints::new((graph, layers, norms), correction, random, std::iter::empty());
        footprint(graph, &points, samples, memory)
    }

    /// The network as it is now.
    pub fn qat(&self) -> &Qat {
        &self.qat
    }

    /// The network as it is at last.
    pub fn into_qat(self) -> Qat {
        self.qat
    }

    /// Steps that were made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// How it is trained.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Sets the rate of the next steps; that of thresholds, if they have one of their own, changes in the same proportion
    /// if the caller scales it.
    pub fn set_rates(&mut self, rate: f64, threshold_rate: Option<f64>) {
        self.options.settings.rate = rate;
        self.options.threshold_rate = threshold_rate;
    }

    /// What the optimizer keeps, one list for each tensor of state, in an order of its own: for a checkpoint.
    pub fn state(&self) -> Vec<Vec<f32>> {
        self.variables.iter().flat_map(|variable| variable.state.iter().cloned()).collect()
    }

    /// Goes on from a checkpoint: `steps` were made, and [`Trainer::state`] was `state`.
    ///
    /// Errors: a state of another network or optimizer.
    pub fn resume(&mut self, steps: u64, state: Vec<Vec<f32>>) -> Result<(), Error> {
        let mut state = state.into_iter();
        for slot in self.variables.iter_mut().flat_map(|variable| &mut variable.state) {
            let new = state.next().filter(|new| new.len() == slot.len());
            *slot =
                new.ok_or_else(|| Error::Options("the checkpoint is that of another network or optimizer".into()))?;
        }
        if state.next().is_some() {
            return Err(Error::Options("the checkpoint is that of another network or optimizer".into()));
        }
        self.steps = steps;
        Ok(())
    }

    /// The value of what is trained.
    fn value(&self, place: &Place) -> Option<Tensor> {
        match place {
            Place::Weight(ids, k) => {
                let node = self.qat.quantized.graph.node(*ids.first()?);
                node.op.layer().weights().get(*k).map(|(_, weight)| (*weight).clone())
            }
            Place::Gamma(id) => self.qat.norms.get(id)?.norm.gamma.clone(),
            Place::Beta(id) => self.qat.norms.get(id)?.norm.beta.clone(),
            Place::Threshold(id, seat) => match seat.quantizer(self.qat.quantized.layers.get(id)?)? {
                Quantizer::Tqt(own) => Some(Tensor::vector(vec![own.log_threshold])),
                Quantizer::Pof2(_) | Quantizer::Affine(_) | Quantizer::Block(_) => None,
            },
        }
    }

    /// Gives what is trained another value of its shape.
    fn set_value(&mut self, place: &Place, value: Tensor) {
        match place {
            Place::Weight(ids, k) => {
                ids.iter().for_each(|id| set_weight(&mut self.qat.quantized.graph, *id, *k, &value))
            }
            Place::Gamma(id) => {
                if let Some(own) = self.qat.norms.get_mut(id) {
                    own.norm.gamma = Some(value);
                }
            }
            Place::Beta(id) => {
                if let Some(own) = self.qat.norms.get_mut(id) {
                    own.norm.beta = Some(value);
                }
            }
            Place::Threshold(id, seat) => {
                let own = self.qat.quantized.layers.get_mut(id).and_then(|layer| seat.quantizer_mut(layer));
                if let (Some(Quantizer::Tqt(own)), Some(value)) = (own, value.data().first()) {
                    own.log_threshold = *value;
                }
            }
        }
    }

    /// Makes one step on a batch: `targets` has one for each output that is trained. Returns the batch's loss before the
    /// step, as Keras' `train_on_batch` does.
    ///
    /// Errors: data or labels that don't fit; a layer without a gradient; a value that is not finite, with the layer and
    /// what to do.
    pub fn step(&mut self, inputs: Vec<Tensor>, targets: &[Option<Target>]) -> Result<f64, Error> {
        self.step_judged(inputs, targets, &mut |_, _| Ok(None))
    }

    /// The same, with a judge of the outputs. An answer for an output that has a goal is not looked at.
    ///
    /// Errors: those of [`Trainer::step`]; a gradient of another shape than its output's; what the judge fails with.
    pub fn step_judged(
        &mut self,
        inputs: Vec<Tensor>,
        targets: &[Option<Target>],
        judge: &mut Judge<'_>,
    ) -> Result<f64, Error> {
        let (loss, gradients) = self.gradients(inputs, targets, judge)?;
        self.steps += 1;
        let mut variables = std::mem::take(&mut self.variables);
        for (variable, gradient) in variables.iter_mut().zip(gradients) {
            let (Some(gradient), Some(mut value)) = (gradient, self.value(&variable.place)) else { continue };
            let mut settings = self.options.settings;
            if let (Place::Threshold(..), Some(rate)) = (&variable.place, self.options.threshold_rate) {
                settings.rate = rate;
            }
            let optimizer = self.options.optimizer;
            optimizer.step(&settings, self.steps, value.data_mut(), gradient.data(), &mut variable.state);
            self.set_value(&variable.place, value);
        }
        self.variables = variables;
        Ok(loss)
    }

    /// The loss of a batch and the gradients of all that is trained, in order. What follows the data (positions, ranges,
    /// statistics of normalizations) has followed.
    fn gradients(
        &mut self,
        inputs: Vec<Tensor>,
        targets: &[Option<Target>],
        judge: &mut Judge<'_>,
    ) -> Result<(f64, Vec<Option<Tensor>>), Error> {
        let (step, random) = (self.steps, Random::new(self.options.seed).stream(self.steps));
        let outputs = self.qat.quantized.graph.outputs.clone();
        let endings: Vec<Ending> = outputs.iter().map(|id| ending(&self.qat.quantized, *id)).collect();
        let goals = &self.options.goals;
        let fused = |k: &usize| goals.get(*k).is_some_and(|g| g.is_some_and(|g| g.loss.is_fused(endings[*k])));
        let fused: Vec<NodeId> = (0..outputs.len()).filter(fused).map(|k| outputs[k]).collect();
        let Qat { quantized: QuantGraph { graph, layers, .. }, norms } = &mut self.qat;
        let mut points = StepPoints::new((graph, layers, norms), self.options.correction, random, fused.into_iter());
        let own = |id: NodeId| graph.node(id).op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
        let raw: Vec<Vec<Tensor>> = graph.ids().map(own).collect();
        let mut weights = raw.clone();
        for id in graph.ids() {
            // Those quantize what they make of their weights.
            if points.norms.contains_key(&id) {
                continue;
            }
            for (k, weight) in weights[id.0].iter_mut().enumerate() {
                points.quantize_weight(id, k, weight)?;
            }
        }
        let given = inputs.clone();
        let run = forward_within(graph, &weights, inputs, &mut points, Mode::Train, self.memory)?;
        let (mut loss, mut seeds) = (0.0f64, Vec::with_capacity(outputs.len()));
        for (k, (id, output)) in outputs.iter().zip(&run.outputs).enumerate() {
            let fail = |why: String| Error::Dataset(format!("output `{}`: {why}", graph.node(*id).name));
            let judged = judge(k, output)?;
            let (Some(Some(goal)), Some(Some(target))) = (goals.get(k), targets.get(k)) else {
                let (own, gradient) = judged.unwrap_or_else(|| (0.0, Tensor::zeros(output.shape())));
                if gradient.shape() != output.shape() {
                    let (seen, wanted) = (gradient.shape(), output.shape());
                    return Err(fail(format!("the gradient of its loss has shape {seen:?}, {wanted:?} is expected")));
                }
                loss += own;
                seeds.push(gradient);
                continue;
            };
            let before = points.fused.get_mut(id).and_then(Option::take);
            let values = before.as_ref().unwrap_or(output);
            let (own, gradient) = goal.loss.evaluate(endings[k], values, target, goal.weight).map_err(fail)?;
            loss += own;
            if before.is_some() {
                points.fused.insert(*id, Some(gradient));
                seeds.push(Tensor::zeros(output.shape()));
            } else {
                seeds.push(gradient);
            }
        }
        if !loss.is_finite() {
            let mut culprit = Culprit::default();
            eval::run(graph, &weights, given, &mut culprit)?;
            return Err(not_finite(step + 1, loss, culprit.found.map(|id| graph.node(id).name.as_str())));
        }
        let found = backward(graph, run.tape, seeds, &mut points, Wanted::Params)?;
        let mut by_weight: Vec<Vec<Option<Tensor>>> = Vec::with_capacity(raw.len());
        for (id, own) in found.params.into_iter().enumerate().map(|(i, own)| (NodeId(i), own)) {
            let through = |(k, d): (usize, Option<Tensor>)| Some(points.weight_gradient(id, k, &raw[id.0][k], d?));
            by_weight.push(own.into_iter().enumerate().map(through).collect());
        }
        let (mut of_norms, parts) = (std::mem::take(&mut points.norm_gradients), std::mem::take(&mut points.parts));
        for (id, own) in &mut of_norms {
            let kernel = std::mem::replace(&mut own.kernel, Tensor::zeros(&[0]));
            let bias = Tensor::vector(std::mem::take(&mut own.bias));
            by_weight[id.0] = vec![Some(kernel), Some(bias)];
        }
        for new in run.statistics {
            set_weight(graph, new.node, new.weight, &new.value);
        }
        let gradient = |variable: &Variable| match &variable.place {
            Place::Weight(ids, k) => {
                ids.iter().filter_map(|id| by_weight[id.0].get(*k)?.clone()).reduce(|mut sum, d| {
                    sum.data_mut().iter_mut().zip(d.data()).for_each(|(a, b)| *a += b);
                    sum
                })
            }
            Place::Gamma(id) => of_norms.get(id).map(|own| Tensor::vector(own.gamma.clone())),
            Place::Beta(id) => of_norms.get(id).map(|own| Tensor::vector(own.beta.clone())),
            Place::Threshold(id, seat) => parts.get(&(*id, *seat)).map(|d| Tensor::vector(vec![*d])),
        };
        Ok((loss, self.variables.iter().map(gradient).collect()))
    }
}

/// Gives a weight of a layer another value of its shape.
fn set_weight(graph: &mut Graph, id: NodeId, k: usize, value: &Tensor) {
    let op = &mut graph.node_mut(id).op;
    let mut weights: Vec<Tensor> = op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
    if let Some(slot) = weights.get_mut(k) {
        *slot = value.clone();
        // Of the layer's own shapes, which it takes.
        let fits = op.set_weights(weights);
        debug_assert!(fits.is_ok(), "{fits:?}");
    }
}

/// The error of a step whose loss is no number.
fn not_finite(step: u64, loss: f64, layer: Option<&str>) -> Error {
    let first =
        layer.map(|layer| format!(", layer `{layer}` is the first whose result is not finite")).unwrap_or_default();
    Error::Run(format!(
        "step {step}: the loss is {loss}{first}; train with a smaller rate (--lr), or from calibrated positions (--init-quant)"
    ))
}

/// Finds the first layer whose result is not finite.
#[derive(Debug, Default)]
struct Culprit {
    found: Option<NodeId>,
}

impl Points for Culprit {
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        if self.found.is_none() && tensor.data().iter().any(|v| !v.is_finite()) {
            self.found = Some(id);
        }
    }
    fn wants(&self, _: NodeId) -> bool {
        true
    }
}
