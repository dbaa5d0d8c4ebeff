//! The types that layers compute in, and what a layer of 16-bit floats computes.
//!
//! Values stay f32 in memory, which holds every float of 16 bits; a layer of such a type rounds what it reads, and its
//! results where TensorFlow rounds on a CPU:
//!
//! | layer | `float16` | `bfloat16` |
//! |---|---|---|
//! | Conv2D | products summed in f32, rounded; the bias added, rounded | products and bias summed in f32, rounded once |
//! | DepthwiseConv2D | each product and each sum rounded, taps in order; the bias added, rounded | as Conv2D |
//! | Dense | each product and each sum rounded, inputs in order; the bias added, rounded | products summed in f32, rounded; the bias added, rounded |
//! | Conv2DTranspose, Conv1D and its like | as Conv2D | as Dense |
//! | average poolings | each sum rounded, cells in order; divided, rounded | computed in f32, rounded once |
//! | LeakyReLU | the slope rounded, the product rounded | as `float16` |
//! | sigmoid, elu | each step of exp(x) / (1 + exp(x)), of α · (exp(x) − 1) rounded | as `float16` |
//! | any other | computed in f32, rounded once | as `float16` |
//!
//! Source: the vendor's reference runs of convolutions, DepthwiseConv2D and Dense (TensorFlow 2.12); the others were seen
//! in TensorFlow 2.21. An activation function is computed of the rounded result. `float64` is computed in f32 too: its
//! weights and inputs were f32 before.

use serde_json::{Map, Value};

use crate::ops::{ActivationFn, Op};
use shiftwise_core::shape::Window;
use shiftwise_tensor::half;
use shiftwise_tensor::tensor::Tensor;

/// What a layer computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dtype {
    /// IEEE binary16.
    Float16,
    /// The upper half of an f32.
    BFloat16,
    /// IEEE binary32.
    #[default]
    Float32,
    /// IEEE binary64.
    Float64,
}

impl Dtype {
    /// All types.
    pub const ALL: [Self; 4] = [Self::Float16, Self::BFloat16, Self::Float32, Self::Float64];

    /// Keras' name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
        }
    }

    /// Width in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Float16 | Self::BFloat16 => 16,
            Self::Float32 => 32,
            Self::Float64 => 64,
        }
    }

    /// The type of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type of a layer's Keras config. A policy of two types is its `float32`: what is stored and what flows between
    /// layers would differ, and rounding only loses.
    pub fn of_config(config: &Map<String, Value>) -> Self {
        let value = config.get("dtype");
        let policy = || value?.get("config")?.get("name")?.as_str();
        let name = value.and_then(Value::as_str).or_else(policy);
        name.and_then(Self::from_name).unwrap_or_default()
    }

    /// Whether values are rounded to fewer bits than an f32 has.
    pub const fn is_half(self) -> bool {
        matches!(self, Self::Float16 | Self::BFloat16)
    }

    /// The nearest value of the type, ties to even.
    pub fn round(self, x: f32) -> f32 {
        match self {
            Self::Float16 => half::f16(x),
            Self::BFloat16 => half::bf16(x),
            Self::Float32 | Self::Float64 => x,
        }
    }

    /// [`Dtype::round`] of every value.
    pub fn cast(self, tensor: &mut Tensor) {
        if self.is_half() {
            tensor.data_mut().iter_mut().for_each(|x| *x = self.round(*x));
        }
    }
}

/// [`Layer::eval`](crate::ops::Layer::eval) in a layer's type. Neither inputs nor weights need to be rounded.
pub fn eval(op: &Op, dtype: Dtype, inputs: &[&Tensor], weights: &[Tensor]) -> Tensor {
    if !dtype.is_half() {
        return op.layer().eval(inputs, &weights.iter().collect::<Vec<_>>());
    }
    let cast = |tensor: &Tensor| {
        let mut own = tensor.clone();
        dtype.cast(&mut own);
        own
    };
    let inputs: Vec<Tensor> = inputs.iter().map(|x| cast(x)).collect();
    let weights: Vec<Tensor> = weights.iter().map(cast).collect();
    let mut y = rounded(op, dtype, &inputs.iter().collect::<Vec<_>>(), &weights);
    dtype.cast(&mut y);
    y
}

/// [`ActivationFn::apply`] of a layer's activation attribute in the layer's type.
pub fn activate(op: &Op, dtype: Dtype, y: &mut Tensor) {
    let function = op.layer().activation();
    match function {
        ActivationFn::Linear => {}
        ActivationFn::Sigmoid if dtype.is_half() => steps(y, |x| {
            let e = dtype.round(libm::expf(x));
            if e.is_infinite() { 1.0 } else { dtype.round(e / dtype.round(1.0 + e)) }
        }),
        ActivationFn::Elu if dtype.is_half() => steps(y, |x| elu(dtype, 1.0, x)),
        function => {
            function.apply(y);
            dtype.cast(y);
        }
    }
}

fn steps(tensor: &mut Tensor, of: impl Fn(f32) -> f32) {
    tensor.data_mut().iter_mut().for_each(|x| *x = of(*x));
}

fn elu(dtype: Dtype, alpha: f32, x: f32) -> f32 {
    let below = || dtype.round(dtype.round(libm::expf(x)) - 1.0);
    if x > 0.0 { x } else { dtype.round(alpha * below()) }
}

/// A layer of 16-bit floats but for its last rounding.
fn rounded(op: &Op, dtype: Dtype, inputs: &[&Tensor], weights: &[Tensor]) -> Tensor {
    let parts = match op {
        Op::SeparableConv2D(layer) => {
            let (depthwise, pointwise) = layer.parts();
            Some((Op::DepthwiseConv2D(depthwise), Op::Conv2D(pointwise)))
        }
        Op::OneD(row) => row.parts().map(|(depthwise, pointwise)| (Op::OneD(depthwise), Op::OneD(pointwise))),
        _ => None,
    };
    if let (Some((depthwise, pointwise)), [first, rest @ ..]) = (parts, weights) {
        let middle = eval(&depthwise, dtype, inputs, std::slice::from_ref(first));
        return rounded(&pointwise, dtype, &[&middle], rest);
    }
    let apart = dtype == Dtype::Float16 || !matches!(op, Op::Conv2D(_) | Op::DepthwiseConv2D(_));
    match (dtype, op, inputs, weights) {
        (Dtype::Float16, Op::Dense(_), [x], [kernel, bias @ ..]) => biased(dense_f16(x, kernel), bias.first(), dtype),
        (Dtype::Float16, Op::DepthwiseConv2D(conv), [x], [kernel, bias @ ..]) => {
            let window = conv.window(&x.shape()[1..]).unwrap_or(Window::POINT);
            biased(depthwise_f16(&window, x, kernel), bias.first(), dtype)
        }
        (_, Op::Conv2D(_) | Op::Conv2DTranspose(_) | Op::Dense(_) | Op::OneD(_), _, [kernel, bias]) if apart => {
            let none = Tensor::zeros(bias.shape());
            biased(op.layer().eval(inputs, &[kernel, &none]), Some(bias), dtype)
        }
        (Dtype::Float16, Op::AveragePooling2D(p), [x], _) => {
            average_f16(&p.pool.window(&x.shape()[1..]).unwrap_or(Window::POINT), x)
        }
        (Dtype::Float16, Op::GlobalAveragePooling2D(p), [x], _)
            if dims(x).iter().all(|d| u16::try_from(*d).is_ok()) =>
        {
            let [n, h, w, c] = dims(x);
            let y = average_f16(&Window { kernel: [h as u16, w as u16], ..Window::POINT }, x);
            y.reshaped(if p.keepdims { vec![n, 1, 1, c] } else { vec![n, c] }).unwrap_or_else(|| Tensor::zeros(&[0]))
        }
        (_, Op::LeakyRelu(leaky), [x], _) => {
            let (mut y, slope) = ((*x).clone(), dtype.round(leaky.alpha));
            steps(&mut y, |x| if x > 0.0 { x } else { x * slope });
            y
        }
        (_, Op::Elu(own), [x], _) => {
            let (mut y, alpha) = ((*x).clone(), dtype.round(own.alpha));
            steps(&mut y, |x| elu(dtype, alpha, x));
            y
        }
        _ => op.layer().eval(inputs, &weights.iter().collect::<Vec<_>>()),
    }
}

/// Sums rounded, the bias of each channel added.
fn biased(mut y: Tensor, bias: Option<&Tensor>, dtype: Dtype) -> Tensor {
    dtype.cast(&mut y);
    if let Some(bias) = bias {
        let channels = bias.data().len().max(1);
        y.data_mut().chunks_mut(channels).for_each(|y| y.iter_mut().zip(bias.data()).for_each(|(y, b)| *y += b));
    }
    y
}

/// Adds a product in half floats: both steps are rounded.
fn add_product(sum: &mut f32, a: f32, b: f32) {
    *sum = half::f16(*sum + half::f16(a * b));
}

fn dense_f16(x: &Tensor, kernel: &Tensor) -> Tensor {
    use rayon::prelude::*;
    let (inputs, outputs) = (kernel.shape()[0].max(1), kernel.shape()[1].max(1));
    let shape = [&x.shape()[..x.shape().len() - 1], &[outputs]].concat();
    let mut y = Tensor::zeros(&shape);
    let rows = y.data_mut().par_chunks_mut(outputs).zip(x.data().par_chunks(inputs));
    rows.for_each(|(y, x)| {
        for (x, kernel) in x.iter().zip(kernel.data().chunks(outputs)) {
            y.iter_mut().zip(kernel).for_each(|(y, k)| add_product(y, *x, *k));
        }
    });
    y
}

/// Batch, rows, columns and channels.
fn dims(x: &Tensor) -> [usize; 4] {
    [0, 1, 2, 3].map(|i| x.shape().get(i).copied().unwrap_or(1))
}

/// The average of the cells that there are: their sum by a kernel of ones.
fn average_f16(window: &Window, x: &Tensor) -> Tensor {
    let [_, h, w, c] = dims(x);
    let ones = |shape: &[usize]| Tensor::new(shape.to_vec(), vec![1.0; shape.iter().product()]);
    let [rows, columns] = window.kernel.map(usize::from);
    let (Some(kernel), Some(map)) = (ones(&[rows, columns, c, 1]), ones(&[1, h, w, 1])) else { return x.clone() };
    let mut y = depthwise_f16(window, x, &kernel);
    let point = Tensor::new(vec![rows, columns, 1, 1], vec![1.0; rows * columns]);
    let Some(cells) = point.map(|kernel| depthwise_f16(window, &map, &kernel)) else { return y };
    let per_pixel = y.data_mut().chunks_mut(c.max(1)).zip(cells.data().iter().cycle());
    per_pixel.for_each(|(y, cells)| y.iter_mut().for_each(|y| *y /= cells));
    y
}

fn depthwise_f16(window: &Window, x: &Tensor, kernel: &Tensor) -> Tensor {
    use rayon::prelude::*;
    let [n, h, w, c] = dims(x);
    let [oh, ow] = [window.outputs(0, h as u32) as usize, window.outputs(1, w as u32) as usize];
    let multiplier = kernel.shape()[3];
    let outputs = c * multiplier;
    let mut y = Tensor::zeros(&[n, oh, ow, outputs]);
    // The input's row or column under a tap, unless it is padding.
    let under = |axis: usize, at: usize, tap: usize, size: usize| {
        let place = at * usize::from(window.stride[axis]) + tap * usize::from(window.dilation[axis]);
        place.checked_sub(usize::from(window.pad_before[axis])).filter(|place| *place < size)
    };
    y.data_mut().par_chunks_mut(ow * outputs).enumerate().for_each(|(line, y)| {
        let (image, row) = (line / oh, line % oh);
        let taps = (0..kernel.shape()[0]).flat_map(|i| (0..kernel.shape()[1]).map(move |j| (i, j)));
        for (i, j) in taps {
            let Some(from) = under(0, row, i, h) else { continue };
            let kernel = &kernel.data()[(i * kernel.shape()[1] + j) * outputs..][..outputs];
            for (column, y) in y.chunks_mut(outputs).enumerate() {
                let Some(at) = under(1, column, j, w) else { continue };
                let x = &x.data()[((image * h + from) * w + at) * c..][..c];
                for (k, (y, kernel)) in y.iter_mut().zip(kernel).enumerate() {
                    add_product(y, x[k / multiplier], *kernel);
                }
            }
        }
    });
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::run_float;
    use crate::graph::Graph;
    use crate::ops::{Dense, Input, Weighted};

    /// A dense layer of two inputs over one kernel column, in a type.
    fn dense(dtype: Dtype, kernel: [f32; 2], bias: f32, x: [f32; 2]) -> f32 {
        let mut graph = Graph::default();
        let input = graph.add("x", Op::Input(Input { shape: vec![2] }), Vec::new(), Vec::new()).unwrap();
        let w = Weighted {
            kernel: Tensor::new(vec![2, 1], kernel.to_vec()).unwrap(),
            bias: Some(Tensor::vector(vec![bias])),
            activation: ActivationFn::Linear,
        };
        let id = graph.add("d", Op::Dense(Dense { w }), vec![input], Vec::new()).unwrap();
        (graph.inputs, graph.outputs) = (vec![input], vec![id]);
        graph.nodes.iter_mut().for_each(|node| node.dtype = dtype);
        run_float(&graph, vec![Tensor::new(vec![1, 2], x.to_vec()).unwrap()]).unwrap()[0].data()[0]
    }

    #[test]
    fn half_floats_round_every_step_and_bfloat16_the_sums() {
        // 2048 + 1 is no half float: the one is lost before 2049 could be reached by the other two.
        assert_eq!(dense(Dtype::Float16, [2048.0, 1.0], 1.0, [1.0, 1.0]), 2048.0);
        assert_eq!(dense(Dtype::Float32, [2048.0, 1.0], 1.0, [1.0, 1.0]), 2050.0);
        // The sum of the products, 257, is rounded to 256, and so is that with the bias; 258 is a bfloat16.
        assert_eq!(dense(Dtype::BFloat16, [256.0, 1.0], 1.0, [1.0, 1.0]), 256.0);
        assert_eq!(dense(Dtype::BFloat16, [256.0, 1.0], 0.0, [1.0, 2.0]), 258.0);
        // What is read is rounded too.
        assert_eq!(dense(Dtype::BFloat16, [1.0, 0.0], 0.0, [257.0, 0.0]), 256.0);
    }

    /// A depthwise convolution of same padding over an odd map.
    #[test]
    fn depthwise_sums_in_half_floats_skip_the_padding() {
        let window = Window { kernel: [2, 2], pad_before: [0, 0], pad_after: [1, 1], ..Window::POINT };
        let x = Tensor::new(vec![1, 2, 2, 2], (1..9).map(|v| v as f32).collect()).unwrap();
        let kernel = Tensor::new(vec![2, 2, 2, 1], vec![1.0; 8]).unwrap();
        let y = depthwise_f16(&window, &x, &kernel);
        assert_eq!(y.data(), [16.0, 20.0, 10.0, 12.0, 12.0, 14.0, 7.0, 8.0]);
        assert_eq!(average_f16(&window, &x).data(), [4.0, 5.0, 5.0, 6.0, 6.0, 7.0, 7.0, 8.0]);
    }

    #[test]
    fn names_come_back_and_policies_of_two_types_are_single() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
        }
        let of = |value: Value| Dtype::of_config(&Map::from_iter([("dtype".to_owned(), value)]));
        let policy = |name: &str| serde_json::json!({ "class_name": "Policy", "config": { "name": name } });
        assert_eq!(of("bfloat16".into()), Dtype::BFloat16);
        assert_eq!(of(policy("float16")), Dtype::Float16);
        assert_eq!((of(policy("mixed_float16")), of(Value::Null)), (Dtype::Float32, Dtype::Float32));
    }
}
