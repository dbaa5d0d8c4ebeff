//! The forward pass of a graph with a tape, and the backward pass over it.

use std::ops::Range;

use crate::backward::channels::added;
use crate::backward::functions::{activation, gated, is_gate, passed};
use crate::backward::norms::moving_averages;
use crate::backward::segments::segments;
use crate::backward::{Call, Grads, Mode, ParamKind, Saved, consume, evaluate, params, reads_inputs};
use crate::error::Error;
use crate::eval::{Point, Points, Visit, missing, needs, own_inputs};
use crate::graph::{Graph, Node, NodeId};
use crate::ops::{ActivationFn, BatchNormalization, Op};
use shiftwise_tensor::tensor::Tensor;

/// What one layer's backward pass needs.
#[derive(Clone, Debug)]
struct Step {
    shapes: Vec<Vec<usize>>,
    inputs: Vec<Tensor>,
    weights: Vec<Tensor>,
    saved: Saved,
    linear: Linear,
    /// What was given to the points that want to see it again.
    points: Vec<(Point, Tensor)>,
}

/// What is kept of what an activation attribute was given.
#[derive(Clone, Debug)]
enum Linear {
    /// Nothing: the attribute is the identity.
    Identity,
    /// The tensor.
    Values(Tensor),
    /// Where the attribute, a gate, let a value through.
    Passed(Vec<u8>),
}

impl Step {
    /// Gives the memory of what was kept to the next tensors.
    fn recycle(self) {
        let points = self.points.into_iter().map(|(_, x)| x);
        let linear = match self.linear {
            Linear::Values(x) => Some(x),
            Linear::Identity | Linear::Passed(_) => None,
        };
        self.inputs.into_iter().chain(points).chain(linear).for_each(Tensor::recycle);
    }
}

/// What a forward pass keeps for the backward pass, segment by segment. Tensors share memory, and are freed while the tape
/// is used up.
#[derive(Clone, Debug)]
pub struct Tape {
    segments: Vec<Segment>,
    /// What the network was computed with, to be computed again.
    weights: Vec<Vec<Tensor>>,
    mode: Mode,
}

/// Layers that follow each other.
#[derive(Clone, Debug)]
struct Segment {
    layers: Range<usize>,
    kept: Kept,
}

/// What is kept of a segment.
#[derive(Clone, Debug)]
enum Kept {
    /// What the gradient of each layer needs.
    Steps(Vec<Step>),
    /// What the segment begins with.
    Beginning(State),
}

/// Where a forward pass is.
#[derive(Clone, Debug)]
struct State {
    /// Tensors that are alive.
    values: Vec<Option<Tensor>>,
    /// How often each is still read.
    left: Vec<usize>,
}

/// A new value for a statistic of a layer: the moving mean or variance after this batch.
#[derive(Clone, Debug, PartialEq)]
pub struct NewStatistic {
    /// The layer.
    pub node: NodeId,
    /// Index among its weights.
    pub weight: usize,
    /// Its value by Keras 2's formula, from the weight that the pass was given.
    pub value: Tensor,
}

/// The result of a forward pass.
#[derive(Clone, Debug)]
pub struct Run {
    /// The model's outputs, in order.
    pub outputs: Vec<Tensor>,
    /// For [`backward`].
    pub tape: Tape,
    /// In [`Mode::Train`] the new moving averages, in node order. To use them is the caller's choice.
    pub statistics: Vec<NewStatistic>,
}

/// Of what a backward pass finds the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Of weights: what lies before the first of them is not computed.
    Params,
    /// Of weights and of the model's inputs.
    ParamsAndInputs,
}

/// Gradients of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// For each node and each of its weights; `None` for statistics, and where no output depends on the weight.
    pub params: Vec<Vec<Option<Tensor>>>,
    /// For each of the model's inputs, in order, if they are wanted.
    pub inputs: Vec<Option<Tensor>>,
}

/// Runs one batch through a graph and keeps what [`backward`] needs.
///
/// `weights` are per node, in the order of [`Layer::weights`](crate::ops::Layer::weights); gradients are those of the
/// weights given here. In [`Mode::Infer`] the outputs have the bytes of [`eval::run`](crate::eval::run).
pub fn forward(
    graph: &Graph,
    weights: &[Vec<Tensor>],
    inputs: Vec<Tensor>,
    points: &mut dyn Points,
    mode: Mode,
) -> Result<Run, Error> {
    forward_within(graph, weights, inputs, points, mode, usize::MAX)
}

/// [`forward`] that keeps about `memory` bytes of activations, or as few as it can: what is not kept is computed again, to
/// the same bytes.
pub fn forward_within(
    graph: &Graph,
    weights: &[Vec<Tensor>],
    inputs: Vec<Tensor>,
    points: &mut dyn Points,
    mode: Mode,
    memory: usize,
) -> Result<Run, Error> {
    let samples = inputs.first().and_then(|x| x.shape().first().copied()).unwrap_or(1);
    needs(graph).check(samples)?;
    let mut state = State { values: vec![None; graph.nodes.len()], left: graph.uses() };
    place_inputs(graph, inputs, &mut state.values)?;
    let (cuts, _) = segments(graph, points, samples, memory);
    let last = cuts.len().saturating_sub(1);
    let (mut statistics, mut done) = (Vec::new(), Vec::with_capacity(cuts.len()));
    for (k, layers) in cuts.into_iter().enumerate() {
        let visit = if k == last { Visit::Once } else { Visit::First };
        let beginning = (visit == Visit::First).then(|| state.clone());
        let steps = segment(graph, weights, &mut state, points, (mode, visit, layers.clone()), &mut statistics)?;
        done.push(Segment { layers, kept: beginning.map_or(Kept::Steps(steps), Kept::Beginning) });
    }
    let output = |id: &NodeId| state.values[id.0].clone().ok_or_else(|| missing(&graph.node(*id).name));
    let outputs = graph.outputs.iter().map(output).collect::<Result<_, _>>()?;
    let weights = if last == 0 { Vec::new() } else { weights.to_vec() };
    Ok(Run { outputs, tape: Tape { segments: done, weights, mode }, statistics })
}

/// Runs some layers, and returns what their gradients need unless they will be run again.
fn segment(
    graph: &Graph,
    weights: &[Vec<Tensor>],
    state: &mut State,
    points: &mut dyn Points,
    (mode, visit, layers): (Mode, Visit, Range<usize>),
    statistics: &mut Vec<NewStatistic>,
) -> Result<Vec<Step>, Error> {
    points.visit(visit);
    let State { values, left } = state;
    let keeps = visit != Visit::First;
    let mut steps = Vec::with_capacity(if keeps { layers.len() } else { 0 });
    for id in layers.map(NodeId) {
        let node = graph.node(id);
        if node.dtype.is_half() {
            let why = format!("it computes in {}, and gradients are those of f32", node.dtype.name());
            return Err(Error::layer(&node.name, node.op.class(), why));
        }
        let own = weights.get(id.0).map_or(&[][..], Vec::as_slice);
        let shapes = shapes_of(node, values)?;
        let Computed { mut y, saved, kept } = compute((node, id), own, (values, left), points, (mode, keeps))?;
        if visit != Visit::Second {
            statistics.extend(new_statistics(id, node, own, &saved));
        }
        let weights = own.to_vec();
        let mut step = Step { shapes, inputs: kept, weights, saved, linear: Linear::Identity, points: Vec::new() };
        apply(Point::PreActivation(id), &mut y, points, keeps.then_some(&mut step))?;
        let function = node.op.layer().activation();
        if function != ActivationFn::Linear {
            step.linear = match is_gate(function.function()) {
                _ if !keeps => Linear::Identity,
                true => Linear::Passed(passed(function.function(), &y)),
                false => Linear::Values(y.clone()),
            };
            function.apply(&mut y);
        }
        apply(Point::PostActivation(id), &mut y, points, keeps.then_some(&mut step))?;
        apply(Point::Output(id), &mut y, points, keeps.then_some(&mut step))?;
        points.done(id, &y);
        values[id.0] = Some(y);
        if keeps {
            steps.push(step);
        }
        for input in &node.inputs {
            left[input.0] -= 1;
            if left[input.0] == 0 {
                values[input.0].take().into_iter().for_each(Tensor::recycle);
            }
        }
    }
    Ok(steps)
}

/// The shapes of what a layer reads.
fn shapes_of(node: &Node, values: &[Option<Tensor>]) -> Result<Vec<Vec<usize>>, Error> {
    let shape = |input: &NodeId| Some(values[input.0].as_ref()?.shape().to_vec());
    node.inputs.iter().map(shape).collect::<Option<_>>().ok_or_else(|| missing(&node.name))
}

/// What a layer computes up to its activation attribute, and what its gradient needs of it.
struct Computed {
    y: Tensor,
    saved: Saved,
    /// Its inputs, if the gradient reads them.
    kept: Vec<Tensor>,
}

/// Computes a layer: in the memory of its input, where nobody else reads that and the gradient doesn't need it.
fn compute(
    (node, id): (&Node, NodeId),
    weights: &[Tensor],
    (values, left): (&mut [Option<Tensor>], &[usize]),
    points: &mut dyn Points,
    (mode, keeps): (Mode, bool),
) -> Result<Computed, Error> {
    if let Op::Input(_) = &node.op {
        let given = values[id.0].clone();
        let y = given.ok_or_else(|| Error::InputShape(format!("input `{}` has no data", node.name)))?;
        return Ok(Computed { y, saved: Saved::Nothing, kept: Vec::new() });
    }
    // Gradients pass straight through what changes an input for this layer alone.
    let changed = own_inputs(node, id, values, points)?;
    let x: Option<Vec<&Tensor>> = match &changed {
        Some(own) => Some(own.iter().collect()),
        None => node.inputs.iter().map(|i| values[i.0].as_ref()).collect(),
    };
    let x = x.ok_or_else(|| missing(&node.name))?;
    let own_way = points.compute(id, &x)?;
    let gate = match &node.op {
        Op::Relu(layer) if own_way.is_none() => Some(layer.function()).filter(|function| is_gate(*function)),
        _ => None,
    };
    let saved = match gate {
        Some(function) if keeps => Saved::Passed(passed(function, x[0])),
        Some(_) | None => Saved::Nothing,
    };
    let reads = keeps && reads_inputs(&node.op) && gate.is_none();
    let kept = if reads { x.iter().map(|x| (*x).clone()).collect() } else { Vec::new() };
    if let Some(y) = own_way {
        return Ok(Computed { y, saved, kept });
    }
    if let ([input], false, None) = (&node.inputs[..], reads, &changed)
        && left[input.0] == 1
        && let Some(x) = values[input.0].take()
    {
        match node.op.layer().reuse(x) {
            Ok(y) => return Ok(Computed { y, saved, kept }),
            Err(x) => values[input.0] = Some(x),
        }
    }
    let x: Option<Vec<&Tensor>> = match &changed {
        Some(own) => Some(own.iter().collect()),
        None => node.inputs.iter().map(|i| values[i.0].as_ref()).collect(),
    };
    let (y, own) = evaluate(&node.op, &x.ok_or_else(|| missing(&node.name))?, weights, mode);
    Ok(Computed { y, saved: if gate.is_some() { saved } else { own }, kept })
}

/// Puts a batch where the input layers find it.
fn place_inputs(graph: &Graph, inputs: Vec<Tensor>, values: &mut [Option<Tensor>]) -> Result<(), Error> {
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        let node = graph.node(*id);
        if tensor.shape().get(1..) != Some(node.shape.as_slice()) {
            let (name, shape, seen) = (&node.name, &node.shape, tensor.shape());
            return Err(Error::InputShape(format!("input `{name}` has shape {shape:?} and the data {seen:?}")));
        }
        values[id.0] = Some(tensor);
    }
    Ok(())
}

/// Lets a point change a tensor, which is kept before if the point wants to see it again.
fn apply(point: Point, y: &mut Tensor, points: &mut dyn Points, step: Option<&mut Step>) -> Result<(), Error> {
    if let Some(step) = step.filter(|_| points.differentiates(point)) {
        step.points.push((point, y.clone()));
    }
    points.apply(point, y)
}

/// How much of its moving statistics a layer keeps after a batch.
fn momentum(op: &Op) -> f64 {
    if let Op::BatchNormalization(norm) = op { norm.momentum } else { BatchNormalization::MOMENTUM }
}

/// The moving averages after the batch whose moments a normalization has saved.
fn new_statistics(id: NodeId, node: &Node, weights: &[Tensor], saved: &Saved) -> Vec<NewStatistic> {
    let Saved::Moments { mean, variance, count } = saved else { return Vec::new() };
    let own = params(&node.op);
    let at: Vec<usize> = (0..own.len()).filter(|i| own[*i].kind == ParamKind::Statistic).collect();
    let [of_mean, of_variance] = at[..] else { return Vec::new() };
    let Some(old) = weights.get(of_mean).zip(weights.get(of_variance)) else { return Vec::new() };
    // The layer inside a `TimeDistributed` has its own.
    let momentum = match &node.op {
        Op::TimeDistributed(outer) => momentum(&outer.layer),
        op => momentum(op),
    };
    // Steps are samples to the layer inside a `TimeDistributed`.
    let rank = node.shape.len() + usize::from(!matches!(node.op, Op::TimeDistributed(_)));
    let [new_mean, new_variance] = moving_averages([old.0, old.1], (mean, variance, *count), momentum, rank);
    vec![
        NewStatistic { node: id, weight: of_mean, value: new_mean },
        NewStatistic { node: id, weight: of_variance, value: new_variance },
    ]
}

/// Whether a node's result depends on something whose gradient is wanted.
fn needed(graph: &Graph, wanted: Wanted) -> Vec<bool> {
    let mut needed: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let own = match &node.op {
            Op::Input(_) => wanted == Wanted::ParamsAndInputs,
            op => params(op).iter().any(|p| p.kind != ParamKind::Statistic),
        };
        needed.push(own || node.inputs.iter().any(|i| needed.get(i.0).copied().unwrap_or(false)));
    }
    needed
}

/// Adds a gradient to what has been found so far.
fn add(to: &mut Option<Tensor>, d: Tensor) {
    *to = Some(match to.take() {
        Some(sum) => added(sum, d),
        None => d,
    });
}

/// The gradients of everything that is wanted from those of the outputs, `dy`, in order; uses the tape up from its end.
///
/// A node that is read several times gets the sum of its readers' gradients, the last reader first. An error names the
/// first layer without a gradient that one is wanted through.
pub fn backward(
    graph: &Graph,
    mut tape: Tape,
    dy: Vec<Tensor>,
    points: &mut dyn Points,
    wanted: Wanted,
) -> Result<Gradients, Error> {
    let needed = needed(graph, wanted);
    let mut gradients: Vec<Option<Tensor>> = vec![None; graph.nodes.len()];
    let mut found: Vec<Vec<Option<Tensor>>> =
        graph.nodes.iter().map(|node| vec![None; node.op.layer().weights().len()]).collect();
    for (id, d) in graph.outputs.iter().zip(dy) {
        let node = graph.node(*id);
        if d.shape().get(1..) != Some(node.shape.as_slice()) {
            let (name, shape, seen) = (&node.name, &node.shape, d.shape());
            return Err(Error::Run(format!("output `{name}` has shape {shape:?} and its gradient {seen:?}")));
        }
        add(&mut gradients[id.0], d);
    }
    while let Some(Segment { layers, kept }) = tape.segments.pop() {
        let steps = match kept {
            Kept::Steps(steps) => steps,
            Kept::Beginning(mut state) => {
                let how = (tape.mode, Visit::Second, layers.clone());
                segment(graph, &tape.weights, &mut state, points, how, &mut Vec::new())?
            }
        };
        for (id, step) in layers.map(NodeId).zip(steps).rev() {
            one((graph, id), step, points, &needed, &mut gradients, &mut found[id.0])?;
        }
    }
    let inputs = match wanted {
        Wanted::Params => vec![None; graph.inputs.len()],
        Wanted::ParamsAndInputs => graph.inputs.iter().map(|id| gradients[id.0].take()).collect(),
    };
    Ok(Gradients { params: found, inputs })
}

/// The gradients of one layer, from that of its result: those of its inputs are added, those of its weights found.
fn one(
    (graph, id): (&Graph, NodeId),
    step: Step,
    points: &mut dyn Points,
    needed: &[bool],
    gradients: &mut [Option<Tensor>],
    found: &mut [Option<Tensor>],
) -> Result<(), Error> {
    let node = graph.node(id);
    if !needed[id.0] || matches!(node.op, Op::Input(_)) && step.points.is_empty() {
        return Ok(());
    }
    let Some(dy) = gradients[id.0].take() else { return Ok(()) };
    let fail = |reason: super::NoGradient| Error::layer(&node.name, node.op.class(), reason.to_string());
    let dy = before_points(node, &step, dy, points)?;
    if matches!(node.op, Op::Input(_)) {
        gradients[id.0] = Some(dy);
        return Ok(());
    }
    let reached: Vec<bool> = node.inputs.iter().map(|i| needed[i.0]).collect();
    let call = Call {
        shapes: &step.shapes,
        inputs: &step.inputs,
        weights: &step.weights,
        saved: &step.saved,
        wanted: &reached,
    };
    let Grads { inputs, params } = match points.differentiate(id, &dy, &reached)? {
        Some(inputs) => {
            dy.recycle();
            Grads { inputs, params: Vec::new() }
        }
        None => consume(&node.op, &call, dy).map_err(fail)?,
    };
    for ((input, d), reached) in node.inputs.iter().zip(inputs).zip(&reached) {
        if let Some(d) = d.filter(|_| *reached) {
            add(&mut gradients[input.0], d);
        }
    }
    found.iter_mut().zip(params).for_each(|(to, d)| *to = d);
    step.recycle();
    Ok(())
}

/// The gradient of a layer's result before its points and its activation attribute.
fn before_points(node: &Node, step: &Step, mut dy: Tensor, points: &mut dyn Points) -> Result<Tensor, Error> {
    let mut pass = |dy: &mut Tensor, activated: bool| -> Result<(), Error> {
        let own = |point: &Point| matches!(point, Point::PreActivation(_)) != activated;
        for (point, x) in step.points.iter().rev().filter(|(point, _)| own(point)) {
            points.backward(*point, x, dy)?;
        }
        Ok(())
    };
    pass(&mut dy, true)?;
    match &step.linear {
        Linear::Identity => {}
        Linear::Passed(passed) => dy = gated(passed, dy),
        Linear::Values(z) => {
            let function = node.op.layer().activation();
            dy = activation(function, z, &dy).map_err(|e| Error::layer(&node.name, node.op.class(), e.to_string()))?;
        }
    }
    pass(&mut dy, false)?;
    Ok(dy)
}
