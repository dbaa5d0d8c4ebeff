//! Arm's DSP extension (Cortex-M4, M7, R5): two 16-bit products an instruction.
//!
//! `sxtb16` widens bytes 0 and 2 of a word to 16 bits each, and after a rotation bytes 1 and 3. Columns are kept so:
//! every 4 elements are two words, (0, 2) and (1, 3), and those of two pixels alternate. Weights are widened on the way.
#![allow(unsafe_code)]

mod loops;

use core::arch::asm;
use core::mem::MaybeUninit;

use loops::{Ending, Pairs, Row, To, any_wide, one_by_four, three_wide, two_by_two, two_wide, widen};

use shiftwise_core::shape::positive;

use super::finish::{Clamp, Finish};
use super::portable::Portable;
use super::unit::{Area, Blocks, CHANNELS, Columns, Filters, PIXELS, Place, Runs, Taps, Unit};

/// A processor with the DSP extension.
#[derive(Debug)]
pub(super) enum Dsp {}

/// Defines a function for each instruction that computes one register from others.
macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident($($x:ident),*) = $text:literal;)*) => {
        $($(#[$doc])*
        #[inline(always)]
        fn $name($($x: u32),*) -> u32 {
            let y;
            // SAFETY: the instruction reads and writes registers only, and no flag but the sticky Q.
            unsafe {
                asm!($text, y = lateout(reg) y, $($x = in(reg) $x,)* options(pure, nomem, nostack, preserves_flags));
            }
            y
        })*
    };
}

instructions! {
    /// Bytes 0 and 2, sign-extended to 16 bits.
    even(x) = "sxtb16 {y}, {x}";
    /// Bytes 1 and 3, sign-extended to 16 bits.
    odd(x) = "sxtb16 {y}, {x}, ror #8";
    /// Halves plus bytes 0 and 2.
    add_even(sums, x) = "sxtab16 {y}, {sums}, {x}";
    /// Halves plus bytes 1 and 3.
    add_odd(sums, x) = "sxtab16 {y}, {sums}, {x}, ror #8";
    /// acc + both products of halves.
    products(a, b, acc) = "smlad {y}, {a}, {b}, {acc}";
    /// Low halves: a below b.
    low_halves(a, b) = "pkhbt {y}, {a}, {b}, lsl #16";
    /// High halves: a below b.
    high_halves(a, b) = "pkhtb {y}, {b}, {a}, asr #16";
    /// The high half of x · factor, rounded half up.
    high_rounded(x, factor) = "smmulr {y}, {x}, {factor}";
    /// To signed 8 bits.
    to_i8(x) = "ssat {y}, #8, {x}";
    /// To unsigned 7 bits: what int8 holds of ReLU.
    to_u7(x) = "usat {y}, #7, {x}";
}

/// The larger of each pair of signed bytes.
#[inline(always)]
fn max_bytes(a: u32, b: u32) -> u32 {
    let y;
    // SAFETY: registers only; the GE flags that the subtraction sets are read by the selection and by nobody else.
    unsafe {
        asm!("ssub8 {y}, {a}, {b}", "sel {y}, {a}, {b}", y = out(reg) y, a = in(reg) a, b = in(reg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    y
}

/// The way to an output that a layer allows.
#[inline(always)]
fn ending(finish: Finish) -> Option<Ending> {
    match finish {
        Finish::Clamp(clamp) => Ending::of(clamp),
        Finish::General(_) => None,
    }
}

/// The output of a sum: with its bias, unless the layer has a general way to finish.
#[inline(always)]
fn finish(sum: i32, how: &Finish, ending: Option<Ending>, bias: impl Fn() -> i32) -> u8 {
    match (ending, how) {
        (Some(Ending { factor, to: To::U7, .. }), _) => to_u7(high_rounded(sum as u32, factor)) as u8,
        (Some(Ending { factor, to: To::I8, .. }), _) => to_i8(high_rounded(sum as u32, factor)) as u8,
        (_, Finish::Clamp(clamp)) => clamp.of(sum) as u8,
        (_, Finish::General(general)) => general.of(sum, bias()) as u8,
    }
}

/// Filters whose sums are kept until they are finished.
const SUMS: usize = 16;
static ZEROS: [i32; 2] = [0; 2];

/// The output of filter `f` at pixel `which` of `pixels`, by the byte.
#[inline(never)]
fn by_byte(columns: &[u32], pixels: usize, which: usize, filters: &Filters<'_>, f: usize) -> u8 {
    let filter = filters.kernel.get(f * filters.k..).unwrap_or(&[]);
    let mut sum = 0i32;
    for (i, w) in filter.iter().take(filters.k).enumerate() {
        let word = columns.get(i / 4 * 2 * pixels + 2 * which + i % 2).copied().unwrap_or(0);
        let x = if i & 2 == 0 { word as i16 } else { (word >> 16) as i16 };
        sum = sum.wrapping_add(i32::from(x) * i32::from(*w as i8));
    }
    filters.finish.of(sum, filters.biases.get(f)) as u8
}

/// Sums to outputs, two filters of two pixels at a time; a last odd filter takes the first two of four sums, and the
/// third.
#[inline(always)]
fn store_with(sums: &[[i32; 4]], outputs: [&mut [u8]; 2], finish: impl Fn(i32) -> u8) {
    let [first, second] = outputs;
    let ((first, last), (second, other)) = (first.as_chunks_mut::<2>(), second.as_chunks_mut::<2>());
    let mut sums = sums.iter();
    // The sums last: a pair of outputs that is not there must not use them up.
    for ((first, second), sums) in first.iter_mut().zip(second).zip(sums.by_ref()) {
        let [a, b, c, d] = *sums;
        *first = [finish(a), finish(b)];
        *second = [finish(c), finish(d)];
    }
    if let ([last, ..], [other, ..], Some([a, _, b, _])) = (last, other, sums.next()) {
        (*last, *other) = (finish(*a), finish(*b));
    }
}

/// [`store_with`] the layer's way to finish.
fn store(sums: &[[i32; 4]], filters: &Filters<'_>, f: usize, outputs: [&mut [u8]; 2]) {
    match filters.finish {
        Finish::Clamp(clamp) => store_with(sums, outputs, |sum| clamp.of(sum) as u8),
        Finish::General(general) => {
            for (which, out) in outputs.into_iter().enumerate() {
                let sums = sums.iter().flat_map(|sums| sums.iter().skip(2 * which).take(2));
                for ((i, out), sum) in out.iter_mut().enumerate().zip(sums) {
                    *out = general.of(*sum, filters.biases.get(f + i)) as u8;
                }
            }
        }
    }
}

#[inline(never)]
fn tail(rest: &[u8], to: &mut [u32], at: usize) {
    let to = to.get_mut(at..).and_then(|to| to.first_chunk_mut());
    if let Some(to) = to.filter(|_| !rest.is_empty()) {
        let mut word = [0; 4];
        word.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
        let word = u32::from_le_bytes(word);
        *to = [even(word), odd(word)];
    }
}

impl Columns for Dsp {
    type Word = u32;

    #[inline(always)]
    fn put(columns: &mut [u32], to: Place, bytes: &[u8], runs: Runs) {
        let Runs { count, len, step } = runs;
        let (first, words) = (to.at / 4 * 2 * to.pixels + 2 * to.which, len / 4);
        if count > 0 && words > 0 {
            let read = (count - 1) * step + 4 * words;
            let written = first + (count * words - 1) * 2 * to.pixels + 2;
            if read > bytes.len() || written > columns.len() {
                return;
            }
            // SAFETY: as just checked.
            unsafe {
                let (from, to_words) = (bytes.as_ptr(), columns.as_mut_ptr().add(first));
                if to.pixels == PIXELS {
                    widen::<16>(from, words, count, step, to_words);
                } else {
                    widen::<8>(from, words, count, step, to_words);
                }
            }
        }
        if !len.is_multiple_of(4) {
            tail(bytes.get(4 * words..len).unwrap_or(&[]), columns, first + words * 2 * to.pixels);
        }
    }

    fn put_zeros(columns: &mut [u32], to: Place, len: usize) {
        let from = columns.get_mut(to.at / 4 * 2 * to.pixels + 2 * to.which..).unwrap_or_default();
        for pair in from.chunks_mut(positive(2 * to.pixels).get()).take(len.div_ceil(4)) {
            pair.iter_mut().take(2).for_each(|word| *word = 0);
        }
    }
}

/// Bytes of a column, one behind the other.
#[derive(Debug)]
pub(super) enum Bytes {}

impl Columns for Bytes {
    type Word = u8;

    #[inline(always)]
    fn put(columns: &mut [u8], to: Place, bytes: &[u8], runs: Runs) {
        let Runs { count, len, step } = runs;
        if count == 0 || len == 0 || (count - 1) * step + len > bytes.len() || to.at + count * len > columns.len() {
            return;
        }
        // SAFETY: as just checked. Words may be unaligned; the last bytes of each run are copied one by one.
        unsafe {
            asm!(
                "4:",
                "subs {n}, {len}, #4",
                "blo 3f",
                "2:",
                "ldr {w}, [{x}], #4",
                "str {w}, [{y}], #4",
                "subs {n}, {n}, #4",
                "bhs 2b",
                "3:",
                "adds {n}, {n}, #4",
                "beq 6f",
                "5:",
                "ldrb {w}, [{x}], #1",
                "strb {w}, [{y}], #1",
                "subs {n}, {n}, #1",
                "bne 5b",
                "6:",
                "add {x}, {x}, {skip}",
                "subs {runs}, {runs}, #1",
                "bne 4b",
                x = inout(reg) bytes.as_ptr() => _,
                y = inout(reg) columns.as_mut_ptr().add(to.at) => _,
                len = in(reg) len,
                skip = in(reg) step.wrapping_sub(len),
                runs = inout(reg) count => _,
                n = out(reg) _, w = out(reg) _,
                options(nostack),
            );
        }
    }

    fn put_zeros(columns: &mut [u8], to: Place, len: usize) {
        Portable::put_zeros(columns, to, len);
    }
}

impl Unit for Dsp {
    type Stage = Bytes;
    const BY_FOUR: bool = true;
    const STEP: usize = 4;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        // And what aligning may cost.
        k.next_multiple_of(4) * 2 * pixels + 3
    }

    fn columns(scratch: &mut [u8]) -> &mut [u32] {
        // SAFETY: any bits are a `u32`.
        unsafe { scratch.align_to_mut().1 }
    }

    #[inline(never)]
    fn two(columns: &[u32], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        let k = filters.k;
        let (words, beyond) = (k.next_multiple_of(4), k.next_multiple_of(4) - k);
        let all = first.len().min(second.len());
        let Some(columns) = columns.get(..words).filter(|columns| !columns.is_empty()) else { return };
        let whole = filters.whole.min(all);
        let (mut f, ending) = (0, ending(filters.finish));
        while f < whole {
            // The last of an odd number is computed twice. Bytes leave the loop in order, sums by a few.
            let (left, last) = ((whole - f) / 2, [filters.biases.get(f); 2]);
            let (pairs, ending) = match ending {
                Some(ending) if left > 0 => (left, ending),
                _ => (left.min(SUMS / 2), Ending::SUMS),
            };
            let own = match filters.finish {
                Finish::Clamp(_) if pairs == 0 => Some(last.as_ptr()),
                Finish::Clamp(_) => filters.biases.bytes(f, 2 * pairs).map(|bytes| bytes.as_ptr().cast()),
                Finish::General(_) => None,
            };
            let mut sums = [const { MaybeUninit::<[i32; 4]>::uninit() }; SUMS / 2];
            let count = pairs.max(1);
            let to = f..(f + 2 * count).min(whole);
            let (Some(one), Some(two)) = (first.get_mut(to.clone()), second.get_mut(to)) else { return };
            let mut job = Pairs {
                columns: columns.as_ptr(),
                end: columns.as_ptr_range().end,
                start: own.unwrap_or(ZEROS.as_ptr()),
                start_step: if own.is_some() { 8 } else { 0 },
                outputs: match ending.to {
                    To::Sums => [sums.as_mut_ptr().cast(); 2],
                    _ => [one.as_mut_ptr(), two.as_mut_ptr()],
                },
                ending,
                beyond,
                k: if pairs == 0 { 0 } else { k },
                count,
            };
            // SAFETY: the columns are as long as said, there are as many starts as filters, and every filter before
            // `whole` can be read. There are as many outputs, or `count` elements of `sums` are written.
            unsafe {
                two_by_two(&mut job, filters.kernel.as_ptr().add(f * k));
                if ending.to == To::Sums {
                    let sums = core::slice::from_raw_parts(sums.as_ptr().cast::<[i32; 4]>(), count);
                    store(sums, filters, f, [one, two]);
                }
            }
            f += 2 * count;
        }
        for f in whole..all {
            for (which, out) in [&mut *first, &mut *second].into_iter().enumerate() {
                if let Some(out) = out.get_mut(f) {
                    *out = by_byte(columns, 2, which, filters, f);
                }
            }
        }
    }

    fn one(columns: &[u32], filters: &Filters<'_>, outputs: &mut [u8]) {
        let k = filters.k;
        let words = k.next_multiple_of(4) / 2;
        let Some(columns) = columns.get(..words).filter(|columns| !columns.is_empty()) else { return };
        let whole = filters.whole.min(outputs.len());
        let ending = ending(filters.finish);
        let mut f = 0;
        while f < whole {
            // The last filters take up some of those before, or the last is computed again: they come out the same.
            f = f.min(whole.saturating_sub(4));
            let start = match filters.finish {
                Finish::Clamp(_) => filters.biases.four(f),
                Finish::General(_) => [0; 4],
            };
            // SAFETY: every filter before `whole` can be read.
            let sums = unsafe {
                let rows = [0, 1, 2, 3].map(|i| filters.kernel.as_ptr().add((f + i).min(whole - 1) * k));
                one_by_four(columns.as_ptr(), words, rows, start)
            };
            let own = outputs.get_mut(f..whole).unwrap_or_default();
            for ((i, out), sum) in own.iter_mut().enumerate().zip(sums) {
                *out = finish(sum, &filters.finish, ending, || filters.biases.get(f + i));
            }
            f += 4;
        }
        for (f, out) in outputs.iter_mut().enumerate().skip(whole) {
            *out = by_byte(columns, 1, 0, filters, f);
        }
    }

    fn depthwise_bytes(taps: usize, blocks: usize) -> usize {
        8 * taps * blocks + 3
    }

    fn depthwise_weights(words: &mut [u32], kernel: &[u8], channels: usize, blocks: usize) {
        let taps = (kernel.len() + channels.saturating_sub(1)) / positive(channels);
        let end = blocks * CHANNELS + taps.saturating_sub(1) * channels;
        if taps == 0 || end > kernel.len() || 2 * taps * blocks > words.len() {
            return;
        }
        for block in 0..blocks {
            // SAFETY: as just checked.
            unsafe {
                let to = words.as_mut_ptr().add(2 * taps * block);
                widen::<8>(kernel.as_ptr().add(block * CHANNELS), 1, taps, channels, to);
            }
        }
    }

    fn depthwise(words: &[u32], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
        let weights = taps.last().map_or(0, |last| (blocks.count.saturating_sub(1) * blocks.taps + last + 1) * 2);
        if !taps.fit(blocks, input.len(), output.len()) || weights > words.len() {
            // No tap falls on the input.
            for out in output.chunks_mut(positive(blocks.channels).get()).take(taps.pixels) {
                for (block, out) in out.as_chunks_mut().0.iter_mut().take(blocks.count).enumerate() {
                    *out = blocks.finish(block, [0; CHANNELS]);
                }
            }
            return;
        }
        let columns = match (taps.width, taps.columns) {
            (3, 3) => three_wide,
            (3, 2) => two_wide,
            _ => any_wide,
        };
        let ending = ending(blocks.finish);
        let mut row = Row {
            from: input.as_ptr(),
            weights: words.as_ptr(),
            rows: taps.rows,
            to: output.as_mut_ptr(),
            ending: ending.unwrap_or(Ending::SUMS),
            step: blocks.channels,
            stride: taps.stride,
            pixels: taps.pixels,
            skip: [taps.down.wrapping_sub(taps.columns * taps.right), 8 * (taps.width - taps.columns)],
            columns: taps.columns,
            start: [0; CHANNELS],
        };
        for block in 0..blocks.count {
            let channel = block * CHANNELS;
            if let Finish::Clamp(_) = blocks.finish {
                row.start = blocks.biases.four(channel);
            }
            // SAFETY: `fit` has checked the ends of everything that is read and written.
            unsafe {
                row.from = input.as_ptr().add(taps.from + channel);
                row.weights = words.as_ptr().add(2 * (block * blocks.taps + taps.tap));
                let mut to = output.as_mut_ptr().add(channel);
                if ending.is_some() {
                    (row.to, row.pixels) = (to, taps.pixels);
                    columns(&mut row, taps.right, taps.down);
                    continue;
                }
                for _ in 0..taps.pixels {
                    let mut sums = [0; CHANNELS];
                    row.to = sums.as_mut_ptr().cast();
                    columns(&mut row, taps.right, taps.down);
                    let bytes = match blocks.finish {
                        Finish::Clamp(clamp) => sums.map(|sum| clamp.of(sum) as u8),
                        Finish::General(_) => blocks.finish(block, sums),
                    };
                    to.cast::<[u8; CHANNELS]>().write(bytes);
                    row.from = row.from.wrapping_add(taps.stride);
                    to = to.wrapping_add(blocks.channels);
                }
            }
        }
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        let words = operands.iter().flatten().map(|x| x.len()).fold(output.len(), usize::min) / 4;
        let y = output.as_mut_ptr();
        let [a, b] = operands.map(|x| x.map_or(y.cast_const(), <[u8]>::as_ptr));
        let pair = low_halves(factors[0] as u32, factors[1] as u32);
        let to = To::of(clamp);
        let (half, shift) = (1u32 << (clamp.shift & 31), (clamp.shift + 1) & 31);
        for i in 0..words {
            // SAFETY: both operands and the output have 4 bytes at 4 · i. One in the output's place is read
            // before it is written.
            let (a, b) =
                unsafe { (a.add(4 * i).cast::<u32>().read_unaligned(), b.add(4 * i).cast::<u32>().read_unaligned()) };
            let (ae, ao, be, bo) = (even(a), odd(a), even(b), odd(b));
            let (p, q) = (low_halves(ae, be), low_halves(ao, bo));
            let (r, s) = (high_halves(ae, be), high_halves(ao, bo));
            // |sum| is at most 2^22: the rounding bit fits.
            let sum = |x| (products(x, pair, half) as i32 >> shift) as u32;
            let (p, q, r, s) = (sum(p), sum(q), sum(r), sum(s));
            let other = |sum| (sum as i32).max(clamp.low).min(clamp.high) as u8;
            let bytes = match to {
                To::I8 => [to_i8(p) as u8, to_i8(q) as u8, to_i8(r) as u8, to_i8(s) as u8],
                To::U7 => [to_u7(p) as u8, to_u7(q) as u8, to_u7(r) as u8, to_u7(s) as u8],
                _ => [other(p), other(q), other(r), other(s)],
            };
            // SAFETY: as above.
            unsafe { y.add(4 * i).cast::<[u8; 4]>().write(bytes) };
        }
        Portable::add(
            operands.map(|x| x.and_then(|x| x.get(4 * words..))),
            factors,
            clamp,
            output.get_mut(4 * words..).unwrap_or_default(),
        );
    }

    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        let mut most = 0x8080_8080;
        if window.fits(input.len()) {
            // SAFETY: `fits` has checked the last place.
            unsafe { each_word(input, window, |x| most = max_bytes(x, most)) };
        }
        most.to_le_bytes().map(|x| (x as i8).into())
    }

    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        // Sums of bytes are kept in 16 bits, of at most this many.
        const MOST: usize = 256;
        if !window.fits(input.len()) || window.columns > MOST {
            return Portable::sum(input, window);
        }
        let mut sums = [0; CHANNELS];
        let step = MOST / positive(window.columns);
        for first in (0..window.rows).step_by(step) {
            let part = Area { from: window.from + first * window.down, rows: step.min(window.rows - first), ..*window };
            let (mut a, mut b) = (0, 0);
            // SAFETY: a part of what `fits` has checked.
            unsafe {
                each_word(input, &part, |x| {
                    a = add_even(a, x);
                    b = add_odd(b, x);
                });
            }
            let low = |pair: u32| i32::from(pair as i16);
            let part = [low(a), low(b), low(a >> 16), low(b >> 16)];
            sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        sums
    }
}

/// Calls `each` with the 4 bytes at every place of a window.
///
/// # Safety
/// The window fits the input.
#[inline(always)]
unsafe fn each_word(input: &[u8], window: &Area, mut each: impl FnMut(u32)) {
    let mut row = input.as_ptr().wrapping_add(window.from);
    for _ in 0..window.rows {
        let mut x = row;
        for _ in 0..window.columns {
            // SAFETY: the caller's promise.
            each(unsafe { x.cast::<u32>().read_unaligned() });
            x = x.wrapping_add(window.right);
        }
        row = row.wrapping_add(window.down);
    }
}
