//! What real Keras models hold beyond chains of layers, in the files of Keras 2 and 3, against TensorFlow's outputs
//! (`tests/data/make_keras.py`): models inside models, shared layers, functions on tensors, layers of the user's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray_npy::NpzReader;
use shiftwise_formats::{LoadOptions, Model, graph_text, load, open_bytes, quantized_bytes};
use shiftwise_graph::attributes::Attribute;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::{Custom, CustomLayer, Op, Operand};
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::networks::random_samples;
use shiftwise_tests::shared::golden_cases;

const FILES: [&str; 15] = [
    "nested_keras2.h5",
    "nested_keras2.keras",
    "nested_keras3.h5",
    "nested_keras3.keras",
    "shared_keras2.h5",
    "shared_keras3.keras",
    "functions_keras2.h5",
    "functions_keras3.keras",
    "custom_keras2.h5",
    "custom_keras3.keras",
    "spelled_keras3.h5",
    "spelled_keras3.keras",
    "attention_keras2.h5",
    "attention_keras3.h5",
    "attention_keras3.keras",
];

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/keras").join(name)
}

fn formulas(list: &[&str]) -> LoadOptions {
    let mut options = LoadOptions::default();
    list.iter().for_each(|formula| options.custom.add_formula(formula).unwrap());
    options
}

/// Options under which all of [`FILES`] can be read. An archive has no names for weights.
fn options(name: &str) -> LoadOptions {
    let scale = if name.ends_with(".keras") { "w0" } else { "scale" };
    formulas(&[&format!("Blend=ratio * x0 * {scale} + (1 - ratio) * x1")])
}

fn expected(name: &str, kind: &str) -> Vec<Tensor> {
    let model = name.split('_').next().unwrap();
    let mut archive = NpzReader::new(std::fs::File::open(file("expected.npz")).unwrap()).unwrap();
    let mut array =
        |i: usize| archive.by_name::<ndarray::OwnedRepr<f32>, ndarray::IxDyn>(&format!("{model}_{kind}{i}"));
    let tensor = |a: ndarray::ArrayD<f32>| Tensor::new(a.shape().to_vec(), a.iter().copied().collect()).unwrap();
    (0..).map_while(|i| array(i).ok()).map(tensor).collect()
}

#[test]
fn float_outputs_are_tensorflows() {
    for name in FILES {
        let graph = load(&file(name), &options(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (got, want) = (run_float(&graph, expected(name, "x")).unwrap(), expected(name, "y"));
        assert!(!want.is_empty() && got.len() == want.len(), "{name}");
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got.shape(), want.shape(), "{name}");
            let worst =
                got.data().iter().zip(want.data()).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{name}: {worst}");
        }
    }
}

#[test]
fn every_format_gives_the_same_graph() {
    for model in ["nested", "shared", "attention"] {
        let mut graphs =
            FILES.iter().filter(|name| name.starts_with(model)).map(|name| load(&file(name), &options(name)).unwrap());
        let first = graphs.next().unwrap();
        for other in graphs {
            assert_eq!(graph_text(&other), graph_text(&first));
        }
    }
}

#[test]
fn layers_of_inner_models_keep_their_names_where_they_can() {
    let graph = load(&file("nested_keras2.h5"), &LoadOptions::default()).unwrap();
    let calls = |layer: &str| {
        let of = |name: &str| name == layer || name.strip_prefix(layer).is_some_and(|rest| rest.starts_with(':'));
        graph.nodes.iter().filter(|n| of(&n.name)).count()
    };
    // Two applications of the middle model, each with two of the block.
    assert_eq!([calls("block/conv"), calls("bn"), calls("relu")], [4, 4, 4]);
    assert_eq!([calls("conv"), calls("head/conv"), calls("pool"), calls("inner_in")], [1, 1, 1, 0]);
    // Of the first application, nobody reads the second output.
    assert!(graph.node(graph.find("pool").unwrap()).shared.is_none());
    let call = graph.node(graph.find("block/conv:3").unwrap()).shared.clone().unwrap();
    assert_eq!((call.layer.as_str(), call.number), ("block/conv", 3));
    assert!(graph.node(graph.find("conv").unwrap()).shared.is_none());
}

/// Quantized, written, read again: the same model, and the same outputs.
#[test]
fn quantized_models_survive_writing() {
    for name in FILES {
        let graph = load(&file(name), &options(name)).unwrap();
        let ptq_options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
        let samples = random_samples(&graph, 3, 8);
        let quantized =
            ptq(graph, &samples, &ptq_options, |_, _| {}).unwrap_or_else(|e| panic!("{name}: {e}")).quantized;
        let path = Path::new("quantized.h5");
        let bytes = quantized_bytes(&quantized, path).unwrap();
        let Model::Quantized(back) = open_bytes(path, bytes.clone(), &options(name)).unwrap() else {
            panic!("{name} is no quantized model");
        };
        for (back, own) in graph_text(&back.graph).lines().zip(graph_text(&quantized.graph).lines()) {
            assert_eq!(back, own, "{name}");
        }
        let shared = |graph: &Graph| graph.nodes.iter().map(|n| n.shared.clone()).collect::<Vec<_>>();
        assert_eq!(shared(&back.graph), shared(&quantized.graph), "{name}");
        assert!(quantized_bytes(&back, path).unwrap() == bytes, "{name}");
        // What is shared stays as it was.
        for (id, node) in quantized.graph.ids().zip(&quantized.graph.nodes) {
            assert!(node.shared.is_none() || !quantized.layers.contains_key(&id), "{name}: {}", node.name);
        }
    }
}

#[test]
fn functions_have_operands() {
    let graph = load(&file("functions_keras2.h5"), &LoadOptions::default()).unwrap();
    let op = |name: &str| match &graph.node(graph.find(name).unwrap()).op {
        Op::TfOp(op) => op,
        other => panic!("{other:?}"),
    };
    let constant = |v: f32| Operand::Constant(Tensor::new(Vec::new(), vec![v]).unwrap());
    let add = op("tf.__operators__.add");
    assert_eq!(
        (add.function.as_str(), &add.operands[..]),
        ("__operators__.add", &[Operand::Tensor(0), constant(3.0)][..])
    );
    let subtract = op("tf.math.subtract");
    assert_eq!(subtract.operands, [constant(1.0), Operand::Tensor(0)]);
}

fn error(result: Result<Graph, Error>) -> Error {
    result.map(|g| graph_text(&g)).unwrap_err()
}

#[test]
fn what_is_unknown_is_named() {
    let json = |function: &str, kwargs: &str| {
        let text = format!(
            r#"{{"class_name": "Functional", "config": {{"name": "m", "layers": [
            {{"class_name": "InputLayer", "name": "x", "config": {{"name": "x", "batch_input_shape": [null, 4, 4, 2]}}, "inbound_nodes": []}},
            {{"class_name": "TFOpLambda", "name": "f", "config": {{"name": "f", "trainable": true, "function": "{function}"}},
              "inbound_nodes": [["x", 0, 0, {kwargs}]]}}],
            "input_layers": [["x", 0, 0]], "output_layers": [["f", 0, 0]]}}}}"#
        );
        let options = LoadOptions { random_weights: Some(1), ..LoadOptions::default() };
        open_bytes(Path::new("m.json"), text.into_bytes(), &options).map(|m| match m {
            Model::Float(graph) => graph,
            Model::Quantized(q) => q.graph,
        })
    };
    assert_eq!(json("math.add", r#"{"y": [1, 2]}"#).unwrap().nodes[1].shape, [4, 4, 2]);
    let table = [
        ("image.rot90", "{}", "tf.image.rot90"),
        ("math.add", "{}", "argument `y` is missing"),
        ("math.add", r#"{"y": [1, 2, 3]}"#, "don't broadcast"),
        ("math.add", r#"{"y": [[[[1]]], [[[1]]]]}"#, "does not keep samples apart"),
        ("math.reduce_mean", r#"{"axis": 0}"#, "does not keep samples apart"),
        ("math.reduce_mean", r#"{"axis": 7}"#, "axis 7 does not exist"),
        ("reshape", r#"{"shape": [-1, 31]}"#, "can't be reshaped"),
        ("nn.relu", r#"{"mystery": 3}"#, "argument `mystery` = 3 is not supported"),
        ("math.add", r#"{"y": ["y", 0, 0]}"#, "neither a tensor nor an array"),
    ];
    for (function, kwargs, says) in table {
        let e = error(json(function, kwargs));
        assert!(e.to_string().contains(says), "{function} {kwargs}: {e}");
        assert_eq!(matches!(e, Error::UnsupportedLayer { .. }), function == "image.rot90");
    }
    let e = error(load(&file("custom_keras2.h5"), &LoadOptions::default()));
    assert!(e.to_string().contains("class `Blend`"), "{e}");
    assert_eq!(shiftwise_graph::ops::custom::remedy("Blend"), shiftwise_graph::ops::custom::Remedy::ClassFormula);
    let e = error(load(&file("custom_keras2.h5"), &formulas(&["Blend=x0 + beta"])));
    assert!(e.to_string().contains("at character 12: `beta` is none of its 2 inputs, its weights [scale]"), "{e}");
}

/// The library's way: an implementation in Rust.
#[test]
fn a_layer_can_be_implemented() {
    #[derive(Debug)]
    struct Blend;
    impl CustomLayer for Blend {
        fn class(&self) -> &str {
            "Blend"
        }
        fn output_shape(&self, layer: &Custom, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
            layer.weight("scale").ok_or("it has no scale")?;
            inputs.first().map(|s| s.to_vec()).ok_or_else(|| "it has no input".into())
        }
        fn eval(&self, layer: &Custom, inputs: &[&Tensor], weights: &[&Tensor]) -> Tensor {
            let ratio = layer.config.get("ratio").and_then(Attribute::single).unwrap();
            let scale = weights[layer.weight("scale").unwrap()].data();
            let mut out = inputs[0].clone();
            for (i, (y, b)) in out.data_mut().iter_mut().zip(inputs[1].data()).enumerate() {
                *y = ratio * *y * scale[i % scale.len()] + (1.0 - ratio) * b;
            }
            out
        }
    }
    let name = "custom_keras2.h5";
    let mut own = LoadOptions::default();
    own.custom.add(Arc::new(Blend));
    let run = |options: &LoadOptions| run_float(&load(&file(name), options).unwrap(), expected(name, "x")).unwrap();
    assert_eq!(run(&own), run(&options(name)));
    assert!(LoadOptions::default().custom.get("package>Mylayer").is_some());
}

/// The reference's own cases with custom layers: float outputs by formulas, and its quantized files read and written.
#[test]
fn the_vendors_custom_layers() {
    let list = ["MyScaleShift=x * s + t", "MyDouble=x * 2", "MyBlend=ratio * x0 + (1 - ratio) * x1"];
    let options = formulas(&list);
    for case in golden_cases().into_iter().filter(|c| c.ends_with("cust_wrapped") || c.ends_with("cust_strategy")) {
        let array = |name: &str| {
            let a: ndarray::ArrayD<f32> = ndarray_npy::read_npy(case.join(name)).unwrap();
            Tensor::new(a.shape().to_vec(), a.iter().copied().collect()).unwrap()
        };
        let graph = load(&case.join("model.h5"), &options).unwrap();
        let got = run_float(&graph, vec![array("input.npy")]).unwrap();
        let worst =
            got[0].data().iter().zip(array("float_output.npy").data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{}: {worst}", case.display());
        let bytes = crate::quantized::vendor_file(&case).unwrap();
        let path = Path::new("quantized.h5");
        let Model::Quantized(q) = open_bytes(path, bytes.clone(), &options).unwrap() else {
            panic!("{}", case.display())
        };
        let again = quantized_bytes(&q, path).unwrap();
        let (want, got) = (crate::quantized::listing(&bytes), crate::quantized::listing(&again));
        for (path, text) in &want {
            let ours = got.get(path).map_or("", String::as_str);
            assert!(ours == text, "{} {path}: {}", case.display(), crate::quantized::explain(text, ours));
        }
    }
}
