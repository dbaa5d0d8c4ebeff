//! A session and a host on the two ends of a link in memory, with and without faults on it.

mod faults;
mod noise;
mod protocol;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::prelude::*;
use shiftwise_board::{Client, Fault, Limits, LinkError, Report, Reported};
use shiftwise_compile::deployable::{Parts, write};
use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::exec::Machine;
use shiftwise_core::link::{Deframer, FRAME, Request, Response, decode_answer, encode};
use shiftwise_core::model::{Deployable, DpuJob, Facts, Region, Step, TensorDesc, TensorId, TensorList, crc32};
use shiftwise_core::monitor::Sketch;
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_core::target::Target;
use shiftwise_firmware::session::{Board, Event, Session, Space};
use shiftwise_tests::cases::cases;
use shiftwise_tests::graphs::{self, Rng, random_graph, random_inputs};
use shiftwise_tests::small;

/// Fingerprint of the DPU that the board under test claims to have.
const FINGERPRINT: u64 = 77;
const STORE: usize = 256 << 10;
const ARENA: usize = 256 << 10;
const BANKS: usize = 1 << 20;

#[derive(Default)]
struct Fake {
    ticks: u64,
}

impl Board for Fake {
    fn name(&self) -> &str {
        "fake"
    }
    fn hz(&self) -> u32 {
        1000
    }
    fn ticks(&mut self) -> u64 {
        self.ticks += 5;
        self.ticks
    }
    fn accepts(&self, fingerprint: u64) -> bool {
        [0, FINGERPRINT].contains(&fingerprint)
    }
    fn event(&mut self, event: Event) {
        assert!(!matches!(event, Event::Step(_, ticks) if ticks != 5), "{event:?}");
    }
}

/// One direction of the link: passes bytes on, damaging about one in `rate`.
struct Wire {
    sender: Sender<Vec<u8>>,
    rate: u32,
    state: u32,
    /// Bytes damaged.
    hits: Arc<AtomicU32>,
}

impl Wire {
    fn random(&mut self, below: u32) -> u32 {
        self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.state >> 8) % below
    }

    fn pass(&mut self, bytes: &[u8]) {
        let mut out = Vec::new();
        for byte in bytes {
            if self.rate == 0 || self.random(self.rate) > 0 {
                out.push(*byte);
                continue;
            }
            self.hits.fetch_add(1, Ordering::Relaxed);
            match self.random(4) {
                0 => out.push(byte ^ (1 << self.random(8))),
                1 => {}
                2 => out.extend([*byte, *byte]),
                _ => out.extend([*byte, 0]),
            }
        }
        // A closed end means that the other side is gone, which the reading half notices.
        let _ = self.sender.send(out);
    }
}

struct End {
    receiver: Receiver<Vec<u8>>,
    pending: VecDeque<u8>,
}

impl End {
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        while self.pending.is_empty() {
            match self.receiver.recv() {
                Ok(bytes) => self.pending.extend(bytes),
                Err(_) => return 0,
            }
        }
        let n = buffer.len().min(self.pending.len());
        buffer.iter_mut().zip(self.pending.drain(..n)).for_each(|(to, from)| *to = from);
        n
    }
}

fn wire(rate: u32, seed: u32) -> (Wire, End) {
    let (sender, receiver) = channel();
    (Wire { sender, rate, state: seed, hits: Arc::default() }, End { receiver, pending: VecDeque::new() })
}

impl io::Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.fill(buffer))
    }
}

impl io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pass(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The board's halves; newtypes, because both worlds have a `Read` and a `Write`.
struct BoardEnd(End);
struct BoardWire(Wire);

impl embedded_io::ErrorType for BoardEnd {
    type Error = Infallible;
}
impl embedded_io::ErrorType for BoardWire {
    type Error = Infallible;
}
impl embedded_io::Read for BoardEnd {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Infallible> {
        Ok(self.0.fill(buffer))
    }
}
impl embedded_io::Write for BoardWire {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.pass(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn serve(reader: End, writer: Wire) {
    let (mut store, mut arena, mut banks) = (vec![0; STORE], vec![0xA5; ARENA], vec![0; BANKS]);
    let mut sketches = [Sketch::new(); 32];
    let memory = Space { store: &mut store, arena: &mut arena, banks: &mut banks, sketches: &mut sketches };
    let Ok(()) = Session::new((BoardEnd(reader), BoardWire(writer)), NoDpu, Fake::default(), memory).serve();
}

/// A client and the board that serves it, over wires that damage one byte in `rate` (0: none).
///
/// The number counts damaged bytes.
fn connect(rate: u32, seed: u32, limits: Limits) -> (Client<Wire>, JoinHandle<()>, Arc<AtomicU32>) {
    let (to_board, board_in) = wire(rate, seed);
    let (mut to_host, host_in) = wire(rate, seed ^ 0x5555);
    to_host.hits = Arc::clone(&to_board.hits);
    let hits = Arc::clone(&to_board.hits);
    let board = std::thread::spawn(move || serve(board_in, to_host));
    (Client::new(to_board, host_in, limits), board, hits)
}

struct All(Vec<(TensorId, Vec<u8>)>);

impl Observer for All {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.push((id, bytes.to_vec()));
    }
}

/// Every tensor of a run on the host.
fn on_the_host(file: &[u8], input: &[u8]) -> Vec<(TensorId, Vec<u8>)> {
    on_the_host_with(file, &[input.to_vec()], &mut NoDpu)
}

fn on_the_host_with(
    file: &[u8],
    samples: &[Vec<u8>],
    dpu: &mut impl Dpu<Error: std::fmt::Debug>,
) -> Vec<(TensorId, Vec<u8>)> {
    let model = Deployable::parse(file).unwrap();
    let regions = [Region::Workspace, Region::Inputs, Region::Outputs];
    let [mut workspace, mut inputs, mut outputs] = regions.map(|r| vec![0; model.region_bytes(r)]);
    let (workspace, inputs, outputs) = (&mut workspace[..], &mut inputs[..], &mut outputs[..]);
    let mut all = All(Vec::new());
    let mut memory = Memory { constants: model.constants(), workspace, inputs, outputs };
    for ((_, tensor), sample) in model.inputs().zip(samples) {
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(sample);
    }
    run(&model, dpu, &mut memory, &mut all).unwrap();
    all.0
}

fn as_bytes(tensors: Vec<(TensorId, Vec<u8>)>) -> Vec<(TensorId, Reported)> {
    tensors.into_iter().map(|(id, bytes)| (id, Reported::Bytes(bytes))).collect()
}

fn refused(result: Result<impl std::fmt::Debug, LinkError>) -> (Fault, String) {
    match result {
        Err(LinkError::Refused { fault, text }) => (fault, text),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_tensor_comes_back_while_it_is_alive() {
    let (mut client, board, _) = connect(0, 1, Limits::default());
    let info = client.hello().unwrap();
    assert_eq!((info.board.as_str(), info.store, info.arena, info.hz), ("fake", STORE as u32, ARENA as u32, 1000));
    let file = small::deployable().unwrap();
    for round in 0..2 {
        client.load(&file).unwrap();
        for n in 0..3 {
            let input = small::sample(n + round);
            let host = on_the_host(&file, &input);
            let bytes = client.sample(std::slice::from_ref(&input), Report::Bytes).unwrap();
            assert_eq!(bytes.tensors, as_bytes(host.clone()));
            assert_eq!(bytes.steps, [5; small::STEPS as usize]);
            let sums = client.sample(std::slice::from_ref(&input), Report::Crc).unwrap();
            let wanted: Vec<_> = host.iter().map(|(id, bytes)| (*id, Reported::Crc(crc32(bytes)))).collect();
            assert_eq!(sums.tensors, wanted);
            let outputs = client.sample(std::slice::from_ref(&input), Report::Outputs).unwrap();
            assert_eq!(outputs.tensors, as_bytes(vec![host.last().unwrap().clone()]));
            assert!(client.sample(&[input], Report::None).unwrap().tensors.is_empty());
        }
    }
    client.exit().unwrap();
    board.join().unwrap();
}

/// One byte in 3000 damaged in both directions: about every second chunk of a file, and most runs' answers.
#[test]
fn a_bad_link_costs_time_and_no_bits() {
    let limits = Limits { answer: Duration::from_millis(60), step: Duration::from_millis(60), attempts: 1000 };
    for seed in 0..6 {
        let (mut client, board, hits) = connect(3000, seed, limits);
        client.hello().unwrap();
        let file = small::deployable().unwrap();
        client.load(&file).unwrap();
        for n in 0..4 {
            let input = small::sample(n);
            let result = client.sample(std::slice::from_ref(&input), Report::Bytes).unwrap();
            assert_eq!(result.tensors, as_bytes(on_the_host(&file, &input)), "seed {seed} sample {n}");
            assert_eq!(result.steps.len(), usize::from(small::STEPS));
        }
        drop(client);
        board.join().unwrap();
        assert!(hits.load(Ordering::Relaxed) > 2, "seed {seed}: the link was good");
    }
}

#[test]
fn what_cannot_run_is_refused_with_a_reason() {
    let (mut client, board, _) = connect(0, 2, Limits::default());
    let sample = [small::sample(0)];
    assert_eq!(refused(client.sample(&sample, Report::None)).0, Fault::NotLoaded);

    let with = |fingerprint, workspace_bytes, constants: &[u8], steps: &[Step<'_>]| {
        let facts = Facts {
            name: "a name that is longer than sixty-four bytes, because one äöü must not be cut in halves",
            target: "dpu",
            tool: "test",
            workspace_bytes,
            input_bytes: 0,
            output_bytes: 0,
            self_test_samples: 0,
        };
        let (tensors, layers, self_test, code) = (&[][..], &[][..], &[][..], &[0; 8][..]);
        write(&Parts { facts, fingerprint, tensors, steps, layers, self_test, constants, code, metadata: &[] }).unwrap()
    };
    let other = refused(client.load(&with(5, 0, &[], &[])));
    assert_eq!(other.0, Fault::Target { fingerprint: 5 });
    let (fault, _) = refused(client.load(&with(0, ARENA as u32 + 1, &[], &[])));
    assert_eq!(fault, Fault::Memory { needed: ARENA as u32 + 16, given: ARENA as u32 });
    assert_eq!(refused(client.load(&with(0, 0, &[1; STORE], &[]))).0, Fault::Range);

    let job = Step::Dpu(DpuJob { name: "job", offset: 0, bytes: 8, outputs: TensorList(&[]) });
    // Less what it takes to begin at a cache line.
    client.load(&with(FINGERPRINT, ARENA as u32 - 64, &[], &[job])).unwrap();
    let (fault, text) = refused(client.sample(&[], Report::Bytes));
    assert_eq!((fault, text.as_str()), (Fault::Dpu(0), "the deployable holds DPU code and there is no DPU here"));

    // A refusal is no end: the next deployable runs.
    let file = small::deployable().unwrap();
    client.load(&file).unwrap();
    let result = client.sample(&sample, Report::Bytes).unwrap();
    assert_eq!(result.tensors, as_bytes(on_the_host(&file, &sample[0])));
    client.exit().unwrap();
    board.join().unwrap();
}

/// The board has no such DPU: it becomes one in software, and is none again after the next load.
#[test]
fn dpu_code_runs_in_software() {
    let target = shiftwise_targets::find("B512").unwrap();
    assert!(target.bank_bytes() <= BANKS);
    let (mut client, board, _) = connect(0, 3, Limits::default());
    for seed in 1..6 {
        let graph =
            random_graph(seed, graphs::Limits { ops: 6, side: 12, channels: 20, cpu_only: false, extreme: false });
        let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        let inputs = random_inputs(&graph, seed);
        client.load(&file).unwrap();
        let result = client.sample(&inputs, Report::Bytes).unwrap();
        let mut banks = vec![0; target.bank_bytes()];
        let mut machine = Machine::new(&target, &mut banks).unwrap();
        let host = on_the_host_with(&file, &inputs, &mut machine);
        assert!(!host.is_empty());
        assert_eq!(result.tensors, as_bytes(host), "seed {seed}");
    }
    client.exit().unwrap();
    board.join().unwrap();
}

#[test]
fn a_silent_board_is_an_error_and_no_hang() {
    let (to_board, _board_in) = wire(0, 1);
    let (_to_host, host_in) = wire(0, 1);
    let limits = Limits { answer: Duration::from_millis(5), step: Duration::from_millis(5), attempts: 2 };
    assert!(matches!(Client::new(to_board, host_in, limits).hello(), Err(LinkError::Silent(_))));
}

/// A network with DPU code, its inputs, and the DPU.
fn random_deployable(seed: u64) -> (Vec<u8>, Vec<Vec<u8>>, Target) {
    let target = shiftwise_targets::find("B512").unwrap();
    let limits = graphs::Limits { ops: 6, side: 12, channels: 20, cpu_only: false, extreme: false };
    let graph = random_graph(seed, limits);
    let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
    (file, random_inputs(&graph, seed), target)
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let offset = || prop_oneof![0u32..300, any::<u32>()];
    let frame = |request: &Request<'_>| encode(1, request, &mut [0; FRAME]).unwrap().to_vec();
    prop_oneof![
        (offset(), bytes()).prop_map(move |(offset, bytes)| frame(&Request::Load { offset, bytes: &bytes })),
        (any::<u8>(), offset(), bytes()).prop_map(move |(index, offset, bytes)| frame(&Request::Input {
            index: index % 3,
            offset,
            bytes: &bytes
        })),
        (0u16..20, offset(), offset()).prop_map(move |(t, offset, bytes)| frame(&Request::Read {
            tensor: TensorId(t),
            offset,
            bytes
        })),
        bytes().prop_map(move |target| frame(&Request::Device { target: &target })),
        (offset(), any::<u32>()).prop_map(move |(bytes, crc)| frame(&Request::Commit { bytes, crc })),
        (any::<bool>(), any::<u32>()).prop_map(move |(right, other)| frame(&Request::Run {
            report: Report::Bytes,
            inputs: if right { crc32(&[0xA5; small::INPUT_BYTES]) } else { other },
        })),
        Just(frame(&Request::SelfTest)),
        Just(frame(&Request::Drift)),
        Just(frame(&Request::Forget)),
        Just(frame(&Request::Hello)),
        bytes(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(200)))]

    /// Any requests and noise, before and after a deployable is loaded: the session serves them all and ends with the
    /// stream.
    #[test]
    fn no_request_stops_a_session(
        before in prop::collection::vec(any_request(), 0..6),
        after in prop::collection::vec(any_request(), 0..20),
    ) {
        let file = small::deployable().unwrap();
        let mut stream = before.concat();
        stream.push(0);
        stream.extend(encode(1, &Request::Load { offset: 0, bytes: &file }, &mut [0; FRAME]).unwrap());
        let commit = Request::Commit { bytes: file.len() as u32, crc: u32::from_le_bytes(*file.last_chunk().unwrap()) };
        stream.extend(encode(2, &commit, &mut [0; FRAME]).unwrap());
        stream.extend(after.concat());
        let (to_board, board_in) = wire(0, 1);
        let (to_host, host_in) = wire(0, 1);
        to_board.sender.send(stream).unwrap();
        drop(to_board);
        serve(board_in, to_host);
        let mut deframer = Deframer::new();
        let mut ran = false;
        for byte in host_in.receiver.iter().flatten() {
            if let Some(end) = deframer.push(byte) {
                prop_assert_eq!(end, Ok(()));
                let ((number, _), answer) = decode_answer(deframer.payload()).unwrap();
                ran |= number == 2 && matches!(answer, Response::Facts { name: "small", .. });
            }
        }
        prop_assert!(ran, "the deployable was not taken");
    }

    /// A device from outside whose record is damaged, and code that is damaged as well: whatever runs on it, the session
    /// answers and goes on.
    #[test]
    fn no_device_stops_a_session(seed: u64) {
        let mut random = Rng(seed | 1);
        let (mut file, inputs, target) = random_deployable(seed % 50);
        let record = postcard::to_stdvec(&target).unwrap();
        // The device must still be the one that the code is for.
        let damaged = (0..100).find_map(|_| {
            let mut copy = record.clone();
            for _ in 0..random.size(1, 3) {
                let at = random.size(0, copy.len() - 1);
                copy[at] = if random.one_in(2) { copy[at] ^ 1 << random.size(0, 7) } else { random.next_u64() as u8 };
            }
            let device: Target = postcard::from_bytes(&copy).ok()?;
            Some(Target { fingerprint: target.fingerprint, ..device })
        });
        let device = postcard::to_stdvec(&damaged.unwrap_or(target)).unwrap();
        if random.one_in(2) {
            let code = Deployable::parse(&file).unwrap().code();
            let code = code.as_ptr().addr() - file.as_ptr().addr()..file.len() - 4;
            let at = random.size(code.start.min(code.end - 1), code.end - 1);
            file[at] ^= 1 << random.size(0, 7);
            let body = file.len() - 4;
            let crc = crc32(&file[..body]);
            file[body..].copy_from_slice(&crc.to_le_bytes());
        }
        let mut stream = Vec::new();
        let mut ask = |number, request: &Request<'_>| stream.extend(encode(number, request, &mut [0; FRAME]).unwrap());
        ask(1, &Request::Device { target: &device });
        for (n, bytes) in file.chunks(2048).enumerate() {
            ask(2, &Request::Load { offset: 2048 * n as u32, bytes });
        }
        ask(3, &Request::Commit { bytes: file.len() as u32, crc: u32::from_le_bytes(*file.last_chunk().unwrap()) });
        for (index, bytes) in inputs.iter().enumerate() {
            for (n, bytes) in bytes.chunks(2048).enumerate() {
                ask(4, &Request::Input { index: index as u8, offset: 2048 * n as u32, bytes });
            }
        }
        let sum = shiftwise_core::model::crc32_of(inputs.iter().map(Vec::as_slice));
        ask(5, &Request::Run { report: Report::Crc, inputs: sum });
        ask(6, &Request::Hello);
        let (to_board, board_in) = wire(0, 1);
        let (to_host, host_in) = wire(0, 1);
        to_board.sender.send(stream).unwrap();
        drop(to_board);
        serve(board_in, to_host);
        let mut deframer = Deframer::new();
        let mut answered = Vec::new();
        for byte in host_in.receiver.iter().flatten() {
            if let Some(end) = deframer.push(byte) {
                prop_assert_eq!(end, Ok(()));
                answered.push(decode_answer(deframer.payload()).unwrap().0.0);
            }
        }
        answered.dedup();
        prop_assert!(answered.ends_with(&[5, 6]), "{answered:?}");
    }

    /// Bytes of any kind, long frames among them, with a zero here and there.
    #[test]
    fn no_bytes_stop_a_session(bytes in prop::collection::vec(prop_oneof![20 => 1u8..=255, 1 => Just(0u8)], 0..3 * FRAME)) {
        let (to_board, board_in) = wire(0, 1);
        let (to_host, host_in) = wire(0, 1);
        to_board.sender.send([&bytes[..], &[0], encode(7, &Request::Hello, &mut [0; FRAME]).unwrap()].concat()).unwrap();
        drop(to_board);
        serve(board_in, to_host);
        let mut deframer = Deframer::new();
        let answers: Vec<_> = host_in.receiver.iter().flatten().filter_map(|byte| {
            deframer.push(byte)?.unwrap();
            Some(decode_answer(deframer.payload()).unwrap().0)
        }).collect();
        prop_assert_eq!(answers.last(), Some(&(7, 0)));
    }
}
