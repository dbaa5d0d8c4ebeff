//! Arm MPS2 with FPGA image AN386: Cortex-M4F at 25 MHz, CMSDK UARTs, 16 MB PSRAM.
//!
//! UART0 is the link, UART1 the log. Addresses and interrupt numbers are those of Arm's application note AN386.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, Peripherals, SCB, SYST};
use cortex_m_rt::{ExceptionFrame, entry, exception};

use super::TICKS_PER_SECOND;
use super::mmio::Registers;

/// Looks for the next byte before the core sleeps: an emulator wakes up slowly.
const SPINS: u32 = 20_000;
/// SysTick counts down 24 bits.
const RELOAD: u32 = 0x00FF_FFFF;

// SAFETY: CMSDK UARTs, which move bytes through their data register only.
const LINK: Registers = unsafe { Registers::new(0x4000_4000) };
// SAFETY: as above.
const LOG: Registers = unsafe { Registers::new(0x4000_5000) };

const DATA: usize = 0x00;
const STATE: usize = 0x04;
const CTRL: usize = 0x08;
const INT_CLEAR: usize = 0x0C;
const BAUD_DIV: usize = 0x10;

const STATE_TX_FULL: u32 = 1;
const STATE_RX_FULL: u32 = 1 << 1;
const CTRL_TX: u32 = 1;
const CTRL_RX: u32 = 1 << 1;
const CTRL_RX_INT: u32 = 1 << 3;
const INT_RX: u32 = 1 << 1;

#[entry]
fn reset() -> ! {
    crate::serve()
}

/// Interrupt 0: the link's UART has received a byte.
#[derive(Clone, Copy)]
struct LinkRx;

// SAFETY: 0 is that interrupt's number and never changes.
unsafe impl cortex_m::interrupt::InterruptNumber for LinkRx {
    fn number(self) -> u16 {
        0
    }
}

/// Both ports, the counter and the link's interrupt. Called once.
pub(super) fn start() {
    for (uart, control) in [(LOG, CTRL_TX), (LINK, CTRL_TX | CTRL_RX | CTRL_RX_INT)] {
        uart.write(BAUD_DIV, TICKS_PER_SECOND / 115_200);
        uart.write(CTRL, control);
    }
    if let Some(mut core) = Peripherals::take() {
        core.SYST.set_clock_source(SystClkSource::Core);
        core.SYST.set_reload(RELOAD);
        core.SYST.clear_current();
        core.SYST.enable_interrupt();
        core.SYST.enable_counter();
    }
    // SAFETY: the handler below shares nothing with the rest of the program.
    unsafe { NVIC::unmask(LinkRx) };
}

/// Waits for a byte of the link; 1.
pub(super) fn receive(buffer: &mut [u8]) -> usize {
    let empty = || LINK.read(STATE) & STATE_RX_FULL == 0;
    for _ in 0..SPINS {
        if !empty() {
            break;
        }
    }
    while empty() {
        // Masked, a byte that arrives after the look still ends the sleep; its handler runs after the unmasking.
        cortex_m::interrupt::disable();
        if empty() {
            cortex_m::asm::wfi();
        }
        // SAFETY: this is thread mode outside any critical section, where interrupts are on.
        unsafe { cortex_m::interrupt::enable() };
    }
    buffer.iter_mut().take(1).map(|slot| *slot = LINK.read(DATA) as u8).count()
}

fn put(uart: Registers, bytes: &[u8]) {
    for byte in bytes {
        while uart.read(STATE) & STATE_TX_FULL != 0 {}
        uart.write(DATA, (*byte).into());
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

/// Times that the SysTick counter has wrapped.
static WRAPS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[exception]
unsafe fn DefaultHandler(_: i16) {
    // The link's receiver is the only interrupt that is on. The byte itself waits for `receive`.
    LINK.write(INT_CLEAR, INT_RX);
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    super::fault(frame.pc() as usize)
}

/// Ticks of the core's clock since the start.
pub(super) fn ticks() -> u64 {
    loop {
        let wraps = WRAPS.load(Ordering::Relaxed);
        let down = SYST::get_current();
        // A wrap that is pending, or was served in between, belongs to an unknown side of the reading.
        if !SCB::is_pendst_pending() && wraps == WRAPS.load(Ordering::Relaxed) {
            return u64::from(wraps) * u64::from(RELOAD + 1) + u64::from(RELOAD - (down & RELOAD));
        }
    }
}
