//! Quantizers of one scheme replaced by those of another that do the same.

use crate::quant_graph::QuantGraph;
use crate::scheme::Quantizer;
use crate::scheme::affine::Affine;

/// Trained thresholds become the positions that they mean.
pub(crate) fn thresholds_to_positions(q: &mut QuantGraph) {
    all(q, |own| match own {
        Quantizer::Tqt(own) => Some(Quantizer::Pof2(own.to_pof2())),
        Quantizer::Pof2(_) | Quantizer::Affine(_) | Quantizer::Block(_) => None,
    });
}

/// Positions become float scales.
pub(crate) fn positions_to_float_scales(q: &mut QuantGraph) {
    all(q, |own| match own {
        Quantizer::Pof2(own) => Some(Quantizer::Affine(Affine::from_pof2(own))),
        Quantizer::Affine(_) | Quantizer::Tqt(_) | Quantizer::Block(_) => None,
    });
}

fn all(q: &mut QuantGraph, other: impl Fn(&Quantizer) -> Option<Quantizer>) {
    q.layers.values_mut().for_each(|layer| layer.convert(&other));
}
