//! The integer engine: the integer form computed exactly, one sample at a time, on fast int8 kernels.
//!
//! This is the `dpu` numerics. It knows no tiles, banks or memory plan; what it shares with the compiled programs is
//! the integer form and the scalar functions of [`shiftwise_core::arith`].

use rayon::prelude::*;

mod conv;
mod elementwise;
mod finish;
mod moves;
mod pool;
mod scaled;

use self::conv::Prepared;
use self::finish::Finish;
use self::pool::pool;
use crate::graph::{IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};
use shiftwise_core::arith::{Round, requantize_i8};
use shiftwise_core::cpu;
use shiftwise_core::fix::{self, FixPos, FixSpec};
use shiftwise_core::scale::Scale;
use shiftwise_graph::dtype;
use shiftwise_graph::error::Error;
use shiftwise_tensor::tensor::Tensor;

/// One sample's tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Integers of the tensor's position.
    Fixed(Vec<i8>),
    /// Integers of 16 bits.
    Wide(Vec<i16>),
    /// Floats.
    Float(Vec<f32>),
}

impl Value {
    /// The bytes in memory, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Fixed(q) => q.iter().map(|v| *v as u8).collect(),
            Self::Wide(q) => q.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Self::Float(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The integers of values on a grid.
    fn scaled(x: &[f32], scale: Scale) -> Self {
        let q = x.iter().map(|x| scale.quantize(*x));
        if scale.is_wide() { Self::Wide(q.collect()) } else { Self::Fixed(q.map(|q| q as i8).collect()) }
    }

    /// Real values.
    pub fn to_floats(&self, kind: Kind) -> Vec<f32> {
        match (self, kind) {
            (Self::Fixed(q), Kind::Fixed(pos)) => q.iter().map(|v| fix::dequantize((*v).into(), pos)).collect(),
            (Self::Fixed(q), Kind::Scaled(scale)) => q.iter().map(|v| scale.dequantize((*v).into())).collect(),
            (Self::Wide(q), Kind::Scaled(scale)) => q.iter().map(|v| scale.dequantize(*v)).collect(),
            (Self::Fixed(q), Kind::Float) => q.iter().map(|v| f32::from(*v)).collect(),
            (Self::Wide(q), Kind::Float | Kind::Fixed(_)) => q.iter().map(|v| f32::from(*v)).collect(),
            (Self::Float(x), _) => x.clone(),
        }
    }
}

/// An integer graph made ready: kernels packed, biases aligned.
#[derive(Debug)]
pub struct Engine<'a> {
    graph: &'a IntGraph,
    convs: Vec<Option<Prepared>>,
    scaled: Vec<Option<scaled::Prepared>>,
}

impl<'a> Engine<'a> {
    /// Packs the weights.
    pub fn new(graph: &'a IntGraph) -> Self {
        let prepare = |kind: &IntOpKind| kind.conv().map(|(c, kind)| Prepared::new(c, kind));
        let scaled = |op: &IntOp| match (&op.kind, op.inputs.first()) {
            (IntOpKind::Scaled(own), Some(from)) => scaled::Prepared::new(own, graph.tensors[from.0].kind),
            _ => None,
        };
        let convs = graph.ops.iter().map(|op| prepare(&op.kind)).collect();
        Self { graph, convs, scaled: graph.ops.iter().map(scaled).collect() }
    }

    /// One sample's float inputs as the integers (or floats) that the graph reads.
    ///
    /// Errors: an input of another size.
    pub fn quantize_inputs(&self, inputs: &[&[f32]]) -> Result<Vec<Value>, Error> {
        let quantize = |(ix, x): (&TensorIx, &&[f32])| {
            let t = &self.graph.tensors[ix.0];
            if x.len() != t.shape.iter().product::<usize>() {
                return Err(Error::InputShape(format!(
                    "input `{}` has shape {:?} and the data {} values",
                    t.name,
                    t.shape,
                    x.len()
                )));
            }
            Ok(match t.kind {
                Kind::Fixed(pos) => Value::Fixed(
                    x.iter().map(|x| fix::quantize(*x, FixSpec::int8(pos.0), Round::HalfUp) as i8).collect(),
                ),
                Kind::Scaled(scale) => Value::scaled(x, scale),
                Kind::Float => Value::Float(x.to_vec()),
            })
        };
        self.graph.inputs.iter().zip(inputs).map(quantize).collect()
    }

    /// Sample `index` of a batch per model input, as the integers (or floats) that the graph reads.
    pub fn sample(&self, inputs: &[Tensor], index: usize) -> Result<Vec<Value>, Error> {
        let part = |t: &Tensor| {
            let per = t.data().len() / t.shape().first().copied().unwrap_or(1).max(1);
            index * per..(index + 1) * per
        };
        let parts: Vec<&[f32]> = inputs.iter().map(|t| t.data().get(part(t)).unwrap_or(&[])).collect();
        self.quantize_inputs(&parts)
    }

    /// Computes one sample; `keep` says which tensors to return (the others are dropped after their last reader).
    pub fn run(&self, inputs: Vec<Value>, keep: impl Fn(TensorIx) -> bool) -> Vec<Option<Value>> {
        let graph = self.graph;
        let mut last = vec![0usize; graph.tensors.len()];
        for (i, op) in graph.ops.iter().enumerate() {
            op.inputs.iter().for_each(|x| last[x.0] = i);
        }
        let mut values: Vec<Option<Value>> = vec![None; graph.tensors.len()];
        for (ix, value) in graph.inputs.iter().zip(inputs) {
            values[ix.0] = Some(value);
        }
        for (i, op) in graph.ops.iter().enumerate() {
            let output = {
                let x: Vec<(&Value, Kind, &[usize])> = op
                    .inputs
                    .iter()
                    .filter_map(|x| {
                        let t = &graph.tensors[x.0];
                        Some((values[x.0].as_ref()?, t.kind, t.shape.as_slice()))
                    })
                    .collect();
                self.compute(i, &x)
            };
            values[op.output.0] = Some(output);
            for x in &op.inputs {
                if last[x.0] == i && !keep(*x) && !graph.outputs.contains(x) {
                    values[x.0] = None;
                }
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
        see: impl Fn(&[Option<Value>]) + Sync,
    ) -> Result<Vec<Tensor>, Error> {
        let n = inputs.first().map_or(0, |t| t.shape()[0]);
        let samples: Vec<Vec<Vec<f32>>> = (0..n)
            .into_par_iter()
            .map(|s| {
                let values = self.run(self.sample(inputs, s)?, &keep);
                see(&values);
                let floats = |ix: &TensorIx| values[ix.0].as_ref().map(|v| v.to_floats(self.graph.tensors[ix.0].kind));
                Ok(self.graph.outputs.iter().map(|ix| floats(ix).unwrap_or_default()).collect())
            })
            .collect::<Result<_, Error>>()?;
        let gather = |(k, ix): (usize, &TensorIx)| {
            let data: Vec<f32> = samples.iter().flat_map(|s| s[k].iter().copied()).collect();
            let shape = [&[n], self.graph.tensors[ix.0].shape.as_slice()].concat();
            Tensor::new(shape, data).ok_or_else(|| Error::Run("an output has another size than its shape".into()))
        };
        self.graph.outputs.iter().enumerate().map(gather).collect()
    }

    fn compute(&self, op: usize, x: &[(&Value, Kind, &[usize])]) -> Value {
        let kind = &self.graph.ops[op].kind;
        let fixed = |k: usize| match x.get(k) {
            Some((Value::Fixed(q), ..)) => q.as_slice(),
            _ => &[],
        };
        let shape = |k: usize| x.get(k).map_or(&[][..], |(_, _, shape)| shape);
        let out = &self.graph.tensors[self.graph.ops[op].output.0];
        if let IntOpKind::Scaled(own) = kind {
            return scaled::compute(own, self.scaled[op].as_ref(), x, out);
        }
        if let Some((value, Kind::Scaled(scale), shape)) = x.first()
            && let Some(moved) = scaled::moved(kind, (value, *scale, shape), out)
        {
            return moved;
        }
        if let (Some((c, kind)), Some(p)) = (kind.conv(), &self.convs[op]) {
            return Value::Fixed(p.run(c, kind, fixed(0), out.kind));
        }
        Value::Fixed(match kind {
            IntOpKind::MaxPool { window, shift, act } => {
                let finish = Finish::new(*shift, *act, out.kind);
                pool(fixed(0), image(shape(0)), window, i32::MIN, i32::max, |acc| finish.one(acc))
            }
            IntOpKind::AveragePool { window, m, shift, act } => {
                let finish = Finish::new(*shift, *act, out.kind);
                let mean = |acc: i32| finish.wide(i64::from(acc) * i64::from(*m));
                pool(fixed(0), image(shape(0)), window, 0, |acc, x| acc + x, mean)
            }
            IntOpKind::Add { shift_read, shift_write, act } => {
                let operands: Vec<_> = shift_read.iter().enumerate().map(|(k, shift)| (fixed(k), *shift)).collect();
                elementwise::add(&operands, Finish::new(*shift_write, *act, out.kind))
            }
            IntOpKind::Multiply { shift, act } => {
                let finish = Finish::new(*shift, *act, out.kind);
                let product = |a: i8, b: i8| finish.one(i32::from(a) * i32::from(b));
                elementwise::zip((fixed(0), shape(0)), (fixed(1), shape(1)), &out.shape, product)
            }
            IntOpKind::Requantize { shift, act } => {
                elementwise::add(&[(fixed(0), 0)], Finish::new(*shift, *act, out.kind))
            }
            IntOpKind::HardSigmoid { shift } => {
                let pos = if let Some((_, Kind::Fixed(pos), _)) = x.first() { *pos } else { FixPos(0) };
                elementwise::hard_sigmoid(fixed(0), pos, *shift)
            }
            IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => {
                let sloped = |x: i8, alpha: i8| match x {
                    0.. => requantize_i8(x.into(), *shift_positive),
                    _ => requantize_i8(i32::from(x) * i32::from(alpha), *shift_negative),
                };
                elementwise::zip((fixed(0), shape(0)), (alpha, alpha_shape), &out.shape, sloped)
            }
            IntOpKind::Concat { axis, shifts } => {
                let operands: Vec<_> = shifts.iter().enumerate().map(|(k, s)| (fixed(k), shape(k), *s)).collect();
                moves::concat(&operands, *axis, &out.shape)
            }
            IntOpKind::UpSample { factor, shift } => moves::upsample(fixed(0), image(shape(0)), *factor, *shift),
            IntOpKind::Pad { before, .. } => moves::pad(fixed(0), image(shape(0)), *before, image(&out.shape)),
            IntOpKind::Permute { dims } => moves::permute(fixed(0), shape(0), dims),
            IntOpKind::Softmax => {
                let x = x[0].0.to_floats(x[0].1);
                let n = out.shape.last().copied().unwrap_or(1).max(1);
                let mut y = vec![0.0; x.len()];
                for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
                    cpu::softmax(n, |i| x[i], |i, v| y[i] = v);
                }
                return Value::Float(y);
            }
            IntOpKind::FakeQuantize(q) => {
                let (v, kind, shape) = &x[0];
                let batched = Tensor::new([&[1], *shape].concat(), v.to_floats(*kind));
                let mut tensor = batched.unwrap_or_else(|| Tensor::zeros(&[0]));
                q.scheme().fake_quantize(&mut tensor);
                return Value::Float(tensor.into_data());
            }
            IntOpKind::Float { op, weights, dtype, .. } => {
                let batched = |(v, kind, shape): &(&Value, Kind, &[usize])| {
                    Tensor::new([&[1], *shape].concat(), v.to_floats(*kind)).unwrap_or_else(|| Tensor::zeros(&[0]))
                };
                let inputs: Vec<Tensor> = x.iter().map(batched).collect();
                let mut y = dtype::eval(op, *dtype, &inputs.iter().collect::<Vec<_>>(), weights);
                dtype::activate(op, *dtype, &mut y);
                return Value::Float(y.into_data());
            }
            IntOpKind::Quantize => {
                let x = x[0].0.to_floats(x[0].1);
                let pos = match out.kind {
                    Kind::Fixed(pos) => pos.0,
                    Kind::Scaled(scale) => return Value::scaled(&x, scale),
                    Kind::Float => 0,
                };
                x.iter().map(|x| fix::quantize(*x, FixSpec::int8(pos), Round::HalfUp) as i8).collect()
            }
            IntOpKind::Dequantize => return Value::Float(x[0].0.to_floats(x[0].1)),
            IntOpKind::View
            | IntOpKind::Scaled(_)
            | IntOpKind::Conv(_)
            | IntOpKind::Depthwise(_)
            | IntOpKind::ConvTranspose(_) => {
                return x[0].0.clone();
            }
        })
    }
}
