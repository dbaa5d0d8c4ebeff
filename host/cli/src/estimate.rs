//! `shiftwise estimate`: how fast a network will be, before data and training.

use std::path::PathBuf;

use shiftwise::estimate::{estimate, estimate_cpu};
use shiftwise_graph::error::Error;
use shiftwise_integer::lower;

use crate::data::ModelArgs;
use crate::outcome::Outcome;
use crate::screen::{Screen, count};
use crate::target_args::TargetArgs;
use crate::{footprint, layer_table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Clock of the DPU's general logic, or of a board's processor, such as 300MHz [default: the board's or target's]
    #[arg(long, value_name = "CLOCK", value_parser = shiftwise::device::clock)]
    clock: Option<u32>,
    /// DPU cores that share the memory [default: the board's, or 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    cores: Option<u32>,
    /// Timeline for Perfetto or chrome://tracing
    #[arg(long, value_name = "trace.json")]
    trace: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let Some(mut device) = args.target.device()? else { return on_cpu(args, screen) };
    device.clock_mhz = args.clock.unwrap_or(device.clock_mhz);
    device.cores = args.cores.unwrap_or(device.cores);
    let (quantized, note) = shiftwise::estimate::timed(args.model.open_for_timing(screen)?)?;
    note.iter().for_each(|note| screen.note(note));
    let estimated = estimate(&lower::lower(&quantized)?, &device)?;
    let (program, times) = (&estimated.program, &estimated.times);
    if let Some(path) = &args.trace {
        crate::data::keep(args.model.files().map(PathBuf::as_path), &[path])?;
        shiftwise_formats::write_file(path, times.trace.as_bytes())?;
    }

    layer_table::table(program, &times.report, screen);
    let (macs, gops) = (estimated.macs(), estimated.gops());
    layer_table::fallbacks(program, screen);
    screen.say("");
    let memory = layer_table::memory(program);
    screen.say(format!("{} multiply-accumulates, {gops:.3} GOP; {memory} for the DPU", count(macs)));
    layer_table::say(program, times, &device, screen);
    Outcome::done(estimated.report(&device))
}

/// What a network takes of a CPU, on a board or on any.
fn on_cpu(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let board = args.target.board()?;
    let clocked = board.as_ref().is_some_and(|board| board.processor.is_some());
    let given = [
        ("--clock", args.clock.is_some() && !clocked),
        ("--cores", args.cores.is_some()),
        ("--trace", args.trace.is_some()),
    ];
    if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
        return Err(Error::Options(format!(
            "{option}: there is no DPU, which alone has a timeline; name a DPU or its board"
        )));
    }
    let (quantized, note) = shiftwise::estimate::timed(args.model.open_for_timing(screen)?)?;
    note.iter().for_each(|note| screen.note(note));
    let estimated = estimate_cpu(&lower::lower(&quantized)?, board.as_ref())?;
    footprint::table(&estimated.program, &estimated.on_cpu, screen);
    screen.say("");
    let report = estimated.report(board.as_ref(), args.clock);
    let memory = layer_table::memory(&estimated.program);
    screen.say(format!("{} multiply-accumulates, {:.3} GOP; {memory}", count(report.macs), report.gops));
    footprint::say(&estimated.on_cpu, board.as_ref(), args.clock, screen);
    Outcome::done(report)
}
