//! The integer engine: the integer form computed exactly, one sample at a time, on fast int8 kernels.
//!
//! This is the `dpu` numerics. It knows no tiles, banks or memory plan; what it shares with the compiled programs is
//! the integer form and the scalar functions of [`shiftwise_core::arith`].

use rayon::prelude::*;

use crate::error::Error;
use crate::integer::{IntAct, IntConv, IntGraph, IntOpKind, Kind, TensorIx};
use crate::kernel::{self, ConvGeometry, PackedI8};
use crate::tensor::Tensor;
use shiftwise_core::arith::{Round, align_bias, requantize_i8};
use shiftwise_core::cpu;
use shiftwise_core::fix::{self, FixSpec};
use shiftwise_core::shape::Window;

/// One sample's tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Integers of the tensor's position.
    Fixed(Vec<i8>),
    /// Floats.
    Float(Vec<f32>),
}

impl Value {
    /// The bytes in memory, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Fixed(q) => q.iter().map(|v| *v as u8).collect(),
            Self::Float(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// Real values.
    pub fn to_floats(&self, kind: Kind) -> Vec<f32> {
        match (self, kind) {
            (Self::Fixed(q), Kind::Fixed(pos)) => q.iter().map(|v| fix::dequantize((*v).into(), pos)).collect(),
            (Self::Fixed(q), Kind::Float) => q.iter().map(|v| f32::from(*v)).collect(),
            (Self::Float(x), _) => x.clone(),
        }
    }
}

/// An integer graph made ready: kernels packed, biases aligned.
#[derive(Debug)]
pub struct Engine<'a> {
    graph: &'a IntGraph,
    convs: Vec<Option<Prepared>>,
}

#[derive(Debug)]
struct Prepared {
    geometry: ConvGeometry,
    packed: Option<PackedI8>,
    bias: Vec<i32>,
}

impl<'a> Engine<'a> {
    /// Packs the weights.
    pub fn new(graph: &'a IntGraph) -> Self {
        let prepare = |kind: &IntOpKind| match kind {
            IntOpKind::Conv(c) => Some(prepare(c, false)),
            IntOpKind::Depthwise(c) => Some(prepare(c, true)),
            _ => None,
        };
        Self { graph, convs: graph.ops.iter().map(|op| prepare(&op.kind)).collect() }
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
        let n = inputs.first().map_or(0, |t| t.shape()[0]);
        let samples: Vec<Vec<Vec<f32>>> = (0..n)
            .into_par_iter()
            .map(|s| {
                let values = self.run(self.sample(inputs, s)?, |_| false);
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
        let out = &self.graph.tensors[self.graph.ops[op].output.0];
        match (kind, &self.convs[op]) {
            (IntOpKind::Conv(c) | IntOpKind::Depthwise(c), Some(p)) => Value::Fixed(conv(c, p, fixed(0), out.kind)),
            (IntOpKind::MaxPool { window, shift, act }, _) => {
                let finish = |acc: i32| finish(acc, *shift, *act, out.kind);
                Value::Fixed(pool(fixed(0), x[0].2, window, |v| finish(v.max().unwrap_or(0))))
            }
            (IntOpKind::AveragePool { window, m, shift, act }, _) => {
                let finish = |acc: i32| finish(acc, *shift, *act, out.kind);
                Value::Fixed(pool(fixed(0), x[0].2, window, |v| finish(v.sum::<i32>() * i32::from(*m))))
            }
            (IntOpKind::Add { shift_read, shift_write, act }, _) => {
                let mut sum = vec![0i32; fixed(0).len()];
                for (k, shift) in shift_read.iter().enumerate() {
                    sum.iter_mut().zip(fixed(k)).for_each(|(s, q)| *s += i32::from(*q) << shift);
                }
                Value::Fixed(sum.into_iter().map(|s| finish(s, *shift_write, *act, out.kind)).collect())
            }
            (IntOpKind::Requantize { shift, act }, _) => {
                Value::Fixed(fixed(0).iter().map(|q| finish((*q).into(), *shift, *act, out.kind)).collect())
            }
            (IntOpKind::Softmax, _) => {
                let x = x[0].0.to_floats(x[0].1);
                let n = out.shape.last().copied().unwrap_or(1).max(1);
                let mut y = vec![0.0; x.len()];
                for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
                    cpu::softmax(n, |i| x[i], |i, v| y[i] = v);
                }
                Value::Float(y)
            }
            (IntOpKind::Float { op, weights, .. }, _) => {
                let batched = |(v, kind, shape): &(&Value, Kind, &[usize])| {
                    Tensor::new([&[1], *shape].concat(), v.to_floats(*kind)).unwrap_or_else(|| Tensor::zeros(&[0]))
                };
                let inputs: Vec<Tensor> = x.iter().map(batched).collect();
                let layer = op.layer();
                let weights: Vec<&Tensor> = weights.iter().collect();
                let mut y = layer.eval(&inputs.iter().collect::<Vec<_>>(), &weights);
                layer.activation().apply(&mut y);
                Value::Float(y.into_data())
            }
            (IntOpKind::Quantize, _) => {
                let pos = if let Kind::Fixed(pos) = out.kind { pos.0 } else { 0 };
                let x = x[0].0.to_floats(x[0].1);
                Value::Fixed(x.iter().map(|x| fix::quantize(*x, FixSpec::int8(pos), Round::HalfUp) as i8).collect())
            }
            (IntOpKind::Dequantize, _) => Value::Float(x[0].0.to_floats(x[0].1)),
            (IntOpKind::View | IntOpKind::Conv(_) | IntOpKind::Depthwise(_), _) => x[0].0.clone(),
        }
    }
}

/// Activation, shift, rounding half up, saturation. ReLU6's bound lies on the output grid.
fn finish(acc: i32, shift: i32, act: IntAct, out: Kind) -> i8 {
    match act {
        IntAct::None => requantize_i8(acc, shift),
        IntAct::Relu => requantize_i8(acc.max(0), shift),
        IntAct::Relu6 => {
            let pos = if let Kind::Fixed(pos) = out { u32::from(pos.0.max(0).unsigned_abs()) } else { 0 };
            let six = 6i32.checked_shl(pos).map_or(127, |six| six.clamp(0, 127)) as i8;
            // From 5 fraction bits on, 6 is past the largest integer; a large shift would lose it, so saturate.
            requantize_i8(acc.max(0), shift).min(if pos >= 5 { 127 } else { six })
        }
    }
}

fn prepare(c: &IntConv, depthwise: bool) -> Prepared {
    let long = |p: [u16; 2]| p.map(usize::from);
    let geometry = ConvGeometry {
        in_h: c.input[0],
        in_w: c.input[1],
        in_c: c.input[2],
        out_h: c.output[0],
        out_w: c.output[1],
        out_c: c.output[2],
        kernel: long(c.window.kernel),
        stride: long(c.window.stride),
        dilation: long(c.window.dilation),
        pad_before: long(c.window.pad_before),
        groups: if depthwise { c.input[2] } else { c.groups },
    };
    let bias = match &c.bias {
        Some(bias) => bias.iter().map(|b| align_bias((*b).into(), c.shift_bias, c.shift_cut) as i32).collect(),
        None => vec![0; c.output[2]],
    };
    let packed = (!depthwise).then(|| PackedI8::new(&c.kernel, &geometry));
    Prepared { geometry, packed, bias }
}

fn conv(c: &IntConv, p: &Prepared, input: &[i8], out: Kind) -> Vec<i8> {
    let channels = c.output[2];
    let mut y = vec![0i8; p.geometry.output_len()];
    let store = |pixel: usize, first: usize, sums: &[i32]| {
        let to = &mut y[pixel * channels + first..][..sums.len()];
        for ((to, sum), bias) in to.iter_mut().zip(sums).zip(&p.bias[first..]) {
            *to = finish(sum + bias, c.shift_cut, c.act, out);
        }
    };
    let all = 0..p.geometry.pixels();
    match &p.packed {
        Some(packed) => kernel::conv_i8_with(packed, &p.geometry, input, all, store),
        None => kernel::depthwise_i8_with(&p.geometry, &c.kernel, input, all, store),
    }
    y
}

/// Applies `reduce` to the integers of each window and channel; padding is left out.
fn pool(x: &[i8], shape: &[usize], window: &Window, reduce: impl Fn(&mut dyn Iterator<Item = i32>) -> i8) -> Vec<i8> {
    let &[h, w, c] = shape else { return Vec::new() };
    let (oh, ow) = (window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize);
    let range = |axis: usize, o: usize, size: usize| {
        let start = o * usize::from(window.stride[axis]);
        let pad = usize::from(window.pad_before[axis]);
        start.saturating_sub(pad)..(start + usize::from(window.kernel[axis])).saturating_sub(pad).min(size)
    };
    let mut y = Vec::with_capacity(oh * ow * c);
    for oy in 0..oh {
        for ox in 0..ow {
            let (rows, columns) = (range(0, oy, h), range(1, ox, w));
            for ch in 0..c {
                let cells = rows.clone().flat_map(|yy| columns.clone().map(move |xx| (yy * w + xx) * c + ch));
                y.push(reduce(&mut cells.map(|i| i32::from(x[i]))));
            }
        }
    }
    y
}
