//! The C program of `firmware/examples/c`, linked with the static library and run in QEMU (`SHIFTWISE_QEMU=1`).

use std::path::Path;
use std::process::Command;

use shiftwise::compile::{self, CpuOptions};
use shiftwise::link::image::{build_c_library, measure};
use shiftwise_core::model::{Deployable, Region, crc32};
use shiftwise_core::monitor::{Expected, Monitor, Sketch};
use shiftwise_core::run::{Memory, NoDpu, run};
use shiftwise_tests::graphs::{Limits, random_graph, random_inputs};

const CPU: [&str; 4] = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"];
/// What the runtime takes of the flash: to be lowered. The goal is 32 KB; layers in floats, checks of records and kernels that define the
/// fast ones are most of it.
const CODE: u64 = 176 << 10;
/// Tensors that the program watches.
const WATCHED: usize = 64;
/// A random network with one sample for its self-test.
fn deployable(seed: u64) -> Vec<u8> {
    let graph = random_graph(seed, Limits::CPU);
    let program = compile::cpu(&graph, &CpuOptions::default()).unwrap();
    let bare = program.to_bytes(&[]).unwrap();
    let model = Deployable::parse(&bare).unwrap();
    let [mut workspace, mut inputs, mut outputs] =
        [Region::Workspace, Region::Inputs, Region::Outputs].map(|r| vec![0; model.region_bytes(r)]);
    let constants = model.constants();
    let mut memory = Memory { constants, workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    let sample = random_inputs(&graph, seed);
    for ((_, tensor), bytes) in model.inputs().zip(&sample) {
        memory.tensor_mut(&tensor).unwrap().copy_from_slice(bytes);
    }
    run(&model, &mut NoDpu, &mut memory, &mut ()).unwrap();
    let results = model.outputs().map(|(_, t)| memory.tensor(&t).unwrap().to_vec());
    program.to_bytes(&[sample.into_iter().chain(results).collect::<Vec<_>>().concat()]).unwrap()
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

/// Links the example around a deployable.
fn link(folder: &Path, library: &Path, file: &[u8]) -> std::path::PathBuf {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/examples/c");
    let (model, elf) = (folder.join("model.swm"), folder.join("example.elf"));
    std::fs::write(&model, file).unwrap();
    let mut gcc = Command::new("arm-none-eabi-gcc");
    gcc.args(CPU).args(["-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostartfiles"]);
    gcc.arg(format!("-DMODEL=\"{}\"", model.display())).arg("-DARENA_BYTES=65536");
    gcc.args([example.join("start.c"), example.join("main.c")]).arg(library);
    gcc.arg("-T")
        .arg(example.join("link.ld"))
        .args(["-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments,-z,noexecstack", "-o"])
        .arg(&elf);
    assert!(gcc.status().unwrap().success());
    elf
}

fn boot(elf: &Path) -> (bool, String) {
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(elf);
    let output = qemu.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_program_in_c_runs_its_self_test() {
    if std::env::var_os("SHIFTWISE_QEMU").is_none() {
        println!("set SHIFTWISE_QEMU=1 to run this");
        return;
    }
    let library = build_c_library("thumbv7em-none-eabihf").unwrap();
    let folder = std::env::temp_dir().join(format!("shiftwise-c-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for seed in 0..3 {
        let file = deployable(seed);
        let elf = link(&folder, &library, &file);
        let (good, text) = boot(&elf);
        println!("{text}");
        assert!(good && text.contains("self-test passed\n"), "{text}");
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("tensor ")).collect();
        assert!(told.len() > 3);
        assert_eq!(told, drift(&file));
        let stack = text.split("stack bytes: ").nth(1).and_then(|n| n.trim().parse::<u32>().ok()).unwrap();
        assert!((1..=8 << 10).contains(&stack), "{stack} bytes of stack");

        let image = measure(elf, "").unwrap();
        assert!(image.panics.is_empty(), "ways to panic: {:?}", image.panics);
        let code = image.code - file.len() as u64;
        println!("{code} bytes of code and constants, {stack} bytes of stack");
        assert!(code <= CODE, "{code} bytes of code");
    }
    // A wrong expectation is found on the board as well.
    let mut file = deployable(0);
    let model = Deployable::parse(&file).unwrap();
    let end = model.self_test().as_ptr() as usize - file.as_ptr() as usize + model.self_test().len();
    file[end - 1] ^= 1;
    let body = file.len() - 4;
    let crc = crc32(&file[..body]);
    file[body..].copy_from_slice(&crc.to_le_bytes());
    let (good, text) = boot(&link(&folder, &library, &file));
    assert!(!good && text.contains("self-test: the self-test found a wrong output"), "{text}");
    std::fs::remove_dir_all(folder).unwrap();
}
