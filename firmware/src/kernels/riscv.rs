//! RISC-V with multiplication: registers enough for two columns times four filters, where a compiler would spill.
#![allow(unsafe_code)]

use core::arch::asm;

use super::finish::Clamp;
use super::portable::Portable;
use super::unit::{Area, Blocks, CHANNELS, Columns, Filters, Place, Runs, Taps, Unit};

/// A 32-bit processor with the M extension.
#[derive(Debug)]
pub(super) enum RiscV {}

/// Filters at a time.
const FILTERS: usize = 4;

/// Products of the element at an offset from every pointer.
macro_rules! element {
    ($offset:literal) => {
        concat!(
            "lb {x}, ",
            $offset,
            "({c})\n",
            "lb {y}, ",
            $offset,
            "({d})\n",
            "lb {v}, ",
            $offset,
            "({f0})\n",
            "lb {w}, ",
            $offset,
            "({f1})\n",
            "mul {t}, {x}, {v}\n",
            "mul {v}, {y}, {v}\n",
            "add {a0}, {a0}, {t}\n",
            "add {b0}, {b0}, {v}\n",
            "mul {t}, {x}, {w}\n",
            "mul {w}, {y}, {w}\n",
            "add {a1}, {a1}, {t}\n",
            "add {b1}, {b1}, {w}\n",
            "lb {v}, ",
            $offset,
            "({f2})\n",
            "lb {w}, ",
            $offset,
            "({f3})\n",
            "mul {t}, {x}, {v}\n",
            "mul {v}, {y}, {v}\n",
            "add {a2}, {a2}, {t}\n",
            "add {b2}, {b2}, {v}\n",
            "mul {t}, {x}, {w}\n",
            "mul {w}, {y}, {w}\n",
            "add {a3}, {a3}, {t}\n",
            "add {b3}, {b3}, {w}",
        )
    };
}

/// Moves every pointer on.
macro_rules! advance {
    ($step:literal) => {
        concat!(
            "addi {c}, {c}, ",
            $step,
            "\n",
            "addi {d}, {d}, ",
            $step,
            "\n",
            "addi {f0}, {f0}, ",
            $step,
            "\n",
            "addi {f1}, {f1}, ",
            $step,
            "\n",
            "addi {f2}, {f2}, ",
            $step,
            "\n",
            "addi {f3}, {f3}, ",
            $step,
        )
    };
}

/// Sums of products of two columns with four filters.
///
/// # Safety
/// `k` bytes of each can be read.
#[inline(always)]
unsafe fn dots(columns: [*const u8; 2], filters: [*const u8; FILTERS], k: usize) -> [[i32; FILTERS]; 2] {
    let [mut a, mut b] = [[0i32; FILTERS]; 2];
    // SAFETY: the caller's promise; both loops end with the column.
    unsafe {
        asm!(
            "beq {c}, {whole}, 3f",
            "2:",
            element!("0"),
            element!("1"),
            element!("2"),
            element!("3"),
            advance!("4"),
            "bne {c}, {whole}, 2b",
            "3:",
            "beq {c}, {end}, 5f",
            "4:",
            element!("0"),
            advance!("1"),
            "bne {c}, {end}, 4b",
            "5:",
            c = inout(reg) columns[0] => _, d = inout(reg) columns[1] => _,
            f0 = inout(reg) filters[0] => _, f1 = inout(reg) filters[1] => _,
            f2 = inout(reg) filters[2] => _, f3 = inout(reg) filters[3] => _,
            whole = in(reg) columns[0].add(k & !3), end = in(reg) columns[0].add(k),
            a0 = inout(reg) a[0], a1 = inout(reg) a[1], a2 = inout(reg) a[2], a3 = inout(reg) a[3],
            b0 = inout(reg) b[0], b1 = inout(reg) b[1], b2 = inout(reg) b[2], b3 = inout(reg) b[3],
            x = out(reg) _, y = out(reg) _, v = out(reg) _, w = out(reg) _, t = out(reg) _,
            options(readonly, nostack),
        );
    }
    [a, b]
}

/// Sums of four channels over a depthwise window.
///
/// # Safety
/// The window's taps lie behind `x`, its weights behind `w`.
#[inline(always)]
unsafe fn window(mut x: *const u8, mut w: *const u8, taps: &Taps, channels: usize) -> [i32; CHANNELS] {
    let mut sums = [0i32; CHANNELS];
    for _ in 0..taps.rows {
        let (mut tap, mut weights) = (x, w);
        for _ in 0..taps.columns {
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise. Four bytes at once would be widened one by one.
                let (x, w) = unsafe { (tap.add(i).cast::<i8>().read(), weights.add(i).cast::<i8>().read()) };
                *sum = sum.wrapping_add(i32::from(x) * i32::from(w));
            }
            tap = tap.wrapping_add(taps.right);
            weights = weights.wrapping_add(channels);
        }
        x = x.wrapping_add(taps.down);
        w = w.wrapping_add(taps.width * channels);
    }
    sums
}

impl Columns for RiscV {
    type Word = u8;

    #[inline(always)]
    fn put(columns: &mut [u8], to: Place, bytes: &[u8], runs: Runs) {
        Portable::put(columns, to, bytes, runs);
    }

    fn put_zeros(columns: &mut [u8], to: Place, len: usize) {
        Portable::put_zeros(columns, to, len);
    }
}

impl Unit for RiscV {
    type Stage = Self;
    const STEP: usize = 1;

    fn column_bytes(k: usize, pixels: usize) -> usize {
        Portable::column_bytes(k, pixels)
    }

    fn columns(scratch: &mut [u8]) -> &mut [u8] {
        scratch
    }

    #[inline(never)]
    fn two(columns: &[u8], filters: &Filters<'_>, first: &mut [u8], second: &mut [u8]) {
        let (k, count) = (filters.k, first.len().min(second.len()));
        let Some(last) =
            count.checked_sub(FILTERS).filter(|_| columns.len() >= 2 * k && filters.kernel.len() >= count * k)
        else {
            return Portable::two(columns, filters, first, second);
        };
        let mut f = 0;
        while f < count {
            // The last filters take up some of those before: they come out the same.
            f = f.min(last);
            // SAFETY: as just checked.
            let sums = unsafe {
                let start = filters.kernel.as_ptr().add(f * k);
                dots([columns.as_ptr(), columns.as_ptr().add(k)], [0, 1, 2, 3].map(|i| start.wrapping_add(i * k)), k)
            };
            let biases = filters.biases.four(f);
            for (out, sums) in [&mut *first, &mut *second].into_iter().zip(sums) {
                let Some(out) = out.get_mut(f..f + FILTERS) else { continue };
                for ((out, sum), bias) in out.iter_mut().zip(sums).zip(biases) {
                    *out = filters.finish.of(sum, bias) as u8;
                }
            }
            f += FILTERS;
        }
    }

    #[inline(never)]
    fn one(columns: &[u8], filters: &Filters<'_>, outputs: &mut [u8]) {
        Portable::one(columns, filters, outputs);
    }

    fn depthwise(words: &[u8], input: &[u8], taps: &Taps, blocks: &Blocks<'_>, output: &mut [u8]) {
        let all = blocks.count * CHANNELS;
        let weights = taps.last().map_or(0, |last| last * blocks.channels + all);
        if !taps.fit(blocks, input.len(), output.len()) || weights > blocks.kernel.len() {
            return Portable::depthwise(words, input, taps, blocks, output);
        }
        for channel in (0..all).step_by(CHANNELS) {
            let biases = blocks.biases.four(channel);
            let mut x = input.as_ptr().wrapping_add(taps.from + channel);
            let w = blocks.kernel.as_ptr().wrapping_add(taps.tap * blocks.channels + channel);
            let mut to = output.as_mut_ptr().wrapping_add(channel);
            for _ in 0..taps.pixels {
                // SAFETY: the ends of everything that is read and written were just checked.
                unsafe {
                    let sums = window(x, w, taps, blocks.channels);
                    for (i, (sum, bias)) in sums.into_iter().zip(biases).enumerate() {
                        to.add(i).write(blocks.finish.of(sum, bias) as u8);
                    }
                }
                x = x.wrapping_add(taps.stride);
                to = to.wrapping_add(blocks.channels);
            }
        }
    }

    fn add(operands: [Option<&[u8]>; 2], factors: [i16; 2], clamp: Clamp, output: &mut [u8]) {
        Portable::add(operands, factors, clamp, output);
    }

    fn max(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::max(input, window)
    }

    fn sum(input: &[u8], window: &Area) -> [i32; CHANNELS] {
        Portable::sum(input, window)
    }
}
