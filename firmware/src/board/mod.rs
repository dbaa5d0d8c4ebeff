//! Start-up, registers and memory: the only code of this crate that is `unsafe`.
//!
//! A board's module has what differs: `start`, `receive` and `send` for the link, `log`, `ticks`, and beside a DPU `clean`
//! and `invalidate`. Addresses come from the board's data file. All the rest is here, once.

#[cfg(feature = "dpu")]
mod dpu;
mod log;
mod memory;
mod mmio;
mod semihost;

#[cfg(board = "cortex-r5f")]
mod cortex_r5f;
#[cfg(board = "mps2-an386")]
mod mps2_an386;
#[cfg(board = "riscv32-virt")]
mod riscv32_virt;
#[cfg(board = "xlnx-zcu102")]
mod xlnx_zcu102;

use core::convert::Infallible;

#[cfg(board = "cortex-r5f")]
use cortex_r5f as machine;
use embedded_io::{ErrorType, Read, Write};
#[cfg(board = "mps2-an386")]
use mps2_an386 as machine;
#[cfg(board = "riscv32-virt")]
use riscv32_virt as machine;
use shiftwise_firmware::session::{Board, Event, Space};
#[cfg(board = "xlnx-zcu102")]
use xlnx_zcu102 as machine;

include!(concat!(env!("OUT_DIR"), "/board.rs"));

/// A board without a DPU.
#[cfg(not(feature = "dpu"))]
mod dpu {
    pub(crate) use shiftwise_core::run::NoDpu as Dpu;

    /// Code for no DPU at all is what it accepts.
    pub(super) const FINGERPRINT: u64 = 0;

    pub(super) fn take() -> Option<Dpu> {
        Some(Dpu)
    }
}

pub(crate) use memory::stack_used;

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
        Ok(if buffer.is_empty() { 0 } else { machine::receive(buffer) })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        machine::send(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The counter, and the log.
pub(crate) struct Local(());

impl Board for Local {
    fn name(&self) -> &str {
        NAME
    }

    fn hz(&self) -> u32 {
        TICKS_PER_SECOND
    }

    fn ticks(&mut self) -> u64 {
        machine::ticks()
    }

    fn accepts(&self, fingerprint: u64) -> bool {
        [0, dpu::FINGERPRINT].contains(&fingerprint)
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Host => defmt::info!("a host says hello"),
            Event::Loaded(bytes) => defmt::info!("a deployable of {=u32} bytes is ready to run", bytes),
            Event::Step(index, ticks) => defmt::debug!("step {=u16}: {=u64} ticks", index, ticks),
            Event::Refused(fault) => defmt::warn!("refused: {}", fault),
        }
    }
}

/// What the image is made of.
pub(crate) struct Parts {
    pub(crate) link: (Input, Output),
    pub(crate) dpu: dpu::Dpu,
    pub(crate) board: Local,
    pub(crate) memory: Space<'static>,
}

/// Starts the board; `None` if that has happened before.
pub(crate) fn take() -> Option<Parts> {
    let memory = memory::take()?;
    machine::start();
    Some(Parts { link: (Input(()), Output(())), dpu: dpu::take()?, board: Local(()), memory })
}

/// Ends the emulator (or stops in the debugger) with a status.
pub(crate) fn exit(good: bool) -> ! {
    semihosting::process::exit(if good { 0 } else { 1 })
}

/// The processor met something that it cannot go on from, at this address.
fn fault(address: usize) -> ! {
    defmt::error!("fault at {=usize:#x}", address);
    exit(false)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if let Some(place) = info.location() {
        defmt::error!("panic at {=str}:{=u32}", place.file(), place.line());
    }
    exit(false)
}
