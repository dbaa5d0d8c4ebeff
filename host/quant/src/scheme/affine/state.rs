//! What a quantizer of float scales learns.

/// The range of one tensor, or of one of its channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
    /// Steps per unit as the vendor's tool stores them: for its dumps only, and only where it has thought of it.
    pub scale: f32,
}

impl Default for Range {
    /// Nothing but zero, as the vendor's variables are made.
    fn default() -> Self {
        Self { min: 0.0, max: 0.0, scale: -0.0 }
    }
}
