//! From the integer form to a program: steps, constants, code and a static plan of memory.
//!
//! [`cpu`] makes every op a CPU step. [`dpu`] gives a DPU what it can do ([`limits`]) and the rest to the CPU: a layer
//! is lowered to engine operations, cut into tiles that fit the banks beside the maps that stay there, written as
//! instructions, and a pass over the finished program adds the tokens that order its engines. The order of ops is the
//! graph's; the compilers never look at float values, and nothing that they do changes a result: constants are reordered,
//! biases brought to accumulator steps and limits of activations moved in front of the shift only where that is the same
//! function ([`pack`]).

#[cfg(test)]
mod arbitrary;
mod cpu;
pub mod deployable;
mod dpu;
mod grids;
pub mod memory;
mod operand;
pub mod pack;
mod placed;
pub mod placement;
pub mod price;
pub mod program;
pub mod reason;

#[cfg(test)]
mod tests;

pub use cpu::{CpuOptions, compile as cpu};
pub use dpu::options::DpuOptions;
pub use dpu::{compile, dpu, is_on_chip, limits, place, placement};
pub use placed::{Fusion, Placed};
pub use placement::Placement;
pub use price::{CpuPrice, cpu_price, cpu_us, footprint, instructions};
pub use program::{Engine, LayerRow, MemoryMap, Program};
pub use reason::Reason;
