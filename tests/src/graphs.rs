//! Random networks in integer form.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx};

/// A small generator with a seed (SplitMix64), so that a failing case is named by one number.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next_u64() % (high - low + 1) as u64) as i64
    }

    /// [`Rng::range`] of sizes.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        self.range(low as i64, high as i64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: i64) -> bool {
        self.range(1, n) == 1
    }

    /// Bytes of all values.
    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next_u64() as u8).collect()
    }
}

/// What random networks may be made of.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of layers.
    pub ops: usize,
    /// Largest height and width of an input.
    pub side: usize,
    /// Largest number of channels.
    pub channels: usize,
    /// Dilated convolutions with strides, softmax, float ends: what only the CPU does.
    pub cpu_only: bool,
    /// Shifts and positions far from what a quantizer would choose, which compilers may refuse.
    pub extreme: bool,
}

impl Limits {
    /// Small networks of everything that a CPU does.
    pub const CPU: Self = Self { ops: 12, side: 12, channels: 20, cpu_only: true, extreme: false };
}

/// A network under construction.
#[derive(Debug)]
pub struct Builder {
    /// What is built.
    pub graph: IntGraph,
    rng: Rng,
    extreme: bool,
    cpu_only: bool,
}

impl Builder {
    /// An empty network.
    pub fn new(name: &str, seed: u64) -> Self {
        let graph = IntGraph { name: name.into(), tensors: vec![], ops: vec![], inputs: vec![], outputs: vec![] };
        Self { graph, rng: Rng(seed), extreme: false, cpu_only: false }
    }

    fn tensor(&mut self, shape: &[usize], kind: Kind) -> TensorIx {
        let name = format!("quant_t{}", self.graph.tensors.len());
        self.graph.tensors.push(IntTensor { name, shape: shape.to_vec(), kind });
        TensorIx(self.graph.tensors.len() - 1)
    }

    /// An input of integers.
    pub fn input(&mut self, shape: &[usize]) -> TensorIx {
        let t = self.tensor(shape, Kind::Fixed(FixPos(5)));
        self.graph.inputs.push(t);
        t
    }

    /// An op whose result has this shape.
    pub fn op(&mut self, kind: IntOpKind, inputs: &[TensorIx], shape: &[usize], result: Kind) -> TensorIx {
        let output = self.tensor(shape, result);
        let layer = format!("layer{}", self.graph.ops.len());
        self.graph.ops.push(IntOp { kind, inputs: inputs.to_vec(), output, layer });
        output
    }

    /// The shape of a tensor.
    pub fn shape(&self, t: TensorIx) -> Vec<usize> {
        self.graph.tensors[t.0].shape.clone()
    }

    fn fixed(&mut self) -> Kind {
        Kind::Fixed(FixPos(if self.extreme { self.rng.range(-3, 15) } else { self.rng.range(1, 7) } as i8))
    }

    fn act(&mut self) -> IntAct {
        [IntAct::None, IntAct::Relu, IntAct::Relu6, IntAct::LeakyRelu][self.rng.size(0, 3)]
    }

    /// A right shift from `low` to `high`.
    fn shift(&mut self, low: i64, high: i64) -> i32 {
        (if self.extreme { self.rng.range(-10, 45) } else { self.rng.range(low, high) }) as i32
    }

    /// `shape` with some dimensions cut to 1 and maybe without leading ones: it broadcasts against it.
    fn broadcast(&mut self, shape: &[usize]) -> Vec<usize> {
        let kept = if self.rng.one_in(2) { shape.len() } else { self.rng.size(1, shape.len()) };
        let cut = self.rng.range(0, 7);
        let dims = shape[shape.len() - kept..].iter().rev().enumerate();
        let mut dims: Vec<usize> = dims.map(|(i, d)| if cut >> i & 1 == 0 { *d } else { 1 }).collect();
        dims.reverse();
        dims
    }

    /// A convolution with random weights and shifts that use the range of 8 bits.
    pub fn conv(&mut self, from: TensorIx, window: Window, oc: usize, groups: usize, act: IntAct) -> TensorIx {
        let [h, w, ic] = image(&self.shape(from));
        let output = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, oc];
        let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
        let c = self.integers([h, w, ic], output, taps * ic / groups * oc, taps * ic / groups, window, groups, act);
        let kind = self.fixed();
        self.op(IntOpKind::Conv(c), &[from], &output, kind)
    }

    /// A depthwise convolution with random weights.
    pub fn depthwise(&mut self, from: TensorIx, window: Window, act: IntAct) -> TensorIx {
        let [h, w, c] = image(&self.shape(from));
        let output = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, c];
        let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
        let conv = self.integers([h, w, c], output, taps * c, taps, window, 1, act);
        let kind = self.fixed();
        self.op(IntOpKind::Depthwise(conv), &[from], &output, kind)
    }

    /// A transposed convolution with random weights; `more` output rows and columns than its crop leaves.
    pub fn transposed(&mut self, from: TensorIx, window: Window, more: [usize; 2], oc: usize, act: IntAct) -> TensorIx {
        let [h, w, ic] = image(&self.shape(from));
        let size = |axis: usize, input: usize| {
            let full = (input - 1) * usize::from(window.stride[axis]) + window.extent(axis) as usize;
            full - usize::from(window.pad_before[axis]) - usize::from(window.pad_after[axis]) + more[axis]
        };
        let output = [size(0, h), size(1, w), oc];
        let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
        let hits = taps * ic / usize::from(window.stride[0] * window.stride[1]);
        let c = self.integers([h, w, ic], output, taps * ic * oc, hits.max(1), window, 1, act);
        let kind = self.fixed();
        self.op(IntOpKind::ConvTranspose(c), &[from], &output, kind)
    }

    /// A dense layer over a whole map.
    pub fn dense(&mut self, from: TensorIx, oc: usize, act: IntAct) -> TensorIx {
        let [h, w, _] = image(&self.shape(from));
        let window = Window { kernel: [h as u16, w as u16], ..Window::POINT };
        let out = self.conv(from, window, oc, 1, act);
        self.graph.tensors[out.0].shape = vec![oc];
        out
    }

    #[allow(clippy::too_many_arguments)]
    fn integers(
        &mut self,
        input: [usize; 3],
        output: [usize; 3],
        weights: usize,
        products: usize,
        window: Window,
        groups: usize,
        act: IntAct,
    ) -> IntConv {
        let spread = (products as f64).sqrt().log2() as i64;
        let shift_cut = (spread + 7 + self.rng.range(-2, 1)).clamp(0, 16) as i32;
        let shift_cut = if self.rng.one_in(8) { self.rng.range(0, 16) as i32 } else { shift_cut };
        let low = (shift_cut - 16).min(0) - 1;
        let shift_bias = self.rng.range(low.into(), (i64::from(shift_cut) + 1).min(16)) as i32;
        // A LeakyReLU keeps every bit of the bias: the CPU's accumulator has room for a few below its step, the DPU's for one.
        let least = if self.cpu_only { -4 } else { 0 };
        let shift_bias = if act == IntAct::LeakyRelu { shift_bias.max(least) } else { shift_bias };
        let (shift_cut, shift_bias) = if self.extreme && self.rng.one_in(2) {
            (self.rng.range(-40, 50) as i32, self.rng.range(-55, 60) as i32)
        } else {
            (shift_cut, shift_bias)
        };
        let bias = (!self.rng.one_in(4)).then(|| self.rng.bytes(output[2]).iter().map(|b| *b as i8).collect());
        // Without products the bias alone decides, whose last bits are lost beside them otherwise.
        let factor = i8::from(!(self.extreme && self.rng.one_in(4)));
        let kernel = self.rng.bytes(weights).iter().map(|b| *b as i8 * factor).collect();
        IntConv { window, input, output, kernel, bias, groups, shift_cut, shift_bias, act }
    }

    fn window(&mut self, h: usize, w: usize, kernel: usize, dilated: bool) -> Window {
        let mut window = Window::POINT;
        for (axis, size) in [h, w].into_iter().enumerate() {
            let k = self.rng.size(1, kernel.min(size)) as u16;
            let dilation = if dilated && size >= 2 * usize::from(k) { 2 } else { 1 };
            window.kernel[axis] = k;
            window.dilation[axis] = dilation;
            window.stride[axis] = self.rng.size(1, 3) as u16;
            let reach = window.extent(axis) as u16 - 1;
            window.pad_before[axis] = self.rng.size(0, reach.into()) as u16;
            window.pad_after[axis] = self.rng.size(0, reach.into()) as u16;
        }
        window
    }
}

/// A shape read as `[h, w, c]`.
fn image(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [h, w, c] => [h, w, c],
        [w, c] => [1, w, c],
        [c] => [1, 1, c],
        _ => panic!("no image: {shape:?}"),
    }
}

/// Bytes for every input of `graph`.
pub fn random_inputs(graph: &IntGraph, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = Rng(seed ^ 0xABCD);
    let bytes = |t: &TensorIx| {
        let tensor = &graph.tensors[t.0];
        let n: usize = tensor.shape.iter().product();
        match tensor.kind {
            Kind::Fixed(_) => rng.bytes(n),
            Kind::Scaled(scale) => rng.bytes(n * scale.bytes() as usize),
            Kind::Float => (0..n).flat_map(|_| (rng.range(-900, 900) as f32 / 128.0).to_le_bytes()).collect(),
        }
    };
    graph.inputs.iter().map(bytes).collect()
}

/// The network of a seed: a random graph with branches, shared tensors, several inputs and outputs.
pub fn random_graph(seed: u64, limits: Limits) -> IntGraph {
    let mut b =
        Builder { extreme: limits.extreme, cpu_only: limits.cpu_only, ..Builder::new(&format!("random{seed}"), seed) };
    let mut live = Vec::new();
    for _ in 0..b.rng.size(1, 2) {
        let shape = [b.rng.size(1, limits.side), b.rng.size(1, limits.side), b.rng.size(1, limits.channels.min(40))];
        if limits.cpu_only && b.rng.one_in(3) {
            let floats = b.tensor(&shape, Kind::Float);
            b.graph.inputs.push(floats);
            let kind = b.fixed();
            live.push(b.op(IntOpKind::Quantize, &[floats], &shape, kind));
        } else {
            live.push(b.input(&shape));
        }
    }
    let count = b.rng.size(1, limits.ops);
    for _ in 0..count {
        // Mostly the newest tensor, sometimes an older one: chains with skips.
        let from = if b.rng.one_in(4) { live[b.rng.size(0, live.len() - 1)] } else { live[live.len() - 1] };
        let made = if b.rng.one_in(3) {
            other_op(&mut b, from, &live, limits)
        } else {
            random_op(&mut b, from, &live, limits)
        };
        live.push(made);
    }
    let read: Vec<TensorIx> = b.graph.ops.iter().flat_map(|o| o.inputs.clone()).collect();
    b.graph.outputs = live.iter().copied().filter(|t| !read.contains(t)).collect();
    if b.rng.one_in(3) {
        // An inner tensor, possibly an input, as an output as well.
        let extra = live[b.rng.size(0, live.len() - 1)];
        b.graph.outputs.push(extra);
    }
    if limits.cpu_only && b.rng.one_in(2) {
        let last = b.graph.outputs[0];
        let shape = b.shape(last);
        let kind = if b.rng.one_in(2) { IntOpKind::Softmax } else { IntOpKind::Dequantize };
        let floats = b.op(kind, &[last], &shape, Kind::Float);
        b.graph.outputs[0] = floats;
    }
    b.graph
}

fn random_op(b: &mut Builder, from: TensorIx, live: &[TensorIx], limits: Limits) -> TensorIx {
    let shape = b.shape(from);
    let [h, w, c] = image(&shape);
    let act = b.act();
    let oc = if b.rng.one_in(3) { b.rng.size(1, limits.channels) } else { b.rng.size(1, limits.channels.min(24)) };
    match b.rng.range(0, 11) {
        0..=3 => {
            let dilated = limits.cpu_only && b.rng.one_in(4);
            let window = b.window(h, w, 5, dilated);
            let groups = match b.rng.range(0, 5) {
                0 if c % 2 == 0 => 2,
                // A depthwise convolution with several outputs per channel.
                1 if c < 12 => c,
                _ => 1,
            };
            b.conv(from, window, oc.next_multiple_of(groups), groups, act)
        }
        4..=5 => {
            let window = b.window(h, w, 4, false);
            b.depthwise(from, window, act)
        }
        6 => {
            let mut window = b.window(h, w, 4, false);
            // A window wholly in the padding has no largest value.
            window.pad_after = [0, 0];
            let output = [0, 1].map(|a| window.outputs(a, [h, w][a] as u32) as usize);
            let (shift, kind) = (b.shift(-1, 2), b.fixed());
            let act = if act == IntAct::Relu6 && shift < 0 { IntAct::Relu } else { act };
            b.op(IntOpKind::MaxPool { window, shift, act }, &[from], &[output[0], output[1], c], kind)
        }
        7 => {
            let mut window = b.window(h, w, 7, false);
            window.pad_after = [0, 0];
            let output = [0, 1].map(|a| window.outputs(a, [h, w][a] as u32) as usize);
            let taps = f64::from(window.kernel[0]) * f64::from(window.kernel[1]);
            let n = b.rng.range(5, 8) as i32;
            let m = (f64::from(1 << n) / taps).round().max(1.0) as u16;
            let kind = b.fixed();
            let shift = n + b.shift(-1, 1);
            b.op(IntOpKind::AveragePool { window, m, shift, act }, &[from], &[output[0], output[1], c], kind)
        }
        8..=9 => {
            let mates: Vec<TensorIx> = live.iter().copied().filter(|t| b.shape(*t) == shape).collect();
            let mut inputs = vec![from, mates[b.rng.size(0, mates.len() - 1)]];
            if b.rng.one_in(4) {
                inputs.push(mates[b.rng.size(0, mates.len() - 1)]);
            }
            let shift_read = inputs.iter().map(|_| b.rng.size(0, 3) as u32).collect();
            let (shift_write, kind) = (b.shift(0, 4), b.fixed());
            b.op(IntOpKind::Add { shift_read, shift_write, act }, &inputs, &shape, kind)
        }
        10 => {
            let kind = b.graph.tensors[from.0].kind;
            let flat = b.op(IntOpKind::View, &[from], &[h * w * c], kind);
            if h * w * c <= 600 && h < 16 && w < 16 && b.rng.one_in(2) {
                let [h, w, c] = image(&b.shape(flat));
                debug_assert_eq!([h, w], [1, 1]);
                let window = Window::POINT;
                return b.conv(flat, window, c.min(oc), 1, act);
            }
            if h < 16 && w < 16 && b.rng.one_in(2) { b.dense(from, oc, act) } else { flat }
        }
        _ => {
            let (shift, kind) = (b.shift(-1, 3), b.fixed());
            let act = if act == IntAct::Relu6 && shift < 0 { IntAct::Relu } else { act };
            b.op(IntOpKind::Requantize { shift, act }, &[from], &shape, kind)
        }
    }
}

/// Ops that are rarer in networks: each kind as often as the others.
fn other_op(b: &mut Builder, from: TensorIx, live: &[TensorIx], limits: Limits) -> TensorIx {
    let shape = b.shape(from);
    let [h, w, c] = image(&shape);
    let act = b.act();
    let kind = b.fixed();
    match b.rng.range(0, 8) {
        0..=1 => {
            let dilated = limits.cpu_only && b.rng.one_in(4);
            let mut window = b.window(h.max(2), w.max(2), 4, dilated);
            let mut more = [0, 0];
            for axis in [0, 1] {
                let crop = window.extent(axis) as usize - 1;
                // One output at least stays.
                window.pad_before[axis] = b.rng.size(0, crop) as u16;
                window.pad_after[axis] = b.rng.size(0, crop - usize::from(window.pad_before[axis])) as u16;
                more[axis] = b.rng.size(0, usize::from(window.stride[axis]) - 1);
            }
            let oc = b.rng.size(1, limits.channels.min(24));
            b.transposed(from, window, more, oc, act)
        }
        2 => {
            let whole = b.rng.one_in(2);
            let other = if whole { shape.clone() } else { b.broadcast(&shape) };
            let mate = live.iter().copied().find(|t| *t != from && b.shape(*t) == other);
            let mate = mate.unwrap_or_else(|| b.input(&other));
            let shift = b.shift(3, 9);
            let inputs = if b.rng.one_in(2) { [from, mate] } else { [mate, from] };
            let act = if act == IntAct::Relu6 && shift < 0 { IntAct::Relu } else { act };
            b.op(IntOpKind::Multiply { shift, act }, &inputs, &shape, kind)
        }
        3 => {
            let axis = b.rng.size(0, shape.len() - 1);
            let alike = |b: &Builder, t: TensorIx| {
                let other = b.shape(t);
                other.len() == shape.len() && (0..other.len()).all(|i| i == axis || other[i] == shape[i])
            };
            let mates: Vec<TensorIx> = live.iter().copied().filter(|t| alike(b, *t)).collect();
            let mut inputs = vec![from];
            for _ in 0..b.rng.size(1, 3) {
                inputs.push(mates[b.rng.size(0, mates.len() - 1)]);
            }
            let sum = inputs.iter().map(|t| b.shape(*t)[axis]).sum::<usize>();
            let aligned = b.rng.one_in(2);
            let shifts = inputs.iter().map(|_| if aligned { 0 } else { b.shift(-1, 2) }).collect();
            let mut out = shape;
            out[axis] = sum;
            b.op(IntOpKind::Concat { axis, shifts }, &inputs, &out, kind)
        }
        4 if shape.len() == 3 && h * w * c < 4000 => {
            let factor = [b.rng.size(1, 3), b.rng.size(1, 3)];
            let shift = if b.rng.one_in(2) { 0 } else { b.shift(-1, 2) };
            b.op(IntOpKind::UpSample { factor, shift }, &[from], &[h * factor[0], w * factor[1], c], kind)
        }
        5 if shape.len() == 3 => {
            let mut pads = || [b.rng.size(0, 3), b.rng.size(0, 3)];
            let (before, after) = (pads(), pads());
            let kind = b.graph.tensors[from.0].kind;
            let out = [h + before[0] + after[0], w + before[1] + after[1], c];
            b.op(IntOpKind::Pad { before, after }, &[from], &out, kind)
        }
        6 => {
            let alpha_shape = b.broadcast(&shape);
            let alpha = b.rng.bytes(alpha_shape.iter().product()).iter().map(|b| *b as i8).collect();
            let (shift_positive, shift_negative) = (b.shift(-1, 2), b.shift(3, 9));
            let prelu = IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative };
            b.op(prelu, &[from], &shape, kind)
        }
        7 => {
            let mut dims: Vec<usize> = (0..shape.len()).collect();
            (1..dims.len()).for_each(|i| dims.swap(i, b.rng.size(0, i)));
            let out: Vec<usize> = dims.iter().map(|d| shape[*d]).collect();
            let kind = b.graph.tensors[from.0].kind;
            b.op(IntOpKind::Permute { dims }, &[from], &out, kind)
        }
        _ => {
            let position = |kind: Kind| if let Kind::Fixed(pos) = kind { i32::from(pos.0) } else { 0 };
            let (ipos, kind) = (position(b.graph.tensors[from.0].kind), Kind::Fixed(FixPos(b.rng.range(5, 8) as i8)));
            if ipos < 0 {
                let shift = b.shift(-1, 3);
                return b.op(IntOpKind::Requantize { shift, act }, &[from], &shape, kind);
            }
            b.op(IntOpKind::HardSigmoid { shift: 14 + ipos - position(kind) }, &[from], &shape, kind)
        }
    }
}
