//! Loops over tensors by channel, their fastest axis: sums, moments and maps that are linear in each channel.
//!
//! All work on all cores, and give the same bits for any number of them: a tensor is cut into blocks of rows, whose size the
//! number of channels alone decides; a block is summed in f64, and the blocks' sums are joined in order. The loops are
//! compiled for several generations of CPUs, which compute the same bits: no operation is fused or reordered.

use multiversion::multiversion;
use rayon::prelude::*;

use shiftwise_tensor::tensor::Tensor;

/// Values of a block, at least.
const BLOCK: usize = 1 << 13;
/// Rows of a block, at least: the sums of a block are to be few beside its values.
const ROWS: usize = 64;
/// Values that a loop without branches goes over, at least: several rows of few channels are as one.
const WIDTH: usize = 128;

/// Mean and biased variance of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Means.
    pub mean: Vec<f64>,
    /// Variances.
    pub variance: Vec<f64>,
    /// Values that each of them is of.
    pub count: usize,
}

/// Rows that are as one to the loops, and rows of a block, a multiple of them.
fn rows(channels: usize) -> (usize, usize) {
    let together = (WIDTH / channels).max(1);
    (together, (BLOCK / channels).max(ROWS).next_multiple_of(together))
}

/// The values of each channel, for all rows that are as one.
fn repeated<T: Copy>(values: &[T], channels: usize) -> Vec<T> {
    values.repeat(rows(channels).0)
}

/// The sums of each channel, from those of rows that are as one.
fn folded(mut sums: Vec<f64>, channels: usize) -> Vec<f64> {
    let (own, others) = sums.split_at_mut(channels);
    others.chunks_exact(channels).for_each(|more| own.iter_mut().zip(more).for_each(|(sum, v)| *sum += v));
    sums.truncate(channels);
    sums
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn add(x: &[f32], sums: &mut [f64]) {
    for row in x.chunks(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn add_squares(x: &[f32], center: &[f64], sums: &mut [f64]) {
    for row in x.chunks(sums.len()) {
        for ((sum, x), center) in sums.iter_mut().zip(row).zip(center) {
            let x = f64::from(*x) - center;
            *sum += x * x;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn add_products(x: &[f32], dy: &[f32], center: &[f64], products: &mut [f64], sums: &mut [f64]) {
    let width = sums.len();
    for (row, dy) in x.chunks(width).zip(dy.chunks(width)) {
        for ((((product, sum), x), d), center) in products.iter_mut().zip(sums.iter_mut()).zip(row).zip(dy).zip(center)
        {
            let d = f64::from(*d);
            *product += d * (f64::from(*x) - center);
            *sum += d;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn map(x: &[f32], factors: &[f32], offsets: &[f32], to: &mut [f32]) {
    let width = factors.len();
    for (x, to) in x.chunks(width).zip(to.chunks_mut(width)) {
        for (((to, x), factor), offset) in to.iter_mut().zip(x).zip(factors).zip(offsets) {
            *to = x * factor + offset;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn map_in_place(x: &mut [f32], factors: &[f32], offsets: &[f32]) {
    for x in x.chunks_mut(factors.len()) {
        x.iter_mut().zip(factors).zip(offsets).for_each(|((x, factor), offset)| *x = *x * factor + offset);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn map_gradient(x: &[f32], dy: &mut [f32], [scale, offset, center, slope]: [&[f64]; 4]) {
    let width = scale.len();
    for (x, dy) in x.chunks(width).zip(dy.chunks_mut(width)) {
        let channels = scale.iter().zip(offset).zip(center).zip(slope);
        for ((d, x), (((scale, offset), center), slope)) in dy.iter_mut().zip(x).zip(channels) {
            *d = (scale * (f64::from(*d) - offset - (f64::from(*x) - center) * slope)) as f32;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx2", "x86_64+avx2"))]
fn map_line(x: &[f32], to: &mut [f32], [center, slope, offset]: [&[f64]; 3]) {
    let width = center.len();
    for (x, to) in x.chunks(width).zip(to.chunks_mut(width)) {
        for ((to, x), ((center, slope), offset)) in to.iter_mut().zip(x).zip(center.iter().zip(slope).zip(offset)) {
            *to = ((f64::from(*x) - center) * slope + offset) as f32;
        }
    }
}

/// Σ x of each channel.
pub fn sums(x: &[f32], channels: usize) -> Vec<f64> {
    let channels = channels.max(1);
    let (together, rows) = rows(channels);
    let of_block = |x: &[f32]| {
        let mut sums = vec![0.0; together * channels];
        add(x, &mut sums);
        folded(sums, channels)
    };
    let blocks: Vec<Vec<f64>> = x.par_chunks(rows * channels).map(of_block).collect();
    joined(blocks, channels)
}

/// The sum of what blocks have found, in order.
fn joined(blocks: Vec<Vec<f64>>, len: usize) -> Vec<f64> {
    let mut sums = vec![0.0; len];
    blocks.iter().for_each(|block| sums.iter_mut().zip(block).for_each(|(sum, v)| *sum += v));
    sums
}

/// Mean and biased variance of each channel. The moments of blocks are joined by Chan's formula, in order.
pub fn moments(x: &[f32], channels: usize) -> Moments {
    let channels = channels.max(1);
    let (together, rows) = rows(channels);
    let of_block = |x: &[f32]| {
        let count = x.len() / channels;
        let mut sums = vec![0.0; together * channels];
        add(x, &mut sums);
        let mut mean = folded(sums, channels);
        mean.iter_mut().for_each(|sum| *sum /= count.max(1) as f64);
        let mut squares = vec![0.0; together * channels];
        add_squares(x, &repeated(&mean, channels), &mut squares);
        (mean, folded(squares, channels), count)
    };
    let blocks: Vec<_> = x.par_chunks(rows * channels).map(of_block).collect();
    let (mut mean, mut squares, mut count) = (vec![0.0f64; channels], vec![0.0f64; channels], 0usize);
    for (own_mean, own_squares, own) in blocks {
        let all = (count + own).max(1) as f64;
        let (share, weight) = (own as f64 / all, count as f64 * own as f64 / all);
        for (((mean, square), own_mean), own_square) in mean.iter_mut().zip(&mut squares).zip(own_mean).zip(own_squares)
        {
            let apart = own_mean - *mean;
            *mean += apart * share;
            *square += own_square + apart * apart * weight;
        }
        count += own;
    }
    squares.iter_mut().for_each(|square| *square /= count.max(1) as f64);
    Moments { mean, variance: squares, count }
}

/// Σ dy · (x − center) and Σ dy of each channel.
pub fn products(x: &[f32], dy: &[f32], center: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let channels = center.len().max(1);
    let (together, rows) = rows(channels);
    let center = repeated(center, channels);
    let of_block = |(x, dy): (&[f32], &[f32])| {
        let (mut products, mut sums) = (vec![0.0; together * channels], vec![0.0; together * channels]);
        add_products(x, dy, &center, &mut products, &mut sums);
        let mut both = folded(products, channels);
        both.extend(folded(sums, channels));
        both
    };
    let blocks: Vec<Vec<f64>> =
        x.par_chunks(rows * channels).zip(dy.par_chunks(rows * channels)).map(of_block).collect();
    let mut products = joined(blocks, 2 * channels);
    let sums = products.split_off(channels);
    (products, sums)
}

/// x · factor + offset of its channel, each rounded to f32.
pub fn mapped(x: &Tensor, factors: &[f32], offsets: &[f32]) -> Tensor {
    let mut y = Tensor::scratch(x.shape());
    let channels = factors.len().max(1);
    let block = rows(channels).1 * channels;
    let (factors, offsets) = (repeated(factors, channels), repeated(offsets, channels));
    let blocks = y.data_mut().par_chunks_mut(block).zip(x.data().par_chunks(block));
    blocks.for_each(|(y, x)| map(x, &factors, &offsets, y));
    y
}

/// [`mapped`], in place.
pub fn map_all(x: &mut Tensor, factors: &[f32], offsets: &[f32]) {
    let channels = factors.len().max(1);
    let (factors, offsets) = (repeated(factors, channels), repeated(offsets, channels));
    let blocks = x.data_mut().par_chunks_mut(rows(channels).1 * channels);
    blocks.for_each(|x| map_in_place(x, &factors, &offsets));
}

/// (x − center) · slope + offset of its channel, in f64.
pub fn line(x: &Tensor, line: [&[f64]; 3]) -> Tensor {
    let channels = line[0].len().max(1);
    let block = rows(channels).1 * channels;
    let [center, slope, offset] = line.map(|values| repeated(values, channels));
    let mut y = Tensor::scratch(x.shape());
    let blocks = y.data_mut().par_chunks_mut(block).zip(x.data().par_chunks(block));
    blocks.for_each(|(y, x)| map_line(x, y, [&center, &slope, &offset]));
    y
}

/// a + b, in the memory of a if nobody else has it.
#[must_use]
pub fn added(mut a: Tensor, b: Tensor) -> Tensor {
    let blocks = a.data_mut().par_chunks_mut(BLOCK).zip(b.data().par_chunks(BLOCK));
    blocks.for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += b));
    b.recycle();
    a
}

/// What is the same for a channel in [`gradient`].
#[derive(Clone, Debug)]
pub struct Line {
    /// The factor of all.
    pub scale: Vec<f64>,
    /// Taken from dy.
    pub offset: Vec<f64>,
    /// Taken from x.
    pub center: Vec<f64>,
    /// The factor of x.
    pub slope: Vec<f64>,
}

/// Replaces dy by scale · (dy − offset − (x − center) · slope), with the numbers of its channel, in f64.
pub fn gradient(x: &Tensor, dy: &mut Tensor, line: &Line) {
    let channels = line.scale.len().max(1);
    let block = rows(channels).1 * channels;
    let [scale, offset, center, slope] =
        [&line.scale, &line.offset, &line.center, &line.slope].map(|values| repeated(values, channels));
    let blocks = dy.data_mut().par_chunks_mut(block).zip(x.data().par_chunks(block));
    blocks.for_each(|(dy, x)| map_gradient(x, dy, [&scale, &offset, &center, &slope]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of many magnitudes, far from zero.
    fn values(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.25
        };
        (0..len).map(|i| next() * (1 + i % 7) as f32 + 3.0).collect()
    }

    /// One channel after the other, in the order of its values.
    fn channel(x: &[f32], channels: usize, c: usize) -> Vec<f64> {
        x.iter().skip(c).step_by(channels).map(|v| f64::from(*v)).collect()
    }

    #[test]
    fn sums_of_blocks_are_sums_of_channels() {
        for (channels, count) in [(1, 1), (1, 20_000), (3, 7000), (16, 2049), (130, 200), (1280, 65), (7, 0)] {
            let (x, dy) = (values(channels * count, 1), values(channels * count, 2));
            let near =
                |a: f64, b: f64| assert!((a - b).abs() <= 1e-11 * (1.0 + b.abs()), "{a} {b}, {channels} × {count}");
            let (own, center) = (moments(&x, channels), vec![2.5; channels]);
            let ((products, of_dy), plain) = (products(&x, &dy, &center), sums(&x, channels));
            assert_eq!(own.count, count);
            for c in 0..channels {
                let (x, dy) = (channel(&x, channels, c), channel(&dy, channels, c));
                let mean = x.iter().sum::<f64>() / count.max(1) as f64;
                near(plain[c], x.iter().sum());
                near(own.mean[c], mean);
                near(own.variance[c], x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count.max(1) as f64);
                near(of_dy[c], dy.iter().sum());
                near(products[c], x.iter().zip(&dy).map(|(x, d)| d * (x - 2.5)).sum());
            }
        }
    }

    #[test]
    fn maps_take_the_numbers_of_their_channel() {
        for (channels, count) in [(1, 300), (3, 7000), (130, 100)] {
            let x = Tensor::new(vec![count, channels], values(channels * count, 3)).unwrap();
            let of = |f: fn(usize) -> f64| (0..channels).map(f).collect::<Vec<f64>>();
            let line = Line {
                scale: of(|c| 1.0 + c as f64),
                offset: of(|c| 0.5 * c as f64),
                center: of(|c| 3.0 - c as f64),
                slope: of(|c| 0.25 + c as f64),
            };
            let narrow = |values: &[f64]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
            let (factors, offsets) = (narrow(&line.scale), narrow(&line.offset));
            let y = mapped(&x, &factors, &offsets);
            let (mut own, mut dy) = (x.clone(), y.clone());
            map_all(&mut own, &factors, &offsets);
            gradient(&x, &mut dy, &line);
            let straight = super::line(&x, [&line.center, &line.slope, &line.offset]);
            assert_eq!(own, y);
            for (i, x) in x.data().iter().enumerate() {
                let c = i % channels;
                assert_eq!(y.data()[i], x * factors[c] + offsets[c]);
                let (x, d) = (f64::from(*x), f64::from(y.data()[i]));
                let want = line.scale[c] * (d - line.offset[c] - (x - line.center[c]) * line.slope[c]);
                assert_eq!(dy.data()[i], want as f32);
                assert_eq!(straight.data()[i], ((x - line.center[c]) * line.slope[c] + line.offset[c]) as f32);
            }
        }
    }
}
