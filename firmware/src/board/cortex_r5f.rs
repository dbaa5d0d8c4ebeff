//! A Cortex-R5F with memory from address 0 and no peripherals: link and log are the debugger's.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU32, Ordering};

pub(super) use super::semihost::{log, receive, send};

global_asm!(
    r#"
.fpu vfpv3-d16
.section .start, "ax"
.arm
    // Exception vectors, at address 0.
    b       _start
    b       fault_entry     // undefined instruction
    b       fault_entry     // supervisor call
    b       fault_entry     // prefetch abort
    b       fault_entry     // data abort
    b       fault_entry
    b       fault_entry     // interrupts: none is on
    b       fault_entry

fault_entry:
    mov     r0, lr
    ldr     sp, =_stack_start
    b       {fault}

.global _start
_start:
    ldr     sp, =_stack_start
    // Floating point: both coprocessors, then the unit itself.
    mrc     p15, 0, r0, c1, c0, 2
    orr     r0, r0, #(0xF << 20)
    mcr     p15, 0, r0, c1, c0, 2
    isb
    mov     r0, #(1 << 30)
    vmsr    fpexc, r0
    ldr     r0, =__sbss
    ldr     r1, =__ebss
    mov     r2, #0
1:  cmp     r0, r1
    strlo   r2, [r0], #4
    blo     1b
    bl      {main}
    .ltorg
"#,
    main = sym main,
    fault = sym fault,
);

extern "C" fn main() -> ! {
    crate::serve()
}

extern "C" fn fault(address: usize) -> ! {
    super::fault(address)
}

/// The counter. Called once.
pub(super) fn start() {
    // SAFETY: the counter of cycles, from zero.
    unsafe {
        asm!(
            "mcr p15, 0, {counter}, c9, c12, 1",
            "mcr p15, 0, {on}, c9, c12, 0",
            counter = in(reg) 1u32 << 31,
            on = in(reg) 1u32 | 1 << 2,
        );
    }
}

/// Cycles since the start. The counter has 32 bits and is extended here: it must be read once per 2^32 cycles at least,
/// or the time of what lay in between comes out short by a multiple of that.
pub(super) fn ticks() -> u64 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    static WRAPS: AtomicU32 = AtomicU32::new(0);
    let now: u32;
    // SAFETY: reads a counter.
    unsafe { asm!("mrc p15, 0, {}, c9, c13, 0", out(reg) now, options(nomem, nostack)) };
    let wraps = WRAPS.load(Ordering::Relaxed).wrapping_add(u32::from(now < LAST.load(Ordering::Relaxed)));
    LAST.store(now, Ordering::Relaxed);
    WRAPS.store(wraps, Ordering::Relaxed);
    u64::from(wraps) << 32 | u64::from(now)
}
