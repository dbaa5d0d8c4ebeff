//! Quantized models in the vendor's form.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use shiftwise::Error;
use shiftwise::format::{LoadOptions, Model, load, open_bytes, quantize_info, quantized_bytes};
use shiftwise::passes::{DPU_VERSION, OPTIMIZE, annotate, run};
use shiftwise::quant::QuantGraph;
use shiftwise::strategy::Strategy;
use shiftwise_tests::shared::golden_cases;

use crate::format::mutate;

const NAME: &str = "quantized.h5";

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The vendor's file of a case.
pub(crate) fn vendor_file(case: &Path) -> Option<Vec<u8>> {
    let packed = std::fs::read(case.join("quantized.h5.gz")).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read(bytes: &[u8]) -> Result<QuantGraph, Error> {
    match open_bytes(Path::new(NAME), bytes.to_vec(), &LoadOptions::default())? {
        Model::Quantized(q) => Ok(q),
        Model::Float(_) => Err(Error::model("float")),
    }
}

/// Every attribute and dataset of a file by path: type, shape and bytes.
pub(crate) fn listing(bytes: &[u8]) -> BTreeMap<String, String> {
    fn walk(group: &hdf5_pure::Group, path: &str, into: &mut BTreeMap<String, String>) {
        for (name, value) in group.attrs().unwrap() {
            into.insert(format!("{path}@{name}"), format!("{value:?}"));
        }
        for (name, data) in group.iter_datasets().unwrap() {
            let text = format!("{} {:?} {:?}", data.dtype().unwrap(), data.shape().unwrap(), data.read_raw().unwrap());
            into.insert(format!("{path}/{name}"), text);
        }
        for (name, inner) in group.iter_groups().unwrap() {
            into.insert(format!("{path}/{name}"), "group".into());
            walk(&inner, &format!("{path}/{name}"), into);
        }
    }
    let mut into = BTreeMap::new();
    walk(&hdf5_pure::File::from_bytes(bytes.to_vec()).unwrap().root(), "", &mut into);
    into
}

/// Fails with what surrounds the first difference: the texts are long.
pub(crate) fn same_text(got: &str, want: &str, what: &str) {
    let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(120);
    let part = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[at.min(text.len())..]).chars().take(300).collect::<String>()
    };
    assert!(got == want, "{what}:\n{}\nand not\n{}", part(got), part(want));
}

/// Where what we write differs from what we read, and why:
/// - `qat`: the vendor marks trained layers `QAT` and counts training steps; we write every model as calibrated;
/// - `sequential`: we write every model as a functional one;
/// - `s_add_shape_input`: an empty `optimizer_weights` group of a compiled model.
const DIFFERENT: [&str; 3] = ["qat_", "pof2s_sequential_", "s_add_shape_input"];

#[test]
fn the_vendors_files_survive_reading_and_writing() {
    let (mut same, cases) = (0, golden_cases());
    for case in &cases {
        let Some(bytes) = vendor_file(case) else { continue };
        let Ok(quantized) = read(&bytes) else { continue };
        let again = quantized_bytes(&quantized, Path::new(NAME)).unwrap();
        let twice = quantized_bytes(&read(&again).unwrap(), Path::new(NAME)).unwrap();
        assert!(again == twice, "{case:?}");
        let name = case.file_name().unwrap().to_string_lossy();
        if DIFFERENT.iter().any(|d| name.starts_with(d)) {
            continue;
        }
        let (want, got) = (listing(&bytes), listing(&again));
        for (path, text) in &want {
            same_text(got.get(path).map_or("nothing", String::as_str), text, &format!("{case:?} {path}"));
        }
        assert_eq!(got.len(), want.len(), "{case:?}");
        same += 1;
    }
    assert!(cases.is_empty() || same >= 100, "{same}");
}

#[test]
fn quantize_info_is_the_vendors() {
    let (mut checked, cases) = (0, golden_cases());
    for case in &cases {
        let Some(quantized) = vendor_file(case).and_then(|b| read(&b).ok()) else { continue };
        let positions = json(&case.join("positions.json"));
        let positions = positions.as_array().unwrap().iter().filter(|e| e["role"] != "none");
        let Value::Array(info) = quantize_info(&quantized) else { panic!("{case:?}") };
        assert_eq!(positions.clone().count(), info.len(), "{case:?}");
        for (want, got) in positions.zip(&info) {
            for (key, value) in got.as_object().unwrap() {
                // The reference writes positions as floats.
                let floats = |v: &Value| match v {
                    Value::Array(list) => list.iter().map(Value::as_f64).collect(),
                    one => vec![one.as_f64()],
                };
                let number = value.is_number() || value.is_array();
                let equal = if number { floats(&want[key]) == floats(value) } else { want[key] == *value };
                assert!(equal, "{case:?}: {key} of {got} is not that of {want}");
            }
        }
        checked += 1;
    }
    assert!(cases.is_empty() || checked >= 100, "{checked}");
}

/// A float model through the passes, uncalibrated.
fn annotated(case: &Path) -> Option<QuantGraph> {
    let mut graph = load(&case.join("model.h5"), &LoadOptions::default()).ok()?;
    let strategy = Strategy::built_in("pof2s").unwrap();
    run(OPTIMIZE, &mut graph, &strategy).unwrap();
    // Refused where a layer's DPU form is not there yet.
    run(DPU_VERSION, &mut graph, &strategy).ok()?;
    annotate::annotate(graph, &strategy).ok()
}

#[test]
fn our_quantized_models_have_the_vendors_config() {
    let (mut same, cases) = (0, golden_cases());
    for case in &cases {
        let config = json(&case.join("config.json"));
        let default =
            config["strategy"] == "pof2s" && config["quantize_kwargs"].as_object().is_some_and(|k| k.is_empty());
        let name = case.file_name().unwrap().to_string_lossy();
        if !default || config["mode"] != "ptq" || DIFFERENT.iter().any(|d| name.starts_with(d)) {
            continue;
        }
        let Some((vendor, ours)) = vendor_file(case).zip(annotated(case)) else { continue };
        if read(&vendor).is_err() {
            continue;
        }
        let (want, got) = (listing(&vendor), listing(&quantized_bytes(&ours, Path::new(NAME)).unwrap()));
        let keys = |list: &BTreeMap<String, String>| list.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&got), keys(&want), "{case:?}");
        for (path, text) in want.iter().filter(|(path, _)| path.contains('@')) {
            same_text(&got[path], text, &format!("{case:?} {path}"));
        }
        same += 1;
    }
    assert!(cases.is_empty() || same >= 50, "{same}");
}

#[test]
fn damaged_quantized_files_are_refused_without_a_panic() {
    let Some(case) = golden_cases().into_iter().find(|c| c.ends_with("pof2s_conv_bn_relu_v0")) else { return };
    let bytes = quantized_bytes(&read(&vendor_file(&case).unwrap()).unwrap(), Path::new(NAME)).unwrap();
    mutate(&bytes, 3000, |copy| read(&copy).is_ok());
}

#[test]
fn the_repositorys_models_survive_writing_and_damage() {
    for name in ["digits_resnet.h5", "digits_lenet.h5"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
        let float = std::fs::read(&file).unwrap();
        let mut graph = load(&file, &LoadOptions::default()).unwrap();
        let strategy = Strategy::built_in("pof2s").unwrap();
        run(OPTIMIZE, &mut graph, &strategy).unwrap();
        run(DPU_VERSION, &mut graph, &strategy).unwrap();
        let quantized = annotate::annotate(graph, &strategy).unwrap();
        let bytes = quantized_bytes(&quantized, Path::new(NAME)).unwrap();
        let back = read(&bytes).unwrap();
        assert_eq!(back.graph.to_text(), quantized.graph.to_text(), "{name}");
        assert_eq!(quantize_info(&back), quantize_info(&quantized), "{name}");
        assert!(quantized_bytes(&back, Path::new(NAME)).unwrap() == bytes, "{name}");
        mutate(&bytes, 80, |copy| read(&copy).is_ok());
        let options = LoadOptions::default();
        mutate(&float, 80, |copy| open_bytes(Path::new(name), copy, &options).is_ok());
    }
}
