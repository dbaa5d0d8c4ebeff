//! Links that lose, cut, repeat and delay frames, and boards that restart: right bytes or an error, never wrong bytes.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embedded_io::ErrorKind;
use shiftwise_board::{Client, Limits, LinkError, Report};
use shiftwise_core::monitor::Sketch;
use shiftwise_core::run::NoDpu;
use shiftwise_firmware::session::{Session, Space};
use shiftwise_tests::graphs::Rng;
use shiftwise_tests::small;

use super::{ARENA, BANKS, Fake, STORE, as_bytes, on_the_host, on_the_host_with, random_deployable};

/// What happened, and whether it goes on.
#[derive(Default)]
struct Weather {
    calm: AtomicBool,
    frames: AtomicU32,
    restarts: AtomicU32,
}

/// One direction. Writers on both sides pass whole frames.
struct Wire {
    sender: Sender<Vec<u8>>,
    rng: Rng,
    kept: Option<Vec<u8>>,
    weather: Arc<Weather>,
}

impl Wire {
    fn pass(&mut self, frame: &[u8]) {
        let send = |bytes: &[u8]| {
            // A closed end means that the other side is gone, which the reading half notices.
            let _ = self.sender.send(bytes.to_vec());
        };
        if self.weather.calm.load(Ordering::Relaxed) || !self.rng.one_in(25) {
            return send(frame);
        }
        self.weather.frames.fetch_add(1, Ordering::Relaxed);
        let at = self.rng.size(0, frame.len() - 1);
        match self.rng.range(0, 6) {
            0 => {}
            1 => {
                send(frame);
                send(frame);
            }
            2 => send(&frame[..at]),
            3 => send(&frame[at..]),
            4 => {
                let mut damaged = frame.to_vec();
                damaged[at] ^= 1 << self.rng.size(0, 7);
                send(&damaged);
            }
            // Kept, and sent once more much later.
            5 => {
                send(frame);
                if let Some(old) = self.kept.replace(frame.to_vec()) {
                    send(&old);
                }
            }
            _ => {
                let noise = self.rng.bytes(60);
                send(&noise);
                send(frame);
            }
        }
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

struct End {
    receiver: Receiver<Vec<u8>>,
    pending: VecDeque<u8>,
    gone: bool,
}

impl io::Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pending.is_empty() {
            match self.receiver.recv() {
                Ok(bytes) => self.pending.extend(bytes),
                Err(_) => {
                    self.gone = true;
                    return Ok(0);
                }
            }
        }
        let n = buffer.len().min(self.pending.len());
        buffer.iter_mut().zip(self.pending.drain(..n)).for_each(|(to, from)| *to = from);
        Ok(n)
    }
}

/// The board's halves for one life; the stream ends with it.
struct Input<'a> {
    end: &'a mut End,
    left: usize,
    weather: &'a Weather,
}
struct Output<'a>(&'a mut Wire);

impl embedded_io::ErrorType for Input<'_> {
    type Error = ErrorKind;
}
impl embedded_io::ErrorType for Output<'_> {
    type Error = ErrorKind;
}
impl embedded_io::Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        if self.left == 0 && !self.weather.calm.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.left = self.left.saturating_sub(1);
        io::Read::read(self.end, &mut buffer[..1]).map_err(|_| ErrorKind::Other)
    }
}
impl embedded_io::Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, ErrorKind> {
        self.0.pass(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> Result<(), ErrorKind> {
        Ok(())
    }
}

/// A board that restarts after a random number of bytes, and then finds its memory as it was, or lost.
fn lives(mut end: End, mut wire: Wire, mut rng: Rng, weather: &Weather) {
    let (mut store, mut arena, mut banks) = (vec![0; STORE], vec![0xA5; ARENA], vec![0; BANKS]);
    let mut sketches = [Sketch::new(); 32];
    loop {
        let left = rng.size(2_000, 40_000);
        let link = (Input { end: &mut end, left, weather }, Output(&mut wire));
        let memory = Space { store: &mut store, arena: &mut arena, banks: &mut banks, sketches: &mut sketches };
        Session::new(link, NoDpu, Fake::default(), memory).serve().unwrap();
        if end.gone {
            return;
        }
        weather.restarts.fetch_add(1, Ordering::Relaxed);
        if rng.one_in(2) {
            store.fill(0xFF);
        }
        arena.fill(0x77);
        // What arrives while it starts is lost.
        end.pending.clear();
    }
}

#[test]
fn no_fault_of_the_link_or_the_board_gives_wrong_bytes() {
    let (mut right, mut refused) = (0, 0);
    let (frames, restarts) = (Mutex::new(0), Mutex::new(0));
    let (other, other_inputs, target) = random_deployable(3);
    for seed in 0..12 {
        let weather = Arc::new(Weather::default());
        let (to_board, board_in) = channel();
        let (to_host, host_in) = channel();
        let wire = |sender, seed| Wire { sender, rng: Rng(seed), kept: None, weather: Arc::clone(&weather) };
        let end = |receiver| End { receiver, pending: VecDeque::new(), gone: false };
        let (host_wire, board_wire) = (wire(to_board, 2 * seed + 1), wire(to_host, 2 * seed + 1000));
        let (board_end, its_weather) = (end(board_in), Arc::clone(&weather));
        let board = std::thread::spawn(move || lives(board_end, board_wire, Rng(seed + 77), &its_weather));
        let limits = Limits { answer: Duration::from_millis(40), step: Duration::from_millis(60), attempts: 5 };
        let mut client = Client::new(host_wire, end(host_in), limits);
        let file = small::deployable().unwrap();
        let mut banks = vec![0; target.bank_bytes()];
        let mut machine = shiftwise_core::exec::Machine::new(&target, &mut banks).unwrap();
        let other_wanted = as_bytes(on_the_host_with(&other, &other_inputs, &mut machine));
        for round in 0..10 {
            // Both kinds of deployable in turn, so that one's memory is full of the other.
            let _ = client.load(if round % 2 == 0 { &file } else { &other });
            for n in 0..4 {
                let inputs = if round % 2 == 0 { vec![small::sample(n)] } else { other_inputs.clone() };
                match client.sample(&inputs, Report::Bytes) {
                    Ok(result) => {
                        let wanted = match round % 2 {
                            0 => as_bytes(on_the_host(&file, &inputs[0])),
                            _ => other_wanted.clone(),
                        };
                        assert!(result.tensors == wanted, "seed {seed} round {round} sample {n}: wrong bytes");
                        right += 1;
                    }
                    Err(LinkError::Noise | LinkError::Silent(_) | LinkError::Refused { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        weather.calm.store(true, Ordering::Relaxed);
        client.load(&file).unwrap();
        let result = client.sample(&[small::sample(9)], Report::Bytes).unwrap();
        assert_eq!(result.tensors, as_bytes(on_the_host(&file, &small::sample(9))), "after the faults");
        *frames.lock().unwrap() += weather.frames.load(Ordering::Relaxed);
        *restarts.lock().unwrap() += weather.restarts.load(Ordering::Relaxed);
        drop(client);
        board.join().unwrap();
    }
    let (frames, restarts) = (frames.into_inner().unwrap(), restarts.into_inner().unwrap());
    println!("{right} samples right, {refused} refused; {frames} frames hit, {restarts} restarts");
    assert!(frames > 200 && restarts > 20 && right > 100, "{frames} frames, {restarts} restarts, {right} right");
}
