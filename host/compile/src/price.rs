//! What a layer costs outside the DPU: time, instructions, memory.

mod fallback;
pub mod footprint;
pub mod instructions;

pub use fallback::{CpuPrice, cpu_price, cpu_us};
