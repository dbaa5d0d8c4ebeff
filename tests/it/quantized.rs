//! Quantized models in the vendor's form.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use shiftwise_formats::{LoadOptions, Model, graph_text, load, open_bytes, quantize_info, quantized_bytes};
use shiftwise_graph::error::Error;
use shiftwise_quant::metadata::Metadata;
use shiftwise_quant::passes::{DPU_VERSION, OPTIMIZE, annotate, run};
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
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
        Model::Float(graph) => {
            Ok(QuantGraph { graph, layers: BTreeMap::new(), metadata: Metadata::default(), trained: false })
        }
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

/// The first place where two JSON values differ, key order included; `None` if nowhere.
fn difference(want: &Value, got: &Value, at: &str) -> Option<String> {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let pairs = a.iter().zip(b);
            let inner = pairs.clone().find_map(|((k, v), (l, w))| match k == l {
                true => difference(v, w, &format!("{at}.{k}")),
                false => Some(format!("{at}: key {k} is {l} here")),
            });
            inner.or_else(|| (a.len() != b.len()).then(|| format!("{at}: {} keys are {} here", a.len(), b.len())))
        }
        (Value::Array(a), Value::Array(b)) => {
            let name = |i: usize, v: &Value| v.get("name").and_then(Value::as_str).map_or(i.to_string(), str::to_owned);
            let pairs = a.iter().zip(b).enumerate();
            let inner = pairs.clone().find_map(|(i, (v, w))| difference(v, w, &format!("{at}[{}]", name(i, v))));
            inner.or_else(|| (a.len() != b.len()).then(|| format!("{at}: {} items are {} here", a.len(), b.len())))
        }
        _ => (want != got).then(|| format!("{at}: {want} is {got} here")),
    }
}

/// Two attributes or datasets that should be the same, as text to fail with.
pub(crate) fn explain(want: &str, got: &str) -> String {
    let json = |text: &str| -> Option<Value> {
        let quoted = text.strip_prefix("VarLenAsciiString(")?.strip_suffix(')')?;
        serde_json::from_str(&serde_json::from_str::<String>(quoted).ok()?).ok()
    };
    match json(want).zip(json(got)) {
        Some((a, b)) => difference(&a, &b, "").unwrap_or_else(|| "the same JSON in other words".into()),
        None => format!("{want:.200} is {got:.200} here"),
    }
}

/// Where what we write differs from what we read, and why:
/// - `o_train_with_bn`: layers that are trained with their normalization, left as they are by calibration; we write them
///   as one convolution;
/// - `sequential`: we write every model as a functional one;
/// - `s_add_shape_input`: an empty `optimizer_weights` group of a compiled model;
/// - `o_no_sepconv`: the numbers that Keras gives to initializers which layers share.
const DIFFERENT: [&str; 4] = ["o_train_with_bn", "pof2s_sequential_", "s_add_shape_input", "o_no_sepconv"];

#[test]
fn the_vendors_files_survive_reading_and_writing() {
    let (mut same, mut wrong, cases) = (0, Vec::new(), golden_cases());
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
            let ours = got.get(path).map_or("", String::as_str);
            if ours != text {
                wrong.push(format!("{name} {path}: {}", explain(text, ours)));
            }
        }
        assert_eq!(got.len(), want.len(), "{case:?}");
        same += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.is_empty() || same >= 100, "{same}");
}

/// What the reference calls an entry of ours. Its `scale` counts steps per unit, and its zero point begins at 0; what it has
/// no word for has no name.
fn named(key: &str, value: &Value, want: &Value) -> (String, Value) {
    let framework = want["use_framework_quant"] == true && want["unsigned"] == false;
    let none = (String::new(), Value::Null);
    match (want["quantizer"].as_str().unwrap_or_default(), key) {
        ("FSQuantizer", "scale" | "zero_point") if !framework => none,
        ("FSQuantizer", "scale") => ("derived_step".into(), value.clone()),
        ("FSQuantizer", "zero_point") => {
            let up = |v: &Value| Value::from(v.as_f64().unwrap() + 128.0);
            let moved = value.as_array().map_or_else(|| up(value), |all| all.iter().map(up).collect());
            ("derived_zero_point_unsigned_domain".into(), moved)
        }
        ("TQTQuantizer", "position") => none,
        (_, key) => (key.into(), value.clone()),
    }
}

#[test]
fn quantize_info_is_the_vendors() {
    let (mut checked, cases) = (0, golden_cases());
    for case in &cases {
        let Some(quantized) = vendor_file(case).and_then(|b| read(&b).ok()) else { continue };
        // Its layers are those of training, ours those of inference.
        if case.ends_with("o_train_with_bn_optA") {
            continue;
        }
        let positions = json(&case.join("positions.json"));
        let positions = positions.as_array().unwrap().iter().filter(|e| e["role"] != "none");
        let Value::Array(mut info) = quantize_info(&quantized) else { panic!("{case:?}") };
        // What is left in another type of floats is no quantized tensor to the vendor.
        info.retain(|entry| entry.get("dtype").is_none());
        assert_eq!(positions.clone().count(), info.len(), "{case:?}");
        for (want, got) in positions.zip(&info) {
            for (key, value) in got.as_object().unwrap() {
                let (key, value) = &named(key, value, want);
                if key.is_empty() {
                    continue;
                }
                // The vendor's positions are floats, and ranges are f32 in both.
                let single = |v: &Value| v.as_f64().map(|v| v as f32);
                let floats = |v: &Value| v.as_array().map(|a| a.iter().map(single).collect::<Vec<_>>());
                let equal = match value {
                    Value::Number(_) => single(&want[key]) == single(value),
                    Value::Array(_) => floats(&want[key]) == floats(value),
                    _ => want[key] == *value,
                };
                assert!(equal, "{case:?}: {key} of {got} is not that of {want}");
            }
        }
        checked += 1;
    }
    assert!(cases.is_empty() || checked >= 100, "{checked}");
}

/// A float model through the passes, uncalibrated; `None` if it is refused.
fn annotated(case: &Path, config: &Value) -> Option<QuantGraph> {
    let graph = load(&case.join("model.h5"), &LoadOptions::default()).ok()?;
    let mut strategy = Strategy::built_in(config["strategy"].as_str()?).ok()?;
    for (key, value) in config["quantize_kwargs"].as_object()? {
        strategy.set(key, value.clone()).ok()?;
    }
    without_data(graph, &strategy).ok()
}

#[test]
fn our_quantized_models_have_the_vendors_config() {
    let (mut same, mut wrong, cases) = (0, Vec::new(), golden_cases());
    for case in &cases {
        let config = json(&case.join("config.json"));
        let layers = config["quantize_kwargs"].get("layer_config").is_some();
        let name = case.file_name().unwrap().to_string_lossy();
        if layers || config["mode"] != "ptq" || DIFFERENT.iter().any(|d| name.starts_with(d)) {
            continue;
        }
        let Some((vendor, ours)) = vendor_file(case).zip(annotated(case, &config)) else { continue };
        if read(&vendor).is_err() {
            continue;
        }
        let (want, got) = (listing(&vendor), listing(&quantized_bytes(&ours, Path::new(NAME)).unwrap()));
        let keys = |list: &BTreeMap<String, String>| list.keys().cloned().collect::<Vec<_>>();
        if keys(&got) != keys(&want) {
            let other = want.keys().find(|k| !got.contains_key(*k)).or(got.keys().find(|k| !want.contains_key(*k)));
            wrong.push(format!("{name}: {other:?} is in one file only"));
            continue;
        }
        for (path, text) in want.iter().filter(|(path, _)| path.contains('@')) {
            if &got[path] != text {
                wrong.push(format!("{name} {path}: {}", explain(text, &got[path])));
            }
        }
        same += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.is_empty() || same >= 150, "{same}");
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
        assert_eq!(graph_text(&back.graph), graph_text(&quantized.graph), "{name}");
        assert_eq!(quantize_info(&back), quantize_info(&quantized), "{name}");
        assert!(quantized_bytes(&back, Path::new(NAME)).unwrap() == bytes, "{name}");
        mutate(&bytes, 80, |copy| read(&copy).is_ok());
        let options = LoadOptions::default();
        mutate(&float, 80, |copy| open_bytes(Path::new(name), copy, &options).is_ok());
    }
}
