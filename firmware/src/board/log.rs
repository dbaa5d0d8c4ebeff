//! Logs: defmt frames, one after the other, to the board's log port.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use super::machine;

#[defmt::global_logger]
struct Logger;

struct State(UnsafeCell<defmt::Encoder>);

// SAFETY: only touched between `acquire` and `release`, which do not nest; these images run on a single core.
unsafe impl Sync for State {}

static STATE: State = State(UnsafeCell::new(defmt::Encoder::new()));
static TAKEN: AtomicBool = AtomicBool::new(false);

// SAFETY: `acquire` refuses to nest. Interrupt handlers do not log, except those of faults: one inside a log call finds
// the encoder taken and ends the program.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        if TAKEN.load(Ordering::Relaxed) {
            // A log call inside a log call would mix two frames.
            super::exit(false);
        }
        TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: see above.
        unsafe { &mut *STATE.0.get() }.start_frame(machine::log);
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: called after `acquire`.
        unsafe { &mut *STATE.0.get() }.end_frame(machine::log);
        TAKEN.store(false, Ordering::Relaxed);
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: called between `acquire` and `release`.
        unsafe { &mut *STATE.0.get() }.write(bytes, machine::log);
    }
}
