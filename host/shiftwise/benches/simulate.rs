//! One image through the integer engine and through the instructions of the compiled program, alternately, on one
//! thread: what a simulation costs beside the evaluation that it must equal.
//!
//! `cargo bench -p shiftwise --bench simulate [-- ROUNDS]`. The least time of all rounds counts, so that other work on
//! the machine disturbs little. Goal: tokens and cycles included, at most 5 times the evaluation.

use std::path::Path;
use std::time::{Duration, Instant};

use shiftwise_compile::{self as compile, DpuOptions};
use shiftwise_core::model::Deployable;
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_quant::pipeline as quantize;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_tensor::values::Values;

const NETWORKS: [&str; 2] = ["mobilenet_v2_1_0_224", "resnet50_keras"];

fn graph(name: &str) -> IntGraph {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/zoo/{name}.json"));
    let options = LoadOptions { random_weights: Some(0), ..LoadOptions::default() };
    let graph = format::load(&path, &options).unwrap();
    let strategy = Strategy::built_in("pof2s").unwrap();
    lower::lower(&quantize::without_data(graph, &strategy).unwrap()).unwrap()
}

/// The time of a call, and what it returned.
fn timed<T>(call: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let value = call();
    (start.elapsed(), value)
}

fn compare(name: &str, rounds: usize) {
    let graph = graph(name);
    let target = shiftwise_targets::find("B4096").unwrap();
    let bytes = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
    let model = Deployable::parse(&bytes).unwrap();
    let engine = Engine::new(&graph);
    let pixels: usize = graph.tensors[graph.inputs[0].0].shape.iter().product();
    let image: Vec<f32> = (0..pixels).map(|i| (i * 37 % 251) as f32 / 125.0 - 1.0).collect();
    let inputs = engine.quantize_inputs(&[&image]).unwrap();
    let region: Vec<u8> = inputs.iter().flat_map(Values::to_bytes).collect();
    let mut sim = SimDpu::new(target.clone(), target.clock_mhz, Costs::default()).unwrap();

    let [mut evaluation, mut simulation] = [Duration::MAX; 2];
    for _ in 0..rounds {
        let (time, values) = timed(|| engine.run(inputs.clone(), |_| false));
        evaluation = evaluation.min(time);
        sim.clear();
        let (time, outputs) = timed(|| shiftwise_sim::frame(&model, &mut sim, &region, &mut ()).unwrap());
        simulation = simulation.min(time);
        let expected: Vec<u8> = graph.outputs.iter().flat_map(|ix| values[ix.0].as_ref().unwrap().to_bytes()).collect();
        assert_eq!(outputs, expected, "{name}: the simulation's outputs are others than the evaluation's");
    }
    let [e, s] = [evaluation, simulation].map(|d| 1e3 * d.as_secs_f64());
    println!("{name}: evaluation {e:.1} ms, simulation {s:.1} ms an image: {:.2} times", s / e);
}

fn main() {
    // Cargo itself passes `--bench`.
    let rounds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(10);
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    alone.install(|| NETWORKS.iter().for_each(|name| compare(name, rounds)));
}
