//! How a board computes its layers.

use super::conv::{conv, depthwise, transposed};
use super::elementwise::{add, requantize_all};
use super::operand::Operand;
use super::pool::pool;
use crate::model::{Act, AddOp, ConvOp, PoolOp};

/// How a board computes its CPU layers. Every method that a board does not replace is the kernel that defines it.
///
/// Tensors arrive as the bytes of their int8 elements, with the lengths that the op's dimensions tell: ops are checked
/// when a deployable is parsed. Every implementation gives the same bytes as [`Spec`].
pub trait Kernels {
    /// Convolution or dense layer, see [`conv`].
    fn conv(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        conv(op, constants, input, output);
    }
    /// Depthwise convolution, see [`depthwise`].
    fn depthwise(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        depthwise(op, constants, input, output);
    }
    /// Transposed convolution, see [`transposed`].
    fn transposed(&mut self, op: &ConvOp, constants: &[u8], input: &[u8], output: &mut [u8]) {
        transposed(op, constants, input, output);
    }
    /// Pooling, see [`pool`].
    fn pool(&mut self, op: &PoolOp, input: &[u8], output: &mut [u8]) {
        pool(op, input, output);
    }
    /// Element-wise sum of at most [`MAX_OPERANDS`](super::MAX_OPERANDS), see [`add`].
    fn add(&mut self, op: &AddOp<'_>, operands: &[Operand<'_>], output: &mut [u8]) {
        add(op, operands, output);
    }
    /// Integers to another position, see [`requantize_all`].
    fn requantize(&mut self, act: Act, shift: i8, input: Operand<'_>, output: &mut [u8]) {
        requantize_all(act, shift, input, output);
    }
}

/// The kernels that define what every layer computes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spec;

impl Kernels for Spec {}
