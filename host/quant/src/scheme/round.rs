//! Rounding of scaled values that compiles to few vector operations on every CPU. Exact for magnitudes up to 2^22.

/// Bounds a scaled value to where [`rint`] is exact; the integer range of up to 16 bits is far inside.
#[inline(always)]
pub(super) fn clip(v: f32) -> f32 {
    let v = if v > 4e6 { 4e6 } else { v };
    if v < -4e6 { -4e6 } else { v }
}

/// Nearest integer, ties to even, for |v| ≤ 2^22: adding 1.5·2^23 leaves no fraction bits. Unlike the library's
/// function it compiles to two vector additions on every CPU.
#[inline(always)]
pub(super) fn rint(v: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (v + MAGIC) - MAGIC
}

/// Largest integer below or equal, for |v| ≤ 2^22.
#[inline(always)]
pub(super) fn floor(v: f32) -> f32 {
    let r = rint(v);
    r - if r > v { 1.0 } else { 0.0 }
}
