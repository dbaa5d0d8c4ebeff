//! Networks in integer form for property tests, drawn so that a failing one shrinks to few layers.

use proptest::prelude::*;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx, image};

/// How many cases a property test tries: what `PROPTEST_CASES` says, or `default`.
pub(crate) fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What decides one layer: its kind, where it reads, and its sizes.
type Choice = [u8; 8];

/// Verified networks of up to 12 layers of every kind.
pub(crate) fn network() -> impl Strategy<Value = IntGraph> {
    let input = (1usize..16, 1usize..16, 1usize..40);
    (input, prop::collection::vec(any::<Choice>(), 1..12)).prop_map(|((h, w, c), choices)| {
        let mut drawn = Drawn::new([h, w, c]);
        for choice in choices {
            drawn.layer(choice);
        }
        drawn.finish()
    })
}

struct Drawn {
    graph: IntGraph,
    /// Integer maps of three dimensions.
    maps: Vec<TensorIx>,
}

impl Drawn {
    fn new(shape: [usize; 3]) -> Self {
        let graph = IntGraph { name: "drawn".into(), tensors: vec![], ops: vec![], inputs: vec![], outputs: vec![] };
        let mut drawn = Self { graph, maps: Vec::new() };
        let input = drawn.tensor(&shape, Kind::Fixed(FixPos(5)));
        drawn.graph.inputs.push(input);
        drawn.maps.push(input);
        drawn
    }

    fn tensor(&mut self, shape: &[usize], kind: Kind) -> TensorIx {
        let name = format!("quant_t{}", self.graph.tensors.len());
        self.graph.tensors.push(IntTensor { name, shape: shape.to_vec(), kind });
        TensorIx(self.graph.tensors.len() - 1)
    }

    fn op(&mut self, kind: IntOpKind, inputs: &[TensorIx], shape: &[usize], result: Kind) -> TensorIx {
        let output = self.tensor(shape, result);
        let layer = format!("layer{}", self.graph.ops.len());
        self.graph.ops.push(IntOp { kind, inputs: inputs.to_vec(), output, layer });
        output
    }

    fn shape(&self, t: TensorIx) -> [usize; 3] {
        image(&self.graph.tensors[t.0].shape)
    }

    fn pos(&self, t: TensorIx) -> Kind {
        self.graph.tensors[t.0].kind
    }

    fn layer(&mut self, choice: Choice) {
        let [kind, from, a, b, c, d, e, f] = choice;
        let x = self.maps[usize::from(from) % self.maps.len()];
        let [h, w, channels] = self.shape(x);
        let act = [IntAct::None, IntAct::Relu, IntAct::Relu6, IntAct::None][usize::from(e % 4)];
        let fixed = Kind::Fixed(FixPos((f % 7) as i8));
        let shift = i32::from(f % 3);
        let alike: Vec<TensorIx> = self.maps.iter().copied().filter(|m| self.shape(*m) == [h, w, channels]).collect();
        let mate = alike[usize::from(a) % alike.len()];
        let y = match kind % 16 {
            0..=2 => self.conv(x, choice, act, fixed),
            3 => self.depthwise(x, choice, act, fixed),
            4 if h * w < 200 => self.transposed(x, choice, act, fixed),
            5 | 6 => self.pool(x, choice, act, fixed),
            7 | 8 => {
                let kind =
                    IntOpKind::Add { shift_read: vec![u32::from(b % 4), u32::from(c % 4)], shift_write: shift, act };
                self.op(kind, &[x, mate], &[h, w, channels], fixed)
            }
            9 => self.op(IntOpKind::Multiply { shift: 5 + shift, act }, &[x, mate], &[h, w, channels], fixed),
            10 => self.concat(x, choice, fixed),
            11 if h * w < 200 => {
                let factor = [1 + usize::from(a % 2), 1 + usize::from(b % 2)];
                let shape = [h * factor[0], w * factor[1], channels];
                self.op(IntOpKind::UpSample { factor, shift }, &[x], &shape, fixed)
            }
            12 => {
                let [before, after] = [[a % 2, b % 2], [c % 2, d % 2]].map(|p| p.map(usize::from));
                let shape = [h + before[0] + after[0], w + before[1] + after[1], channels];
                self.op(IntOpKind::Pad { before, after }, &[x], &shape, self.pos(x))
            }
            13 => {
                let dims = [[0, 1, 2], [1, 0, 2], [2, 0, 1], [2, 1, 0]][usize::from(a % 4)];
                let shape = dims.map(|d: usize| [h, w, channels][d]);
                self.op(IntOpKind::Permute { dims: dims.to_vec() }, &[x], &shape, self.pos(x))
            }
            14 => match a % 4 {
                0 => self.op(IntOpKind::View, &[x], &[1, h * w, channels], self.pos(x)),
                1 => self.op(IntOpKind::HardSigmoid { shift: 12 }, &[x], &[h, w, channels], fixed),
                2 => {
                    let alpha = (0..channels).map(|i| (i as u8).wrapping_mul(b) as i8).collect();
                    let alpha_shape = vec![channels];
                    let kind = IntOpKind::PRelu { alpha, alpha_shape, shift_positive: shift, shift_negative: 4 };
                    self.op(kind, &[x], &[h, w, channels], fixed)
                }
                _ => {
                    let float = self.op(IntOpKind::Dequantize, &[x], &[h, w, channels], Kind::Float);
                    let soft = self.op(IntOpKind::Softmax, &[float], &[h, w, channels], Kind::Float);
                    self.op(IntOpKind::Quantize, &[soft], &[h, w, channels], fixed)
                }
            },
            _ => self.op(IntOpKind::Requantize { shift: shift - 1, act }, &[x], &[h, w, channels], fixed),
        };
        self.maps.push(y);
    }

    /// A window with each side at most that of the map.
    fn window([h, w]: [usize; 2], [_, _, a, b, c, d, ..]: Choice) -> Window {
        let mut window = Window::POINT;
        for (axis, (size, [k, s])) in [(h, [a, b]), (w, [c, d])].into_iter().enumerate() {
            window.kernel[axis] = (1 + u16::from(k % 3)).min(size as u16);
            window.stride[axis] = 1 + u16::from(s % 2);
            window.pad_before[axis] = u16::from(s / 2 % 2).min(window.kernel[axis] - 1);
            window.pad_after[axis] = u16::from(s / 4 % 2).min(window.kernel[axis] - 1);
        }
        window
    }

    fn weights(n: usize, seed: u8) -> Vec<i8> {
        (0..n).map(|i| ((i * 37 + usize::from(seed)) % 251) as u8 as i8 / 4).collect()
    }

    fn conv(&mut self, x: TensorIx, choice: Choice, act: IntAct, kind: Kind) -> TensorIx {
        let [h, w, ic] = self.shape(x);
        let [.., c, d, _, f] = choice;
        let groups = if f % 5 == 0 && ic % 2 == 0 { 2 } else { 1 };
        let window = Self::window([h, w], choice);
        let oc = groups * (1 + usize::from(c) % 24);
        let output = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, oc];
        let taps = usize::from(window.kernel[0] * window.kernel[1]);
        let conv = IntConv {
            window,
            input: [h, w, ic],
            output,
            kernel: Self::weights(taps * ic / groups * oc, d),
            bias: (d % 2 == 0).then(|| Self::weights(oc, f)),
            groups,
            shift_cut: 6 + i32::from(f % 4),
            shift_bias: i32::from(d % 4),
            act,
        };
        self.op(IntOpKind::Conv(conv), &[x], &output, kind)
    }

    fn depthwise(&mut self, x: TensorIx, choice: Choice, act: IntAct, kind: Kind) -> TensorIx {
        let [h, w, c] = self.shape(x);
        let window = Self::window([h, w], choice);
        let output = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, c];
        let taps = usize::from(window.kernel[0] * window.kernel[1]);
        let conv = IntConv {
            window,
            input: [h, w, c],
            output,
            kernel: Self::weights(taps * c, choice[5]),
            bias: None,
            groups: 1,
            shift_cut: 6,
            shift_bias: 0,
            act,
        };
        self.op(IntOpKind::Depthwise(conv), &[x], &output, kind)
    }

    fn transposed(&mut self, x: TensorIx, choice: Choice, act: IntAct, kind: Kind) -> TensorIx {
        let [h, w, ic] = self.shape(x);
        let window = Window { pad_before: [0; 2], pad_after: [0; 2], ..Self::window([h, w], choice) };
        let size = |axis: usize, n: usize| (n - 1) * usize::from(window.stride[axis]) + window.extent(axis) as usize;
        let oc = 1 + usize::from(choice[4] % 8);
        let output = [size(0, h), size(1, w), oc];
        let taps = usize::from(window.kernel[0] * window.kernel[1]);
        let conv = IntConv {
            window,
            input: [h, w, ic],
            output,
            kernel: Self::weights(taps * ic * oc, choice[5]),
            bias: None,
            groups: 1,
            shift_cut: 7,
            shift_bias: 0,
            act,
        };
        self.op(IntOpKind::ConvTranspose(conv), &[x], &output, kind)
    }

    fn pool(&mut self, x: TensorIx, choice: Choice, act: IntAct, kind: Kind) -> TensorIx {
        let [h, w, c] = self.shape(x);
        let window = Self::window([h, w], choice);
        let shape = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, c];
        let op = match choice[0] % 2 {
            0 => IntOpKind::MaxPool { window, shift: i32::from(choice[7] % 3) - 1, act },
            _ => IntOpKind::AveragePool { window, m: 57, shift: 9, act },
        };
        self.op(op, &[x], &shape, kind)
    }

    fn concat(&mut self, x: TensorIx, [_, _, a, b, c, ..]: Choice, kind: Kind) -> TensorIx {
        let shape = self.shape(x);
        let axis = usize::from(c % 3);
        let like = |m: &TensorIx| (0..3).all(|k| k == axis || self.shape(*m)[k] == shape[k]);
        let mates: Vec<TensorIx> = self.maps.iter().copied().filter(like).collect();
        let inputs = [x, mates[usize::from(a) % mates.len()], mates[usize::from(b) % mates.len()]];
        let mut out = shape;
        out[axis] = inputs.iter().map(|t| self.shape(*t)[axis]).sum();
        if out[axis] > 200 {
            return self.op(IntOpKind::Requantize { shift: 0, act: IntAct::None }, &[x], &shape, kind);
        }
        self.op(IntOpKind::Concat { axis, shifts: vec![0, 0, i32::from(b % 2)] }, &inputs, &out, kind)
    }

    /// What nothing reads is an output.
    fn finish(mut self) -> IntGraph {
        let unread = |t: &TensorIx| !self.graph.ops.iter().any(|op| op.inputs.contains(t));
        self.graph.outputs = self.graph.ops.iter().map(|op| op.output).filter(unread).collect();
        self.graph.verify().unwrap_or_else(|e| panic!("a network that was drawn is refused: {e}"));
        self.graph
    }
}
