//! What a program takes of a device's memory.

use serde::Serialize;
use shiftwise_compile::Program;

/// Bytes that a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Memory {
    /// Tensors between layers.
    pub workspace_bytes: u32,
    /// Inputs.
    pub input_bytes: u32,
    /// Outputs.
    pub output_bytes: u32,
    /// All three together.
    pub ram_bytes: u64,
    /// Weights and tables.
    pub constant_bytes: usize,
    /// Instructions.
    pub code_bytes: usize,
}

impl Memory {
    /// Of a program.
    pub fn of(program: &Program) -> Self {
        let m = &program.memory;
        Self {
            workspace_bytes: m.workspace_bytes,
            input_bytes: m.input_bytes,
            output_bytes: m.output_bytes,
            ram_bytes: m.ram_bytes(),
            constant_bytes: program.constants.len(),
            code_bytes: program.code.len(),
        }
    }
}
