//! `shiftwise compile`.

use std::path::PathBuf;

use serde_json::json;
use shiftwise_compile::footprint as memory;
use shiftwise_compile::footprint::Footprint;
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, Program};
use shiftwise_core::target::Target;
use shiftwise_formats::Model;
use shiftwise_formats::files;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;
use shiftwise_sim::{Costs, SimDpu};
use shiftwise_targets::{Board, Timing};

use crate::averages;
use crate::backend;
use crate::command::Outcome;
use crate::data::{ModelArgs, Preprocess};
use crate::estimate;
use crate::estimate::Times;
use crate::screen::{Screen, bytes};
use crate::{data, footprint, targets};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    place: Place,
    /// Deployable to write
    #[arg(short, long, value_name = "FILE.swm")]
    output: PathBuf,
    /// Also write the instructions as text
    #[arg(long, value_name = "FILE")]
    listing: Option<PathBuf>,
    /// Fail if a layer can't run on the DPU
    #[arg(long)]
    strict: bool,
    /// Keep on chip what only the next layer reads, and use memory again: faster and smaller, but a run shows only outputs
    #[arg(long)]
    fast: bool,
    /// Store these samples with their results in the deployable
    #[arg(long, value_name = "DATA")]
    self_test: Vec<String>,
    /// Samples to store of --self-test
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = crate::command::positive())]
    self_test_samples: usize,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// What to compile for.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Place {
    /// DPU: a name, a fingerprint, an arch.json; or `cpu`
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Board: its DPU, or its CPU where it has none or with --target cpu
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
}

/// A DPU at a clock, and what surrounds it.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) target: Target,
    pub(crate) clock_mhz: u32,
    pub(crate) cores: u32,
    /// Shared by the cores; 0 if unknown.
    pub(crate) ddr_mb_per_s: u32,
    /// The cycle model's constants; `None` where no measurement says.
    pub(crate) timing: Option<Timing>,
}

impl Device {
    /// One core alone, at its own clock if none is given.
    pub(crate) fn new(target: Target, clock_mhz: Option<u32>) -> Self {
        let timing = shiftwise_targets::timing::of(&target);
        let clock_mhz = clock_mhz.unwrap_or(target.clock_mhz);
        Self { target, clock_mhz, cores: 1, ddr_mb_per_s: 0, timing }
    }
}

/// A clock in MHz: `300`, `300MHz`, `0.3GHz`.
pub(crate) fn clock(text: &str) -> Result<u32, String> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, scale) = match lower.strip_suffix("ghz") {
        Some(number) => (number, 1000.0),
        None => (lower.strip_suffix("mhz").unwrap_or(&lower), 1.0),
    };
    let mhz = number.trim().parse::<f64>().map_or(0.0, |n| n * scale);
    if (1.0..=10_000.0).contains(&mhz) {
        Ok(mhz.round() as u32)
    } else {
        Err("a clock between 1 and 10000 MHz is expected, such as 300MHz".into())
    }
}

impl Place {
    /// The DPU; `None` for the CPU.
    pub(crate) fn device(&self) -> Result<Option<Device>, Error> {
        match (self.target.as_deref(), self.board.as_deref()) {
            (Some("cpu"), _) => Ok(None),
            (Some(_), Some(_)) => {
                Err(Error::Options("a board has its own DPU: only --target cpu goes with --board".into()))
            }
            (Some(name), None) => device(name).map(Some),
            (None, Some(board)) => board_device(board),
            (None, None) => Err(Error::Options("--target or --board is needed".into())),
        }
    }

    /// The board, if one was named.
    fn board(&self) -> Result<Option<Board>, Error> {
        self.board.as_deref().map(find_board).transpose()
    }
}

/// A DPU by name, at its own clock.
pub(crate) fn device(name: &str) -> Result<Device, Error> {
    Ok(Device::new(targets::find(name)?, None))
}

/// A board by its name, with or without the `qemu:` of its emulator.
fn find_board(name: &str) -> Result<Board, Error> {
    let plain = name.strip_prefix("qemu:").unwrap_or(name);
    shiftwise_targets::find_board(plain).map_err(|e| Error::Target(e.to_string()))
}

/// A board's DPU; `None` if it has none.
pub(crate) fn board_device(name: &str) -> Result<Option<Device>, Error> {
    let board = find_board(name)?;
    let on_board = |dpu: &String| {
        let (clock_mhz, cores, ddr_mb_per_s) = (board.clock_mhz, board.cores, board.ddr_mb_per_s);
        Ok(Device { clock_mhz, cores, ddr_mb_per_s, ..device(dpu)? })
    };
    board.dpu.as_ref().map(on_board).transpose()
}

/// Compiles for a DPU, or for the CPU alone.
///
/// `observe`: every tensor can be compared after a run; otherwise the program is faster.
pub(crate) fn program(
    graph: &IntGraph,
    device: Option<&Device>,
    strict: bool,
    observe: bool,
) -> Result<Program, Error> {
    match device {
        Some(d) => compile::dpu(graph, &d.target, &DpuOptions { strict, observe, ..DpuOptions::default() }),
        None => compile::cpu(graph, &CpuOptions::default()),
    }
}

/// The cycle model's constants for a device.
pub(crate) fn costs(device: &Device) -> Result<Costs, Error> {
    let Some(timing) = &device.timing else { return Ok(Costs::default()) };
    let costs = serde_json::to_value(&timing.costs).and_then(serde_json::from_value::<Costs>);
    costs.map_err(|e| Error::Target(format!("{}: constants of the cycle model: {e}", device.target.name)))
}

/// A simulator of a device.
pub(crate) fn simulator(device: &Device) -> Result<SimDpu, Error> {
    SimDpu::new(device.target.clone(), device.clock_mhz, costs(device)?).map_err(|e| Error::Target(e.to_string()))
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let tests = data::files(&args.self_test);
    let inputs = || args.model.files().chain(&tests).map(PathBuf::as_path);
    data::keep(inputs(), &[&args.output])?;
    if let Some(listing) = &args.listing {
        data::keep(inputs(), &[listing])?;
        if *listing == args.output {
            return Err(Error::Options(format!("--listing and --output are both {}", listing.display())));
        }
    }
    let Model::Quantized(quantized) = args.model.open(screen)? else {
        return Err(Error::wrong_kind(&args.model.path, "is a float model, a quantized one is expected"));
    };
    let device = args.place.device()?;
    let graph = lower::lower(&quantized)?;
    let differences = averages::recorded(&args.model.path, &quantized, &graph);
    averages::tell(&differences, screen);
    let program = program(&graph, device.as_ref(), args.strict, !args.fast)?;
    let mut file = program.to_bytes(&[])?;
    if !args.self_test.is_empty() {
        let vectors = self_test(args, &file)?;
        file = program.to_bytes(&vectors)?;
    }
    let model = backend::parse(&args.output, &file)?;
    let times = device.as_ref().map(|d| Ok::<_, Error>((d, Times::of(&model, d)?))).transpose()?;
    program
        .check(&model)
        .map_err(|why| Error::Compile(format!("the deployable does not say what was compiled: {why}")))?;
    let listing = args.listing.as_ref().map(|path| Ok::<_, Error>((path, crate::machine_code::listing(&model)?)));
    let listing = listing.transpose()?;
    // The listing comes last, so that it never stands beside code that it does not belong to.
    let listing = listing.iter().map(|(path, text)| (path.as_path(), text.as_bytes()));
    files::write_files(&std::iter::once((args.output.as_path(), file.as_slice())).chain(listing).collect::<Vec<_>>())?;

    // Only the CPU's memory is planned here: a DPU's board has its own, of gigabytes.
    let board = if device.is_none() { args.place.board()? } else { None };
    let layers = footprint::Layers {
        memory: if device.is_none() { memory::layers(&program) } else { Vec::new() },
        instructions: board.as_ref().map_or_else(Vec::new, |b| memory::instructions(&program, &model, &b.cpu)),
    };
    let taken = board.as_ref().and_then(|b| Footprint::of(&program, &model, b));
    match &times {
        Some((_, times)) => {
            estimate::table(&program, &times.report, screen);
            estimate::fallbacks(&program, screen);
        }
        None => footprint::table(&program, &layers, screen),
    }
    screen.say("");
    screen.say(estimate::memory(&program));
    match &times {
        Some((device, times)) => times.say(device, screen),
        None => footprint::say(&layers, board.as_ref().map(|b| (b, taken.as_ref())), screen),
    }
    screen.say(format!("{} for {}, {}", args.output.display(), program.target, bytes(file.len() as u64)));
    let mut json = json!({
        "output": args.output, "target": program.target, "layers": program.layers,
        "cycles": times.as_ref().map(|(_, t)| &t.report), "speed": times.as_ref().map(|(_, t)| t.json()),
        "memory": estimate::memory_json(&program),
        "footprint": times.is_none().then(|| footprint::json(&program, &layers, taken.as_ref())),
    });
    averages::add(&differences, &mut json);
    Ok(Outcome { json, yes: taken.is_none_or(|t| t.fits()) })
}

/// Inputs and outputs of the first samples, computed by the program itself.
fn self_test(args: &Args, file: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let model = backend::parse(&args.output, file)?;
    let samples = backend::open(&args.preprocess, &args.self_test, &model)?;
    let device = args.place.device()?;
    let mut sim = device.as_ref().map(simulator).transpose()?;
    let vector = |index| {
        let inputs = backend::input_bytes(&model, &samples, index)?;
        let tensors = backend::frame(&model, sim.as_mut(), &inputs)?;
        let outputs =
            model.outputs().filter_map(|(id, _)| Some(tensors.0.iter().rev().find(|(i, _)| *i == id)?.1.clone()));
        Ok(inputs.iter().cloned().chain(outputs).collect::<Vec<_>>().concat())
    };
    (0..args.self_test_samples.min(samples.len())).map(vector).collect()
}
