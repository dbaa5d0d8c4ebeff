//! Target DPU: runs of ops that the DPU can do become jobs, the rest stays on the CPU with a reason.

mod axes;
pub(crate) mod codegen;
mod concat;
mod context;
mod facts;
mod fuse;
mod fused_layer;
mod hazard;
mod layer;
pub mod limits;
mod pad;
mod place;
mod resident;
mod select;
pub(crate) mod tile;

use std::collections::HashMap;

use shiftwise_core::isa::codec::encode;
use shiftwise_core::isa::{End, Inst, Line};
use shiftwise_core::model::{CODE_ALIGN, TensorId};
use shiftwise_core::target::Target;

use crate::cpu;
use crate::cpu_us;
use crate::memory::{Layout, Policy, Sharing};
use crate::placement::Placed;
use crate::program::{Engine, LayerRow, Program, ProgramStep, Span};
use codegen::Emitter;
use concat::Joins;
use context::{Context, Way};
use fused_layer::{join, needed};
use layer::Weights;
pub use place::placement;
use place::{jobs, place};
use resident::Residence;
use select::select;
use tile::{Machine, Unit};

use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOpKind};

/// Bytes that tensors and kernels in memory are aligned to: a data bus word.
const ALIGN: u64 = 16;
/// Bytes of a region that addresses reach (DOC: 29 bits).
const REACH: u64 = 1 << 29;

/// How [`compile`] lays a network out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DpuOptions {
    /// Keep every tensor of a job in memory to the job's end, so that all of them can be compared. Default. Otherwise
    /// memory is used again after the last reader, and only what later steps read can be seen.
    pub observe: bool,
    /// An op that the DPU can't do is an error instead of a CPU step.
    pub strict: bool,
    /// One LOAD for all output channels of a lane, where rows of weights fill whole bank addresses. Default off: vendor
    /// programs have one LOAD per output channel (DEC), and no sample shows that the hardware takes more (INF).
    pub gather_weights: bool,
    /// The program is for timing alone: an op that the CPU has no kernel for gets no step instead of being an error.
    pub timing_only: bool,
}

impl Default for DpuOptions {
    fn default() -> Self {
        Self { observe: true, strict: false, gather_weights: false, timing_only: false }
    }
}

/// Compiles a network for a DPU, with the CPU beside it.
///
/// Errors: [`Error::Target`] if the target lacks a bank group, [`Error::Compile`] naming the layer if neither DPU nor CPU
/// can do it, or if a region is beyond the DPU's addresses.
pub fn compile(graph: &IntGraph, target: &Target, options: &DpuOptions) -> Result<Program, Error> {
    let machine = Machine::of(target).ok_or_else(|| {
        Error::Target(format!("{}: its bank groups are not those of a DPUCZDX8G; nothing can be placed", target.name))
    })?;
    let nowhere = vec![(0, 0); graph.tensors.len()];
    let apart = Joins::default();
    let cx = Context { graph, target, machine, places: &nowhere, joins: &apart };
    let folded = pad::padding(graph, |op| matches!(place(&cx, op), Placed::Dpu { .. }), options.observe);
    let graph = folded.as_ref().unwrap_or(graph);
    let cx = Context { graph, ..cx };
    let mut sharing = Sharing::of(graph, Policy { separate_io: true, in_place: false })?;
    let mut places: Vec<Placed> = graph.ops.iter().map(|op| place(&cx, op)).collect();
    if options.strict
        && let Some((op, reason)) = graph.ops.iter().zip(&places).find_map(|(o, p)| match p {
            Placed::Cpu(reason) => Some((o, reason)),
            _ => None,
        })
    {
        return Err(Error::Compile(format!("layer `{}` does not run on {}: {reason}", op.layer, target.name)));
    }
    let jobs = jobs(&places);
    if options.observe {
        // Steps count from 1.
        sharing.extend(graph, |step| jobs.iter().find(|j| j.contains(&(step.wrapping_sub(1)))).map_or(step, |j| j.end));
    }
    let joins = Joins::of(graph, |op| matches!(places[op], Placed::Dpu { .. }), options.observe);
    let cx = Context { joins: &joins, ..cx };
    for (op, place_of) in graph.ops.iter().zip(&mut places) {
        for slice in joins.slices(op.output) {
            sharing.join(op.output, slice.of, joins.home(op.output).is_some());
        }
        // Who writes more, or has less to copy, is cut anew.
        let changed = matches!(op.kind, IntOpKind::Concat { .. }) || !joins.slices(op.output).is_empty();
        if changed && matches!(place_of, Placed::Dpu { .. }) {
            *place_of = place(&cx, op);
        }
    }
    for job in &jobs {
        let mut at = job.start;
        while at < job.end {
            let found = fuse::find(&cx, &places, at, job.end, options.observe);
            let ops = found.as_ref().map_or(1, |c| c.ops);
            if let (Some(found), Placed::Dpu { chain, .. }) = (found, &mut places[at]) {
                *chain = Some(found);
                sharing.together(graph, at..at + ops);
                for place in &mut places[at + 1..at + ops] {
                    if let Placed::Dpu { plan, .. } = *place {
                        *place = Placed::Chained { plan };
                    }
                }
            }
            at += ops;
        }
    }
    let mut residences = HashMap::new();
    for job in &jobs {
        let found = resident::plan(&cx, target, &places, job.clone(), options.observe);
        for (index, op) in graph.ops.iter().enumerate().take(job.end).skip(job.start) {
            let chained = matches!(places.get(index + 1), Some(Placed::Chained { .. }));
            let on_chip = if chained {
                !needed(&cx, op.output, index + 1, options.observe)
            } else {
                let first = (0..=index).rev().find(|i| !matches!(places[*i], Placed::Chained { .. }));
                first.and_then(|f| found.get(&f)).is_some_and(|r| r.unsaved)
            };
            if on_chip {
                sharing.dismiss(op.output);
            }
        }
        residences.extend(found);
    }
    let layout = sharing.lay_out(ALIGN)?;
    check_reach(&layout)?;
    let mut program = Program::new(graph, &target.name, target.fingerprint, &layout)?;
    let addresses: Vec<(u32, u32)> = layout.places.iter().map(|(r, o)| (*r as u32, *o)).collect();
    let cx = Context { places: &addresses, ..cx };
    let mut at = 0;
    while let Some(op) = graph.ops.get(at) {
        if let Some(job) = jobs.iter().find(|j| j.start == at) {
            emit_job(&cx, (&places, &residences), job.clone(), &sharing, options, &mut program)?;
            at = job.end;
            continue;
        }
        let before = program.constants.len();
        let steps = match cpu::lower(graph, op, &mut program) {
            Ok(steps) => steps,
            Err(_) if options.timing_only => Vec::new(),
            Err(e) => return Err(e),
        };
        let reason = match &places[at] {
            Placed::Cpu(reason) => Some(reason.clone()),
            Placed::Dpu { .. } | Placed::Chained { .. } | Placed::View => None,
        };
        program.layers.push(LayerRow {
            constant_bytes: (program.constants.len() - before) as u64,
            reason,
            cpu_us: Some(cpu_us(graph, op)),
            ..LayerRow::new(graph, op, Engine::Cpu, (!steps.is_empty()).then_some(program.steps.len()))
        });
        program.steps.extend(steps);
        at += 1;
    }
    Ok(program)
}

fn emit_job(
    cx: &Context<'_>,
    (places, residences): (&[Placed], &HashMap<usize, Residence>),
    job: std::ops::Range<usize>,
    sharing: &Sharing,
    options: &DpuOptions,
    program: &mut Program,
) -> Result<(), Error> {
    let lacking = || Error::Target(format!("{}: it lacks a bank group", cx.target.name));
    let mut emitter = Emitter::new(cx.target, cx.machine, options.gather_weights).ok_or_else(lacking)?;
    let step = program.steps.len();
    let mut outputs = Vec::new();
    let mut owners: Vec<(usize, String)> = Vec::new();
    for index in job.clone() {
        let op = &cx.graph.ops[index];
        let own_place = cx.joins.home(op.output).is_none();
        if own_place && (options.observe || sharing.outlives(op.output, job.end)) {
            outputs.push(TensorId(op.output.0 as u16));
        }
        let (plan, chain) = match &places[index] {
            Placed::Dpu { plan, chain, .. } => (plan, chain),
            Placed::Chained { .. } => continue,
            Placed::Cpu(_) | Placed::View => {
                program.layers.push(LayerRow::new(cx.graph, op, Engine::View, Some(step)));
                continue;
            }
        };
        // The ops of a chain, then the op alone.
        let ops = index..index + chain.as_ref().map_or(1, |c| c.ops);
        let mut row = LayerRow::new(cx.graph, op, Engine::Misc, Some(step));
        let mut plans = Vec::new();
        let mut weights = Vec::new();
        for (op, place) in cx.graph.ops[ops.clone()].iter().zip(&places[ops.clone()]) {
            let mut ways = select(cx, op).map_err(|e| Error::Compile(format!("layer `{}`: {e}", op.layer)))?;
            let way = if let Placed::Chained { plan } = place { *plan } else { *plan };
            // Lowering again gives as many ways.
            let plan = ways.swap_remove(way.min(ways.len() - 1));
            let (at, bytes) = constants(&plan, &mut program.constants)?;
            row.constant_bytes += bytes;
            weights.push(at);
            plans.push(plan);
        }
        let first = emitter.program.len();
        row.engine = match plans[0].layers.first().map(|l| l.shape.unit) {
            Some(Unit::Conv) => Engine::Conv,
            Some(_) => Engine::Misc,
            None => Engine::View,
        };
        let broken = || Error::Compile(format!("layer `{}`: no place in the banks was planned for it", op.layer));
        let residence = residences.get(&index).ok_or_else(broken)?;
        let mut layers = match chain {
            Some(_) => {
                let broken = || Error::Compile(format!("layer `{}`: its chain cannot be built again", op.layer));
                let layer = join(cx, index, plans, &weights, options.observe).ok_or_else(broken)?;
                vec![layer]
            }
            None => plans.swap_remove(0).layers,
        };
        if let [layer] = layers.as_mut_slice() {
            residence.apply(layer, &cx.graph.ops[ops.clone()]);
            let last = cx.graph.ops.get(ops.end - 1).unwrap_or(op);
            row.kept_bytes = residence.kept_bytes(cx, last.output);
        }
        if layers.len() != residence.tilings.len() {
            return Err(broken());
        }
        for (layer, tiling) in layers.iter().zip(&residence.tilings) {
            let amount = emitter.layer(layer, tiling, weights[0], residence.rooms);
            row.load_bytes += amount.load_bytes;
            row.save_bytes += amount.save_bytes;
            row.engine_macs += amount.engine_macs;
            row.tiles += amount.tiles;
        }
        let count = (emitter.program.len() - first) as u32;
        row.instructions = count;
        for op in &cx.graph.ops[ops] {
            // The ops of a chain share their instructions.
            program.spans.push(Span {
                layer: op.layer.clone(),
                step: step as u16,
                first: first as u32,
                count,
                macs: op.macs(),
                output: TensorId(op.output.0 as u16),
            });
            row.extend(cx.graph, op);
        }
        program.layers.push(row);
        owners.push((emitter.program.len(), op.layer.clone()));
    }
    emitter.program.push(Inst::from(End {}));
    program.code.resize(program.code.len().next_multiple_of(CODE_ALIGN), 0);
    let offset = program.code.len();
    let tokens = hazard::order(cx.target, &emitter.program);
    for (i, (inst, tokens)) in emitter.program.into_iter().zip(tokens).enumerate() {
        let words = encode(cx.target.isa, &Line { tokens, inst }).map_err(|e| {
            let layer = owners.iter().find(|(end, _)| i < *end).map_or("END", |(_, l)| l.as_str());
            Error::Compile(format!("layer `{layer}`: no encoding: {e}"))
        })?;
        program.code.extend(words.bytes());
    }
    let too_large = |_| Error::Compile("more than 4 GiB of code".into());
    program.steps.push(ProgramStep::Dpu {
        name: format!("{}_dpu{}", cx.graph.name, program.steps.len()),
        offset: u32::try_from(offset).map_err(too_large)?,
        bytes: u32::try_from(program.code.len() - offset).map_err(too_large)?,
        outputs,
    });
    Ok(())
}

/// Appends a layer's kernel and bias.
fn constants(plan: &Way, blob: &mut Vec<u8>) -> Result<(Weights, u64), Error> {
    let mut append = |values: &[i8]| {
        if values.is_empty() {
            return Ok(0);
        }
        blob.resize(blob.len().next_multiple_of(ALIGN as usize), 0);
        let at = u32::try_from(blob.len()).ok().filter(|a| u64::from(*a) + (values.len() as u64) < REACH);
        blob.extend(values.iter().map(|v| *v as u8));
        at.ok_or_else(|| Error::Compile(format!("more than {REACH} bytes of constants; addresses have 29 bits")))
    };
    let weights = Weights { kernel: append(&plan.kernel)?, bias: append(&plan.bias)? };
    Ok((weights, (plan.kernel.len() + plan.bias.len()) as u64))
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
