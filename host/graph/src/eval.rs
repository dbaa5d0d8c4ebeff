//! Evaluating graphs.
//!
//! Two engines compute a quantized network. This file is the float one: every layer in f32 as TensorFlow computes it,
//! quantizers as fake quantization — what calibration and the `vendor` numerics use. The integer engine, in a crate above, computes the integer
//! form exactly — the `dpu` numerics of dumps, evaluation and proofs. They agree wherever sums stay below 2^24.

use crate::budget;
use crate::dtype;
use crate::error::Error;
use crate::graph::{Graph, Node, NodeId};
use crate::ops::Op;
use shiftwise_core::shape::Window;
use shiftwise_tensor::tensor::Tensor;

mod batch;
mod engine;
mod steps;
#[cfg(test)]
mod tests;

pub use batch::{BatchEngine, BatchPoints, Pass, Settled};
pub use engine::{Change, FloatEngine, SamplePoints};

/// Batches of samples for all inputs of a model.
pub trait Samples: Sync {
    /// Number of samples.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Samples `start .. start + count` of every model input, `[count, …]` each, in the model's order.
    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error>;
}

/// One tensor per input, in memory.
impl Samples for Vec<Tensor> {
    fn len(&self) -> usize {
        self.first().map_or(0, |t| t.shape().first().copied().unwrap_or(0))
    }
    fn batch(&self, start: usize, count: usize) -> Result<Vec<Tensor>, Error> {
        let part = |t: &Tensor| {
            let per = t.data().len() / t.shape().first().copied().unwrap_or(1).max(1);
            let data = t.data().get(start * per..(start + count) * per)?.to_vec();
            Tensor::new([&[count], &t.shape()[1..]].concat(), data)
        };
        let batch: Option<Vec<Tensor>> = self.iter().map(part).collect();
        batch.ok_or_else(|| Error::Dataset(format!("samples {start}..{} are past the end", start + count)))
    }
}

/// A place between layers where somebody may look at a tensor or change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// An input of a layer, as that layer alone reads it: the layer and the number of the input. The gradient passes
    /// straight through.
    Input(NodeId, usize),
    /// Before a layer's activation attribute.
    PreActivation(NodeId),
    /// After it.
    PostActivation(NodeId),
    /// At the layer's output.
    Output(NodeId),
}

/// How a pass that will be differentiated comes to the layers behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visit {
    /// Once: what gradients need of them is kept.
    #[default]
    Once,
    /// For the first of two times: nothing need be kept.
    First,
    /// For the second time, on the same tensors: they give what they gave, and what is learned from data stays.
    Second,
}

/// What sits on a network's tensors while the float engine runs: nothing, calibration, stored positions, a dump.
pub trait Points {
    /// Changes a batch in place. A layer's points come in the order of [`Point`].
    ///
    /// Errors end the run.
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let _ = (point, tensor);
        Ok(())
    }
    /// Whether [`Points::apply`] changes what a layer reads, at its [`Point::Input`]s; where it doesn't, these are not
    /// visited.
    fn reads(&self, id: NodeId) -> bool {
        let _ = id;
        false
    }
    /// A layer's result is final.
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        let _ = (id, tensor);
    }
    /// Whether [`Points::done`] wants the result of this layer, or [`Points::apply`] changes it. Padding of which nobody
    /// wants to know is left to the convolution behind it.
    fn wants(&self, id: NodeId) -> bool {
        let _ = id;
        false
    }
    /// Computes a layer in a way of its own, up to the activation attribute, in passes that are differentiated. `None`, the
    /// default: as the layer itself computes.
    ///
    /// Errors end the run.
    fn compute(&mut self, id: NodeId, inputs: &[&Tensor]) -> Result<Option<Tensor>, Error> {
        let _ = (id, inputs);
        Ok(None)
    }
    /// The gradient of [`Points::compute`]: those of the layer's inputs, as far as they are `wanted`, from that of its
    /// result before the activation attribute. What gradients weights have is kept by the points themselves. `None`, the
    /// default: the layer's own.
    ///
    /// Errors end the pass.
    fn differentiate(
        &mut self,
        id: NodeId,
        dy: &Tensor,
        wanted: &[bool],
    ) -> Result<Option<Vec<Option<Tensor>>>, Error> {
        let _ = (id, dy, wanted);
        Ok(None)
    }
    /// Says how the pass comes to the layers that follow.
    fn visit(&mut self, visit: Visit) {
        let _ = visit;
    }
    /// How many tensors of the size of a layer's result [`Points::compute`] keeps of it.
    fn keeps(&self, id: NodeId) -> usize {
        let _ = id;
        0
    }
    /// Whether [`Points::backward`] wants to see a point: the tensor that [`Points::apply`] was given there is then kept
    /// until the backward pass.
    fn differentiates(&self, point: Point) -> bool {
        let _ = point;
        false
    }
    /// The gradient of [`Points::apply`]: `x` is what it was given, `dy` the gradient of what it made of it, to be turned
    /// in place into the gradient of `x`. A layer's points come in the reverse order. By default nothing changes, as if
    /// nothing sat there (straight through).
    ///
    /// Errors end the pass.
    fn backward(&mut self, point: Point, x: &Tensor, dy: &mut Tensor) -> Result<(), Error> {
        let _ = (point, x, dy);
        Ok(())
    }
}

/// Nothing sits anywhere: the float network.
#[derive(Clone, Copy, Debug)]
pub struct NoPoints;

impl Points for NoPoints {}

/// What one sample of a graph takes.
pub fn needs(graph: &Graph) -> budget::Run {
    let (mut uses, mut run) = (graph.uses(), budget::Run::default());
    let elements = |id: NodeId| graph.node(id).shape.iter().product::<usize>() as u64;
    let mut alive = 0u64;
    for id in graph.ids() {
        let node = graph.node(id);
        let inputs: Vec<&[usize]> = node.inputs.iter().map(|i| graph.node(*i).shape.as_slice()).collect();
        let weights: usize = node.op.layer().weights().iter().map(|(_, w)| w.data().len()).sum();
        run.weights = run.weights.saturating_add(weights as u64);
        run.sums = run.sums.saturating_add(sums(&node.op, &inputs, &node.shape));
        alive += elements(id);
        run.bytes = run.bytes.max(alive.saturating_mul(4));
        for input in &node.inputs {
            uses[input.0] -= 1;
            if uses[input.0] == 0 {
                alive = alive.saturating_sub(elements(*input));
            }
        }
    }
    run
}

/// Multiply-accumulates of a layer, or what takes as long, from above.
fn sums(op: &Op, inputs: &[&[usize]], out: &[usize]) -> u64 {
    let product = |shape: &[usize]| shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64));
    let positions = |shape: &[usize]| product(shape) / shape.last().map_or(1, |c| (*c as u64).max(1));
    let input = inputs.first().copied().unwrap_or_default();
    let pooled = |size: [usize; 2]| {
        let taps = size.iter().zip(input).map(|(k, n)| *(k.min(n)) as u64);
        product(out).saturating_mul(taps.product())
    };
    match op {
        Op::MaxPooling2D(p) => pooled(p.pool.size),
        Op::AveragePooling2D(p) => pooled(p.pool.size),
        Op::OneD(one) => {
            let wide = |shape: &[usize]| [&[1], shape].concat();
            sums(&one.image, &[&wide(input)], &wide(out))
        }
        Op::Dot(dot) => product(out).saturating_mul(input.get(dot.axes[0]).map_or(1, |n| *n as u64)),
        Op::TfOp(f) if f.function.contains("matmul") => {
            product(out).saturating_mul(input.last().map_or(1, |n| *n as u64))
        }
        op => {
            let places = match op {
                Op::Conv2DTranspose(_) => positions(input),
                Op::SeparableConv2D(_) => positions(input).max(positions(out)),
                _ => positions(out),
            };
            // Kernels; what has one dimension is added or multiplied once.
            let kernels = op.layer().weights().into_iter().filter(|(_, w)| w.shape().len() > 1);
            let weights = kernels.map(|(_, w)| w.data().len() as u64).sum::<u64>();
            places.saturating_mul(weights).saturating_add(product(out))
        }
    }
}

/// Runs one batch through a graph in f32 and returns its outputs.
///
/// `weights` are per node, in the order of [`Layer::weights`](crate::ops::Layer::weights).
pub fn run(
    graph: &Graph,
    weights: &[Vec<Tensor>],
    inputs: Vec<Tensor>,
    points: &mut dyn Points,
) -> Result<Vec<Tensor>, Error> {
    let samples = inputs.first().and_then(|x| x.shape().first().copied()).unwrap_or(1);
    needs(graph).check(samples)?;
    let mut left = graph.uses();
    let mut values: Vec<Option<Tensor>> = vec![None; graph.nodes.len()];
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        check_input(graph.node(*id), &tensor)?;
        values[id.0] = Some(tensor);
    }
    let padded = paddings(graph, points, &left);
    for id in graph.ids() {
        let node = graph.node(id);
        let own = own_inputs(node, id, &values, points)?;
        let mut y = match (&node.op, &node.inputs[..]) {
            _ if own.is_some() => {
                dtype::eval(&node.op, node.dtype, &own.iter().flatten().collect::<Vec<_>>(), &weights[id.0])
            }
            (Op::ZeroPadding2D(_), [input]) if padded[id.0].is_some() => {
                let x = if left[input.0] == 1 { values[input.0].take() } else { values[input.0].clone() };
                x.ok_or_else(|| missing(&node.name))?
            }
            (op, [input]) if padded[input.0].is_some() => {
                let x = values[input.0].as_ref().ok_or_else(|| missing(&node.name))?;
                let (w, window) = (weights[id.0].iter().collect::<Vec<_>>(), padded[input.0].unwrap_or(Window::POINT));
                match op {
                    Op::Conv2D(conv) => conv.over(x, &w, &window),
                    Op::DepthwiseConv2D(conv) => conv.over(x, &w, &window),
                    op => compute(op, &[x], &weights[id.0]),
                }
            }
            (Op::Input(_), _) => match values[id.0].take() {
                Some(mut tensor) => {
                    node.dtype.cast(&mut tensor);
                    tensor
                }
                None => return Err(Error::InputShape(format!("input `{}` has no data", node.name))),
            },
            (op, [input]) if left[input.0] == 1 => match values[input.0].take().map(|x| op.layer().reuse(x)) {
                Some(Ok(y)) => y,
                Some(Err(x)) => {
                    let y = compute(op, &[&x], &weights[id.0]);
                    values[input.0] = Some(x);
                    y
                }
                None => return Err(missing(&node.name)),
            },
            (op, inputs) => {
                let x: Option<Vec<&Tensor>> = inputs.iter().map(|i| values[i.0].as_ref()).collect();
                compute(op, &x.ok_or_else(|| missing(&node.name))?, &weights[id.0])
            }
        };
        points.apply(Point::PreActivation(id), &mut y)?;
        dtype::activate(&node.op, node.dtype, &mut y);
        points.apply(Point::PostActivation(id), &mut y)?;
        points.apply(Point::Output(id), &mut y)?;
        points.done(id, &y);
        values[id.0] = Some(y);
        for input in &node.inputs {
            left[input.0] -= 1;
            if left[input.0] == 0 {
                values[input.0].take().into_iter().for_each(Tensor::recycle);
            }
        }
    }
    // What is left fits the last layers, not the first of the next batch.
    Tensor::release_recycled();
    graph.outputs.iter().map(|id| values[id.0].clone().ok_or_else(|| missing(&graph.node(*id).name))).collect()
}

/// The samples of a batch that has a tensor for each input of the model.
///
/// Errors: tensors of other shapes or of different numbers of samples; those of [`Run::check`](budget::Run::check).
fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<usize, Error> {
    let n = inputs.first().and_then(|x| x.shape().first().copied()).unwrap_or(1);
    needs(graph).check(n)?;
    for (k, id) in graph.inputs.iter().enumerate() {
        let node = graph.node(*id);
        let Some(x) = inputs.get(k) else {
            return Err(Error::InputShape(format!("input `{}` has no data", node.name)));
        };
        check_input(node, x)?;
        if x.shape().first() != Some(&n) {
            let (name, seen) = (&node.name, x.shape());
            return Err(Error::InputShape(format!("input `{name}` has the data {seen:?}, {n} samples are expected")));
        }
    }
    Ok(n)
}

/// Fails unless a batch has an input's shape.
fn check_input(node: &Node, batch: &Tensor) -> Result<(), Error> {
    let (name, shape, seen) = (&node.name, &node.shape, batch.shape());
    if seen.get(1..) == Some(shape.as_slice()) {
        return Ok(());
    }
    Err(Error::InputShape(format!("input `{name}` has shape {shape:?} and the data {seen:?}")))
}

/// What a layer reads, where that isn't what others read: rounded to the layer's type, or changed by points.
pub(crate) fn own_inputs(
    node: &Node,
    id: NodeId,
    values: &[Option<Tensor>],
    points: &mut dyn Points,
) -> Result<Option<Vec<Tensor>>, Error> {
    if matches!(node.op, Op::Input(_)) || !(node.dtype.is_half() || points.reads(id)) {
        return Ok(None);
    }
    let read = |(k, input): (usize, &NodeId)| {
        let mut x = values[input.0].clone().ok_or_else(|| missing(&node.name))?;
        node.dtype.cast(&mut x);
        if points.reads(id) {
            points.apply(Point::Input(id, k), &mut x)?;
        }
        Ok(x)
    };
    node.inputs.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
}

/// The window of the convolution behind each padding that nothing else reads, with that padding in it: rows and columns
/// of zeros then need no memory. Skipped taps and taps on zeros add up to the same sum.
fn paddings(graph: &Graph, points: &dyn Points, uses: &[usize]) -> Vec<Option<Window>> {
    let mut found = vec![None; graph.nodes.len()];
    let own = |id: NodeId| graph.node(id).dtype.is_half() || points.reads(id);
    for id in graph.ids() {
        let node = graph.node(id);
        let [input] = node.inputs[..] else { continue };
        if own(id) || own(input) {
            continue;
        }
        let Op::ZeroPadding2D(pad) = &graph.node(input).op else { continue };
        let shape = &graph.node(input).shape;
        let window = match &node.op {
            Op::Conv2D(c) => c.window(shape),
            Op::DepthwiseConv2D(c) => c.window(shape),
            _ => continue,
        };
        let more = |a: u16, b: usize| u16::try_from(usize::from(a) + b).ok();
        let sums = |w: &Window| {
            let before = [more(w.pad_before[0], pad.rows[0])?, more(w.pad_before[1], pad.columns[0])?];
            Some((before, [more(w.pad_after[0], pad.rows[1])?, more(w.pad_after[1], pad.columns[1])?]))
        };
        if let Ok(window) = window
            && uses[input.0] == 1
            && !points.wants(input)
            && let Some((pad_before, pad_after)) = sums(&window)
        {
            found[input.0] = Some(Window { pad_before, pad_after, ..window });
        }
    }
    found
}

fn compute(op: &Op, inputs: &[&Tensor], weights: &[Tensor]) -> Tensor {
    op.layer().eval(inputs, &weights.iter().collect::<Vec<_>>())
}

/// A verified graph computes every tensor before it is read, so this names a bug, not a bad model.
pub(crate) fn missing(layer: &str) -> Error {
    Error::Run(format!("layer `{layer}`: an input has not been computed"))
}

/// Runs a float graph on one batch. A caller with several batches makes a [`FloatEngine`] once.
pub fn run_float(graph: &Graph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    engine::run_once(graph, &inputs)
}
