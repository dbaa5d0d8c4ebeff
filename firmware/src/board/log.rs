//! Logs: defmt frames, one after the other, to the board's log port.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use critical_section::RestoreState;

use super::mps2_an386::write_log;

#[defmt::global_logger]
struct Logger;

/// The encoder and the interrupt state from before [`Logger::acquire`].
struct State(UnsafeCell<(defmt::Encoder, RestoreState)>);

// SAFETY: only touched between `acquire` and `release`, inside a critical section of a single core.
unsafe impl Sync for State {}

static STATE: State = State(UnsafeCell::new((defmt::Encoder::new(), RestoreState::invalid())));
static TAKEN: AtomicBool = AtomicBool::new(false);

// SAFETY: `acquire` refuses to nest, and everything up to `release` runs in its critical section, so no two threads or
// handlers hold the encoder at once.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        // SAFETY: `release` restores the state.
        let restore = unsafe { critical_section::acquire() };
        if TAKEN.swap(true, Ordering::Relaxed) {
            // A log call inside a log call would mix two frames.
            super::mps2_an386::exit(false);
        }
        // SAFETY: see above.
        let state = unsafe { &mut *STATE.0.get() };
        state.1 = restore;
        state.0.start_frame(write_log);
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: called after `acquire`, still in its critical section.
        let state = unsafe { &mut *STATE.0.get() };
        state.0.end_frame(write_log);
        let restore = state.1;
        TAKEN.store(false, Ordering::Relaxed);
        // SAFETY: the pair of the `acquire` above.
        unsafe { critical_section::release(restore) };
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: called between `acquire` and `release`.
        let state = unsafe { &mut *STATE.0.get() };
        state.0.write(bytes, write_log);
    }
}
