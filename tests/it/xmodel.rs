//! The vendor's graph files: read, brought to integer form, run as programs. Ours are written by the tests; the vendor's own
//! are looked for in the reference data.

use std::path::{Path, PathBuf};

use ndarray::{Array, ArrayD, IxDyn};
use ndarray_npy::WriteNpyExt;
use shiftwise_compile as compile;
use shiftwise_core::isa::described::{self, InstructionSet};
use shiftwise_core::isa::layout::{IsaVersion, Stored};
use shiftwise_core::isa::{Line, codec};
use shiftwise_formats::{LoadOptions, load};
use shiftwise_graph::eval::Samples;
use shiftwise_graph::ops::CustomLayers;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntGraph, IntOpKind, Kind, TensorIx};
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tests::command::{Folder, data};
use shiftwise_tests::networks::{random_network, random_samples};
use shiftwise_tests::shared::shared;
use shiftwise_tests::xmodel::{compiled, quantized};
use shiftwise_xmodel::value::Held;
use shiftwise_xmodel::{self as xmodel, Device, graph, spans};

use crate::format::mutate;

const NAME: &str = "test.xmodel";

/// A network's ops up to the first that a DPU's file has no form for.
fn integer_part(mut graph: IntGraph) -> IntGraph {
    let foreign = |kind: &IntOpKind| {
        matches!(
            kind,
            IntOpKind::Softmax
                | IntOpKind::Float { .. }
                | IntOpKind::Quantize
                | IntOpKind::Dequantize
                | IntOpKind::Pad { .. }
        )
    };
    let end = graph.ops.iter().position(|op| foreign(&op.kind)).unwrap_or(graph.ops.len());
    graph.ops.truncate(end);
    let read: Vec<TensorIx> = graph.ops.iter().flat_map(|o| o.inputs.clone()).collect();
    graph.outputs = graph.ops.iter().map(|o| o.output).filter(|t| !read.contains(t)).collect();
    // Without the tensors that nothing writes any more.
    let written = |t: &TensorIx| graph.inputs.contains(t) || graph.ops.iter().any(|o| o.output == *t);
    let kept: Vec<TensorIx> = (0..graph.tensors.len()).map(TensorIx).filter(written).collect();
    let renamed = |t: &mut TensorIx| *t = TensorIx(kept.iter().position(|k| k == t).unwrap());
    graph.tensors = kept.iter().map(|t| graph.tensors[t.0].clone()).collect();
    graph.inputs.iter_mut().chain(&mut graph.outputs).for_each(renamed);
    for op in &mut graph.ops {
        op.inputs.iter_mut().for_each(renamed);
        renamed(&mut op.output);
    }
    graph
}

fn network(seed: u64) -> IntGraph {
    let graph = random_network(seed, 6);
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    integer_part(
        lower(&ptq(graph.clone(), &random_samples(&graph, seed, 4), &options, |_, _| {}).unwrap().quantized).unwrap(),
    )
}

fn lenet() -> IntGraph {
    let graph = load(&data().join("digits_lenet.h5"), &LoadOptions::default()).unwrap();
    let samples = random_samples(&graph, 3, 8);
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    integer_part(lower(&ptq(graph, &samples, &options, |_, _| {}).unwrap().quantized).unwrap())
}

/// Every tensor of a network that its file has too, compared.
fn check(graph: &IntGraph, bytes: &[u8], inputs: &[Vec<f32>]) -> usize {
    let model = xmodel::read(Path::new(NAME), bytes).unwrap();
    let program =
        graph::Program::new(&model, &CustomLayers::default()).unwrap_or_else(|e| panic!("{}: {e}", graph.name));
    let held = program.inputs().iter().zip(inputs);
    let held = held.map(|(op, x)| Held::float(&model.ops[*op].tensor.shape, x.clone())).collect();
    let results = program.run(held).unwrap_or_else(|e| panic!("{}: {e}", graph.name));
    let engine = Engine::new(graph);
    let parts: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let want = engine.run(engine.quantize_inputs(&parts).unwrap(), |_| true);
    let mut compared = 0;
    for (tensor, want) in graph.tensors.iter().zip(want) {
        let Some(want) = want else { continue };
        let name = format!("{}_fix", tensor.name);
        let op = model.ops.iter().position(|op| op.tensor.name == name).unwrap_or_else(|| panic!("{name} is missing"));
        let got = results[op].as_ref().unwrap_or_else(|| panic!("{name} has no value"));
        assert_eq!((&got.value, got.kind), (&want, tensor.kind), "{}: {name}", graph.name);
        compared += got.len();
    }
    compared
}

#[test]
fn quantized_graphs_give_the_values_of_the_networks_they_were_written_from() {
    let mut compared = 0;
    for seed in 0..40 {
        let graph = network(seed);
        let Some(bytes) = quantized(&graph) else { continue };
        let sample = random_samples(&random_network(seed, 6), seed + 100, 1).batch(0, 1).unwrap();
        let inputs: Vec<Vec<f32>> = sample.iter().map(|t| t.data().to_vec()).collect();
        compared += check(&graph, &bytes, &inputs);
    }
    assert!(compared > 10_000, "{compared}");
}

#[test]
fn a_graph_with_one_integer_part_is_an_integer_graph() {
    let own = lenet();
    let model = xmodel::read(Path::new(NAME), &quantized(&own).unwrap()).unwrap();
    assert!(!model.is_compiled() && model.streams().is_empty());
    let error = graph::Program::new(&model, &CustomLayers::default()).unwrap();
    assert!(matches!(error.steps()[0], graph::Step::Host(_)), "the input's fix");
    let imported = error.into_integer().unwrap();
    let kinds = |g: &IntGraph| g.outputs.iter().map(|t| g.tensors[t.0].kind).collect::<Vec<Kind>>();
    assert_eq!(kinds(&imported), kinds(&own));
    let macs = |g: &IntGraph| g.ops.iter().map(|o| o.macs()).sum::<u64>();
    assert_eq!(macs(&imported), macs(&own));
    // What the compiler makes of it is what it makes of the original: the same convolutions.
    let target = shiftwise_targets::find("B512").unwrap();
    assert!(compile::dpu(&imported, &target, &Default::default()).is_ok());
}

/// A program of our compiler as a vendor's file, beside its graph.
fn program(folder: &Folder, graph: &IntGraph, change: impl Fn(&mut compile::Program)) {
    let target = shiftwise_targets::find("B1024").unwrap();
    let mut program = compile::dpu(graph, &target, &Default::default()).unwrap();
    change(&mut program);
    folder.write("program.xmodel", &compiled(graph, &program).expect("one job"));
    folder.write("graph.xmodel", &quantized(graph).unwrap());
}

const SIMULATE: &str = "simulate program.xmodel --data digits.npz:x_eval --graph graph.xmodel --samples 2 --json";

#[test]
fn programs_run_and_are_compared_with_their_graph() {
    let folder = Folder::new("xmodel");
    program(&folder, &lenet(), |_| {});
    let ran = folder.run(SIMULATE);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = ran.json();
    assert!(json["graph"]["tensors"].as_u64().unwrap() >= 4, "{json}");
    assert_eq!(json["graph"]["differing_tensors"], 0);
    assert!(json["cycles"]["cycles"].as_u64().unwrap() > 1000);
    assert!(json["cycles"]["layers"].as_array().unwrap().len() >= 2, "{json}");
    let output = folder.read("sim_results/output_0.npy");
    // Values alone, from the dump of the timed run.
    let ran = folder.run(
        "simulate program.xmodel --data digits.npz:x_eval --samples 2 --functional --golden sim_results --output-dir two --json",
    );
    assert_eq!((ran.code, &ran.json()["golden"]["differing_tensors"]), (Some(0), &0.into()), "{ran:?}");
    assert_eq!(folder.read("two/output_0.npy"), output);
    assert!(!folder.path.join("two/cycles.json").exists());

    let ran = folder.run("disasm program.xmodel --check --json");
    assert_eq!((ran.code, &ran.json()["pieces"]), (Some(0), &1.into()), "{ran:?}");
    let listing = folder.run("disasm program.xmodel");
    assert!(listing.out.contains("; layer conv1: ") && listing.out.contains("; isa DPUCZDX8G_ISA1"), "{listing:?}");
    folder.write("listing.txt", listing.out.as_bytes());
    assert_eq!(folder.run("asm listing.txt -o code.bin").code, Some(0));
    let model = xmodel::read(Path::new(NAME), &folder.read("program.xmodel")).unwrap();
    assert_eq!(folder.read("code.bin"), model.streams()[0].code);
}

#[test]
fn a_wrong_weight_is_traced_to_its_instruction() {
    let folder = Folder::new("xmodel-wrong");
    program(&folder, &lenet(), |p| p.constants.iter_mut().take(200).for_each(|b| *b ^= 0x55));
    let ran = folder.run(&SIMULATE.replace(" --json", ""));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("first difference: quant_"), "{ran:?}");
    assert!(ran.out.contains("accumulator") && ran.out.contains("CONV") && ran.out.contains("SAVE"), "{ran:?}");
}

#[test]
fn a_missing_token_names_instructions_and_layer() {
    let folder = Folder::new("xmodel-token");
    program(&folder, &lenet(), |p| {
        // The second CONV no longer waits for anything but itself.
        let lines: Vec<(usize, Line)> =
            codec::program(IsaVersion::Dpuczdx8gIsa1, &p.code).map(|(at, l)| (at, l.unwrap())).collect();
        let wait = |l: &&(usize, Line)| l.1.inst.kind().mnemonic() == "CONV" && l.1.tokens.waits.bits() & 1 == 1;
        let at = lines.iter().find(wait).unwrap().0;
        p.code[at + 3] &= !1;
    });
    let ran = folder.run(SIMULATE);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("layer conv1") && message.contains("no token orders instruction"), "{message}");
}

#[test]
fn other_files_are_told_apart() {
    let folder = Folder::new("xmodel-kinds");
    program(&folder, &lenet(), |_| {});
    let error = |arguments: &str| {
        let ran = folder.run(&format!("{arguments} --json"));
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.json()["error"].clone()
    };
    let graph = error("simulate graph.xmodel --data digits.npz:x_eval");
    assert_eq!(graph["code"], "Shiftwise_Wrong_Kind_Of_File");
    assert!(error("disasm graph.xmodel")["message"].as_str().unwrap().contains("without code"));
    let bytes = folder.read("program.xmodel");
    folder.write("cut.xmodel", &bytes[..bytes.len() / 2]);
    assert!(error("simulate cut.xmodel --data digits.npz:x_eval")["message"].as_str().unwrap().contains("cut short"));
    for foreign in [&b""[..], b"\x89HDF\r\n\x1a\n rest", b"\n; a listing\n", b"\x0a\x03abc"] {
        assert!(!xmodel::is_xmodel(foreign), "{foreign:?}");
    }
    assert_eq!(
        error("simulate program.xmodel --data none=digits.npz:x_eval")["code"],
        "Quantizer_TF2_Invalid_Calib_Dataset"
    );
}

/// What is read from a damaged file is used too: planned, run where it is small, listed.
fn use_it(copy: &[u8]) -> bool {
    let Ok(model) = xmodel::read(Path::new(NAME), copy) else { return false };
    for stream in model.streams() {
        let lines: Vec<Line> =
            codec::program(IsaVersion::Dpuczdx8gIsa1, stream.code).map_while(|(_, l)| l.ok()).collect();
        let spans = spans::spans(&model, stream.run, &lines);
        let count: u32 = spans.layers.iter().map(|l| l.count).sum();
        assert!(stream.layer.is_some() || count == lines.len() as u32, "layers cover the program");
        let _ = stream.run.registers();
    }
    let Ok(program) = graph::Program::new(&model, &CustomLayers::default()) else { return false };
    let size = |op: &xmodel::XOp| op.tensor.elements().unwrap_or(usize::MAX);
    if model.ops.iter().any(|op| size(op) > 1 << 16) {
        return false;
    }
    let zeros = |op: &usize| Held::float(&model.ops[*op].tensor.shape, vec![0.5; size(&model.ops[*op])]);
    program.run(program.inputs().iter().map(zeros).collect()).is_ok()
}

#[test]
fn damaged_files_are_refused_or_used_without_a_panic() {
    let own = network(3);
    mutate(&quantized(&own).unwrap(), 1500, |copy| use_it(&copy));
    let folder = Folder::new("xmodel-damage");
    program(&folder, &lenet(), |_| {});
    let bytes = folder.read("program.xmodel");
    // Its types name no weights, so the graph in it can't be evaluated: whatever happens is an error.
    mutate(&bytes, 1500, |copy| use_it(&copy));
    let mut number = 0;
    mutate(&bytes, 24, |copy| {
        number += 1;
        folder.write("damaged.xmodel", &copy);
        let ran = folder.run("simulate damaged.xmodel --data digits.npz:x_eval --output-dir damaged");
        assert!(matches!(ran.code, Some(0..=2)), "{number}: {ran:?}");
        ran.code == Some(0)
    });
}

#[test]
fn the_machine_averages_with_the_quantizers_factors() {
    for (h, w) in (1..=8).flat_map(|h| (1..=8).map(move |w| (h, w))) {
        let want = shiftwise_graph::ops::pool::average_factor(h, w);
        let got = shiftwise_core::exec::pool_factor(h as u32, w as u32).map(|(m, n)| (u16::from(m), n));
        assert_eq!(got, want, "{h} × {w}");
    }
}

#[test]
fn described_targets_are_listed_and_refused_by_name() {
    let folder = Folder::new("xmodel-targets");
    folder.write("arch.json", br#"{"fingerprint":"0x0603000B56011861"}"#);
    let all = folder.run("targets --json").json();
    let described = all["descriptions"].as_array().unwrap();
    assert_eq!((all["targets"].as_array().unwrap().len(), described.len()), (8, 76));
    assert!(described.iter().all(|d| !d["missing"].as_str().unwrap().is_empty()));
    for asked in ["DPUCVDX8G_ISA3_C32B6", "0x0603000b56011861", "arch.json"] {
        assert_eq!(
            folder.run(&format!("targets {asked} --json")).json()["description"]["name"],
            "DPUCVDX8G_ISA3_C32B6"
        );
        let ran = folder.run(&format!(
            "verify digits_lenet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --target {asked} --json"
        ));
        let error = &ran.json()["error"];
        assert_eq!((ran.code, &error["code"]), (Some(2), &"Quantizer_TF2_Invalid_Target".into()), "{ran:?}");
        assert!(error["message"].as_str().unwrap().contains("AI engines"), "{error}");
    }
}

// The vendor's own files.

fn vendor(name: &str) -> Option<PathBuf> {
    shared().map(|s| s.join("xmodels").join(name)).filter(|f| f.is_file())
}

fn npy(folder: &Folder, name: &str, shape: &[usize], value: impl FnMut(usize) -> f32) {
    let count = shape.iter().product();
    let array: ArrayD<f32> = Array::from_shape_vec(IxDyn(shape), (0..count).map(value).collect()).unwrap();
    let mut bytes = Vec::new();
    array.write_npy(&mut bytes).unwrap();
    folder.write(name, &bytes);
}

#[test]
fn every_vendor_stream_encodes_back_to_its_words() {
    let folder = Folder::new("xmodel-check");
    for (name, pieces) in [
        ("tf2_custom_op.zcu102_zcu104_kv260.r2.5.xmodel", 7),
        ("pointpillars.zcu102_zcu104_kv260.r2.5.xmodel", 25),
        ("tf2_custom_op.vck190.r2.5.xmodel", 6),
    ] {
        let Some(file) = vendor(name) else { return };
        let ran = folder.run(&format!("disasm {} --check --json", file.display()));
        assert_eq!((ran.code, &ran.json()["pieces"]), (Some(0), &pieces.into()), "{ran:?}");
    }
}

#[test]
fn the_vendors_small_program_computes_its_graph() {
    let Some(file) = vendor("tf2_custom_op.zcu102_zcu104_kv260.r2.5.xmodel") else { return };
    let folder = Folder::new("xmodel-small");
    npy(&folder, "x.npy", &[3, 28, 28, 1], |i| ((i * 7919 + i / 31) % 256) as f32);
    // Its own operations, in our integer engine: the constants come out of the registers.
    let ran = folder.run(&format!("simulate {0} --data x.npy --samples 3 --graph {0} --json", file.display()));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json = ran.json();
    assert!(json["graph"]["tensors"].as_u64().unwrap() >= 9, "{json}");
    assert!(json["cycles"]["layers_alone"].as_array().unwrap().len() >= 5, "{json}");
    // The quantizer's own file: layers on the CPU included.
    let quantized = file.with_file_name("tf2_custom_op.quantized.h5");
    let ran = folder.run(&format!(
        "simulate {} --data x.npy --samples 3 --graph {} --json",
        file.display(),
        quantized.display()
    ));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.json()["graph"]["tensors"].as_u64().unwrap() >= 7, "{}", ran.json()["graph"]);
    assert_eq!(ran.json()["graph"]["differing_tensors"], 0);
    // Two convolutions feed a pool on the chip and are never stored.
    assert_eq!(json["on_chip"].as_array().unwrap().len(), 2, "{json}");
    assert_eq!(json["given"], serde_json::json!([]));
}

#[test]
fn the_vendors_point_pillars_compute_the_graph_that_they_were_compiled_from() {
    let Some(file) = vendor("pointpillars.zcu102_zcu104_kv260.r2.5.xmodel") else { return };
    let graph = file.with_file_name("pointpillars.quantized_graph.xmodel");
    let folder = Folder::new("xmodel-pillars");
    let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 251) as f32 / 64.0 - 1.9;
    npy(&folder, "pillars.npy", &[1, 12000, 100, 4], noise);
    // Rows and columns of the canvas; the list ends early.
    let place = |i: usize| match (i / 4, i % 4) {
        (n, 2) => (n * 7 % 496) as f32,
        (n, 3) if n < 11_000 => (n * 13 % 432) as f32,
        (_, 3) => -1.0,
        _ => 0.0,
    };
    npy(&folder, "places.npy", &[1, 12000, 4], place);
    let ran = folder.run(&format!(
        "simulate {} --data VoxelNet__input_0=pillars.npy --data VoxelNet__input_1=places.npy --graph {} --json",
        file.display(),
        graph.display()
    ));
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let json = ran.json();
    assert!(json["graph"]["tensors"].as_u64().unwrap() >= 29, "{}", json["graph"]);
    assert_eq!(json["graph"]["differing_tensors"], 0);
    assert!(json["cycles"]["cycles"].as_u64().unwrap() > 3_000_000);
}

#[test]
fn the_vendors_program_for_another_family_is_listed_and_says_what_is_missing() {
    let Some(file) = vendor("tf2_custom_op.vck190.r2.5.xmodel") else { return };
    let folder = Folder::new("xmodel-vck190");
    npy(&folder, "x.npy", &[1, 28, 28, 1], |_| 0.0);
    let ran = folder.run(&format!("simulate {} --data x.npy --json", file.display()));
    let error = &ran.json()["error"];
    assert_eq!((ran.code, &error["code"]), (Some(2), &"Quantizer_TF2_Invalid_Target".into()), "{ran:?}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("DPUCVDX8G_ISA3_C32B6") && message.contains("AI engines"), "{message}");
    let listing = folder.run(&format!("disasm {} --subgraph subgraph_quant_conv2d", file.display()));
    assert!(listing.out.contains("; isa DPUCVDX8G_ISA3") && listing.out.contains(" tile_en "), "{listing:?}");
    folder.write("listing.txt", listing.out.as_bytes());
    assert_eq!(folder.run("asm listing.txt -o code.bin").code, Some(0));
    let model = xmodel::open(&file).unwrap();
    let run = model.root.children.iter().find(|r| r.device == Device::Dpu).unwrap();
    assert_eq!(folder.read("code.bin"), run.code().unwrap());
}

#[test]
fn the_instruction_tables_are_the_public_ones() {
    let Some(file) = shared().map(|s| s.join("data/dpu_isa.json")).filter(|f| f.is_file()) else { return };
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut checked = 0;
    for (set, instructions) in json["isa"].as_object().unwrap() {
        for (mnemonic, i) in instructions.as_object().unwrap() {
            let opcode = i["opcode"].as_u64().unwrap();
            if opcode > 15 {
                continue;
            }
            let number = |f: &serde_json::Value, key: &str| f[key].as_u64().unwrap();
            let mut want: Vec<(String, u64, u64, u64)> = i["fields"].as_array().map_or_else(Vec::new, |fields| {
                let named = fields.iter().map(|f| {
                    (f["name"].as_str().unwrap().to_owned(), number(f, "word"), number(f, "lsb"), number(f, "width"))
                });
                named
                    .filter(|(n, ..)| !n.starts_with("rsv") && !["opcode", "dpdon", "dpdby"].contains(&n.as_str()))
                    .collect()
            });
            let place =
                |name: &str, word: u8, lsb: u8, width: u8| (name.to_owned(), word.into(), lsb.into(), width.into());
            let (words, mut got): (u8, Vec<(String, u64, u64, u64)>) = if set == IsaVersion::Dpuczdx8gIsa1.name() {
                let layout = IsaVersion::Dpuczdx8gIsa1.layout();
                let l = layout.iter().find(|l| l.kind.mnemonic() == mnemonic).unwrap();
                assert_eq!(u64::from(l.kind.opcode()), opcode, "{mnemonic}");
                (l.words, l.fields.iter().map(|f| place(f.name, f.word, f.lsb, f.width)).collect())
            } else {
                let form = InstructionSet::named(set).unwrap().forms.iter().find(|f| f.mnemonic == mnemonic).unwrap();
                assert_eq!(u64::from(form.opcode), opcode, "{set} {mnemonic}");
                assert_eq!(form.public, !i["fields"].is_null(), "{set} {mnemonic}");
                let fields = form.fields.iter().filter(|_| form.public);
                (form.words, fields.map(|f| place(f.name, f.word, f.lsb, f.width)).collect())
            };
            want.sort();
            got.sort();
            assert_eq!(got, want, "{set} {mnemonic}");
            assert_eq!(u64::from(words), i["words"].as_u64().unwrap(), "{set} {mnemonic}");
            checked += 1;
        }
    }
    assert_eq!(checked, 13 + described::all().iter().map(|s| s.forms.len()).sum::<usize>());
    // The families name sizes alike.
    let kernels = described::all().iter().flat_map(|s| s.forms).flat_map(|f| f.fields).filter(|f| f.name == "kernel_w");
    assert!(kernels.clone().count() > 4 && kernels.into_iter().all(|f| f.stored == Stored::MinusOne));
}
