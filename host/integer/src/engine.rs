//! The integer engine: the integer form computed exactly, one sample at a time, on fast int8 kernels.
//!
//! This is the `dpu` numerics. It knows no tiles, banks or instructions; what it shares with the compiled programs is
//! the integer form and the scalar functions of [`shiftwise_core::arith`]. A network is planned once: see `plan`. Samples
//! then run through memory that is there already, and each thread keeps its own.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

mod conv;
mod elementwise;
mod finish;
mod floats;
mod moves;
mod plan;
mod pool;
mod scaled;

use self::conv::{Prepared, Scratch};
use self::finish::Finish;
use self::plan::{Held, Memory, Plan, Rest, Result as Written};
use crate::graph::{IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};
use shiftwise_core::arith::requantize_i8;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::error::Error;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tensor::values::Values;

/// An integer graph made ready: kernels packed, biases aligned, tensors placed.
#[derive(Debug)]
pub struct Engine<'a> {
    graph: &'a IntGraph,
    convs: Vec<Option<Prepared>>,
    scaled: Vec<Option<scaled::Prepared>>,
    plan: Plan,
    /// Memory that no sample uses now: at most one for each thread that has run one.
    spare: Mutex<Vec<Memory>>,
}

impl<'a> Engine<'a> {
    /// Packs the weights and plans the memory.
    pub fn new(graph: &'a IntGraph) -> Self {
        let prepare =
            |op: &IntOp| op.kind.conv().map(|(c, kind)| Prepared::new(c, kind, graph.tensors[op.output.0].kind));
        let convs = graph.ops.iter().map(prepare).collect();
        let scaled = |op: &IntOp| match (&op.kind, op.inputs.first()) {
            (IntOpKind::Scaled(own), Some(from)) => scaled::Prepared::new(own, graph.tensors[from.0].kind),
            _ => None,
        };
        let scaled = graph.ops.iter().map(scaled).collect();
        Self { graph, convs, scaled, plan: Plan::new(graph), spare: Mutex::default() }
    }

    /// One sample's float inputs as the integers (or floats) that the graph reads.
    ///
    /// Errors: an input of another size.
    pub fn quantize_inputs(&self, inputs: &[&[f32]]) -> Result<Vec<Values>, Error> {
        let quantize = |(ix, x): (&TensorIx, &&[f32])| {
            self.check_input(*ix, x)?;
            Ok(match self.graph.tensors[ix.0].kind {
                Kind::Scaled(scale) => scaled::value(x, scale),
                Kind::Fixed(pos) => {
                    let mut q = vec![0; x.len()];
                    floats::quantize(x, pos, &mut q);
                    Values::Int8(q)
                }
                Kind::Float => Values::Float(x.to_vec()),
            })
        };
        self.graph.inputs.iter().zip(inputs).map(quantize).collect()
    }

    fn check_input(&self, ix: TensorIx, x: &[f32]) -> Result<(), Error> {
        let t = &self.graph.tensors[ix.0];
        if x.len() == t.shape.iter().product::<usize>() {
            return Ok(());
        }
        let (name, shape, values) = (&t.name, &t.shape, x.len());
        Err(Error::InputShape(format!("input `{name}` has shape {shape:?} and the data {values} values")))
    }

    /// Sample `index` of a batch per model input, as the integers (or floats) that the graph reads.
    pub fn sample(&self, inputs: &[Tensor], index: usize) -> Result<Vec<Values>, Error> {
        self.quantize_inputs(&inputs.iter().map(|t| part(t, index)).collect::<Vec<_>>())
    }

    /// Computes one sample; `keep` says which tensors to return, besides the outputs and those that nothing reads.
    pub fn run(&self, inputs: Vec<Values>, keep: impl Fn(TensorIx) -> bool) -> Vec<Option<Values>> {
        let mut values: Vec<Option<Values>> = vec![None; self.graph.tensors.len()];
        let wanted = |ix: TensorIx| keep(ix) || self.graph.outputs.contains(&ix) || self.plan.is_unread(ix);
        self.in_memory(|memory| {
            for (ix, value) in self.graph.inputs.iter().zip(&inputs) {
                let kind = self.graph.tensors[ix.0].kind;
                // No tensor of a graph has integers of 32 bits; what a caller has as such is narrowed.
                let narrow: Vec<i16>;
                let held = match value {
                    Values::Int8(q) => Held::Fixed(q),
                    Values::Int16(q) => Held::Wide(q),
                    Values::Int32(q) => {
                        narrow = q.iter().map(|q| (*q).clamp(i16::MIN.into(), i16::MAX.into()) as i16).collect();
                        Held::Wide(&narrow)
                    }
                    Values::Float(x) => Held::Float(x),
                };
                floats::convert((held, kind), memory.split(self.plan.place(*ix), kind).0, kind);
            }
            self.steps(memory, |ix, held| {
                if wanted(ix) {
                    values[ix.0] = Some(held.to_value());
                }
            });
        });
        for (ix, value) in self.graph.inputs.iter().zip(inputs) {
            if wanted(*ix) {
                values[ix.0] = Some(value);
            }
        }
        values
    }

    /// Runs samples in parallel; `inputs` is a batch per model input. Returns every sample's outputs as floats, one
    /// tensor per model output.
    pub fn run_batch(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        self.run_batch_seeing(inputs, |_| false, |_| {})
    }

    /// [`Self::run_batch`] that shows `see` every sample's tensors, of which `keep` says which are needed.
    pub fn run_batch_seeing(
        &self,
        inputs: &[Tensor],
        keep: impl Fn(TensorIx) -> bool + Sync,
        see: impl Fn(&[Option<Values>]) + Sync,
    ) -> Result<Vec<Tensor>, Error> {
        let n = inputs.first().map_or(0, |t| t.shape()[0]);
        let kept: Vec<bool> = (0..self.graph.tensors.len()).map(|i| keep(TensorIx(i))).collect();
        let shape = |ix: &TensorIx| [&[n], self.graph.tensors[ix.0].shape.as_slice()].concat();
        let mut outputs: Vec<Tensor> = self.graph.outputs.iter().map(|ix| Tensor::zeros(&shape(ix))).collect();
        samples(&mut outputs, n).into_par_iter().enumerate().try_for_each(|(index, mut rows)| {
            self.in_memory(|memory| {
                self.read_sample(inputs, index, memory)?;
                let mut values: Vec<Option<Values>> = vec![None; kept.len()];
                let mut seen = |ix: TensorIx, held: Held<'_>| {
                    if kept[ix.0] {
                        values[ix.0] = Some(held.to_value());
                    }
                    for (row, _) in rows.iter_mut().zip(&self.graph.outputs).filter(|(_, output)| **output == ix) {
                        floats::convert((held, self.graph.tensors[ix.0].kind), Written::Float(row), Kind::Float);
                    }
                };
                for ix in &self.graph.inputs {
                    seen(*ix, memory.read(self.plan.place(*ix), self.graph.tensors[ix.0].kind));
                }
                self.steps(memory, seen);
                see(&values);
                Ok(())
            })
        })?;
        Ok(outputs)
    }

    /// Puts a sample's inputs into memory.
    fn read_sample(&self, inputs: &[Tensor], index: usize, memory: &mut Memory) -> Result<(), Error> {
        for (ix, x) in self.graph.inputs.iter().zip(inputs.iter().map(|t| part(t, index))) {
            self.check_input(*ix, x)?;
            let kind = self.graph.tensors[ix.0].kind;
            floats::convert((Held::Float(x), Kind::Float), memory.split(self.plan.place(*ix), kind).0, kind);
        }
        Ok(())
    }

    /// Lends memory that no other sample uses.
    fn in_memory<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> T {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let own = spare().pop();
        let mut memory = own.unwrap_or_else(|| Memory::new(&self.plan));
        let result = work(&mut memory);
        spare().push(memory);
        result
    }

    /// Computes all ops and shows each result.
    fn steps(&self, memory: &mut Memory, mut done: impl FnMut(TensorIx, Held<'_>)) {
        for ((op, conv), scaled) in self.graph.ops.iter().zip(&self.convs).zip(&self.scaled) {
            let (at, kind) = (self.plan.place(op.output), self.graph.tensors[op.output.0].kind);
            if !matches!(op.kind, IntOpKind::View) {
                let (result, rest, scratch) = memory.split(at.clone(), kind);
                let step = Step { graph: self.graph, plan: &self.plan, op, rest };
                match (result, conv) {
                    (result, _) if step.is_scaled() => step.scaled_result(result, scaled.as_ref()),
                    (Written::Wide(_), _) => {}
                    (Written::Fixed(y), Some(conv)) => conv.run(step.fixed(0), y, scratch),
                    (Written::Fixed(y), None) => step.fixed_result(y, scratch),
                    (Written::Float(y), _) => step.float_result(y, scratch),
                }
            }
            done(op.output, memory.read(at, kind));
        }
    }
}

/// Sample `index` of a batch; nothing where there is none.
fn part(batch: &Tensor, index: usize) -> &[f32] {
    let per = batch.data().len() / batch.shape().first().copied().unwrap_or(1).max(1);
    batch.data().get(index * per..(index + 1) * per).unwrap_or(&[])
}

/// The parts of `n` samples in each batch.
fn samples(batches: &mut [Tensor], n: usize) -> Vec<Vec<&mut [f32]>> {
    let mut all: Vec<Vec<&mut [f32]>> = (0..n).map(|_| Vec::with_capacity(batches.len())).collect();
    for batch in batches {
        let per = batch.data().len() / n.max(1);
        let mut rest = batch.data_mut();
        for sample in &mut all {
            let (own, others) = rest.split_at_mut(per);
            sample.push(own);
            rest = others;
        }
    }
    all
}

/// An op with what it reads.
struct Step<'a> {
    graph: &'a IntGraph,
    plan: &'a Plan,
    op: &'a IntOp,
    rest: Rest<'a>,
}

impl<'a> Step<'a> {
    fn operand(&self, k: usize) -> Held<'a> {
        let Some(ix) = self.op.inputs.get(k) else { return Held::Fixed(&[]) };
        self.rest.read(self.plan.place(*ix), self.graph.tensors[ix.0].kind)
    }

    /// The integers of an operand.
    fn fixed(&self, k: usize) -> &'a [i8] {
        match self.operand(k) {
            Held::Fixed(q) => q,
            Held::Wide(_) | Held::Float(_) => &[],
        }
    }

    /// Whether an op requantizes by multipliers, or moves integers that are so made.
    fn is_scaled(&self) -> bool {
        let moves =
            matches!(self.op.kind, IntOpKind::Pad { .. } | IntOpKind::Permute { .. } | IntOpKind::UpSample { .. });
        let made = matches!(self.graph.tensors[self.op.output.0].kind, Kind::Scaled(_));
        let quantizes = matches!(self.op.kind, IntOpKind::Quantize);
        matches!(self.op.kind, IntOpKind::Scaled(_)) || made && (moves || quantizes)
    }

    /// Computes such an op.
    fn scaled_result(&self, y: Written<'_>, prepared: Option<&scaled::Prepared>) {
        let out = &self.graph.tensors[self.op.output.0];
        let x: Vec<(Held<'_>, Kind, &[usize])> =
            (0..self.op.inputs.len()).map(|k| (self.operand(k), self.kind(k), self.shape(k))).collect();
        match &self.op.kind {
            IntOpKind::Scaled(own) => scaled::compute(own, prepared, &x, out, y),
            IntOpKind::Quantize => floats::convert((self.operand(0), self.kind(0)), y, out.kind),
            kind => scaled::moved(kind, &x, out, y),
        }
    }

    fn shape(&self, k: usize) -> &'a [usize] {
        self.op.inputs.get(k).map_or(&[], |ix| &self.graph.tensors[ix.0].shape)
    }

    fn kind(&self, k: usize) -> Kind {
        self.op.inputs.get(k).map_or(Kind::Float, |ix| self.graph.tensors[ix.0].kind)
    }

    /// Computes an op whose result is integers, but for convolutions.
    fn fixed_result(&self, y: &mut [i8], scratch: &mut Scratch) {
        let out = &self.graph.tensors[self.op.output.0];
        let all = || 0..self.op.inputs.len();
        match &self.op.kind {
            IntOpKind::MaxPool { window, shift, act } => {
                let finish = Finish::new(*shift, *act, out.kind);
                pool::max(self.fixed(0), image(self.shape(0)), window, finish, y, &mut scratch.sums);
            }
            IntOpKind::AveragePool { window, m, shift, act } => {
                let finish = Finish::new(*shift, *act, out.kind);
                pool::average(self.fixed(0), image(self.shape(0)), window, (*m, finish), y, &mut scratch.sums);
            }
            IntOpKind::Add { shift_read, shift_write, act } => {
                let operands: Vec<_> =
                    shift_read.iter().enumerate().map(|(k, shift)| (self.fixed(k), *shift)).collect();
                elementwise::add(&operands, Finish::new(*shift_write, *act, out.kind), y);
            }
            IntOpKind::Multiply { shift, act } => {
                let (a, b) = ((self.fixed(0), self.shape(0)), (self.fixed(1), self.shape(1)));
                elementwise::multiply(a, b, &out.shape, Finish::new(*shift, *act, out.kind), y);
            }
            IntOpKind::Requantize { shift, act } => {
                elementwise::add(&[(self.fixed(0), 0)], Finish::new(*shift, *act, out.kind), y);
            }
            IntOpKind::HardSigmoid { shift } => {
                let pos = if let Kind::Fixed(pos) = self.kind(0) { pos } else { FixPos(0) };
                elementwise::hard_sigmoid(self.fixed(0), pos, *shift, y);
            }
            IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => {
                let sloped = |x: i8, alpha: i8| match x {
                    0.. => requantize_i8(x.into(), *shift_positive),
                    _ => requantize_i8(i32::from(x) * i32::from(alpha), *shift_negative),
                };
                elementwise::zip((self.fixed(0), self.shape(0)), (alpha, alpha_shape), &out.shape, y, sloped);
            }
            IntOpKind::Concat { axis, shifts } => {
                let operands: Vec<_> = all().zip(shifts).map(|(k, s)| (self.fixed(k), self.shape(k), *s)).collect();
                moves::concat(&operands, *axis, &out.shape, y);
            }
            IntOpKind::UpSample { factor, shift } => {
                moves::upsample(self.fixed(0), image(self.shape(0)), *factor, *shift, y);
            }
            IntOpKind::Pad { before, .. } => {
                moves::pad(self.fixed(0), image(self.shape(0)), *before, image(&out.shape), y);
            }
            IntOpKind::Permute { dims } => moves::permute(self.fixed(0), self.shape(0), dims, y),
            IntOpKind::Quantize => floats::convert((self.operand(0), self.kind(0)), Written::Fixed(y), out.kind),
            // Convolutions and what has multipliers have run, a view needs no work, and the others make floats.
            IntOpKind::Scaled(_)
            | IntOpKind::Conv(_)
            | IntOpKind::Depthwise(_)
            | IntOpKind::ConvTranspose(_)
            | IntOpKind::View
            | IntOpKind::Softmax
            | IntOpKind::Float { .. }
            | IntOpKind::FakeQuantize(_)
            | IntOpKind::Dequantize => {}
        }
    }

    /// Computes an op whose result is floats.
    fn float_result(&self, y: &mut [f32], scratch: &mut Scratch) {
        let batched = |k: usize| floats::tensor((self.operand(k), self.kind(k)), self.shape(k));
        match &self.op.kind {
            IntOpKind::Softmax => floats::softmax(
                (self.operand(0), self.kind(0)),
                &self.graph.tensors[self.op.output.0].shape,
                y,
                &mut scratch.floats,
            ),
            IntOpKind::FakeQuantize(q) => {
                let mut tensor = batched(0);
                q.scheme().fake_quantize(&mut tensor);
                floats::copy(tensor.data(), y);
            }
            IntOpKind::Float { op, weights, dtype, .. } => {
                let inputs: Vec<Tensor> = (0..self.op.inputs.len()).map(batched).collect();
                floats::copy(floats::layer(op, *dtype, &inputs, weights).data(), y);
            }
            IntOpKind::Dequantize => {
                floats::convert((self.operand(0), self.kind(0)), Written::Float(y), Kind::Float);
            }
            // A view needs no work, and the others make integers.
            IntOpKind::View
            | IntOpKind::Scaled(_)
            | IntOpKind::Conv(_)
            | IntOpKind::Depthwise(_)
            | IntOpKind::ConvTranspose(_)
            | IntOpKind::MaxPool { .. }
            | IntOpKind::AveragePool { .. }
            | IntOpKind::Add { .. }
            | IntOpKind::Multiply { .. }
            | IntOpKind::Concat { .. }
            | IntOpKind::UpSample { .. }
            | IntOpKind::HardSigmoid { .. }
            | IntOpKind::Pad { .. }
            | IntOpKind::PRelu { .. }
            | IntOpKind::Permute { .. }
            | IntOpKind::Requantize { .. }
            | IntOpKind::Quantize => {}
        }
    }
}
