//! Sums of products: what the compute array does, and the one part of a machine that a host may do its own, faster way.

use super::MAX_LANES;

/// Output columns that are summed together.
pub const COLUMNS: usize = 4;

/// Contiguous input bytes and the weights they meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First input byte, in all banks.
    pub input: u32,
    /// First weight byte, counted from a lane's first weight of the instruction.
    pub weight: u32,
    /// Bytes.
    pub len: u32,
}

/// Up to [`COLUMNS`] output columns of one row of a CONV, whose segments are alike but for where their inputs lie.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'t> {
    /// All banks.
    pub banks: &'t [u8],
    /// Of the first column, then of the second, and so on: equally many of each.
    pub segments: &'t [Segment],
    /// Columns: 1..=[`COLUMNS`].
    pub columns: usize,
    /// First weight of lane 0 in the banks, and the way from one lane's first weight to the next's.
    pub weights: [usize; 2],
    /// Weights of each lane.
    pub weight_bytes: usize,
}

impl<'t> Tile<'t> {
    /// The segments of a column. Entry i of every column has the same weights and length.
    pub fn segments(&self, column: usize) -> &'t [Segment] {
        let each = self.segments.len().checked_div(self.columns).unwrap_or(0);
        self.segments.get(column * each..(column + 1) * each).unwrap_or(&[])
    }

    /// The input bytes of a segment.
    pub fn input(&self, s: &Segment) -> &'t [u8] {
        self.banks.get(s.input as usize..).and_then(|x| x.get(..s.len as usize)).unwrap_or(&[])
    }

    /// All weights of an output lane.
    pub fn lane(&self, lane: usize) -> &'t [u8] {
        let [first, pitch] = self.weights;
        self.banks.get(first + lane * pitch..).and_then(|w| w.get(..self.weight_bytes)).unwrap_or(&[])
    }
}

/// Who multiplies. Exact by contract, so that no choice of it shows in a result: sums of at most 2^17 products of int8
/// cannot leave 32 bits.
pub trait Products {
    /// Sets `sums[column][lane]`, for the columns of the tile and the lanes `0..lanes`, to the sum over the column's
    /// segments of input · weight, both int8. Other entries may become anything.
    fn sums(&mut self, tile: &Tile<'_>, lanes: usize, sums: &mut [[i32; MAX_LANES]; COLUMNS]);
}

/// One product after the other: the definition.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl Products for Plain {
    fn sums(&mut self, tile: &Tile<'_>, lanes: usize, sums: &mut [[i32; MAX_LANES]; COLUMNS]) {
        for (column, sums) in sums.iter_mut().enumerate().take(tile.columns) {
            for (lane, sum) in sums.iter_mut().enumerate().take(lanes) {
                let weights = tile.lane(lane);
                let of = |s: &Segment| dot(tile.input(s), weights.get(s.weight as usize..).unwrap_or(&[]));
                *sum = tile.segments(column).iter().fold(0, |sum, s| of(s).wrapping_add(sum));
            }
        }
    }
}

/// Sum of products of int8, as long as the shorter slice.
#[inline]
fn dot(x: &[u8], w: &[u8]) -> i32 {
    let product = |(x, w): (&u8, &u8)| i32::from(*x as i8).wrapping_mul(i32::from(*w as i8));
    x.iter().zip(w).fold(0i32, |sum, pair| sum.wrapping_add(product(pair)))
}
