//! From a quantized graph to its integer form.

mod arms;
mod conv;
mod floats;
mod scaled;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::graph::{IntAct, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx};
use crate::left_alone;
use crate::reasons::{FLOAT_SCALE, FloatWhy};
use shiftwise_core::arith::limits;
use shiftwise_core::fix::{FixPos, quantize};
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::{Node, NodeId};
use shiftwise_graph::ops::{Activate, ActivationFn, LeakyRelu, Op};
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
            && let Err(why) = l.integers_of(id)
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
        Quantizer::Affine(_) => Some(FLOAT_SCALE),
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
        let integers = own.codes(tensor.data()).unwrap_or_else(|| tensor.data().iter().map(q).collect());
        Ok((i32::from(spec.pos.0), integers))
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
        let kind = |q: NodeId| Self::kind(self.q.layers.get(&q).and_then(|l| l.result())).ok();
        let fixed = only_quantizer.and_then(|q| Some((q, kind(q)?)));
        let (only_quantizer, kind) = match fixed {
            Some((q, kind)) => (Some(q), kind),
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

    pub(super) fn operand(&self, id: NodeId, k: usize) -> Result<TensorIx, FloatWhy> {
        let input = self.q.graph.node(id).inputs.get(k);
        input.and_then(|i| self.value.get(i)).copied().ok_or(FloatWhy::NoOperand {})
    }

    fn fixed_operand(&self, id: NodeId, k: usize) -> Result<(TensorIx, i32), FloatWhy> {
        let tensor = self.operand(id, k)?;
        match self.out.tensors[tensor.0].kind {
            Kind::Fixed(pos) => Ok((tensor, pos.0.into())),
            Kind::Float | Kind::Scaled(_) => {
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

    /// The integers of a quantizer that a CPU computes with, if not a DPU. Errors: why a DPU doesn't.
    fn kind(quantizer: Option<&Quantizer>) -> Result<Kind, FloatWhy> {
        Self::int8(quantizer).map(Kind::Fixed).or_else(|why| match quantizer.and_then(scaled::scale) {
            Some(scale) => Ok(Kind::Scaled(scale)),
            None => Err(why),
        })
    }

    /// Lowers a layer to integers, those of a DPU or others.
    fn integers_of(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        if left_alone::grid(self.q, id).is_none() && self.is_scaled(id) {
            return self.scaled(id);
        }
        self.integer(id)
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

    /// A float tensor quantized: to integers if a DPU has such, else to floats on the quantizer's grid.
    fn quantized(&mut self, id: NodeId, q: &Quantizer, from: TensorIx, name: String) -> TensorIx {
        let node = self.q.graph.node(id);
        let from = self.float(from);
        match Self::kind(Some(q)) {
            Ok(kind) => {
                let tensor = self.tensor(name, node, kind);
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
}
