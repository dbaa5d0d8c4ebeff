//! One program for all targets: `FUZZ_TARGET=NAME fuzz CORPUS…`, see `cargo xtask fuzz`.
//!
//! What the targets do is in `tests/src/fuzz`, where the ordinary tests run the same functions over the same corpus. Here
//! are the fuzzer, and a limit on memory: an allocation beyond it fails, and what does not expect that aborts.
#![no_main]

use std::alloc::System;
use std::sync::OnceLock;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use shiftwise_tests::fuzz::{TARGETS, Target};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes that reading a file may take beyond ten times its size.
const MEMORY: usize = 500 << 20;

/// The target that the environment names.
fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| {
            let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
            panic!("FUZZ_TARGET is `{name}`; there are {}", names.join(", "))
        })
    })
}

fuzz_target!(|bytes: &[u8]| {
    let target = target();
    let before = ALLOCATOR.allocated();
    // A limit below what is allocated already is refused; this one is far above it.
    let _ = ALLOCATOR.set_limit(before + MEMORY + 10 * bytes.len());
    (target.run)(bytes);
    let _ = ALLOCATOR.set_limit(usize::MAX);
});
