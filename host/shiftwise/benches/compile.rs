//! From an architecture to a program: what `shiftwise estimate` and `shiftwise compile` spend their time on.
//!
//! `cargo bench -p shiftwise --bench compile`. Goals: MobileNetV2 within 0.5 s, ResNet-50 within 2 s.

use std::path::Path;

use divan::Bencher;
use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_quant::pipeline as quantize;
use shiftwise_quant::strategy::Strategy;

fn main() {
    divan::main();
}

const NETWORKS: [&str; 2] = ["mobilenet_v2_1_0_224", "resnet50_keras"];

fn graph(name: &str) -> IntGraph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/zoo/{name}.json"));
    let options = LoadOptions { random_weights: Some(0), ..LoadOptions::default() };
    let graph = format::load(&path, &options).unwrap();
    let strategy = Strategy::built_in("pof2s").unwrap();
    lower::lower(&quantize::without_data(graph, &strategy).unwrap()).unwrap()
}

/// Reads the architecture, draws weights, places quantizers, lowers to integers.
#[divan::bench(args = NETWORKS, sample_count = 5)]
fn integer_form(name: &str) -> IntGraph {
    graph(name)
}

/// Integers to instructions with tokens.
#[divan::bench(args = NETWORKS, sample_count = 5)]
fn dpu_program(bencher: Bencher<'_, '_>, name: &str) {
    let graph = graph(name);
    let target = shiftwise_targets::find("B4096").unwrap();
    let options = DpuOptions { timing_only: true, ..DpuOptions::default() };
    bencher.bench_local(|| compile::dpu(&graph, &target, &options).unwrap());
}
