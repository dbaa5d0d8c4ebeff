//! Between integers and floats, and ops in floats.

use crate::engine::plan::{Held, Result};
use crate::engine::scaled;
use crate::graph::Kind;
use shiftwise_core::cpu;
use shiftwise_core::fix::{self, FixPos};
use shiftwise_graph::dtype::{self, Dtype};
use shiftwise_graph::ops::Op;
use shiftwise_tensor::kernel::{Lanes, on_lanes};
use shiftwise_tensor::tensor::Tensor;

/// Writes values as the kind of what they are written to; what there are fewer of leaves the rest.
pub(super) fn convert((x, from): (Held<'_>, Kind), y: Result<'_>, to: Kind) {
    match (x, y) {
        (Held::Float(x), y) if matches!(to, Kind::Scaled(_)) => scaled::quantize(x, to, y),
        (x @ (Held::Fixed(_) | Held::Wide(_)), Result::Float(y)) if matches!(from, Kind::Scaled(_)) => {
            scaled::dequantize(x, from, y);
        }
        (Held::Wide(x), Result::Wide(y)) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x),
        // Integers of 16 bits are those of a step only.
        (Held::Wide(_), _) | (_, Result::Wide(_)) => {}
        (Held::Fixed(x), Result::Fixed(y)) => y.iter_mut().zip(x).for_each(|(y, x)| *y = *x),
        (Held::Float(x), Result::Float(y)) => copy(x, y),
        (Held::Float(x), Result::Fixed(y)) => quantize(x, position(to), y),
        (Held::Fixed(x), Result::Float(y)) => dequantize(x, from, y),
    }
}

/// What integers of a kind are multiples of: those of no position are themselves.
fn position(kind: Kind) -> FixPos {
    match kind {
        Kind::Fixed(pos) => pos,
        Kind::Float | Kind::Scaled(_) => FixPos(0),
    }
}

/// Copies as many values as the shorter has.
pub(super) fn copy(x: &[f32], y: &mut [f32]) {
    let n = x.len().min(y.len());
    y[..n].copy_from_slice(&x[..n]);
}

/// Floats as integers of a position, rounded half up and saturated.
pub(super) fn quantize(x: &[f32], pos: FixPos, y: &mut [i8]) {
    struct Quantize<'a>(&'a [f32], f32, &'a mut [i8]);
    impl Lanes for Quantize<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(x, scale, y) = self;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = fix::quantize_i8(*x, scale));
        }
    }
    on_lanes(Quantize(x, pos.scale(), y));
}

fn dequantize(x: &[i8], from: Kind, y: &mut [f32]) {
    struct Dequantize<'a>(&'a [i8], f32, &'a mut [f32]);
    impl Lanes for Dequantize<'_> {
        type Output = ();
        #[inline(always)]
        fn run(self) {
            let Self(x, step, y) = self;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = f32::from(*x) * step);
        }
    }
    on_lanes(Dequantize(x, position(from).step(), y));
}

/// A tensor of one sample in floats.
pub(super) fn tensor((x, kind): (Held<'_>, Kind), shape: &[usize]) -> Tensor {
    let mut all = Tensor::zeros(&[&[1], shape].concat());
    convert((x, kind), Result::Float(all.data_mut()), Kind::Float);
    all
}

/// Softmax over the last axis; `row` is memory for its operand.
pub(super) fn softmax((x, kind): (Held<'_>, Kind), shape: &[usize], y: &mut [f32], row: &mut Vec<f32>) {
    let n = shape.last().copied().unwrap_or(1).max(1);
    row.resize(row.len().max(y.len()), 0.0);
    let x = match x {
        Held::Float(x) => x,
        Held::Fixed(_) | Held::Wide(_) => {
            convert((x, kind), Result::Float(row), Kind::Float);
            &row[..y.len()]
        }
    };
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        cpu::softmax(n, |i| x[i], |i, v| y[i] = v);
    }
}

/// A layer in floats with its activation.
pub(super) fn layer(op: &Op, dtype: Dtype, inputs: &[Tensor], weights: &[Tensor]) -> Tensor {
    let mut y = dtype::eval(op, dtype, &inputs.iter().collect::<Vec<_>>(), weights);
    dtype::activate(op, dtype, &mut y);
    y
}
