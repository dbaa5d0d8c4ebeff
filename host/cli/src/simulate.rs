//! `shiftwise simulate`.

use std::path::PathBuf;
use std::sync::Mutex;

use shiftwise::device::Device;
use shiftwise::dump::Dump;
use shiftwise::outputs::add_outputs;
use shiftwise::simulate::{self, GoldenCheck, Simulated, Simulation, simulate};
use shiftwise::{cost, dump, run};
use shiftwise_core::model::MAGIC;
use shiftwise_formats as format;
use shiftwise_formats::files::Set;
use shiftwise_graph::error::Error;
use shiftwise_graph::eval::Samples;
use shiftwise_sim::CycleReport;

use crate::data;
use crate::data::Preprocess;
use crate::outcome::{Outcome, pretty, to_json};
use crate::screen::{Screen, bytes, count};

mod xmodel;

/// The report's file.
const CYCLES: &str = "cycles.json";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compiled model: ours (.swm), or the vendor's (.xmodel)
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Data: .npy, .npz[:key], a folder of .npy or of images; [NAME=]DATA, once per input
    #[arg(long, required = true, value_name = "DATA")]
    data: Vec<String>,
    /// Folder for outputs, dump and cycles.json
    #[arg(long, default_value = "sim_results", value_name = "DIR")]
    output_dir: PathBuf,
    /// Compare every tensor with this dump; exit with 1 at any difference
    #[arg(long, value_name = "DUMP_DIR")]
    golden: Option<PathBuf>,
    /// Of an .xmodel: the quantized graph it was compiled from (.xmodel or quantized.h5); every tensor that both have is
    /// compared, exit with 1 at any difference
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,
    /// Values only, in program order: no tokens, no cycles
    #[arg(long, conflicts_with_all = ["trace", "clock"])]
    functional: bool,
    /// Timeline for Perfetto or chrome://tracing, of the first sample
    #[arg(long, value_name = "trace.json")]
    trace: Option<PathBuf>,
    /// Clock of the DPU's general logic, such as 300MHz [default: the target's]
    #[arg(long, value_name = "CLOCK", value_parser = shiftwise::device::clock)]
    clock: Option<u32>,
    /// Samples to run, from the first
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = crate::outcome::positive())]
    samples: usize,
    #[command(flatten)]
    custom: data::Custom,
    #[command(flatten)]
    pub(crate) preprocess: Preprocess,
}

pub(crate) fn run(args: &Args, screen: &Screen) -> Result<Outcome, Error> {
    let file = std::fs::read(&args.model).map_err(Error::io(&args.model))?;
    if !file.starts_with(&MAGIC) && shiftwise_xmodel::is_xmodel(&file) {
        return xmodel::run(args, &file, screen);
    }
    if args.graph.is_some() {
        return Err(Error::Options("--graph is for .xmodel files; --golden compares with a dump".into()));
    }
    let model = run::parse(&args.model, &file)?;
    let inputs = [&args.model].into_iter().chain(&args.golden).map(PathBuf::as_path);
    data::keep(inputs, &args.trace.iter().chain([&args.output_dir]).map(PathBuf::as_path).collect::<Vec<_>>())?;
    // Read before the work, so that a wrong name doesn't cost it.
    let golden = args.golden.as_deref().map(|dir| dump::read_with(dir, &simulate::types(&model))).transpose()?;
    let target = run::target_of(&model)?;
    let device = target.map(|target| Device::new(target, args.clock));
    if let Some(device) = device.as_ref().filter(|_| !args.functional) {
        run::check_order(&model, &device.target)?;
    }
    cost::deployable(&model, device.as_ref().map(|d| &d.target))?;
    let samples = args.preprocess.for_deployable(&args.data, &model, screen)?;
    let n = args.samples.clamp(1, samples.len().max(1));

    let progress = screen.progress("simulating", "samples", n);
    let progress = Mutex::new((progress, 0));
    let Simulated { tensors, sim } = simulate(&model, device.as_ref(), &samples, (n, args.functional), &|| {
        if let Ok(mut progress) = progress.lock() {
            let (bar, done) = &mut *progress;
            *done += 1;
            bar.set(*done);
        }
    })?;
    drop(progress);
    let cycles = sim.as_ref().map(|sim| sim.report(&model));
    if let (Some(path), Some(sim)) = (&args.trace, &sim) {
        format::write_file(path, sim.chrome_trace(&model).as_bytes())?;
    }
    let dump = Dump { weights: Vec::new(), activations: run::to_dump(&model, &tensors) };
    let mut set = Set::new(&args.output_dir, dump::MANIFEST)?;
    dump::add(&mut set, &dump, true)?;
    add_outputs(&mut set, &model, &tensors)?;
    if let Some(cycles) = &cycles {
        set.add(CYCLES, pretty(&to_json(cycles)?).as_bytes())?;
    }
    set.commit(serde_json::Map::new())?;
    if let Some(cycles) = &cycles {
        say_cycles(cycles, screen);
    }
    let what = if n == 1 { "1 sample".into() } else { format!("{n} samples") };
    let by = if device.is_some() { "the DPU's simulator" } else { "the kernels of the CPU" };
    screen.say(format!("{what} through {by}; outputs and all tensors in {}", args.output_dir.display()));
    let mut report = Simulation { output_dir: args.output_dir.clone(), samples: n, cycles, golden: None };
    let mut yes = true;
    if let Some(golden) = golden {
        let golden = Dump { weights: Vec::new(), activations: golden.activations };
        let compared = dump::compare(&golden, &dump);
        yes = compared.is_equal();
        if let Some(d) = compared.differences.first() {
            let of = (&model, device.as_ref(), &samples as &dyn Samples);
            let first = simulate::first_difference(of, d)?;
            screen.say(first.words);
            first.why.iter().for_each(|why| screen.lines(why));
        }
        screen.lines(compared.to_string());
        report.golden = Some(GoldenCheck::of(&compared));
    }
    Outcome::of(report, yes)
}

/// The end of a long name: what its beginning says is mostly said by the others too.
fn shortened(name: &str) -> String {
    const MOST: usize = 60;
    match name.chars().count() {
        n if n > MOST => name.chars().skip(n - MOST + 1).fold("…".to_owned(), |text, c| format!("{text}{c}")),
        _ => name.to_owned(),
    }
}

/// A table of layers and the sum.
fn say_cycles(report: &CycleReport, screen: &Screen) {
    let e = &report.engines;
    let rows: Vec<Vec<String>> = report
        .layers
        .iter()
        .map(|l| {
            let numbers = [l.macs, l.cycles, l.engines.load, l.engines.save, l.engines.conv, l.engines.misc];
            let mut row = vec![shortened(&l.layer), l.bound.name().into()];
            row.extend(numbers.map(count));
            row.push(format!("{:.0} %", 100.0 * l.utilization));
            row.extend([l.bytes_constants, l.bytes_in - l.bytes_constants, l.bytes_out].map(bytes));
            row
        })
        .collect();
    let header =
        ["layer", "bound", "MACs", "cycles", "load", "save", "conv", "misc", "peak", "weights", "maps in", "maps out"];
    screen.table(&header, 2, &rows);
    screen.say("");
    screen.say(format!(
        "{} cycles, {:.1} µs at {} MHz; busy: load {}, save {}, conv {}, misc {}",
        count(report.cycles),
        report.latency_us,
        report.clock_mhz,
        count(e.load),
        count(e.save),
        count(e.conv),
        count(e.misc)
    ));
    if let Some(timing) = shiftwise_targets::named(&report.target).ok().and_then(|t| shiftwise_targets::timing::of(&t))
    {
        let band = timing.error_band_percent;
        screen.say(format!("cycle model: 9 of 10 networks it was not fitted to were within {band:.0} %"));
    }
}
