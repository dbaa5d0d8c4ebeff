//! Evaluating quantized graphs in floats: what the `vendor` numerics are.

use crate::quant_graph::QuantGraph;
use crate::scheme::Quantizer;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval;
use shiftwise_graph::eval::{Change, FloatEngine, Point, Points, SamplePoints};
use shiftwise_graph::graph::NodeId;
use shiftwise_tensor::tensor::Tensor;

/// Applies a graph's quantizers at their stored positions.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a>(pub &'a QuantGraph);

impl Points for Stored<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        if let Some(q) = self.0.quantizer(point) {
            q.scheme().fake_quantize(tensor);
        }
        Ok(())
    }
    fn reads(&self, id: NodeId) -> bool {
        self.0.layers.get(&id).is_some_and(|l| l.reads())
    }
    fn wants(&self, id: NodeId) -> bool {
        self.0.layers.get(&id).is_some_and(|l| l.result().is_some())
    }
}

/// A layer's weights, fake-quantized where its entry says so.
pub fn layer_weights(q: &QuantGraph, id: NodeId) -> Vec<Tensor> {
    let quantizers = q.layers.get(&id).map_or(&[][..], |l| &l.weights);
    let weights = q.graph.node(id).op.layer().weights().into_iter().enumerate();
    let quantized = |(k, (_, w)): (usize, (&str, &Tensor))| {
        let mut w = w.clone();
        if let Some(Some(q)) = quantizers.get(k) {
            q.scheme().fake_quantize(&mut w);
        }
        w
    };
    weights.map(quantized).collect()
}

/// [`layer_weights`] of every layer.
pub fn quantized_weights(q: &QuantGraph) -> Vec<Vec<Tensor>> {
    q.graph.ids().map(|id| layer_weights(q, id)).collect()
}

/// A quantized graph made ready for the `vendor` numerics.
#[derive(Debug)]
pub enum VendorEngine<'a> {
    /// All quantizers of tensors have one position each: sample by sample.
    BySample(FloatEngine<'a>),
    /// With the fake-quantized weights: batch by batch.
    ByBatch(&'a QuantGraph, Vec<Vec<Tensor>>),
}

impl<'a> VendorEngine<'a> {
    /// Quantizes the weights and plans steps and memory.
    pub fn new(q: &'a QuantGraph) -> Self {
        let weights = quantized_weights(q);
        let apart = |point| q.quantizer(point).is_none_or(|q| by_sample(q).is_some());
        let points = |id| [Point::PreActivation(id), Point::PostActivation(id), Point::Output(id)];
        let plain = |id: NodeId| !Stored(q).reads(id) && points(id).into_iter().all(apart);
        match q.graph.ids().all(plain) {
            true => Self::BySample(FloatEngine::with(&q.graph, weights, &Stored(q))),
            false => Self::ByBatch(q, weights),
        }
    }

    /// Runs one batch, as many samples in each input.
    ///
    /// Errors: those of [`eval::run`].
    pub fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        match self {
            Self::BySample(engine) => engine.run(&inputs),
            Self::ByBatch(q, weights) => eval::run(&q.graph, weights, inputs, &mut Stored(q)),
        }
    }
}

impl<'a> SamplePoints<'a> for Stored<'a> {
    fn change(&self, point: Point) -> Option<Change<'a>> {
        self.0.quantizer(point).and_then(by_sample)
    }
    fn wants(&self, id: NodeId) -> bool {
        Points::wants(self, id)
    }
}

/// What a quantizer does to one sample at a time, if that is what it does to a batch.
fn by_sample<'a>(quantizer: &Quantizer) -> Option<Change<'a>> {
    match quantizer {
        Quantizer::Pof2(pof2) => pof2.by_sample().map(|change| Box::new(change) as Change<'a>),
        _ => None,
    }
}

/// Runs a quantized graph on one batch in the `vendor` numerics. A caller with several batches makes a [`VendorEngine`]
/// once.
pub fn run_vendor(q: &QuantGraph, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
    VendorEngine::new(q).run(inputs)
}
