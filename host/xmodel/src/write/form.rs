//! What both styles of operations, on floats and on integers, say alike: windows, kernels and positions.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv, IntGraph, Kind, TensorIx};

use super::{Setting, Settings, settings};

/// A pair that is vertical first, as the format has it: horizontal first.
fn pair(pair: [u16; 2]) -> Setting {
    Setting::ints([pair[1].into(), pair[0].into()])
}

/// Kernel, stride and padding of a window: left, right, top, bottom.
pub fn window(w: &Window) -> Settings {
    let pads = [w.pad_before[1], w.pad_after[1], w.pad_before[0], w.pad_after[0]];
    settings([("kernel", pair(w.kernel)), ("stride", pair(w.stride)), ("pad", Setting::ints(pads.map(i32::from)))])
}

/// Everything that a convolution says of its geometry. Of a transposed one the padding is what the full result loses at
/// its start; what it loses at its end follows from the sizes.
pub fn convolution(c: &IntConv, kind: ConvKind) -> Settings {
    let mut all = window(&c.window);
    all.push(("dilation".into(), pair(c.window.dilation)));
    if kind != ConvKind::Depthwise {
        let count = |n: usize| Setting::int(i32::try_from(n).unwrap_or(i32::MAX));
        all.extend(settings([
            ("group", count(c.groups)),
            ("in_dim", count(c.input[2])),
            ("out_dim", count(c.output[2])),
        ]));
    }
    all.extend(settings([("bias_term", Setting::flag(c.bias.is_some())), ("pad_mode", Setting::text("FLOOR"))]));
    all
}

/// A kernel in the format's order with its shape: `[oc, kh, kw, ic]`, of a depthwise convolution `[1, kh, kw, c]`. Taps of a
/// transposed convolution are counted from the far end.
pub fn kernel(c: &IntConv, kind: ConvKind) -> (Vec<i8>, Vec<usize>) {
    let [kh, kw] = c.window.kernel.map(usize::from);
    let (taps, oc) = (kh * kw, c.output[2]);
    if kind == ConvKind::Depthwise {
        return (c.kernel.clone(), vec![1, kh, kw, oc]);
    }
    let ic = c.kernel.len() / (taps * oc).max(1);
    let mut q = Vec::with_capacity(c.kernel.len());
    for (o, tap) in (0..oc).flat_map(|o| (0..taps).map(move |tap| (o, tap))) {
        let tap = if kind == ConvKind::Transposed { taps - 1 - tap } else { tap };
        q.extend((0..ic).map(|i| c.kernel[(tap * ic + i) * oc + o]));
    }
    (q, vec![oc, kh, kw, ic])
}

/// The format's name of a convolution.
pub fn convolution_name(kind: ConvKind) -> &'static str {
    match kind {
        ConvKind::Dense => "conv2d",
        ConvKind::Depthwise => "depthwise-conv2d",
        ConvKind::Transposed => "transposed-conv2d",
    }
}

/// The format's name of an activation, as an operation on floats and as an attribute.
pub fn activation(act: IntAct) -> Option<(&'static str, &'static str)> {
    match act {
        IntAct::None => None,
        IntAct::Relu => Some(("relu", "RELU")),
        IntAct::Relu6 => Some(("relu6", "RELU6")),
        IntAct::LeakyRelu => Some(("leaky-relu", "LEAKYRELU")),
    }
}

/// Position and rounding of 8-bit integers.
pub fn fixed(pos: FixPos) -> Settings {
    settings([
        ("fix_point", Setting::int(pos.0.into())),
        ("bit_width", Setting::int(8)),
        ("if_signed", Setting::flag(true)),
        ("round_mode", Setting::text("DPU_ROUND")),
    ])
}

/// The position of a tensor's integers; `None` for floats and integers of other steps.
pub fn position(graph: &IntGraph, t: TensorIx) -> Option<FixPos> {
    match graph.tensors.get(t.0)?.kind {
        Kind::Fixed(pos) => Some(pos),
        Kind::Float | Kind::Scaled(_) => None,
    }
}

/// Positions of a convolution's weights and bias, from its operands' and its shifts.
///
/// Errors: tensors without positions; positions beyond 8 bits.
pub fn positions(graph: &IntGraph, c: &IntConv, from: TensorIx, to: TensorIx) -> Result<(FixPos, FixPos), String> {
    let known = |t: TensorIx| position(graph, t).map(|p| i32::from(p.0)).ok_or("it has no positions");
    let (i, o) = (known(from)?, known(to)?);
    let product = c.shift_cut + o;
    let small = |p: i32| i8::try_from(p).map(FixPos).map_err(|_| format!("a position of {p} is out of range"));
    Ok((small(product - i)?, small(product - c.shift_bias)?))
}

/// The shape of a tensor, batch first.
pub fn shape(graph: &IntGraph, t: TensorIx) -> Vec<usize> {
    std::iter::once(1).chain(graph.tensors.get(t.0).into_iter().flat_map(|t| t.shape.iter().copied())).collect()
}

/// What the user calls the input whose integers have this name.
pub fn input_name(name: &str) -> &str {
    name.strip_prefix("quant_").or_else(|| name.strip_suffix("_fix")).filter(|raw| !raw.is_empty()).unwrap_or(name)
}
