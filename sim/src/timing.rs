//! What instructions cost: a table of constants, and the two data ports.
//!
//! Array cycles are counted, not guessed (`Work::steps`; for CONV they equal the vendor's own workload figures, DEC). The
//! constants here are not identified by public data: they are plausible values (INF), to be calibrated against
//! measurements. Nothing but time depends on them.

use serde::{Deserialize, Serialize};
use shiftwise_core::exec::Work;
use shiftwise_core::isa::Kind;

/// The cost table. All times are cycles of the general-logic clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// Bytes per cycle of one data port. A port is 16 bytes wide (DOC); what DDR and its controller let through is less.
    pub port_bytes: f64,
    /// Cycles from the end of a transfer's data to when others may use it: the way through the interconnect to DDR.
    /// Transfers of one engine follow each other without it.
    pub latency: f64,
    /// Extra cycles of each contiguous piece of memory after the first: a burst cannot cross a gap.
    pub segment: f64,
    /// Cycles that a LOAD or SAVE takes of its engine beyond its data.
    pub transfer: f64,
    /// Fill and drain of an array, per CONV, ALU or ELEW.
    pub compute: f64,
    /// Cycles of a step of the ALU and element-wise arrays.
    pub misc_step: f64,
    /// Cycles that an instruction of CONV or MISC takes longer per cycle in which the other array computes beside it: both
    /// read and write the same feature-map banks. 0: they do not disturb each other; 1: together they are no faster than
    /// one after the other.
    pub contention: f64,
    /// An initialisation instruction.
    pub init: f64,
    /// Cycles to fetch one instruction word: the instruction port has 32 bits (DOC).
    pub fetch_word: f64,
    /// Time from one job's END to the next one's first instruction, in microseconds: interrupt, driver, start.
    pub job_us: f64,
    /// If not 0: every instruction takes a pseudo-random time instead, drawn with this seed. For tests: the result of a
    /// program that forgot a token changes with the seed.
    pub shuffle: u64,
}

impl Costs {
    /// A table that gives every instruction a random time.
    pub fn shuffled(seed: u64) -> Self {
        Self { fetch_word: 0.0, shuffle: seed | 1 << 63, ..Self::default() }
    }
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            port_bytes: 13.0,
            latency: 200.0,
            segment: 0.0,
            transfer: 0.0,
            compute: 20.0,
            misc_step: 0.8,
            contention: 0.0,
            init: 4.0,
            fetch_word: 1.0,
            job_us: 0.0,
            shuffle: 0,
        }
    }
}

/// When an instruction frees its engine for the next, and when what it did can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// The next instruction of the engine may start.
    pub(crate) free: u64,
    /// Its results are there.
    pub(crate) end: u64,
}

impl Times {
    /// The times of an instruction of an array that started at `now` while the other array computes until `other`.
    pub(crate) fn beside(self, costs: &Costs, now: u64, other: u64) -> Self {
        if costs.shuffle != 0 {
            return self;
        }
        let shared = other.min(self.end).saturating_sub(now);
        let more = (shared as f64 * costs.contention).ceil() as u64;
        Self { free: self.free + more, end: self.end + more }
    }
}

/// When each data port is free again. A LOAD is spread over both, a SAVE uses the one it names (UNK how the hardware
/// spreads a LOAD; that it uses more than one port follows from the observed rate).
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    free: [f64; 2],
}

/// The memory behind the ports of all cores: a server that takes transfers in the order in which they start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ddr {
    /// Bytes per cycle; 0 for no limit.
    pub(crate) bytes: f64,
    free: f64,
}

impl Ddr {
    /// A memory with a rate in bytes per cycle; 0 for no limit.
    pub(crate) fn new(bytes: f64) -> Self {
        Self { bytes, free: 0.0 }
    }

    /// When a transfer that starts at `start` is through.
    fn serve(&mut self, start: f64, bytes: u64) -> f64 {
        if self.bytes <= 0.0 {
            return start;
        }
        self.free = self.free.max(start) + bytes as f64 / self.bytes;
        self.free
    }
}

impl Ports {
    /// The times of an instruction that starts at `now`.
    pub(crate) fn finish(&mut self, costs: &Costs, ddr: &mut Ddr, work: &Work, index: u64, now: u64) -> Times {
        let at = |free: f64, end: f64| Times { free: free.ceil() as u64, end: end.ceil() as u64 };
        if costs.shuffle != 0 {
            let end = now + random(costs.shuffle ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            return Times { free: end, end };
        }
        let start = now as f64;
        let data = |bytes: u64| {
            let pieces = costs.segment * f64::from(work.segments.saturating_sub(1));
            bytes as f64 / costs.port_bytes.max(1e-3) + pieces + costs.transfer
        };
        let mut occupy = |port: usize, cycles: f64| {
            let free = &mut self.free[port];
            *free = start.max(*free) + cycles;
            *free
        };
        match work.kind {
            Kind::Load => {
                let half = data(work.bytes_in.div_ceil(2));
                let free = occupy(0, half).max(occupy(1, half)).max(ddr.serve(start, work.bytes_in));
                at(free, free + costs.latency)
            }
            Kind::Save => {
                let free = occupy(usize::from(work.port & 1), data(work.bytes_out));
                let free = free.max(ddr.serve(start, work.bytes_out));
                at(free, free + costs.latency)
            }
            Kind::Conv => at(start, start + work.steps as f64 + costs.compute),
            Kind::Alu | Kind::Elew | Kind::Pool | Kind::DptWise => {
                at(start, start + work.steps as f64 * costs.misc_step + costs.compute)
            }
            Kind::End => at(start, start),
            Kind::ConvInit | Kind::AluInit | Kind::ElewInit | Kind::PoolInit | Kind::DwInit => {
                at(start, start + costs.init)
            }
        }
    }
}

/// A time whose magnitude is random too, so that both long stalls and near ties occur.
fn random(seed: u64) -> u64 {
    // The finaliser of SplitMix64.
    let x = (seed ^ seed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    let x = x ^ x >> 31;
    x >> 32 & ((1 << (x & 15)) - 1)
}
