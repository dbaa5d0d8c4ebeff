//! The log of boards without a second port: a file of the emulator or debugger.
#![allow(dead_code, reason = "boards with a second port log there")]

use core::cell::UnsafeCell;

use semihosting::fs::File;
use semihosting::io::Write;

struct Slot(UnsafeCell<Option<File>>);

// SAFETY: only touched by `log`, which the logger calls from one place at a time.
unsafe impl Sync for Slot {}

static FILE: Slot = Slot(UnsafeCell::new(None));

/// Bytes of the log, already encoded.
pub(super) fn log(bytes: &[u8]) {
    // SAFETY: see above; the reference ends with this call.
    let slot = unsafe { &mut *FILE.0.get() };
    if slot.is_none() {
        *slot = File::create(c"log.defmt").ok();
    }
    if let Some(file) = slot {
        // There is nowhere left to report that the log is broken.
        let _ = file.write_all(bytes);
    }
}
