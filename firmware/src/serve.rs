//! The program of an image: one board, its link, and a [`Session`] that never ends.

use shiftwise_core::monitor::Sketch;
use shiftwise_firmware::session::{Session, Space};

use crate::board;

/// Tensors of a network that are watched, from its inputs on.
const WATCHED: usize = 64;

/// Serves hosts until one says that it is done. The board's start-up code ends here.
pub(crate) fn serve() -> ! {
    let Some(parts) = board::take() else { board::exit(false) };
    defmt::info!("shiftwise firmware {=str} on {=str}", env!("CARGO_PKG_VERSION"), board::NAME);
    let mut sketches = [Sketch::new(); WATCHED];
    let memory = Space { sketches: &mut sketches, ..parts.memory };
    let mut session = Session::new(parts.link, parts.dpu, parts.board, memory);
    // The link's error type has no values and its stream no end: this returns when the host says so.
    let Ok(()) = session.serve();
    let (used, of) = board::stack_used();
    defmt::info!("the host is done; stack: {=usize} of {=usize} bytes used at most", used, of);
    board::exit(true)
}
