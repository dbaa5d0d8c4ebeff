//! Watching what tensors hold: values at the int8 limits, and ranges that are not those of the self-test any more.

use embedded_io::Write;
use shiftwise_firmware::error::Error;
use shiftwise_firmware::monitor::{Drift, Expected, Monitor, Sketch};
use shiftwise_firmware::network::Network;
use shiftwise_firmware::self_test::SelfTest;
use shiftwise_firmware::tensor::TensorId;

use crate::classify::{PIXELS, SCALE};

/// A network whose first `T` tensors are watched. The first is its input.
#[derive(Debug)]
pub struct Watched<'m, const T: usize> {
    network: Network<'m>,
    expected: [Expected; T],
    sketches: [Sketch; T],
}

impl<'m, const T: usize> Watched<'m, T> {
    /// Runs the self-test and keeps what the tensors hold in it.
    pub fn new(mut network: Network<'m>) -> Result<Self, Error> {
        let mut sketches = [Sketch::new(); T];
        SelfTest::run(&mut network, &mut Monitor::new(&mut sketches))?;
        let expected = sketches.each_ref().map(Expected::from);
        Ok(Self { network, expected, sketches: [Sketch::new(); T] })
    }

    /// The class of a frame, which counts.
    pub fn classify(&mut self, pixels: &[u8; PIXELS]) -> Result<Option<usize>, Error> {
        self.network.input(0)?.set_u8(pixels, SCALE, 0.0)?;
        self.network.run(&mut Monitor::new(&mut self.sketches))?;
        Ok(self.network.output(0)?.argmax())
    }

    /// Writes a line for each tensor that has drifted since the last report, and begins anew.
    pub fn report<W: Write>(&mut self, log: &mut W) -> Result<(), W::Error> {
        for (id, (sketch, expected)) in (0..).map(TensorId).zip(self.sketches.iter().zip(&self.expected)) {
            let verdict = match sketch.drift(*expected) {
                Drift::Inside | Drift::Unseen => continue,
                Drift::Clipped => "too large: values are cut off",
                Drift::Wide => "larger than in the self-test",
                Drift::Narrow => "smaller than in the self-test",
            };
            let name = self.network.deployable().tensor(id).map_or("", |tensor| tensor.name);
            for part in [name, ": ", verdict, "\r\n"] {
                log.write_all(part.as_bytes())?;
            }
        }
        self.sketches.fill(Sketch::new());
        Ok(())
    }
}
