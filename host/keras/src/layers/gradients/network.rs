//! Whole networks: gradients add up where paths meet, do not depend on threads, and pass what sits between layers.

use serde_json::{Value, json};

use super::{Weights, check, numbers, weights_of};
use crate::layers::{Config, read};
use shiftwise_graph::backward::{Gradients, Mode, Wanted, backward, forward};
use shiftwise_graph::builder::Builder;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::{NoPoints, Point, Points};
use shiftwise_graph::graph::{Graph, NodeId};
use shiftwise_graph::ops::{Input, Op};
use shiftwise_tensor::tensor::Tensor;

fn layer(made: &mut Builder, class: &str, config: &Value, inputs: &[NodeId]) -> NodeId {
    let graph = made.graph();
    let shapes: Vec<&[usize]> = inputs.iter().map(|i| graph.node(*i).shape.as_slice()).collect();
    let source = &mut Weights(100 * graph.nodes.len() as u64);
    let op = read(class, Config(config.as_object().unwrap()), &shapes, source).unwrap().unwrap();
    let name = format!("{}_{class}", graph.nodes.len());
    made.layer(&name, op, inputs).unwrap()
}

/// Two convolutions that meet again, a normalization, a pool and a classifier; two outputs, one inside.
fn network() -> Graph {
    let mut graph = Builder::default();
    let x = graph.layer("x", Op::Input(Input { shape: vec![8, 8, 3] }), &[]).unwrap();
    let conv = json!({ "filters": 6, "kernel_size": 3, "padding": "same", "activation": "tanh" });
    let a = layer(&mut graph, "Conv2D", &conv, &[x]);
    let b = layer(&mut graph, "DepthwiseConv2D", &json!({ "kernel_size": 3, "padding": "same" }), &[a]);
    let b = layer(&mut graph, "BatchNormalization", &json!({}), &[b]);
    let b = layer(&mut graph, "Activation", &json!({ "activation": "swish" }), &[b]);
    let sum = layer(&mut graph, "Add", &json!({}), &[a, b]);
    let joined = layer(&mut graph, "Concatenate", &json!({}), &[sum, a]);
    let pooled = layer(&mut graph, "AveragePooling2D", &json!({}), &[joined]);
    let up = layer(&mut graph, "Conv2DTranspose", &json!({ "filters": 2, "kernel_size": 3, "strides": 2 }), &[pooled]);
    let mean = layer(&mut graph, "GlobalAveragePooling2D", &json!({}), &[pooled]);
    let y = layer(&mut graph, "Dense", &json!({ "units": 5, "activation": "softmax" }), &[mean]);
    let graph = graph.unordered(&[y, up]).unwrap();
    graph.verify().unwrap();
    graph
}

fn batch(samples: usize) -> Tensor {
    Tensor::new(vec![samples, 8, 8, 3], numbers(5, samples * 192)).unwrap()
}

#[test]
fn a_networks_gradients_are_its_differences() {
    check("network", &network(), &[batch(2)]);
}

fn gradients(mode: Mode, wanted: Wanted) -> Gradients {
    let graph = network();
    let run = forward(&graph, &weights_of(&graph), vec![batch(7)], &mut NoPoints, mode).unwrap();
    let dy = run.outputs.iter().map(|y| Tensor::new(y.shape().to_vec(), numbers(9, y.data().len())).unwrap()).collect();
    backward(&graph, run.tape, dy, &mut NoPoints, wanted).unwrap()
}

#[test]
fn gradients_have_the_same_bytes_for_any_number_of_threads() {
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| gradients(Mode::Train, Wanted::ParamsAndInputs));
        let tensors = found.params.into_iter().flatten().chain(found.inputs).flatten();
        tensors.flat_map(|t| t.into_data()).map(f32::to_bits).collect::<Vec<u32>>()
    };
    let one = with(1);
    assert!(one.len() > 7 * 192);
    for threads in [2, 3, 8] {
        assert_eq!(with(threads), one, "{threads} threads");
    }
}

#[test]
fn gradients_of_weights_are_the_same_without_those_of_inputs() {
    let (all, params) = (gradients(Mode::Infer, Wanted::ParamsAndInputs), gradients(Mode::Infer, Wanted::Params));
    assert_eq!(all.params, params.params);
    assert!(all.inputs[0].is_some() && params.inputs[0].is_none());
}

/// Doubles the result of every layer before its activation, and doubles the gradient; notes the order.
#[derive(Default)]
struct Doubled {
    seen: Vec<Point>,
    halves: Vec<f32>,
}

impl Points for Doubled {
    fn apply(&mut self, point: Point, tensor: &mut Tensor) -> Result<(), Error> {
        if self.differentiates(point) {
            self.halves.push(tensor.data()[0]);
            tensor.data_mut().iter_mut().for_each(|x| *x *= 2.0);
        }
        Ok(())
    }
    fn differentiates(&self, point: Point) -> bool {
        matches!(point, Point::PreActivation(NodeId(1..)))
    }
    fn backward(&mut self, point: Point, x: &Tensor, dy: &mut Tensor) -> Result<(), Error> {
        self.seen.push(point);
        assert_eq!(Some(x.data()[0]), self.halves.pop(), "{point:?} sees what it was given");
        dy.data_mut().iter_mut().for_each(|d| *d *= 2.0);
        Ok(())
    }
}

#[test]
fn what_sits_on_a_tensor_changes_its_gradient_in_reverse_order() {
    let mut graph = Builder::default();
    let x = graph.layer("x", Op::Input(Input { shape: vec![2] }), &[]).unwrap();
    let square = json!({ "function": "math.square", "call": { "args": [{ "tensor": 0 }] } });
    let a = layer(&mut graph, "TFOpLambda", &square, &[x]);
    let y = layer(&mut graph, "TFOpLambda", &square, &[a]);
    let graph = graph.unordered(&[y]).unwrap();
    let mut points = Doubled::default();
    let given = Tensor::new(vec![1, 2], vec![0.5, -1.0]).unwrap();
    let run = forward(&graph, &weights_of(&graph), vec![given], &mut points, Mode::Infer).unwrap();
    // 2 · (2 · x²)² = 8 · x⁴, whose derivative is 32 · x³.
    assert_eq!(run.outputs[0].data(), [0.5, 8.0]);
    let ones = Tensor::new(vec![1, 2], vec![1.0; 2]).unwrap();
    let found = backward(&graph, run.tape, vec![ones], &mut points, Wanted::ParamsAndInputs).unwrap();
    assert_eq!(found.inputs[0].as_ref().unwrap().data(), [4.0, -32.0]);
    assert_eq!(points.seen, [Point::PreActivation(y), Point::PreActivation(a)]);
}
