//! A graph with quantizers.
//!
//! [`QuantGraph`] is the graph after the quantize stage: nodes named as the user's layers, with explicit
//! [`Quantize`](shiftwise_graph::ops::Quantize) nodes where the vendor's tool inserts them, and a side table of what is
//! quantized in each layer. A node with an entry is *wrapped*: in the quantized model it is called `quant_<name>`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::layer_quant::Wrapping;
use shiftwise_core::arith::{Round, limits};
use shiftwise_core::fix::{FixPos, FixSpec};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Point;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::Op;

/// How a position is chosen. The numbers are the vendor's `method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The finest position at which no value overflows (0).
    NonOverflow,
    /// Of that one and the four finer ones, the position with the least squared error (1).
    MinMse,
}

/// Settings of a power-of-two quantizer, with the vendor's key names and order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pof2Params {
    /// Width in bits.
    pub bit_width: u8,
    /// See [`Method`].
    pub method: u8,
    /// See [`Round`].
    pub round_mode: u8,
    /// Zero maps to zero.
    #[serde(default = "yes")]
    pub symmetry: bool,
    /// One position per channel.
    #[serde(default)]
    pub per_channel: bool,
    /// Which axis the channels are.
    #[serde(default = "last_axis")]
    pub channel_axis: i64,
    /// The vendor's FixNeuron variant.
    #[serde(default)]
    pub use_fixneuron_quant: u8,
    /// No negative integers.
    #[serde(default)]
    pub unsigned: bool,
    /// Without the most negative integer.
    #[serde(default)]
    pub narrow_range: bool,
}

fn yes() -> bool {
    true
}

fn last_axis() -> i64 {
    -1
}

impl Pof2Params {
    /// Rounding; unknown numbers are refused when the strategy is read.
    pub fn round(&self) -> Round {
        Round::from_id(self.round_mode).unwrap_or(Round::HalfUp)
    }

    /// How the position is chosen.
    pub fn method(&self) -> Method {
        if self.method == 0 { Method::NonOverflow } else { Method::MinMse }
    }

    /// Whether the vendor's FixNeuron arithmetic applies: it knows only signed, symmetric 8 bits of the full range for a
    /// whole tensor. Elsewhere the setting is without effect.
    pub fn fix_neuron(&self) -> bool {
        self.use_fixneuron_quant > 0
            && self.bit_width == 8
            && self.symmetry
            && !(self.unsigned || self.narrow_range || self.per_channel)
    }

    /// The integer range, as the f32 bounds that the vendor's tool clamps to.
    pub fn bounds(&self) -> (f32, f32) {
        let (low, high) = limits(self.bit_width, !self.unsigned);
        let narrow = i64::from(self.narrow_range && !self.unsigned);
        ((low + narrow) as f32, high as f32)
    }
}

/// What a quantizer has learned from data: of the whole tensor, or of one of its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fit {
    /// Fraction bits.
    pub pos: FixPos,
    /// Lower end of the range.
    pub min: f32,
    /// Upper end of the range.
    pub max: f32,
}

/// A quantizer with its state.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantizer {
    /// Settings.
    pub params: Pof2Params,
    /// Fraction bits; final after refinement.
    pub pos: FixPos,
    /// Fraction bits as calibrated, before refinement.
    pub calibrated: FixPos,
    /// Range of the last calibration batch.
    pub min: f32,
    /// Range of the last calibration batch.
    pub max: f32,
    /// State of each channel, if positions are per channel; the fields above then mean nothing.
    pub channels: Vec<Fit>,
}

impl Quantizer {
    /// Not yet calibrated.
    pub fn new(params: Pof2Params) -> Self {
        Self { params, pos: FixPos(0), calibrated: FixPos(0), min: 0.0, max: 0.0, channels: Vec::new() }
    }

    /// The state: one entry, or one for each channel.
    pub fn fits(&self) -> Vec<Fit> {
        match self.params.per_channel {
            true => self.channels.clone(),
            false => vec![Fit { pos: self.pos, min: self.min, max: self.max }],
        }
    }

    /// The position, unless there is one for each channel.
    pub fn scalar_pos(&self) -> Option<FixPos> {
        (!self.params.per_channel).then_some(self.pos)
    }

    /// The integer grid.
    pub fn spec(&self) -> FixSpec {
        FixSpec { pos: self.pos, bits: self.params.bit_width, signed: !self.params.unsigned }
    }
}

/// What a layer's activation attribute does about quantization.
#[derive(Clone, Debug, PartialEq)]
pub enum ActivationQuant {
    /// The layer has no such attribute, or its entry has no quantizer for it.
    Absent,
    /// Deliberately not quantized here: the activation layer that follows carries the quantizer.
    Deferred,
    /// Before the function, whose result stays float.
    Before(Quantizer),
    /// After the function.
    After(Quantizer),
}

impl ActivationQuant {
    /// The quantizer, wherever it sits.
    pub fn quantizer(&self) -> Option<&Quantizer> {
        match self {
            Self::Before(own) | Self::After(own) => Some(own),
            Self::Absent | Self::Deferred => None,
        }
    }

    /// [`ActivationQuant::quantizer`], writable.
    pub fn quantizer_mut(&mut self) -> Option<&mut Quantizer> {
        match self {
            Self::Before(own) | Self::After(own) => Some(own),
            Self::Absent | Self::Deferred => None,
        }
    }
}

/// The quantizers of one wrapped layer, or of a Quantize node (then only `output`).
#[derive(Clone, Debug)]
pub struct LayerQuant {
    /// How the layer is wrapped. A Quantize node isn't, which is [`Wrapping::Bare`] too.
    pub wrapping: Wrapping,
    /// Per weight, in the order of [`Layer::weights`](shiftwise_graph::ops::Layer::weights).
    pub weights: Vec<Option<Quantizer>>,
    /// Activation attribute.
    pub activation: ActivationQuant,
    /// Layer output.
    pub output: Option<Quantizer>,
}

impl LayerQuant {
    /// The quantizer of the layer's result, wherever it sits: before or after the activation, or at the output.
    pub fn result(&self) -> Option<&Quantizer> {
        self.output.as_ref().or(self.activation.quantizer())
    }

    /// [`LayerQuant::result`], writable.
    pub fn result_mut(&mut self) -> Option<&mut Quantizer> {
        self.output.as_mut().or(self.activation.quantizer_mut())
    }
}

/// A quantized network.
#[derive(Clone, Debug)]
pub struct QuantGraph {
    /// The layers, with unquantized float weights.
    pub graph: Graph,
    /// What is quantized. A node without an entry is float.
    pub layers: BTreeMap<NodeId, LayerQuant>,
}

impl QuantGraph {
    /// The quantizer that sits at a point.
    pub fn quantizer(&self, point: Point) -> Option<&Quantizer> {
        let (Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let layer = self.layers.get(&id)?;
        match (point, &layer.activation) {
            (Point::PreActivation(_), ActivationQuant::Before(q))
            | (Point::PostActivation(_), ActivationQuant::After(q)) => Some(q),
            (Point::Output(_), _) => layer.output.as_ref(),
            (Point::PreActivation(_) | Point::PostActivation(_), _) => None,
        }
    }

    /// [`QuantGraph::quantizer`], writable.
    pub fn quantizer_mut(&mut self, point: Point) -> Option<&mut Quantizer> {
        let (Point::PreActivation(id) | Point::PostActivation(id) | Point::Output(id)) = point;
        let layer = self.layers.get_mut(&id)?;
        match (point, &mut layer.activation) {
            (Point::PreActivation(_), ActivationQuant::Before(q))
            | (Point::PostActivation(_), ActivationQuant::After(q)) => Some(q),
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
