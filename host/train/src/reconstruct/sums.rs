//! Sums of products in f64, the inner loops of everything here.
//!
//! Nothing is fused, and the order of every sum depends on sizes alone: the bytes are the same on every processor and for any
//! number of threads.

use multiversion::multiversion;

/// Products that are summed side by side.
const LANES: usize = 8;

/// Columns whose sums stay in registers, where there are so many.
pub(super) const COLUMNS: usize = 48;

/// The same of what is left.
const FEW: usize = 16;

/// Rows of which products with another are summed at once.
pub(super) const TOGETHER: usize = 4;

/// Σ a·b of several rows `a` with one `b`, over its length: each in [`LANES`] sums that are added in order at the end.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub(super) fn dots(a: [&[f64]; TOGETHER], b: &[f64]) -> [f64; TOGETHER] {
    let mut lanes = [[0.0f64; LANES]; TOGETHER];
    let (parts, rest) = b.as_chunks::<LANES>();
    let rows = a.map(|row| row[..b.len()].as_chunks::<LANES>());
    for (k, b) in parts.iter().enumerate() {
        for (lanes, (row, _)) in lanes.iter_mut().zip(&rows) {
            let row = &row[k];
            for lane in 0..LANES {
                lanes[lane] += row[lane] * b[lane];
            }
        }
    }
    let mut sums = [0.0; TOGETHER];
    for ((sum, lanes), (_, own)) in sums.iter_mut().zip(&lanes).zip(&rows) {
        *sum = lanes.iter().sum::<f64>() + own.iter().zip(rest).map(|(x, y)| x * y).sum::<f64>();
    }
    sums
}

/// `to += Σ_j factors[j] · rows[j]`, in order; `rows` begin `stride` apart.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub(super) fn add_rows(to: &mut [f64], rows: &[f64], stride: usize, factors: &[f64]) {
    let from = add_parts::<COLUMNS>(to, 0, rows, stride, factors);
    let from = add_parts::<FEW>(to, from, rows, stride, factors);
    for (row, factor) in rows.chunks(stride).zip(factors) {
        to[from..].iter_mut().zip(&row[from..]).for_each(|(to, v)| *to += factor * v);
    }
}

/// [`add_rows`] of whole parts of N columns from column `from`; the first column that is left.
#[inline(always)]
fn add_parts<const N: usize>(to: &mut [f64], from: usize, rows: &[f64], stride: usize, factors: &[f64]) -> usize {
    let (parts, _) = to[from..].as_chunks_mut::<N>();
    let count = parts.len();
    for (k, part) in parts.iter_mut().enumerate() {
        let mut sums = *part;
        let start = from + k * N;
        for (row, factor) in rows.chunks(stride).zip(factors) {
            if let Some(row) = row.get(start..).and_then(<[f64]>::first_chunk::<N>) {
                for column in 0..N {
                    sums[column] += factor * row[column];
                }
            }
        }
        *part = sums;
    }
    from + count * N
}
