//! Sums of products in f64, the inner loops of everything here.
//!
//! Nothing is fused, and the order of every sum depends on sizes alone: the bytes are the same on every processor and for any
//! number of threads.

use multiversion::multiversion;

/// Products that are summed side by side.
const LANES: usize = 8;

/// Columns whose sums stay in registers.
const COLUMNS: usize = 16;

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
    let (parts, rest) = to.as_chunks_mut::<COLUMNS>();
    for (k, part) in parts.iter_mut().enumerate() {
        let mut sums = *part;
        for (row, factor) in rows.chunks(stride).zip(factors) {
            let row = &row[k * COLUMNS..(k + 1) * COLUMNS];
            for column in 0..COLUMNS {
                sums[column] += factor * row[column];
            }
        }
        *part = sums;
    }
    let from = parts.len() * COLUMNS;
    for (row, factor) in rows.chunks(stride).zip(factors) {
        rest.iter_mut().zip(&row[from..]).for_each(|(to, v)| *to += factor * v);
    }
}
