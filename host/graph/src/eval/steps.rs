//! Steps of the float engine, for one sample.

use std::cell::Cell;

use crate::dtype;
use crate::graph::Node;
use crate::ops::linear::{geometry, window_output};
use crate::ops::{ActivationFn, Op};
use shiftwise_core::model::{Function, RowFunction};
use shiftwise_core::shape::Window;
use shiftwise_tensor::kernel::{self, ConvGeometry, FinishF32, Lanes, PackedF32, on_lanes};
use shiftwise_tensor::tensor::Tensor;

/// Changes the values of one sample in place.
pub type Change<'a> = Box<dyn Fn(&mut [f32]) + Send + Sync + 'a>;

/// What a step computes.
#[derive(Debug)]
pub(super) enum Work {
    /// Convolution or dense layer.
    Conv { packed: PackedF32, geometry: ConvGeometry, bias: Option<Tensor> },
    /// Depthwise convolution.
    Depthwise { kernel: Tensor, geometry: ConvGeometry, bias: Option<Tensor> },
    /// Element-wise merge, from left to right; each operand has the elements of the result or repeats along its first
    /// dimensions.
    Merge(Merged),
    /// The operand as it is.
    Copy,
    /// A layer without a step of its own, with its activation.
    Layer,
}

/// How elements merge.
#[derive(Clone, Copy, Debug)]
pub(super) enum Merged {
    Sum,
    Product,
}

/// What becomes of each element.
pub(super) enum Stage<'a> {
    /// x · factor + offset, by channel, both rounded.
    Affine(Vec<f32>, Vec<f32>),
    /// A function.
    Map(Function),
    /// A function of rows of as many elements.
    Rows(RowFunction, usize),
    /// What a point, or an activation of 16-bit floats, does to all of them.
    Change(Change<'a>),
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Affine(factor, offset) => f.debug_tuple("Affine").field(factor).field(offset).finish(),
            Self::Map(function) => f.debug_tuple("Map").field(function).finish(),
            Self::Rows(function, row) => f.debug_tuple("Rows").field(function).field(row).finish(),
            Self::Change(_) => f.write_str("Change"),
        }
    }
}

impl<'a> Stage<'a> {
    /// A layer that looks at one element or one row at a time, but for its activation attribute.
    pub(super) fn of(node: &Node, weights: &[Tensor]) -> Option<Self> {
        Some(match &node.op {
            Op::BatchNormalization(norm) => {
                let (factor, offset) = norm.affine(&weights.iter().collect::<Vec<_>>());
                Self::Affine(factor, offset)
            }
            Op::Relu(relu) => Self::Map(relu.function()),
            Op::LeakyRelu(leaky) => Self::Map(Function::LeakyRelu(leaky.alpha)),
            Op::Elu(elu) => Self::Map(Function::Elu(elu.alpha)),
            Op::HardSigmoid(_) => Self::Map(Function::DpuHardSigmoid),
            Op::Softmax(_) => Self::Rows(RowFunction::Softmax, node.shape.last().copied().unwrap_or(1)),
            Op::Activation(_) | Op::Dropout(_) => Self::Map(Function::Identity),
            _ => return None,
        })
    }

    /// A layer's activation attribute.
    pub(super) fn activation(node: &'a Node) -> Option<Self> {
        let row = node.shape.last().copied().unwrap_or(1);
        match node.op.layer().activation() {
            ActivationFn::Linear => None,
            _ if node.dtype.is_half() => Some(Self::Change(Box::new(|y| {
                let Some(mut batch) = Tensor::new([&[1], node.shape.as_slice()].concat(), y.to_vec()) else { return };
                dtype::activate(&node.op, node.dtype, &mut batch);
                y.copy_from_slice(batch.data());
            }))),
            ActivationFn::Softmax => Some(Self::Rows(RowFunction::Softmax, row)),
            ActivationFn::LogSoftmax => Some(Self::Rows(RowFunction::LogSoftmax, row)),
            function => Some(Self::Map(function.function())),
        }
    }
}

impl Work {
    /// The step of a layer over inputs of these shapes; `window` replaces that of a convolution. `None` for a layer that is
    /// evaluated as a batch.
    pub(super) fn of(node: &Node, inputs: &[&[usize]], weights: &[Tensor], window: Option<Window>) -> Option<Self> {
        let image = || match inputs {
            [[h, w, c]] => Some([*h, *w, *c]),
            _ => None,
        };
        let bias = weights.get(1).cloned();
        match &node.op {
            Op::Conv2D(conv) => {
                let dims = image()?;
                let window = window.or_else(|| conv.window(&dims).ok())?;
                let out = window_output(&window, dims, weights.first()?.shape()[3]);
                let geometry = geometry(&window, dims, out, conv.groups);
                Some(Self::Conv { packed: PackedF32::new(weights[0].data(), &geometry), geometry, bias })
            }
            Op::DepthwiseConv2D(conv) => {
                let dims = image()?;
                let window = window.or_else(|| conv.window(&dims).ok())?;
                let kernel = weights.first()?.clone();
                let out = window_output(&window, dims, kernel.shape()[2] * kernel.shape()[3]);
                Some(Self::Depthwise { geometry: geometry(&window, dims, out, dims[2]), kernel, bias })
            }
            Op::Dense(_) => {
                let [shape] = inputs else { return None };
                let (ic, oc) = (weights.first()?.shape()[0], weights[0].shape()[1]);
                let geometry = ConvGeometry::dense(shape.iter().product::<usize>() / ic.max(1), ic, oc);
                Some(Self::Conv { packed: PackedF32::new(weights[0].data(), &geometry), geometry, bias })
            }
            Op::Add(_) => merges(inputs, &node.shape).then_some(Self::Merge(Merged::Sum)),
            Op::Multiply(_) => merges(inputs, &node.shape).then_some(Self::Merge(Merged::Product)),
            _ => None,
        }
    }

    /// Computes a step and its stages, but for a layer without a step of its own: `x(k)` is operand k.
    pub(super) fn run<'x>(&self, x: &dyn Fn(usize) -> &'x [f32], operands: usize, stages: &[Stage<'_>], y: &mut [f32]) {
        match self {
            Self::Conv { packed, geometry, bias } => {
                let (finish, rest) = fused(bias.as_ref(), stages);
                kernel::conv_f32_finish(packed, geometry, x(0), finish, y);
                apply(rest, y);
            }
            Self::Depthwise { kernel, geometry, bias } => {
                let (finish, rest) = fused(bias.as_ref(), stages);
                kernel::depthwise_f32_finish(geometry, kernel.data(), x(0), finish, y);
                apply(rest, y);
            }
            Self::Merge(merged) => {
                let inputs: Vec<&[f32]> = (0..operands).map(x).collect();
                on_lanes(Merging { merged: *merged, inputs: &inputs, y });
                apply(stages, y);
            }
            Self::Copy => {
                y.copy_from_slice(x(0));
                apply(stages, y);
            }
            Self::Layer => {}
        }
    }
}

/// Whether inputs merge by rows: one of the first two has the result's elements, and each repeats along first dimensions
/// at most.
fn merges(inputs: &[&[usize]], out: &[usize]) -> bool {
    let whole = |shape: &[usize]| shape == out;
    let repeats = |shape: &[usize]| {
        let ones = shape.iter().take_while(|d| **d == 1).count();
        shape.len() <= out.len() && out.ends_with(&shape[ones..])
    };
    inputs.len() > 1 && inputs[..2].iter().any(|s| whole(s)) && inputs.iter().all(|s| repeats(s))
}

/// Stages over a tensor.
pub(super) fn apply(stages: &[Stage<'_>], y: &mut [f32]) {
    struct Apply<'a>(&'a Stage<'a>, &'a mut [f32]);
    impl Lanes for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            match self.0 {
                Stage::Affine(factor, offset) => {
                    for row in self.1.chunks_exact_mut(factor.len().max(1)) {
                        row.iter_mut().zip(factor).zip(offset).for_each(|((x, k), a)| *x = *x * k + a);
                    }
                }
                Stage::Map(function) => function.apply_lanes(self.1),
                Stage::Change(change) => change(self.1),
                Stage::Rows(function, row) => {
                    for row in self.1.chunks_exact_mut((*row).max(1)) {
                        let cells = Cell::from_mut(row).as_slice_of_cells();
                        function.apply(cells.len(), |i| cells[i].get(), |i, v| cells[i].set(v));
                    }
                }
            }
        }
    }
    stages.iter().for_each(|stage| on_lanes(Apply(stage, y)));
}

/// Operands that merge into `y`.
struct Merging<'a> {
    merged: Merged,
    inputs: &'a [&'a [f32]],
    y: &'a mut [f32],
}

impl Lanes for Merging<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        match self.merged {
            Merged::Sum => merge(self.inputs, self.y, |a, b| a + b),
            Merged::Product => merge(self.inputs, self.y, |a, b| a * b),
        }
    }
}

#[inline(always)]
fn merge(inputs: &[&[f32]], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let [first, second, others @ ..] = inputs else { return };
    if let ([one], x) = (first, second) {
        y.iter_mut().zip(*x).for_each(|(y, x)| *y = f(*one, *x));
    } else if let (x, [one]) = (first, second) {
        y.iter_mut().zip(*x).for_each(|(y, x)| *y = f(*x, *one));
    } else {
        pairs(first, second, y, &f);
    }
    for x in others {
        for y in y.chunks_exact_mut(x.len().max(1)) {
            y.iter_mut().zip(*x).for_each(|(y, x)| *y = f(*y, *x));
        }
    }
}

/// Pairs of two operands, one of which may repeat.
#[inline(always)]
fn pairs(first: &[f32], second: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    let n = first.len().min(second.len()).max(1);
    let whole = |x: &[f32]| x.len() > n;
    for (i, y) in y.chunks_exact_mut(n).enumerate() {
        let at = |x: &[f32]| if whole(x) { i * n } else { 0 };
        let (a, b) = (&first[at(first)..][..n], &second[at(second)..][..n]);
        y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = f(*a, *b));
    }
}

/// What a kernel does to its sums: bias, normalization and ReLU, as many of the stages as there is room for, in order. The
/// others are left.
fn fused<'a>(bias: Option<&'a Tensor>, stages: &'a [Stage<'a>]) -> (FinishF32<'a>, &'a [Stage<'a>]) {
    let mut fused = FinishF32 { bias: bias.map(Tensor::data), ..FinishF32::default() };
    let mut rest = stages;
    while let [stage, others @ ..] = rest {
        match stage {
            Stage::Map(Function::Identity) => {}
            Stage::Affine(factor, offset) if fused.affine.is_none() && fused.relu.is_none() => {
                fused.affine = Some((factor, offset));
            }
            Stage::Map(Function::Relu { max, slope: 0.0, threshold: 0.0 }) if fused.relu.is_none() => {
                fused.relu = Some(*max);
            }
            Stage::Affine(..) | Stage::Map(_) | Stage::Rows(..) | Stage::Change(_) => break,
        }
        rest = others;
    }
    (fused, rest)
}
