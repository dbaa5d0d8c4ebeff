//! The library as a project uses it: on good deployables equal to the host, on bad ones an error and nothing else.

use proptest::prelude::*;
use shiftwise_compile::deployable::{Parts, write};
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions};
use shiftwise_core::exec::Machine;
use shiftwise_core::model::{DType, Deployable, ParseError, Region, TensorDesc, TensorId, crc32};
use shiftwise_core::run::{Memory, NoDpu, Observer, run};
use shiftwise_firmware::error::{self, Error};
use shiftwise_firmware::memory::{ALIGN, Arena, LINE, arena_bytes, load, required_bytes};
use shiftwise_firmware::monitor::{Drift, Expected, Monitor, Sketch};
use shiftwise_firmware::network::Network;
use shiftwise_firmware::self_test::{Progress, SelfTest};
use shiftwise_integer::engine::Engine;
use shiftwise_tests::cases::cases;
use shiftwise_tests::graphs::{Limits, Rng, random_graph, random_inputs};
use shiftwise_tests::small;

const LIMITS: Limits = Limits { ops: 8, side: 10, channels: 12, cpu_only: true, extreme: false };

#[derive(Default)]
struct All(Vec<(TensorId, Vec<u8>)>);

impl Observer for All {
    fn tensor(&mut self, id: TensorId, _: &TensorDesc<'_>, bytes: &[u8]) {
        self.0.push((id, bytes.to_vec()));
    }
}

/// Every tensor by the kernels that define them; the last are not always the outputs.
fn on_the_host(file: &[u8], samples: &[Vec<u8>]) -> (All, Vec<Vec<u8>>) {
    let model = Deployable::parse(file).unwrap();
    let regions = [Region::Workspace, Region::Inputs, Region::Outputs];
    let [mut workspace, mut inputs, mut outputs] = regions.map(|r| vec![0; model.region_bytes(r)]);
    let (workspace, inputs, outputs) = (&mut workspace[..], &mut inputs[..], &mut outputs[..]);
    let mut memory = Memory { constants: model.constants(), workspace, inputs, outputs };
    for ((_, tensor), sample) in model.inputs().zip(samples) {
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(sample);
    }
    let mut all = All::default();
    run(&model, &mut NoDpu, &mut memory, &mut all).unwrap();
    let outputs = model.outputs().map(|(_, t)| memory.tensor(&t).unwrap().to_vec()).collect();
    (all, outputs)
}

/// A random network with `samples` self-test vectors, whose inputs are returned as well.
fn random_file(seed: u64, samples: u64) -> (Vec<u8>, Vec<Vec<Vec<u8>>>) {
    let graph = random_graph(seed, LIMITS);
    let program = compile::cpu(&graph, &CpuOptions::default()).unwrap();
    let bare = program.to_bytes(&[]).unwrap();
    let inputs: Vec<_> = (0..samples).map(|n| random_inputs(&graph, seed ^ n << 32)).collect();
    let vectors: Vec<_> = inputs.iter().map(|i| [i.concat(), on_the_host(&bare, i).1.concat()].concat()).collect();
    (program.to_bytes(&vectors).unwrap(), inputs)
}

fn fill(network: &mut Network<'_>, sample: &[Vec<u8>]) {
    for (index, bytes) in sample.iter().enumerate() {
        network.input(index).unwrap().bytes().copy_from_slice(bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(48)))]

    #[test]
    fn random_networks_run_as_on_the_host(seed: u64, scratch in 0usize..4000, skew in 0usize..16) {
        let (file, inputs) = random_file(seed, 2);
        let needed = arena_bytes(&file).unwrap();
        prop_assert_eq!(needed as u64, required_bytes(&Deployable::parse(&file).unwrap()));
        let mut arena = vec![0xA5; needed + scratch + 2 * ALIGN + skew];
        let mut network = Network::new(&file, &mut arena[skew..]).unwrap();
        for sample in &inputs {
            fill(&mut network, sample);
            let mut seen = All::default();
            network.run(&mut seen).unwrap();
            let (all, outputs) = on_the_host(&file, sample);
            prop_assert_eq!(seen.0, all.0);
            for (index, wanted) in outputs.iter().enumerate() {
                let output = network.output(index).unwrap();
                prop_assert_eq!(output.bytes(), &wanted[..]);
                let elements = output.tensor().shape.elements().unwrap() as usize;
                prop_assert_eq!(output.f32s().count(), elements);
                let best = output.argmax().unwrap();
                let values: Vec<f32> = output.f32s().collect();
                prop_assert!(values.iter().enumerate().all(|(i, x)| *x < values[best] || *x == values[best] && i >= best));
            }
            prop_assert_eq!(network.output(outputs.len()).unwrap_err(), Error::Index(outputs.len()));
        }
        prop_assert_eq!(SelfTest::run(&mut network, &mut ()), Ok(()));
    }

    /// One rule for inputs: any float, also none at all, becomes what the host's engine reads.
    #[test]
    fn inputs_are_quantized_as_the_host_does(seed: u64, bits: Vec<u32>, scale in -2.0f32..2.0, offset in -200.0f32..200.0) {
        let graph = random_graph(seed, LIMITS);
        let file = compile::cpu(&graph, &CpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        let mut arena = vec![0; arena_bytes(&file).unwrap() + ALIGN];
        let mut network = Network::new(&file, &mut arena).unwrap();
        let mut random = Rng(seed | 1);
        let count = graph.inputs.len();
        let mut value = |i: usize| match bits.get(i) {
            Some(bits) => f32::from_bits(*bits),
            None => random.range(-4096, 4096) as f32 / 32.0,
        };
        let mut floats = Vec::new();
        for index in 0..count {
            let n = network.input(index).unwrap().elements();
            floats.push((0..n).map(&mut value).collect::<Vec<f32>>());
        }
        let slices: Vec<&[f32]> = floats.iter().map(Vec::as_slice).collect();
        let host = Engine::new(&graph).quantize_inputs(&slices).unwrap();
        for (index, (own, host)) in floats.iter().zip(&host).enumerate() {
            let mut input = network.input(index).unwrap();
            input.set_f32(own).unwrap();
            prop_assert_eq!(input.bytes(), &host.to_bytes()[..]);
            // Samples of a converter are those floats.
            let raw = random.bytes(own.len());
            let values: Vec<f32> = raw.iter().map(|x| f32::from(*x) * scale + offset).collect();
            input.set_u8(&raw, scale, offset).unwrap();
            let by_table = input.bytes().to_vec();
            input.set_f32(&values).unwrap();
            prop_assert_eq!(&by_table[..], input.bytes());
            let integers: Vec<i8> = raw.iter().map(|x| *x as i8).collect();
            match input.tensor().dtype {
                DType::I8 => {
                    input.set_i8(&integers).unwrap();
                    prop_assert_eq!(input.bytes(), &raw[..]);
                }
                DType::F32 | DType::Scaled(_) => prop_assert_eq!(input.set_i8(&integers), Err(Error::Type)),
            }
            let (needed, given) = (own.len(), own.len() + 1);
            prop_assert_eq!(input.set_f32(&vec![0.0; given]), Err(Error::Length { needed, given }));
        }
    }

    /// The self-test stops at each step, and finds any byte that is not as it should be.
    #[test]
    fn a_self_test_finds_the_first_wrong_byte(seed: u64, flip in 1u8..) {
        let (file, inputs) = random_file(seed, 3);
        let model = Deployable::parse(&file).unwrap();
        let each = model.self_test().len() / 3;
        let mut arena = vec![0; arena_bytes(&file).unwrap() + ALIGN];
        let mut network = Network::new(&file, &mut arena).unwrap();
        let (mut test, mut calls) = (SelfTest::new(), 1);
        while test.step(&mut network, &mut ()).unwrap() == Progress::Running {
            calls += 1;
        }
        prop_assert_eq!(calls, 3 * usize::from(model.step_count()).max(1));

        let outputs = each - inputs[0].iter().map(Vec::len).sum::<usize>();
        let mut random = Rng(seed | 1);
        let (sample, byte) = (random.size(0, 2), random.size(0, outputs - 1));
        let start = model.self_test().as_ptr() as usize - file.as_ptr() as usize;
        let mut wrong = file.clone();
        wrong[start + each * (sample + 1) - outputs + byte] ^= flip;
        repair(&mut wrong);
        let mut arena = vec![0; arena.len()];
        let mut network = Network::new(&wrong, &mut arena).unwrap();
        let Err(Error::SelfTest(found)) = SelfTest::run(&mut network, &mut ()) else { panic!("it passed") };
        prop_assert_eq!(usize::from(found.sample), sample);
        prop_assert_eq!(found.wanted ^ found.found, flip);
        let before: u32 = model.outputs().take(found.output.into()).map(|(_, t)| t.bytes()).sum();
        prop_assert_eq!((before + found.byte) as usize, byte);
    }

    /// Damage with a right checksum: refused, or run to an end; never a panic.
    #[test]
    fn damaged_deployables_are_refused_or_run(seed: u64) {
        let mut random = Rng(seed | 1);
        let (file, _) = if random.one_in(3) { (small::deployable().unwrap(), Vec::new()) } else { random_file(seed, 1) };
        for _ in 0..60 {
            let mut copy = file.clone();
            for _ in 0..random.size(1, 4) {
                let at = random.size(0, copy.len() - 1);
                copy[at] = if random.one_in(2) { copy[at] ^ 1 << random.size(0, 7) } else { random.next_u64() as u8 };
            }
            if random.one_in(8) {
                copy.truncate(random.size(0, copy.len()));
            }
            if !random.one_in(10) {
                repair(&mut copy);
            }
            let bytes = arena_bytes(&copy).unwrap_or(0);
            let mut arena = vec![0; bytes.min(1 << 20) + random.size(0, 64)];
            match Network::new(&copy, &mut arena) {
                Ok(mut network) => {
                    let _ = network.run(&mut ());
                    let _ = SelfTest::run(&mut network, &mut ());
                }
                Err(error) => prop_assert!((1..=17).contains(&error.code()), "{error}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(48)))]

    /// The same for DPU code, on a DPU in software; half of the damage is to the code itself. Undamaged it runs.
    #[test]
    fn damaged_dpu_code_is_refused_or_run(seed: u64) {
        let target = shiftwise_targets::find("B512").unwrap();
        let mut banks = vec![0; target.bank_bytes()];
        let mut random = Rng(seed | 1);
        let graph = random_graph(seed, Limits { cpu_only: false, side: 12, channels: 20, ..LIMITS });
        let file = compile::dpu(&graph, &target, &DpuOptions::default()).unwrap().to_bytes(&[]).unwrap();
        let model = Deployable::parse(&file).unwrap();
        let code = model.code().as_ptr() as usize - file.as_ptr() as usize;
        let code = code..code + model.code().len();
        for round in 0..40 {
            let mut copy = file.clone();
            for _ in 0..if round == 0 { 0 } else { random.size(1, 4) } {
                let whole = code.is_empty() || random.one_in(2);
                let at = if whole { random.size(0, copy.len() - 1) } else { random.size(code.start, code.end - 1) };
                copy[at] = if random.one_in(2) { copy[at] ^ 1 << random.size(0, 7) } else { random.next_u64() as u8 };
            }
            if !random.one_in(10) {
                repair(&mut copy);
            }
            let mut arena = vec![0; arena_bytes(&copy).unwrap_or(0).min(1 << 20) + random.size(LINE, 2 * LINE)];
            let machine = Machine::new(&target, &mut banks).unwrap();
            match Network::with_dpu(&copy, &mut arena, machine, target.fingerprint) {
                Ok(mut network) => match network.run(&mut ()) {
                    Ok(()) => {}
                    Err(error) => {
                        prop_assert!(round > 0, "{error}");
                        prop_assert!([32, 33].contains(&Error::from(error).code()));
                    }
                },
                Err(error) => {
                    prop_assert!(round > 0, "{error}");
                    prop_assert!((1..=17).contains(&error.code()), "{error}");
                }
            }
        }
    }
}

/// Sets the checksum to that of the bytes, so that damage is found by what it means.
fn repair(file: &mut [u8]) {
    if let Some(body) = file.len().checked_sub(4) {
        let crc = crc32(&file[..body]);
        file[body..].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn layers_of_every_kind_run() {
    let file = small::deployable().unwrap();
    let mut arena = vec![0; arena_bytes(&file).unwrap() + 4096];
    let mut network = Network::new(&file, &mut arena).unwrap();
    for n in 0..4 {
        fill(&mut network, &[small::sample(n)]);
        let mut seen = All::default();
        network.run(&mut seen).unwrap();
        assert_eq!(seen.0, on_the_host(&file, &[small::sample(n)]).0.0);
        let output = network.output(0).unwrap();
        assert_eq!(output.tensor().dtype, DType::F32);
        assert_eq!(output.i8s().err(), Some(Error::Type));
        assert!((output.f32s().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert_eq!(SelfTest::run(&mut network, &mut ()), Err(Error::NoSelfTest));
}

#[test]
fn bad_deployables_are_refused_with_a_code() {
    let file = small::deployable().unwrap();
    let needed = arena_bytes(&file).unwrap();
    let mut arena: Arena<100_000> = Arena::new();
    let mut refuse = |file: &[u8], bytes: usize| Network::new(file, &mut arena.bytes()[..bytes]).unwrap_err();

    assert_eq!(refuse(&file, needed - 1), Error::Memory { needed, given: needed - 1 });
    assert_eq!(refuse(&file, 0).code(), 17);
    for at in (0..file.len()).step_by(97) {
        assert!(matches!(refuse(&file[..at], needed), Error::Parse(_)), "cut at {at}");
    }
    let mut bad = file.clone();
    bad[file.len() / 2] ^= 4;
    assert_eq!(refuse(&bad, needed), Error::Parse(ParseError::Crc));
    bad = file.clone();
    bad[4] = 99;
    assert_eq!(refuse(&bad, needed), Error::Parse(ParseError::Version(99)));
    // The fingerprint of another device.
    bad = file.clone();
    bad[8] = 5;
    repair(&mut bad);
    assert_eq!(refuse(&bad, needed), Error::Target(5));
    let mut arena = vec![0; arena_bytes(&bad).unwrap() + LINE];
    assert!(Network::with_dpu(&bad, &mut arena, NoDpu, 5).is_ok());
    assert!(Network::with_dpu(&file, &mut arena, NoDpu, 5).is_ok());
}

/// Numbers and sentences are for ever, and no two errors share them.
#[test]
fn error_codes_are_stable() {
    let parse = [
        ParseError::Truncated,
        ParseError::Magic,
        ParseError::Version(9),
        ParseError::Crc,
        ParseError::Section(1),
        ParseError::Record(1, 2),
        ParseError::Reference(1, 2),
    ];
    let (needed, given, step) = (1, 2, 3);
    let mismatch = error::Mismatch { sample: 0, output: 1, byte: 2, wanted: 3, found: 4 };
    let rest = [
        Error::Target(1),
        Error::Memory { needed, given },
        Error::Index(1),
        Error::Length { needed, given },
        Error::Type,
        Error::Dpu { step },
        Error::Layout { step },
        Error::NoSelfTest,
        Error::SelfTest(mismatch),
    ];
    let all: Vec<Error> = parse.map(Error::Parse).into_iter().chain(rest).collect();
    let codes: Vec<u8> = all.iter().map(Error::code).collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 32, 33, 48, 49]);
    assert!((0..=255).all(|n| error::terminated(n).to_str() == Ok(error::text(n))));
    let page = include_str!("../README.md");
    let rows: Vec<String> = (1..=255)
        .filter(|n| error::text(*n) != error::text(255))
        .map(|n| format!("| {n} | {} |\n", error::text(n)))
        .collect();
    assert!(page.ends_with(&rows.concat()), "the README's table of errors is not {rows:?}");
    let mut texts: Vec<&str> = all.iter().map(Error::text).collect();
    assert!(!texts.contains(&error::text(255)));
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), all.len());
    assert_eq!(
        Error::Memory { needed, given }.to_string(),
        "too little memory for the deployable: 1 bytes needed, 2 given"
    );
}

/// What the self-test showed is expected; the same data is inside it, larger and smaller data is not.
#[test]
fn drift_is_judged_against_the_self_test() {
    // One whose first input is in integers.
    let integers = |file: &[u8]| Deployable::parse(file).unwrap().inputs().next().unwrap().1.dtype == DType::I8;
    let (file, inputs) = (0..).map(|seed| random_file(seed, 4)).find(|(file, _)| integers(file)).unwrap();
    let mut arena = vec![0; arena_bytes(&file).unwrap() + ALIGN];
    let mut network = Network::new(&file, &mut arena).unwrap();
    let tensors = usize::from(network.deployable().tensor_count());
    let mut sketches = vec![Sketch::new(); tensors];
    let mut monitor = Monitor::new(&mut sketches);
    SelfTest::run(&mut network, &mut monitor).unwrap();
    let expected: Vec<Expected> = monitor.sketches().iter().map(Expected::from).collect();
    assert!(monitor.sketches().iter().any(|s| s.runs == 4));
    monitor.reset();
    let (id, pixels) = {
        let input = network.input(0).unwrap();
        (input.id(), input.elements())
    };
    let of = |monitor: &Monitor<'_>| monitor.sketch(id).unwrap().drift(expected[usize::from(id.0)]);
    assert_eq!(of(&monitor), Drift::Unseen);
    for sample in &inputs {
        fill(&mut network, sample);
        network.run(&mut monitor).unwrap();
    }
    assert_eq!(of(&monitor), Drift::Inside);
    for (value, wanted) in [(127, Drift::Clipped), (0, Drift::Narrow)] {
        monitor.reset();
        fill(&mut network, &inputs[0]);
        network.input(0).unwrap().set_i8(&vec![value; pixels]).unwrap();
        network.run(&mut monitor).unwrap();
        assert_eq!(of(&monitor), wanted);
    }
}

/// Facts with large numbers and long names: the sizes at compile time are those of the reader.
#[test]
fn sizes_are_read_without_parsing() {
    let file = small::deployable().unwrap();
    let model = Deployable::parse(&file).unwrap();
    let sizes = [model.facts().workspace_bytes, 70_001, 3_000_000, u32::MAX];
    for (workspace_bytes, fingerprint) in sizes.into_iter().flat_map(|bytes| [0, 5, 5 << 32].map(|own| (bytes, own))) {
        let name = "n".repeat(300);
        let facts = shiftwise_core::model::Facts { name: &name, workspace_bytes, ..model.facts().clone() };
        let tensors: Vec<_> = model.tensors().map(|(_, t)| t).collect();
        let steps: Vec<_> = model.steps().collect();
        let layers: Vec<_> = model.layers().collect();
        let parts = Parts {
            facts,
            fingerprint,
            tensors: &tensors,
            steps: &steps,
            layers: &layers,
            self_test: &[],
            constants: model.constants(),
            code: &[],
            metadata: &[],
        };
        let file = write(&parts).unwrap();
        let wanted = required_bytes(&Deployable::parse(&file).unwrap());
        assert_eq!(arena_bytes(&file), usize::try_from(wanted).ok());
        assert!((0..file.len()).all(|n| arena_bytes(&file[..n]).is_none_or(|n| n as u64 == wanted)));
    }
}

/// What a DPU writes shares no cache line with anything else, wherever the memory begins.
#[test]
fn regions_beside_a_dpu_have_lines_of_their_own() {
    let mut file = small::deployable().unwrap();
    for (fingerprint, align) in [(0, ALIGN), (5, LINE)] {
        file[8] = fingerprint;
        repair(&mut file);
        let needed = arena_bytes(&file).unwrap();
        let mut arena = vec![0; needed + 3 * LINE];
        for skew in 0..2 * LINE {
            let loaded = load(&file, &mut arena[skew..], |_| true).unwrap();
            let memory = &loaded.memory;
            let starts = [&*memory.workspace, &*memory.inputs, &*memory.outputs, &*loaded.scratch];
            assert_eq!(starts.map(|bytes| bytes.as_ptr().align_offset(align)), [0; 4], "at {skew}");
        }
        let lost = arena.as_ptr().align_offset(align);
        let refused = load(&file, &mut arena[..needed + lost - 1], |_| true).unwrap_err();
        assert_eq!(refused, Error::Memory { needed: needed + lost, given: needed + lost - 1 });
    }
}

#[test]
fn files_are_aligned_in_flash() {
    let file: &'static [u8] = shiftwise_firmware::include_deployable!("library.rs");
    assert_eq!(file, include_bytes!("library.rs"));
    assert_eq!(file.as_ptr().align_offset(ALIGN), 0);
}
