//! Plain Rust: blocks of two pixels and two filters, or of one and four; no bounds check per product.

use shiftwise_core::shape::positive;

use super::finish::Clamp;
use super::unit::{Area, Blocks, CHANNELS, Columns, Filters, Place, Runs, Taps, Unit};

/// Any processor.
#[derive(Debug)]
pub(super) enum Portable {}

/// Sums of products of columns with filters.
#[inline(always)]
fn dots<const P: usize, const F: usize>(columns: [&[u8]; P], filters: [&[u8]; F], k: usize) -> [[i32; F]; P] {
    let mut sums = [[0i32; F]; P];
    // Cut to one length, so that no index below needs a check.
    let columns = columns.map(|c| c.get(..k).unwrap_or(&[]));
    let filters = filters.map(|f| f.get(..k).unwrap_or(&[]));
    if columns.iter().chain(&filters).any(|s| s.len() != k) {
        return sums;
    }
    for i in 0..k {
        let x = columns.map(|c| c.get(i).map_or(0, |x| i32::from(*x as i8)));
        let w = filters.map(|f| f.get(i).map_or(0, |w| i32::from(*w as i8)));
        for (sums, x) in sums.iter_mut().zip(x) {
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = sum.wrapping_add(x * w);
            }
        }
    }
    sums
}

/// All filters times `P` columns, `F` filters at a time.
#[inline(always)]
fn product<const P: usize, const F: usize>(columns: [&[u8]; P], filters: &Filters<'_>, mut outputs: [&mut [u8]; P]) {
    let k = filters.k;
    let count = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    let mut put = |f: usize, sums: [i32; P]| {
        let bias = filters.biases.get(f);
        for (out, sum) in outputs.iter_mut().zip(sums) {
            if let Some(out) = out.get_mut(f) {
                *out = filters.finish.of(sum, bias) as u8;
            }
        }
    };
    for first in (0..count).step_by(F) {
        // What is missing of the last ones is computed again.
        let mut f = first;
        let each = [(); F].map(|()| {
            f += 1;
            (f - 1).min(count - 1)
        });
        let sums = dots(columns, each.map(|f| filters.kernel.get(f * k..).unwrap_or(&[])), k);
        for (lane, f) in each.into_iter().enumerate() {
            put(f, sums.map(|sums| sums.get(lane).copied().unwrap_or(0)));
        }
    }
}

/// The output of filter `f`, element by element.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "for units that read more than an element at once"))]
#[inline(never)]
pub(super) fn by_byte(column: &[u8], filters: &Filters<'_>, f: usize) -> u8 {
    let filter = filters.kernel.get(f * filters.k..).unwrap_or(&[]);
    let pairs = column.iter().zip(filter).take(filters.k);
    let sum = pairs.fold(0i32, |sum, (x, w)| sum.wrapping_add(i32::from(*x as i8) * i32::from(*w as i8)));
    filters.finish.of(sum, filters.biases.get(f)) as u8
}

impl Columns for Portable {
    type Word = u8;

    #[inline(always)]
    fn put(columns: &mut [u8], to: Place, bytes: &[u8], runs: Runs) {
        let Some(column) = columns.get_mut(to.which * to.k + to.at..) else { return };
        for (run, to) in column.chunks_exact_mut(positive(runs.len).get()).take(runs.count).enumerate() {
            let from = run * runs.step;
            if let Some(bytes) = bytes.get(from..from + runs.len) {
                to.iter_mut().zip(bytes).for_each(|(to, x)| *to = *x);
            }
        }
    }

    fn put_zeros(columns: &mut [u8], to: Place, len: usize) {
        columns.iter_mut().skip(to.which * to.k + to.at).take(len).for_each(|to| *to = 0);
    }
}

impl Unit for Portable {
    type Stage = Self;
    const STEP: usize = 1;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        k * pixels
    }

    fn columns(scratch: &mut [u8]) -> &mut [u8] {
        scratch
    }

    fn two(columns: &[u8], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        let (one, two) = columns.split_at_checked(filters.k).unwrap_or_default();
        product::<2, 2>([one, two], filters, [first, second]);
    }

    fn one(columns: &[u8], filters: &Filters<'_>, outputs: &mut [u8]) {
        product::<1, 4>([columns], filters, [outputs]);
    }

    fn depthwise(_: &[u8], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
        let four = |bytes: &[u8], at: usize| bytes.get(at..).and_then(|b| b.first_chunk::<CHANNELS>().copied());
        for (pixel, out) in output.chunks_mut(positive(blocks.channels).get()).take(taps.pixels).enumerate() {
            for (block, out) in out.as_chunks_mut::<CHANNELS>().0.iter_mut().take(blocks.count).enumerate() {
                let mut sums = [0i32; CHANNELS];
                let mut from = taps.from + pixel * taps.stride + block * CHANNELS;
                let mut weight = taps.tap * blocks.channels + block * CHANNELS;
                for _ in 0..taps.rows {
                    let (mut x, mut w) = (from, weight);
                    for _ in 0..taps.columns {
                        if let (Some(x), Some(w)) = (four(input, x), four(blocks.kernel, w)) {
                            for ((sum, x), w) in sums.iter_mut().zip(x).zip(w) {
                                *sum = sum.wrapping_add(i32::from(x as i8) * i32::from(w as i8));
                            }
                        }
                        x += taps.right;
                        w += blocks.channels;
                    }
                    from += taps.down;
                    weight += taps.width * blocks.channels;
                }
                *out = blocks.finish(block, sums);
            }
        }
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        let [f, g] = factors.map(i32::from);
        // |sum| is at most 2^22: the rounding bit fits, so that one shift does what [`Clamp::of`] does in two.
        let (half, shift) = (1i32 << (clamp.shift & 31), (clamp.shift + 1) & 31);
        let sum = |a: u8, b: u8| {
            let sum = i32::from(a as i8) * f + i32::from(b as i8) * g + half;
            (sum >> shift).max(clamp.low).min(clamp.high) as u8
        };
        match operands {
            [Some(a), Some(b)] => output.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (a, b))| *y = sum(*a, *b)),
            [None, Some(b)] => output.iter_mut().zip(b).for_each(|(y, b)| *y = sum(*y, *b)),
            [Some(a), None] => output.iter_mut().zip(a).for_each(|(y, a)| *y = sum(*a, *y)),
            [None, None] => output.iter_mut().for_each(|y| *y = sum(*y, *y)),
        }
    }

    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        let mut most = [i32::from(i8::MIN); CHANNELS];
        window.each(input, |x: [i32; CHANNELS]| most.iter_mut().zip(x).for_each(|(most, x)| *most = x.max(*most)));
        most
    }

    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        let mut sums = [0; CHANNELS];
        window.each(input, |x: [i32; CHANNELS]| sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x));
        sums
    }
}
