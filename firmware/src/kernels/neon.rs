//! AArch64's vectors, without dot products: eight 8-bit products an instruction, added up in pairs to 32 bits.
#![allow(unsafe_code)]

use core::arch::aarch64::{
    int8x8_t, int8x16_t, int32x4_t, vaddq_s32, vaddw_high_s16, vaddw_s8, vaddw_s16, vbslq_s32, vcltzq_s32,
    vcombine_s16, vdup_n_s8, vdupq_n_s8, vdupq_n_s16, vdupq_n_s32, vget_lane_s32, vget_low_s8, vget_low_s16,
    vgetq_lane_s32, vmax_s8, vmaxq_s8, vmaxq_s32, vmin_s8, vminq_s8, vminvq_s8, vmlal_high_n_s16, vmlal_high_s8,
    vmlal_n_s16, vmovl_high_s16, vmovl_s8, vmovl_s16, vmull_high_n_s16, vmull_high_s8, vmull_n_s16, vmull_s8,
    vmulq_n_s32, vpadalq_s16, vpaddq_s32, vqmovn_s16, vqmovn_s32, vreinterpret_s32_s8, vreinterpretq_s32_s8,
    vrshlq_s32,
};
use core::arch::asm;

use shiftwise_core::model::PoolKind;

use super::finish::{Biases, Clamp, Finish};
use super::portable::{Portable, by_byte};
use super::unit::{Area, Blocks, CHANNELS, Columns, Filters, Place, Pooling, Runs, Taps, Unit, in_fours};

/// A processor with Advanced SIMD.
#[derive(Debug)]
pub(super) enum Neon {}

/// Outputs that are finished at once: bytes of half a vector.
const LANES: usize = 8;
/// Bytes of a vector.
const VECTOR: usize = 16;

/// Defines loads of bytes that then go a step further. Without a memory management unit all memory is a device's to the
/// processor, where a vector has to be aligned unless it is loaded as bytes; the compiler, knowing only half of that,
/// would load each byte by itself.
macro_rules! loads {
    ($($name:ident: $vector:ty = $text:literal;)*) => {
        $(/// # Safety
        /// The bytes can be read.
        #[inline(always)]
        unsafe fn $name(from: &mut *const u8, step: usize) -> $vector {
            let y;
            // SAFETY: the caller's promise.
            unsafe {
                asm!($text, y = out(vreg) y, x = inout(reg) *from, step = in(reg) step,
                    options(readonly, nostack, preserves_flags));
            }
            y
        })*
    };
}

loads! {
    load: int8x16_t = "ld1 {{{y:v}.16b}}, [{x}], {step}";
    load_half: int8x8_t = "ld1 {{{y:v}.8b}}, [{x}], {step}";
}

/// Stores 8 bytes, wherever.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn store_half(to: *mut u8, bytes: int8x8_t) {
    // SAFETY: the caller's promise.
    unsafe { asm!("st1 {{{x:v}.8b}}, [{to}]", x = in(vreg) bytes, to = in(reg) to, options(nostack, preserves_flags)) };
}

/// Stores 16 bytes, wherever.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn store(to: *mut u8, bytes: int8x16_t) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("st1 {{{x:v}.16b}}, [{to}]", x = in(vreg) bytes, to = in(reg) to, options(nostack, preserves_flags))
    };
}

/// Bytes from a column to the next: whole steps, and what the last part may spill.
fn stride(k: usize) -> usize {
    k.next_multiple_of(LANES) + VECTOR
}

/// Sums of 8 outputs.
type Sums = [int32x4_t; 2];

/// Sums of products of `P` columns with `F` filters, 8 in all, in that order.
///
/// # Safety
/// `k` bytes of each can be read, a multiple of 8.
#[inline(always)]
unsafe fn dots<const P: usize, const F: usize, const TAME: bool>(
    mut columns: [*const u8; P],
    mut filters: [*const u8; F],
    k: usize,
) -> Sums {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); P]; F];
        for _ in 0..k / VECTOR {
            let x = columns.each_mut().map(|x| load(x, VECTOR));
            for (sums, w) in sums.iter_mut().zip(&mut filters) {
                let w = load(w, VECTOR);
                for (sum, x) in sums.iter_mut().zip(x) {
                    let low = vmull_s8(vget_low_s8(x), vget_low_s8(w));
                    // Two products do not fit 16 bits where all four factors are −128.
                    *sum = if TAME {
                        vpadalq_s16(*sum, vmlal_high_s8(low, x, w))
                    } else {
                        vpadalq_s16(vpadalq_s16(*sum, low), vmull_high_s8(x, w))
                    };
                }
            }
        }
        if !k.is_multiple_of(VECTOR) {
            let x = columns.each_mut().map(|x| load_half(x, 0));
            for (sums, w) in sums.iter_mut().zip(&mut filters) {
                let w = load_half(w, 0);
                for (sum, x) in sums.iter_mut().zip(x) {
                    *sum = vpadalq_s16(*sum, vmull_s8(x, w));
                }
            }
        }
        let four = |a, b, c, d| vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
        match *sums.as_flattened() {
            // Two columns alternate.
            [a, s, b, t, c, u, d, v] if P == 2 => [four(a, b, c, d), four(s, t, u, v)],
            [a, b, c, d, s, t, u, v] => [four(a, b, c, d), four(s, t, u, v)],
            _ => [vdupq_n_s32(0); 2],
        }
    }
}

/// All filters times `P` columns, `F` filters at a time.
#[inline(always)]
fn product<const P: usize, const F: usize, const TAME: bool>(
    columns: &[u8],
    filters: &Filters<'_>,
    mut outputs: [&mut [u8]; P],
) {
    let stride = stride(filters.k);
    let count = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    let whole = filters.whole.min(count);
    if columns.len() < P * stride {
        return;
    }
    let mut column = columns.as_ptr().wrapping_sub(stride);
    let columns_at = [(); P].map(|()| {
        column = column.wrapping_add(stride);
        column
    });
    let mut first = 0;
    while first < whole {
        // The last filters take up some of those before, or the last is computed again: they come out the same.
        first = first.min(whole.saturating_sub(F));
        let mut filter = filters.kernel.as_ptr().wrapping_add(first * filters.k);
        let last = filters.kernel.as_ptr().wrapping_add((whole - 1) * filters.k);
        let each = [(); F].map(|()| {
            let own = filter;
            filter = filter.wrapping_add(filters.k).min(last);
            own
        });
        // SAFETY: columns are filled up to steps, and every filter before `whole` can be read so far.
        let sums = unsafe { dots::<P, F, TAME>(columns_at, each, filters.k.next_multiple_of(LANES)) };
        let bias = four(filters.biases, first);
        let biases = [bias, if P == 1 { four(filters.biases, first + CHANNELS) } else { bias }];
        let bytes = finish(sums, &filters.finish, biases);
        if whole >= F {
            // SAFETY: so many outputs follow in each.
            match outputs.each_mut().map(|out| unsafe { out.as_mut_ptr().add(first) }).as_slice() {
                [one] => unsafe { store_half(*one, bytes) },
                [one, two] => unsafe { store_quarters([*one, *two], bytes) },
                _ => {}
            }
        } else {
            let bytes = bytes_of(bytes);
            for (out, bytes) in outputs.iter_mut().zip(bytes.chunks_exact(F)) {
                out.iter_mut().take(whole).zip(bytes).for_each(|(to, x)| *to = *x);
            }
        }
        first += F;
    }
    for (which, out) in outputs.into_iter().enumerate() {
        let column = columns.get(which * stride..).unwrap_or(&[]);
        for (f, out) in out.iter_mut().enumerate().skip(whole) {
            *out = by_byte(column, filters, f);
        }
    }
}

/// Biases of four channels.
#[inline(always)]
fn four(biases: Biases<'_>, channel: usize) -> int32x4_t {
    match biases.bytes(channel, CHANNELS) {
        // SAFETY: 16 bytes.
        Some(bytes) => unsafe { vreinterpretq_s32_s8(load(&mut bytes.as_ptr(), 0)) },
        None => fewer(biases, channel),
    }
}

/// [`four`] where fewer channels follow, or none has a bias.
#[inline(never)]
fn fewer(biases: Biases<'_>, channel: usize) -> int32x4_t {
    // SAFETY: 16 bytes.
    unsafe { vreinterpretq_s32_s8(load(&mut biases.four(channel).as_ptr().cast(), 0)) }
}

fn bytes_of(bytes: int8x8_t) -> [u8; LANES] {
    let mut out = [0; LANES];
    // SAFETY: 8 bytes.
    unsafe { store_half(out.as_mut_ptr(), bytes) };
    out
}

/// Stores 4 bytes here and 4 there.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn store_quarters(to: [*mut u8; 2], bytes: int8x8_t) {
    // SAFETY: the caller's promise.
    unsafe {
        let words = vreinterpret_s32_s8(bytes);
        for (to, word) in to.into_iter().zip([vget_lane_s32::<0>(words), vget_lane_s32::<1>(words)]) {
            let words = to.cast::<u32>();
            if words.is_aligned() {
                words.write(word as u32);
            } else {
                to.cast::<[u8; 4]>().write(word.to_le_bytes());
            }
        }
    }
}

/// Outputs of sums and biases.
#[inline(always)]
fn finish(sums: Sums, how: &Finish, biases: Sums) -> int8x8_t {
    match how {
        Finish::Clamp(clamp) => {
            let ([s, t], [a, b]) = (sums, biases);
            // SAFETY: registers only.
            round(unsafe { [vaddq_s32(s, a), vaddq_s32(t, b)] }, *clamp)
        }
        Finish::General(general) => {
            let mut out = [0; LANES];
            let [sums, biases] = [sums, biases].map(|all| {
                // SAFETY: registers only.
                all.map(|x| unsafe {
                    [vgetq_lane_s32::<0>(x), vgetq_lane_s32::<1>(x), vgetq_lane_s32::<2>(x), vgetq_lane_s32::<3>(x)]
                })
            });
            let each = sums.as_flattened().iter().zip(biases.as_flattened());
            out.iter_mut().zip(each).for_each(|(to, (sum, bias))| *to = general.of(*sum, *bias) as u8);
            // SAFETY: 8 bytes.
            unsafe { load_half(&mut out.as_ptr(), 0) }
        }
    }
}

/// [`Clamp::of`] for 8 sums.
#[inline(always)]
fn round(sums: Sums, clamp: Clamp) -> int8x8_t {
    // SAFETY: registers only.
    unsafe {
        // The instruction rounds half up without losing the carry.
        let by = |x, shift: u32| vrshlq_s32(x, vdupq_n_s32(-(shift as i32)));
        let shifted = |sum| {
            let shifted = by(sum, clamp.shift + 1);
            if !clamp.leak {
                return shifted;
            }
            let scaled = vmulq_n_s32(vmaxq_s32(sum, vdupq_n_s32(-(1 << 26))), 26);
            vbslq_s32(vcltzq_s32(sum), by(scaled, clamp.shift + 9), shifted)
        };
        let [a, b] = sums.map(|sum| vqmovn_s32(shifted(sum)));
        let bytes = vqmovn_s16(vcombine_s16(a, b));
        vmin_s8(vmax_s8(bytes, vdup_n_s8(clamp.low as i8)), vdup_n_s8(clamp.high as i8))
    }
}

impl Columns for Neon {
    type Word = u8;

    #[inline(always)]
    fn put(columns: &mut [u8], to: Place, bytes: &[u8], runs: Runs) {
        let Runs { count, len, step } = runs;
        let at = to.which * stride(to.k) + to.at;
        let spilling = len.next_multiple_of(VECTOR);
        if count == 0 || len == 0 {
            return;
        }
        if (count - 1) * step + spilling > bytes.len() || at + (count - 1) * len + spilling > columns.len() {
            // The end of the input.
            return Portable::put(columns, Place { which: 0, at, ..to }, bytes, runs);
        }
        // SAFETY: as just checked. What a run spills, the next part covers, or the end.
        unsafe {
            let (mut from, mut to) = (bytes.as_ptr(), columns.as_mut_ptr().add(at));
            for _ in 0..count {
                let mut run = from;
                for at in (0..len).step_by(VECTOR) {
                    store(to.add(at), load(&mut run, VECTOR));
                }
                from = from.wrapping_add(step);
                to = to.wrapping_add(len);
            }
        }
    }

    fn put_zeros(columns: &mut [u8], to: Place, len: usize) {
        Portable::put_zeros(columns, Place { which: 0, at: to.which * stride(to.k) + to.at, ..to }, len);
    }

    #[inline(always)]
    fn end(columns: &mut [u8], to: Place) {
        let at = to.which * stride(to.k) + to.k;
        if let Some(to) = columns.get_mut(at..).and_then(|to| to.first_chunk_mut()) {
            *to = [0u8; LANES];
        }
    }
}

/// Sums of `8 · V` channels over a depthwise window.
///
/// # Safety
/// The window's taps lie behind `x`, its weights behind `w`.
#[inline(always)]
unsafe fn window<const V: usize>(mut x: *const u8, mut w: *const u8, taps: &Taps, channels: usize) -> [Sums; V] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 2]; V];
        let add = |[a, b]: Sums, products| [vaddw_s16(a, vget_low_s16(products)), vaddw_high_s16(b, products)];
        for _ in 0..taps.rows {
            let (mut tap, mut weights) = (x, w);
            for _ in 0..taps.columns {
                match sums.as_mut_slice() {
                    [low, high] => {
                        let (x, w) = (load(&mut tap, taps.right), load(&mut weights, channels));
                        *low = add(*low, vmull_s8(vget_low_s8(x), vget_low_s8(w)));
                        *high = add(*high, vmull_high_s8(x, w));
                    }
                    [all] => {
                        let (x, w) = (load_half(&mut tap, taps.right), load_half(&mut weights, channels));
                        *all = add(*all, vmull_s8(x, w));
                    }
                    _ => {}
                }
            }
            x = x.wrapping_add(taps.down);
            w = w.wrapping_add(taps.width * channels);
        }
        sums
    }
}

/// `8 · V` channels of all pixels, from channel `at` on.
///
/// # Safety
/// All taps of these channels can be read, and their outputs written.
#[inline(never)]
unsafe fn channels<const V: usize>(at: usize, input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
    let mut channel = at;
    let biases = [(); V].map(|()| {
        channel += LANES;
        [four(blocks.biases, channel - LANES), four(blocks.biases, channel - CHANNELS)]
    });
    let mut x = input.as_ptr().wrapping_add(taps.from + at);
    let w = blocks.kernel.as_ptr().wrapping_add(taps.tap * blocks.channels + at);
    let mut to = output.as_mut_ptr().wrapping_add(at);
    for _ in 0..taps.pixels {
        // SAFETY: the caller's promise.
        unsafe {
            let sums = window::<V>(x, w, taps, blocks.channels);
            for (i, (sums, biases)) in sums.into_iter().zip(biases).enumerate() {
                store_half(to.add(LANES * i), finish(sums, &blocks.finish, biases));
            }
        }
        x = x.wrapping_add(taps.stride);
        to = to.wrapping_add(blocks.channels);
    }
}

/// Outputs of 8 channels of a window.
///
/// # Safety
/// The window lies behind `row`.
#[inline(always)]
unsafe fn pooled(mut row: *const u8, window: &Area, how: &Pooling) -> int8x8_t {
    // SAFETY: the caller's promise.
    unsafe {
        let (mut most, mut sums) = (vdup_n_s8(i8::MIN), vdupq_n_s16(0));
        for _ in 0..window.rows {
            let mut x = row;
            for _ in 0..window.columns {
                let x = load_half(&mut x, window.right);
                match how.kind {
                    PoolKind::Max => most = vmax_s8(most, x),
                    PoolKind::Average(_) => sums = vaddw_s8(sums, x),
                }
            }
            row = row.wrapping_add(window.down);
        }
        let (values, factor) = match how.kind {
            PoolKind::Max if how.keep => return most,
            PoolKind::Max => (vmovl_s8(most), 1),
            PoolKind::Average(factor) => (sums, factor.into()),
        };
        let wide = [vmovl_s16(vget_low_s16(values)), vmovl_high_s16(values)].map(|x| vmulq_n_s32(x, factor));
        finish(wide, &how.finish, [vdupq_n_s32(0); 2])
    }
}

impl Unit for Neon {
    type Stage = Self;
    const STEP: usize = LANES;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        stride(k) * pixels
    }

    fn columns(scratch: &mut [u8]) -> &mut [u8] {
        scratch
    }

    #[inline(never)]
    fn tame(weights: &[u8]) -> bool {
        // Two −128 that meet in one lane lie 8 bytes apart.
        let blocks = weights.len().saturating_sub(LANES) / VECTOR;
        let mut from = weights.as_ptr();
        // SAFETY: each block and 8 bytes more.
        let least = unsafe {
            let mut least = vdupq_n_s8(i8::MAX);
            for _ in 0..blocks {
                let (a, b) = (load(&mut from, LANES), load(&mut from, LANES));
                least = vminq_s8(least, vmaxq_s8(a, b));
            }
            vminvq_s8(least)
        };
        let rest = weights.get(blocks * VECTOR..).unwrap_or(&[]);
        let mut pairs = rest.iter().zip(rest.iter().skip(LANES));
        least > i8::MIN && pairs.all(|(a, b)| (*a as i8).max(*b as i8) > i8::MIN)
    }

    #[inline(never)]
    fn two(columns: &[u8], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        if filters.tame {
            product::<2, 4, true>(columns, filters, [first, second]);
        } else {
            product::<2, 4, false>(columns, filters, [first, second]);
        }
    }

    #[inline(never)]
    fn one(columns: &[u8], filters: &Filters<'_>, outputs: &mut [u8]) {
        product::<1, 8, false>(columns, filters, [outputs]);
    }

    fn depthwise(words: &[u8], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
        let all = blocks.count * CHANNELS;
        let weights = taps.last().map_or(0, |last| last * blocks.channels + all);
        if all < LANES || !taps.fit(blocks, input.len(), output.len()) || weights > blocks.kernel.len() {
            return Portable::depthwise(words, input, taps, blocks, output);
        }
        let mut at = 0;
        while at < all {
            // SAFETY: the ends of everything that is read and written were just checked.
            unsafe {
                if at + 2 * LANES <= all {
                    channels::<2>(at, input, taps, blocks, output);
                    at += 2 * LANES;
                } else {
                    // The last channels take up some of those before: they come out the same.
                    channels::<1>(at.min(all - LANES), input, taps, blocks, output);
                    at += LANES;
                }
            }
        }
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        let len = operands.iter().flatten().map(|x| x.len()).fold(output.len(), usize::min);
        let whole = len - len % LANES;
        let y = output.as_mut_ptr();
        let [a, b] = operands.map(|x| x.map_or(y.cast_const(), <[u8]>::as_ptr));
        for at in (0..whole).step_by(LANES) {
            // SAFETY: both operands and the output have 8 bytes there. One in the output's place is read before it is
            // written.
            unsafe {
                let [a, b] = [a, b].map(|x| vmovl_s8(load_half(&mut x.add(at), 0)));
                let low = vmlal_n_s16(vmull_n_s16(vget_low_s16(a), factors[0]), vget_low_s16(b), factors[1]);
                let high = vmlal_high_n_s16(vmull_high_n_s16(a, factors[0]), b, factors[1]);
                store_half(y.add(at), round([low, high], clamp));
            }
        }
        Portable::add(
            operands.map(|x| x.and_then(|x| x.get(whole..))),
            factors,
            clamp,
            output.get_mut(whole..).unwrap_or_default(),
        );
    }

    fn pool(input: &[u8], window: &Area, how: &Pooling, output: &mut [u8]) {
        // Sums are kept in 16 bits, of less than 256 bytes.
        let last = Area { from: window.from + output.len().saturating_sub(CHANNELS), ..*window };
        let (all, taps) = (output.len(), window.rows * window.columns);
        if all < LANES || taps > 255 || !last.fits(input.len()) {
            return in_fours::<Self>(input, window, how, output);
        }
        let mut at = 0;
        while at < all {
            // The last channels take up some of those before: they come out the same.
            at = at.min(all - LANES);
            // SAFETY: the last place was just checked, and at least 8 channels follow.
            unsafe {
                store_half(output.as_mut_ptr().add(at), pooled(input.as_ptr().add(window.from + at), window, how))
            };
            at += LANES;
        }
    }

    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::max(input, window)
    }

    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::sum(input, window)
    }
}
