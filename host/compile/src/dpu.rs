//! Target DPU: runs of ops that the DPU can do become jobs, the rest stays on the CPU with a reason.

mod axes;
pub(crate) mod codegen;
pub(crate) mod concat;
pub(crate) mod context;
mod facts;
mod fuse;
mod fused_layer;
pub(crate) mod hazard;
mod job;
mod layer;
pub mod limits;
pub(crate) mod options;
pub(crate) mod pad;
mod place;
pub(crate) mod resident;
mod select;
pub(crate) mod tile;

use shiftwise_core::target::Target;

use crate::cpu;
use crate::memory::{Layout, Policy, Sharing};
use crate::placed::Placed;
use crate::placement::Placement;
use crate::price::cpu_us;
use crate::program::{Engine, LayerRow, Program};
use context::Context;
use fused_layer::needed;
use options::DpuOptions;
pub use place::{place, placement};

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::IntGraph;

/// Bytes that tensors and kernels in memory are aligned to: a data bus word.
const ALIGN: u64 = 16;
/// Bytes of a region that addresses reach (DOC: 29 bits).
const REACH: u64 = 1 << 29;

/// Compiles a network for a DPU, with the CPU beside it: [`place`], then [`compile`].
///
/// Errors: those of both.
pub fn dpu(graph: &IntGraph, target: &Target, options: &DpuOptions) -> Result<Program, Error> {
    compile(&place(graph, target, options)?)
}

/// The program of a placed network.
///
/// Errors: [`Error::Compile`] naming the layer if neither DPU nor CPU can do it, or an op is on the CPU that the options
/// forbid there, or if a region is beyond the DPU's addresses.
pub fn compile(placement: &Placement<'_>) -> Result<Program, Error> {
    let (graph, target) = (placement.graph(), placement.target);
    crate::grids::check_dpu(graph)?;
    let sharing = share(placement)?;
    let layout = sharing.lay_out(ALIGN)?;
    check_reach(&layout)?;
    let mut program = Program::new(graph, &target.name, target.fingerprint, &layout)?;
    let addresses: Vec<(u32, u32)> = layout.places.iter().map(|(r, o)| (*r as u32, *o)).collect();
    let cx = placement.context(&addresses);
    let mut at = 0;
    while at < graph.ops.len() {
        if let Some(job) = placement.jobs.iter().find(|j| j.start == at) {
            job::write(placement, &cx, job.clone(), &sharing, &mut program)?;
            at = job.end;
        } else {
            fallback(placement, at, &mut program)?;
            at += 1;
        }
    }
    Ok(program)
}

/// Which tensors share memory, and how long each is needed.
fn share(placement: &Placement<'_>) -> Result<Sharing, Error> {
    let graph = placement.graph();
    let observe = placement.options.observe;
    let mut sharing = Sharing::of(graph, Policy { separate_io: true, in_place: false })?;
    if placement.options.strict
        && let Some((op, reason)) = placement.fallbacks().next()
    {
        let target = &placement.target.name;
        return Err(Error::Compile(format!("layer `{}` does not run on {target}: {reason}", op.layer)));
    }
    let jobs = &placement.jobs;
    if observe {
        // Steps count from 1.
        sharing.extend(graph, |step| jobs.iter().find(|j| j.contains(&(step.wrapping_sub(1)))).map_or(step, |j| j.end));
    }
    let joins = &placement.joins;
    for op in &graph.ops {
        for slice in joins.slices(op.output) {
            sharing.join(op.output, slice.of, joins.home(op.output).is_some());
        }
    }
    for (first, placed) in placement.ops.iter().enumerate() {
        if let Placed::Dpu { fused: Some(fused), .. } = placed {
            sharing.together(graph, first..first + fused.ops);
        }
    }
    let nowhere = vec![(0, 0); graph.tensors.len()];
    let cx = placement.context(&nowhere);
    for index in jobs.iter().flat_map(Clone::clone) {
        if on_chip(placement, &cx, index) {
            sharing.dismiss(graph.ops[index].output);
        }
    }
    Ok(sharing)
}

/// Whether the result of the op of this index is in no memory: another one takes it up on the same tile, or in the banks.
pub fn is_on_chip(placement: &Placement<'_>, op: usize) -> bool {
    let nowhere = vec![(0, 0); placement.graph().tensors.len()];
    placement.jobs.iter().any(|job| job.contains(&op)) && on_chip(placement, &placement.context(&nowhere), op)
}

/// [`is_on_chip`] of an op of a job.
fn on_chip(placement: &Placement<'_>, cx: &Context<'_>, index: usize) -> bool {
    let fused = |i: usize| matches!(placement.ops.get(i), Some(Placed::Fused { .. }));
    if fused(index + 1) {
        return !needed(cx, cx.graph.ops[index].output, index + 1, placement.options.observe);
    }
    let first = (0..=index).rev().find(|i| !fused(*i));
    first.and_then(|first| placement.residences.get(&first)).is_some_and(|r| r.unsaved)
}

/// Appends an op outside the jobs: on the CPU, or a view.
fn fallback(placement: &Placement<'_>, at: usize, program: &mut Program) -> Result<(), Error> {
    let (graph, op) = (placement.graph(), &placement.graph().ops[at]);
    let before = program.constants.len();
    let steps = match cpu::lower(graph, op, program) {
        Ok(steps) => steps,
        Err(_) if placement.options.timing_only => Vec::new(),
        Err(e) => return Err(e),
    };
    program.layers.push(LayerRow {
        constant_bytes: (program.constants.len() - before) as u64,
        reason: placement.ops[at].reason().cloned(),
        cpu_us: Some(cpu_us(graph, op)),
        ..LayerRow::new(graph, op, Engine::Cpu, (!steps.is_empty()).then_some(program.steps.len()))
    });
    program.steps.extend(steps);
    Ok(())
}

fn check_reach(layout: &Layout) -> Result<(), Error> {
    let regions = [
        ("workspace", u64::from(layout.workspace)),
        ("inputs", layout.inputs.into()),
        ("outputs", layout.outputs.into()),
    ];
    match regions.iter().find(|(_, bytes)| *bytes > REACH) {
        Some((name, bytes)) => {
            Err(Error::Compile(format!("the {name} need {bytes} bytes; a DPU's addresses reach {REACH}")))
        }
        None => Ok(()),
    }
}
