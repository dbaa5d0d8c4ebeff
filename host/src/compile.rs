//! From the integer form to a program: steps, constants, code and a static plan of memory.
//!
//! [`cpu`] makes every op a CPU step. The order of ops is the graph's; the compilers never look at float values, and
//! nothing that they do changes a result: constants are reordered, biases brought to accumulator steps and limits of
//! activations moved in front of the shift only where that is the same function ([`pack`]).

mod cpu;
pub mod pack;
pub mod plan;
pub mod program;

pub use cpu::{CpuOptions, compile as cpu};
pub use program::{Engine, LayerRow, MemoryMap, Program};
