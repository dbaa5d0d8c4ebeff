//! One walk through a network, for several samples side by side: layer after layer, each run once for every sample.
//!
//! What was computed is kept only until its last reader has run, and sample by sample, so that the network's widest place
//! decides the memory.

use rayon::prelude::*;

use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{Point, Points as _};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::Stored;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_tensor::tensor::Tensor;

/// Results of layers, one tensor for each sample, as batches of one.
#[derive(Clone, Debug)]
pub(super) struct Values {
    all: Vec<Vec<Tensor>>,
    left: Vec<usize>,
}

impl Values {
    /// Nothing computed yet but the inputs: for each sample one tensor for each of the network's inputs.
    pub(super) fn new(graph: &Graph, inputs: &[Vec<Tensor>]) -> Self {
        let mut all = vec![Vec::new(); graph.nodes.len()];
        for (k, id) in graph.inputs.iter().enumerate() {
            all[id.0] = inputs.iter().filter_map(|sample| sample.get(k).cloned()).collect();
        }
        Self { all, left: graph.uses() }
    }

    /// What a layer gave, for each sample.
    pub(super) fn of(&self, id: NodeId) -> &[Tensor] {
        &self.all[id.0]
    }

    /// Takes in what a layer gave, and drops what nobody reads any more.
    pub(super) fn set(&mut self, graph: &Graph, id: NodeId, results: Vec<Tensor>) {
        self.all[id.0] = results;
        for input in &graph.node(id).inputs {
            self.left[input.0] -= 1;
            if self.left[input.0] == 0 {
                self.all[input.0] = Vec::new();
            }
        }
    }

    /// Computes a layer up to its activation attribute, for every sample. With `last`, an input that no other layer reads goes
    /// sample by sample as its result comes.
    pub(super) fn linear(
        &mut self,
        graph: &Graph,
        id: NodeId,
        weights: &[Tensor],
        quantized: Option<&QuantGraph>,
        last: bool,
    ) -> Result<Vec<Tensor>, Error> {
        let node = graph.node(id);
        if matches!(node.op, Op::Input(_)) {
            return Ok(self.all[id.0].clone());
        }
        let own: Vec<&Tensor> = weights.iter().collect();
        let eval = |inputs: &[&Tensor]| -> Result<Tensor, Error> {
            let Some(q) = quantized.filter(|q| Stored(q).reads(id)) else {
                return Ok(node.op.layer().eval(inputs, &own));
            };
            let read = |(k, x): (usize, &&Tensor)| {
                let mut x = (*x).clone();
                Stored(q).apply(Point::Input(id, k), &mut x).map(|()| x)
            };
            let read = inputs.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
            Ok(node.op.layer().eval(&read.iter().collect::<Vec<_>>(), &own))
        };
        match node.inputs[..] {
            [input] if last && self.left[input.0] == 1 => {
                let samples = std::mem::take(&mut self.all[input.0]);
                samples.into_par_iter().map(|x| eval(&[&x])).collect()
            }
            _ => {
                let samples = node.inputs.iter().map(|i| self.all[i.0].len()).min().unwrap_or(0);
                let one = |k: usize| eval(&node.inputs.iter().map(|i| &self.all[i.0][k]).collect::<Vec<_>>());
                (0..samples).into_par_iter().map(one).collect()
            }
        }
    }
}

/// The rest of a layer: activation and quantizers, in place.
pub(super) fn finish(
    graph: &Graph,
    id: NodeId,
    quantized: Option<&QuantGraph>,
    results: &mut [Tensor],
) -> Result<(), Error> {
    let function = graph.node(id).op.layer().activation();
    results.par_iter_mut().try_for_each(|y| {
        let at = |point: Point, y: &mut Tensor| quantized.map_or(Ok(()), |q| Stored(q).apply(point, y));
        at(Point::PreActivation(id), y)?;
        function.apply(y);
        at(Point::PostActivation(id), y)?;
        at(Point::Output(id), y)
    })
}

/// Adds a bias to the last axis.
pub(super) fn add_bias(results: &mut [Tensor], bias: &[f32]) {
    results.par_iter_mut().for_each(|y| {
        for pixel in y.data_mut().chunks_exact_mut(bias.len().max(1)) {
            pixel.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    });
}
