//! What sits on a network's tensors in a step of training: quantizers that learn, convolutions with their normalization,
//! Dropout, and losses that reach behind the last softmax or sigmoid.

use std::collections::{BTreeMap, BTreeSet};

use crate::conv_norm;
use crate::conv_norm::Correction;
use crate::random::Random;
use crate::seat::Seat;
use shiftwise_graph::attributes::Attribute;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{Point, Points, Visit};
use shiftwise_graph::graph::{Graph, Node, NodeId};
use shiftwise_graph::ops::{ActivationFn, Op};
use shiftwise_quant::layer_quant::LayerQuant;
use shiftwise_quant::qat::ConvNorm;
use shiftwise_quant::scheme::{Quantizer, RangeError};
use shiftwise_tensor::tensor::Tensor;

/// The points of one step.
pub(crate) struct StepPoints<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) layers: &'a mut BTreeMap<NodeId, LayerQuant>,
    pub(crate) norms: &'a mut BTreeMap<NodeId, ConvNorm>,
    pub(crate) correction: Correction,
    /// What Dropout draws from.
    pub(crate) random: Random,
    /// Outputs whose loss reads what their last function is given; that tensor, and then its gradient.
    pub(crate) fused: BTreeMap<NodeId, Option<Tensor>>,
    /// Quantizers that quantized in this step.
    worked: BTreeSet<(NodeId, Seat)>,
    /// Gradients of quantizers' variables.
    pub(crate) parts: BTreeMap<(NodeId, Seat), f32>,
    /// What normalized convolutions keep, and then their gradients.
    steps: BTreeMap<NodeId, conv_norm::Step>,
    pub(crate) norm_gradients: BTreeMap<NodeId, conv_norm::Gradients>,
    /// What each Dropout multiplied by.
    masks: BTreeMap<NodeId, Vec<f32>>,
    /// How the pass comes to the layers.
    visit: Visit,
    /// Quantizers that didn't quantize in this step.
    idle: BTreeSet<(NodeId, Seat)>,
}

/// Whether gradients pass a quantizer as if it weren't there.
fn is_straight(own: &Quantizer) -> bool {
    match own {
        Quantizer::Pof2(_) | Quantizer::Block(_) => true,
        Quantizer::Affine(_) | Quantizer::Tqt(_) => false,
    }
}

/// The share of values that a layer drops.
fn drop_rate(node: &Node) -> Option<f32> {
    let Op::Dropout(layer) = &node.op else { return None };
    match node.extras.get("rate") {
        Some(Attribute::Number(rate)) if layer.is_plain() && *rate > 0.0 => Some(*rate as f32),
        _ => None,
    }
}

/// A value that isn't finite, in a sentence with its remedy.
fn cant(node: &Node, what: &str, why: RangeError) -> Error {
    let why = match why {
        RangeError::NotFinite => {
            format!(
                "its {what} is not finite; train with a smaller rate (--lr), or from calibrated positions (--init-quant)"
            )
        }
        RangeError::Negative | RangeError::Bins => format!("its {what} can't be quantized: {why}"),
    };
    Error::layer(&node.name, node.op.class(), why)
}

impl<'a> StepPoints<'a> {
    pub(crate) fn new(
        (graph, layers, norms): (&'a Graph, &'a mut BTreeMap<NodeId, LayerQuant>, &'a mut BTreeMap<NodeId, ConvNorm>),
        correction: Correction,
        random: Random,
        fused: impl Iterator<Item = NodeId>,
    ) -> Self {
        Self {
            graph,
            layers,
            norms,
            correction,
            random,
            fused: fused.map(|id| (id, None)).collect(),
            worked: BTreeSet::new(),
            parts: BTreeMap::new(),
            steps: BTreeMap::new(),
            norm_gradients: BTreeMap::new(),
            masks: BTreeMap::new(),
            visit: Visit::Once,
            idle: BTreeSet::new(),
        }
    }

    /// Quantizes a layer's own tensor as training does.
    pub(crate) fn quantize_weight(&mut self, id: NodeId, k: usize, weight: &mut Tensor) -> Result<(), Error> {
        let node = self.graph.node(id);
        let Some(own) = self.layers.get_mut(&id).and_then(|layer| layer.weights.get_mut(k)?.as_mut()) else {
            return Ok(());
        };
        let name = node.op.layer().weights().get(k).map_or("weight", |(name, _)| *name);
        if own.scheme_mut().train(weight).map_err(|why| cant(node, name, why))? && !is_straight(own) {
            self.worked.insert((id, Seat::Weight(k)));
        }
        Ok(())
    }

    /// The gradient of a layer's own tensor from that of what was made of it.
    pub(crate) fn weight_gradient(&mut self, id: NodeId, k: usize, weight: &Tensor, gradient: Tensor) -> Tensor {
        self.through((id, Seat::Weight(k)), weight, &gradient).unwrap_or(gradient)
    }

    /// The gradient before a quantizer that worked in this step; those of its variables are noted.
    fn through(&mut self, at: (NodeId, Seat), x: &Tensor, dy: &Tensor) -> Option<Tensor> {
        if !self.worked.contains(&at) {
            return None;
        }
        let own = at.1.quantizer(self.layers.get(&at.0)?)?;
        let found = own.scheme().backward(x, dy);
        for (name, gradient) in found.parts {
            self.note(at, name, gradient.iter().sum());
        }
        Some(found.tensor)
    }

    /// Adds a gradient of a quantizer's variable, if training changes it.
    fn note(&mut self, at: (NodeId, Seat), name: &str, gradient: f32) {
        let Some(own) = self.layers.get(&at.0).and_then(|layer| at.1.quantizer(layer)) else { return };
        if own.scheme().parts().iter().any(|part| part.trained && part.name == name) {
            *self.parts.entry(at).or_default() += gradient;
        }
    }

    /// Whether a node's activation attribute is the function whose input a loss reads.
    fn is_fused_attribute(&self, id: NodeId) -> bool {
        let function = self.graph.node(id).op.layer().activation();
        self.fused.contains_key(&id) && function != ActivationFn::Linear
    }
}

impl Points for StepPoints<'_> {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        if let Some(layer) = self.layers.get_mut(&id)
            && let Some(seat) = Seat::at(layer, point)
            && let Some(own) = seat.quantizer_mut(layer)
        {
            if self.visit == Visit::Second {
                // What the quantizer has learned in this step is of this very tensor.
                if !self.idle.contains(&(id, seat)) {
                    own.scheme().fake_quantize(tensor);
                }
                return Ok(());
            }
            let quantized = own.scheme_mut().train(tensor).map_err(|why| cant(self.graph.node(id), "result", why))?;
            if !quantized {
                self.idle.insert((id, seat));
            } else if !is_straight(own) {
                self.worked.insert((id, seat));
            }
        }
        if self.visit != Visit::Second && matches!(point, Point::PreActivation(_)) && self.is_fused_attribute(id) {
            self.fused.insert(id, Some(tensor.clone()));
        }
        Ok(())
    }

    fn reads(&self, id: NodeId) -> bool {
        self.layers.get(&id).is_some_and(LayerQuant::reads)
    }

    fn compute(&mut self, id: NodeId, inputs: &[&Tensor]) -> Result<Option<Tensor>, Error> {
        let node = self.graph.node(id);
        let [x] = inputs else { return Ok(None) };
        if let (Some(own), Some(quant)) = (self.norms.get_mut(&id), self.layers.get_mut(&id)) {
            let (y, step) = conv_norm::forward(&node.op, own, quant, x, (self.correction, self.visit))
                .map_err(|why| cant(node, "kernel or bias", why))?;
            match self.visit {
                Visit::First => step.recycle(),
                Visit::Once | Visit::Second => drop(self.steps.insert(id, step)),
            }
            return Ok(Some(y));
        }
        if let Some(rate) = drop_rate(node) {
            let keep = 1.0 / (1.0 - rate);
            let mut random = self.random.stream(id.0 as u64);
            let mut y = (*x).clone();
            let mask: Vec<f32> =
                (0..y.data().len()).map(|_| if random.unit() >= f64::from(rate) { keep } else { 0.0 }).collect();
            y.data_mut().iter_mut().zip(&mask).for_each(|(v, m)| *v *= m);
            if self.visit != Visit::First {
                self.masks.insert(id, mask);
            }
            return Ok(Some(y));
        }
        if self.visit != Visit::Second && matches!(node.op, Op::Softmax(_)) && self.fused.contains_key(&id) {
            self.fused.insert(id, Some((*x).clone()));
        }
        Ok(None)
    }

    fn visit(&mut self, visit: Visit) {
        self.visit = visit;
    }

    /// A normalized convolution keeps what it gives unquantized and quantized.
    fn keeps(&self, id: NodeId) -> usize {
        if self.norms.contains_key(&id) { 2 } else { 0 }
    }

    fn differentiate(
        &mut self,
        id: NodeId,
        dy: &Tensor,
        wanted: &[bool],
    ) -> Result<Option<Vec<Option<Tensor>>>, Error> {
        let node = self.graph.node(id);
        if let Some(step) = self.steps.remove(&id)
            && let (Some(own), Some(quant)) = (self.norms.get(&id), self.layers.get(&id))
        {
            let wanted = wanted.first().copied().unwrap_or(false);
            let mut found = conv_norm::backward(&node.op, own, quant, &step, dy, wanted)?;
            for (seat, name, gradient) in std::mem::take(&mut found.parts) {
                self.note((id, seat), name, gradient);
            }
            step.recycle();
            let x = found.x.take();
            self.norm_gradients.insert(id, found);
            return Ok(Some(vec![x]));
        }
        if let Some(mask) = self.masks.remove(&id) {
            let mut dx = dy.clone();
            dx.data_mut().iter_mut().zip(&mask).for_each(|(d, m)| *d *= m);
            return Ok(Some(vec![Some(dx)]));
        }
        match self.fused.get_mut(&id) {
            Some(gradient) if matches!(node.op, Op::Softmax(_)) => Ok(Some(vec![gradient.take()])),
            _ => Ok(None),
        }
    }

    fn differentiates(&self, point: Point) -> bool {
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let quantizer = self.layers.get(&id).and_then(|layer| Seat::at(layer, point)?.quantizer(layer));
        let fused = matches!(point, Point::PreActivation(_)) && self.is_fused_attribute(id);
        fused || quantizer.is_some_and(|own| !is_straight(own))
    }

    fn backward(&mut self, point: Point, x: &Tensor, dy: &mut Tensor) -> Result<(), Error> {
        let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        if matches!(point, Point::PreActivation(_))
            && self.is_fused_attribute(id)
            && let Some(gradient) = self.fused.get_mut(&id).and_then(Option::take)
        {
            *dy = gradient;
        }
        let Some(seat) = self.layers.get(&id).and_then(|layer| Seat::at(layer, point)) else { return Ok(()) };
        if let Some(dx) = self.through((id, seat), x, dy) {
            *dy = dx;
        }
        Ok(())
    }
}
