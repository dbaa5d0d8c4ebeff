//! Random layers on integers with steps of any size, and an oracle for them: the formula of each in fractions of 128 bits,
//! sharing no arithmetic with what it checks.

use crate::graphs::{Builder, Rng};
use shiftwise_core::scale::{Multiplier, Scale};
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, Kind, TensorIx, image};
use shiftwise_integer::scaled::{Channel, ScaledConv, ScaledOp, ScaledPooling};

/// A grid: 8 or 16 bits, with or without a zero point, narrow or not.
fn grid(rng: &mut Rng) -> Scale {
    let wide = rng.one_in(4);
    let high = if wide { i16::MAX } else { 127 };
    let low = if rng.one_in(4) { -high } else { -high - 1 };
    let zero = if rng.one_in(2) { 0 } else { rng.range(low.into(), high.into()) as i16 };
    let step = rng.range(1, 1 << 24) as f32 / 1e9;
    Scale::new(step, zero, low, high).unwrap()
}

fn bounds(rng: &mut Rng, to: Scale) -> [i16; 2] {
    let low = if rng.one_in(2) { to.zero } else { to.low };
    let high = if rng.one_in(3) { rng.range(low.into(), to.high.into()) as i16 } else { to.high };
    [low, high]
}

/// A multiplier with which accumulators of about `2^bits` make results of the range of `to`.
fn multiplier(rng: &mut Rng, bits: i32, to: Scale) -> Multiplier {
    let range = if to.is_wide() { 15.0 } else { 7.0 };
    let exponent = range - f64::from(bits) + rng.range(-20, 20) as f64 / 10.0;
    let power_of_two = rng.one_in(4);
    Multiplier::of(if power_of_two { exponent.round().exp2() } else { exponent.exp2() }).unwrap()
}

fn window(rng: &mut Rng, dilated: bool) -> Window {
    let mut of = |low: i64, high: i64| [rng.range(low, high) as u16, rng.range(low, high) as u16];
    let (kernel, stride) = (of(1, 3), of(1, 3));
    let dilation = if dilated { of(1, 2) } else { [1, 1] };
    let most = |axis: usize| (kernel[axis] - 1) * dilation[axis];
    let (before, after) = (of(0, 2), of(0, 2));
    let pad = |p: [u16; 2]| [p[0].min(most(0)), p[1].min(most(1))];
    Window { kernel, stride, dilation, pad_before: pad(before), pad_after: pad(after) }
}

/// A network of one random layer.
pub fn random_layer(seed: u64) -> IntGraph {
    let mut rng = Rng(seed);
    let mut b = Builder::new("scaled", seed);
    let map = [rng.size(5, 8), rng.size(5, 8), 2 * rng.size(1, 4)];
    // Now and then one operand is of a position.
    let input = |b: &mut Builder, rng: &mut Rng, shape: &[usize]| {
        let position = rng.one_in(4);
        let scale = grid(rng);
        let t = b.input(shape);
        if !position {
            b.graph.tensors[t.0].kind = Kind::Scaled(scale);
        }
        t
    };
    let x = input(&mut b, &mut rng, &map);
    let to = grid(&mut rng);
    let limits = bounds(&mut rng, to);
    let of = |b: &Builder, t: TensorIx| b.graph.tensors[t.0].kind.scale().unwrap();
    let (kind, inputs, shape) = match rng.size(0, 8) {
        0..=2 => {
            let (op, shape) = conv(&mut rng, map, of(&b, x), to, limits);
            (op, vec![x], shape)
        }
        3 => {
            let window = window(&mut rng, false);
            let taps = window.kernel.map(usize::from).iter().product::<usize>();
            let pooling = [ScaledPooling::Max, ScaledPooling::Sum, ScaledPooling::Counted][rng.size(0, 2)];
            let count = if pooling == ScaledPooling::Counted { taps } else { 1 };
            let bits = if of(&b, x).is_wide() { 17 } else { 9 };
            let multipliers = (0..count).map(|_| multiplier(&mut rng, bits, to)).collect();
            let out = [0, 1].map(|axis| window.outputs(axis, map[axis] as u32) as usize);
            (ScaledOp::Pool { window, pooling, multipliers, bounds: limits }, vec![x], vec![out[0], out[1], map[2]])
        }
        4 | 5 => {
            let more = rng.size(0, 2);
            let inputs: Vec<TensorIx> =
                std::iter::once(x).chain((0..more).map(|_| input(&mut b, &mut rng, &map))).collect();
            let n = rng.range(20, 40) as u8;
            let factors = inputs.iter().map(|_| rng.range(0, (1 << 31) - 1) as u32).collect();
            (ScaledOp::Sum { factors, n, bounds: limits }, inputs, map.to_vec())
        }
        6 => {
            let shape = [map.to_vec(), vec![map[2]], vec![1, 1, map[2]]][rng.size(0, 2)].clone();
            let y = input(&mut b, &mut rng, &shape);
            let wide = [x, y].iter().filter(|t| of(&b, **t).is_wide()).count() as i32;
            // Products of two wide ones only by powers of two: others leave 64 bits.
            let m = multiplier(&mut rng, 16 + 8 * wide, to);
            let multiplier = if wide == 2 { Multiplier { m: 1 << 30, ..m } } else { m };
            (ScaledOp::Product { multiplier, bounds: limits }, vec![x, y], map.to_vec())
        }
        7 => {
            let axis = rng.size(0, 2);
            let mut other = map;
            other[axis] = rng.size(1, 4);
            let y = input(&mut b, &mut rng, &other);
            let multipliers = [x, y].map(|t| multiplier(&mut rng, if of(&b, t).is_wide() { 16 } else { 8 }, to)).into();
            let mut shape = map.to_vec();
            shape[axis] += other[axis];
            (ScaledOp::Concat { axis, multipliers, bounds: limits }, vec![x, y], shape)
        }
        _ => {
            let kind = b.graph.tensors[x.0].kind;
            let moves = [
                (IntOpKind::Pad { before: [1, 2], after: [0, 1] }, vec![map[0] + 1, map[1] + 3, map[2]]),
                (IntOpKind::UpSample { factor: [2, 3], shift: 0 }, vec![2 * map[0], 3 * map[1], map[2]]),
                (IntOpKind::Permute { dims: vec![2, 0, 1] }, vec![map[2], map[0], map[1]]),
                (IntOpKind::View, vec![map.iter().product()]),
            ];
            let (op, shape) = moves[rng.size(0, 3)].clone();
            let y = b.op(op, &[x], &shape, kind);
            b.graph.outputs.push(y);
            return b.graph;
        }
    };
    let y = b.op(IntOpKind::Scaled(Box::new(kind)), &inputs, &shape, Kind::Scaled(to));
    b.graph.outputs.push(y);
    b.graph
}

fn conv(rng: &mut Rng, map: [usize; 3], from: Scale, to: Scale, bounds: [i16; 2]) -> (ScaledOp, Vec<usize>) {
    let window = window(rng, true);
    let transposed = rng.one_in(4);
    let groups = if transposed { 1 } else { [1, 1, 2, map[2]][rng.size(0, 3)] };
    let oc = groups * rng.size(1, 3);
    let out = if transposed {
        [0, 1].map(|axis| {
            let full = (map[axis] - 1) * usize::from(window.stride[axis]) + window.extent(axis) as usize;
            full - usize::from(window.pad_before[axis]).min(full - 1)
        })
    } else {
        [0, 1].map(|axis| window.outputs(axis, map[axis] as u32) as usize)
    };
    let taps = window.kernel.map(usize::from).iter().product::<usize>();
    let wide = rng.one_in(3);
    let weight = |rng: &mut Rng| if wide { rng.next_u64() as i16 } else { i16::from(rng.next_u64() as i8) };
    let kernel: Vec<i16> = (0..taps * map[2] / groups * oc).map(|_| weight(rng)).collect();
    let bits = 15 + if wide { 8 } else { 0 } + if from.is_wide() { 8 } else { 0 };
    let channel = |rng: &mut Rng| {
        let m = multiplier(rng, bits + 2, to);
        // Beyond 32 bits only powers of two leave room for a multiplier in 64.
        let multiplier = if bits > 25 { Multiplier { m: 1 << 30, ..m } } else { m };
        Channel { bias: rng.range(-(1 << bits), 1 << bits), multiplier }
    };
    let channels = (0..oc).map(|_| channel(rng)).collect();
    let output = [out[0], out[1], oc];
    let conv = ScaledConv { window, input: map, output, kernel, groups, transposed, channels, bounds };
    (ScaledOp::Conv(conv), output.to_vec())
}

/// What integer bytes hold.
fn integers(bytes: &[u8], kind: Kind) -> Vec<i128> {
    match kind.bytes() {
        2 => bytes.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]).into()).collect(),
        _ => bytes.iter().map(|b| i128::from(*b as i8)).collect(),
    }
}

/// `clamp(floor((num · m + 2^(n−1)) / 2^n) + zero)` from the fraction itself.
fn finished(num: i128, (m, n): (u32, u8), to: Scale, [low, high]: [i16; 2]) -> i128 {
    let den = (0..n).fold(1i128, |d, _| d * 2);
    let rounded = (2 * num * i128::from(m) + den).div_euclid(2 * den);
    (rounded + i128::from(to.zero)).clamp(low.into(), high.into())
}

/// The bytes of the only layer's result.
pub fn evaluate(graph: &IntGraph, inputs: &[Vec<u8>]) -> Vec<u8> {
    let [op] = &graph.ops[..] else { panic!("one layer") };
    let kind = |t: TensorIx| graph.tensors[t.0].kind;
    let given = |t: TensorIx| &inputs[graph.inputs.iter().position(|i| *i == t).unwrap()];
    let q = |k: usize| integers(given(op.inputs[k]), kind(op.inputs[k]));
    let zero = |k: usize| i128::from(kind(op.inputs[k]).scale().unwrap().zero);
    let steps = |k: usize| -> Vec<i128> { q(k).into_iter().map(|q| q - zero(k)).collect() };
    let to = kind(op.output).scale().unwrap();
    let out = &graph.tensors[op.output.0].shape;
    let shape = |k: usize| &graph.tensors[op.inputs[k].0].shape;
    let y: Vec<i128> = match &op.kind {
        IntOpKind::Scaled(own) => scaled(op, own, &steps, &shape, (out, to)),
        IntOpKind::View => q(0),
        kind => {
            let (x, [h, w, c]) = (q(0), image(shape(0)));
            let at = |i: usize| [i / (out[1] * out[2]), i / out[2] % out[1], i % out[2]];
            let from = |[a, b, d]: [usize; 3]| match kind {
                IntOpKind::Pad { before, .. } => {
                    let (y, x_) = (a.wrapping_sub(before[0]), b.wrapping_sub(before[1]));
                    if y < h && x_ < w { x[(y * w + x_) * c + d] } else { zero(0) }
                }
                IntOpKind::UpSample { factor, .. } => x[(a / factor[0] * w + b / factor[1]) * c + d],
                IntOpKind::Permute { .. } => x[(b * w + d) * c + a],
                other => panic!("{other:?}"),
            };
            (0..out.iter().product()).map(|i| from(at(i))).collect()
        }
    };
    y.into_iter().flat_map(|q| (q as i16).to_le_bytes().into_iter().take(kind(op.output).bytes())).collect()
}

fn scaled<'g>(
    op: &IntOp,
    own: &ScaledOp,
    steps: &dyn Fn(usize) -> Vec<i128>,
    shape: &dyn Fn(usize) -> &'g Vec<usize>,
    (out, to): (&[usize], Scale),
) -> Vec<i128> {
    let elements = || 0..out.iter().product::<usize>();
    let m = |m: &Multiplier| (m.m, m.n);
    let last = out.len() - 1;
    match own {
        ScaledOp::Conv(c) => convolved(c, &steps(0), to),
        ScaledOp::Pool { window, pooling, multipliers, bounds } => {
            let (x, [h, w, channels]) = (steps(0), image(shape(0)));
            let one = |i: usize| {
                let (pixel, channel) = (i / channels, i % channels);
                let met = |axis: usize, o: usize, size: usize| -> Vec<usize> {
                    let first = (o * usize::from(window.stride[axis])) as i64 - i64::from(window.pad_before[axis]);
                    let taps = (0..i64::from(window.kernel[axis])).map(|tap| first + tap);
                    taps.filter_map(|at| usize::try_from(at).ok().filter(|at| *at < size)).collect()
                };
                let (rows, columns) = (met(0, pixel / out[1], h), met(1, pixel % out[1], w));
                let pixels = rows.iter().flat_map(|y| columns.iter().map(move |x| y * w + x));
                let values: Vec<i128> = pixels.map(|p| x[p * channels + channel]).collect();
                match pooling {
                    ScaledPooling::Max => finished(*values.iter().max().unwrap(), m(&multipliers[0]), to, *bounds),
                    ScaledPooling::Sum => finished(values.iter().sum(), m(&multipliers[0]), to, *bounds),
                    ScaledPooling::Counted => {
                        finished(values.iter().sum(), m(&multipliers[values.len() - 1]), to, *bounds)
                    }
                }
            };
            elements().map(one).collect()
        }
        ScaledOp::Sum { factors, n, bounds } => {
            let x: Vec<Vec<i128>> = (0..op.inputs.len()).map(steps).collect();
            let sum = |i: usize| x.iter().zip(factors).map(|(x, m)| x[i] * i128::from(*m)).sum();
            elements().map(|i| finished(sum(i), (1, *n), to, *bounds)).collect()
        }
        ScaledOp::Product { multiplier, bounds } => {
            let (a, b) = (steps(0), steps(1));
            // The second is a map, or one value for each channel.
            let at = |i: usize| if b.len() == a.len() { i } else { i % out[last] };
            elements().map(|i| finished(a[i] * b[at(i)], m(multiplier), to, *bounds)).collect()
        }
        ScaledOp::Concat { axis, multipliers, bounds } => {
            let x: Vec<Vec<i128>> = (0..op.inputs.len()).map(steps).collect();
            let one = |i: usize| {
                let mut at = [i / (out[1] * out[2]), i / out[2] % out[1], i % out[2]];
                let mut k = 0;
                while at[*axis] >= shape(k)[*axis] {
                    at[*axis] -= shape(k)[*axis];
                    k += 1;
                }
                let own = shape(k);
                finished(x[k][(at[0] * own[1] + at[1]) * own[2] + at[2]], m(&multipliers[k]), to, *bounds)
            };
            elements().map(one).collect()
        }
    }
}

/// Each tap of each output on its own; of a transposed convolution each tap of each input, added where it falls.
fn convolved(c: &ScaledConv, x: &[i128], to: Scale) -> Vec<i128> {
    let ([h, w, ic], [oh, ow, oc]) = (c.input, c.output);
    let (share, group) = (ic / c.groups, oc / c.groups);
    let [kh, kw] = c.window.kernel.map(usize::from);
    let mut sums = vec![0i128; oh * ow * oc];
    let along = |axis: usize, out: usize, tap: usize, input: usize| {
        let [stride, dilation, pad] = [c.window.stride, c.window.dilation, c.window.pad_before].map(|p| p[axis] as i64);
        let (out, tap, input) = (out as i64, tap as i64 * dilation, input as i64);
        if c.transposed { out + pad == input * stride + tap } else { input + pad == out * stride + tap }
    };
    for (oy, ox) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
        for (ky, kx) in (0..kh).flat_map(|y| (0..kw).map(move |x| (y, x))) {
            let rows = (0..h).filter(|iy| along(0, oy, ky, *iy));
            for (iy, ix) in rows.flat_map(|iy| (0..w).filter(|ix| along(1, ox, kx, *ix)).map(move |ix| (iy, ix))) {
                for o in 0..oc {
                    for i in 0..share {
                        let weight = c.kernel[((ky * kw + kx) * share + i) * oc + o];
                        let x = x[(iy * w + ix) * ic + o / group * share + i];
                        sums[(oy * ow + ox) * oc + o] += x * i128::from(weight);
                    }
                }
            }
        }
    }
    let finish = |(i, sum): (usize, i128)| {
        let Channel { bias, multiplier } = c.channels[i % oc];
        finished(sum + i128::from(bias), (multiplier.m, multiplier.n), to, c.bounds)
    };
    sums.into_iter().enumerate().map(finish).collect()
}
