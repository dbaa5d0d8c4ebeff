//! Files that the command line writes, and what it prints of untrusted text.

use std::fs::File;
use std::process::{Command, Stdio};

use ndarray::Array4;
use ndarray_npy::WriteNpyExt;
use serde_json::{Value, json};
use shiftwise_tests::command::{Folder, Ran, binary};

/// A chain of convolutions of these names, with data for it.
fn chain(folder: &Folder, file: &str, names: &[&str]) {
    let layer = |class: &str, name: &str, config: Value, from: Option<&str>| {
        let mut config = config;
        config["name"] = name.into();
        let nodes: Vec<_> = from.iter().map(|f| json!([[f, 0, 0, {}]])).collect();
        json!({ "class_name": class, "name": name, "config": config, "inbound_nodes": nodes })
    };
    let mut layers = vec![layer("InputLayer", "in", json!({ "batch_input_shape": [null, 6, 6, 2] }), None)];
    let mut last = "in";
    for name in names {
        let config = json!({ "filters": 3, "kernel_size": 3, "padding": "same" });
        layers.push(layer("Conv2D", name, config, Some(last)));
        last = name;
    }
    let config =
        json!({ "name": "m", "layers": layers, "input_layers": [["in", 0, 0]], "output_layers": [[last, 0, 0]] });
    folder.write(file, json!({ "class_name": "Functional", "config": config }).to_string().as_bytes());
    let mut bytes = Vec::new();
    let data =
        Array4::<f32>::from_shape_fn((3, 6, 6, 2), |(n, y, x, c)| ((7 * n + 3 * y + 5 * x + c) % 11) as f32 - 5.0);
    data.write_npy(&mut bytes).unwrap();
    folder.write("x.npy", &bytes);
}

fn done(folder: &Folder, arguments: &str) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran
}

/// Exit code 2 and a sentence with these words.
fn refused(folder: &Folder, arguments: &str, says: &str) {
    let ran = folder.run(arguments);
    assert!(ran.code == Some(2) && ran.err.contains(says), "{arguments}: {ran:?}");
}

fn prepare(folder: &Folder, names: &[&str]) {
    chain(folder, "m.json", names);
    done(folder, "quantize m.json --random-weights 1 --calib x.npy --output-dir q");
    done(folder, "compile q/quantized.h5 --target B512 -o m.swm --listing m.txt");
    done(folder, "dump q/quantized.h5 --data x.npy --samples 2 --output-dir dump");
}

const GOLDEN: &str = "simulate m.swm --data x.npy --samples 2 --golden dump --output-dir sim";

#[test]
fn half_a_dump_is_no_reference() {
    let folder = Folder::new("half");
    prepare(&folder, &["a", "b"]);
    done(&folder, GOLDEN);
    done(&folder, "compare dump dump");
    let manifest: Value = serde_json::from_slice(&folder.read("dump/manifest.json")).unwrap();
    assert_eq!(manifest["state"], "complete");
    let paths: Vec<&str> = manifest["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert!(
        paths.contains(&"dump_results_0/quant_b.bin") && paths.contains(&"dump_results_0/quant_b.txt"),
        "{paths:?}"
    );

    // A tensor of another run, one that is missing, and a run that has not ended.
    let tensor = folder.read("dump/dump_results_0/quant_b.bin");
    let mut other = tensor.clone();
    other[3] ^= 1;
    folder.write("dump/dump_results_0/quant_b.bin", &other);
    for command in [GOLDEN, "compare dump sim", "compare sim dump --common"] {
        refused(&folder, command, "manifest.json");
    }
    std::fs::remove_file(folder.path.join("dump/dump_results_0/quant_b.bin")).unwrap();
    refused(&folder, GOLDEN, "quant_b.bin");
    folder.write("dump/dump_results_0/quant_b.bin", &tensor);
    let incomplete = json!({ "state": "incomplete", "files": manifest["files"] });
    folder.write("dump/manifest.json", incomplete.to_string().as_bytes());
    refused(&folder, GOLDEN, "incomplete");
    refused(&folder, "compare sim dump", "incomplete");

    // Without a manifest it is a vendor's dump: what is there is compared, and what one side lacks is a difference.
    std::fs::remove_file(folder.path.join("dump/manifest.json")).unwrap();
    done(&folder, GOLDEN);
    let ran = folder.run("compare dump sim");
    assert!(ran.code == Some(1) && ran.out.contains("quant_b_kernel  only in the first"), "{ran:?}");
    done(&folder, "compare dump sim --common");
}

#[test]
fn a_dump_of_another_model_leaves_no_tensor_behind() {
    let folder = Folder::new("stale");
    prepare(&folder, &["a", "old"]);
    folder.write("dump/dump_results_0/notes.bin", b"mine");
    chain(&folder, "m.json", &["a"]);
    done(&folder, "quantize m.json --random-weights 1 --calib x.npy --output-dir q");
    done(&folder, "dump q/quantized.h5 --data x.npy --samples 2 --output-dir dump");
    let tree = folder.tree();
    assert!(!tree.keys().any(|name| name.starts_with("dump/") && name.contains("old")), "{:?}", tree.keys());
    assert_eq!(tree["dump/dump_results_0/notes.bin"], b"mine");
    done(&folder, "dump q/quantized.h5 --data x.npy --samples 2 --output-dir again");
    done(&folder, "compare dump again");
}

#[test]
fn where_results_come_from_names_them_too() {
    let folder = Folder::new("provenance");
    prepare(&folder, &["a"]);
    let provenance: Value = serde_json::from_slice(&folder.read("q/provenance.json")).unwrap();
    assert!(provenance["state"] == "complete" && provenance["inputs"].as_array().unwrap().len() == 2, "{provenance}");
    let files = provenance["files"].as_array().unwrap();
    let of = |name: &str| files.iter().find(|f| f["path"] == name).unwrap_or_else(|| panic!("{name}: {provenance}"));
    assert_eq!(of("quantized.h5")["bytes"], folder.read("q/quantized.h5").len());
    assert_eq!(of("quantize_info.json")["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn a_float_suffix_in_a_layers_name_is_no_type() {
    let folder = Folder::new("suffix");
    prepare(&folder, &["a", "a_float"]);
    done(&folder, GOLDEN);
    done(&folder, "compare dump dump");
    // As a dump without a manifest, which tells no types.
    std::fs::remove_file(folder.path.join("dump/manifest.json")).unwrap();
    let ran = done(&folder, GOLDEN);
    assert!(ran.out.contains("3 tensors, 576 values, 0 tensors differ"), "{ran:?}");
    done(&folder, "compare dump sim --common");
    done(&folder, "compare sim dump --common");
}

#[test]
fn names_of_any_kind_are_files_and_never_commands_to_a_terminal() {
    let folder = Folder::new("names");
    let long = "long".repeat(80);
    let names = ["c\x1b[2J\x1b[31mred", "x\nerror[Fake]: all fine", "nul\0", "\u{202e}txt", &long, "plain/slash"];
    chain(&folder, "m.json", &names);
    let commands = [
        "quantize m.json --random-weights 1 --calib x.npy --output-dir q -v",
        "dump q/quantized.h5 --data x.npy --samples 2 --output-dir dump",
        "compile q/quantized.h5 --target B512 -o m.swm --listing m.txt -v",
        GOLDEN,
        "compare dump sim --common",
        "disasm m.swm",
        "compile q/quantized.h5 --board mps2-an386 -o cpu.swm",
        "simulate cpu.swm --data x.npy --samples 2 --golden dump --output-dir cpu",
    ];
    let hidden = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for command in commands {
        let ran = done(&folder, command);
        let text = ran.out + &ran.err;
        assert!(!text.contains(hidden) && !text.lines().any(|l| l.starts_with("error[")), "{command}: {text:?}");
        assert!(text.lines().all(|l| l.chars().count() < 1200), "{command}: {text}");
    }
    // The listing is code for the assembler, and no name adds to it.
    let listing = String::from_utf8(folder.read("m.txt")).unwrap();
    assert!(listing.contains("all fine") && !listing.lines().any(|l| l.starts_with("error[")), "{listing}");
    done(&folder, "asm m.txt -o m.bin");
    // JSON has the names as they are.
    let info = done(&folder, "quantize m.json --random-weights 1 --calib x.npy --output-dir q --json").json();
    assert!(
        info.to_string().contains(&long) && info["quantize_info"][1]["layer"] == "quant_c\x1b[2J\x1b[31mred",
        "{info}"
    );

    let ran = folder.run("quantise\x1b[31m\u{a0}x");
    assert!(ran.code == Some(2) && !ran.err.contains('\x1b'), "{ran:?}");
    let endless = "e".repeat(100_000);
    for command in [format!("targets {endless}"), format!("{endless} x"), format!("disasm {endless}")] {
        let ran = folder.run(&command);
        assert!(ran.code == Some(2) && ran.err.len() < 2000, "{ran:?}");
    }
    let ran = folder.run("targets B9999");
    assert!(ran.err.len() < 300 && ran.err.contains("did you mean"), "{ran:?}");
}

#[test]
fn output_that_nobody_gets_is_an_error() {
    let folder = Folder::new("full");
    prepare(&folder, &["a"]);
    let run = |arguments: &str, out: Stdio| {
        let mut command = Command::new(binary());
        command.args(arguments.split_whitespace()).current_dir(&folder.path).stdout(out).output().unwrap()
    };
    let commands = [
        "strategy dump pof2s",
        "targets",
        "targets --json",
        "disasm m.swm",
        "--help",
        "--version",
        "compare dump dump",
    ];
    for command in commands {
        if let Ok(full) = File::options().write(true).open("/dev/full") {
            let ran = run(command, full.into());
            assert_eq!(ran.status.code(), Some(2), "{command}: {ran:?}");
        }
        // Nobody reads the other end; that is no error.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = run(command, writer.into());
        assert_eq!(ran.status.code(), Some(0), "{command}: {ran:?}");
    }
    let ran = folder.run("disasm nothing --json");
    assert_eq!(ran.code, Some(2));
}

#[test]
fn a_strategy_is_printed_in_every_detail() {
    let folder = Folder::new("strategy");
    let lengths = ["", "-v", "--verbose 2"].map(|v| done(&folder, &format!("strategy dump pof2s {v}")).out.len());
    assert!(lengths[0] < lengths[1] && lengths[1] < lengths[2], "{lengths:?}");
}

#[test]
fn numbers_have_limits() {
    let folder = Folder::new("limits");
    for threads in ["0", "50000000", "18446744073709551615"] {
        refused(&folder, &format!("--threads {threads} targets"), "is not in 1..=");
    }
    done(&folder, "--threads 64 targets");
    refused(&folder, "quantize m.json --calib x --resize 100000x100000", "8192");
}

#[test]
fn a_file_names_targets_and_no_files() {
    let folder = Folder::new("own");
    folder.write("own.json", br#"{"target":"own.json"}"#);
    refused(&folder, "targets own.json", "unknown target `own.json`");
    folder.write("a.json", br#"{"target":"B512"}"#);
    done(&folder, "targets a.json");
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_written_to() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let folder = Folder::new("special");
    prepare(&folder, &["a"]);
    let at = |name: &str| folder.path.join(name);
    symlink("m.swm", at("latest.swm")).unwrap();
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(at("m.swm"), mode.clone()).unwrap();
    done(&folder, "compile q/quantized.h5 --target B1152 -o latest.swm");
    assert!(at("latest.swm").is_symlink() && folder.read("m.swm") == folder.read("latest.swm"));
    assert_eq!(std::fs::metadata(at("m.swm")).unwrap().permissions().mode() & 0o777, mode.mode());

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = at("pipe");
        move || std::fs::read(pipe).unwrap()
    });
    done(&folder, "compile q/quantized.h5 --target B1152 -o pipe");
    assert!(reader.join().unwrap() == folder.read("m.swm"));
    assert!(!std::fs::metadata(at("pipe")).unwrap().is_file());
    // Through standard output, in front of what is printed.
    let bytes = folder.read("m.swm");
    let out = Command::new(binary())
        .args(["compile", "q/quantized.h5", "--target", "B1152", "-o", "/dev/stdout"])
        .current_dir(&folder.path)
        .output()
        .unwrap();
    std::fs::remove_file(at("pipe")).unwrap();
    assert!(out.status.success() && out.stdout.starts_with(&bytes) && out.stdout.len() > bytes.len());
    assert!(!folder.tree().keys().any(|name| name.ends_with(".part")));
}
