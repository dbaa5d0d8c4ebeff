//! Sums of products on the host's vectors.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(test)]
mod tests;

use shiftwise_core::exec::{COLUMNS, MAX_LANES, Plain, Products, Tile};

/// The fastest way of this machine to sum products: AVX2 where there is one, else the plain loops. The sums are the same.
#[derive(Clone, Copy, Debug)]
pub struct HostProducts {
    #[cfg(target_arch = "x86_64")]
    avx2: bool,
}

impl HostProducts {
    /// Looks at what this machine has.
    pub fn detect() -> Self {
        Self {
            #[cfg(target_arch = "x86_64")]
            avx2: std::arch::is_x86_feature_detected!("avx2"),
        }
    }
}

impl Products for HostProducts {
    fn sums(&mut self, tile: &Tile<'_>, lanes: usize, sums: &mut [[i32; MAX_LANES]; COLUMNS]) {
        #[cfg(target_arch = "x86_64")]
        if self.avx2 {
            // SAFETY: `avx2` is set only where the machine has it.
            unsafe { avx2::sums(tile, lanes, sums) };
            return;
        }
        Plain.sums(tile, lanes, sums);
    }
}
