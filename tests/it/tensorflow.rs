//! Networks from TensorFlow's files (SavedModel, frozen graph, TensorFlow Lite) are the ones that Keras saved.
//!
//! `tests/data/make_tf.py` makes one small network in every form, and what TensorFlow computes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shiftwise::dataset::{DataSpec, Dataset};
use shiftwise_formats::{self as format, Files, LoadOptions, graph_text, quantize_info};
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::data;
use shiftwise_tests::shared::shared;

fn file(name: &str) -> PathBuf {
    data().join("tf").join(name)
}

fn model(name: &str) -> Graph {
    format::load(&file(name), &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn samples(key: &str, shape: &[usize]) -> Tensor {
    let spec = DataSpec::parse(&format!("{}:{key}", file("small.npz").display()));
    Dataset::open(&spec, shape).unwrap().batch(0, 8).unwrap()
}

/// Largest difference of outputs from TensorFlow's.
fn distance(graph: &Graph) -> f32 {
    let outputs = run_float(graph, vec![samples("x", &[8, 8, 3])]).unwrap();
    let want = samples("y", &[4]);
    assert_eq!(outputs[0].shape(), want.shape());
    outputs[0].data().iter().zip(want.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_form_of_a_network_computes_what_tensorflow_does() {
    // Weights in 16 or 8 bits are other weights.
    let forms = [
        ("small.h5", 1e-5),
        ("small_saved_model", 1e-5),
        ("small.pb", 1e-5),
        ("small.tflite", 1e-5),
        ("small_float16.tflite", 5e-3),
        ("small_dynamic.tflite", 0.1),
        ("small_int8.tflite", 0.1),
    ];
    for (name, most) in forms {
        let worst = distance(&model(name));
        assert!(worst < most, "{name}: {worst}");
    }
}

#[test]
fn layers_are_those_that_keras_has() {
    // Which layers there are, with their settings: the names of some are the operations' own.
    let layers = |name: &str| {
        let text = graph_text(&model(name));
        let class = |line: &str| line.split(" = ").nth(1).and_then(|rest| rest.split('(').next()).map(str::to_owned);
        text.lines().filter_map(class).collect::<Vec<_>>()
    };
    let keras = layers("small.h5");
    for name in ["small_saved_model", "small.pb"] {
        assert_eq!(layers(name), keras, "{name}");
    }
    let text = graph_text(&model("small_saved_model"));
    for name in ["image", "conv1", "depthwise1", "bn1", "relu1", "add1", "trans1", "leaky1", "rows1", "dense1"] {
        assert!(text.contains(&format!("  {name} = ")), "{name}: {text}");
    }
}

/// The positions of a quantized network, in the order of its layers.
fn positions(name: &str) -> Vec<String> {
    let calibration = vec![samples("x", &[8, 8, 3])];
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    let quantized = ptq(model(name), &calibration, &options, |_, _| {}).unwrap().quantized;
    let info = quantize_info(&quantized);
    info.as_array().unwrap().iter().map(|row| format!("{} {}", row["role"], row["position"])).collect()
}

#[test]
fn positions_are_those_of_the_keras_file() {
    let keras = positions("small.h5");
    assert!(keras.len() > 20, "{keras:?}");
    for name in ["small_saved_model", "small.pb"] {
        assert_eq!(positions(name), keras, "{name}");
    }
}

#[test]
fn a_saved_model_is_read_from_memory_and_from_an_archive_of_its_folder() {
    let mut files = BTreeMap::new();
    for name in ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"] {
        files.insert(name.to_owned(), std::fs::read(file("small_saved_model").join(name)).unwrap());
    }
    let files = Files::of_folder(Path::new("m"), files);
    let model = format::open_files(files, &LoadOptions::default());
    assert!(matches!(model, Ok(format::Model::Float(_))), "{model:?}");
    let graph = std::fs::read(file("small_saved_model").join("saved_model.pb")).unwrap();
    let alone = format::open_bytes(Path::new("m"), graph, &LoadOptions::default()).unwrap_err();
    assert!(alone.to_string().contains("has no value of the variable"), "{alone}");
}

#[test]
fn what_is_written_of_a_graph_is_read_again() {
    for name in ["small.pb", "small.tflite"] {
        let calibration = vec![samples("x", &[8, 8, 3])];
        let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
        let quantized = ptq(model(name), &calibration, &options, |_, _| {}).unwrap().quantized;
        let bytes = format::quantized_bytes(&quantized, Path::new("q.h5")).unwrap();
        let back = match format::open_bytes(Path::new("q.h5"), bytes, &LoadOptions::default()).unwrap() {
            format::Model::Quantized(back) => back,
            format::Model::Float(_) => panic!("{name}: a quantized model is expected"),
        };
        assert_eq!(graph_text(&back.graph), graph_text(&quantized.graph), "{name}");
    }
}

#[test]
fn real_files_are_read() {
    let Some(shared) = shared() else { return };
    let models = shared.join("models");
    let open =
        |path: &Path| format::load(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for entry in std::fs::read_dir(models.join("tflite")).unwrap() {
        let graph = open(&entry.unwrap().path());
        assert!(graph.nodes.len() > 8, "{}", graph.nodes.len());
    }
    let spotter = open(&models.join("mlperf_kws_savedmodel"));
    let batch = |key: &str, shape: &[usize]| {
        let spec = DataSpec::parse(&format!("{}:{key}", models.join("mlperf_kws.npz").display()));
        Dataset::open(&spec, shape).unwrap().batch(0, 8).unwrap()
    };
    let outputs = run_float(&spotter, vec![batch("x_eval", &[49, 10, 1])]).unwrap();
    let want = batch("ref_out", &[12]);
    let worst = outputs[0].data().iter().zip(want.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-5, "{worst}");
}
