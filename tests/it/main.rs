//! Integration tests.

mod deployable;
mod qemu;
