//! Wires that damage many bytes, and boards that answer what was not asked: a client is in step again as soon as they let
//! it, and takes nothing for what it is not.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use shiftwise_board::{Client, Limits, LinkError, Report};
use shiftwise_core::link::{Deframer, FRAME, Fault, Request, Response, decode, encode_answer};
use shiftwise_tests::small;

use super::{as_bytes, connect, on_the_host, wire};

/// Noise costs attempts, of which there are enough here. What fails on the way to a loaded network is left out: at these
/// rates not every frame of 2 kB comes through in time.
#[test]
fn heavy_noise_does_not_end_a_session() {
    let limits = Limits { answer: Duration::from_millis(20), step: Duration::from_millis(20), attempts: 1000 };
    let file = small::deployable().unwrap();
    let host: Vec<_> = (0..8).map(|n| as_bytes(on_the_host(&file, &small::sample(n)))).collect();
    let (mut right, mut hits) = (0, 0);
    for (seed, rate) in [(1, 3001), (2, 1499), (3, 1499), (4, 997)] {
        let (mut client, board, damaged) = connect(rate, seed, limits);
        client.hello().unwrap();
        client.load(&file).unwrap();
        for (n, wanted) in (0..).zip(&host) {
            let result = client.sample(&[small::sample(n)], Report::Bytes).unwrap();
            assert_eq!(&result.tensors, wanted, "rate {rate} seed {seed} sample {n}");
            right += 1;
        }
        drop(client);
        board.join().unwrap();
        hits += damaged.load(Ordering::Relaxed);
    }
    println!("{right} samples right, {hits} bytes damaged");
    assert!(right == 4 * 8 && hits > 100, "{right} right, {hits} hits");
}

/// A board whose answers to request number `n` in its life are `answers(n, its number)`, each a number and a response.
fn scripted(
    attempts: u32,
    answers: impl Fn(u32, u32) -> Vec<(u32, Response<'static>)> + Send + 'static,
) -> Client<impl Write> {
    let (to_board, mut board_in) = wire(0, 1);
    let (mut to_host, host_in) = wire(0, 1);
    std::thread::spawn(move || {
        let (mut deframer, mut byte, mut count) = (Deframer::new(), [0], 0);
        while board_in.read(&mut byte).is_ok_and(|n| n > 0) {
            let Some(Ok(())) = deframer.push(byte[0]) else { continue };
            let Ok((number, Request::Reset | Request::Hello)) = decode(deframer.payload()) else { panic!("not asked") };
            for (number, response) in answers(count, number) {
                let mut buffer = [0; FRAME];
                let frame = encode_answer((number, 0), &response, &mut buffer).unwrap();
                to_host.write_all(frame).unwrap();
            }
            count += 1;
        }
    });
    // Long enough that no answer comes late on a busy machine.
    let limits = Limits { answer: Duration::from_secs(2), step: Duration::from_secs(2), attempts };
    Client::new(to_board, host_in, limits)
}

const COMPLAINT: Response<'_> = Response::Fault { fault: Fault::Frame, text: "" };

/// One frame in two pieces: two complaints, of which only one is waited for. The second is dropped with the rest of what
/// was on its way, so that the next attempt meets its own answer.
#[test]
fn complaints_do_not_put_requests_ahead_of_answers() {
    let mut client = scripted(2, |n, number| match n {
        0 => vec![(0, COMPLAINT), (0, COMPLAINT), (0, COMPLAINT)],
        _ => vec![(number, Response::Ready)],
    });
    client.reset().unwrap();
    client.reset().unwrap();
}

/// Answers to older requests are dropped, whatever they are; numbers do not come round within any attempts.
#[test]
fn old_answers_are_dropped() {
    let facts = Response::Facts { name: "old", steps: 1, tensors: 1 };
    let mut client = scripted(1, move |_, number| {
        // What a number of one byte would be 255 attempts later, as well.
        let old = [1, 2, 255, 256].map(|back| (number.saturating_sub(back).max(1), facts.clone()));
        old.into_iter().chain([(number, Response::Ready)]).collect()
    });
    for _ in 0..600 {
        client.reset().unwrap();
    }
}

/// An answer that fits no request is a reason to ask again, and told only if nothing else comes.
#[test]
fn a_stray_answer_is_not_the_end() {
    let mut client = scripted(2, |n, number| vec![(number, if n % 2 == 0 { Response::Done } else { Response::Ready })]);
    client.reset().unwrap();
    let mut client = scripted(3, |_, number| vec![(number, Response::Done)]);
    assert!(matches!(client.reset(), Err(LinkError::Answer(text)) if text.contains("Done")));
}
