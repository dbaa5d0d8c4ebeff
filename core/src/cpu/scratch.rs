//! Memory that fast kernels work in, beside the tensors.

use crate::model::{ConvOp, CpuOp, Deployable, Step};
use crate::shape::positive;

/// Output pixels whose inputs are gathered at once.
const PIXELS: usize = 2;
/// Blocks of four channels whose depthwise weights are prepared at once.
const BLOCKS: usize = 16;

/// Bytes of scratch memory with which fast kernels serve every layer of the deployable best, for kernels that keep
/// elements in 16 bits. Fewer are never wrong, only slow.
pub fn scratch_bytes(deployable: &Deployable<'_>) -> usize {
    let of = |step: Step<'_>| match step {
        Step::Cpu(CpuOp::Conv(op)) => columns(&op),
        Step::Cpu(CpuOp::Depthwise(op)) => weights(&op),
        _ => 0,
    };
    // Whole words from any address.
    match deployable.steps().map(of).max() {
        Some(bytes @ 1..) => bytes + 3,
        _ => 0,
    }
}

/// What two neighbouring outputs see of the input; and once more in bytes, where channels come in other numbers than
/// multiples of four.
fn columns(op: &ConvOp) -> usize {
    let share = usize::from(op.in_dims[2]) / positive(op.groups.into());
    let k = op.window.kernel.map(usize::from).iter().product::<usize>() * share;
    let pixels = if op.out_dims[0] == 1 && op.out_dims[1] == 1 { 1 } else { PIXELS };
    let assembled = if share.is_multiple_of(4) || k == share { 0 } else { k.next_multiple_of(4) };
    assembled + 2 * pixels * k.next_multiple_of(4)
}

fn weights(op: &ConvOp) -> usize {
    let blocks = if op.in_dims[2] == op.out_dims[2] { usize::from(op.out_dims[2]) / 4 } else { 0 };
    8 * op.window.kernel.map(usize::from).iter().product::<usize>() * blocks.min(BLOCKS)
}
