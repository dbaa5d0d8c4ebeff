//! Where to clip a histogram so that its coarse form says most: the least Kullback-Leibler divergence.
//!
//! The vendor's search quantizes the first i bins to 128 cells for every i from 128 on, whatever the quantizer's width,
//! and takes the last i of the least divergence. Here running sums tell every divergence up to rounding, and only those
//! that may be the least are computed as NumPy and SciPy do, sum by sum, so that ties fall as the vendor's do.

use rayon::prelude::*;

use super::histogram::Histogram;

/// Cells that bins are merged to.
const CELLS: usize = 128;

/// Two divergences that are further apart than this keep their order whatever way they are computed.
const NOISE: f64 = 1e-8;

/// The magnitude to clip at.
pub fn clip(histogram: &Histogram) -> f32 {
    let mut counts = histogram.counts.clone();
    // The vendor's rule: the many zeros behind a ReLU would outweigh everything.
    if let [first, second, ..] = &mut counts[..] {
        *first = *second;
    }
    let at = last_of_least(&counts);
    histogram.edges.get(at).copied().unwrap_or_default()
}

/// The number of bins to keep.
///
/// Bins of which none is filled tell nothing. The vendor's tool divides by their sum, and takes the undefined result for the
/// least divergence: it clips away every value of a tensor without small ones, such as an image of few grey levels.
fn last_of_least(counts: &[u64]) -> usize {
    let stop = counts.len();
    // All values lie in one bin, so they are what its lower edge is. (There both rules agree.)
    let mut filled = (0..stop).filter(|j| counts[*j] > 0);
    if let (Some(only), None) = (filled.next(), filled.next()) {
        return only;
    }
    let sums = Sums::new(counts);
    let clips = CELLS..=stop;
    let rough: Vec<f64> = clips.clone().into_par_iter().map(|i| sums.divergence(counts, i)).collect();
    let least = rough.iter().copied().fold(f64::INFINITY, f64::min);
    let close: Vec<usize> = clips.filter(|i| rough[i - CELLS] <= least + NOISE).collect();
    let exact: Vec<f64> = close.par_iter().map(|i| divergence(counts, *i)).collect();
    let later = exact.iter().zip(&close).rev();
    later.fold((f64::INFINITY, stop), |best, (d, i)| if *d < best.0 { (*d, *i) } else { best }).1
}

/// The cell of bin `j` of `i`.
fn cell(j: usize, i: usize) -> usize {
    j * CELLS / i
}

/// Sums over the bins before each one.
struct Sums {
    count: Vec<u64>,
    filled: Vec<u64>,
    /// Σ n ln n.
    log: Vec<f64>,
}

impl Sums {
    fn new(counts: &[u64]) -> Self {
        let mut own = Self { count: vec![0], filled: vec![0], log: vec![0.0] };
        let (mut count, mut filled, mut log) = (0, 0, 0.0);
        for n in counts {
            count += n;
            filled += u64::from(*n > 0);
            log += weighted_log(*n);
            own.count.push(count);
            own.filled.push(filled);
            own.log.push(log);
        }
        own
    }

    /// The divergence of keeping `i` bins, up to rounding: with p = n / T and q = (mean of n's cell) / Q, it is
    /// (Σ n ln n − Σ over cells of their sum times the logarithm of their mean) / T + ln(Q / T).
    fn divergence(&self, counts: &[u64], i: usize) -> f64 {
        let total = self.count[counts.len()];
        let beyond = total - self.count[i];
        let last = counts[i - 1];
        if self.count[i] == 0 || (last == 0 && beyond > 0) {
            return f64::INFINITY;
        }
        let mut logs = self.log[i] - weighted_log(last) + weighted_log(last + beyond);
        for c in 0..CELLS {
            let (from, to) = ((c * i).div_ceil(CELLS), ((c + 1) * i).div_ceil(CELLS));
            let (sum, filled) = (self.count[to] - self.count[from], self.filled[to] - self.filled[from]);
            if filled > 0 {
                let outside = if c == CELLS - 1 { beyond } else { 0 };
                logs -= (sum + outside) as f64 * libm::log(sum as f64 / filled as f64);
            }
        }
        logs / total as f64 + libm::log(self.count[i] as f64 / total as f64)
    }
}

fn weighted_log(n: u64) -> f64 {
    if n == 0 { 0.0 } else { n as f64 * libm::log(n as f64) }
}

/// The divergence of keeping `i` bins, as NumPy and SciPy compute it.
fn divergence(counts: &[u64], i: usize) -> f64 {
    let kept = &counts[..i];
    let (mut mean, mut filled) = ([0.0f64; CELLS], [0u64; CELLS]);
    for (j, n) in kept.iter().enumerate().filter(|(_, n)| **n > 0) {
        mean[cell(j, i)] += *n as f64;
        filled[cell(j, i)] += 1;
    }
    mean.iter_mut().zip(filled).for_each(|(m, n)| *m /= n.max(1) as f64);
    let coarse: Vec<f64> = kept.iter().enumerate().map(|(j, n)| if *n > 0 { mean[cell(j, i)] } else { 0.0 }).collect();
    let mut fine: Vec<f64> = kept.iter().map(|n| *n as f64).collect();
    fine[i - 1] += counts[i..].iter().sum::<u64>() as f64;
    let (all, all_coarse) = (fine.iter().sum::<f64>(), pairwise(&coarse));
    let terms: Vec<f64> = fine.iter().zip(&coarse).map(|(p, q)| relative(p / all, q / all_coarse)).collect();
    pairwise(&terms)
}

/// p ln(p / q).
fn relative(p: f64, q: f64) -> f64 {
    match p > 0.0 {
        true if q > 0.0 => p * libm::log(p / q),
        true => f64::INFINITY,
        false => 0.0,
    }
}

/// The sum of floats in NumPy's order.
fn pairwise(values: &[f64]) -> f64 {
    if values.len() < 8 {
        return values.iter().fold(0.0, |sum, v| sum + v);
    }
    if values.len() > 128 {
        let half = values.len() / 2;
        let (first, second) = values.split_at(half - half % 8);
        return pairwise(first) + pairwise(second);
    }
    let (eights, rest) = values.as_chunks::<8>();
    let sum = |r: [f64; 8]| ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    let lanes = eights[1..].iter().fold(eights[0], |r, v| std::array::from_fn(|k| r[k] + v[k]));
    rest.iter().fold(sum(lanes), |sum, v| sum + v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The short form and the long one agree, and the search finds what looking at every clip would.
        #[test]
        fn the_search_finds_the_last_of_the_least_divergences(
            counts in proptest::collection::vec(prop_oneof![3 => Just(0u64), 5 => 0u64..50, 1 => 0u64..5000], 130..600),
        ) {
            prop_assume!(counts.iter().filter(|n| **n > 0).count() > 1);
            let sums = Sums::new(&counts);
            let stop = counts.len();
            let filled = (CELLS..=stop).filter(|i| sums.count[*i] > 0);
            let all: Vec<(usize, f64)> = filled.map(|i| (i, divergence(&counts, i))).collect();
            for (i, exact) in &all {
                let rough = sums.divergence(&counts, *i);
                prop_assert!(rough == *exact || (rough - exact).abs() < NOISE / 10.0, "{i}: {rough} {exact}");
            }
            let least = all.iter().fold(f64::INFINITY, |a, (_, d)| a.min(*d));
            let expected = all.iter().rev().find(|(_, d)| *d == least).map(|(i, _)| *i);
            prop_assert_eq!(Some(last_of_least(&counts)), expected);
        }
    }

    #[test]
    fn a_histogram_of_equal_bins_is_kept_whole() {
        assert_eq!(last_of_least(&[7; 2048]), 2048);
        assert_eq!(last_of_least(&[0; 2048]), 2048);
    }

    /// Seventeen grey levels, of which black is not counted: the vendor's tool clips at the first of them.
    #[test]
    fn an_image_of_few_levels_is_not_clipped_at_its_darkest() {
        let levels: Vec<f32> = (0..5000).map(|i| (i * i % 17) as f32 / 16.0).collect();
        let histogram = Histogram::first(&levels).unwrap().unwrap();
        assert!(clip(&histogram) > 0.9, "{}", clip(&histogram));
        assert_eq!(clip(&Histogram::first(&[-3.0, 3.0]).unwrap().unwrap()), 3.0);
    }
}
