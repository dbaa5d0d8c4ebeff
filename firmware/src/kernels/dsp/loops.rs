//! Loops that need every register, in assembly that is the same for Thumb-2 and A32.
#![allow(unsafe_code)]

use core::arch::asm;

use crate::kernels::finish::Clamp;

/// How sums become bytes: their product with `factor` divided by 2^32, rounded half up, saturated.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Ending {
    /// 2^(32 − shift), for shifts from 2 on.
    pub(super) factor: u32,
    pub(super) to: To,
    /// For [`To::Capped`] 127 less the greatest byte, for [`To::Leaking`] what the factor of negative sums has more.
    pub(super) more: i32,
}

/// What a loop leaves behind.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// Bytes up to 127, none negative.
    U7 = 0,
    /// Signed bytes.
    I8 = 1,
    /// The sums, 32 bits each.
    Sums = 2,
    /// Bytes up to a greatest one, none negative.
    Capped = 3,
    /// Signed bytes; negative sums have a factor of their own.
    Leaking = 4,
}

impl Ending {
    /// None of bytes.
    pub(super) const SUMS: Self = Self { factor: 0, to: To::Sums, more: 0 };

    /// What gives the same as [`Clamp::of`]; `None` where only that does.
    pub(super) fn of(clamp: Clamp) -> Option<Self> {
        let shift = clamp.shift + 1;
        let factor = 1 << 32u32.checked_sub(shift).filter(|bits| *bits < 31)?;
        let (to, more) = match To::of(clamp) {
            // 26/256, within the same rounding.
            To::Leaking => (To::Leaking, (26 << 24u32.checked_sub(shift)?) - factor),
            to => (to, 127 - clamp.high),
        };
        (to != To::Sums).then_some(Self { factor: factor as u32, to, more })
    }
}

impl To {
    /// The bytes that a clamp leaves; [`To::Sums`] for those that none of these are.
    pub(super) fn of(clamp: Clamp) -> Self {
        match (clamp.low, clamp.high) {
            (-128, 127) if clamp.leak => Self::Leaking,
            (0, 127) => Self::U7,
            (0, _) => Self::Capped,
            (-128, 127) => Self::I8,
            _ => Self::Sums,
        }
    }
}

/// Four sums in r4, r5, r8 and r9 to bytes, as the [`Ending`] says that lies at this offset from lr. Goes on with what
/// follows, or at 3 with the sums; of other registers r0, r6 and r7 change.
macro_rules! to_bytes {
    ($offset:literal) => {
        concat!(
            "ldrd r6, r7, [lr, #",
            $offset,
            "]\n",
            "cmp r7, #1\n",
            "bhi 7f\n",
            "smmulr r4, r4, r6\n",
            "smmulr r5, r5, r6\n",
            "smmulr r8, r8, r6\n",
            "smmulr r9, r9, r6\n",
            "beq 6f\n",
            "usat r4, #7, r4\n",
            "usat r5, #7, r5\n",
            "usat r8, #7, r8\n",
            "usat r9, #7, r9\n",
            "5:\n",
        )
    };
}

/// The rarer ways of [`to_bytes`], to be put aside.
macro_rules! other_bytes {
    ($offset:literal) => {
        concat!(
            "6:\n",
            "ssat r4, #8, r4\n",
            "ssat r5, #8, r5\n",
            "ssat r8, #8, r8\n",
            "ssat r9, #8, r9\n",
            "b 5b\n",
            "7:\n",
            "cmp r7, #3\n",
            "ldr r7, [lr, #",
            $offset,
            " + 8]\n",
            "blo 3f\n",
            "bhi 7f\n",
            // With what is more added, saturation caps.
            "smmlar r4, r4, r6, r7\n",
            "smmlar r5, r5, r6, r7\n",
            "smmlar r8, r8, r6, r7\n",
            "smmlar r9, r9, r6, r7\n",
            "ssat r4, #8, r4\n",
            "ssat r5, #8, r5\n",
            "ssat r8, #8, r8\n",
            "ssat r9, #8, r9\n",
            "sub r4, r4, r7\n",
            "sub r5, r5, r7\n",
            "sub r8, r8, r7\n",
            "sub r9, r9, r7\n",
            "usat r4, #7, r4\n",
            "usat r5, #7, r5\n",
            "usat r8, #7, r8\n",
            "usat r9, #7, r9\n",
            "b 5b\n",
            "7:\n",
            "and r0, r7, r4, asr #31\n",
            "add r0, r0, r6\n",
            "smmulr r4, r4, r0\n",
            "and r0, r7, r5, asr #31\n",
            "add r0, r0, r6\n",
            "smmulr r5, r5, r0\n",
            "and r0, r7, r8, asr #31\n",
            "add r0, r0, r6\n",
            "smmulr r8, r8, r0\n",
            "and r0, r7, r9, asr #31\n",
            "add r0, r0, r6\n",
            "smmulr r9, r9, r0\n",
            "b 6b\n",
        )
    };
}

/// Two columns times pairs of filters.
#[repr(C)]
pub(super) struct Pairs {
    /// Both columns, from 4 words on, a multiple of 4.
    pub(super) columns: *const u32,
    pub(super) end: *const u32,
    /// Where the sums begin, two for each pair, not necessarily aligned; and bytes from a pair's to the next.
    pub(super) start: *const i32,
    pub(super) start_step: usize,
    /// Two outputs of each pair for the first column, and for the second. For [`To::Sums`] only the first counts: four
    /// sums of each pair, two of the first column, two of the second.
    pub(super) outputs: [*mut u8; 2],
    pub(super) ending: Ending,
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
            "ldrd r10, r11, [lr, #8]",
            "ldr r4, [r10]",
            "ldr r5, [r10, #4]",
            "add r10, r10, r11",
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
            to_bytes!("24"),
            "ldrd r6, r7, [lr, #16]",
            "strb r4, [r6], #1",
            "strb r5, [r6], #1",
            "strb r8, [r7], #1",
            "strb r9, [r7], #1",
            "strd r6, r7, [lr, #16]",
            "8:",
            // The next pair begins where the second filter ended.
            "ldrd r6, r7, [lr, #36]",
            "sub r1, r2, r6",
            "add r2, r1, r7",
            "ldr r0, [lr, #44]",
            "subs r0, r0, #1",
            "str r0, [lr, #44]",
            "bne 4b",
            "b 9f",
            other_bytes!("24"),
            "3:",
            "ldr r0, [lr, #16]",
            "stm r0!, {{r4, r5, r8, r9}}",
            "str r0, [lr, #16]",
            "b 8b",
            "9:",
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

/// Four channels of a depthwise layer at neighbouring pixels.
#[repr(C)]
pub(super) struct Row {
    /// Input of the first tap, and weights: two words each; rows of taps, at least 1.
    pub(super) from: *const u8,
    pub(super) weights: *const u32,
    pub(super) rows: usize,
    /// The first output, and bytes from one to the next; for [`To::Sums`] four words, and nothing further.
    pub(super) to: *mut u8,
    pub(super) ending: Ending,
    pub(super) step: usize,
    /// Input bytes from an output to the next.
    pub(super) stride: usize,
    /// Outputs, at least 1.
    pub(super) pixels: usize,
    /// Bytes from behind a row of taps to the next, of input and of weights; and columns of taps, at least 1.
    pub(super) skip: [usize; 2],
    pub(super) columns: usize,
    /// Where the sums begin.
    pub(super) start: [i32; 4],
}

/// A tap of [`rows`], whose input this loads to r6 and its weights to r10 and r11.
macro_rules! tap {
    ($loads:literal) => {
        concat!(
            $loads,
            "sxtb16 r7, r6, ror #8\n",
            "sxtb16 r6, r6\n",
            "smlabb r4, r6, r10, r4\n",
            "smlabb r5, r7, r11, r5\n",
            "smlatt r8, r6, r10, r8\n",
            "smlatt r9, r7, r11, r9\n",
        )
    };
}

/// Defines the loop over the pixels of a row with what goes over a row of taps. A compiler would spread the taps over more
/// registers than there are.
macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident: $($part:expr),*;)*) => {
        $($(#[$doc])*
        ///
        /// # Safety
        /// All pointers of `row` are good for what is said there, also `right` and `down` bytes further for each tap and
        /// row of them.
        #[inline(never)]
        pub(super) unsafe fn $name(row: &mut Row, right: usize, down: usize) {
            // SAFETY: the caller's promise; input bytes may be unaligned, weights are not. Registers that a compiler
            // does not give away are saved.
            unsafe {
                asm!(
                    "push {{r6, r7, r11}}",
                    "4:",
                    "add r8, lr, #52",
                    "ldm r8, {{r4, r5, r8, r9}}",
                    "ldm lr, {{r0, r1, r2}}",
                    "2:",
                    $($part,)*
                    "subs r2, r2, #1",
                    "bne 2b",
                    to_bytes!("16"),
                    "ldr r10, [lr, #12]",
                    "strb r4, [r10]",
                    "strb r5, [r10, #1]",
                    "strb r8, [r10, #2]",
                    "strb r9, [r10, #3]",
                    "ldrd r0, r1, [lr, #28]",
                    "add r10, r10, r0",
                    "str r10, [lr, #12]",
                    "ldr r0, [lr]",
                    "add r0, r0, r1",
                    "str r0, [lr]",
                    "ldr r0, [lr, #36]",
                    "subs r0, r0, #1",
                    "str r0, [lr, #36]",
                    "bne 4b",
                    "b 9f",
                    other_bytes!("16"),
                    "3:",
                    "ldr r10, [lr, #12]",
                    "stm r10, {{r4, r5, r8, r9}}",
                    "9:",
                    "pop {{r6, r7, r11}}",
                    inout("lr") &raw mut *row => _,
                    in("r3") right,
                    inout("r12") down => _,
                    out("r0") _, out("r1") _, out("r2") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _,
                    out("r10") _,
                );
            }
        })*
    };
}

rows! {
    /// Two columns of taps, of a kernel with three.
    two_wide:
        tap!("ldr r6, [r0]\n ldrd r10, r11, [r1]\n"),
        tap!("ldr r6, [r0, r3]\n ldrd r10, r11, [r1, #8]\n"),
        "add r0, r0, r12\n add r1, r1, #24";
    /// Three columns of taps, of a kernel with three.
    three_wide:
        tap!("ldr r6, [r0]\n ldrd r10, r11, [r1]\n"),
        tap!("ldr r6, [r0, r3]\n ldrd r10, r11, [r1, #8]\n"),
        tap!("ldr r6, [r0, r3, lsl #1]\n ldrd r10, r11, [r1, #16]\n"),
        "add r0, r0, r12\n add r1, r1, #24";
    /// Any columns of taps.
    any_wide:
        "ldr r12, [lr, #48]\n 8:",
        tap!("ldr r6, [r0]\n add r0, r0, r3\n ldrd r10, r11, [r1], #8\n"),
        "subs r12, r12, #1\n bne 8b",
        "ldrd r6, r7, [lr, #40]\n add r0, r0, r6\n add r1, r1, r7";
}
