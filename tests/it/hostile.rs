//! Files that claim more than they hold: refused with one sentence, within the memory that a file of their size may take.
//!
//! Each stands for a kind. The program runs under a limit of its address space, where an allocation that nobody checked
//! would abort it.

use std::io::{Cursor, Write};
use std::process::Command;
use std::slice::from_ref;

use serde_json::{Value, json};
use shiftwise_compile as compile;
use shiftwise_compile::deployable::{Parts, write};
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{
    Act, CpuOp, DType, Facts, Place, PoolKind, PoolOp, Region, Role, Step, TensorDesc, TensorId,
};
use shiftwise_core::shape::{Shape, Window};
use shiftwise_formats::{LoadOptions, Model, open_bytes};
use shiftwise_graph::graph::NodeId;
use shiftwise_graph::ops::{CustomLayers, Op};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::{IntAct, IntOpKind, Kind, TensorIx};
use shiftwise_integer::lower::lower;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::{Folder, Ran, binary};
use shiftwise_tests::graphs::{Builder, Limits, random_graph};
use shiftwise_tests::networks::random_samples;
use shiftwise_xmodel::{self as xmodel, graph};
use zip::write::SimpleFileOptions;

/// Kilobytes of address space: the program, its threads, and what a small file may take.
const SPACE: &str = "1500000";

/// Runs the program with little memory.
fn limited(folder: &Folder, arguments: &str) -> Ran {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v $0 && exec \"$@\"", SPACE])
        .arg(binary())
        .args(["--threads", "2"])
        .args(arguments.split_whitespace())
        .current_dir(&folder.path)
        .env("NO_COLOR", "1")
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Refused with one sentence that says this, and a hint.
fn refused(ran: &Ran, says: &str) {
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines.len() <= 2 && lines[0].starts_with("error[") && lines[0].contains(says), "{says}: {ran:?}");
}

/// A zip archive with one deflated member.
fn archive(name: &str, data: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file(name, SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated)).unwrap();
    zip.write_all(data).unwrap();
    zip.finish().unwrap().into_inner()
}

/// The start of a `.npy` of floats.
fn npy(shape: &str) -> Vec<u8> {
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat()
}

/// A functional model: each layer reads the one before it, the first an input of `[8, 8, 3]`.
fn model(layers: &[(&str, Value)]) -> Value {
    let mut all = vec![json!({
        "class_name": "InputLayer", "name": "in", "inbound_nodes": [],
        "config": {"name": "in", "batch_input_shape": [null, 8, 8, 3], "dtype": "float32"},
    })];
    let mut before = "in".to_owned();
    for (k, (class, config)) in layers.iter().enumerate() {
        let name = format!("layer{k}");
        let mut config = config.clone();
        config["name"] = json!(name);
        all.push(json!({
            "class_name": class, "config": config, "name": name, "inbound_nodes": [[[before, 0, 0, {}]]],
        }));
        before = name;
    }
    let config = json!({
        "name": "m", "layers": all, "input_layers": [["in", 0, 0]], "output_layers": [[before, 0, 0]],
    });
    json!({ "class_name": "Functional", "config": config })
}

#[test]
fn json_of_millions_of_values() {
    let folder = Folder::new("hostile-json");
    let values = [&b"{\"class_name\": \"Functional\", \"config\": [0"[..], &b",0".repeat(6 << 20), b"]}"].concat();
    folder.write("many.json", &values);
    folder.write("many.keras", &archive("config.json", &values));
    folder.write("twice.json", json!(String::from_utf8(values).unwrap()).to_string().as_bytes());
    for file in ["many.json", "many.keras", "twice.json"] {
        refused(&limited(&folder, &format!("estimate --target B512 {file}")), "too many values");
    }
    folder.write("strategy.json", &[&b"[0"[..], &b",0".repeat(6 << 20), b"]"].concat());
    refused(&limited(&folder, "strategy check strategy.json"), "too many values");
}

#[test]
fn arrays_that_unpack_to_more_than_their_archive_can_hold() {
    let folder = Folder::new("hostile-npz");
    let samples = (80 << 20) / 256;
    let array = [npy(&format!("({samples}, 8, 8, 1)")), vec![0; samples * 256]].concat();
    folder.write("bomb.npz", &archive("x.npy", &array));
    refused(&limited(&folder, "quantize digits_lenet.h5 --calib bomb.npz -q --output-dir o"), "unpacks to");
    // More values than there are bytes.
    folder.write("short.npz", &archive("x.npy", &[npy("(1000000000, 8, 8, 1)"), vec![0; 512]].concat()));
    refused(&limited(&folder, "quantize digits_lenet.h5 --calib short.npz -q --output-dir o"), "needs more than");
}

#[test]
fn results_of_any_layer_have_a_size() {
    let folder = Folder::new("hostile-shapes");
    folder.write("x.npy", &[npy("(1, 8, 8, 3)"), vec![0; 768]].concat());
    let transposed = json!({"filters": 4, "kernel_size": [1, 1], "strides": [1000, 1000], "padding": "same",
        "activation": "linear", "use_bias": false, "dilation_rate": [1, 1]});
    let huge: Vec<Vec<(&str, Value)>> = vec![
        vec![("UpSampling2D", json!({"size": [60000, 60000]}))],
        vec![("ZeroPadding2D", json!({"padding": [[30000, 30000], [30000, 30000]]}))],
        vec![("Flatten", json!({})), ("RepeatVector", json!({"n": 16_000_000}))],
        vec![("Conv2DTranspose", transposed)],
        vec![("UpSampling2D", json!({"size": [100, 100]})), ("UpSampling2D", json!({"size": [100, 100]}))],
        // No value at all, by a layer that would have to look for it itself.
        vec![("Reshape", json!({"target_shape": [0, 8, 3]}))],
    ];
    for (k, layers) in huge.iter().enumerate() {
        let name = format!("huge{k}.json");
        folder.write(&name, model(layers).to_string().as_bytes());
        let last = format!("layer{}", layers.len() - 1);
        let quantize = format!("quantize {name} --random-weights 1 --calib x.npy -q --output-dir o");
        refused(&limited(&folder, &quantize), &last);
        refused(&limited(&folder, &format!("estimate --target B4096 {name}")), &last);
    }
}

#[test]
fn networks_that_never_end_are_not_begun() {
    let folder = Folder::new("hostile-sums");
    folder.write("x.npy", &[npy("(1, 8, 8, 3)"), vec![0; 768]].concat());
    let pool = json!({"pool_size": [4000, 4000], "strides": [1, 1], "padding": "same"});
    let layers = [("UpSampling2D", json!({"size": [500, 500]})), ("MaxPooling2D", pool)];
    folder.write("slow.json", model(&layers).to_string().as_bytes());
    let quantize = "quantize slow.json --random-weights 1 --calib x.npy -q --output-dir o";
    refused(&limited(&folder, quantize), "multiply-accumulates");
}

/// A deployable with one input of `[side, side, 1]`, more tensors, and steps.
fn deployable(side: u32, workspace_bytes: u32, more: &[TensorDesc<'_>], steps: &[Step<'_>]) -> Vec<u8> {
    let bytes = side * side;
    let facts = Facts {
        name: "hostile",
        target: "cpu",
        tool: "a test",
        workspace_bytes,
        input_bytes: bytes,
        output_bytes: 16,
        self_test_samples: 0,
    };
    let input = tensor("input", side, Region::Inputs, Role::Input(0));
    let tensors = [&[input], more].concat();
    let parts = Parts {
        facts,
        fingerprint: 0,
        tensors: &tensors,
        steps,
        layers: &[],
        self_test: &[],
        constants: &[],
        code: &[],
        metadata: &[],
    };
    write(&parts).unwrap()
}

fn tensor(name: &'static str, side: u32, region: Region, role: Role) -> TensorDesc<'static> {
    let shape = Shape::new(&[side, side, 1]).unwrap();
    let place = Place { region, offset: 0 };
    TensorDesc { name, origin: name, shape, dtype: DType::I8, pos: FixPos(4), place, role }
}

fn pool(input: u16, output: u16, side: u16, window: u16) -> CpuOp<'static> {
    CpuOp::Pool(PoolOp {
        input: TensorId(input),
        output: TensorId(output),
        in_dims: [side, side, 1],
        out_dims: [side - window + 1; 2],
        window: Window { kernel: [window; 2], ..Window::POINT },
        kind: PoolKind::Max,
        shift: 0,
        act: Act::None,
    })
}

#[test]
fn deployables_that_ask_for_more_than_they_may() {
    let folder = Folder::new("hostile-swm");
    folder.write("x.npy", &[npy("(1, 64, 64, 1)"), vec![0; 4 * 64 * 64]].concat());
    let output =
        TensorDesc { shape: Shape::new(&[4, 4, 1]).unwrap(), ..tensor("y", 4, Region::Outputs, Role::Output(0)) };
    let last = Step::Cpu(pool(0, 1, 64, 61));

    folder.write("good.swm", &deployable(64, 16, from_ref(&output), from_ref(&last)));
    assert_eq!(limited(&folder, "simulate good.swm --data x.npy -q").code, Some(0));

    folder.write("workspace.swm", &deployable(64, 4_000_000_000, from_ref(&output), from_ref(&last)));
    refused(&limited(&folder, "simulate workspace.swm --data x.npy -q"), "memory");

    // Views share memory, their copies don't.
    let mut tensors = vec![output.clone()];
    let mut steps = vec![last.clone()];
    for k in 0..40u16 {
        tensors.push(tensor("view", 5000, Region::Workspace, Role::Inner));
        let input = TensorId(if k == 0 { 2 } else { k + 1 });
        steps.extend((k > 0).then_some(Step::Cpu(CpuOp::View { input, output: TensorId(k + 2) })));
    }
    folder.write("views.swm", &deployable(64, 25_000_000, &tensors, &steps));
    refused(&limited(&folder, "simulate views.swm --data x.npy -q"), "memory");

    // A window of millions of taps at millions of places.
    let big = tensor("big", 4000, Region::Workspace, Role::Inner);
    let mut bigger = tensor("bigger", 2001, Region::Workspace, Role::Inner);
    bigger.place.offset = 16_000_000;
    let slow = [Step::Cpu(pool(2, 3, 4000, 2000)), last];
    folder.write("slow.swm", &deployable(64, 21_000_000, &[output, big, bigger], &slow));
    refused(&limited(&folder, "simulate slow.swm --data x.npy -q"), "multiplications");
}

#[test]
fn integer_graphs_of_our_own_are_verified() {
    for seed in 0..300 {
        let graph = random_graph(seed, Limits { extreme: seed % 2 == 0, ..Limits::CPU });
        graph.verify().unwrap_or_else(|e| panic!("{seed}: {e}"));
    }
}

/// An activation that claims another shape than what it reads.
#[test]
fn xmodels_whose_shapes_are_claims() {
    let mut b = Builder::new("claims", 1);
    let input = b.input(&[7, 6, 2]);
    let conv = b.conv(input, Window { kernel: [3, 3], ..Window::POINT }, 2, 1, IntAct::None);
    let kind = b.graph.tensors[conv.0].kind;
    let shape = b.shape(conv);
    b.op(IntOpKind::Requantize { shift: 0, act: IntAct::Relu }, &[conv], &shape, kind);
    let good = b.graph;
    let program = |g: &shiftwise_integer::graph::IntGraph| {
        let bytes = shiftwise_tests::xmodel::quantized(g).unwrap();
        let model = xmodel::read("m.xmodel".as_ref(), &bytes).unwrap();
        graph::Program::new(&model, &CustomLayers::default()).map(drop)
    };
    let mut good = good;
    good.outputs = vec![TensorIx(good.tensors.len() - 1)];
    program(&good).unwrap();
    let mut bad = good.clone();
    let last = bad.tensors.len() - 1;
    bad.tensors[last].shape = vec![5, 50, 2];
    assert!(bad.verify().is_err());
    assert!(program(&bad).unwrap_err().to_string().contains("5, 50, 2]"));
    let mut huge = good;
    huge.tensors[last].shape = vec![40_000, 40_000, 2];
    assert!(program(&huge).is_err());
}

/// A convolution whose quantizer is left to the activation behind it, and which something else reads: every engine and
/// compiler computes it in floats.
#[test]
fn a_quantizer_that_is_deferred_to_no_activation() {
    let conv = json!({"filters": 4, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid", "activation": "linear",
        "use_bias": false, "dilation_rate": [1, 1], "groups": 1});
    let pool = json!({"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"});
    let json = model(&[("Conv2D", conv), ("ReLU", json!({})), ("AveragePooling2D", pool)]);
    let options = LoadOptions { random_weights: Some(3), ..LoadOptions::default() };
    let Model::Float(float) = open_bytes("m.json".as_ref(), json.to_string().into_bytes(), &options).unwrap() else {
        panic!("an architecture is a float model")
    };
    let samples = random_samples(&float, 5, 2);
    let options = PtqOptions::new(Strategy::built_in("pof2s").unwrap());
    let mut q = ptq(float, &samples, &options, |_, _| {}).unwrap().quantized;
    let find = |is: fn(&Op) -> bool| q.graph.ids().find(|id| is(&q.graph.node(*id).op)).unwrap();
    let of: [NodeId; 2] = [find(|op| matches!(op, Op::Conv2D(_))), find(|op| matches!(op, Op::AveragePooling2D(_)))];
    let before = lower(&q).unwrap();
    q.graph.node_mut(of[1]).inputs = vec![of[0]];
    q.graph.verify().unwrap();
    let after = lower(&q).unwrap();
    let floats = |g: &shiftwise_integer::graph::IntGraph| g.tensors.iter().filter(|t| t.kind == Kind::Float).count();
    assert!(floats(&after) > floats(&before), "the convolution is computed in floats");
    let x: Vec<Tensor> = samples.iter().map(|t| Tensor::new(t.shape().to_vec(), t.data().to_vec()).unwrap()).collect();
    Engine::new(&after).run_batch(&x).unwrap();
    compile::cpu(&after, &Default::default()).unwrap();
    compile::dpu(&after, &shiftwise_targets::find("B512").unwrap(), &Default::default()).unwrap();
}
