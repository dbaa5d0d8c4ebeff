//! Operations on whole arrays with NumPy's rules, for layers that are functions. Shapes include the batch.

use crate::broadcast::{broadcast, offsets};
use crate::tensor::Tensor;

/// A function of one number with its name.
pub type Unary = (&'static str, fn(f32) -> f32);

/// A function of two numbers with its name.
pub type Binary = (&'static str, fn(f32, f32) -> f32);

/// `axis` of an array of `rank` dimensions, counted from the end if negative.
pub fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let index = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let index = index.and_then(|i| usize::try_from(i).ok()).filter(|i| *i < rank);
    index.ok_or_else(|| format!("axis {axis} does not exist in {rank} dimensions"))
}

/// Elements of a shape; shapes from outside may be absurd.
pub fn count(shape: &[usize]) -> Result<usize, String> {
    let total = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 40);
    total.ok_or_else(|| format!("a tensor of shape {shape:?} is too large"))
}

/// The shape of one sample of a result, from its shape for a batch of n.
///
/// Two batch sizes are tried: what differs in more than the first dimension mixes samples.
pub fn per_sample(what: &str, shape: impl Fn(usize) -> Result<Vec<usize>, String>) -> Result<Vec<usize>, String> {
    let rest = |n: usize| {
        let shape = shape(n)?;
        count(&shape)?;
        Ok::<_, String>(shape.split_first().filter(|(first, _)| **first == n).map(|(_, rest)| rest.to_vec()))
    };
    let (one, two) = (rest(1)?, rest(2)?);
    one.filter(|shape| two.as_ref() == Some(shape)).ok_or_else(|| format!("{what} does not keep samples apart"))
}

/// `f` of each element.
pub fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Tensor {
    let mut out = x.clone();
    out.data_mut().iter_mut().for_each(|v| *v = f(*v));
    out
}

/// `f` of the pairs of two arrays that broadcast against each other.
pub fn zip(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32) -> Tensor {
    if b.data().len() == 1 && b.shape().len() <= a.shape().len() {
        let b = b.data()[0];
        return map(a, |a| f(a, b));
    }
    let Ok(shape) = broadcast(&[a.shape(), b.shape()]) else { return Tensor::zeros(&[0]) };
    let (from_a, from_b) = (offsets(a.shape(), &shape), offsets(b.shape(), &shape));
    let data = from_a.iter().zip(&from_b).map(|(p, q)| f(a.data()[*p], b.data()[*q])).collect();
    Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// Row-major distances between neighbours along each axis.
fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i] as isize;
    }
    strides
}

/// The elements at `start` plus multiples of `steps` along each axis.
fn gather(x: &Tensor, start: isize, shape: &[usize], steps: &[isize]) -> Tensor {
    let mut at = vec![start];
    for (size, step) in shape.iter().zip(steps) {
        at = at.iter().flat_map(|base| (0..*size as isize).map(move |k| base + k * step)).collect();
    }
    let data = at.iter().map(|i| x.data()[*i as usize]).collect();
    Tensor::new(shape.to_vec(), data).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// Axis i of the result is axis `order[i]` of the array.
pub fn transpose(x: &Tensor, order: &[usize]) -> Tensor {
    let from = strides(x.shape());
    let shape: Vec<usize> = order.iter().map(|i| x.shape()[*i]).collect();
    gather(x, 0, &shape, &order.iter().map(|i| from[*i]).collect::<Vec<_>>())
}

/// Along each axis `count` elements from `start`, `step` apart, as (start, count, step).
pub fn slice(x: &Tensor, parts: &[(usize, usize, isize)]) -> Tensor {
    let from = strides(x.shape());
    let start = parts.iter().zip(&from).map(|((start, ..), stride)| *start as isize * stride).sum();
    let shape: Vec<usize> = parts.iter().map(|(_, count, _)| *count).collect();
    let steps: Vec<isize> = parts.iter().zip(&from).map(|((_, _, step), stride)| step * stride).collect();
    if shape.contains(&0) { Tensor::zeros(&shape) } else { gather(x, start, &shape, &steps) }
}

/// Folds along axes, in row-major order; they stay as dimensions of 1.
pub fn reduce(x: &Tensor, axes: &[usize], first: f32, f: impl Fn(f32, f32) -> f32) -> Tensor {
    let shape: Vec<usize> = x.shape().iter().enumerate().map(|(i, d)| if axes.contains(&i) { 1 } else { *d }).collect();
    let mut out = Tensor::zeros(&shape);
    out.data_mut().fill(first);
    for (to, v) in offsets(&shape, x.shape()).into_iter().zip(x.data()) {
        let cell = &mut out.data_mut()[to];
        *cell = f(*cell, *v);
    }
    out
}

/// Arrays behind one another along an axis.
pub fn concat(parts: &[&Tensor], axis: usize) -> Tensor {
    let Some(first) = parts.first() else { return Tensor::zeros(&[0]) };
    let mut shape = first.shape().to_vec();
    shape[axis] = parts.iter().map(|p| p.shape()[axis]).sum();
    let outer: usize = shape[..axis].iter().product();
    let mut data = Vec::with_capacity(shape.iter().product());
    for i in 0..outer {
        for part in parts {
            let size = part.data().len() / outer.max(1);
            data.extend_from_slice(&part.data()[i * size..(i + 1) * size]);
        }
    }
    Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
}

/// The array with `value` around it, (before, after) each axis.
pub fn pad(x: &Tensor, widths: &[(usize, usize)], value: f32) -> Tensor {
    let shape: Vec<usize> = x.shape().iter().zip(widths).map(|(d, (before, after))| before + d + after).collect();
    let mut out = Tensor::zeros(&shape);
    out.data_mut().fill(value);
    let to = strides(&shape);
    let mut at = vec![widths.iter().zip(&to).map(|((before, _), stride)| *before as isize * stride).sum::<isize>()];
    for (size, step) in x.shape().iter().zip(&to) {
        at = at.iter().flat_map(|base| (0..*size as isize).map(move |k| base + k * step)).collect();
    }
    for (at, v) in at.into_iter().zip(x.data()) {
        out.data_mut()[at as usize] = *v;
    }
    out
}

/// Shape of a product of matrices in the last two axes; the axes before them broadcast.
pub fn matmul_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let ([lead_a @ .., m, k], [lead_b @ .., l, n]) = (a, b) else {
        return Err(format!("matrices are expected, and the operands have shapes {a:?} and {b:?}"));
    };
    if k != l {
        return Err(format!("matrices of shapes {a:?} and {b:?} have no product"));
    }
    let lead = broadcast(&[lead_a, lead_b])?;
    Ok([lead.as_slice(), &[*m, *n]].concat())
}

/// Product of matrices; every sum in f32, in order.
pub fn matmul(a: &Tensor, b: &Tensor) -> Tensor {
    let Ok(shape) = matmul_shape(a.shape(), b.shape()) else { return Tensor::zeros(&[0]) };
    let rank = shape.len();
    let (m, n) = (shape[rank - 2], shape[rank - 1]);
    let k = a.shape()[a.shape().len() - 1];
    let lead = &shape[..rank - 2];
    let from = |t: &Tensor| offsets(&t.shape()[..t.shape().len() - 2], lead);
    let mut out = Tensor::zeros(&shape);
    let chunks = out.data_mut().chunks_exact_mut((m * n).max(1));
    for ((y, p), q) in chunks.zip(from(a)).zip(from(b)) {
        let (a, b) = (&a.data()[p * m * k..(p + 1) * m * k], &b.data()[q * k * n..(q + 1) * k * n]);
        for (row, y) in y.chunks_exact_mut(n.max(1)).enumerate() {
            for i in 0..k {
                let factor = a[row * k + i];
                y.iter_mut().zip(&b[i * n..]).for_each(|(y, b)| *y += factor * b);
            }
        }
    }
    out
}
