//! A camera, a lamp and a network.

use embedded_hal::digital::OutputPin;
use embedded_io::Read;
use shiftwise_firmware::error::Error;
use shiftwise_firmware::network::Network;
use shiftwise_firmware::self_test::{Progress, SelfTest};

use crate::{MODEL, Memory};

/// Pixels of a frame.
pub const PIXELS: usize = 64;
/// What the camera's values are times: the network was trained on 0 to 1, this camera gives 0 to 16.
pub const SCALE: f32 = 1.0 / 16.0;

/// A network that is ready and has passed its self-test, which feeds the watchdog after each layer.
pub fn start(memory: &mut Memory, mut feed_watchdog: impl FnMut()) -> Result<Network<'_>, Error> {
    let mut network = Network::new(MODEL, memory.bytes())?;
    let mut test = SelfTest::new();
    while test.step(&mut network, &mut ())? == Progress::Running {
        feed_watchdog();
    }
    Ok(network)
}

/// The class of a frame.
pub fn classify(network: &mut Network<'_>, pixels: &[u8; PIXELS]) -> Result<Option<usize>, Error> {
    network.input(0)?.set_u8(pixels, SCALE, 0.0)?;
    network.run(&mut ())?;
    Ok(network.output(0)?.argmax())
}

/// Lights the lamp while the camera shows `wanted`, as long as there are frames. Errors: the network's; a lamp that does
/// not answer is none.
pub fn run(
    network: &mut Network<'_>,
    mut camera: impl Read,
    mut lamp: impl OutputPin,
    wanted: usize,
    mut feed_watchdog: impl FnMut(),
) -> Result<(), Error> {
    let mut pixels = [0; PIXELS];
    while camera.read_exact(&mut pixels).is_ok() {
        let seen = classify(network, &pixels)?;
        let _ = lamp.set_state((seen == Some(wanted)).into());
        feed_watchdog();
    }
    Ok(())
}
