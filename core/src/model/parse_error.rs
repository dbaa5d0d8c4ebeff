//! Why bytes are not a deployable.

use serde::{Deserialize, Serialize};

use super::deployable::{FORMAT_VERSION, PLAIN_VERSION};

/// Why bytes are not a deployable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ParseError {
    /// Fewer bytes than the header, or than the header announces.
    Truncated,
    /// The first bytes are not [`MAGIC`](super::MAGIC).
    Magic,
    /// A format version this reader does not know.
    Version(u16),
    /// The CRC-32 does not match the bytes.
    Crc,
    /// A section reaches outside the file or is misaligned.
    Section(u8),
    /// A record of a section does not decode.
    Record(u8, u16),
    /// A record refers to a tensor, constant or code that does not exist, or its geometry is inconsistent.
    Reference(u8, u16),
    /// A step is of a layer that this reader was built without, see the features of this crate.
    LeftOut(u16),
}

impl ParseError {
    /// A stable number for links and logs.
    pub const fn code(self) -> u8 {
        match self {
            Self::Truncated => 1,
            Self::Magic => 2,
            Self::Version(_) => 3,
            Self::Crc => 4,
            Self::Section(_) => 5,
            Self::Record(..) => 6,
            Self::Reference(..) => 7,
            Self::LeftOut(_) => 8,
        }
    }
}

impl core::fmt::Display for ParseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => write!(f, "the deployable is cut short"),
            Self::Magic => write!(f, "not a shiftwise deployable: it does not start with SWM1"),
            Self::Version(v) => {
                write!(f, "deployable format version {v}, this reader knows {PLAIN_VERSION} to {FORMAT_VERSION}")
            }
            Self::Crc => write!(f, "the deployable's checksum does not match its bytes"),
            Self::Section(s) => write!(f, "section {s} of the deployable lies outside the file"),
            Self::Record(s, i) => write!(f, "record {i} of section {s} does not decode"),
            Self::Reference(s, i) => write!(f, "record {i} of section {s} refers to something that does not exist"),
            Self::LeftOut(i) => write!(f, "step {i} is of a layer that this runtime was built without"),
        }
    }
}

impl core::error::Error for ParseError {}
