//! Averages that the DPU computes otherwise than the vendor's simulation are named, with what they change.

use ndarray::Array4;
use ndarray_npy::WriteNpyExt;
use serde_json::Value;
use shiftwise_tests::command::{Folder, Ran};

/// An architecture: a convolution, then an average as given.
fn model(average: &str) -> String {
    format!(
        r#"{{"class_name": "Functional", "config": {{"name": "m", "layers": [
        {{"class_name": "InputLayer", "name": "x", "config": {{"name": "x", "batch_input_shape": [null, 6, 6, 3]}}, "inbound_nodes": []}},
        {{"class_name": "Conv2D", "name": "conv", "config": {{"name": "conv", "filters": 4, "kernel_size": [3, 3],
          "padding": "same", "activation": "relu", "use_bias": true}}, "inbound_nodes": [[["x", 0, 0, {{}}]]]}},
        {{"class_name": "AveragePooling2D", "name": "mean", "config": {{"name": "mean", {average}}},
          "inbound_nodes": [[["conv", 0, 0, {{}}]]]}}],
        "input_layers": [["x", 0, 0]], "output_layers": [["mean", 0, 0]]}}}}"#
    )
}

const SQUARE: &str = r#""pool_size": [3, 3], "strides": [1, 1], "padding": "valid""#;
const PADDED: &str = r#""pool_size": [3, 3], "strides": [1, 1], "padding": "same""#;
const RECTANGLE: &str = r#""pool_size": [1, 3], "strides": [1, 1], "padding": "valid""#;

/// A folder with the model, data of ones and more, and targets of zeros for the output's shape.
fn folder(name: &str, average: &str, output: [usize; 3]) -> Folder {
    let folder = Folder::new(name);
    folder.write("m.json", model(average).as_bytes());
    let npy = |array: Array4<f32>| {
        let mut bytes = Vec::new();
        array.write_npy(&mut bytes).unwrap();
        bytes
    };
    let value = |(n, y, x, c): (usize, usize, usize, usize)| ((n * 31 + y * 7 + x * 5 + c * 3) % 17) as f32 / 4.0 + 0.1;
    folder.write("x.npy", &npy(Array4::from_shape_fn((4, 6, 6, 3), value)));
    let [h, w, c] = output;
    folder.write("y.npy", &npy(Array4::zeros((4, h, w, c))));
    folder
}

fn done(folder: &Folder, arguments: &str) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran
}

const QUANTIZE: &str = "quantize m.json --random-weights 3 --calib x.npy --output-dir q --json";
const REST: [&str; 4] = [
    "evaluate q/quantized.h5 --data x.npy --labels y.npy --metric mae --json",
    "evaluate q/quantized.h5 --data x.npy --labels y.npy --metric mae --numerics vendor --json",
    "verify q/quantized.h5 --data x.npy --target B1152 -o proof.json --json",
    "compile q/quantized.h5 --target B1152 -o m.swm --json",
];

/// The one record in a command's answer, after its warning is found on the other stream.
fn record(ran: &Ran, cause: &str) -> Value {
    let lines: Vec<&str> = ran.err.lines().filter(|l| l.starts_with("warning: layer `mean`")).collect();
    assert_eq!(lines.len(), 1, "{ran:?}");
    let json = ran.json();
    let all = if json["averages"].is_null() { &json["model"]["averages"] } else { &json["averages"] };
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{json}");
    let one = all[0].clone();
    assert_eq!((one["layer"].as_str(), one["cause"].as_str()), (Some("mean"), Some(cause)), "{one}");
    let steps = one["steps"].as_u64().unwrap();
    let s = if steps == 1 { "" } else { "s" };
    assert!(steps > 0 && lines[0].contains(&format!("({steps} step{s})")), "{} {one}", lines[0]);
    let remedy = one["remedy"].as_str().unwrap();
    assert!(lines[0].contains(remedy) && remedy.contains("GlobalAveragePooling2D"), "{one}");
    one
}

#[test]
fn every_command_names_them() {
    for (cause, average, output) in [("padding", PADDED, [6, 6, 4]), ("rectangle", RECTANGLE, [6, 4, 4])] {
        let folder = folder(&format!("average-{cause}"), average, output);
        let quantized = done(&folder, QUANTIZE);
        let first = record(&quantized, cause);
        for command in REST {
            // The same samples everywhere, so the same difference.
            assert_eq!(record(&done(&folder, command), cause), first, "{command}");
        }
        let provenance: Value = serde_json::from_slice(&folder.tree()["q/provenance.json"]).unwrap();
        assert_eq!(provenance["averages"]["layers"][0], first);
        // A difference in steps is one in the output's units.
        let info = quantized.json()["quantize_info"].clone();
        let position = info
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .find_map(|row| (row["layer"].as_str()?.contains("mean")).then(|| row["position"].as_i64().unwrap()));
        let step = 2f64.powi(-position.unwrap() as i32);
        assert_eq!(first["difference"].as_f64().unwrap(), first["steps"].as_f64().unwrap() * step);
    }
}

/// The record belongs to one file.
#[test]
fn a_record_of_another_model_says_nothing() {
    let padded = folder("average-other", PADDED, [6, 6, 4]);
    done(&padded, QUANTIZE);
    let text = String::from_utf8(padded.tree()["q/provenance.json"].clone()).unwrap();
    let compile = "compile q/quantized.h5 --target B1152 -o m.swm --json";
    for other in [text.replace("quantized_sha256\": \"", "quantized_sha256\": \"0"), "{".into(), "[]".into()] {
        padded.write("q/provenance.json", other.as_bytes());
        let ran = done(&padded, compile);
        assert!(ran.json()["averages"].is_null() && !ran.err.contains("mean"), "{ran:?}");
    }
    std::fs::remove_file(padded.path.join("q/provenance.json")).unwrap();
    assert!(done(&padded, compile).json()["averages"].is_null());
}

#[test]
fn nothing_is_said_where_nothing_differs() {
    let folder = folder("average-square", SQUARE, [4, 4, 4]);
    for command in std::iter::once(QUANTIZE).chain(REST) {
        let ran = done(&folder, command);
        assert!(!ran.err.contains("mean") && !ran.out.contains("\"averages\""), "{command}: {ran:?}");
    }
}
