//! Derivatives of functions against central differences in f64 of the functions' definitions.

use super::difference;
use crate::backward::functions::derivative;
use shiftwise_core::model::Function;

/// Φ(x), by Simpson's rule over the density from 0.
fn normal(x: f64) -> f64 {
    let n = 2000;
    let h = x / f64::from(n);
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let inner: f64 = (1..n).map(|i| density(f64::from(i) * h) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    0.5 + h / 3.0 * (density(0.0) + inner + density(x))
}

fn softplus(x: f64) -> f64 {
    (1.0 + x.exp()).ln()
}

/// A function, and its definition in f64.
type Row = (Function, fn(f64) -> f64);

const SMOOTH: &[Row] = &[
    (Function::Identity, |x| x),
    (Function::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
    (Function::Tanh, f64::tanh),
    (Function::Softplus, softplus),
    (Function::Softsign, |x| x / (1.0 + x.abs())),
    (Function::Swish, |x| x / (1.0 + (-x).exp())),
    (Function::Gelu, |x| x * normal(x)),
    (Function::GeluTanh, |x| {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    }),
    (Function::Exponential, f64::exp),
    (Function::Mish, |x| x * softplus(x).tanh()),
    (Function::Scale(0.25), |x| 0.25 * x),
    (Function::Negative, |x| -x),
    (Function::Square, |x| x * x),
    // Without the points of their kinks.
    (Function::Elu(0.5), |x| if x > 0.0 { x } else { 0.5 * (x.exp() - 1.0) }),
    (Function::Selu, |x| 1.050_700_987_355_480_5 * if x > 0.0 { x } else { 1.673_263_242_354_377_2 * (x.exp() - 1.0) }),
    (Function::LeakyRelu(0.125), |x| if x > 0.0 { x } else { 0.125 * x }),
    (Function::RELU, |x| x.max(0.0)),
    (Function::RELU6, |x| x.clamp(0.0, 6.0)),
    (Function::Relu { max: 2.0, slope: 0.25, threshold: -1.0 }, |x| {
        if x >= 2.0 {
            2.0
        } else if x >= -1.0 {
            x
        } else {
            0.25 * (x + 1.0)
        }
    }),
    (Function::HardSigmoid, |x| (0.2 * x + 0.5).clamp(0.0, 1.0)),
    (Function::HardSigmoid6, |x| (x + 3.0).clamp(0.0, 6.0) / 6.0),
    (Function::DpuHardSigmoid, |x| (x + 3.0).clamp(0.0, 6.0) * 2731.0 / 16384.0),
    (Function::HardSwish, |x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
    (Function::Absolute, f64::abs),
    (Function::Sign, f64::signum),
    (Function::Floor, f64::floor),
    (Function::Ceiling, f64::ceil),
    (Function::Round, f64::round_ties_even),
];

const POSITIVE: &[Row] = &[
    (Function::SquareRoot, f64::sqrt),
    (Function::InverseRoot, |x| 1.0 / x.sqrt()),
    (Function::Reciprocal, f64::recip),
    (Function::Logarithm, f64::ln),
];

#[test]
fn derivatives_are_differences_in_f64() {
    // Sixteenths that are off every kink by at least 1/16; far ones, where exponentials could overflow, too.
    let near = (-112..=112).map(|i| f64::from(2 * i + 1) / 32.0);
    let points: Vec<f64> = near.chain([-20.03, 20.03]).collect();
    for (rows, from) in [(SMOOTH, f64::NEG_INFINITY), (POSITIVE, 0.1)] {
        for (function, definition) in rows {
            for x in points.iter().copied().filter(|x| *x > from) {
                let own = f64::from(derivative(*function, x as f32));
                // The point that f32 has.
                let wanted = difference(|h| definition(f64::from(x as f32) + h), 1e-3);
                // Half a step of f32, and what f64 loses in the difference.
                let tolerance = wanted.abs() * 6e-8 + 1e-9 * (1.0 + definition(x).abs());
                assert!((own - wanted).abs() < tolerance, "{function:?} at {x}: {own} is not {wanted}");
            }
        }
    }
}

#[test]
fn derivatives_far_out_are_finite() {
    for (function, _) in SMOOTH.iter().filter(|(f, _)| *f != Function::Exponential) {
        for x in [-1e4f32, -100.0, 100.0, 1e4] {
            let d = derivative(*function, x);
            assert!(d.is_finite(), "{function:?} at {x}: {d}");
        }
    }
}
