//! The arguments of the run: those of the process, or what a Python program calls the command line with.

use std::ffi::OsString;
use std::sync::{Mutex, PoisonError};

static GIVEN: Mutex<Vec<OsString>> = Mutex::new(Vec::new());

/// The arguments of the run, of which the first is the program's name.
pub(crate) fn arguments() -> Vec<OsString> {
    GIVEN.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Keeps the arguments of a run that begins.
pub(crate) fn keep(arguments: &[OsString]) {
    *GIVEN.lock().unwrap_or_else(PoisonError::into_inner) = arguments.to_vec();
}
