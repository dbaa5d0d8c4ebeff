//! Measures the memory of images and models: flash, RAM, stack.
//!
//! `memory` boots every board and prints `firmware/MEMORY.md`; `memory --write` also writes it, and the sizes of the
//! images into the boards' data files.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use shiftwise_board::image::{BoardImage, CLibrary, boards, build};
use shiftwise_board::{BoardSpec, Report, run_on_board};
use shiftwise_compile::{self as compile, CpuOptions};
use shiftwise_core::cpu::scratch_bytes;
use shiftwise_core::model::Deployable;
use shiftwise_targets::Measured;
use shiftwise_tests::c_program::{least, library};
use shiftwise_tests::{models, small};

/// Bytes of TensorFlow Lite Micro's arena for the int8 models of the same networks, by model: tensors (its `head`), and
/// all of it. As its Python package 0.dev20261023182759 prints them (`Interpreter.from_file`, `print_allocations`), on
/// x86-64: there the part beside the tensors has wider pointers than on a microcontroller, and it holds no scratch
/// buffers of faster kernels.
const PEER: &[(&str, u64, u64)] = &[
    ("lenet5_mnist", 5888, 10432),
    ("resnet8_fashion", 37632, 44432),
    ("mlperf_resnet8_cifar10", 49152, 55984),
    ("mlperf_vww96_mobilenetv1", 73728, 103_680),
    ("mlperf_streaming_wakeword", 6656, 16640),
    ("dscnn_fsdd", 30720, 36656),
];

/// A model for target `cpu`.
struct Model {
    name: &'static str,
    file: Vec<u8>,
    inputs: Vec<Vec<u8>>,
    /// Workspace, inputs and outputs.
    ram: u64,
    scratch: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let write = std::env::args().any(|word| word == "--write");
    let models = models::all().iter().map(model).collect::<Result<Vec<_>, _>>()?;
    let mut measured = Vec::new();
    for board in boards() {
        measured.push((board, measure(board, &models)?));
    }
    let text = table(&models, &measured)? + &libraries()?;
    print!("{text}");
    if write {
        std::fs::write(root().join("firmware/MEMORY.md"), text)?;
        for (board, image) in measured {
            note(&root().join("targets/boards").join(&board.name).with_extension("toml"), &image)?;
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn model(model: &models::RealModel) -> Result<Model, Box<dyn Error>> {
    let (graph, samples) = model.quantized(1)?;
    let program = compile::cpu(&graph, &CpuOptions::default())?;
    let file = program.to_bytes(&[])?;
    let scratch = scratch_bytes(&Deployable::parse(&file)?) as u64;
    let engine = shiftwise_integer::engine::Engine::new(&graph);
    let inputs = engine.sample(&samples, 0)?.iter().map(shiftwise_tensor::values::Values::to_bytes).collect();
    Ok(Model { name: model.name, ram: program.memory.ram_bytes(), scratch, file, inputs })
}

/// The image's sizes, and the deepest stack of all models and of every kind of layer.
fn measure(board: &'static BoardImage, models: &[Model]) -> Result<Measured, Box<dyn Error>> {
    let image = build(board)?;
    let mut stack = 0;
    let all_layers = small::deployable().map_err(|e| format!("{e:?}"))?;
    let small = (&all_layers, vec![small::sample(0)]);
    for (file, inputs) in models.iter().map(|m| (&m.file, m.inputs.clone())).chain([small]) {
        for report in [Report::Bytes, Report::Crc] {
            let session = run_on_board(&BoardSpec::Qemu(board), &image.elf, file, [inputs.clone()], report)?;
            stack = stack.max(session.stack().ok_or("the firmware did not say how deep its stack was")?.0);
        }
    }
    Ok(Measured { code: image.code, data: image.data + image.zeroed, stack })
}

/// The C library's sizes.
fn libraries() -> Result<String, Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("shiftwise-memory-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let mut text = String::from(
        "\n## The C library\n\n\
         Code and constants that it adds to a program for a Cortex-M4F: `firmware/examples/c/least.c` less `nothing.c`. \
         Convolutions, dense layers, pooling, sums, softmax and the ends of a network are always there; features add \
         layers. Profile `firmware-small` lets the compiler look for size in the kernels, too.\n\n\
         | features | `firmware-small` | `firmware` |\n|---|--:|--:|\n",
    );
    for layers in [&[][..], &["depthwise"], &["depthwise", "extra"], &["depthwise", "extra", "floats"]] {
        let size = |small| Ok::<_, Box<dyn Error>>(least(&folder, &library(&folder, CLibrary { small, layers })?)?.0);
        let name = if layers.is_empty() { "none".to_string() } else { layers.join(", ") };
        writeln!(text, "| {name} | {} | {} |", size(true)?, size(false)?)?;
    }
    std::fs::remove_dir_all(folder)?;
    Ok(text)
}

fn table(models: &[Model], measured: &[(&BoardImage, Measured)]) -> Result<String, std::fmt::Error> {
    let mut text = String::from(
        "# Memory of the firmware\n\n\
         Written by `cargo run --release -p shiftwise-tests --bin memory -- --write`; all sizes in bytes.\n\n\
         ## Images\n\n\
         Code with the DPU in software and the link. The stack is painted at the start; its depth is the deepest after \
         running every model below and a network with a layer of every kind.\n\n\
         | board | code and constants | data | stack: deepest | stack: set aside |\n|---|--:|--:|--:|--:|\n",
    );
    for (board, m) in measured {
        writeln!(text, "| {} | {} | {} | {} | {} |", board.name, m.code, m.data, m.stack, board.firmware.stack)?;
    }
    text.push_str(
        "\n## RAM of models\n\n\
         Ours: workspace with inputs and outputs, the same on every board. Gathering: what the fastest kernels want \
         besides; without it they are slower, not wrong. TensorFlow Lite Micro's: its int8 models of the same \
         networks, measured with its Python package on x86-64 (`print_allocations`), where the part that is not \
         tensors has wider pointers than on a microcontroller and there are no buffers of faster kernels. Ratio: \
         ours with gathering to its whole arena; in brackets: ours without to its tensors alone.\n\n\
         | model | deployable | ours | gathering | its tensors | its arena | ratio |\n|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for m in models {
        let peer = PEER.iter().find(|(name, ..)| *name == m.name);
        let (tensors, arena, ratio) = match peer {
            Some((_, tensors, arena)) => {
                let ratio = |ours: u64, theirs: u64| format!("{:.2}", ours as f64 / theirs as f64);
                let both = format!("{} ({})", ratio(m.ram + m.scratch, *arena), ratio(m.ram, *tensors));
                (tensors.to_string(), arena.to_string(), both)
            }
            None => ("-".into(), "-".into(), "-".into()),
        };
        let size = m.file.len();
        writeln!(text, "| {} | {size} | {} | {} | {tensors} | {arena} | {ratio} |", m.name, m.ram, m.scratch)?;
    }
    Ok(text)
}

/// Replaces a data file's last section by these sizes.
fn note(path: &Path, image: &Measured) -> std::io::Result<()> {
    const HEAD: &str = "# Written by the command of firmware/MEMORY.md.\n[firmware.image]\n";
    let text = std::fs::read_to_string(path)?;
    let rest = text.split(HEAD).next().unwrap_or(&text).trim_end();
    let Measured { code, data, stack } = image;
    std::fs::write(path, format!("{rest}\n\n{HEAD}code = {code}\ndata = {data}\nstack = {stack}\n"))
}
