//! `analyze` and `diff`.

use serde_json::Value;
use shiftwise::analyze::{Analysis, Request, analyze, glance};
use shiftwise_graph::builder::Builder;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::{ActivationFn, Conv2D, Input, Op, Padding, Relu, Weighted};
use shiftwise_quant::eval::run_vendor;
use shiftwise_quant::pipeline::{PtqOptions, ptq};
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::command::{Folder, Ran};
use shiftwise_tests::networks::random_samples;

fn run(folder: &Folder, arguments: &str, code: i32) -> Ran {
    let ran = folder.run(arguments);
    assert_eq!(ran.code, Some(code), "{arguments}: {ran:?}");
    ran
}

/// A 1×1 convolution whose weights of output channel `o` and input channel `i` are `w(i, o)`.
fn conv(inputs: usize, outputs: usize, w: fn(usize, usize) -> f32) -> Op {
    let kernel = (0..inputs).flat_map(|i| (0..outputs).map(move |o| w(i, o))).collect();
    let kernel = Tensor::new(vec![1, 1, inputs, outputs], kernel).unwrap();
    let w = Weighted { kernel, bias: None, activation: ActivationFn::Linear };
    Op::Conv2D(Conv2D { w, strides: [1, 1], dilation: [1, 1], padding: Padding::Valid, groups: 1 })
}

fn some(i: usize, o: usize) -> f32 {
    ((i * 7 + o * 5) % 11) as f32 / 11.0 - 0.45
}

/// One channel between two convolutions is 64 times as large as the others, for no good reason.
fn unequal() -> Graph {
    let mut b = Builder::new("unequal");
    let image = b.layer("image", Op::Input(Input { shape: vec![6, 6, 4] }), &[]).unwrap();
    let first = conv(4, 8, |i, o| some(i, o) * if o == 3 { 64.0 } else { 1.0 });
    let first = b.layer("first", first, &[image]).unwrap();
    let relu = b.layer("relu", Op::Relu(Relu::PLAIN), &[first]).unwrap();
    let last = conv(8, 3, |i, o| some(i, o) / if i == 3 { 64.0 } else { 1.0 });
    let last = b.layer("last", last, &[relu]).unwrap();
    b.finish(&[last]).unwrap()
}

fn options(settings: &[(&str, Value)]) -> PtqOptions {
    let mut strategy = Strategy::built_in("pof2s").unwrap();
    for (key, value) in settings {
        strategy.set(key, value.clone()).unwrap();
    }
    PtqOptions::new(strategy)
}

fn analyzed(graph: &Graph, options: &PtqOptions, samples: &Vec<Tensor>) -> (Analysis, Option<Strategy>) {
    let quantized = ptq(graph.clone(), samples, options, |_, _| {}).unwrap().quantized;
    let request = Request {
        graph,
        options,
        quantized: &quantized,
        calibration: samples,
        samples,
        most: 32,
        remedies: true,
        for_dpu: true,
        effects: true,
        labels: None,
    };
    analyze(&request).unwrap()
}

/// By the definition, of outputs that other functions compute.
fn decibels(graph: &Graph, options: &PtqOptions, samples: &Vec<Tensor>) -> f64 {
    let quantized = ptq(graph.clone(), samples, options, |_, _| {}).unwrap().quantized;
    let (float, own) = (run_float(graph, samples.clone()).unwrap(), run_vendor(&quantized, samples.clone()).unwrap());
    let energy = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        float[0].data().iter().zip(own[0].data()).map(|(a, b)| f(f64::from(*a), f64::from(*b)).powi(2)).sum()
    };
    10.0 * (energy(&|a, _| a) / energy(&|a, b| a - b)).log10()
}

#[test]
fn an_unequal_channel_is_named_and_its_remedy_gains_what_is_said() {
    let (graph, plain) = (unequal(), options(&[("include_cle", Value::Bool(false))]));
    let samples = random_samples(&graph, 5, 24);
    let (analysis, strategy) = analyzed(&graph, &plain, &samples);
    let before = decibels(&graph, &plain, &samples);
    assert!((analysis.outputs[0].sqnr_db.unwrap() - before).abs() < 1e-6);
    let first = analysis.layers.iter().find(|l| l.layer == "first").unwrap();
    assert!(first.causes.iter().any(|c| c.kind == "unequal_weights"), "{:?}", first.causes);
    let relu = analysis.layers.iter().find(|l| l.layer == "relu").unwrap();
    assert_eq!(relu.outlier_channels, [3]);
    let equalize = analysis.remedies.iter().find(|r| r.remedy == "equalize").unwrap();
    let after = decibels(&graph, &options(&[]), &samples);
    assert!((equalize.gain_db - (after - before)).abs() < 1e-6 && equalize.gain_db > 6.0, "{equalize:?}");
    let strategy = strategy.unwrap();
    assert!(strategy.enabled("include_cle") && analysis.proposed.iter().any(|name| name == "equalize"));
    let proposed = decibels(&graph, &PtqOptions::new(strategy), &samples);
    assert!((proposed - before - analysis.proposed_gain_db.unwrap()).abs() < 1e-6);
}

#[test]
fn the_noise_of_a_layer_alone_is_that_of_its_own_grids() {
    let (graph, plain) = (unequal(), options(&[]));
    let samples = random_samples(&graph, 9, 4);
    let quantized = ptq(graph.clone(), &samples, &plain, |_, _| {}).unwrap().quantized;
    let analysis = glance(&graph, &plain, &quantized, &samples).unwrap();
    // Nothing stands before the quantizer of the input.
    let input = &analysis.layers[0];
    assert_eq!(input.alone_sqnr_db, input.sqnr_db);
    assert!(input.layer == "image" && input.histogram.iter().sum::<u64>() <= samples[0].data().len() as u64);
    for layer in &analysis.layers[1..] {
        let (alone, whole) = (layer.alone_sqnr_db.unwrap_or(f64::MAX), layer.sqnr_db.unwrap_or(f64::MAX));
        assert!(alone >= whole - 3.0, "{}: {alone} {whole}", layer.layer);
    }
    // Four weights below 1 and an 8-bit input: 128 · 4 · 128 has 16 bits or fewer.
    let spare = analysis.layers.iter().find(|l| l.layer == "first").unwrap().spare_accumulator_bits.unwrap();
    assert!((14..=31).contains(&spare), "{spare}");
}

#[test]
fn the_last_layer_alone_does_to_the_outputs_what_it_does_to_itself() {
    let (graph, plain) = (unequal(), options(&[]));
    let samples = random_samples(&graph, 9, 8);
    let (analysis, _) = analyzed(&graph, &plain, &samples);
    let last = analysis.layers.last().unwrap();
    let (alone, effect) = (last.alone_sqnr_db.unwrap(), last.at_outputs_db.unwrap());
    assert!((alone - effect).abs() < 1e-6, "{alone} {effect}");
    // Together they do more than the worst of them by itself.
    let worst = analysis.layers.iter().filter_map(|l| l.at_outputs_db).fold(f64::INFINITY, f64::min);
    assert!(analysis.outputs[0].sqnr_db.unwrap() <= worst + 0.5);
    assert!(analysis.answers.is_none(), "an image is no answer");
}

#[test]
fn right_answers_and_confusions_are_those_that_evaluate_counts() {
    let folder = Folder::new("analyze-labels");
    let (calib, data) = ("--calib digits.npz:x_cal", "--data digits.npz:x_eval --labels digits.npz:y_eval");
    let json = run(&folder, &format!("analyze digits_lenet.h5 {calib} {data} --html a.html --json"), 0).json();
    let answers = &json["answers"];
    let labelled = &answers["labelled"];
    assert_eq!(answers["samples"], 450);
    run(&folder, &format!("quantize digits_lenet.h5 {calib} --output-dir q"), 0);
    for (model, key) in [("digits_lenet.h5", "float_top1"), ("q/quantized.h5 --numerics vendor", "quantized_top1")] {
        let own = run(&folder, &format!("evaluate {model} {data} --json"), 0).json();
        assert_eq!(own["model"]["top1"], labelled[key], "{key}");
    }
    let rows: Vec<Vec<u64>> = serde_json::from_value(labelled["confusion"].clone()).unwrap();
    assert_eq!(rows.iter().flatten().sum::<u64>(), 450);
    let right: u64 = (0..10).map(|class| rows[class][class]).sum();
    assert_eq!(labelled["quantized_top1"], right as f64 / 450.0);
    let moved: u64 = answers["changes"].as_array().unwrap().iter().map(|c| c["samples"].as_u64().unwrap()).sum();
    assert!((answers["agreement"].as_f64().unwrap() - (450 - moved) as f64 / 450.0).abs() < 1e-9);
    let page = String::from_utf8(folder.read("a.html")).unwrap();
    assert!(page.contains("Answers, on 450 samples") && page.contains("Labels and answers"));
    let short = run(&folder, &format!("analyze digits_lenet.h5 {calib} --labels digits.npz:y_eval"), 2);
    assert!(short.err.contains("450 labels"), "{short:?}");
}

#[test]
fn an_emitted_strategy_quantizes_and_diff_tells_what_it_changed() {
    let folder = Folder::new("analyze");
    let data = "--calib digits.npz:x_cal";
    let json = run(
        &folder,
        &format!("analyze digits_resnet.h5 {data} --set include_cle=false --samples 16 --emit s.json --json"),
        0,
    )
    .json();
    let layers = json["layers"].as_array().unwrap();
    assert!(layers.iter().all(|l| l["layer"].is_string() && l["tensor"].is_string() && l["causes"].is_array()));
    run(&folder, &format!("quantize digits_resnet.h5 {data} --strategy-file s.json --output-dir s"), 0);
    let plain = run(&folder, &format!("quantize digits_resnet.h5 {data} --output-dir a"), 0);
    assert!(plain.out.contains("signal to noise at the outputs"), "{plain:?}");
    run(
        &folder,
        &format!("quantize digits_resnet.h5 {data} --output-dir b --set activation_method=0 --set include_cle=false"),
        0,
    );

    run(&folder, "diff a/quantized.h5 a/quantized.h5", 0);
    let differs =
        run(&folder, "diff a/quantized.h5 b/quantized.h5 --data digits.npz:x_eval --samples 8 --json", 1).json();
    assert_eq!(differs["equal"], false);
    assert!(differs["rows"].as_array().unwrap().iter().any(|r| r["what"].as_str().unwrap().ends_with("/position")));
    run(&folder, "strategy dump pof2s -o p.json --verbose 2", 0);
    let rows = run(&folder, "diff p.json p.json", 0);
    assert!(rows.out.contains("do not differ"));
    std::fs::write(
        folder.path.join("q.json"),
        String::from_utf8(folder.read("p.json")).unwrap().replace("\"include_cle\": true", "\"include_cle\": false"),
    )
    .unwrap();
    let rows = run(&folder, "diff p.json q.json --json", 1).json();
    assert!(rows["rows"][0]["what"].as_str().unwrap().ends_with("/include_cle"), "{rows}");

    for (dir, target) in [("a", "B512"), ("a", "B4096"), ("b", "B512")] {
        run(&folder, &format!("compile {dir}/quantized.h5 --target {target} -o {dir}{target}.swm"), 0);
    }
    run(&folder, "diff aB512.swm aB512.swm", 0);
    let rows = run(&folder, "diff aB512.swm aB4096.swm --json", 1).json();
    let whats: Vec<&str> = rows["rows"].as_array().unwrap().iter().map(|r| r["what"].as_str().unwrap()).collect();
    assert!(whats.contains(&"cycles") && whats.contains(&"target"), "{whats:?}");
    run(&folder, "diff aB512.swm bB512.swm", 1);
    assert!(run(&folder, "diff a/quantized.h5 aB512.swm", 2).err.contains("compiled programs"));
    assert!(run(&folder, "diff p.json q.json --data digits.npz:x_eval", 2).err.contains("--data"));
    assert!(run(&folder, "diff digits_lenet.h5 digits_lenet.h5", 2).err.contains("float model"));
}

#[test]
fn bad_arguments_of_analyze_are_refused_by_name() {
    let folder = Folder::new("analyze-bad");
    for (arguments, part) in [
        ("analyze digits_lenet.h5", "--calib"),
        ("analyze digits_lenet.h5 --calib digits.npz:x_cal --target nothing", "unknown target"),
        ("analyze digits_lenet.h5 --calib digits.npz:x_cal --emit digits_lenet.h5", "would be overwritten"),
        ("analyze digits_lenet.h5 --calib digits.npz:x_cal --quick --emit s.json", "--emit"),
    ] {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(2), "{arguments}: {ran:?}");
        assert!(ran.err.contains(part), "{arguments}: {}", ran.err);
    }
}

#[test]
fn a_report_is_one_page_that_loads_nothing() {
    let folder = Folder::new("report");
    let ran = run(&folder, "report digits_resnet.h5 --calib digits.npz:x_cal --board kv260 --json", 0).json();
    assert!(ran["estimate"]["end_to_end_us"].as_f64().unwrap() > 0.0 && ran["analysis"]["samples"].is_number());
    let page = String::from_utf8(folder.read("report.html")).unwrap();
    for part in
        ["<!doctype html>", "Time by layer", "Where layers run", "The network", "Accuracy", "softmax", "</html>"]
    {
        assert!(page.contains(part), "{part}");
    }
    // Names of formats are no addresses that a browser would ask.
    let page = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!page.replace("url(#arrow)", "").contains(outside), "{outside}");
    }
    let plain = run(&folder, "report digits_lenet.h5 -o plain.html", 0);
    assert!(plain.out.contains("plain.html"));
    run(&folder, "report digits_lenet.h5 -o digits_lenet.h5", 2);
}
