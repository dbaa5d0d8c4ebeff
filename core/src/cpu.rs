//! Layers on the CPU: portable kernels that define what every faster one must equal bit for bit.
//!
//! They serve boards without a DPU, and layers that a DPU leaves to the CPU beside it. A board with faster ones for the
//! layers that take the time passes its [`Kernels`] to [`run_with`](crate::run::run_with).

mod conv;
mod elementwise;
#[cfg(feature = "floats")]
mod exponential;
mod float;
#[cfg(feature = "floats")]
mod floats;
#[cfg(feature = "floats")]
mod function;
mod kernels;
mod moves;
mod operand;
mod pool;
mod rows;
#[cfg(feature = "floats")]
mod scaled;
mod scratch;

use crate::memory::Memory;
use crate::model::{CpuOp, Deployable, TensorId, layers};
use operand::operand;

pub use crate::model::{MAX_OPERANDS, Rows};
pub use conv::{conv, depthwise, transposed};
pub use elementwise::{add, requantize_all};
pub use float::{softmax, softmax_i8};
#[cfg(feature = "floats")]
pub use function::relu;
pub use kernels::{Kernels, Spec};
pub use moves::{pad, upsample};
pub use operand::{Operand, finish};
pub use pool::pool;
#[cfg(feature = "floats")]
pub(crate) use scaled::weight;
pub use scratch::scratch_bytes;

/// Runs one layer; `None` if its input and output overlap where they must not, which a checked op's do not.
pub(crate) fn execute(
    model: &Deployable<'_>,
    op: &CpuOp<'_>,
    kernels: &mut impl Kernels,
    memory: &mut Memory<'_>,
) -> Option<()> {
    let constants = memory.constants;
    let mut pair = |input: TensorId, output: TensorId, kernel: &mut dyn FnMut(&[u8], &mut [u8])| {
        let (input, output) = memory.pair(&model.unnamed(input)?, &model.unnamed(output)?)?;
        kernel(input, output);
        Some(())
    };
    match op {
        CpuOp::Conv(c) => {
            rows::run(model, [c.input, c.output], (op, c), memory, &mut |c, x, y| kernels.conv(c, constants, x, y))
        }
        CpuOp::Depthwise(c) if layers::DEPTHWISE => {
            rows::run(model, [c.input, c.output], (op, c), memory, &mut |c, x, y| kernels.depthwise(c, constants, x, y))
        }
        CpuOp::ConvTranspose(c) if layers::EXTRA => {
            pair(c.input, c.output, &mut |x, y| kernels.transposed(c, constants, x, y))
        }
        CpuOp::Pool(p) => rows::run(model, [p.input, p.output], (op, p), memory, &mut |p, x, y| kernels.pool(p, x, y)),
        CpuOp::UpSample(u) if layers::EXTRA => pair(u.input, u.output, &mut |x, y| upsample(u, x, y)),
        CpuOp::Pad(p) if layers::EXTRA => pair(p.input, p.output, &mut |x, y| pad(p, x, y)),
        CpuOp::Add(a) => {
            let to = model.unnamed(a.output)?;
            let (y, rest) = memory.split(&to)?;
            let mut operands = heapless::Vec::<_, MAX_OPERANDS>::new();
            for id in a.inputs.iter() {
                operands.push(operand(&model.unnamed(id)?, &to, &rest)?).ok()?;
            }
            kernels.add(a, &operands, y);
            Some(())
        }
        CpuOp::Multiply(m) if layers::EXTRA => elementwise::multiply(model, m, memory),
        CpuOp::Requantize { input, output, shift, act } => {
            let to = model.unnamed(*output)?;
            let (y, rest) = memory.split(&to)?;
            kernels.requantize(*act, *shift, operand(&model.unnamed(*input)?, &to, &rest)?, y);
            Some(())
        }
        CpuOp::HardSigmoid { input, output, shift } if layers::EXTRA => {
            elementwise::hard_sigmoid(model, *input, *output, *shift, memory)
        }
        CpuOp::PRelu(p) if layers::EXTRA => elementwise::prelu(model, p, memory),
        CpuOp::Concat(c) if layers::EXTRA => moves::concat(model, c, memory),
        CpuOp::Permute(p) if layers::EXTRA => moves::permute(model, p, memory),
        CpuOp::Softmax(s) => float::softmax_layer(model, s, memory),
        #[cfg(feature = "floats")]
        CpuOp::Float { op, .. } => floats::execute(model, op, memory),
        #[cfg(feature = "floats")]
        CpuOp::Scaled(op) => scaled::execute(model, op, memory),
        CpuOp::View { .. } => Some(()),
        CpuOp::Quantize { input, output } => float::quantize_layer(model, *input, *output, memory),
        CpuOp::Dequantize { input, output } => float::dequantize_layer(model, *input, *output, memory),
        // Layers that are left out, which no checked deployable holds.
        #[allow(unreachable_patterns)]
        _ => None,
    }
}
