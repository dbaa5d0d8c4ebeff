//! The golden dump: every tensor of a quantized network on given samples.

use std::collections::BTreeMap;

use crate::dump;
use crate::dump::{Dump, DumpTensor, Values};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{Point, Points};
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::Op;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntGraph, Kind};
use shiftwise_integer::lower;
use shiftwise_quant::eval::{Stored, quantized_weights};
use shiftwise_quant::layer_quant::ActivationQuant;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::scheme::channels::Channels;
use shiftwise_tensor::tensor::Tensor;

/// Which arithmetic; see [`shiftwise_graph::eval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numerics {
    /// Exact integers: what the simulator, the firmware and the DPU compute.
    Dpu,
    /// TensorFlow's f32 operations: the bytes of the vendor's own dump.
    Vendor,
}

/// What to dump.
#[derive(Clone, Copy, Debug, Default)]
pub struct DumpOptions {
    /// Every layer's floats too.
    pub float: bool,
    /// No activations.
    pub weights_only: bool,
    /// Leave out what the vendor's tool doesn't write: some weights, quantized custom layers.
    pub vendor_gaps: bool,
}

/// Dumps a quantized network on a batch; without `inputs` (weights only) no layer runs.
pub fn golden(
    q: &QuantGraph,
    inputs: Option<Vec<Tensor>>,
    numerics: Numerics,
    options: &DumpOptions,
) -> Result<Dump, Error> {
    let mut all = Dump { weights: dump::weights(q, options.vendor_gaps), activations: Vec::new() };
    if options.float {
        all.weights.extend(float_weights(q));
    }
    let Some(inputs) = inputs.filter(|_| !options.weights_only) else { return Ok(all) };
    shiftwise_graph::eval::needs(&q.graph).check(1)?;
    let exact = match numerics {
        Numerics::Dpu => exact(&lower::lower(q)?, &inputs)?,
        Numerics::Vendor => BTreeMap::new(),
    };
    let mut floats = Floats { q, options, exact, tensors: Vec::new() };
    // The layers that the integer form fuses away only exist in floats, so those run for `--dump-float` too.
    if numerics == Numerics::Vendor || options.float {
        shiftwise_graph::eval::run(&q.graph, &quantized_weights(q), inputs, &mut floats)?;
    } else {
        for id in q.graph.ids() {
            floats.write(id, None);
        }
    }
    all.activations = floats.tensors;
    Ok(all)
}

/// Every tensor of the integer form on a batch: samples one after the other.
fn exact(graph: &IntGraph, inputs: &[Tensor]) -> Result<BTreeMap<String, (Values, Kind)>, Error> {
    let engine = Engine::new(graph);
    let n = inputs.first().map_or(0, |t| t.shape()[0]);
    let mut all: BTreeMap<String, (Values, Kind)> = BTreeMap::new();
    for sample in 0..n {
        for (tensor, value) in graph.tensors.iter().zip(engine.run(engine.sample(inputs, sample)?, |_| true)) {
            let Some(value) = value else { continue };
            let first = match all.get_mut(&tensor.name) {
                Some((all, _)) => all.append(value).err(),
                None => Some(value),
            };
            if let Some(value) = first {
                all.insert(tensor.name.clone(), (value, tensor.kind));
            }
        }
    }
    Ok(all)
}

fn float_weights(q: &QuantGraph) -> Vec<DumpTensor> {
    let mut all = Vec::new();
    for (id, layer) in &q.layers {
        let weights = q.graph.node(*id).op.layer().weights();
        for ((name, w), own) in weights.iter().zip(&layer.weights) {
            if own.is_some() {
                let name = format!("{}/{name}", q.quant_name(*id));
                all.push(DumpTensor { name, values: Values::Float(w.data().to_vec()) });
            }
        }
    }
    all
}

struct Floats<'a> {
    q: &'a QuantGraph,
    options: &'a DumpOptions,
    exact: BTreeMap<String, (Values, Kind)>,
    tensors: Vec<DumpTensor>,
}

impl Points for Floats<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        Stored(self.q).apply(point, tensor)
    }
    fn reads(&self, id: NodeId) -> bool {
        Stored(self.q).reads(id)
    }
    fn done(&mut self, id: NodeId, tensor: &Tensor) {
        self.write(id, Some(tensor));
    }
    fn wants(&self, _: NodeId) -> bool {
        true
    }
}

impl Floats<'_> {
    /// Writes what the vendor's dump has for one layer: integers where its result is quantized, floats where only its
    /// input is, floats of everything with `float`.
    fn write(&mut self, id: NodeId, float: Option<&Tensor>) {
        let name = self.q.quant_name(id);
        let layer = self.q.layers.get(&id);
        let before = matches!(layer.map(|l| &l.activation), Some(ActivationQuant::Before(_)));
        let exact = self.exact.get(&name);
        let float = match (exact, float) {
            (Some((values, kind)), _) => Some(kind.reals(values)),
            (None, float) => float.map(|tensor| tensor.data().to_vec()),
        };
        if let Some(quantizer) = layer.and_then(|l| l.result())
            && (!before || self.options.float)
            && !(self.options.vendor_gaps && matches!(self.q.graph.node(id).op, Op::Custom(_)))
        {
            let integers = match (exact, &float) {
                (Some((Values::Int8(q), _)), _) => Some(q.clone()),
                (_, Some(x)) => cast(quantizer, x, &self.q.graph.node(id).shape),
                _ => None,
            };
            self.tensors.extend(integers.map(|q| DumpTensor { name: name.clone(), values: Values::Int8(q) }));
            let own = |x: &Vec<f32>| {
                let batch = x.len() / self.q.graph.node(id).shape.iter().product::<usize>().max(1);
                let shape = [&[batch], self.q.graph.node(id).shape.as_slice()].concat();
                quantizer.scheme().integers(&Tensor::new(shape, x.clone())?)
            };
            let integers = match exact {
                Some((Values::Int16(q), _)) => Some(q.iter().map(|q| (*q).into()).collect()),
                _ => float.as_ref().filter(|_| !self.options.vendor_gaps && !before).and_then(own),
            };
            self.tensors.extend(integers.map(|q| DumpTensor { name: name.clone(), values: Values::Int32(q) }));
        }
        if let Some(x) = float
            && (self.options.float || before)
        {
            self.tensors.push(DumpTensor { name, values: Values::Float(x) });
        }
    }
}

/// The vendor's cast to integers: no rounding, wraps at 256. `None` for a scheme that its dumps have no integers of.
/// `shape` is the tensor's, without the batch.
fn cast(quantizer: &Quantizer, values: &[f32], shape: &[usize]) -> Option<Vec<i8>> {
    let factors = quantizer.scheme().dump_factors();
    let first = factors.first()?;
    let integer = |x: f32, factor: f32| (x * factor) as i64 as i8;
    let Some(axis) = quantizer.scheme().channel_axis() else {
        return Some(values.iter().map(|x| integer(*x, *first)).collect());
    };
    let channels = Channels::of(&[&[1], shape].concat(), axis);
    let factor = |i: usize| factors.get(channels.of_element(i)).copied().unwrap_or(1.0);
    Some(values.iter().enumerate().map(|(i, x)| integer(*x, factor(i))).collect())
}
