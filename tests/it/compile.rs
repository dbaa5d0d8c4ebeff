//! Compiled programs against the oracle: every tensor, every byte.

use std::collections::BTreeMap;

use shiftwise::compile::{self, CpuOptions, DpuOptions, Program};
use shiftwise::integer::{IntAct, IntGraph};
use shiftwise_core::exec::Machine;
use shiftwise_core::model::{Deployable, Region, TensorDesc, TensorId};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_core::shape::Window;
use shiftwise_core::target::Target;
use shiftwise_tests::graphs::{Builder, Limits, random_graph, random_inputs};
use shiftwise_tests::reference::evaluate;

#[derive(Default)]
struct Seen(BTreeMap<u16, Vec<u8>>);

impl Observer for Seen {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        let old = self.0.insert(id.0, bytes.to_vec());
        assert!(old.is_none(), "tensor {} is shown twice", id.0);
    }
}

/// Runs `program` and compares every tensor with the oracle. Returns the number of values compared.
fn check<D: Dpu>(what: &str, graph: &IntGraph, program: &Program, dpu: &mut D) -> usize
where
    D::Error: std::fmt::Debug,
{
    let inputs = random_inputs(graph, 7);
    let want = evaluate(graph, &inputs);
    let self_test = [&inputs[..], &graph.outputs.iter().map(|t| want[t.0].clone()).collect::<Vec<_>>()].concat();
    let bytes = program.to_bytes(&[self_test.concat()]).unwrap_or_else(|e| panic!("{what}: {e}"));
    let model = Deployable::parse(&bytes).unwrap();
    let mut workspace = vec![0xA5; model.region_bytes(Region::Workspace)];
    let mut input_bytes = vec![0; model.region_bytes(Region::Inputs)];
    let mut output_bytes = vec![0x5A; model.region_bytes(Region::Outputs)];
    let mut memory = Memory {
        constants: model.constants(),
        workspace: &mut workspace,
        inputs: &mut input_bytes,
        outputs: &mut output_bytes,
    };
    for ((_, t), bytes) in model.inputs().zip(&inputs) {
        memory.tensor_mut(&t).unwrap().copy_from_slice(bytes);
    }
    let mut seen = Seen::default();
    run(&model, dpu, &mut memory, &mut seen).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let mut values = 0;
    for (i, want) in want.iter().enumerate() {
        let name = &graph.tensors[i].name;
        let got = seen.0.get(&(i as u16)).unwrap_or_else(|| panic!("{what}: {name} is never shown"));
        values += want.len();
        if let Some(at) = (0..want.len()).find(|&k| got.get(k) != want.get(k)) {
            let op = graph.ops.iter().find(|o| o.output.0 == i);
            let (got, want) = (got[at] as i8, want[at] as i8);
            panic!(
                "{what}: {name}[{at}] is {got}, not {want}; made by {:?}",
                op.map(|o| short(&format!("{:?}", o.kind)))
            );
        }
    }
    // What the user reads at the end are the outputs, wherever they lie.
    for ((_, t), ix) in model.outputs().zip(&graph.outputs) {
        assert_eq!(memory.tensor(&t), Some(want[ix.0].as_slice()), "{what}: output {}", t.name);
    }
    assert_eq!(model.outputs().count(), graph.outputs.len(), "{what}");
    assert_eq!(model.self_test().len(), self_test.iter().map(Vec::len).sum::<usize>());
    values
}

fn short(text: &str) -> String {
    text.split("kernel: [").enumerate().map(|(i, s)| if i == 2 { "…" } else { s }).collect()
}

#[test]
fn cpu_programs_compute_the_integer_form() {
    let limits = Limits { ops: 12, side: 12, channels: 20, cpu_only: true };
    let mut values = 0;
    for seed in 0..300 {
        let graph = random_graph(seed, limits);
        for separate_io in [false, true] {
            let program = compile::cpu(&graph, &CpuOptions { separate_io }).unwrap_or_else(|e| panic!("{seed}: {e}"));
            values += check(&format!("seed {seed}"), &graph, &program, &mut NoDpu);
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
        let add = shiftwise::integer::IntOpKind::Add { shift_read: vec![0, 0], shift_write: 1, act: IntAct::Relu };
        x = b.op(add, &[x, y], &shape, kind);
    }
    b.graph.outputs = vec![x];
    let program = compile::cpu(&b.graph, &CpuOptions::default()).unwrap();
    // x, y and the convolution's result are alive at once; the sum overwrites an operand.
    assert_eq!(program.memory.workspace_bytes, 3 * 32 * 32 * 16);
    assert_eq!(program.memory.workspace_lower_bound, 3 * 32 * 32 * 16);
    check("residual", &b.graph, &program, &mut NoDpu);
}

/// Compiles for a DPU and runs on its machine. Returns values compared and instructions.
fn check_dpu(what: &str, graph: &IntGraph, target: &Target, options: &DpuOptions) -> (usize, u32) {
    let program = compile::dpu(graph, target, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut banks = vec![0x77; target.bank_bytes()];
    let mut machine = Machine::new(target, &mut banks).unwrap();
    let values = check(&format!("{what} on {}", target.name), graph, &program, &mut machine);
    (values, program.layers.iter().map(|l| l.instructions).sum())
}

#[test]
fn dpu_programs_compute_the_integer_form() {
    let mut on_dpu = [0; 2];
    for (name, seeds) in [("B512", 0..120), ("B1152", 120..200), ("B4096", 200..320)] {
        let target = shiftwise_targets::find(name).unwrap();
        for seed in seeds {
            let side = [8, 20, 40][seed as usize % 3];
            let channels = [70, 40, 20][seed as usize % 3];
            let limits = Limits { ops: 8, side, channels, cpu_only: seed % 5 == 0 };
            let graph = random_graph(seed, limits);
            check_dpu(&format!("seed {seed}"), &graph, &target, &DpuOptions::default());
            for reason in compile::placement(&graph, &target).unwrap() {
                on_dpu[usize::from(reason.is_none())] += 1;
            }
        }
    }
    assert!(on_dpu[1] > 5 * on_dpu[0], "{on_dpu:?} on CPU and DPU");
}
