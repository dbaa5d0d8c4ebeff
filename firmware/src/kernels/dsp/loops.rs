//! Loops that need every register, in assembly that is the same for Thumb-2 and A32.
#![allow(unsafe_code)]

use core::arch::asm;

use crate::kernels::unit::Taps;

/// Two columns times pairs of filters.
#[repr(C)]
pub(super) struct Pairs {
    /// Both columns, from 4 words on, a multiple of 4.
    pub(super) columns: *const u32,
    pub(super) end: *const u32,
    /// Where the sums begin, two for each pair; not necessarily aligned.
    pub(super) start: *const i32,
    /// Four sums of each pair: two of the first column, two of the second.
    pub(super) sums: *mut i32,
    /// Bytes read of a filter beyond its end.
    pub(super) beyond: usize,
    /// Bytes from a filter to the next.
    pub(super) k: usize,
    /// Pairs, at least 1.
    pub(super) count: usize,
}

/// # Safety
/// Every pointer of `pairs` is good for what is said there, `columns` is aligned, and of every filter from `filters` on
/// as many bytes can be read as the columns have words.
pub(super) unsafe fn two_by_two(pairs: &mut Pairs, filters: *const u8) {
    // SAFETY: `pairs` tells where each loop ends; loads of weights and starts may be unaligned. Registers that a compiler
    // does not give away, and the place of `pairs`, are kept on the stack.
    unsafe {
        asm!(
            "push {{r0, r6, r7, r11}}",
            "4:",
            "ldr lr, [sp]",
            "ldr r10, [lr, #8]",
            "ldr r4, [r10], #4",
            "ldr r5, [r10], #4",
            "str r10, [lr, #8]",
            "ldm lr, {{r0, r3}}",
            "mov r8, r4",
            "mov r9, r5",
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
            "ldr lr, [sp]",
            "ldr r0, [lr, #12]",
            "stm r0!, {{r4, r5, r8, r9}}",
            "str r0, [lr, #12]",
            // The next pair begins where the second filter ended.
            "ldrd r6, r7, [lr, #16]",
            "sub r1, r2, r6",
            "add r2, r1, r7",
            "ldr r0, [lr, #24]",
            "subs r0, r0, #1",
            "str r0, [lr, #24]",
            "bne 4b",
            "pop {{r0, r6, r7, r11}}",
            in("r0") &raw mut *pairs,
            inout("r1") filters => _,
            inout("r2") filters.add(pairs.k) => _,
            out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r12") _, out("lr") _,
        );
    }
}

/// One column times four filters: `words` words of the column, an even number, at least 2, and twice as many bytes of
/// each filter.
///
/// # Safety
/// All of that can be read, and `column` is aligned to 4 bytes.
pub(super) unsafe fn one_by_four(
    column: *const u32,
    words: usize,
    filters: [*const u8; 4],
    start: [i32; 4],
) -> [i32; 4] {
    let [mut a, mut b, mut c, mut d] = start;
    // SAFETY: the loop ends when the column does; loads of weights may be unaligned. Registers that a compiler does not
    // give away are saved.
    unsafe {
        asm!(
            "push {{r6, r7, r11}}",
            "mov r11, lr",
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
            "ldr r10, [r3], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r8, r7, lr, r8",
            "smlad r8, r6, r10, r8",
            "ldr r10, [r12], #4",
            "sxtb16 lr, r10, ror #8",
            "sxtb16 r10, r10",
            "smlad r9, r7, lr, r9",
            "smlad r9, r6, r10, r9",
            "cmp r0, r11",
            "bne 2b",
            "pop {{r6, r7, r11}}",
            inout("r0") column => _,
            inout("r1") filters[0] => _,
            inout("r2") filters[1] => _,
            inout("r3") filters[2] => _,
            inout("r12") filters[3] => _,
            inout("lr") column.add(words) => _,
            inout("r4") a, inout("r5") b, inout("r8") c, inout("r9") d,
            out("r10") _,
            options(readonly),
        );
    }
    [a, b, c, d]
}

/// Widens runs of `words` words each to pairs of words, the pairs `STEP` bytes apart.
///
/// # Safety
/// All runs can be read, and every pair written; there is a word.
#[inline(always)]
pub(super) unsafe fn widen<const STEP: usize>(from: *const u8, words: usize, runs: usize, step: usize, to: *mut u32) {
    // SAFETY: the caller's promise; bytes may be unaligned.
    unsafe {
        asm!(
            "4:",
            // An odd number of words begins in the middle.
            "mov {n}, {words}",
            "lsls r4, {n}, #31",
            "bmi 3f",
            "2:",
            "ldr r4, [{x}], #4",
            "sxtb16 r5, r4, ror #8",
            "sxtb16 r4, r4",
            "strd r4, r5, [{y}], #{step}",
            "3:",
            "ldr r4, [{x}], #4",
            "sxtb16 r5, r4, ror #8",
            "sxtb16 r4, r4",
            "strd r4, r5, [{y}], #{step}",
            "subs {n}, {n}, #2",
            "bgt 2b",
            "add {x}, {x}, {skip}",
            "subs {runs}, {runs}, #1",
            "bne 4b",
            x = inout(reg) from => _,
            y = inout(reg) to => _,
            words = in(reg) words,
            skip = in(reg) step.wrapping_sub(4 * words),
            runs = inout(reg) runs => _,
            n = out(reg) _, out("r4") _, out("r5") _,
            step = const STEP,
            options(nostack),
        );
    }
}

/// Sums of four channels over a window: whole rows of a kernel with 3 columns. A compiler would spread the taps over more registers than there
/// are.
///
/// # Safety
/// As there; at least one row.
#[inline(always)]
pub(super) unsafe fn three_wide(from: *const u8, weights: *const u32, taps: &Taps, sums: [u32; 4]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = sums;
    // SAFETY: the caller's promise; input bytes may be unaligned, weights are not. Registers that a compiler does not
    // give away are saved.
    unsafe {
        asm!(
            "push {{r6, r7, r11}}",
            "2:",
            "ldr r6, [r0]",
            "ldrd r10, r11, [r1]",
            "sxtb16 r7, r6, ror #8",
            "sxtb16 r6, r6",
            "smlabb r4, r6, r10, r4",
            "smlabb r5, r7, r11, r5",
            "smlatt r8, r6, r10, r8",
            "smlatt r9, r7, r11, r9",
            "ldr r6, [r0, r3]",
            "ldrd r10, r11, [r1, #8]",
            "sxtb16 r7, r6, ror #8",
            "sxtb16 r6, r6",
            "smlabb r4, r6, r10, r4",
            "smlabb r5, r7, r11, r5",
            "smlatt r8, r6, r10, r8",
            "smlatt r9, r7, r11, r9",
            "ldr r6, [r0, r3, lsl #1]",
            "ldrd r10, r11, [r1, #16]",
            "sxtb16 r7, r6, ror #8",
            "sxtb16 r6, r6",
            "smlabb r4, r6, r10, r4",
            "smlabb r5, r7, r11, r5",
            "smlatt r8, r6, r10, r8",
            "smlatt r9, r7, r11, r9",
            "add r0, r0, r12",
            "add r1, r1, #24",
            "subs r2, r2, #1",
            "bne 2b",
            "pop {{r6, r7, r11}}",
            inout("r0") from => _,
            inout("r1") weights => _,
            inout("r2") taps.rows => _,
            in("r3") taps.right,
            in("r12") taps.down,
            inout("r4") a, inout("r5") b, inout("r8") c, inout("r9") d,
            out("r10") _,
            options(readonly),
        );
    }
    [a, b, c, d]
}
