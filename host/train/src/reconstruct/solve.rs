//! Least squares on a grid: symmetric systems, and rounding that passes its errors on.
//!
//! All is f64. Every sum has an order that sizes alone decide, and nothing is fused, so that the bytes are the same on every
//! processor and for any number of threads.

use rayon::prelude::*;

use super::sums::{COLUMNS, TOGETHER, add_rows, dots};

/// The lower factor L of a symmetric matrix A = L·Lᵀ, in rows.
#[derive(Clone, Debug)]
pub(super) struct Factor {
    size: usize,
    /// L by rows.
    rows: Vec<f64>,
    /// Lᵀ by rows: what stands below the diagonal of a column of L, side by side.
    columns: Vec<f64>,
}

impl Factor {
    /// Factors a matrix `[size, size]`, of which the lower half is read, plus `damping` on its diagonal. `None` unless the sum is
    /// positive definite.
    pub(super) fn new(matrix: &[f64], size: usize, damping: f64) -> Option<Self> {
        let mut rows = vec![0.0; size * size];
        // Several rows at once, each from its first column to its last.
        for from in (0..size).step_by(TOGETHER) {
            let (above, own) = rows.split_at_mut(from * size);
            let count = TOGETHER.min(size - from);
            for (j, other) in above.chunks_exact(size).enumerate() {
                let row = |k: usize| &own[k.min(count - 1) * size..][..size];
                let sums = dots([row(0), row(1), row(2), row(3)], &other[..j]);
                for (k, sum) in sums.into_iter().enumerate().take(count) {
                    own[k * size + j] = (matrix[(from + k) * size + j] - sum) / other[j];
                }
            }
            for k in 0..count {
                let (done, row) = own.split_at_mut(k * size);
                for (j, other) in done.chunks_exact(size).enumerate().map(|(j, row)| (from + j, row)) {
                    let sum = dots([&row[..size]; TOGETHER], &other[..j])[0];
                    row[j] = (matrix[(from + k) * size + j] - sum) / other[j];
                }
                let i = from + k;
                let pivot = matrix[i * size + i] + damping - dots([&row[..size]; TOGETHER], &row[..i])[0];
                if !pivot.is_finite() || pivot <= 0.0 {
                    return None;
                }
                row[i] = pivot.sqrt();
            }
        }
        let mut columns = vec![0.0; size * size];
        for (i, row) in rows.chunks_exact(size).enumerate() {
            row[..=i].iter().enumerate().for_each(|(j, v)| columns[j * size + i] = *v);
        }
        Some(Self { size, rows, columns })
    }

    /// Solves L·Lᵀ·X = B for X, in place; B is `[size, count]`.
    pub(super) fn solve(&self, b: &mut [f64], count: usize) {
        self.by_columns(b, count, |factor, b, width| factor.solve_part(b, width));
    }

    /// Rounds W `[size, count]` to a grid so that (W − Q)ᵀ·L·Lᵀ·(W − Q) stays small: row by row from the last, each row being
    /// moved by what the errors of the rows behind it cost. `grid` rounds a value.
    pub(super) fn round(&self, w: &mut [f64], count: usize, grid: &(impl Fn(f64) -> f64 + Sync)) {
        self.by_columns(w, count, |factor, w, width| factor.round_part(w, width, grid));
    }

    /// Works on blocks of columns, which don't depend on one another.
    fn by_columns(&self, all: &mut [f64], count: usize, work: impl Fn(&Self, &mut [f64], usize) + Sync) {
        let starts: Vec<usize> = (0..count).step_by(COLUMNS).collect();
        let part = |start: &usize| {
            let width = COLUMNS.min(count - start);
            let rows = all.chunks_exact(count);
            let mut own: Vec<f64> = rows.flat_map(|row| &row[*start..start + width]).copied().collect();
            work(self, &mut own, width);
            own
        };
        let parts: Vec<Vec<f64>> = starts.par_iter().map(part).collect();
        for (start, part) in starts.iter().zip(&parts) {
            let width = COLUMNS.min(count - start);
            for (row, own) in all.chunks_exact_mut(count).zip(part.chunks_exact(width)) {
                row[*start..start + width].copy_from_slice(own);
            }
        }
    }

    fn solve_part(&self, b: &mut [f64], width: usize) {
        for i in 0..self.size {
            let (done, own) = b.split_at_mut(i * width);
            let own = &mut own[..width];
            let row = &self.rows[i * self.size..(i + 1) * self.size];
            subtract(own, done, row);
            own.iter_mut().for_each(|v| *v /= row[i]);
        }
        for i in (0..self.size).rev() {
            let (own, done) = b[i * width..].split_at_mut(width);
            let column = &self.columns[i * self.size..(i + 1) * self.size];
            subtract(own, done, &column[i + 1..]);
            own.iter_mut().for_each(|v| *v /= column[i]);
        }
    }

    fn round_part(&self, w: &mut [f64], width: usize, grid: &impl Fn(f64) -> f64) {
        let mut errors = vec![0.0; w.len()];
        for i in (0..self.size).rev() {
            let (own_errors, behind) = errors[i * width..].split_at_mut(width);
            let own = &mut w[i * width..(i + 1) * width];
            let column = &self.columns[i * self.size..(i + 1) * self.size];
            // own_errors = −Σ L_ji · e_j over the rows behind, then over the pivot: by how much less the row should be.
            subtract(own_errors, behind, &column[i + 1..]);
            for (v, e) in own.iter_mut().zip(own_errors) {
                let q = grid(*v - *e / column[i]);
                *e = *v - q;
                *v = q;
            }
        }
    }
}

/// `own −= Σ_j factors[j] · rows[j]`, in order.
fn subtract(own: &mut [f64], rows: &[f64], factors: &[f64]) {
    let mut sums = vec![0.0; own.len()];
    add_rows(&mut sums, rows, own.len(), factors);
    own.iter_mut().zip(sums).for_each(|(v, sum)| *v -= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without order, from −1 to 1.
    fn noise(count: usize, salt: u64) -> Vec<f64> {
        let one = |i: u64| {
            ((i.wrapping_mul(6_364_136_223_846_793_005) ^ salt).wrapping_mul(1_442_695_040_888_963_407) >> 40) as f64
        };
        (0..count as u64).map(|i| one(i + 1) / (1u64 << 23) as f64 - 1.0).collect()
    }

    /// XᵀX of `rows` rows.
    fn gram(x: &[f64], rows: usize, size: usize) -> Vec<f64> {
        let element = |i: usize| (0..rows).map(|r| x[r * size + i / size] * x[r * size + i % size]).sum();
        (0..size * size).map(element).collect()
    }

    #[test]
    fn a_system_is_solved() {
        let (size, count) = (37, 70);
        let a = gram(&noise(80 * size, 1), 80, size);
        let x = noise(size * count, 2);
        let product = |i: usize| (0..size).map(|k| a[i / count * size + k] * x[k * count + i % count]).sum::<f64>();
        let mut b: Vec<f64> = (0..size * count).map(product).collect();
        Factor::new(&a, size, 0.0).unwrap().solve(&mut b, count);
        assert!(b.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-8));
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_refused() {
        assert!(Factor::new(&[1.0, 2.0, 2.0, 1.0], 2, 0.0).is_none());
        assert!(Factor::new(&[f64::NAN], 1, 0.0).is_none() && Factor::new(&[0.0], 1, 0.0).is_none());
    }

    /// Of two weights all neighbours on the grid are tried.
    #[test]
    fn rounding_of_two_weights_is_the_best_of_all_within_what_one_pass_can_see() {
        let error = |a: &[f64], e: [f64; 2]| a[0] * e[0] * e[0] + 2.0 * a[1] * e[0] * e[1] + a[3] * e[1] * e[1];
        for salt in 0..50 {
            let a = gram(&noise(12, salt), 6, 2);
            let w = noise(2, salt + 100).iter().map(|v| v * 5.0).collect::<Vec<_>>();
            let mut q = w.clone();
            Factor::new(&a, 2, 1e-9).unwrap().round(&mut q, 1, &|v: f64| v.round());
            // The last weight is rounded first, to its nearest; the first one is then the best there is.
            assert_eq!(q[1], w[1].round());
            let own = error(&a, [w[0] - q[0], w[1] - q[1]]);
            for other in -8..8 {
                assert!(own <= error(&a, [w[0] - f64::from(other), w[1] - q[1]]) + 1e-9);
            }
        }
    }

    #[test]
    fn rounding_with_errors_passed_on_costs_less_than_rounding_each_weight() {
        let (size, count) = (40, 66);
        let a = gram(&noise(60 * size, 5), 60, size);
        let w: Vec<f64> = noise(size * count, 6).iter().map(|v| v * 4.0).collect();
        let cost = |q: &[f64]| {
            let e = |k: usize, c: usize| w[k * count + c] - q[k * count + c];
            let of = |c: usize| (0..size * size).map(|i| a[i] * e(i / size, c) * e(i % size, c)).sum::<f64>();
            (0..count).map(of).sum::<f64>()
        };
        let nearest: Vec<f64> = w.iter().map(|v| v.round()).collect();
        let mut passed = w.clone();
        Factor::new(&a, size, 0.01).unwrap().round(&mut passed, count, &|v: f64| v.round());
        assert!(cost(&passed) < 0.6 * cost(&nearest), "{} {}", cost(&passed), cost(&nearest));
    }
}
