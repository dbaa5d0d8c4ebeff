//! The forward pass of a graph with a tape, and the backward pass over it.

use crate::backward::functions::activation;
use crate::backward::norms::moving_averages;
use crate::backward::{Call, Grads, Mode, ParamKind, Saved, differentiate, evaluate, params, reads_inputs};
use crate::error::Error;
use crate::eval::{Point, Points, missing, needs, own_inputs};
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
    /// What the activation attribute was given, unless it is the identity.
    linear: Option<Tensor>,
    /// What was given to the points that want to see it again.
    points: Vec<(Point, Tensor)>,
}

/// What a forward pass keeps for the backward pass, layer by layer. Tensors share memory, and are freed while the tape is
/// used up.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    steps: Vec<Step>,
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
    needs(graph).check(inputs.first().and_then(|x| x.shape().first().copied()).unwrap_or(1))?;
    let mut values: Vec<Option<Tensor>> = vec![None; graph.nodes.len()];
    place_inputs(graph, inputs, &mut values)?;
    let mut left = graph.uses();
    let mut tape = Tape { steps: Vec::with_capacity(graph.nodes.len()) };
    let mut statistics = Vec::new();
    for id in graph.ids() {
        let node = graph.node(id);
        if node.dtype.is_half() {
            let why = format!("it computes in {}, and gradients are those of f32", node.dtype.name());
            return Err(Error::layer(&node.name, node.op.class(), why));
        }
        let own = weights.get(id.0).map_or(&[][..], Vec::as_slice);
        // Gradients pass straight through what changes an input for this layer alone.
        let changed = own_inputs(node, id, &values, points)?;
        let x: Option<Vec<&Tensor>> = match &changed {
            Some(own) => Some(own.iter().collect()),
            None => node.inputs.iter().map(|i| values[i.0].as_ref()).collect(),
        };
        let x = x.ok_or_else(|| missing(&node.name))?;
        let (mut y, saved) = match (&node.op, values[id.0].as_ref()) {
            (Op::Input(_), Some(given)) => (given.clone(), Saved::Nothing),
            (Op::Input(_), None) => return Err(Error::InputShape(format!("input `{}` has no data", node.name))),
            (op, _) => match points.compute(id, &x)? {
                Some(y) => (y, Saved::Nothing),
                None => evaluate(op, &x, own, mode),
            },
        };
        statistics.extend(new_statistics(id, node, own, &saved));
        let kept = if reads_inputs(&node.op) { x.iter().map(|x| (*x).clone()).collect() } else { Vec::new() };
        let shapes = x.iter().map(|x| x.shape().to_vec()).collect();
        let mut step = Step { shapes, inputs: kept, weights: own.to_vec(), saved, linear: None, points: Vec::new() };
        apply(Point::PreActivation(id), &mut y, points, &mut step)?;
        let function = node.op.layer().activation();
        if function != ActivationFn::Linear {
            step.linear = Some(y.clone());
            function.apply(&mut y);
        }
        apply(Point::PostActivation(id), &mut y, points, &mut step)?;
        apply(Point::Output(id), &mut y, points, &mut step)?;
        points.done(id, &y);
        values[id.0] = Some(y);
        tape.steps.push(step);
        for input in &node.inputs {
            left[input.0] -= 1;
            if left[input.0] == 0 {
                values[input.0] = None;
            }
        }
    }
    let output = |id: &NodeId| values[id.0].clone().ok_or_else(|| missing(&graph.node(*id).name));
    let outputs = graph.outputs.iter().map(output).collect::<Result<_, _>>()?;
    Ok(Run { outputs, tape, statistics })
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
fn apply(point: Point, y: &mut Tensor, points: &mut dyn Points, step: &mut Step) -> Result<(), Error> {
    if points.differentiates(point) {
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
    match to {
        Some(sum) => sum.data_mut().iter_mut().zip(d.data()).for_each(|(sum, d)| *sum += d),
        None => *to = Some(d),
    }
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
    for id in graph.ids().rev() {
        let Some(step) = tape.steps.pop() else { return Err(missing(&graph.node(id).name)) };
        let node = graph.node(id);
        if !needed[id.0] || matches!(node.op, Op::Input(_)) && step.points.is_empty() {
            continue;
        }
        let Some(dy) = gradients[id.0].take() else { continue };
        let fail = |reason: super::NoGradient| Error::layer(&node.name, node.op.class(), reason.to_string());
        let dy = before_points(node, &step, dy, points)?;
        if matches!(node.op, Op::Input(_)) {
            gradients[id.0] = Some(dy);
            continue;
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
            Some(inputs) => Grads { inputs, params: Vec::new() },
            None => differentiate(&node.op, &call, &dy).map_err(fail)?,
        };
        for ((input, d), reached) in node.inputs.iter().zip(inputs).zip(&reached) {
            if let Some(d) = d.filter(|_| *reached) {
                add(&mut gradients[input.0], d);
            }
        }
        found[id.0].iter_mut().zip(params).for_each(|(to, d)| *to = d);
    }
    let inputs = match wanted {
        Wanted::Params => vec![None; graph.inputs.len()],
        Wanted::ParamsAndInputs => graph.inputs.iter().map(|id| gradients[id.0].take()).collect(),
    };
    Ok(Gradients { params: found, inputs })
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
    if let Some(z) = &step.linear {
        let function = node.op.layer().activation();
        dy = activation(function, z, &dy).map_err(|e| Error::layer(&node.name, node.op.class(), e.to_string()))?;
    }
    pass(&mut dy, false)?;
    Ok(dy)
}
