//! Memory of a network: how much it needs, and how one slice is cut into regions.

use shiftwise_core::model::{Deployable, Region};
use shiftwise_core::run::Memory;

use crate::error::Error;

/// Alignment of every region of a deployable without DPU code: kernels may read words.
pub const ALIGN: usize = 16;
/// Alignment of every region of a deployable with DPU code. It is a cache line of the processors that stand beside a DPU:
/// what the DPU writes and what the processor writes never share one, so that a line may be dropped from the cache.
pub const LINE: usize = 64;

/// The alignment of regions for a deployable with this fingerprint; 0: it holds no DPU code.
const fn alignment(fingerprint: u64) -> usize {
    if fingerprint == 0 { ALIGN } else { LINE }
}

/// Memory for a network, sized at compile time by [`arena_bytes`] and what else the user wants to give.
#[derive(Debug)]
#[repr(align(64))]
pub struct Arena<const N: usize>([u8; N]);

impl<const N: usize> Arena<N> {
    /// Zeroed memory: as a `static` it costs no flash.
    pub const fn new() -> Self {
        Self([0; N])
    }

    /// The memory, aligned to [`LINE`].
    pub const fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes of a file in flash, aligned so that a deployable's constants are: what [`include_deployable!`] makes.
///
/// [`include_deployable!`]: crate::include_deployable
#[derive(Debug)]
#[repr(align(16))]
pub struct Aligned<T: ?Sized>(pub T);

/// The bytes of a deployable, put into flash at an alignment that its constants need. The path is like that of
/// [`include_bytes!`].
#[macro_export]
macro_rules! include_deployable {
    ($path:expr) => {{
        static FILE: &$crate::memory::Aligned<[u8]> = &$crate::memory::Aligned(*::core::include_bytes!($path));
        &FILE.0
    }};
}

/// Bytes of memory that the deployable needs, aligned to [`ALIGN`], or to [`LINE`] if it holds DPU code; more is scratch
/// memory for faster kernels, see [`crate::kernels::scratch_bytes`].
pub fn required_bytes(deployable: &Deployable<'_>) -> u64 {
    let align = alignment(deployable.fingerprint()) as u64;
    regions(deployable).map(|bytes| padded(bytes as u64, align)).iter().sum()
}

/// The next multiple of a power of two; such a one needs no division.
const fn padded(bytes: u64, align: u64) -> u64 {
    bytes.saturating_add(align - 1) & !(align - 1)
}

/// [`required_bytes`] at compile time, from a file that was not checked; `None` if it is certainly none.
pub const fn arena_bytes(file: &[u8]) -> Option<usize> {
    // Header: behind magic and version the fingerprint; the first entry of the section table is that of the facts, which
    // begin with three strings.
    let (Some(low), Some(high)) = (word(file, 8), word(file, 12)) else { return None };
    let align = alignment((low | high) as u64) as u64;
    let Some(start) = word(file, 24) else { return None };
    let mut at = start as usize;
    let mut strings = 3;
    while strings > 0 {
        let Some((len, next)) = varint(file, at) else { return None };
        let Some(end) = next.checked_add(len as usize) else { return None };
        (at, strings) = (end, strings - 1);
    }
    let (mut sum, mut regions) = (0u64, 3);
    while regions > 0 {
        let Some((bytes, next)) = varint(file, at) else { return None };
        // Three times 32 bits.
        (sum, at, regions) = (sum + padded(bytes as u64, align), next, regions - 1);
    }
    if sum <= usize::MAX as u64 { Some(sum as usize) } else { None }
}

const fn word(file: &[u8], at: usize) -> Option<u32> {
    let (mut value, mut i) = (0, 0);
    while i < 4 {
        if at + i >= file.len() {
            return None;
        }
        value |= (file[at + i] as u32) << (8 * i);
        i += 1;
    }
    Some(value)
}

/// A LEB128 number of at most 32 bits, and where it ends.
const fn varint(file: &[u8], start: usize) -> Option<(u32, usize)> {
    let (mut value, mut i) = (0, 0);
    while i < 5 {
        let Some(at) = start.checked_add(i) else { return None };
        if at >= file.len() {
            return None;
        }
        value |= ((file[at] & 0x7F) as u64) << (7 * i);
        if file[at] & 0x80 == 0 {
            return if value <= u32::MAX as u64 { Some((value as u32, at + 1)) } else { None };
        }
        i += 1;
    }
    None
}

fn regions(deployable: &Deployable<'_>) -> [usize; 3] {
    [Region::Workspace, Region::Inputs, Region::Outputs].map(|region| deployable.region_bytes(region))
}

/// A deployable that is checked and has its memory.
#[derive(Debug)]
pub struct Loaded<'m> {
    /// The checked view.
    pub deployable: Deployable<'m>,
    /// Its regions.
    pub memory: Memory<'m>,
    /// What the arena has left, for the kernels.
    pub scratch: &'m mut [u8],
}

/// Checks the deployable in `file`, asks whether the device `accepts` its fingerprint (0: it holds no DPU code), and
/// cuts `arena` into its regions. A slice that is not aligned as [`required_bytes`] says loses its first bytes.
///
/// Errors: [`Error::Parse`], [`Error::Target`], [`Error::Memory`], looked for in this order.
pub fn load<'m>(file: &'m [u8], arena: &'m mut [u8], accepts: impl FnOnce(u64) -> bool) -> Result<Loaded<'m>, Error> {
    let deployable = Deployable::parse(file)?;
    let fingerprint = deployable.fingerprint();
    if !accepts(fingerprint) {
        return Err(Error::Target(fingerprint));
    }
    let align = alignment(fingerprint);
    let skip = arena.as_ptr().align_offset(align);
    let needed = required_bytes(&deployable).saturating_add(skip as u64);
    let needed = usize::try_from(needed).unwrap_or(usize::MAX);
    let too_small = Error::Memory { needed, given: arena.len() };
    if needed > arena.len() {
        return Err(too_small);
    }
    let [workspace, inputs, outputs] = regions(&deployable);
    let mut rest = arena.get_mut(skip..).ok_or(too_small)?;
    let mut cut = |bytes: usize| {
        let (region, after) =
            core::mem::take(&mut rest).split_at_mut_checked(padded(bytes as u64, align as u64) as usize)?;
        rest = after;
        region.get_mut(..bytes)
    };
    let (Some(workspace), Some(inputs), Some(outputs)) = (cut(workspace), cut(inputs), cut(outputs)) else {
        return Err(too_small);
    };
    let memory = Memory { constants: deployable.constants(), workspace, inputs, outputs };
    Ok(Loaded { deployable, memory, scratch: rest })
}
