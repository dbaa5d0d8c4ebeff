//! An oracle for the integer form: plain loops over exact fractions, sharing no arithmetic with what it checks.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, Kind, TensorIx};

/// The bytes of every tensor of `graph`, for inputs given as bytes in the order of `graph.inputs`.
pub fn evaluate(graph: &IntGraph, inputs: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut values: Vec<Vec<u8>> = vec![Vec::new(); graph.tensors.len()];
    for (t, bytes) in graph.inputs.iter().zip(inputs) {
        values[t.0].clone_from(bytes);
    }
    for op in &graph.ops {
        values[op.output.0] = op_value(graph, op, &values);
    }
    values
}

fn op_value(graph: &IntGraph, op: &IntOp, values: &[Vec<u8>]) -> Vec<u8> {
    let bytes = |t: TensorIx| values[t.0].as_slice();
    let shape = |t: TensorIx| graph.tensors[t.0].shape.as_slice();
    let out = shape(op.output);
    let input = bytes(op.inputs[0]);
    let x: Vec<i128> = input.iter().map(|b| i128::from(*b as i8)).collect();
    let opos = match graph.tensors[op.output.0].kind {
        Kind::Fixed(pos) => pos,
        Kind::Float | Kind::Scaled(_) => FixPos(0),
    };
    let ipos = match graph.tensors[op.inputs[0].0].kind {
        Kind::Fixed(pos) => i32::from(pos.0),
        Kind::Float | Kind::Scaled(_) => 0,
    };
    match &op.kind {
        IntOpKind::Conv(c) => convolve(c, &x, opos, false),
        IntOpKind::Depthwise(c) => convolve(c, &x, opos, true),
        IntOpKind::ConvTranspose(c) => transposed(c, &x, opos),
        IntOpKind::MaxPool { window, shift, act } => {
            let shape = image(&graph.tensors[op.inputs[0].0].shape);
            windows(window, shape)
                .map(|(pixels, c)| {
                    let max = pixels.iter().flatten().map(|p| x[p * shape[2] + c]).max().unwrap();
                    finish(max, *shift, 0, *act, opos)
                })
                .collect()
        }
        IntOpKind::AveragePool { window, m, shift, act } => {
            let shape = image(&graph.tensors[op.inputs[0].0].shape);
            windows(window, shape)
                .map(|(pixels, c)| {
                    let sum: i128 = pixels.iter().flatten().map(|p| x[p * shape[2] + c]).sum();
                    finish(sum * i128::from(*m), *shift, 0, *act, opos)
                })
                .collect()
        }
        IntOpKind::Add { shift_read, shift_write, act } => (0..input.len())
            .map(|i| {
                let terms = op.inputs.iter().zip(shift_read);
                let sum = terms.map(|(t, s)| i128::from(bytes(*t)[i] as i8) * 2i128.pow(*s)).sum();
                finish(sum, *shift_write, 0, *act, opos)
            })
            .collect(),
        IntOpKind::Multiply { shift, act } => indices(out)
            .map(|at| {
                let factor = |t: TensorIx| i128::from(bytes(t)[offset(&at, shape(t))] as i8);
                finish(factor(op.inputs[0]) * factor(op.inputs[1]), *shift, 0, *act, opos)
            })
            .collect(),
        IntOpKind::Concat { axis, shifts } => indices(out)
            .map(|mut at| {
                // The operand that holds this index along the axis.
                let mut operands = op.inputs.iter().zip(shifts);
                loop {
                    let (t, shift) = operands.next().unwrap();
                    if at[*axis] < shape(*t)[*axis] {
                        let value = i128::from(bytes(*t)[offset(&at, shape(*t))] as i8);
                        return finish(value, *shift, 0, IntAct::None, opos);
                    }
                    at[*axis] -= shape(*t)[*axis];
                }
            })
            .collect(),
        IntOpKind::UpSample { factor, shift } => indices(out)
            .map(|at| {
                let from = [at[0] / factor[0], at[1] / factor[1], at[2]];
                finish(x[offset(&from, shape(op.inputs[0]))], *shift, 0, IntAct::None, opos)
            })
            .collect(),
        IntOpKind::HardSigmoid { shift } => {
            let one = 2i128.pow(ipos as u32);
            x.iter().map(|v| finish((v + 3 * one).clamp(0, 6 * one) * 2731, *shift, 0, IntAct::None, opos)).collect()
        }
        IntOpKind::Pad { before, .. } => {
            let from = shape(op.inputs[0]);
            indices(out)
                .map(|at| match (at[0].checked_sub(before[0]), at[1].checked_sub(before[1])) {
                    (Some(y), Some(x)) if y < from[0] && x < from[1] => input[offset(&[y, x, at[2]], from)],
                    _ => 0,
                })
                .collect()
        }
        IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative } => indices(out)
            .zip(&x)
            .map(|(at, x)| {
                let (factor, shift) = match x {
                    0.. => (1, shift_positive),
                    _ => (i128::from(alpha[offset(&at, alpha_shape)]), shift_negative),
                };
                finish(x * factor, *shift, 0, IntAct::None, opos)
            })
            .collect(),
        IntOpKind::Permute { dims } => indices(out)
            .map(|at| {
                let mut from = vec![0; at.len()];
                dims.iter().zip(&at).for_each(|(axis, i)| from[*axis] = *i);
                input[offset(&from, shape(op.inputs[0]))]
            })
            .collect(),
        IntOpKind::View => input.to_vec(),
        IntOpKind::Requantize { shift, act } => x.iter().map(|v| finish(*v, *shift, 0, *act, opos)).collect(),
        IntOpKind::Float { .. } | IntOpKind::FakeQuantize(_) | IntOpKind::Scaled(_) => {
            panic!("the networks of this oracle have no float layers")
        }
        IntOpKind::Softmax => {
            // Defined by core: floats have no second exact evaluation to compare with.
            let axis = *graph.tensors[op.inputs[0].0].shape.last().unwrap();
            let step = f32::powi(2.0, -ipos);
            let floats: Vec<f32> = x.iter().map(|v| *v as f32 * step).collect();
            let mut out = vec![0f32; floats.len()];
            for (from, to) in floats.chunks(axis).zip(out.chunks_mut(axis)) {
                shiftwise_core::cpu::softmax(axis, |i| from[i], |i, v| to[i] = v);
            }
            out.iter().flat_map(|v| v.to_le_bytes()).collect()
        }
        IntOpKind::Quantize => {
            let scale = 2f64.powi(opos.0.into());
            let float = |b: &[u8]| f64::from(f32::from_le_bytes(b.try_into().unwrap()));
            input.chunks(4).map(|b| (float(b) * scale + 0.5).floor().clamp(-128.0, 127.0) as i8 as u8).collect()
        }
        IntOpKind::Dequantize => x.iter().flat_map(|v| (*v as f32 * f32::powi(2.0, -ipos)).to_le_bytes()).collect(),
    }
}

fn convolve(c: &IntConv, x: &[i128], opos: FixPos, depthwise: bool) -> Vec<u8> {
    let oc = c.output[2];
    let (ic_share, oc_share) = if depthwise { (1, 1) } else { (c.input[2] / c.groups, oc / c.groups) };
    let mut out = Vec::new();
    for (pixels, o) in windows(&c.window, [c.input[0], c.input[1], oc]) {
        let mut sum = 0;
        for (tap, pixel) in pixels.iter().enumerate() {
            let Some(pixel) = pixel else { continue };
            for i in 0..ic_share {
                let channel = o / oc_share * ic_share + i;
                let weight = if depthwise { c.kernel[tap * oc + o] } else { c.kernel[(tap * ic_share + i) * oc + o] };
                sum += x[pixel * c.input[2] + channel] * i128::from(weight);
            }
        }
        out.push(biased(c, sum, o, opos));
    }
    out
}

fn transposed(c: &IntConv, x: &[i128], opos: FixPos) -> Vec<u8> {
    let [h, w, ic] = c.input;
    let hit = |axis: usize, out: usize, tap: usize, size: usize| {
        let [stride, dilation, pad] =
            [c.window.stride, c.window.dilation, c.window.pad_before].map(|pair| i64::from(pair[axis]));
        let full = out as i64 + pad - tap as i64 * dilation;
        (full % stride == 0).then(|| usize::try_from(full / stride).ok()).flatten().filter(|i| *i < size)
    };
    let [kh, kw] = c.window.kernel.map(usize::from);
    let value = |at: Vec<usize>| {
        let mut sum = 0;
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (Some(iy), Some(ix)) = (hit(0, at[0], ky, h), hit(1, at[1], kx, w)) else { continue };
            for i in 0..ic {
                let weight = c.kernel[((ky * kw + kx) * ic + i) * c.output[2] + at[2]];
                sum += x[(iy * w + ix) * ic + i] * i128::from(weight);
            }
        }
        biased(c, sum, at[2], opos)
    };
    indices(&c.output).map(value).collect()
}

/// A sum with its bias as an output of channel `o`.
fn biased(c: &IntConv, sum: i128, o: usize, opos: FixPos) -> u8 {
    // In units of 2^-fine of an accumulator step, so that a bias finer than the accumulator stays exact.
    let fine = (-c.shift_bias).max(0);
    let bias = c.bias.as_ref().map_or(0, |b| i128::from(b[o])) * 2i128.pow((c.shift_bias + fine) as u32);
    finish(sum * 2i128.pow(fine as u32) + bias, c.shift_cut, fine, c.act, opos)
}

/// All indices of a shape, in memory order.
fn indices(shape: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let shape = shape.to_vec();
    (0..shape.iter().product()).map(move |mut i: usize| {
        let mut at = vec![0; shape.len()];
        for (at, size) in at.iter_mut().zip(&shape).rev() {
            (*at, i) = (i % size, i / size);
        }
        at
    })
}

/// The element of a tensor of `shape` that meets the index `at`; sizes of 1 and missing leading dimensions repeat.
fn offset(at: &[usize], shape: &[usize]) -> usize {
    let own = &at[at.len() - shape.len()..];
    shape.iter().zip(own).fold(0, |offset, (size, i)| offset * size + if *size == 1 { 0 } else { *i })
}

/// Per output value, in memory order: per tap the pixel it falls on, if any; and the channel.
fn windows(w: &Window, [h, width, c]: [usize; 3]) -> impl Iterator<Item = (Vec<Option<usize>>, usize)> + use<> {
    let w = *w;
    let [kh, kw] = w.kernel;
    let (oh, ow) = (w.outputs(0, h as u32), w.outputs(1, width as u32));
    let at = move |axis: usize, out: u32, tap: u16, size: usize| {
        let i = i64::from(out) * i64::from(w.stride[axis]) + i64::from(tap) * i64::from(w.dilation[axis])
            - i64::from(w.pad_before[axis]);
        usize::try_from(i).ok().filter(|i| *i < size)
    };
    (0..oh).flat_map(move |y| {
        (0..ow).flat_map(move |x| {
            (0..c).map(move |channel| {
                let taps = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
                let pixels = taps.map(|(ky, kx)| Some(at(0, y, ky, h)? * width + at(1, x, kx, width)?)).collect();
                (pixels, channel)
            })
        })
    })
}

/// `num / 2^(shift + fine)`: ReLU or the slope 26/256, rounded half up, saturated; ReLU6 clamps last.
fn finish(num: i128, shift: i32, fine: i32, act: IntAct, opos: FixPos) -> u8 {
    let (num, right) = match act {
        IntAct::None => (num, shift + fine),
        IntAct::Relu | IntAct::Relu6 => (num.max(0), shift + fine),
        IntAct::LeakyRelu => (num * if num < 0 { 26 } else { 256 }, shift + fine + 8),
    };
    let rounded = if right >= 0 {
        let den = 2i128.pow(right as u32);
        (2 * num + den).div_euclid(2 * den)
    } else {
        num * 2i128.pow(right.unsigned_abs())
    };
    let y = rounded.clamp(-128, 127);
    let six = (6.0 * f64::from(opos.0).exp2() + 0.5).floor().min(127.0) as i128;
    (if act == IntAct::Relu6 { y.min(six) } else { y }) as i8 as u8
}

fn image(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [h, w, c] => [h, w, c],
        [w, c] => [1, w, c],
        [c] => [1, 1, c],
        _ => panic!("no image: {shape:?}"),
    }
}
