//! The firmware on emulated boards: every tensor's bytes as on the host.
//!
//! Runs when `SHIFTWISE_QEMU=1`; needs QEMU and a compiler for the boards.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shiftwise_board::image::{Image, board, boards, build, build_check, build_with_dpu};
use shiftwise_board::{Board, BoardSpec, Limits, LinkError, Report, Reported, boot_to_end, run_on_board};
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions};
use shiftwise_core::exec::Machine;
use shiftwise_core::model::{Deployable, Region, Role, TensorDesc, TensorId, crc32};
use shiftwise_core::run::{Dpu, Memory, NoDpu, Observer, run};
use shiftwise_integer::engine::Engine;
use shiftwise_tensor::values::Values;
use shiftwise_tests::graphs::{self, random_graph, random_inputs};
use shiftwise_tests::{models, small};

fn wanted() -> bool {
    let on = std::env::var("SHIFTWISE_QEMU").is_ok_and(|v| v == "1");
    if !on {
        eprintln!("not run: set SHIFTWISE_QEMU=1");
    }
    on
}

struct All(Vec<(TensorId, Role, Vec<u8>)>);

impl Observer for All {
    fn tensor(&mut self, id: TensorId, tensor: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.push((id, tensor.role, bytes.to_vec()));
    }
}

fn on_the_host(file: &[u8], input: &[u8]) -> Vec<(TensorId, Role, Vec<u8>)> {
    on_the_host_with(file, input, &mut NoDpu)
}

fn on_the_host_with(
    file: &[u8],
    input: &[u8],
    dpu: &mut impl Dpu<Error: std::fmt::Debug>,
) -> Vec<(TensorId, Role, Vec<u8>)> {
    let model = Deployable::parse(file).unwrap();
    let [mut workspace, mut outputs] = [Region::Workspace, Region::Outputs].map(|r| vec![0; model.region_bytes(r)]);
    let mut memory = Memory {
        constants: model.constants(),
        workspace: &mut workspace,
        inputs: &mut input.to_vec(),
        outputs: &mut outputs,
    };
    let mut all = All(Vec::new());
    run(&model, dpu, &mut memory, &mut all).unwrap();
    all.0
}

/// Layers of every kind, then the real models, each tensor of each as the integer engine has it.
fn every_tensor_is_equal(name: &str) {
    if !wanted() {
        return;
    }
    let spec: BoardSpec = format!("qemu:{name}").parse().unwrap();
    let image = build(board(name).unwrap()).unwrap();
    layers_of_every_kind(name, &spec, &image);
    models_are_equal(name, "pof2s", models::all(), &image);
}

/// Some real models in integers of float scales.
fn float_scales_are_equal(name: &str) {
    if !wanted() {
        return;
    }
    let image = build(board(name).unwrap()).unwrap();
    let small = |model: &models::RealModel| ["digits_resnet", "mlperf_streaming_wakeword"].contains(&model.name);
    models_are_equal(name, "fsx", models::all().into_iter().filter(small), &image);
}

fn models_are_equal(name: &str, strategy: &str, all: impl IntoIterator<Item = models::RealModel>, image: &Image) {
    let spec: BoardSpec = format!("qemu:{name}").parse().unwrap();
    let board = board(name).unwrap();
    for model in all {
        let start = Instant::now();
        let (graph, samples) = model.quantized_by(strategy, 1).unwrap();
        let file = compile::cpu(&graph, &CpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        let deployable = Deployable::parse(&file).unwrap();
        let ram: usize =
            [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| deployable.region_bytes(r)).iter().sum();
        if file.len() as u64 > board.firmware.store.bytes || ram as u64 > board.firmware.arena.bytes {
            println!("{name}: {} does not fit", model.name);
            continue;
        }
        let engine = Engine::new(&graph);
        let inputs = engine.sample(&samples, 0).unwrap();
        let bytes: Vec<Vec<u8>> = inputs.iter().map(Values::to_bytes).collect();
        let golden = engine.run(inputs, |_| true);
        let golden: BTreeMap<&str, Vec<u8>> = graph
            .tensors
            .iter()
            .zip(&golden)
            .filter_map(|(t, value)| Some((t.name.as_str(), value.as_ref()?.to_bytes())))
            .collect();
        let quantized = start.elapsed();
        let session = run_on_board(&spec, &image.elf, &file, [bytes], Report::Bytes).unwrap();
        let [result] = &session.samples[..] else { panic!("one sample, one result") };
        assert!(result.tensors.len() > graph.ops.len(), "{}", model.name);
        for (id, reported) in &result.tensors {
            let tensor = deployable.tensor(*id).unwrap();
            let Reported::Bytes(bytes) = reported else { panic!("bytes were asked for") };
            assert!(golden.get(tensor.name) == Some(bytes), "{name}: {}: tensor {} differs", model.name, tensor.name);
        }
        println!(
            "{name}: {}: {} tensors equal, {} instructions, {} KB of RAM, quantized in {quantized:.1?}, run in {:.1?}",
            model.name,
            result.tensors.len(),
            result.steps.iter().sum::<u64>(),
            ram / 1000,
            start.elapsed() - quantized,
        );
    }
}

/// Random layers through the board's kernels and those that define them, on the board.
fn fast_kernels_are_equal(name: &str) {
    if !wanted() {
        return;
    }
    let board = board(name).unwrap();
    let image = build_check(board).unwrap();
    let log = boot_to_end(board, &image.elf, Duration::from_secs(600)).unwrap();
    assert!(log.iter().any(|line| line.contains("layers are equal")), "{log:?}");
}

/// A module per board, so that boards run beside each other.
macro_rules! boards {
    ($($module:ident = $name:literal),+) => {
        $(mod $module {
            #[test]
            fn every_tensor_is_equal() {
                super::every_tensor_is_equal($name);
            }

            #[test]
            fn float_scales_are_equal() {
                super::float_scales_are_equal($name);
            }

            #[test]
            fn a_deployable_sent_over_the_port_runs() {
                super::a_deployable_sent_over_the_port_runs($name);
            }

            #[test]
            fn dpu_code_runs() {
                super::dpu_code_runs($name);
            }

            #[test]
            fn fast_kernels_are_equal() {
                super::fast_kernels_are_equal($name);
            }
        })+

        /// A new board is not forgotten here.
        #[test]
        fn every_board_is_tested() {
            let names: Vec<_> = boards().iter().map(|board| board.name.as_str()).collect();
            assert_eq!(names, [$($name),+]);
        }
    };
}

boards!(
    cortex_r5f = "cortex-r5f",
    mps2_an386 = "mps2-an386",
    riscv32_virt = "riscv32-virt",
    xlnx_zcu102 = "xlnx-zcu102"
);

fn layers_of_every_kind(name: &str, spec: &BoardSpec, image: &Image) {
    let file = small::deployable().unwrap();
    let samples = || (0..3).map(|n| vec![small::sample(n)]);

    let bytes = run_on_board(spec, &image.elf, &file, samples(), Report::Bytes).unwrap();
    let sums = run_on_board(spec, &image.elf, &file, samples(), Report::Crc).unwrap();
    let outputs = run_on_board(spec, &image.elf, &file, samples(), Report::Outputs).unwrap();
    assert_eq!(bytes.info.board, name);
    for (n, ((bytes, sums), outputs)) in bytes.samples.iter().zip(&sums.samples).zip(&outputs.samples).enumerate() {
        let host = on_the_host(&file, &small::sample(n as u32));
        assert_eq!(host.len(), usize::from(small::TENSORS));
        let all = |wrap: fn(&[u8]) -> Reported| host.iter().map(|(id, _, b)| (*id, wrap(b))).collect::<Vec<_>>();
        assert_eq!(bytes.tensors, all(|b| Reported::Bytes(b.to_vec())));
        assert_eq!(sums.tensors, all(|b| Reported::Crc(crc32(b))));
        let (id, role, last) = host.last().unwrap();
        assert!(matches!(role, Role::Output(0)));
        assert_eq!(outputs.tensors, [(*id, Reported::Bytes(last.clone()))]);
        assert_eq!(bytes.steps.len(), usize::from(small::STEPS));
        assert!(bytes.steps.iter().all(|n| *n > 0), "{:?}", bytes.steps);
        println!("sample {n}: instructions per step {:?}", bytes.steps);
    }
    println!("log: {:?}", bytes.log);
    assert!(bytes.log.iter().any(|line| line.contains("shiftwise firmware")), "{:?}", bytes.log);
    assert!(bytes.log.iter().any(|line| line.contains("the host is done")), "{:?}", bytes.log);
    // A quarter of the stack must be left, and what the memory report says of the image must be so.
    let (used, of) = bytes.stack().unwrap();
    assert!(used > 0 && used * 4 <= of * 3, "{used} of {of}");
    let measured = board(name).unwrap().firmware.image.unwrap();
    let near = |now: u64, then: u64| now * 10 <= then * 11 && then * 10 <= now * 11;
    let as_measured = near(image.code, measured.code) && used * 10 <= measured.stack * 11;
    assert!(as_measured, "{} of code, {used} of stack, not {measured:?}: write firmware/MEMORY.md again", image.code);
}

fn a_deployable_sent_over_the_port_runs(name: &str) {
    if !wanted() {
        return;
    }
    let spec: BoardSpec = format!("qemu:{name}").parse().unwrap();
    let image = build(board(name).unwrap()).unwrap();
    let file = small::deployable().unwrap();
    // Not put into memory beforehand: every byte goes over the port.
    let mut machine = Board::start(&spec, &image.elf, &[], Limits::default()).unwrap();
    let start = Instant::now();
    machine.load(&file).unwrap();
    println!("{} bytes sent in {:?}", file.len(), start.elapsed());
    let result = machine.sample(&[small::sample(5)], Report::Outputs).unwrap();
    let host = on_the_host(&file, &small::sample(5));
    let (id, _, output) = host.last().unwrap();
    assert_eq!(result.bytes(*id), Some(&output[..]));
    let error = machine.sample(&[vec![0; 5]], Report::None).unwrap_err();
    assert!(matches!(error, LinkError::Inputs { .. }), "{error}");
    machine.load(&file).unwrap();
    let again = machine.sample(&[small::sample(5)], Report::Outputs).unwrap();
    assert_eq!(again.tensors, result.tensors);
    // A step is the same instructions again, but for what else is done in it (interrupts) and the counter's own steps
    // (one in 40 instructions on the Cortex-M4).
    assert!(again.steps.iter().zip(&result.steps).all(|(a, b)| a.abs_diff(*b) <= 80), "{again:?} {result:?}");
    machine.finish().unwrap();
}

/// Boards have no DPU and are one in software: the same code as for the hardware, on another processor.
fn dpu_code_runs(board_name: &str) {
    if !wanted() {
        return;
    }
    let spec: BoardSpec = format!("qemu:{board_name}").parse().unwrap();
    let image = build(board(board_name).unwrap()).unwrap();
    for (name, seed) in [("B512", 3), ("B1152", 4), ("B4096", 5)] {
        let target = shiftwise_targets::find(name).unwrap();
        let graph =
            random_graph(seed, graphs::Limits { ops: 6, side: 12, channels: 20, cpu_only: false, extreme: false });
        let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        let inputs = random_inputs(&graph, seed);
        let session = run_on_board(&spec, &image.elf, &file, [inputs.clone()], Report::Bytes).unwrap();
        let mut banks = vec![0; target.bank_bytes()];
        let mut machine = Machine::new(&target, &mut banks).unwrap();
        let host = on_the_host_with(&file, &inputs.concat(), &mut machine);
        let wanted: Vec<_> = host.into_iter().map(|(id, _, bytes)| (id, Reported::Bytes(bytes))).collect();
        assert!(!wanted.is_empty());
        let [result] = &session.samples[..] else { panic!("one sample, one result") };
        assert_eq!(result.tensors, wanted, "{name}");
        println!("{name}: {} bytes, instructions per step {:?}", file.len(), result.steps);
    }
}

/// The image for a DPU, where there is none: the processor's layers run, a DPU of another kind is one in software, and
/// the board's own is reported as missing, whatever the host asks for.
#[test]
fn an_image_for_a_dpu_says_that_none_is_there() {
    if !wanted() {
        return;
    }
    for board in boards() {
        let Some(image) = build_with_dpu(board).unwrap() else { continue };
        assert_eq!(image.panics, [""; 0]);
        let spec = BoardSpec::Qemu(board);
        let file = small::deployable().unwrap();
        let mut machine = Board::start(&spec, &image.elf, &[], Limits::default()).unwrap();
        machine.load(&file).unwrap();
        let result = machine.sample(&[small::sample(1)], Report::Bytes).unwrap();
        let wanted = on_the_host(&file, &small::sample(1)).into_iter().map(|(id, _, b)| (id, Reported::Bytes(b)));
        assert_eq!(result.tensors, wanted.collect::<Vec<_>>());
        let limits = graphs::Limits { ops: 6, side: 12, channels: 20, cpu_only: false, extreme: false };
        let own = board.firmware.dpu.as_ref().unwrap().target.as_str();
        for name in ["B512", own, own] {
            let target = shiftwise_targets::find(name).unwrap();
            let graph = random_graph(3, limits);
            let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
            machine.load(&file).unwrap();
            let result = machine.sample(&random_inputs(&graph, 3), Report::Outputs);
            match result {
                Ok(_) => assert_ne!(name, own, "on a DPU that is not there"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(name == own && text.contains("no DPU there, or no clock"), "{name}: {text}");
                }
            }
        }
        let log = machine.finish().unwrap();
        assert!(log.iter().any(|line| line.contains("refused: Dpu(")), "{log:?}");
    }
}
