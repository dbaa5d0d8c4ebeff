//! Where the cycles went: totals, engines, layers. The form of `cycles.json`.

use serde::{Deserialize, Serialize};
use shiftwise_core::isa::Engine;
use shiftwise_core::model::{Deployable, LayerSpan, Step};
use shiftwise_core::target::Target;

use crate::{Event, JobRun};

/// Cycles of one frame on one core, without host and driver time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CycleReport {
    /// The network.
    pub model: String,
    /// The target.
    pub target: String,
    /// Clock of the general logic, MHz.
    pub clock_mhz: u32,
    /// Cycles of all jobs, one after the other.
    pub cycles: u64,
    /// The same in microseconds at the clock.
    pub latency_us: f64,
    /// Share of the array's peak that the layers' own multiply-accumulates reach, 0..=1.
    pub utilisation: f64,
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
    /// Share of the array's peak in the cycles it adds, 0..=1.
    pub utilisation: f64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
    /// Busy cycles per engine.
    pub engines: EngineCycles,
    /// Instructions.
    pub instructions: u32,
}

/// The step of a job in the deployable, by its code offset.
pub(crate) fn step_of(model: &Deployable<'_>, job: &JobRun) -> Option<u16> {
    let step = model.steps().position(|s| matches!(s, Step::Dpu(j) if j.offset == job.offset))?;
    u16::try_from(step).ok()
}

/// A layer's events in a job.
pub(crate) fn span<'e>(events: &'e [Event], layer: &LayerSpan<'_>) -> &'e [Event] {
    let first = (layer.first as usize).min(events.len());
    let end = first.saturating_add(layer.count as usize).min(events.len());
    &events[first..end]
}

pub(crate) fn report(target: &Target, clock_mhz: u32, jobs: &[JobRun], model: &Deployable<'_>) -> CycleReport {
    let peak = f64::from(target.peak_ops_per_cycle()) / 2.0;
    let share = |macs: u64, cycles: u64| if cycles == 0 { 0.0 } else { macs as f64 / (peak * cycles as f64) };
    let mut engines = EngineCycles::default();
    let mut layers = Vec::new();
    for job in jobs {
        engines.add(&EngineCycles::of(job.events.iter()));
        let Some(step) = step_of(model, job) else { continue };
        let mut spans: Vec<LayerSpan<'_>> = model.layers().filter(|l| l.step == step).collect();
        spans.sort_by_key(|l| l.first);
        let mut reached = 0;
        for (position, layer) in spans.iter().enumerate() {
            let events = span(&job.events, layer);
            let end = events.iter().map(|e| e.end).max().unwrap_or(reached);
            // The last layer also owns what follows it, such as END.
            let until = if position + 1 == spans.len() { job.cycles } else { end.max(reached) };
            let cycles = until - reached;
            reached = until;
            layers.push(LayerCycles {
                layer: layer.layer.into(),
                step,
                start: events.iter().map(|e| e.start).min().unwrap_or(reached),
                end,
                cycles,
                macs: layer.macs,
                utilisation: share(layer.macs, cycles),
                bytes_in: events.iter().map(|e| e.bytes_in).sum(),
                bytes_out: events.iter().map(|e| e.bytes_out).sum(),
                engines: EngineCycles::of(events.iter()),
                instructions: layer.count,
            });
        }
    }
    let all = || jobs.iter().flat_map(|j| &j.events);
    let cycles = jobs.iter().map(|j| j.cycles).sum();
    CycleReport {
        model: model.facts().name.into(),
        target: target.name.as_str().into(),
        clock_mhz,
        cycles,
        latency_us: cycles as f64 / f64::from(clock_mhz.max(1)),
        utilisation: share(layers.iter().map(|l| l.macs).sum(), cycles),
        bytes_in: all().map(|e| e.bytes_in).sum(),
        bytes_out: all().map(|e| e.bytes_out).sum(),
        engines,
        layers,
    }
}
