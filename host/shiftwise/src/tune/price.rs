//! What running a network costs on what it is tuned for.

use serde::Serialize;
use shiftwise_compile::Engine;
use shiftwise_graph::error::Error;
use shiftwise_integer::{lower, unquantized};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_targets::Board;

use crate::device::Device;
use crate::estimate::{estimate, estimate_cpu};

/// Instructions of a multiply-accumulate in a layer that was never measured, in floats or with wide integers (OURS: more than
/// any measured layer takes, so that leaving the measured ones never looks like a gain).
const UNMEASURED: u64 = 32;

/// What a program is priced in.
#[derive(Clone, Copy, Debug)]
pub enum Price<'d> {
    /// Microseconds of a frame from end to end on a DPU, layers on the CPU included.
    Dpu(&'d Device),
    /// Instructions of a frame on a board's processor.
    Board(&'d Board),
    /// Bytes of the deployable for a CPU.
    Size,
}

/// The unit of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// µs of a frame.
    Microseconds,
    /// Instructions of a frame.
    Instructions,
    /// Bytes of the deployable.
    Bytes,
}

impl Unit {
    /// Behind a number.
    pub const fn short(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Instructions => "instructions",
            Self::Bytes => "bytes",
        }
    }
}

impl Price<'_> {
    /// Its unit.
    pub const fn unit(&self) -> Unit {
        match self {
            Self::Dpu(_) => Unit::Microseconds,
            Self::Board(_) => Unit::Instructions,
            Self::Size => Unit::Bytes,
        }
    }

    /// The price of a network in thousandths of the unit.
    ///
    /// Errors: a network that can't run there, with the reason.
    pub(super) fn of(&self, q: &QuantGraph) -> Result<u64, Error> {
        if let Some(left) = unquantized::grids(q).first() {
            return Err(Error::Compile(left.reason.to_string()));
        }
        let graph = lower::lower(q)?;
        let thousandths = match self {
            Self::Dpu(device) => {
                let estimated = estimate(&graph, device)?;
                (1e3 * estimated.report(device).end_to_end_us).round() as u64
            }
            Self::Board(board) => {
                let estimated = estimate_cpu(&graph, Some(board))?;
                let rows = estimated.program.layers.iter().enumerate().filter(|(_, row)| row.engine != Engine::View);
                let each = rows.map(|(at, row)| {
                    let known = estimated.on_cpu.instructions.get(at).copied().flatten();
                    known.unwrap_or(row.macs.saturating_mul(UNMEASURED))
                });
                1000 * each.fold(0, u64::saturating_add).min(u64::MAX / 1000)
            }
            Self::Size => 1000 * estimate_cpu(&graph, None)?.bytes() as u64,
        };
        Ok(thousandths)
    }
}
