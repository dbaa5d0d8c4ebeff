//! Why programs stop.

use core::fmt;

use crate::isa::codec::{DecodeError, EncodeError};

/// Why an instruction cannot execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Fault {
    /// The words are no instruction.
    Decode(DecodeError),
    /// A value that no encoding holds.
    Encode(EncodeError),
    /// The code has no END.
    NoEnd,
    /// There is no such bank, or it holds something else than the instruction needs.
    Bank {
        /// Bank id.
        bank: u32,
    },
    /// An address past the end of a bank that does not wrap.
    Address {
        /// The offending address.
        address: u32,
        /// Addresses of the bank.
        depth: u32,
    },
    /// No region has this base-register number, or it is read-only.
    Register {
        /// Base register.
        reg_id: u32,
    },
    /// A transfer outside its region.
    Memory {
        /// Base register.
        reg_id: u32,
        /// First byte.
        start: u64,
        /// Bytes.
        bytes: u32,
    },
    /// Input rows past the fourth bank address, or output rows past the end of the bank group.
    Rows {
        /// The offending row, counted from the instruction's first.
        row: u32,
    },
    /// A field outside what this target can do.
    Value {
        /// Field.
        field: &'static str,
        /// Its value.
        value: u32,
        /// Largest legal value.
        max: u32,
    },
    /// A value whose meaning is unknown or not modelled.
    Unsupported {
        /// Field, or the mnemonic of an instruction that is not modelled.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// An accumulator left 32 bits.
    Accumulator {
        /// Its exact value, as far as 64 bits go.
        value: i64,
    },
    /// The initialisation instruction has not been executed.
    Uninitialised {
        /// Its mnemonic.
        inst: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Decode(e) => e.fmt(f),
            Self::Encode(e) => e.fmt(f),
            Self::NoEnd => f.write_str("the code has no END"),
            Self::Bank { bank } => write!(f, "bank {bank} does not exist or is of the wrong kind"),
            Self::Address { address, depth } => write!(f, "bank address {address} is outside 0..{depth}"),
            Self::Register { reg_id } => write!(f, "base register {reg_id} has no region that allows this"),
            Self::Memory { reg_id, start, bytes } => {
                write!(f, "{bytes} bytes at {start} are outside the region of base register {reg_id}")
            }
            Self::Rows { row } => write!(f, "row {row} is past the bank addresses of the instruction"),
            Self::Value { field, value, max } => write!(f, "{field} {value} is above {max}"),
            Self::Unsupported { field, value } => write!(f, "{field} {value} is not modelled"),
            Self::Accumulator { value } => write!(f, "accumulator {value} does not fit 32 bits"),
            Self::Uninitialised { inst } => write!(f, "no {inst} came before"),
        }
    }
}

impl core::error::Error for Fault {}

/// A [`Fault`] and where it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct ExecError {
    /// Index of the instruction in its job.
    pub index: u32,
    /// Its byte offset in the job's code.
    pub offset: u32,
    /// Its mnemonic; empty if it did not decode.
    pub inst: &'static str,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.inst.is_empty() { "" } else { " " };
        write!(f, "instruction {}{space}{} at byte {}: {}", self.index, self.inst, self.offset, self.fault)
    }
}

impl core::error::Error for ExecError {}
