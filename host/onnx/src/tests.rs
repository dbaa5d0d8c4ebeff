//! ONNX' own test cases, wherever they are: `SHIFTWISE_ONNX_CASES` names the folder `onnx/backend/test/data` of the Python
//! package `onnx` (1.22.0 is the last one that has the cases on disk). Without it the small set of the repository is walked.
//!
//! Each case is a folder with `model.onnx` and `test_data_set_N/{input,output}_K.pb`. A model is computed as its file states
//! it, and as layers if it is a network of layers; both must be the stored outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;

use shiftwise_graph::budget::Budget;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::layer_quant::LayerQuant;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::quant_graph::Model;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;

use crate::file::Network;
use crate::proto::TensorProto;
use crate::value::{self, Data, Value};
use crate::writer::{Form, WriteOptions, write_float, write_quantized};
use crate::{ops, reader};
use shiftwise_files::Files;
use shiftwise_files::LoadOptions;

/// The repository's own cases.
const OWN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/onnx/cases");

/// Folders of cases below a folder, in order.
fn cases(folder: &Path, depth: usize) -> Vec<PathBuf> {
    if folder.join("model.onnx").is_file() {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut below: Vec<PathBuf> = entries.filter(|p| p.is_dir() && depth > 0).collect();
    below.sort();
    below.iter().flat_map(|p| cases(p, depth - 1)).collect()
}

/// The arrays `NAME_0.pb`, `NAME_1.pb`, … of a folder.
fn arrays(folder: &Path, name: &str) -> Result<Vec<Value>, String> {
    let files = (0..).map(|k| folder.join(format!("{name}_{k}.pb"))).take_while(|p| p.is_file());
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).map_err(|e| e.to_string())?;
        let tensor = TensorProto::decode(bytes.as_slice()).map_err(|e| e.to_string())?;
        value::decode(&tensor, None, &Budget::for_file(bytes.len()))
    };
    files.map(read).collect()
}

/// Whether values are as good as those that are expected: whole numbers to the last bit, but for a float in a thousand.
fn alike(seen: &Value, expected: &Value) -> Result<(), String> {
    if (seen.element, &seen.shape) != (expected.element, &expected.shape) {
        let text = |v: &Value| format!("{} {:?}", v.element.name(), v.shape);
        return Err(format!("{} instead of {}", text(seen), text(expected)));
    }
    let near = |(a, b): (&f64, &f64)| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 + 1e-3 * b.abs();
    match (&seen.data, &expected.data) {
        (Data::Real(a), Data::Real(b)) => {
            let wrong = a.iter().zip(b).position(|pair| !near(pair));
            wrong.map_or(Ok(()), |i| Err(format!("element {i} is {} instead of {}", a[i], b[i])))
        }
        (a, b) => {
            if a == b {
                Ok(())
            } else {
                Err("other whole numbers".into())
            }
        }
    }
}

/// How many values differ where all differ by hundredths of the largest at most: a sum beside the edge of a float scale's
/// step falls to either side when its terms are added in another order. 0 where one differs by more.
fn on_an_edge(seen: &Value, expected: &Value) -> usize {
    let (Data::Real(a), Data::Real(b)) = (&seen.data, &expected.data) else { return 0 };
    let most = b.iter().fold(0.0, |most: f64, v| most.max(v.abs())) / 50.0;
    let off: Vec<f64> = a.iter().zip(b).map(|(a, b)| (a - b).abs()).filter(|off| *off > 1e-6).collect();
    if off.iter().all(|off| *off <= most) { off.len() } else { 0 }
}

/// What became of a case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// As its file states it, and as layers too.
    Layers,
    /// As its file states it; why it is no network of layers.
    Whole(String),
    /// Not supported, and why.
    Refused(String),
    /// Wrong.
    Wrong(String),
}

fn outcome(case: &Path) -> Outcome {
    let path = case.join("model.onnx");
    let network = match Files::open(&path).and_then(Network::read) {
        Ok(network) => network,
        Err(why) => return Outcome::Refused(why.to_string()),
    };
    let graph = reader::graph(&network, &LoadOptions::default(), &path);
    let mut sets: Vec<PathBuf> = std::fs::read_dir(case).into_iter().flatten().flatten().map(|e| e.path()).collect();
    sets.retain(|p| p.is_dir());
    for set in &sets {
        let (given, expected) = match arrays(set, "input").and_then(|g| arrays(set, "output").map(|e| (g, e))) {
            Ok(both) => both,
            Err(why) => return Outcome::Refused(why),
        };
        if let Ok(graph) = &graph {
            let tensors = given.iter().map(Value::tensor).collect::<Option<Vec<_>>>().unwrap_or_default();
            let made = match run_float(graph, tensors) {
                Ok(made) => made,
                Err(why) => return Outcome::Wrong(format!("as layers: {why}")),
            };
            for (seen, expected) in made.iter().zip(&expected) {
                if let Err(why) = alike(&Value::of_tensor(seen), expected) {
                    return Outcome::Wrong(format!("as layers: {why}"));
                }
            }
        }
        if graph.is_ok() && case.components().any(|c| c.as_os_str() == "light") {
            continue; // Whole architectures are computed as layers only: by definition they would take minutes.
        }
        let made = match network.run(given, &path) {
            Ok(made) => made,
            Err(why) => return Outcome::Refused(why.to_string()),
        };
        for (seen, expected) in made.iter().zip(&expected) {
            if let Err(why) = alike(seen, expected) {
                return Outcome::Wrong(why);
            }
        }
    }
    graph.map_or_else(|why| Outcome::Whole(why.to_string()), |_| Outcome::Layers)
}

#[test]
fn every_case_is_computed_or_refused_for_a_reason() {
    let own = std::env::var("SHIFTWISE_ONNX_CASES").map_or_else(|_| PathBuf::from(OWN), PathBuf::from);
    let filter = std::env::var("SHIFTWISE_ONNX_FILTER").unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases(&own, 2) {
        let name = case.strip_prefix(&own).unwrap_or(&case).display().to_string();
        if !name.contains(&filter) || filter.is_empty() && name.starts_with("light") {
            continue;
        }
        let outcome = outcome(&case);
        let (kind, why) = match &outcome {
            Outcome::Layers => ("layers", String::new()),
            Outcome::Whole(why) => ("whole", why.clone()),
            Outcome::Refused(why) => ("refused", why.clone()),
            Outcome::Wrong(why) => ("wrong", why.clone()),
        };
        *counts.entry(kind).or_default() += 1;
        println!("{kind} {name}: {}", why.rsplit("model.onnx: ").next().unwrap_or_default());
        if matches!(outcome, Outcome::Wrong(_)) {
            wrong.push(name);
        }
    }
    println!("{counts:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The repository's own cases as layers, with their input.
fn own_networks() -> Vec<(String, Graph, Vec<Tensor>)> {
    let read = |case: PathBuf| {
        let path = case.join("model.onnx");
        let network = Network::read(Files::open(&path).unwrap()).unwrap();
        let graph = reader::graph(&network, &LoadOptions::default(), &path).unwrap();
        let inputs = arrays(&case.join("test_data_set_0"), "input").unwrap();
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name, graph, inputs.iter().map(|v| v.tensor().unwrap()).collect())
    };
    cases(Path::new(OWN), 2).into_iter().map(read).collect()
}

/// What a written model computes, as its file states it.
fn computed(bytes: Vec<u8>, inputs: &[Tensor]) -> Vec<Value> {
    let path = Path::new("written.onnx");
    let network = Network::read(Files::of_bytes(path, bytes)).unwrap();
    network.run(inputs.iter().map(Value::of_tensor).collect(), path).unwrap()
}

#[test]
fn no_permutation_is_left_inside_a_convolutional_network() {
    for (name, graph, _) in own_networks() {
        let permutations = graph.nodes.iter().filter(|n| matches!(n.op, Op::Permute(_))).count();
        // One at each end; shuffled channels are a permutation of their own.
        let most = match name.as_str() {
            "channels_last" => 0,
            "classifier" | "sequences" | "squeeze_and_excitation" => 1,
            "moves" => 5,
            _ => 2,
        };
        assert!(permutations <= most, "{name}: {permutations} permutations");
    }
}

#[test]
fn written_float_models_compute_the_same() {
    for (name, graph, inputs) in own_networks() {
        let expected = run_float(&graph, inputs.clone()).unwrap();
        for opset in WriteOptions::OPSETS {
            let bytes = match write_float(&graph, &WriteOptions { form: Form::Vendor, opset }) {
                Ok(bytes) => bytes,
                Err(why) => {
                    assert!(why.to_string().contains("not written as ONNX"), "{name}: {why}");
                    continue;
                }
            };
            for (seen, expected) in computed(bytes, &inputs).iter().zip(&expected) {
                alike(seen, &Value::of_tensor(expected)).unwrap_or_else(|why| panic!("{name}, opset {opset}: {why}"));
            }
        }
    }
}

#[test]
fn written_quantized_models_compute_the_same() {
    for (name, graph, inputs) in own_networks() {
        for strategy in ["pof2s", "fs"] {
            let options = PtqOptions::new(Strategy::built_in(strategy).unwrap());
            let quantized = ptq(graph.clone(), &inputs, &options, |_, _| ()).unwrap().quantized;
            let expected = run_vendor(&quantized, inputs.clone()).unwrap();
            let bytes = match write_quantized(&quantized, &WriteOptions::default()) {
                Ok(bytes) => bytes,
                Err(why) => {
                    assert!(why.to_string().contains("not written as ONNX"), "{name}: {why}");
                    continue;
                }
            };
            for (seen, expected) in computed(bytes, &inputs).iter().zip(&expected) {
                let expected = Value::of_tensor(expected);
                let edges = if strategy == "fs" { on_an_edge(seen, &expected) } else { 0 };
                assert!(edges <= 3 + expected.shape.iter().product::<usize>() / 50, "{name}, {strategy}: {edges}");
                if edges == 0 {
                    alike(seen, &expected).unwrap_or_else(|why| panic!("{name}, {strategy}: {why}"));
                }
            }
        }
    }
}

#[test]
fn blocks_of_values_compute_the_same_as_standard_operators() {
    for (name, graph, inputs) in own_networks() {
        for (format, width) in [("bf16", 16), ("bfp", 15), ("msfp", 13)] {
            let mut strategy = Strategy::built_in("bfp").unwrap();
            strategy.set("data_format", format.into()).unwrap();
            for of in ["input_bit", "weight_bit", "bias_bit", "activation_bit"] {
                strategy.set(of, width.into()).unwrap();
            }
            let options = PtqOptions::new(strategy);
            let quantized = ptq(graph.clone(), &inputs, &options, |_, _| ()).unwrap().quantized;
            let expected = run_vendor(&quantized, inputs.clone()).unwrap();
            let bytes = match write_quantized(&quantized, &WriteOptions::default()) {
                Ok(bytes) => bytes,
                Err(why) => {
                    assert!(why.to_string().contains("not written as ONNX"), "{name}: {why}");
                    continue;
                }
            };
            for (seen, expected) in computed(bytes, &inputs).iter().zip(&expected) {
                // Sums in another order may come to the other side of an edge.
                let expected = Value::of_tensor(expected);
                let edges = on_an_edge(seen, &expected);
                assert!(edges <= 3 + expected.len() / 50, "{name}, {format}: {edges}");
                if edges == 0 {
                    alike(seen, &expected).unwrap_or_else(|why| panic!("{name}, {format}: {why}"));
                }
            }
        }
    }
}

#[test]
fn the_same_network_of_two_formats_has_the_same_positions() {
    let models = std::env::var("SHIFTWISE_SHARED").map(|shared| Path::new(&shared).join("models"));
    for name in ["lenet5_mnist", "resnet8_fashion"] {
        let Ok(models) = &models else { return };
        let quantized = |end: &str| {
            let files = Files::open(&models.join(format!("{name}.{end}"))).unwrap();
            let (budget, options) = (files.budget(), LoadOptions::default());
            let model = match end {
                "onnx" => crate::read(files, &options, &budget),
                _ => shiftwise_keras::read_h5(files, &options, &budget),
            };
            let Model::Float(graph) = model.unwrap() else { panic!("a float model") };
            let shape = [&[8], graph.node(graph.inputs[0]).shape.as_slice()].concat();
            let count: usize = shape.iter().product();
            let samples =
                vec![Tensor::new(shape, (0..count).map(|i| ((i * 37 % 101) as f32) / 101.0).collect()).unwrap()];
            let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
            let quantized = ptq(graph, &samples, &options, |_, _| ()).unwrap().quantized;
            let own = quantized.layers.values().flat_map(LayerQuant::all).map(|q| q.scheme().pos());
            own.collect::<Vec<_>>()
        };
        assert_eq!(quantized("onnx"), quantized("h5"), "{name}");
    }
}

#[test]
fn operators_stand_in_order_and_once() {
    let names: Vec<&str> = ops::OPS.iter().map(|op| op.name).collect();
    assert!(names.is_sorted_by(|a, b| a < b));
}
