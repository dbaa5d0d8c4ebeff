//! The image: one board, its link, and a [`Session`](shiftwise_firmware::session::Session) that never ends.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod board;

/// Serves hosts until one says that it is done. The board's start-up code ends here.
#[cfg(target_os = "none")]
fn serve() -> ! {
    use shiftwise_core::monitor::Sketch;
    use shiftwise_core::run::NoDpu;
    use shiftwise_firmware::session::{Session, Space};

    /// Tensors of a network that are watched, from its inputs on.
    const WATCHED: usize = 64;

    let Some(parts) = board::take() else { board::exit(false) };
    defmt::info!("shiftwise firmware {=str} on {=str}", env!("CARGO_PKG_VERSION"), board::NAME);
    let mut sketches = [Sketch::new(); WATCHED];
    let memory = Space { sketches: &mut sketches, ..parts.memory };
    let mut session = Session::new(parts.link, NoDpu, parts.board, memory);
    // The link's error type has no values and its stream no end: this returns when the host says so.
    let Ok(()) = session.serve();
    let (used, of) = board::stack_used();
    defmt::info!("the host is done; stack: {=usize} of {=usize} bytes used at most", used, of);
    board::exit(true)
}

#[cfg(not(target_os = "none"))]
fn main() {
    println!("This is an image for a board: `cargo xtask firmware build` makes it, `shiftwise run --board` uses it.");
}
