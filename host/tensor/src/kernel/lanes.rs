//! Work that is compiled once for each path, where vectors are left to the compiler.

use crate::kernel::Path;

/// Work on slices. Marked `#[inline(always)]`, [`run`](Self::run) is compiled for the vectors of every path; each
/// operation of it must be one of those that compilers don't reorder, so that all paths compute the same bytes.
pub trait Lanes {
    /// What comes of it.
    type Output;
    /// Does the work.
    fn run(self) -> Self::Output;
}

/// Runs work on the path of this process.
pub fn on_lanes<W: Lanes>(work: W) -> W::Output {
    on(Path::detect(), work)
}

/// Runs work on a path, or in plain Rust where this machine lacks it.
pub(super) fn on<W: Lanes>(path: Path, work: W) -> W::Output {
    match path {
        // SAFETY: the features were just found on this machine.
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 if path.is_available() => unsafe { avx2(work) },
        // SAFETY: as before.
        #[cfg(target_arch = "x86_64")]
        Path::Avx512 if path.is_available() => unsafe { avx512(work) },
        _ => work.run(),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<W: Lanes>(work: W) -> W::Output {
    work.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")]
fn avx512<W: Lanes>(work: W) -> W::Output {
    work.run()
}
