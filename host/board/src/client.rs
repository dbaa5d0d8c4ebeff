//! The host's end of the link.

use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use std::vec;

use shiftwise_core::link::{
    CHUNK, Deframer, FRAME, Fault, Report, Request, Response, VERSION, decode_answer, encode, version_of,
};
use shiftwise_core::model::{Deployable, TensorId, crc32, crc32_of};
use shiftwise_core::monitor::Sketch;

use crate::session::{Difference, Limits, LinkError, Reported, SampleResult, SelfTested};

/// A line that carries nothing for so long is silent. Devices that collect bytes before they pass them on, such as USB
/// adapters, wait some 16 ms.
const SILENCE: Duration = Duration::from_millis(50);
/// Numbers below are for greetings, and take one byte in every version of the protocol.
const FIRST: u32 = 128;
/// Where numbers may begin: up to here they take two bytes.
const BEGIN: u32 = 1 << 13;

/// What a board says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its name.
    pub board: String,
    /// Largest deployable, in bytes.
    pub store: u32,
    /// Bytes for workspace, inputs and outputs together.
    pub arena: u32,
    /// Ticks per second of its counter; 0 without one.
    pub hz: u32,
}

/// Asks a board over any pair of byte streams.
#[derive(Debug)]
pub struct Client<W> {
    writer: W,
    bytes: Receiver<Vec<u8>>,
    pending: vec::IntoIter<u8>,
    deframer: Deframer,
    /// Number of the last request that was no greeting.
    sequence: u32,
    /// Number of the last greeting.
    greeting: u8,
    /// The last attempt ended without its answer, which may still come, or others in its place.
    missed: bool,
    limits: Limits,
    /// Bytes of the deployable that was loaded last.
    loaded: Vec<u8>,
}

/// How an attempt ended without an answer.
enum Miss {
    /// Time ran out, or a frame of the answer was lost or damaged.
    Silence,
    Damage,
    /// An answer of another kind than the request has.
    Stray(LinkError),
    Fatal(LinkError),
}

impl<W: Write> Client<W> {
    /// A client that writes to `writer` and reads from `reader` in a thread of its own, which ends with the stream.
    pub fn new(writer: W, mut reader: impl Read + Send + 'static, limits: Limits) -> Self {
        // A bounded queue: a board that babbles must not fill the host's memory.
        let (sender, bytes) = sync_channel(64);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match reader.read(&mut buffer) {
                    Ok(n) if n > 0 && sender.send(buffer.iter().take(n).copied().collect()).is_ok() => {}
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        });
        let (pending, deframer) = (Vec::new().into_iter(), Deframer::new());
        // Any number: an answer to a client that was here before this one shall not look like one to this.
        let sequence = FIRST + (RandomState::new().hash_one(0) % u64::from(BEGIN)) as u32;
        Self { writer, bytes, pending, deframer, sequence, greeting: 0, missed: false, limits, loaded: Vec::new() }
    }

    /// Greets the board, and checks that it speaks our protocol.
    pub fn hello(&mut self) -> Result<Info, LinkError> {
        let (version, info) = self.ask(&Request::Hello, |response| match response {
            Response::Hello { version, board, store, arena, hz } => {
                Some((*version, Info { board: (*board).into(), store: *store, arena: *arena, hz: *hz }))
            }
            _ => None,
        })?;
        if version == VERSION { Ok(info) } else { Err(LinkError::Version { board: version, own: VERSION }) }
    }

    /// Makes the board run this deployable from now on, sending it unless the board holds it already.
    ///
    /// DPU code for a known target is run by the board's own DPU if it has that one, else in software. A board that
    /// restarts meanwhile gets the deployable again.
    pub fn load(&mut self, deployable: &[u8]) -> Result<(), LinkError> {
        let model = Deployable::parse(deployable)?;
        let file = deployable.get(..model.file_bytes()).unwrap_or(deployable);
        let device = soft_device(&model);
        // Until the board says otherwise, nothing is known of what it holds.
        self.loaded.clear();
        for left in (0..self.limits.attempts.max(1)).rev() {
            match self.load_once(file, device.as_deref()) {
                // What a board that has forgotten the chunks or its device says. If it has not, it says so again.
                Err(LinkError::Refused { fault: Fault::Crc | Fault::Target { .. } | Fault::Loaded, .. })
                    if left > 0 => {}
                other => {
                    other?;
                    break;
                }
            }
        }
        self.loaded = file.to_vec();
        Ok(())
    }

    fn load_once(&mut self, file: &[u8], device: Option<&[u8]>) -> Result<(), LinkError> {
        self.ready(&Request::Reset)?;
        if let Some(target) = device {
            match self.ready(&Request::Device { target }) {
                // The board may have the real one; the commit tells.
                Ok(()) | Err(LinkError::Refused { fault: Fault::Device, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        match self.commit(file) {
            Err(LinkError::Refused { fault: Fault::Crc, .. }) => {
                for (offset, bytes) in chunks(file) {
                    self.ready(&Request::Load { offset, bytes })?;
                }
                self.commit(file)
            }
            other => other,
        }
    }

    fn commit(&mut self, file: &[u8]) -> Result<(), LinkError> {
        // A length beyond 32 bits is beyond every board's store as well.
        let bytes = u32::try_from(file.len()).unwrap_or(u32::MAX);
        let crc = file.last_chunk().map_or(0, |last| u32::from_le_bytes(*last));
        self.ask(&Request::Commit { bytes, crc }, |response| matches!(response, Response::Facts { .. }).then_some(()))
    }

    /// Runs the loaded deployable on one sample: one byte slice per network input.
    pub fn sample(&mut self, inputs: &[Vec<u8>], report: Report) -> Result<SampleResult, LinkError> {
        if self.loaded.is_empty() {
            return Err(LinkError::Refused { fault: Fault::NotLoaded, text: String::new() });
        }
        let file = self.loaded.clone();
        let model = Deployable::parse(&file)?;
        let wanted: Vec<usize> = model.inputs().map(|(_, t)| t.bytes() as usize).collect();
        let given: Vec<usize> = inputs.iter().map(Vec::len).collect();
        if wanted == given { self.attempts(&model, inputs, report) } else { Err(LinkError::Inputs { wanted, given }) }
    }

    fn attempts(
        &mut self,
        model: &Deployable<'_>,
        inputs: &[Vec<u8>],
        report: Report,
    ) -> Result<SampleResult, LinkError> {
        let request = Request::Run { report, inputs: crc32_of(inputs.iter().map(Vec::as_slice)) };
        self.with_retries(|client| {
            // The last attempt's steps may have used the inputs' memory for something else.
            for (index, input) in (0..=u8::MAX).zip(inputs) {
                for (offset, bytes) in chunks(input) {
                    client.ready(&Request::Input { index, offset, bytes }).map_err(Miss::Fatal)?;
                }
            }
            client.run_once(model, &request)
        })
    }

    /// Repeats what may be repeated. A board that has restarted gets the deployable again.
    fn with_retries<T>(&mut self, mut attempt: impl FnMut(&mut Self) -> Result<T, Miss>) -> Result<T, LinkError> {
        let mut last = LinkError::Noise;
        for _ in 0..self.limits.attempts.max(1) {
            match attempt(self) {
                Ok(result) => return Ok(result),
                Err(Miss::Damage) => last = LinkError::Noise,
                Err(Miss::Silence) => last = LinkError::Silent(String::new()),
                Err(Miss::Stray(error)) => last = error,
                Err(Miss::Fatal(LinkError::Refused { fault: fault @ Fault::Inputs, text })) => {
                    last = LinkError::Refused { fault, text };
                }
                Err(Miss::Fatal(LinkError::Refused { fault: fault @ Fault::NotLoaded, text })) => {
                    let file = std::mem::take(&mut self.loaded);
                    if file.is_empty() {
                        return Err(LinkError::Refused { fault, text });
                    }
                    self.load(&file)?;
                    last = LinkError::Refused { fault, text };
                }
                Err(Miss::Fatal(error)) => return Err(error),
            }
        }
        Err(last)
    }

    fn run_once(&mut self, model: &Deployable<'_>, request: &Request<'_>) -> Result<SampleResult, Miss> {
        let mut result = SampleResult { tensors: Vec::new(), steps: Vec::new() };
        self.exchange(request, self.limits.step, |response| {
            match response {
                Response::Step { ticks, .. } => result.steps.push(*ticks),
                Response::Crc { tensor, crc } => result.tensors.push((*tensor, Reported::Crc(*crc))),
                Response::Bytes { tensor, offset: 0, bytes } => {
                    result.tensors.push((*tensor, Reported::Bytes(bytes.to_vec())));
                }
                Response::Bytes { offset, bytes, tensor } => match result.tensors.last_mut() {
                    Some((id, Reported::Bytes(all))) if id == tensor && all.len() == *offset as usize => {
                        all.extend_from_slice(bytes);
                    }
                    _ => return Err(Miss::Damage),
                },
                Response::Done => return Ok(Some(())),
                other => return Err(unexpected(other)),
            }
            Ok(None)
        })?;
        let whole = |(id, reported): &(_, Reported)| match reported {
            Reported::Crc(_) => true,
            Reported::Bytes(bytes) => model.tensor(*id).is_some_and(|t| t.bytes() as usize == bytes.len()),
        };
        if result.steps.len() == usize::from(model.step_count()) && result.tensors.iter().all(whole) {
            Ok(result)
        } else {
            Err(Miss::Damage)
        }
    }

    /// Runs one sample and compares each tensor with the one of the same number in `wanted`: by checksums first, some 16
    /// bytes of the link for each tensor, all in one run; only of the first tensor that differs are bytes fetched, in
    /// another run. `None` if there is none, and nothing is missing.
    pub fn first_difference(
        &mut self,
        inputs: &[Vec<u8>],
        wanted: &[(TensorId, Vec<u8>)],
    ) -> Result<Option<Difference>, LinkError> {
        let sums = self.sample(inputs, Report::Crc)?;
        let found: Vec<_> = sums.tensors.iter().map(|(id, _)| *id).collect();
        if found != wanted.iter().map(|(id, _)| *id).collect::<Vec<_>>() {
            return Err(LinkError::Answer("for other tensors than the network's".into()));
        }
        let differs = |((_, reported), (_, bytes)): &(&(TensorId, Reported), &(TensorId, Vec<u8>))| !matches!(reported, Reported::Crc(crc) if *crc == crc32(bytes));
        let Some((_, (tensor, wanted))) = sums.tensors.iter().zip(wanted).find(differs) else {
            return Ok(None);
        };
        let again = self.sample(inputs, Report::Tensor(*tensor))?;
        let found = again.bytes(*tensor).unwrap_or(&[]);
        let pairs = found.iter().zip(wanted);
        let count = pairs.clone().filter(|(a, b)| a != b).count();
        let first = pairs.clone().position(|(a, b)| a != b);
        Ok(Some(Difference { tensor: *tensor, first, count, found: found.to_vec() }))
    }

    /// Runs the deployable's own samples on the board.
    ///
    /// Errors: [`Fault::NoSelfTest`] if it has none. A wrong output is no error.
    pub fn self_test(&mut self) -> Result<SelfTested, LinkError> {
        self.with_retries(|client| {
            client.exchange(&Request::SelfTest, client.limits.step, |response| match response {
                Response::Step { .. } => Ok(None),
                Response::Tested { samples, wrong } => Ok(Some(SelfTested { samples: *samples, wrong: *wrong })),
                other => Err(unexpected(other)),
            })
        })
    }

    /// What the tensors that the board watches have held since [`Self::forget`], in order of their numbers. Tensors in
    /// floats, and those that no run has reached, are not among them.
    pub fn sketches(&mut self) -> Result<Vec<(TensorId, Sketch)>, LinkError> {
        self.with_retries(|client| {
            let mut all = Vec::new();
            client.exchange(&Request::Drift, client.limits.answer, |response| match response {
                Response::Sketch { tensor, sketch } => {
                    all.push((*tensor, *sketch));
                    Ok(None)
                }
                Response::Done => Ok(Some(())),
                other => Err(unexpected(other)),
            })?;
            Ok(all)
        })
    }

    /// Sets what [`Self::sketches`] tells back to nothing.
    pub fn forget(&mut self) -> Result<(), LinkError> {
        self.with_retries(|client| client.ready(&Request::Forget).map_err(Miss::Fatal))
    }

    /// Makes the board forget the deployable. The next [`Self::load`] need not send it again if the board still has its
    /// bytes.
    pub fn reset(&mut self) -> Result<(), LinkError> {
        self.loaded.clear();
        self.ready(&Request::Reset)
    }

    /// Ends the board's service. A link that closes on this is as good as an answer.
    pub fn exit(&mut self) -> Result<(), LinkError> {
        match self.ready(&Request::Exit) {
            Err(LinkError::Closed(_)) => Ok(()),
            other => other,
        }
    }

    fn ready(&mut self, request: &Request<'_>) -> Result<(), LinkError> {
        self.ask(request, |response| matches!(response, Response::Ready).then_some(()))
    }

    /// A request with one answer, repeated until it arrives or the attempts are used up.
    fn ask<T>(&mut self, request: &Request<'_>, take: impl Fn(&Response<'_>) -> Option<T>) -> Result<T, LinkError> {
        let mut last = LinkError::Noise;
        for _ in 0..self.limits.attempts.max(1) {
            let answer = self.exchange(request, self.limits.answer, |response| match take(response) {
                Some(value) => Ok(Some(value)),
                None => Err(unexpected(response)),
            });
            match answer {
                Ok(value) => return Ok(value),
                Err(Miss::Damage) => last = LinkError::Noise,
                Err(Miss::Silence) => last = LinkError::Silent(String::new()),
                Err(Miss::Stray(error)) => last = error,
                Err(Miss::Fatal(error)) => return Err(error),
            }
        }
        Err(last)
    }

    /// Sends a request once and shows its answers to `take` until that has what it wants.
    fn exchange<T>(
        &mut self,
        request: &Request<'_>,
        quiet: Duration,
        take: impl FnMut(&Response<'_>) -> Result<Option<T>, Miss>,
    ) -> Result<T, Miss> {
        if std::mem::take(&mut self.missed) {
            self.drain()?;
        }
        let result = self.send(request).and_then(|own| self.answers(own, quiet, take));
        self.missed = matches!(result, Err(Miss::Silence | Miss::Damage | Miss::Stray(_)));
        result
    }

    /// Drops what arrives until the line is silent, so that what comes then belongs to the next request.
    ///
    /// A frame that noise cuts in two brings two complaints, which carry no number: were each taken for the answer to
    /// one attempt, the requests would be ahead of their answers by one more with each such frame, and for ever.
    fn drain(&mut self) -> Result<(), Miss> {
        // A board that never ends is left to the attempts, each of which takes bounded time.
        let end = Instant::now() + self.limits.answer;
        loop {
            match self.bytes.recv_timeout(SILENCE.min(self.limits.answer / 16)) {
                Ok(_) if Instant::now() < end => {}
                Ok(_) | Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Err(Miss::Fatal(LinkError::Closed(String::new()))),
            }
        }
        self.pending = Vec::new().into_iter();
        // A frame that has not ended by now has lost its end.
        self.deframer = Deframer::new();
        Ok(())
    }

    /// Writes a request under a number of its own, which it returns.
    fn send(&mut self, request: &Request<'_>) -> Result<u32, Miss> {
        // Number 0 is the board's answer to a frame that it could not read. Greetings may use their numbers again: every
        // answer to one is the same. The others never come round within the attempts that anyone could wait for.
        let own = if matches!(request, Request::Hello) {
            self.greeting = self.greeting % (FIRST - 1) as u8 + 1;
            self.greeting.into()
        } else {
            self.sequence = self.sequence.checked_add(1).unwrap_or(FIRST);
            self.sequence
        };
        let mut buffer = [0; FRAME + 1];
        // The leading zero ends whatever the board may hold of an earlier, damaged frame.
        let (_, rest) = buffer.split_at_mut(1);
        let length = encode(own, request, rest).map_err(|_| Miss::Damage)?.len();
        let sent = self.writer.write_all(buffer.get(..=length).unwrap_or(&buffer)).and_then(|()| self.writer.flush());
        sent.map_err(|e| Miss::Fatal(LinkError::Closed(format!(": {e}"))))?;
        Ok(own)
    }

    /// Shows the answers to request `own` to `take`. Those to older requests are dropped.
    fn answers<T>(
        &mut self,
        own: u32,
        quiet: Duration,
        mut take: impl FnMut(&Response<'_>) -> Result<Option<T>, Miss>,
    ) -> Result<T, Miss> {
        let mut next = 0;
        loop {
            let end = self.receive(Instant::now() + quiet)?;
            let payload = self.deframer.payload();
            let answer = end.and_then(|()| decode_answer(payload));
            match answer {
                Err(_) => {
                    return Err(match version_of(payload).filter(|_| end.is_ok()) {
                        Some(board) if board != VERSION => Miss::Fatal(LinkError::Version { board, own: VERSION }),
                        _ => Miss::Damage,
                    });
                }
                Ok(((0, _), Response::Fault { fault: Fault::Unknown { version }, .. })) if version != VERSION => {
                    return Err(Miss::Fatal(LinkError::Version { board: version, own: VERSION }));
                }
                Ok(((0, _), _)) => return Err(Miss::Damage),
                // An answer to an older attempt, or one that came twice.
                Ok(((number, part), _)) if number != own || part < next => {}
                Ok(((_, part), _)) if part > next => return Err(Miss::Damage),
                Ok((_, Response::Fault { fault, text })) => {
                    return Err(Miss::Fatal(LinkError::Refused { fault, text: text.into() }));
                }
                Ok((_, response)) => {
                    if let Some(value) = take(&response)? {
                        return Ok(value);
                    }
                    next += 1;
                }
            }
        }
    }

    /// Waits for the end of a frame.
    fn receive(&mut self, until: Instant) -> Result<Result<(), shiftwise_core::link::FrameError>, Miss> {
        loop {
            if let Some(end) = self.pending.by_ref().find_map(|byte| self.deframer.push(byte)) {
                return Ok(end);
            }
            match self.bytes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.pending = bytes.into_iter(),
                Err(RecvTimeoutError::Timeout) => return Err(Miss::Silence),
                Err(RecvTimeoutError::Disconnected) => return Err(Miss::Fatal(LinkError::Closed(String::new()))),
            }
        }
    }
}

fn unexpected(response: &Response<'_>) -> Miss {
    Miss::Stray(LinkError::Answer(format!("{response:?}")))
}

/// The record of the DPU that a deployable was compiled for, if it holds DPU code and the DPU is known here.
fn soft_device(model: &Deployable<'_>) -> Option<Vec<u8>> {
    let target = shiftwise_targets::named(model.facts().target).ok()?;
    (target.fingerprint == model.fingerprint()).then(|| postcard::to_stdvec(&target).ok()).flatten()
}

fn chunks(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    (0u32..).step_by(CHUNK).zip(bytes.chunks(CHUNK))
}
