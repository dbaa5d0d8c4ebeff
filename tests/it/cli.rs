//! The command line from outside: every command, and everything that users get wrong.

use std::collections::BTreeMap;

use ndarray::{Array1, Array4};
use ndarray_npy::WriteNpyExt;
use shiftwise_tests::command::{Folder, Ran, data};

const QUANTIZE: &str = "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q";

fn npy<A: WriteNpyExt>(array: &A) -> Vec<u8> {
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    bytes
}

/// Runs a command that must do what it is asked to.
fn done(folder: &Folder, arguments: &str) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran
}

/// From a float model to a proof, and whatever may be asked about it on the way.
const WAY: [&str; 11] = [
    QUANTIZE,
    "evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --baseline digits_resnet.h5 --max-drop 0.5% --top 3",
    "dump q/quantized.h5 --data digits.npz:x_eval --samples 3 --output-dir dump --dump-float",
    "dump q/quantized.h5 --data digits.npz:x_eval --samples 3 --output-dir vendor --numerics vendor",
    "compare dump vendor --common",
    "compile q/quantized.h5 --target DPUCZDX8G_ISA1_B512 -o model.swm --listing model.txt --self-test digits.npz:x_cal",
    "simulate model.swm --data digits.npz:x_eval --samples 3 --golden dump --output-dir sim --trace trace.json",
    "compare dump sim --common",
    "disasm model.swm",
    "targets",
    "verify digits_resnet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --samples 5 --target B1152 -o proof.json",
];

/// Goes the whole way and returns all files and answers.
fn go(threads: usize) -> (BTreeMap<String, Vec<u8>>, Vec<serde_json::Value>) {
    let folder = Folder::new(&format!("way{threads}"));
    // Ours are replaced, others stay.
    let others = ["q/notes.txt", "dump/dump_results_0/notes.txt", "sim/notes.txt"];
    others.iter().for_each(|name| folder.write(name, b"mine"));
    ["q/quantized.h5", "model.swm", "proof.json"].iter().for_each(|name| folder.write(name, b"old"));
    let answers = WAY.iter().map(|c| done(&folder, &format!("{c} --json --threads {threads}")).json()).collect();
    let tree = folder.tree();
    others.iter().for_each(|name| assert_eq!(tree[*name], b"mine"));
    for input in ["digits_resnet.h5", "digits_lenet.h5", "digits.npz"] {
        assert!(tree[input] == std::fs::read(data().join(input)).unwrap(), "{input} was changed");
    }
    assert!(!tree.keys().any(|name| name.ends_with(".part")), "{:?}", tree.keys());
    (tree, answers)
}

#[test]
fn the_whole_way_is_the_same_for_every_number_of_threads() {
    let ((files, answers), (again, same)) = (go(1), go(2));
    assert_eq!(files.keys().collect::<Vec<_>>(), again.keys().collect::<Vec<_>>());
    for (name, bytes) in &files {
        assert!(*bytes == again[name], "{name} differs between 1 and 2 threads");
    }
    assert_eq!(answers, same);

    let [quantize, evaluate, dump, _, compare, compile, simulate, _, disasm, targets, verify] = &answers[..] else {
        panic!("one answer per command")
    };
    assert_eq!(quantize["quantize_info"].as_array().unwrap().len(), 26);
    let top1 = evaluate["model"]["top1"].as_f64().unwrap();
    assert!(top1 > 0.99 && evaluate["baseline"]["top1"].as_f64().unwrap() > 0.99, "{evaluate}");
    assert!(dump["activations"].as_u64().unwrap() >= 12, "{dump}");
    assert!(compare["tensors"].as_u64().unwrap() > 20 && compare["differences"] == serde_json::json!([]), "{compare}");
    assert_eq!(compile["target"], "DPUCZDX8G_ISA1_B512");
    assert!(simulate["cycles"]["cycles"].as_u64().unwrap() > 1000, "{simulate}");
    assert_eq!(simulate["golden"]["differing_tensors"], 0);
    assert!(disasm["listing"].as_array().unwrap().len() > 300);
    assert_eq!(targets["targets"].as_array().unwrap().len(), 8);
    assert_eq!((&verify["holds"], verify["checks"][0]["mismatches"].as_u64()), (&true.into(), Some(0)));
    let proof: serde_json::Value = serde_json::from_slice(&files["proof.json"]).unwrap();
    assert_eq!(&proof, verify);
    for (file, start) in [("q/quantized.h5", &b"\x89HDF"[..]), ("sim/output_0.npy", b"\x93NUMPY"), ("trace.json", b"[")]
    {
        let bytes = &files[file];
        assert!(bytes.starts_with(start) || (file == "trace.json" && bytes.starts_with(b"{")), "{file}");
    }
}

#[test]
fn without_json_the_answers_are_text() {
    let folder = Folder::new("text");
    let says = [
        "26 tensors quantized",
        "limit 0.50 points: kept",
        "values in dump",
        "values in vendor",
        "0 tensors differ",
        "DPUCZDX8G_ISA1_B512",
        "0 tensors differ",
        "0 tensors differ",
        "CONV",
        "kv260",
        " 0 mismatches across quantizer, simulator",
    ];
    for (command, says) in WAY.iter().zip(says) {
        let ran = done(&folder, command);
        assert!(ran.out.contains(says), "{command}: {ran:?}");
        assert!(!ran.out.contains('\x1b') && !ran.err.contains('\x1b'), "colour without a terminal: {ran:?}");
    }
    for help in ["--help", "quantize --help", "help verify", "--version"] {
        assert!(done(&folder, help).out.contains("hiftwise"), "{help}");
    }
}

#[test]
fn a_listing_becomes_the_code_that_it_was_made_of() {
    let folder = Folder::new("asm");
    [WAY[0], WAY[5], "asm model.txt -o code.bin"].iter().for_each(|c| drop(done(&folder, c)));
    let code = folder.read("code.bin");
    assert!(code.len() > 1000);
    folder.write("again.txt", done(&folder, "disasm code.bin").out.as_bytes());
    done(&folder, "asm again.txt -o again.bin");
    assert!(folder.read("again.bin") == code);
}

#[test]
fn answers_that_are_no_exit_with_one() {
    let folder = Folder::new("no");
    for command in &WAY[..6] {
        done(&folder, command);
    }
    let no = |arguments: &str, says: &str| {
        let ran = folder.run(arguments);
        assert!(ran.code == Some(1) && ran.out.contains(says), "{arguments}: {ran:?}");
        let json = folder.run(&format!("{arguments} --json"));
        assert!(json.code == Some(1) && json.json().is_object(), "{arguments}: {json:?}");
    };
    done(&folder, "quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir coarse --set weight_bit=2");
    let evaluate = "evaluate coarse/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval";
    no(&format!("{evaluate} --baseline digits_resnet.h5 --max-drop 0.5%"), "exceeded");
    done(&folder, &format!("{evaluate} --baseline digits_resnet.h5"));

    let file = "dump/dump_results_0/quant_pool.bin";
    let mut bytes = folder.read(file);
    bytes[7] ^= 1;
    folder.write(file, &bytes);
    // A manifest would tell that the file is not the one that was written.
    std::fs::remove_file(folder.path.join("dump/manifest.json")).unwrap();
    no("compare dump vendor", "quant_pool");
    no("compare dump vendor --common", "quant_pool");
    let simulate = "simulate model.swm --data digits.npz:x_eval --samples 3 --golden dump";
    no(simulate, "first difference: layer pool, dump_results_0/quant_pool at 7: expected ");
}

#[test]
fn a_tensor_may_be_several_outputs() {
    let folder = Folder::new("outputs");
    let layer = |class: &str, name: &str, config: serde_json::Value, from: &[&str]| {
        let mut config = config;
        config["name"] = name.into();
        let nodes: Vec<_> = from.iter().map(|f| serde_json::json!([[f, 0, 0, {}]])).collect();
        serde_json::json!({ "class_name": class, "name": name, "config": config, "inbound_nodes": nodes })
    };
    let model = serde_json::json!({ "class_name": "Functional", "config": {
        "name": "twice",
        "layers": [
            layer("InputLayer", "x", serde_json::json!({ "batch_input_shape": [null, 4, 4, 2] }), &[]),
            layer("Conv2D", "c", serde_json::json!({ "filters": 3, "kernel_size": 1 }), &["x"]),
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["c", 0, 0], ["x", 0, 0], ["c", 0, 0]],
    } });
    folder.write("m.json", model.to_string().as_bytes());
    folder
        .write("x.npy", &npy(&Array4::<f32>::from_shape_fn((2, 4, 4, 2), |(n, y, x, c)| (n + y * x + c) as f32 - 5.0)));
    done(&folder, "quantize m.json --random-weights 1 --calib x.npy --output-dir q");
    done(&folder, "dump q/quantized.h5 --data x.npy --samples 2 --output-dir dump");
    for target in ["cpu", "DPUCZDX8G_ISA1_B512"] {
        done(&folder, &format!("compile q/quantized.h5 --target {target} -o m.swm"));
        done(&folder, "simulate m.swm --data x.npy --samples 2 --golden dump --output-dir sim");
        let files = folder.tree();
        assert_eq!(files["sim/output_0.npy"], files["sim/output_2.npy"], "{target}");
        assert_ne!(files["sim/output_0.npy"], files["sim/output_1.npy"], "{target}");
    }
}

/// A command that must be refused.
struct Bad<'a> {
    arguments: String,
    code: &'a str,
    says: &'a [&'a str],
}

fn bad<'a>(arguments: impl Into<String>, code: &'a str, says: &'a [&'a str]) -> Bad<'a> {
    Bad { arguments: arguments.into(), code, says }
}

/// Runs what must be refused: exit code 2, the sentence with its code, a hint, one JSON document, no file touched.
fn refused(folder: &Folder, bad: &Bad<'_>) {
    let before = folder.tree();
    let ran = folder.run(&format!("{} --json", bad.arguments));
    let context = format!("{}: {ran:#?}", bad.arguments);
    assert_eq!(ran.code, Some(2), "{context}");
    assert!(!ran.err.contains("panicked") && !ran.err.contains("RUST_BACKTRACE"), "{context}");
    let prefix = format!("error[{}]: ", bad.code);
    let message = ran.err.lines().find_map(|l| l.strip_prefix(&prefix)).unwrap_or_else(|| panic!("{context}"));
    for part in bad.says {
        assert!(message.contains(part), "`{part}` is not said: {context}");
    }
    assert!(ran.err.lines().any(|l| l.starts_with("hint: ") && l.len() > 20), "{context}");
    let json = ran.json();
    assert_eq!(json["error"]["code"], bad.code, "{context}");
    assert_eq!(json["error"]["message"], message, "{context}");
    assert!(folder.tree() == before, "a file was changed: {context}");
}

const OPTION: &str = "Shiftwise_Invalid_Option";
const IO: &str = "Shiftwise_Io";
const FILE: &str = "Shiftwise_Invalid_File";
const KIND: &str = "Shiftwise_Wrong_Kind_Of_File";
const DATA: &str = "Quantizer_TF2_Invalid_Calib_Dataset";
const SHAPE: &str = "Quantizer_TF2_Invalid_Input_Shape";
const TARGET: &str = "Quantizer_TF2_Invalid_Target";
const UNSUPPORTED: &str = "Quantizer_TF2_Unsupported_Layer";

#[test]
fn bad_models_and_calibration_data_are_refused() {
    let folder = Folder::new("calib");
    done(&folder, QUANTIZE);
    let pixels = Array4::<f32>::from_elem((4, 8, 8, 1), 0.5);
    let mut hole = pixels.clone();
    hole[[2, 1, 1, 0]] = f32::NAN;
    folder.write("nan.npy", &npy(&hole));
    folder.write("empty.npy", &npy(&Array4::<f32>::zeros((0, 8, 8, 1))));
    folder.write("wide.npy", &npy(&Array4::<f32>::zeros((4, 8, 9, 1))));
    folder.write("cut.npy", &npy(&pixels)[..500]);
    folder.write("words.txt", b"this is no model and no array");
    folder.write("picture.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
    folder.write("nothing.h5", b"");
    std::fs::create_dir(folder.path.join("hollow")).unwrap();
    let model = folder.read("digits_resnet.h5");
    let known = b"GlobalAveragePooling2D";
    let at = model.windows(known.len()).position(|w| w == known).unwrap();
    let mut strange = model.clone();
    strange[at..at + known.len()].copy_from_slice(b"GlobalMagicalPooling2D");
    folder.write("strange.h5", &strange);

    let calib = "--calib digits.npz:x_cal --output-dir q";
    let all = [
        bad(format!("quantize missing.h5 {calib}"), IO, &["missing.h5", "No such file"]),
        bad(format!("quantize hollow {calib}"), IO, &["hollow"]),
        bad(format!("quantize picture.png {calib}"), FILE, &["picture.png", "HDF5"]),
        bad(format!("quantize words.txt {calib}"), FILE, &["words.txt", "HDF5"]),
        bad(format!("quantize digits.npz {calib}"), FILE, &["digits.npz", "zip"]),
        bad(format!("quantize nothing.h5 {calib}"), FILE, &["nothing.h5", "empty"]),
        bad(format!("quantize strange.h5 {calib}"), UNSUPPORTED, &["`average`", "`GlobalMagicalPooling2D`"]),
        bad(format!("quantize q/quantized.h5 {calib}"), KIND, &["q/quantized.h5", "quantized"]),
        bad("quantize digits_resnet.h5 --output-dir q", DATA, &["--calib"]),
        bad("quantize digits_resnet.h5 --calib missing.npy", IO, &["missing.npy"]),
        bad("quantize digits_resnet.h5 --calib nan.npy", DATA, &["nan.npy", "sample 2", "NaN"]),
        bad("quantize digits_resnet.h5 --calib empty.npy", DATA, &["empty.npy", "no samples"]),
        bad("quantize digits_resnet.h5 --calib wide.npy", DATA, &["wide.npy", "[4, 8, 9, 1]", "[8, 8, 1]"]),
        bad("quantize digits_resnet.h5 --calib cut.npy", DATA, &["cut.npy", "[4, 8, 8, 1]"]),
        bad("quantize digits_resnet.h5 --calib words.txt", DATA, &["words.txt", "not a NumPy array"]),
        bad("quantize digits_resnet.h5 --calib picture.png", DATA, &["picture.png", "folder"]),
        bad("quantize digits_resnet.h5 --calib hollow", DATA, &["hollow", ".npy"]),
        bad("quantize digits_resnet.h5 --calib digits.npz", DATA, &["x_cal, x_eval, y_eval"]),
        bad("quantize digits_resnet.h5 --calib digits.npz:x_cal1", DATA, &["`x_cal1`", "x_cal, x_eval, y_eval"]),
        bad("quantize digits_resnet.h5 --calib digits.npz:y_eval", DATA, &["[450]", "[8, 8, 1]"]),
        bad("quantize digits_resnet.h5 --calib pixels=digits.npz:x_cal", DATA, &["`pixels`", "image"]),
        bad(format!("quantize digits_resnet.h5 {calib} --mean 1,2"), DATA, &["2 means", "1 channel"]),
        bad(format!("quantize digits_resnet.h5 {calib} --scale inf"), OPTION, &["number is expected"]),
        bad(format!("quantize digits_resnet.h5 {calib} --input-shape 1,8,8"), SHAPE, &["[1, 8, 8]", "[null,8,8,1]"]),
        bad(format!("quantize digits_resnet.h5 {calib} --input-shape 1,eight"), SHAPE, &["1,eight"]),
        bad(format!("quantize digits_resnet.h5 {calib} --input-shape x=1,8,8,1"), SHAPE, &["`x`", "image"]),
        bad(format!("quantize digits_resnet.h5 {calib} --set cle_step=3"), OPTION, &["`cle_step`", "cle_steps"]),
        bad(format!("quantize digits_resnet.h5 {calib} --set incude_cle=no"), OPTION, &["`incude_cle`", "include_cle"]),
        bad(format!("quantize digits_resnet.h5 {calib} --set weight_bit=many"), OPTION, &["`weight_bit`", "many"]),
        bad(format!("quantize digits_resnet.h5 {calib} --set weight_bit=99"), OPTION, &["99", "2..32"]),
        bad(format!("quantize digits_resnet.h5 {calib} --set include_cle"), OPTION, &["KEY=VALUE"]),
        bad(format!("quantize digits_resnet.h5 {calib} --strategy best"), OPTION, &["`best`", "pof2s"]),
        bad(format!("quantize digits_resnet.h5 {calib} --magic"), OPTION, &["--magic"]),
        bad(format!("quantize digits_resnet.h5 {calib} --threads 0"), OPTION, &["--threads"]),
        bad(format!("quantize digits_resnet.h5 {calib} --calib-batch-size 0"), OPTION, &["--calib-batch-size"]),
        bad("quantise digits_resnet.h5", OPTION, &["quantise"]),
    ];
    all.iter().for_each(|b| refused(&folder, b));

    // Inputs are never outputs.
    std::fs::create_dir(folder.path.join("own")).unwrap();
    folder.write("own/quantized.h5", &model);
    let own = "quantize own/quantized.h5 --calib digits.npz:x_cal --output-dir own";
    refused(&folder, &bad(own, OPTION, &["own/quantized.h5", "overwritten"]));
}

#[test]
fn truncated_models_are_refused_at_every_length() {
    let folder = Folder::new("cut");
    let model = folder.read("digits_lenet.h5");
    for i in 0..40 {
        // Close to the start there are more structures to cut through.
        let length = model.len() * i * i / (40 * 40);
        folder.write("cut.h5", &model[..length]);
        let ran = folder.run("quantize cut.h5 --calib digits.npz:x_cal --output-dir q --json");
        assert!(
            ran.code == Some(2) && ran.err.starts_with("error[") && !ran.err.contains("panicked"),
            "{length}: {ran:?}"
        );
        assert!(ran.json()["error"]["message"].as_str().unwrap().contains("cut.h5"), "{length}: {ran:?}");
        assert!(!folder.path.join("q").exists(), "{length}");
    }
}

#[test]
fn bad_input_to_the_later_commands_is_refused() {
    let folder = Folder::new("later");
    WAY[..6].iter().for_each(|c| drop(done(&folder, c)));
    done(&folder, WAY[6]);
    let compiled = folder.read("model.swm");
    folder.write("cut.swm", &compiled[..compiled.len() / 2]);
    folder.write("short.swm", &compiled[..10]);
    let mut flipped = compiled.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    folder.write("flipped.swm", &flipped);
    folder.write("words.txt", b"0123456789 these are words, and no instructions");
    folder.write("nothing", b"");
    folder.write("few.npy", &npy(&Array1::<i64>::zeros(3)));
    folder.write("high.npy", &npy(&Array1::<i64>::from_elem(450, 10)));
    folder.write("half.npy", &npy(&Array1::<f32>::from_elem(450, 0.5)));

    let eval = "--data digits.npz:x_eval";
    let mut all = vec![
        bad("dump digits_resnet.h5 --data digits.npz:x_eval --output-dir dump", KIND, &["digits_resnet.h5", "float"]),
        bad("dump q/quantized.h5 --output-dir dump", OPTION, &["--data"]),
        bad("dump q/quantized.h5 --data digits.npz:nope --output-dir dump", DATA, &["`nope`", "x_eval"]),
        bad("dump q/quantized.h5 --data digits.npz:x_eval --numerics exact", OPTION, &["exact", "vendor"]),
        bad("dump q/quantized.h5 --data digits.npz:x_eval --samples 0", OPTION, &["--samples"]),
        bad("compile digits_resnet.h5 --target B512 -o model.swm", KIND, &["digits_resnet.h5", "float"]),
        bad("compile q/quantized.h5 --target B513 -o model.swm", TARGET, &["`B513`", "DPUCZDX8G_ISA1_B512"]),
        bad("compile q/quantized.h5 --board kv261 -o model.swm", TARGET, &["`kv261`", "kv260"]),
        bad("compile q/quantized.h5 --target missing.json -o model.swm", TARGET, &["missing.json"]),
        bad("compile q/quantized.h5 -o model.swm", OPTION, &["--target"]),
        bad("compile q/quantized.h5 --target B512 -o q/quantized.h5", OPTION, &["q/quantized.h5", "overwritten"]),
        bad("compile q/quantized.h5 --target B512 -o nowhere/model.swm", IO, &["nowhere/model.swm"]),
        bad("simulate model.swm --data digits.npz:x_eval --golden q --output-dir sim", FILE, &["q", "no dump"]),
        bad(
            "simulate model.swm --data digits.npz:x_eval --golden sim --output-dir sim",
            OPTION,
            &["sim", "overwritten"],
        ),
        bad("simulate model.swm --data digits.npz:y_eval --output-dir sim", DATA, &["[450]", "[8, 8, 1]"]),
        bad("simulate model.swm --data digits.npz:x_eval --clock 0", OPTION, &["--clock"]),
        bad("simulate digits.npz --data digits.npz:x_eval --output-dir sim", FILE, &["digits.npz"]),
        bad("compare dump q", FILE, &["q", "no dump"]),
        bad("compare dump missing", IO, &["missing"]),
        bad("run model.swm --board arduino --data digits.npz:x_eval", TARGET, &["arduino", "qemu:"]),
        bad("targets B4095", TARGET, &["`B4095`", "B4096"]),
        bad("asm words.txt -o code.bin", FILE, &["words.txt", "line 1"]),
        bad("asm model.txt -o model.txt", OPTION, &["model.txt", "overwritten"]),
        bad("disasm words.txt", FILE, &["words.txt", "byte "]),
        bad("disasm nothing", FILE, &["nothing"]),
        bad("disasm missing.swm", IO, &["missing.swm"]),
        bad("verify digits_resnet.h5 --data digits.npz:x_eval --target B512", DATA, &["--calib"]),
        bad("verify q/quantized.h5 --data digits.npz:x_eval --target B9", TARGET, &["`B9`"]),
        bad("evaluate q/quantized.h5 --data digits.npz:x_eval", OPTION, &["--labels"]),
        bad("evaluate q/quantized.h5 --data digits.npz:x_eval --labels few.npy", DATA, &["450 samples", "3 labels"]),
        bad("evaluate q/quantized.h5 --data digits.npz:x_eval --labels high.npy", DATA, &["label is 10", "10 classes"]),
        bad("evaluate q/quantized.h5 --data digits.npz:x_eval --labels half.npy", DATA, &["half.npy", "0.5"]),
        bad("evaluate q/quantized.h5 --data digits.npz:x_eval --labels few.npy --max-drop 1%", OPTION, &["required"]),
    ];
    let damaged = [("cut.swm", "cut short"), ("short.swm", "short.swm"), ("flipped.swm", "flipped.swm")];
    let commands: Vec<(String, &str, &str)> = damaged
        .iter()
        .flat_map(|(file, says)| {
            let run = format!("run {file} --board qemu:mps2-an386 {eval}");
            [format!("simulate {file} {eval} --output-dir sim"), run, format!("disasm {file}")]
                .map(|c| (c, *file, *says))
        })
        .collect();
    let said: Vec<[&str; 2]> = commands.iter().map(|(_, file, says)| [*file, *says]).collect();
    all.extend(commands.iter().zip(&said).map(|((c, ..), says)| bad(c.as_str(), FILE, says)));
    all.iter().for_each(|b| refused(&folder, b));
}

/// A network that a DPU can't run as a whole is an answer, not an error: the layers are named, and nothing is written.
#[test]
fn strict_compiling_answers_no() {
    let folder = Folder::new("strict");
    assert_eq!(folder.run("quantize digits_resnet.h5 --calib digits.npz:x_cal --output-dir q").code, Some(0));
    let ran = folder.run("compile q/quantized.h5 --target B512 --strict -o model.swm --json");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let left = &ran.json()["on_cpu"];
    assert!(left.as_array().is_some_and(|all| all.len() == 1) && !folder.path.join("model.swm").exists(), "{left}");
    assert!(!left[0]["layer"].as_str().unwrap().is_empty(), "{left}");
    let ran = folder.run("compile q/quantized.h5 --target B512 -o model.swm");
    assert!(ran.code == Some(0) && folder.path.join("model.swm").exists(), "{ran:?}");
}
