//! Registers at an address.
#![allow(dead_code, reason = "not every board has a port with registers")]

use core::ptr::with_exposed_provenance_mut as at;

/// The registers of one peripheral, by its base address.
#[derive(Clone, Copy)]
pub(super) struct Registers(usize);

impl Registers {
    /// The peripheral at `base`.
    ///
    /// # Safety
    ///
    /// All registers that are read and written are mapped there, and what they do touches no memory of the program.
    pub(super) const unsafe fn new(base: usize) -> Self {
        Self(base)
    }

    /// A register of 32 bits.
    pub(super) fn read(self, offset: usize) -> u32 {
        // SAFETY: as `new` demands.
        unsafe { at::<u32>(self.0 + offset).read_volatile() }
    }

    /// A register of 32 bits.
    pub(super) fn write(self, offset: usize, value: u32) {
        // SAFETY: as `new` demands.
        unsafe { at::<u32>(self.0 + offset).write_volatile(value) }
    }

    /// A register of 8 bits.
    pub(super) fn read_byte(self, offset: usize) -> u8 {
        // SAFETY: as `new` demands.
        unsafe { at::<u8>(self.0 + offset).read_volatile() }
    }

    /// A register of 8 bits.
    pub(super) fn write_byte(self, offset: usize, value: u8) {
        // SAFETY: as `new` demands.
        unsafe { at::<u8>(self.0 + offset).write_volatile(value) }
    }
}
