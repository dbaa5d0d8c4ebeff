//! `shiftwise estimate`: how fast a network will be, before data and training.

use std::path::PathBuf;

use shiftwise::estimate::estimate;
use shiftwise_graph::error::Error;
use shiftwise_integer::lower;

use crate::data::ModelArgs;
use crate::layer_table;
use crate::outcome::Outcome;
use crate::screen::{Screen, count};
use crate::target_args::TargetArgs;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Clock of the DPU's general logic, such as 300MHz [default: the board's or target's]
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
    let Some(mut device) = args.target.device()? else {
        return Err(Error::Target("there is no DPU, so there is no time to estimate; name a DPU or a board".into()));
    };
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
