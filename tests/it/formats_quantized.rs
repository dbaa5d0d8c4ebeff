//! Quantized models come back from every format that they are written in, and from those of other tools.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use shiftwise::export::{Format, files};
use shiftwise_formats::onnx::{Form, WriteOptions};
use shiftwise_formats::{self as format, Files, LoadOptions, Model, open_bytes, open_files, quantize_info};
use shiftwise_graph::graph::Graph;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tests::command::data;
use shiftwise_tests::networks::random_samples;
use shiftwise_tests::shared::{golden_cases, shared};

fn float(path: &Path) -> Graph {
    format::load(path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn quantized(path: &Path) -> QuantGraph {
    let graph = float(path);
    let samples = random_samples(&graph, 7, 8);
    ptq(graph, &samples, &PtqOptions::new(Strategy::built_in("pof2s").unwrap()), |_, _| {}).unwrap().quantized
}

/// The model written in a format and read again.
fn again(model: &QuantGraph, own: Format, form: Form) -> QuantGraph {
    let options = WriteOptions { form, ..WriteOptions::default() };
    let written = files(&Model::Quantized(model.clone()), own, &options, Path::new("m")).unwrap();
    let [(path, bytes)] = &written[..] else { panic!("one file") };
    let read = match own {
        Format::Tf => {
            let all = BTreeMap::from([("saved_model.pb".to_owned(), bytes.clone())]);
            open_files(Files::of_folder(Path::new("m"), all), &LoadOptions::default())
        }
        Format::H5 | Format::Onnx | Format::Pb | Format::C => open_bytes(path, bytes.clone(), &LoadOptions::default()),
    };
    match read.unwrap_or_else(|e| panic!("{}: {e}", own.name())) {
        Model::Quantized(back) => back,
        Model::Float(_) => panic!("{}: a quantized model is expected", own.name()),
    }
}

/// Whether a row of `quantize_info` is of a weight.
fn is_weight(row: &Json) -> bool {
    ["kernel", "bias", "depthwise_kernel"].contains(&row["role"].as_str().unwrap_or_default())
}

/// Position of every weight, by layer and role, and those of all values in the order of the network: whether a value is
/// the output of one layer or the input of the next is not said by every format.
fn positions(model: &QuantGraph) -> (BTreeMap<String, Json>, Vec<Json>) {
    let info = quantize_info(model);
    let (weights, values): (Vec<&Json>, Vec<&Json>) = info.as_array().unwrap().iter().partition(|row| is_weight(row));
    let named = |row: &Json| (format!("{} {}", row["layer"], row["role"]), row["position"].clone());
    (weights.into_iter().map(named).collect(), values.into_iter().map(|row| row["position"].clone()).collect())
}

/// Numbers in rising order.
fn sorted<'a>(positions: impl IntoIterator<Item = &'a Json>) -> Vec<i64> {
    let mut all: Vec<i64> = positions.into_iter().map(|p| p.as_f64().unwrap() as i64).collect();
    all.sort_unstable();
    all
}

/// The outputs for samples, computed in integers.
fn outputs(model: &QuantGraph) -> Vec<Vec<f32>> {
    let graph = lower(model).unwrap();
    let made = Engine::new(&graph).run_batch(&random_samples(&model.graph, 11, 3)).unwrap();
    made.into_iter().map(|tensor| tensor.data().to_vec()).collect()
}

const FORMS: [(Format, Form); 4] =
    [(Format::Onnx, Form::Vendor), (Format::Onnx, Form::Qdq), (Format::Pb, Form::Vendor), (Format::Tf, Form::Vendor)];

#[test]
fn a_network_has_its_positions_and_its_integers_in_every_format() {
    for path in ["digits_lenet.h5", "digits_resnet.h5", "tf/small.h5"] {
        let model = quantized(&data().join(path));
        let (want, values) = (positions(&model), outputs(&model));
        for (own, form) in FORMS {
            let back = again(&model, own, form);
            assert_eq!(positions(&back), want, "{path} as {} {form:?}", own.name());
            assert_eq!(outputs(&back), values, "{path} as {} {form:?}", own.name());
            assert!(back.graph.warnings.is_empty(), "{path} as {}: {:?}", own.name(), back.graph.warnings);
        }
    }
}

#[test]
fn the_vendors_exports_are_read_as_the_models_that_they_were_made_of() {
    for case in golden_cases().into_iter().filter(|case| case.join("export/quantized_model.onnx").is_file()) {
        let read = format::open(&case.join("export/quantized_model.onnx"), &LoadOptions::default());
        let Model::Quantized(read) = read.unwrap_or_else(|e| panic!("{}: {e}", case.display())) else {
            panic!("{}: a quantized model is expected", case.display())
        };
        if case.ends_with("onnx_named") {
            let (weights, values) = positions(&read);
            let file = std::fs::read(case.join("positions.json")).unwrap();
            let want: Vec<Json> = serde_json::from_slice(&file).unwrap();
            let said = |row: &&Json| row["position"].is_number();
            let (of_weights, of_values): (Vec<&Json>, Vec<&Json>) =
                want.iter().filter(said).partition(|row| is_weight(row));
            let said = |rows: Vec<&'_ Json>| sorted(rows.into_iter().map(|row| &row["position"]).collect::<Vec<_>>());
            assert_eq!(sorted(weights.values()), said(of_weights), "{}", case.display());
            assert_eq!(sorted(&values), said(of_values), "{}", case.display());
        }
    }
}

#[test]
fn integers_of_tensorflow_lite_are_kept_at_positions_if_that_is_asked_for() {
    let keep = LoadOptions { keep_quantization: true, ..LoadOptions::default() };
    let path = data().join("tf/small_int8.tflite");
    let Model::Quantized(kept) = format::open(&path, &keep).unwrap() else { panic!("a quantized model") };
    assert!(kept.graph.warnings.iter().any(|w| w.contains("position")), "{:?}", kept.graph.warnings);
    assert!(lower(&kept).is_ok());
    assert!(matches!(format::open(&path, &LoadOptions::default()), Ok(Model::Float(_))));
    let floats = format::open(&data().join("tf/small.tflite"), &keep).unwrap_err();
    assert!(floats.to_string().contains("no quantization to keep"), "{floats}");
}

#[test]
fn the_vendors_quantized_graph_is_a_model() {
    let Some(shared) = shared() else { return };
    let path = shared.join("xmodels/pointpillars.quantized_graph.xmodel");
    let Model::Quantized(model) = format::open(&path, &LoadOptions::default()).unwrap() else {
        panic!("a quantized model")
    };
    let graph = lower(&model).unwrap();
    assert_eq!((model.graph.inputs.len(), model.graph.outputs.len()), (2, 3));
    assert!(graph.ops.len() > 30, "{}", graph.ops.len());
}
