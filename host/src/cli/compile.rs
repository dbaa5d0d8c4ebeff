//! `shiftwise compile`.

use std::path::PathBuf;

use serde_json::json;
use shiftwise::compile::{self, CpuOptions, DpuOptions, Engine, Program};
use shiftwise::eval::Samples;
use shiftwise::format::{self, Model};
use shiftwise::integer::IntGraph;
use shiftwise::{Error, lower};
use shiftwise_core::model::Deployable;
use shiftwise_core::target::Target;
use shiftwise_sim::{Costs, CycleReport, SimDpu};

use super::backend;
use super::data::{ModelArgs, Preprocess};
use super::screen::{Screen, bytes, count};
use super::{Outcome, data, targets};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    /// Store these samples with their results in the deployable
    #[arg(long, value_name = "DATA")]
    self_test: Vec<String>,
    /// Samples to store of --self-test
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = super::positive())]
    self_test_samples: usize,
    #[command(flatten)]
    preprocess: Preprocess,
}

/// What to compile for.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Place {
    /// DPU: a name, a fingerprint, an arch.json; or `cpu`
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Board: its DPU, or its CPU where it has none
    #[arg(long, value_name = "BOARD")]
    board: Option<String>,
}

/// A DPU at a clock.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) target: Target,
    pub(super) clock_mhz: u32,
}

impl Place {
    /// The DPU; `None` for the CPU.
    fn device(&self) -> Result<Option<Device>, Error> {
        match (self.target.as_deref(), self.board.as_deref()) {
            (Some("cpu"), _) => Ok(None),
            (Some(name), _) => device(name).map(Some),
            (None, Some(board)) => board_device(board),
            (None, None) => Err(Error::Options("--target or --board is needed".into())),
        }
    }
}

/// A DPU by name, at its own clock.
pub(super) fn device(name: &str) -> Result<Device, Error> {
    let target = targets::find(name)?;
    Ok(Device { clock_mhz: target.clock_mhz, target })
}

/// A board's DPU; `None` if it has none.
pub(super) fn board_device(name: &str) -> Result<Option<Device>, Error> {
    let plain = name.strip_prefix("qemu:").unwrap_or(name);
    let board = shiftwise_targets::find_board(plain)
        .or_else(|e| shiftwise_targets::find_board(&format!("qemu-{plain}")).map_err(|_| e))
        .map_err(|e| Error::Target(e.to_string()))?;
    let with_clock = |dpu: &String| Ok(Device { clock_mhz: board.clock_mhz, ..device(dpu)? });
    board.dpu.as_ref().map(with_clock).transpose()
}

/// Compiles for a DPU, or for the CPU alone.
pub(super) fn program(graph: &IntGraph, device: Option<&Device>, strict: bool) -> Result<Program, Error> {
    match device {
        Some(d) => compile::dpu(graph, &d.target, &DpuOptions { strict, ..DpuOptions::default() }),
        None => compile::cpu(graph, &CpuOptions::default()),
    }
}

/// A simulator of a device.
pub(super) fn simulator(device: &Device) -> Result<SimDpu, Error> {
    SimDpu::new(device.target.clone(), device.clock_mhz, Costs::default()).map_err(|e| Error::Target(e.to_string()))
}

/// Cycles of one frame; they don't depend on the data.
fn cycles(model: &Deployable<'_>, device: &Device) -> Result<CycleReport, Error> {
    let mut sim = simulator(device)?;
    shiftwise_sim::time(model, &mut sim).map_err(|e| Error::Compile(e.to_string()))?;
    Ok(sim.report(model))
}

pub(super) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let tests = data::files(&args.self_test);
    let inputs = || std::iter::once(&args.model.path).chain(&tests).map(PathBuf::as_path);
    data::keep(inputs(), &[&args.output])?;
    if let Some(listing) = &args.listing {
        data::keep(inputs(), &[listing])?;
        if *listing == args.output {
            return Err(Error::Options(format!("--listing and --output are both {}", listing.display())));
        }
    }
    let Model::Quantized(quantized) = args.model.open()? else {
        return Err(Error::wrong_kind(&args.model.path, "is a float model, a quantized one is expected"));
    };
    let device = args.place.device()?;
    let graph = lower::lower(&quantized)?;
    let program = program(&graph, device.as_ref(), args.strict)?;
    let mut file = program.to_bytes(&[])?;
    if !args.self_test.is_empty() {
        let vectors = self_test(args, &file)?;
        file = program.to_bytes(&vectors)?;
    }
    let model = backend::parse(&args.output, &file)?;
    let report = device.as_ref().map(|d| cycles(&model, d)).transpose()?;
    format::write_file(&args.output, &file)?;
    if let Some(path) = &args.listing {
        format::write_file(path, super::machine_code::listing(&model)?.as_bytes())?;
    }

    table(&program, report.as_ref(), screen);
    let reasons: Vec<_> = program.layers.iter().filter_map(|l| Some((l, l.reason.as_ref()?))).collect();
    if !reasons.is_empty() && device.is_some() {
        screen.say("");
        reasons.iter().for_each(|(l, why)| screen.say(format!("on the CPU: {}: {why}", l.layer)));
    }
    let m = &program.memory;
    screen.say("");
    screen.say(format!(
        "RAM {}: workspace {}, inputs {}, outputs {}; constants {}, code {}",
        bytes(m.ram_bytes()),
        bytes(m.workspace_bytes.into()),
        bytes(m.input_bytes.into()),
        bytes(m.output_bytes.into()),
        bytes(program.constants.len() as u64),
        bytes(program.code.len() as u64),
    ));
    if let Some(r) = &report {
        screen.say(format!(
            "{} cycles, {:.1} µs at {} MHz, {:.0} % of the array's peak (constants of the cycle model are not calibrated yet)",
            count(r.cycles),
            r.latency_us,
            r.clock_mhz,
            100.0 * r.utilisation
        ));
    }
    screen.say(format!("{} for {}, {}", args.output.display(), program.target, bytes(file.len() as u64)));
    let json = json!({
        "output": args.output, "target": program.target, "layers": program.layers, "cycles": report,
        "memory": {
            "workspace_bytes": m.workspace_bytes, "input_bytes": m.input_bytes, "output_bytes": m.output_bytes,
            "ram_bytes": m.ram_bytes(), "constant_bytes": program.constants.len(), "code_bytes": program.code.len(),
        },
    });
    Outcome::done(json)
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

fn table(program: &Program, report: Option<&CycleReport>, screen: &Screen) {
    let mut header = vec!["layer", "op", "on", "MACs", "weights"];
    if report.is_some() {
        header.extend(["instructions", "loads", "saves", "cycles", "peak", "bound"]);
    }
    let rows: Vec<Vec<String>> = program
        .layers
        .iter()
        .filter(|l| l.engine != Engine::View)
        .map(|l| {
            let on = match l.engine {
                Engine::Conv => "CONV",
                Engine::Misc => "MISC",
                Engine::Cpu => "CPU",
                Engine::View => "",
            };
            let mut row = vec![l.layer.clone(), l.op.into(), on.into(), count(l.macs), bytes(l.constant_bytes)];
            if let Some(r) = report {
                let step = l.step.and_then(|s| u16::try_from(s).ok());
                row.extend([l.instructions.to_string(), bytes(l.load_bytes), bytes(l.save_bytes)]);
                match r.layers.iter().find(|c| c.layer == l.layer && Some(c.step) == step) {
                    Some(c) => {
                        let e = &c.engines;
                        let busy = [("load", e.load), ("save", e.save), ("conv", e.conv), ("misc", e.misc)];
                        let bound = busy.into_iter().max_by_key(|(_, cycles)| *cycles).map_or("", |(name, _)| name);
                        row.extend([count(c.cycles), format!("{:.0} %", 100.0 * c.utilisation), bound.into()]);
                    }
                    None => row.extend(["-".into(), "-".into(), "-".into()]),
                }
            }
            row
        })
        .collect();
    screen.table(&header, 3, &rows);
}
