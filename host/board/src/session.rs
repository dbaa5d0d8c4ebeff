//! What a session with a board is about: how the board is named, what it reports, why it fails.

use std::path::PathBuf;
use std::time::Duration;

use crate::image;
use shiftwise_core::link::{Fault, Wrong};
use shiftwise_core::model::{ParseError, TensorId};

/// A board that a user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardSpec {
    /// `qemu:NAME`: an emulated board; QEMU is started and ended with the session.
    Qemu(&'static image::BoardImage),
    /// `serial:PATH` or `serial:PATH@BAUD`: a board that runs the image already.
    Serial(SerialPort),
}

/// A serial port. A terminal device is set to raw bytes at the rate given; any other device is taken as it is. A file is
/// refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialPort {
    /// Its device file.
    pub path: PathBuf,
    /// Bits per second.
    pub baud: u32,
}

impl From<&str> for SerialPort {
    /// `PATH` at 115200 bits per second, or `PATH@BAUD`.
    fn from(text: &str) -> Self {
        match text.rsplit_once('@').and_then(|(path, baud)| Some((path, baud.parse().ok()?))) {
            Some((path, baud)) if baud > 0 => Self { path: path.into(), baud },
            _ => Self { path: text.into(), baud: 115_200 },
        }
    }
}

impl std::str::FromStr for BoardSpec {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text.split_once(':') {
            Some(("qemu", name)) => image::board(name).map(Self::Qemu).map_err(LinkError::from),
            Some(("serial", port)) if !port.is_empty() => Ok(Self::Serial(port.into())),
            _ => Err(LinkError::UnknownBoard(text.into())),
        }
    }
}

/// How long a board may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a request to its answer.
    pub answer: Duration,
    /// From one message of a run to the next; the slowest layer decides.
    pub step: Duration,
    /// Attempts at a request or a sample before damage or silence is an error.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(10), step: Duration::from_secs(300), attempts: 4 }
    }
}

/// What a board reported of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleResult {
    /// Tensors in the order in which they were computed, inputs first.
    pub tensors: Vec<(TensorId, Reported)>,
    /// Per step: instructions on an emulator, ticks of [`crate::Info::hz`] on hardware.
    pub steps: Vec<u64>,
}

impl SampleResult {
    /// The bytes of a tensor, if they were asked for.
    pub fn bytes(&self, id: TensorId) -> Option<&[u8]> {
        self.tensors.iter().find_map(|(other, reported)| match reported {
            Reported::Bytes(bytes) if *other == id => Some(&bytes[..]),
            _ => None,
        })
    }
}

/// One tensor as a board reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// All bytes.
    Bytes(Vec<u8>),
    /// Their CRC-32.
    Crc(u32),
}

/// The first tensor in which a board differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub tensor: TensorId,
    /// Its first byte that differs; `None` if the bytes are right the second time: the board does not always compute
    /// the same.
    pub first: Option<usize>,
    /// How many bytes differ.
    pub count: usize,
    /// Its bytes on the board.
    pub found: Vec<u8>,
}

/// What came of a deployable's own samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfTested {
    /// How many there are.
    pub samples: u16,
    /// The first wrong byte, if there is one.
    pub wrong: Option<Wrong>,
}

/// The names of emulated boards, in a list that goes on.
fn emulated() -> String {
    image::boards().iter().map(|board| format!("qemu:{}, ", board.name)).collect()
}

/// Why a board could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The name is of no known form.
    #[error("unknown board {0:?}; boards are named {names}serial:PATH[@BAUD]", names = emulated())]
    UnknownBoard(String),
    /// The firmware image is missing and could not be built, or the board's name is unknown.
    #[error(transparent)]
    Image(#[from] image::ImageError),
    /// The emulator is not installed.
    #[error("{program} is not installed; on Debian: apt-get install {package}")]
    NoEmulator {
        /// The program.
        program: String,
        /// Debian's package of it.
        package: String,
    },
    /// A file, port or process failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// No answer in time, after all attempts.
    #[error("the board does not answer{0}")]
    Silent(String),
    /// The other end closed the link.
    #[error("the board closed the link{0}")]
    Closed(String),
    /// Frames keep arriving damaged.
    #[error("the link damages every attempt")]
    Noise,
    /// An answer that does not belong to the request.
    #[error("the board answered {0}, which does not fit the request")]
    Answer(String),
    /// The image speaks another version of the protocol.
    #[error("the board speaks link version {board}, this tool {own}: rebuild the firmware")]
    Version {
        /// The board's.
        board: u8,
        /// Ours.
        own: u8,
    },
    /// The board refused.
    #[error("the board refuses: {fault}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        /// Why.
        fault: Fault,
        /// The device's own words.
        text: String,
    },
    /// The file is not a deployable.
    #[error(transparent)]
    Deployable(#[from] ParseError),
    /// Inputs that do not fit the network.
    #[error("the network takes inputs of {wanted:?} bytes, this sample has {given:?}")]
    Inputs {
        /// Bytes per input.
        wanted: Vec<usize>,
        /// Bytes given.
        given: Vec<usize>,
    },
}
