use super::grids::Integers;
use super::*;
use shiftwise_core::arith::Round;
use shiftwise_core::fix::FixPos;
use shiftwise_graph::ops::{Conv2D, Input, Padding, Quantize, Relu, Weighted};
use shiftwise_tensor::tensor::Tensor;

fn add(graph: &mut Graph, name: &str, op: Op, inputs: &[NodeId]) -> NodeId {
    graph.add(name, op, inputs.to_vec(), vec![name.to_owned()]).unwrap()
}

fn position(pos: i8) -> Quantizer {
    grids::of_positions(Integers::INT8, Round::HalfUp, &[FixPos(pos)], None)
}

/// `x → quantize → conv → relu → quantize`, with a second reader of the convolution if asked.
fn network(split: bool) -> Apart {
    let mut graph = Graph::default();
    let x = add(&mut graph, "x", Op::Input(Input { shape: vec![2, 2, 1] }), &[]);
    let qx = add(&mut graph, "qx", Op::Quantize(Quantize), &[x]);
    let kernel = Tensor::new(vec![1, 1, 1, 1], vec![0.5]).unwrap();
    let w = Weighted { kernel, bias: Some(Tensor::vector(vec![0.25])), activation: ActivationFn::Linear };
    let conv = Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 };
    let conv = add(&mut graph, "conv", Op::Conv2D(conv), &[qx]);
    let relu = add(&mut graph, "relu", Op::Relu(Relu::PLAIN), &[conv]);
    let q = add(&mut graph, "q", Op::Quantize(Quantize), &[relu]);
    (graph.inputs, graph.outputs) = (vec![x], if split { vec![q, relu] } else { vec![q] });
    let results = BTreeMap::from([(qx, position(7)), (q, position(5))]);
    Apart { graph, results, ..Apart::default() }
}

#[test]
fn a_convolution_leaves_its_quantizer_to_the_activation_behind_it() {
    let Model::Quantized(q) = model(network(false)).unwrap() else { panic!("a quantized model") };
    let names: Vec<String> = q.graph.ids().map(|id| q.quant_name(id)).collect();
    assert_eq!(names, ["x", "qx", "quant_conv", "quant_relu"]);
    let conv = q.graph.find("conv").unwrap();
    let own = &q.layers[&conv];
    assert_eq!(own.activation, ActivationQuant::Deferred);
    // 0.5 is 64 at position 7, and 0.25 at position 8.
    let positions: Vec<_> = own.weights.iter().map(|w| w.as_ref().unwrap().scheme().pos().unwrap().0).collect();
    assert_eq!(positions, [7, 8]);
    let relu = q.graph.find("relu").unwrap();
    assert_eq!(q.layers[&relu].result(), Some(&position(5)));
}

#[test]
fn a_quantizer_of_a_value_that_something_else_reads_too_stays_apart() {
    let Model::Quantized(q) = model(network(true)).unwrap() else { panic!("a quantized model") };
    assert!(matches!(q.graph.node(q.graph.find("q").unwrap()).op, Op::Quantize(_)));
    assert!(!q.layers.contains_key(&q.graph.find("relu").unwrap()));
}

#[test]
fn a_network_without_quantizers_is_a_float_model() {
    let mut apart = network(false);
    apart.results.clear();
    assert!(matches!(model(apart).unwrap(), Model::Float(_)));
}
