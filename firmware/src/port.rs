//! The board's end of the link: requests in, responses out.

use embedded_io::{Read, Write};
use shiftwise_core::link::{Deframer, FRAME, FrameError, Request, Response, decode, encode_answer};

/// A request with its sequence number, or what is wrong with its frame.
pub type Received<'a> = Result<(u32, Request<'a>), FrameError>;

/// Finds requests in a byte stream.
#[derive(Debug)]
pub struct Inbox<R> {
    reader: R,
    deframer: Deframer,
}

impl<R: Read> Inbox<R> {
    /// Reads from `reader`.
    pub const fn new(reader: R) -> Self {
        Self { reader, deframer: Deframer::new() }
    }

    /// Waits for the end of a frame. `None` at the end of the stream.
    pub fn receive(&mut self) -> Result<Option<Received<'_>>, R::Error> {
        let mut byte = [0];
        let end = loop {
            if self.reader.read(&mut byte)? == 0 {
                return Ok(None);
            }
            if let Some(end) = self.deframer.push(byte[0]) {
                break end;
            }
        };
        Ok(Some(end.and_then(|()| decode(self.deframer.payload()))))
    }
}

/// Sends responses.
#[derive(Debug)]
pub struct Outbox<W> {
    writer: W,
    frame: [u8; FRAME],
}

impl<W: Write> Outbox<W> {
    /// Writes to `writer`.
    pub const fn new(writer: W) -> Self {
        Self { writer, frame: [0; FRAME] }
    }

    /// Sends the response with number `part` among those to request `sequence`.
    ///
    /// A response too long for a frame (only a name of more than 100 bytes could do that) is not sent; the host then
    /// runs into its time limit.
    pub fn send(&mut self, (sequence, part): (u32, u32), response: &Response<'_>) -> Result<(), W::Error> {
        if let Ok(frame) = encode_answer((sequence, part), response, &mut self.frame) {
            self.writer.write_all(frame)?;
            self.writer.flush()?;
        }
        Ok(())
    }
}
