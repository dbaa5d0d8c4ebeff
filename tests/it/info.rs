//! What `info` says of every kind of file, and of files that are none.

use serde_json::Value;
use shiftwise_tests::command::{Folder, Ran};
use shiftwise_tests::shared::shared;

/// The answer for people, after a look at its width.
fn told(folder: &Folder, file: &str) -> String {
    let Ran { code, out, err } = folder.run(&format!("info {file}"));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{file}: {out}");
    let wide: Vec<&str> = out.lines().filter(|line| line.chars().count() > 80).collect();
    assert!(wide.is_empty(), "{file}: {wide:?}");
    out
}

fn json(folder: &Folder, file: &str) -> Value {
    let ran = folder.run(&format!("info {file} --json"));
    assert_eq!(ran.code, Some(0), "{file}: {ran:?}");
    ran.json()
}

/// A folder with a result of every command.
fn results(name: &str) -> Folder {
    let folder = Folder::new(name);
    for command in [
        "quantize digits_lenet.h5 --calib digits.npz:x_cal --mean 0.25 --scale 1/2 --output-dir q",
        "compile q/quantized.h5 --target B512 -o m.swm --self-test digits.npz:x_cal",
        "dump q/quantized.h5 --data digits.npz:x_eval --output-dir dump",
        "verify q/quantized.h5 --data digits.npz:x_eval --samples 2 --target B512 -o proof.json",
        "predict digits_lenet.h5 --data digits.npz:x_eval -o out.npy",
        "strategy dump fs -o strategy.json",
    ] {
        let ran = folder.run(command);
        assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
    }
    folder
}

#[test]
fn every_file_that_a_command_writes_is_told() {
    let folder = results("info-kinds");
    for (file, kind) in [
        ("digits_lenet.h5", "a Keras model (.h5)"),
        ("q/quantized.h5", "a quantized Keras model (.h5)"),
        ("m.swm", "a compiled model (.swm)"),
        ("dump", "a dump folder"),
        ("proof.json", "a proof (proof.json)"),
        ("q/provenance.json", "where a result came from (provenance.json)"),
        ("strategy.json", "a quantize strategy (.json)"),
        ("digits.npz", "an archive of arrays (.npz)"),
        ("out.npy", "an array (.npy)"),
    ] {
        assert_eq!(json(&folder, file)["kind"], kind);
        assert!(told(&folder, file).contains(kind), "{file}");
    }
    assert!(told(&folder, "digits.npz").contains("x_eval        float32, shape 450x8x8x1"));
    assert!(told(&folder, "out.npy").contains("float32, shape 450x10"));
    assert!(told(&folder, "proof.json").contains("0 mismatches"));
}

#[test]
fn a_float_model_is_counted() {
    let folder = Folder::new("info-float");
    let network = &json(&folder, "digits_lenet.h5")["content"]["network"];
    // conv 3·3·1·8 + 8, conv 3·3·8·16 + 16, dense 256·… as the maker of the model chose them: Keras counts 7882.
    assert_eq!(network["parameters"], 7882);
    assert_eq!(network["classes"]["Conv2D"], 2);
    assert_eq!(network["keras"], "2.18.0");
    assert_eq!(network["quantized_layers"], Value::Null);
}

#[test]
fn a_quantized_model_says_what_an_application_needs() {
    let folder = results("info-quantized");
    let (quantized, compiled) = (json(&folder, "q/quantized.h5"), json(&folder, "m.swm"));
    let entries: Value = serde_json::from_slice(&folder.tree()["q/quantize_info.json"]).unwrap();
    let input = entries.as_array().unwrap().iter().find(|e| e["wrapped"] == "quant_image" || e["wrapped"] == "image");
    let position = input.unwrap()["position"].as_i64().unwrap();
    for info in [&quantized, &compiled] {
        let port = &info["inputs"][0];
        assert_eq!((&port["name"], &port["dtype"]), (&"image".into(), &"int8".into()));
        assert_eq!(port["shape"], serde_json::json!([8, 8, 1]));
        assert_eq!(port["position"], position);
        assert_eq!(port["factor"], 2f64.powi(position as i32));
        assert_eq!(info["metadata"]["preprocessing"]["scale"], 0.5);
        let languages: Vec<_> = info["snippets"].as_array().unwrap().iter().map(|s| s["language"].clone()).collect();
        assert_eq!(languages, ["C", "Rust", "Python"]);
    }
    let text = told(&folder, "q/quantized.h5");
    assert!(text.contains("--mean 0.25 --scale 0.5") && text.contains("digits_lenet.h5 (model), SHA-256"), "{text}");
    assert_eq!(compiled["content"]["deployable"]["target"], "DPUCZDX8G_ISA1_B512");

    // Provenance beside a file that it isn't about says nothing of it.
    folder.write("q/quantized.h5", &folder.tree()["digits_lenet.h5"]);
    assert!(!told(&folder, "q/quantized.h5").contains("SHA-256"));
}

#[test]
fn a_file_that_is_not_known_is_refused_with_what_is() {
    let folder = Folder::new("info-unknown");
    for (name, bytes, said) in [
        (
            "a.txt",
            &b"hello"[..],
            "what can be read: a Keras model's architecture (.json), a TensorFlow SavedModel, a Keras 3 model",
        ),
        ("b.json", b"{\"colour\": 1}", "is JSON that begins with `colour`, which is no document of ours"),
        ("c.json", b"{\"verdict\": ", "not"),
        ("d.swm", b"SWM1 and no more", "d.swm"),
        ("e.npy", b"\x93NUMPY\x01\x00", "its header is cut short"),
        ("f.npz", b"PK\x03\x04", "f.npz"),
        ("g.xmodel", b"\x0a\x01a\x2a\x7f", "g.xmodel"),
        ("empty", b"", "what can be read"),
        ("h.tflite", b"\x1c\0\0\0TFL3rest", "an offset of it points out of the file"),
    ] {
        folder.write(name, bytes);
        let ran = folder.run(&format!("info {name}"));
        assert!(ran.code == Some(2) && ran.err.contains(said) && ran.out.is_empty(), "{name}: {ran:?}");
    }
    assert_eq!(folder.run("info nothing").code, Some(2));
}

#[test]
fn the_vendors_files_are_told() {
    let Some(shared) = shared() else { return };
    let folder = Folder::new("info-vendor");
    let at = |name: &str| shared.join("xmodels").join(name).display().to_string();
    let graph = json(&folder, &at("pointpillars.quantized_graph.xmodel"));
    assert_eq!(graph["kind"], "the vendor's graph (.xmodel)");
    assert_eq!((&graph["inputs"][0]["dtype"], &graph["inputs"][0]["position"]), (&"int8".into(), &6.into()));
    let program = json(&folder, &at("pointpillars.zcu102_zcu104_kv260.r2.5.xmodel"));
    assert_eq!(program["content"]["xmodel"]["target"], "DPUCZDX8G_ISA1_B4096");
    assert_eq!(program["content"]["xmodel"]["subgraphs"].as_array().unwrap().len(), 8);
    told(&folder, &at("tf2_custom_op.zcu102_zcu104_kv260.r2.5.xmodel"));
    assert_eq!(json(&folder, &at("tf2_custom_op.quantized.h5"))["inputs"][0]["position"], -2);
}
