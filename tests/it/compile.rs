//! Compiled programs against the oracle: every tensor, every byte.

use std::collections::BTreeMap;

use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, Program};
use shiftwise_core::exec::Machine;
use shiftwise_core::fix::FixPos;
use shiftwise_core::isa::{Engine, EngineSet, codec};
use shiftwise_core::model::{Deployable, Region, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_core::shape::Window;
use shiftwise_core::target::Target;
use shiftwise_integer::engine;
use shiftwise_integer::graph::{IntAct, IntGraph, IntOpKind, Kind, TensorIx};
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_tensor::values::Values;
use shiftwise_tests::graphs::{Builder, Limits, Rng, random_graph, random_inputs};
use shiftwise_tests::reference::evaluate;
use shiftwise_tests::shuffle::Shuffled;

#[derive(Default)]
struct Seen(BTreeMap<String, Vec<u8>>);

impl Observer for Seen {
    fn tensor(&mut self, id: TensorId, t: &TensorDesc<'_>, bytes: &[u8]) {
        let old = self.0.insert(t.name.into(), bytes.to_vec());
        assert!(old.is_none(), "tensor {} is shown twice", id.0);
    }
}

/// A network, its inputs, and what the oracle says of every tensor.
struct Case<'a> {
    what: String,
    graph: &'a IntGraph,
    inputs: Vec<Vec<u8>>,
    want: Vec<Vec<u8>>,
    /// Every tensor can be seen, not only the outputs and what steps leave for each other.
    observed: bool,
}

impl<'a> Case<'a> {
    fn new(what: String, graph: &'a IntGraph) -> Self {
        let inputs = random_inputs(graph, 7);
        let want = evaluate(graph, &inputs);
        Self { what, graph, inputs, want, observed: true }
    }

    /// Runs `program` and compares every tensor that is shown with the oracle. Returns the number of values compared.
    fn run<D: Dpu>(&self, program: &Program, dpu: &mut D) -> Result<usize, String>
    where
        D::Error: std::fmt::Debug,
    {
        let Self { what, graph, inputs, want, observed } = self;
        let outputs: Vec<Vec<u8>> = graph.outputs.iter().map(|t| want[t.0].clone()).collect();
        let self_test = [inputs.concat(), outputs.concat()].concat();
        let bytes = program.to_bytes(std::slice::from_ref(&self_test)).map_err(|e| format!("{what}: {e}"))?;
        let model = Deployable::parse(&bytes).map_err(|e| format!("{what}: {e}"))?;
        let mut workspace = vec![0xA5; model.region_bytes(Region::Workspace)];
        let mut input_bytes = vec![0; model.region_bytes(Region::Inputs)];
        let mut output_bytes = vec![0x5A; model.region_bytes(Region::Outputs)];
        let mut memory = Memory {
            constants: model.constants(),
            workspace: &mut workspace,
            inputs: &mut input_bytes,
            outputs: &mut output_bytes,
        };
        for ((_, t), bytes) in model.inputs().zip(inputs) {
            memory.tensor_mut(&t).unwrap().copy_from_slice(bytes);
        }
        let mut seen = Seen::default();
        run(&model, dpu, &mut memory, &mut seen).map_err(|e| format!("{what}: {e:?}"))?;
        let mut values = 0;
        for (i, want) in want.iter().enumerate() {
            let name = &graph.tensors[i].name;
            let Some(got) = seen.0.get(name) else {
                if *observed {
                    return Err(format!("{what}: {name} is never shown"));
                }
                continue;
            };
            values += want.len();
            if let Some(at) = (0..want.len()).find(|&k| got.get(k) != want.get(k)) {
                let op = graph.ops.iter().find(|o| o.output.0 == i).map(|o| short(&format!("{:?}", o.kind)));
                let (got, want) = (got[at] as i8, want[at] as i8);
                return Err(format!("{what}: {name}[{at}] is {got}, not {want}; made by {op:?}"));
            }
        }
        // What the user reads at the end are the outputs, wherever they lie.
        for ((_, t), ix) in model.outputs().zip(&graph.outputs) {
            if memory.tensor(&t) != Some(want[ix.0].as_slice()) {
                return Err(format!("{what}: output {} is overwritten", t.name));
            }
        }
        assert_eq!(model.outputs().count(), graph.outputs.len(), "{what}");
        assert_eq!(model.self_test(), self_test);
        Ok(values)
    }

    /// [`Case::run`], which must succeed.
    fn check<D: Dpu>(&self, how: &str, program: &Program, dpu: &mut D) -> usize
    where
        D::Error: std::fmt::Debug,
    {
        self.run(program, dpu).unwrap_or_else(|e| panic!("{how}: {e}"))
    }
}

fn short(text: &str) -> String {
    text.split("kernel: [").enumerate().map(|(i, s)| if i == 2 { "…" } else { s }).collect()
}

#[test]
fn the_engine_computes_the_integer_form() {
    let mut values = 0;
    for seed in 0..2000 {
        let limits = Limits { extreme: seed % 2 == 0, ..Limits::CPU };
        let graph = random_graph(seed, limits);
        let inputs = random_inputs(&graph, seed);
        let of_kind = |(t, bytes): (&TensorIx, &Vec<u8>)| match graph.tensors[t.0].kind {
            Kind::Fixed(_) | Kind::Scaled(_) => Values::Int8(bytes.iter().map(|b| *b as i8).collect()),
            Kind::Float => {
                Values::Float(bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
            }
        };
        let got = engine::Engine::new(&graph).run(graph.inputs.iter().zip(&inputs).map(of_kind).collect(), |_| true);
        for (i, (want, got)) in evaluate(&graph, &inputs).iter().zip(&got).enumerate() {
            let got = got.as_ref().unwrap().to_bytes();
            if &got != want {
                let op = graph.ops.iter().find(|o| o.output.0 == i).map(|o| short(&format!("{:?}", o.kind)));
                let at = (0..want.len()).find(|k| got.get(*k) != want.get(*k));
                panic!("seed {seed}: {} differs at {at:?}; made by {op:?}", graph.tensors[i].name);
            }
            values += want.len();
        }
    }
    assert!(values > 5_000_000, "{values}");
}

#[test]
fn cpu_programs_compute_the_integer_form() {
    let limits = Limits::CPU;
    let mut values = 0;
    for seed in 0..300 {
        let graph = random_graph(seed, limits);
        let case = Case::new(format!("seed {seed}"), &graph);
        for separate_io in [false, true] {
            let program = compile::cpu(&graph, &CpuOptions { separate_io }).unwrap_or_else(|e| panic!("{seed}: {e}"));
            values += case.check("cpu", &program, &mut NoDpu);
        }
    }
    assert!(values > 1_000_000, "{values}");
}

#[test]
fn memory_is_shared_after_the_last_reader() {
    let mut b = Builder::new("residual", 1);
    let same = Window { kernel: [3, 3], pad_before: [1, 1], pad_after: [1, 1], ..Window::POINT };
    let input = b.input(&[32, 32, 3]);
    let mut x = b.conv(input, same, 16, 1, IntAct::Relu);
    for _ in 0..3 {
        let y = b.conv(x, same, 16, 1, IntAct::Relu);
        let y = b.conv(y, same, 16, 1, IntAct::None);
        let shape = b.shape(x);
        let kind = b.graph.tensors[x.0].kind;
        let add = IntOpKind::Add { shift_read: vec![0, 0], shift_write: 1, act: IntAct::Relu };
        x = b.op(add, &[x, y], &shape, kind);
    }
    b.graph.outputs = vec![x];
    let program = compile::cpu(&b.graph, &CpuOptions::default()).unwrap();
    // x and y are alive at once; y's convolution writes over y, two rows behind; the sum overwrites an operand.
    let map = 32 * 32 * 16;
    assert_eq!(program.memory.workspace_bytes, 2 * map + 2 * 32 * 16);
    assert_eq!(program.memory.workspace_lower_bound, u64::from(program.memory.workspace_bytes));
    Case::new("residual".into(), &b.graph).check("cpu", &program, &mut NoDpu);
}

/// Compiles for a DPU and runs: in program order, with engines taking turns at random, with time.
pub(crate) fn check_dpu(what: &str, graph: &IntGraph, target: &Target, options: &DpuOptions) {
    let program = compile::dpu(graph, target, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let case = Case::new(format!("{what} on {}", target.name), graph);
    let mut banks = vec![0x77; target.bank_bytes()];
    let mut machine = Machine::new(target, &mut banks).unwrap();
    case.check("program order", &program, &mut machine);
    for (turn, weights) in [[1, 1, 1, 1], [1000, 1, 1, 1], [1, 1000, 1, 1], [1, 1, 1000, 1000]].into_iter().enumerate()
    {
        let mut shuffled = Shuffled { machine: &mut machine, rng: Rng(turn as u64), weights };
        case.check("shuffled", &program, &mut shuffled);
    }
    for costs in [Costs::default(), Costs::shuffled(11)] {
        let mut sim = SimDpu::new(target.clone(), 300, costs).unwrap();
        case.check("simulated", &program, &mut sim);
    }
    // Memory is used again within a job, parts lie in wholes only, and what nobody looks at is not there.
    let small = DpuOptions { observe: false, ..*options };
    let program = compile::dpu(graph, target, &small).unwrap_or_else(|e| panic!("{what}: {e}"));
    let case = Case { observed: false, ..case };
    case.check("unobserved", &program, &mut machine);
    let mut shuffled = Shuffled { machine: &mut machine, rng: Rng(5), weights: [1; 4] };
    case.check("unobserved, shuffled", &program, &mut shuffled);
}

#[test]
fn dpu_programs_compute_the_integer_form() {
    let mut on_dpu = [0; 2];
    for (name, seeds) in [("B512", 0..120), ("B1152", 120..200), ("B4096", 200..320)] {
        let target = shiftwise_targets::find(name).unwrap();
        for seed in seeds {
            let side = [8, 20, 40][seed as usize % 3];
            let channels = [70, 40, 20][seed as usize % 3];
            let limits = Limits { ops: 8, side, channels, cpu_only: seed % 5 == 0, extreme: false };
            let graph = random_graph(seed, limits);
            let options = DpuOptions { gather_weights: seed % 2 == 0, ..DpuOptions::default() };
            check_dpu(&format!("seed {seed}"), &graph, &target, &options);
            for reason in compile::placement(&graph, &target).unwrap() {
                on_dpu[usize::from(reason.is_none())] += 1;
            }
        }
    }
    assert!(on_dpu[1] > 4 * on_dpu[0], "{on_dpu:?} on CPU and DPU");
}

#[test]
fn without_its_tokens_a_program_computes_something_else() {
    // The shuffled machine must be able to notice a missing token: take those of one pair of engines away.
    let target = shiftwise_targets::find("B512").unwrap();
    let mut b = Builder::new("tokens", 5);
    // Too large to stay on chip, so that what is saved is loaded again.
    let input = b.input(&[60, 60, 16]);
    let same = Window { kernel: [3, 3], pad_before: [1, 1], pad_after: [1, 1], ..Window::POINT };
    let x = b.conv(input, same, 24, 1, IntAct::None);
    let y = b.conv(x, same, 24, 1, IntAct::None);
    b.graph.outputs = vec![y];
    let program = compile::dpu(&b.graph, &target, &DpuOptions::default()).unwrap();
    let case = Case::new("broken".into(), &b.graph);
    let pairs = [(Engine::Load, Engine::Conv), (Engine::Conv, Engine::Save), (Engine::Save, Engine::Load)];
    for (from, to) in pairs {
        let mut broken = program.clone();
        broken.code = codec::program(target.isa, &program.code)
            .flat_map(|(_, line)| {
                let mut line = line.unwrap();
                let without =
                    |set: EngineSet, e: Engine| EngineSet::from_bits(set.bits() & !EngineSet::of(&[e]).bits());
                if line.inst.engine() == from {
                    line.tokens.signals = without(line.tokens.signals, to);
                } else if line.inst.engine() == to {
                    line.tokens.waits = without(line.tokens.waits, from);
                }
                codec::encode(target.isa, &line).unwrap().bytes().collect::<Vec<_>>()
            })
            .collect();
        assert!(broken.code != program.code, "{from:?} never signals {to:?}");
        let notices = (0..20).any(|seed| {
            let mut banks = vec![0; target.bank_bytes()];
            let mut machine = Machine::new(&target, &mut banks).unwrap();
            let mut weights = [1; 4];
            weights[to as usize] = 50;
            case.run(&broken, &mut Shuffled { machine: &mut machine, rng: Rng(seed), weights }).is_err()
        });
        assert!(notices, "nobody misses the tokens from {from:?} to {to:?}");
    }
}

/// Single layers at the edges of what the engines can do.
#[test]
fn layers_at_the_limits_of_the_engines() {
    let window = |kernel: [u16; 2], stride: [u16; 2], before: [u16; 2], after: [u16; 2]| Window {
        kernel,
        stride,
        pad_before: before,
        pad_after: after,
        ..Window::POINT
    };
    type Make = Box<dyn Fn(&mut Builder)>;
    let conv = |shape: [usize; 3], w: Window, oc: usize| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            let y = b.conv(x, w, oc, 1, IntAct::Relu);
            b.graph.outputs = vec![y];
        })
    };
    let depthwise = |shape: [usize; 3], w: Window| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            let y = b.depthwise(x, w, IntAct::Relu6);
            b.graph.outputs = vec![y];
        })
    };
    let pool = |shape: [usize; 3], w: Window, average: bool| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            let out = [w.outputs(0, shape[0] as u32) as usize, w.outputs(1, shape[1] as u32) as usize, shape[2]];
            let kind = if average {
                IntOpKind::AveragePool { window: w, m: 21, shift: 12, act: IntAct::None }
            } else {
                IntOpKind::MaxPool { window: w, shift: 0, act: IntAct::None }
            };
            let y = b.op(kind, &[x], &out, Kind::Fixed(FixPos(4)));
            b.graph.outputs = vec![y];
        })
    };
    let dense = |shape: [usize; 3], oc: usize| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            let y = b.dense(x, oc, IntAct::None);
            b.graph.outputs = vec![y];
        })
    };
    let sum = |shape: [usize; 3], operands: usize| -> Make {
        Box::new(move |b| {
            let inputs: Vec<TensorIx> = (0..operands).map(|_| b.input(&shape)).collect();
            let add = IntOpKind::Add { shift_read: vec![1; operands], shift_write: 3, act: IntAct::Relu6 };
            let y = b.op(add, &inputs, &shape, Kind::Fixed(FixPos(3)));
            b.graph.outputs = vec![y];
        })
    };
    let cases: Vec<(&str, Make)> = vec![
        ("few channels", conv([64, 100, 3], window([7, 7], [2, 2], [3, 3], [3, 3]), 20)),
        ("few channels, padded on the left", conv([64, 90, 2], window([5, 5], [1, 1], [4, 4], [0, 0]), 20)),
        ("one channel", conv([40, 40, 1], window([5, 5], [1, 1], [0, 0], [0, 0]), 6)),
        ("kernel 16", conv([18, 17, 8], window([16, 16], [1, 1], [15, 15], [15, 15]), 9)),
        ("kernel 16×1", conv([40, 5, 20], window([16, 1], [1, 1], [0, 0], [0, 0]), 9)),
        ("stride 8", conv([40, 40, 3], window([3, 3], [8, 8], [1, 1], [0, 0]), 9)),
        ("stride 2 on a wide map", conv([9, 700, 16], window([3, 3], [2, 2], [1, 1], [0, 0]), 16)),
        ("wide map", conv([3, 2500, 3], window([3, 3], [1, 1], [1, 1], [1, 1]), 4)),
        ("deep input", conv([6, 6, 1000], window([1, 1], [1, 1], [0, 0], [0, 0]), 40)),
        ("deep 3×3", conv([5, 5, 512], window([3, 3], [1, 1], [1, 1], [1, 1]), 40)),
        ("many outputs", conv([6, 6, 40], window([3, 3], [1, 1], [1, 1], [1, 1]), 1000)),
        ("tall map", conv([600, 4, 8], window([3, 3], [1, 1], [1, 1], [1, 1]), 8)),
        ("large depthwise", depthwise([40, 40, 30], window([16, 16], [1, 1], [7, 7], [8, 8]))),
        ("deep depthwise", depthwise([7, 7, 1500], window([3, 3], [1, 1], [1, 1], [1, 1]))),
        ("global average", pool([14, 14, 300], window([14, 14], [1, 1], [0, 0], [0, 0]), true)),
        ("huge maximum", pool([80, 100, 9], window([60, 60], [7, 5], [0, 0], [0, 0]), false)),
        ("flat dense", dense([1, 1, 2000], 100)),
        ("dense over a map", dense([28, 28, 3], 12)),
        ("wide dense", dense([7, 7, 200], 30)),
        ("sum of four", sum([9, 33, 70], 4)),
        ("sum of vectors", sum([1, 1, 900], 2)),
    ];
    for name in ["B512", "B1152", "B4096"] {
        let target = shiftwise_targets::find(name).unwrap();
        for (what, make) in &cases {
            let mut b = Builder::new(what, 3);
            make(&mut b);
            assert_eq!(compile::placement(&b.graph, &target).unwrap(), [None], "{what} on {name}");
            for gather_weights in [false, true] {
                check_dpu(what, &b.graph, &target, &DpuOptions { gather_weights, ..DpuOptions::default() });
            }
        }
    }
}

/// Networks of single ops that are rarer, each wholly on the DPU.
#[test]
fn rarer_layers_run_on_the_dpu() {
    type Make = Box<dyn Fn(&mut Builder) -> TensorIx>;
    let fixed = |pos: i8| Kind::Fixed(FixPos(pos));
    let transposed = |shape: [usize; 3], w: Window, more: [usize; 2], oc: usize| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            b.transposed(x, w, more, oc, IntAct::LeakyRelu)
        })
    };
    let strided = |k: u16, s: u16, before: u16, after: u16| Window {
        kernel: [k, k],
        stride: [s, s],
        pad_before: [before; 2],
        pad_after: [after; 2],
        ..Window::POINT
    };
    let grouped = |shape: [usize; 3], k: u16, oc: usize, groups: usize| -> Make {
        Box::new(move |b| {
            let x = b.input(&shape);
            b.conv(x, Window { kernel: [k, k], ..Window::POINT }, oc, groups, IntAct::Relu)
        })
    };
    let one = |from: &[usize], to: &[usize], kind: IntOpKind| -> Make {
        let (from, to) = (from.to_vec(), to.to_vec());
        Box::new(move |b| {
            let x = b.input(&from);
            b.op(kind.clone(), &[x], &to, fixed(5))
        })
    };
    let product = |a: Vec<usize>, b: Vec<usize>, act: IntAct| -> Make {
        Box::new(move |builder| {
            let (x, y) = (builder.input(&a), builder.input(&b));
            let out = if a.len() < b.len() { &b } else { &a };
            builder.op(IntOpKind::Multiply { shift: 6, act }, &[x, y], out, fixed(4))
        })
    };
    let joined = |shapes: Vec<[usize; 3]>, axis: usize, shifts: Vec<i32>| -> Make {
        Box::new(move |b| {
            // One part is made by a layer, the others are inputs.
            let mut parts: Vec<TensorIx> = shapes.iter().map(|s| b.input(s)).collect();
            parts[0] = b.depthwise(parts[0], Window::POINT, IntAct::LeakyRelu);
            let mut out = shapes[0].to_vec();
            out[axis] = shapes.iter().map(|s| s[axis]).sum();
            b.op(IntOpKind::Concat { axis, shifts: shifts.clone() }, &parts, &out, fixed(5))
        })
    };
    let pad = |before, after| IntOpKind::Pad { before, after };
    let leaky = |shift| IntOpKind::Requantize { shift, act: IntAct::LeakyRelu };
    let average = Window { kernel: [3, 3], ..Window::POINT };
    let average = IntOpKind::AveragePool { window: average, m: 7, shift: 6, act: IntAct::LeakyRelu };
    let upsample = |factor, shift| IntOpKind::UpSample { factor, shift };
    let cases: Vec<(&str, Make)> = vec![
        ("transposed 4, stride 2", transposed([9, 10, 40], strided(4, 2, 1, 1), [0, 0], 20)),
        ("transposed 3, stride 2", transposed([9, 10, 40], strided(3, 2, 0, 1), [0, 0], 70)),
        ("transposed 2, stride 3: outputs without taps", transposed([5, 7, 9], strided(2, 3, 0, 0), [2, 1], 8)),
        ("transposed 16, stride 8", transposed([6, 5, 30], strided(16, 8, 4, 4), [0, 0], 3)),
        ("transposed 3, cropped far", transposed([6, 5, 30], strided(3, 3, 2, 0), [0, 0], 3)),
        ("transposed, dilated", transposed([7, 8, 12], Window { dilation: [2, 3], ..strided(3, 2, 1, 2) }, [1, 0], 5)),
        ("transposed 1, stride 1", transposed([4, 4, 300], strided(1, 1, 0, 0), [0, 0], 200)),
        ("three groups", grouped([10, 9, 96], 3, 60, 3)),
        ("a group per channel", grouped([10, 9, 40], 3, 80, 40)),
        ("two wide groups", grouped([6, 6, 400], 1, 300, 2)),
        ("product", product(vec![9, 33, 70], vec![9, 33, 70], IntAct::Relu6)),
        ("product with a vector", product(vec![14, 14, 300], vec![1, 1, 300], IntAct::LeakyRelu)),
        ("vector times map", product(vec![75], vec![40, 3, 75], IntAct::Relu6)),
        ("joined channels", joined(vec![[9, 8, 7], [9, 8, 33], [9, 8, 20]], 2, vec![0, 0, 0])),
        ("joined rows", joined(vec![[4, 8, 30], [9, 8, 30]], 0, vec![0, 0])),
        ("joined columns", joined(vec![[5, 8, 30], [5, 3, 30]], 1, vec![0, 2])),
        ("joined with other positions", joined(vec![[9, 8, 7], [9, 8, 33]], 2, vec![2, -1])),
        ("upsampled", one(&[17, 9, 70], &[51, 18, 70], upsample([3, 2], 0))),
        ("upsampled to another position", one(&[4, 4, 1500], &[8, 8, 1500], upsample([2, 2], 1))),
        ("padded", one(&[20, 19, 40], &[25, 25, 40], pad([3, 1], [2, 5]))),
        ("padded wide", one(&[3, 5, 3], &[3, 2505, 3], pad([0, 2000], [0, 500]))),
        ("hard sigmoid", one(&[20, 19, 40], &[20, 19, 40], IntOpKind::HardSigmoid { shift: 12 })),
        ("leaky", one(&[20, 19, 40], &[20, 19, 40], leaky(1))),
        ("leaky average", one(&[20, 19, 40], &[18, 17, 40], average)),
        ("channels first", one(&[12, 11, 30], &[30, 12, 11], IntOpKind::Permute { dims: vec![2, 0, 1] })),
        ("rows and columns", one(&[12, 11, 30], &[11, 12, 30], IntOpKind::Permute { dims: vec![1, 0, 2] })),
    ];
    for name in ["B512", "B1152", "B4096"] {
        let target = shiftwise_targets::find(name).unwrap();
        for (what, make) in &cases {
            let mut b = Builder::new(what, 3);
            let y = make(&mut b);
            b.graph.outputs = vec![y];
            let reasons: Vec<_> = compile::placement(&b.graph, &target).unwrap().into_iter().flatten().collect();
            assert_eq!(reasons, [], "{what} on {name}");
            check_dpu(what, &b.graph, &target, &DpuOptions::default());
        }
    }
}

/// Parts that layers write into the whole: nothing is copied, and where nobody looks, nothing is kept twice.
#[test]
fn concatenation_costs_nothing() {
    let target = shiftwise_targets::find("B4096").unwrap();
    let same = Window { kernel: [3, 3], pad_before: [1, 1], pad_after: [1, 1], ..Window::POINT };
    let mut b = Builder::new("dense block", 4);
    let input = b.input(&[16, 16, 20]);
    let mut x = b.conv(input, same, 24, 1, IntAct::Relu);
    for _ in 0..3 {
        let y = b.conv(x, same, 8, 1, IntAct::LeakyRelu);
        let mut shape = b.shape(x);
        shape[2] += 8;
        let kind = b.graph.tensors[x.0].kind;
        x = b.op(IntOpKind::Concat { axis: 2, shifts: vec![0, 0] }, &[x, y], &shape, kind);
    }
    let y = b.conv(x, Window::POINT, 10, 1, IntAct::None);
    b.graph.outputs = vec![y];
    check_dpu("dense block", &b.graph, &target, &DpuOptions::default());
    let small = DpuOptions { observe: false, ..DpuOptions::default() };
    let [all, some] = [DpuOptions::default(), small].map(|o| compile::dpu(&b.graph, &target, &o).unwrap());
    for program in [&all, &some] {
        for row in program.layers.iter().filter(|l| l.op == "concat") {
            assert_eq!((row.instructions, row.save_bytes), (0, 0), "{row:?}");
        }
    }
    // Everything of the block is in the last whole.
    assert_eq!(some.memory.workspace_bytes, 16 * 16 * 48);
    let saved = |p: &Program| p.layers.iter().map(|l| l.save_bytes).sum::<u64>();
    assert_eq!(saved(&some), 16 * 16 * (24 + 3 * 8 + 10));
    assert_eq!(saved(&all), 16 * 16 * (4 * 24 + (4 + 3 + 2) * 8 + 10));
}

#[test]
fn padding_is_read_through() {
    let target = shiftwise_targets::find("B1152").unwrap();
    let valid = Window { kernel: [3, 3], stride: [2, 2], ..Window::POINT };
    let mut b = Builder::new("padded", 6);
    let input = b.input(&[20, 20, 12]);
    let kind = b.graph.tensors[input.0].kind;
    let pad = b.op(IntOpKind::Pad { before: [1, 1], after: [1, 0] }, &[input], &[22, 21, 12], kind);
    let (x, y) = (b.conv(pad, valid, 16, 1, IntAct::Relu), b.depthwise(pad, valid, IntAct::None));
    b.graph.outputs = vec![x, y];
    check_dpu("padded", &b.graph, &target, &DpuOptions::default());
    let small = DpuOptions { observe: false, ..DpuOptions::default() };
    let [all, some] = [DpuOptions::default(), small].map(|o| compile::dpu(&b.graph, &target, &o).unwrap());
    let ops = |p: &Program| p.layers.iter().map(|l| l.op.clone()).collect::<Vec<_>>();
    assert_eq!(ops(&all), ["pad", "conv", "depthwise"]);
    assert_eq!(ops(&some), ["conv", "depthwise"]);
    assert_eq!(some.memory.workspace_bytes, 0);
    // A window of maxima must see the zeros.
    let mut b = Builder::new("maxima", 6);
    let input = b.input(&[20, 20, 12]);
    let pad = b.op(IntOpKind::Pad { before: [1, 1], after: [1, 0] }, &[input], &[22, 21, 12], kind);
    let max = IntOpKind::MaxPool { window: valid, shift: 0, act: IntAct::None };
    let y = b.op(max, &[pad], &[10, 10, 12], kind);
    b.graph.outputs = vec![y];
    check_dpu("maxima", &b.graph, &target, &DpuOptions::default());
}

/// The reason that a network of one layer gives on a target.
fn reason(target: &str, make: impl FnOnce(&mut Builder)) -> String {
    let mut b = Builder::new("refused", 3);
    make(&mut b);
    let target = shiftwise_targets::find(target).unwrap();
    let options = DpuOptions { strict: true, ..DpuOptions::default() };
    let error = compile::dpu(&b.graph, &target, &options).unwrap_err();
    // On the CPU the same network computes the same values.
    check_dpu("refused", &b.graph, &target, &DpuOptions::default());
    error.to_string()
}

#[test]
fn what_a_dpu_cannot_do_is_named_and_goes_to_the_cpu() {
    let kernel = |k: u16, stride: u16| Window { kernel: [k, k], stride: [stride, stride], ..Window::POINT };
    let conv = |shape: [usize; 3], w: Window| {
        move |b: &mut Builder| {
            let x = b.input(&shape);
            let y = b.conv(x, w, 4, 1, IntAct::None);
            b.graph.outputs = vec![y];
        }
    };
    assert_eq!(
        reason("B512", conv([20, 20, 2], kernel(17, 1))),
        "layer `layer0` does not run on DPUCZDX8G_ISA1_B512: kernel height 17 is outside 1..=16; use a smaller kernel, or two layers"
    );
    assert!(reason("B512", conv([20, 20, 2], kernel(3, 9))).contains("vertical stride 9 is outside 1..=8;"));
    assert!(reason("B4096", conv([16, 16, 200], kernel(13, 1))).contains("channel groups 2197 is outside 1..=2048;"));
    let dilated = Window { dilation: [2, 1], ..kernel(2, 2) };
    assert!(reason("B512", conv([9, 9, 2], dilated)).contains("stride of a dilated kernel 2 is outside 1..=1;"));
    let add = |b: &mut Builder| {
        let x = b.input(&[3, 3, 3]);
        let kind = b.graph.tensors[x.0].kind;
        let add = IntOpKind::Add { shift_read: vec![0; 5], shift_write: 0, act: IntAct::None };
        let y = b.op(add, &[x; 5], &[3, 3, 3], kind);
        b.graph.outputs = vec![y];
    };
    assert!(reason("B512", add).contains("number of operands 5 is outside 1..=4;"));
}

#[test]
fn huge_maps_are_placed_or_refused_without_overflow() {
    let target = shiftwise_targets::find("B512").unwrap();
    let place = |shape: [usize; 3], kernel: [u16; 2]| {
        let mut b = Builder::new("huge", 3);
        let x = b.input(&shape);
        let window = Window { kernel, stride: [200, 200], ..Window::POINT };
        let out = [window.outputs(0, shape[0] as u32) as usize, window.outputs(1, shape[1] as u32) as usize, shape[2]];
        let pool = IntOpKind::MaxPool { window, shift: 0, act: IntAct::None };
        let y = b.op(pool, &[x], &out, Kind::Fixed(FixPos(4)));
        b.graph.outputs = vec![y];
        compile::placement(&b.graph, &target).unwrap().remove(0)
    };
    assert_eq!(place([60000, 3, 2000], [1, 1]), None);
    assert_eq!(place([3, 8000, 20000], [2, 2]), None);
    assert!(place([300, 300, 5000], [256, 256]).unwrap().to_string().contains("not even one output pixel"));
    assert!(place([60000, 60000, 10], [1, 1]).unwrap().to_string().contains("beyond the DPU's addresses"));
}

#[test]
fn unobserved_programs_reuse_memory_within_a_job() {
    let target = shiftwise_targets::find("B1152").unwrap();
    let same = Window { kernel: [3, 3], pad_before: [1, 1], pad_after: [1, 1], ..Window::POINT };
    let mut b = Builder::new("chain", 9);
    // Too large to stay on chip.
    let mut x = b.input(&[72, 72, 8]);
    for _ in 0..6 {
        x = b.conv(x, same, 24, 1, IntAct::Relu);
    }
    b.graph.outputs = vec![x];
    let small = DpuOptions { observe: false, ..DpuOptions::default() };
    let [all, some] = [DpuOptions::default(), small].map(|o| compile::dpu(&b.graph, &target, &o).unwrap());
    let map = 72 * 72 * 24;
    assert_eq!([all.memory.workspace_bytes, some.memory.workspace_bytes], [5 * map, 2 * map]);
    let inputs = random_inputs(&b.graph, 7);
    let want = &evaluate(&b.graph, &inputs)[x.0];
    let bytes = some.to_bytes(&[]).unwrap();
    let model = Deployable::parse(&bytes).unwrap();
    for seed in 0..4 {
        let mut sim = SimDpu::new(target.clone(), 300, Costs::shuffled(seed)).unwrap();
        assert_eq!(&shiftwise_sim::frame(&model, &mut sim, &inputs[0], &mut ()).unwrap(), want);
    }
    // The listing assembles to the same code.
    let mut listing = String::new();
    shiftwise_core::listing::write(&model, target.isa, &mut listing).unwrap();
    let lines = listing.lines().filter(|l| !l.starts_with(';'));
    let code: Vec<u8> = lines
        .flat_map(|l| codec::encode(target.isa, &l.parse().unwrap()).unwrap().bytes().collect::<Vec<_>>())
        .collect();
    assert!(code == some.code, "the listing is not the code");
    assert_eq!(listing.lines().filter(|l| l.starts_with("; layer ")).count(), 6);
}
