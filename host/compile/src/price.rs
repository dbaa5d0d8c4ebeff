//! What a layer costs outside the DPU: time, instructions, memory.

mod fallback;
pub mod footprint;
pub mod instructions;

pub use fallback::cpu_us;
