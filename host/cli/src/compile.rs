//! `shiftwise compile`.

use std::path::PathBuf;

use shiftwise::averages::{recorded, rows};
use shiftwise::build::{Compiled, OnCpu, check_grids, program};
use shiftwise::device::Device;
use shiftwise::estimate::Times;
use shiftwise::memory::Memory;
use shiftwise::reports::{Fallback, NotPlaced};
use shiftwise::{run, vendor_file};
use shiftwise_compile::{DpuOptions, Program};
use shiftwise_formats::Model;
use shiftwise_formats::files;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::lower;

use crate::averages;
use crate::data::{ModelArgs, Preprocess};
use crate::outcome::Outcome;
use crate::screen::{Screen, bytes};
use crate::target_args::TargetArgs;
use crate::{data, footprint, layer_table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Deployable to write
    #[arg(short, long, value_name = "FILE.swm")]
    output: PathBuf,
    /// What the file is: a deployable of ours, or a program for a DPU as the vendor's runtime loads it
    #[arg(long, value_enum, default_value_t = Format::Swm, value_name = "swm|xmodel")]
    format: Format,
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
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = crate::outcome::positive())]
    self_test_samples: usize,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A deployable.
    Swm,
    /// A program in the vendor's format.
    Xmodel,
}

impl Args {
    /// Refuses what a format has no place for.
    fn check_format(&self, device: Option<&Device>) -> Result<(), Error> {
        match self.format {
            Format::Swm => Ok(()),
            Format::Xmodel if device.is_none() => {
                Err(Error::Target("an xmodel is a program for a DPU; name one, or a board that has one".into()))
            }
            Format::Xmodel if !self.self_test.is_empty() => {
                Err(Error::Options("--self-test is stored in .swm files; an xmodel has no place for it".into()))
            }
            Format::Xmodel => Ok(()),
        }
    }
}

/// Refuses to write over what is read, or one file over the other.
fn keep_inputs(args: &Args) -> Result<(), Error> {
    let tests = data::files(&args.self_test);
    let inputs = || args.model.files().chain(&tests).map(PathBuf::as_path);
    data::keep(inputs(), &[&args.output])?;
    let Some(listing) = &args.listing else { return Ok(()) };
    data::keep(inputs(), &[listing])?;
    if *listing == args.output {
        return Err(Error::Options(format!("--listing and --output are both {}", listing.display())));
    }
    Ok(())
}

/// With `--strict`, what is answered for a network that the DPU does not do as a whole.
fn refused(args: &Args, graph: &IntGraph, device: Option<&Device>, screen: &Screen) -> Result<Option<Outcome>, Error> {
    let Some(device) = device.filter(|_| args.strict) else { return Ok(None) };
    let placement = shiftwise_compile::place(graph, &device.target, &DpuOptions::default())?;
    let on_cpu = Fallback::all(&placement);
    if on_cpu.is_empty() {
        return Ok(None);
    }
    for Fallback { layer, reason } in &on_cpu {
        screen.say(format!("not on the DPU: {layer}: {reason}"));
    }
    let target = device.target.name.to_string();
    screen.say(format!("{} does not run on {target} as a whole: nothing is written", args.model.path.display()));
    Outcome::of(NotPlaced { target, on_cpu }, false).map(Some)
}

/// The program, of which an `.xmodel` takes places and times only.
fn built(args: &Args, graph: &IntGraph, device: Option<&Device>) -> Result<Program, Error> {
    match (args.format, device) {
        // The vendor's runtime computes on the CPU what our deployables have no kernel for.
        (Format::Xmodel, Some(device)) => {
            let options =
                DpuOptions { strict: args.strict, observe: !args.fast, timing_only: true, ..DpuOptions::default() };
            shiftwise_compile::dpu(graph, &device.target, &options)
        }
        (Format::Xmodel, None) | (Format::Swm, _) => program(graph, device, args.strict, !args.fast),
    }
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    keep_inputs(args)?;
    let Model::Quantized(quantized) = args.model.open(screen)? else {
        return Err(Error::wrong_kind(&args.model.path, "is a float model, a quantized one is expected"));
    };
    let device = args.target.device()?;
    args.check_format(device.as_ref())?;
    check_grids(&quantized)?;
    let graph = lower::lower(&quantized)?;
    let differences = recorded(&args.model.path, &quantized, &graph);
    averages::tell(&differences, screen);
    if let Some(answer) = refused(args, &graph, device.as_ref(), screen)? {
        return Ok(answer);
    }
    let mut program = built(args, &graph, device.as_ref())?;
    program.metadata = quantized.metadata.to_text();
    let mut file = program.to_bytes(&[])?;
    if !args.self_test.is_empty() {
        let vectors = self_test(args, &file, screen)?;
        file = program.to_bytes(&vectors)?;
    }
    let model = run::parse(&args.output, &file)?;
    let times = device.as_ref().map(|d| Ok::<_, Error>((d, Times::of(&model, d)?))).transpose()?;
    program
        .check(&model)
        .map_err(|why| Error::Compile(format!("the deployable does not say what was compiled: {why}")))?;
    let listing = args.listing.as_ref().map(|path| Ok::<_, Error>((path, shiftwise::listing::listing(&model)?)));
    let listing = listing.transpose()?;
    let vendors = device.as_ref().filter(|_| args.format == Format::Xmodel);
    let vendors = vendors.map(|device| vendor_file::write(&graph, device, !args.fast)).transpose()?;
    let written = vendors.as_ref().unwrap_or(&file);
    // The listing comes last, so that it never stands beside code that it does not belong to.
    let listing = listing.iter().map(|(path, text)| (path.as_path(), text.as_bytes()));
    files::write_files(
        &std::iter::once((args.output.as_path(), written.as_slice())).chain(listing).collect::<Vec<_>>(),
    )?;

    // Only the CPU's memory is planned here: a DPU's board has its own, of gigabytes.
    let board = if device.is_none() { args.target.board()? } else { None };
    let on_cpu = times.is_none().then(|| OnCpu::of(&program, &model, board.as_ref()));
    if let Some((_, times)) = &times {
        layer_table::table(&program, &times.report, screen);
        layer_table::fallbacks(&program, screen);
    }
    if let Some(on_cpu) = &on_cpu {
        footprint::table(&program, on_cpu, screen);
    }
    screen.say("");
    screen.say(layer_table::memory(&program));
    if let Some((device, times)) = &times {
        layer_table::say(&program, times, device, screen);
    }
    if let Some(on_cpu) = &on_cpu {
        footprint::say(on_cpu, board.as_ref(), None, screen);
    }
    screen.say(format!("{} for {}, {}", args.output.display(), program.target, bytes(written.len() as u64)));
    let report = Compiled {
        output: args.output.clone(),
        target: program.target.to_string(),
        memory: Memory::of(&program),
        footprint: on_cpu.as_ref().map(|c| c.report(&program)),
        speed: times.as_ref().map(|(_, t)| t.speed),
        cycles: times.map(|(_, t)| t.report),
        layers: program.layers,
        averages: rows(&differences),
    };
    let fits = on_cpu.and_then(|c| c.footprint).is_none_or(|f| f.fits());
    Outcome::of(report, fits)
}

/// Inputs and outputs of the first samples, computed by the program itself.
fn self_test(args: &Args, file: &[u8], screen: &Screen) -> Result<Vec<Vec<u8>>, Error> {
    let model = run::parse(&args.output, file)?;
    let samples = args.preprocess.for_deployable(&args.self_test, &model, screen)?;
    let device = args.target.device()?;
    let mut sim = device.as_ref().map(Device::simulator).transpose()?;
    let vector = |index| {
        let inputs = run::input_bytes(&model, &samples, index)?;
        let tensors = run::frame(&model, sim.as_mut(), &inputs)?;
        let outputs =
            model.outputs().filter_map(|(id, _)| Some(tensors.0.iter().rev().find(|(i, _)| *i == id)?.1.clone()));
        Ok(inputs.iter().cloned().chain(outputs).collect::<Vec<_>>().concat())
    };
    (0..args.self_test_samples.min(samples.len())).map(vector).collect()
}
