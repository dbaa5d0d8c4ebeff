//! A DPU behind registers: start it, wait for it, keep caches and memory in agreement, bring it back when it hangs.
//!
//! [`MmioDpu`] holds no pointers and no knowledge of a board. A board gives it [`Registers`] (or [`MappedRegisters`]), says
//! through [`Dma`] where the DPU sees memory and how caches are maintained, and lends a timer. The register maps are
//! tables in [`layout`]. Completion is read from a status register, never from an interrupt: an interrupt may wake the
//! processor inside the timer's delay, and one that is lost costs no more than that delay.
//!
//! Hardware facts carry their marks where they are used. The driver is tested against a register model that executes
//! the code; it has not met hardware.

pub mod layout;
mod mapped;

use core::fmt;
use core::hint::black_box;
use core::sync::atomic::{Ordering, fence};

use embedded_hal::delay::DelayNs;
use shiftwise_core::model::{CODE_ALIGN, Deployable, DpuJob, Region};
use shiftwise_core::run::{Dpu, Memory};

use layout::{Bit, Op, Register};
pub use layout::{Layout, VITIS, VIVADO};
pub use mapped::MappedRegisters;

/// Bits of an address that the DPU can reach. DOC (PG338)
const ADDRESS_BITS: u32 = 40;
/// What a bus without a device reads as.
const NOBODY: u32 = u32::MAX;

/// Access to the registers of a DPU.
pub trait Registers {
    /// The register at `offset` bytes, a multiple of four.
    fn read32(&mut self, offset: u32) -> u32;
    /// Sets the register at `offset` bytes, a multiple of four. Writes arrive in order.
    fn write32(&mut self, offset: u32, value: u32);
    /// Resets the DPU by other means than its registers, such as a reset line of the programmable logic, and returns
    /// whether it did. Only asked where the register map has no reset.
    fn reset(&mut self) -> bool {
        false
    }
}

/// Memory as the DPU sees it.
///
/// Cache lines that are partly outside the bytes of a call belong to someone else in part: an implementation must write
/// such lines back before it invalidates them, or regions must begin and end at line boundaries.
pub trait Dma {
    /// Where the DPU sees these bytes; `None` where it does not reach them.
    fn address(&self, bytes: &[u8]) -> Option<u64> {
        u64::try_from(bytes.as_ptr().expose_provenance()).ok()
    }
    /// Writes the processor's cached copy back, so that the DPU reads what the processor wrote.
    fn clean(&mut self, bytes: &[u8]);
    /// Forgets the processor's cached copy, so that it reads what the DPU wrote.
    fn invalidate(&mut self, bytes: &mut [u8]);
}

/// Memory that processor and DPU see alike: one address, and no cache or a coherent one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coherent;

impl Dma for Coherent {
    fn clean(&mut self, _: &[u8]) {}
    fn invalidate(&mut self, _: &mut [u8]) {}
}

/// How to use a DPU.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Its register map.
    pub layout: &'static Layout,
    /// Which of its cores. Cores of one register space share registers that are read, changed and written: their
    /// drivers must not run at once without a lock.
    pub core: u8,
    /// Microseconds from one look at the status to the next.
    pub poll_us: u32,
    /// Microseconds that a job may take. The Linux driver gives 5 seconds.
    pub limit_us: u32,
}

impl Config {
    /// Core 0, a look every 20 µs, 5 seconds for a job.
    pub const fn new(layout: &'static Layout) -> Self {
        Self { layout, core: 0, poll_us: 20, limit_us: 5_000_000 }
    }
}

/// What the DPU counted in a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions that LOAD, SAVE, CONV and MISC have begun.
    pub started: [u32; 4],
    /// Instructions that they have ended.
    pub ended: [u32; 4],
    /// Cycles of the general logic.
    pub cycles: u64,
}

/// Why a job did not run, or did not end. Except where noted, memory is as before and the next job may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MmioError {
    /// The register map has no such core.
    Core(u8),
    /// The code does not lie at a multiple of [`CODE_ALIGN`] in the DPU's eyes.
    Alignment(u64),
    /// The DPU does not reach the code (`None`) or this region.
    Unreachable(Option<Region>),
    /// A register did not keep what was written to it: no DPU is there, or it has no clock.
    NoAnswer {
        /// Its offset.
        offset: u32,
        /// What was written.
        wrote: u32,
        /// What it held.
        read: u32,
    },
    /// The DPU is another than the one that the deployable was compiled for.
    Target {
        /// Fingerprint of the deployable's.
        wanted: u64,
        /// What the DPU says of itself.
        found: u64,
    },
    /// The status says that a job is done before one was started, whatever is done about it.
    Stuck,
    /// The job did not end in time. The core was reset; all regions but the constants may hold anything, so the network
    /// starts again from its inputs.
    Timeout(Counters),
    /// The DPU says that it is done, and its counters say that it is not. Otherwise as for a timeout.
    Unfinished(Counters),
    /// A core that hung before cannot be reset by its registers and was not reset by the platform: it may still write.
    NeedsReset,
}

impl fmt::Display for MmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core(core) => write!(f, "no core {core}"),
            Self::Alignment(address) => write!(f, "code at {address:#x}, not at a multiple of {CODE_ALIGN}"),
            Self::Unreachable(None) => f.write_str("code out of the DPU's reach"),
            Self::Unreachable(Some(region)) => write!(f, "{region:?} out of the DPU's reach"),
            Self::NoAnswer { offset, wrote, read } => {
                write!(f, "register {offset:#x} holds {read:#x}, not {wrote:#x}: no DPU there, or no clock")
            }
            Self::Target { wanted, found } => write!(f, "this DPU is {found:#018x}, the code is for {wanted:#018x}"),
            Self::Stuck => f.write_str("done before the start"),
            Self::Timeout(c) => write!(f, "timeout; {c}"),
            Self::Unfinished(c) => write!(f, "done too early; {c}"),
            Self::NeedsReset => f.write_str("hung, and the platform cannot reset it"),
        }
    }
}

impl core::error::Error for MmioError {}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ended/begun:")?;
        for (name, (ended, started)) in ["LOAD", "SAVE", "CONV", "MISC"].iter().zip(self.ended.iter().zip(self.started))
        {
            write!(f, " {name} {ended}/{started}")?;
        }
        Ok(())
    }
}

/// One core of a DPU.
#[derive(Debug)]
pub struct MmioDpu<R, M, T> {
    registers: R,
    dma: M,
    timer: T,
    config: Config,
    /// What the core does is not known: it was never reset, or it hung.
    unknown: bool,
    /// It was started and never seen to end.
    hung: bool,
    /// Code and constants that are in memory, not only in the cache, by address and length.
    published: [(usize, usize); 2],
    /// Fingerprint of the deployable that was loaded last, until the DPU was seen to have it.
    wanted: Option<u64>,
    counters: Counters,
}

fn span(bytes: &[u8]) -> (usize, usize) {
    (bytes.as_ptr().addr(), bytes.len())
}

fn within(inner: (usize, usize), outer: (usize, usize)) -> bool {
    inner.0.checked_sub(outer.0).and_then(|start| start.checked_add(inner.1)).is_some_and(|end| end <= outer.1)
}

impl<R: Registers, M: Dma, T: DelayNs> MmioDpu<R, M, T> {
    /// A driver for a core that nothing else drives. Touches no register before the first job.
    ///
    /// Errors: [`MmioError::Core`].
    pub fn new(registers: R, dma: M, timer: T, config: Config) -> Result<Self, MmioError> {
        if config.core >= config.layout.cores {
            return Err(MmioError::Core(config.core));
        }
        let (published, counters) = ([(0, 0); 2], Counters::default());
        Ok(Self { registers, dma, timer, config, unknown: true, hung: false, published, wanted: None, counters })
    }

    /// The fingerprint of the DPU's target, for comparison with [`Deployable::fingerprint`]; `None` where the register
    /// map does not tell. DOC (Linux driver)
    pub fn fingerprint(&mut self) -> Option<u64> {
        let register = self.config.layout.fingerprint?;
        Some(self.read64(register))
    }

    /// What the last job that was started has counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Stops the core and brings it to its initial state.
    ///
    /// Errors: [`MmioError::NeedsReset`] if it hung and neither its registers nor the platform can reset it.
    pub fn reset(&mut self) -> Result<(), MmioError> {
        match self.config.layout.reset {
            Some(ops) => self.apply(ops),
            None if self.registers.reset() => {}
            None if self.hung => return Err(MmioError::NeedsReset),
            // Never started by us: taken as idle.
            None => {}
        }
        (self.unknown, self.hung) = (false, false);
        Ok(())
    }

    /// Once for each deployable, when it is known that somebody answers.
    fn check_target(&mut self) -> Result<(), MmioError> {
        if let Some(wanted) = self.wanted
            && let Some(found) = self.fingerprint()
            && wanted != found
        {
            return Err(MmioError::Target { wanted, found });
        }
        self.wanted = None;
        Ok(())
    }

    fn offset(&self, register: Register) -> u32 {
        match register {
            Register::Shared(offset) => offset,
            Register::Core(offset) => offset + u32::from(self.config.core) * self.config.layout.core_spacing,
        }
    }

    fn read(&mut self, register: Register) -> u32 {
        let offset = self.offset(register);
        self.registers.read32(offset)
    }

    fn read64(&mut self, register: Register) -> u64 {
        let offset = self.offset(register);
        u64::from(self.registers.read32(offset)) | u64::from(self.registers.read32(offset + 4)) << 32
    }

    fn write(&mut self, register: Register, value: u32) {
        let offset = self.offset(register);
        self.registers.write32(offset, value);
    }

    fn apply(&mut self, ops: &[Op]) {
        let own = 1 << self.config.core;
        for op in ops {
            match *op {
                Op::Write(register, value) => self.write(register, value),
                Op::WriteBit(register) => self.write(register, own),
                Op::SetBit(register) => {
                    let all = self.read(register);
                    self.write(register, all | own);
                }
                Op::ClearBit(register) => {
                    let all = self.read(register);
                    self.write(register, all & !own);
                }
                Op::Pause(us) => self.timer.delay_us(us),
            }
        }
    }

    fn is_done(&mut self) -> bool {
        let (register, bit) = self.config.layout.done;
        let bit = match bit {
            Bit::Core => self.config.core,
            Bit::At(bit) => bit,
        };
        let status = self.read(register);
        status != NOBODY && status >> bit & 1 == 1
    }

    fn count(&mut self) -> Counters {
        let mut counters = Counters::default();
        for (engine, registers) in self.config.layout.engines.iter().enumerate() {
            let pair = counters.started.get_mut(engine).zip(counters.ended.get_mut(engine));
            let Some((started, ended)) = pair else { break };
            *started = self.read(registers.started);
            *ended = self.read(registers.ended);
        }
        counters.cycles = self.read64(self.config.layout.cycles);
        counters
    }

    /// Where the DPU sees bytes; 0 for none, which no instruction touches.
    fn address(&self, bytes: &[u8]) -> Option<u64> {
        if bytes.is_empty() {
            return Some(0);
        }
        let start = self.dma.address(bytes)?;
        let end = start.checked_add(u64::try_from(bytes.len()).ok()?)?;
        (end <= 1 << ADDRESS_BITS).then_some(start)
    }

    fn addresses(&self, code: &[u8], memory: &Memory<'_>) -> Result<[u64; 5], MmioError> {
        let code = self.address(code).ok_or(MmioError::Unreachable(None))?;
        if !code.is_multiple_of(CODE_ALIGN as u64) {
            return Err(MmioError::Alignment(code));
        }
        let region = |region, bytes: &[u8]| self.address(bytes).ok_or(MmioError::Unreachable(Some(region)));
        Ok([
            code,
            region(Region::Constants, memory.constants)?,
            region(Region::Workspace, memory.workspace)?,
            region(Region::Inputs, memory.inputs)?,
            region(Region::Outputs, memory.outputs)?,
        ])
    }

    fn write_addresses(&mut self, [code, bases @ ..]: [u64; 5]) -> Result<(), MmioError> {
        let layout = self.config.layout;
        let code = code >> layout.code_shift;
        let offset = self.offset(layout.code);
        self.registers.write32(offset, code as u32);
        if layout.code_high {
            self.registers.write32(offset + 4, (code >> 32) as u32);
        }
        let first = self.offset(layout.bases);
        for (at, base) in (first..).step_by(8).zip(bases) {
            self.registers.write32(at, base as u32);
            self.registers.write32(at + 4, (base >> 32) as u32);
        }
        let (wrote, read) = (code as u32, self.registers.read32(offset));
        if wrote == read { Ok(()) } else { Err(MmioError::NoAnswer { offset, wrote, read }) }
    }

    fn clean(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.dma.clean(bytes);
        }
    }

    /// Before the DPU reads. What it writes is cleaned as well: a dirty line that leaves the cache later would
    /// overwrite the DPU's result.
    fn clean_all(&mut self, code: &[u8], memory: &Memory<'_>) {
        for (bytes, published) in [code, memory.constants].into_iter().zip(self.published) {
            if !within(span(bytes), published) {
                self.clean(bytes);
            }
        }
        for bytes in [&*memory.workspace, &*memory.inputs, &*memory.outputs] {
            self.clean(bytes);
        }
        // Memory first, then the start.
        fence(Ordering::SeqCst);
    }

    /// After the DPU has written.
    fn invalidate_all(&mut self, memory: &mut Memory<'_>) {
        fence(Ordering::SeqCst);
        for bytes in [&mut *memory.workspace, &mut *memory.inputs, &mut *memory.outputs] {
            if !bytes.is_empty() {
                // The compiler cannot know who wrote here.
                self.dma.invalidate(black_box(bytes));
            }
        }
    }

    /// Waits for the end of the job that was started. `false` when time is up.
    fn wait(&mut self) -> bool {
        let step = self.config.poll_us.max(1);
        let mut waited = 0u32;
        loop {
            if self.is_done() {
                return true;
            }
            if waited >= self.config.limit_us {
                return false;
            }
            self.timer.delay_us(step);
            waited = waited.saturating_add(step);
        }
    }

    /// A core that failed is stopped at once: it must not write into memory that others use by then.
    fn fail(&mut self, error: MmioError) -> MmioError {
        self.unknown = true;
        // A core that cannot be reset stays `hung`, and the next job is refused with the reason.
        let _ = self.reset();
        error
    }
}

impl<R: Registers, M: Dma, T: DelayNs> Dpu for MmioDpu<R, M, T> {
    type Error = MmioError;

    /// Writes code and constants back from the cache once, instead of before each job. Where the register map tells the
    /// DPU's fingerprint, the next job compares it with the deployable's.
    fn load(&mut self, deployable: &Deployable<'_>) {
        self.wanted = Some(deployable.fingerprint());
        // A core that hung and was not reset gets nothing new; the next job begins with another try at that.
        self.published = match self.hung {
            true => [(0, 0); 2],
            false => [deployable.code(), deployable.constants()].map(|bytes| {
                self.clean(bytes);
                span(bytes)
            }),
        };
    }

    fn run(&mut self, _: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), MmioError> {
        let addresses = self.addresses(code, memory)?;
        if self.unknown {
            self.reset()?;
        }
        self.apply(self.config.layout.prepare);
        if let Err(error) = self.write_addresses(addresses) {
            // A reset did not arrive either.
            self.unknown = true;
            return Err(error);
        }
        self.check_target()?;
        if self.is_done() {
            self.apply(self.config.layout.acknowledge);
            if self.is_done() {
                return Err(self.fail(MmioError::Stuck));
            }
        }
        self.clean_all(code, memory);
        self.hung = true;
        self.apply(self.config.layout.start);
        let done = self.wait();
        self.counters = self.count();
        if !done {
            return Err(self.fail(MmioError::Timeout(self.counters)));
        }
        self.apply(self.config.layout.acknowledge);
        if self.counters.started != self.counters.ended {
            return Err(self.fail(MmioError::Unfinished(self.counters)));
        }
        self.hung = false;
        self.invalidate_all(memory);
        Ok(())
    }
}
