//! Layers on integers with steps of any size.
//!
//! A layer is lowered here where a float scale, or a width of 9 to 16 bits, is on an operand, a weight or the result. Steps
//! become multipliers: `factor = s_x · s_w / s_y` for a convolution, whose bias is `round(b / (s_x · s_w))`.

use super::Lowering;
use super::conv::{Geometry, outputs_last};
use crate::graph::{IntOpKind, Kind, TensorIx};
use crate::reasons::{FLOAT_SCALE, FloatWhy};
use crate::scaled::{Channel, ScaledConv, ScaledOp, ScaledPooling};
use shiftwise_core::arith::Round;
use shiftwise_core::fix::quantize;
use shiftwise_core::scale::{Multiplier, Scale};
use shiftwise_core::shape::Window;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{Activate, ActivationFn, Interpolation, Op};
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::owners::output_owner;
use shiftwise_quant::scheme::channels::Channels;
use shiftwise_quant::scheme::pof2::Rounding;
use shiftwise_quant::scheme::{Quantizer, Scheme};
use shiftwise_tensor::tensor::Tensor;

/// Factors below this many bits behind the point are those of channels whose weights are next to nothing: such a channel
/// gets the coarser step at which its factor, and its bias in 32 bits, are numbers to compute with.
const LEAST_FACTOR: f64 = 1.0 / (1 << 24) as f64;
/// The largest bias of an 8-bit layer in steps of its sum.
const MOST_BIAS: f64 = (1 << 30) as f64;

/// The grid of a quantizer whose integers a CPU computes with: a float scale or a position, of at most 16 bits, with one
/// step for the whole tensor, rounded to the nearest.
pub(crate) fn scale(q: &Quantizer) -> Option<Scale> {
    let (step, zero, (low, high)) = match q {
        Quantizer::Affine(own) => {
            let p = &own.params;
            if p.per_channel || p.bit_width > 16 || p.round() == Round::Floor {
                return None;
            }
            let (step, zero) = *own.steps().first()?;
            (step, zero, p.bounds())
        }
        Quantizer::Pof2(own) => {
            let p = &own.params;
            let spec = own.spec().filter(|_| p.is_plain() && p.round_mode == 1 && p.bit_width <= 16)?;
            (spec.pos.step(), 0.0, p.bounds())
        }
        Quantizer::Tqt(_) | Quantizer::Block(_) => return None,
    };
    if step == 0.0 {
        // Nothing but zeros.
        return Scale::new(1.0, 0, 0, 0);
    }
    // Grids without negative integers lie in the middle of the signed ones.
    let down = if low >= 0.0 { (high as i32 + 1) / 2 } else { 0 };
    let integer = |x: f32| i16::try_from(x as i32 - down).ok();
    Scale::new(step, integer(zero)?, integer(low)?, integer(high)?)
}

/// A weight as integers without a zero point: `value = integer · step` of its channel.
struct Weight {
    integers: Vec<i16>,
    /// The step of each element; 0 of a channel of zeros.
    steps: Vec<f32>,
}

/// Where a layer's result goes.
struct Place {
    /// Node that owns the quantizer.
    owner: NodeId,
    kind: Kind,
    scale: Scale,
    /// The scale's, narrowed by the activation.
    bounds: [i16; 2],
    /// The owner continues in floats from the integers: a function that is quantized before.
    function: Option<ActivationFn>,
}

impl Lowering<'_> {
    /// Whether a layer has to do with integers of other steps than a DPU's.
    pub(super) fn is_scaled(&self, id: NodeId) -> bool {
        let foreign = |q: &Quantizer| Self::int8(Some(q)).is_err() && scale(q).is_some();
        let weight = |q: &Quantizer| match q {
            Quantizer::Affine(_) => true,
            Quantizer::Pof2(own) => own.params.is_plain() && (9..=16).contains(&own.params.bit_width),
            Quantizer::Tqt(_) | Quantizer::Block(_) => false,
        };
        let operands = self.q.graph.node(id).inputs.iter().filter_map(|i| self.value.get(i));
        let mut operands = operands.map(|t| self.out.tensors[t.0].kind);
        let owner = output_owner(self.q, id).and_then(|owner| self.q.layers.get(&owner)?.result());
        let weights = self.q.layers.get(&id).is_some_and(|l| l.weights.iter().flatten().any(weight));
        operands.any(|kind| matches!(kind, Kind::Scaled(_))) || owner.is_some_and(foreign) || weights
    }

    /// Lowers such a layer; leaves nothing behind when it fails.
    pub(super) fn scaled(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        match &self.q.graph.node(id).op {
            Op::Conv2D(_) | Op::DepthwiseConv2D(_) | Op::Conv2DTranspose(_) | Op::Dense(_) => self.scaled_conv(id),
            Op::MaxPooling2D(_) | Op::AveragePooling2D(_) | Op::GlobalAveragePooling2D(_) => self.scaled_pool(id),
            Op::Add(_) => self.scaled_sum(id),
            Op::Multiply(_) => self.scaled_product(id),
            Op::Concatenate(c) => self.scaled_concat(id, c.axis),
            Op::UpSampling2D(u) if u.interpolation == Interpolation::Nearest => {
                let kind = IntOpKind::UpSample { factor: u.size, shift: 0 };
                self.scaled_move(id, kind)
            }
            Op::ZeroPadding2D(p) => {
                let kind = IntOpKind::Pad { before: [p.rows[0], p.columns[0]], after: [p.rows[1], p.columns[1]] };
                self.scaled_move(id, kind)
            }
            Op::Permute(p) => self.scaled_move(id, IntOpKind::Permute { dims: p.dims.clone() }),
            Op::Flatten(_) | Op::Reshape(_) | Op::Dropout(_) => self.scaled_move(id, IntOpKind::View),
            Op::Relu(_) | Op::Activation(_) if self.q.layers.get(&id).is_some_and(|l| l.result().is_some()) => {
                self.scaled_sum(id)
            }
            Op::Quantize(_) if self.scaled_operand(id, 0).is_ok() => self.scaled_sum(id).or_else(|_| self.integer(id)),
            // Everything else is as it is of other integers, or float.
            _ => self.integer(id),
        }
    }

    fn scaled_operand(&self, id: NodeId, k: usize) -> Result<(TensorIx, Scale), FloatWhy> {
        let tensor = self.operand(id, k)?;
        match self.out.tensors[tensor.0].kind.scale() {
            Some(scale) => Ok((tensor, scale)),
            None => {
                let name = self.q.graph.node(self.q.graph.node(id).inputs[k]).name.clone();
                Err(FloatWhy::FloatOperand { name })
            }
        }
    }

    fn scaled_operands(&self, id: NodeId) -> Result<Vec<(TensorIx, Scale)>, FloatWhy> {
        (0..self.q.graph.node(id).inputs.len()).map(|k| self.scaled_operand(id, k)).collect()
    }

    fn place(&self, id: NodeId) -> Result<Place, FloatWhy> {
        let owner = output_owner(self.q, id).or_else(|| self.quantized_behind(id)).ok_or(FloatWhy::Unquantized {})?;
        let layer = self.q.layers.get(&owner);
        let quantizer = layer.and_then(|l| l.result()).ok_or(FloatWhy::Unquantized {})?;
        let (kind, scale) = match Self::int8(Some(quantizer)) {
            Ok(pos) => (Kind::Fixed(pos), Scale::of_position(pos)),
            Err(why) => scale(quantizer).map(|scale| (Kind::Scaled(scale), scale)).ok_or(why)?,
        };
        let before = matches!(layer.map(|l| &l.activation), Some(ActivationQuant::Before(_)));
        let mut place = Place { owner, kind, scale, bounds: [scale.low, scale.high], function: None };
        let relu = |max: Option<f32>| {
            let high = max.map_or(scale.high, |max| scale.quantize(max).min(scale.high));
            Some([scale.zero, high.max(scale.zero)])
        };
        // What only quantizes leaves the activation to the layer.
        let last = if matches!(self.q.graph.node(owner).op, Op::Quantize(_)) { id } else { owner };
        let act = match &self.q.graph.node(last).op {
            Op::Relu(r) if r.negative_slope == 0.0 && r.threshold == 0.0 => relu(r.max_value),
            Op::Relu(_) | Op::LeakyRelu(_) => None,
            op => match op.layer().activation() {
                ActivationFn::Linear => Some(place.bounds),
                ActivationFn::Relu => relu(None),
                ActivationFn::Relu6 => relu(Some(6.0)),
                function if before => {
                    place.function = Some(function);
                    Some(place.bounds)
                }
                _ => None,
            },
        };
        place.bounds = act.ok_or(FloatWhy::Activation {})?;
        Ok(place)
    }

    /// The node that quantizes a layer's result, if nothing else reads it.
    fn quantized_behind(&self, id: NodeId) -> Option<NodeId> {
        let graph = &self.q.graph;
        let mut readers = graph.ids().filter(|c| graph.node(*c).inputs.contains(&id));
        let only = readers.next().filter(|_| readers.next().is_none() && !graph.outputs.contains(&id))?;
        matches!(graph.node(only).op, Op::Quantize(_)).then_some(only)
    }

    /// Emits an op whose result goes to `place`.
    fn put(&mut self, id: NodeId, place: &Place, inputs: Vec<(TensorIx, Scale)>, op: ScaledOp) -> Result<(), FloatWhy> {
        let (inputs, scales): (Vec<TensorIx>, Vec<Scale>) = inputs.into_iter().unzip();
        if !op.is_exact(&scales) {
            return Err(FloatWhy::Steps {});
        }
        let mut name = self.q.quant_name(place.owner);
        if place.function.is_some() {
            name += "_input";
        }
        let own = place.owner == id || matches!(self.q.graph.node(place.owner).op, Op::Quantize(_));
        let tensor = self.tensor(name, self.q.graph.node(place.owner), place.kind);
        let from: &[NodeId] = if own { &[id] } else { &[id, place.owner] };
        self.push(IntOpKind::Scaled(Box::new(op)), inputs, tensor, from);
        self.value.insert(id, tensor);
        match place.function {
            Some(ActivationFn::Softmax) => return self.softmax(place.owner, tensor),
            Some(function) => {
                let why = FloatWhy::Function { function };
                self.float_op(place.owner, Op::Activation(Activate { function }), vec![tensor], why);
            }
            None => drop(self.value.insert(place.owner, tensor)),
        }
        Ok(())
    }

    fn weight(&self, id: NodeId, k: usize, tensor: &Tensor) -> Result<Weight, FloatWhy> {
        let name = || self.q.graph.node(id).op.layer().weights().get(k).map_or("weight", |(name, _)| *name).to_owned();
        let own = self.q.layers.get(&id).and_then(|l| l.weights.get(k)).and_then(Option::as_ref);
        let foreign = |seen| FloatWhy::WeightScheme { name: name(), seen };
        match own.ok_or_else(|| FloatWhy::FloatWeight { name: name() })? {
            Quantizer::Affine(own) => {
                let integers = own.integers(tensor).ok_or_else(|| foreign(FLOAT_SCALE))?;
                let channels = Channels::of(tensor.shape(), own.params.channel_axis);
                let steps = own.steps();
                let of = |i: usize| {
                    let channel = if own.params.per_channel { channels.of_element(i) } else { 0 };
                    steps.get(channel).copied().unwrap_or_default()
                };
                let less = |(i, q): (usize, &i32)| i16::try_from(*q - of(i).1 as i32).ok();
                let all = integers.iter().enumerate().map(less).collect::<Option<Vec<i16>>>();
                let integers = all.ok_or_else(|| foreign("more than 16 bits"))?;
                Ok(Weight { steps: (0..integers.len()).map(|i| of(i).0).collect(), integers })
            }
            Quantizer::Pof2(own) => {
                let p = &own.params;
                let spec =
                    own.spec().filter(|_| p.is_plain() && p.bit_width <= 16 && !(p.unsigned && p.bit_width == 16));
                let (Some(spec), Rounding::Plain(round)) = (spec, p.rounding()) else {
                    return Err(foreign("positions per channel, a zero point or FixNeuron arithmetic"));
                };
                let low = p.bounds().0 as i32;
                let integers = tensor.data().iter().map(|x| quantize(*x, spec, round).max(low) as i16).collect();
                Ok(Weight { steps: vec![spec.pos.step(); tensor.data().len()], integers })
            }
            Quantizer::Tqt(_) | Quantizer::Block(_) => Err(foreign("no integers")),
        }
    }

    fn scaled_conv(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let (input, from) = self.scaled_operand(id, 0)?;
        let weights = node.op.layer().weights();
        let (_, kernel) = weights.first().ok_or(FloatWhy::NoKernel {})?;
        let Weight { mut integers, mut steps } = self.weight(id, 0, kernel)?;
        if let Op::Conv2DTranspose(c) = &node.op {
            integers = outputs_last(&integers, c.w.kernel.shape());
            steps = outputs_last(&steps, c.w.kernel.shape());
        }
        let bias = weights.get(1).map(|(_, bias)| self.fake_quantized(id, 1, bias));
        let Geometry { window, input: input_dims, output, groups } = self.geometry(id)?;
        // With one output for each channel it is a convolution with a group for each channel.
        let groups = if matches!(node.op, Op::DepthwiseConv2D(_)) { input_dims[2] } else { groups };
        let place = self.place(id)?;
        let oc = output[2];
        let wide = from.is_wide() || place.scale.is_wide() || integers.iter().any(|w| i8::try_from(*w).is_err());
        let mut channels = Vec::with_capacity(oc);
        for o in 0..oc {
            let step = f64::from(steps.get(o).copied().unwrap_or_default());
            if steps.iter().skip(o).step_by(oc).any(|own| f64::from(*own) != step) {
                let name = weights.first().map_or("kernel", |(name, _)| *name).to_owned();
                return Err(FloatWhy::WeightScheme { name, seen: "steps that differ within an output channel" });
            }
            let bias = f64::from(bias.as_ref().and_then(|b| b.data().get(o).copied()).unwrap_or_default());
            let (from, to) = (f64::from(from.step()), f64::from(place.scale.step()));
            // Of integers of 9 bits and more, biases have 64 bits.
            let least = if wide { 0.0 } else { (to / from * LEAST_FACTOR).max(bias.abs() / (from * MOST_BIAS)) };
            let coarse = step.max(least);
            let coarse = if coarse == 0.0 { to / from * LEAST_FACTOR } else { coarse };
            if coarse != step {
                let own = integers.iter_mut().skip(o).step_by(oc);
                own.for_each(|w| *w = (f64::from(*w) * step / coarse).round() as i16);
            }
            let multiplier = Multiplier::of(from * coarse / to).ok_or(FloatWhy::Steps {})?;
            let bias = (bias / (from * coarse)).round();
            if bias.abs() >= (1i64 << 61) as f64 {
                return Err(FloatWhy::Steps {});
            }
            channels.push(Channel { bias: bias as i64, multiplier });
        }
        let transposed = matches!(node.op, Op::Conv2DTranspose(_));
        let (input_of, bounds) = (input_dims, place.bounds);
        let conv =
            ScaledConv { window, input: input_of, output, kernel: integers, groups, transposed, channels, bounds };
        self.put(id, &place, vec![(input, from)], ScaledOp::Conv(conv))
    }

    /// A weight of index `k` as its quantizer leaves it, if it has one.
    fn fake_quantized(&self, id: NodeId, k: usize, tensor: &Tensor) -> Tensor {
        let mut tensor = tensor.clone();
        if let Some(Some(own)) = self.q.layers.get(&id).and_then(|l| l.weights.get(k)) {
            own.scheme().fake_quantize(&mut tensor);
        }
        tensor
    }

    fn scaled_pool(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let (input, from) = self.scaled_operand(id, 0)?;
        let shape = self.out.tensors[input.0].shape.clone();
        let own = |window: Result<Window, String>| window.map_err(|text| FloatWhy::Window { text });
        let (window, average) = match &node.op {
            Op::MaxPooling2D(p) => (own(p.pool.window(&shape))?, None),
            Op::AveragePooling2D(p) => (own(p.pool.window(&shape))?, Some(p.dpu_factor(&node.shape))),
            Op::GlobalAveragePooling2D(p) => {
                let side = |axis: usize| shape.get(axis).and_then(|d| u16::try_from(*d).ok());
                let kernel = side(0).zip(side(1)).ok_or(FloatWhy::AverageWindow {})?;
                (Window { kernel: kernel.into(), ..Window::POINT }, Some(p.dpu_factor(&shape)))
            }
            _ => return Err(FloatWhy::Strategy {}),
        };
        let place = self.place(id)?;
        let factor = f64::from(from.step()) / f64::from(place.scale.step());
        let taps = window.kernel.map(usize::from).iter().product::<usize>();
        let padded = window.pad_before != [0, 0] || window.pad_after != [0, 0];
        let (pooling, counts) = match (average, padded) {
            (None, _) => (ScaledPooling::Max, 1..=1),
            (Some(_), false) => (ScaledPooling::Sum, taps..=taps),
            (Some(_), true) => (ScaledPooling::Counted, 1..=taps),
        };
        let scale = f64::from(average.unwrap_or(1.0));
        let multiplier = |n: usize| Multiplier::of(factor * scale / n as f64).ok_or(FloatWhy::Steps {});
        let multipliers = counts.map(multiplier).collect::<Result<Vec<_>, _>>()?;
        let op = ScaledOp::Pool { window, pooling, multipliers, bounds: place.bounds };
        self.put(id, &place, vec![(input, from)], op)
    }

    /// A sum, and a requantization as a sum of one.
    fn scaled_sum(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let node = self.q.graph.node(id);
        let operands = self.scaled_operands(id)?;
        if node.inputs.iter().any(|i| self.q.graph.node(*i).shape != node.shape) {
            return Err(FloatWhy::Shapes {});
        }
        let place = self.place(id)?;
        let op = sum(&operands, &place.scale, place.bounds)?;
        self.put(id, &place, operands, op)
    }

    fn scaled_product(&mut self, id: NodeId) -> Result<(), FloatWhy> {
        let operands = self.scaled_operands(id)?;
        let [(_, a), (_, b)] = operands[..] else { return Err(FloatWhy::Factors {}) };
        let place = self.place(id)?;
        let factor = f64::from(a.step()) * f64::from(b.step()) / f64::from(place.scale.step());
        let multiplier = Multiplier::of(factor).ok_or(FloatWhy::Steps {})?;
        let op = ScaledOp::Product { multiplier, bounds: place.bounds };
        self.put(id, &place, operands, op)
    }

    fn scaled_concat(&mut self, id: NodeId, axis: usize) -> Result<(), FloatWhy> {
        let operands = self.scaled_operands(id)?;
        let place = self.place(id)?;
        let to = f64::from(place.scale.step());
        let of = |(_, from): &(TensorIx, Scale)| Multiplier::of(f64::from(from.step()) / to).ok_or(FloatWhy::Steps {});
        let multipliers = operands.iter().map(of).collect::<Result<Vec<_>, _>>()?;
        let op = ScaledOp::Concat { axis, multipliers, bounds: place.bounds };
        self.put(id, &place, operands, op)
    }

    /// A layer that moves values, whose result is requantized if it has a quantizer of its own.
    fn scaled_move(&mut self, id: NodeId, kind: IntOpKind) -> Result<(), FloatWhy> {
        let (input, from) = self.scaled_operand(id, 0)?;
        let own = self.q.layers.get(&id).is_some_and(|l| l.result().is_some());
        let place = own.then(|| self.place(id)).transpose()?;
        let requantized = place.as_ref().map(|place| sum(&[(input, from)], &place.scale, place.bounds)).transpose()?;
        self.moved(id, input, kind);
        let (Some(place), Some(op)) = (place, requantized) else { return Ok(()) };
        let moved = self.operand_of(id)?;
        self.out.tensors[moved.0].name += "_moved";
        self.put(id, &place, vec![(moved, from)], op)
    }

    /// The tensor of a node that has been lowered.
    fn operand_of(&self, id: NodeId) -> Result<TensorIx, FloatWhy> {
        self.value.get(&id).copied().ok_or(FloatWhy::NoOperand {})
    }
}

/// A sum with one shift for all operands: that of the largest factor.
fn sum(operands: &[(TensorIx, Scale)], to: &Scale, bounds: [i16; 2]) -> Result<ScaledOp, FloatWhy> {
    let factors: Vec<f64> = operands.iter().map(|(_, s)| f64::from(s.step()) / f64::from(to.step())).collect();
    let largest = Multiplier::of(factors.iter().copied().fold(0.0, f64::max)).ok_or(FloatWhy::Steps {})?;
    let unit = |factor: &f64| Multiplier::in_units(*factor, largest.n).ok_or(FloatWhy::Steps {});
    let factors = factors.iter().map(unit).collect::<Result<Vec<_>, _>>()?;
    Ok(ScaledOp::Sum { factors, n: largest.n, bounds })
}
