//! Block floating point and other types of floats: the vendor's numbers and files, and the commands that take them.

use std::path::Path;

use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use serde_json::{Value, json};
use shiftwise_formats::{LoadOptions, load, quantized_bytes};
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::{Folder, Ran};
use shiftwise_tests::shared::{golden_cases, shared};

use crate::quantized::{explain, listing, vendor_file};

/// Every element of the vendor's tables of the block formats: `TENSOR_axisA_FORMATBITS_roundR` of `TENSOR`.
#[test]
fn block_formats_are_the_vendors_in_every_element() {
    let Some(shared) = shared() else { return };
    let mut file = NpzReader::new(std::fs::File::open(shared.join("golden/micro/bfp.npz")).unwrap()).unwrap();
    let mut array = |name: &str| -> ArrayD<f32> { file.by_name(name).unwrap() };
    let names =
        NpzReader::new(std::fs::File::open(shared.join("golden/micro/bfp.npz")).unwrap()).unwrap().names().unwrap();
    let (mut elements, mut wrong) = (0, Vec::new());
    for name in names.iter().filter(|name| name.contains("_axis")) {
        let parts: Vec<&str> = name.split('_').collect();
        let [tensor, axis, format, round] = parts[..] else { panic!("{name}") };
        let data_format = ["msfp", "bf16", "bfp"].into_iter().find(|f| format.starts_with(f)).unwrap();
        let number = |text: &str, prefix: &str| text.strip_prefix(prefix).unwrap().parse::<i64>().unwrap();
        let own = Quantizer::from_entry(&json!({ "quantizer_type": "BFPQuantizer", "quantizer_params": {
            "data_format": data_format, "bit_width": number(format, data_format), "round_mode": number(round, "round"),
            "channel_axis": number(axis, "axis"),
        } }));
        let (x, want) = (array(tensor), array(name));
        let mut y = Tensor::new(x.shape().to_vec(), x.iter().copied().collect()).unwrap();
        own.unwrap().scheme().fake_quantize(&mut y);
        let same = |(a, b): (&f32, &f32)| a == b || (a.is_nan() && b.is_nan());
        let differing = y.data().iter().zip(want.iter()).filter(|pair| !same(*pair)).count();
        elements += want.len();
        if differing > 0 {
            wrong.push(format!("{name}: {differing} of {}", want.len()));
        }
    }
    assert!(wrong.is_empty() && elements > 10_000, "{elements} {wrong:?}");
}

/// Quantized or converted here, down to the last byte of every dataset and attribute.
#[test]
fn files_of_blocks_types_and_widths_are_the_vendors() {
    let (mut same, mut wrong, cases) = (0, Vec::new(), golden_cases());
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy();
        let ours = ["bfp_", "d_", "m_"].iter().any(|kind| name.starts_with(kind));
        let Some(vendor) = vendor_file(case).filter(|_| ours) else { continue };
        let config: Value = serde_json::from_slice(&std::fs::read(case.join("config.json")).unwrap()).unwrap();
        let mut strategy = Strategy::built_in(config["strategy"].as_str().unwrap()).unwrap();
        for (key, value) in config["quantize_kwargs"].as_object().unwrap() {
            strategy.set(key, value.clone()).unwrap();
        }
        let calib: ArrayD<f32> = ndarray_npy::read_npy(case.join("calib.npy")).unwrap();
        let calib = vec![Tensor::new(calib.shape().to_vec(), calib.iter().copied().collect()).unwrap()];
        let batch_size = config["calib_batch_size"].as_u64().unwrap() as usize;
        let graph = load(&case.join("model.h5"), &LoadOptions::default()).unwrap();
        let options = PtqOptions { batch_size, ..PtqOptions::new(strategy) };
        let own = ptq(graph, &calib, &options, |_, _| ()).unwrap().quantized;
        let (want, got) = (listing(&vendor), listing(&quantized_bytes(&own, Path::new("quantized.h5")).unwrap()));
        assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>(), "{name}");
        let differ = want.iter().filter(|(path, text)| got[*path] != **text);
        wrong.extend(differ.map(|(path, text)| format!("{name} {path}: {}", explain(text, &got[path]))));
        same += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.is_empty() || same >= 14, "{same}");
}

fn done(folder: &Folder, arguments: &str) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran
}

fn refused(folder: &Folder, arguments: &str) -> String {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(2), "{arguments}: {ran:?}");
    ran.err
}

fn array(folder: &Folder, name: &str) -> ArrayD<f32> {
    ndarray_npy::read_npy(folder.path.join(name)).unwrap()
}

/// A block floating point model without calibration: every command takes it, and compiling says why it can't.
#[test]
fn every_command_takes_block_floating_point() {
    let folder = Folder::new("blocks");
    let made = done(
        &folder,
        "quantize digits_resnet.h5 --strategy bfp --set data_format=msfp --set input_bit=16 \
                              --set weight_bit=16 --set bias_bit=16 --set activation_bit=16 --output-dir q --json",
    );
    let info = &made.json()["quantize_info"];
    assert!(
        info.as_array().unwrap().iter().any(|row| row["data_format"] == "msfp" && row["bit_width"] == 16),
        "{info}"
    );
    let accuracy =
        "evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --baseline digits_resnet.h5";
    let drop = done(&folder, &format!("{accuracy} --json")).json()["drop"].as_f64().unwrap();
    assert!(drop.abs() < 0.02, "{drop}");
    // Both arithmetics are the same floats.
    for numerics in ["dpu", "vendor"] {
        done(
            &folder,
            &format!("predict q/quantized.h5 --data digits.npz:x_eval -o {numerics}.npy --numerics {numerics}"),
        );
        done(
            &folder,
            &format!(
                "dump q/quantized.h5 --data digits.npz:x_eval --output-dir d_{numerics} --dump-float --numerics {numerics}"
            ),
        );
    }
    assert_eq!(array(&folder, "dpu.npy"), array(&folder, "vendor.npy"));
    done(&folder, "compare d_dpu d_vendor");
    done(&folder, "estimate q/quantized.h5 --target B512");
    for command in [
        "compile q/quantized.h5 --target B512 -o m.swm",
        "compile q/quantized.h5 --target cpu --board mps2-an386 -o m.swm",
    ] {
        let why = refused(&folder, command);
        assert!(why.contains("block floating point") && why.contains("quantize to signed 8 bits"), "{why}");
    }
    let bare = "quantize digits_resnet.h5 --strategy bfp --output-dir q --set";
    assert!(refused(&folder, &format!("{bare} data_format=msfp")).contains("other than 11, 13 or 16"));
    assert!(refused(&folder, &format!("{bare} data_format=fp8")).contains("fp8"));
    assert!(refused(&folder, &format!("{bare} weight_unsigned=true")).contains("not a key"));
}

/// A float model in every type: files hold them, load again, and compute in them.
#[test]
fn every_command_takes_other_types_of_floats() {
    let folder = Folder::new("types");
    done(&folder, "predict digits_resnet.h5 --data digits.npz:x_eval -o float.npy");
    let float = array(&folder, "float.npy");
    for (name, most) in [("float16", 0.05), ("bfloat16", 0.5), ("float32", 1e-5), ("float64", 1e-5)] {
        let report = done(&folder, &format!("convert digits_resnet.h5 --to {name} --json")).json();
        let file = format!("digits_resnet_{name}.h5");
        assert_eq!((&report["output"], &report["kept"]), (&json!(file), &json!([])), "{report}");
        done(&folder, &format!("predict {file} --data digits.npz:x_eval -o {name}.npy"));
        let worst =
            array(&folder, &format!("{name}.npy")).iter().zip(&float).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= most && (worst > 0.0 || name.ends_with("32") || name.ends_with("64")), "{name}: {worst}");
        done(&folder, &format!("evaluate {file} --data digits.npz:x_eval --labels digits.npz:y_eval"));
        done(&folder, &format!("estimate {file} --target B512"));
        // The same as a setting of `quantize`.
        done(&folder, &format!("quantize digits_resnet.h5 --set convert_datatype={name} --output-dir q_{name}"));
        assert!(folder.read(&format!("q_{name}/quantized.h5")) == folder.read(&file), "{name}");
    }
    done(&folder, "dump digits_resnet_bfloat16.h5 --data digits.npz:x_eval --dump-float --output-dir d");
    assert!(refused(&folder, "convert digits_resnet.h5 --to float8").contains("bfloat16"));
    let part = "convert digits_resnet.h5 --to float16 -o part.h5 --json --set";
    let part = done(&folder, &format!("{part} ignore_layers=[\"nothing\"]")).json();
    assert!(part["warnings"][0].as_str().unwrap().contains("nothing"), "{part}");
}

/// Outputs of float, quantized and compiled models; batches and threads change no bit.
#[test]
fn predictions_are_the_same_in_every_batch_and_of_a_compiled_model() {
    let folder = Folder::new("predict");
    done(&folder, "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q");
    done(&folder, "compile q/quantized.h5 --target B512 -o m.swm");
    let ways = [
        "q/quantized.h5 -o a.npy",
        "q/quantized.h5 -o b.npy --batch-size 7 --threads 1",
        "m.swm -o c.npy --batch-size 5",
    ];
    ways.iter().for_each(|way| drop(done(&folder, &format!("predict {way} --data digits.npz:x_eval"))));
    let [a, b, c] = ["a.npy", "b.npy", "c.npy"].map(|name| array(&folder, name));
    assert!(a == b && a == c && a.shape()[1..] == [10], "{:?}", a.shape());
    let top = done(&folder, "predict q/quantized.h5 --data digits.npz:x_eval --top 3 --json").json();
    let first: Vec<f64> = top["top"][0].as_array().unwrap().iter().map(|r| r["score"].as_f64().unwrap()).collect();
    assert!(first.len() == 3 && first.is_sorted_by(|a, b| a >= b) && top["output"].is_null(), "{first:?}");
    let largest = a.outer_iter().next().unwrap().iter().copied().fold(f32::MIN, f32::max);
    assert_eq!(first[0] as f32, largest);
    done(&folder, "predict q/quantized.h5 --data digits.npz:x_eval --numerics float");
    assert!(folder.path.join("predictions.npy").is_file());
    assert!(
        refused(&folder, "predict digits_resnet.h5 --data digits.npz:x_eval --numerics dpu").contains("no integers")
    );
    assert!(refused(&folder, "predict m.swm --data digits.npz:x_eval --numerics vendor").contains("integers"));
    assert!(refused(&folder, "predict q/quantized.h5 --data digits.npz:x_eval -o digits.npz").contains("overwritten"));
}

/// Every type that `layer_config` takes.
#[test]
fn single_layers_have_the_types_that_are_asked_for() {
    let folder = Folder::new("layer-types");
    let quantize = "quantize digits_lenet.h5 --calib digits.npz:x_cal --output-dir q --json --set";
    let layers = done(&folder, &format!("{quantize} layer_config={{}}")).json()["quantize_info"].clone();
    let dense = layers.as_array().unwrap().iter().rev().find(|row| row["role"] == "kernel").unwrap();
    let name = dense["wrapped"].as_str().unwrap();
    for dtype in ["int8", "int16", "int32", "float16", "bfloat16", "float32", "float64"] {
        let made = done(&folder, &format!("{quantize} layer_config={{\"{name}\":\"{dtype}\"}}")).json();
        let rows = made["quantize_info"].as_array().unwrap();
        let row = rows.iter().find(|row| row["wrapped"] == name && row["role"] == "kernel");
        match dtype.strip_prefix("int") {
            Some(bits) => assert_eq!(row.unwrap()["bit_width"].to_string(), bits),
            None if dtype == "float32" => assert!(row.is_none(), "{row:?}"),
            None => assert_eq!(row.unwrap()["dtype"], dtype),
        }
        for numerics in ["dpu", "vendor"] {
            done(
                &folder,
                &format!("predict q/quantized.h5 --data digits.npz:x_eval -o {numerics}.npy --numerics {numerics}"),
            );
        }
        assert_eq!(array(&folder, "dpu.npy"), array(&folder, "vendor.npy"), "{dtype}");
    }
    // The vendor keeps the position of 8 bits; calibrated anew, the wider integers are finer.
    let position = |more: &str| {
        let made = done(&folder, &format!("{quantize} layer_config={{\"{name}\":\"int16\"}}{more}")).json();
        let rows = made["quantize_info"].as_array().unwrap().clone();
        rows.iter().find(|row| row["wrapped"] == name && row["role"] == "kernel").unwrap()["position"].as_i64().unwrap()
    };
    assert_eq!(position(""), dense["position"].as_i64().unwrap());
    assert!(position(" --set layer_config_recalibrate=true") >= position("") + 7);
    let why = refused(&folder, &format!("{quantize} layer_config={{\"{name}\":\"int4\"}}"));
    assert!(why.contains("int16") && why.contains("bfloat16"), "{why}");
}
