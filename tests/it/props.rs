//! What must hold for any network, tried on random ones.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use shiftwise::Error;
use shiftwise::compile::{self, CpuOptions, DpuOptions, Program};
use shiftwise::dump::Values;
use shiftwise::eval::golden::{DumpOptions, Numerics, golden};
use shiftwise::eval::integer::Engine;
use shiftwise::eval::run_float;
use shiftwise::format::{LoadOptions, Model, open_bytes, quantized_bytes};
use shiftwise::ir::Graph;
use shiftwise::lower::lower;
use shiftwise::ops::Op;
use shiftwise::owners::{conv_positions, input_owner, output_owner};
use shiftwise::passes::adjust_pos::{RULES, refine};
use shiftwise::passes::{OPTIMIZE, Pass};
use shiftwise::quant::QuantGraph;
use shiftwise::quantize::{PtqOptions, ptq};
use shiftwise::strategy::Strategy;
use shiftwise::tensor::Tensor;
use shiftwise_core::fix::FixPos;
use shiftwise_core::model::{Deployable, Region, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_tests::graphs::Rng;
use shiftwise_tests::networks::{
    random_network_of_all, random_network_of_functions, random_network_with_floats, random_samples,
};

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

/// Quantized on six samples in batches of four.
fn quantized_with(graph: &Graph, seed: u64, strategy: Strategy) -> QuantGraph {
    let samples = random_samples(graph, seed, 6);
    let options = PtqOptions { batch_size: 4, ..PtqOptions::new(strategy) };
    ptq(graph.clone(), &samples, &options, |_, _| {}).unwrap_or_else(|e| panic!("{}: {e}", graph.to_text())).quantized
}

fn quantized(graph: &Graph, seed: u64) -> QuantGraph {
    quantized_with(graph, seed, strategy())
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
    let weights = |n: &shiftwise::ir::Node| format!("{:?}", n.op.layer().weights());
    graph.to_text() + &graph.nodes.iter().map(weights).collect::<String>()
}

/// The largest difference, relative to the largest value.
fn distance(a: &[Tensor], b: &[Tensor]) -> f32 {
    let values = |t: &[Tensor]| t.iter().flat_map(|t| t.data().to_vec()).collect::<Vec<f32>>();
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    a.iter().zip(&b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / largest
}

/// Whether no sum of the network leaves the integers that f32 holds: only then are float and integer engine alike.
fn sums_fit_f32(q: &QuantGraph) -> bool {
    q.graph.ids().all(|id| {
        let Some(p) = conv_positions(q, id) else { return true };
        let shape = q.graph.node(id).op.weighted().unwrap().kernel.shape();
        let inputs: usize = match q.graph.node(id).op {
            Op::DepthwiseConv2D(_) => shape[..2].iter().product(),
            _ => shape[..shape.len() - 1].iter().product(),
        };
        // In units of the finer of product and bias.
        let fine = p.b.map_or(0, |b| (b - p.w - p.i).max(0));
        let bias = p.b.map_or(0.0, |b| 128.0 * f64::from(p.w + p.i + fine - b).exp2());
        (inputs as f64) * 128.0 * 128.0 * f64::from(fine).exp2() + bias < f64::from(1 << 24)
    })
}

#[derive(Default)]
struct Seen(BTreeMap<u16, Vec<u8>>);

impl Observer for Seen {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.insert(id.0, bytes.to_vec());
    }
}

/// Every tensor of a program on given inputs.
fn tensors<D: Dpu>(program: &Program, inputs: &[Vec<u8>], dpu: &mut D) -> BTreeMap<u16, Vec<u8>>
where
    D::Error: std::fmt::Debug,
{
    let file = program.to_bytes(&[]).unwrap();
    let model = Deployable::parse(&file).unwrap();
    let [mut workspace, mut input, mut output] =
        [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| vec![0xA5; model.region_bytes(r)]);
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut input, outputs: &mut output };
    for ((_, t), bytes) in model.inputs().zip(inputs) {
        memory.tensor_mut(&t).unwrap().copy_from_slice(bytes);
    }
    let mut seen = Seen::default();
    run(&model, dpu, &mut memory, &mut seen).unwrap_or_else(|e| panic!("{e:?}"));
    seen.0
}

proptest! {
    // Shrinking takes blocks away; a seed has no smaller form.
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn optimize_passes_keep_what_the_network_computes(seed: u64, blocks in 1usize..10) {
        let mut graph = random_network_with_floats(seed, blocks);
        let inputs = random_samples(&graph, seed, 2);
        let want = run_float(&graph, inputs.clone()).unwrap();
        for pass in OPTIMIZE.iter().filter(|p| strategy().enabled(p.name)) {
            let before = graph.to_text();
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
        let graph = random_network_with_floats(seed, blocks);
        let q = quantized(&graph, seed);
        let file = quantized_bytes(&q, Path::new(NAME)).unwrap();
        prop_assert!(file == quantized_bytes(&quantized(&graph, seed), Path::new(NAME)).unwrap());
        let back = read(file.clone());
        prop_assert!(file == quantized_bytes(&back, Path::new(NAME)).unwrap());
        let inputs = random_samples(&graph, seed ^ 1, 2);
        for numerics in [Numerics::Dpu, Numerics::Vendor] {
            let options = DumpOptions { float: true, ..DumpOptions::default() };
            let dump = |q: &QuantGraph| golden(q, Some(inputs.clone()), numerics, &options).unwrap();
            prop_assert_eq!(dump(&q), dump(&back), "{:?}", numerics);
        }
    }

    #[test]
    fn float_and_integer_engine_agree(seed: u64, blocks in 1usize..10) {
        let graph = random_network_with_floats(seed, blocks);
        let q = quantized(&graph, seed);
        prop_assume!(sums_fit_f32(&q));
        let inputs = random_samples(&graph, seed ^ 2, 2);
        let dump = |numerics| golden(&q, Some(inputs.clone()), numerics, &DumpOptions::default()).unwrap();
        let (exact, vendor) = (dump(Numerics::Dpu), dump(Numerics::Vendor));
        prop_assert_eq!(exact.activations.len(), vendor.activations.len());
        for (a, b) in exact.activations.iter().zip(&vendor.activations) {
            prop_assert_eq!(&a.name, &b.name);
            // A float tensor is a softmax here, whose last bits are not promised.
            if let Values::Int8(_) = &a.values {
                prop_assert_eq!(a, b, "{}", graph.to_text());
            }
        }
    }

    #[test]
    fn engine_cpu_program_and_simulator_agree(seed: u64, blocks in 1usize..8) {
        let graph = match seed % 4 {
            0 | 2 => random_network_of_all(seed, blocks),
            1 => random_network_with_floats(seed, blocks),
            _ => random_network_of_functions(seed, blocks),
        };
        // Some layers of every family stay float.
        let mut strategy = strategy();
        let mut rng = Rng(seed ^ 4);
        let names = graph.ids().map(|id| graph.node(id)).filter(|n| !matches!(n.op, Op::Input(_))).map(|n| &n.name);
        let ignored: Vec<&String> = names.filter(|_| seed.is_multiple_of(3) && rng.one_in(4)).collect();
        if !ignored.is_empty() {
            strategy.set("ignore_layers", serde_json::json!(ignored)).unwrap();
        }
        let q = quantized_with(&graph, seed, strategy);
        let integers = lower(&q).unwrap();
        let samples = random_samples(&graph, seed ^ 3, 1);
        let engine = Engine::new(&integers);
        let values = engine.run(engine.sample(&samples, 0).unwrap(), |_| true);
        let want: Vec<Vec<u8>> = values.iter().map(|v| v.as_ref().unwrap().to_bytes()).collect();
        let inputs: Vec<Vec<u8>> = integers.inputs.iter().map(|t| want[t.0].clone()).collect();
        let check = |what: &str, seen: &BTreeMap<u16, Vec<u8>>| {
            for (i, (t, want)) in integers.tensors.iter().zip(&want).enumerate() {
                assert!(seen.get(&(i as u16)) == Some(want), "{what}: {} differs\n{}", t.name, graph.to_text());
            }
        };
        let program = match compile::cpu(&integers, &CpuOptions::default()) {
            // ReLU6 whose output is finer than its sum: about one of these networks in 3000, refused with this reason.
            Err(Error::Compile(why)) if why.contains("ReLU6 at output position") => return Err(TestCaseError::reject(why)),
            // Shifts that nothing adjusts.
            Err(Error::Compile(why))
                if ["outside -31..=31", "32-bit accumulator", "bits below the accumulator"].iter().any(|w| why.contains(w)) =>
            {
                return Err(TestCaseError::reject(why));
            }
            program => program.unwrap(),
        };
        check("cpu", &tensors(&program, &inputs, &mut NoDpu));
        for name in ["B512", "B1152", "B4096"] {
            let target = shiftwise_targets::find(name).unwrap();
            let program = compile::dpu(&integers, &target, &DpuOptions::default()).unwrap();
            let clock = target.clock_mhz;
            let mut sim = SimDpu::new(target, clock, Costs::default()).unwrap();
            check(name, &tensors(&program, &inputs, &mut sim));
        }
    }
}

/// What each rule of the refinement promises about a layer; `None` where it says nothing.
fn within(rule: &str, q: &QuantGraph, id: shiftwise::ir::NodeId) -> Option<bool> {
    let result = |owner| Some(i32::from(q.layers.get(&owner)?.result()?.pos.0));
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
        let mut move_to = |pos: &mut FixPos| *pos = FixPos(rng.range(-12, 24) as i8);
        layer.weights.iter_mut().flatten().for_each(|q| move_to(&mut q.pos));
        if let Some(q) = layer.result_mut() {
            move_to(&mut q.pos);
        }
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
        let mut start = quantized_with(&graph, seed, with_rules(0));
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
