//! Operations of layers, as the vendor's files count them: two for a multiplication with its sum, one for a bias.

use shiftwise_core::shape::Window;
use shiftwise_core::target::Target;
use shiftwise_integer::graph::{ConvKind, IntConv, IntGraph, IntOp, IntOpKind, image};
use shiftwise_xmodel::write::{Part, Setting, Settings};

/// Operations of a layer: as the network has them, and with the padding to full rows and lanes of the engines.
pub(super) type Work = [u64; 2];

/// What a file says of an amount of work.
pub(super) fn settings([work, on_arch]: Work) -> Settings {
    shiftwise_xmodel::write::settings([("workload", Setting::wide(work)), ("workload_on_arch", Setting::wide(on_arch))])
}

/// A subgraph of these operations.
pub(super) fn part(name: &str, nodes: Vec<String>, work: Work) -> Part {
    Part { name: format!("subgraph_{name}"), nodes, parts: Vec::new(), settings: settings(work) }
}

/// The work that a part says it is.
pub(super) fn of_part(part: &Part) -> Work {
    let said = |name: &str| {
        let found = part.settings.iter().find(|(own, _)| own == name);
        found.and_then(|(_, value)| value.as_wide()).unwrap_or(0)
    };
    [said("workload"), said("workload_on_arch")]
}

/// The work of a layer on the DPU; `gathered`: multiply-accumulates that its engine does, where they are known.
pub(super) fn of(graph: &IntGraph, op: &IntOp, target: &Target, gathered: Option<u64>) -> Work {
    let [h, w, c] = graph.tensors.get(op.output.0).map_or([0; 3], |t| image(&t.shape)).map(|n| n as u64);
    let rows = |n: u64, parallel: u16| n.next_multiple_of(u64::from(parallel.max(1)));
    match &op.kind {
        IntOpKind::Conv(own) => convolution(own, ConvKind::Dense, target, gathered),
        IntOpKind::Depthwise(own) => convolution(own, ConvKind::Depthwise, target, gathered),
        IntOpKind::ConvTranspose(own) => convolution(own, ConvKind::Transposed, target, gathered),
        IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => {
            let Window { kernel: [kh, kw], .. } = *window;
            let taps = u64::from(kh) * u64::from(kw);
            [h * w * c * taps, rows(h, target.alu_pixel_parallel) * w * rows(c, target.input_channel_parallel) * taps]
        }
        IntOpKind::Add { .. } | IntOpKind::Multiply { .. } => {
            let operands = op.inputs.len() as u64;
            let on_arch = rows(h, target.elew_pixel_parallel) * w * rows(c, target.input_channel_parallel);
            [h * w * c * operands, on_arch * operands]
        }
        IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. }
        | IntOpKind::View
        | IntOpKind::Requantize { .. }
        | IntOpKind::Scaled(_)
        | IntOpKind::Softmax
        | IntOpKind::Float { .. }
        | IntOpKind::FakeQuantize(_)
        | IntOpKind::Quantize
        | IntOpKind::Dequantize => [0, 0],
    }
}

/// A convolution's work. The first layer may gather its few channels with the taps of a row, which `gathered` shows.
fn convolution(c: &IntConv, kind: ConvKind, target: &Target, gathered: Option<u64>) -> Work {
    let [oh, ow, oc] = c.output.map(|n| n as u64);
    let [kh, kw] = c.window.kernel.map(u64::from);
    let bias = u64::from(c.bias.is_some());
    let up = |n: u64, parallel: u16| n.next_multiple_of(u64::from(parallel.max(1)));
    let lanes = target.input_channel_parallel;
    if kind == ConvKind::Depthwise {
        let on_arch = up(oh, target.alu_pixel_parallel) * ow * up(oc, lanes);
        return [oh * ow * oc * (2 * kh * kw + bias), on_arch * (2 * kh * kw + bias)];
    }
    let ic = c.kernel.len() as u64 / (kh * kw * oc).max(1);
    // Of a transposed convolution each output has the taps of one phase.
    let phases = c.window.stride.map(u64::from).into_iter().product::<u64>().max(1);
    let taps = if kind == ConvKind::Transposed { (kh * kw).div_ceil(phases) } else { kh * kw };
    // The rows of each phase are a layer of their own.
    let layers = if kind == ConvKind::Transposed { u64::from(c.window.stride[0]).max(1) } else { 1 };
    let rows = up(oh.div_ceil(layers), target.pixel_parallel) * layers;
    let on_arch = rows * ow * up(oc, target.output_channel_parallel);
    let (apart, together) = (taps * up(ic, lanes), kh * up(kw * ic, lanes));
    let engine = if gathered.is_some_and(|macs| macs == on_arch * together) { together } else { apart };
    [oh * ow * oc * (2 * taps * ic + bias), on_arch * (2 * engine + bias)]
}
