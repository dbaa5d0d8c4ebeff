//! TensorFlow functions as layers: what operators and `tf.…` calls on Keras tensors record.

use crate::budget::Budget;
use crate::ops::{Interpolation, Layer, sides};
use shiftwise_core::model::{Combine, FloatPoolKind, Function, RowFunction};
use shiftwise_tensor::array;
use shiftwise_tensor::broadcast::broadcast;
use shiftwise_tensor::tensor::Tensor;

pub(crate) mod gradient;
mod moves;
mod subscript;

pub use subscript::{Part, Subscript, subscript};

/// An operand of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// The node's input of this index.
    Tensor(usize),
    /// A constant, a scalar or an array.
    Constant(Tensor),
}

/// A TensorFlow function of tensors and constants.
#[derive(Clone, Debug)]
pub struct TfOp {
    /// The function's name below `tf.`, such as `math.multiply`.
    pub function: String,
    /// Its operands in argument order; axes, shapes and other settings are no operands.
    pub operands: Vec<Operand>,
    /// What it computes.
    pub kind: Kind,
}

/// Memory of an element while a constant is computed: the value, and where it comes from.
const FOLDED: u64 = 16;

/// What a function computes. Axes are TensorFlow's: 0 is the batch, negative ones count from the end.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A function of each element.
    Unary(Function),
    /// Functions of each element, one after the other.
    Chain(&'static [Function]),
    /// A function of the elements of two operands, which broadcast.
    Binary(Combine),
    /// min(max(x, low), high) of three operands.
    Clip,
    /// A product of matrices.
    MatMul {
        /// Which of the two are transposed first.
        transpose: [bool; 2],
    },
    /// A function of rows along an axis.
    Rows(RowFunction, i64),
    /// A fold along axes.
    Reduce {
        /// What is made of the values.
        by: Reduction,
        /// Which axes; all if `None`.
        axes: Option<Vec<i64>>,
        /// They stay, with one element each.
        keep: bool,
    },
    /// Operands behind each other along an axis.
    Concat(i64),
    /// Operands behind each other along a new axis.
    Stack(i64),
    /// The same elements under another shape, in which one size may be −1.
    Reshape(Vec<i64>),
    /// Axes in another order; backwards if `None`.
    Transpose(Option<Vec<i64>>),
    /// A new axis with one element.
    ExpandDims(i64),
    /// Axes of one element dropped.
    Squeeze(Vec<i64>),
    /// A value around the operand.
    Pad {
        /// Elements before and after, for each axis.
        widths: Vec<(usize, usize)>,
        /// The value.
        value: f32,
    },
    /// A subscript.
    Slice(Vec<Part>),
    /// Images of another size.
    Resize {
        /// Height and width.
        size: [usize; 2],
        /// Method.
        method: Interpolation,
    },
    /// These elements along an axis; one that is dropped if `drop`.
    Gather {
        /// Which axis.
        axis: usize,
        /// Which elements.
        indices: Vec<usize>,
        /// The axis goes.
        drop: bool,
    },
    /// Backwards along axes.
    Reverse(Vec<usize>),
    /// Squares of channels as squares of pixels, channels first in rows.
    DepthToSpace(usize),
    /// The reverse of it.
    SpaceToDepth(usize),
}

/// What a fold makes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// Their mean.
    Mean,
    /// Their sum.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
}

impl Reduction {
    /// A tensor folded along axes, which stay with one element each or go.
    fn reduce(self, x: &Tensor, axes: &[usize]) -> Tensor {
        match self {
            Self::Sum => array::reduce(x, axes, 0.0, |a, b| a + b),
            Self::Mean => {
                let count: usize = axes.iter().map(|i| x.shape()[*i]).product();
                array::map(&array::reduce(x, axes, 0.0, |a, b| a + b), |sum| sum / count as f32)
            }
            Self::Max => array::reduce(x, axes, f32::NEG_INFINITY, |a, b| Combine::Maximum.apply(b, a)),
            Self::Min => array::reduce(x, axes, f32::INFINITY, |a, b| Combine::Minimum.apply(b, a)),
        }
    }

    /// What it takes of the values.
    fn fold(self) -> FloatPoolKind {
        match self {
            Self::Mean => FloatPoolKind::Average,
            Self::Sum => FloatPoolKind::Sum,
            Self::Max => FloatPoolKind::Max,
            Self::Min => FloatPoolKind::Min,
        }
    }
}

/// A function of elements, or a move of them, for those who compute it elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Functions of each element, one after the other.
    Unary(Vec<Function>),
    /// Functions of the first operand so far and the next one, with broadcasting.
    Binary(Vec<Combine>),
    /// The same elements under another shape.
    Reshaped,
    /// Axis i of the sample is axis `order[i]` of the operand's.
    Permuted(Vec<usize>),
    /// Operands behind each other along an axis of the sample.
    Joined(usize),
    /// Operands behind each other along a new axis of the sample.
    Stacked(usize),
    /// Along each axis of the sample `count` elements from `start`, `step` apart: (start, count, step).
    Sliced(Vec<(usize, usize, isize)>),
    /// A value around the sample, (before, after) each axis.
    Padded(Vec<(usize, usize)>, f32),
    /// Axes of the sample folded.
    Reduced(FloatPoolKind, Vec<usize>),
    /// A function of rows along an axis of the sample.
    Rows(RowFunction, usize),
    /// Product of matrices, each transposed or not.
    Product([bool; 2]),
    /// An image of another size.
    Resized([usize; 2], Interpolation),
    /// These elements along an axis of the sample.
    Gathered(usize, Vec<usize>),
    /// Squares of channels as squares of pixels of this side, or the reverse.
    Blocks(usize, bool),
}

impl TfOp {
    /// What it does to the elements of samples. `sample` is the first operand's shape. `None` where it also touches the
    /// batch, which a layer that was read does not.
    pub fn elements(&self, sample: &[usize]) -> Option<Elements> {
        let rank = sample.len();
        let own = |axis: i64, rank: usize| array::axis(axis, rank + 1).ok()?.checked_sub(1);
        Some(match &self.kind {
            Kind::Unary(function) => Elements::Unary(vec![*function]),
            Kind::Chain(functions) => Elements::Unary(functions.to_vec()),
            Kind::Binary(combine) => Elements::Binary(vec![*combine]),
            Kind::Clip => Elements::Binary(vec![Combine::Maximum, Combine::Minimum]),
            Kind::Reshape(_) | Kind::ExpandDims(_) | Kind::Squeeze(_) => Elements::Reshaped,
            Kind::Transpose(Some(order)) => {
                let order = order.iter().map(|i| array::axis(*i, rank + 1)).collect::<Result<Vec<_>, _>>().ok()?;
                Elements::Permuted(
                    order.split_first().filter(|(batch, _)| **batch == 0)?.1.iter().map(|i| i - 1).collect(),
                )
            }
            Kind::Concat(axis) => Elements::Joined(own(*axis, rank)?),
            Kind::Stack(axis) => Elements::Stacked(own(*axis, rank + 1)?),
            Kind::Transpose(None) => return None,
            Kind::Slice(parts) => {
                let (at, _) = subscript(parts, &[&[1], sample].concat()).ok()?;
                Elements::Sliced(at.split_first()?.1.to_vec())
            }
            Kind::Pad { widths, value } => {
                let (batch, widths) = widths.split_first()?;
                (*batch == (0, 0)).then_some(())?;
                Elements::Padded(widths.to_vec(), *value)
            }
            Kind::Reduce { by, axes, .. } => {
                let axes = axes.as_ref()?.iter().map(|axis| own(*axis, rank)).collect::<Option<_>>()?;
                Elements::Reduced(by.fold(), axes)
            }
            Kind::Rows(function, axis) => Elements::Rows(*function, own(*axis, rank)?),
            Kind::Gather { axis, indices, .. } => Elements::Gathered(axis.checked_sub(1)?, indices.clone()),
            Kind::Reverse(axes) => {
                let along = |(axis, size): (usize, &usize)| match axes.contains(&(axis + 1)) {
                    true => (size.saturating_sub(1), *size, -1),
                    false => (0, *size, 1),
                };
                (!axes.contains(&0)).then_some(())?;
                Elements::Sliced(sample.iter().enumerate().map(along).collect())
            }
            Kind::DepthToSpace(block) => Elements::Blocks(*block, true),
            Kind::SpaceToDepth(block) => Elements::Blocks(*block, false),
            Kind::MatMul { transpose } => Elements::Product(*transpose),
            Kind::Resize { size, method } => Elements::Resized(*size, *method),
        })
    }

    /// The function of these operands, for readers that compute constants. The result is charged to the budget.
    ///
    /// Errors: operands that don't belong together, a result that is too large.
    pub fn fold(&self, operands: &[&Tensor], budget: &Budget) -> Result<Tensor, String> {
        let (least, most) = self.kind.operands();
        if !(least..=most).contains(&operands.len()) {
            return Err(format!("`{}` has {} operands, {least} are expected", self.function, operands.len()));
        }
        self.kind.check()?;
        let shapes: Vec<&[usize]> = operands.iter().map(|t| t.shape()).collect();
        let shape = self.kind.shape(&shapes)?;
        array::count(&shape)?;
        budget.elements(&shape, FOLDED).map_err(|e| e.to_string())?;
        self.kind.eval(operands)
    }

    /// Whether it works on elements of equal places only.
    pub fn is_elementwise(&self) -> bool {
        matches!(self.kind, Kind::Unary(_) | Kind::Chain(_) | Kind::Binary(_) | Kind::Clip)
    }

    /// The product of a constant and the only input, as matrices.
    pub fn product_with(constant: Tensor) -> Self {
        let operands = vec![Operand::Constant(constant), Operand::Tensor(0)];
        Self { function: "linalg.matmul".into(), operands, kind: Kind::MatMul { transpose: [false; 2] } }
    }

    /// Size and method of a resizing.
    pub fn resizing(&self) -> Option<([usize; 2], Interpolation)> {
        match self.kind {
            Kind::Resize { size, method } => Some((size, method)),
            _ => None,
        }
    }
}

/// A shape without axes, or with one element along them if they are kept.
fn folded(x: &[usize], axes: &[usize], keep: bool) -> Vec<usize> {
    let kept = x.iter().enumerate().filter_map(|(i, d)| match (axes.contains(&i), keep) {
        (false, _) => Some(*d),
        (true, true) => Some(1),
        (true, false) => None,
    });
    kept.collect()
}

/// The shape of tensors behind each other along an axis; `x` is the first one's.
fn joined(shapes: &[&[usize]], x: &[usize], axis: usize) -> Result<Vec<usize>, String> {
    let rest =
        |s: &[usize]| (s.len(), s.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, d)| *d).collect::<Vec<_>>());
    if shapes.iter().any(|s| rest(s) != rest(x)) {
        return Err(format!("tensors of shapes {shapes:?} can't be joined along axis {axis}"));
    }
    let mut shape = x.to_vec();
    shape[axis] = shapes.iter().map(|s| s[axis]).sum();
    Ok(shape)
}

/// A target shape for the elements of another, its open size filled in.
fn filled(target: &[i64], x: &[usize]) -> Result<Vec<usize>, String> {
    let total = array::count(x)?;
    let known = target.iter().filter(|d| **d >= 0).try_fold(1usize, |n, d| n.checked_mul(*d as usize));
    let open = target.iter().filter(|d| **d < 0).count();
    let fits = known.filter(|known| match open {
        0 => *known == total,
        1 => *known > 0 && total.is_multiple_of(*known),
        _ => false,
    });
    let known = fits.ok_or_else(|| format!("{x:?} can't be reshaped to {target:?}"))?;
    Ok(target.iter().map(|d| if *d < 0 { total / known } else { *d as usize }).collect())
}

impl Kind {
    /// The result's shape. All shapes include the batch.
    fn shape(&self, shapes: &[&[usize]]) -> Result<Vec<usize>, String> {
        let x = shapes.first().ok_or("it has no operands")?;
        let rank = x.len();
        let axes = |list: &[i64]| list.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>();
        Ok(match self {
            Self::Unary(_) | Self::Chain(_) => x.to_vec(),
            Self::Gather { .. } | Self::Reverse(_) | Self::DepthToSpace(_) | Self::SpaceToDepth(_) => self.moved(x)?,
            Self::Rows(_, axis) => {
                array::axis(*axis, rank)?;
                x.to_vec()
            }
            Self::Binary(_) | Self::Clip => broadcast(shapes)?,
            Self::MatMul { transpose } => {
                let turned = |shape: &[usize], turn: bool| match shape {
                    [lead @ .., m, n] if turn => [lead, &[*n, *m]].concat(),
                    shape => shape.to_vec(),
                };
                array::matmul_shape(&turned(x, transpose[0]), &turned(shapes[1], transpose[1]))?
            }
            Self::Reduce { axes: list, keep, .. } => {
                let list = list.as_ref().map_or(Ok((0..rank).collect()), |list| axes(list))?;
                folded(x, &list, *keep)
            }
            Self::Concat(axis) => joined(shapes, x, array::axis(*axis, rank)?)?,
            Self::Stack(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                if shapes.iter().any(|s| s != x) {
                    return Err(format!("tensors of shapes {shapes:?} can't be stacked"));
                }
                [&x[..axis], &[shapes.len()], &x[axis..]].concat()
            }
            Self::Reshape(target) => filled(target, x)?,
            Self::Transpose(order) => self.order(order.as_deref(), rank)?.into_iter().map(|i| x[i]).collect(),
            Self::ExpandDims(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                [&x[..axis], &[1], &x[axis..]].concat()
            }
            Self::Squeeze(list) => {
                let list = axes(list)?;
                if let Some(i) = list.iter().find(|i| x[**i] != 1) {
                    return Err(format!("axis {i} of {x:?} can't be squeezed"));
                }
                x.iter().enumerate().filter(|(i, _)| !list.contains(i)).map(|(_, d)| *d).collect()
            }
            Self::Pad { widths, .. } => {
                if widths.len() != rank {
                    return Err(format!("{} paddings for a tensor of shape {x:?}", widths.len()));
                }
                x.iter().zip(widths).map(|(d, (before, after))| before + d + after).collect()
            }
            Self::Slice(parts) => subscript(parts, x)?.1,
            Self::Resize { size, .. } => match x[..] {
                [n, h, w, c] if h * w > 0 => vec![n, size[0], size[1], c],
                _ => return Err(format!("its operand has shape {x:?}, images are expected")),
            },
        })
    }

    fn order(&self, order: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
        let Some(order) = order else { return Ok((0..rank).rev().collect()) };
        let list = order.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>()?;
        let each_once = list.len() == rank && (0..rank).all(|i| list.contains(&i));
        each_once.then_some(list).ok_or_else(|| format!("{order:?} is no order of {rank} axes"))
    }

    fn eval(&self, x: &[&Tensor]) -> Result<Tensor, String> {
        let shapes: Vec<&[usize]> = x.iter().map(|t| t.shape()).collect();
        let shape = self.shape(&shapes)?;
        let reshaped = |t: &Tensor| t.clone().reshaped(shape.clone()).ok_or_else(|| "its shape is wrong".to_owned());
        let first = x[0];
        let rank = first.shape().len();
        Ok(match self {
            Self::Unary(function) => applied(first, std::slice::from_ref(function)),
            Self::Chain(functions) => applied(first, functions),
            Self::Gather { .. } | Self::Reverse(_) | Self::DepthToSpace(_) | Self::SpaceToDepth(_) => {
                reshaped(&self.move_elements(first))?
            }
            Self::Binary(combine) => array::zip(first, x[1], |a, b| combine.apply(a, b)),
            Self::Clip => {
                let above = array::zip(first, x[1], |a, b| Combine::Maximum.apply(a, b));
                array::zip(&above, x[2], |a, b| Combine::Minimum.apply(a, b))
            }
            Self::MatMul { transpose } => {
                let turned = |t: &Tensor, turn: bool| {
                    let n = t.shape().len();
                    let mut order: Vec<usize> = (0..n).collect();
                    order.swap(n - 2, n - 1);
                    if turn { array::transpose(t, &order) } else { t.clone() }
                };
                array::matmul(&turned(first, transpose[0]), &turned(x[1], transpose[1]))
            }
            Self::Rows(function, axis) => {
                // To the last axis and back.
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(array::axis(*axis, rank)?, rank - 1);
                let mut out = array::transpose(first, &order);
                crate::ops::act::rows(&mut out, *function);
                array::transpose(&out, &order)
            }
            Self::Reduce { by, axes, .. } => {
                let all = || (0..rank as i64).collect();
                let axes = axes.clone().unwrap_or_else(all);
                let axes = axes.iter().map(|i| array::axis(*i, rank)).collect::<Result<Vec<usize>, String>>()?;
                reshaped(&by.reduce(first, &axes))?
            }
            Self::Concat(axis) => array::concat(x, array::axis(*axis, rank)?),
            Self::Stack(axis) => {
                let axis = array::axis(*axis, rank + 1)?;
                let one = [&first.shape()[..axis], &[1], &first.shape()[axis..]].concat();
                let parts: Option<Vec<Tensor>> = x.iter().map(|t| (*t).clone().reshaped(one.clone())).collect();
                array::concat(&parts.unwrap_or_default().iter().collect::<Vec<_>>(), axis)
            }
            Self::Transpose(order) => array::transpose(first, &self.order(order.as_deref(), rank)?),
            Self::Reshape(_) | Self::ExpandDims(_) | Self::Squeeze(_) => reshaped(first)?,
            Self::Pad { widths, value } => array::pad(first, widths, *value),
            Self::Resize { size, method } => method.resize(first, *size),
            Self::Slice(parts) => reshaped(&array::slice(first, &subscript(parts, first.shape())?.0))?,
        })
    }
}

impl Kind {
    /// Fails unless the settings of the function are such as it can have, whatever its operands are.
    fn check(&self) -> Result<(), String> {
        if let Self::Resize { size, .. } = self {
            sides("size", 1, size)?;
        }
        if let Self::Pad { widths, .. } = self {
            widths.iter().try_for_each(|(before, after)| sides("paddings", 0, &[*before, *after]))?;
        }
        if let Self::Gather { indices, drop: true, .. } = self
            && indices.len() != 1
        {
            return Err(format!("an axis of {} elements can't be dropped", indices.len()));
        }
        if let Self::DepthToSpace(block) | Self::SpaceToDepth(block) = self
            && !(1..=MAX_BLOCK).contains(block)
        {
            return Err(format!("its block size is {block}, 1 to {MAX_BLOCK} is expected"));
        }
        Ok(())
    }

    /// How many operands it takes: at least, and at most.
    fn operands(&self) -> (usize, usize) {
        match self {
            Self::Binary(_) | Self::MatMul { .. } => (2, 2),
            Self::Clip => (3, 3),
            Self::Concat(_) | Self::Stack(_) => (1, usize::MAX),
            Self::Unary(_)
            | Self::Chain(_)
            | Self::Rows(..)
            | Self::Reduce { .. }
            | Self::Reshape(_)
            | Self::Transpose(_)
            | Self::ExpandDims(_)
            | Self::Squeeze(_)
            | Self::Pad { .. }
            | Self::Slice(_)
            | Self::Resize { .. }
            | Self::Gather { .. }
            | Self::Reverse(_)
            | Self::DepthToSpace(_)
            | Self::SpaceToDepth(_) => (1, 1),
        }
    }
}

/// Largest side of the squares that channels are moved into.
pub const MAX_BLOCK: usize = 4096;

impl Layer for TfOp {
    fn class(&self) -> &str {
        if matches!(self.kind, Kind::Slice(_)) { "SlicingOpLambda" } else { "TFOpLambda" }
    }
    fn check(&self) -> Result<(), String> {
        let (least, most) = self.kind.operands();
        if !(least..=most).contains(&self.operands.len()) {
            return Err(format!("`{}` has {} operands, {least} are expected", self.function, self.operands.len()));
        }
        self.kind.check()
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        array::per_sample(&format!("`{}`", self.function), |n| {
            let shape = |operand: &Operand| match operand {
                Operand::Tensor(k) => Ok([&[n], *inputs.get(*k).ok_or("an input is missing")?].concat()),
                Operand::Constant(t) => Ok(t.shape().to_vec()),
            };
            let shapes = self.operands.iter().map(shape).collect::<Result<Vec<_>, String>>()?;
            self.kind.shape(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let operands = self.operands.iter().map(|operand| match operand {
            Operand::Tensor(k) => inputs[*k],
            Operand::Constant(t) => t,
        });
        self.kind.eval(&operands.collect::<Vec<_>>()).unwrap_or_else(|_| Tensor::zeros(&[0]))
    }
}

/// The functions of each element, one after the other.
fn applied(x: &Tensor, functions: &[Function]) -> Tensor {
    let mut out = x.clone();
    functions.iter().for_each(|f| f.apply_all(out.data_mut()));
    out
}
