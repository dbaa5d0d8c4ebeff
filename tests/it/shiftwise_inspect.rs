//! `inspect`: the vendor's text, the compiler's placement, rewrites, the command line.

use std::collections::BTreeSet;
use std::path::Path;

use shiftwise::device::Device;
use shiftwise::inspect::{CPU, DPU, INPUT, Inspection, fix, inspect};
use shiftwise_compile::{DpuOptions, Engine};
use shiftwise_core::target::Limit;
use shiftwise_formats::{Files, LoadOptions, Model, open, user_layers};
use shiftwise_graph::builder::Builder;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::pool::PoolWindow;
use shiftwise_graph::ops::{
    Activate, ActivationFn, BatchNormalization, Conv2D, DepthwiseConv2D, GlobalMaxPooling2D, Input, LeakyRelu,
    MaxPooling2D, Merge, Op, Padding, Relu, Weighted,
};
use shiftwise_integer::lower;
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::Folder;
use shiftwise_tests::odd::usual_network;
use shiftwise_tests::shared::shared;
use shiftwise_tests::{networks, zoo};

fn pof2s() -> Strategy {
    Strategy::built_in("pof2s").unwrap()
}

fn inspected(graph: &Graph, device: Option<&Device>) -> Inspection {
    inspect(&Model::Float(graph.clone()), &user_layers(graph, None), &pof2s(), device).unwrap()
}

fn inspected_file(path: &Path, device: Option<&Device>) -> Inspection {
    let options =
        LoadOptions { random_weights: path.extension().filter(|e| *e == "json").map(|_| 0), ..LoadOptions::default() };
    let model = open(path, &options).unwrap();
    let layers = user_layers(shiftwise::evaluate::graph(&model), Some(&Files::open(path).unwrap()));
    inspect(&model, &layers, &pof2s(), device).unwrap()
}

/// A case for which the vendor's inspector fails has no texts.
#[test]
fn golden_texts_of_the_inspector_are_ours_byte_for_byte() {
    let Some(shared) = shared() else { return };
    let mut texts = 0;
    for case in std::fs::read_dir(shared.join("golden/inspect")).unwrap().map(|e| e.unwrap().path()) {
        if !case.is_dir() {
            continue;
        }
        let inspection = inspected_file(&case.join("model.h5"), None);
        for (file, verbose) in [("inspect_results_verbose0.txt", false), ("inspect_results_verbose1.txt", true)] {
            if let Ok(want) = std::fs::read_to_string(case.join(file)) {
                let own = inspection.text(verbose);
                for (line, (own, want)) in own.lines().zip(want.lines()).enumerate() {
                    assert_eq!(own, want, "{}/{file}, line {}", case.display(), line + 1);
                }
                assert_eq!(own, want, "{}/{file}", case.display());
                texts += 1;
            }
        }
    }
    assert!(texts >= 24, "{texts}");
}

/// The vendor's inspector stops at both.
#[test]
fn sequences_and_parts_of_networks_are_inspected() {
    if let Some(shared) = shared() {
        let inspection = inspected_file(&shared.join("golden/inspect/sequential_v1/model.h5"), None);
        assert!(inspection.layers.len() > 3 && inspection.layers.iter().any(|l| l.device == DPU));
    }
    let graph = networks::random_network(4, 4);
    let layers = user_layers(&graph, None);
    let ignored = layers.iter().find(|l| l.class == "Conv2D").unwrap().name.clone();
    let mut strategy = pof2s();
    strategy.set("ignore_layers", serde_json::json!([ignored])).unwrap();
    let inspection = inspect(&Model::Float(graph), &layers, &strategy, None).unwrap();
    assert!(inspection.layers.iter().find(|l| l.layer == ignored).unwrap().device.contains(CPU));
}

/// Against the rows of a compiled program, which another part of the compiler writes.
fn agrees_with_the_compiler(graph: &Graph, device: &Device, what: &str) {
    let inspection = inspected(graph, Some(device));
    let integers = lower::lower(&without_data(graph.clone(), &pof2s()).unwrap()).unwrap();
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    let program = shiftwise_compile::dpu(&integers, &device.target, &options).unwrap();
    let rows = |on_cpu: bool| -> BTreeSet<&str> {
        let engine = |e: Engine| matches!(e, Engine::Cpu) == on_cpu && !matches!(e, Engine::View);
        program.layers.iter().filter(|l| engine(l.engine)).flat_map(|l| l.layer.split('+')).collect()
    };
    let (cpu, dpu) = (rows(true), rows(false));
    for layer in inspection.layers.iter().filter(|l| l.device != INPUT) {
        let own: BTreeSet<&str> = layer.device.split('+').collect();
        let name = layer.layer.as_str();
        assert_eq!(own.contains(CPU), cpu.contains(name), "{what}: {name} is {}", layer.device);
        if dpu.contains(name) {
            assert!(own.contains(DPU), "{what}: {name} is {}", layer.device);
        }
        assert!(layer.fallbacks.is_empty() || own.contains(CPU), "{what}: {name}");
    }
    let us: f64 = inspection.layers.iter().flat_map(|l| &l.fallbacks).map(|f| f.cpu_us).sum();
    let cuts: f64 = inspection.cuts.iter().map(|c| c.saves_us).sum();
    assert!(us <= cuts + 1e-6, "{what}: layers {us} µs, cuts {cuts} µs");
    assert!(
        (cuts - inspection.cost.unwrap().cpu_us).abs() < 1e-6 * cuts.max(1.0),
        "{what}: the estimate has another sum"
    );
}

#[test]
fn the_dpu_is_told_exactly_where_the_compiler_places_a_layer() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1200);
    for seed in 0..cases {
        let name = ["DPUCZDX8G_ISA1_B512", "DPUCZDX8G_ISA1_B4096"][seed as usize % 2];
        let device = Device::named(name).unwrap();
        agrees_with_the_compiler(&usual_network(seed, 5), &device, &format!("network {seed}"));
    }
}

#[test]
fn the_dpu_is_told_exactly_where_an_architecture_of_the_zoo_is_placed() {
    let device = Device::named("DPUCZDX8G_ISA1_B4096").unwrap();
    // The larger ones take longer than a test may.
    for name in ["squeezenet_1_1", "mobilenet_v1_0_5_160"] {
        let options = LoadOptions { random_weights: Some(0), ..LoadOptions::default() };
        let path = zoo::folder().join(format!("{name}.json"));
        agrees_with_the_compiler(&shiftwise_formats::load(&path, &options).unwrap(), &device, name);
    }
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::new(shape.to_vec(), vec![0.25; shape.iter().product()]).unwrap()
}

fn weighted(kernel: &[usize]) -> Weighted {
    Weighted { kernel: ones(kernel), bias: None, activation: ActivationFn::Linear }
}

/// A network of an input and one layer.
fn single(shape: [usize; 3], op: Op) -> Graph {
    let mut builder = Builder::new("single");
    let input = builder.layer("image", Op::Input(Input { shape: shape.to_vec() }), &[]).unwrap();
    let layer = builder.layer("layer", op, &[input]).unwrap();
    builder.finish(&[layer]).unwrap()
}

fn conv(kernel: [usize; 2], strides: [usize; 2], channels: [usize; 2]) -> Op {
    let w = weighted(&[kernel[0], kernel[1], channels[0], channels[1]]);
    Op::Conv2D(Conv2D { w, strides, dilation: [1, 1], padding: Padding::Valid, groups: 1 })
}

fn depthwise(kernel: [usize; 2], strides: [usize; 2], channels: usize) -> Op {
    let w = weighted(&[kernel[0], kernel[1], channels, 1]);
    Op::DepthwiseConv2D(DepthwiseConv2D { w, strides, dilation: [1, 1], padding: Padding::Valid })
}

fn max_pool(size: [usize; 2], strides: [usize; 2]) -> Op {
    Op::MaxPooling2D(MaxPooling2D { pool: PoolWindow { size, strides, padding: Padding::Valid } })
}

/// A layer whose number is `n`, the limit of `n`, and what the compiler and the vendor call it.
struct Side {
    rule: &'static str,
    limit: Limit,
    words: &'static str,
    network: fn(usize) -> Graph,
}

#[test]
fn each_limit_of_sizes_is_told_on_both_of_its_sides() {
    let device = Device::named("DPUCZDX8G_ISA1_B4096").unwrap();
    let limits = &device.target.limits;
    let sides = [
        Side {
            rule: "kernel height",
            limit: limits.conv_kernel,
            words: "kernel_size((N, 1))",
            network: |n| single([40, 40, 4], conv([n, 1], [1, 1], [4, 4])),
        },
        Side {
            rule: "kernel width",
            limit: limits.conv_kernel,
            words: "kernel_size((1, N))",
            network: |n| single([40, 40, 4], conv([1, n], [1, 1], [4, 4])),
        },
        Side {
            rule: "kernel height",
            limit: limits.alu_kernel,
            words: "kernel_size((N, 1))",
            network: |n| single([300, 10, 4], depthwise([n, 1], [1, 1], 4)),
        },
        Side {
            rule: "kernel width",
            limit: limits.alu_kernel,
            words: "kernel_size((1, N))",
            network: |n| single([10, 300, 4], depthwise([1, n], [1, 1], 4)),
        },
        Side {
            rule: "kernel height",
            limit: limits.alu_kernel,
            words: "pool_size((N, 1))",
            network: |n| single([300, 10, 4], max_pool([n, 1], [1, 1])),
        },
        Side {
            rule: "vertical stride",
            limit: limits.alu_stride,
            words: "strides((N, 1))",
            network: |n| single([300, 10, 4], max_pool([2, 1], [n, 1])),
        },
    ];
    for Side { rule, limit, words, network } in sides {
        let most = limit.max as usize;
        let within = inspected(&network(most), Some(&device));
        assert!(within.all_on_dpu(), "{rule} {most}: {:?}", within.layers);
        let beyond = inspected(&network(most + 1), Some(&device));
        let layer = &beyond.layers[1];
        assert_eq!(layer.device, CPU, "{rule} {}", most + 1);
        let fallback = &layer.fallbacks[0];
        assert_eq!((fallback.rule.as_deref(), fallback.value), (Some(rule), Some(most as i64 + 1)));
        assert_eq!(fallback.limit.map(|l| l[1]), Some(most as i64));
        assert!(fallback.remedy.is_some() && fallback.cpu_us > 0.0);
        let words = words.replace('N', &(most + 1).to_string());
        let (min, max) = (limit.min, limit.max);
        assert_eq!(layer.notes[0], format!("{words} exceed limit {min}-{max};{min}-{max}"));
    }
}

/// Layers that every exact rewrite has something to do with.
fn fixable() -> Graph {
    let mut b = Builder::new("fixable");
    let values = |n: usize, f: fn(usize) -> f32| Tensor::vector((0..n).map(f).collect());
    let image = b.layer("image", Op::Input(Input { shape: vec![48, 48, 4] }), &[]).unwrap();
    let first = b.layer("first", conv([3, 3], [1, 1], [4, 6]), &[image]).unwrap();
    let relu = b.layer("relu", Op::Relu(Relu::PLAIN), &[first]).unwrap();
    let norm = BatchNormalization {
        gamma: Some(values(6, |i| 0.5 + i as f32)),
        beta: Some(values(6, |i| i as f32 - 2.0)),
        mean: values(6, |i| 0.25 * i as f32),
        variance: values(6, |i| 1.0 + i as f32),
        epsilon: 1e-3,
        momentum: BatchNormalization::MOMENTUM,
    };
    let norm = b.layer("norm", Op::BatchNormalization(norm), &[relu]).unwrap();
    let second = b.layer("second", conv([1, 1], [1, 1], [6, 4]), &[norm]).unwrap();
    let other = b.layer("other", conv([3, 3], [1, 1], [4, 4]), &[image]).unwrap();
    let minus = b.layer("minus", Op::Merge(Merge::Subtract), &[second, other]).unwrap();
    let maximum = b.layer("maximum", Op::GlobalMaxPooling2D(GlobalMaxPooling2D { keepdims: false }), &[minus]).unwrap();
    b.finish(&[maximum]).unwrap()
}

#[test]
fn exact_rewrites_keep_what_a_network_computes_and_bring_it_to_the_dpu() {
    let device = Device::named("DPUCZDX8G_ISA1_B4096").unwrap();
    let graph = fixable();
    let before = inspected(&graph, Some(&device));
    assert!(!before.all_on_dpu() && !before.rewrites.is_empty());
    for proposal in &before.rewrites {
        assert!(proposal.after.total_us < proposal.before.total_us && proposal.exact, "{proposal:?}");
    }
    let fixed = fix(&graph, &device.target).unwrap();
    let names: Vec<&str> = fixed.done.iter().map(|d| d.rewrite.as_str()).collect();
    assert_eq!(names, ["fold_bn_forward", "global_max_to_pool", "subtract_to_add"]);
    let samples = networks::random_samples(&graph, 3, 2);
    let (old, new) = (run_float(&graph, samples.clone()).unwrap(), run_float(&fixed.graph, samples).unwrap());
    let scale = old[0].data().iter().fold(0f32, |m, v| m.max(v.abs()));
    assert!(old[0].data().iter().zip(new[0].data()).all(|(a, b)| (a - b).abs() <= 1e-5 * scale));
    assert!(fixed.done.iter().all(|d| d.exact && d.error < 1e-5), "{:?}", fixed.done);
    let after = inspected(&fixed.graph, Some(&device));
    assert!(after.all_on_dpu(), "{:?}", after.layers);
    assert_eq!(after.cost.unwrap().subgraphs, 1);
}

#[test]
fn a_rewrite_that_changes_results_says_by_how_much() {
    let device = Device::named("DPUCZDX8G_ISA1_B4096").unwrap();
    let slope = |alpha| {
        let mut b = Builder::new("slope");
        let image = b.layer("image", Op::Input(Input { shape: vec![8, 8, 4] }), &[]).unwrap();
        let conv = b.layer("conv", conv([1, 1], [1, 1], [4, 4]), &[image]).unwrap();
        let act = b.layer("act", Op::LeakyRelu(LeakyRelu { alpha }), &[conv]).unwrap();
        b.finish(&[act]).unwrap()
    };
    let done = fix(&slope(0.3), &device.target).unwrap().done;
    assert!(done.len() == 1 && !done[0].exact && done[0].error > 0.01, "{done:?}");
    // The quantizer converts this one by itself.
    assert!(fix(&slope(0.1), &device.target).unwrap().done.is_empty());
    let sigmoid = single([4, 4, 4], Op::Activation(Activate { function: ActivationFn::Sigmoid }));
    let done = fix(&sigmoid, &device.target).unwrap().done;
    assert!(done.len() == 1 && done[0].error < 0.1, "{done:?}");
}

#[test]
fn the_command_shows_writes_and_draws() {
    let folder = Folder::new("inspect");
    let ran = folder.run("inspect digits_resnet.h5 --target B4096 --dump-results r.txt --plot p.svg --dump-model m.h5");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for part in ["on", "DPU", "µs on the CPU", "a frame"] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    assert!(String::from_utf8(folder.read("r.txt")).unwrap().contains("- [Target Name]: DPUCZDX8G_ISA1_B4096"));
    let svg = String::from_utf8(folder.read("p.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("<title>"));
    assert_eq!(folder.run("inspect m.h5").code, Some(0));
    let json = folder.run("inspect digits_resnet.h5 --target B4096 --json").json();
    assert!(json["layers"].as_array().unwrap().len() > 10 && json["cost"]["total_us"].as_f64().unwrap() > 0.0);
    let plain = folder.run("inspect digits_resnet.h5 --json").json();
    assert!(plain["target"].is_null() && plain["cost"].is_null());
}

#[test]
fn bad_arguments_of_inspect_are_refused_by_name() {
    let folder = Folder::new("inspect-bad");
    for (arguments, part) in [
        ("inspect digits_lenet.h5 --plot a.png", ".svg is drawn"),
        ("inspect digits_lenet.h5 --fix a.h5", "--target"),
        ("inspect digits_lenet.h5 --target nothing", "unknown target"),
        ("inspect digits_lenet.h5 --strategy fs", "pof2s"),
        ("inspect digits_lenet.h5 --target B512 --dump-results digits_lenet.h5", "would be overwritten"),
        ("inspect digits_lenet.h5 --set ignore_layer=[]", "ignore_layers"),
    ] {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments}: {ran:?}");
        assert!(ran.err.contains(part), "{arguments}: {}", ran.err);
    }
}
