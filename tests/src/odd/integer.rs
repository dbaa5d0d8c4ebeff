//! Odd networks in integer form.

use shiftwise_core::fix::FixPos;
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntConv, IntGraph, IntOp, IntOpKind, IntTensor, Kind, TensorIx, image};

use super::Choices;

/// Largest number of elements of a tensor.
const ELEMENTS: usize = 6000;
/// Largest number of weights of a layer.
const WEIGHTS: usize = 20_000;

struct Builder<'a, 'b> {
    graph: IntGraph,
    c: &'b mut Choices<'a>,
    /// Tensors of integers.
    live: Vec<TensorIx>,
}

/// The network that these choices describe: well-formed, without layers in floats.
pub fn odd_graph(c: &mut Choices<'_>) -> IntGraph {
    let graph = IntGraph { name: "odd".into(), tensors: vec![], ops: vec![], inputs: vec![], outputs: vec![] };
    let mut b = Builder { graph, c, live: Vec::new() };
    for _ in 0..b.c.size(1, 3) {
        b.input();
    }
    for _ in 0..b.c.size(1, 10) {
        let from = b.any();
        if let Some(made) = b.op(from) {
            b.live.push(made);
        }
    }
    b.outputs();
    b.graph
}

impl Builder<'_, '_> {
    fn tensor(&mut self, shape: &[usize], kind: Kind) -> TensorIx {
        let name = format!("quant_t{}", self.graph.tensors.len());
        self.graph.tensors.push(IntTensor { name, shape: shape.to_vec(), kind });
        TensorIx(self.graph.tensors.len() - 1)
    }

    fn input(&mut self) {
        const SIZES: [usize; 10] = [1, 1, 2, 3, 5, 8, 1, 7, 13, 20];
        let mut shape = [self.c.of(&SIZES), self.c.of(&SIZES), self.c.of(&[3, 1, 2, 16, 17, 33, 1, 8])].to_vec();
        if self.c.one_in(5) {
            shape.drain(..self.c.size(1, 2));
        }
        let kind = self.fixed();
        let input = if self.c.one_in(5) {
            let floats = self.tensor(&shape, Kind::Float);
            self.graph.inputs.push(floats);
            self.push(IntOpKind::Quantize, &[floats], &shape, kind)
        } else {
            let t = self.tensor(&shape, kind);
            self.graph.inputs.push(t);
            t
        };
        self.live.push(input);
    }

    /// Mostly the newest tensor.
    fn any(&mut self) -> TensorIx {
        let last = self.live.len() - 1;
        if self.c.one_in(3) { self.live[self.c.size(0, last)] } else { self.live[last] }
    }

    fn fixed(&mut self) -> Kind {
        Kind::Fixed(FixPos(self.c.of(&[4, 5, 6, 3, 7, 0, -3, 12, -12, 20])))
    }

    fn act(&mut self) -> IntAct {
        self.c.of(&[IntAct::None, IntAct::Relu, IntAct::LeakyRelu, IntAct::Relu6])
    }

    fn shift(&mut self, usual: i32) -> i32 {
        usual + self.c.of(&[0, 0, 1, -1, 2, 0, 5, -9, 30, -30])
    }

    fn push(&mut self, kind: IntOpKind, inputs: &[TensorIx], shape: &[usize], result: Kind) -> TensorIx {
        let output = self.tensor(shape, result);
        let layer = format!("layer{}", self.graph.ops.len());
        self.graph.ops.push(IntOp { kind, inputs: inputs.to_vec(), output, layer });
        output
    }

    fn shape(&self, t: TensorIx) -> Vec<usize> {
        self.graph.tensors[t.0].shape.clone()
    }

    fn kind(&self, t: TensorIx) -> Kind {
        self.graph.tensors[t.0].kind
    }

    /// A window with at least one place on a map; `None` if these choices give none.
    fn window(&mut self, [h, w, _]: [usize; 3]) -> Option<Window> {
        let mut window = Window::POINT;
        for axis in [0, 1] {
            window.kernel[axis] = self.c.of(&[1, 3, 2, 5, 1, 16, 9]);
            window.stride[axis] = self.c.of(&[1, 1, 2, 3, 7, 200, 65_535]);
            window.dilation[axis] = self.c.of(&[1, 1, 1, 2, 5, 300]);
            window.pad_before[axis] = self.c.of(&[0, 1, 0, 2, 12, 40]);
            window.pad_after[axis] = self.c.of(&[0, 1, 0, 2, 12, 40]);
        }
        (window.outputs(0, h as u32) > 0 && window.outputs(1, w as u32) > 0).then_some(window)
    }

    /// Whether some place of a window has no tap on the map: its largest value is not defined.
    fn has_empty_places(window: &Window, [h, w, _]: [usize; 3]) -> bool {
        [(0, h), (1, w)].into_iter().any(|(axis, size)| {
            (0..window.outputs(axis, size as u32) as usize).any(|at| {
                let (first, end, _) = window.taps(axis, at, size);
                first == end
            })
        })
    }

    fn conv(&mut self, from: TensorIx) -> Option<TensorIx> {
        let input = image(&self.shape(from));
        let window = self.window(input)?;
        let [h, w, ic] = input;
        let kind = self.c.size(0, 3);
        let groups = if kind == 1 { self.c.of(&[ic, 1, 2, 3]) } else { 1 };
        let oc = match kind {
            2 => ic,
            _ => self.c.of(&[4, 1, 3, 16, 17, 40]) * groups,
        };
        let taps = usize::from(window.kernel[0]) * usize::from(window.kernel[1]);
        let (output, products, outputs) = if kind == 3 {
            let full = |axis: usize, n: usize| {
                let full = (n - 1) * usize::from(window.stride[axis]) + window.extent(axis) as usize;
                let crop = usize::from(window.pad_before[axis]) + usize::from(window.pad_after[axis]);
                full.checked_sub(crop).filter(|n| *n > 0)
            };
            ([full(0, h)?, full(1, w)?, oc], taps * ic, oc)
        } else {
            let out = |axis: usize, n: usize| window.outputs(axis, n as u32) as usize;
            ([out(0, h), out(1, w), oc], if kind == 2 { taps } else { taps * ic / groups }, oc)
        };
        let weights = products * outputs;
        if ic % groups > 0 || weights > WEIGHTS || weights == 0 || output.iter().product::<usize>() > ELEMENTS {
            return None;
        }
        let spread = (products as f64).sqrt().log2() as i32 + 7;
        let (shift_cut, shift_bias) = (self.shift(spread), self.shift(2));
        let mut noise = self.c.noise();
        let mut integers = |n| noise.bytes(n).iter().map(|b| *b as i8).collect::<Vec<i8>>();
        let kernel = integers(weights);
        let bias = integers(oc);
        let (bias, act) = ((!self.c.one_in(3)).then_some(bias), self.act());
        let conv = IntConv { window, input, output, kernel, bias, groups, shift_cut, shift_bias, act };
        let made = match kind {
            2 => IntOpKind::Depthwise(conv),
            3 => IntOpKind::ConvTranspose(conv),
            _ => IntOpKind::Conv(conv),
        };
        let result = self.fixed();
        let shape = if output[..2] == [1, 1] && self.c.one_in(3) { vec![oc] } else { output.to_vec() };
        Some(self.push(made, &[from], &shape, result))
    }

    fn pool(&mut self, from: TensorIx) -> Option<TensorIx> {
        let input = image(&self.shape(from));
        let mut window = self.window(input)?;
        window.dilation = [1, 1];
        let [h, w, c] = input;
        let (act, average, result) = (self.act(), self.c.one_in(2), self.fixed());
        let output = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize, c];
        if output.iter().product::<usize>() > ELEMENTS || !average && Self::has_empty_places(&window, input) {
            return None;
        }
        let kind = if average {
            let m = self.c.of(&[21, 1, 0, 128, 65_535]);
            IntOpKind::AveragePool { window, m, shift: self.shift(8), act }
        } else {
            IntOpKind::MaxPool { window, shift: self.shift(0), act }
        };
        Some(self.push(kind, &[from], &output, result))
    }

    /// A tensor read several times at once, or several of one shape.
    fn joined(&mut self, from: TensorIx) -> Option<TensorIx> {
        let shape = self.shape(from);
        let result = self.fixed();
        let act = self.act();
        let others: Vec<TensorIx> = self.live.iter().copied().filter(|t| self.shape(*t) == shape).collect();
        match self.c.size(0, 3) {
            0 => {
                let mut inputs = vec![from];
                (0..self.c.size(0, 3)).for_each(|_| inputs.push(self.c.of(&others)));
                let axis = self.c.size(0, shape.len() - 1);
                let shifts = inputs.iter().map(|_| self.shift(0)).collect();
                let mut out = shape;
                out[axis] *= inputs.len();
                let fits = out.iter().product::<usize>() <= ELEMENTS;
                fits.then(|| self.push(IntOpKind::Concat { axis, shifts }, &inputs, &out, result))
            }
            1 => {
                // Against itself, or against one that broadcasts.
                let broadcasts = |t: &TensorIx| {
                    let other = self.shape(*t);
                    other.len() <= shape.len()
                        && other.iter().rev().zip(shape.iter().rev()).all(|(a, b)| a == b || *a == 1)
                };
                let mates: Vec<TensorIx> = self.live.iter().copied().filter(broadcasts).collect();
                let mate = self.c.of(&mates);
                let inputs = if self.c.one_in(2) { [mate, from] } else { [from, mate] };
                let shift = self.shift(6);
                Some(self.push(IntOpKind::Multiply { shift, act }, &inputs, &shape, result))
            }
            _ => {
                let mut inputs = vec![from];
                (0..self.c.size(0, 4)).for_each(|_| inputs.push(self.c.of(&others)));
                let shift_read = inputs.iter().map(|_| self.c.of(&[0, 0, 1, 3, 15, 24])).collect();
                let shift_write = self.shift(1);
                Some(self.push(IntOpKind::Add { shift_read, shift_write, act }, &inputs, &shape, result))
            }
        }
    }

    /// The same bytes, in another shape or order or with zeros around.
    fn moved(&mut self, from: TensorIx) -> Option<TensorIx> {
        let shape = self.shape(from);
        let kind = self.kind(from);
        let elements: usize = shape.iter().product();
        match self.c.size(0, 3) {
            0 | 1 => {
                let divisor = |n: usize, c: &mut Choices<'_>| {
                    let all: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
                    c.of(&all)
                };
                let channels = divisor(elements, self.c);
                let columns = divisor(elements / channels, self.c);
                let out = match self.c.size(0, 2) {
                    0 => vec![elements],
                    1 => vec![elements / channels, channels],
                    _ => vec![elements / channels / columns, columns, channels],
                };
                Some(self.push(IntOpKind::View, &[from], &out, kind))
            }
            2 => {
                let mut dims: Vec<usize> = (0..shape.len()).collect();
                (1..dims.len()).for_each(|i| dims.swap(i, self.c.size(0, i)));
                let out: Vec<usize> = dims.iter().map(|d| shape[*d]).collect();
                Some(self.push(IntOpKind::Permute { dims }, &[from], &out, kind))
            }
            _ => {
                let [h, w, c] = shape[..] else { return None };
                let mut pads = || [self.c.of(&[0, 1, 7, 30]), self.c.of(&[0, 1, 7, 30])];
                let (before, after) = (pads(), pads());
                let out = [h + before[0] + after[0], w + before[1] + after[1], c];
                let fits = out.iter().product::<usize>() <= ELEMENTS;
                fits.then(|| self.push(IntOpKind::Pad { before, after }, &[from], &out, kind))
            }
        }
    }

    /// One value from one value.
    fn mapped(&mut self, from: TensorIx) -> Option<TensorIx> {
        let (shape, result, act) = (self.shape(from), self.fixed(), self.act());
        match self.c.size(0, 3) {
            0 => {
                let shift = self.shift(0);
                Some(self.push(IntOpKind::Requantize { shift, act }, &[from], &shape, result))
            }
            1 => {
                let kept = self.c.size(1, shape.len());
                let alpha_shape: Vec<usize> =
                    shape[shape.len() - kept..].iter().map(|d| if self.c.one_in(2) { *d } else { 1 }).collect();
                let alpha = self.c.noise().bytes(alpha_shape.iter().product()).iter().map(|b| *b as i8).collect();
                let (shift_positive, shift_negative) = (self.shift(0), self.shift(6));
                let prelu = IntOpKind::PRelu { alpha, alpha_shape, shift_positive, shift_negative };
                Some(self.push(prelu, &[from], &shape, result))
            }
            2 => {
                let Kind::Fixed(FixPos(pos @ 0..=15)) = self.kind(from) else { return None };
                let shift = self.shift(14 + i32::from(pos) - 7);
                Some(self.push(IntOpKind::HardSigmoid { shift }, &[from], &shape, result))
            }
            _ => {
                let [h, w, c] = shape[..] else { return None };
                let (factor, shift) = ([self.c.of(&[1, 2, 3, 17]), self.c.of(&[1, 2, 3, 17])], self.shift(0));
                let out = [h * factor[0], w * factor[1], c];
                let fits = out.iter().product::<usize>() <= ELEMENTS;
                fits.then(|| self.push(IntOpKind::UpSample { factor, shift }, &[from], &out, result))
            }
        }
    }

    fn op(&mut self, from: TensorIx) -> Option<TensorIx> {
        match self.c.size(0, 9) {
            0..=3 => self.conv(from),
            4 => self.pool(from),
            5 | 6 => self.joined(from),
            7 | 8 => self.moved(from),
            _ => self.mapped(from),
        }
    }

    /// What nobody reads, and inner tensors and inputs as well.
    fn outputs(&mut self) {
        let read: Vec<TensorIx> = self.graph.ops.iter().flat_map(|o| o.inputs.clone()).collect();
        let unread = self.live.iter().copied().filter(|t| !read.contains(t));
        self.graph.outputs = unread.collect();
        for _ in 0..self.c.of(&[0, 0, 1, 3]) {
            let extra = self.live[self.c.size(0, self.live.len() - 1)];
            if !self.graph.outputs.contains(&extra) {
                self.graph.outputs.push(extra);
            }
        }
        if self.c.one_in(4) {
            let last = self.graph.outputs[0];
            let shape = self.shape(last);
            let kind = if self.c.one_in(2) { IntOpKind::Softmax } else { IntOpKind::Dequantize };
            self.graph.outputs[0] = self.push(kind, &[last], &shape, Kind::Float);
        }
    }
}
