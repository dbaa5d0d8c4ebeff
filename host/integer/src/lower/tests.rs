//! What holds of the integer form of any network.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::lower;
use crate::engine::Engine;
use crate::graph::{IntGraph, IntOpKind, Kind, TensorIx};
use crate::reasons::FloatWhy;
use shiftwise_graph::builder::Builder;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{
    Activate, ActivationFn, Add, AveragePooling2D, Concatenate, Conv2D, DepthwiseConv2D, Input, LeakyRelu,
    MaxPooling2D, Merge, Multiply, Op, PRelu, Padding, Permute, Relu, Weighted, ZeroPadding2D,
};
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::strategy::Strategy as Quantization;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tensor::values::Values;

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What decides one layer: its kind, where it reads, and its sizes.
type Choice = [u8; 6];

/// Float networks of up to ten layers; with `floats`, some of which a DPU has no integers for.
fn network(floats: bool) -> impl Strategy<Value = Graph> {
    let input = (2usize..9, 2usize..9, 1usize..6);
    (input, prop::collection::vec(any::<Choice>(), 1..10)).prop_map(move |((h, w, c), choices)| {
        let mut graph = Builder::new("drawn");
        let mut maps = vec![add(&mut graph, Op::Input(Input { shape: vec![h, w, c] }), &[])];
        for choice in choices {
            let made = layer(&mut graph, &maps, choice, floats);
            maps.push(made);
        }
        graph.finish(&[maps[maps.len() - 1]]).unwrap_or_else(|e| panic!("a network that was drawn is refused: {e}"))
    })
}

fn add(graph: &mut Builder, op: Op, inputs: &[NodeId]) -> NodeId {
    let name = format!("layer{}", graph.graph().nodes.len());
    graph.layer(&name, op, inputs).unwrap_or_else(|e| panic!("{e}"))
}

fn weights(shape: &[usize], seed: u8) -> Tensor {
    let n: usize = shape.iter().product();
    let value = |i: usize| ((i * 29 + usize::from(seed)) % 64) as f32 / 64.0 - 0.5;
    Tensor::new(shape.to_vec(), (0..n).map(value).collect()).unwrap_or_else(|| Tensor::zeros(&[0]))
}

fn layer(graph: &mut Builder, maps: &[NodeId], [kind, from, a, b, c, d]: Choice, floats: bool) -> NodeId {
    let x = maps[usize::from(from) % maps.len()];
    let shape = graph.graph().node(x).shape.clone();
    let [h, w, channels] = shape[..] else { unreachable!("maps have three dimensions") };
    let (kh, kw) = (1 + usize::from(a % 3).min(h - 1), 1 + usize::from(b % 3).min(w - 1));
    let activation = [ActivationFn::Linear, ActivationFn::Relu, ActivationFn::Relu6][usize::from(c % 3)];
    let padding = if d % 2 == 0 { Padding::Same } else { Padding::Valid };
    let weighted = |kernel: &[usize], outputs: usize| {
        let bias = (d % 3 > 0).then(|| weights(&[outputs], c));
        Weighted { kernel: weights(kernel, d), bias, activation }
    };
    let alike: Vec<NodeId> = maps.iter().copied().filter(|m| graph.graph().node(*m).shape == shape).collect();
    let mate = alike[usize::from(a) % alike.len()];
    let (strides, dilation) = ([1 + usize::from(c % 2), 1], [1, 1]);
    let (op, inputs) = match kind % if floats { 16 } else { 12 } {
        0..=2 => {
            let oc = 1 + usize::from(b % 9);
            let w = weighted(&[kh, kw, channels, oc], oc);
            (Op::Conv2D(Conv2D { w, strides, dilation, padding, groups: 1 }), vec![x])
        }
        3 => {
            let w = weighted(&[kh, kw, channels, 1], channels);
            (Op::DepthwiseConv2D(DepthwiseConv2D { w, strides: [1, 1], dilation, padding }), vec![x])
        }
        4 => (Op::Add(Add), vec![x, mate]),
        5 => (Op::Multiply(Multiply), vec![x, mate]),
        6 => (Op::Concatenate(Concatenate { axis: 2 }), vec![x, mate]),
        7 => (Op::MaxPooling2D(MaxPooling2D { pool: PoolWindow { size: [kh, kw], strides, padding } }), vec![x]),
        8 => {
            let size = kh.min(kw);
            let pool = PoolWindow { size: [size; 2], strides: [1, 1], padding: Padding::Valid };
            (Op::AveragePooling2D(AveragePooling2D { pool, dpu: false }), vec![x])
        }
        9 => (Op::Relu(Relu::PLAIN), vec![x]),
        10 => {
            let sides = |n: u8| [usize::from(n % 2), usize::from(n / 2 % 2)];
            (Op::ZeroPadding2D(ZeroPadding2D { rows: sides(a), columns: sides(b) }), vec![x])
        }
        11 => (Op::Permute(Permute { dims: [[1, 0, 2], [2, 1, 0]][usize::from(a % 2)].to_vec() }), vec![x]),
        12 => (Op::PRelu(PRelu { alpha: weights(&[1, 1, channels], d), shared_axes: vec![1, 2] }), vec![x]),
        13 => (Op::LeakyRelu(LeakyRelu { alpha: 0.25 }), vec![x]),
        14 => (Op::Merge(Merge::Subtract), vec![x, mate]),
        _ => (Op::Activation(Activate { function: ActivationFn::Tanh }), vec![x]),
    };
    add(graph, op, &inputs)
}

/// The integer form of a network whose positions mean nothing, weights of `bits`.
fn integers(graph: &Graph, bits: u8) -> IntGraph {
    let mut strategy = Quantization::built_in("pof2s").unwrap();
    strategy.set("weight_bit", json!(bits)).unwrap();
    lower(&without_data(graph.clone(), &strategy).unwrap()).unwrap()
}

fn shapes(graph: &IntGraph, tensors: &[TensorIx]) -> Vec<Vec<usize>> {
    tensors.iter().map(|t| graph.tensors[t.0].shape.clone()).collect()
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn the_integer_form_is_verified_and_has_the_networks_inputs_and_outputs(graph in network(true)) {
        let form = integers(&graph, 8);
        prop_assert!(form.verify().is_ok());
        let own = |ids: &[NodeId]| ids.iter().map(|id| graph.node(*id).shape.clone()).collect::<Vec<_>>();
        prop_assert_eq!(shapes(&form, &form.inputs), own(&graph.inputs));
        prop_assert_eq!(shapes(&form, &form.outputs), own(&graph.outputs));
    }

    #[test]
    fn every_op_is_of_layers_of_the_network_and_every_layer_that_computes_has_an_op(graph in network(true)) {
        let form = integers(&graph, 8);
        let known: BTreeSet<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
        let mut seen = BTreeSet::new();
        for op in &form.ops {
            // What turns integers to floats is of no layer.
            prop_assert!(op.layer.is_empty() == matches!(op.kind, IntOpKind::Dequantize), "{:?}", op);
            seen.extend(op.layer.split('+').filter(|l| !l.is_empty()));
        }
        prop_assert!(seen.is_subset(&known), "{:?} of {:?}", seen, known);
        // Inputs are tensors, not ops, unless something is done to them; what nothing reads may be left out.
        let reached = reached(&graph);
        for node in graph.ids().filter(|id| reached.contains(id) && !graph.inputs.contains(id)) {
            prop_assert!(seen.contains(graph.node(node).name.as_str()), "{}", graph.node(node).name);
        }
    }

    #[test]
    fn signed_8_bits_are_never_the_reason_for_floats(graph in network(true)) {
        for op in &integers(&graph, 8).ops {
            if let IntOpKind::Float { why, .. } = &op.kind {
                let grid = ["weight_range", "weight_scheme", "scheme", "format"].contains(&why.code());
                prop_assert!(!grid, "{}: {}", op.layer, why);
            }
        }
    }

    #[test]
    fn a_layer_in_floats_has_a_reason_with_a_code_and_a_sentence(graph in network(true), bits in 4u8..=16) {
        for op in &integers(&graph, bits).ops {
            let IntOpKind::Float { why, .. } = &op.kind else { continue };
            prop_assert!(FloatWhy::CODES.contains(&why.code()));
            let text = why.to_string();
            prop_assert!(!text.is_empty() && !text.contains("FloatWhy"), "{}", text);
        }
    }

    #[test]
    fn weights_of_up_to_16_bits_are_never_the_reason_for_floats(graph in network(false), bits in 2u8..=16) {
        for op in &integers(&graph, bits).ops {
            if let IntOpKind::Float { why, .. } = &op.kind {
                prop_assert!(why.code() != "weight_range", "{}: {}", op.layer, why);
            }
        }
    }

    #[test]
    fn the_engine_fills_every_tensor_with_what_its_kind_and_shape_say(graph in network(true), seed: u8) {
        let form = integers(&graph, 8);
        let data: Vec<Vec<f32>> =
            shapes(&form, &form.inputs).iter().map(|s| weights(s, seed).into_data()).collect();
        let engine = Engine::new(&form);
        let slices: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        let values = engine.run(engine.quantize_inputs(&slices).unwrap(), |_| true);
        for (tensor, value) in form.tensors.iter().zip(values) {
            let size: usize = tensor.shape.iter().product();
            match (tensor.kind, value) {
                (Kind::Fixed(_) | Kind::Scaled(_), Some(Values::Int8(q))) => prop_assert_eq!(q.len(), size),
                (Kind::Float, Some(Values::Float(x))) => prop_assert_eq!(x.len(), size),
                (kind, value) => prop_assert!(false, "{}: {:?} holds {:?}", tensor.name, kind, value),
            }
        }
    }

    #[test]
    fn a_form_in_which_one_thing_is_changed_is_refused(
        graph in network(false),
        at: prop::sample::Index,
        change in 0usize..7,
    ) {
        let mut form = integers(&graph, 8);
        let at = at.index(form.ops.len());
        let output = form.ops[at].output;
        let beyond = TensorIx(form.tensors.len());
        let mut changed = true;
        match change {
            // A view and a pad with nothing around it may lose a dimension of size 1, so a size changes and no rank.
            0 => match form.tensors[output.0].shape.first_mut() {
                Some(d) => *d += 1,
                None => changed = false,
            },
            1 => changed = form.ops[at].inputs.pop().is_some(),
            2 => form.ops[at].inputs.push(beyond),
            3 => form.outputs.push(beyond),
            4 => form.ops.push(form.ops[at].clone()),
            5 => form.ops[at].inputs.iter_mut().for_each(|t| *t = output),
            _ => match &mut form.ops[at].kind {
                IntOpKind::Conv(c) | IntOpKind::Depthwise(c) | IntOpKind::ConvTranspose(c) => c.kernel.push(0),
                _ => changed = false,
            },
        }
        prop_assume!(changed);
        prop_assert!(form.verify().is_err());
    }
}

/// The layers that the outputs depend on.
fn reached(graph: &Graph) -> BTreeSet<NodeId> {
    let mut open = graph.outputs.clone();
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            open.extend(&graph.node(id).inputs);
        }
    }
    seen
}

#[test]
fn no_two_reasons_share_a_code() {
    let unique: BTreeSet<_> = FloatWhy::CODES.iter().collect();
    assert_eq!(unique.len(), FloatWhy::CODES.len());
}
