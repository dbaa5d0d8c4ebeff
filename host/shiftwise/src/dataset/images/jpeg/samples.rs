//! From coefficients to pixels: libjpeg's `jidctint`, `jdsample` and `jdcolor`.

use crate::dataset::images::jpeg::{Component, Frame, Meaning};
use crate::dataset::images::pixels::Pixels;

/// Fraction bits of the transform's constants.
const CONSTANT: u32 = 13;
/// Fraction bits between its two passes.
const BETWEEN: u32 = 2;

/// A constant of the transform.
const fn fix(x: f64) -> i32 {
    (x * (1 << CONSTANT) as f64 + 0.5) as i32
}

/// Eight values, transformed and rounded to `shift` bits less.
fn transform(x: [i32; 8], shift: u32) -> [i32; 8] {
    let times = |a: i32, b: f64| if b < 0.0 { a.wrapping_mul(-fix(-b)) } else { a.wrapping_mul(fix(b)) };
    let sum = |a: i32, b: i32| a.wrapping_add(b);
    // The even part.
    let z = times(sum(x[2], x[6]), 0.541_196_100);
    let (two, three) = (sum(z, times(x[6], -1.847_759_065)), sum(z, times(x[2], 0.765_366_865)));
    let (zero, one) = (sum(x[0], x[4]).wrapping_shl(CONSTANT), x[0].wrapping_sub(x[4]).wrapping_shl(CONSTANT));
    let even = [sum(zero, three), sum(one, two), one.wrapping_sub(two), zero.wrapping_sub(three)];
    // The odd part.
    let [a, b, c, d] = [x[7], x[5], x[3], x[1]];
    let z5 = times(sum(sum(a, c), sum(b, d)), 1.175_875_602);
    let (z1, z2) = (times(sum(a, d), -0.899_976_223), times(sum(b, c), -2.562_915_447));
    let z3 = sum(times(sum(a, c), -1.961_570_560), z5);
    let z4 = sum(times(sum(b, d), -0.390_180_644), z5);
    let odd = [
        sum(times(d, 1.501_321_110), sum(z1, z4)),
        sum(times(c, 3.072_711_026), sum(z2, z3)),
        sum(times(b, 2.053_119_869), sum(z2, z4)),
        sum(times(a, 0.298_631_336), sum(z1, z3)),
    ];
    let mut out = [0; 8];
    let round = |v: i32| v.wrapping_add(1 << (shift - 1)) >> shift;
    for (k, (e, o)) in even.into_iter().zip(odd).enumerate() {
        (out[k], out[7 - k]) = (round(e.wrapping_add(o)), round(e.wrapping_sub(o)));
    }
    out
}

/// The samples of a block.
fn inverse(block: &[i16; 64], factors: &[u16; 64]) -> [u8; 64] {
    let mut middle = [0i32; 64];
    for x in 0..8 {
        let column = [0, 1, 2, 3, 4, 5, 6, 7].map(|y| i32::from(block[8 * y + x]) * i32::from(factors[8 * y + x]));
        for (y, v) in transform(column, CONSTANT - BETWEEN).into_iter().enumerate() {
            middle[8 * y + x] = v;
        }
    }
    let mut out = [0; 64];
    for (row, out) in middle.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
        *out = transform(*row, CONSTANT + BETWEEN + 3).map(|v| v.saturating_add(128).clamp(0, 255) as u8);
    }
    out
}

/// The samples of a component, in rows of its own size.
struct Plane {
    samples: Vec<u8>,
    size: [usize; 2],
}

impl Plane {
    /// Takes the coefficients, whose memory is free afterwards.
    fn new(component: &mut Component) -> Self {
        let ([width, height], [across, _]) = (component.size, component.blocks);
        let mut samples = vec![0; width * height];
        let factors = component.factors.unwrap_or([1; 64]);
        for (n, block) in std::mem::take(&mut component.coefficients).iter().enumerate() {
            let [x, y] = [8 * (n % across), 8 * (n / across)];
            if x >= width || y >= height {
                continue;
            }
            let wide = (width - x).min(8);
            let rows = samples.chunks_exact_mut(width).skip(y);
            for (to, from) in rows.zip(inverse(block, &factors).as_chunks::<8>().0) {
                to[x..x + wide].copy_from_slice(&from[..wide]);
            }
        }
        Self { samples, size: component.size }
    }

    fn row(&self, y: usize) -> &[u8] {
        let [width, height] = self.size;
        let y = y.min(height.saturating_sub(1));
        self.samples.get(y * width..(y + 1) * width).unwrap_or(&[])
    }

    /// Row `y` of the whole picture, where this plane has one sample for `factor` across and down.
    fn spread(&self, y: usize, factor: [usize; 2], out: &mut Vec<u8>) {
        out.clear();
        let near = self.row(y / factor[1]);
        // Edges are repeated.
        let far = self.row(if y.is_multiple_of(2) { (y / 2).saturating_sub(1) } else { y / 2 + 1 });
        let sum = |(a, b): (&u8, &u8)| 3 * u16::from(*a) + u16::from(*b);
        // Rounding alternates, so that it moves nothing in sum.
        match factor {
            [2, 1] if near.len() > 2 => across(near.len(), |i| u16::from(near[i]), [1, 2], 2, out),
            [1, 2] => {
                let bias = if y.is_multiple_of(2) { 1 } else { 2 };
                out.extend(near.iter().zip(far).map(|pair| ((sum(pair) + bias) >> 2) as u8));
            }
            [2, 2] if near.len() > 2 => across(near.len(), |i| sum((&near[i], &far[i])), [8, 7], 4, out),
            [n, _] => out.extend(near.iter().flat_map(|v| std::iter::repeat_n(*v, n))),
        }
    }
}

/// Two outputs for each of `n` inputs, three parts of its own and one of its neighbour on that side.
fn across(n: usize, input: impl Fn(usize) -> u16, [left, right]: [u16; 2], shift: u32, out: &mut Vec<u8>) {
    for i in 0..n {
        let (before, own, after) = (input(i.saturating_sub(1)), input(i), input((i + 1).min(n - 1)));
        out.push(((3 * own + before + left) >> shift) as u8);
        out.push(((3 * own + after + right) >> shift) as u8);
    }
}

fn limited(v: i32) -> u8 {
    v.clamp(0, 255) as u8
}

/// Colours from brightness and two differences.
fn colours([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let part = |sum: i32| y + ((sum + (1 << 15)) >> 16);
    [part(91_881 * cr), part(-22_554 * cb - 46_802 * cr), part(116_130 * cb)].map(limited)
}

/// PIL's conversion of an ink and black, both as a file holds them: 255 is no ink.
fn ink(ink: u8, black: u8) -> u8 {
    let black = i32::from(black);
    let product = i32::from(255 - ink) * black + 128;
    limited(black - (((product >> 8) + product) >> 8))
}

/// Spreads the components to the picture's size and makes pixels of them.
pub(super) fn pixels(mut frame: Frame, meaning: Meaning) -> Pixels {
    let planes: Vec<(Plane, [usize; 2])> = frame
        .components
        .iter_mut()
        .map(|c| (Plane::new(c), [frame.most[0] / c.sampling[0], frame.most[1] / c.sampling[1]]))
        .collect();
    let channels = if meaning == Meaning::Grey { 1 } else { 3 };
    let mut out = Vec::with_capacity(frame.width * frame.height * channels);
    let mut rows = vec![Vec::new(); 4];
    for y in 0..frame.height {
        for ((plane, factor), row) in planes.iter().zip(&mut rows) {
            plane.spread(y, *factor, row);
        }
        let [a, b, c, d] = rows.as_slice() else { break };
        if meaning == Meaning::Grey {
            out.extend(a.iter().take(frame.width));
            continue;
        }
        for (x, ((a, b), c)) in a.iter().zip(b).zip(c).take(frame.width).enumerate() {
            let black = d.get(x).copied().unwrap_or(0);
            out.extend(match meaning {
                Meaning::Cmyk => [*a, *b, *c].map(|v| ink(v, black)),
                // What is converted is the inks, and they are inverted.
                Meaning::Ycck => colours([*a, *b, *c]).map(|v| ink(255 - v, black)),
                Meaning::YCbCr => colours([*a, *b, *c]),
                Meaning::Rgb | Meaning::Grey => [*a, *b, *c],
            });
        }
    }
    if meaning == Meaning::Grey { Pixels::Grey(out) } else { Pixels::Colours(out) }
}
