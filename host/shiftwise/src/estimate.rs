//! How fast a network will be on a DPU, and how large on a CPU, before data and training.

use serde::Serialize;
use shiftwise_compile::{self as compile, CpuOptions, DpuOptions, Engine, LayerRow, Program};
use shiftwise_core::model::{Deployable, Step};
use shiftwise_formats::Model;
use shiftwise_graph::error::Error;
use shiftwise_graph::graph::Graph;
use shiftwise_graph::ops::Op;
use shiftwise_integer::graph::IntGraph;
use shiftwise_integer::unquantized;
use shiftwise_quant::pipeline::without_data;
use shiftwise_quant::quant_graph::QuantGraph;
use shiftwise_quant::strategy::Strategy;
use shiftwise_sim::CycleReport;
use shiftwise_sim::report::{Bound, LayerCycles};
use shiftwise_targets::Board;

use crate::build::{CpuMemory, OnCpu};
use crate::device::Device;
use crate::memory::Memory;
use crate::speed::Speed;

/// The network whose time stands for a model's: itself if it is quantized to integers, else in `pof2s`, with positions that
/// mean nothing. Also returns what the user should know about that.
///
/// Errors: those of the passes.
pub fn timed(model: Model) -> Result<(QuantGraph, Option<String>), Error> {
    let (graph, grids) = match model {
        Model::Float(graph) => (graph, Vec::new()),
        Model::Quantized(quantized) => {
            let grids = unquantized::grids(&quantized);
            if grids.is_empty() {
                return Ok((quantized, None));
            }
            (without_quantizers(quantized.graph)?, grids)
        }
    };
    let layers: usize = grids.iter().map(|grid| grid.layers.len()).sum();
    let first = grids.first().map(|grid| format!("{layers} layers: {}; timed as if quantized by `pof2s`", grid.reason));
    Ok((without_data(graph, &Strategy::built_in("pof2s")?)?, first))
}

/// A graph without the nodes that quantize.
fn without_quantizers(mut graph: Graph) -> Result<Graph, Error> {
    for id in graph.ids().filter(|id| matches!(graph.node(*id).op, Op::Quantize(_))).collect::<Vec<_>>() {
        graph.remove(id);
    }
    graph.normalize();
    graph.verify()?;
    Ok(graph)
}

/// What a device makes of a program.
#[derive(Clone, Debug)]
pub struct Times {
    /// Cycles of one frame.
    pub report: CycleReport,
    /// The timeline, as JSON.
    pub trace: String,
    /// Frames per second.
    pub speed: Speed,
}

impl Times {
    /// Cycles of one frame, and of frames one after the other on all cores; neither depends on data.
    ///
    /// Errors: [`Error::Compile`], [`Error::Target`].
    pub fn of(model: &Deployable<'_>, device: &Device) -> Result<Self, Error> {
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
        let error_band_percent = device.timing.as_ref().map(|t| t.error_band_percent);
        Ok(Self { report, trace, speed: Speed { fps_one_core_busy: one, fps_all_cores: all, error_band_percent } })
    }
}

/// The cycles of a row of a program's table; `None` for layers without instructions.
pub fn cycles_of<'r>(row: &LayerRow, report: &'r CycleReport) -> Option<&'r LayerCycles> {
    let step = row.step.and_then(|s| u16::try_from(s).ok())?;
    report.layers.iter().find(|c| c.layer == row.layer && c.step == step)
}

/// What `estimate` reports.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Estimate {
    /// The network's name.
    pub model: String,
    /// The DPU.
    pub target: String,
    /// Its clock.
    pub clock_mhz: u32,
    /// DPUs that share the memory.
    pub cores: u32,
    /// Multiply-accumulates of a frame as the user counts them.
    pub macs: u64,
    /// Operations of a frame in 10^9, two for a multiply-accumulate.
    pub gops: f64,
    /// Cycles of one frame.
    pub dpu_cycles: u64,
    /// The same as a time.
    pub dpu_latency_us: f64,
    /// Frames per second.
    #[serde(flatten)]
    pub speed: Speed,
    /// Share of the array's peak, 0 to 1.
    pub utilization: f64,
    /// Bytes that a frame loads.
    pub bytes_in: u64,
    /// Bytes that a frame saves.
    pub bytes_out: u64,
    /// Microseconds of the layers on the CPU, estimated.
    pub cpu_us: f64,
    /// Microseconds of a frame from end to end: DPU and CPU one after the other.
    pub end_to_end_us: f64,
    /// Frames per second so.
    pub fps_end_to_end: f64,
    /// Pieces of the network on the DPU.
    pub subgraphs: usize,
    /// The memory map.
    pub memory: Memory,
    /// Layers that something executes.
    pub layers: Vec<LayerTime>,
}

/// What `estimate` reports of a network on the CPU alone.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuEstimate {
    /// The network's name.
    pub model: String,
    /// `cpu`.
    pub target: String,
    /// The board, if one was named.
    pub board: Option<String>,
    /// Multiply-accumulates of a frame as the user counts them.
    pub macs: u64,
    /// Operations of a frame in 10^9, two for a multiply-accumulate.
    pub gops: f64,
    /// Instructions of the layers that were measured on the board's processor; `None` without such.
    pub instructions: Option<u64>,
    /// How long they take; `None` without instructions, and for a board whose processor is not described.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub time: Option<CpuTime>,
    /// Bytes of the deployable.
    pub deployable_bytes: usize,
    /// The memory map.
    pub memory: Memory,
    /// Which memory is in use when, and what the board has of it.
    pub footprint: CpuMemory,
    /// Layers that something executes.
    pub layers: Vec<LayerTime>,
}

/// How long counted instructions take on a board's processor.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CpuTime {
    /// The processor's clock.
    pub clock_mhz: u32,
    /// Clock cycles of an instruction, on average: inferred, not measured.
    pub cycles_per_instruction: f64,
    /// Milliseconds of a frame.
    pub latency_ms: f64,
    /// Frames per second.
    pub fps: f64,
    /// Half width of the band around both, percent.
    pub error_band_percent: f64,
}

impl CpuTime {
    /// Of these instructions on a board; `clock_mhz` replaces the board's own clock. `None` for a board whose processor is
    /// not described.
    pub fn of(instructions: u64, board: &Board, clock_mhz: Option<u32>) -> Option<Self> {
        let p = board.processor.as_ref()?;
        let clock_mhz = clock_mhz.unwrap_or(p.clock_mhz);
        let cycles = instructions as f64 * p.cycles_per_instruction;
        let latency_ms = cycles / (f64::from(clock_mhz) * 1e3);
        Some(Self {
            clock_mhz,
            cycles_per_instruction: p.cycles_per_instruction,
            latency_ms,
            fps: if latency_ms > 0.0 { 1e3 / latency_ms } else { 0.0 },
            error_band_percent: f64::from(p.band_percent),
        })
    }
}

/// A network's program for the CPU, and what it takes.
#[derive(Clone, Debug)]
pub struct CpuEstimated {
    /// The program.
    pub program: Program,
    /// Memory and instructions.
    pub on_cpu: OnCpu,
    /// Bytes of the deployable.
    bytes: usize,
}

/// Compiles for the CPU, and counts memory and, where they were measured on the board's processor, instructions.
///
/// Errors: [`Error::Compile`].
pub fn estimate_cpu(graph: &IntGraph, board: Option<&Board>) -> Result<CpuEstimated, Error> {
    let program = compile::cpu(graph, &CpuOptions::default())?;
    let file = program.to_bytes(&[])?;
    let model = Deployable::parse(&file).map_err(|e| Error::Compile(e.to_string()))?;
    let on_cpu = OnCpu::of(&program, &model, board);
    Ok(CpuEstimated { program, on_cpu, bytes: file.len() })
}

impl CpuEstimated {
    /// Bytes of the deployable.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Multiply-accumulates of a frame as the user counts them.
    pub fn macs(&self) -> u64 {
        self.program.layers.iter().map(|l| l.macs).sum()
    }

    /// How long a frame takes on the board that was estimated; `clock_mhz` replaces its clock. `None` where that is not
    /// known: of a layer, or of the board.
    pub fn time(&self, board: Option<&Board>, clock_mhz: Option<u32>) -> Option<CpuTime> {
        CpuTime::of(self.on_cpu.instructions()?, board?, clock_mhz)
    }

    /// The report; `board` is the one that was estimated, and `clock_mhz` replaces its clock.
    pub fn report(&self, board: Option<&Board>, clock_mhz: Option<u32>) -> CpuEstimate {
        let layer = |row: &LayerRow| LayerTime {
            layer: row.layer.clone(),
            op: row.op.clone(),
            engine: row.engine,
            macs: row.macs,
            dpu: None,
            reason: None,
            cpu_us: None,
        };
        CpuEstimate {
            model: self.program.name.clone(),
            target: self.program.target.clone(),
            board: board.map(|b| b.name.clone()),
            macs: self.macs(),
            gops: 2.0 * self.macs() as f64 / 1e9,
            instructions: self.on_cpu.instructions(),
            time: self.time(board, clock_mhz),
            deployable_bytes: self.bytes,
            memory: Memory::of(&self.program),
            footprint: self.on_cpu.report(&self.program),
            layers: self.program.layers.iter().filter(|row| row.engine != Engine::View).map(layer).collect(),
        }
    }
}

/// A layer's time.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerTime {
    /// The user's layers.
    pub layer: String,
    /// Kind of op.
    pub op: String,
    /// What executes it.
    pub engine: Engine,
    /// Multiply-accumulates as the user counts them.
    pub macs: u64,
    /// On the DPU.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub dpu: Option<DpuTime>,
    /// Why it isn't on the DPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Microseconds on the CPU, estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<f64>,
}

/// A layer's time on a DPU.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DpuTime {
    /// Cycles.
    pub cycles: u64,
    /// Bytes loaded and saved.
    pub bytes: u64,
    /// Bytes of weights and biases loaded.
    pub bytes_weights: u64,
    /// Bytes loaded, weights included.
    pub bytes_in: u64,
    /// Bytes saved.
    pub bytes_out: u64,
    /// Share of the array's peak, 0 to 1.
    pub utilization: f64,
    /// What decides its time.
    pub bound: Bound,
    /// Instructions.
    pub instructions: u32,
    /// Tiles that it is cut into.
    pub tiles: u32,
    /// Bytes that stay in the banks instead of being loaded and saved.
    pub bytes_kept: u64,
}

impl LayerTime {
    /// `None` for views, which nothing executes.
    fn of(row: &LayerRow, report: &CycleReport) -> Option<Self> {
        let dpu = cycles_of(row, report).map(|c| DpuTime {
            cycles: c.cycles,
            bytes: c.bytes_in + c.bytes_out,
            bytes_weights: c.bytes_constants,
            bytes_in: c.bytes_in,
            bytes_out: c.bytes_out,
            utilization: c.utilization,
            bound: c.bound,
            instructions: c.instructions,
            tiles: row.tiles,
            bytes_kept: row.kept_bytes,
        });
        let (layer, op, engine, macs) = (row.layer.clone(), row.op.clone(), row.engine, row.macs);
        let (reason, cpu_us) = (row.reason.as_ref().map(ToString::to_string), row.cpu_us);
        (engine != Engine::View).then_some(Self { layer, op, engine, macs, dpu, reason, cpu_us })
    }
}

/// A network's program with its times.
#[derive(Clone, Debug)]
pub struct Estimated {
    /// The program; made for timing only, it can't be run.
    pub program: Program,
    /// Its times.
    pub times: Times,
    /// Pieces of the network on the DPU.
    subgraphs: usize,
}

/// Compiles for timing only, and counts the cycles.
///
/// Errors: [`Error::Compile`], [`Error::Target`].
pub fn estimate(graph: &IntGraph, device: &Device) -> Result<Estimated, Error> {
    let options = DpuOptions { observe: false, timing_only: true, ..DpuOptions::default() };
    let program = compile::dpu(graph, &device.target, &options)?;
    let file = program.to_bytes(&[])?;
    let model = Deployable::parse(&file).map_err(|e| Error::Compile(e.to_string()))?;
    let times = Times::of(&model, device)?;
    let subgraphs = model.steps().filter(|s| matches!(s, Step::Dpu(_))).count();
    Ok(Estimated { program, times, subgraphs })
}

impl Estimated {
    /// Multiply-accumulates of a frame as the user counts them.
    pub fn macs(&self) -> u64 {
        self.program.layers.iter().map(|l| l.macs).sum()
    }

    /// Operations of a frame in 10^9, two for a multiply-accumulate.
    pub fn gops(&self) -> f64 {
        2.0 * self.macs() as f64 / 1e9
    }

    /// The report; `device` is the one that was estimated.
    pub fn report(&self, device: &Device) -> Estimate {
        let Times { report, speed, .. } = &self.times;
        // The sum of nothing is −0.
        let cpu_us = self.program.layers.iter().filter_map(|l| l.cpu_us).sum::<f64>() + 0.0;
        let end_to_end_us = report.latency_us + cpu_us;
        Estimate {
            model: self.program.name.clone(),
            target: device.target.name.to_string(),
            clock_mhz: device.clock_mhz,
            cores: device.cores,
            macs: self.macs(),
            gops: self.gops(),
            dpu_cycles: report.cycles,
            dpu_latency_us: report.latency_us,
            speed: *speed,
            utilization: report.utilization,
            bytes_in: report.bytes_in,
            bytes_out: report.bytes_out,
            cpu_us,
            end_to_end_us,
            fps_end_to_end: if end_to_end_us > 0.0 { 1e6 / end_to_end_us } else { 0.0 },
            subgraphs: self.subgraphs,
            memory: Memory::of(&self.program),
            layers: self.program.layers.iter().filter_map(|l| LayerTime::of(l, report)).collect(),
        }
    }
}
