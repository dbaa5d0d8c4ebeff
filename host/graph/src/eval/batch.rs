//! The float engine where somebody sees a whole batch of a tensor before anything behind it is computed: calibration.
//!
//! Steps are those of the engine that keeps samples apart, each for all samples of a batch before the next, and every value
//! is the one that [`run`](crate::eval::run) computes with the same points. Between steps a tensor that is a multiple of one
//! step by integers of 8 bits lies as these integers, which is a quarter of the memory; and of what is yet to be settled no more
//! than [`KEPT`] floats are kept, the samples beyond are computed again in each pass over them.
//!
//! # Invariants
//! - A layer has one point at most, and no layer is computed together with one behind its point.
//! - Tensors that are needed at the same step share no element, but for a view and what it views, which share all.

use std::ops::Range;

use rayon::prelude::*;

use crate::error::Error;
use crate::eval::engine::{Planner, SamplePoints, Step, layer};
use crate::eval::steps::{Change, Stage, Work, apply};
use crate::eval::{self, Point};
use crate::graph::{Graph, NodeId};
use shiftwise_tensor::aligned::Aligned;
use shiftwise_tensor::arena::{self, Arena, Lifetime, Rest};
use shiftwise_tensor::kernel::{Lanes, on_lanes};
use shiftwise_tensor::tensor::Tensor;

/// Floats at most, all samples together, that are kept of a tensor until it is settled what becomes of it.
const KEPT: usize = 10 << 20;

/// Goes over the values of a tensor, sample by sample in their order, as often as it is called.
pub type Pass<'p> = &'p mut dyn FnMut(&mut dyn FnMut(&[f32]));

/// Makes the integers of values.
type Encode<'a> = Box<dyn Fn(&[f32], &mut [i8]) + Send + Sync + 'a>;

/// What becomes of a tensor, once its batch has been seen.
pub enum Settled<'a> {
    /// This, of each sample.
    Change(Change<'a>),
    /// Integers, which stand for their products with a step.
    Codes(Encode<'a>, f32),
}

impl Settled<'_> {
    /// Changes the values of a sample in place.
    fn apply(&self, values: &mut [f32]) {
        match self {
            Self::Change(change) => change(values),
            Self::Codes(encode, grid) => {
                let mut codes = vec![0; values.len()];
                encode(values, &mut codes);
                on_lanes(Decode { codes: &codes, grid: *grid, floats: values });
            }
        }
    }
}

impl std::fmt::Debug for Settled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Change(_) => f.write_str("Change"),
            Self::Codes(_, step) => f.debug_tuple("Codes").field(step).finish(),
        }
    }
}

/// What sits on a network's tensors and sees each batch as a whole.
pub trait BatchPoints<'a> {
    /// Where the result of a layer is seen, and whether it is settled as [`Settled::Codes`].
    fn at(&self, id: NodeId) -> Option<(Point, bool)>;
    /// Sees a batch of so many values.
    ///
    /// Errors end the run.
    fn settle(&mut self, point: Point, values: usize, pass: Pass<'_>) -> Result<Settled<'a>, Error>;
}

/// [`BatchPoints`] as plans are made.
struct Ends<'p, 'a>(&'p dyn BatchPoints<'a>);

impl<'a> SamplePoints<'a> for Ends<'_, 'a> {
    fn change(&self, _: Point) -> Option<Change<'a>> {
        None
    }
    fn wants(&self, id: NodeId) -> bool {
        self.0.at(id).is_some()
    }
    fn ends(&self, id: NodeId) -> bool {
        self.0.at(id).is_some()
    }
}

/// Where a tensor lies between steps; ranges are those of a whole batch.
#[derive(Clone, Debug)]
enum Place {
    /// In the batch that was given, as this input of the model.
    Given(usize),
    Floats(Range<usize>),
    Codes(Range<usize>),
}

/// A step, and the point behind it with the number of stages before that.
#[derive(Debug)]
struct Seen<'a> {
    step: Step<'a>,
    point: Option<(Point, usize)>,
}

/// Memory of one thread.
#[derive(Clone, Debug)]
struct Scratch {
    /// Operands that lie as integers.
    operands: Aligned<f32>,
    result: Aligned<f32>,
}

/// A graph made ready for batches of a size.
#[derive(Debug)]
pub struct BatchEngine<'a> {
    graph: &'a Graph,
    weights: Vec<Vec<Tensor>>,
    steps: Vec<Seen<'a>>,
    /// By node: itself, or what it is a view of.
    root: Vec<usize>,
    /// By node; of views nothing.
    places: Vec<Place>,
    /// By node, of those that lie as integers: the step.
    grids: Vec<f32>,
    samples: usize,
    floats: Aligned<f32>,
    codes: Aligned<i8>,
    kept: Aligned<f32>,
    scratch: Vec<Scratch>,
}

impl<'a> BatchEngine<'a> {
    /// Packs the weights, per node in the order of [`Layer::weights`](crate::ops::Layer::weights), and plans steps and memory
    /// for batches of at most `samples`.
    ///
    /// No input of the model has a point, and none is of 16-bit floats.
    pub fn new(graph: &'a Graph, weights: Vec<Vec<Tensor>>, points: &dyn BatchPoints<'a>, samples: usize) -> Self {
        Self::keeping(graph, weights, points, samples, KEPT)
    }

    /// [`BatchEngine::new`] with another bound than [`KEPT`].
    pub(super) fn keeping(
        graph: &'a Graph,
        weights: Vec<Vec<Tensor>>,
        points: &dyn BatchPoints<'a>,
        samples: usize,
        most: usize,
    ) -> Self {
        let (steps, root) = Planner::new(graph, &weights, &Ends(points)).steps();
        let seen = |step: Step<'a>| {
            let point = points.at(step.result).map(|(point, _)| {
                let node = graph.node(step.result);
                let behind = matches!(point, Point::PreActivation(_)) && Stage::activation(node).is_some();
                (point, step.stages.len() - usize::from(behind))
            });
            Seen { step, point }
        };
        let steps: Vec<Seen<'a>> = steps.into_iter().map(seen).collect();
        // What a function makes of integers is no multiple of their step.
        let last = |s: &Seen<'_>| s.point.is_some_and(|(_, before)| before == s.step.stages.len());
        let mut coded = vec![false; root.len()];
        for s in steps.iter().filter(|s| last(s)) {
            coded[s.step.result.0] = points.at(s.step.result).is_some_and(|(_, codes)| codes);
        }
        let coded = |id: usize| coded[id];
        let (places, floats, codes) = places(graph, &steps, &root, &coded, samples);
        let size = |id: &NodeId| graph.nodes[root[id.0]].shape.iter().product::<usize>();
        let operands = |s: &Seen<'_>| s.step.inputs.iter().filter(|id| coded(root[id.0])).map(size).sum();
        let results = steps.iter().filter(|s| coded(s.step.result.0)).map(|s| size(&s.step.result));
        let kept = results.clone().map(|size| size * samples).max().unwrap_or(0).min(most);
        let scratch = Scratch {
            operands: Aligned::new(steps.iter().map(operands).max().unwrap_or(0)),
            result: Aligned::new(results.filter(|size| size * samples > most).max().unwrap_or(0)),
        };
        Self {
            graph,
            weights,
            steps,
            places,
            grids: vec![0.0; root.len()],
            root,
            samples,
            floats: Aligned::new(floats),
            codes: Aligned::new(codes),
            kept: Aligned::new(kept),
            scratch: vec![scratch; rayon::current_num_threads().max(1)],
        }
    }

    /// Takes a batch, which has a tensor for each input of the model, through all points.
    ///
    /// Errors: [`Error::InputShape`], those of [`Run::check`](crate::budget::Run::check) and those of points.
    pub fn run(&mut self, inputs: &[Tensor], points: &mut dyn BatchPoints<'a>) -> Result<(), Error> {
        let n = eval::check_inputs(self.graph, inputs)?;
        if n > self.samples {
            return Err(Error::Run(format!("{n} samples in a batch of at most {}", self.samples)));
        }
        let Self { graph, weights, steps, root, places, grids, floats, codes, kept, scratch, .. } = self;
        for Seen { step, point } in &*steps {
            let len: usize = graph.node(step.result).shape.iter().product();
            let within = |range: &Range<usize>| range.start..range.start + n * len;
            let nowhere = (&mut [][..], &mut [][..]);
            let (to_floats, to_codes, floats, codes) = match &places[step.result.0] {
                Place::Floats(range) => {
                    let (to, rest) = arena::split(floats, within(range));
                    (to, nowhere.1, rest, Rest::whole(codes))
                }
                Place::Codes(range) => {
                    let (to, rest) = arena::split(codes, within(range));
                    (nowhere.0, to, Rest::whole(floats), rest)
                }
                Place::Given(_) => continue,
            };
            let operand = |id: &NodeId| {
                // A padding that is left to a convolution is smaller here than it says.
                let own = root[id.0];
                let len: usize = graph.nodes[own].shape.iter().product();
                let within = |range: &Range<usize>| range.start..range.start + n * len;
                let values = match &places[own] {
                    Place::Given(k) => Values::Floats(inputs[*k].data()),
                    Place::Floats(range) => Values::Floats(floats.get(within(range))),
                    Place::Codes(range) => Values::Codes(codes.get(within(range)), grids[own]),
                };
                Operand { values, len }
            };
            let work = SampleWork {
                graph,
                weights: &weights[step.node.0],
                step,
                operands: step.inputs.iter().map(operand).collect(),
                len,
                before: point.map_or(step.stages.len(), |(_, before)| before),
            };
            let Some((point, before)) = *point else {
                work.all(to_floats, scratch);
                continue;
            };
            let after = &step.stages[before..];
            if !matches!(places[step.result.0], Place::Codes(_)) {
                let mut rows = Rows { work: &work, kept: to_floats, known: 0, scratch };
                let settled = points.settle(point, n * len, &mut |see| rows.pass(n, see))?;
                rows.pass_unless_known(n);
                to_floats.par_chunks_mut(len.max(1)).for_each(|row| {
                    settled.apply(row);
                    apply(after, row);
                });
            } else {
                let together = scratch.len();
                let keep = match n * len <= kept.len() {
                    true => n,
                    false => kept.len() / len.max(1) / together * together,
                };
                let mut rows = Rows { work: &work, kept: &mut kept[..keep * len], known: 0, scratch };
                let settled = points.settle(point, n * len, &mut |see| rows.pass(n, see))?;
                let Settled::Codes(encode, grid) = settled else { return Err(unplanned(graph, step)) };
                rows.encode(n, &encode, to_codes);
                grids[step.result.0] = grid;
            }
        }
        Ok(())
    }
}

/// A point that does other than it has said names a bug.
fn unplanned(graph: &Graph, step: &Step<'_>) -> Error {
    Error::Run(format!("layer `{}` was settled in another way than planned", graph.node(step.result).name))
}

/// Places of all results, and the sizes of the two arenas.
fn places(
    graph: &Graph,
    steps: &[Seen<'_>],
    root: &[usize],
    coded: &dyn Fn(usize) -> bool,
    samples: usize,
) -> (Vec<Place>, usize, usize) {
    let none = Lifetime { len: 0, first: 0, last: 0 };
    let (mut floats, mut codes) = (vec![none; root.len()], vec![none; root.len()]);
    for (number, Seen { step, .. }) in (1..).zip(steps) {
        let result = step.result.0;
        let len = samples * graph.nodes[result].shape.iter().product::<usize>();
        let own = if coded(result) { &mut codes[result] } else { &mut floats[result] };
        *own = Lifetime { len, first: number, last: number };
        for id in &step.inputs {
            (floats[root[id.0]].last, codes[root[id.0]].last) = (number, number);
        }
    }
    let (in_floats, in_codes) = (Arena::place(&floats), Arena::place(&codes));
    let place = |id: usize| match graph.inputs.iter().position(|input| input.0 == id) {
        Some(k) => Place::Given(k),
        None if coded(id) => Place::Codes(in_codes.places[id].clone()),
        None => Place::Floats(in_floats.places[id].clone()),
    };
    ((0..root.len()).map(place).collect(), in_floats.len, in_codes.len)
}

/// All samples of a tensor that a step reads.
#[derive(Clone, Copy, Debug)]
struct Operand<'x> {
    values: Values<'x>,
    /// Of one sample.
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Values<'x> {
    Floats(&'x [f32]),
    Codes(&'x [i8], f32),
}

/// What a step computes of each sample up to its point.
struct SampleWork<'x, 'a> {
    graph: &'x Graph,
    weights: &'x [Tensor],
    step: &'x Step<'a>,
    operands: Vec<Operand<'x>>,
    /// Values of one sample's result.
    len: usize,
    /// Stages before the point.
    before: usize,
}

impl SampleWork<'_, '_> {
    /// Computes a sample.
    fn one(&self, sample: usize, mut scratch: &mut [f32], y: &mut [f32]) {
        let mut x: Vec<&[f32]> = Vec::with_capacity(self.operands.len());
        for Operand { values, len } in &self.operands {
            let own = sample * len..(sample + 1) * len;
            match values {
                Values::Floats(all) => x.push(&all[own]),
                Values::Codes(all, grid) => {
                    let (floats, rest) = std::mem::take(&mut scratch).split_at_mut(*len);
                    on_lanes(Decode { codes: &all[own], grid: *grid, floats });
                    x.push(floats);
                    scratch = rest;
                }
            }
        }
        let at = |k: usize| x.get(k).copied().unwrap_or_default();
        let stages = &self.step.stages[..self.before];
        match self.step.work {
            Work::Layer => {
                layer(self.graph, self.step.node, self.weights, &at, y);
                apply(stages, y);
            }
            _ => self.step.work.run(&at, x.len(), stages, y),
        }
    }

    /// Computes all samples.
    fn all(&self, rows: &mut [f32], scratch: &mut [Scratch]) {
        let together = scratch.len();
        for (group, rows) in rows.chunks_mut((self.len * together).max(1)).enumerate() {
            let each = rows.par_chunks_mut(self.len.max(1)).zip(&mut *scratch).enumerate();
            each.for_each(|(i, (row, own))| self.one(group * together + i, &mut own.operands, row));
        }
    }
}

/// The results of a step before its point: the first samples are kept, the others computed again in each pass.
struct Rows<'r, 'x, 'a> {
    work: &'r SampleWork<'x, 'a>,
    kept: &'r mut [f32],
    /// How many samples have been computed into `kept`.
    known: usize,
    scratch: &'r mut [Scratch],
}

impl Rows<'_, '_, '_> {
    /// Shows each of the samples.
    fn pass(&mut self, samples: usize, see: &mut dyn FnMut(&[f32])) {
        let (len, together) = (self.work.len, self.scratch.len());
        let keep = self.kept.len() / len.max(1);
        let work = self.work;
        for first in (0..samples).step_by(together) {
            let count = together.min(samples - first);
            if first < keep {
                let rows = &mut self.kept[first * len..(first + count) * len];
                if first >= self.known {
                    let each = rows.par_chunks_mut(len.max(1)).zip(&mut *self.scratch).enumerate();
                    each.for_each(|(i, (row, own))| work.one(first + i, &mut own.operands, row));
                    self.known = first + count;
                }
                rows.chunks(len.max(1)).for_each(&mut *see);
            } else {
                self.scratch[..count].par_iter_mut().enumerate().for_each(|(i, own)| {
                    work.one(first + i, &mut own.operands, &mut own.result[..len]);
                });
                self.scratch[..count].iter().for_each(|own| see(&own.result[..len]));
            }
        }
    }

    /// Sees to it that all samples that are kept have been computed.
    fn pass_unless_known(&mut self, samples: usize) {
        if self.known * self.work.len < self.kept.len() {
            self.pass(samples, &mut |_| ());
        }
    }

    /// Makes integers of all samples.
    fn encode(&mut self, samples: usize, encode: &Encode<'_>, codes: &mut [i8]) {
        self.pass_unless_known(samples);
        let (work, len) = (self.work, self.work.len.max(1));
        let keep = self.kept.len() / len;
        let (of_kept, others) = codes.split_at_mut(self.kept.len());
        of_kept.par_chunks_mut(len).zip(self.kept.par_chunks(len)).for_each(|(to, row)| encode(row, to));
        let together = self.scratch.len();
        for (group, codes) in others.chunks_mut(len * together).enumerate() {
            codes.par_chunks_mut(len).zip(&mut *self.scratch).enumerate().for_each(|(i, (to, own))| {
                let row = &mut own.result[..len];
                work.one(keep + group * together + i, &mut own.operands, row);
                encode(row, to);
            });
        }
    }
}

/// What integers stand for.
struct Decode<'x> {
    codes: &'x [i8],
    grid: f32,
    floats: &'x mut [f32],
}

impl Lanes for Decode<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        self.floats.iter_mut().zip(self.codes).for_each(|(x, k)| *x = f32::from(*k) * self.grid);
    }
}
