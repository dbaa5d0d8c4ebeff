//! One Cortex-A53 of a Zynq UltraScale+ without an operating system: entered at EL1, by QEMU or a boot loader.
//!
//! UART0 is the link, UART1 the log. Addresses and registers are those of the UltraScale+ register reference.

use core::arch::{asm, global_asm};

use super::mmio::Registers;

// The memory map is two gigabytes of memory and two of devices, each as it is. It is on from the start: without it all
// memory counts as device memory, where the core faults at addresses that are not aligned and caches nothing.
global_asm!(
    r#"
.section .start, "ax"
.global _start
_start:
    adr     x0, vectors
    msr     vbar_el1, x0
    // Floating point and vector registers.
    mov     x0, #(3 << 20)
    msr     cpacr_el1, x0
    // Memory of type 0 is cached, of type 1 a device.
    mov     x0, #0xFF
    msr     mair_el1, x0
    // 32-bit addresses, table walks cached, shared, pages of 4 KB; no upper half.
    ldr     x0, =(32 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23)
    msr     tcr_el1, x0
    adr     x0, table
    msr     ttbr0_el1, x0
    tlbi    vmalle1
    dsb     nsh
    isb
    // Translation, data cache, instruction cache.
    mrs     x0, sctlr_el1
    mov     x1, #(1 << 0 | 1 << 2 | 1 << 12)
    orr     x0, x0, x1
    msr     sctlr_el1, x0
    isb
    ldr     x0, =_stack_start
    mov     sp, x0
    ldr     x0, =__sbss
    ldr     x1, =__ebss
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b
2:  bl      {main}

    .balign 2048
vectors:
    .rept 16
    mrs     x0, elr_el1
    b       {fault}
    .balign 128
    .endr

    // One gigabyte each: memory (shared, accessed), devices (accessed, never executed).
    .balign 4096
table:
    .quad   0x00000000 | 1 << 10 | 3 << 8 | 1
    .quad   0x40000000 | 1 << 10 | 3 << 8 | 1
    .quad   0x80000000 | 3 << 53 | 1 << 10 | 1 << 2 | 1
    .quad   0xC0000000 | 3 << 53 | 1 << 10 | 1 << 2 | 1
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

// SAFETY: Cadence UARTs, which move bytes through their FIFO register only.
const LINK: Registers = unsafe { Registers::new(0xFF00_0000) };
// SAFETY: as above.
const LOG: Registers = unsafe { Registers::new(0xFF01_0000) };

const CONTROL: usize = 0x00;
const MODE: usize = 0x04;
const STATUS: usize = 0x2C;
const FIFO: usize = 0x30;

/// Both halves reset and on.
const CONTROL_ON: u32 = 1 | 1 << 1 | 1 << 2 | 1 << 4;
/// Eight bits, no parity.
const MODE_8N1: u32 = 4 << 3;
const STATUS_RX_EMPTY: u32 = 1 << 1;
const STATUS_TX_FULL: u32 = 1 << 4;

/// Both ports (at the rate that the boot loader left) and the counter. Called once.
pub(super) fn start() {
    for uart in [LINK, LOG] {
        uart.write(MODE, MODE_8N1);
        uart.write(CONTROL, CONTROL_ON);
    }
    // SAFETY: the counter of cycles, all 64 bits of it, from zero.
    unsafe {
        asm!(
            "msr pmccfiltr_el0, xzr",
            "msr pmcntenset_el0, {counter}",
            "msr pmcr_el0, {on}",
            "isb",
            counter = in(reg) 1u64 << 31,
            on = in(reg) 1u64 | 1 << 2 | 1 << 6,
        );
    }
}

/// Waits for bytes of the link; how many came.
pub(super) fn receive(buffer: &mut [u8]) -> usize {
    let empty = || LINK.read(STATUS) & STATUS_RX_EMPTY != 0;
    while empty() {
        core::hint::spin_loop();
    }
    buffer.iter_mut().take_while(|_| !empty()).map(|slot| *slot = LINK.read(FIFO) as u8).count()
}

fn put(uart: Registers, bytes: &[u8]) {
    for byte in bytes {
        while uart.read(STATUS) & STATUS_TX_FULL != 0 {}
        uart.write(FIFO, (*byte).into());
    }
}

/// Bytes for the host.
pub(super) fn send(bytes: &[u8]) {
    put(LINK, bytes);
}

/// Bytes of the log, already encoded.
pub(super) fn log(bytes: &[u8]) {
    put(LOG, bytes);
}

/// Cycles since the start.
pub(super) fn ticks() -> u64 {
    let ticks;
    // SAFETY: reads a counter.
    unsafe { asm!("mrs {}, pmccntr_el0", out(reg) ticks, options(nomem, nostack)) };
    ticks
}

/// Writes lines of the data caches back to memory, by their first addresses.
#[cfg(feature = "dpu")]
pub(super) fn clean(lines: impl Iterator<Item = usize>) {
    for line in lines {
        // SAFETY: what memory holds for the processor stays the same.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier: the lines are in memory before anything that follows.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Drops lines of the data caches, by their first addresses. A line that was written meanwhile is written back first.
#[cfg(feature = "dpu")]
pub(super) fn invalidate(lines: impl Iterator<Item = usize>) {
    for line in lines {
        // SAFETY: drops copies; nothing that the processor wrote is lost.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier: what follows reads memory.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}
