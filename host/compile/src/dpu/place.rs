//! Which ops a DPU does, in which way, together with which others, and what stays in the banks between them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use shiftwise_core::target::Target;

use crate::dpu::concat::Joins;
use crate::dpu::context::{Context, Way};
use crate::dpu::layer::{Layer, MAX_PITCH};
use crate::dpu::resident::Residence;
use crate::dpu::select::select;
use crate::dpu::tile::{Machine, Tiling};
use crate::dpu::{DpuOptions, fuse, pad, resident};
use crate::memory::check_order;
use crate::placed::Placed;
use crate::placement::Placement;
use crate::reason::Reason;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind};

/// Decides where each op of a network runs.
///
/// Errors: [`Error::Target`] if the target lacks a bank group, [`Error::Compile`] if the graph is not in execution order.
/// An op that the DPU can't do is no error here, whatever the options say.
pub fn place<'a>(graph: &'a IntGraph, target: &'a Target, options: &DpuOptions) -> Result<Placement<'a>, Error> {
    let machine = Machine::of(target).ok_or_else(|| {
        Error::Target(format!("{}: its bank groups are not those of a DPUCZDX8G; nothing can be placed", target.name))
    })?;
    let nowhere = vec![(0, 0); graph.tensors.len()];
    let apart = Joins::default();
    let cx = Context { graph, target, machine, places: &nowhere, joins: &apart };
    let folded = pad::padding(graph, |op| choose(&cx, op).begins(), options.observe);
    let graph = folded.map_or(Cow::Borrowed(graph), Cow::Owned);
    check_order(&graph)?;
    let cx = Context { graph: &graph, ..cx };
    let mut ops: Vec<Placed> = graph.ops.iter().map(|op| choose(&cx, op)).collect();
    let jobs = jobs(&ops);
    let joins = concatenate(&cx, &mut ops, options.observe);
    let cx = Context { joins: &joins, ..cx };
    for job in &jobs {
        fuse_ops(&cx, &mut ops, job, options.observe);
    }
    let residences: HashMap<usize, Residence> =
        jobs.iter().flat_map(|job| resident::plan(&cx, target, &ops, job.clone(), options.observe)).collect();
    Ok(Placement { graph, target, options: *options, machine, ops, jobs, joins, residences })
}

/// Why each op that would stay on the CPU does so, in the order of the ops; `None` for ops that the DPU does and views.
///
/// Errors as of [`place`].
pub fn placement(graph: &IntGraph, target: &Target) -> Result<Vec<Option<Reason>>, Error> {
    let placement = place(graph, target, &DpuOptions::default())?;
    Ok(placement.ops.iter().map(|placed| placed.reason().cloned()).collect())
}

/// The way to do an op alone, from memory to memory, that takes the least time.
fn choose(cx: &Context<'_>, op: &IntOp) -> Placed {
    if matches!(op.kind, IntOpKind::View) {
        return Placed::View;
    }
    match select(cx, op).and_then(|ways| cheapest(cx, &ways)) {
        Ok((way, tilings)) => Placed::Dpu { way, tilings, fused: None },
        Err(reason) => Placed::Cpu(reason),
    }
}

/// Which of the ways takes the least time, and how its layers are cut.
fn cheapest(cx: &Context<'_>, ways: &[Way]) -> Result<(usize, Vec<Tiling>), Reason> {
    let maps = ways.iter().flat_map(|way| &way.layers).flat_map(|l| l.inputs.iter().chain(&l.outputs));
    let bytes = maps.map(|m| m.pixel_pitch).max().unwrap_or(0);
    if bytes > MAX_PITCH {
        return Err(Reason::Pitch { bytes });
    }
    let cuts = ways.iter().enumerate().filter_map(|(i, way)| cut(cx, &way.layers).map(|(cost, cuts)| (cost, i, cuts)));
    let best = cuts.min_by_key(|(cost, i, _)| (*cost, *i));
    let Machine { depth, weight_depth, .. } = cx.machine;
    best.map(|(_, way, tilings)| (way, tilings)).ok_or(Reason::NoRoom { maps: depth, weights: weight_depth })
}

/// Estimated cycles of layers, and how each is cut; `None` if one does not fit.
fn cut(cx: &Context<'_>, layers: &[Layer]) -> Option<(u64, Vec<Tiling>)> {
    let mut cuts: Vec<(u64, Tiling)> = Vec::with_capacity(layers.len());
    for (i, layer) in layers.iter().enumerate() {
        // The layers of a way are often alike.
        let known = i.checked_sub(1).filter(|j| layers[*j].shape == layer.shape).map(|j| cuts[j]);
        cuts.push(known.or_else(|| layer.shape.tiling(&cx.machine))?);
    }
    Some((cuts.iter().map(|(cost, _)| cost).sum(), cuts.into_iter().map(|(_, t)| t).collect()))
}

/// Runs of ops on the DPU, with the views among them. A view before the first op of a run needs no job.
fn jobs(ops: &[Placed]) -> Vec<Range<usize>> {
    let mut jobs: Vec<Range<usize>> = Vec::new();
    for (i, placed) in ops.iter().enumerate() {
        let open = jobs.last_mut().filter(|j| j.end == i);
        match (placed, open) {
            (Placed::Dpu { .. } | Placed::View, Some(job)) => job.end = i + 1,
            (Placed::Dpu { .. }, None) => jobs.push(i..i + 1),
            (Placed::Fused { .. } | Placed::Cpu(_), _) | (Placed::View, None) => {}
        }
    }
    jobs
}

/// Finds what is concatenated by address. A layer whose result goes to several places is cut again, for each further SAVE
/// costs time, and so is a concatenation that has less to copy.
///
/// Pixels of a part are as far apart as those of the whole. A layer that can't make or read them so is left out.
fn concatenate(cx: &Context<'_>, ops: &mut [Placed], observe: bool) -> Joins {
    let graph = cx.graph;
    let mut left_out: Vec<usize> = Vec::new();
    loop {
        let joins = Joins::of(graph, |op| ops[op].begins() && !left_out.contains(&op), observe);
        let cx = Context { joins: &joins, ..*cx };
        let written = |op: &IntOp| !joins.slices(op.output).is_empty();
        let read = |op: &IntOp| op.inputs.iter().any(|t| joins.home(*t).is_some());
        let concerned: Vec<(usize, Placed)> = (0..)
            .zip(&graph.ops)
            .filter(|(i, op)| ops[*i].begins() && (is_concat(op) || written(op) || read(op)))
            .map(|(i, op)| (i, choose(&cx, op)))
            .collect();
        let failed = concerned.iter().filter(|(_, placed)| !placed.begins()).map(|(i, _)| *i);
        let before = left_out.len();
        left_out.extend(failed);
        if left_out.len() == before {
            for (i, placed) in concerned {
                // A layer that only reads parts is cut as before.
                if is_concat(&graph.ops[i]) || written(&graph.ops[i]) {
                    ops[i] = placed;
                }
            }
            return joins;
        }
    }
}

fn is_concat(op: &IntOp) -> bool {
    matches!(op.kind, IntOpKind::Concat { .. })
}

/// Lets ops of a job be done on each other's tiles where that takes less time.
fn fuse_ops(cx: &Context<'_>, ops: &mut [Placed], job: &Range<usize>, observe: bool) {
    let mut at = job.start;
    while at < job.end {
        let found = fuse::find(cx, ops, at, job.end, observe);
        let count = found.as_ref().map_or(1, |f| f.ops);
        if let (Some(found), Placed::Dpu { fused, .. }) = (found, &mut ops[at]) {
            *fused = Some(found);
            for placed in &mut ops[at + 1..at + count] {
                if let Placed::Dpu { way, .. } = *placed {
                    *placed = Placed::Fused { way };
                }
            }
        }
        at += count;
    }
}
