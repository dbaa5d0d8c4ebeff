//! Random float networks as Keras would describe them, and data for them.

use shiftwise_graph::builder::Builder;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::reshape::Interpolation;
use shiftwise_graph::ops::{
    Activate, ActivationFn, Add, AveragePooling2D, BatchNormalization, Concatenate, Conv2D, Conv2DTranspose,
    Cropping2D, Dense, DepthwiseConv2D, Dropout, Flatten, GlobalAveragePooling2D, Input, LayerNormalization, LeakyRelu,
    MaxPooling2D, Merge, Multiply, Op, PRelu, Padding, Permute, Relu, SeparableConv2D, Softmax, UpSampling2D, Weighted,
    ZeroPadding2D,
};
use shiftwise_tensor::tensor::Tensor;

use crate::graphs::Rng;

mod described;

/// A float network under construction.
#[derive(Debug)]
struct Drawing {
    made: Builder,
    rng: Rng,
}

impl Drawing {
    fn add(&mut self, op: Op, inputs: &[NodeId]) -> NodeId {
        let name = format!("layer{}", self.made.graph().nodes.len());
        self.made.layer(&name, op, inputs).unwrap_or_else(|e| panic!("{e}"))
    }

    fn shape(&self, id: NodeId) -> Vec<usize> {
        self.made.graph().node(id).shape.clone()
    }

    /// From -1 to 1.
    fn unit(&mut self) -> f32 {
        self.rng.range(-1000, 1000) as f32 / 1000.0
    }

    fn tensor(&mut self, shape: &[usize], scale: f32) -> Tensor {
        let data = (0..shape.iter().product()).map(|_| self.unit() * scale).collect();
        Tensor::new(shape.to_vec(), data).expect("as many values as the shape has")
    }

    /// Mostly what training gives; once in a while magnitudes that only the refinement of positions makes representable.
    fn magnitude(&mut self) -> f32 {
        let exponent = if self.rng.one_in(12) { self.rng.range(-9, 7) } else { self.rng.range(-1, 1) };
        (exponent as f32).exp2()
    }

    fn weighted(&mut self, kernel: &[usize], fan_in: usize, outputs: usize, activation: ActivationFn) -> Weighted {
        let scale = (3.0 / fan_in as f32).sqrt() * self.magnitude();
        let kernel = self.tensor(kernel, scale);
        let bias = (!self.rng.one_in(4)).then(|| {
            let scale = 0.5 * self.magnitude();
            self.tensor(&[outputs], scale)
        });
        Weighted { kernel, bias, activation }
    }

    fn activation(&mut self) -> ActivationFn {
        [ActivationFn::Linear, ActivationFn::Relu, ActivationFn::Relu6][self.rng.size(0, 2)]
    }

    fn padding(&mut self) -> Padding {
        if self.rng.one_in(2) { Padding::Same } else { Padding::Valid }
    }

    /// A convolution, plain or depthwise, with what usually stands behind it.
    fn conv_block(&mut self, from: NodeId, channels: usize) -> NodeId {
        let [h, w, c] = self.image(from);
        let k = [self.rng.size(1, h.min(3)), self.rng.size(1, w.min(3))];
        let strides = [self.rng.size(1, 2), self.rng.size(1, 2)];
        let (padding, normalized) = (self.padding(), self.rng.one_in(2));
        // An activation between the two keeps a normalization from being folded: rare, and legal.
        let own = if normalized && !self.rng.one_in(6) { ActivationFn::Linear } else { self.activation() };
        let dilation = [1, 1];
        let conv = if self.rng.one_in(3) {
            let w = self.weighted(&[k[0], k[1], c, 1], k[0] * k[1], c, own);
            Op::DepthwiseConv2D(DepthwiseConv2D { w, strides, dilation, padding })
        } else {
            let oc = self.rng.size(1, channels);
            let w = self.weighted(&[k[0], k[1], c, oc], k[0] * k[1] * c, oc, own);
            Op::Conv2D(Conv2D { w, strides, dilation, padding, groups: 1 })
        };
        let mut at = self.add(conv, &[from]);
        if normalized {
            at = self.normalization(at);
        }
        if self.rng.one_in(2) && own == ActivationFn::Linear { self.relu(at) } else { at }
    }

    fn relu(&mut self, from: NodeId) -> NodeId {
        let max_value = self.rng.one_in(3).then_some(6.0);
        self.add(Op::Relu(Relu { max_value, ..Relu::PLAIN }), &[from])
    }

    fn normalization(&mut self, from: NodeId) -> NodeId {
        let c = self.image(from)[2];
        let away = |t: Tensor, from: f32| Tensor::vector(t.data().iter().map(|v| v + from).collect());
        let (gamma, variance) = (self.tensor(&[c], 0.7), self.tensor(&[c], 0.8));
        let bn = BatchNormalization {
            gamma: Some(away(gamma, 1.0)),
            beta: (!self.rng.one_in(4)).then(|| self.tensor(&[c], 0.3)),
            mean: self.tensor(&[c], 0.3),
            variance: away(variance, 1.0),
            epsilon: 1e-3,
            momentum: BatchNormalization::MOMENTUM,
        };
        self.add(Op::BatchNormalization(bn), &[from])
    }

    fn image(&self, id: NodeId) -> [usize; 3] {
        self.shape(id).try_into().expect("a map")
    }

    /// Squares without padding: where both engines average the same cells.
    fn average(&mut self, from: NodeId) -> NodeId {
        let [h, w, _] = self.image(from);
        let size = self.rng.size(1, h.min(w).min(3));
        let pool = PoolWindow { size: [size; 2], strides: [self.rng.size(1, 2); 2], padding: Padding::Valid };
        self.add(Op::AveragePooling2D(AveragePooling2D { pool, dpu: false }), &[from])
    }

    fn maximum(&mut self, from: NodeId) -> NodeId {
        let [h, w, _] = self.image(from);
        let size = [self.rng.size(1, h.min(3)), self.rng.size(1, w.min(3))];
        let pool = PoolWindow { size, strides: [self.rng.size(1, 2), self.rng.size(1, 2)], padding: self.padding() };
        self.add(Op::MaxPooling2D(MaxPooling2D { pool }), &[from])
    }

    /// Layers that are rarer than the others.
    fn other_block(&mut self, from: NodeId, live: &[NodeId]) -> NodeId {
        let [h, w, c] = self.image(from);
        match self.rng.range(0, 12) {
            9 => {
                // A gate, or a swish, behind a convolution: as its own activation or as a layer.
                let function = if self.rng.one_in(2) { ActivationFn::Sigmoid } else { ActivationFn::Swish };
                let inside = self.rng.one_in(2);
                let w = self.weighted(&[1, 1, c, c], c, c, if inside { function } else { ActivationFn::Linear });
                let conv = Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
                let conv = self.add(Op::Conv2D(conv), &[from]);
                if inside { conv } else { self.add(Op::Activation(Activate { function }), &[conv]) }
            }
            10 => {
                let (k, multiplier, oc) = (self.rng.size(1, 3), self.rng.size(1, 2), self.rng.size(1, 8));
                let own = self.activation();
                let w = self.weighted(&[1, 1, c * multiplier, oc], c * multiplier, oc, own);
                let depthwise = self.tensor(&[k, k, c, multiplier], 1.0 / k as f32);
                let conv = SeparableConv2D { depthwise, w, strides: [1, 1], dilation: [1, 1], padding: Padding::Same };
                self.add(Op::SeparableConv2D(conv), &[from])
            }
            11 => {
                let (dilation, oc) = ([self.rng.size(1, 3), self.rng.size(1, 3)], self.rng.size(1, 8));
                let own = self.activation();
                let w = self.weighted(&[3, 3, c, oc], 9 * c, oc, own);
                self.add(
                    Op::Conv2D(Conv2D { w, strides: [1, 1], dilation, padding: Padding::Same, groups: 1 }),
                    &[from],
                )
            }
            12 => {
                let dims = [[1, 0, 2], [0, 1, 2], [2, 1, 0], [0, 2, 1]][self.rng.size(0, 3)].to_vec();
                self.add(Op::Permute(Permute { dims }), &[from])
            }
            0..=1 => {
                let k = [self.rng.size(1, 4), self.rng.size(1, 4)];
                let oc = self.rng.size(1, 10);
                let w = self.weighted(&[k[0], k[1], oc, c], k[0] * k[1] * c, oc, ActivationFn::Linear);
                let strides = [self.rng.size(1, 2), self.rng.size(1, 2)];
                let padding = self.padding();
                let conv = Conv2DTranspose { w, strides, dilation: [1, 1], padding, output_padding: None };
                let conv = self.add(Op::Conv2DTranspose(conv), &[from]);
                if self.rng.one_in(2) { self.add(Op::LeakyRelu(LeakyRelu { alpha: 0.1 }), &[conv]) } else { conv }
            }
            2 => {
                let alike = |t: &NodeId| self.image(*t)[..2] == [h, w];
                let mates: Vec<NodeId> = live.iter().copied().filter(alike).collect();
                let mate = mates[self.rng.size(0, mates.len() - 1)];
                self.add(Op::Concatenate(Concatenate { axis: 2 }), &[from, mate])
            }
            3 if h == w => {
                // One factor for each channel.
                let gap = GlobalAveragePooling2D { keepdims: true, dpu: false };
                let mean = self.add(Op::GlobalAveragePooling2D(gap), &[from]);
                let own = self.activation();
                let w = self.weighted(&[1, 1, c, c], c, c, own);
                let conv = Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
                let factor = self.add(Op::Conv2D(conv), &[mean]);
                self.add(Op::Multiply(Multiply), &[from, factor])
            }
            4 => self.add(Op::Multiply(Multiply), &[from, from]),
            5 if h * w < 100 => {
                let size = [self.rng.size(1, 2), self.rng.size(1, 2)];
                self.add(Op::UpSampling2D(UpSampling2D { size, interpolation: Interpolation::Nearest }), &[from])
            }
            6 => {
                let mut sides = || [self.rng.size(0, 2), self.rng.size(0, 2)];
                let (rows, columns) = (sides(), sides());
                self.add(Op::ZeroPadding2D(ZeroPadding2D { rows, columns }), &[from])
            }
            7 => {
                let alpha = self.tensor(&[1, 1, c], 0.5);
                self.add(Op::PRelu(PRelu { alpha, shared_axes: vec![1, 2] }), &[from])
            }
            _ => {
                let multiplier = self.rng.size(1, 3);
                let w = self.weighted(&[1, 1, c, multiplier], 1, c * multiplier, ActivationFn::Linear);
                let conv = DepthwiseConv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Same };
                self.add(Op::DepthwiseConv2D(conv), &[from])
            }
        }
    }

    /// Layers that the vendor's tool leaves float.
    fn float_block(&mut self, from: NodeId) -> NodeId {
        let [h, w, c] = self.image(from);
        match self.rng.range(0, 11) {
            0 if h > 2 && w > 2 => self.add(Op::Cropping2D(Cropping2D { rows: [1, 0], columns: [0, 1] }), &[from]),
            1 => {
                let merge = [Merge::Maximum, Merge::Average, Merge::Minimum][self.rng.size(0, 2)];
                self.add(Op::Merge(merge), &[from, from])
            }
            2 => self.add(Op::LeakyRelu(LeakyRelu { alpha: 0.25 }), &[from]),
            3 => {
                let max_value = self.rng.one_in(2).then_some(3.0);
                // No threshold: equalization scales through it all the same, as the vendor does, and changes what it computes.
                let relu = Relu { max_value, negative_slope: 0.125, threshold: 0.0 };
                self.add(Op::Relu(relu), &[from])
            }
            4 | 10 => {
                const FUNCTIONS: [ActivationFn; 11] = [
                    ActivationFn::Tanh,
                    ActivationFn::Elu,
                    ActivationFn::Selu,
                    ActivationFn::Softsign,
                    ActivationFn::Softplus,
                    ActivationFn::Sigmoid,
                    ActivationFn::Swish,
                    ActivationFn::Gelu,
                    ActivationFn::Mish,
                    ActivationFn::Softmax,
                    ActivationFn::LogSoftmax,
                ];
                let function = FUNCTIONS[self.rng.size(0, FUNCTIONS.len() - 1)];
                let w = self.weighted(&[1, 1, c, c], c, c, function);
                let conv = Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
                self.add(Op::Conv2D(conv), &[from])
            }
            5 => {
                let w = self.weighted(&[1, 1, c, c + 1], c, c + 1, ActivationFn::Tanh);
                let depthwise = self.tensor(&[3, 2, c, 1], 0.5);
                let (strides, dilation, padding) = ([1, 1], [1, 1], Padding::Same);
                self.add(Op::SeparableConv2D(SeparableConv2D { depthwise, w, strides, dilation, padding }), &[from])
            }
            6 => self.add(Op::Multiply(Multiply), &[from, from, from]),
            7 => self.add(Op::Merge(Merge::Subtract), &[from, from]),
            8 => {
                let mean = GlobalAveragePooling2D { keepdims: true, dpu: false };
                let mean = self.add(Op::GlobalAveragePooling2D(mean), &[from]);
                self.add(Op::Add(Add), &[mean, from])
            }
            9 => {
                let (gamma, beta) = (Some(self.tensor(&[c], 1.0)), Some(self.tensor(&[c], 0.5)));
                self.add(
                    Op::LayerNormalization(LayerNormalization { gamma, beta, epsilon: 1e-3, rms_scaling: false }),
                    &[from],
                )
            }
            _ => {
                let interpolation = Interpolation::Bilinear;
                match h * w < 100 {
                    true => self.add(Op::UpSampling2D(UpSampling2D { size: [2, 1], interpolation }), &[from]),
                    false => self.relu(from),
                }
            }
        }
    }

    /// A classifier behind the last map.
    fn head(&mut self, from: NodeId) -> NodeId {
        let [h, w, c] = self.image(from);
        let flat = match h == w && self.rng.one_in(2) {
            true => {
                let gap = GlobalAveragePooling2D { keepdims: false, dpu: false };
                self.add(Op::GlobalAveragePooling2D(gap), &[from])
            }
            false => self.add(Op::Flatten(Flatten), &[from]),
        };
        let inputs = self.shape(flat)[0];
        debug_assert!(inputs == c || inputs == h * w * c);
        let units = self.rng.size(2, 10);
        let softmax = self.rng.one_in(2);
        let own = if softmax && self.rng.one_in(2) { ActivationFn::Softmax } else { ActivationFn::Linear };
        let w = self.weighted(&[inputs, units], inputs, units, own);
        let dense = self.add(Op::Dense(Dense { w }), &[flat]);
        if softmax && own == ActivationFn::Linear {
            self.add(Op::Softmax(Softmax { axis: -1 }), &[dense])
        } else {
            dense
        }
    }
}

/// The network of a seed: `blocks` blocks in a chain with skips, and at times a classifier.
///
/// Average pooling is over unpadded squares.
pub fn random_network(seed: u64, blocks: usize) -> Graph {
    network(seed, blocks, Rare::None)
}

/// [`random_network`] with layers that are rarer: transposed convolutions, products, concatenations, and so on.
pub fn random_network_of_all(seed: u64, blocks: usize) -> Graph {
    network(seed, blocks, Rare::Integer)
}

/// [`random_network_of_all`] with layers that stay float.
pub fn random_network_with_floats(seed: u64, blocks: usize) -> Graph {
    network(seed, blocks, Rare::Float)
}

/// [`random_network_with_floats`] with sequences, functions and products of tensors, which are always float.
pub fn random_network_of_functions(seed: u64, blocks: usize) -> Graph {
    network(seed, blocks, Rare::Described)
}

/// Which of the rarer layers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rare {
    None,
    Integer,
    Float,
    Described,
}

fn network(seed: u64, blocks: usize, rare: Rare) -> Graph {
    let mut b = Drawing { made: Builder::new(&format!("network{seed}")), rng: Rng(seed) };
    let shape = vec![b.rng.size(2, 9), b.rng.size(2, 9), b.rng.size(1, 5)];
    let input = b.add(Op::Input(Input { shape }), &[]);
    let mut live = vec![input];
    for _ in 0..blocks {
        let from = if b.rng.one_in(4) { live[b.rng.size(0, live.len() - 1)] } else { live[live.len() - 1] };
        let float = matches!(rare, Rare::Float | Rare::Described) && b.rng.one_in(4);
        let described = rare == Rare::Described && b.rng.one_in(3);
        let other = rare != Rare::None && b.rng.one_in(2);
        let mut made = match b.rng.range(0, 11) {
            _ if described => b.described_block(from),
            _ if float => b.float_block(from),
            _ if other => b.other_block(from, &live),
            0..=5 => b.conv_block(from, 12),
            6..=7 => {
                let shape = b.shape(from);
                let mates: Vec<NodeId> = live.iter().copied().filter(|t| b.shape(*t) == shape).collect();
                let mate = mates[b.rng.size(0, mates.len() - 1)];
                let sum = b.add(Op::Add(Add), &[from, mate]);
                if b.rng.one_in(2) { b.relu(sum) } else { sum }
            }
            8 => b.maximum(from),
            9 => b.average(from),
            10 => b.normalization(from),
            _ => b.add(Op::Dropout(Dropout::PLAIN), &[from]),
        };
        if made == input {
            made = b.conv_block(input, 4);
        }
        live.push(made);
    }
    let last = live[live.len() - 1];
    let last = if b.rng.one_in(3) { last } else { b.head(last) };
    let mut outputs = vec![last];
    if b.rng.one_in(4) {
        let extra = live[b.rng.size(0, live.len() - 1)];
        if extra != last && extra != input {
            outputs.push(extra);
        }
    }
    b.made.finish(&outputs).unwrap_or_else(|e| panic!("seed {seed}: {e}"))
}

/// `count` samples for every input of a graph.
pub fn random_samples(graph: &Graph, seed: u64, count: usize) -> Vec<Tensor> {
    let mut b = Drawing { made: Builder::new(""), rng: Rng(seed ^ 0x5A5A) };
    graph.inputs.iter().map(|id| b.tensor(&[&[count], graph.node(*id).shape.as_slice()].concat(), 2.0)).collect()
}
