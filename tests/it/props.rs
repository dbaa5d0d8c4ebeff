//! What must hold for any network, tried on random ones.

use std::path::Path;

use proptest::prelude::*;
use shiftwise::golden::{DumpOptions, Numerics, golden};
use shiftwise_core::fix::FixPos;
use shiftwise_formats::{LoadOptions, Model, graph_text, open_bytes, quantized_bytes};
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::run_float;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_quant::owners::{conv_positions, input_owner, output_owner};
use shiftwise_quant::passes::adjust_pos::{RULES, refine};
use shiftwise_quant::passes::{OPTIMIZE, Pass};
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::scheme::Quantizer;
use shiftwise_quant::strategy::Strategy;
use shiftwise_tensor::tensor::Tensor;
use shiftwise_tests::agreement::{self, Verdict, refusal};
use shiftwise_tests::cases::{cases, rejects};
use shiftwise_tests::graphs::Rng;
use shiftwise_tests::networks::{random_network_of_all, random_network_with_floats, random_samples};
use shiftwise_tests::odd;

const NAME: &str = "network.h5";

fn strategy() -> Strategy {
    Strategy::built_in("pof2s").unwrap()
}

/// A strategy that refines with the first `count` rules only.
fn with_rules(count: usize) -> Strategy {
    let mut strategy = strategy();
    for (i, rule) in RULES.iter().enumerate() {
        strategy.set(rule.name, (i < count).into()).unwrap();
    }
    strategy
}

/// A case that is rejected, where networks may be refused for this; any other error fails.
fn rejected(error: Error) -> TestCaseError {
    refusal(error).map_or_else(|e| TestCaseError::fail(e.to_string()), TestCaseError::reject)
}

/// A comparison's result as that of a case.
fn verdict(compared: Result<Verdict, String>, graph: &Graph) -> Result<(), TestCaseError> {
    match compared {
        Ok(Verdict::Agree) => Ok(()),
        Ok(Verdict::Refused(why)) => Err(TestCaseError::reject(why)),
        Err(why) => Err(TestCaseError::fail(format!("{why}\n{}", graph_text(graph)))),
    }
}

/// Quantized on six samples in batches of four.
fn quantized(graph: &Graph, seed: u64) -> Result<QuantGraph, TestCaseError> {
    agreement::quantized(graph, seed, 6, strategy()).map_err(rejected)
}

fn read(bytes: Vec<u8>) -> QuantGraph {
    match open_bytes(Path::new(NAME), bytes, &LoadOptions::default()).unwrap() {
        Model::Quantized(q) => q,
        Model::Float(_) => panic!("a float model came back"),
    }
}

fn apply(pass: &Pass, graph: &mut Graph) {
    (pass.apply)(graph, &strategy()).unwrap();
    graph.normalize();
    graph.verify().unwrap();
}

/// Structure and every weight.
fn everything(graph: &Graph) -> String {
    let weights = |n: &shiftwise_graph::graph::Node| format!("{:?}", n.op.layer().weights());
    graph_text(graph) + &graph.nodes.iter().map(weights).collect::<String>()
}

/// The largest difference, relative to the largest value.
fn distance(a: &[Tensor], b: &[Tensor]) -> f32 {
    let values = |t: &[Tensor]| t.iter().flat_map(|t| t.data().to_vec()).collect::<Vec<f32>>();
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / largest
}

/// As many cases as `PROPTEST_CASES` says, or 200.
fn config() -> ProptestConfig {
    let cases = cases(200);
    // Shrinking takes blocks away; a seed has no smaller form.
    ProptestConfig { cases, max_global_rejects: rejects(cases), max_shrink_iters: 40, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn optimize_passes_keep_what_the_network_computes(seed: u64, blocks in 1usize..10) {
        let mut graph = random_network_with_floats(seed, blocks);
        let inputs = random_samples(&graph, seed, 2);
        let want = run_float(&graph, inputs.clone()).unwrap();
        for pass in OPTIMIZE.iter().filter(|p| strategy().enabled(p.name)) {
            let before = graph_text(&graph);
            apply(pass, &mut graph);
            let far = distance(&want, &run_float(&graph, inputs.clone()).unwrap());
            prop_assert!(far < 1e-3, "{}: {far}\n{before}", pass.name);
            // Equalization approaches its goal step by step; every other pass is done after one run.
            if pass.name != "include_cle" {
                let once = everything(&graph);
                apply(pass, &mut graph);
                prop_assert_eq!(once, everything(&graph), "{} twice", pass.name);
            }
        }
    }

    #[test]
    fn quantizing_twice_gives_the_same_file_and_reading_it_the_same_network(seed: u64, blocks in 1usize..8) {
        twice(seed, blocks)?;
    }

    #[test]
    fn float_and_integer_engine_agree(seed: u64, blocks in 1usize..10) {
        let graph = random_network_with_floats(seed, blocks);
        let q = quantized(&graph, seed)?;
        verdict(agreement::float_and_integer(&q, &random_samples(&graph, seed ^ 2, 2)), &graph)?;
    }

    #[test]
    fn engine_cpu_program_and_simulator_agree(seed: u64, blocks in 1usize..8) {
        let graph = odd::usual_network(seed, blocks);
        let q = agreement::quantized(&graph, seed, 6, odd::with_float_layers(&graph, seed)).map_err(rejected)?;
        verdict(agreement::engine_and_programs(&q, &random_samples(&graph, seed ^ 3, 1)), &graph)?;
    }
}

/// Quantized twice, written, read and written again.
fn twice(seed: u64, blocks: usize) -> Result<(), TestCaseError> {
    let graph = random_network_with_floats(seed, blocks);
    let q = quantized(&graph, seed)?;
    let file = quantized_bytes(&q, Path::new(NAME)).map_err(rejected)?;
    prop_assert!(file == quantized_bytes(&quantized(&graph, seed)?, Path::new(NAME)).unwrap());
    let back = read(file.clone());
    prop_assert!(file == quantized_bytes(&back, Path::new(NAME)).unwrap());
    let inputs = random_samples(&graph, seed ^ 1, 2);
    for numerics in [Numerics::Dpu, Numerics::Vendor] {
        let options = DumpOptions { float: true, ..DumpOptions::default() };
        let dump = |q: &QuantGraph| golden(q, Some(inputs.clone()), numerics, &options).unwrap();
        prop_assert_eq!(dump(&q), dump(&back), "{:?}", numerics);
    }
    Ok(())
}

/// Three products of three equal factors in a row reach the 27th power, beyond what f32 holds: nothing to quantize, and
/// nothing wrong.
#[test]
fn a_legitimate_refusal_is_a_rejected_case() {
    assert!(matches!(twice(5_585_896_972_828_580_544, 7), Err(TestCaseError::Reject(_))));
    assert!(matches!(rejected(Error::Compile("out of space".into())), TestCaseError::Fail(_)));
}

/// What each rule of the refinement promises about a layer; `None` where it says nothing.
fn within(rule: &str, q: &QuantGraph, id: shiftwise_graph::graph::NodeId) -> Option<bool> {
    let result = |owner| Some(i32::from(q.layers.get(&owner)?.result()?.scheme().pos()?.0));
    let inputs = || -> Option<Vec<i32>> {
        q.graph.node(id).inputs.iter().map(|i| result(input_owner(q, *i)?)).collect::<Option<Vec<i32>>>()
    };
    let output = || result(output_owner(q, id)?);
    let add = matches!(q.graph.node(id).op, Op::Add(_) | Op::Multiply(_));
    let p = conv_positions(q, id);
    match rule {
        "adjust_dpu_shift_read" if add => {
            let inputs = inputs()?;
            Some(inputs.iter().max()? - inputs.iter().min()? <= 15)
        }
        "adjust_dpu_shift_write" if add => Some((-15..=15).contains(&(inputs()?.iter().min()? - output()?))),
        "adjust_dpu_shift_cut" => Some((0..=16).contains(&p?.shift_cut())),
        "adjust_dpu_shift_bias" => {
            let p = p?;
            Some(((p.shift_cut() - 16).min(0)..=16).contains(&(p.w + p.i - p.b?)))
        }
        "adjust_dpu_sigmoid" if matches!(q.graph.node(id).op, Op::HardSigmoid(_)) => {
            let (i, o) = (*inputs()?.first()?, output()?);
            Some((0..=15).contains(&i) && o >= 7 && 14 + i - o >= 0)
        }
        "align_concat" if matches!(q.graph.node(id).op, Op::Concatenate(_)) => {
            let out = output()?;
            Some(inputs()?.iter().all(|i| *i == out))
        }
        "align_pool" if matches!(q.graph.node(id).op, Op::MaxPooling2D(_) | Op::AveragePooling2D(_)) => {
            Some(inputs()?.first()? == &output()?)
        }
        _ => None,
    }
}

/// Positions far from anything calibration would find.
fn scattered(q: &mut QuantGraph, rng: &mut Rng) {
    for layer in q.layers.values_mut() {
        let mut move_one = |own: &mut Quantizer| own.scheme_mut().set_pos(FixPos(rng.range(-12, 24) as i8));
        layer.weights.iter_mut().flatten().for_each(&mut move_one);
        layer.result_mut().into_iter().for_each(move_one);
    }
}

/// Rules are checked one after the other as they are added. A rule visits each layer once, so what it promises at a layer
/// may be undone when it moves, at another layer, a tensor that both touch; and the rules behind it move tensors again:
/// `adjust_dpu_shift_write` those that an addition reads, `align_concat` and `align_pool` any. That is the vendor's behaviour, and counted
/// here. The shifts of convolutions only move kernels and biases, which nobody shares: they hold until `align_pool`.
#[test]
fn refinement_lands_inside_the_limits() {
    let (mut changed, mut undone) = (vec![0; RULES.len()], 0);
    for seed in 0..400u64 {
        let graph = random_network_of_all(seed, 1 + seed as usize % 10);
        let start = agreement::quantized(&graph, seed, 6, with_rules(0));
        let Ok(mut start) = start.map_err(|e| refusal(e).unwrap_or_else(|e| panic!("seed {seed}: {e}"))) else {
            continue;
        };
        if seed % 4 > 0 {
            scattered(&mut start, &mut Rng(seed));
        }
        for (k, rule) in RULES.iter().enumerate() {
            let mut q = start.clone();
            let changes = refine(&mut q, &with_rules(k + 1));
            let own = changes.iter().filter(|c| c.rule == rule.name).count();
            changed[k] += own;
            for id in q.graph.ids() {
                let alone = own <= 1
                    || rule.name.starts_with("adjust_dpu_shift_cut")
                    || rule.name.starts_with("adjust_dpu_shift_bias");
                if alone {
                    let layer = q.graph.node(id).name.clone();
                    assert_ne!(within(rule.name, &q, id), Some(false), "seed {seed}: {} at {layer}", rule.name);
                }
                if rule.name == "align_pool" {
                    let broken = RULES.iter().filter(|r| within(r.name, &q, id) == Some(false)).count();
                    undone += broken;
                    let aligned = changes.iter().any(|c| c.rule == "align_concat");
                    assert!(broken == 0 || own > 0 || changes.len() > 1 || aligned, "seed {seed}: {:?}", changes);
                }
            }
        }
    }
    assert!(changed.iter().all(|n| *n > 5), "a rule was never put to the test: {changed:?}");
    assert!(undone > 0, "nothing was undone: the exception that is documented here no longer exists");
}
