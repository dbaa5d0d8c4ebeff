//! A DPU seen from its bus: registers as a state machine, memory of its own behind a cache that is not coherent, time
//! that passes only in delays, and faults on request.
//!
//! The register maps are written down here a second time, apart from the driver's tables. Whatever a driver must not do
//! is noted in [`Model::violations`].

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use embedded_hal::delay::DelayNs;
use shiftwise_core::exec::Machine;
use shiftwise_core::isa::codec::program;
use shiftwise_core::model::{DpuJob, TensorList};
use shiftwise_core::run::{Dpu, Memory};
use shiftwise_core::target::Target;
use shiftwise_firmware::mmio::{Dma, Registers};

/// Which register map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    Vivado,
    Vitis,
}

/// What goes wrong with one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing; takes so many microseconds.
    Takes(u64),
    /// Stops in the middle, with part of its results written.
    Hangs,
    /// Ends, and the status never tells.
    Mute,
    /// Says that it is done with instructions left, results partly written.
    Early,
    /// The core's registers and its status read as noise from the start on, until the reset.
    Noise,
}

/// A call to maintain the cache, by address on the bus and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Clean(u64, usize),
    Invalidate(u64, usize),
}

/// An access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read(u32, u32),
    Write(u32, u32),
}

/// Memory that both sides reach: the processor by its cache, the DPU by what is behind it.
#[derive(Debug)]
struct Window {
    cpu: usize,
    bus: u64,
    /// What the DPU sees.
    ddr: Vec<u8>,
    /// What the processor's copy was when the two last agreed.
    agreed: Vec<Option<u8>>,
}

#[derive(Debug)]
struct Job {
    started: u64,
    ends: Option<u64>,
    trouble: Trouble,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) map: Map,
    core: u32,
    target: Target,
    /// Whether anybody is there at all.
    pub(super) absent: bool,
    /// Whether the platform can reset a Vitis kernel.
    pub(super) platform_reset: bool,
    /// For the next jobs, in order; then each takes a millisecond.
    pub(super) troubles: VecDeque<Trouble>,
    pub(super) violations: Vec<String>,
    pub(super) calls: Vec<Call>,
    pub(super) accesses: Vec<Access>,
    /// Jobs that ran to their end.
    pub(super) finished: u32,
    pub(super) resets: u32,
    windows: Vec<Window>,
    /// Nanoseconds.
    now: u64,
    last_look: Option<u64>,
    code: u64,
    code_written: bool,
    bases: [u64; 8],
    bases_written: u8,
    in_reset: bool,
    ports: u32,
    start: u32,
    profile: u32,
    clear: u32,
    done: bool,
    /// Vitis: the interrupt of the last job was cleared.
    cleared: bool,
    noisy: bool,
    noise: u32,
    job: Option<Job>,
    engines: [[u32; 2]; 4],
    cycles: u64,
}

const PORTS: u32 = 0x0707_0F0F;
/// Bytes of a line of the cache.
const LINE: u64 = 64;

impl Model {
    pub(super) fn new(map: Map, core: u32, target: &Target) -> Self {
        Self {
            map,
            core,
            target: target.clone(),
            absent: false,
            platform_reset: true,
            troubles: VecDeque::new(),
            violations: Vec::new(),
            calls: Vec::new(),
            accesses: Vec::new(),
            finished: 0,
            resets: 0,
            windows: Vec::new(),
            now: 0,
            last_look: None,
            // Left by whoever ran before.
            code: 0x123,
            code_written: false,
            bases: [0xBAD; 8],
            bases_written: 0,
            in_reset: false,
            ports: if map == Map::Vivado { 0 } else { PORTS },
            start: 0,
            profile: 0,
            clear: 0,
            done: false,
            cleared: false,
            noisy: false,
            noise: 1,
            job: None,
            engines: [[0; 2]; 4],
            cycles: 0,
        }
    }

    /// Shares the processor's `bytes` with the DPU at `bus`. What is there at first is neither side's.
    pub(super) fn map(&mut self, bytes: &[u8], bus: u64) {
        let window =
            Window { cpu: bytes.as_ptr().addr(), bus, ddr: vec![0xDD; bytes.len()], agreed: vec![None; bytes.len()] };
        self.windows.push(window);
    }

    fn window(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let start = bytes.as_ptr().addr();
        self.windows.iter().enumerate().find_map(|(index, w)| {
            let at = start.checked_sub(w.cpu)?;
            (at + bytes.len() <= w.ddr.len()).then_some((index, at))
        })
    }

    fn wrong(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// The bytes from a bus address to the next base register's, or to the end of its window.
    fn extent(&self, base: u64) -> Option<(usize, std::ops::Range<usize>)> {
        self.windows.iter().enumerate().find_map(|(index, w)| {
            let at = usize::try_from(base.checked_sub(w.bus)?).ok().filter(|at| *at < w.ddr.len())?;
            let next = self.bases.iter().take(4).filter_map(|b| usize::try_from(b.checked_sub(w.bus)?).ok());
            let end = next.filter(|b| *b > at).chain([w.ddr.len()]).min()?;
            Some((index, at..end.min(w.ddr.len())))
        })
    }

    /// Executes the code, as far as `keep` lets results out: all of them, or the first few bytes of each region.
    fn execute(&mut self, keep: usize) -> Result<(), String> {
        let places: Vec<_> = (0..4).map(|i| self.extent(self.bases[i])).collect();
        let bytes = |place: &Option<(usize, std::ops::Range<usize>)>| {
            place.clone().map_or_else(Vec::new, |(w, range)| self.windows[w].ddr[range].to_vec())
        };
        let [constants, mut workspace, mut inputs, mut outputs] =
            <[Vec<u8>; 4]>::try_from(places.iter().map(bytes).collect::<Vec<_>>()).unwrap();
        let (code, range) = self.extent(self.code).ok_or("no memory at the code's address")?;
        let code = self.windows[code].ddr[range].to_vec();
        let mut banks = vec![0x5A; self.target.bank_bytes()];
        let mut machine = Machine::new(&self.target, &mut banks).ok_or("target too wide")?;
        let job = DpuJob { name: "", offset: 0, bytes: 0, outputs: TensorList(&[]) };
        let mut memory =
            Memory { constants: &constants, workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
        machine.run(&job, &code, &mut memory).map_err(|e| e.to_string())?;
        self.engines = [[0; 2]; 4];
        for line in program(self.target.isa, &code).map_while(|(_, line)| line.ok()) {
            self.engines[line.inst.engine() as usize].iter_mut().for_each(|n| *n += 1);
            if line.inst.kind() == shiftwise_core::isa::Kind::End {
                break;
            }
        }
        self.cycles = 0x1_0000_0000 + code.len() as u64;
        for (place, bytes) in places.into_iter().zip([constants, workspace, inputs, outputs]).skip(1) {
            if let Some((window, range)) = place {
                let n = bytes.len().min(keep);
                self.windows[window].ddr[range.start..range.start + n].copy_from_slice(&bytes[..n]);
                if n < bytes.len() {
                    self.windows[window].ddr[range.start..range.start + n].fill(0xEE);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self) {
        if self.in_reset {
            return self.wrong("started in reset");
        }
        if self.job.is_some() {
            return self.wrong("started while running");
        }
        if !self.code_written || self.bases_written != 0b1111 {
            self.wrong("started without all addresses");
        }
        if self.ports != PORTS {
            self.wrong("started without ports set up");
        }
        if self.map == Map::Vitis && !(self.cleared && self.profile == 1) {
            self.wrong("started without clearing the interrupt");
        }
        if self.done {
            self.wrong("started before the last end was acknowledged");
        }
        (self.code_written, self.bases_written, self.cleared) = (false, 0, false);
        let trouble = self.troubles.pop_front().unwrap_or(Trouble::Takes(1000));
        let after = |us: u64| Some(self.now + 1000 * us);
        let ends = match trouble {
            Trouble::Takes(us) => after(us),
            Trouble::Hangs => None,
            Trouble::Mute | Trouble::Early => after(300),
            Trouble::Noise => {
                self.noisy = true;
                None
            }
        };
        if matches!(trouble, Trouble::Hangs | Trouble::Early | Trouble::Noise) {
            // A program that is wrong hangs as well.
            if let Err(error) = self.execute(5) {
                self.wrong(error);
            }
            self.engines[3][1] = self.engines[3][0];
            self.engines[2][1] /= 2;
            self.engines[1][1] = 0;
            self.engines[1][0] = 1;
        }
        self.last_look = None;
        self.job = Some(Job { started: self.now, ends, trouble });
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ns: u64) {
        self.now += ns;
        let Some(job) = self.job.as_ref().filter(|job| job.ends.is_some_and(|ends| ends <= self.now)) else { return };
        assert!(job.started <= self.now);
        let trouble = job.trouble;
        self.job = None;
        match trouble {
            Trouble::Takes(_) | Trouble::Mute => match self.execute(usize::MAX) {
                Ok(()) => {
                    self.finished += 1;
                    self.done = trouble != Trouble::Mute;
                }
                Err(error) => self.wrong(error),
            },
            _ => self.done = true,
        }
    }

    fn reset(&mut self) {
        self.resets += 1;
        (self.job, self.done, self.noisy, self.start) = (None, false, false, 0);
        (self.code_written, self.bases_written) = (false, 0);
        if self.map == Map::Vitis {
            self.ports = 0;
        }
    }

    /// The register at an offset of core 0, from one of this core; `None` for those of other cores.
    fn own(&self, offset: u32) -> Option<u32> {
        match (self.map, offset) {
            (Map::Vivado, 0x200..=0x5FF) => {
                offset.checked_sub(0x100 * self.core).filter(|o| (0x200..0x300).contains(o))
            }
            _ => Some(offset),
        }
    }

    fn base(&self, offset: u32) -> Option<(usize, bool)> {
        let first = if self.map == Map::Vivado { 0x224 } else { 0x60 };
        let at = offset.checked_sub(first).filter(|at| *at < 64)?;
        Some((at as usize / 8, at % 8 == 4))
    }

    fn counter(&self, offset: u32) -> Option<u32> {
        let (starts, ends, cycles) = match self.map {
            // LOAD, SAVE, CONV, MISC.
            Map::Vivado => ([0x280, 0x27C, 0x278, 0x274], [0x270, 0x26C, 0x268, 0x264], 0x290),
            Map::Vitis => ([0x180, 0x190, 0x188, 0x198], [0x184, 0x194, 0x18C, 0x19C], 0x1A0),
        };
        let find = |all: [u32; 4]| all.iter().position(|o| *o == offset);
        if let Some(engine) = find(starts) {
            return Some(self.engines[engine][0]);
        }
        if let Some(engine) = find(ends) {
            return Some(self.engines[engine][1]);
        }
        match offset.checked_sub(cycles) {
            Some(0) => Some(self.cycles as u32),
            Some(4) => Some((self.cycles >> 32) as u32),
            _ => None,
        }
    }

    fn status(&mut self) -> u32 {
        if self.job.is_some() && self.last_look == Some(self.now) {
            self.wrong("polled without waiting");
        }
        self.last_look = Some(self.now);
        match self.map {
            // Other cores are done all the time.
            Map::Vivado => (0xF & !(1 << self.core)) | u32::from(self.done) << self.core,
            Map::Vitis => {
                let idle = u32::from(self.job.is_none());
                let value = u32::from(!self.done && idle == 0) | u32::from(self.done) << 1 | idle << 2;
                // Reading clears.
                self.done = false;
                value
            }
        }
    }

    fn read(&mut self, offset: u32) -> u32 {
        if self.absent {
            return u32::MAX;
        }
        let Some(own) = self.own(offset) else {
            self.wrong(format!("read {offset:#x} of another core"));
            return 0;
        };
        if let Some((register, high)) = self.base(own) {
            return (self.bases[register] >> if high { 32 } else { 0 }) as u32;
        }
        if let Some(value) = self.counter(own) {
            return value;
        }
        match (self.map, own) {
            (Map::Vivado, 0x004) => 0xF & !(u32::from(self.in_reset) << self.core),
            (Map::Vivado, 0x1F0) => self.target.fingerprint as u32,
            (Map::Vivado, 0x1F4) => (self.target.fingerprint >> 32) as u32,
            (Map::Vivado, 0x20C) => (self.code >> 12) as u32,
            (Map::Vivado, 0x608) | (Map::Vitis, 0x00) => self.status(),
            (Map::Vivado, 0x60C) => self.clear,
            (Map::Vitis, 0x50) => self.code as u32,
            _ => {
                self.wrong(format!("read of unknown register {offset:#x}"));
                0
            }
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        if self.absent {
            return;
        }
        let Some(own) = self.own(offset) else { return self.wrong(format!("write to {offset:#x} of another core")) };
        let bit = 1 << self.core;
        if let Some((register, high)) = self.base(own) {
            if self.job.is_some() {
                self.wrong("base register written while running");
            }
            if high && value > 0xFF {
                self.wrong("address above 40 bits");
            }
            let (keep, new) = if high { (0xFFFF_FFFF, u64::from(value) << 32) } else { (!0xFFFF_FFFF, value.into()) };
            self.bases[register] = self.bases[register] & keep | new;
            self.bases_written |= u8::from(high) << register;
            return;
        }
        match (self.map, own, value) {
            (Map::Vivado, 0x004, _) => {
                if value | bit != 0xF {
                    self.wrong("another core reset");
                }
                let reset = value & bit == 0;
                if self.in_reset && !reset {
                    self.reset();
                }
                self.in_reset = reset;
            }
            (Map::Vivado, 0x200, _) | (Map::Vitis, 0x48, _) => self.ports = value,
            (Map::Vivado, 0x20C, _) => (self.code, self.code_written) = (u64::from(value) << 12, true),
            (Map::Vivado, 0x220, 0 | 1) => {
                if self.start == 0 && value == 1 {
                    self.begin();
                }
                self.start = value;
            }
            (Map::Vivado, 0x60C, _) => {
                if value & !bit != 0 {
                    self.wrong("another core's interrupt cleared");
                }
                if value & bit != 0 {
                    self.done = false;
                }
                self.clear = value;
            }
            (Map::Vitis, 0x00, 1) => self.begin(),
            (Map::Vitis, 0x40, 1) => self.cleared = true,
            (Map::Vitis, 0x44, 0 | 1) => self.profile = value,
            (Map::Vitis, 0x50, _) => {
                (self.code, self.code_written) = (self.code & !0xFFFF_FFFF | u64::from(value), true)
            }
            (Map::Vitis, 0x54, _) => self.code = self.code & 0xFFFF_FFFF | u64::from(value) << 32,
            _ => self.wrong(format!("write of {value:#x} to register {offset:#x}")),
        }
    }
}

/// A board's view of the model: bus, memory and timer.
#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Rc<RefCell<Model>>);

impl Registers for Shared {
    fn read32(&mut self, offset: u32) -> u32 {
        let mut model = self.0.borrow_mut();
        let mut value = model.read(offset);
        // What all cores share is not the sick core's.
        if model.noisy && ![0x004, 0x60C].contains(&offset) {
            model.noise = model.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Never the done bit by chance: that would be an early end.
            value = model.noise & !(1 << model.core) & !2;
        }
        model.accesses.push(Access::Read(offset, value));
        value
    }

    fn write32(&mut self, offset: u32, value: u32) {
        let mut model = self.0.borrow_mut();
        model.accesses.push(Access::Write(offset, value));
        model.write(offset, value);
    }

    fn reset(&mut self) -> bool {
        let mut model = self.0.borrow_mut();
        if model.map == Map::Vivado {
            model.wrong("asked the platform for a reset that a register does");
        }
        if model.platform_reset {
            model.reset();
        }
        model.platform_reset
    }
}

impl Dma for Shared {
    fn address(&self, bytes: &[u8]) -> Option<u64> {
        let model = self.0.borrow();
        let (window, at) = model.window(bytes)?;
        Some(model.windows[window].bus + at as u64)
    }

    fn clean(&mut self, bytes: &[u8]) {
        let mut model = self.0.borrow_mut();
        if model.job.is_some() {
            model.wrong("clean while running");
        }
        let (window, at) = model.window(bytes).expect("clean of memory that is not shared");
        let window = &mut model.windows[window];
        let call = Call::Clean(window.bus + at as u64, bytes.len());
        window.ddr[at..at + bytes.len()].copy_from_slice(bytes);
        window.agreed[at..].iter_mut().zip(bytes).for_each(|(agreed, byte)| *agreed = Some(*byte));
        model.calls.push(call);
    }

    fn invalidate(&mut self, bytes: &mut [u8]) {
        let mut model = self.0.borrow_mut();
        if model.job.is_some() {
            model.wrong("invalidate while running");
        }
        let (window, at) = model.window(bytes).expect("invalidate of memory that is not shared");
        let bus = model.windows[window].bus + at as u64;
        if !bus.is_multiple_of(LINE) {
            model.wrong("invalidate of a line that begins before the bytes");
        }
        let window = &mut model.windows[window];
        let call = Call::Invalidate(bus, bytes.len());
        // A dirty line might have left the cache before, over the DPU's result.
        let dirty = window.agreed[at..].iter().zip(&*bytes).any(|(agreed, byte)| *agreed != Some(*byte));
        bytes.copy_from_slice(&window.ddr[at..at + bytes.len()]);
        window.agreed[at..].iter_mut().zip(&*bytes).for_each(|(agreed, byte)| *agreed = Some(*byte));
        if dirty {
            model.wrong("invalidate of bytes that the processor had changed");
        }
        model.calls.push(call);
    }
}

impl DelayNs for Shared {
    fn delay_ns(&mut self, ns: u32) {
        self.0.borrow_mut().pass(ns.into());
    }
}
