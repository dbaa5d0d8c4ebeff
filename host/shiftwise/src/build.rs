//! From the integer form to a program.

use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, Program};
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::IntGraph;

use crate::device::Device;

/// Compiles for a DPU, or for the CPU alone.
///
/// `strict`: layers that the DPU can't run are an error. `observe`: every tensor can be compared after a run; otherwise
/// the program is faster.
///
/// Errors: [`Error::Compile`].
pub fn program(graph: &IntGraph, device: Option<&Device>, strict: bool, observe: bool) -> Result<Program, Error> {
    match device {
        Some(d) => compile::dpu(graph, &d.target, &DpuOptions { strict, observe, ..DpuOptions::default() }),
        None => compile::cpu(graph, &CpuOptions::default()),
    }
}
