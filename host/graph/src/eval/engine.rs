//! The float engine where samples are apart: a graph made ready once, then computed sample by sample.
//!
//! Every value is the one that [`run`](crate::eval::run) computes with the same points: each layer's own order of operations,
//! whatever is computed together. Convolutions have their kernels packed and take what follows them, up to a ReLU, while
//! their sums are in the first-level cache; tensors lie in one arena, which each thread has once. A layer without a step of
//! its own is evaluated as a batch of one.
//!
//! # Invariants
//! - Tensors that are needed at the same step share no element, but for a view and what it views, which share all.
//! - Layers are computed together only if nothing else reads what is between them.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::dtype;
use crate::error::Error;
pub use crate::eval::steps::Change;
use crate::eval::steps::{Stage, Work, apply};
use crate::eval::{self, Point, Points, missing};
use crate::graph::{Graph, Node, NodeId};
use crate::ops::{ActivationFn, Op};
use shiftwise_core::shape::Window;
use shiftwise_tensor::aligned::Aligned;
use shiftwise_tensor::arena::{self, Arena, Lifetime};
use shiftwise_tensor::tensor::Tensor;

/// Samples at most that take each step together.
const TOGETHER: usize = 8;

/// What sits on a network's tensors and does to each sample the same, whatever came before.
///
/// No point changes what one layer reads and others don't ([`Point::Input`]): [`run`](crate::eval::run) is for such.
pub trait SamplePoints<'a> {
    /// What changes one sample's values at a point, if anything does.
    fn change(&self, point: Point) -> Option<Change<'a>>;
    /// [`Points::wants`].
    fn wants(&self, id: NodeId) -> bool;
    /// Whether no layer is computed together with those behind it, because somebody looks at its result first.
    fn ends(&self, id: NodeId) -> bool {
        let _ = id;
        false
    }
}

/// Nothing sits anywhere.
impl<'a> SamplePoints<'a> for () {
    fn change(&self, _: Point) -> Option<Change<'a>> {
        None
    }
    fn wants(&self, _: NodeId) -> bool {
        false
    }
}

/// [`Points::wants`] of [`SamplePoints`].
struct Wants<'p, 'a>(&'p dyn SamplePoints<'a>);

impl Points for Wants<'_, '_> {
    fn wants(&self, id: NodeId) -> bool {
        self.0.wants(id)
    }
}

/// A float graph made ready.
#[derive(Debug)]
pub struct FloatEngine<'a> {
    graph: &'a Graph,
    weights: Vec<Vec<Tensor>>,
    /// What becomes of each input.
    inputs: Vec<Vec<Stage<'a>>>,
    steps: Vec<Step<'a>>,
    /// Where the result of each node lies, if it lies anywhere.
    places: Vec<Range<usize>>,
    /// Elements of the arena.
    len: usize,
    /// Arenas that no sample uses now: at most as many as were computed at the same time.
    spare: Mutex<Vec<Aligned<f32>>>,
}

/// Work of one or more layers at once.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) work: Work,
    /// What becomes of every element afterwards.
    pub(super) stages: Vec<Stage<'a>>,
    pub(super) inputs: Vec<NodeId>,
    /// The layer that `work` is of.
    pub(super) node: NodeId,
    /// The last of the layers.
    pub(super) result: NodeId,
}

impl<'a> FloatEngine<'a> {
    /// Packs the weights and plans steps and memory.
    pub fn new(graph: &'a Graph) -> Self {
        let own = |node: &Node| node.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect();
        Self::with(graph, graph.nodes.iter().map(own).collect(), &())
    }

    /// [`FloatEngine::new`] with other weights, per node in the order of [`Layer::weights`](crate::ops::Layer::weights), and
    /// with points.
    pub fn with(graph: &'a Graph, weights: Vec<Vec<Tensor>>, points: &dyn SamplePoints<'a>) -> Self {
        let planner = Planner::new(graph, &weights, points);
        let (steps, root) = planner.steps();
        let inputs = graph.inputs.iter().map(|id| planner.finish(graph.node(*id), *id)).collect();
        let (places, len) = places(graph, &steps, &root);
        Self { graph, weights, inputs, steps, places, len, spare: Mutex::default() }
    }

    /// Runs samples in parallel; `inputs` is a batch per model input. Returns the outputs as [`eval::run`] does.
    ///
    /// Errors: [`Error::InputShape`], and those of [`Run::check`](crate::budget::Run::check).
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let n = eval::check_inputs(self.graph, inputs)?;
        let shape = |id: &NodeId| [&[n], self.graph.node(*id).shape.as_slice()].concat();
        let mut outputs: Vec<Tensor> = self.graph.outputs.iter().map(|id| Tensor::zeros(&shape(id))).collect();
        let mut samples: Vec<Vec<&mut [f32]>> = (0..n).map(|_| Vec::with_capacity(outputs.len())).collect();
        for output in &mut outputs {
            let per = output.data().len() / n.max(1);
            let mut rest = output.data_mut();
            for sample in &mut samples {
                let (own, others) = rest.split_at_mut(per);
                sample.push(own);
                rest = others;
            }
        }
        let together = self.together(n);
        let groups: Vec<(usize, Vec<Vec<&mut [f32]>>)> = {
            let mut samples = samples.into_iter();
            let group = |first: usize| (first, samples.by_ref().take(together).collect());
            (0..n).step_by(together).map(group).collect()
        };
        groups.into_par_iter().try_for_each(|(first, rows)| self.samples(inputs, first, rows))?;
        Ok(outputs)
    }

    /// Samples that take each step together: where the weights are larger than a sample's arena, they are then read once for
    /// all of these, and no thread goes without.
    fn together(&self, samples: usize) -> usize {
        let weights: usize = self.weights.iter().flatten().map(|w| w.data().len()).sum();
        let share = samples.div_ceil(rayon::current_num_threads().max(1));
        (weights / self.len.max(1)).clamp(1, TOGETHER).min(share).max(1)
    }

    /// Computes neighbouring samples from `first` on, each step for all of them.
    fn samples(&self, inputs: &[Tensor], first: usize, rows: Vec<Vec<&mut [f32]>>) -> Result<(), Error> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let arena = |_: &_| {
            let own = spare().pop();
            own.unwrap_or_else(|| Aligned::new(self.len))
        };
        let mut memories: Vec<Aligned<f32>> = rows.iter().map(arena).collect();
        for (index, memory) in (first..).zip(&mut memories) {
            self.read(inputs, index, memory)?;
        }
        for step in &self.steps {
            memories.iter_mut().for_each(|memory| self.step(step, memory));
        }
        for (memory, rows) in memories.iter().zip(rows) {
            for (id, row) in self.graph.outputs.iter().zip(rows) {
                row.copy_from_slice(&memory[self.places[id.0].clone()]);
            }
        }
        spare().extend(memories);
        Ok(())
    }

    /// Puts a sample's inputs into memory.
    fn read(&self, inputs: &[Tensor], index: usize, memory: &mut [f32]) -> Result<(), Error> {
        for ((id, x), stages) in self.graph.inputs.iter().zip(inputs).zip(&self.inputs) {
            let place = &mut memory[self.places[id.0].clone()];
            let from = x.data().get(index * place.len()..).and_then(|x| x.get(..place.len()));
            place.copy_from_slice(from.ok_or_else(|| missing(&self.graph.node(*id).name))?);
            let dtype = self.graph.node(*id).dtype;
            if dtype.is_half() {
                place.iter_mut().for_each(|x| *x = dtype.round(*x));
            }
            apply(stages, place);
        }
        Ok(())
    }

    /// Computes a step of one sample.
    fn step(&self, step: &Step<'_>, memory: &mut [f32]) {
        let (y, rest) = arena::split(memory, self.places[step.result.0].clone());
        let x = |k: usize| step.inputs.get(k).map_or(&[][..], |id| rest.get(self.places[id.0].clone()));
        match step.work {
            Work::Layer => {
                layer(self.graph, step.node, &self.weights[step.node.0], &x, y);
                apply(&step.stages, y);
            }
            _ => step.work.run(&x, step.inputs.len(), &step.stages, y),
        }
    }
}

/// Evaluates a layer as a batch of one, but for its activation attribute.
pub(super) fn layer<'x>(graph: &Graph, id: NodeId, weights: &[Tensor], x: &dyn Fn(usize) -> &'x [f32], y: &mut [f32]) {
    let node = graph.node(id);
    let batch = |(k, input): (usize, &NodeId)| {
        let mut batch = Tensor::scratch(&[&[1], graph.node(*input).shape.as_slice()].concat());
        batch.data_mut().copy_from_slice(x(k));
        batch
    };
    let inputs: Vec<Tensor> = node.inputs.iter().enumerate().map(batch).collect();
    let result = dtype::eval(&node.op, node.dtype, &inputs.iter().collect::<Vec<_>>(), weights);
    y.copy_from_slice(result.data());
    // Only what came from there goes back: results of layers would pile up.
    inputs.into_iter().for_each(Tensor::recycle);
}

/// Places of all results: each is there from its step to the last that reads it, or a view of it.
fn places(graph: &Graph, steps: &[Step<'_>], root: &[usize]) -> (Vec<Range<usize>>, usize) {
    let mut lives = vec![Lifetime { len: 0, first: 0, last: 0 }; graph.nodes.len()];
    let size = |id: usize| graph.nodes[id].shape.iter().product();
    for id in &graph.inputs {
        lives[id.0].len = size(id.0);
    }
    for (number, step) in (1..).zip(steps) {
        let result = root[step.result.0];
        lives[result] = Lifetime { len: size(result), first: number, last: number };
        step.inputs.iter().for_each(|id| lives[root[id.0]].last = number);
    }
    for id in &graph.outputs {
        lives[root[id.0]].last = usize::MAX;
    }
    let arena = Arena::place(&lives);
    (root.iter().map(|root| arena.places[*root].clone()).collect(), arena.len)
}

/// What planning looks at.
pub(super) struct Planner<'p, 'a> {
    graph: &'a Graph,
    weights: &'p [Vec<Tensor>],
    points: &'p dyn SamplePoints<'a>,
    /// The only reader of each node, if that reads nothing else.
    reader: Vec<Option<NodeId>>,
    /// The window of the convolution behind each padding that is left to it.
    padded: Vec<Option<Window>>,
}

impl<'p, 'a> Planner<'p, 'a> {
    pub(super) fn new(graph: &'a Graph, weights: &'p [Vec<Tensor>], points: &'p dyn SamplePoints<'a>) -> Self {
        let uses = graph.uses();
        let mut reader = vec![None; graph.nodes.len()];
        for id in graph.ids() {
            if let [input] = graph.node(id).inputs[..]
                && uses[input.0] == 1
            {
                reader[input.0] = Some(id);
            }
        }
        let padded = eval::paddings(graph, &Wants(points), &uses);
        Self { graph, weights, points, reader, padded }
    }

    /// All steps, and the node whose memory each node's result has: its own, or what it views.
    pub(super) fn steps(&self) -> (Vec<Step<'a>>, Vec<usize>) {
        let mut root: Vec<usize> = (0..self.graph.nodes.len()).collect();
        let mut taken = vec![false; root.len()];
        let mut steps = Vec::new();
        for id in self.graph.ids() {
            let node = self.graph.node(id);
            if taken[id.0] || matches!(node.op, Op::Input(_)) {
                continue;
            }
            if let [input] = node.inputs[..]
                && (self.padded[id.0].is_some() || self.is_view(node, id))
            {
                root[id.0] = root[input.0];
                continue;
            }
            let (work, mut stages) = self.work(node, id);
            let mut result = id;
            while let Some(next) = self.reader[result.0].filter(|_| !self.points.ends(result))
                && self.padded[next.0].is_none()
                && let Some(more) = self.stages(self.graph.node(next), next)
            {
                taken[next.0] = true;
                stages.extend(more);
                result = next;
            }
            steps.push(Step { work, stages, inputs: node.inputs.clone(), node: id, result });
        }
        (steps, root)
    }

    /// Whether a layer gives its input another shape, or nothing at all.
    fn is_view(&self, node: &'a Node, id: NodeId) -> bool {
        let moves = matches!(node.op, Op::Flatten(_) | Op::Reshape(_) | Op::Dropout(_) | Op::Activation(_));
        let plain = moves && !node.dtype.is_half() && node.op.layer().activation() == ActivationFn::Linear;
        plain && !self.points.ends(id) && self.finish(node, id).is_empty()
    }

    /// What a layer does, and what becomes of each element of that.
    fn work(&self, node: &'a Node, id: NodeId) -> (Work, Vec<Stage<'a>>) {
        if let Some(stages) = self.stages(node, id) {
            return (Work::Copy, stages);
        }
        let inputs: Vec<&Node> = node.inputs.iter().map(|id| self.graph.node(*id)).collect();
        let window = match node.inputs[..] {
            [input] => self.padded[input.0],
            _ => None,
        };
        // A padding that is left to a convolution shows the convolution what the padding reads.
        let shapes = inputs.iter().map(|input| match (window, &input.inputs[..]) {
            (Some(_), [before]) => self.graph.node(*before).shape.as_slice(),
            _ => input.shape.as_slice(),
        });
        let work = Work::of(node, &shapes.collect::<Vec<_>>(), &self.weights[id.0], window);
        let work = work.filter(|_| !node.dtype.is_half()).unwrap_or(Work::Layer);
        (work, self.finish(node, id))
    }

    /// A layer that looks at one element or at one row at a time.
    fn stages(&self, node: &'a Node, id: NodeId) -> Option<Vec<Stage<'a>>> {
        let first = Stage::of(node, &self.weights[id.0]).filter(|_| !node.dtype.is_half())?;
        Some(std::iter::once(first).chain(self.finish(node, id)).collect())
    }

    /// A layer's activation attribute and its points.
    fn finish(&self, node: &'a Node, id: NodeId) -> Vec<Stage<'a>> {
        let change = |point: Point| self.points.change(point).map(Stage::Change);
        let before = change(Point::PreActivation(id)).into_iter().chain(Stage::activation(node));
        before.chain(change(Point::PostActivation(id))).chain(change(Point::Output(id))).collect()
    }
}

/// [`FloatEngine`] of a network that is run once.
pub(super) fn run_once(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
    FloatEngine::new(graph).run(inputs)
}
