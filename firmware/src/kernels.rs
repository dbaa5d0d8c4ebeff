//! Fast kernels for the layers that take the time. Every byte equals that of the kernels in `shiftwise_core::cpu`.
//!
//! A convolution is a matrix product of *columns* (what two neighbouring outputs see of the input, gathered into scratch
//! memory, zeros for padding) with the filters. Geometry ends with the gathering; what a processor does best is in its
//! `Unit`: Arm's DSP extension, AArch64's vectors, RISC-V's registers, or plain Rust.

pub mod check;
mod conv;
mod depthwise;
#[cfg(dsp)]
mod dsp;
mod elementwise;
mod finish;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pool;
mod portable;
#[cfg(all(target_arch = "riscv32", target_feature = "m"))]
mod riscv;
mod unit;

pub use shiftwise_core::cpu::scratch_bytes;
use shiftwise_core::cpu::{Kernels, Operand, Spec};
use shiftwise_core::model::{Act, AddOp, ConvOp, PoolOp};

#[cfg(dsp)]
type Own = dsp::Dsp;
#[cfg(target_arch = "aarch64")]
type Own = neon::Neon;
#[cfg(all(target_arch = "riscv32", target_feature = "m"))]
type Own = riscv::RiscV;
#[cfg(not(any(dsp, target_arch = "aarch64", all(target_arch = "riscv32", target_feature = "m"))))]
type Own = portable::Portable;

/// The kernels of the processor that this is compiled for.
#[derive(Debug)]
pub struct Fast<'m> {
    scratch: &'m mut [u8],
}

impl<'m> Fast<'m> {
    /// Kernels that gather columns in `scratch`, best aligned to 4 bytes. [`scratch_bytes`] says how many
    /// of them pay; a convolution that has too few is computed the slow way.
    pub const fn new(scratch: &'m mut [u8]) -> Self {
        Self { scratch }
    }
}

impl Kernels for Fast<'_> {
    fn conv(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        if conv::conv::<Own>(op, constants, input, output, self.scratch).is_none() {
            Spec.conv(op, constants, input, output);
        }
    }

    fn depthwise(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        if depthwise::depthwise::<Own>(op, constants, input, output, self.scratch).is_none() {
            Spec.depthwise(op, constants, input, output);
        }
    }

    fn pool(&mut self, op: &PoolOp, input: &[u8], output: &mut [u8]) {
        pool::pool::<Own>(op, input, output);
    }

    fn add(&mut self, op: &AddOp<'_>, operands: &[Operand<'_>], output: &mut [u8]) {
        elementwise::add::<Own>(op, operands, output);
    }

    fn requantize(&mut self, act: Act, shift: i8, input: Operand<'_>, output: &mut [u8]) {
        elementwise::requantize(act, shift, input, output);
    }
}
