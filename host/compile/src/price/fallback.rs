//! What a layer costs on the CPU beside a DPU, so that a fallback has a price before anybody measures it.

use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, Kind};

/// Multiply-accumulates in a microsecond: a Cortex-A53 at 1.2 GHz with int8 vector instructions, half of their rate. INF
const MACS_PER_US: f64 = 2000.0;
/// The same with scalar floats. INF
const FLOAT_MACS_PER_US: f64 = 600.0;
/// Elements that are read or written in a microsecond by a layer that computes little. INF
const ELEMENTS_PER_US: f64 = 300.0;
/// Elements of an exponential in a microsecond. INF
const EXPONENTIALS_PER_US: f64 = 15.0;
/// Leaving the DPU and coming back: interrupt, caches, the next job's start. INF
const HANDOVER_US: f64 = 50.0;

/// What a layer on the CPU takes, in microseconds. INF: no measurement behind it, good for comparing fallbacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuPrice {
    /// Leaving the DPU and coming back.
    pub handover_us: f64,
    /// Computing.
    pub compute_us: f64,
    /// Reading what it reads and writing what it makes.
    pub transfer_us: f64,
}

impl CpuPrice {
    /// All of it.
    pub fn total_us(&self) -> f64 {
        self.handover_us + self.compute_us + self.transfer_us
    }
}

/// Microseconds that `op` takes on the CPU of a board: [`cpu_price`] as one number.
pub fn cpu_us(graph: &IntGraph, op: &IntOp) -> f64 {
    cpu_price(graph, op).total_us()
}

/// What `op` takes on the CPU of a board; nothing for a view.
pub fn cpu_price(graph: &IntGraph, op: &IntOp) -> CpuPrice {
    if matches!(op.kind, IntOpKind::View) {
        return CpuPrice::default();
    }
    let elements = |t: &shiftwise_integer::graph::TensorIx| {
        graph.tensors.get(t.0).map_or(0.0, |t| t.shape.iter().map(|d| *d as f64).product::<f64>())
    };
    let moved = op.inputs.iter().chain([&op.output]).map(elements).sum::<f64>();
    let compute = match &op.kind {
        IntOpKind::Softmax => elements(&op.output) / EXPONENTIALS_PER_US,
        IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => {
            let taps: f64 = window.kernel.iter().map(|k| f64::from(*k)).product();
            elements(&op.output) * taps / ELEMENTS_PER_US
        }
        IntOpKind::Float { op: layer, weights, .. } => {
            // A weight meets every pixel of the output but its own channel.
            let pixels = match graph.tensors.get(op.output.0).map(|t| t.shape.as_slice()) {
                Some([pixels @ .., _]) => pixels.iter().map(|d| *d as f64).product::<f64>(),
                _ => 1.0,
            };
            let macs = layer.weighted().and(weights.first()).map_or(0.0, |w| w.data().len() as f64 * pixels);
            macs / FLOAT_MACS_PER_US
        }
        IntOpKind::Conv(_)
        | IntOpKind::Depthwise(_)
        | IntOpKind::ConvTranspose(_)
        | IntOpKind::Add { .. }
        | IntOpKind::Multiply { .. }
        | IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. }
        | IntOpKind::View
        | IntOpKind::Requantize { .. }
        | IntOpKind::Scaled(_)
        | IntOpKind::FakeQuantize(_)
        | IntOpKind::Quantize
        | IntOpKind::Dequantize => op.macs() as f64 / MACS_PER_US,
    };
    let floats = graph.tensors.get(op.output.0).is_some_and(|t| t.kind == Kind::Float);
    let width = if floats { 2.0 } else { 1.0 };
    CpuPrice { handover_us: HANDOVER_US, compute_us: compute, transfer_us: width * moved / ELEMENTS_PER_US }
}
