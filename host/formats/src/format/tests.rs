//! Every format is told by its content, and one without a reader has a remedy.

use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};

use super::*;
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::strategy::Strategy;

fn file(bytes: &[u8]) -> Files {
    Files::of_bytes(Path::new("m"), bytes.to_vec())
}

fn folder(names: &[&str]) -> Files {
    let files: BTreeMap<String, Vec<u8>> = names.iter().map(|name| ((*name).to_owned(), b"x".to_vec())).collect();
    Files::of_folder(Path::new("m"), files)
}

fn archive(names: &[&str]) -> Files {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for name in names {
        archive.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(b"x").unwrap();
    }
    Files::of_bytes(Path::new("m"), archive.finish().unwrap().into_inner())
}

/// Samples of every format, by name.
fn samples() -> Vec<(&'static str, Files)> {
    vec![
        ("a Keras model's architecture (.json)", file(b" {\"class_name\": \"Model\"}")),
        ("a Keras model's architecture (.json)", file(b"\"{}\"")),
        ("a PyTorch file", archive(&["m/data.pkl", "m/data/0"])),
        ("a TensorFlow SavedModel", folder(&["saved_model.pb", "variables/variables.index"])),
        ("a TensorFlow SavedModel", archive(&["saved_model.pb"])),
        ("a TensorFlow SavedModel", file(b"\x08\x01\x12\x03xyz")),
        ("a TensorFlow checkpoint", folder(&["checkpoint"])),
        ("a TensorFlow checkpoint", file(b"model_checkpoint_path: \"m\"")),
        ("a TensorFlow checkpoint", file(b"blocks\x57\xfb\x80\x8b\x24\x75\x47\xdb")),
        ("a Keras 3 model (.keras)", archive(&["config.json", "model.weights.h5", "data.pkl", "checkpoint"])),
        ("a Keras 3 model (.keras)", archive(&["words.txt"])),
        ("a Keras 3 model (.keras)", file(b"PK\x03\x04damaged")),
        ("a Keras model (.h5)", file(b"\x89HDF\r\n\x1a\nrest")),
        ("a TensorFlow Lite model", file(b"\x1c\0\0\0TFL3rest")),
        ("a compiled model", file(b"SWM1....")),
        ("a Python pickle", file(b"\x80\x02}q")),
        ("an ONNX model", file(b"\x08\x07\x12\x02ab\x3a\x03xyz\x42\x00")),
        ("a TensorFlow graph", file(b"\x0a\x05\x0a\x01n\x12\x00\x22\x02\x08\x01")),
        ("a vendor's graph (.xmodel)", file(b"\x0a\x01g\x2a\x00\x52\x00")),
    ]
}

#[test]
fn every_format_is_told_by_its_content() {
    let samples = samples();
    for format in FORMATS {
        assert!(samples.iter().any(|(name, _)| *name == format.name), "{} has no sample", format.name);
    }
    for (name, files) in samples {
        let format = Format::of(&files).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(format.name, name);
        let Reading::Remedy(remedy) = format.read else { continue };
        let error = read(files, &LoadOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }), "{error}");
        assert_eq!(error.to_string(), format!("m: is {name}{remedy}"));
    }
}

#[test]
fn what_is_of_no_format_is_told_what_can_be_read() {
    let unknown = [&b""[..], b"these are words", b"\x89PNG\r\n\x1a\n", b"\x0a\xff", b"\x08\x01", b"\x1f\x8b\x08\0"];
    for files in unknown.map(file).into_iter().chain([folder(&["notes.txt"]), folder(&[])]) {
        let is_folder = files.bytes().is_none();
        let error = read(files, &LoadOptions::default()).unwrap_err();
        assert_eq!(error.code(), if is_folder { "Shiftwise_Io" } else { "Shiftwise_Invalid_File" }, "{error}");
        let says = "formats that can be read: a Keras model's architecture (.json), a TensorFlow SavedModel, a Keras 3 model \
                    (.keras), a Keras model (.h5), a TensorFlow Lite model, an ONNX model, a TensorFlow graph, a \
                    vendor's graph (.xmodel)";
        assert!(error.to_string().ends_with(says), "{error}");
    }
}

#[test]
fn a_format_that_is_written_is_read_again() {
    let written: Vec<&Format> = FORMATS.iter().filter(|format| format.write.is_some()).collect();
    assert_eq!(written.iter().map(|format| format.name).collect::<Vec<_>>(), ["a Keras model (.h5)"]);
    let model = |options: &LoadOptions, files: Files| crate::open_files(files, options).unwrap();
    let layers = serde_json::json!([
        { "class_name": "InputLayer", "name": "x", "config": { "name": "x", "batch_input_shape": [null, 4, 4, 2] },
            "inbound_nodes": [] },
        { "class_name": "Conv2D", "name": "c", "config": { "name": "c", "filters": 3, "kernel_size": 1 },
            "inbound_nodes": [[["x", 0, 0, {}]]] },
    ]);
    let config = serde_json::json!({ "class_name": "Functional", "config": {
        "name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["c", 0, 0]],
    } });
    let drawn = LoadOptions { random_weights: Some(1), ..LoadOptions::default() };
    let Model::Float(graph) = model(&drawn, file(config.to_string().as_bytes())) else { panic!("a float model") };
    let quantized = without_data(graph, &Strategy::built_in("pof2s").unwrap()).unwrap();
    for format in written {
        let bytes = format.write.unwrap()(&quantized, Path::new("m")).unwrap();
        assert_eq!(Format::of(&file(&bytes)).map(|own| own.name), Some(format.name));
        let Model::Quantized(back) = model(&LoadOptions::default(), file(&bytes)) else { panic!("a quantized model") };
        assert_eq!(crate::graph_text(&back.graph), crate::graph_text(&quantized.graph), "{}", format.name);
    }
}
