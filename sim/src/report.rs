//! Where the cycles went: totals, engines, layers. The form of `cycles.json`.

use serde::{Deserialize, Serialize};
use shiftwise_core::isa::Engine;
use shiftwise_core::model::{Deployable, LayerSpan, Step};

use crate::{Event, JobRun, SimDpu};

/// Cycles of one frame on one core, without host and driver time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CycleReport {
    /// The network.
    pub model: String,
    /// The target.
    pub target: String,
    /// Clock of the general logic, MHz.
    pub clock_mhz: u32,
    /// Cycles of all jobs, one after the other.
    pub cycles: u64,
    /// The same in microseconds at the clock, with the time that starting a job takes.
    pub latency_us: f64,
    /// Share of the array's peak that the layers' own multiply-accumulates reach, 0..=1.
    pub utilization: f64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
    /// Busy cycles per engine.
    pub engines: EngineCycles,
    /// Per layer, in program order.
    pub layers: Vec<LayerCycles>,
}

/// Busy cycles of the four engines: cycles in which at least one instruction of the engine runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EngineCycles {
    /// LOAD.
    pub load: u64,
    /// SAVE.
    pub save: u64,
    /// CONV.
    pub conv: u64,
    /// MISC.
    pub misc: u64,
}

impl EngineCycles {
    /// Of events in program order.
    fn of<'a>(events: impl Iterator<Item = &'a Event> + Clone) -> Self {
        let busy = |engine: Engine| {
            // Starts of one engine are in order, so overlaps show against the latest end so far.
            let (mut total, mut until) = (0, 0);
            for e in events.clone().filter(|e| e.kind.engine() == engine) {
                total += e.end.saturating_sub(e.start.max(until));
                until = until.max(e.end);
            }
            total
        };
        let [load, save, conv, misc] = Engine::ALL.map(busy);
        Self { load, save, conv, misc }
    }

    fn add(&mut self, other: &Self) {
        self.load += other.load;
        self.save += other.save;
        self.conv += other.conv;
        self.misc += other.misc;
    }
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LayerCycles {
    /// The user's layer.
    pub layer: String,
    /// Step of the deployable.
    pub step: u16,
    /// First cycle in its job.
    pub start: u64,
    /// Last cycle in its job.
    pub end: u64,
    /// Cycles that it adds: from the end of the layers before it to its own end. They sum up to the job's cycles.
    pub cycles: u64,
    /// Multiply-accumulates as the user counts them.
    pub macs: u64,
    /// Share of the array's peak in the cycles it adds, or in those that its own array is busy if these are more, 0..=1.
    pub utilization: f64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Of these, weights and biases.
    pub bytes_constants: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
    /// Busy cycles per engine.
    pub engines: EngineCycles,
    /// What it waits for most.
    pub bound: Bound,
    /// Instructions.
    pub instructions: u32,
}

/// What limits a layer: the engine that is busiest, and for loads the larger part of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The convolution array.
    Conv,
    /// The ALU and element-wise arrays.
    Misc,
    /// Loading weights.
    Weights,
    /// Loading feature maps.
    Maps,
    /// Saving feature maps.
    Save,
    /// No engine: each is idle more than half of the time that the layer adds, waiting for others.
    Latency,
}

impl Bound {
    /// A word for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv => "conv",
            Self::Misc => "misc",
            Self::Weights => "weights",
            Self::Maps => "maps",
            Self::Save => "save",
            Self::Latency => "latency",
        }
    }

    fn of(e: &EngineCycles, cycles: u64, constants: u64, bytes_in: u64) -> Self {
        let load = if 2 * constants > bytes_in { Self::Weights } else { Self::Maps };
        let busy = [(Self::Save, e.save), (load, e.load), (Self::Misc, e.misc), (Self::Conv, e.conv)];
        match busy.into_iter().max_by_key(|(_, busy)| *busy) {
            Some((bound, busy)) if 2 * busy >= cycles => bound,
            _ => Self::Latency,
        }
    }
}

/// The step of a job in the deployable, by its code offset.
pub(crate) fn step_of(model: &Deployable<'_>, job: &JobRun) -> Option<u16> {
    let step = model.steps().position(|s| matches!(s, Step::Dpu(j) if j.offset == job.offset))?;
    u16::try_from(step).ok()
}

/// The layers of a job in program order, each with its name. Layers that share their instructions are one, with their
/// multiply-accumulates together and their names joined with `+`.
pub(crate) fn runs(layers: Vec<LayerSpan<'_>>) -> Vec<(LayerSpan<'_>, String)> {
    let mut runs: Vec<(LayerSpan<'_>, String)> = Vec::new();
    for layer in layers {
        match runs.last_mut().filter(|(l, _)| (l.first, l.count) == (layer.first, layer.count) && l.count > 0) {
            Some((run, name)) => {
                run.macs += layer.macs;
                *name = format!("{name}+{}", layer.layer);
            }
            None => {
                let name = layer.layer.to_string();
                runs.push((layer, name));
            }
        }
    }
    runs.sort_by_key(|(l, _)| l.first);
    runs
}

/// A layer's events in a job.
pub(crate) fn span<'e>(events: &'e [Event], layer: &LayerSpan<'_>) -> &'e [Event] {
    let first = (layer.first as usize).min(events.len());
    let end = first.saturating_add(layer.count as usize).min(events.len());
    &events[first..end]
}

/// The layers of a job of a deployable, and the job's step.
pub(crate) fn layers_of<'m>(model: &Deployable<'m>, job: &JobRun) -> Vec<LayerSpan<'m>> {
    let step = step_of(model, job);
    model.layers().filter(|l| Some(l.step) == step).collect()
}

/// The report of a simulator's jobs whose layers `spans` gives, by the job's place in the list.
pub(crate) fn report<'m>(
    sim: &SimDpu,
    name: &str,
    spans: impl Fn(usize, &JobRun) -> Vec<LayerSpan<'m>>,
) -> CycleReport {
    let peak = f64::from(sim.target.peak_ops_per_cycle()) / 2.0;
    let share = |macs: u64, cycles: u64| if cycles == 0 { 0.0 } else { macs as f64 / (peak * cycles as f64) };
    let mut engines = EngineCycles::default();
    let mut layers = Vec::new();
    for (number, job) in sim.jobs.iter().enumerate() {
        engines.add(&EngineCycles::of(job.events.iter()));
        let spans = runs(spans(number, job));
        let mut reached = 0;
        for (position, (layer, name)) in spans.iter().enumerate() {
            let events = span(&job.events, layer);
            let end = events.iter().map(|e| e.end).max().unwrap_or(reached);
            // The last layer also owns what follows it, such as END.
            let until = if position + 1 == spans.len() { job.cycles } else { end.max(reached) };
            let cycles = until - reached;
            reached = until;
            let bytes_in = events.iter().map(|e| e.bytes_in).sum();
            let bytes_constants = events.iter().filter(|e| e.constants).map(|e| e.bytes_in).sum();
            let engines = EngineCycles::of(events.iter());
            layers.push(LayerCycles {
                layer: name.clone(),
                step: layer.step,
                start: events.iter().map(|e| e.start).min().unwrap_or(reached),
                end,
                cycles,
                macs: layer.macs,
                // What it does while layers before it still run counts too.
                utilization: share(layer.macs, cycles.max(engines.conv).max(engines.misc)),
                bytes_in,
                bytes_constants,
                bytes_out: events.iter().map(|e| e.bytes_out).sum(),
                engines,
                bound: Bound::of(&engines, cycles, bytes_constants, bytes_in),
                instructions: layer.count,
            });
        }
    }
    let all = || sim.jobs.iter().flat_map(|j| &j.events);
    let cycles = sim.jobs.iter().map(|j| j.cycles).sum();
    CycleReport {
        model: name.into(),
        target: sim.target.name.as_str().into(),
        clock_mhz: sim.clock_mhz,
        cycles,
        latency_us: cycles as f64 / f64::from(sim.clock_mhz.max(1)) + sim.costs.job_us * sim.jobs.len() as f64,
        utilization: share(layers.iter().map(|l| l.macs).sum(), cycles),
        bytes_in: all().map(|e| e.bytes_in).sum(),
        bytes_out: all().map(|e| e.bytes_out).sum(),
        engines,
        layers,
    }
}
