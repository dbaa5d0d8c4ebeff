//! Quantizers that are written as arithmetic: scaled, rounded, clamped, scaled back.

use super::Apart;
use super::grids::{self, Integers};
use crate::scheme::Quantizer;
use shiftwise_core::arith::Round;
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{Combine, Function};
use shiftwise_graph::attributes::Attributes;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::tfop::Kind;
use shiftwise_graph::ops::{Op, Operand, Quantize, TfOp};

/// Puts a Quantize node in the place of every such chain.
pub(super) fn find(apart: &mut Apart) {
    for id in apart.graph.ids() {
        let Some(chain) = Chain::ending_at(&apart.graph, id) else { continue };
        if !chain.scaled && !unscale(&mut apart.graph, chain.source, chain.pos) {
            continue;
        }
        let node = apart.graph.node_mut(id);
        (node.op, node.inputs, node.extras) = (Op::Quantize(Quantize), vec![chain.source], Attributes::default());
        apart.results.insert(id, chain.quantizer());
    }
}

/// A chain of functions that quantizes.
struct Chain {
    source: NodeId,
    pos: FixPos,
    integers: Integers,
    round: Round,
    /// Whether it begins with the scaling; exporters also put that into the weights of the layer before.
    scaled: bool,
}

/// A function of a node's value and a number.
pub(super) fn with_number(graph: &Graph, id: NodeId) -> Option<(Combine, NodeId, f32)> {
    let Op::TfOp(TfOp { kind: Kind::Binary(combine), operands, .. }) = &graph.node(id).op else { return None };
    let number = |o: &Operand| match o {
        Operand::Constant(t) => (t.data().len() == 1).then(|| t.data()[0]),
        Operand::Tensor(_) => None,
    };
    let (x, number) = match &operands[..] {
        [Operand::Tensor(k), constant] => (k, number(constant)?),
        [constant, Operand::Tensor(k)] if !matches!(combine, Combine::Divide | Combine::Subtract) => {
            (k, number(constant)?)
        }
        _ => return None,
    };
    Some((*combine, *graph.node(id).inputs.get(*x)?, number))
}

/// A value and the factor that it is multiplied with.
pub(super) fn scaled(graph: &Graph, id: NodeId) -> Option<(NodeId, f32)> {
    match with_number(graph, id)? {
        (Combine::Multiply, x, factor) => Some((x, factor)),
        (Combine::Divide, x, by) => Some((x, 1.0 / by)),
        _ => None,
    }
}

fn function(graph: &Graph, id: NodeId) -> Option<(Function, NodeId)> {
    match &graph.node(id).op {
        Op::TfOp(TfOp { kind: Kind::Unary(function), .. }) => Some((*function, *graph.node(id).inputs.first()?)),
        _ => None,
    }
}

/// A value between two ends.
fn clamped(graph: &Graph, id: NodeId) -> Option<(NodeId, f32, f32)> {
    if let Op::TfOp(TfOp { kind: Kind::Clip, operands, .. }) = &graph.node(id).op {
        let [Operand::Tensor(x), Operand::Constant(low), Operand::Constant(high)] = &operands[..] else { return None };
        return Some((*graph.node(id).inputs.get(*x)?, *low.data().first()?, *high.data().first()?));
    }
    let (outer, inner, a) = with_number(graph, id)?;
    let (inner, x, b) = with_number(graph, inner)?;
    match (outer, inner) {
        (Combine::Maximum, Combine::Minimum) => Some((x, a, b)),
        (Combine::Minimum, Combine::Maximum) => Some((x, b, a)),
        _ => None,
    }
}

/// A value that is rounded to whole numbers.
fn rounded(graph: &Graph, id: NodeId) -> Option<(NodeId, Round)> {
    let half =
        |id: NodeId| with_number(graph, id).filter(|(f, _, n)| *f == Combine::Add && *n == 0.5).map(|(_, x, _)| x);
    match (function(graph, id), &graph.node(id).op, &graph.node(id).inputs[..]) {
        (Some((Function::Round, x)), _, _) => Some((x, Round::HalfToEven)),
        (Some((Function::Floor, x)), _, _) => Some(half(x).map_or((x, Round::Floor), |x| (x, Round::HalfUp))),
        // Sign and magnitude apart.
        (None, Op::Multiply(_), [a, b]) => [(*a, *b), (*b, *a)].into_iter().find_map(|(sign, size)| {
            let (Function::Sign, x) = function(graph, sign)? else { return None };
            let (Function::Floor, sum) = function(graph, size)? else { return None };
            let (Function::Absolute, own) = function(graph, half(sum)?)? else { return None };
            (own == x).then_some((x, Round::HalfAwayFromZero))
        }),
        _ => None,
    }
}

impl Chain {
    /// The chain whose last function a node is.
    fn ending_at(graph: &Graph, id: NodeId) -> Option<Self> {
        let (x, step) = scaled(graph, id)?;
        let pos = grids::position(step)?;
        let (x, low, high) = clamped(graph, x)?;
        let integers = Integers::between(low, high)?;
        let (x, round) = rounded(graph, x)?;
        let first = scaled(graph, x).filter(|(_, factor)| *factor * step == 1.0);
        let (source, scaled) = first.map_or((x, false), |(source, _)| (source, true));
        Some(Self { source, pos, integers, round, scaled })
    }

    fn quantizer(&self) -> Quantizer {
        grids::of_positions(self.integers, self.round, &[self.pos], None)
    }
}

/// Takes the scaling by 2^pos out of the weights of a layer that nothing else reads.
fn unscale(graph: &mut Graph, id: NodeId, pos: FixPos) -> bool {
    if graph.uses().get(id.0) != Some(&1) {
        return false;
    }
    let Some(w) = graph.node_mut(id).op.weighted_mut() else { return false };
    let tensors = std::iter::once(&mut w.kernel).chain(&mut w.bias);
    tensors.for_each(|tensor| tensor.data_mut().iter_mut().for_each(|x| *x *= pos.step()));
    true
}
