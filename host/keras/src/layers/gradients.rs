//! Gradients: every row of `keras_layers!` and every function against differences; what differences do not show is in the files below.
//!
//! The loss of a test is Σ r · y with fixed numbers r. Its derivative by one number is taken from the float engine by the
//! five-point formula at ±h and ±2h with h = 1/128. The engine computes in f32, the sum is kept in f64: rounding is then
//! about 2⁻²⁴ · 1.5 / h ≈ 1.2e-5 of the outputs that the number reaches, the formula's own error h⁴/30 · f⁽⁵⁾ < 1e-9 of the
//! curvature here. The tolerance, 1e-3 of the largest derivative (at least of 1), leaves room for outputs of up to 50.
//! Inputs lie on a lattice whose points keep 2h away from the kinks of all functions, and from each other.

mod network;
pub(super) mod rows;
mod training;

use serde_json::{Map, Value, json};

use crate::layers::functions::names;
use crate::layers::{CLASSES, Config, WeightSource, read};
use rows::{Row, layers, tensorflow_functions};
use shiftwise_graph::backward::{Mode, NoGradient, ParamKind, Wanted, backward, forward, params};
use shiftwise_graph::builder::Builder;
use shiftwise_graph::eval::{self, NoPoints};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{ActivationFn, Input, Op};
use shiftwise_tensor::tensor::Tensor;

const STEP: f64 = 1.0 / 128.0;

/// Numbers from −1 to 1 that look random and are the same in every run.
pub(super) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(next).collect()
}

/// Input `k`: a shuffled lattice with steps of 0.13 around 0.05 + 0.04 · k, or above 0.3.
fn lattice(k: usize, shape: &[usize], positive: bool) -> Tensor {
    let count: usize = shape.iter().product();
    let mut order: Vec<usize> = (0..count).collect();
    let keys = numbers(k as u64 + 11, count);
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    let first = if positive { 0.3 } else { 0.05 - 0.13 * (count / 2) as f32 };
    let data = order.iter().map(|i| first + 0.13 * *i as f32 + 0.04 * k as f32).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

/// Weights from −0.5 to 0.5; variances from 0.5 to 1.
struct Weights(u64);

impl WeightSource for Weights {
    fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, String> {
        self.0 += 1;
        let value = |v: f32| if name.ends_with("variance") { 0.5 + 0.5 * v.abs() } else { 0.5 * v };
        let data = numbers(self.0, shape.iter().product()).into_iter().map(value).collect();
        Tensor::new(shape.to_vec(), data).ok_or_else(|| "its shape is wrong".into())
    }
}

/// A graph of one layer over inputs of the row's shapes.
fn graph_of(class: &str, config: &Value, shapes: &[Vec<usize>]) -> Graph {
    let settings: Map<String, Value> = config.as_object().cloned().unwrap();
    let of: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    let mut builder = Builder::default();
    let mut add_input = |(k, shape): (usize, &Vec<usize>)| {
        builder.layer(&format!("x{k}"), Op::Input(Input { shape: shape.clone() }), &[]).unwrap()
    };
    let inputs: Vec<NodeId> = shapes.iter().enumerate().map(&mut add_input).collect();
    let op = read(class, Config(&settings), &of, &mut Weights(0));
    let op = op.unwrap_or_else(|| panic!("{class} is unknown")).unwrap_or_else(|e| panic!("{class} {config}: {e}"));
    let y = builder.layer("y", op, &inputs).unwrap_or_else(|e| panic!("{class}: {e}"));
    builder.unordered(&[y]).unwrap()
}

pub(super) fn weights_of(graph: &Graph) -> Vec<Vec<Tensor>> {
    graph.nodes.iter().map(|n| n.op.layer().weights().into_iter().map(|(_, w)| w.clone()).collect()).collect()
}

/// Σ r · y in f64, by the float engine.
fn loss(graph: &Graph, weights: &[Vec<Tensor>], inputs: &[Tensor], r: &[Tensor]) -> f64 {
    let outputs = eval::run(graph, weights, inputs.to_vec(), &mut NoPoints).unwrap();
    let dot = |(y, r): (&Tensor, &Tensor)| -> f64 {
        y.data().iter().zip(r.data()).map(|(y, r)| f64::from(*y) * f64::from(*r)).sum()
    };
    outputs.iter().zip(r).map(dot).sum()
}

/// The five-point formula: `f(h)` is the function at a distance of h.
fn difference(mut f: impl FnMut(f64) -> f64, h: f64) -> f64 {
    (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)
}

/// Fails unless a gradient has its differences, of which at most 60, spread evenly, are taken.
fn compare(what: &str, gradient: &Tensor, mut at: impl FnMut(usize, f32) -> f64) {
    let n = gradient.data().len();
    let picked = (0..n).step_by(n.div_ceil(60).max(1));
    let pairs: Vec<(usize, f64, f64)> =
        picked.map(|i| (i, f64::from(gradient.data()[i]), difference(|h| at(i, h as f32), STEP))).collect();
    let largest = pairs.iter().fold(1.0f64, |m, (_, _, d)| m.max(d.abs()));
    for (i, own, wanted) in pairs {
        assert!((own - wanted).abs() <= 1e-3 * largest, "{what}[{i}]: the gradient is {own}, the difference {wanted}");
    }
}

fn nudged(t: &Tensor, i: usize, h: f32) -> Tensor {
    let mut t = t.clone();
    t.data_mut()[i] += h;
    t
}

/// Compares all gradients of a graph in [`Mode::Infer`] with differences.
pub(super) fn check(what: &str, graph: &Graph, inputs: &[Tensor]) {
    let weights = weights_of(graph);
    let run = forward(graph, &weights, inputs.to_vec(), &mut NoPoints, Mode::Infer).unwrap();
    let plain = eval::run(graph, &weights, inputs.to_vec(), &mut NoPoints).unwrap();
    assert_eq!(run.outputs, plain, "{what}: forward is not the float engine");
    let r: Vec<Tensor> = (run.outputs.iter().enumerate())
        .map(|(k, y)| Tensor::new(y.shape().to_vec(), numbers(k as u64 + 77, y.data().len())).unwrap())
        .collect();
    let found = backward(graph, run.tape, r.clone(), &mut NoPoints, Wanted::ParamsAndInputs);
    let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
    for (k, x) in inputs.iter().enumerate() {
        let zeros = Tensor::zeros(x.shape());
        let gradient = found.inputs[k].as_ref().unwrap_or(&zeros);
        assert_eq!(gradient.shape(), x.shape(), "{what}: input {k}");
        compare(&format!("{what}: input {k}"), gradient, |i, h| {
            let mut inputs = inputs.to_vec();
            inputs[k] = nudged(x, i, h);
            loss(graph, &weights, &inputs, &r)
        });
    }
    for (id, node) in graph.nodes.iter().enumerate() {
        for (k, param) in params(&node.op).iter().enumerate() {
            let gradient = found.params[id][k].as_ref();
            if param.kind == ParamKind::Statistic {
                assert!(gradient.is_none(), "{what}: {} has a gradient", param.name);
                continue;
            }
            let gradient = gradient.unwrap_or_else(|| panic!("{what}: {} has no gradient", param.name));
            assert_eq!(gradient.shape(), param.value.shape(), "{what}: {}", param.name);
            compare(&format!("{what}: {} of {}", param.name, node.name), gradient, |i, h| {
                let mut weights = weights.clone();
                weights[id][k] = nudged(&weights[id][k], i, h);
                loss(graph, &weights, inputs, &r)
            });
        }
    }
}

/// Layers without a gradient, and why.
const WITHOUT: &[(&str, NoGradient)] =
    &[("VitisLayernorm", NoGradient::Bfloat16Steps), ("VitisSoftmax", NoGradient::Bfloat16Steps)];

#[test]
fn every_layer_has_its_differences_as_gradient_or_says_why_it_has_none() {
    let rows = layers();
    // Every graph here begins with input layers.
    for class in CLASSES.iter().filter(|class| **class != "InputLayer") {
        assert!(rows.iter().any(|row| row.class == *class), "{class} has no row in this test");
    }
    for Row { class, config, shapes, positive } in &rows {
        let graph = graph_of(class, config, shapes);
        let batch = |(k, shape): (usize, &Vec<usize>)| lattice(k, &[&[2], shape.as_slice()].concat(), *positive);
        let inputs: Vec<Tensor> = shapes.iter().enumerate().map(batch).collect();
        let Some((_, reason)) = WITHOUT.iter().find(|(own, _)| own == class) else {
            check(&format!("{class} {config}"), &graph, &inputs);
            continue;
        };
        let run = forward(&graph, &weights_of(&graph), inputs, &mut NoPoints, Mode::Infer).unwrap();
        let refused = backward(&graph, run.tape, run.outputs, &mut NoPoints, Wanted::ParamsAndInputs).unwrap_err();
        assert!(refused.to_string().ends_with(&reason.to_string()), "{class}: {refused}");
    }
}

#[test]
fn every_activation_attribute_has_its_differences_as_gradient() {
    for name in rows::ACTIVATIONS {
        assert!(ActivationFn::from_name(name).is_some(), "{name}");
        let graph = graph_of("Activation", &json!({ "activation": name }), &[vec![2, 9]]);
        check(name, &graph, &[lattice(0, &[2, 2, 9], false)]);
        // Behind a layer of its own, whose result is not on the lattice: small weights keep it off the kinks at ±2.5, ±3, 6.
        let smooth = !name.contains("relu") && !name.contains("hard");
        if smooth {
            let graph = graph_of("Dense", &json!({ "units": 4, "activation": name }), &[vec![3]]);
            check(name, &graph, &[lattice(0, &[2, 3], false)]);
        }
    }
}

#[test]
fn every_tensorflow_function_has_its_differences_as_gradient() {
    for function in names() {
        assert!(
            tensorflow_functions().iter().any(|(name, ..)| *name == function),
            "{function} has no row in this test"
        );
    }
    for (name, arguments, shapes, positive) in tensorflow_functions() {
        let first = arguments.get("first").cloned().unwrap_or(json!({ "tensor": 0 }));
        let mut named = arguments.as_object().cloned().unwrap();
        named.shift_remove("first");
        let config = json!({ "function": name, "call": { "args": [first], "kwargs": named } });
        let graph = graph_of("TFOpLambda", &config, &shapes);
        let batch = |(k, shape): (usize, &Vec<usize>)| lattice(k, &[&[2], shape.as_slice()].concat(), positive);
        let inputs: Vec<Tensor> = shapes.iter().enumerate().map(batch).collect();
        if name == "stop_gradient" {
            let run = forward(&graph, &weights_of(&graph), inputs, &mut NoPoints, Mode::Infer).unwrap();
            let found = backward(&graph, run.tape, run.outputs, &mut NoPoints, Wanted::ParamsAndInputs).unwrap();
            assert_eq!(found.inputs, [None]);
            continue;
        }
        check(&format!("{name} {config}"), &graph, &inputs);
    }
}
