//! A task of embassy that runs a network and gives way after each layer, so that tasks of the same priority never wait for
//! longer than the slowest layer takes.

use embassy_futures::yield_now;
use shiftwise_firmware::error::Error;
use shiftwise_firmware::network::Network;

use crate::classify::{PIXELS, SCALE};

/// The class of a frame.
pub async fn classify(network: &mut Network<'_>, pixels: &[u8; PIXELS]) -> Result<Option<usize>, Error> {
    network.input(0)?.set_u8(pixels, SCALE, 0.0)?;
    let mut slices = network.slices();
    while slices.step(&mut ())? {
        yield_now().await;
    }
    Ok(network.output(0)?.argmax())
}
