//! Target `cpu`: every op is a CPU step; memory is planned to be as small as possible.

mod floats;
mod scaled;
mod steps;

use shiftwise_core::cpu::Rows;
use shiftwise_core::model::{CpuOp, PoolKind};

use crate::memory::{Policy, Sharing};
use crate::operand::dims;
use crate::program::{Engine, LayerRow, Program, ProgramStep};
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind, Kind};
use steps::{pool, step};

/// How [`compile`] lays a network out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Inputs and outputs in regions of their own. Default: all tensors share the workspace, where an input's memory is
    /// used again after its last reader; a run then destroys its inputs.
    pub separate_io: bool,
}

/// Compiles a network for processors without a DPU.
///
/// Errors: [`Error::Compile`], naming the layer, where a dimension or an accumulator does not fit.
pub fn compile(graph: &IntGraph, options: &CpuOptions) -> Result<Program, Error> {
    crate::grids::check(graph)?;
    let mut sharing = Sharing::of(graph, Policy { separate_io: options.separate_io, in_place: true })?;
    for (step, op) in (1..).zip(&graph.ops) {
        if let Some(rows) = rows(graph, op)? {
            sharing.follow(op, step, &rows);
        }
    }
    let mut program = Program::new(graph, "cpu", 0, &sharing.lay_out(4)?)?;
    for op in &graph.ops {
        let before = program.constants.len();
        let steps = lower(graph, op, &mut program)?;
        program.layers.push(LayerRow {
            constant_bytes: (program.constants.len() - before) as u64,
            ..LayerRow::new(graph, op, Engine::Cpu, Some(program.steps.len()))
        });
        program.steps.extend(steps);
    }
    // Fast kernels read weights in words: with this the last ones are no exception.
    if !program.constants.is_empty() {
        program.constants.resize(program.constants.len().next_multiple_of(4) + 4, 0);
    }
    Ok(program)
}

/// How an op goes down the rows of its input; `None` for one that takes it as a whole.
fn rows(graph: &IntGraph, op: &IntOp) -> Result<Option<Rows>, Error> {
    let layer = op.layer.as_str();
    Ok(match &op.kind {
        IntOpKind::Conv(c) | IntOpKind::Depthwise(c) => {
            Rows::new(dims(layer, c.input)?, dims(layer, c.output)?, c.window)
        }
        IntOpKind::MaxPool { window, .. } | IntOpKind::AveragePool { window, .. } => {
            Rows::of(&CpuOp::Pool(pool(graph, op, window, PoolKind::Max, 0)?))
        }
        IntOpKind::ConvTranspose(_)
        | IntOpKind::Add { .. }
        | IntOpKind::Multiply { .. }
        | IntOpKind::Concat { .. }
        | IntOpKind::UpSample { .. }
        | IntOpKind::HardSigmoid { .. }
        | IntOpKind::Pad { .. }
        | IntOpKind::PRelu { .. }
        | IntOpKind::Permute { .. }
        | IntOpKind::View
        | IntOpKind::Requantize { .. }
        | IntOpKind::Scaled(_)
        | IntOpKind::Softmax
        | IntOpKind::Float { .. }
        | IntOpKind::FakeQuantize(_)
        | IntOpKind::Quantize
        | IntOpKind::Dequantize => None,
    })
}

/// One op as CPU steps, of which the last one completes its tensor; its weights are appended to the program's constants.
pub(crate) fn lower(graph: &IntGraph, op: &IntOp, program: &mut Program) -> Result<Vec<ProgramStep>, Error> {
    if let IntOpKind::Float { op: float, weights, dtype, why } = &op.kind {
        if dtype.is_half() {
            return Err(Error::layer(&op.layer, float.class(), format!("the CPU has no kernel for it: it {why}")));
        }
        return floats::lower(graph, op, (float, weights, why), program);
    }
    if let IntOpKind::Scaled(own) = &op.kind {
        return scaled::step(graph, op, own, &mut program.constants).map(|step| vec![step]);
    }
    if graph.tensors.get(op.output.0).is_some_and(|t| matches!(t.kind, Kind::Scaled(_)))
        && let Some(step) = scaled::moved(graph, op)?
    {
        return Ok(vec![step]);
    }
    step(graph, op, &mut program.constants).map(|step| vec![step])
}
