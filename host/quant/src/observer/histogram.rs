//! How the magnitudes of a tensor's values are distributed, counted batch by batch as NumPy 1.23 counts.
//!
//! The first batch decides: [`BINS`] bins of one width from its smallest to its largest magnitude. A later batch that
//! reaches further adds bins of that width; what is smaller than everything in the first batch is not counted (the
//! vendor's tool counts so, and positions of its histograms tell what it makes of them).

use rayon::prelude::*;

use super::range_error::{MOST_BINS, RangeError};

/// Bins that the first batch is counted in.
pub const BINS: usize = 2048;

/// Elements that one task counts at least.
const BLOCK: usize = 1 << 16;

/// Counts of magnitudes.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Values in each bin.
    pub counts: Vec<u64>,
    /// Where the bins begin, and where the last one ends: one more than bins. A bin holds what begins it and not what
    /// ends it; the last one holds that too.
    pub edges: Vec<f32>,
}

impl Histogram {
    /// Counts the first batch. A batch without values tells nothing.
    ///
    /// Errors: a value that is not finite.
    pub fn first(data: &[f32]) -> Result<Option<Self>, RangeError> {
        let Some((low, high)) = magnitudes(data)? else { return Ok(None) };
        let (low, high) = if low == high { (low - 0.5, high + 0.5) } else { (low, high) };
        let step = (f64::from(high) - f64::from(low)) / BINS as f64;
        let edge = |k: usize| if k == BINS { high } else { (k as f64 * step + f64::from(low)) as f32 };
        let edges: Vec<f32> = (0..=BINS).map(edge).collect();
        let per_bin = (BINS as f64 / f64::from(high - low)) as f32;
        // NumPy's bin of a value: an estimate in f32, then at most one bin to either side by comparing with the edges.
        let bin = |x: f32| {
            let mut k = ((x - low) * per_bin) as usize;
            k = k.min(BINS - 1);
            if x < edges[k] {
                k = k.saturating_sub(1);
            }
            if k != BINS - 1 && x >= edges[k + 1] {
                k += 1;
            }
            Some(k)
        };
        let counts = count(data, BINS, bin);
        Ok(Some(Self { counts, edges }))
    }

    /// Counts another batch, seen `times` times.
    ///
    /// Errors: a value that is not finite, or one so far out that there would be more than [`MOST_BINS`] bins.
    pub fn add(&mut self, data: &[f32], times: u64) -> Result<(), RangeError> {
        let Some((_, high)) = magnitudes(data)? else { return Ok(()) };
        self.reach(high)?;
        let (edges, last) = (&self.edges, self.counts.len() - 1);
        let (low, top) = (edges[0], edges[last + 1]);
        let per_bin = 1.0 / (edges[1] - low);
        let bin = |x: f32| {
            if x < low || x > top {
                return None;
            }
            let mut k = (((x - low) * per_bin) as usize).min(last);
            // The estimate is off by a bin or two where the width isn't exact; where bins have no width, by any number.
            if x < edges[k.saturating_sub(2)] || x > edges[(k + 2).min(last + 1)] {
                k = edges.partition_point(|e| *e <= x).saturating_sub(1).min(last);
            }
            while x < edges[k] {
                k -= 1;
            }
            while k < last && x >= edges[k + 1] {
                k += 1;
            }
            Some(k)
        };
        let more = count(data, last + 1, bin);
        self.counts.iter_mut().zip(more).for_each(|(sum, n)| *sum += n * times);
        Ok(())
    }

    /// Adds bins until a magnitude lies in one. In f32, as NumPy's `arange`, which may add one more than it takes.
    fn reach(&mut self, high: f32) -> Result<(), RangeError> {
        let Some((last, width)) = self.edges.last().zip(self.edges.get(1).map(|e| e - self.edges[0])) else {
            return Err(RangeError::Bins);
        };
        if high <= *last {
            return Ok(());
        }
        let start = last + width;
        let more = ((high + width - start) / width).ceil();
        if !(more >= 0.0 && more + (self.counts.len() as f32) <= MOST_BINS as f32) {
            return Err(RangeError::Bins);
        }
        let step = (start + width) - start;
        let edge = |k: usize| if k == 1 { start + width } else { start + k as f32 * step };
        self.edges.extend((0..more as usize).map(edge));
        self.counts.resize(self.edges.len() - 1, 0);
        Ok(())
    }

    /// The lower edge of the bin in which a share of all values (in percent) is reached; the last edge if rounding lets it
    /// be missed.
    pub fn percentile(&self, percent: f64) -> f32 {
        let total: u64 = self.counts.iter().sum();
        let mut reached = 0.0f64;
        let found = self.counts.iter().position(|n| {
            reached += *n as f64 / total as f64;
            reached >= percent / 100.0
        });
        self.edges.get(found.unwrap_or(self.counts.len())).copied().unwrap_or_default()
    }
}

/// Smallest and largest magnitude.
fn magnitudes(data: &[f32]) -> Result<Option<(f32, f32)>, RangeError> {
    let (low, high) = super::extrema::extrema(data)?;
    if low > high {
        return Ok(None);
    }
    let largest = high.max(-low);
    if low >= 0.0 || high <= 0.0 {
        return Ok(Some((low.abs().min(high.abs()), largest)));
    }
    let smallest = data.par_chunks(BLOCK).map(|part| part.iter().fold(f32::INFINITY, |a, x| a.min(x.abs())));
    Ok(Some((smallest.reduce(|| f32::INFINITY, f32::min), largest)))
}

/// Values in each bin.
fn count(data: &[f32], bins: usize, bin: impl Fn(f32) -> Option<usize> + Sync) -> Vec<u64> {
    // A task has counts of its own, which must not cost more than its values.
    let counts = |part: &[f32]| {
        let mut counts = vec![0u64; bins];
        part.iter().filter_map(|x| bin(x.abs())).for_each(|k| counts[k] += 1);
        counts
    };
    let add = |mut a: Vec<u64>, b: Vec<u64>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    data.par_chunks(BLOCK.max(8 * bins)).map(counts).reduce(|| vec![0; bins], add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vendor's example, with four bins: a later batch reaches beyond the first one's bins and below them.
    #[test]
    fn later_batches_add_bins_and_lose_what_is_below_the_first() {
        let mut histogram = Histogram { counts: vec![1; 4], edges: vec![0.5, 0.875, 1.25, 1.625, 2.0] };
        histogram.add(&[0.1, 2.6, -1.0], 1).unwrap();
        assert_eq!(histogram.counts, [1, 2, 1, 1, 0, 1]);
        assert_eq!(histogram.edges, [0.5, 0.875, 1.25, 1.625, 2.0, 2.375, 2.75]);
        let percentile = |p| histogram.percentile(p);
        assert_eq!([percentile(50.0), percentile(90.0), percentile(99.0)], [0.875, 2.375, 2.375]);
    }

    #[test]
    fn equal_magnitudes_lie_in_the_middle_of_bins_of_width_one_over_2048() {
        let histogram = Histogram::first(&[3.0, -3.0, 3.0]).unwrap().unwrap();
        assert_eq!((histogram.edges[0], histogram.edges[BINS]), (2.5, 3.5));
        assert_eq!((histogram.counts[1024], histogram.counts.iter().sum::<u64>()), (3, 3));
        assert_eq!(Histogram::first(&[]), Ok(None));
    }

    #[test]
    fn every_value_is_counted_in_the_bin_between_whose_edges_it_lies() {
        let data: Vec<f32> = (0..50_000u32).map(|i| (i.wrapping_mul(2_654_435_761) as f32 / 4e9 - 0.5) * 7.0).collect();
        let mut histogram = Histogram::first(&data[..20_000]).unwrap().unwrap();
        let further: Vec<f32> = data.iter().map(|x| x * 1.5).collect();
        histogram.add(&further, 3).unwrap();
        let mut expected = vec![0u64; histogram.counts.len()];
        // The last bin holds what ends it: of the first batch that is the 2048th.
        for (part, times, bins) in [(&data[..20_000], 1, BINS), (&further[..], 3, expected.len())] {
            for x in part.iter().map(|x| x.abs()).filter(|x| *x >= histogram.edges[0]) {
                let above = histogram.edges.iter().rposition(|e| *e <= x).unwrap();
                expected[above.min(bins - 1)] += times;
            }
        }
        let differing = (0..expected.len()).find(|k| histogram.counts[*k] != expected[*k]);
        assert_eq!(differing, None);
    }

    #[test]
    fn a_batch_far_beyond_the_first_is_refused() {
        let mut histogram = Histogram::first(&[1e-4, 2e-4]).unwrap().unwrap();
        assert_eq!(histogram.add(&[1.0e4], 1), Err(RangeError::Bins));
        assert_eq!(histogram.add(&[f32::NAN], 1), Err(RangeError::NotFinite));
        assert_eq!(Histogram::first(&[f32::INFINITY]), Err(RangeError::NotFinite));
    }
}
