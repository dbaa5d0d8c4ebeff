//! From a quantized graph to its integer form.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx, image};
use crate::left_alone;
use crate::reasons::FloatWhy;
use shiftwise_core::arith::limits;
use shiftwise_core::fix::{FixPos, quantize};
use shiftwise_core::shape::Window;
use shiftwise_core::shift::{READ, SIGMOID_POSITIONS};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Node, NodeId};
use shiftwise_graph::ops::pool::average_factor;
use shiftwise_graph::ops::{Activate, ActivationFn, Interpolation, Layer, LeakyRelu, Op, Reshape, TfOp, cubic};
use shiftwise_quant::eval::layer_weights;
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::owners::output_owner;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::pof2::Rounding;
use shiftwise_tensor::tensor::Tensor;

struct Lowering<'a> {
    q: &'a QuantGraph,
    out: IntGraph,
    /// The tensor that holds a node's result.
    value: BTreeMap<NodeId, TensorIx>,
}

/// Lowers a quantized graph.
///
/// A layer that has no integer form — left float by the strategy, an activation other than ReLU and ReLU6, a float
/// input — becomes a float op with the reason. Errors: a result quantized to anything but signed 8 bits, rounded half
/// up over the full range, naming the layer.
pub fn lower(q: &QuantGraph) -> Result<IntGraph, Error> {
    let out = IntGraph {
        name: q.graph.name.clone(),
        tensors: Vec::new(),
        ops: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let mut l = Lowering { q, out, value: BTreeMap::new() };
    for id in &q.graph.inputs {
        l.input(*id);
    }
    for id in q.graph.ids() {
        if !l.value.contains_key(&id)
            && let Err(why) = l.integer(id)
        {
            let known = left_alone::grid(q, id).or_else(|| left_alone::of_node(&q.graph, id));
            let why = known.or_else(|| l.foreign_weight(id)).unwrap_or(why);
            l.float_layer(id, why)?;
        }
    }
    let outputs =
        q.graph.outputs.iter().map(|id| l.value.get(id).copied().ok_or_else(|| l.fail(*id, "is not computed")));
    l.out.outputs = outputs.collect::<Result<_, _>>()?;
    l.out.verify()?;
    Ok(l.out)
}

/// What a DPU lacks of a scheme that has no positions; `None` for one that has.
fn foreign(q: &Quantizer) -> Option<&'static str> {
    match q {
        Quantizer::Pof2(_) => None,
        Quantizer::Block(_) => Some(left_alone::BLOCKS),
        Quantizer::Affine(_) => Some("a float scale"),
        Quantizer::Tqt(_) => Some("a trained threshold that is not converted to a position"),
    }
}

/// Why a quantizer's grid isn't that of a DPU's tensor; `None` if it is.
pub fn why_float(q: &Quantizer) -> Option<FloatWhy> {
    Lowering::int8(Some(q)).err()
}

/// What a fused run of layers ends with.
struct Tail {
    /// Node that owns the quantizer.
    owner: NodeId,
    /// Activation.
    act: IntAct,
    /// Position of the result.
    pos: FixPos,
    /// The owner continues in floats from the integers: a function that is quantized before.
    function: Option<ActivationFn>,
}

impl Lowering<'_> {
    /// Lowers a layer to integers; leaves nothing behind when it fails.
    fn integer(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        if let Some(why) = left_alone::grid(self.q, id) {
            return Err(why);
        }
        match &node.op {
            Op::Input(_) => Err(FloatWhy::StrayInput {}),
            Op::Quantize(_) => {
                let q = self.q.layers.get(&id).and_then(|l| l.result());
                let q = q.ok_or(FloatWhy::Unquantized {})?;
                let tensor = self.quantized(id, q, self.operand(id, 0)?, node.name.clone());
                self.value.insert(id, tensor);
                Ok(())
            }
            Op::Conv2D(_) | Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_) | Op::Dense(_) => self.conv(id),
            Op::MaxPooling2D(p) => {
                let (input, i) = self.fixed_operand(id, 0)?;
                let window =
                    p.pool.window(&self.out.tensors[input.0].shape).map_err(|text| FloatWhy::Window { text })?;
                self.fused(id, vec![input], |tail| IntOpKind::MaxPool {
                    window,
                    shift: i - i32::from(tail.pos.0),
                    act: tail.act,
                })
            }
            Op::AveragePooling2D(p) => {
                let window = p
                    .pool
                    .window(&self.q.graph.node(node.inputs[0]).shape)
                    .map_err(|text| FloatWhy::Window { text })?;
                let factor = p.factor_window(&node.shape).unwrap_or((p.pool.size[0], p.pool.size[1]));
                self.average(id, window, factor, p.pool.size)
            }
            Op::GlobalAveragePooling2D(p) => {
                let [h, w] = [self.q.graph.node(node.inputs[0]).shape[0], self.q.graph.node(node.inputs[0]).shape[1]];
                let window = Window { kernel: [h as u16, w as u16], ..Window::POINT };
                self.average(id, window, p.factor_window(&[h, w]), [h, w])
            }
            Op::Add(_) => {
                let operands = self.fixed_operands(id)?;
                if node.inputs.iter().any(|i| self.q.graph.node(*i).shape != node.shape) {
                    return Err(FloatWhy::Shapes {});
                }
                let finest = operands.iter().map(|(_, p)| *p).max().unwrap_or(0);
                let shift_read: Vec<u32> = operands.iter().map(|(_, p)| (finest - p) as u32).collect();
                if let Some(&bits) = shift_read.iter().find(|s| !READ.contains(&(**s as i32))) {
                    return Err(FloatWhy::Apart { bits });
                }
                self.fused(id, operands.into_iter().map(|(t, _)| t).collect(), |tail| {
                    let shift_write = finest - i32::from(tail.pos.0);
                    IntOpKind::Add { shift_read: shift_read.clone(), shift_write, act: tail.act }
                })
            }
            Op::Multiply(_) => {
                let operands = self.fixed_operands(id)?;
                let [(a, i), (b, j)] = operands[..] else {
                    return Err(FloatWhy::Factors {});
                };
                self.fused(id, vec![a, b], |tail| IntOpKind::Multiply {
                    shift: i + j - i32::from(tail.pos.0),
                    act: tail.act,
                })
            }
            Op::Concatenate(c) => {
                let operands = self.fixed_operands(id)?;
                self.fused(id, operands.iter().map(|(t, _)| *t).collect(), |tail| {
                    let shifts = operands.iter().map(|(_, i)| i - i32::from(tail.pos.0)).collect();
                    IntOpKind::Concat { axis: c.axis, shifts }
                })
            }
            Op::UpSampling2D(u) if u.interpolation == Interpolation::Nearest => {
                let (input, i) = self.fixed_operand(id, 0)?;
                self.fused(id, vec![input], |tail| IntOpKind::UpSample {
                    factor: u.size,
                    shift: i - i32::from(tail.pos.0),
                })
            }
            Op::HardSigmoid(_) => {
                let (input, i) = self.fixed_operand(id, 0)?;
                if !SIGMOID_POSITIONS.contains(&i) {
                    return Err(FloatWhy::SigmoidPosition { pos: i });
                }
                self.fused(id, vec![input], |tail| IntOpKind::HardSigmoid { shift: 14 + i - i32::from(tail.pos.0) })
            }
            Op::PRelu(p) => {
                let (input, i) = self.fixed_operand(id, 0)?;
                let (a, alpha) = self.integers(id, 0, &p.alpha)?;
                self.fused(id, vec![input], |tail| {
                    let o = i32::from(tail.pos.0);
                    IntOpKind::PRelu {
                        alpha: alpha.clone(),
                        alpha_shape: p.alpha.shape().to_vec(),
                        shift_positive: i - o,
                        shift_negative: i + a - o,
                    }
                })
            }
            Op::ZeroPadding2D(p) => {
                let input = self.operand(id, 0)?;
                let Kind::Fixed(_) = self.out.tensors[input.0].kind else {
                    return Err(FloatWhy::FloatInput {});
                };
                let kind = IntOpKind::Pad { before: [p.rows[0], p.columns[0]], after: [p.rows[1], p.columns[1]] };
                self.moved(id, input, kind);
                Ok(())
            }
            Op::Permute(p) => {
                let input = self.operand(id, 0)?;
                let Kind::Fixed(_) = self.out.tensors[input.0].kind else {
                    return Err(FloatWhy::FloatInput {});
                };
                self.moved(id, input, IntOpKind::Permute { dims: p.dims.clone() });
                Ok(())
            }
            Op::Flatten(_) | Op::Reshape(_) | Op::Dropout(_) => {
                let input = self.operand(id, 0)?;
                self.moved(id, input, IntOpKind::View);
                Ok(())
            }
            Op::Relu(_) | Op::LeakyRelu(_) | Op::Activation(_) if self.q.layers.contains_key(&id) => {
                let (input, i) = self.fixed_operand(id, 0)?;
                self.fused(id, vec![input], |tail| IntOpKind::Requantize {
                    shift: i - i32::from(tail.pos.0),
                    act: tail.act,
                })
            }
            Op::Softmax(_) => self.softmax(id, self.operand(id, 0)?),
            Op::Activation(a) if a.function == ActivationFn::Softmax => self.softmax(id, self.operand(id, 0)?),
            Op::Custom(c) if !c.computes() => Err(FloatWhy::UnknownClass {}),
            _ => Err(FloatWhy::Strategy {}),
        }
    }

    /// A layer that only moves values: its result has its operand's kind.
    fn moved(&mut self, id: NodeId, input: TensorIx, op: IntOpKind) {
        let kind = self.out.tensors[input.0].kind;
        let tensor = self.tensor(self.q.quant_name(id), self.q.graph.node(id), kind);
        self.push(op, vec![input], tensor, &[id]);
        self.value.insert(id, tensor);
    }

    fn fixed_operands(&self, id: NodeId) -> Result<Vec<(TensorIx, i32)>, FloatWhy> {
        (0..self.q.graph.node(id).inputs.len()).map(|k| self.fixed_operand(id, k)).collect()
    }

    /// Position and 8-bit integers of a layer's weight of index `k`.
    fn integers(&self, id: NodeId, k: usize, tensor: &Tensor) -> Result<(i32, Vec<i8>), FloatWhy> {
        let layer = self.q.layers.get(&id).ok_or(FloatWhy::NoQuantizers {})?;
        let name = self.q.graph.node(id).op.layer().weights().get(k).map_or("weight", |(name, _)| *name);
        let own = layer.weights.get(k).and_then(Option::as_ref);
        let own = own.ok_or_else(|| FloatWhy::FloatWeight { name: name.into() })?;
        let Quantizer::Pof2(own) = own else {
            return Err(FloatWhy::WeightScheme { name: name.into(), seen: foreign(own).unwrap_or_default() });
        };
        let p = &own.params;
        let (low, high) = limits(p.bit_width, !p.unsigned);
        if low < -128 || high > 127 {
            return Err(FloatWhy::WeightRange { name: name.into(), low, high });
        }
        let (Some(spec), Rounding::Plain(round), true) = (own.spec(), p.rounding(), p.is_plain()) else {
            return Err(FloatWhy::WeightScheme {
                name: name.into(),
                seen: "positions per channel, a zero point or FixNeuron arithmetic",
            });
        };
        let narrow = i32::from(p.narrow_range && low < 0);
        let q = |x: &f32| quantize(*x, spec, round).max(low as i32 + narrow) as i8;
        Ok((i32::from(spec.pos.0), tensor.data().iter().map(q).collect()))
    }

    /// The first of a layer's weights whose scheme has no positions: a reason that no other input helps against.
    fn foreign_weight(&self, id: NodeId) -> Option<FloatWhy> {
        let quantizers = &self.q.layers.get(&id)?.weights;
        let weights = self.q.graph.node(id).op.layer().weights().into_iter().zip(quantizers);
        let foreign = |((name, _), own): ((&str, &Tensor), &Option<Quantizer>)| {
            Some(FloatWhy::WeightScheme { name: name.into(), seen: foreign(own.as_ref()?)? })
        };
        weights.into_iter().find_map(foreign)
    }

    fn fail(&self, id: NodeId, why: &str) -> Error {
        let node = self.q.graph.node(id);
        Error::layer(&node.name, node.op.class(), why)
    }

    fn tensor(&mut self, name: String, node: &Node, kind: Kind) -> TensorIx {
        self.out.tensors.push(IntTensor { name, shape: node.shape.clone(), kind });
        TensorIx(self.out.tensors.len() - 1)
    }

    fn push(&mut self, kind: IntOpKind, inputs: Vec<TensorIx>, output: TensorIx, from: &[NodeId]) {
        let mut names: Vec<&str> =
            from.iter().flat_map(|id| &self.q.graph.node(*id).origin).map(String::as_str).collect();
        names.dedup();
        self.out.ops.push(IntOp { kind, inputs, output, layer: names.join("+") });
    }

    /// A model input: read as integers when everything that reads it reads its quantizer.
    fn input(&mut self, id: NodeId) {
        let readers: Vec<NodeId> = self.q.graph.ids().filter(|c| self.q.graph.node(*c).inputs.contains(&id)).collect();
        let only_quantizer = match readers[..] {
            [one] if matches!(self.q.graph.node(one).op, Op::Quantize(_)) && !self.q.graph.outputs.contains(&id) => {
                Some(one)
            }
            _ => None,
        };
        let pos = |q: NodeId| Self::int8(self.q.layers.get(&q).and_then(|l| l.result())).ok();
        let fixed = only_quantizer.and_then(|q| Some((q, pos(q)?)));
        let (only_quantizer, kind) = match fixed {
            Some((q, pos)) => (Some(q), Kind::Fixed(pos)),
            None => (None, Kind::Float),
        };
        let node = self.q.graph.node(only_quantizer.unwrap_or(id));
        let tensor = self.tensor(node.name.clone(), node, kind);
        self.value.insert(id, tensor);
        self.value.extend(only_quantizer.map(|q| (q, tensor)));
        self.out.inputs.push(tensor);
        // What is read of another type is rounded before anything else.
        if let Some(why) = left_alone::grid(self.q, id) {
            let (node, function) = (self.q.graph.node(id), ActivationFn::Linear);
            let (name, shape) = (format!("{}_rounded", node.name), node.shape.clone());
            let op = Op::Activation(Activate { function });
            let rounded = self.float_part(id, op, Vec::new(), vec![tensor], (name, shape), why);
            self.value.insert(id, rounded);
        }
    }

    fn operand(&self, id: NodeId, k: usize) -> Result<TensorIx, FloatWhy> {
        let input = self.q.graph.node(id).inputs.get(k);
        input.and_then(|i| self.value.get(i)).copied().ok_or(FloatWhy::NoOperand {})
    }

    fn fixed_operand(&self, id: NodeId, k: usize) -> Result<(TensorIx, i32), FloatWhy> {
        let tensor = self.operand(id, k)?;
        match self.out.tensors[tensor.0].kind {
            Kind::Fixed(pos) => Ok((tensor, pos.0.into())),
            Kind::Float => {
                let name = self.q.graph.node(self.q.graph.node(id).inputs[k]).name.clone();
                Err(FloatWhy::FloatOperand { name })
            }
        }
    }

    /// The tensor as floats.
    fn float(&mut self, tensor: TensorIx) -> TensorIx {
        if self.out.tensors[tensor.0].kind == Kind::Float {
            return tensor;
        }
        let IntTensor { name, shape, .. } = self.out.tensors[tensor.0].clone();
        self.out.tensors.push(IntTensor { name: format!("{name}_dequantized"), shape, kind: Kind::Float });
        let output = TensorIx(self.out.tensors.len() - 1);
        self.push(IntOpKind::Dequantize, vec![tensor], output, &[]);
        output
    }

    /// The position of a quantizer whose integers are those of a DPU's tensor.
    fn int8(quantizer: Option<&Quantizer>) -> Result<FixPos, FloatWhy> {
        let q = quantizer.ok_or(FloatWhy::Unquantized {})?;
        let Quantizer::Pof2(own) = q else {
            return Err(FloatWhy::Scheme { seen: foreign(q).unwrap_or_default() });
        };
        let p = &own.params;
        let (Some(spec), true) = (own.spec(), p.is_plain()) else {
            let seen = match p {
                _ if p.per_channel => "a position for each channel",
                _ if !p.symmetry => "an asymmetric range",
                _ => "FixNeuron arithmetic",
            };
            return Err(FloatWhy::Scheme { seen });
        };
        if p.bit_width != 8 || p.unsigned || p.narrow_range || p.round_mode != 1 {
            let (unsigned, bits, round, narrow) = (p.unsigned, p.bit_width, p.round_mode, p.narrow_range);
            return Err(FloatWhy::Format { unsigned, bits, round, narrow });
        }
        Ok(spec.pos)
    }

    /// What follows a layer up to its quantizer.
    fn tail(&self, id: NodeId) -> Result<Tail, FloatWhy> {
        let owner = output_owner(self.q, id).ok_or(FloatWhy::Unquantized {})?;
        let layer = self.q.layers.get(&owner);
        let pos = Self::int8(layer.and_then(|l| l.result()))?;
        let mut tail = Tail { owner, act: IntAct::None, pos, function: None };
        let before = matches!(layer.map(|l| &l.activation), Some(ActivationQuant::Before(_)));
        let op = &self.q.graph.node(owner).op;
        let relu = |max: Option<f32>| match max {
            None => Some(IntAct::Relu),
            Some(6.0) => Some(IntAct::Relu6),
            Some(_) => None,
        };
        let act = match op {
            Op::Relu(r) if r.negative_slope == 0.0 && r.threshold == 0.0 => relu(r.max_value),
            Op::Relu(_) => None,
            Op::LeakyRelu(l) => (l.alpha == LeakyRelu::DPU_ALPHA).then_some(IntAct::LeakyRelu),
            op => match op.layer().activation() {
                ActivationFn::Linear => Some(IntAct::None),
                ActivationFn::Relu => relu(None),
                ActivationFn::Relu6 => relu(Some(6.0)),
                function if before => {
                    tail.function = Some(function);
                    Some(IntAct::None)
                }
                _ => None,
            },
        };
        tail.act = act.ok_or(FloatWhy::Activation {})?;
        if tail.act == IntAct::Relu6 && pos.0 < 0 {
            return Err(FloatWhy::Bound {});
        }
        Ok(tail)
    }

    /// Emits an op whose result is quantized by `id` itself or by the activation behind it.
    fn fused(&mut self, id: NodeId, inputs: Vec<TensorIx>, kind: impl Fn(&Tail) -> IntOpKind) -> Result<(), FloatWhy> {
        let tail = self.tail(id)?;
        let kind = kind(&tail);
        let mut name = self.q.quant_name(tail.owner);
        if tail.function.is_some() {
            name += "_input";
        }
        let tensor = self.tensor(name, self.q.graph.node(tail.owner), Kind::Fixed(tail.pos));
        let from: &[NodeId] = if tail.owner == id { &[id] } else { &[id, tail.owner] };
        self.push(kind, inputs, tensor, from);
        self.value.insert(id, tensor);
        match tail.function {
            Some(ActivationFn::Softmax) => self.softmax(tail.owner, tensor),
            Some(function) => {
                let why = FloatWhy::Function { function };
                self.float_op(tail.owner, Op::Activation(Activate { function }), vec![tensor], why);
                Ok(())
            }
            None => {
                self.value.insert(tail.owner, tensor);
                Ok(())
            }
        }
    }

    /// A layer in floats, from its operands to its result, quantized where the graph says so.
    fn float_layer(&mut self, id: NodeId, why: FloatWhy) -> Result<(), Error> {
        let node = self.q.graph.node(id);
        let layer = self.q.layers.get(&id);
        let inputs = (0..node.inputs.len()).map(|k| self.operand(id, k)).collect::<Result<Vec<_>, _>>();
        let inputs = inputs.map_err(|why| self.fail(id, &why.to_string()))?;
        let mut op = node.op.clone();
        let name = self.q.quant_name(id);
        if let Some(ActivationQuant::Before(q)) = layer.map(|l| &l.activation) {
            // The sum is quantized, then the function follows in floats.
            let function = op.weighted_mut().map(|w| std::mem::replace(&mut w.activation, ActivationFn::Linear));
            let mut sum = inputs;
            if function.is_some() {
                sum = vec![self.float_op(id, op, sum, why.clone())];
                self.out.tensors[sum[0].0].name += "_float";
            }
            let function = function.unwrap_or(node.op.layer().activation());
            let tensor = self.quantized(id, q, sum[0], name + "_input");
            self.float_op(id, Op::Activation(Activate { function }), vec![tensor], why);
            return Ok(());
        }
        let result = self.float_op(id, op, inputs, why);
        if let Some(q) = layer.and_then(|l| l.result()) {
            self.out.tensors[result.0].name += "_float";
            let tensor = self.quantized(id, q, result, name);
            self.value.insert(id, tensor);
        }
        Ok(())
    }

    /// A float tensor quantized: to integers if a DPU has such, else to floats on the quantizer's grid.
    fn quantized(&mut self, id: NodeId, q: &Quantizer, from: TensorIx, name: String) -> TensorIx {
        let node = self.q.graph.node(id);
        let from = self.float(from);
        match Self::int8(Some(q)) {
            Ok(pos) => {
                let tensor = self.tensor(name, node, Kind::Fixed(pos));
                self.push(IntOpKind::Quantize, vec![from], tensor, &[id]);
                tensor
            }
            Err(_) => {
                let tensor = self.tensor(name, node, Kind::Float);
                self.push(IntOpKind::FakeQuantize(Box::new(q.clone())), vec![from], tensor, &[id]);
                tensor
            }
        }
    }

    /// Emits float ops that compute (part of) a layer's result: a separable convolution is two, and a softmax of sums
    /// works on a tensor of its own.
    fn float_op(&mut self, id: NodeId, mut op: Op, inputs: Vec<TensorIx>, why: FloatWhy) -> TensorIx {
        let mut inputs: Vec<TensorIx> = inputs.into_iter().map(|x| self.float(x)).collect();
        if let Some(own) = self.q.layers.get(&id).and_then(|l| l.input.as_ref()) {
            inputs = inputs.into_iter().enumerate().map(|(k, x)| self.read(id, (k, x), own)).collect();
        }
        let mut weights = if op.layer().weights().is_empty() { Vec::new() } else { layer_weights(self.q, id) };
        let name = self.q.quant_name(id);
        if let Op::SeparableConv2D(separable) = &op {
            let (depthwise, pointwise) = separable.parts();
            let middle = depthwise.output_shape(&[&self.out.tensors[inputs[0].0].shape]).unwrap_or_default();
            let rest = weights.split_off(weights.len().min(1));
            let own = std::mem::replace(&mut weights, rest);
            let first = Op::DepthwiseConv2D(depthwise);
            inputs = vec![self.float_part(id, first, own, inputs, (format!("{name}_depthwise"), middle), why.clone())];
            op = Op::Conv2D(pointwise);
        }
        let shape = self.q.graph.node(id).shape.clone();
        if let Op::OneD(row) = &op
            && let Some((depthwise, pointwise)) = row.parts()
        {
            let middle = depthwise.output_shape(&[&self.out.tensors[inputs[0].0].shape]).unwrap_or_default();
            let rest = weights.split_off(weights.len().min(1));
            let own = std::mem::replace(&mut weights, rest);
            let first = Op::OneD(depthwise);
            inputs = vec![self.float_part(id, first, own, inputs, (format!("{name}_depthwise"), middle), why.clone())];
            op = Op::OneD(pointwise);
        }
        let half = self.q.graph.node(id).dtype.is_half();
        if !half && let Some(last) = self.cubic(id, &op, inputs[0], &why) {
            (inputs, op) = last;
        }
        let function = op.layer().activation();
        if let (ActivationFn::Softmax | ActivationFn::LogSoftmax, Some(w)) = (function, op.weighted_mut()) {
            w.activation = ActivationFn::Linear;
            inputs =
                vec![self.float_part(id, op, weights, inputs, (format!("{name}_sums"), shape.clone()), why.clone())];
            (op, weights) = (Op::Activation(Activate { function }), Vec::new());
        }
        let tensor = self.float_part(id, op, weights, inputs, (name, shape), why);
        self.value.insert(id, tensor);
        tensor
    }

    /// An input as the layer alone reads it.
    fn read(&mut self, id: NodeId, (k, from): (usize, TensorIx), own: &Quantizer) -> TensorIx {
        let shape = self.out.tensors[from.0].shape.clone();
        let name = format!("{}_input_{k}", self.q.quant_name(id));
        self.out.tensors.push(IntTensor { name, shape, kind: Kind::Float });
        let output = TensorIx(self.out.tensors.len() - 1);
        self.push(IntOpKind::FakeQuantize(Box::new(own.clone())), vec![from], output, &[id]);
        output
    }

    /// A bicubic resizing as two products of matrices, over rows and over columns: what the last of them reads, and it
    /// itself. `None` for other layers.
    fn cubic(&mut self, id: NodeId, op: &Op, input: TensorIx, why: &FloatWhy) -> Option<(Vec<TensorIx>, Op)> {
        let [h, w, c] = self.out.tensors[input.0].shape[..] else { return None };
        let (size, method) = match op {
            Op::Resizing(r) => (r.size, r.interpolation),
            Op::UpSampling2D(u) => ([h * u.size[0], w * u.size[1]], u.interpolation),
            Op::TfOp(f) => f.resizing()?,
            _ => return None,
        };
        // Beyond that the matrices would be larger than what they are for.
        if method != Interpolation::Bicubic || (h * size[0]).max(w * size[1]) > 1 << 24 {
            return None;
        }
        let name = self.q.quant_name(id);
        let view = |shape: &[usize]| Op::Reshape(Reshape { target: shape.iter().map(|d| *d as i64).collect() });
        let rows = Op::TfOp(TfOp::product_with(cubic::matrix(h, size[0])));
        let steps = [
            ("lines", view(&[h, w * c]), vec![h, w * c]),
            ("rows", rows, vec![size[0], w * c]),
            ("columns", view(&[size[0], w, c]), vec![size[0], w, c]),
        ];
        let mut at = input;
        for (what, op, shape) in steps {
            at = self.float_part(id, op, Vec::new(), vec![at], (format!("{name}_{what}"), shape), why.clone());
        }
        Some((vec![at], Op::TfOp(TfOp::product_with(cubic::matrix(w, size[1])))))
    }

    fn float_part(
        &mut self,
        id: NodeId,
        op: Op,
        weights: Vec<Tensor>,
        inputs: Vec<TensorIx>,
        (name, shape): (String, Vec<usize>),
        why: FloatWhy,
    ) -> TensorIx {
        self.out.tensors.push(IntTensor { name, shape, kind: Kind::Float });
        let tensor = TensorIx(self.out.tensors.len() - 1);
        let dtype = self.q.graph.node(id).dtype;
        self.push(IntOpKind::Float { op: Box::new(op), weights, dtype, why }, inputs, tensor, &[id]);
        tensor
    }

    fn softmax(&mut self, id: NodeId, input: TensorIx) -> Result<(), FloatWhy> {
        let tensor = self.tensor(self.q.quant_name(id), self.q.graph.node(id), Kind::Float);
        self.push(IntOpKind::Softmax, vec![input], tensor, &[id]);
        self.value.insert(id, tensor);
        Ok(())
    }

    /// `factor` is the window whose m / 2^n applies; `size` the cells that are summed.
    fn average(
        &mut self,
        id: NodeId,
        window: Window,
        factor: (usize, usize),
        size: [usize; 2],
    ) -> Result<(), FloatWhy> {
        let (input, i) = self.fixed_operand(id, 0)?;
        let Some((m, n)) = average_factor(factor.0, factor.1) else {
            return Err(FloatWhy::AverageWindow {});
        };
        // A rectangle with the factor of a square: the square's mean has area / size times as many cells.
        let m = usize::from(m) * (factor.0 * factor.1) / (size[0] * size[1]).max(1);
        let m = u16::try_from(m).map_err(|_| FloatWhy::AverageFactor {})?;
        self.fused(id, vec![input], |tail| {
            let shift = i32::from(n) + i - i32::from(tail.pos.0);
            IntOpKind::AveragePool { window, m, shift, act: tail.act }
        })
    }

    fn conv(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let (input, i) = self.fixed_operand(id, 0)?;
        let mut weights = node.op.layer().weights().into_iter().enumerate().map(|(k, (_, t))| self.integers(id, k, t));
        let (w, mut kernel) = weights.next().ok_or(FloatWhy::NoKernel {})??;
        let bias = weights.next().transpose()?;
        let from = self.q.graph.node(node.inputs[0]);
        let (window, input_dims, output, groups) = match &node.op {
            Op::Conv2D(c) => (
                c.window(&from.shape).map_err(|text| FloatWhy::Window { text })?,
                image(&from.shape),
                image(&node.shape),
                c.groups,
            ),
            Op::DepthwiseConv2D(c) => {
                // With several outputs for each channel it is a convolution with a group for each channel.
                let groups = if c.w.kernel.shape()[3] == 1 { 1 } else { c.w.kernel.shape()[2] };
                (
                    c.window(&from.shape).map_err(|text| FloatWhy::Window { text })?,
                    image(&from.shape),
                    image(&node.shape),
                    groups,
                )
            }
            Op::Conv2DTranspose(c) => {
                let k = c.w.kernel.shape();
                let (oc, ic) = (k[2], k[3]);
                kernel = kernel
                    .chunks_exact((oc * ic).max(1))
                    .flat_map(|tap| (0..ic).flat_map(move |i| (0..oc).map(move |o| tap[o * ic + i])))
                    .collect();
                (
                    c.window(&from.shape).map_err(|text| FloatWhy::Window { text })?,
                    image(&from.shape),
                    image(&node.shape),
                    1,
                )
            }
            _ => {
                // A dense layer over a flattened map is a convolution with a kernel of the map's size, if a window has
                // such a size.
                let map = match (&from.op, &from.inputs[..]) {
                    (Op::Flatten(_), [map]) => image(&self.q.graph.node(*map).shape),
                    _ => image(&from.shape),
                };
                let flattened = match (u16::try_from(map[0]), u16::try_from(map[1])) {
                    (Ok(h), Ok(w)) if from.shape.len() == 1 => Some([h, w]),
                    _ => None,
                };
                let dims = flattened.map_or_else(|| image(&from.shape), |_| map);
                let kernel = flattened.unwrap_or([1, 1]);
                (Window { kernel, ..Window::POINT }, dims, image(&node.shape), 1)
            }
        };
        let depthwise = matches!(&node.op, Op::DepthwiseConv2D(c) if c.w.kernel.shape()[3] == 1);
        let transposed = matches!(node.op, Op::Conv2DTranspose(_));
        self.fused(id, vec![input], |tail| {
            let o = i32::from(tail.pos.0);
            let conv = IntConv {
                window,
                input: input_dims,
                output,
                kernel: kernel.clone(),
                bias: bias.as_ref().map(|(_, b)| b.clone()),
                groups,
                shift_cut: w + i - o,
                shift_bias: bias.as_ref().map_or(0, |(b, _)| w + i - b),
                act: tail.act,
            };
            match (depthwise, transposed) {
                (true, _) => IntOpKind::Depthwise(conv),
                (_, true) => IntOpKind::ConvTranspose(conv),
                _ => IntOpKind::Conv(conv),
            }
        })
    }
}
