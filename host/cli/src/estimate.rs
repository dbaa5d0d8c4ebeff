//! `shiftwise estimate`: how fast a network will be, before data and training.

use std::path::PathBuf;

use serde_json::{Value, json};
use shiftwise::device::Device;
use shiftwise_compile::{self as compile, DpuOptions, Engine, LayerRow, Program};
use shiftwise_core::model::Deployable;
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_integer::lower;
use shiftwise_quant::pipeline as quantize;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::CycleReport;
use shiftwise_sim::report::LayerCycles;

use crate::command::Outcome;
use crate::data::ModelArgs;
use crate::screen::{Screen, bytes, count};
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
    let quantized = match args.model.open_for_timing(screen)? {
        Model::Quantized(quantized) => quantized,
        Model::Float(graph) => quantize::without_data(graph, &Strategy::built_in("pof2s")?)?,
    };
    let graph = lower::lower(&quantized)?;
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    let program = compile::dpu(&graph, &device.target, &options)?;
    let file = program.to_bytes(&[])?;
    let model = Deployable::parse(&file).map_err(|e| Error::Compile(e.to_string()))?;
    let times = Times::of(&model, &device)?;
    if let Some(path) = &args.trace {
        crate::data::keep(args.model.files().map(PathBuf::as_path), &[path])?;
        shiftwise_formats::write_file(path, times.trace.as_bytes())?;
    }

    table(&program, &times.report, screen);
    let macs: u64 = program.layers.iter().map(|l| l.macs).sum();
    let gops = 2.0 * macs as f64 / 1e9;
    fallbacks(&program, screen);
    screen.say("");
    screen.say(format!("{} multiply-accumulates, {gops:.3} GOP; {} for the DPU", count(macs), memory(&program)));
    times.say(&device, screen);
    let layers: Vec<Value> = program.layers.iter().filter_map(|l| layer_json(l, &times.report)).collect();
    let cpu_us: f64 = program.layers.iter().filter_map(|l| l.cpu_us).sum();
    Outcome::done(json!({
        "model": program.name,
        "target": device.target.name.as_str(),
        "clock_mhz": device.clock_mhz,
        "cores": device.cores,
        "macs": macs,
        "gops": gops,
        "dpu_cycles": times.report.cycles,
        "dpu_latency_us": times.report.latency_us,
        "fps_one_core_busy": times.fps_one_core_busy,
        "fps_all_cores": times.fps_all_cores,
        "error_band_percent": times.error_band_percent,
        "utilization": times.report.utilization,
        "bytes_in": times.report.bytes_in,
        "bytes_out": times.report.bytes_out,
        "cpu_us": cpu_us,
        "subgraphs": model.steps().filter(|s| matches!(s, shiftwise_core::model::Step::Dpu(_))).count(),
        "memory": memory_json(&program),
        "layers": layers,
    }))
}

/// What a device makes of a program.
pub(crate) struct Times {
    pub(crate) report: CycleReport,
    /// The timeline, as JSON.
    trace: String,
    fps_one_core_busy: f64,
    fps_all_cores: f64,
    /// `None` where no measurement calibrates the model.
    error_band_percent: Option<f64>,
}

impl Times {
    /// Cycles of one frame, and of frames one after the other on all cores; neither depends on data.
    pub(crate) fn of(model: &Deployable<'_>, device: &Device) -> Result<Self, Error> {
        let failed = |e: shiftwise_sim::Error| Error::Compile(e.to_string());
        let mut sim = device.simulator()?;
        shiftwise_sim::time(model, &mut sim).map_err(failed)?;
        let (report, trace) = (sim.report(model), sim.chrome_trace(model));
        let prepared = shiftwise_sim::Prepared::new(model, &mut sim).map_err(failed)?;
        let costs = device.costs()?;
        let fps = |cores: u32| -> Result<f64, Error> {
            let cycles = prepared.cycles(&costs, device.clock_mhz, cores, device.ddr_mb_per_s).map_err(failed)?;
            Ok(if cycles > 0.0 { f64::from(device.clock_mhz) * 1e6 / cycles * f64::from(cores) } else { 0.0 })
        };
        let one = fps(1)?;
        let all = if device.cores > 1 { fps(device.cores)? } else { one };
        Ok(Self {
            report,
            trace,
            fps_one_core_busy: one,
            fps_all_cores: all,
            error_band_percent: device.timing.as_ref().map(|t| t.error_band_percent),
        })
    }

    pub(crate) fn say(&self, device: &Device, screen: &Screen) {
        let r = &self.report;
        screen.say(format!(
            "{} cycles, {:.1} µs at {} MHz, {:.0} % of the array's peak; {} loaded, {} saved",
            count(r.cycles),
            r.latency_us,
            r.clock_mhz,
            100.0 * r.utilization,
            bytes(r.bytes_in),
            bytes(r.bytes_out),
        ));
        let e = &r.engines;
        let busy = [("load", e.load), ("save", e.save), ("conv", e.conv), ("misc", e.misc)];
        let share = |cycles: u64| 100.0 * cycles as f64 / r.cycles.max(1) as f64;
        let busy: Vec<String> = busy.iter().map(|(name, c)| format!("{name} {:.0} %", share(*c))).collect();
        screen.say(format!("engines busy: {}", busy.join(", ")));
        let cores = match device.cores {
            1 => String::new(),
            n => format!(", {:.1} on {n} cores that share the memory", self.fps_all_cores),
        };
        screen.say(format!("{:.1} frames per second on one busy core{cores}", self.fps_one_core_busy));
        screen.say(match self.error_band_percent {
            Some(band) => format!("cycle model: 9 of 10 networks it was not fitted to were within {band:.0} %"),
            None => "cycle model: no measurement calibrates it for this DPU".into(),
        });
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "fps_one_core_busy": self.fps_one_core_busy, "fps_all_cores": self.fps_all_cores,
            "error_band_percent": self.error_band_percent,
        })
    }
}

fn cycles_of<'r>(row: &LayerRow, report: &'r CycleReport) -> Option<&'r LayerCycles> {
    let step = row.step.and_then(|s| u16::try_from(s).ok())?;
    report.layers.iter().find(|c| c.layer == row.layer && c.step == step)
}

/// One layer for scripts; `None` for views, which nobody executes.
fn layer_json(row: &LayerRow, report: &CycleReport) -> Option<Value> {
    if row.engine == Engine::View {
        return None;
    }
    let mut json = json!({ "layer": row.layer, "op": row.op, "engine": row.engine, "macs": row.macs });
    if let Some(c) = cycles_of(row, report) {
        json["cycles"] = json!(c.cycles);
        json["bytes"] = json!(c.bytes_in + c.bytes_out);
        json["bytes_weights"] = json!(c.bytes_constants);
        json["bytes_in"] = json!(c.bytes_in);
        json["bytes_out"] = json!(c.bytes_out);
        json["utilization"] = json!(c.utilization);
        json["bound"] = json!(c.bound);
        json["instructions"] = json!(c.instructions);
        json["tiles"] = json!(row.tiles);
        json["bytes_kept"] = json!(row.kept_bytes);
    }
    if let Some(reason) = &row.reason {
        json["reason"] = json!(reason);
    }
    if let Some(us) = row.cpu_us {
        json["cpu_us"] = json!(us);
    }
    Some(json)
}

/// Layers with their cycles, bytes and bounds.
pub(crate) fn table(program: &Program, report: &CycleReport, screen: &Screen) {
    let header =
        ["layer", "op", "on", "bound", "MACs", "cycles", "peak", "weights", "maps in", "maps out", "instructions"];
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
            let mut row = vec![l.layer.clone(), l.op.clone(), on.into()];
            match (cycles_of(l, report), l.cpu_us) {
                (Some(c), _) => row.extend([
                    c.bound.name().into(),
                    count(l.macs),
                    count(c.cycles),
                    format!("{:.0} %", 100.0 * c.utilization),
                    bytes(c.bytes_constants),
                    bytes(c.bytes_in - c.bytes_constants),
                    bytes(c.bytes_out),
                    c.instructions.to_string(),
                ]),
                (None, us) => row.extend([
                    String::new(),
                    count(l.macs),
                    us.map_or_else(|| "-".into(), |us| format!("~{us:.0} µs")),
                    "-".into(),
                    bytes(l.constant_bytes),
                    "-".into(),
                    "-".into(),
                    "-".into(),
                ]),
            }
            row
        })
        .collect();
    screen.table(&header, 4, &rows);
}

/// Why layers are on the CPU and what that costs.
pub(crate) fn fallbacks(program: &Program, screen: &Screen) {
    let mut any = false;
    for l in &program.layers {
        if let (Some(why), Some(us)) = (&l.reason, l.cpu_us) {
            if !any {
                screen.say("");
            }
            any = true;
            screen.say(format!("on the CPU, about {us:.0} µs: {}: {why}", l.layer));
        }
    }
}

/// The memory map in words.
pub(crate) fn memory(program: &Program) -> String {
    let m = &program.memory;
    format!(
        "RAM {}: workspace {}, inputs {}, outputs {}; constants {}, code {}",
        bytes(m.ram_bytes()),
        bytes(m.workspace_bytes.into()),
        bytes(m.input_bytes.into()),
        bytes(m.output_bytes.into()),
        bytes(program.constants.len() as u64),
        bytes(program.code.len() as u64),
    )
}

pub(crate) fn memory_json(program: &Program) -> Value {
    let m = &program.memory;
    json!({
        "workspace_bytes": m.workspace_bytes, "input_bytes": m.input_bytes, "output_bytes": m.output_bytes,
        "ram_bytes": m.ram_bytes(), "constant_bytes": program.constants.len(), "code_bytes": program.code.len(),
    })
}
