//! Derivatives of functions against differences. The gradients of layers are tested where all layers are described: in
//! the formats' table.

mod derivatives;

/// The five-point formula: `f(h)` is the function at a distance of h.
fn difference(mut f: impl FnMut(f64) -> f64, h: f64) -> f64 {
    (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
}
