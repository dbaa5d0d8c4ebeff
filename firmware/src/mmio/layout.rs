//! Register maps as data: where the registers of a DPU lie, and what is written to them in which order.
//!
//! DPUCZDX8G has two. Marks: DOC, stated by a public source (named); INF, inferred. Nothing here was tried on hardware
//! by this project.

/// A register of 32 bits, by its offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// One for all cores.
    Shared(u32),
    /// One for each core: its offset for core 0, see [`Layout::core_spacing`].
    Core(u32),
}

/// What is done to registers. "The core's bit" is bit n for core n.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Write(Register, u32),
    /// Writes the core's bit and zeros.
    WriteBit(Register),
    /// Sets the core's bit and keeps the others.
    SetBit(Register),
    /// Clears the core's bit and keeps the others.
    ClearBit(Register),
    /// Waits for microseconds.
    Pause(u32),
}

/// A bit of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit {
    /// Bit n for core n.
    Core,
    /// This one.
    At(u8),
}

/// Instructions that an engine has begun and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineRegisters {
    /// Begun.
    pub started: Register,
    /// Ended.
    pub ended: Register,
}

/// A register map, with the sequences that belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For people.
    pub name: &'static str,
    /// Cores that one register space serves.
    pub cores: u8,
    /// Bytes from a core's registers to those of the next core.
    pub core_spacing: u32,
    /// Low half of the target's fingerprint; the high half follows. `None` where it is not public how to read it.
    pub fingerprint: Option<Register>,
    /// Address of the code, shifted right by [`Self::code_shift`].
    pub code: Register,
    /// Bits of the code's address that are not written.
    pub code_shift: u8,
    /// Whether the high half of the code's address follows.
    pub code_high: bool,
    /// Low half of base register 0; its high half, then the other seven follow.
    pub bases: Register,
    /// Stops a core and brings it to its initial state; `None` where no register does.
    pub reset: Option<&'static [Op]>,
    /// Before the addresses are written.
    pub prepare: &'static [Op],
    /// Starts the core.
    pub start: &'static [Op],
    /// Tells that a job is done.
    pub done: (Register, Bit),
    /// Takes note of a job that is done.
    pub acknowledge: &'static [Op],
    /// LOAD, SAVE, CONV, MISC.
    pub engines: [EngineRegisters; 4],
    /// Low half of the job's cycles; the high half follows.
    pub cycles: Register,
}

use Register::{Core, Shared};

/// Bursts of 16 beats and 8 outstanding transfers on each data port: what the vendor's software always writes. DOC
/// (VART, Linux driver)
const PORTS: u32 = 0x0707_0F0F;

const fn engine(started: u32, ended: u32) -> EngineRegisters {
    EngineRegisters { started: Core(started), ended: Core(ended) }
}

/// The IP as Vivado integrates it. DOC (PG338; Linux driver `xlnx-dpu`, which also gives the spacing of cores, the reset
/// and the order of writes).
pub const VIVADO: Layout = Layout {
    name: "Vivado IP",
    cores: 4,
    core_spacing: 0x100,
    fingerprint: Some(Shared(0x1F0)),
    code: Core(0x20C),
    code_shift: 12,
    code_high: false,
    bases: Core(0x224),
    // The reset is active low.
    reset: Some(&[
        Op::ClearBit(Shared(0x004)),
        Op::Pause(1),
        Op::Write(Core(0x200), PORTS),
        Op::Write(Core(0x220), 0),
        Op::WriteBit(Shared(0x60C)),
        Op::Pause(1),
        Op::ClearBit(Shared(0x60C)),
        Op::SetBit(Shared(0x004)),
    ]),
    prepare: &[],
    start: &[Op::Write(Core(0x220), 1)],
    done: (Shared(0x608), Bit::Core),
    acknowledge: &[Op::WriteBit(Shared(0x60C)), Op::Write(Core(0x220), 0), Op::ClearBit(Shared(0x60C))],
    engines: [engine(0x280, 0x270), engine(0x27C, 0x26C), engine(0x278, 0x268), engine(0x274, 0x264)],
    cycles: Core(0x290),
};

/// The kernel as Vitis integrates it: one register space for each core. DOC (VART), except that bit 1 of the control
/// register tells the end of a job: INF, from the protocol of Vitis kernels. No register for a reset is public, so a core
/// that hangs needs one from the platform, see [`Registers::reset`](super::Registers::reset).
pub const VITIS: Layout = Layout {
    name: "Vitis kernel",
    cores: 1,
    core_spacing: 0,
    fingerprint: None,
    code: Core(0x50),
    code_shift: 0,
    code_high: true,
    bases: Core(0x60),
    reset: None,
    // Clear the interrupt (without it only the first job runs), count, set up the ports.
    prepare: &[Op::Write(Core(0x40), 1), Op::Write(Core(0x44), 1), Op::Write(Core(0x48), PORTS)],
    start: &[Op::Write(Core(0x00), 1)],
    done: (Core(0x00), Bit::At(1)),
    acknowledge: &[Op::Write(Core(0x40), 1)],
    engines: [engine(0x180, 0x184), engine(0x190, 0x194), engine(0x188, 0x18C), engine(0x198, 0x19C)],
    cycles: Core(0x1A0),
};
