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
    /// Fill and drain of the CONV array, per CONV.
    pub conv_fixed: u64,
    /// The same of the ALU and element-wise arrays.
    pub misc_fixed: u64,
    /// An initialisation instruction.
    pub init: u64,
    /// Latency of a LOAD beyond its data: request to first byte, and bookkeeping.
    pub load_fixed: u64,
    /// Latency of a SAVE beyond its data.
    pub save_fixed: u64,
    /// Extra cycles of each contiguous piece of memory after the first: a burst cannot cross a gap.
    pub segment: f64,
    /// Bytes per cycle of one data port. A port is 16 bytes wide (DOC); three quarters of it were observed when weights
    /// stream in (INF).
    pub port_bytes: f64,
    /// Cycles to fetch one instruction word through the 32-bit instruction port.
    pub fetch_word: f64,
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
            conv_fixed: 40,
            misc_fixed: 40,
            init: 4,
            load_fixed: 40,
            save_fixed: 40,
            segment: 0.25,
            port_bytes: 12.0,
            fetch_word: 1.0,
            shuffle: 0,
        }
    }
}

/// When each data port is free again. A LOAD is spread over both, a SAVE uses the one it names (UNK how the hardware
/// spreads a LOAD; that it uses more than one port follows from the observed rate).
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    free: [u64; 2],
}

impl Ports {
    /// The cycle at which an instruction that starts at `now` is done.
    pub(crate) fn finish(&mut self, costs: &Costs, work: &Work, index: u64, now: u64) -> u64 {
        if costs.shuffle != 0 {
            return now + random(costs.shuffle ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        let data = |bytes: u64| {
            let pieces = costs.segment * f64::from(work.segments.saturating_sub(1));
            (bytes as f64 / costs.port_bytes.max(1e-3) + pieces).ceil() as u64
        };
        let mut occupy = |port: usize, cycles: u64| {
            let free = &mut self.free[port];
            *free = now.max(*free) + cycles;
            *free
        };
        match work.kind {
            Kind::Load => {
                let half = data(work.bytes_in.div_ceil(2));
                let done = occupy(0, half).max(occupy(1, half));
                done + costs.load_fixed
            }
            Kind::Save => occupy(usize::from(work.port & 1), data(work.bytes_out)) + costs.save_fixed,
            Kind::Conv => now + work.steps + costs.conv_fixed,
            Kind::Alu | Kind::Elew | Kind::Pool | Kind::DptWise => now + work.steps + costs.misc_fixed,
            Kind::End => now,
            Kind::ConvInit | Kind::AluInit | Kind::ElewInit | Kind::PoolInit | Kind::DwInit => now + costs.init,
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
