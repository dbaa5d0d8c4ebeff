//! Bicubic resizing, as TensorFlow computes it: rows first, then columns; all in f32.

use shiftwise_tensor::tensor::Tensor;

/// Steps of a pixel that weights are tabulated for.
const STEPS: i64 = 1 << 10;

/// Keys' parameter.
const A: f64 = -0.5;

/// Weights of the pixels at `offset` / 1024 and one more than that before a point.
fn near_and_far(offset: i64) -> [f32; 2] {
    // TensorFlow's table holds f32, from formulas in f64 of f32 points.
    let x = f64::from((offset as f64 / STEPS as f64) as f32);
    let near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let y = f64::from((x + 1.0) as f32);
    let far = ((A * y - 5.0 * A) * y + 8.0 * A) * y - 4.0 * A;
    [near as f32, far as f32]
}

/// The four pixels that an output is made of, with their weights: those outside have none, and the others' sum is 1.
pub(crate) fn taps(input: usize, output: usize) -> Vec<[(usize, f32); 4]> {
    let scale = input as f32 / output as f32;
    let one = |o: usize| {
        let at = (o as f32 + 0.5) * scale - 0.5;
        let low = at.floor() as i64;
        let offset = libm::rintf((at - low as f32) * STEPS as f32) as i64;
        let (before, after) = (near_and_far(offset), near_and_far(STEPS - offset));
        let weights = [before[1], before[0], after[0], after[1]];
        let mut taps = [(0, 0.0); 4];
        for ((k, tap), weight) in (-1..).zip(&mut taps).zip(weights) {
            let inside = (low + k).clamp(0, input as i64 - 1);
            *tap = (inside as usize, if inside == low + k { weight } else { 0.0 });
        }
        let sum = taps.iter().fold(0.0f32, |sum, (_, w)| sum + w);
        if sum.abs() >= 1000.0 * f32::MIN_POSITIVE {
            let factor = 1.0 / sum;
            taps.iter_mut().for_each(|(_, w)| *w *= factor);
        }
        taps
    };
    (0..output).map(one).collect()
}

/// The weights as a matrix `[output, input]`.
pub fn matrix(input: usize, output: usize) -> Tensor {
    let mut matrix = Tensor::zeros(&[output, input]);
    for (row, taps) in matrix.data_mut().chunks_exact_mut(input.max(1)).zip(taps(input, output)) {
        taps.iter().for_each(|(at, weight)| row[*at] += weight);
    }
    matrix
}

/// Images `[n, h, w, c]` brought to a size of `[height, width]`.
pub(super) fn resize(x: &Tensor, [oh, ow]: [usize; 2]) -> Tensor {
    let [n, h, w, c] = [0, 1, 2, 3].map(|i| x.shape()[i]);
    let (rows, columns) = (taps(h, oh), taps(w, ow));
    let mut data = Vec::with_capacity(n * oh * ow * c);
    let mut row = vec![0.0f32; w * c];
    for image in x.data().chunks_exact((h * w * c).max(1)) {
        for taps in &rows {
            row.fill(0.0);
            for (y, weight) in taps {
                row.iter_mut().zip(&image[y * w * c..]).for_each(|(sum, v)| *sum += v * weight);
            }
            for taps in &columns {
                let sum = |i: usize| taps.iter().fold(0.0f32, |sum, (x, weight)| sum + row[x * c + i] * weight);
                data.extend((0..c).map(sum));
            }
        }
    }
    Tensor::new(vec![n, oh, ow, c], data).unwrap_or_else(|| Tensor::zeros(&[0]))
}
