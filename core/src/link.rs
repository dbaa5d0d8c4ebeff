//! The link between a host and a board: messages, and the frames that carry them over a byte stream.
//!
//! The host asks, the board answers. A frame is `COBS(postcard(sequence number, message) ++ CRC-32) ++ 0x00`, with the
//! checksum little-endian, so that a zero byte ends a frame and nothing else does: after noise or a cut, both sides are
//! in step again at the next zero. An answer repeats the request's sequence number, 32 bits in as many bytes as it needs;
//! the host numbers every attempt anew and drops answers to older ones. Number 0 is no request's: with it a board complains
//! of a frame that it could not read, and one damaged frame may bring several such complaints, so that a host waits until
//! the line is silent before its next attempt. After its message an answer has its number among the answers to the same
//! request, from 0: one that is lost or comes twice is noticed.
//!
//! Every request may be repeated without harm. [`Request::Run`] says what its inputs are by a checksum, because they may
//! have been damaged by a request that came twice, or their memory used for something else by the run before.
//!
//! In every version of the protocol, past and to come, [`Request::Hello`] is this one under a number below 128, and its
//! answer begins with the board's version: see [`version_of`].

#[cfg(test)]
mod tests;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use crate::crc::Crc32;
use crate::model::{ParseError, Region, TensorId, crc32};
use crate::monitor::Sketch;

/// Version of the protocol.
pub const VERSION: u8 = 3;
/// Most data bytes in one message.
pub const CHUNK: usize = 2048;
/// Most bytes of a message and its checksum, before stuffing.
pub const MESSAGE: usize = CHUNK + 128;
/// Most bytes of a frame: one stuffed byte per 254, the first code and the final zero.
pub const FRAME: usize = MESSAGE + MESSAGE / 254 + 2;

/// What a run tells about tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Report {
    /// Nothing.
    None,
    /// The bytes of the network's outputs.
    Outputs,
    /// A CRC-32 of every tensor: a frame of 16 bytes each, 25 at most. All come in one pass: a step may use the memory of
    /// tensors before it, so that a search with fewer checksums would run the network again for each question.
    Crc,
    /// The bytes of every tensor.
    Bytes,
    /// The bytes of one tensor.
    Tensor(TensorId),
}

/// Host to board.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Who is there? Answered by [`Response::Hello`].
    Hello,
    /// Bytes of the deployable. Answered by [`Response::Ready`].
    Load {
        /// Where they go in the file.
        offset: u32,
        /// At most [`CHUNK`].
        bytes: &'a [u8],
    },
    /// Be this DPU, in software, for the next deployable. Answered by [`Response::Ready`].
    Device {
        /// A [`crate::target::Target`] as postcard encodes it.
        target: &'a [u8],
    },
    /// The deployable is complete. Answered by [`Response::Facts`].
    Commit {
        /// Length of the file.
        bytes: u32,
        /// The file's last four bytes, which are its own checksum. (A CRC-32 over the whole file would not tell one
        /// file from another: with its own checksum at the end every file has the same.)
        crc: u32,
    },
    /// Bytes of a network input. Answered by [`Response::Ready`].
    Input {
        /// Which input.
        index: u8,
        /// Where they go in the tensor.
        offset: u32,
        /// At most [`CHUNK`].
        bytes: &'a [u8],
    },
    /// Run the network once. Answered by steps and tensors as they happen, then by [`Response::Done`].
    Run {
        /// What to tell.
        report: Report,
        /// CRC-32 of all inputs' bytes, in order: [`Fault::Inputs`] if memory holds something else.
        inputs: u32,
    },
    /// Bytes of a tensor as its memory holds them now. Answered by one [`Response::Bytes`].
    Read {
        /// Which tensor.
        tensor: TensorId,
        /// First byte.
        offset: u32,
        /// How many, at most [`CHUNK`].
        bytes: u32,
    },
    /// Forget the deployable and the device. Answered by [`Response::Ready`].
    Reset,
    /// Stop serving. Answered by [`Response::Ready`].
    Exit,
    /// Run the deployable's own samples. Answered by steps as they happen, then by [`Response::Tested`].
    SelfTest,
    /// What have the tensors held since the last [`Self::Forget`]? Answered by sketches, then by [`Response::Done`].
    Drift,
    /// Set the sketches back to nothing. Answered by [`Response::Ready`].
    Forget,
}

/// The first wrong byte of a self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Wrong {
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

/// Board to host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// The board.
    Hello {
        /// [`VERSION`] of the board.
        version: u8,
        /// Its name.
        board: &'a str,
        /// Largest deployable, in bytes.
        store: u32,
        /// Bytes for workspace, inputs and outputs together.
        arena: u32,
        /// Ticks per second of the counter behind the step times; 0 without a counter.
        hz: u32,
    },
    /// Done as asked.
    Ready,
    /// The deployable is checked and ready to run.
    Facts {
        /// Its name.
        name: &'a str,
        /// Number of steps.
        steps: u16,
        /// Number of tensors.
        tensors: u16,
    },
    /// A step has run.
    Step {
        /// Which.
        index: u16,
        /// How long, in ticks of the board's counter.
        ticks: u64,
    },
    /// Checksum of a tensor.
    Crc {
        /// Which.
        tensor: TensorId,
        /// CRC-32 of its bytes.
        crc: u32,
    },
    /// Part of a tensor; the parts of one tensor come in order.
    Bytes {
        /// Which.
        tensor: TensorId,
        /// First byte.
        offset: u32,
        /// At most [`CHUNK`].
        bytes: &'a [u8],
    },
    /// The last answer to a request that has several.
    Done,
    /// The request was not served.
    Fault {
        /// Why.
        fault: Fault,
        /// The device's own words, if it has any.
        text: &'a str,
    },
    /// The self-test is over.
    Tested {
        /// Samples of the deployable.
        samples: u16,
        /// What was wrong; nothing was run after that.
        wrong: Option<Wrong>,
    },
    /// What a tensor has held.
    Sketch {
        /// Which.
        tensor: TensorId,
        /// Counts since they were last forgotten.
        sketch: Sketch,
    },
}

/// Why a board did not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Fault {
    /// A frame arrived damaged. Its sequence number is unknown, so this answer carries number 0.
    Frame,
    /// No deployable is loaded.
    NotLoaded,
    /// A deployable is loaded; [`Request::Reset`] comes first.
    Loaded,
    /// An offset, length or index lies outside what it refers to.
    Range,
    /// The bytes are not the file that was meant, or chunks of it are missing.
    Crc,
    /// The file is not a deployable.
    Parse(ParseError),
    /// The board's memory is too small.
    Memory {
        /// Bytes needed for workspace, inputs and outputs.
        needed: u32,
        /// Bytes there.
        given: u32,
    },
    /// Compiled for another DPU than the board has.
    Target {
        /// The deployable's fingerprint.
        fingerprint: u64,
    },
    /// The record of a device does not decode, or its banks do not fit the memory set aside for them.
    Device,
    /// A region is too small.
    Region(Region),
    /// The DPU failed in this step.
    Dpu(u16),
    /// A CPU layer's tensors overlap in this step.
    Layout(u16),
    /// The inputs in memory are not those of the request; nothing was run.
    Inputs,
    /// The deployable has no samples of its own.
    NoSelfTest,
    /// A frame arrived intact and holds no message that the board knows. Its sequence number may mean something else,
    /// so this answer carries number 0.
    Unknown {
        /// [`VERSION`] of the board.
        version: u8,
    },
}

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Frame => write!(f, "a frame arrived damaged"),
            Self::NotLoaded => write!(f, "no deployable is loaded"),
            Self::Loaded => write!(f, "a deployable is loaded already"),
            Self::Range => write!(f, "an offset, length or index is out of range"),
            Self::Crc => write!(f, "the deployable arrived incomplete"),
            Self::Parse(error) => write!(f, "{error}"),
            Self::Memory { needed, given } => {
                write!(f, "the network needs {needed} bytes of memory, there are {given}")
            }
            Self::Target { fingerprint } => {
                write!(f, "compiled for the DPU with fingerprint {fingerprint:#018x}, which this board does not have")
            }
            Self::Device => write!(f, "the board cannot be this DPU in software"),
            Self::Region(region) => write!(f, "region {region:?} is too small"),
            Self::Dpu(step) => write!(f, "step {step}: the DPU failed"),
            Self::Layout(step) => write!(f, "step {step}: its tensors overlap"),
            Self::Inputs => write!(f, "the inputs arrived incomplete"),
            Self::NoSelfTest => write!(f, "the deployable holds no self-test samples"),
            Self::Unknown { version } => write!(f, "the board speaks link version {version} and not this one"),
        }
    }
}

impl core::error::Error for Fault {}

/// Why a frame gave no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum FrameError {
    /// Longer than [`MESSAGE`], or than the buffer given.
    Long,
    /// Cut short, or joined from two by a lost byte.
    Cut,
    /// The checksum differs.
    Crc,
    /// Intact, but no message of this version.
    Message,
}

impl core::fmt::Display for FrameError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Long => "frame too long",
            Self::Cut => "frame cut short",
            Self::Crc => "frame checksum differs",
            Self::Message => "frame holds no known message",
        })
    }
}

impl core::error::Error for FrameError {}

/// The frame of a request, written into `buffer` ([`FRAME`] bytes suffice for every message whose parts keep to
/// [`CHUNK`]).
pub fn encode<'b>(sequence: u32, request: &Request<'_>, buffer: &'b mut [u8]) -> Result<&'b [u8], FrameError> {
    seal(&(sequence, request), buffer)
}

/// The frame of an answer, the one with number `part` among the answers to request `sequence`.
pub fn encode_answer<'b>(
    (sequence, part): (u32, u32),
    response: &Response<'_>,
    buffer: &'b mut [u8],
) -> Result<&'b [u8], FrameError> {
    seal(&(sequence, response, part), buffer)
}

fn seal<'b>(message: &impl Serialize, buffer: &'b mut [u8]) -> Result<&'b [u8], FrameError> {
    let framer = Framer { buffer, code: 0, end: 1, crc: Crc32::default() };
    postcard::serialize_with_flavor(message, framer).map_err(|_| FrameError::Long)
}

/// The sequence number and message of an unstuffed request, which must be used up completely.
pub fn decode(payload: &[u8]) -> Result<(u32, Request<'_>), FrameError> {
    match postcard::take_from_bytes(intact(payload)?) {
        Ok((message, [])) => Ok(message),
        _ => Err(FrameError::Message),
    }
}

/// The sequence number, number among its answers, and message of an unstuffed answer, which must be used up completely.
pub fn decode_answer(payload: &[u8]) -> Result<((u32, u32), Response<'_>), FrameError> {
    match postcard::take_from_bytes(intact(payload)?) {
        Ok(((sequence, response, part), [])) => Ok(((sequence, part), response)),
        _ => Err(FrameError::Message),
    }
}

/// The version of the board that sent this answer to a [`Request::Hello`], whatever version that is; `None` for other
/// and damaged frames.
pub fn version_of(payload: &[u8]) -> Option<u8> {
    // Sequence number, then the first of all responses, whose first field is the version. A number is one byte, as up to
    // version 2, or some with their highest bit set and one without, which is not 0.
    match intact(payload).ok()? {
        [_, 0, version, ..] => Some(*version),
        body => match body.get(body.iter().take(4).take_while(|byte| **byte >= 128).count() + 1..)? {
            [0, version, ..] => Some(*version),
            _ => None,
        },
    }
}

/// The body of a frame whose checksum is right.
fn intact(payload: &[u8]) -> Result<&[u8], FrameError> {
    let (body, crc) = payload.split_last_chunk().ok_or(FrameError::Cut)?;
    if crc32(body) == u32::from_le_bytes(*crc) { Ok(body) } else { Err(FrameError::Crc) }
}

/// Stuffs bytes as they are serialized, and appends their checksum and the final zero.
struct Framer<'b> {
    buffer: &'b mut [u8],
    /// Where the code byte of the current block goes.
    code: usize,
    /// Where the next byte goes.
    end: usize,
    crc: Crc32,
}

impl Framer<'_> {
    fn put(&mut self, at: usize, byte: u8) -> postcard::Result<()> {
        *self.buffer.get_mut(at).ok_or(postcard::Error::SerializeBufferFull)? = byte;
        Ok(())
    }

    fn close_block(&mut self) -> postcard::Result<()> {
        self.put(self.code, (self.end - self.code) as u8)?;
        (self.code, self.end) = (self.end, self.end + 1);
        Ok(())
    }

    fn stuff(&mut self, byte: u8) -> postcard::Result<()> {
        if byte == 0 {
            return self.close_block();
        }
        self.put(self.end, byte)?;
        self.end += 1;
        if self.end - self.code == 255 { self.close_block() } else { Ok(()) }
    }
}

impl<'b> Flavor for Framer<'b> {
    type Output = &'b [u8];

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.crc.update(&[byte]);
        self.stuff(byte)
    }

    fn finalize(mut self) -> postcard::Result<&'b [u8]> {
        let crc = self.crc.value();
        crc.to_le_bytes().into_iter().try_for_each(|byte| self.stuff(byte))?;
        self.close_block()?;
        // `close_block` opened a block that stays empty: its code byte is where the zero goes.
        let end = self.code;
        self.put(end, 0)?;
        self.buffer.get(..=end).ok_or(postcard::Error::SerializeBufferFull)
    }
}

/// Finds frames in a byte stream and unstuffs them.
#[derive(Clone, Debug)]
pub struct Deframer {
    payload: [u8; MESSAGE],
    len: usize,
    /// Bytes until the next code byte.
    left: u8,
    /// The last block ended in a zero, which is owed if another block follows.
    zero: bool,
    started: bool,
    long: bool,
    /// The payload is a finished frame; the next byte starts another.
    done: bool,
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new()
    }
}

impl Deframer {
    /// Between two frames.
    pub const fn new() -> Self {
        Self { payload: [0; MESSAGE], len: 0, left: 0, zero: false, started: false, long: false, done: false }
    }

    /// Takes the next byte. `None` inside a frame and between frames; at a frame's end, whether it is whole, and then
    /// [`Self::payload`] holds it.
    pub fn push(&mut self, byte: u8) -> Option<Result<(), FrameError>> {
        if self.done {
            (self.len, self.left, self.zero) = (0, 0, false);
            (self.started, self.long, self.done) = (false, false, false);
        }
        if byte == 0 {
            let end = self.started.then_some(match (self.long, self.left) {
                (true, _) => Err(FrameError::Long),
                (_, 0) => Ok(()),
                _ => Err(FrameError::Cut),
            });
            self.done = true;
            return end;
        }
        if self.left == 0 {
            if self.zero {
                self.keep(0);
            }
            (self.started, self.left, self.zero) = (true, byte - 1, byte != 255);
        } else {
            self.keep(byte);
            self.left -= 1;
        }
        None
    }

    fn keep(&mut self, byte: u8) {
        match self.payload.get_mut(self.len) {
            Some(slot) => {
                *slot = byte;
                self.len += 1;
            }
            None => self.long = true,
        }
    }

    /// The bytes of the frame that just ended.
    pub fn payload(&self) -> &[u8] {
        self.payload.get(..self.len).unwrap_or(&[])
    }
}
