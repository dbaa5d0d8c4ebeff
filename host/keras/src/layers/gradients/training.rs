//! Batch normalization with the statistics of its batch, ties as TensorFlow breaks them, and layers without a gradient.

use std::sync::Arc;

use serde_json::json;

use super::{difference, graph_of, numbers, weights_of};
use shiftwise_graph::backward::{Mode, NoGradient, ParamKind, Wanted, backward, forward, params};
use shiftwise_graph::builder::Builder;
use shiftwise_graph::eval::NoPoints;
use shiftwise_graph::ops::custom::Unknown;
use shiftwise_graph::ops::{Custom, Input, Op};
use shiftwise_tensor::tensor::Tensor;

/// The inputs' gradient of a layer for a result's gradient.
fn input_gradient(class: &str, config: serde_json::Value, inputs: &[Tensor], dy: Tensor) -> Vec<Tensor> {
    let shapes: Vec<Vec<usize>> = inputs.iter().map(|x| x.shape()[1..].to_vec()).collect();
    let graph = graph_of(class, &config, &shapes);
    let run = forward(&graph, &weights_of(&graph), inputs.to_vec(), &mut NoPoints, Mode::Infer).unwrap();
    let found = backward(&graph, run.tape, vec![dy], &mut NoPoints, Wanted::ParamsAndInputs).unwrap();
    found.inputs.into_iter().map(|d| d.unwrap()).collect()
}

/// Batch normalization in f64, straight from its definition.
fn normalized(x: &[f64], gamma: &[f64], beta: &[f64], epsilon: f64) -> Vec<f64> {
    let c = gamma.len();
    let n = (x.len() / c) as f64;
    let of = |channel: usize| x.iter().skip(channel).step_by(c);
    let mean: Vec<f64> = (0..c).map(|i| of(i).sum::<f64>() / n).collect();
    let variance: Vec<f64> = (0..c).map(|i| of(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / n).collect();
    let one =
        |(i, x): (usize, &f64)| gamma[i % c] * (x - mean[i % c]) / (variance[i % c] + epsilon).sqrt() + beta[i % c];
    x.iter().enumerate().map(one).collect()
}

#[test]
fn the_gradient_through_a_batchs_statistics_is_its_difference_in_f64() {
    let graph = graph_of("BatchNormalization", &json!({ "epsilon": 0.001 }), &[vec![3, 2]]);
    let weights = weights_of(&graph);
    let x = Tensor::new(vec![4, 3, 2], numbers(3, 24)).unwrap();
    let r = numbers(4, 24);
    let run = forward(&graph, &weights, vec![x.clone()], &mut NoPoints, Mode::Train).unwrap();
    let wide = |t: &[f32]| t.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let given = [wide(x.data()), wide(weights[1][0].data()), wide(weights[1][1].data())];
    let y = |given: &[Vec<f64>; 3]| normalized(&given[0], &given[1], &given[2], 0.001);
    // f32 has 2⁻²⁴ for numbers of up to 4.
    for (own, wanted) in run.outputs[0].data().iter().zip(y(&given)) {
        assert!((f64::from(*own) - wanted).abs() < 1e-6, "{own} is not {wanted}");
    }
    let dy = Tensor::new(x.shape().to_vec(), r.clone()).unwrap();
    let found = backward(&graph, run.tape, vec![dy], &mut NoPoints, Wanted::ParamsAndInputs).unwrap();
    assert!(found.params[1][2].is_none() && found.params[1][3].is_none());
    let own = [&found.inputs[0], &found.params[1][0], &found.params[1][1]].map(|t| t.clone().unwrap());
    for (k, gradient) in own.iter().enumerate() {
        for (i, own) in gradient.data().iter().enumerate() {
            let loss = |h: f64| -> f64 {
                let mut given = given.clone();
                given[k][i] += h;
                y(&given).iter().zip(&r).map(|(y, r)| y * f64::from(*r)).sum()
            };
            let wanted = difference(loss, 1e-3);
            assert!((f64::from(*own) - wanted).abs() < 2e-6, "{k}[{i}]: {own} is not {wanted}");
        }
    }
}

/// Numbers from tf_keras 2: momentum 0.75, moving averages of 0 and 1 before.
#[test]
fn moving_averages_are_those_of_keras_2() {
    let x: Vec<f32> = (0..16).map(|i| (i * 7 % 11) as f32 / 4.0).collect();
    let after = |shape: &[usize]| {
        let channels = *shape.last().unwrap();
        let graph = graph_of("BatchNormalization", &json!({ "momentum": 0.75 }), &[shape.to_vec()]);
        let mut weights = weights_of(&graph);
        weights[1][2] = Tensor::zeros(&[channels]);
        weights[1][3] = Tensor::vector(vec![1.0; channels]);
        let x = Tensor::new([&[2], shape].concat(), x.clone()).unwrap();
        let run = forward(&graph, &weights, vec![x], &mut NoPoints, Mode::Train).unwrap();
        let [mean, variance] = &run.statistics[..] else { panic!("two statistics") };
        assert_eq!((mean.weight, variance.weight), (2, 3));
        (mean.value.data().to_vec(), variance.value.data().to_vec())
    };
    let (mean, variance) = after(&[2, 2, 2]);
    assert_eq!(mean, [0.3125, 0.320_312_5]);
    // Keras computes in f32: the last bit may differ.
    let close = |a: f32, b: f32| (a - b).abs() <= f32::EPSILON * b;
    assert!(close(variance[0], 0.955_357_13) && close(variance[1], 0.921_596), "{variance:?}");
    let (mean, variance) = after(&[8]);
    assert_eq!(mean, [0.031_25, 0.468_75, 0.218_75, 0.312_5, 0.406_25, 0.156_25, 0.593_75, 0.343_75]);
    let wanted = [0.753_906_25, 0.753_906_25, 0.753_906_25, 1.140_625];
    assert_eq!(variance, [wanted, [wanted[0]; 4]].concat());
}

/// What TensorFlow 2 gives on a CPU.
#[test]
fn ties_are_broken_as_tensorflow_does() {
    let ones = |shape: &[usize]| Tensor::new(shape.to_vec(), vec![1.0; shape.iter().product()]).unwrap();
    let pool = json!({ "pool_size": 2, "strides": 1 });
    let first = input_gradient("MaxPooling2D", pool, &[ones(&[1, 3, 3, 1])], ones(&[1, 2, 2, 1]));
    assert_eq!(first[0].data(), [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
    let x = Tensor::new(vec![1, 2, 2, 1], vec![1.0, 1.0, 0.0, 1.0]).unwrap();
    let shared = input_gradient("GlobalMaxPooling2D", json!({}), &[x], ones(&[1, 1]));
    assert_eq!(shared[0].data(), [1.0 / 3.0, 1.0 / 3.0, 0.0, 1.0 / 3.0]);
    let (a, b) = (Tensor::new(vec![1, 2], vec![1.0, 2.0]).unwrap(), ones(&[1, 2]));
    for (class, wanted) in [("Maximum", [[1.0, 1.0], [0.0, 0.0]]), ("Minimum", [[1.0, 0.0], [0.0, 1.0]])] {
        let found = input_gradient(class, json!({}), &[a.clone(), b.clone()], ones(&[1, 2]));
        assert_eq!([found[0].data(), found[1].data()], wanted, "{class}");
    }
    let ends = Tensor::new(vec![1, 3], vec![0.0, 6.0, 3.0]).unwrap();
    let relu = input_gradient("Activation", json!({ "activation": "relu6" }), &[ends], ones(&[1, 3]));
    assert_eq!(relu[0].data(), [0.0, 0.0, 1.0]);
}

#[test]
fn weights_are_told_from_biases_and_statistics() {
    let graph = graph_of("BatchNormalization", &json!({}), &[vec![3]]);
    let kinds: Vec<ParamKind> = params(&graph.nodes[1].op).iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ParamKind::Weight, ParamKind::Bias, ParamKind::Statistic, ParamKind::Statistic]);
    let graph = graph_of("Dense", &json!({ "units": 2 }), &[vec![3]]);
    let kinds: Vec<ParamKind> = params(&graph.nodes[1].op).iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [ParamKind::Weight, ParamKind::Bias]);
}

#[test]
fn a_custom_layer_is_refused_by_name_only_where_a_gradient_is_wanted_through_it() {
    let mut builder = Builder::default();
    let x = builder.layer("x", Op::Input(Input { shape: vec![2] }), &[]).unwrap();
    let custom = Custom::new("Mine", Arc::new(Unknown::new("Mine", &[2])));
    let y = builder.layer("own", Op::Custom(custom), &[x]).unwrap();
    let graph = builder.finish(&[y]).unwrap();
    let ones = || Tensor::new(vec![1, 2], vec![1.0; 2]).unwrap();
    let found = |wanted| {
        let run = forward(&graph, &weights_of(&graph), vec![ones()], &mut NoPoints, Mode::Infer).unwrap();
        backward(&graph, run.tape, vec![ones()], &mut NoPoints, wanted)
    };
    let message = found(Wanted::ParamsAndInputs).unwrap_err().to_string();
    assert_eq!(message, format!("layer `own` (Mine): {}", NoGradient::Custom));
    assert!(found(Wanted::Params).is_ok());
}
