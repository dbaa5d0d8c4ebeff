//! A graph with quantizers.
//!
//! [`QuantGraph`] is the graph after the quantize stage: nodes named as the user's layers, with explicit
//! [`Quantize`](shiftwise_graph::ops::Quantize) nodes where the vendor's tool inserts them, and a side table of what is
//! quantized in each layer. A node with an entry is *wrapped*: in the quantized model it is called `quant_<name>`.

use std::collections::BTreeMap;

use crate::layer_quant::{ActivationQuant, LayerQuant};
use crate::metadata::Metadata;
use crate::scheme::Quantizer;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

/// A quantized network.
#[derive(Clone, Debug)]
pub struct QuantGraph {
    /// The layers, with unquantized float weights.
    pub graph: Graph,
    /// What is quantized. A node without an entry is float.
    pub layers: BTreeMap<NodeId, LayerQuant>,
    /// What travels with it beside its numbers.
    pub metadata: Metadata,
    /// Whether it comes from training: files keep the vendor's mode of such networks.
    pub trained: bool,
}

/// The layer that a point belongs to.
pub(crate) fn node_of(point: Point) -> NodeId {
    let (Point::Input(id, _) | Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
    id
}

impl QuantGraph {
    /// Whether any quantizer learns from data.
    pub fn learns(&self) -> bool {
        self.layers.values().flat_map(LayerQuant::all).any(|own| own.scheme().learns())
    }

    /// The quantizer that sits at a point.
    pub fn quantizer(&self, point: Point) -> Option<&Quantizer> {
        let id = node_of(point);
        let layer = self.layers.get(&id)?;
        match (point, &layer.activation) {
            (Point::PreActivation(_), ActivationQuant::Before(q))
            | (Point::PostActivation(_), ActivationQuant::After(q)) => Some(q),
            (Point::Input(..), _) => layer.input.as_ref(),
            (Point::Output(_), _) => layer.output.as_ref(),
            (Point::PreActivation(_) | Point::PostActivation(_), _) => None,
        }
    }

    /// [`QuantGraph::quantizer`], writable.
    pub fn quantizer_mut(&mut self, point: Point) -> Option<&mut Quantizer> {
        let id = node_of(point);
        let layer = self.layers.get_mut(&id)?;
        match (point, &mut layer.activation) {
            (Point::PreActivation(_), ActivationQuant::Before(q))
            | (Point::PostActivation(_), ActivationQuant::After(q)) => Some(q),
            (Point::Input(..), _) => layer.input.as_mut(),
            (Point::Output(_), _) => layer.output.as_mut(),
            (Point::PreActivation(_) | Point::PostActivation(_), _) => None,
        }
    }

    /// The layer's name in the quantized model.
    pub fn quant_name(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        match (&node.op, self.layers.contains_key(&id)) {
            (Op::Quantize(_), _) | (_, false) => node.name.clone(),
            (_, true) => format!("quant_{}", node.name),
        }
    }

    /// Fails if two layers would have one name in the quantized model: a layer called `quant_a` beside a quantized `a`.
    pub fn check_names(&self) -> Result<(), Error> {
        let mut seen: BTreeMap<String, NodeId> = BTreeMap::new();
        for id in self.graph.ids() {
            let (node, name) = (self.graph.node(id), self.quant_name(id));
            if let Some(other) = seen.insert(name.clone(), id) {
                let other = &self.graph.node(other).name;
                let message = format!("it is called `{name}` in the quantized model, and so is `{other}`");
                return Err(Error::layer(&node.name, node.op.class(), message));
            }
        }
        Ok(())
    }
}

/// A model of either kind.
#[derive(Clone, Debug)]
pub enum Model {
    /// Before quantization.
    Float(Graph),
    /// After it.
    Quantized(QuantGraph),
}
