//! Damaged copies of everything that is read: reading them returns, with values or with an error. That a read ends in time is for
//! the fuzzers, which have a limit on it, and for the budgets: a test that looks at the clock fails on a busy machine.
//!
//! Models and deployables have theirs beside their other tests, on reference data; here are the readers of arrays, dump
//! folders and raw code, and models of the repository's own.

use std::path::{Path, PathBuf};

use ndarray::Array4;
use ndarray_npy::{NpzWriter, WriteNpyExt};
use shiftwise::dataset;
use shiftwise::dataset::{DataSpec, Dataset};
use shiftwise::dump;
use shiftwise_compile as compile;
use shiftwise_core::isa::codec;
use shiftwise_core::target::IsaVersion;
use shiftwise_formats::{LoadOptions, Model, load, open_bytes, quantized_bytes};
use shiftwise_graph::eval::Samples;
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tests::command::data;
use shiftwise_tests::networks::{random_network, random_samples};

use crate::format::mutate as damage;
use crate::keras;

fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("shiftwise-damage-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Opens a file of samples `[4, 3, 1]` and reads all of them.
fn reads(spec: &DataSpec) -> bool {
    let Ok(data) = Dataset::open(spec, &[4, 3, 1]) else { return false };
    // A damaged header may claim fewer samples or another type; what it claims must then be there.
    data.batch(0, data.len()).is_ok_and(|t| t.data().len() == data.len() * 12)
}

fn samples() -> Array4<f32> {
    Array4::from_shape_fn((5, 4, 3, 1), |(n, y, x, _)| (n * 12 + y * 3 + x) as f32)
}

#[test]
fn arrays() {
    let folder = scratch("npy");
    let file = folder.join("x.npy");
    let mut bytes = Vec::new();
    samples().write_npy(&mut bytes).unwrap();
    std::fs::write(&file, &bytes).unwrap();
    let spec = DataSpec::parse(file.to_str().unwrap());
    assert!(reads(&spec));
    // The header is half of the file, so that half of the damage is there.
    damage(&bytes, 4000, |copy| {
        std::fs::write(&file, copy).unwrap();
        let labels = dataset::labels(&spec);
        assert!(labels.is_err() || labels.is_ok_and(|l| l.len() <= bytes.len()));
        reads(&spec)
    });
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn archives() {
    let folder = scratch("npz");
    for compressed in [false, true] {
        let file = folder.join("x.npz");
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut npz = if compressed { NpzWriter::new_compressed(&mut bytes) } else { NpzWriter::new(&mut bytes) };
        npz.add_array("x", &samples()).unwrap();
        npz.add_array("more", &samples()).unwrap();
        npz.finish().unwrap();
        std::fs::write(&file, bytes.get_ref()).unwrap();
        let spec =
            |key: Option<&str>| DataSpec { key: key.map(str::to_owned), ..DataSpec::parse(file.to_str().unwrap()) };
        assert!(reads(&spec(Some("x"))) && reads(&spec(Some("more"))) && reads(&spec(None)));
        damage(bytes.get_ref(), 3000, |copy| {
            std::fs::write(&file, copy).unwrap();
            [None, Some("x"), Some("more")].map(|key| reads(&spec(key))).iter().all(|fine| *fine)
        });
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn dump_folders() {
    let folder = scratch("dump");
    let files = folder.join(dump::ACTIVATIONS);
    std::fs::create_dir_all(&files).unwrap();
    let (integers, floats) = (files.join("quant_a.bin"), files.join("quant_b_float.bin"));
    std::fs::write(&integers, [1, 2, 3]).unwrap();
    let bytes: Vec<u8> = (0..40u8).collect();
    std::fs::write(&floats, &bytes).unwrap();
    let whole = dump::read(&folder).unwrap();
    damage(&bytes, 500, |copy| {
        std::fs::write(&floats, &copy).unwrap();
        match dump::read(&folder) {
            // Any whole number of floats is a tensor, and the comparison says what is different about it.
            Ok(read) => {
                let same = dump::compare(&whole, &read);
                assert_eq!(same.is_equal(), copy == bytes, "{same}");
                same.is_equal()
            }
            Err(_) => copy.len() % 4 == 0,
        }
    });
    // Folders where files are expected, files without a name, foreign files.
    std::fs::create_dir(files.join("folder.bin")).unwrap();
    std::fs::write(files.join("notes.txt"), "notes").unwrap();
    std::fs::write(files.join("_float.bin"), []).unwrap();
    std::fs::write(&floats, &bytes).unwrap();
    let read = dump::read(&folder).unwrap();
    assert_eq!(read.activations.len(), 3);
    assert!(dump::compare(&whole, &read).is_equal());
    std::fs::remove_file(&integers).unwrap();
    std::fs::remove_file(&floats).unwrap();
    assert!(!dump::compare(&whole, &dump::read(&folder).unwrap()).is_equal(), "nothing in common is not equal");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn raw_code() {
    let graph = random_network(11, 6);
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    let q = ptq(graph.clone(), &random_samples(&graph, 1, 4), &options, |_, _| {}).unwrap().quantized;
    let target = shiftwise_targets::find("B1152").unwrap();
    let code = compile::dpu(&lower(&q).unwrap(), &target, &Default::default()).unwrap().code;
    assert!(code.len() > 1000);
    let listing = |code: &[u8]| {
        let mut end = 0;
        for (at, line) in codec::program(IsaVersion::Dpuczdx8gIsa1, code) {
            assert!(at >= end && at <= code.len(), "offset {at} after {end} of {}", code.len());
            end = at;
            // What decodes is printed and encodes to the bytes that it came from.
            let Ok(line) = line else { return false };
            assert!(!line.to_string().is_empty());
            let again: Vec<u8> = codec::encode(IsaVersion::Dpuczdx8gIsa1, &line).unwrap().bytes().collect();
            assert!(code[at..].starts_with(&again), "byte {at}: {line}");
        }
        true
    };
    assert!(listing(&code));
    damage(&code, 3000, |copy| listing(&copy));
}

/// The repository's own model: read, and if it is still a network, run through the whole quantizer.
#[test]
fn float_models() {
    for name in ["digits_resnet.h5", "digits_lenet.h5"] {
        let bytes = std::fs::read(data().join(name)).unwrap();
        damage(&bytes, 400, |copy| open_bytes(Path::new(name), copy, &LoadOptions::default()).is_ok());
    }
}

/// Archives, models inside models, functions, layers of the user's own: as they are stored, and as JSON alone.
#[test]
fn models_of_every_kind() {
    let mut options = LoadOptions::default();
    options.custom.add_formula("Blend=ratio * x0 * w0 + (1 - ratio) * x1").unwrap();
    for name in ["nested_keras3.keras", "shared_keras3.keras", "functions_keras2.h5", "custom_keras3.keras"] {
        let bytes = std::fs::read(keras::file(name)).unwrap();
        assert!(open_bytes(Path::new(name), bytes.clone(), &options).is_ok(), "{name}");
        damage(&bytes, 500, |copy| open_bytes(Path::new(name), copy, &options).is_ok());
    }
}

/// Damage to what an archive holds: its checksums hide damage to the whole.
#[test]
fn configs_of_archives() {
    let options = LoadOptions { random_weights: Some(1), ..LoadOptions::default() };
    for name in ["nested_keras3.keras", "functions_keras3.keras", "nested_keras2.keras"] {
        let mut archive = zip::ZipArchive::new(std::fs::File::open(keras::file(name)).unwrap()).unwrap();
        let mut json = Vec::new();
        std::io::Read::read_to_end(&mut archive.by_name("config.json").unwrap(), &mut json).unwrap();
        assert!(open_bytes(Path::new("m.json"), json.clone(), &options).is_ok(), "{name}");
        damage(&json, 2000, |copy| open_bytes(Path::new("m.json"), copy, &options).is_ok());
    }
}

/// An archive that would unpack to gigabytes, and one whose member is no model.
#[test]
fn archives_are_bounded() {
    let archive = |members: &[(&str, &[u8])]| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let mut zip = zip::ZipWriter::new(&mut bytes);
        let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, data) in members {
            zip.start_file(*name, deflated).unwrap();
            std::io::Write::write_all(&mut zip, data).unwrap();
        }
        zip.finish().unwrap();
        bytes.into_inner()
    };
    let refused = |bytes: Vec<u8>, says: &str| {
        let error = open_bytes(Path::new("m.keras"), bytes, &LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    let zeros = vec![0u8; 64 << 20];
    refused(archive(&[("config.json", b"{}"), ("model.weights.h5", &zeros)]), "more than");
    refused(archive(&[("config.json", &[&b"[1"[..], &vec![b' '; 65 << 20]].concat())]), "more than");
    refused(archive(&[("notes.txt", b"hello")]), "without config.json");
    refused(archive(&[("config.json", b"{}"), ("model.weights.h5", b"hello")]), "HDF5");
}

#[test]
fn quantized_models() {
    let graph = load(&data().join("digits_lenet.h5"), &LoadOptions::default()).unwrap();
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    let samples = random_samples(&graph, 2, 8);
    let q = ptq(graph.clone(), &samples, &options, |_, _| {}).unwrap().quantized;
    let name = Path::new("quantized.h5");
    let bytes = quantized_bytes(&q, name).unwrap();
    let input = samples.batch(0, 1).unwrap();
    damage(&bytes, 400, |copy| match open_bytes(name, copy, &LoadOptions::default()) {
        Ok(Model::Quantized(q)) => {
            // What is read is also used: lowered, run and written, or refused by name.
            if let Ok(integers) = lower(&q) {
                let engine = shiftwise_integer::engine::Engine::new(&integers);
                let _ = engine.run_batch(&input);
                let _ = compile::dpu(&integers, &shiftwise_targets::find("B512").unwrap(), &Default::default());
            }
            let _ = quantized_bytes(&q, name);
            true
        }
        Ok(Model::Float(_)) | Err(_) => false,
    });
}
