//! The examples with a camera, a lamp and ports that are made of memory.

use std::convert::Infallible;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use embassy_futures::block_on;
use embassy_futures::join::join;
use embassy_futures::yield_now;
use embedded_hal::digital;
use embedded_io_adapters::std::FromStd;
use shiftwise_board::{Client, Limits, Report};
use shiftwise_core::model::Deployable;
use shiftwise_examples::classify::{self, PIXELS};
use shiftwise_examples::drift::Watched;
use shiftwise_examples::{MODEL, Memory, cooperative, serve};
use shiftwise_firmware::network::Network;
use shiftwise_firmware::session::Space;

/// Frames of the self-test's samples, and their classes.
fn samples() -> Vec<([u8; PIXELS], usize)> {
    let model = Deployable::parse(MODEL).expect("digits.swm is of this version: see src/lib.rs for how it is made");
    let (_, input) = model.inputs().next().unwrap();
    let (_, output) = model.outputs().next().unwrap();
    let (n, results) = (input.bytes() as usize, output.bytes() as usize);
    assert_eq!(n, PIXELS);
    let each = model.self_test().chunks_exact(n + results);
    let sample = |bytes: &[u8]| {
        // The input's integers are steps of 2^-position, the camera's are steps of 1/16.
        let pixels = std::array::from_fn(|i| bytes[i] >> (input.pos.0 - 4));
        let scores: Vec<f32> = bytes[n..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        (pixels, best)
    };
    let samples: Vec<_> = each.map(sample).collect();
    assert!(samples.len() > 3 && samples.iter().any(|(_, class)| *class != samples[0].1));
    samples
}

#[derive(Default)]
struct Lamp(Vec<bool>);

impl digital::ErrorType for Lamp {
    type Error = Infallible;
}
impl digital::OutputPin for Lamp {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.0.push(false);
        Ok(())
    }
    fn set_high(&mut self) -> Result<(), Infallible> {
        self.0.push(true);
        Ok(())
    }
}

#[test]
fn another_task_runs_between_the_layers() {
    let mut memory = Memory::new();
    let mut network = classify::start(&mut memory, || ()).unwrap();
    let layers = usize::from(network.deployable().step_count());
    for (pixels, class) in samples() {
        let turns = std::cell::Cell::new(0);
        let other = async {
            for _ in 0..layers {
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        let (seen, ()) = block_on(join(cooperative::classify(&mut network, &pixels), other));
        assert_eq!(seen.unwrap(), Some(class));
        assert_eq!(turns.get(), layers, "the other task had its turn after each layer");
    }
}

#[test]
fn the_lamp_shows_the_class() {
    let mut memory = Memory::new();
    let mut fed = 0;
    let mut network = classify::start(&mut memory, || fed += 1).unwrap();
    assert!(fed >= 3 * usize::from(network.deployable().step_count()), "{fed} layers");
    let samples = samples();
    let frames: Vec<u8> = samples.iter().flat_map(|(pixels, _)| *pixels).collect();
    for wanted in 0..10 {
        let (mut lamp, mut fed) = (Lamp::default(), 0);
        classify::run(&mut network, &frames[..], &mut lamp, wanted, || fed += 1).unwrap();
        assert_eq!(lamp.0, samples.iter().map(|(_, class)| *class == wanted).collect::<Vec<_>>());
        assert_eq!(fed, samples.len());
    }
}

#[test]
fn a_camera_that_is_too_bright_or_dark_is_told() {
    let mut memory = Memory::new();
    let network = Network::new(MODEL, memory.bytes()).unwrap();
    let mut watched: Watched<'_, 4> = Watched::new(network).unwrap();
    for (change, says) in [
        ((|pixel| pixel) as fn(u8) -> u8, ""),
        (|pixel| pixel * 8, "quant_image: too large: values are cut off\r\n"),
        (|pixel| pixel / 8, "quant_image: smaller than in the self-test\r\n"),
        (|pixel| pixel, ""),
    ] {
        for (pixels, class) in samples() {
            let seen = watched.classify(&pixels.map(change)).unwrap();
            assert!(!says.is_empty() || seen == Some(class));
        }
        let mut log = [0; 400];
        let mut rest = &mut log[..];
        watched.report(&mut rest).unwrap();
        let left = rest.len();
        let text = str::from_utf8(&log[..log.len() - left]).unwrap();
        assert!(text.starts_with(says) && text.is_empty() == says.is_empty(), "{text}");
    }
}

#[test]
fn a_host_is_served() {
    let (host, board) = UnixStream::pair().unwrap();
    let end = host.try_clone().unwrap();
    let board = std::thread::spawn(move || {
        let (mut store, mut arena) = (vec![0; 1 << 16], vec![0; 1 << 14]);
        let memory = Space { store: &mut store, arena: &mut arena, banks: &mut [], sketches: &mut [] };
        let mut now = 0;
        let ticks = || {
            now += 7;
            now
        };
        serve::serve((FromStd::new(board.try_clone().unwrap()), FromStd::new(board)), memory, ticks, 1000)
    });
    let mut client = Client::new(host.try_clone().unwrap(), host, Limits::default());
    let info = client.hello().unwrap();
    assert_eq!((info.board.as_str(), info.hz), ("a board of mine", 1000));
    client.load(MODEL).unwrap();
    assert_eq!(client.self_test().unwrap().wrong, None);
    let model = Deployable::parse(MODEL).unwrap();
    let sample = &model.self_test()[..PIXELS];
    let result = client.sample(&[sample.to_vec()], Report::Outputs).unwrap();
    assert!(result.steps.iter().all(|ticks| *ticks == 7));
    let (id, output) = model.outputs().next().unwrap();
    assert_eq!(result.bytes(id).unwrap(), &model.self_test()[PIXELS..][..output.bytes() as usize]);
    client.exit().unwrap();
    board.join().unwrap().unwrap();
    end.shutdown(Shutdown::Both).unwrap();
}
