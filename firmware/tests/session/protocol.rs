//! What the link offers beside running samples: versions, self-test, sketches, the first difference, a real terminal.

use std::fs::File;
use std::io::{Read, Write};

use embedded_io_adapters::std::FromStd;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use shiftwise_board::{Board, BoardSpec, Client, Fault, Limits, LinkError, Report, Wrong};
use shiftwise_core::link::{Deframer, FRAME, Request, Response, VERSION, decode, decode_answer, encode, encode_answer};
use shiftwise_core::model::{Deployable, Region, TensorId, crc32};
use shiftwise_core::monitor::{Monitor, Sketch};
use shiftwise_core::run::{Memory, NoDpu, Observer, run};
use shiftwise_firmware::session::{Session, Space};
use shiftwise_tests::graphs::{self, random_graph, random_inputs};
use shiftwise_tests::small;

use super::{ARENA, BANKS, Fake, STORE, as_bytes, connect, on_the_host, refused, serve, wire};

/// A board that answers each greeting with these bytes, checksummed and framed.
fn greeter(body: &'static [u8]) -> Client<impl Write> {
    let (to_board, mut board_in) = wire(0, 1);
    let (mut to_host, host_in) = wire(0, 1);
    std::thread::spawn(move || {
        let mut deframer = Deframer::new();
        let mut byte = [0];
        while board_in.read(&mut byte).is_ok_and(|n| n > 0) {
            if let Some(Ok(())) = deframer.push(byte[0]) {
                let Ok((number, Request::Hello)) = decode(deframer.payload()) else { panic!("not a greeting") };
                let mut payload = [&[u8::try_from(number).unwrap()], body].concat();
                payload.extend(crc32(&payload).to_le_bytes());
                // Payloads without zeros but the one of the variant: two blocks.
                let zero = payload.iter().position(|b| *b == 0).unwrap();
                let (first, second) = payload.split_at(zero);
                let mut frame = vec![first.len() as u8 + 1];
                frame.extend(first);
                frame.push(second.len() as u8);
                frame.extend(&second[1..]);
                frame.push(0);
                to_host.write_all(&frame).unwrap();
            }
        }
    });
    Client::new(to_board, host_in, Limits { attempts: 1, ..Limits::default() })
}

#[test]
fn another_version_is_named_by_both_sides() {
    // An old greeting without a number among its answers, and one that may hold anything behind the version.
    let old = greeter(&[0, 1, 1, b'b', 9, 9, 9]).hello();
    assert!(matches!(old, Err(LinkError::Version { board: 1, own: VERSION })), "{old:?}");
    let later = greeter(&[0, 99, 1, 2, 3]).hello();
    assert!(matches!(later, Err(LinkError::Version { board: 99, own: VERSION })), "{later:?}");
    let text = later.unwrap_err().to_string();
    assert!(text.contains("99") && text.contains(&VERSION.to_string()), "{text}");

    // A request that this board does not know, intact.
    let (to_board, board_in) = wire(0, 1);
    let (to_host, host_in) = wire(0, 1);
    let mut unknown = vec![1, 200, 1];
    unknown.extend(crc32(&unknown).to_le_bytes());
    let mut frame = vec![unknown.len() as u8 + 1];
    frame.extend(&unknown);
    frame.push(0);
    assert!(!unknown.contains(&0));
    to_board.sender.send(frame).unwrap();
    drop(to_board);
    serve(board_in, to_host);
    let mut deframer = Deframer::new();
    let bytes: Vec<u8> = host_in.receiver.iter().flatten().collect();
    assert_eq!(bytes.iter().find_map(|b| deframer.push(*b)), Some(Ok(())));
    let fault = Response::Fault { fault: Fault::Unknown { version: VERSION }, text: "" };
    assert_eq!(decode_answer(deframer.payload()), Ok(((0, 0), fault)));
}

/// A run does not begin with inputs that are not the host's.
#[test]
fn a_run_names_its_inputs() {
    let (to_board, board_in) = wire(0, 1);
    let (to_host, host_in) = wire(0, 1);
    let file = small::deployable().unwrap();
    let mut stream = Vec::new();
    let mut ask = |number, request: &Request<'_>| stream.extend(encode(number, request, &mut [0; FRAME]).unwrap());
    for (n, bytes) in file.chunks(2048).enumerate() {
        ask(1, &Request::Load { offset: 2048 * n as u32, bytes });
    }
    ask(2, &Request::Commit { bytes: file.len() as u32, crc: u32::from_le_bytes(*file.last_chunk().unwrap()) });
    ask(3, &Request::Commit { bytes: 7, crc: 7 });
    let sample = small::sample(0);
    ask(4, &Request::Input { index: 0, offset: 0, bytes: &sample });
    ask(5, &Request::Input { index: 0, offset: 0, bytes: &small::sample(1)[..20] });
    ask(6, &Request::Run { report: Report::None, inputs: crc32(&sample) });
    ask(7, &Request::Input { index: 0, offset: 0, bytes: &sample });
    ask(8, &Request::Run { report: Report::None, inputs: crc32(&sample) });
    to_board.sender.send(stream).unwrap();
    drop(to_board);
    serve(board_in, to_host);
    let mut deframer = Deframer::new();
    let mut answers = Vec::new();
    for byte in host_in.receiver.iter().flatten() {
        if deframer.push(byte).is_some() {
            let ((number, _), answer) = decode_answer(deframer.payload()).unwrap();
            match answer {
                Response::Fault { fault, .. } => answers.push((number, Some(fault))),
                Response::Done | Response::Facts { .. } => answers.push((number, None)),
                _ => {}
            }
        }
    }
    let wanted = [(2, None), (3, Some(Fault::Loaded)), (6, Some(Fault::Inputs)), (8, None)];
    assert_eq!(answers, wanted);
    // Frames of answers are not frames of requests by accident.
    let mut buffer = [0; FRAME];
    assert!(encode_answer((1, 0), &Response::Done, &mut buffer).is_ok());
}

/// A network for the CPU with three samples of its own, of which the one with this number has a wrong output.
fn with_samples(wrong: Option<usize>) -> Vec<u8> {
    let limits = graphs::Limits { ops: 6, side: 12, channels: 20, cpu_only: true, extreme: false };
    let graph = random_graph(11, limits);
    let program = shiftwise_compile::cpu(&graph, &shiftwise_compile::CpuOptions::default()).unwrap();
    let plain = program.to_bytes(&[]).unwrap();
    let model = Deployable::parse(&plain).unwrap();
    let vectors: Vec<Vec<u8>> = (0..3)
        .map(|n| {
            let inputs = random_inputs(&graph, n);
            let regions = [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| vec![0; model.region_bytes(r)]);
            let [mut workspace, mut input, mut output] = regions;
            let mut memory = Memory {
                constants: model.constants(),
                workspace: &mut workspace,
                inputs: &mut input,
                outputs: &mut output,
            };
            for ((_, tensor), bytes) in model.inputs().zip(&inputs) {
                memory.tensor_mut(&tensor).unwrap().copy_from_slice(bytes);
            }
            run(&model, &mut NoDpu, &mut memory, &mut ()).unwrap();
            let outputs = model.outputs().flat_map(|(_, tensor)| memory.tensor(&tensor).unwrap().to_vec());
            let mut vector: Vec<u8> = inputs.concat().into_iter().chain(outputs).collect();
            if wrong == Some(n as usize) {
                *vector.last_mut().unwrap() ^= 0x10;
            }
            vector
        })
        .collect();
    program.to_bytes(&vectors).unwrap()
}

#[test]
fn a_board_tests_itself() {
    let (mut client, board, _) = connect(0, 4, Limits::default());
    client.load(&with_samples(None)).unwrap();
    let tested = client.self_test().unwrap();
    assert_eq!((tested.samples, tested.wrong), (3, None));
    client.load(&with_samples(Some(1))).unwrap();
    let Some(Wrong { sample, wanted, found, .. }) = client.self_test().unwrap().wrong else { panic!("not found") };
    assert_eq!((sample, wanted), (1, found ^ 0x10));
    client.load(&small::deployable().unwrap()).unwrap();
    assert_eq!(refused(client.self_test()).0, Fault::NoSelfTest);
    client.reset().unwrap();
    assert_eq!(refused(client.self_test()).0, Fault::NotLoaded);
    client.exit().unwrap();
    board.join().unwrap();
}

#[test]
fn sketches_come_back_and_are_forgotten() {
    let (mut client, board, _) = connect(0, 5, Limits::default());
    let file = small::deployable().unwrap();
    let model = Deployable::parse(&file).unwrap();
    client.load(&file).unwrap();
    assert_eq!(client.sketches().unwrap(), []);
    for _ in 0..2 {
        let mut sketches = [Sketch::new(); 32];
        let mut monitor = Monitor::new(&mut sketches);
        for n in 0..3 {
            client.sample(&[small::sample(n)], Report::None).unwrap();
            for (id, bytes) in on_the_host(&file, &small::sample(n)) {
                monitor.tensor(id, &model.tensor(id).unwrap(), &bytes);
            }
        }
        let wanted: Vec<_> = (0..).map(TensorId).zip(sketches).filter(|(_, sketch)| sketch.runs > 0).collect();
        assert!(wanted.len() > 15 && wanted.iter().all(|(_, sketch)| sketch.runs == 3));
        assert_eq!(client.sketches().unwrap(), wanted);
        client.forget().unwrap();
        assert_eq!(client.sketches().unwrap(), []);
    }
    client.exit().unwrap();
    board.join().unwrap();
}

#[test]
fn the_first_difference_is_found_by_checksums() {
    let (mut client, board, _) = connect(0, 6, Limits::default());
    let file = small::deployable().unwrap();
    client.load(&file).unwrap();
    let input = [small::sample(5)];
    let right = on_the_host(&file, &input[0]);
    assert_eq!(client.first_difference(&input, &right).unwrap(), None);
    for (k, at) in [(0, 3), (4, 0), (11, 23)] {
        let mut wanted = right.clone();
        wanted[k].1[at] ^= 1;
        // A later one as well.
        wanted.last_mut().unwrap().1[0] ^= 0x80;
        let found = client.first_difference(&input, &wanted).unwrap().unwrap();
        assert_eq!((found.tensor, found.first, found.count), (right[k].0, Some(at), 1));
        assert_eq!(found.found, right[k].1);
    }
    client.exit().unwrap();
    board.join().unwrap();
}

/// A terminal as the system makes it echoes, edits lines and translates bytes: the host must set it up.
#[test]
fn a_serial_port_is_a_link() {
    let board_side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&board_side).unwrap();
    unlockpt(&board_side).unwrap();
    let path = ptsname(&board_side, Vec::new()).unwrap().into_string().unwrap();
    let board_side = File::from(board_side);
    // A terminal that is hung up drops what was not read yet: this one is open until the end.
    let _open = board_side.try_clone().unwrap();
    let halves = (FromStd::new(board_side.try_clone().unwrap()), FromStd::new(board_side));
    // Holds the port open, so that the board sees no end of the stream before the host opens it.
    let held = File::options().read(true).write(true).open(&path).unwrap();
    let board = std::thread::spawn(move || {
        let (mut store, mut arena, mut banks) = (vec![0; STORE], vec![0; ARENA], vec![0; BANKS]);
        let memory = Space { store: &mut store, arena: &mut arena, banks: &mut banks, sketches: &mut [] };
        Session::new(halves, NoDpu, Fake::default(), memory).serve()
    });
    let spec: BoardSpec = format!("serial:{path}@921600").parse().unwrap();
    let file = small::deployable().unwrap();
    let mut host = Board::start(&spec, std::path::Path::new(""), &file, Limits::default()).unwrap();
    assert_eq!(host.info().board, "fake");
    host.load(&file).unwrap();
    for n in 0..3 {
        let sample = host.sample(&[small::sample(n)], Report::Bytes).unwrap();
        assert_eq!(sample.tensors, as_bytes(on_the_host(&file, &small::sample(n))));
    }
    assert_eq!(host.finish().unwrap(), [""; 0]);
    board.join().unwrap().unwrap();
    drop(held);
}
