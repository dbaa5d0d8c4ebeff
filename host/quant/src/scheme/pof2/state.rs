//! What a power-of-two quantizer learns.

use shiftwise_core::fix::FixPos;

/// What one tensor, or one of its channels, has taught.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    /// Fraction bits; final after refinement.
    pub pos: FixPos,
    /// Fraction bits as calibrated, before refinement.
    pub calibrated: FixPos,
    /// Lower end of the range of the last calibration batch.
    pub min: f32,
    /// Upper end of that range.
    pub max: f32,
}

impl State {
    /// As calibrated.
    pub(super) fn new(pos: FixPos, min: f32, max: f32) -> Self {
        Self { pos, calibrated: pos, min, max }
    }
}
