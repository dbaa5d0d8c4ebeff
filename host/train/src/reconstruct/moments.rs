//! What a linear layer's inputs and outputs have in common: sums of products over pixels.
//!
//! A layer is a set of [groups](Groups): a dense layer or a plain convolution is one, a depthwise convolution one for each
//! channel. Of each group, [`Moments`] keep the sums that decide every kernel's squared error, so that kernels are
//! compared without running anything.

use rayon::prelude::*;

use super::sums::add_rows;
use shiftwise_core::shape::Window;
use shiftwise_graph::ops::Op;
use shiftwise_tensor::tensor::Tensor;

/// How a layer's kernel falls into independent parts.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// How many there are.
    pub(super) count: usize,
    /// Weights of a group that one output channel has: taps times input channels.
    pub(super) inputs: usize,
    /// Output channels of a group.
    pub(super) outputs: usize,
    /// Input channels of a group.
    channels: usize,
    window: Option<Window>,
    depthwise: bool,
}

impl Groups {
    /// Those of a layer whose input has the shape `[h, w, c]`, or any for a dense layer; `None` for a layer of another kind.
    pub(super) fn of(op: &Op, input: &[usize]) -> Option<Self> {
        let shape = op.weighted()?.kernel.shape();
        match (op, shape) {
            (Op::Dense(_), [inputs, outputs]) => Some(Self {
                count: 1,
                inputs: *inputs,
                outputs: *outputs,
                channels: *inputs,
                window: None,
                depthwise: false,
            }),
            (Op::Conv2D(conv), [h, w, c, filters]) => Some(Self {
                count: conv.groups,
                inputs: h * w * c,
                outputs: filters / conv.groups.max(1),
                channels: *c,
                window: Some(conv.window(input).ok()?),
                depthwise: false,
            }),
            (Op::DepthwiseConv2D(conv), [h, w, c, multiplier]) => Some(Self {
                count: *c,
                inputs: h * w,
                outputs: *multiplier,
                channels: 1,
                window: Some(conv.window(input).ok()?),
                depthwise: true,
            }),
            _ => None,
        }
    }

    /// Where weight (`k`, `c`) of group `g` stands in the kernel.
    fn place(&self, g: usize, k: usize, c: usize) -> usize {
        match self.depthwise {
            true => (k * self.count + g) * self.outputs + c,
            false => k * (self.count * self.outputs) + g * self.outputs + c,
        }
    }

    /// A group's weights as a matrix `[inputs, outputs]`.
    pub(super) fn take(&self, kernel: &[f32], g: usize) -> Vec<f64> {
        let all = (0..self.inputs * self.outputs).map(|i| self.place(g, i / self.outputs, i % self.outputs));
        all.map(|at| f64::from(kernel[at])).collect()
    }

    /// Puts a group's weights back.
    pub(super) fn put(&self, kernel: &mut [f32], g: usize, own: &[f64]) {
        for (i, v) in own.iter().enumerate() {
            kernel[self.place(g, i / self.outputs, i % self.outputs)] = *v as f32;
        }
    }

    /// The inputs of group `g` that decide output pixel `pixel` of one sample, in the kernel's order. `x` is `[1, h, w, c]`, or
    /// `[1, …, c]` for a dense layer.
    fn patch(&self, x: &Tensor, pixel: usize, g: usize, to: &mut [f64]) {
        let shape = x.shape();
        let all = shape.last().copied().unwrap_or(0);
        let from = g * self.channels;
        let Some(window) = &self.window else {
            to.iter_mut().zip(&x.data()[pixel * all..]).for_each(|(to, v)| *to = f64::from(*v));
            return;
        };
        let (height, width) = (shape[1], shape[2]);
        let columns = window.outputs(1, width as u32) as usize;
        let [row, column] = [pixel / columns.max(1), pixel % columns.max(1)];
        let at = |axis: usize, out: usize, tap: usize| {
            let place = out * usize::from(window.stride[axis]) + tap * usize::from(window.dilation[axis]);
            place.checked_sub(usize::from(window.pad_before[axis]))
        };
        let [taps_y, taps_x] = window.kernel.map(usize::from);
        for (tap, to) in to.chunks_exact_mut(self.channels).enumerate() {
            let y = at(0, row, tap / taps_x).filter(|y| *y < height && tap / taps_x < taps_y);
            let x_at = at(1, column, tap % taps_x).filter(|x| *x < width);
            match (y, x_at) {
                (Some(y), Some(column)) => {
                    let start = (y * width + column) * all + from;
                    to.iter_mut().zip(&x.data()[start..]).for_each(|(to, v)| *to = f64::from(*v));
                }
                _ => to.fill(0.0),
            }
        }
    }
}

/// Sums over pixels, of one group.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    /// Pixels.
    pub(super) count: f64,
    /// Σ x `[inputs]`.
    x: Vec<f64>,
    /// Σ y `[outputs]`.
    y: Vec<f64>,
    /// Σ x·xᵀ `[inputs, inputs]`.
    xx: Vec<f64>,
    /// Σ x·yᵀ `[inputs, outputs]`.
    xy: Vec<f64>,
    /// Σ y² `[outputs]`.
    yy: Vec<f64>,
}

/// Rows of sums that one task works on.
const ROWS: usize = 16;

impl Moments {
    /// Sums over these pixels, each as (sample, pixel): inputs from `x`, one tensor for each sample, and outputs from `y`.
    pub(super) fn of(groups: &Groups, g: usize, x: &[Tensor], y: &[Tensor], pixels: &[(usize, usize)]) -> Self {
        let (k, c) = (groups.inputs, groups.outputs);
        let mut patches = vec![0.0f64; pixels.len() * k];
        let mut results = vec![0.0f64; pixels.len() * c];
        let all = groups.count * c;
        for (((sample, pixel), patch), result) in
            pixels.iter().zip(patches.chunks_exact_mut(k)).zip(results.chunks_exact_mut(c))
        {
            groups.patch(&x[*sample], *pixel, g, patch);
            let start = pixel * all + g * c;
            result.iter_mut().zip(&y[*sample].data()[start..]).for_each(|(to, v)| *to = f64::from(*v));
        }
        let products = |width: usize, with: &[f64], half: bool| {
            let mut sums = vec![0.0f64; k * width];
            let block = |(i, sums): (usize, &mut [f64])| {
                let from = i * ROWS;
                let skip = if half { from } else { 0 };
                add_products(sums, (width, skip), &patches, (k, from), with);
            };
            match sums.len() > 1 << 12 {
                true => sums.par_chunks_mut(ROWS * width).enumerate().for_each(block),
                false => sums.chunks_mut(ROWS * width).enumerate().for_each(block),
            }
            sums
        };
        let sum = |width: usize, of: &[f64], power: i32| {
            let mut sums = vec![0.0f64; width];
            for row in of.chunks_exact(width) {
                sums.iter_mut().zip(row).for_each(|(s, v)| *s += v.powi(power));
            }
            sums
        };
        // What stands left of a block's first row is the mirror of what stands above it.
        let mut xx = products(k, &patches, true);
        for i in 0..k {
            for j in 0..i - i % ROWS {
                xx[i * k + j] = xx[j * k + i];
            }
        }
        Self {
            count: pixels.len() as f64,
            x: sum(k, &patches, 1),
            y: sum(c, &results, 1),
            xx,
            xy: products(c, &results, false),
            yy: sum(c, &results, 2),
        }
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let add = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect();
        Self {
            count: self.count + other.count,
            x: add(&self.x, &other.x),
            y: add(&self.y, &other.y),
            xx: add(&self.xx, &other.xx),
            xy: add(&self.xy, &other.xy),
            yy: add(&self.yy, &other.yy),
        }
    }

    /// The covariance of inputs `[inputs, inputs]` and that of inputs and outputs `[inputs, outputs]`; the plain second moments
    /// for a layer that has no bias to take the means up.
    pub(super) fn centred(&self, bias: bool) -> (Vec<f64>, Vec<f64>) {
        let n = self.count.max(1.0);
        let less = |sums: &[f64], columns: &[f64]| {
            let width = columns.len();
            let one = |(i, v): (usize, &f64)| match bias {
                true => v / n - self.x[i / width] / n * (columns[i % width] / n),
                false => v / n,
            };
            sums.iter().enumerate().map(one).collect::<Vec<f64>>()
        };
        (less(&self.xx, &self.x), less(&self.xy, &self.y))
    }

    /// The bias with which a kernel `[inputs, outputs]` has the outputs' means.
    pub(super) fn bias(&self, kernel: &[f64]) -> Vec<f64> {
        let (n, width) = (self.count.max(1.0), self.y.len());
        let mut bias: Vec<f64> = self.y.iter().map(|y| y / n).collect();
        for (row, x) in kernel.chunks_exact(width).zip(&self.x) {
            bias.iter_mut().zip(row).for_each(|(b, w)| *b -= w * x / n);
        }
        bias
    }

    /// The mean squared error of each output of a kernel with a bias.
    pub(super) fn errors(&self, kernel: &[f64], bias: &[f64]) -> Vec<f64> {
        let (n, k, c) = (self.count.max(1.0), self.x.len(), self.y.len());
        // Σ (wᵀx + b − y)² = wᵀ(XX·w − 2·xy) + 2b·(wᵀx) − 2b·Σy + n·b² + Σy².
        let mut errors: Vec<f64> =
            (0..c).map(|c| self.yy[c] - 2.0 * bias[c] * self.y[c] + self.count * bias[c] * bias[c]).collect();
        let rows: Vec<Vec<f64>> = (0..k)
            .into_par_iter()
            .with_min_len(16)
            .map(|i| {
                let mut row = vec![0.0f64; c];
                add_rows(&mut row, kernel, c, &self.xx[i * k..(i + 1) * k]);
                let own = kernel[i * c..(i + 1) * c].iter().zip(&self.xy[i * c..(i + 1) * c]).zip(bias);
                let terms = row.iter().zip(own).map(|(xxw, ((w, xy), b))| w * (xxw - 2.0 * xy + 2.0 * b * self.x[i]));
                terms.collect()
            })
            .collect();
        for row in rows {
            errors.iter_mut().zip(row).for_each(|(e, v)| *e += v);
        }
        errors.iter().map(|e| (e / n).max(0.0)).collect()
    }
}

/// Pixels whose rows stay near while all rows of sums use them.
const NEAR: usize = 32;

/// Adds products to rows `from..` of Σ x·withᵀ from column `skip`, pixel by pixel; `sums` is `[rows, width]`, `x` `[pixels, k]`.
fn add_products(sums: &mut [f64], (width, skip): (usize, usize), x: &[f64], (k, from): (usize, usize), with: &[f64]) {
    let mut factors = [0.0; NEAR];
    for (x, with) in x.chunks(NEAR * k).zip(with.chunks(NEAR * width)) {
        for (row, sums) in sums.chunks_exact_mut(width).enumerate() {
            let pixels = x.chunks_exact(k);
            let count = pixels.len();
            factors.iter_mut().zip(pixels).for_each(|(f, x)| *f = x[from + row]);
            add_rows(&mut sums[skip..], &with[skip..], width, &factors[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftwise_graph::ops::{ActivationFn, Conv2D, DepthwiseConv2D, Layer, Padding, Weighted};

    fn noise(shape: &[usize], salt: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let data = (0..count).map(|i| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1000.0 - 1.0).collect();
        Tensor::new(shape.to_vec(), data).unwrap()
    }

    /// The layer's own evaluation says what the squared errors are.
    fn check(op: &Op, kernel: &Tensor) {
        let x: Vec<Tensor> = (0..2).map(|k| noise(&[1, 7, 6, 4], k)).collect();
        let outputs = op.layer().output_shape(&[&[7, 6, 4]]).unwrap();
        let y: Vec<Tensor> = (0..2).map(|k| noise(&[&[1], outputs.as_slice()].concat(), k + 10)).collect();
        let count = outputs[0] * outputs[1];
        let pixels: Vec<(usize, usize)> = (0..2 * count).map(|i| (i / count, i % count)).collect();
        let groups = Groups::of(op, &[7, 6, 4]).unwrap();
        let bias = noise(&[outputs[2]], 3);
        let own: Vec<Tensor> = x.iter().map(|x| op.layer().eval(&[x], &[kernel, &bias])).collect();
        for g in 0..groups.count {
            let moments = Moments::of(&groups, g, &x, &y, &pixels);
            let b: Vec<f64> = (0..groups.outputs).map(|c| f64::from(bias.data()[g * groups.outputs + c])).collect();
            let errors = moments.errors(&groups.take(kernel.data(), g), &b);
            for (c, error) in errors.iter().enumerate() {
                let at = |t: &Tensor, p: usize| f64::from(t.data()[p * outputs[2] + g * groups.outputs + c]);
                let square = |(s, p): &(usize, usize)| (at(&own[*s], *p) - at(&y[*s], *p)).powi(2);
                let want = pixels.iter().map(square).sum::<f64>() / pixels.len() as f64;
                assert!((error - want).abs() < 1e-4 * want.max(1.0), "{error} {want}");
            }
        }
    }

    #[test]
    fn the_sums_know_the_squared_error_of_any_kernel() {
        let w = |kernel: &Tensor| Weighted { kernel: kernel.clone(), bias: None, activation: ActivationFn::Linear };
        for (padding, strides, dilation) in
            [(Padding::Same, [1, 1], [1, 1]), (Padding::Valid, [2, 1], [1, 1]), (Padding::Same, [1, 1], [2, 2])]
        {
            for groups in [1, 2] {
                let kernel = noise(&[3, 2, 4 / groups, 6], 1);
                let conv = Conv2D { w: w(&kernel), strides, dilation, padding, groups };
                check(&Op::Conv2D(conv), &kernel);
            }
            let kernel = noise(&[3, 3, 4, 2], 2);
            let conv = DepthwiseConv2D { w: w(&kernel), strides, dilation, padding };
            assert!(conv.check().is_ok());
            check(&Op::DepthwiseConv2D(conv), &kernel);
        }
    }
}
