//! Layers that are others in disguise, against those others; functions against values worked out by hand; and what is
//! said of layers that stay as they are.

use std::path::Path;

use serde_json::{Value, json};
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions};
use shiftwise_core::model::RowFunction;
use shiftwise_formats::{LoadOptions, Model, open_bytes, quantized_bytes};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_integer::lower::lower;
use shiftwise_integer::unquantized;
use shiftwise_quant::pipeline::{PtqOptions, ptq, without_data};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::networks::random_samples;

/// A layer in Keras 2's form that reads others.
fn layer(class: &str, name: &str, mut config: Value, from: &[&str]) -> Value {
    config["name"] = json!(name);
    let tensors: Vec<Value> = from.iter().map(|n| json!([n, 0, 0, {}])).collect();
    let nodes = if from.is_empty() { json!([]) } else { json!([tensors]) };
    json!({ "class_name": class, "name": name, "config": config, "inbound_nodes": nodes })
}

/// A function in Keras 2's form.
fn function(name: &str, function: &str, first: &Value, kwargs: &Value) -> Value {
    let class = if function.ends_with("getitem") { "SlicingOpLambda" } else { "TFOpLambda" };
    let first = match first.as_array() {
        Some(parts) if parts.iter().all(Value::is_array) => {
            json!(parts.iter().map(|p| json!([p[0], 0, 0, kwargs])).collect::<Vec<_>>())
        }
        _ => json!([first, 0, 0, kwargs]),
    };
    json!({ "class_name": class, "name": name, "inbound_nodes": [first],
        "config": { "name": name, "trainable": true, "dtype": "float32", "function": function } })
}

fn model(shape: &[usize], layers: &[Value]) -> Value {
    let dims: Vec<Value> = std::iter::once(Value::Null).chain(shape.iter().map(|d| json!(d))).collect();
    let input = layer("InputLayer", "in", json!({ "batch_input_shape": dims }), &[]);
    let last = layers.last().unwrap()["name"].clone();
    let layers: Vec<Value> = std::iter::once(input).chain(layers.iter().cloned()).collect();
    json!({ "class_name": "Functional", "config": {
        "name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [[last, 0, 0]],
    }})
}

fn read(shape: &[usize], layers: &[Value], keep_unknown: bool) -> Result<Graph, Error> {
    let options = LoadOptions { random_weights: Some(7), keep_unknown, ..LoadOptions::default() };
    match open_bytes(Path::new("m.json"), model(shape, layers).to_string().into_bytes(), &options)? {
        Model::Float(graph) => Ok(graph),
        Model::Quantized(_) => panic!("a float model is expected"),
    }
}

fn graph(shape: &[usize], layers: &[Value]) -> Graph {
    read(shape, layers, false).unwrap_or_else(|e| panic!("{e}: {}", json!(layers)))
}

fn run(graph: &Graph, x: &Tensor) -> Tensor {
    run_float(graph, vec![x.clone()]).unwrap().remove(0)
}

/// A batch of two with whole numbers.
fn numbers(shape: &[usize]) -> Tensor {
    let shape = [&[2], shape].concat();
    let data = (0..shape.iter().product::<usize>()).map(|i| (i * 37 % 23) as f32 - 11.0).collect();
    Tensor::new(shape, data).unwrap()
}

/// Images `[n, h, w, c]` with their channels first.
fn channels_first(x: &Tensor) -> Tensor {
    let [n, h, w, c] = [0, 1, 2, 3].map(|i| x.shape()[i]);
    let at = |i: usize| {
        let (image, channel, pixel) = (i / (h * w * c), i / (h * w) % c, i % (h * w));
        x.data()[(image * h * w + pixel) * c + channel]
    };
    Tensor::new(vec![n, c, h, w], (0..n * h * w * c).map(at).collect()).unwrap()
}

/// A network with everything that a layout matters to.
fn network(format: &str) -> Vec<Value> {
    let first = format == "channels_first";
    let (axis, pixels, scale) = if first { (1, [2, 3], json!([8, 1, 1])) } else { (3, [1, 2], json!([1, 1, 8])) };
    let own = |mut config: Value| {
        config["data_format"] = json!(format);
        config
    };
    let conv = json!({ "filters": 8, "kernel_size": [3, 3], "strides": [2, 2], "padding": "same", "use_bias": false });
    let point = json!({ "filters": 8, "kernel_size": [1, 1] });
    vec![
        layer("Conv2D", "c1", own(conv), &["in"]),
        layer("BatchNormalization", "b1", json!({ "axis": [axis] }), &["c1"]),
        layer("ReLU", "r1", json!({}), &["b1"]),
        layer("DepthwiseConv2D", "d1", own(json!({ "kernel_size": [3, 3], "padding": "same" })), &["r1"]),
        layer("Conv2D", "c2", own(point), &["d1"]),
        layer("Add", "add", json!({}), &["r1", "c2"]),
        layer("GlobalAveragePooling2D", "gap", own(json!({})), &["add"]),
        layer("Reshape", "scale", json!({ "target_shape": scale }), &["gap"]),
        layer("Multiply", "mul", json!({}), &["add", "scale"]),
        layer("MaxPooling2D", "mp", own(json!({ "pool_size": [2, 2] })), &["mul"]),
        layer("UpSampling2D", "up", own(json!({ "size": [2, 2] })), &["mp"]),
        layer("Concatenate", "cat", json!({ "axis": axis }), &["mul", "up"]),
        layer("PReLU", "pr", json!({ "shared_axes": pixels }), &["cat"]),
        layer("ZeroPadding2D", "zp", own(json!({ "padding": [[0, 1], [1, 0]] })), &["pr"]),
        layer("Dropout", "drop", json!({ "rate": 0.1 }), &["zp"]),
        layer("GlobalMaxPooling2D", "gmp", own(json!({})), &["drop"]),
        layer("Dense", "out", json!({ "units": 5 }), &["gmp"]),
    ]
}

#[test]
fn channels_that_come_first_give_the_network_whose_channels_come_last() {
    let last = graph(&[8, 12, 3], &network("channels_last"));
    let first = graph(&[3, 8, 12], &network("channels_first"));
    let x = numbers(&[8, 12, 3]);
    assert_eq!(run(&first, &channels_first(&x)).data(), run(&last, &x).data());
    let permutations: Vec<&str> =
        first.nodes.iter().filter(|n| matches!(n.op, Op::Permute(_))).map(|n| n.name.as_str()).collect();
    assert_eq!(permutations, ["c1_permute"], "one at the input and none inside");
    for node in last.nodes.iter().filter(|n| n.name != "in") {
        assert!(first.find(&node.name).is_some(), "`{}` keeps its name", node.name);
    }
    // The same positions, and the file reads back.
    let options = || PtqOptions { strategy: Strategy::built_in("pof2s").unwrap(), batch_size: 2, steps: None };
    let (a, b) = (
        ptq(last, &vec![x.clone()], &options(), |_, _| {}).unwrap().quantized,
        ptq(first, &vec![channels_first(&x)], &options(), |_, _| {}).unwrap().quantized,
    );
    let positions = |q: &shiftwise_quant::quant_graph::QuantGraph| {
        let info = shiftwise_formats::quantize_info(q);
        info.as_array().unwrap().iter().map(|r| json!([r["layer"], r["role"], r["position"]])).collect::<Vec<_>>()
    };
    assert_eq!(positions(&a), positions(&b));
    let path = Path::new("quantized.h5");
    let bytes = quantized_bytes(&b, path).unwrap();
    let Model::Quantized(again) = open_bytes(path, bytes.clone(), &LoadOptions::default()).unwrap() else { panic!() };
    assert_eq!(quantized_bytes(&again, path).unwrap(), bytes);
}

#[test]
fn a_flattened_map_is_in_the_order_of_its_file() {
    let dense = layer("Dense", "out", json!({ "units": 4 }), &["flat"]);
    let conv = |format: &str| json!({ "filters": 3, "kernel_size": [2, 2], "data_format": format });
    let first = graph(
        &[2, 4, 5],
        &[
            layer("Conv2D", "c", conv("channels_first"), &["in"]),
            layer("Flatten", "flat", json!({}), &["c"]),
            dense.clone(),
        ],
    );
    let last = graph(
        &[4, 5, 2],
        &[
            layer("Conv2D", "c", conv("channels_last"), &["in"]),
            layer("Permute", "turn", json!({ "dims": [3, 1, 2] }), &["c"]),
            layer("Flatten", "flat", json!({}), &["turn"]),
            dense,
        ],
    );
    assert_eq!(first.nodes.iter().filter(|n| matches!(n.op, Op::Permute(_))).count(), 1);
    let x = numbers(&[4, 5, 2]);
    let (a, b) = (run(&first, &channels_first(&x)), run(&last, &x));
    assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
}

#[test]
fn disguised_layers_are_what_they_stand_for() {
    let causal = json!({ "filters": 2, "kernel_size": [3], "dilation_rate": [2], "padding": "causal" });
    let valid = json!({ "filters": 2, "kernel_size": [3], "dilation_rate": [2], "padding": "valid" });
    let pairs: [(&[usize], Vec<Value>, Vec<Value>); 4] = [
        (
            &[7, 3],
            vec![layer("Conv1D", "c", causal, &["in"])],
            vec![
                layer("ZeroPadding1D", "p", json!({ "padding": [4, 0] }), &["in"]),
                layer("Conv1D", "c", valid, &["p"]),
            ],
        ),
        (
            &[5, 8, 2],
            vec![layer("CenterCrop", "c", json!({ "height": 3, "width": 5 }), &["in"])],
            vec![layer("Cropping2D", "c", json!({ "cropping": [[1, 1], [1, 2]] }), &["in"])],
        ),
        (
            &[4, 6, 2],
            vec![layer("RandomCrop", "c", json!({ "height": 3, "width": 3 }), &["in"])],
            vec![
                layer("Cropping2D", "p", json!({ "cropping": [[0, 0], [1, 1]] }), &["in"]),
                layer("Resizing", "c", json!({ "height": 3, "width": 3 }), &["p"]),
            ],
        ),
        (
            &[4, 3, 2],
            vec![layer("LayerNormalization", "n", json!({ "axis": [1] }), &["in"])],
            vec![
                layer("Permute", "p", json!({ "dims": [2, 3, 1] }), &["in"]),
                layer("LayerNormalization", "n", json!({ "axis": [3] }), &["p"]),
                layer("Permute", "q", json!({ "dims": [3, 1, 2] }), &["n"]),
            ],
        ),
    ];
    for (shape, disguised, plain) in pairs {
        let x = numbers(shape);
        let (a, b) = (run(&graph(shape, &disguised), &x), run(&graph(shape, &plain), &x));
        assert_eq!((a.shape(), a.data()), (b.shape(), b.data()), "{}", json!(disguised));
    }
    let x = numbers(&[3, 2]);
    for class in ["Identity", "RandomHeight", "MixUp"] {
        assert_eq!(run(&graph(&[3, 2], &[layer(class, "i", json!({}), &["in"])]), &x).data(), x.data());
    }
}

#[test]
fn a_softmax_over_several_axes_sums_to_one_over_them() {
    let x = numbers(&[3, 2, 4]);
    let y = run(&graph(&[3, 2, 4], &[layer("Softmax", "s", json!({ "axis": [1, 2] }), &["in"])]), &x);
    for (image, channel) in (0..2).flat_map(|i| (0..4).map(move |c| (i, c))) {
        let sum: f32 = (0..6).map(|p| y.data()[(image * 6 + p) * 4 + channel]).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }
}

#[test]
fn rows_are_normalized_by_their_mean_square_or_their_variance() {
    let apply = |function: RowFunction, row: [f32; 2]| {
        let out = std::cell::RefCell::new([0.0; 2]);
        function.apply(2, |i| row[i], |i, v| out.borrow_mut()[i] = v);
        out.into_inner()
    };
    // √((1 + 49) / 2) = 5, and a deviation of 4 around the mean 3.
    assert_eq!(apply(RowFunction::RootMeanSquare(0.0), [-1.0, 7.0]), [-0.2, 1.4]);
    assert_eq!(apply(RowFunction::Deviation(0.0), [-1.0, 7.0]), [-0.25, 1.75]);
}

#[test]
fn cubic_resizing_gives_tensorflows_values() {
    // tf.image.resize(reshape([1, 2, 4, 8, 16], [1, 5, 1]), [3, 1], method="bicubic") and to 8 rows.
    let rows = Tensor::new(vec![1, 5, 1, 1], vec![1.0, 2.0, 4.0, 8.0, 16.0]).unwrap();
    for (height, want) in [(3, THREE.as_slice()), (8, EIGHT.as_slice())] {
        let config = json!({ "height": height, "width": 1, "interpolation": "bicubic" });
        let y = run(&graph(&[5, 1, 1], &[layer("Resizing", "r", config, &["in"])]), &rows);
        assert_eq!(y.data(), want);
    }
}

const THREE: [f32; 3] = [1.206644, 4.0, 13.9336605];
const EIGHT: [f32; 8] = [0.92804426, 1.2940974, 2.093872, 3.1937256, 4.9680176, 7.6364746, 13.043041, 16.575645];

#[test]
fn functions_choose_elements() {
    let x = Tensor::new(vec![1, 2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let cases: [(&str, Value, &[f32]); 7] = [
        ("gather", json!({ "indices": [2, 0, -1], "axis": 2 }), &[3.0, 1.0, 3.0, 6.0, 4.0, 6.0]),
        ("gather", json!({ "indices": 1, "axis": -1 }), &[2.0, 5.0]),
        ("repeat", json!({ "repeats": 2, "axis": 1 }), &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 4.0, 5.0, 6.0]),
        ("tile", json!({ "multiples": [1, 2, 1] }), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("roll", json!({ "shift": 1, "axis": 2 }), &[3.0, 1.0, 2.0, 6.0, 4.0, 5.0]),
        ("reverse", json!({ "axis": [1] }), &[4.0, 5.0, 6.0, 1.0, 2.0, 3.0]),
        ("experimental.numpy.swapaxes", json!({ "axis1": 1, "axis2": 2 }), &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]),
    ];
    for (name, kwargs, want) in cases {
        let y = run(&graph(&[2, 3], &[function("f", name, &json!("in"), &kwargs)]), &x);
        assert_eq!(y.data(), want, "{name}");
    }
    let block = Tensor::new(vec![1, 1, 2, 4], (1..9).map(|v| v as f32).collect()).unwrap();
    let deep = graph(&[1, 2, 4], &[function("f", "nn.depth_to_space", &json!("in"), &json!({ "block_size": 2 }))]);
    assert_eq!(run(&deep, &block).data(), [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
    for (name, kwargs) in [
        ("gather", json!({ "indices": [3], "axis": 2 })),
        ("repeat", json!({ "repeats": 99_999_999, "axis": 1 })),
        ("tile", json!({ "multiples": [2, 1, 1] })),
        ("nn.depth_to_space", json!({ "block_size": 0 })),
    ] {
        assert!(read(&[2, 3], &[function("f", name, &json!("in"), &kwargs)], false).is_err(), "{name}");
    }
}

#[test]
fn shapes_are_computed_when_a_model_is_read() {
    let item =
        |name: &str, i: i64| function(name, "__operators__.getitem", &json!("shape"), &json!({ "slice_spec": [i] }));
    let target = json!([["batch", 0, 0], ["area", 0, 0], -1]);
    let layers = [
        function("shape", "compat.v1.shape", &json!("in"), &json!({})),
        item("batch", 0),
        item("h", 1),
        item("w", 2),
        function("area", "math.multiply", &json!("h"), &json!({ "y": ["w", 0, 0] })),
        function("out", "reshape", &json!("in"), &json!({ "shape": target })),
    ];
    let graph = graph(&[4, 3, 2], &layers);
    assert_eq!(graph.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["in", "out"]);
    assert_eq!(graph.node(graph.outputs[0]).shape, [12, 2]);
    let misused =
        [function("shape", "compat.v1.shape", &json!("in"), &json!({})), layer("ReLU", "r", json!({}), &["shape"])];
    assert!(read(&[4, 3, 2], &misused, false).unwrap_err().to_string().contains("shape"));
}

#[test]
fn layers_that_stay_float_say_why() {
    let mut conv = layer("Conv2D", "conv", json!({ "filters": 2, "kernel_size": [3, 3] }), &["in"]);
    conv["inbound_nodes"] = json!([[["in", 0, 0, {}]], [["pool", 0, 0, {}]]]);
    let mut join = layer("Concatenate", "cat", json!({ "axis": 1 }), &["a", "b"]);
    join["inbound_nodes"] = json!([[["a", 0, 0, {}], ["b", 0, 0, {}]]]);
    let mut second = layer("GlobalMaxPooling2D", "b", json!({}), &["conv"]);
    second["inbound_nodes"] = json!([[["conv", 1, 0, {}]]]);
    let layers = [
        layer("MaxPooling2D", "pool", json!({ "pool_size": [2, 2] }), &["in"]),
        conv,
        layer("GlobalMaxPooling2D", "a", json!({}), &["conv"]),
        second,
        join,
    ];
    let graph = graph(&[8, 8, 3], &layers);
    let samples = random_samples(&graph, 1, 2);
    let options = PtqOptions { strategy: Strategy::built_in("pof2s").unwrap(), batch_size: 2, steps: None };
    let quantized = ptq(graph, &samples, &options, |_, _| {}).unwrap().quantized;
    let found = unquantized::layers(&quantized);
    let shared = found.iter().find(|f| f.layers.contains(&"conv".to_owned())).expect("a line for the shared layer");
    assert!(shared.reason.to_string().contains("called twice") && shared.remedy.is_some(), "{shared:?}");
    assert!(found.iter().any(|f| f.layers.contains(&"a".to_owned()) && f.remedy.is_none()), "{found:?}");
}

#[test]
fn a_layer_of_an_unknown_class_is_kept_for_timing_where_its_shape_is_known() {
    let tensor = |name: &str, shape: Value| {
        json!({ "class_name": "__keras_tensor__", "config": { "shape": shape, "dtype": "float32",
            "keras_history": [name, 0, 0] } })
    };
    let mut odd = layer("Oddity", "odd", json!({ "trainable": true }), &["in"]);
    odd["inbound_nodes"] = json!([{ "args": [tensor("in", json!([null, 8, 8, 3]))], "kwargs": {} }]);
    odd["module"] = json!("my.layers");
    let mut conv = layer("Conv2D", "conv", json!({ "filters": 2, "kernel_size": [3, 3], "trainable": true }), &["odd"]);
    conv["inbound_nodes"] = json!([{ "args": [tensor("odd", json!([null, 4, 4, 5]))], "kwargs": {} }]);
    conv["module"] = json!("keras.layers");
    let layers = [odd.clone(), conv];
    assert!(matches!(read(&[8, 8, 3], &layers, false), Err(Error::UnsupportedLayer { .. })));
    let kept = read(&[8, 8, 3], &layers, true).unwrap();
    assert_eq!(kept.node(kept.find("odd").unwrap()).shape, [4, 4, 5]);
    let quantized = without_data(kept, &Strategy::built_in("pof2s").unwrap()).unwrap();
    let target = shiftwise_targets::find("B4096").unwrap();
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    let program = compile::dpu(&lower(&quantized).unwrap(), &target, &options).unwrap();
    let row = program.layers.iter().find(|l| l.layer == "odd").unwrap();
    assert!(row.reason.as_ref().is_some_and(|r| r.to_string().contains("nothing is known of its class")), "{row:?}");
    // Nobody reads the last layer, so that no reader notes its shape.
    assert!(matches!(read(&[8, 8, 3], &[odd], true), Err(Error::UnsupportedLayer { .. })));
}

#[test]
fn a_pooling_window_beyond_its_input_compiles_and_reads_back() {
    let config = json!({ "pool_size": [65535, 65535], "strides": [1, 1], "padding": "same" });
    for class in ["MaxPooling2D", "AveragePooling2D"] {
        let graph = graph(&[8, 8, 3], &[layer(class, "p", config.clone(), &["in"])]);
        let quantized = without_data(graph, &Strategy::built_in("pof2s").unwrap()).unwrap();
        let program = compile::cpu(&lower(&quantized).unwrap(), &CpuOptions::default());
        match program.and_then(|p| p.to_bytes(&[])) {
            Ok(_) => {}
            Err(e) => assert!(e.to_string().contains("layer `p`"), "{e}"),
        }
    }
}

#[test]
fn a_padding_that_is_not_supported_is_named_as_such() {
    let config = json!({ "filters": 2, "kernel_size": [3, 3], "padding": "causal" });
    let error = read(&[8, 8, 3], &[layer("Conv2D", "c", config, &["in"])], false).unwrap_err().to_string();
    assert!(error.contains("the padding `causal` is not supported"), "{error}");
}
