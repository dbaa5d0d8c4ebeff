//! Ops that follow each other on the same tile: a pointwise convolution over what a layer just computed, and the sum of that
//! and another map. What lies between them stays on chip.
//!
//! Only the order of work changes: every op computes the integers it would compute alone. What somebody else reads is saved
//! on the way.

use crate::dpu::context::{Context, Way};
use crate::dpu::fused_layer::{alone, join};
use crate::dpu::layer::Weights;
use crate::placed::{Fusion, Placed};

/// The longest chain from op `first` on that pays, if any; ops from `end` on belong to another job.
pub(crate) fn find(cx: &Context<'_>, places: &[Placed], first: usize, end: usize, observe: bool) -> Option<Fusion> {
    let cost = |op: usize| {
        let layer = alone(cx, places, op)?.layers.pop()?;
        layer.shape.tiling(&cx.machine).map(|(cost, _)| cost)
    };
    let mut best = None;
    let mut apart = cost(first)?;
    for ops in 2..=3.min(end.saturating_sub(first)) {
        let Some(own) = cost(first + ops - 1) else { break };
        apart += own;
        let plans: Option<Vec<Way>> = (first..first + ops).map(|op| alone(cx, places, op)).collect();
        let Some(layer) = plans.and_then(|plans| join(cx, first, plans, &vec![Weights::default(); ops], observe))
        else {
            break;
        };
        match layer.shape.tiling(&cx.machine) {
            Some((together, tiling)) if together < apart => best = Some(Fusion { ops, tiling }),
            _ => {}
        }
    }
    best
}
