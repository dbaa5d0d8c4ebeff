//! The C program of `firmware/examples/c`, linked with the static library and run in QEMU (`SHIFTWISE_QEMU=1`).
//!
//! Every choice of layers is a build of its own, optimized at link time, so that the ordinary run builds the whole library
//! only. The smaller ones are built where `SHIFTWISE_C_VARIANTS=1` says so, as in a step of `cargo xtask ci`.

use std::path::{Path, PathBuf};

use shiftwise_board::image::{CLibrary, measure};
use shiftwise_compile::{self as compile, CpuOptions};
use shiftwise_core::model::{Deployable, Region, crc32};
use shiftwise_core::monitor::{Expected, Monitor, Sketch};
use shiftwise_core::run::{Memory, NoDpu, run};
use shiftwise_core::shape::Window;
use shiftwise_integer::graph::{IntAct, IntGraph};
use shiftwise_tests::c_program::{boot, least, library, link};
use shiftwise_tests::graphs::{Builder, Limits, random_graph, random_inputs};

/// A library and the bytes of flash that it may take, by what is built in beside convolutions, dense layers, pooling, sums
/// and softmax. MEMORY.md has the sizes; compilers differ by some percent.
type Variant = (CLibrary<'static>, u64);
const WHOLE: Variant = (CLibrary::WHOLE, 160 << 10);
const SMALL: Variant = (CLibrary { small: true, layers: &[] }, 34 << 10);
const SMALL_DEPTHWISE: Variant = (CLibrary { small: true, layers: &["depthwise"] }, 42 << 10);
/// Tensors that the program watches.
const WATCHED: usize = 64;
/// A network with one random sample for its self-test.
fn deployable(graph: &IntGraph, seed: u64) -> Vec<u8> {
    let program = compile::cpu(graph, &CpuOptions::default()).unwrap();
    let bare = program.to_bytes(&[]).unwrap();
    let model = Deployable::parse(&bare).unwrap();
    let [mut workspace, mut inputs, mut outputs] =
        [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| vec![0; model.region_bytes(r)]);
    let constants = model.constants();
    let mut memory = Memory { constants, workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    let sample = random_inputs(graph, seed);
    for ((_, tensor), bytes) in model.inputs().zip(&sample) {
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(bytes);
    }
    run(&model, &mut NoDpu, &mut memory, &mut ()).unwrap();
    let results = model.outputs().map(|(_, t)| memory.tensor(&t).unwrap().to_vec());
    program.to_bytes(&[sample.into_iter().chain(results).collect::<Vec<_>>().concat()]).unwrap()
}

/// A network of one convolution, and maybe a depthwise one behind it.
fn convolution(channels: usize, depthwise: bool) -> Vec<u8> {
    let mut b = Builder::new("one", 3);
    let input = b.input(&[6, 6, 3]);
    let mut x = b.conv(input, Window { kernel: [3, 3], ..Window::POINT }, channels, 1, IntAct::Relu);
    if depthwise {
        x = b.depthwise(x, Window::POINT, IntAct::None);
    }
    b.graph.outputs = vec![x];
    deployable(&b.graph, 3)
}

/// What the tensors hold in a run on these inputs.
fn sketches(model: &Deployable<'_>, inputs: &[u8]) -> Vec<Sketch> {
    let [mut workspace, mut outputs] = [Region::Workspace, Region::Outputs].map(|r| vec![0; model.region_bytes(r)]);
    let mut regions = vec![0; model.region_bytes(Region::Inputs)];
    let constants = model.constants();
    let mut memory = Memory { constants, workspace: &mut workspace, inputs: &mut regions, outputs: &mut outputs };
    let mut rest = inputs;
    for (_, tensor) in model.inputs() {
        let (own, after) = rest.split_at(tensor.bytes() as usize);
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(own);
        rest = after;
    }
    let mut sketches = vec![Sketch::new(); WATCHED];
    run(model, &mut NoDpu, &mut memory, &mut Monitor::new(&mut sketches)).unwrap();
    sketches
}

/// What the program prints of a run on zeros: the counters of each tensor, and how they differ from the self-test's.
fn drift(file: &[u8]) -> Vec<String> {
    let model = Deployable::parse(file).unwrap();
    let zeros = vec![0; model.inputs().map(|(_, tensor)| tensor.bytes() as usize).sum()];
    let (known, seen) = (sketches(&model, &model.self_test()[..zeros.len()]), sketches(&model, &zeros));
    let line = |(n, (seen, known)): (usize, (&Sketch, &Sketch))| {
        let verdict = format!("{:?}", seen.drift(Expected::from(known))).to_lowercase();
        let (min, max, limits, zeros) = (seen.min, seen.max, seen.saturated(), seen.octaves[0]);
        format!("tensor {n}: {min} to {max}, at the limits {limits}, zeros {zeros}, {verdict}")
    };
    seen.iter().zip(&known).enumerate().filter(|(_, (seen, _))| seen.runs > 0).map(line).collect()
}

/// A folder of its own for each test.
fn scratch(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("shiftwise-c-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Builds a library that is no larger than it may be, and can't panic.
fn measured(folder: &Path, (properties, most): Variant) -> PathBuf {
    let library = library(folder, properties).unwrap();
    let (code, panics) = least(folder, &library).unwrap();
    println!("{properties:?}: {code} bytes of code and constants");
    assert!(code <= most, "{properties:?}: {code} bytes of code");
    assert!(panics.is_empty(), "{properties:?}: ways to panic: {panics:?}");
    library
}

#[test]
fn smaller_libraries_hold_what_they_should() {
    if ["SHIFTWISE_QEMU", "SHIFTWISE_C_VARIANTS"].iter().any(|name| std::env::var_os(name).is_none()) {
        println!("set SHIFTWISE_QEMU=1 and SHIFTWISE_C_VARIANTS=1 to run this");
        return;
    }
    let folder = scratch("variants");
    // A library goes where the one before it was, but each has its copy.
    let libraries = [SMALL, SMALL_DEPTHWISE].map(|variant| measured(&folder, variant));
    for (library, knows) in libraries.iter().zip([false, true]) {
        for depthwise in [false, true] {
            let file = convolution(if depthwise { 5 } else { 4 }, depthwise);
            let elf = link(&folder, "main.c", library, &file).unwrap();
            let (good, text) = boot(&elf).unwrap();
            let runs = knows || !depthwise;
            let told = if runs { "self-test passed\n" } else { "open: a layer that this runtime was built without\n" };
            assert!(good == runs && text.contains(told), "{text}");
        }
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_program_in_c_runs_its_self_test() {
    if std::env::var_os("SHIFTWISE_QEMU").is_none() {
        println!("set SHIFTWISE_QEMU=1 to run this");
        return;
    }
    let folder = scratch("whole");
    let library = measured(&folder, WHOLE);
    let run = |library: &Path, file: &[u8]| {
        let elf = link(&folder, "main.c", library, file).unwrap();
        (boot(&elf).unwrap(), elf)
    };
    for seed in 0..3 {
        let file = deployable(&random_graph(seed, Limits::CPU), seed);
        let ((good, text), elf) = run(&library, &file);
        println!("{text}");
        assert!(good && text.contains("self-test passed\n"), "{text}");
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("tensor ")).collect();
        assert!(told.len() > 3);
        assert_eq!(told, drift(&file));
        let stack = text.split("stack bytes: ").nth(1).and_then(|n| n.trim().parse::<u32>().ok()).unwrap();
        assert!((1..=8 << 10).contains(&stack), "{stack} bytes of stack");

        let image = measure(elf, "").unwrap();
        assert!(image.panics.is_empty(), "ways to panic: {:?}", image.panics);
        println!("{stack} bytes of stack");
    }
    // A wrong expectation is found on the board as well.
    let mut file = deployable(&random_graph(0, Limits::CPU), 0);
    let model = Deployable::parse(&file).unwrap();
    let end = model.self_test().as_ptr() as usize - file.as_ptr() as usize + model.self_test().len();
    file[end - 1] ^= 1;
    let body = file.len() - 4;
    let crc = crc32(&file[..body]);
    file[body..].copy_from_slice(&crc.to_le_bytes());
    let ((good, text), _) = run(&library, &file);
    assert!(!good && text.contains("self-test: the self-test found a wrong output"), "{text}");
    std::fs::remove_dir_all(folder).unwrap();
}
