//! Where a quantizer sits in its layer.

use shiftwise_graph::eval::Point;
use shiftwise_quant::layer_quant::{ActivationQuant, LayerQuant};
use shiftwise_quant::scheme::Quantizer;

/// A place for a quantizer in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seat {
    /// At what the layer reads.
    Input,
    /// At a weight.
    Weight(usize),
    /// Before or after the activation attribute.
    Activation,
    /// At the layer's result.
    Output,
}

impl Seat {
    /// The seat whose quantizer works at a point, if one does.
    pub(crate) fn at(layer: &LayerQuant, point: Point) -> Option<Self> {
        let seat = match (point, &layer.activation) {
            (Point::Input(..), _) => Self::Input,
            (Point::PreActivation(_), ActivationQuant::Before(_)) => Self::Activation,
            (Point::PostActivation(_), ActivationQuant::After(_)) => Self::Activation,
            (Point::PreActivation(_) | Point::PostActivation(_), _) => return None,
            (Point::Output(_), _) => Self::Output,
        };
        seat.quantizer(layer).map(|_| seat)
    }

    /// All seats of a layer that are taken.
    pub(crate) fn taken(layer: &LayerQuant) -> Vec<Self> {
        let weights = (0..layer.weights.len()).map(Self::Weight);
        let all = std::iter::once(Self::Input).chain(weights).chain([Self::Activation, Self::Output]);
        all.filter(|seat| seat.quantizer(layer).is_some()).collect()
    }

    /// The quantizer that sits here.
    pub(crate) fn quantizer(self, layer: &LayerQuant) -> Option<&Quantizer> {
        match self {
            Self::Input => layer.input.as_ref(),
            Self::Weight(k) => layer.weights.get(k)?.as_ref(),
            Self::Activation => layer.activation.quantizer(),
            Self::Output => layer.output.as_ref(),
        }
    }

    /// [`Seat::quantizer`], writable.
    pub(crate) fn quantizer_mut(self, layer: &mut LayerQuant) -> Option<&mut Quantizer> {
        match self {
            Self::Input => layer.input.as_mut(),
            Self::Weight(k) => layer.weights.get_mut(k)?.as_mut(),
            Self::Activation => layer.activation.quantizer_mut(),
            Self::Output => layer.output.as_mut(),
        }
    }
}
