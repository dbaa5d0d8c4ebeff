//! Which ops a DPU does, and in which way.

use shiftwise_core::target::Target;

use crate::dpu::concat::Joins;
use crate::dpu::context::Context;
use crate::dpu::layer::{Layer, MAX_PITCH};
use crate::dpu::select::select;
use crate::dpu::tile::{Machine, Tiling};
use crate::placement::Placed;
use shiftwise_graph::error::Error;
use shiftwise_integer::graph::{IntGraph, IntOp, IntOpKind};

/// Why each op that would stay on the CPU does so, in the order of the ops; `None` for ops that the DPU does and views.
pub fn placement(graph: &IntGraph, target: &Target) -> Result<Vec<Option<String>>, Error> {
    let machine = Machine::of(target)
        .ok_or_else(|| Error::Target(format!("{}: its bank groups are not those of a DPUCZDX8G", target.name)))?;
    let nowhere = vec![(0, 0); graph.tensors.len()];
    let apart = Joins::default();
    let cx = Context { graph, target, machine, places: &nowhere, joins: &apart };
    let reason = |op| match place(&cx, op) {
        Placed::Cpu(reason) => Some(reason),
        Placed::Dpu { .. } | Placed::Chained { .. } | Placed::View => None,
    };
    Ok(graph.ops.iter().map(reason).collect())
}

pub(crate) fn place(cx: &Context<'_>, op: &IntOp) -> Placed {
    if matches!(op.kind, IntOpKind::View) {
        return Placed::View;
    }
    let cut = |layers: &[Layer]| -> Option<(u64, Vec<Tiling>)> {
        let mut cuts: Vec<(u64, Tiling)> = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate() {
            // The layers of a plan are often alike.
            let known = i.checked_sub(1).filter(|j| layers[*j].shape == layer.shape).map(|j| cuts[j]);
            cuts.push(known.or_else(|| layer.shape.tiling(&cx.machine))?);
        }
        Some((cuts.iter().map(|(cost, _)| cost).sum(), cuts.into_iter().map(|(_, t)| t).collect()))
    };
    let plans = match select(cx, op) {
        Ok(plans) => plans,
        Err(reason) => return Placed::Cpu(reason),
    };
    let layers = || plans.iter().flat_map(|p| &p.layers);
    let pitch = layers().flat_map(|l| l.inputs.iter().chain(&l.outputs)).map(|m| m.pixel_pitch).max().unwrap_or(0);
    if pitch > MAX_PITCH {
        return Placed::Cpu(format!("{pitch} bytes from pixel to pixel; a transfer's step has 16 bits"));
    }
    let cuts = plans.iter().enumerate().filter_map(|(i, p)| cut(&p.layers).map(|(cost, tilings)| (cost, i, tilings)));
    match cuts.min_by_key(|(cost, i, _)| (*cost, *i)) {
        Some((_, plan, tilings)) => Placed::Dpu { plan, tilings, chain: None },
        None => Placed::Cpu(format!(
            "not even one output pixel of it fits the banks ({} addresses of feature maps, {} of weights)",
            cx.machine.depth, cx.machine.weight_depth
        )),
    }
}

/// Runs of ops on the DPU, with the views among them. A view before the first op of a run needs no job.
pub(crate) fn jobs(places: &[Placed]) -> Vec<std::ops::Range<usize>> {
    let mut jobs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, place) in places.iter().enumerate() {
        let open = jobs.last_mut().filter(|j| j.end == i);
        match (place, open) {
            (Placed::Dpu { .. } | Placed::View, Some(job)) => job.end = i + 1,
            (Placed::Dpu { .. }, None) => jobs.push(i..i + 1),
            _ => {}
        }
    }
    jobs
}
