//! Who owns a position: the layer itself, a layer before it, or one behind.

use crate::layer_quant::{ActivationQuant, Wrapping};
use crate::quant_graph::QuantGraph;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::Op;

/// Layers that are quantized only together with the one before them.
pub(crate) fn is_activation(op: &Op) -> bool {
    matches!(op, Op::Relu(_) | Op::LeakyRelu(_) | Op::Activation(_))
}

/// A position as an integer to calculate with.
pub(crate) fn value(p: FixPos) -> i32 {
    p.0.into()
}

pub(crate) fn fix(pos: i32) -> FixPos {
    FixPos(pos.clamp(-128, 127) as i8)
}

pub(crate) fn result_pos(q: &QuantGraph, id: NodeId) -> Option<i32> {
    Some(value(q.layers.get(&id)?.result()?.scheme().pos()?))
}

pub(crate) fn set_result(q: &mut QuantGraph, id: NodeId, pos: i32) {
    if let Some(own) = q.layers.get_mut(&id).and_then(|l| l.result_mut()) {
        own.scheme_mut().set_pos(fix(pos));
    }
}

/// Who owns the position of a layer's input: the producer, looking through layers that only move values.
pub fn input_owner(q: &QuantGraph, producer: NodeId) -> Option<NodeId> {
    let mut id = producer;
    loop {
        let layer = q.layers.get(&id)?;
        if layer.result().is_some() {
            return Some(id);
        }
        match (&q.graph.node(id).op, &q.graph.node(id).inputs[..]) {
            (Op::Reshape(_) | Op::Flatten(_) | Op::ZeroPadding2D(_), [input]) => id = *input,
            _ => return None,
        }
    }
}

/// Who owns the position of a layer's output: the layer, or its first reader if its own is deferred to that.
pub fn output_owner(q: &QuantGraph, id: NodeId) -> Option<NodeId> {
    let layer = q.layers.get(&id)?;
    let deferred = layer.activation == ActivationQuant::Deferred || matches!(layer.wrapping, Wrapping::Bare);
    let owner = if deferred && !matches!(q.graph.node(id).op, Op::Quantize(_)) {
        // Nothing but an activation that is the only reader can quantize for another: a file may name any layer there.
        let mut readers = q.graph.ids().filter(|c| q.graph.node(*c).inputs.contains(&id));
        let owner = readers.next().filter(|c| is_activation(&q.graph.node(*c).op))?;
        if readers.next().is_some() || q.graph.outputs.contains(&id) {
            return None;
        }
        owner
    } else {
        id
    };
    q.layers.get(&owner)?.result().map(|_| owner)
}

pub(crate) fn input_positions(q: &QuantGraph, id: NodeId) -> Option<Vec<(NodeId, i32)>> {
    let inputs = q.graph.node(id).inputs.iter();
    inputs.map(|i| input_owner(q, *i).and_then(|o| Some((o, result_pos(q, o)?)))).collect()
}

/// The positions around a convolution or dense layer.
#[derive(Clone, Copy, Debug)]
pub struct ConvPositions {
    /// Input.
    pub i: i32,
    /// Kernel.
    pub w: i32,
    /// Bias.
    pub b: Option<i32>,
    /// Output.
    pub o: i32,
}

impl ConvPositions {
    /// Right shift from the accumulator to the output.
    pub fn shift_cut(&self) -> i32 {
        self.w + self.i - self.o
    }
}

/// The positions around a quantized convolution or dense layer; `None` if one is missing.
pub fn conv_positions(q: &QuantGraph, id: NodeId) -> Option<ConvPositions> {
    q.graph.node(id).op.weighted()?;
    let layer = q.layers.get(&id)?;
    let weight = |k: usize| layer.weights.get(k)?.as_ref()?.scheme().pos().map(value);
    Some(ConvPositions {
        i: input_positions(q, id)?.first()?.1,
        w: weight(0)?,
        b: weight(1),
        o: result_pos(q, output_owner(q, id)?)?,
    })
}

pub(crate) fn set_weight(q: &mut QuantGraph, id: NodeId, index: usize, pos: i32) {
    if let Some(Some(own)) = q.layers.get_mut(&id).and_then(|l| l.weights.get_mut(index)) {
        own.scheme_mut().set_pos(fix(pos));
    }
}
