//! Integers with steps of any size: the engine and the compiled kernels against exact fractions, then from the command
//! line to the proof.

use serde_json::Value as Json;
use shiftwise_compile::{self as compile, CpuOptions};
use shiftwise_core::run::NoDpu;
use shiftwise_integer::engine::Engine;
use shiftwise_integer::graph::Kind;
use shiftwise_tensor::values::Values;
use shiftwise_tests::agreement::tensors;
use shiftwise_tests::command::Folder;
use shiftwise_tests::graphs::random_inputs;
use shiftwise_tests::scaled::{evaluate, random_layer};

fn given(kind: Kind, bytes: &[u8]) -> Values {
    match kind.bytes() {
        2 => Values::Int16(bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b)).collect()),
        _ => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
    }
}

#[test]
fn every_layer_is_its_formula_in_exact_arithmetic() {
    let mut names = std::collections::BTreeMap::<&str, usize>::new();
    for seed in 0..1500 {
        let graph = random_layer(seed);
        // What leaves 64 bits is refused, and never drawn on purpose.
        if graph.verify().is_err() {
            *names.entry("refused").or_default() += 1;
            continue;
        }
        let inputs = random_inputs(&graph, seed);
        let want = evaluate(&graph, &inputs);
        let values = graph.inputs.iter().zip(&inputs).map(|(t, bytes)| given(graph.tensors[t.0].kind, bytes));
        let out = graph.ops[0].output;
        let got = Engine::new(&graph).run(values.collect(), |_| true);
        let name = graph.ops[0].kind.name();
        assert!(got[out.0].as_ref().unwrap().to_bytes() == want, "engine, seed {seed}: {name}");
        for separate_io in [false, true] {
            let program = compile::cpu(&graph, &CpuOptions { separate_io }).unwrap();
            let seen = tensors(&program, &inputs, &mut NoDpu).unwrap_or_else(|e| panic!("seed {seed}: {name}: {e}"));
            assert!(seen[&(out.0 as u16)] == want, "kernels, seed {seed}: {name}");
        }
        *names.entry(name).or_default() += 1;
    }
    assert!(names.len() >= 13 && names.get("refused").is_none_or(|n| *n < 100), "{names:?}");
}

/// Strategies and settings whose integers have other steps than a DPU's.
const RUNS: [&str; 8] = [
    "--strategy fsx",
    "--strategy fs",
    "--strategy fsx --set activation_symmetry=false --set input_symmetry=false",
    "--strategy fsx --set activation_unsigned=true --set activation_method=0",
    "--strategy fsx --set input_method=0 --set activation_method=0 --set weight_per_channel=false",
    "--strategy pof2s --set convert_to_fs_quantize_strategy=true",
    "--strategy pof2s --set weight_bit=16 --set activation_bit=16 --set input_bit=16 --set bias_bit=16",
    "--strategy pof2s --set layer_config={\"block1_1_conv\":\"int16\"} --set layer_config_recalibrate=true",
];

#[test]
fn what_is_quantized_is_proved_on_the_cpu() {
    for (k, run) in RUNS.into_iter().enumerate() {
        let folder = Folder::new(&format!("integer_scales_{k}"));
        let verify =
            "verify digits_resnet.h5 --calib digits.npz:x_cal --data digits.npz:x_eval --samples 2 --target cpu";
        let ran = folder.run(&format!("{verify} {run} -o proof.json --json"));
        assert_eq!(ran.code, Some(0), "{run}: {ran:?}");
        let proof: Json = ran.json();
        let checks = proof["checks"].as_array().unwrap();
        assert!(
            checks.len() == 1 && checks[0]["mismatches"] == 0 && checks[0]["tensors"].as_u64() > Some(8),
            "{run}: {proof}"
        );
    }
}
