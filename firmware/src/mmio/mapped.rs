//! Registers at an address.
#![allow(unsafe_code)]

use core::ptr::NonNull;

use super::Registers;

/// A register space that the processor reaches by loads and stores.
#[derive(Debug)]
pub struct MappedRegisters {
    base: NonNull<u32>,
    bytes: u32,
}

impl MappedRegisters {
    /// `bytes` of registers from `base` on.
    ///
    /// # Safety
    ///
    /// All of it is mapped as device memory for as long as the value lives, belongs to a DPU, and nothing else uses it.
    /// What the DPU does then with memory is its driver's business.
    pub const unsafe fn new(base: NonNull<u32>, bytes: u32) -> Self {
        Self { base, bytes }
    }

    fn at(&self, offset: u32) -> Option<NonNull<u32>> {
        let inside = offset.is_multiple_of(4) && offset < self.bytes;
        // SAFETY: inside the range of `new`.
        inside.then(|| unsafe { self.base.byte_add(offset as usize) })
    }
}

impl Registers for MappedRegisters {
    /// All ones outside the range, as a bus without a device gives.
    fn read32(&mut self, offset: u32) -> u32 {
        // SAFETY: `at` gives registers only.
        self.at(offset).map_or(u32::MAX, |register| unsafe { register.read_volatile() })
    }

    /// Nothing happens outside the range.
    fn write32(&mut self, offset: u32, value: u32) {
        if let Some(register) = self.at(offset) {
            // SAFETY: `at` gives registers only.
            unsafe { register.write_volatile(value) }
        }
    }
}
