//! Layers that merge several tensors.

use crate::ops::{Layer, finite};
use shiftwise_core::model::Combine;
use shiftwise_tensor::broadcast::{broadcast, zip_broadcast};
use shiftwise_tensor::tensor::Tensor;

fn merged_shape(inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    if inputs.len() < 2 {
        return Err(format!("it has {} inputs, at least two are expected", inputs.len()));
    }
    broadcast(inputs)
}

fn fold(inputs: &[&Tensor], f: impl Fn(f32, f32) -> f32) -> Tensor {
    let first = inputs[0].clone();
    inputs[1..].iter().fold(first, |sum, other| zip_broadcast(&sum, other, &f))
}

/// Element-wise sum, from left to right; samples broadcast.
#[derive(Clone, Debug)]
pub struct Add;

impl Layer for Add {
    fn class(&self) -> &str {
        "Add"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        merged_shape(inputs)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        fold(inputs, |a, b| a + b)
    }
}

/// Element-wise product, from left to right; samples broadcast.
#[derive(Clone, Debug)]
pub struct Multiply;

impl Layer for Multiply {
    fn class(&self) -> &str {
        "Multiply"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        merged_shape(inputs)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        fold(inputs, |a, b| a * b)
    }
}

/// Merging layers that the vendor's tool leaves float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// First minus second.
    Subtract,
    /// Largest.
    Maximum,
    /// Smallest.
    Minimum,
    /// Sum divided by the number of inputs.
    Average,
}

impl Merge {
    /// The layer of a class.
    pub fn of_class(class: &str) -> Option<Self> {
        [Self::Subtract, Self::Maximum, Self::Minimum, Self::Average].into_iter().find(|m| m.class() == class)
    }

    /// What it does to two elements; an average is divided by the number of inputs afterwards.
    pub fn combine(self) -> Combine {
        match self {
            Self::Subtract => Combine::Subtract,
            Self::Maximum => Combine::Maximum,
            Self::Minimum => Combine::Minimum,
            Self::Average => Combine::Add,
        }
    }
}

impl Layer for Merge {
    fn class(&self) -> &str {
        match self {
            Self::Subtract => "Subtract",
            Self::Maximum => "Maximum",
            Self::Minimum => "Minimum",
            Self::Average => "Average",
        }
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        if *self == Self::Subtract && inputs.len() != 2 {
            return Err(format!("it has {} inputs, two are expected", inputs.len()));
        }
        merged_shape(inputs)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let combine = self.combine();
        let mut all = fold(inputs, |a, b| combine.apply(a, b));
        if *self == Self::Average {
            all.data_mut().iter_mut().for_each(|x| *x /= inputs.len() as f32);
        }
        all
    }
}

/// The first input plus the second times a constant: the layer of InceptionResNetV2 in `keras.applications`.
#[derive(Clone, Debug)]
pub struct ScaledAdd {
    /// Factor of the second input.
    pub scale: f32,
}

impl Layer for ScaledAdd {
    fn class(&self) -> &str {
        "CustomScaleLayer"
    }
    fn check(&self) -> Result<(), String> {
        finite("scale", self.scale)
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match inputs {
            [a, b] if a == b => Ok(a.to_vec()),
            other => Err(format!("its inputs have shapes {other:?}, two of one shape are expected")),
        }
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let mut out = inputs[0].clone();
        out.data_mut().iter_mut().zip(inputs[1].data()).for_each(|(x, y)| *x += y * self.scale);
        out
    }
}

/// Sums of products along one axis of each of two tensors; the remaining axes of the first come first.
#[derive(Clone, Debug)]
pub struct Dot {
    /// Axes of the samples, from 0.
    pub axes: [usize; 2],
}

impl Dot {
    /// Products in front of, and behind, the summed axis: [outer, summed, inner] of each sample.
    pub fn blocks(shape: &[usize], axis: usize) -> [usize; 3] {
        [shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product()]
    }
}

impl Layer for Dot {
    fn class(&self) -> &str {
        "Dot"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [a, b] = inputs else { return Err(format!("it has {} inputs, two are expected", inputs.len())) };
        let size = a.get(self.axes[0]).zip(b.get(self.axes[1]));
        if size.is_none_or(|(m, n)| m != n) {
            return Err(format!("samples of shapes {a:?} and {b:?} have no product along axes {:?}", self.axes));
        }
        let rest = |shape: &[usize], axis: usize| [&shape[..axis], &shape[axis + 1..]].concat();
        let all = [rest(a, self.axes[0]), rest(b, self.axes[1])].concat();
        Ok(if all.is_empty() { vec![1] } else { all })
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let (a, b) = (inputs[0], inputs[1]);
        let sample = self.output_shape(&[&a.shape()[1..], &b.shape()[1..]]).unwrap_or_default();
        let [a0, depth, a1] = Self::blocks(&a.shape()[1..], self.axes[0]);
        let [b0, _, b1] = Self::blocks(&b.shape()[1..], self.axes[1]);
        let mut data = Vec::with_capacity(a.shape()[0] * sample.iter().product::<usize>());
        for (x, y) in
            a.data().chunks_exact((a0 * depth * a1).max(1)).zip(b.data().chunks_exact((b0 * depth * b1).max(1)))
        {
            let rows = (0..a0).flat_map(|i| (0..a1).map(move |j| i * depth * a1 + j));
            for from in rows {
                for other in (0..b0).flat_map(|k| (0..b1).map(move |l| k * depth * b1 + l)) {
                    data.push((0..depth).fold(0.0f32, |sum, m| sum + x[from + m * a1] * y[other + m * b1]));
                }
            }
        }
        Tensor::new([&a.shape()[..1], sample.as_slice()].concat(), data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

/// Tensors side by side along one axis.
#[derive(Clone, Debug)]
pub struct Concatenate {
    /// Axis of the sample shape, from 0.
    pub axis: usize,
}

impl Layer for Concatenate {
    fn class(&self) -> &str {
        "Concatenate"
    }
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [first, rest @ ..] = inputs else { return Err("it has no inputs".into()) };
        let mut shape = first.to_vec();
        if self.axis >= shape.len() {
            return Err(format!("it joins axis {} of tensors with {} dimensions", self.axis, shape.len()));
        }
        for other in rest {
            let alike = other.len() == shape.len()
                && other.iter().zip(&shape).enumerate().all(|(i, (a, b))| i == self.axis || a == b);
            if !alike {
                return Err(format!("its inputs have shapes {inputs:?}, which differ in more than axis {}", self.axis));
            }
            shape[self.axis] += other[self.axis];
        }
        Ok(shape)
    }
    fn eval(&self, inputs: &[&Tensor], _: &[&Tensor]) -> Tensor {
        let shapes: Vec<&[usize]> = inputs.iter().map(|t| &t.shape()[1..]).collect();
        let sample = self.output_shape(&shapes).unwrap_or_default();
        let shape = [&inputs[0].shape()[..1], sample.as_slice()].concat();
        // Everything before the axis counts rows; a row holds each input's stretch after another.
        let rows: usize = shape[..=self.axis].iter().product();
        let stretch = |s: &[usize]| s[self.axis..].iter().product::<usize>();
        let mut data = Vec::with_capacity(shape.iter().product());
        for row in 0..rows {
            for (t, s) in inputs.iter().zip(&shapes) {
                let len = stretch(s);
                data.extend_from_slice(&t.data()[row * len..(row + 1) * len]);
            }
        }
        Tensor::new(shape, data).unwrap_or_else(|| Tensor::zeros(&[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_broadcast_as_numpy_does() {
        let a = Tensor::new(vec![1, 2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let b = Tensor::new(vec![1, 1, 3, 1], vec![10.0, 20.0, 30.0]).unwrap();
        let sum = zip_broadcast(&a, &b, |a, b| a + b);
        assert_eq!(sum.shape(), [1, 2, 3, 2]);
        assert_eq!(sum.data(), [11.0, 12.0, 21.0, 22.0, 31.0, 32.0, 13.0, 14.0, 23.0, 24.0, 33.0, 34.0]);
        assert!(broadcast(&[&[2, 3], &[2]]).is_err());
    }

    #[test]
    fn concatenation_keeps_rows_apart() {
        let a = Tensor::new(vec![2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
        let b = Tensor::new(vec![2, 1, 1], vec![5.0, 6.0]).unwrap();
        let out = Concatenate { axis: 1 }.eval(&[&a, &b], &[]);
        assert_eq!((out.shape(), out.data()), (&[2, 1, 3][..], &[1.0, 2.0, 5.0, 3.0, 4.0, 6.0][..]));
    }
}
