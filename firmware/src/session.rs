//! Serving a host: load a deployable, take inputs, run, report.

use core::fmt::Write as _;

use embedded_io::{Read, Write};
use heapless::String;
use shiftwise_core::exec::{ExecError, MAX_LANES, Machine};
use shiftwise_core::link::{CHUNK, Fault, FrameError, Report, Request, Response, VERSION, Wrong};
use shiftwise_core::model::{Deployable, DpuJob, ParseError, Role, Step, TensorDesc, TensorId, crc32, crc32_of};
use shiftwise_core::monitor::{Monitor, Sketch};
use shiftwise_core::run::{Dpu, Memory, Observer, RunError};
use shiftwise_core::target::Target;

use crate::error::{Error, Mismatch};
use crate::memory::{Loaded, load};
use crate::network::Network;
use crate::port::{Inbox, Outbox};
use crate::self_test::{Progress, SelfTest, Stop};

/// Most bytes of a device's own words about a failure.
const TEXT: usize = 128;

/// What a session wants to know about, and tell, the board it runs on.
pub trait Board {
    /// Its name.
    fn name(&self) -> &str;
    /// Ticks per second of [`Self::ticks`]; 0 without a counter.
    fn hz(&self) -> u32;
    /// A counter that never wraps.
    fn ticks(&mut self) -> u64;
    /// Whether the board's own DPU runs code with this fingerprint. Deployables without DPU code carry 0.
    fn accepts(&self, fingerprint: u64) -> bool {
        fingerprint == 0
    }
    /// Something happened that a log may tell.
    fn event(&mut self, event: Event) {
        let _ = event;
    }
}

/// What happens in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A host said hello.
    Host,
    /// A deployable of so many bytes is ready to run.
    Loaded(u32),
    /// A step took so many ticks.
    Step(u16, u64),
    /// A request was refused.
    Refused(Fault),
}

/// The memory that a session works in, aligned to 16 bytes.
#[derive(Debug)]
pub struct Space<'m> {
    /// Keeps the deployable. Aligned to the 4096 of DPU code if a DPU reads that in place.
    pub store: &'m mut [u8],
    /// Is cut into workspace, inputs and outputs.
    pub arena: &'m mut [u8],
    /// On-chip banks of a DPU in software; empty on a board that shall not offer one.
    pub banks: &'m mut [u8],
    /// What the first tensors of a network have held, see [`Monitor`]; empty on a board that shall not watch them.
    pub sketches: &'m mut [Sketch],
}

/// Everything that serves one host. `R` and `W` are the two halves of the link.
#[derive(Debug)]
pub struct Session<'m, R, W, D, B> {
    inbox: Inbox<R>,
    out: Answers<W, B>,
    dpu: D,
    /// The DPU that the host wants in software.
    soft: Option<Target>,
    store: &'m mut [u8],
    arena: &'m mut [u8],
    banks: &'m mut [u8],
    sketches: &'m mut [Sketch],
}

/// The DPU of one deployable.
enum Device<'s, 't, D> {
    Own(&'s mut D),
    Soft(&'s mut Machine<'t>),
}

enum DeviceError<E> {
    Own(E),
    Soft(ExecError),
}

impl<E: core::fmt::Display> core::fmt::Display for DeviceError<E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Own(error) => error.fmt(f),
            Self::Soft(error) => error.fmt(f),
        }
    }
}

impl<D: Dpu> Dpu for Device<'_, '_, D> {
    type Error = DeviceError<D::Error>;

    fn load(&mut self, deployable: &Deployable<'_>) {
        match self {
            Self::Own(dpu) => dpu.load(deployable),
            Self::Soft(machine) => machine.load(deployable),
        }
    }

    fn run(&mut self, job: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), Self::Error> {
        match self {
            Self::Own(dpu) => dpu.run(job, code, memory).map_err(DeviceError::Own),
            Self::Soft(machine) => machine.run(job, code, memory).map_err(DeviceError::Soft),
        }
    }
}

/// Responses and the board that sends them.
#[derive(Debug)]
struct Answers<W, B> {
    outbox: Outbox<W>,
    board: B,
    store: u32,
    arena: u32,
}

impl<W: Write, B: Board> Answers<W, B> {
    fn hello(&mut self, sequence: u32) -> Result<(), W::Error> {
        self.board.event(Event::Host);
        let (store, arena, hz) = (self.store, self.arena, self.board.hz());
        let hello = Response::Hello { version: VERSION, board: self.board.name(), store, arena, hz };
        self.outbox.send((sequence, 0), &hello)
    }

    /// The only answer to a request.
    fn answer(&mut self, sequence: u32, response: &Response<'_>) -> Result<(), W::Error> {
        self.outbox.send((sequence, 0), response)
    }

    fn ready(&mut self, sequence: u32) -> Result<(), W::Error> {
        self.answer(sequence, &Response::Ready)
    }

    fn refuse(&mut self, sequence: u32, fault: Fault, text: &str) -> Result<(), W::Error> {
        self.board.event(Event::Refused(fault));
        self.answer(sequence, &Response::Fault { fault, text })
    }

    /// Answers a frame that is no request.
    fn complain(&mut self, error: FrameError) -> Result<(), W::Error> {
        let fault = match error {
            FrameError::Message => Fault::Unknown { version: VERSION },
            FrameError::Long | FrameError::Cut | FrameError::Crc => Fault::Frame,
        };
        self.refuse(0, fault, "")
    }

    /// [`Response::Ready`], or the fault if there was nothing to be ready with.
    fn settle(&mut self, sequence: u32, result: Option<()>) -> Result<(), W::Error> {
        match result {
            Some(()) => self.ready(sequence),
            None => self.refuse(sequence, Fault::Range, ""),
        }
    }
}

/// What ends the service of one deployable.
enum Next {
    Load,
    Stop,
}

impl<'m, R: Read, W: Write<Error = R::Error>, D: Dpu<Error: core::fmt::Display>, B: Board> Session<'m, R, W, D, B> {
    /// The link is its reading and its writing half.
    pub fn new((reader, writer): (R, W), dpu: D, board: B, memory: Space<'m>) -> Self {
        let Space { store, arena, banks, sketches } = memory;
        let bytes = |slice: &[u8]| u32::try_from(slice.len()).unwrap_or(u32::MAX);
        let out = Answers { outbox: Outbox::new(writer), board, store: bytes(store), arena: bytes(arena) };
        Self { inbox: Inbox::new(reader), out, dpu, soft: None, store, arena, banks, sketches }
    }

    /// Serves until the host says [`Request::Exit`] or the stream ends. Errors: the link's own.
    pub fn serve(&mut self) -> Result<(), R::Error> {
        loop {
            let Some((sequence, bytes, crc)) = self.load()? else {
                return Ok(());
            };
            let file = self.store.get(..bytes as usize).unwrap_or(&[]);
            let (soft, board) = (self.soft.as_ref(), &self.out.board);
            let accepts = |own| board.accepts(own) || soft.is_some_and(|target| target.fingerprint == own);
            let Loaded { deployable, memory, scratch } = match load(file, self.arena, accepts) {
                Ok(loaded) => loaded,
                Err(error) => {
                    self.out.refuse(sequence, refusal(error), "")?;
                    continue;
                }
            };
            self.out.board.event(Event::Loaded(bytes));
            // The real one before one in software.
            let own = self.out.board.accepts(deployable.fingerprint());
            let wanted = soft.filter(|target| !own && target.fingerprint == deployable.fingerprint());
            let mut machine = wanted.and_then(|target| Machine::new(target, self.banks));
            let mut dpu = match machine.as_mut() {
                Some(machine) => Device::Soft(machine),
                None => Device::Own(&mut self.dpu),
            };
            dpu.load(&deployable);
            let mut monitor = Monitor::new(self.sketches);
            monitor.reset();
            let network = Network { deployable, memory, scratch, dpu };
            let mut ready = Ready { file: (bytes, crc), network, monitor, out: &mut self.out };
            match ready.serve(&mut self.inbox, sequence)? {
                Next::Load => self.soft = None,
                Next::Stop => return Ok(()),
            }
        }
    }

    /// Fills the store up to a commit, whose sequence number, length and checksum it returns. `None` when the host is gone.
    fn load(&mut self) -> Result<Option<(u32, u32, u32)>, R::Error> {
        let out = &mut self.out;
        while let Some(request) = self.inbox.receive()? {
            let (sequence, request) = match request {
                Ok(request) => request,
                Err(error) => {
                    out.complain(error)?;
                    continue;
                }
            };
            match request {
                Request::Hello => out.hello(sequence)?,
                Request::Device { target } => {
                    self.soft = postcard::from_bytes(target).ok().filter(|target| is_sound(target, self.banks.len()));
                    match self.soft {
                        Some(_) => out.ready(sequence)?,
                        None => out.refuse(sequence, Fault::Device, "")?,
                    }
                }
                Request::Load { offset, bytes } => out.settle(sequence, place(self.store, offset, bytes))?,
                Request::Commit { bytes, crc } => {
                    let file = self.store.get(..bytes as usize);
                    match file.map(|file| file.last_chunk().map(|last| u32::from_le_bytes(*last))) {
                        None => out.refuse(sequence, Fault::Range, "")?,
                        // No event: a host asks this way whether the file is here already.
                        Some(own) if own != Some(crc) => {
                            out.answer(sequence, &Response::Fault { fault: Fault::Crc, text: "" })?;
                        }
                        Some(_) => return Ok(Some((sequence, bytes, crc))),
                    }
                }
                Request::Input { .. }
                | Request::Run { .. }
                | Request::Read { .. }
                | Request::SelfTest
                | Request::Drift
                | Request::Forget => out.refuse(sequence, Fault::NotLoaded, "")?,
                Request::Reset => {
                    self.soft = None;
                    out.ready(sequence)?;
                }
                Request::Exit => {
                    out.ready(sequence)?;
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }
}

/// Copies `bytes` to `offset` of `target`; `None` if they don't fit.
fn place(target: &mut [u8], offset: u32, bytes: &[u8]) -> Option<()> {
    let start = offset as usize;
    // Equal lengths, which a compiler may not see: no copy that checks them again and could panic.
    target.get_mut(start..start.checked_add(bytes.len())?)?.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    Some(())
}

/// Whether a device from outside is one that the machine can be.
fn is_sound(target: &Target, banks: usize) -> bool {
    let bytes = target.banks.iter().map(|g| {
        let entries = u64::from(g.count).saturating_mul(g.depth.into());
        entries.saturating_mul(g.width.into())
    });
    let lanes = [target.pixel_parallel, target.input_channel_parallel, target.output_channel_parallel];
    lanes.iter().all(|n| (1..=MAX_LANES).contains(&usize::from(*n)))
        && bytes.fold(0, u64::saturating_add) <= banks as u64
}

/// The fault that a deployable which was not loaded is to the host.
fn refusal(error: Error) -> Fault {
    let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match error {
        Error::Parse(ParseError::Crc) => Fault::Crc,
        Error::Parse(error) => Fault::Parse(error),
        Error::Target(fingerprint) => Fault::Target { fingerprint },
        Error::Memory { needed, given } => Fault::Memory { needed: clip(needed), given: clip(given) },
        // Loading has no other errors.
        _ => Fault::Range,
    }
}

/// A deployable in service.
struct Ready<'a, 's, 't, W, D, B> {
    /// Length and checksum, as the commit gave them.
    file: (u32, u32),
    network: Network<'a, Device<'s, 't, D>>,
    monitor: Monitor<'s>,
    out: &'s mut Answers<W, B>,
}

impl<W: Write, D: Dpu<Error: core::fmt::Display>, B: Board> Ready<'_, '_, '_, W, D, B> {
    fn serve<R: Read<Error = W::Error>>(&mut self, inbox: &mut Inbox<R>, sequence: u32) -> Result<Next, W::Error> {
        self.facts(sequence)?;
        while let Some(request) = inbox.receive()? {
            let (sequence, request) = match request {
                Ok(request) => request,
                Err(error) => {
                    self.out.complain(error)?;
                    continue;
                }
            };
            match request {
                Request::Hello => self.out.hello(sequence)?,
                Request::Load { .. } | Request::Device { .. } => self.out.refuse(sequence, Fault::Loaded, "")?,
                // The answer to the commit that brought us here may have been lost.
                Request::Commit { bytes, crc } if (bytes, crc) == self.file => self.facts(sequence)?,
                Request::Commit { .. } => self.out.refuse(sequence, Fault::Loaded, "")?,
                Request::Input { index, offset, bytes } => {
                    let result = self.input(index, offset, bytes);
                    self.out.settle(sequence, result)?;
                }
                Request::Run { report, inputs } => self.run(sequence, report, inputs)?,
                Request::Read { tensor, offset, bytes } => self.read(sequence, tensor, offset, bytes)?,
                Request::SelfTest => self.self_test(sequence)?,
                Request::Drift => self.drift(sequence)?,
                Request::Forget => {
                    self.monitor.reset();
                    self.out.ready(sequence)?;
                }
                Request::Reset => {
                    self.out.ready(sequence)?;
                    return Ok(Next::Load);
                }
                Request::Exit => {
                    self.out.ready(sequence)?;
                    return Ok(Next::Stop);
                }
            }
        }
        Ok(Next::Stop)
    }

    fn facts(&mut self, sequence: u32) -> Result<(), W::Error> {
        let model = &self.network.deployable;
        // A name is for people: one that would burst the frame shows its beginning.
        let name = model.facts().name;
        let name = (0..=name.len().min(64)).rev().find_map(|n| name.get(..n)).unwrap_or("");
        let (steps, tensors) = (model.step_count(), model.tensor_count());
        self.out.answer(sequence, &Response::Facts { name, steps, tensors })
    }

    fn input(&mut self, index: u8, offset: u32, bytes: &[u8]) -> Option<()> {
        place(self.network.input(index.into()).ok()?.bytes(), offset, bytes)
    }

    /// CRC-32 of all inputs as they are in memory.
    fn inputs(&self) -> u32 {
        let Network { deployable, memory, .. } = &self.network;
        crc32_of(deployable.inputs().map(|(_, tensor)| memory.tensor(&tensor).unwrap_or(&[])))
    }

    fn read(&mut self, sequence: u32, tensor: TensorId, offset: u32, bytes: u32) -> Result<(), W::Error> {
        let found = self.network.deployable.tensor(tensor).and_then(|t| {
            let end = offset.checked_add(bytes).filter(|_| bytes as usize <= CHUNK)?;
            self.network.memory.tensor(&t)?.get(offset as usize..end as usize)
        });
        match found {
            Some(bytes) => self.out.answer(sequence, &Response::Bytes { tensor, offset, bytes }),
            None => self.out.refuse(sequence, Fault::Range, ""),
        }
    }

    fn run(&mut self, sequence: u32, report: Report, inputs: u32) -> Result<(), W::Error> {
        if self.inputs() != inputs {
            return self.out.refuse(sequence, Fault::Inputs, "");
        }
        let reporter = Reporter { out: self.out, sequence, report, sent: 0, open: None, broken: Ok(()) };
        let mut observer = (reporter, &mut self.monitor);
        let result = self.network.run(&mut observer);
        let mut text = String::new();
        let last = match result {
            Ok(()) => Response::Done,
            Err(error) => Response::Fault { fault: fault_of(error, &mut text), text: &text },
        };
        observer.0.finish(&last)
    }

    fn self_test(&mut self, sequence: u32) -> Result<(), W::Error> {
        let samples = self.network.deployable.facts().self_test_samples;
        let reporter = Reporter { out: self.out, sequence, report: Report::None, sent: 0, open: None, broken: Ok(()) };
        let mut observer = (reporter, &mut self.monitor);
        let mut test = SelfTest::new();
        let mut text = String::new();
        let last = loop {
            let fault = match test.try_step(&mut self.network, &mut observer) {
                // A host that is gone shall not keep the board busy.
                Ok(Progress::Running) if observer.0.broken.is_ok() => continue,
                Ok(_) => break Response::Tested { samples, wrong: None },
                Err(Stop::Other(Error::SelfTest(Mismatch { sample, output, byte, wanted, found }))) => {
                    break Response::Tested { samples, wrong: Some(Wrong { sample, output, byte, wanted, found }) };
                }
                Err(Stop::Run(error)) => fault_of(error, &mut text),
                // It has no other errors.
                Err(Stop::Other(_)) => Fault::NoSelfTest,
            };
            break Response::Fault { fault, text: &text };
        };
        observer.0.finish(&last)
    }

    fn drift(&mut self, sequence: u32) -> Result<(), W::Error> {
        let mut part = 0u32;
        for (id, tensor) in (0..).map(TensorId).zip(self.monitor.sketches()) {
            if tensor.runs > 0 {
                let sketch = Response::Sketch { tensor: id, sketch: *tensor };
                self.out.outbox.send((sequence, part), &sketch)?;
                part = part.wrapping_add(1);
            }
        }
        self.out.outbox.send((sequence, part), &Response::Done)
    }
}

/// The fault that a failed run is to the host; the device's own words go to `text`, cut if they are long.
fn fault_of<E: core::fmt::Display>(error: RunError<E>, text: &mut String<TEXT>) -> Fault {
    match error {
        RunError::Region { region, .. } => Fault::Region(region),
        RunError::Layout { step } => Fault::Layout(step),
        RunError::Dpu { step, error } => {
            // A writer that is full has what fits; the step number says the most.
            let _ = write!(text, "{error}");
            Fault::Dpu(step)
        }
    }
}

/// Sends what a run shows, while it shows it: memory may be reused by the next step.
struct Reporter<'s, W: Write, B> {
    out: &'s mut Answers<W, B>,
    sequence: u32,
    report: Report,
    /// Messages so far.
    sent: u32,
    /// The step that is running and the ticks at its start.
    open: Option<(u16, u64)>,
    broken: Result<(), W::Error>,
}

impl<W: Write, B: Board> Reporter<'_, W, B> {
    fn send(&mut self, response: &Response<'_>) {
        if self.broken.is_ok() {
            self.broken = self.out.outbox.send((self.sequence, self.sent), response);
            self.sent = self.sent.wrapping_add(1);
        }
    }

    /// The last message.
    fn finish(&mut self, last: &Response<'_>) -> Result<(), W::Error> {
        self.close();
        if let Response::Fault { fault, .. } = last {
            self.out.board.event(Event::Refused(*fault));
        }
        self.send(last);
        core::mem::replace(&mut self.broken, Ok(()))
    }

    /// Ends the running step's time before anything is sent.
    fn close(&mut self) {
        if let Some((index, start)) = self.open.take() {
            let ticks = self.out.board.ticks().wrapping_sub(start);
            self.out.board.event(Event::Step(index, ticks));
            self.send(&Response::Step { index, ticks });
        }
    }
}

impl<W: Write, B: Board> Observer for Reporter<'_, W, B> {
    fn step(&mut self, index: u16, _: &Step<'_>) {
        self.close();
        self.open = Some((index, self.out.board.ticks()));
    }

    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        self.close();
        match self.report {
            Report::Crc => self.send(&Response::Crc { tensor: id, crc: crc32(bytes) }),
            Report::Outputs if !matches!(tensor.role, Role::Output(_)) => {}
            Report::Tensor(wanted) if wanted != id => {}
            Report::Outputs | Report::Bytes | Report::Tensor(_) => {
                for (offset, bytes) in (0u32..).step_by(CHUNK).zip(bytes.chunks(CHUNK)) {
                    self.send(&Response::Bytes { tensor: id, offset, bytes });
                }
            }
            Report::None => {}
        }
    }
}
