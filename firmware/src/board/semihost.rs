//! Files of the emulator or debugger: the log of boards without a second port, the link of those without any.
#![allow(dead_code, reason = "boards with ports need none or one of them")]

use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};

use semihosting::fd::{BorrowedFd, OwnedFd};
use semihosting::sys::arm_compat::{OpenMode, sys_open};
use semihosting::sys::{read, write};

/// No file has this number.
const CLOSED: i32 = -1;

/// A file that is opened when it is first used, and never closed.
struct Stream {
    path: &'static CStr,
    mode: OpenMode,
    number: AtomicI32,
}

/// The log.
static LOG: Stream = Stream::new(c"log.defmt", OpenMode::WRONLY_TRUNC);
/// The host program's standard input and output; the mode says which is meant.
static INPUT: Stream = Stream::new(c":tt", OpenMode::RDONLY);
static OUTPUT: Stream = Stream::new(c":tt", OpenMode::WRONLY_TRUNC);

impl Stream {
    const fn new(path: &'static CStr, mode: OpenMode) -> Self {
        Self { path, mode, number: AtomicI32::new(CLOSED) }
    }

    fn get(&self) -> Option<BorrowedFd<'_>> {
        if self.number.load(Ordering::Relaxed) == CLOSED {
            let opened = sys_open(self.path, self.mode).map_or(CLOSED, OwnedFd::into_raw_fd);
            self.number.store(opened, Ordering::Relaxed);
        }
        let number = self.number.load(Ordering::Relaxed);
        // SAFETY: the number of an open file, which nobody closes.
        (number != CLOSED).then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// Writes all bytes. There is nobody to tell that this failed: a host that does not listen runs into its own time
    /// limit.
    fn put(&self, mut bytes: &[u8]) {
        let Some(file) = self.get() else { return };
        while let Ok(n @ 1..) = write(file, bytes) {
            bytes = bytes.get(n..).unwrap_or(&[]);
        }
    }
}

/// Bytes of the log, already encoded.
pub(super) fn log(bytes: &[u8]) {
    LOG.put(bytes);
}

/// Bytes for the host.
pub(super) fn send(bytes: &[u8]) {
    OUTPUT.put(bytes);
}

/// Waits for bytes of the link; how many came. The end of the stream ends the program: the host is gone.
pub(super) fn receive(buffer: &mut [u8]) -> usize {
    match INPUT.get().map(|file| read(file, buffer)) {
        Some(Ok(n @ 1..)) => n,
        _ => super::exit(false),
    }
}
