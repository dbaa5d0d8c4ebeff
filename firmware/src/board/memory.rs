//! Memory that the linker has no part in, and how deep the stack has been.

use core::ops::Range;
use core::ptr::with_exposed_provenance_mut as at;
use core::slice::from_raw_parts_mut;
use core::sync::atomic::{AtomicBool, Ordering};

use shiftwise_firmware::session::Space;

use super::{ARENA, BANKS, STORE};

unsafe extern "C" {
    /// First address behind the stack, which grows down from here.
    static _stack_start: u8;
    /// Its lowest address.
    static _stack_end: u8;
}

/// What unused stack holds: no small number, no address, no text.
const PAINT: u32 = 0xC5A3_5C3A;
/// Stack below the caller's frame that painting itself may use.
const MARGIN: usize = 512;

/// The board's memory; `None` if it was taken before.
pub(super) fn take() -> Option<Space<'static>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // Not a swap: on some cores that needs caches, and there is one thread.
    if TAKEN.load(Ordering::Relaxed) {
        return None;
    }
    TAKEN.store(true, Ordering::Relaxed);
    paint_stack();
    let region = |range: Range<usize>| {
        // SAFETY: the board's data file keeps the three ranges apart from each other and from what the linker fills (a
        // check of the crate that reads it), and this line runs once per range; any bytes are valid `u8`s.
        unsafe { from_raw_parts_mut(at::<u8>(range.start), range.len()) }
    };
    Some(Space { store: region(STORE), arena: region(ARENA), banks: region(BANKS), sketches: &mut [] })
}

/// The words of the stack from its lowest on.
fn stack() -> (*mut u32, usize) {
    let (end, start) = ((&raw const _stack_end).expose_provenance(), (&raw const _stack_start).expose_provenance());
    (at::<u32>(end), start.saturating_sub(end) / 4)
}

#[inline(never)]
fn paint_stack() {
    let here = 0u8;
    let (lowest, words) = stack();
    let free = (&raw const here).addr().saturating_sub(lowest.addr() + MARGIN) / 4;
    for n in 0..free.min(words) {
        // SAFETY: below the stack pointer, where nothing lives: no interrupt is on yet, and `MARGIN` covers this
        // function. The linker keeps everything else out of the stack.
        unsafe { lowest.add(n).write_volatile(PAINT) };
    }
}

/// The most bytes of stack that have been in use so far, and the bytes set aside.
pub(crate) fn stack_used() -> (usize, usize) {
    let (lowest, words) = stack();
    // SAFETY: reads of aligned words inside the stack.
    let painted = (0..words).take_while(|n| unsafe { lowest.add(*n).read_volatile() } == PAINT).count();
    ((words - painted) * 4, words * 4)
}
