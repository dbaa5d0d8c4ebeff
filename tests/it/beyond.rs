//! Where the vendor's tool is wrong, stops or hangs, and the right thing is done: the entries of `DIVERGENCES.md`.

use serde_json::{Map, Value, json};
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{
    ActivationFn, Config, Conv2D, Cropping2D, Dense, Flatten, Input, Op, Padding, Relu, Reshape, SeparableConv2D,
    WeightSource, Weighted,
};
use shiftwise_quant::passes::{DPU_VERSION, OPTIMIZE, run};
use shiftwise_quant::pipeline::{Ptq, PtqOptions, ptq};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::{Numbers, Quantizer};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::networks::random_samples;

fn numbers(shape: &[usize], scale: f32) -> Tensor {
    let data = (0..shape.iter().product::<usize>()).map(|i| ((i * 37 % 23) as f32 - 11.0) * scale).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

fn conv(channels: [usize; 2], activation: ActivationFn) -> Op {
    let w = Weighted {
        kernel: numbers(&[1, 1, channels[0], channels[1]], 0.05),
        bias: Some(numbers(&[channels[1]], 0.02)),
        activation,
    };
    Op::Conv2D(Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 })
}

/// A chain of layers behind an input of 6x6x3.
fn chain(layers: Vec<(&str, Op)>) -> Graph {
    let mut graph = Graph { name: "chain".into(), ..Graph::default() };
    let mut at = graph.add("image", Op::Input(Input { shape: vec![6, 6, 3] }), vec![], vec!["image".into()]).unwrap();
    graph.inputs = vec![at];
    for (name, op) in layers {
        at = graph.add(name, op, vec![at], vec![name.to_owned()]).unwrap();
    }
    graph.outputs = vec![at];
    graph.normalize();
    graph.verify().unwrap();
    graph
}

fn quantized(graph: &Graph, settings: &[(&str, Value)]) -> Ptq {
    let mut strategy = Strategy::built_in("pof2s").unwrap();
    for (key, value) in settings {
        strategy.set(key, value.clone()).unwrap();
    }
    ptq(graph.clone(), &random_samples(graph, 5, 8), &PtqOptions::new(strategy), |_, _| {}).unwrap()
}

/// Names of the wrapped layers and quantizers, in order.
fn names(q: &QuantGraph) -> Vec<String> {
    q.layers.keys().map(|id| q.quant_name(*id)).collect()
}

/// Both arithmetics, value by value.
fn agree(graph: &Graph, q: &QuantGraph) {
    let dump = |numerics| golden(q, Some(random_samples(graph, 9, 2)), numerics, &DumpOptions::default()).unwrap();
    assert_eq!(dump(Numerics::Dpu), dump(Numerics::Vendor));
}

#[test]
fn the_activation_of_a_separable_convolution_is_kept() {
    let w = Weighted { kernel: numbers(&[1, 1, 3, 4], 0.1), bias: None, activation: ActivationFn::Relu };
    let separable = SeparableConv2D {
        depthwise: numbers(&[3, 3, 3, 1], 0.1),
        w,
        strides: [1, 1],
        dilation: [1, 1],
        padding: Padding::Same,
    };
    let mut graph = chain(vec![("sep", Op::SeparableConv2D(separable))]);
    let samples = random_samples(&graph, 3, 2);
    let want = run_float(&graph, samples.clone()).unwrap();
    run(OPTIMIZE, &mut graph, &Strategy::built_in("pof2s").unwrap()).unwrap();
    assert!(graph.find("sep_pointwise_conv_relu").is_some(), "{}", graph.to_text());
    let got = run_float(&graph, samples).unwrap();
    assert!(want[0].data().iter().zip(got[0].data()).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(got[0].data().iter().all(|v| *v >= 0.0));
}

struct NoWeights;

impl WeightSource for NoWeights {
    fn take(&mut self, name: &str, _: &[usize]) -> Result<Tensor, String> {
        Err(format!("{name} is asked for"))
    }
}

/// A TensorFlow function of one tensor and a constant.
fn function(name: &str, constant: f64) -> Op {
    let config = json!({ "function": name, "call": { "args": [{ "tensor": 0 }], "kwargs": { "y": constant } } });
    let config: Map<String, Value> = config.as_object().unwrap().clone();
    Op::from_keras("TFOpLambda", Config(&config), &[&[6, 6, 3]], &mut NoWeights).unwrap().unwrap()
}

#[test]
fn only_a_hard_sigmoid_becomes_one() {
    let six = || Op::Relu(Relu { max_value: Some(6.0), ..Relu::PLAIN });
    for (sum, factor, hard) in [(3.0, 1.0 / 6.0, true), (2.0, 1.0 / 6.0, false), (3.0, 0.2, false)] {
        let mut graph = chain(vec![
            ("sum", function("math.add", sum)),
            ("clip", six()),
            ("product", function("math.multiply", factor)),
        ]);
        run(DPU_VERSION, &mut graph, &Strategy::built_in("pof2s").unwrap()).unwrap();
        assert_eq!(graph.find("vitis_sigmoid").is_some(), hard, "{sum} {factor}");
    }
}

#[test]
fn input_layers_may_name_a_layer_that_is_quantized() {
    let graph = chain(vec![
        ("c1", conv([3, 4], ActivationFn::Relu)),
        ("c2", conv([4, 4], ActivationFn::Linear)),
        ("c3", conv([4, 2], ActivationFn::Linear)),
    ]);
    let from_c2 = quantized(&graph, &[("input_layers", json!(["c2"]))]);
    assert_eq!(
        names(&from_c2.quantized),
        ["quant_c1", "quant_c2", "quant_c3"],
        "c1 stays float, its result is quantized"
    );
    let c1 = from_c2.quantized.graph.find("c1").unwrap();
    assert!(!from_c2.quantized.layers.contains_key(&c1));
    agree(&graph, &from_c2.quantized);
    // A name that doesn't exist is a warning, and the model's own inputs are used.
    let unknown = quantized(&graph, &[("input_layers", json!(["c7"]))]);
    assert_eq!(unknown.warnings.len(), 1);
    assert_eq!(names(&unknown.quantized), names(&quantized(&graph, &[]).quantized));
    let both = quantized(&graph, &[("input_layers", json!(["c2"])), ("output_layers", json!(["c2"]))]);
    assert_eq!(names(&both.quantized), ["quant_c1", "quant_c2"]);
}

#[test]
fn positions_may_be_per_channel_everywhere() {
    let graph = chain(vec![("c1", conv([3, 4], ActivationFn::Relu)), ("c2", conv([4, 2], ActivationFn::Linear))]);
    let all = ["weight", "bias", "activation", "input"].map(|what| format!("{what}_per_channel"));
    let settings: Vec<(&str, Value)> = all.iter().map(|key| (key.as_str(), json!(true))).collect();
    let q = quantized(&graph, &settings).quantized;
    let channels = |id: NodeId| match &q.layers[&id].result().unwrap().scheme().parts()[0].values {
        Numbers::State(values) => values.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(channels(q.graph.find("c2").unwrap()), 2);
    assert_eq!(channels(q.graph.find("quant_image").unwrap()), 3);
    agree(&graph, &q);
}

#[test]
fn fix_neuron_arithmetic_applies() {
    let graph = chain(vec![("c1", conv([3, 4], ActivationFn::Relu)), ("c2", conv([4, 2], ActivationFn::Linear))]);
    let q = quantized(&graph, &[("use_fixneuron_quant", json!(1))]).quantized;
    let c1 = &q.layers[&q.graph.find("c1").unwrap()];
    let fix_neuron = |own: Option<&Quantizer>| own.unwrap().scheme().parameters()["use_fixneuron_quant"].clone();
    assert_eq!(fix_neuron(c1.weights[0].as_ref()), 2);
    assert_eq!(fix_neuron(q.layers[&q.graph.find("c2").unwrap()].result()), 1);
    agree(&graph, &q);
}

#[test]
fn a_dense_layer_reads_flattened_rows_and_maps_of_any_rank() {
    for target in [vec![36i64, 3], vec![2, 3, 6, 3], vec![108]] {
        let flat = Weighted { kernel: numbers(&[108, 4], 0.01), bias: None, activation: ActivationFn::Linear };
        let graph = chain(vec![
            ("conv", conv([3, 3], ActivationFn::Relu)),
            ("rows", Op::Reshape(Reshape { target: target.clone() })),
            ("flat", Op::Flatten(Flatten)),
            ("dense", Op::Dense(Dense { w: flat })),
        ]);
        agree(&graph, &quantized(&graph, &[]).quantized);
    }
}

#[test]
fn a_layer_may_not_have_the_quantized_name_of_another() {
    // The second layer stays float and so keeps its name.
    let crop = Op::Cropping2D(Cropping2D { rows: [1, 0], columns: [0, 1] });
    let graph = chain(vec![("a", conv([3, 3], ActivationFn::Linear)), ("quant_a", crop)]);
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    let refused = ptq(graph.clone(), &random_samples(&graph, 5, 8), &options, |_, _| {}).unwrap_err().to_string();
    assert!(refused.contains("`quant_a`") && refused.contains("`a`"), "{refused}");
}
