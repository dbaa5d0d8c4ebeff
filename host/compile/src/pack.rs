//! Constants in the order that kernels and LOADs read them, and biases in accumulator steps.

use shiftwise_core::arith::{Round, align_bias, requantize};
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::Act;

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{ConvKind, IntAct, IntConv};

/// Checks that a convolution's numbers fit each other: window, dimensions, lengths of kernel and bias.
pub fn check(layer: &str, conv: &IntConv, kind: ConvKind) -> Result<(), Error> {
    let depthwise = kind == ConvKind::Depthwise;
    let [kh, kw] = conv.window.kernel.map(usize::from);
    let ([h, w, ic], [oh, ow, oc], groups) = (conv.input, conv.output, conv.groups);
    let bad = |text: String| Err(Error::Compile(format!("layer `{layer}`: {text}")));
    if !conv.window.is_valid() || [h, w, ic, oh, ow, oc, groups].contains(&0) {
        return bad("a window, map or number of groups is empty".into());
    }
    let outputs = [h, w].map(|d| u32::try_from(d).ok());
    let outputs = [0, 1].map(|axis| outputs[axis].map(|d| conv.window.outputs(axis, d) as usize));
    if kind != ConvKind::Transposed && outputs != [Some(oh), Some(ow)] {
        return bad(format!("its window makes {outputs:?} of {h} × {w}, not {oh} × {ow}"));
    }
    if depthwise && ic != oc || kind != ConvKind::Dense && groups != 1 || ic % groups != 0 || oc % groups != 0 {
        return bad(format!("{ic} input channels do not make {oc} outputs in {groups} groups"));
    }
    let per_output = if depthwise { 1 } else { ic / groups };
    if conv.kernel.len() != kh * kw * per_output * oc {
        let length = conv.kernel.len();
        return bad(format!("a kernel of {length} integers is not [{kh}, {kw}, {per_output}, {oc}]"));
    }
    match &conv.bias {
        Some(bias) if bias.len() != oc => bad(format!("{} biases for {oc} output channels", bias.len())),
        _ => Ok(()),
    }
}

/// A kernel `[kh][kw][ic / groups][oc]` as `[oc][kh][kw][ic / groups]`. The convolution is a checked one.
pub fn by_output(conv: &IntConv) -> Vec<i8> {
    let oc = conv.output[2].max(1);
    let per_output = conv.kernel.len() / oc;
    let mut packed = vec![0; oc * per_output];
    for (at, source) in conv.kernel.chunks_exact(oc).enumerate() {
        for (o, value) in source.iter().enumerate() {
            packed[o * per_output + at] = *value;
        }
    }
    packed
}

/// A kernel `[oc][taps][ic / groups]` as `[oc][taps][ic]`, with zeros where an input channel belongs to another group.
pub fn without_groups(packed: Vec<i8>, conv: &IntConv) -> Vec<i8> {
    if conv.groups == 1 {
        return packed;
    }
    let (ic, oc) = (conv.input[2], conv.output[2]);
    let share = ic / conv.groups;
    let taps = packed.len() / oc.max(1) / share.max(1);
    let mut dense = vec![0; oc * taps * ic];
    for (at, source) in packed.chunks_exact(share.max(1)).enumerate() {
        let group = at / taps / (oc / conv.groups);
        dense[at * ic + group * share..][..share].copy_from_slice(source);
    }
    dense
}

/// The largest |Σ x·w| of each output channel, for 8-bit inputs. `packed` has `per_output` weights of a channel in a
/// row, `[oc][per_output]`; depthwise kernels `[taps][c]` have them `c` apart, see `depthwise`.
pub fn reach(packed: &[i8], oc: usize, depthwise: bool) -> Vec<i64> {
    let mut sums = vec![0i64; oc];
    let per_output = packed.len() / oc.max(1);
    for (i, w) in packed.iter().enumerate() {
        let o = if depthwise { i % oc } else { i / per_output.max(1) };
        sums[o] += 128 * i64::from(w.unsigned_abs());
    }
    sums
}

/// Bits of the biases below the accumulator's step that have to be kept: a LeakyReLU or a left shift behind the sum would
/// magnify what rounding drops.
pub fn fine_bits(conv: &IntConv) -> u32 {
    if conv.act != IntAct::LeakyRelu && conv.shift_cut >= 0 {
        return 0;
    }
    let below = (-conv.shift_bias).max(0) as u32;
    let bits = conv.bias.iter().flatten().filter(|b| **b != 0).map(|b| below.saturating_sub(b.trailing_zeros()));
    bits.max().unwrap_or(0)
}

/// The biases as 32-bit integers in steps of the accumulator, or of 2^-fine of it, see [`fine_bits`].
///
/// A bias too large for the accumulator is replaced by the largest one where the result saturates all the same.
/// Error: an accumulator of 32 bits could overflow.
pub fn bias_i32(layer: &str, conv: &IntConv, reach: &[i64]) -> Result<Option<Vec<i32>>, Error> {
    let limit = 1i64 << 30;
    let zero = vec![0; conv.output[2]];
    let bias = conv.bias.as_deref().unwrap_or(&zero);
    let leaky = conv.act == IntAct::LeakyRelu;
    let fine = fine_bits(conv);
    if fine > MAX_FINE {
        return Err(Error::Compile(format!(
            "layer `{layer}`: its bias has {fine} bits below the accumulator (shift_bias {}); let the quantizer adjust \
             positions to the target",
            conv.shift_bias
        )));
    }
    let (shift_bias, shift_cut) = (conv.shift_bias + fine as i32, conv.shift_cut + fine as i32);
    let reach: Vec<i64> = reach.iter().map(|r| r << fine).collect();
    let aligned = bias.iter().zip(&reach).map(|(&b, &reach)| {
        // 2^8 · 2^54 is the largest product that i64 holds.
        let exact = align_bias(b.into(), shift_bias.min(54), shift_cut);
        if exact.abs() + reach <= i32::MAX.into() {
            return Ok(exact as i32);
        }
        // Activation and rounding are monotone: if the sum nearest to zero saturates with the clamped bias, every sum
        // does, with the exact bias as well.
        let clamped = exact.clamp(-limit, limit);
        let least = clamped.abs() - reach;
        let (near, end) = if exact > 0 { (least, 127) } else { (-least, -128) };
        let (near, cut) =
            if leaky { (near * if near < 0 { 26 } else { 256 }, shift_cut + 8) } else { (near, shift_cut) };
        if least > 0 && requantize(near, cut, Round::HalfUp, 8, true) == end {
            return Ok(clamped as i32);
        }
        Err(Error::Compile(format!(
            "layer `{layer}`: its sums reach {} and do not fit a 32-bit accumulator (shift_bias {}, bias {b})",
            exact.abs() + reach,
            conv.shift_bias
        )))
    });
    let aligned = aligned.collect::<Result<Vec<_>, _>>()?;
    Ok(conv.bias.is_some().then_some(aligned))
}

/// An activation in steps of an accumulator that is shifted right by `shift` to an output of position `pos`.
///
/// ReLU6 clamps the output to `L = round(6·2^pos)`. For `shift ≥ 0` the limit `L·2^shift` on the accumulator is the same
/// function, because rounding is monotone and exact at the limit; for `shift < 0` that needs `L` to be a multiple of
/// `2^-shift`. Error: it is not.
pub fn act(layer: &str, act: IntAct, pos: FixPos, shift: i32) -> Result<Act, Error> {
    match act {
        IntAct::None => Ok(Act::None),
        IntAct::Relu => Ok(Act::Relu),
        IntAct::LeakyRelu => Ok(Act::LeakyRelu),
        IntAct::Relu6 => {
            let limit = relu6_limit(pos);
            if limit == 127 {
                // Saturation does it.
                return Ok(Act::Relu);
            }
            if (0..63).contains(&shift) {
                return Ok(i32::try_from(limit << shift.min(40)).map_or(Act::Relu, Act::ReluMax));
            }
            let left = shift.unsigned_abs();
            if shift < 0 && left < 8 && limit % (1 << left) == 0 {
                return Ok(Act::ReluMax((limit >> left) as i32));
            }
            Err(Error::Compile(format!(
                "layer `{layer}`: ReLU6 at output position {pos} after a shift of {shift} has no limit in the accumulator; \
                 choose an output position that is not finer than the accumulator's"
            )))
        }
    }
}

/// Most bits of a bias below the accumulator's step.
const MAX_FINE: u32 = 24;

/// Whether a bias has bits below the accumulator's step.
pub fn finer(bias: i8, shift_bias: i32) -> bool {
    bias != 0 && shift_bias < 0 && bias.trailing_zeros() < shift_bias.unsigned_abs()
}

/// The integer of six at position `pos`, rounded half up, saturated to 127.
pub fn relu6_limit(pos: FixPos) -> i64 {
    requantize(6, -i32::from(pos.0), Round::HalfUp, 8, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_core::arith::requantize_i8;
    use shiftwise_core::cpu::finish;
    use shiftwise_core::shape::Window;

    #[test]
    fn relu6_in_the_accumulator_is_relu6_of_the_output() {
        let mut exact = 0;
        for pos in -4..=7i8 {
            for shift in -4..=12 {
                let Ok(in_acc) = act("x", IntAct::Relu6, FixPos(pos), shift) else { continue };
                exact += 1;
                let limit = if pos >= 5 { 127.0 } else { (6.0 * f64::from(pos).exp2() + 0.5).floor() };
                for acc in -70_000..=70_000 {
                    let want = f64::from(requantize_i8(acc, shift)).clamp(0.0, limit) as i8;
                    assert_eq!(finish(acc, in_acc, shift as i8), want, "{acc} >> {shift} at {pos}");
                }
            }
        }
        // Every right shift, and per position the left shifts by 1..=4 that divide the limit.
        assert_eq!(exact, 12 * 13 + [4, 0, 1, 0, 1, 2, 3, 4, 4, 4, 4, 4].iter().sum::<i32>());
    }

    #[test]
    fn groups_see_only_their_channels() {
        let conv = IntConv {
            window: Window::POINT,
            input: [1, 1, 4],
            output: [1, 1, 2],
            // [ic / groups = 2][oc = 2]
            kernel: vec![1, 2, 3, 4],
            bias: None,
            groups: 2,
            shift_cut: 0,
            shift_bias: 0,
            act: IntAct::None,
        };
        assert_eq!(by_output(&conv), [1, 3, 2, 4]);
        assert_eq!(without_groups(by_output(&conv), &conv), [1, 3, 0, 0, 0, 0, 2, 4]);
        check("x", &conv, ConvKind::Dense).unwrap();
        assert!(check("x", &IntConv { groups: 3, ..conv }, ConvKind::Dense).is_err());
    }
}
