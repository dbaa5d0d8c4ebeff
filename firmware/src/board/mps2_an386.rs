//! Arm MPS2 with FPGA image AN386, as QEMU's `mps2-an386` models it: Cortex-M4F at 25 MHz, CMSDK UARTs, 16 MB PSRAM.
//!
//! UART0 is the link, UART1 the log. Addresses and interrupt numbers are those of Arm's application note AN386.

use core::convert::Infallible;
use core::ptr::with_exposed_provenance_mut as at;
use core::slice::from_raw_parts_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, SCB, SYST};
use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::debug;
use embedded_io::{ErrorType, Read, Write};
use shiftwise_firmware::session::{Board, Event, Space};

/// The board's name, as hosts ask for it.
pub(crate) const NAME: &str = "mps2-an386";
/// Core and SysTick clock.
const HZ: u32 = 25_000_000;
/// Start of the PSRAM, and how its 16 MB are shared out: the deployable first.
const PSRAM: usize = 0x2100_0000;
const STORE: usize = 8 << 20;
const ARENA: usize = 6 << 20;
const BANKS: usize = 2 << 20;
/// Looks for the next byte before the core sleeps: an emulator wakes up slowly.
const SPINS: u32 = 20_000;
/// SysTick counts down 24 bits.
const RELOAD: u32 = 0x00FF_FFFF;

/// A CMSDK UART by its base address.
#[derive(Clone, Copy)]
struct Uart(usize);

const LINK: Uart = Uart(0x4000_4000);
const LOG: Uart = Uart(0x4000_5000);

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

impl Uart {
    fn read(self, register: usize) -> u32 {
        // SAFETY: only built for the two UARTs above, whose registers are 32 bits wide and always mapped.
        unsafe { at::<u32>(self.0 + register).read_volatile() }
    }

    fn write(self, register: usize, value: u32) {
        // SAFETY: as in `read`; writing these registers touches no memory of the program.
        unsafe { at::<u32>(self.0 + register).write_volatile(value) }
    }

    fn start(self, control: u32) {
        self.write(BAUD_DIV, HZ / 115_200);
        self.write(CTRL, control);
    }

    fn send(self, byte: u8) {
        while self.read(STATE) & STATE_TX_FULL != 0 {}
        self.write(DATA, byte.into());
    }
}

/// Interrupt 0: the link's UART has received a byte.
struct LinkRx;

// SAFETY: 0 is that interrupt's number and never changes.
unsafe impl cortex_m::interrupt::InterruptNumber for LinkRx {
    fn number(self) -> u16 {
        0
    }
}

impl Clone for LinkRx {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for LinkRx {}

/// Receiving half of the link.
pub(crate) struct Input(());

/// Sending half of the link.
pub(crate) struct Output(());

impl ErrorType for Input {
    type Error = Infallible;
}

impl ErrorType for Output {
    type Error = Infallible;
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Some(slot) = buffer.first_mut() else { return Ok(0) };
        for _ in 0..SPINS {
            if LINK.read(STATE) & STATE_RX_FULL != 0 {
                break;
            }
        }
        while LINK.read(STATE) & STATE_RX_FULL == 0 {
            // Masked, a byte that arrives after the look still ends the sleep; its handler runs after the unmasking.
            cortex_m::interrupt::disable();
            if LINK.read(STATE) & STATE_RX_FULL == 0 {
                cortex_m::asm::wfi();
            }
            // SAFETY: this is thread mode outside any critical section, where interrupts are on.
            unsafe { cortex_m::interrupt::enable() };
        }
        *slot = LINK.read(DATA) as u8;
        Ok(1)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        bytes.iter().for_each(|byte| LINK.send(*byte));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Bytes of the log, already encoded.
pub(crate) fn write_log(bytes: &[u8]) {
    bytes.iter().for_each(|byte| LOG.send(*byte));
}

/// Times that the SysTick counter has wrapped.
static WRAPS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[exception]
unsafe fn DefaultHandler(_: i16) {
    // The link's receiver is the only interrupt that is on. The byte itself waits for `Input::read`.
    LINK.write(INT_CLEAR, INT_RX);
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    defmt::error!("hard fault at {=u32:#x}", frame.pc());
    exit(false)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        defmt::error!("panic at {=str}:{=u32}", place.file(), place.line());
    }
    exit(false)
}

/// Ends the emulator (or stops in the debugger) with a status.
pub(crate) fn exit(good: bool) -> ! {
    loop {
        debug::exit(if good { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

/// The counter, and the log.
pub(crate) struct Mps2(());

impl Board for Mps2 {
    fn name(&self) -> &str {
        NAME
    }

    fn hz(&self) -> u32 {
        HZ
    }

    fn ticks(&mut self) -> u64 {
        loop {
            let wraps = WRAPS.load(Ordering::Relaxed);
            let down = SYST::get_current();
            // A wrap that is pending, or was served in between, belongs to an unknown side of the reading.
            if !SCB::is_pendst_pending() && wraps == WRAPS.load(Ordering::Relaxed) {
                return u64::from(wraps) * u64::from(RELOAD + 1) + u64::from(RELOAD - (down & RELOAD));
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Step(..) => defmt::debug!("{}", event),
            Event::Refused(_) => defmt::warn!("{}", event),
            Event::Host | Event::Loaded(_) => defmt::info!("{}", event),
        }
    }
}

/// What the image is made of.
pub(crate) struct Parts {
    pub(crate) link: (Input, Output),
    pub(crate) board: Mps2,
    pub(crate) memory: Space<'static>,
}

/// Starts the board; `None` if that has happened before.
pub(crate) fn take() -> Option<Parts> {
    let mut core = cortex_m::Peripherals::take()?;
    LOG.start(CTRL_TX);
    LINK.start(CTRL_TX | CTRL_RX | CTRL_RX_INT);
    core.SYST.set_clock_source(SystClkSource::Core);
    core.SYST.set_reload(RELOAD);
    core.SYST.clear_current();
    core.SYST.enable_interrupt();
    core.SYST.enable_counter();
    // SAFETY: the handler above shares nothing with the rest of the program.
    unsafe { NVIC::unmask(LinkRx) };
    let region = |start: usize, len: usize| {
        // SAFETY: the linker places nothing in the PSRAM, the three regions are disjoint, and `Peripherals::take` gives
        // its value once, so these are the only references; any bytes are valid `u8`s.
        unsafe { from_raw_parts_mut(at::<u8>(PSRAM + start), len) }
    };
    let memory = Space { store: region(0, STORE), arena: region(STORE, ARENA), banks: region(STORE + ARENA, BANKS) };
    Some(Parts { link: (Input(()), Output(())), board: Mps2(()), memory })
}
