//! QEMU's RISC-V machine `virt`: its serial port is the link; the log is the debugger's.

use core::arch::{asm, global_asm};

use super::mmio::Registers;
pub(super) use super::semihost::log;

global_asm!(
    r#"
.section .start, "ax"
.global _start
_start:
    .option push
    .option norelax
    la      gp, __global_pointer$
    .option pop
    la      t0, fault_entry
    csrw    mtvec, t0
    la      sp, _stack_start
    la      t0, __sbss
    la      t1, __ebss
1:  bgeu    t0, t1, 2f
    sw      zero, 0(t0)
    addi    t0, t0, 4
    j       1b
2:  call    {main}

    .balign 4
fault_entry:
    csrr    a0, mepc
    tail    {fault}
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

// SAFETY: a 16550, which moves bytes through its data register only.
const LINK: Registers = unsafe { Registers::new(0x1000_0000) };

const DATA: usize = 0;
const FIFO_CONTROL: usize = 2;
const LINE_CONTROL: usize = 3;
const LINE_STATUS: usize = 5;

const FIFO_ON: u8 = 1;
const LINE_8N1: u8 = 3;
const STATUS_RX: u8 = 1;
const STATUS_TX_EMPTY: u8 = 1 << 5;

/// The port. Called once.
pub(super) fn start() {
    LINK.write_byte(LINE_CONTROL, LINE_8N1);
    LINK.write_byte(FIFO_CONTROL, FIFO_ON);
}

/// Waits for bytes of the link; how many came.
pub(super) fn receive(buffer: &mut [u8]) -> usize {
    let empty = || LINK.read_byte(LINE_STATUS) & STATUS_RX == 0;
    while empty() {
        core::hint::spin_loop();
    }
    buffer.iter_mut().take_while(|_| !empty()).map(|slot| *slot = LINK.read_byte(DATA)).count()
}

/// Bytes for the host.
pub(super) fn send(bytes: &[u8]) {
    for byte in bytes {
        while LINK.read_byte(LINE_STATUS) & STATUS_TX_EMPTY == 0 {}
        LINK.write_byte(DATA, *byte);
    }
}

/// Instructions since the start.
pub(super) fn ticks() -> u64 {
    loop {
        let (high, low, again): (u32, u32, u32);
        // SAFETY: reads the two halves of a counter.
        unsafe {
            asm!("csrr {}, minstreth", "csrr {}, minstret", "csrr {}, minstreth",
                out(reg) high, out(reg) low, out(reg) again, options(nomem, nostack));
        }
        if high == again {
            return u64::from(high) << 32 | u64::from(low);
        }
    }
}
