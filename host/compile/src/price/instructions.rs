//! How many instructions a layer takes on a board's processor: a fitted formula per kind of kernel.
//!
//! The numbers that a kernel's work consists of come from its loops (`firmware/src/kernels`), their prices from
//! measurements on the emulated board: `cargo run --release -p shiftwise-tests --bin instructions -- --write`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use shiftwise_core::model::{ConvOp, CpuOp, Deployable};

/// Prices by processor and kind.
static PRICES: LazyLock<BTreeMap<String, BTreeMap<String, Vec<f64>>>> = LazyLock::new(|| {
    // A file that cannot be read prices nothing; a test reads it.
    serde_json::from_str(include_str!("instructions.json")).unwrap_or_default()
});

/// What a layer's kernel does, in units that each have a price.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Kind of kernel.
    pub kind: &'static str,
    /// How many of each unit, the smallest first to be repeated; the last is 1.
    pub units: Vec<f64>,
}

/// Instructions of a step on a processor, called as boards call it (`cortex-m4f`); `None` if nothing was measured there
/// for such layers.
pub fn instructions(model: &Deployable<'_>, op: &CpuOp<'_>, cpu: &str) -> Option<u64> {
    let work = work(model, op)?;
    let prices = PRICES.get(cpu)?.get(work.kind)?;
    Some(prices.iter().zip(&work.units).map(|(price, n)| price * n).sum::<f64>().max(0.0).round() as u64)
}

/// The work of a step; `None` for layers in floats, whose functions differ too much.
pub fn work(model: &Deployable<'_>, op: &CpuOp<'_>) -> Option<Work> {
    let elements = |id| Some(f64::from(model.tensor(id)?.shape.elements()?));
    let of = |kind, units: &[f64]| Some(Work { kind, units: [units, &[1.0]].concat() });
    match op {
        CpuOp::Conv(c) if c.out_dims[..2] == [1, 1] => {
            // Four filters at a time; columns of four elements.
            let filters = f64::from(c.out_dims[2].div_ceil(4));
            let steps = (taps(c.window.kernel) * share(c) / 4.0).ceil();
            of("dense", &[filters * steps, filters])
        }
        CpuOp::Conv(c) => {
            // Two pixels and two filters at a time; columns of four elements, gathered once for all filters.
            let pixels = f64::from(c.out_dims[0]) * f64::from(c.out_dims[1]) * f64::from(c.groups);
            let blocks = (pixels / 2.0).ceil() * f64::from((c.out_dims[2] / c.groups.max(1)).div_ceil(2));
            let steps = (taps(c.window.kernel) * share(c) / 4.0).ceil();
            of("conv", &[blocks * steps, blocks, pixels * steps, pixels])
        }
        CpuOp::ConvTranspose(c) => {
            let outputs = c.out_dims.iter().map(|d| f64::from(*d)).product::<f64>();
            of("transposed", &[outputs * taps(c.window.kernel) * share(c), outputs])
        }
        CpuOp::Depthwise(c) => {
            let pixels = f64::from(c.out_dims[0]) * f64::from(c.out_dims[1]);
            let blocks = pixels * f64::from(c.out_dims[2].div_ceil(4));
            // Where an input channel has several outputs, they are computed one by one.
            let kind = if c.in_dims[2] == c.out_dims[2] { "depthwise" } else { "depthwise_multiplied" };
            of(kind, &[blocks * taps(c.window.kernel), blocks, pixels])
        }
        CpuOp::Pool(p) => {
            let pixels = f64::from(p.out_dims[0]) * f64::from(p.out_dims[1]);
            let blocks = pixels * f64::from(p.in_dims[2].div_ceil(4));
            of("pool", &[blocks * taps(p.window.kernel), blocks])
        }
        CpuOp::Add(a) => of("add", &[elements(a.output)?]),
        CpuOp::View { .. } => of("view", &[]),
        CpuOp::Requantize { output, .. } => of("requantize", &[elements(*output)?]),
        CpuOp::Multiply(_)
        | CpuOp::Concat(_)
        | CpuOp::UpSample(_)
        | CpuOp::HardSigmoid { .. }
        | CpuOp::Pad(_)
        | CpuOp::PRelu(_)
        | CpuOp::Permute(_) => of("other", &[elements(op.output())?]),
        CpuOp::Softmax(_) => of("softmax", &[elements(op.output())?]),
        CpuOp::Quantize { .. } | CpuOp::Dequantize { .. } => of("convert", &[elements(op.output())?]),
        // Nobody has measured those by multipliers yet.
        CpuOp::Float { .. } | CpuOp::Scaled(_) => None,
    }
}

fn taps(kernel: [u16; 2]) -> f64 {
    f64::from(kernel[0]) * f64::from(kernel[1])
}

/// Input channels that an output sees.
fn share(c: &ConvOp) -> f64 {
    f64::from(c.in_dims[2] / c.groups.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_readable_and_none_is_negative() {
        assert!(PRICES.values().flat_map(BTreeMap::values).flatten().all(|price| *price >= 0.0));
        let conv = PRICES.get("cortex-m4f").and_then(|prices| prices.get("conv")).map(Vec::len);
        assert_eq!(conv, Some(5));
    }
}
