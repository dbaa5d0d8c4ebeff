//! Ops that follow each other on the same tile, as one layer.

use crate::dpu::context::{Context, Way};
use crate::dpu::layer::{Compute, Kernel, Layer, Pass, Weights};
use crate::dpu::select::select;
use crate::dpu::tile::Unit;
use crate::placed::Placed;
use shiftwise_integer::graph::{IntOpKind, TensorIx};

/// The plan of an op on the DPU that is one layer.
pub(crate) fn alone(cx: &Context<'_>, places: &[Placed], op: usize) -> Option<Way> {
    let way = match places.get(op)? {
        Placed::Dpu { way, tilings, .. } if tilings.len() == 1 => way,
        Placed::Fused { way } => way,
        Placed::Dpu { .. } | Placed::Cpu(_) | Placed::View => return None,
    };
    let mut plans = select(cx, cx.graph.ops.get(op)?).ok()?;
    (*way < plans.len()).then(|| plans.swap_remove(*way))
}

/// The plans of ops `first..` as one layer; `None` if one of them does not continue on the tile of the one before.
///
/// `weights`: where the constants of each plan lie.
pub(crate) fn join(
    cx: &Context<'_>,
    first: usize,
    plans: Vec<Way>,
    weights: &[Weights],
    observe: bool,
) -> Option<Layer> {
    let ops = cx.graph.ops.get(first..first + plans.len())?;
    let mut plans = plans.into_iter().map(|mut p| if p.layers.len() == 1 { p.layers.pop() } else { None });
    let mut layer = plans.next()??;
    if layer.shape.unit == Unit::Elew {
        return None;
    }
    for (k, next) in (1..).zip(plans) {
        let next = next?;
        let (before, op) = (ops[k - 1].output, &ops[k]);
        let dims = [layer.shape.output[0], layer.shape.output[1], last_channels(&layer)];
        // A neighbour in the order of ops may well be of another branch of the same size.
        if !op.inputs.contains(&before) || next.shape.input != dims || !next.fills.is_empty() {
            return None;
        }
        if needed(cx, before, first + k, observe) {
            layer.shape.keeps += layer.outputs.len() as u32;
            layer.passes.push(Pass::Keep(std::mem::take(&mut layer.outputs)));
        }
        match &next.compute {
            Compute::Conv { .. } if layer.shape.point == 0 && layer.shape.adds == 0 => {
                let s = &next.shape;
                let over_pixels = (s.kernel, s.stride, s.pad) == ([1, 1], [1, 1], [0, 0]);
                if !over_pixels || next.kernel != Kernel::Constants(0) || next.bias != 0 || !next.passes.is_empty() {
                    return None;
                }
                layer.shape.point = s.output[2];
                layer.shape.saves = s.saves;
                layer.outputs.clone_from(&next.outputs);
                layer.passes.push(Pass::Point { layer: Box::new(next), weights: *weights.get(k)? });
            }
            Compute::Sum { shift_read, shift_write, relu } if layer.shape.adds == 0 => {
                let own = op.inputs.iter().position(|t| *t == before)?;
                let (&[a, b], [_, _]) = (shift_read.as_slice(), op.inputs.as_slice()) else { return None };
                let (other, shift_read) = if own == 0 { (1, [a, b]) } else { (0, [b, a]) };
                // The other operand has to be in memory already: it comes from before the chain.
                if ops[..k].iter().any(|o| o.output == op.inputs[other]) || !matches!(op.kind, IntOpKind::Add { .. }) {
                    return None;
                }
                let passes = 1 + next.passes.len() as u32;
                if layer.shape.point == 0 {
                    layer.shape.passes += passes;
                } else {
                    layer.shape.point_passes += passes;
                }
                layer.shape.adds = 1;
                layer.shape.saves = next.shape.saves;
                layer.outputs.clone_from(&next.outputs);
                let (map, shift_write, relu) = (next.inputs[other], *shift_write, *relu);
                layer.passes.push(Pass::Add { map, held: None, shift_read, shift_write, relu });
                layer.passes.extend(next.passes);
            }
            _ => return None,
        }
    }
    Some(layer)
}

pub(crate) fn last_channels(layer: &Layer) -> u32 {
    if layer.shape.point == 0 { layer.shape.output[2] } else { layer.shape.point }
}

/// Whether anything but op `reader` needs a tensor, so that it has to be in memory.
pub(crate) fn needed(cx: &Context<'_>, t: TensorIx, reader: usize, observe: bool) -> bool {
    let others = cx.graph.ops.iter().enumerate().any(|(i, op)| i != reader && op.inputs.contains(&t));
    let twice = cx.graph.ops.get(reader).is_some_and(|op| op.inputs.iter().filter(|x| **x == t).count() > 1);
    observe || others || twice || cx.graph.outputs.contains(&t) || !cx.joins.slices(t).is_empty()
}
