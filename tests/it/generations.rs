//! Where the generations of Keras' files differ, and what only some of them have: small models as JSON, with weights that
//! depend on the layers' names alone.

use std::path::Path;

use serde_json::{Value, json};
use shiftwise_formats::{LoadOptions, Model, graph_text, open_bytes, quantized_bytes};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::custom::Remedy;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::networks::random_samples;

/// A call: the tensors that it reads as (layer, call, result), and keyword arguments.
type Made<'a> = (&'a [(&'a str, usize, usize)], Value);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keras {
    Two,
    Three,
}

const BOTH: [Keras; 2] = [Keras::Two, Keras::Three];

impl Keras {
    /// A layer with its calls.
    fn layer(self, class: &str, name: &str, settings: Value, calls: &[Made<'_>]) -> Value {
        let mut config = settings;
        config["name"] = name.into();
        if class != "InputLayer" && config.get("layers").is_none() {
            config["trainable"] = true.into();
        }
        let nodes: Vec<Value> = calls.iter().map(|(tensors, kwargs)| self.node(tensors, kwargs)).collect();
        json!({ "class_name": class, "name": name, "config": config, "inbound_nodes": nodes })
    }

    fn node(self, tensors: &[(&str, usize, usize)], kwargs: &Value) -> Value {
        match self {
            Self::Two => tensors.iter().map(|(l, n, t)| json!([l, n, t, kwargs])).collect(),
            Self::Three => {
                let tensor = |(l, n, t): &(&str, usize, usize)| json!({ "class_name": "__keras_tensor__", "config": { "keras_history": [l, n, t] } });
                let all: Vec<Value> = tensors.iter().map(tensor).collect();
                let args = if all.len() == 1 { json!(all) } else { json!([all]) };
                json!({ "args": args, "kwargs": kwargs })
            }
        }
    }

    fn input(self, name: &str) -> Value {
        let key = if self == Self::Two { "batch_input_shape" } else { "batch_shape" };
        self.layer("InputLayer", name, json!({ key: [null, 4, 4, 2] }), &[])
    }

    fn conv(self, name: &str, from: &str) -> Value {
        let settings = json!({ "filters": 2, "kernel_size": 3, "padding": "same", "activation": "tanh" });
        self.layer("Conv2D", name, settings, &[(&[(from, 0, 0)], json!({}))])
    }

    /// The inside of a block, as a functional or a sequential model.
    fn block(self, functional: bool) -> (&'static str, Value) {
        let (input, conv) = (self.input("block_in"), self.conv("conv", "block_in"));
        if functional {
            ("Functional", inside(&[input, conv], &json!([["block_in", 0, 0]]), &json!([["conv", 0, 0]])))
        } else {
            ("Sequential", json!({ "layers": [input, conv] }))
        }
    }

    /// block(block(… x)), whose calls are counted from `first` among arguments; `end` is the end's number.
    fn repeated(self, functional: bool, times: usize, first: usize, end: usize) -> Value {
        let (class, config) = self.block(functional);
        let nodes: Vec<Value> = (0..times)
            .map(|i| self.node(&[if i == 0 { ("x", 0, 0) } else { ("block", i - 1 + first, 0) }], &json!({})))
            .collect();
        let mut block = self.layer(class, "block", config, &[]);
        block["inbound_nodes"] = nodes.into();
        model(&[self.input("x"), block], &json!([["x", 0, 0]]), &json!([["block", end, 0]]))
    }
}

fn inside(layers: &[Value], inputs: &Value, outputs: &Value) -> Value {
    json!({ "name": "m", "layers": layers, "input_layers": inputs, "output_layers": outputs })
}

fn model(layers: &[Value], inputs: &Value, outputs: &Value) -> Value {
    json!({ "class_name": "Functional", "config": inside(layers, inputs, outputs) })
}

fn open_with(model: &Value, formulas: &[&str]) -> Result<Graph, Error> {
    let mut options = LoadOptions { random_weights: Some(7), ..LoadOptions::default() };
    formulas.iter().for_each(|formula| options.custom.add_formula(formula).unwrap());
    match open_bytes(Path::new("m.json"), model.to_string().into_bytes(), &options)? {
        Model::Float(graph) => Ok(graph),
        Model::Quantized(q) => Ok(q.graph),
    }
}

fn open(model: &Value) -> Graph {
    open_with(model, &[]).unwrap_or_else(|e| panic!("{e}: {model}"))
}

fn refused(model: &Value, says: &str) -> Error {
    let e = open_with(model, &[]).map(|g| graph_text(&g)).unwrap_err();
    assert!(e.to_string().contains(says), "`{says}`: {e}");
    e
}

fn picture(seed: usize) -> Tensor {
    Tensor::new(vec![2, 4, 4, 2], (0..64).map(|i| ((i * 37 + seed * 11) % 23) as f32 / 11.0 - 1.0).collect()).unwrap()
}

fn run(graph: &Graph) -> Vec<Tensor> {
    run_float(graph, (0..graph.inputs.len()).map(picture).collect()).unwrap()
}

/// The value of a block applied several times to the first picture.
fn applied(times: usize) -> Tensor {
    let once = open(&Keras::Two.repeated(true, 1, 1, 1));
    (0..times).fold(picture(0), |x, _| run_float(&once, vec![x]).unwrap().remove(0))
}

/// Keras 2 counts the calls of models from 1. Keras 3 counts them from 0, except at ends and of functional models.
#[test]
fn calls_are_counted_as_the_generation_counts() {
    for times in 1..4 {
        for functional in [true, false] {
            let last = times - 1;
            let two = Keras::Two.repeated(functional, times, 1, last + 1);
            let three = Keras::Three.repeated(functional, times, 0, last + usize::from(functional));
            for text in [two, three] {
                let graph = open(&text);
                assert_eq!(run(&graph), [applied(times)], "{times} {functional}: {text}");
                assert!(graph.warnings.is_empty(), "{:?}", graph.warnings);
            }
        }
    }
}

/// A sequential model says nothing of calls: whatever is in it is called once.
#[test]
fn models_in_sequential_models_are_called_once() {
    for keras in BOTH {
        for functional in [true, false] {
            let (class, config) = keras.block(functional);
            let mut block = keras.layer(class, "block", config, &[]);
            block.as_object_mut().unwrap().remove("inbound_nodes");
            let relu = json!({ "class_name": "ReLU", "config": { "name": "r", "max_value": 9.0, "threshold": -9.0 } });
            let layers = json!([keras.input("x"), block, relu]);
            let text = json!({ "class_name": "Sequential", "config": { "name": "m", "layers": layers } });
            let only =
                json!({ "class_name": "Sequential", "config": { "name": "m", "layers": [layers[0], layers[1]] } });
            for text in [text, only] {
                assert_eq!(run(&open(&text)), [applied(1)], "{text}");
            }
        }
    }
}

/// A file that follows another rule is read by the one way of counting that meets every call, or not at all.
#[test]
fn a_count_that_does_not_hold_is_refused() {
    assert_eq!(run(&open(&Keras::Two.repeated(false, 2, 0, 1))), [applied(2)]);
    refused(&Keras::Two.repeated(true, 2, 1, 3), "neither counting from 0 nor from 1 holds");
    refused(&Keras::Three.repeated(true, 3, 1, 9), "neither counting from 0 nor from 1 holds");
    refused(&Keras::Three.repeated(false, 1, 0, 9), "neither counting from 0 nor from 1 holds");
}

#[test]
fn training_stays_on_in_keras_2_only() {
    let with = |keras: Keras, class: &str, settings: Value| {
        let call = (&[("x", 0, 0)][..], json!({ "training": true }));
        let layer = keras.layer(class, "l", settings, &[call]);
        model(&[keras.input("x"), layer], &json!([["x", 0, 0]]), &json!([["l", 0, 0]]))
    };
    let random = json!({ "rate": 0.5 });
    refused(&with(Keras::Two, "Dropout", random.clone()), "training=True");
    assert_eq!(run(&open(&with(Keras::Three, "Dropout", random))), [picture(0)]);
    for keras in BOTH {
        assert_eq!(run(&open(&with(keras, "Dropout", json!({ "rate": 0.0 })))), [picture(0)]);
        open(&with(keras, "Resizing", json!({ "height": 2, "width": 2 })));
    }
}

/// `model.outputs` and `model.inputs` of structures are in the order of sorted keys.
#[test]
fn named_ends_are_sorted() {
    for keras in BOTH {
        let layers = [keras.input("one"), keras.input("two"), keras.conv("c", "two")];
        let ends = [
            json!({ "z": ["two", 0, 0], "a": ["one", 0, 0] }),
            json!({ "q": ["one", 0, 0], "b": [["c", 0, 0], ["two", 0, 0]] }),
        ];
        let graph = open(&model(&layers, &ends[0], &ends[1]));
        let names = |ids: &[shiftwise_graph::graph::NodeId]| {
            ids.iter().map(|id| graph.node(*id).name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(&graph.inputs), names(&graph.outputs)),
            (vec!["one".into(), "two".into()], vec!["c".into(), "two".into(), "one".into()])
        );
    }
}

/// A call may give the inputs of a model inside by their names.
#[test]
fn inputs_are_given_by_name() {
    let subtract = |keras: Keras| {
        let call = (&[("a", 0, 0), ("b", 0, 0)][..], json!({}));
        let layers = [keras.input("a"), keras.input("b"), keras.layer("Subtract", "s", json!({}), &[call])];
        inside(&layers, &json!([["a", 0, 0], ["b", 0, 0]]), &json!([["s", 0, 0]]))
    };
    for keras in BOTH {
        let node = match keras {
            Keras::Two => json!({ "b": ["x", 0, 0, {}], "a": ["y", 0, 0, {}] }),
            Keras::Three => {
                let tensor =
                    |l: &str| json!({ "class_name": "__keras_tensor__", "config": { "keras_history": [l, 0, 0] } });
                json!({ "args": [{ "b": tensor("x"), "a": tensor("y") }], "kwargs": { "mask": { "b": null, "a": null } } })
            }
        };
        let mut inner = keras.layer("Functional", "inner", subtract(keras), &[]);
        inner["inbound_nodes"] = json!([node]);
        let layers = [keras.input("x"), keras.input("y"), inner];
        let graph = open(&model(&layers, &json!([["x", 0, 0], ["y", 0, 0]]), &json!([["inner", 1, 0]])));
        let difference = picture(1).data().iter().zip(picture(0).data()).map(|(y, x)| y - x).collect::<Vec<_>>();
        assert_eq!(run(&graph)[0].data(), difference);
    }
}

#[test]
fn what_no_output_needs_is_warned_of() {
    for keras in BOTH {
        let layers = [keras.input("x"), keras.input("idle"), keras.conv("c", "x"), keras.conv("lost", "x")];
        let graph = open(&model(&layers, &json!([["x", 0, 0], ["idle", 0, 0]]), &json!([["c", 0, 0]])));
        assert_eq!(graph.warnings.len(), 2);
        assert!(
            graph.warnings[0].contains("input `idle`") && graph.warnings[1].contains("layer `lost`"),
            "{:?}",
            graph.warnings
        );
    }
}

fn split() -> Value {
    let keras = Keras::Two;
    let function = |name: &str, function: &str, node: Value| {
        let mut layer = keras.layer("TFOpLambda", name, json!({ "function": function }), &[]);
        layer["inbound_nodes"] = json!([node]);
        layer
    };
    let layers = [
        keras.input("x"),
        keras.conv("c", "x"),
        function("s", "split", json!(["c", 0, 0, { "num_or_size_splits": 2, "axis": -1 }])),
        function("j", "concat", json!([["s", 0, 1, { "axis": -1 }], ["s", 0, 0, { "axis": -1 }]])),
    ];
    model(&layers, &json!([["x", 0, 0]]), &json!([["j", 0, 0], ["s", 0, 1]]))
}

/// Each result is a layer of its own, and survives the quantized file.
#[test]
fn operations_have_several_results() {
    let graph = open(&split());
    let c = run(&open(&model(
        &[Keras::Two.input("x"), Keras::Two.conv("c", "x")],
        &json!([["x", 0, 0]]),
        &json!([["c", 0, 0]]),
    )));
    let swapped: Vec<f32> = c[0].data().chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    let out = run(&graph);
    assert_eq!(out[0].data(), swapped);
    assert_eq!(out[1].data(), c[0].data().iter().skip(1).step_by(2).copied().collect::<Vec<_>>());
    let samples = random_samples(&graph, 3, 8);
    let q = ptq(graph, &samples, &PtqOptions::new(Strategy::built_in("pof2s").unwrap()), |_, _| {}).unwrap().quantized;
    let bytes = quantized_bytes(&q, Path::new("q.h5")).unwrap();
    let Model::Quantized(back) = open_bytes(Path::new("q.h5"), bytes, &LoadOptions::default()).unwrap() else {
        panic!()
    };
    assert_eq!(graph_text(&back.graph), graph_text(&q.graph));
    let mut beyond = split();
    beyond["config"]["output_layers"] = json!([["s", 0, 2]]);
    refused(&beyond, "no part 2");
    beyond["config"]["output_layers"] = json!([["c", 0, 1]]);
    refused(&beyond, "reads result 1 of it, which doesn't exist");
}

fn unknown(layers: &[(&str, &str, Value)]) -> Value {
    let keras = Keras::Two;
    let mut all = vec![keras.input("x")];
    let mut last = "x";
    for (class, name, settings) in layers {
        all.push(keras.layer(class, name, settings.clone(), &[(&[(last, 0, 0)], json!({}))]));
        last = name;
    }
    model(&all, &json!([["x", 0, 0]]), &json!([[last, 0, 0]]))
}

#[test]
fn formulas_address_layers_by_name() {
    let lambda = |code: &str| json!({ "function": [code, null, null] });
    let two = unknown(&[("Lambda", "half", lambda("a")), ("Lambda", "minus", lambda("b"))]);
    let graph = open_with(&two, &["half=x / 2", "minus=x - 1"]).unwrap();
    let want: Vec<f32> = picture(0).data().iter().map(|x| x / 2.0 - 1.0).collect();
    assert_eq!(run(&graph)[0].data(), want);
    // A name goes before the class.
    assert_eq!(run(&open_with(&two, &["Lambda=x / 2", "minus=x - 1"]).unwrap())[0].data(), want);
    let e = open_with(&two, &["Lambda=x / 2"]).unwrap_err().to_string();
    assert!(e.contains("`half`, `minus`"), "{e}");
    let same = unknown(&[("Lambda", "one", lambda("a")), ("Lambda", "two", lambda("a"))]);
    let want: Vec<f32> = picture(0).data().iter().map(|x| x / 4.0).collect();
    assert_eq!(run(&open_with(&same, &["Lambda=x / 2"]).unwrap())[0].data(), want);
    let idle = open_with(&same, &["Lambda=x / 2", "nothing=x"]).unwrap().warnings;
    assert!(idle.len() == 1 && idle[0].contains("`nothing` has no effect"), "{idle:?}");
}

/// What helps where a layer's class is not supported.
fn remedy(error: &Error) -> Remedy {
    let Error::UnsupportedLayer { class, .. } = error else { panic!("{error}") };
    shiftwise_graph::ops::custom::remedy(class)
}

#[test]
fn formulas_are_named_where_they_help() {
    for (class, helps) in [
        ("Mine", Remedy::ClassFormula),
        ("Lambda", Remedy::LayerFormula),
        ("LSTM", Remedy::OtherLayers),
        ("Conv3D", Remedy::OtherLayers),
        ("GroupQueryAttention", Remedy::OtherLayers),
    ] {
        let error = open_with(&unknown(&[(class, "l", json!({}))]), &[]).unwrap_err();
        assert_eq!(remedy(&error), helps, "{class}");
    }
    let function = unknown(&[("TFOpLambda", "l", json!({ "function": "image.rot90" }))]);
    assert_eq!(remedy(&open_with(&function, &[]).unwrap_err()), Remedy::OtherLayers);
}

#[test]
fn activations_may_be_the_users_own() {
    let settings = json!({ "filters": 2, "kernel_size": 1, "activation": "half" });
    let conv = unknown(&[("Conv2D", "c", settings.clone())]);
    let mut linear = settings;
    linear["activation"] = "linear".into();
    let plain = run(&open(&unknown(&[("Conv2D", "c", linear)])));
    let want: Vec<f32> = plain[0].data().iter().map(|x| x * 0.5).collect();
    for formula in ["half=x * 0.5", "c=x * 0.5"] {
        assert_eq!(run(&open_with(&conv, &[formula]).unwrap())[0].data(), want, "{formula}");
    }
    let e = refused(&conv, "activation `half` is unknown");
    assert!(matches!(e, Error::UnsupportedActivation { .. }));
    let alone =
        unknown(&[("Activation", "a", json!({ "activation": { "class_name": "function", "config": "half" } }))]);
    let want: Vec<f32> = picture(0).data().iter().map(|x| x * 0.5).collect();
    assert_eq!(run(&open_with(&alone, &["half=x * 0.5"]).unwrap())[0].data(), want);
    // Functions without a name are told apart where the file has their code.
    let lambda = |code: &str| json!({ "activation": { "value": [code, null, null] } });
    let two = unknown(&[("Activation", "a", lambda("one")), ("Activation", "b", lambda("other"))]);
    let e = open_with(&two, &["<lambda>=x * 0.5"]).unwrap_err().to_string();
    assert!(e.contains("`a`, `b`"), "{e}");
    assert_eq!(run(&open_with(&two, &["a=x * 0.5", "b=x"]).unwrap())[0].data(), want);
    let nameless = json!({ "activation": "<lambda>" });
    let graph =
        open_with(&unknown(&[("Activation", "a", nameless.clone()), ("Activation", "b", nameless)]), &["<lambda>=x"]);
    assert!(graph.unwrap().warnings[0].contains("`a`, `b`"));
    // The quantized file is read with the same formula.
    let graph = open_with(&conv, &["half=x * 0.5"]).unwrap();
    let samples = random_samples(&graph, 3, 8);
    let q = ptq(graph, &samples, &PtqOptions::new(Strategy::built_in("pof2s").unwrap()), |_, _| {}).unwrap().quantized;
    let bytes = quantized_bytes(&q, Path::new("q.h5")).unwrap();
    let mut options = LoadOptions::default();
    options.custom.add_formula("half=x * 0.5").unwrap();
    let Model::Quantized(back) = open_bytes(Path::new("q.h5"), bytes, &options).unwrap() else { panic!() };
    assert_eq!(graph_text(&back.graph), graph_text(&q.graph));
}

/// TensorFlow 2.0 to 2.3 write functions on tensors as nodes of a graph.
#[test]
fn nodes_of_graphs_are_functions() {
    let node = |op: &str, constants: Value| json!({ "node_def": { "name": op, "op": op, "input": ["a", "b"], "attr": { "T": { "type": "DT_FLOAT" } } }, "constants": constants });
    let own = unknown(&[
        ("TensorFlowOpLayer", "tf_op_layer_RealDiv", node("RealDiv", json!({ "1": 2.0 }))),
        ("TensorFlowOpLayer", "tf_op_layer_Sub", node("Sub", json!({ "0": 1.0 }))),
    ]);
    let want: Vec<f32> = picture(0).data().iter().map(|x| 1.0 - x / 2.0).collect();
    assert_eq!(run(&open(&own))[0].data(), want);
    let e =
        refused(&unknown(&[("TensorFlowOpLayer", "f", node("Atan2", json!({ "1": 2.0 })))]), "TensorFlowOpLayer Atan2");
    assert_eq!(remedy(&e), Remedy::OtherLayers);
}

#[test]
fn limits_are_checked_before_the_work() {
    let keras = Keras::Two;
    let names: Vec<String> = (0..300).map(|i| format!("i{i}")).collect();
    let layers: Vec<Value> = names.iter().map(|n| keras.input(n)).collect();
    let ends: Vec<Value> = names.iter().map(|n| json!([n, 0, 0])).collect();
    refused(&model(&layers, &ends.into(), &json!([["i0", 0, 0]])), "300 `input_layers`, at most 256");
    // Models that hold their input and nothing else: each level is applied twice.
    let mut inner = inside(&[keras.input("i")], &json!([["i", 0, 0]]), &json!([["i", 0, 0]]));
    for _ in 0..30 {
        let calls = [(&[("i", 0, 0)][..], json!({})), (&[("m", 1, 0)][..], json!({}))];
        let level = keras.layer("Functional", "m", inner, &calls);
        inner = inside(&[keras.input("i"), level], &json!([["i", 0, 0]]), &json!([["m", 2, 0]]));
    }
    refused(&json!({ "class_name": "Functional", "config": inner }), "steps");
}

#[test]
fn numbers_must_be_finite() {
    let relu = |threshold: f64| unknown(&[("ReLU", "r", json!({ "threshold": threshold }))]);
    refused(&relu(-1e308), "within the range of 32-bit floats");
    open(&relu(0.5));
    let text = relu(0.5).to_string().replace("0.5", "1e999");
    let e = open_bytes(
        Path::new("m.json"),
        text.into_bytes(),
        &LoadOptions { random_weights: Some(1), ..LoadOptions::default() },
    );
    // Whether the number can be held at all depends on how the JSON's reader is built.
    let says = e.map(|_| String::new()).unwrap_err().to_string();
    assert!(says.contains("64-bit floats") || says.contains("not whole JSON"), "{says}");
    let add = json!({ "function": "math.add" });
    let mut function = unknown(&[("TFOpLambda", "f", add)]);
    function["config"]["layers"][1]["inbound_nodes"] = json!([["x", 0, 0, { "y": 1e39 }]]);
    refused(&function, "32-bit floats");
}

/// A layer's arguments may be nested; the file that is written has them flat, and is the same model.
#[test]
fn nested_arguments_survive() {
    let keras = Keras::Three;
    let mut blend = keras.layer("Blend", "blend", json!({ "ratio": 0.25 }), &[]);
    let tensor = |l: &str| json!({ "class_name": "__keras_tensor__", "config": { "keras_history": [l, 0, 0] } });
    blend["inbound_nodes"] =
        json!([{ "args": [[tensor("x"), tensor("c")], { "deep": [[tensor("c")]] }], "kwargs": { "k": tensor("x") } }]);
    let text =
        model(&[keras.input("x"), keras.conv("c", "x"), blend], &json!([["x", 0, 0]]), &json!([["blend", 0, 0]]));
    let formula = "Blend=ratio * x0 + x1 - x2 + x3";
    let graph = open_with(&text, &[formula]).unwrap();
    assert_eq!(graph.node(graph.outputs[0]).inputs.len(), 4);
    let samples = random_samples(&graph, 3, 8);
    let q = ptq(graph, &samples, &PtqOptions::new(Strategy::built_in("pof2s").unwrap()), |_, _| {}).unwrap().quantized;
    let bytes = quantized_bytes(&q, Path::new("q.h5")).unwrap();
    let mut options = LoadOptions::default();
    options.custom.add_formula(formula).unwrap();
    let Model::Quantized(back) = open_bytes(Path::new("q.h5"), bytes, &options).unwrap() else { panic!() };
    assert_eq!(graph_text(&back.graph), graph_text(&q.graph));
}

/// Weights may come from another file: of either layout, and only of the same layers.
#[test]
fn weights_may_be_in_a_file_of_their_own() {
    let options = |weights: &str| LoadOptions { weights: Some(crate::keras::file(weights)), ..LoadOptions::default() };
    let model = crate::keras::file("nested_keras2.h5");
    let own = shiftwise_formats::load(&model, &LoadOptions::default()).unwrap();
    let x = random_samples(&own, 2, 4);
    for file in ["nested_keras2.h5", "nested_keras2.keras", "nested_keras3.h5", "nested_keras3.keras"] {
        let graph = shiftwise_formats::load(&model, &options(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert_eq!(run_float(&graph, x.clone()).unwrap(), run_float(&own, x.clone()).unwrap(), "{file}");
    }
    for file in ["shared_keras2.h5", "shared_keras3.keras"] {
        assert!(shiftwise_formats::load(&model, &options(file)).is_err(), "{file}");
    }
    let both = LoadOptions { random_weights: Some(1), ..options("nested_keras2.h5") };
    let text = Keras::Two.repeated(true, 1, 1, 1).to_string().into_bytes();
    let e = open_bytes(Path::new("m.json"), text, &both).map(|_| ()).unwrap_err();
    assert!(e.to_string().contains("not both"), "{e}");
}
