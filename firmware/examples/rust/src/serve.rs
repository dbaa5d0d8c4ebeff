//! A host at a port: `shiftwise run --board serial:PATH` loads networks, runs and checks them.

use embedded_io::{Read, Write};
use shiftwise_core::run::NoDpu;
use shiftwise_firmware::session::{Board, Session, Space};

/// What the host is told of the board.
struct Own<C> {
    ticks: C,
    ticks_per_second: u32,
}

impl<C: FnMut() -> u64> Board for Own<C> {
    fn name(&self) -> &str {
        "a board of mine"
    }

    fn hz(&self) -> u32 {
        self.ticks_per_second
    }

    fn ticks(&mut self) -> u64 {
        (self.ticks)()
    }
}

/// Serves a host until it says that it is done. `port` is the receiving and the sending half of a UART, a USB endpoint or
/// a socket; `ticks` is a counter that never wraps, for the times of steps. Errors: the port's.
pub fn serve<R: Read, W: Write<Error = R::Error>>(
    port: (R, W),
    memory: Space<'_>,
    ticks: impl FnMut() -> u64,
    ticks_per_second: u32,
) -> Result<(), R::Error> {
    Session::new(port, NoDpu, Own { ticks, ticks_per_second }, memory).serve()
}
