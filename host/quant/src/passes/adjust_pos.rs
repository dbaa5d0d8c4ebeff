//! Positions brought within what a DPU's shifters can do.
//!
//! Each rule visits the layers once, in graph order, and sees the changes of earlier layers and rules. The order of the
//! table is the vendor's; nothing runs twice, so a late alignment can undo an earlier limit, as in the vendor's tool.

use std::ops::RangeInclusive;

use crate::layer_quant::LayerQuant;
use crate::owners::{conv_positions, input_owner, input_positions, output_owner, result_pos, set_result, set_weight};
use crate::quant_graph::QuantGraph;
use crate::strategy::Strategy;
use shiftwise_core::fix::FixPos;
use shiftwise_core::shift;
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::Op;

/// One rule: the strategy's key and what it does at a layer.
#[derive(Debug)]
pub struct Rule {
    /// Key in the strategy.
    pub name: &'static str,
    apply: fn(&mut QuantGraph, NodeId),
}

/// All rules, in order.
pub const RULES: &[Rule] = &[
    Rule { name: "adjust_dpu_sigmoid", apply: sigmoid },
    Rule { name: "adjust_dpu_shift_read", apply: shift_read },
    Rule { name: "adjust_dpu_shift_write", apply: shift_write },
    Rule { name: "adjust_dpu_shift_swish", apply: shift_swish },
    Rule { name: "adjust_dpu_shift_cut", apply: shift_cut },
    Rule { name: "adjust_dpu_shift_bias", apply: shift_bias },
    Rule { name: "adjust_dpu_shift_bias_leakyrelu", apply: shift_bias_leaky_relu },
    Rule { name: "align_concat", apply: align_concat },
    Rule { name: "align_pool", apply: align_pool },
];

/// A position that a rule changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Rule that did it.
    pub rule: &'static str,
    /// Layer at which the rule looked.
    pub layer: String,
}

/// Applies every rule that the strategy enables; returns where positions changed.
pub fn refine(q: &mut QuantGraph, strategy: &Strategy) -> Vec<Change> {
    apply(q, |rule| strategy.enabled(rule))
}

/// Applies the rules of these names; returns where positions changed.
pub fn apply(q: &mut QuantGraph, enabled: impl Fn(&str) -> bool) -> Vec<Change> {
    let mut changes = Vec::new();
    for rule in RULES.iter().filter(|r| enabled(r.name)) {
        for id in q.graph.ids() {
            let before = positions(q);
            (rule.apply)(q, id);
            if positions(q) != before {
                changes.push(Change { rule: rule.name, layer: q.graph.node(id).name.clone() });
            }
        }
    }
    changes
}

/// Every position, in graph order.
fn positions(q: &QuantGraph) -> Vec<FixPos> {
    let of_layer = |l: &LayerQuant| -> Vec<FixPos> {
        l.weights.iter().flatten().chain(l.result()).filter_map(|own| own.scheme().pos()).collect()
    };
    q.layers.values().flat_map(of_layer).collect()
}

/// Input of a hard sigmoid: 0..=15. Its output: at least 7, and coarse enough that 14 + input − output stays above 0.
fn sigmoid(q: &mut QuantGraph, id: NodeId) {
    let Op::HardSigmoid(_) = q.graph.node(id).op else { return };
    let Some((input, i)) = input_positions(q, id).and_then(|p| p.first().copied()) else { return };
    let Some((output, o)) = output_owner(q, id).and_then(|o| Some((o, result_pos(q, o)?))) else { return };
    let i = clamp(i, &shift::SIGMOID_POSITIONS);
    let o = o.max(7);
    set_result(q, input, i);
    set_result(q, output, if 14 + i - o <= 0 { 14 + i } else { o });
}

/// The nearest number within limits.
fn clamp(shift: i32, limits: &RangeInclusive<i32>) -> i32 {
    shift.clamp(*limits.start(), *limits.end())
}

/// Whether a layer is a sum or a product.
fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Add(_) | Op::Multiply(_))
}

/// Spread of an element-wise layer's input positions: at most 15; the first finest input gives way.
fn shift_read(q: &mut QuantGraph, id: NodeId) {
    if !is_elementwise(&q.graph.node(id).op) {
        return;
    }
    let Some(inputs) = input_positions(q, id) else { return };
    let positions = || inputs.iter().map(|(_, p)| *p);
    let (Some(low), Some(high)) = (positions().min(), positions().max()) else { return };
    if !shift::READ.contains(&(high - low))
        && let Some((owner, _)) = inputs.iter().find(|(_, p)| *p == high)
    {
        set_result(q, *owner, low + shift::READ.end());
    }
}

/// min(inputs) − output of an element-wise layer: −15..=15; the output gives way.
///
/// The vendor's tool stores the limit itself as the position when it is exceeded; this stores the position at the limit.
fn shift_write(q: &mut QuantGraph, id: NodeId) {
    if !is_elementwise(&q.graph.node(id).op) {
        return;
    }
    let Some(low) = input_positions(q, id).and_then(|i| i.iter().map(|(_, p)| *p).min()) else { return };
    let Some((owner, out)) = output_owner(q, id).and_then(|o| Some((o, result_pos(q, o)?))) else { return };
    let by = low - out;
    if !shift::WRITE_ADJUSTED.contains(&by) {
        set_result(q, owner, low - clamp(by, &shift::WRITE_ADJUSTED));
    }
}

/// Shift of a hard swish, the product of x and its hard sigmoid: 0..=15; the output gives way.
fn shift_swish(q: &mut QuantGraph, id: NodeId) {
    let Op::Multiply(_) = q.graph.node(id).op else { return };
    let [x, gate] = q.graph.node(id).inputs[..] else { return };
    let gates = |gate: NodeId, x: NodeId| {
        matches!(q.graph.node(gate).op, Op::HardSigmoid(_)) && q.graph.node(gate).inputs == [x]
    };
    if !gates(gate, x) && !gates(x, gate) {
        return;
    }
    let Some(inputs) = input_positions(q, id) else { return };
    let Some(out) = result_pos(q, id) else { return };
    let sum: i32 = inputs.iter().map(|(_, p)| *p).sum();
    let by = sum - out;
    if !shift::PRODUCT_ADJUSTED.contains(&by) {
        set_result(q, id, sum - clamp(by, &shift::PRODUCT_ADJUSTED));
    }
}

/// shift_cut: 0..=16; the kernel gives way.
fn shift_cut(q: &mut QuantGraph, id: NodeId) {
    let Some(p) = conv_positions(q, id) else { return };
    let by = p.shift_cut();
    if !shift::CUT_ADJUSTED.contains(&by) {
        set_weight(q, id, 0, clamp(by, &shift::CUT_ADJUSTED) + p.o - p.i);
    }
}

/// shift_bias = kernel + input − bias: from min(0, shift_cut − 16) to 16; the bias gives way.
fn shift_bias(q: &mut QuantGraph, id: NodeId) {
    let Some(p) = conv_positions(q, id) else { return };
    let Some(b) = p.b else { return };
    let legal = (p.shift_cut() - shift::MOST_BIAS).min(0)..=shift::MOST_BIAS;
    let by = p.w + p.i - b;
    if !legal.contains(&by) {
        set_weight(q, id, 1, p.w + p.i - clamp(by, &legal));
    }
}

/// shift_bias before a LeakyReLU: 0..=16; the bias gives way.
fn shift_bias_leaky_relu(q: &mut QuantGraph, id: NodeId) {
    let (Op::LeakyRelu(_), [conv]) = (&q.graph.node(id).op, &q.graph.node(id).inputs[..]) else { return };
    let conv = *conv;
    if !q.layers.contains_key(&id) {
        return;
    }
    let Some(p) = conv_positions(q, conv) else { return };
    let Some(b) = p.b else { return };
    let by = p.w + p.i - b;
    let legal = 0..=shift::MOST_BIAS;
    if !legal.contains(&by) {
        set_weight(q, conv, 1, p.w + p.i - clamp(by, &legal));
    }
}

/// All tensors of a concatenation share the coarsest of their positions.
fn align_concat(q: &mut QuantGraph, id: NodeId) {
    let Op::Concatenate(_) = q.graph.node(id).op else { return };
    let Some((output, o)) = output_owner(q, id).and_then(|o| Some((o, result_pos(q, o)?))) else { return };
    // Inputs without a position, floats, have no say.
    let producers = q.graph.node(id).inputs.clone();
    let owned = producers.into_iter().filter_map(|p| input_owner(q, p)).filter_map(|o| Some((o, result_pos(q, o)?)));
    let owners: Vec<(NodeId, i32)> = owned.collect();
    let coarsest = owners.iter().map(|(_, p)| *p).fold(o, i32::min);
    set_result(q, output, coarsest);
    owners.iter().for_each(|(owner, _)| set_result(q, *owner, coarsest));
}

/// A pooling's input and output share the coarser of their positions; global pooling excepted.
fn align_pool(q: &mut QuantGraph, id: NodeId) {
    let (Op::MaxPooling2D(_) | Op::AveragePooling2D(_)) = q.graph.node(id).op else { return };
    let Some((input, i)) = input_positions(q, id).and_then(|p| p.first().copied()) else { return };
    let Some((output, o)) = output_owner(q, id).and_then(|o| Some((o, result_pos(q, o)?))) else { return };
    if o > i {
        set_result(q, output, i);
    } else if o < i {
        set_result(q, input, o);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::layer_quant::Wrapping;
    use crate::scheme::Quantizer;
    use shiftwise_graph::graph::Graph;
    use shiftwise_graph::ops::{ActivationFn, Add, Dense, Input, Quantize, Weighted};
    use shiftwise_tensor::tensor::Tensor;

    fn quantizer(pos: i8) -> Quantizer {
        let entry = serde_json::json!({
            "quantizer_type": "Pof2SQuantizer", "quantizer_params": { "bit_width": 8, "method": 1, "round_mode": 1 },
        });
        let mut own = Quantizer::from_entry(&entry).unwrap();
        own.scheme_mut().set_pos(FixPos(pos));
        own
    }

    fn result(pos: i8) -> LayerQuant {
        let wrapping = Wrapping::Entry(Vec::new());
        LayerQuant { wrapping, output: Some(quantizer(pos)), ..LayerQuant::bare() }
    }

    /// An Add of quantized inputs at these positions, with its own.
    fn sum(inputs: &[i8], output: i8) -> QuantGraph {
        let mut graph = Graph::default();
        let mut layers = BTreeMap::new();
        let mut operands = Vec::new();
        for (k, pos) in inputs.iter().enumerate() {
            let input = graph.add(format!("x{k}"), Op::Input(Input { shape: vec![4] }), vec![], vec![]).unwrap();
            let q = graph.add(format!("quant_x{k}"), Op::Quantize(Quantize), vec![input], vec![]).unwrap();
            layers.insert(q, result(*pos));
            operands.push(q);
        }
        let add = graph.add("add", Op::Add(Add), operands, vec![]).unwrap();
        layers.insert(add, result(output));
        graph.outputs = vec![add];
        QuantGraph { graph, layers, metadata: crate::metadata::Metadata::default(), trained: false }
    }

    fn dense(w: i8, i: i8, b: i8, o: i8) -> QuantGraph {
        let mut graph = Graph::default();
        let input = graph.add("x", Op::Input(Input { shape: vec![2] }), vec![], vec![]).unwrap();
        let q = graph.add("quant_x", Op::Quantize(Quantize), vec![input], vec![]).unwrap();
        let own = Weighted {
            kernel: Tensor::zeros(&[2, 3]),
            bias: Some(Tensor::zeros(&[3])),
            activation: ActivationFn::Linear,
        };
        let dense = graph.add("dense", Op::Dense(Dense { w: own }), vec![q], vec![]).unwrap();
        graph.outputs = vec![dense];
        let weights = vec![Some(quantizer(w)), Some(quantizer(b))];
        let layers = BTreeMap::from([(q, result(i)), (dense, LayerQuant { weights, ..result(o) })]);
        QuantGraph { graph, layers, metadata: crate::metadata::Metadata::default(), trained: false }
    }

    fn refined(mut q: QuantGraph) -> Vec<i8> {
        refine(&mut q, &Strategy::built_in("pof2s").unwrap());
        positions(&q).iter().map(|p| p.0).collect()
    }

    #[test]
    fn one_operand_of_a_sum_gives_way_when_positions_spread_too_far() {
        assert_eq!(refined(sum(&[20, 2, 19], 2)), [17, 2, 19, 2]);
        assert_eq!(refined(sum(&[8, 7], 7)), [8, 7, 7]);
    }

    /// The vendor's tool stores ∓15 itself here.
    #[test]
    fn the_output_of_a_sum_stops_at_the_limit_of_its_shift() {
        assert_eq!(refined(sum(&[3, 3], 20)), [3, 3, 18]);
        assert_eq!(refined(sum(&[10, 10], -8)), [10, 10, -5]);
    }

    #[test]
    fn kernel_and_bias_give_way_to_the_shifter() {
        // Positions of input, kernel, bias, output; values observed from the vendor's tool.
        assert_eq!(refined(dense(9, 3, 8, 14)), [3, 11, 8, 14]);
        assert_eq!(refined(dense(14, 8, 8, 5)), [8, 13, 8, 5]);
        assert_eq!(refined(dense(7, 8, 51, 9)), [8, 7, 25, 9]);
    }
}
