//! The board's DPU: where its registers are, how the processor's caches are maintained for it, how its driver waits.
//!
//! The board's module has `clean` and `invalidate`, which work on whole cache lines.

use core::ptr::{NonNull, with_exposed_provenance_mut};

use embedded_hal::delay::DelayNs;
use shiftwise_firmware::memory::LINE;
use shiftwise_firmware::mmio::{Config, Dma, MappedRegisters, MmioDpu};

use super::{DPU_COHERENT, DPU_CORE, DPU_FINGERPRINT, DPU_LAYOUT, DPU_REGISTERS, TICKS_PER_SECOND, machine};

/// The fingerprint of its target.
pub(super) const FINGERPRINT: u64 = DPU_FINGERPRINT;

const _: () = assert!(DPU_CORE < DPU_LAYOUT.cores, "the register map has no such core");

/// The driver.
pub(crate) type Dpu = MmioDpu<MappedRegisters, Caches, Ticks>;

/// The DPU, of which no register is touched before its first job: the programmable logic may still be empty. Called once.
pub(super) fn take() -> Option<Dpu> {
    let base = NonNull::new(with_exposed_provenance_mut(DPU_REGISTERS.start))?;
    let bytes = u32::try_from(DPU_REGISTERS.len()).ok()?;
    let (layout, start) = (DPU_LAYOUT.name, DPU_REGISTERS.start);
    defmt::info!("DPU {=u64:#018x} ({=str}, core {=u8}) at {=usize:#x}", FINGERPRINT, layout, DPU_CORE, start);
    // SAFETY: the start-up code maps this range as a device, and the board's data file keeps it apart from all memory (a
    // check of the crate that reads it). What the DPU writes is the network's memory, which its driver lends it.
    let registers = unsafe { MappedRegisters::new(base, bytes) };
    MmioDpu::new(registers, Caches(()), Ticks(()), Config { core: DPU_CORE, ..Config::new(DPU_LAYOUT) }).ok()
}

/// The processor's data caches. Addresses are the same to both sides.
#[derive(Debug)]
pub(crate) struct Caches(());

/// First addresses of the lines that hold these bytes.
fn lines(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let start = bytes.as_ptr().expose_provenance();
    (start & !(LINE - 1)..start + bytes.len()).step_by(LINE)
}

impl Dma for Caches {
    fn clean(&mut self, bytes: &[u8]) {
        if !DPU_COHERENT {
            machine::clean(lines(bytes));
        }
    }

    fn invalidate(&mut self, bytes: &mut [u8]) {
        if !DPU_COHERENT {
            machine::invalidate(lines(bytes));
        }
    }
}

/// Time, by the board's counter.
#[derive(Debug)]
pub(crate) struct Ticks(());

impl DelayNs for Ticks {
    fn delay_ns(&mut self, ns: u32) {
        let ticks = (u64::from(ns) * u64::from(TICKS_PER_SECOND)).div_ceil(1_000_000_000);
        let start = machine::ticks();
        while machine::ticks().wrapping_sub(start) < ticks {
            core::hint::spin_loop();
        }
    }
}
