//! Finetuning after calibration: what it wins, that it is the same everywhere, and when it stops.

use serde_json::json;
use shiftwise_formats::{self as format, LoadOptions};
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::{ActivationFn, Dense, Input, Op, Weighted};
use shiftwise_quant::pipeline::PtqOptions;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::{Folder, data};
use shiftwise_tests::finetune::{finetuned, with_memory};

fn options(settings: &[(&str, serde_json::Value)]) -> PtqOptions {
    let mut strategy = Strategy::built_in("pof2s").unwrap();
    for (key, value) in settings {
        strategy.set(key, value.clone()).unwrap();
    }
    PtqOptions { batch_size: 8, ..PtqOptions::new(strategy) }
}

fn model(name: &str) -> Graph {
    format::load(&data().join(format!("{name}.h5")), &LoadOptions::default()).unwrap()
}

/// Values from −1 to 1 without order.
fn noise(shape: &[usize], salt: u64) -> Tensor {
    let one = |i: u64| ((i ^ salt).wrapping_mul(6_364_136_223_846_793_005).rotate_left(23) >> 40) as f32;
    let count = shape.iter().product::<usize>() as u64;
    let data = (0..count).map(|i| one(i.wrapping_mul(2_654_435_761) + 1) / (1 << 23) as f32 - 1.0).collect();
    Tensor::new(shape.to_vec(), data).unwrap()
}

fn images(count: usize) -> Tensor {
    use shiftwise_graph::eval::Samples as _;
    let spec = shiftwise::dataset::DataSpec::parse(&format!("{}:x_cal", data().join("digits.npz").display()));
    let all = shiftwise::dataset::Inputs::open(&[(None, spec)], &[("x", &[8, 8, 1])]).unwrap();
    all.batch(0, count).unwrap().remove(0)
}

/// One dense layer with a bias.
fn dense() -> Graph {
    let mut graph = Graph::default();
    let x = graph.add("x", Op::Input(Input { shape: vec![6] }), vec![], vec![]).unwrap();
    let w = Weighted { kernel: noise(&[6, 5], 3), bias: Some(noise(&[5], 4)), activation: ActivationFn::Linear };
    let layer = graph.add("dense", Op::Dense(Dense { w }), vec![x], vec![]).unwrap();
    (graph.inputs, graph.outputs) = (vec![x], vec![layer]);
    graph
}

fn weights(q: &QuantGraph) -> Vec<Vec<u32>> {
    let of = |t: &Tensor| t.data().iter().map(|v| v.to_bits()).collect();
    q.graph.nodes.iter().flat_map(|n| n.op.layer().weights().into_iter().map(|(_, w)| of(w))).collect()
}

/// The epoch that ends a layer leaves nothing behind: without it the weights are the same.
#[test]
fn an_epoch_that_does_not_lower_the_loss_is_taken_back_and_the_last() {
    let samples = vec![noise(&[40, 6], 5)];
    let run = |seed: u64, epochs: usize| {
        let options = options(&[("include_fast_ft", json!(true)), ("fast_ft_epochs", json!(epochs))]);
        finetuned(dense(), &samples, &options, seed).unwrap()
    };
    let mut stopped = 0;
    for seed in 0..6 {
        let all = run(seed, 60);
        let losses = &all.finetuned[0].losses;
        let falling = losses.windows(2).take_while(|pair| pair[1] < pair[0]).count();
        assert!(falling + 2 >= losses.len(), "{losses:?}");
        assert_eq!(all.finetuned[0].after, losses[falling]);
        assert_eq!(weights(&all.quantized), weights(&run(seed, falling).quantized));
        assert_eq!(run(seed, falling).finetuned[0].losses[..], losses[..=falling]);
        stopped += usize::from(falling + 1 < losses.len());
    }
    assert!(stopped > 0);
}

#[test]
fn activations_that_are_computed_again_give_the_same_weights_as_kept_ones() {
    let samples = vec![images(20)];
    let options = options(&[("include_fast_ft", json!(true)), ("fast_ft_epochs", json!(2))]);
    let run = |memory| with_memory(model("digits_lenet"), &samples, &options, 1, memory).unwrap().quantized;
    assert_eq!(weights(&run(0)), weights(&run(1 << 30)));
}

#[test]
fn finetuning_gives_the_same_file_for_any_number_of_threads_and_another_for_another_seed() {
    let folder = Folder::new("finetune-threads");
    for algorithm in ["adaquant", "reconstruct"] {
        let run = |threads: usize, seed: usize| {
            let ran = folder.run(&format!(
                "quantize digits_resnet.h5 --calib digits.npz:x_cal --calib-steps 1 --set include_fast_ft=true --set \
                 fast_ft_epochs=1 --set fast_ft_algorithm={algorithm} --threads {threads} --seed {seed} --output-dir q"
            ));
            assert_eq!(ran.code, Some(0), "{ran:?}");
            folder.read("q/quantized.h5")
        };
        let one = run(1, 0);
        assert!(one == run(2, 0) && one == run(7, 0), "{algorithm}");
        assert_eq!(one == run(2, 1), algorithm == "reconstruct", "{algorithm}");
    }
}

/// Right answers of the real network with kernels of 4 bits: at least half of what rounding costs comes back.
#[test]
fn reconstruction_recovers_kernels_of_four_bits_and_what_it_gives_is_proved() {
    let folder = Folder::new("finetune-four");
    let share = |model: &str| {
        let ran = folder.run(&format!("evaluate {model} --data digits.npz:x_eval --labels digits.npz:y_eval --json"));
        ran.json()["model"]["top1"].as_f64().unwrap_or_else(|| panic!("{ran:?}"))
    };
    let quantize = |more: &str| {
        let ran = folder.run(&format!(
            "quantize digits_resnet.h5 --calib digits.npz:x_cal --set weight_bit=3 {more} --output-dir q --json"
        ));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        (share("q/quantized.h5"), ran.json())
    };
    let float = share("digits_resnet.h5");
    let (plain, _) = quantize("");
    let (ours, report) = quantize("--set include_fast_ft=true --set fast_ft_algorithm=reconstruct");
    assert!(plain < float && ours >= (plain + float) / 2.0, "{float} {plain} {ours}");
    let rows = report["finetuned"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["after"].as_f64() <= row["before"].as_f64()), "{rows:?}");
    let proof = folder.run("verify q/quantized.h5 --target B512 --data digits.npz:x_eval --samples 2 --json");
    assert!(proof.code == Some(0) && proof.json()["holds"] == true, "{proof:?}");
}

#[test]
fn settings_of_finetuning_are_checked() {
    let folder = Folder::new("finetune-settings");
    let failing = |settings: &str, text: &str| {
        let ran = folder.run(&format!("quantize digits_lenet.h5 --calib digits.npz:x_cal --output-dir q {settings}"));
        assert!(ran.code == Some(2) && ran.err.contains(text), "{ran:?}");
    };
    failing("--set fast_ft_algorithm=magic", "fast_ft_algorithm");
    failing("--set include_fast_ft=true --set fast_ft_epochs=1.5", "a whole number is expected");
}

#[test]
fn a_network_with_dead_channels_reports_them() {
    let mut graph = dense();
    if let Some(w) = graph.nodes[1].op.weighted_mut() {
        w.bias.as_mut().unwrap().data_mut()[2] = -40.0;
        w.activation = ActivationFn::Relu;
    }
    let samples = vec![noise(&[40, 6], 5)];
    let run = |folds: bool| finetuned(graph.clone(), &samples, &options(&[("fold_dead_channels", json!(folds))]), 0);
    let folded = run(true).unwrap().dead_channels;
    assert!(folded.len() == 1 && folded[0].dead == 1 && folded[0].margin.unwrap() > 30.0, "{folded:?}");
    assert!(run(false).unwrap().dead_channels.is_empty());
}
