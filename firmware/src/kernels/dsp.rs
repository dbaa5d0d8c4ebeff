//! Arm's DSP extension (Cortex-M4, M7, R5): two 16-bit products an instruction.
//!
//! `sxtb16` widens bytes 0 and 2 of a word to 16 bits each, and after a rotation bytes 1 and 3. Columns are kept so:
//! every 4 elements are two words, (0, 2) and (1, 3), and those of two pixels alternate. Weights are widened on the way.
#![allow(unsafe_code)]

use core::arch::asm;

use super::finish::{Clamp, Finish};
use super::portable::Portable;
use super::unit::{Filters, PIXELS, Taps, Unit};

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
    /// acc + low half · low half.
    low_product(a, b, acc) = "smlabb {y}, {a}, {b}, {acc}";
    /// acc + high half · high half.
    high_product(a, b, acc) = "smlatt {y}, {a}, {b}, {acc}";
    /// acc + both products of halves.
    products(a, b, acc) = "smlad {y}, {a}, {b}, {acc}";
    /// Low halves: a below b.
    low_halves(a, b) = "pkhbt {y}, {a}, {b}, lsl #16";
    /// High halves: a below b.
    high_halves(a, b) = "pkhtb {y}, {b}, {a}, asr #16";
    /// a + b, saturated.
    add_saturated(a, b) = "qadd {y}, {a}, {b}";
    /// To signed 8 bits.
    to_i8(x) = "ssat {y}, #8, {x}";
    /// To unsigned 7 bits: what int8 holds of ReLU.
    to_u7(x) = "usat {y}, #7, {x}";
    /// Half, to signed 8 bits.
    half_to_i8(x) = "ssat {y}, #8, {x}, asr #1";
    /// Half, to unsigned 7 bits.
    half_to_u7(x) = "usat {y}, #7, {x}, asr #1";
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

/// What a [`Clamp`] does, told apart once per layer.
#[derive(Clone, Copy)]
enum Range {
    I8,
    U7,
    Other,
}

impl Range {
    fn of(clamp: Clamp) -> Self {
        match (clamp.low, clamp.high) {
            (-128, 127) => Self::I8,
            (0, 127) => Self::U7,
            _ => Self::Other,
        }
    }
}

/// [`Clamp::of`]: the addition of the rounding bit can only overflow upwards, where saturation gives the same.
#[inline(always)]
fn finish<const N: usize>(sums: [i32; N], clamp: Clamp, range: Range) -> [u8; N] {
    let round = |sum: i32| add_saturated((sum >> (clamp.shift & 31)) as u32, 1);
    match range {
        Range::I8 => sums.map(|sum| half_to_i8(round(sum)) as u8),
        Range::U7 => sums.map(|sum| half_to_u7(round(sum)) as u8),
        Range::Other => sums.map(|sum| (half_to_i8(round(sum)) as i32).clamp(clamp.low, clamp.high) as u8),
    }
}

/// Two columns times two filters, `words` words of both columns together, at least 4.
///
/// # Safety
/// `columns` is aligned to 4 bytes and points at `words` words, a multiple of 4; each filter at `words` bytes.
#[inline(always)]
unsafe fn two_by_two(columns: *const u32, words: usize, filters: [*const u8; 2], start: [i32; 2]) -> [[i32; 2]; 2] {
    let [bias, other] = start;
    let (mut a, mut b, mut c, mut d) = (bias, other, bias, other);
    // SAFETY: the loop ends when the columns do; each step reads 4 bytes of each filter, which may be unaligned. The
    // registers that a compiler does not give away are saved.
    unsafe {
        asm!(
            "push {{r6, r7, r11}}",
            // An odd number of steps begins in the middle.
            "sub r6, r3, r0",
            "lsls r6, r6, #27",
            "bmi 3f",
            "2:",
            "ldm r0!, {{r6, r7, r11, r12}}",
            "ldr r10, [r1], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r4, r7, lr, r4",
            "smlad r8, r12, lr, r8",
            "smlad r4, r6, r10, r4",
            "smlad r8, r11, r10, r8",
            "ldr r10, [r2], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r5, r7, lr, r5",
            "smlad r9, r12, lr, r9",
            "smlad r5, r6, r10, r5",
            "smlad r9, r11, r10, r9",
            "3:",
            "ldm r0!, {{r6, r7, r11, r12}}",
            "ldr r10, [r1], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r4, r7, lr, r4",
            "smlad r8, r12, lr, r8",
            "smlad r4, r6, r10, r4",
            "smlad r8, r11, r10, r8",
            "ldr r10, [r2], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r5, r7, lr, r5",
            "smlad r9, r12, lr, r9",
            "smlad r5, r6, r10, r5",
            "smlad r9, r11, r10, r9",
            "cmp r0, r3",
            "bne 2b",
            "pop {{r6, r7, r11}}",
            inout("r0") columns => _,
            inout("r1") filters[0] => _,
            inout("r2") filters[1] => _,
            in("r3") columns.add(words),
            inout("r4") a, inout("r5") b, inout("r8") c, inout("r9") d,
            out("r10") _, out("r12") _, out("lr") _,
            options(readonly),
        );
    }
    [[a, b], [c, d]]
}

/// One column times two filters: as [`two_by_two`], with `words` an even number, at least 2, and twice as many bytes of
/// each filter.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn one_by_two(column: *const u32, words: usize, filters: [*const u8; 2], start: [i32; 2]) -> [i32; 2] {
    let [mut a, mut b] = start;
    // SAFETY: as in `two_by_two`.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "sub r6, r3, r0",
            "lsls r6, r6, #28",
            "bmi 3f",
            "2:",
            "ldm r0!, {{r6, r7}}",
            "ldr r10, [r1], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r4, r7, lr, r4",
            "smlad r4, r6, r10, r4",
            "ldr r10, [r2], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r5, r7, lr, r5",
            "smlad r5, r6, r10, r5",
            "3:",
            "ldm r0!, {{r6, r7}}",
            "ldr r10, [r1], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r4, r7, lr, r4",
            "smlad r4, r6, r10, r4",
            "ldr r10, [r2], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r5, r7, lr, r5",
            "smlad r5, r6, r10, r5",
            "cmp r0, r3",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") column => _,
            inout("r1") filters[0] => _,
            inout("r2") filters[1] => _,
            in("r3") column.add(words),
            inout("r4") a, inout("r5") b,
            out("r10") _, out("lr") _,
            options(readonly),
        );
    }
    [a, b]
}

/// Filters times `P` columns.
fn product<const P: usize>(columns: &[u32], filters: &Filters<'_>, mut outputs: [&mut [u8]; P]) {
    let k = filters.k;
    let words = k.div_ceil(4) * 2 * P;
    let count = outputs.iter().map(|out| out.len()).min().unwrap_or(0);
    let Some(columns) = columns.get(..words).filter(|columns| !columns.is_empty()) else { return };
    // Filters are read in steps of 4 bytes. What is read of the next one meets zeros; behind the last ones there may be
    // nothing to read.
    let whole = match filters.kernel.len().checked_sub(k.next_multiple_of(4)) {
        Some(rest) => (rest / k + 1).min(count),
        None => 0,
    };
    let (kind, clamp) = match filters.finish {
        Finish::Clamp(clamp) => (Some(Range::of(clamp)), clamp),
        Finish::General(_) => (None, Clamp { shift: 0, low: 0, high: 0 }),
    };
    let targets = outputs.each_mut().map(|out| out.as_mut_ptr());
    let mut f = 0;
    while f < whole {
        // The last of an odd number is computed twice.
        let next = if f + 1 < whole { f + 1 } else { f };
        let biases = [filters.biases.get(f), filters.biases.get(next)];
        let start = if kind.is_some() { biases } else { [0; 2] };
        // SAFETY: both filters begin at least `k` rounded up to 4 bytes before the kernel's end, and `columns` holds
        // `words` words.
        let sums: [[i32; 2]; P] = unsafe {
            let base = filters.kernel.as_ptr();
            let rows = [base.add(f * k), base.add(next * k)];
            let mut sums = [[0; 2]; P];
            if P == 1 {
                sums[0] = one_by_two(columns.as_ptr(), words, rows, start);
            } else {
                sums.copy_from_slice(&two_by_two(columns.as_ptr(), words, rows, start));
            }
            sums
        };
        for (sums, target) in sums.into_iter().zip(targets) {
            let [a, b] = match (kind, filters.finish) {
                (None, Finish::General(general)) => {
                    [general.of(sums[0], biases[0]) as u8, general.of(sums[1], biases[1]) as u8]
                }
                (Some(kind), _) => finish(sums, clamp, kind),
                _ => [0; 2],
            };
            // SAFETY: `f <= next < count`, and every output has that many bytes.
            unsafe {
                target.add(f).write(a);
                target.add(next).write(b);
            }
        }
        f += 2;
    }
    for f in whole..count {
        let filter = filters.kernel.get(f * k..).unwrap_or(&[]);
        for (pixel, out) in outputs.iter_mut().enumerate() {
            let mut sum = 0i32;
            for (i, w) in filter.iter().take(k).enumerate() {
                let word = columns.get(i / 4 * 2 * P + 2 * pixel + i % 2).copied().unwrap_or(0);
                let x = if i & 2 == 0 { word as i16 } else { (word >> 16) as i16 };
                sum = sum.wrapping_add(i32::from(x) * i32::from(*w as i8));
            }
            if let Some(out) = out.get_mut(f) {
                *out = filters.finish.of(sum, filters.biases.get(f)) as u8;
            }
        }
    }
}

/// Widens `bytes` to pairs of words, the pairs `STEP` bytes apart; a last step that is not full ends with zeros.
#[inline(always)]
fn widen<const STEP: usize>(bytes: &[u8], to: &mut [u32]) {
    let (words, rest) = bytes.as_chunks::<4>();
    let Some(last) = words.len().checked_sub(1) else { return tail(rest, to, 0) };
    if last * (STEP / 4) + 2 > to.len() {
        return;
    }
    // SAFETY: the words are read once each, and the last pair still lies inside `to`.
    unsafe {
        asm!(
            "2:",
            "ldr {w}, [{x}], #4",
            "sxtb16 {o}, {w}, ror #8",
            "sxtb16 {w}, {w}",
            "str {o}, [{y}, #4]",
            "str {w}, [{y}], #{step}",
            "cmp {x}, {end}",
            "bne 2b",
            x = inout(reg) words.as_ptr() => _,
            y = inout(reg) to.as_mut_ptr() => _,
            end = in(reg) words.as_ptr().add(words.len()),
            w = out(reg) _, o = out(reg) _,
            step = const STEP,
            options(nostack),
        );
    }
    tail(rest, to, words.len() * (STEP / 4));
}

fn tail(rest: &[u8], to: &mut [u32], at: usize) {
    if let Some(to) = to.get_mut(at..at + 2).filter(|_| !rest.is_empty()) {
        let mut word = [0; 4];
        word.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
        let word = u32::from_le_bytes(word);
        to.copy_from_slice(&[even(word), odd(word)]);
    }
}

impl Unit for Dsp {
    type Word = u32;
    const BY_FOUR: bool = true;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        // And what aligning may cost.
        k.next_multiple_of(4) * 2 * pixels + 3
    }

    fn columns(scratch: &mut [u8]) -> &mut [u32] {
        // SAFETY: any bits are a `u32`.
        unsafe { scratch.align_to_mut().1 }
    }

    fn put(columns: &mut [u32], _: usize, pixels: usize, which: usize, at: usize, bytes: &[u8]) {
        let to = columns.get_mut(at / 4 * 2 * pixels + 2 * which..).unwrap_or_default();
        if pixels == PIXELS { widen::<16>(bytes, to) } else { widen::<8>(bytes, to) }
    }

    fn put_zeros(columns: &mut [u32], _: usize, pixels: usize, which: usize, at: usize, len: usize) {
        let from = columns.get_mut(at / 4 * 2 * pixels + 2 * which..).unwrap_or_default();
        for pair in from.chunks_mut(2 * pixels).take(len.div_ceil(4)) {
            pair.iter_mut().take(2).for_each(|word| *word = 0);
        }
    }

    fn two(columns: &[u32], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        product(columns, filters, [first, second]);
    }

    fn one(columns: &[u32], filters: &Filters<'_>, outputs: &mut [u8]) {
        product(columns, filters, [outputs]);
    }

    fn depthwise_bytes(taps: usize) -> usize {
        8 * taps + 3
    }

    fn depthwise_weights(words: &mut [u32], kernel: &[u8], channels: usize) {
        for (to, tap) in words.as_chunks_mut::<2>().0.iter_mut().zip(kernel.chunks(channels)) {
            let word = u32::from_le_bytes(tap.first_chunk().copied().unwrap_or_default());
            *to = [even(word), odd(word)];
        }
    }

    #[inline(always)]
    fn depthwise(words: &[u32], input: &[u8], taps: &Taps<'_>, sums: [i32; 4]) -> [i32; 4] {
        let Taps { rows, columns, from, down, right, width, tap, .. } = *taps;
        if rows == 0 || columns == 0 {
            return sums;
        }
        let last = from + (rows - 1) * down + (columns - 1) * right + 4;
        let weights = 2 * (tap + (rows - 1) * width + columns);
        if last > input.len() || weights > words.len() {
            return sums;
        }
        let mut sums = sums.map(|sum| sum as u32);
        // SAFETY: the last tap's bytes and weights are inside, and all others lie before them.
        unsafe {
            let (mut x, mut w) = (input.as_ptr().add(from), words.as_ptr().add(2 * tap));
            for row in 0..rows {
                if row > 0 {
                    x = x.add(down);
                    w = w.add(2 * width);
                }
                if columns == 3 {
                    for column in 0..3 {
                        sums = one_tap(x.add(column * right), w.add(2 * column), sums);
                    }
                    continue;
                }
                let (mut x, mut w) = (x, w);
                sums = one_tap(x, w, sums);
                for _ in 1..columns {
                    x = x.add(right);
                    w = w.add(2);
                    sums = one_tap(x, w, sums);
                }
            }
        }
        sums.map(|sum| sum as i32)
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        let words = operands.iter().flatten().map(|x| x.len()).fold(output.len(), usize::min) / 4;
        let y = output.as_mut_ptr();
        let [a, b] = operands.map(|x| x.map_or(y.cast_const(), <[u8]>::as_ptr));
        let pair = low_halves(factors[0] as u32, factors[1] as u32);
        let (half, shift) = (1u32 << (clamp.shift & 31), (clamp.shift + 1) & 31);
        let range = Range::of(clamp);
        for i in 0..words {
            // SAFETY: both operands and the output have 4 bytes at 4 · i. One in the output's place is read
            // before it is written.
            let (a, b) =
                unsafe { (a.add(4 * i).cast::<u32>().read_unaligned(), b.add(4 * i).cast::<u32>().read_unaligned()) };
            let (ae, ao, be, bo) = (even(a), odd(a), even(b), odd(b));
            let pairs = [low_halves(ae, be), low_halves(ao, bo), high_halves(ae, be), high_halves(ao, bo)];
            // |sum| is at most 2^22: the rounding bit fits.
            let sums = pairs.map(|x| (products(x, pair, half) as i32 >> shift) as u32);
            let bytes = match range {
                Range::I8 => sums.map(|sum| to_i8(sum) as u8),
                Range::U7 => sums.map(|sum| to_u7(sum) as u8),
                Range::Other => sums.map(|sum| (sum as i32).clamp(clamp.low, clamp.high) as u8),
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

    fn max(input: &[u8], output: &mut [u8]) {
        let (to, rest) = output.as_chunks_mut::<4>();
        let (from, last) = input.as_chunks::<4>();
        for (y, x) in to.iter_mut().zip(from) {
            *y = max_bytes(u32::from_le_bytes(*y), u32::from_le_bytes(*x)).to_le_bytes();
        }
        Portable::max(last, rest);
    }
}

/// Four channels of one tap.
///
/// # Safety
/// 4 bytes at `x` and 2 words at `w` can be read.
#[inline(always)]
unsafe fn one_tap(x: *const u8, w: *const u32, sums: [u32; 4]) -> [u32; 4] {
    // SAFETY: the caller's promise.
    let (x, we, wo) = unsafe { (x.cast::<u32>().read_unaligned(), w.read(), w.add(1).read()) };
    let (xe, xo) = (even(x), odd(x));
    let [a, b, c, d] = sums;
    [low_product(xe, we, a), low_product(xo, wo, b), high_product(xe, we, c), high_product(xo, wo, d)]
}
