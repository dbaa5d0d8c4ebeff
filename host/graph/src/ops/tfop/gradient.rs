//! Gradients of TensorFlow functions.

use crate::backward::{Call, NoGradient, combined, elementwise, reduced_to, reshaped, resized, rows};
use crate::backward::{derivative, moved, split, spread, spread_to_extremes};
use crate::ops::tfop::{Kind, Operand, Reduction, TfOp};
use shiftwise_core::model::Combine;
use shiftwise_tensor::array;
use shiftwise_tensor::tensor::Tensor;

/// The last two axes exchanged.
fn turned(t: &Tensor) -> Tensor {
    let rank = t.shape().len();
    let mut order: Vec<usize> = (0..rank).collect();
    order.swap(rank - 2, rank - 1);
    array::transpose(t, &order)
}

/// Gradients of a product of matrices, each transposed or not.
fn product(a: &Tensor, b: &Tensor, transpose: [bool; 2], dy: &Tensor) -> Result<Vec<Tensor>, NoGradient> {
    let own = |t: &Tensor, turn: bool| if turn { turned(t) } else { t.clone() };
    let (left, right) = (own(a, transpose[0]), own(b, transpose[1]));
    let da = reduced_to(&array::matmul(dy, &turned(&right)), left.shape())?;
    let db = reduced_to(&array::matmul(&turned(&left), dy), right.shape())?;
    Ok(vec![own(&da, transpose[0]), own(&db, transpose[1])])
}

impl TfOp {
    /// The gradient of each input. An input that is an operand several times gets the sum, in the order of the operands.
    pub(crate) fn gradients(&self, call: &Call<'_>, dy: &Tensor) -> Result<Vec<Option<Tensor>>, NoGradient> {
        let mut inputs = vec![None; call.shapes.len()];
        let name = self.function.rsplit('.').next().unwrap_or_default();
        if name == "stop_gradient" {
            return Ok(inputs);
        }
        let operand = |o: &Operand| match o {
            Operand::Tensor(k) => call.inputs.get(*k).cloned().ok_or(NoGradient::Shapes),
            Operand::Constant(t) => Ok(t.clone()),
        };
        let x = self.operands.iter().map(operand).collect::<Result<Vec<_>, _>>()?;
        let of_operands = self.kind.gradients(&x, dy)?;
        for (operand, d) in self.operands.iter().zip(of_operands) {
            if let Operand::Tensor(k) = operand {
                let sum = match inputs[*k].take() {
                    Some(sum) => array::zip(&sum, &d, |a, b| a + b),
                    None => d,
                };
                inputs[*k] = Some(sum);
            }
        }
        Ok(inputs)
    }
}

impl Kind {
    /// The gradient of each operand.
    fn gradients(&self, x: &[Tensor], dy: &Tensor) -> Result<Vec<Tensor>, NoGradient> {
        let first = x.first().ok_or(NoGradient::Shapes)?;
        let second = || x.get(1).ok_or(NoGradient::Shapes);
        let rank = first.shape().len();
        let axis = |axis: i64, rank: usize| array::axis(axis, rank).map_err(|_| NoGradient::Shapes);
        let one = |dx: Tensor| vec![dx];
        match self {
            Self::Unary(function) => Ok(one(elementwise(*function, first, dy))),
            Self::Chain(functions) => {
                let mut dx = dy.clone();
                for (d, x) in dx.data_mut().iter_mut().zip(first.data()) {
                    let step = |(x, d): (f32, f32), f: &_| {
                        let f: &shiftwise_core::model::Function = f;
                        (f.apply(x), d * derivative(*f, x))
                    };
                    *d = functions.iter().fold((*x, *d), step).1;
                }
                Ok(one(dx))
            }
            Self::Binary(combine) => combined(*combine, first, second()?, dy).map(Vec::from),
            Self::Clip => {
                let high = x.get(2).ok_or(NoGradient::Shapes)?;
                let above = array::zip(first, second()?, |a, b| Combine::Maximum.apply(a, b));
                let [dabove, dhigh] = combined(Combine::Minimum, &above, high, dy)?;
                let [dx, dlow] = combined(Combine::Maximum, first, second()?, &dabove)?;
                Ok(vec![dx, dlow, dhigh])
            }
            Self::MatMul { transpose } => product(first, second()?, *transpose, dy),
            Self::Rows(function, along) => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(axis(*along, rank)?, rank.saturating_sub(1));
                let dx = rows(*function, &array::transpose(first, &order), &array::transpose(dy, &order))?;
                Ok(one(array::transpose(&dx, &order)))
            }
            Self::Reduce { by, axes, .. } => {
                let all = || (0..rank as i64).collect();
                let axes = axes.clone().unwrap_or_else(all);
                let axes = axes.iter().map(|a| axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
                reduced(*by, first, &axes, dy).map(one)
            }
            Self::Concat(along) => {
                let shapes: Vec<Vec<usize>> = x.iter().map(|x| x.shape().to_vec()).collect();
                split(&shapes, axis(*along, rank)?, dy).into_iter().collect::<Option<_>>().ok_or(NoGradient::Shapes)
            }
            Self::Stack(along) => {
                let at = axis(*along, rank + 1)?;
                let one = [&first.shape()[..at], &[1], &first.shape()[at..]].concat();
                let parts = split(&vec![one; x.len()], at, dy);
                let part = |part: Option<Tensor>| reshaped(&part.ok_or(NoGradient::Shapes)?, first.shape());
                parts.into_iter().map(part).collect()
            }
            Self::Reshape(_) | Self::ExpandDims(_) | Self::Squeeze(_) => reshaped(dy, first.shape()).map(one),
            Self::Pad { widths, .. } => {
                let zeros = Self::Pad { widths: widths.clone(), value: 0.0 };
                moved_by(&zeros, first.shape(), dy).map(one)
            }
            Self::Transpose(_) | Self::Slice(_) | Self::Gather { .. } | Self::Reverse(_) => {
                moved_by(self, first.shape(), dy).map(one)
            }
            Self::DepthToSpace(_) | Self::SpaceToDepth(_) => moved_by(self, first.shape(), dy).map(one),
            Self::Resize { size, method } => resized(*method, *size, first.shape(), dy).map(one),
        }
    }
}

/// dX of a function that moves the elements of its only operand. The function has been seen to keep samples apart.
fn moved_by(kind: &Kind, shape: &[usize], dy: &Tensor) -> Result<Tensor, NoGradient> {
    moved(shape, dy, |x| kind.eval(&[x]).unwrap_or_else(|_| Tensor::zeros(&[0])))
}

/// dX of a fold along axes.
fn reduced(by: Reduction, x: &Tensor, axes: &[usize], dy: &Tensor) -> Result<Tensor, NoGradient> {
    let kept: Vec<usize> = x.shape().iter().enumerate().map(|(i, d)| if axes.contains(&i) { 1 } else { *d }).collect();
    let count: usize = axes.iter().map(|i| x.shape()[*i]).product();
    match by {
        Reduction::Sum => spread(x.shape(), &kept, dy, 1.0),
        Reduction::Mean => spread(x.shape(), &kept, dy, 1.0 / count.max(1) as f32),
        Reduction::Max => spread_to_extremes(x, axes, dy, true),
        Reduction::Min => spread_to_extremes(x, axes, dy, false),
    }
}
