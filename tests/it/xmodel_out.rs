//! Networks in the vendor's format: quantized graphs that are read back as they were, and compiled programs that compute
//! what ours compute and say what the vendor's runtime asks for. The vendor's own files are looked for in the reference data.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shiftwise_tests::command::Folder;
use shiftwise_tests::shared::shared;
use shiftwise_tests::xmodel::raw::{Said, Sayings, sayings};
use shiftwise_xmodel::{self as xmodel, Device, Xmodel};

const TARGET: &str = "DPUCZDX8G_ISA1_B4096";

/// A folder with a quantized network and its graph and program in the vendor's format.
fn made(name: &str, model: &str) -> Folder {
    let folder = Folder::new(name);
    let done = |arguments: &str| {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    };
    done(&format!("quantize {model} --calib digits.npz:x_cal -q"));
    done("export quantize_results/quantized.h5 --format xmodel -o graph.xmodel");
    done(&format!("compile quantize_results/quantized.h5 --target {TARGET} -o program.xmodel --format xmodel -q"));
    folder
}

fn read(folder: &Folder, name: &str) -> Xmodel {
    xmodel::read(Path::new(name), &folder.read(name)).unwrap()
}

#[test]
fn an_exported_graph_gives_the_same_dump() {
    for model in ["digits_lenet.h5", "digits_resnet.h5"] {
        let folder = made(&format!("xmodel-export-{model}"), model);
        let dump = |file: &str, to: &str| {
            let ran = folder.run(&format!("dump {file} --data digits.npz:x_eval --samples 3 --output-dir {to}"));
            assert_eq!(ran.code, Some(0), "{ran:?}");
        };
        dump("quantize_results/quantized.h5", "own");
        dump("graph.xmodel", "again");
        let ran = folder.run("compare own again --json");
        assert_eq!(ran.code, Some(0), "{model}: {ran:?}");
        // The same program comes of both.
        let compiled = |file: &str, to: &str| {
            let ran = folder.run(&format!("compile {file} --target {TARGET} -o {to} -q"));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            folder.run(&format!("simulate {to} --data digits.npz:x_eval --samples 2 --output-dir out-{to} -q"));
            folder.read(&format!("out-{to}/output_0.npy"))
        };
        assert_eq!(compiled("graph.xmodel", "a.swm"), compiled("quantize_results/quantized.h5", "b.swm"));
    }
}

#[test]
fn a_program_in_the_vendors_format_computes_what_ours_does() {
    for (model, flag) in [("digits_lenet.h5", ""), ("digits_resnet.h5", ""), ("digits_resnet.h5", "--fast")] {
        let folder = made(&format!("xmodel-compile-{model}{flag}"), model);
        let done = |arguments: &str| {
            let ran = folder.run(arguments);
            assert_eq!(ran.code, Some(0), "{model} {arguments}: {ran:?}");
            ran
        };
        done(&format!("compile quantize_results/quantized.h5 --target {TARGET} -o own.swm -q {flag}"));
        done(&format!(
            "compile quantize_results/quantized.h5 --target {TARGET} -o program.xmodel --format xmodel -q {flag}"
        ));
        done("simulate own.swm --data digits.npz:x_eval --samples 3 --output-dir own -q");
        let ran = done(
            "simulate program.xmodel --data digits.npz:x_eval --samples 3 --output-dir vendors --graph quantize_results/quantized.h5 --json",
        );
        assert_eq!(folder.read("own/output_0.npy"), folder.read("vendors/output_0.npy"), "{model} {flag}");
        let graph = &ran.json()["graph"];
        assert_eq!(graph["differing_tensors"], 0, "{graph}");
        assert!(graph["tensors"].as_u64().unwrap() >= 1, "{graph}");
        assert_eq!(ran.json()["given"], serde_json::json!([]));
        // The graph in the program is the network too: its constants come out of the registers.
        let ran = done("simulate program.xmodel --data digits.npz:x_eval --samples 1 --graph program.xmodel --json");
        assert_eq!(ran.json()["graph"]["differing_tensors"], 0);
        done("disasm program.xmodel --check");
    }
}

/// What the vendor's runtime looks up, and fails without (DOC, its sources).
fn check_contract(model: &Xmodel) {
    let names: BTreeSet<&str> = model.ops.iter().map(|op| op.name.as_str()).collect();
    let tensors: BTreeSet<&str> = model.ops.iter().map(|op| op.tensor.name.as_str()).collect();
    assert_eq!(
        (names.len(), tensors.len()),
        (model.ops.len(), model.ops.len()),
        "operations and tensors are found by name"
    );
    let all = model.root.all_ops();
    let once: BTreeSet<usize> = all.iter().copied().collect();
    assert_eq!((all.len(), once.len()), (model.ops.len(), model.ops.len()), "each operation is in one subgraph");
    for run in &model.root.children {
        assert!(run.ops.is_empty() != run.children.is_empty(), "{}: a leaf or a branch", run.name);
        if run.device != Device::Dpu {
            continue;
        }
        let own: BTreeSet<usize> = run.all_ops().into_iter().collect();
        let mut uploads: BTreeMap<usize, usize> = BTreeMap::new();
        for op in own.iter().map(|i| &model.ops[*i]) {
            for source in op.inputs().filter(|i| !own.contains(i)) {
                assert_eq!(op.kind, "upload", "{} reads what is not in its subgraph", op.name);
                *uploads.entry(source).or_default() += 1;
            }
            if op.kind == "download" {
                let stored = &model.ops[op.inputs().next().unwrap()].tensor;
                let place = stored.place().expect("what is downloaded lies in memory");
                let mut dense = 1;
                for (dim, stride) in stored.shape.iter().zip(&place.stride).rev() {
                    assert_eq!(*stride, dense, "{}: inputs and outputs are dense", stored.name);
                    dense *= dim;
                }
            } else {
                for key in ["reg_id", "ddr_addr", "location"] {
                    assert!(op.tensor.attrs.int(key).is_some(), "{} has no {key}", op.tensor.name);
                }
            }
            assert!(op.tensor.position().is_some(), "{} has no position", op.tensor.name);
        }
        assert!(uploads.values().all(|n| *n == 1), "an input is uploaded once");
        let registers = run.registers().unwrap();
        for op in own.iter().map(|i| &model.ops[*i].tensor) {
            let Some(place) = op.place() else { continue };
            let bytes = registers.iter().find(|r| r.id == place.register).map_or(0, |r| r.bytes);
            let last: usize = op.shape.iter().zip(&place.stride).map(|(d, s)| (d - 1) * s).sum();
            assert!(place.offset + last < bytes, "{} lies beyond its register", op.name);
        }
    }
}

#[test]
fn a_program_says_what_the_vendors_runtime_asks_for() {
    for (model, flag) in [("digits_lenet.h5", ""), ("digits_resnet.h5", "--fast")] {
        let folder = made(&format!("xmodel-contract-{model}"), model);
        let compile =
            format!("compile quantize_results/quantized.h5 --target {TARGET} -o p.xmodel --format xmodel -q {flag}");
        assert_eq!(folder.run(&compile).code, Some(0));
        check_contract(&read(&folder, "p.xmodel"));
    }
}

#[test]
fn a_program_names_the_boards_own_design() {
    let folder = made("xmodel-design", "digits_lenet.h5");
    folder.write("arch.json", br#"{"fingerprint":"0x101000016010407"}"#);
    let compile = "compile quantize_results/quantized.h5 --target arch.json -o p.xmodel --format xmodel -q";
    assert_eq!(folder.run(compile).code, Some(0));
    let model = read(&folder, "p.xmodel");
    let run = model.root.children.iter().find(|run| run.device == Device::Dpu).unwrap();
    assert_eq!(run.target(), (Some(TARGET), Some(0x0101_0000_1601_0407)));
}

/// Names with the types of their values that both have must be alike, and those of the vendor's be there.
fn check_said(what: &str, own: &Said, vendors: &Said, known: &dyn Fn(&str) -> bool) {
    for (name, kinds) in own {
        let Some(theirs) = vendors.get(name) else {
            assert!(known(name), "{what}: the vendor's have no `{name}`");
            continue;
        };
        assert!(kinds.is_subset(theirs), "{what}: `{name}` has types {kinds:?}, the vendor's {theirs:?}");
    }
    for name in vendors.keys() {
        assert!(own.contains_key(name) || known(name), "{what}: `{name}` is missing");
    }
}

fn vendors(name: &str) -> Option<Sayings> {
    let file = shared().map(|s| s.join("xmodels").join(name)).filter(|f| f.is_file())?;
    Some(sayings(&std::fs::read(file).unwrap()))
}

#[test]
fn an_exported_graph_says_of_each_operation_what_the_vendors_says() {
    let Some(theirs) = vendors("pointpillars.quantized_graph.xmodel") else { return };
    let mut compared = 0;
    for model in ["digits_lenet.h5", "digits_resnet.h5"] {
        let folder = made(&format!("xmodel-sayings-{model}"), model);
        let own = sayings(&folder.read("graph.xmodel"));
        for (kind, said) in &own.operations {
            let Some(vendors) = theirs.operations.get(kind) else { continue };
            check_said(kind, said, vendors, &|_| false);
            assert!(own.arguments[kind].is_subset(&theirs.arguments[kind]), "{kind}");
            assert_eq!(own.elements[kind], theirs.elements[kind], "{kind}");
            assert_eq!(own.tensors[kind], theirs.tensors[kind], "{kind}");
            compared += 1;
        }
        // Definitions of operations (101) are the library's own.
        assert!(own.fields.iter().all(|f| theirs.fields.contains(f)), "{:?}", own.fields);
    }
    assert!(compared >= 8, "{compared}");
}

#[test]
fn a_program_says_of_each_subgraph_what_the_vendors_says() {
    let files = ["pointpillars.zcu102_zcu104_kv260.r2.5.xmodel", "tf2_custom_op.zcu102_zcu104_kv260.r2.5.xmodel"];
    let [Some(torch), Some(keras)] = files.map(vendors) else { return };
    for model in ["digits_lenet.h5", "digits_resnet.h5"] {
        let folder = made(&format!("xmodel-program-{model}"), model);
        let own = sayings(&folder.read("program.xmodel"));
        for (device, said) in &own.runs {
            check_said(device, said, &torch.runs[device], &|_| false);
        }
        check_said("root", &own.root, &torch.root, &|_| false);
        // What the front end for TensorFlow leaves behind, and what only the first layer has.
        let known = |name: &str| name.starts_with("quant_") || name == "channel_augmentation";
        for (kind, said) in &own.operations {
            let Some(theirs) = torch.operations.get(kind).or(keras.operations.get(kind)) else { continue };
            // Operations without work say nothing of it.
            let idle = |name: &str| known(name) || name.starts_with("workload");
            check_said(kind, said, theirs, &idle);
            let placed = |name: &str| known(name) || name == "stride";
            let tensors = torch.tensors.get(kind).filter(|t| !t.is_empty()).unwrap_or(&keras.tensors[kind]);
            check_said(kind, &own.tensors[kind], tensors, &placed);
        }
    }
}

#[test]
fn a_program_states_the_work_that_the_vendors_states_for_the_same_network() {
    let file = |name: &str| shared().map(|s| s.join("xmodels").join(name)).filter(|f| f.is_file());
    let names = ["pointpillars.quantized_graph.xmodel", "pointpillars.zcu102_zcu104_kv260.r2.5.xmodel"];
    let [Some(graph), Some(program)] = names.map(file) else { return };
    let folder = Folder::new("xmodel-work");
    let ran = folder.run(&format!("compile {} --target {TARGET} -o own.xmodel --format xmodel -q", graph.display()));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let own = read(&folder, "own.xmodel");
    check_contract(&own);
    let work = |model: &Xmodel| -> Vec<[Option<i64>; 2]> {
        let runs = model.root.children.iter().filter(|run| run.device == Device::Dpu);
        runs.map(|run| ["workload", "workload_on_arch"].map(|name| run.attrs.int(name))).collect()
    };
    assert_eq!(work(&own), work(&xmodel::open(&program).unwrap()));
    // What the DPU has no kernel for is an operation of its class, with its attributes.
    let scatter = own.ops.iter().find(|op| op.kind == "PPScatterV2").expect("the custom layer");
    assert_eq!((scatter.attrs.int("nx"), scatter.attrs.int("ny")), (Some(432), Some(496)));
}

#[test]
fn what_has_no_place_in_a_vendors_file_is_refused() {
    let folder = made("xmodel-refused", "digits_lenet.h5");
    let error = |arguments: &str| {
        let ran = folder.run(&format!("{arguments} --json"));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let compile = "compile quantize_results/quantized.h5 -o p.xmodel --format xmodel";
    assert!(error(&format!("{compile} --target cpu")).contains("is a program for a DPU"));
    assert!(error(&format!("{compile} --target {TARGET} --self-test digits.npz:x_eval")).contains("--self-test"));
    assert!(error("export digits_lenet.h5 --format xmodel").contains("float model"));
    let ran = folder.run("quantize digits_lenet.h5 --calib digits.npz:x_cal --strategy fs --output-dir fs -q");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let message = error("export fs/quantized.h5 --format xmodel");
    assert!(message.contains("no integers") && message.contains("conv1"), "{message}");
}
