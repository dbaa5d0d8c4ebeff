//! Why nothing was run: one list of numbers for Rust, C and logs.

use core::ffi::CStr;

use shiftwise_core::model::ParseError;
use shiftwise_core::run::RunError;

/// Why a deployable is refused or a run failed. [`Self::code`] never changes its meaning between versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(all(feature = "image", target_os = "none"), derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a deployable, or not an undamaged one.
    Parse(ParseError),
    /// It was compiled for another target; this is its fingerprint.
    Target(u64),
    /// The arena is too small.
    Memory {
        /// Bytes needed, the alignment of the slice given included.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// There is no input or output with this number.
    Index(usize),
    /// The data has another number of elements than the tensor.
    Length {
        /// Elements of the tensor.
        needed: usize,
        /// Elements given.
        given: usize,
    },
    /// The tensor holds another type: integers where floats were asked for, or the other way round.
    Type,
    /// The device failed in this step.
    Dpu {
        /// Step index.
        step: u16,
    },
    /// The memory of a step is not as its kernel needs it.
    Layout {
        /// Step index.
        step: u16,
    },
    /// The deployable holds no self-test samples.
    NoSelfTest,
    /// An output of a self-test sample is not what the deployable says.
    SelfTest(Mismatch),
}

/// The first element of a self-test's outputs that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(all(feature = "image", target_os = "none"), derive(defmt::Format))]
pub struct Mismatch {
    /// Sample, from 0.
    pub sample: u16,
    /// Output of the network, from 0.
    pub output: u8,
    /// Byte of that output.
    pub byte: u32,
    /// What the deployable says.
    pub wanted: u8,
    /// What was computed.
    pub found: u8,
}

impl Error {
    /// A stable number, never 0.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Parse(error) => error.code(),
            Self::Target(_) => 16,
            Self::Memory { .. } => 17,
            Self::Index(_) => 18,
            Self::Length { .. } => 19,
            Self::Type => 20,
            Self::Dpu { .. } => 32,
            Self::Layout { .. } => 33,
            Self::NoSelfTest => 48,
            Self::SelfTest(_) => 49,
        }
    }

    /// A sentence without the numbers.
    pub const fn text(&self) -> &'static str {
        text(self.code())
    }
}

macro_rules! texts {
    ($($code:literal => $text:literal,)*) => {
        /// The sentence of an error code; 0 is no error.
        pub const fn text(code: u8) -> &'static str {
            match code {
                $($code => $text,)*
                _ => "unknown error",
            }
        }

        /// [`text`], terminated for C.
        pub const fn terminated(code: u8) -> &'static CStr {
            match code {
                $($code => const {
                    match CStr::from_bytes_with_nul(concat!($text, "\0").as_bytes()) {
                        Ok(text) => text,
                        Err(_) => c"",
                    }
                },)*
                _ => c"unknown error",
            }
        }
    };
}

texts! {
    0 => "no error",
    1 => "the deployable is cut short",
    2 => "not a shiftwise deployable",
    3 => "a deployable format version that this runtime does not know",
    4 => "the deployable's checksum does not match its bytes",
    5 => "a section of the deployable lies outside the file",
    6 => "a record of the deployable does not decode",
    7 => "a record of the deployable refers to something that does not exist",
    8 => "a layer that this runtime was built without",
    16 => "the deployable was compiled for another target",
    17 => "too little memory for the deployable",
    18 => "there is no such input or output",
    19 => "the data has another number of elements than the tensor",
    20 => "the tensor holds another element type",
    32 => "the DPU failed, or there is none",
    33 => "a layer's memory is not as its kernel needs it",
    48 => "the deployable holds no self-test",
    49 => "the self-test found a wrong output",
    64 => "a null pointer or a bad handle",
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Parse(error) => error.fmt(f),
            Self::Target(fingerprint) => write!(f, "{}: {fingerprint:#018x}", self.text()),
            Self::Memory { needed, given } => write!(f, "{}: {needed} bytes needed, {given} given", self.text()),
            Self::Index(index) => write!(f, "{}: {index}", self.text()),
            Self::Length { needed, given } => write!(f, "{}: {needed}, not {given}", self.text()),
            Self::Dpu { step } | Self::Layout { step } => write!(f, "step {step}: {}", self.text()),
            Self::SelfTest(m) => write!(
                f,
                "{}: sample {}, output {}, byte {} is {:#04x} and should be {:#04x}",
                self.text(),
                m.sample,
                m.output,
                m.byte,
                m.found,
                m.wanted
            ),
            Self::Type | Self::NoSelfTest => f.write_str(self.text()),
        }
    }
}

impl core::error::Error for Error {}

impl From<ParseError> for Error {
    fn from(error: ParseError) -> Self {
        Self::Parse(error)
    }
}

impl<E> From<RunError<E>> for Error {
    /// The device's own error is lost: who wants it looks at the [`RunError`].
    fn from(error: RunError<E>) -> Self {
        match error {
            RunError::Region { needed, given, .. } => Self::Memory { needed, given },
            RunError::Dpu { step, .. } => Self::Dpu { step },
            RunError::Layout { step } => Self::Layout { step },
        }
    }
}
