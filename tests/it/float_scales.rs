//! Strategies of float scales and thresholds from the command line: quantize, evaluate, dump, compare, estimate, compile.

use serde_json::Value;
use shiftwise_tests::command::{Folder, Ran};

fn done(folder: &Folder, arguments: &str) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran
}

fn quantize(strategy: &str, more: &str) -> String {
    format!("quantize digits_resnet.h5 --calib digits.npz:x_cal --strategy {strategy} {more} --output-dir q --json")
}

/// A strategy and what it is told, whether a DPU has what it makes.
const RUNS: [(&str, &str, bool); 7] = [
    ("fs", "", false),
    ("fsx", "", false),
    ("fsx", "--set input_method=0 --set activation_method=0 --set weight_per_channel=false", false),
    ("gpu", "", false),
    ("pof2s_tqt", "", true),
    ("8bit_tqt", "--set convert_to_pof2s_quantize_strategy=false", false),
    ("pof2s", "--set convert_to_fs_quantize_strategy=true", false),
];

#[test]
fn every_strategy_goes_from_a_float_model_to_its_answers_the_same_for_every_number_of_threads() {
    for (k, (strategy, more, dpu)) in RUNS.into_iter().enumerate() {
        let way = |threads: usize| {
            let folder = Folder::new(&format!("float_scales{k}_{threads}"));
            let with = |command: &str| done(&folder, &format!("{command} --threads {threads}"));
            let made = with(&quantize(strategy, more)).json();
            let score =
                with("evaluate q/quantized.h5 --data digits.npz:x_eval --labels digits.npz:y_eval --json").json();
            let top1 = score["model"]["top1"].as_f64().unwrap();
            assert!(top1 > 0.97, "{strategy} {more}: {score}");
            for numerics in ["dpu", "vendor"] {
                let dump = format!("dump q/quantized.h5 --data digits.npz:x_eval --samples 2 --numerics {numerics}");
                with(&format!("{dump} --output-dir {numerics}"));
            }
            with("compare vendor vendor");
            (folder, made)
        };
        let ((one, made), (two, again)) = (way(1), way(2));
        assert_eq!(made, again);
        let (a, b) = (one.tree(), two.tree());
        for (name, bytes) in &a {
            assert!(*bytes == b[name], "{strategy} {more}: {name} differs between 1 and 2 threads");
        }
        let integers = a.keys().filter(|name| name.starts_with("vendor/") && name.ends_with("_integers.bin")).count();
        assert_eq!(integers > 0, !dpu, "{strategy} {more}");
        let grids = made["quantize_info"].as_array().unwrap();
        assert!(grids.iter().all(|g| g.get("position").is_some() || g.get("zero_point").is_some()), "{grids:?}");

        let compile = one.run("compile q/quantized.h5 --target B1152 -o m.swm");
        let estimate = one.run("estimate q/quantized.h5 --target B1152");
        for ran in [compile, estimate] {
            assert_eq!(ran.code, Some(if dpu { 0 } else { 2 }), "{strategy} {more}: {ran:?}");
            // Of `fs` only weights have float scales.
            let told = ["with a float scale", "with a trained threshold"].iter().any(|text| ran.err.contains(text));
            let told = told && ran.err.contains("power-of-two scale");
            assert!(dpu || told, "{}", ran.err);
        }
    }
}

/// The integers named apart are the values over the step, on the zero point.
#[test]
fn integers_named_apart_are_values_over_steps() {
    let folder = Folder::new("float_integers");
    let made = done(&folder, &quantize("fsx", "--set activation_symmetry=false")).json();
    done(&folder, "dump q/quantized.h5 --data digits.npz:x_eval --numerics vendor --dump-float --output-dir d");
    let tree = folder.tree();
    let mut checked = 0;
    for grid in made["quantize_info"].as_array().unwrap() {
        let name = grid["layer"].as_str().unwrap();
        let Some(integers) = tree.get(&format!("d/dump_results_0/{name}_integers.bin")) else { continue };
        if !["output", "input", "activation"].contains(&grid["role"].as_str().unwrap()) {
            continue;
        }
        let floats = &tree[&format!("d/dump_results_0/{name}_float.bin")];
        let number = |key: &str| grid[key].as_f64().unwrap();
        for (q, x) in integers.as_chunks::<4>().0.iter().zip(floats.as_chunks::<4>().0) {
            let (q, x) = (f64::from(i32::from_le_bytes(*q)), f64::from(f32::from_le_bytes(*x)));
            let value = (q - number("zero_point")) * number("scale");
            assert!((value - x).abs() < 1e-3 * number("scale"), "{name}: {q} {x}");
        }
        checked += 1;
    }
    assert!(checked > 5, "{checked}");
}

#[test]
fn strategies_are_printed_and_checked_by_name() {
    let folder = Folder::new("float_strategies");
    for name in ["fs", "fsx", "gpu", "pof2s_tqt", "8bit_tqt"] {
        let text = done(&folder, &format!("strategy dump {name} --verbose 2")).out;
        let dumped: Value = serde_json::from_str(&text).unwrap();
        assert!(dumped["quantize_registry_config"]["layer_quantize_config"].is_array());
        folder.write("own.json", text.as_bytes());
        let checked = done(&folder, &format!("strategy check own.json --strategy {name} --json")).json();
        assert_eq!(checked["changes"], serde_json::json!([]), "{name}");
    }
    let unknown = folder.run(&quantize("tqt", ""));
    assert!(unknown.code == Some(2) && unknown.err.contains("known are pof2s, 8bit, pof2s_tqt"), "{unknown:?}");
    let refused = folder.run(&quantize("fsx", "--set weight_method=2"));
    assert!(refused.code == Some(2) && refused.err.contains("range per channel"), "{refused:?}");
}

/// Without a DPU there is memory to estimate; a DPU's refusal names the user's layers and what helps.
#[test]
fn float_scales_are_estimated_for_the_cpu_and_refused_for_a_dpu_by_name() {
    let folder = Folder::new("float_estimate");
    done(&folder, &quantize("fsx", ""));
    let report = done(&folder, "estimate q/quantized.h5 --board mps2-an386 --target cpu --json").json();
    assert!(report["macs"].as_u64() > Some(300_000) && report["footprint"]["fits"] == true, "{report}");
    assert!(report["layers"].as_array().unwrap().iter().any(|l| l["op"] == "scaled conv"), "{report}");
    for option in ["--clock 300MHz", "--cores 2", "--trace t.json"] {
        let refused = folder.run(&format!("estimate q/quantized.h5 --target cpu {option}"));
        assert!(refused.code == Some(2) && refused.err.contains("there is no DPU"), "{refused:?}");
    }
    let refused = folder.run("compile q/quantized.h5 --target B1152 -o m.swm");
    for text in ["block1_1_conv", "--strategy pof2s"] {
        assert!(refused.err.contains(text), "{text}: {refused:?}");
    }
    assert!(!refused.err.contains("quant_"), "{refused:?}");
}

#[test]
fn errors_of_options_name_the_keyword_that_was_set() {
    let folder = Folder::new("float_errors");
    let table = [
        (quantize("fsx", "--set activation_method=7"), "`activation_method`: method outside 0..3: 7"),
        (quantize("fsx", "--set weight_method=2"), "`weight_method`: method other than 0 or 1"),
        (quantize("pof2s", "--set input_bit=99"), "`input_bit`: bit width outside 2..32: 99"),
        (
            "convert digits_resnet.h5 --to float16 --set weight_bit=4".into(),
            "weight_bit: it changes nothing of a conversion",
        ),
        ("convert digits_resnet.h5 --to float16 --set include_cle=false".into(), "changes nothing of a conversion"),
    ];
    for (command, text) in table {
        let ran = folder.run(&command);
        assert!(ran.code == Some(2) && ran.err.contains(text) && !ran.err.contains("Quantizer:"), "{command}: {ran:?}");
    }
    let dumped = done(&folder, "strategy dump fsx --verbose 2").out;
    folder.write("own.json", dumped.as_bytes());
    let checked = folder.run("strategy check own.json");
    assert!(checked.code == Some(2) && checked.err.contains("--strategy fsx"), "{checked:?}");
    let entry = |parameters: &str| {
        format!(
            r#"{{"quantize_registry_config":{{"layer_quantize_config":[{{"layer_type":"tensorflow.keras.layers.Conv2D",
            "quantizable_weights":["kernel"],"weight_quantizers":[{{"quantizer_type":"Pof2SQuantizer",
            "quantizer_params":{parameters}}}]}}]}}}}"#
        )
    };
    let parameters = [
        (r#"{"bit_width":"x","method":0,"round_mode":1}"#, "`bit_width` is \"x\""),
        (
            r#"{"bits":8,"method":0,"round_mode":1}"#,
            "parameter `bits` is unknown of a Pof2SQuantizer; known are `bit_width`",
        ),
        (r#"{"bit_width":8,"method":0}"#, "parameter `round_mode` is missing"),
    ];
    for (parameters, text) in parameters {
        folder.write("c.json", entry(parameters).as_bytes());
        let ran = folder.run("strategy check c.json");
        assert!(ran.code == Some(2) && ran.err.contains(text), "{parameters}: {ran:?}");
    }
}
