//! AArch64's vectors: eight 8-bit products an instruction, added up in 32 bits.
#![allow(unsafe_code)]

use core::arch::aarch64::{
    int8x8_t, int16x8_t, int32x4_t, vaddvq_s32, vcombine_s16, vdup_n_s8, vdupq_n_s32, vget_low_s16, vld1_s8, vld1q_s32,
    vmax_s8, vmin_s8, vmlal_high_n_s16, vmlal_high_s16, vmlal_n_s16, vmlal_s16, vmovl_s8, vmull_high_n_s16,
    vmull_n_s16, vmull_s8, vpadalq_s16, vqmovn_s16, vqmovn_s32, vrshlq_s32, vst1_s8, vst1q_s32,
};

use super::finish::{Biases, Clamp, Finish};
use super::portable::Portable;
use super::unit::{Area, Blocks, CHANNELS, Columns, Filters, Place, Runs, Taps, Unit};

/// A processor with Advanced SIMD.
#[derive(Debug)]
pub(super) enum Neon {}

/// Elements of a vector of bytes.
const LANES: usize = 8;
/// Filters at a time.
const FILTERS: usize = 4;

#[inline(always)]
fn load(bytes: &[u8; LANES]) -> int8x8_t {
    // SAFETY: 8 bytes, of any alignment.
    unsafe { vld1_s8(bytes.as_ptr().cast()) }
}

/// The first 4 channels' sums, and the other 4.
#[inline(always)]
fn load_sums(sums: &[i32; LANES]) -> [int32x4_t; 2] {
    // SAFETY: 4 sums from each of both places.
    unsafe { [vld1q_s32(sums.as_ptr()), vld1q_s32(sums.as_ptr().add(4))] }
}

#[inline(always)]
fn store_sums(sums: [int32x4_t; 2]) -> [i32; LANES] {
    let mut out = [0; LANES];
    // SAFETY: 4 sums to each of both places.
    unsafe {
        vst1q_s32(out.as_mut_ptr(), sums[0]);
        vst1q_s32(out.as_mut_ptr().add(4), sums[1]);
    }
    out
}

/// Sums of products of `P` columns with 4 filters, `k` elements each.
#[inline(always)]
fn dots<const P: usize>(columns: [&[u8]; P], filters: [&[u8]; FILTERS], k: usize) -> [[i32; FILTERS]; P] {
    let columns = columns.map(|c| c.get(..k).unwrap_or(&[]).as_chunks::<LANES>());
    let filters = filters.map(|f| f.get(..k).unwrap_or(&[]).as_chunks::<LANES>());
    // SAFETY: AArch64 has these instructions always; they work on registers.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); FILTERS]; P];
        let mut step = |x: [int8x8_t; P], w: [int8x8_t; FILTERS]| {
            for (sums, x) in sums.iter_mut().zip(x) {
                for (sum, w) in sums.iter_mut().zip(w) {
                    *sum = vpadalq_s16(*sum, vmull_s8(x, w));
                }
            }
        };
        for i in 0..k / LANES {
            let zero = [0; LANES];
            step(
                columns.map(|(c, _)| load(c.get(i).unwrap_or(&zero))),
                filters.map(|(f, _)| load(f.get(i).unwrap_or(&zero))),
            );
        }
        if !k.is_multiple_of(LANES) {
            let rest = |rest: &[u8]| {
                let mut bytes = [0; LANES];
                bytes.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
                load(&bytes)
            };
            step(columns.map(|(_, c)| rest(c)), filters.map(|(_, f)| rest(f)));
        }
        sums.map(|sums| sums.map(|sum| vaddvq_s32(sum)))
    }
}

/// All filters times `P` columns.
#[inline(always)]
fn product<const P: usize>(columns: [&[u8]; P], filters: &Filters<'_>, mut outputs: [&mut [u8]; P]) {
    let k = filters.k;
    let count = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    for first in (0..count).step_by(FILTERS) {
        // What is missing of the last four is computed again.
        let each: [usize; FILTERS] = core::array::from_fn(|i| (first + i).min(count - 1));
        let sums = dots(columns, each.map(|f| filters.kernel.get(f * k..).unwrap_or(&[])), k);
        for (out, sums) in outputs.iter_mut().zip(sums) {
            for (f, sum) in each.into_iter().zip(sums) {
                if let Some(out) = out.get_mut(f) {
                    *out = filters.finish.of(sum, filters.biases.get(f)) as u8;
                }
            }
        }
    }
}

/// Sums to outputs of 8 channels.
#[inline(always)]
fn finish(sums: [int32x4_t; 2], how: Finish, biases: Biases<'_>, channel: usize) -> [u8; LANES] {
    match how {
        Finish::Clamp(clamp) if clamp.leak => store_sums(sums).map(|sum| clamp.of(sum) as u8),
        Finish::Clamp(clamp) => round(sums, clamp),
        Finish::General(general) => {
            let mut f = channel;
            store_sums(sums).map(|sum| {
                f += 1;
                general.of(sum, biases.get(f - 1)) as u8
            })
        }
    }
}

/// [`Clamp::of`] for 8 sums.
#[inline(always)]
fn round(sums: [int32x4_t; 2], clamp: Clamp) -> [u8; LANES] {
    let mut out = [0; LANES];
    // SAFETY: registers, and 8 bytes to store.
    unsafe {
        // The instruction rounds half up without losing the carry.
        let shift = vdupq_n_s32(-(clamp.shift as i32) - 1);
        let [a, b] = sums.map(|sum| vqmovn_s32(vrshlq_s32(sum, shift)));
        let bytes = vqmovn_s16(vcombine_s16(a, b));
        let bytes = vmin_s8(vmax_s8(bytes, vdup_n_s8(clamp.low as i8)), vdup_n_s8(clamp.high as i8));
        vst1_s8(out.as_mut_ptr().cast(), bytes);
    }
    out
}

#[inline(always)]
fn add_products([a, b]: [int32x4_t; 2], x: int16x8_t, w: int16x8_t) -> [int32x4_t; 2] {
    // SAFETY: registers only.
    unsafe { [vmlal_s16(a, vget_low_s16(x), vget_low_s16(w)), vmlal_high_s16(b, x, w)] }
}

#[inline(always)]
fn widen(bytes: &[u8; LANES]) -> int16x8_t {
    // SAFETY: registers only.
    unsafe { vmovl_s8(load(bytes)) }
}

impl Columns for Neon {
    type Word = u8;

    #[inline(always)]
    fn put(columns: &mut [u8], to: Place, bytes: &[u8], runs: Runs) {
        Portable::put(columns, to, bytes, runs);
    }

    fn put_zeros(columns: &mut [u8], to: Place, len: usize) {
        Portable::put_zeros(columns, to, len);
    }
}

impl Unit for Neon {
    type Stage = Self;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        Portable::column_bytes(k, pixels)
    }

    fn columns(scratch: &mut [u8]) -> &mut [u8] {
        scratch
    }

    fn two(columns: &[u8], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        let (one, two) = columns.split_at_checked(filters.k).unwrap_or_default();
        product([one, two], filters, [first, second]);
    }

    fn one(columns: &[u8], filters: &Filters<'_>, outputs: &mut [u8]) {
        product([columns], filters, [outputs]);
    }

    fn depthwise(words: &[u8], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
        // Two blocks of channels fill a vector.
        let pairs = blocks.count / 2;
        let eight = |bytes: &[u8], at: usize| bytes.get(at..).and_then(|b| b.first_chunk::<LANES>().copied());
        for (pixel, out) in output.chunks_mut(blocks.channels.max(1)).take(taps.pixels).enumerate() {
            for (pair, out) in out.as_chunks_mut::<LANES>().0.iter_mut().take(pairs).enumerate() {
                let channel = pair * LANES;
                let mut biases = [0; LANES];
                if let Finish::Clamp(_) = blocks.finish {
                    let own = [blocks.biases.four(channel), blocks.biases.four(channel + CHANNELS)];
                    biases.iter_mut().zip(own.as_flattened()).for_each(|(to, bias)| *to = *bias);
                }
                let mut sums = load_sums(&biases);
                let mut from = taps.from + pixel * taps.stride + channel;
                let mut weight = taps.tap * blocks.channels + channel;
                for _ in 0..taps.rows {
                    let (mut x, mut w) = (from, weight);
                    for _ in 0..taps.columns {
                        if let (Some(x), Some(w)) = (eight(input, x), eight(blocks.kernel, w)) {
                            sums = add_products(sums, widen(&x), widen(&w));
                        }
                        x += taps.right;
                        w += blocks.channels;
                    }
                    from += taps.down;
                    weight += taps.width * blocks.channels;
                }
                *out = finish(sums, blocks.finish, blocks.biases, channel);
            }
        }
        if !blocks.count.is_multiple_of(2) {
            let done = pairs * LANES;
            let rest = Blocks {
                count: 1,
                kernel: blocks.kernel.get(done..).unwrap_or(&[]),
                biases: blocks.biases.from(done),
                ..*blocks
            };
            let taps = Taps { from: taps.from + done, ..*taps };
            Portable::depthwise(words, input, &taps, &rest, output.get_mut(done..).unwrap_or_default());
        }
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        let [a, b] = operands.map(|x| x.map(|x| x.as_chunks::<LANES>()));
        let (chunks, rest) = output.as_chunks_mut::<LANES>();
        for (i, out) in chunks.iter_mut().enumerate() {
            let of = |x: Option<(&[[u8; LANES]], &[u8])>| match x {
                Some((chunks, _)) => widen(chunks.get(i).unwrap_or(&[0; LANES])),
                None => widen(out),
            };
            let (a, b) = (of(a), of(b));
            // SAFETY: registers only.
            let sums = unsafe {
                let low = vmlal_n_s16(vmull_n_s16(vget_low_s16(a), factors[0]), vget_low_s16(b), factors[1]);
                [low, vmlal_high_n_s16(vmull_high_n_s16(a, factors[0]), b, factors[1])]
            };
            *out = round(sums, clamp);
        }
        Portable::add([a, b].map(|x| x.map(|(_, rest)| rest)), factors, clamp, rest);
    }

    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::max(input, window)
    }

    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::sum(input, window)
    }
}
