//! A DPU with time: four engine queues and their tokens around the machine of `shiftwise-core`.
//!
//! The machine says *what* an instruction does, this crate says *when*: an instruction starts when it is at the head of
//! its engine's queue, has been fetched and finds its tokens; it executes completely at its start and signals when it
//! and everything before it on its engine is done. So bytes depend on tokens only, never on costs: a program whose
//! result changes with the cost table has forgotten a token.
//!
//! ```no_run
//! # fn run(target: shiftwise_core::target::Target, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let model = shiftwise_core::model::Deployable::parse(bytes)?;
//! let mut sim = shiftwise_sim::SimDpu::new(target, 300, shiftwise_sim::Costs::default())?;
//! let outputs = shiftwise_sim::frame(&model, &mut sim, &[0; 784], &mut ())?;
//! let cycles = sim.report(&model);
//! std::fs::write("cycles.json", serde_json::to_string_pretty(&cycles)?)?;
//! std::fs::write("trace.json", sim.chrome_trace(&model))?;
//! # Ok(()) }
//! ```

mod code;
pub mod explain;
pub mod order;
mod products;
pub mod report;
mod schedule;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod trace;

use shiftwise_core::exec::{ExecError, Machine};
use shiftwise_core::isa::{Engine, Kind};
use shiftwise_core::model::{Deployable, DpuJob, Region, Step};
use shiftwise_core::run::{self, Dpu, Memory, Observer, RunError};
use shiftwise_core::target::Target;

pub use explain::{Explanation, explain, explain_code};
pub use order::{Race, check_order};
pub use products::HostProducts;
pub use report::{Bound, CycleReport};
pub use timing::Costs;

/// Why a simulation stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SimError {
    /// An instruction cannot execute.
    #[error("{0}")]
    Exec(ExecError),
    /// Every engine waits for tokens that nobody will give.
    #[error("deadlock: {}", waiting(.heads))]
    Deadlock {
        /// The head of each engine that is not done.
        heads: Vec<Waiting>,
    },
    /// Tokens remain after END, so the next job would start wrongly.
    #[error("{count} tokens from {} to {} are left after END, expected {expected}", .from.name(), .to.name())]
    Leftover {
        /// Engine that signalled.
        from: Engine,
        /// Engine that should have waited.
        to: Engine,
        /// Tokens left.
        count: u32,
        /// One for an engine with itself, else none.
        expected: u32,
    },
    /// END completed while an instruction had not.
    #[error("END is done before instruction {index} {}", .kind.mnemonic())]
    EarlyEnd {
        /// Index of the unfinished instruction.
        index: u32,
        /// Its kind.
        kind: Kind,
    },
}

impl SimError {
    /// The instruction that it is about: the failing one, or the first that waits.
    pub fn index(&self) -> Option<u32> {
        match self {
            Self::Exec(e) => Some(e.index),
            Self::Deadlock { heads } => heads.iter().map(|h| h.index).min(),
            Self::EarlyEnd { index, .. } => Some(*index),
            Self::Leftover { .. } => None,
        }
    }
}

/// The head of an engine's queue that cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Index of the instruction.
    pub index: u32,
    /// Its kind.
    pub kind: Kind,
    /// Engines whose tokens it misses.
    pub missing: Vec<Engine>,
}

fn waiting(heads: &[Waiting]) -> String {
    let one = |w: &Waiting| {
        let engines: Vec<_> = w.missing.iter().map(|e| e.name()).collect();
        format!("instruction {} {} waits for {}", w.index, w.kind.mnemonic(), engines.join(" and "))
    };
    heads.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Why a frame did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The target is not one that the machine can be.
    #[error("target {name} is wider than the machine handles")]
    Target {
        /// Its name.
        name: String,
    },
    /// The deployable is for another target.
    #[error("the deployable is for {wanted} ({wanted_fingerprint:#018x}), this is {given} ({given_fingerprint:#018x})")]
    Fingerprint {
        /// Name in the deployable.
        wanted: String,
        /// Fingerprint in the deployable.
        wanted_fingerprint: u64,
        /// The simulated target.
        given: String,
        /// Its fingerprint.
        given_fingerprint: u64,
    },
    /// The input has another size than the deployable's input region.
    #[error("the input has {given} bytes, the deployable takes {wanted}")]
    Input {
        /// Bytes given.
        given: usize,
        /// Bytes of the region.
        wanted: usize,
    },
    /// A step failed.
    #[error("{0}")]
    Run(RunError<SimError>),
}

/// One instruction's place in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index in the job.
    pub index: u32,
    /// What it is.
    pub kind: Kind,
    /// Cycle it starts.
    pub start: u64,
    /// Cycle it is done.
    pub end: u64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
    /// Multiply-accumulates of the array.
    pub macs: u64,
    /// Whether it loads constants: weights or biases.
    pub constants: bool,
}

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRun {
    /// The job's name.
    pub name: String,
    /// Its code offset, which identifies it in the deployable.
    pub offset: u32,
    /// Cycles from start to END.
    pub cycles: u64,
    /// Its instructions, in program order.
    pub events: Vec<Event>,
}

/// The simulated DPU. See the [crate documentation](crate).
#[derive(Debug)]
pub struct SimDpu {
    target: Target,
    clock_mhz: u32,
    costs: Costs,
    banks: Vec<u8>,
    jobs: Vec<JobRun>,
}

impl SimDpu {
    /// A DPU of this kind at this clock, with empty banks.
    ///
    /// Errors: [`Error::Target`].
    pub fn new(target: Target, clock_mhz: u32, costs: Costs) -> Result<Self, Error> {
        let mut banks = vec![0; target.bank_bytes()];
        if Machine::new(&target, &mut banks).is_none() {
            return Err(Error::Target { name: target.name.as_str().into() });
        }
        Ok(Self { target, clock_mhz, costs, banks, jobs: Vec::new() })
    }

    /// Its target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its clock in MHz.
    pub fn clock_mhz(&self) -> u32 {
        self.clock_mhz
    }

    /// The jobs since the start or the last [`clear`](Self::clear), in order.
    pub fn jobs(&self) -> &[JobRun] {
        &self.jobs
    }

    /// Forgets the recorded jobs; do so between frames.
    pub fn clear(&mut self) {
        self.jobs.clear();
    }

    /// Cycles in total, per engine and per layer of the recorded jobs.
    pub fn report(&self, model: &Deployable<'_>) -> CycleReport {
        let spans = |_, job: &JobRun| report::layers_of(model, job);
        report::report(self, model.facts().name, spans)
    }

    /// The recorded jobs in the Chrome trace format (also read by Perfetto), as JSON text.
    pub fn chrome_trace(&self, model: &Deployable<'_>) -> String {
        trace::chrome(self.clock_mhz, &self.jobs, |_, job| report::layers_of(model, job))
    }
}

impl SimDpu {
    fn job(&mut self, job: &DpuJob<'_>, code: &[u8], memory: Option<&mut Memory<'_>>) -> Result<(), SimError> {
        let mut events = Vec::new();
        // `new` has checked the size; a `None` cannot happen, and an empty job would be no result.
        if let Some(machine) = Machine::new(&self.target, &mut self.banks) {
            events = schedule::run(&mut machine.with(HostProducts::detect()), &self.costs, code, memory)?;
        }
        let cycles = events.iter().map(|e| e.end).max().unwrap_or(0);
        self.jobs.push(JobRun { name: job.name.into(), offset: job.offset, cycles, events });
        Ok(())
    }
}

impl Dpu for SimDpu {
    type Error = SimError;

    fn run(&mut self, job: &DpuJob<'_>, code: &[u8], memory: &mut Memory<'_>) -> Result<(), SimError> {
        self.job(job, code, Some(memory))
    }
}

/// Times every DPU job of a deployable without values: fast, and weights may be anything. Steps on the CPU take no time.
///
/// Errors: as a run, except for faults that only values or addresses show.
pub fn time(model: &Deployable<'_>, sim: &mut SimDpu) -> Result<(), Error> {
    check_target(model, sim)?;
    for (step, job) in (0u16..).zip(model.steps()) {
        if let Step::Dpu(job) = job {
            let code = model.job_code(&job);
            sim.job(&job, code, None).map_err(|error| Error::Run(RunError::Dpu { step, error }))?;
        }
    }
    Ok(())
}

/// What one frame of a deployable's DPU jobs does, whatever it costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Jobs.
    pub jobs: u64,
    /// Steps of the CONV array.
    pub conv_steps: u64,
    /// Steps of the ALU and element-wise arrays.
    pub misc_steps: u64,
    /// Instructions that compute.
    pub computations: u64,
    /// Bytes read from memory.
    pub bytes_in: u64,
    /// Of these, weights and biases.
    pub bytes_constants: u64,
    /// Bytes written to memory.
    pub bytes_out: u64,
}

/// The DPU jobs of a deployable, decoded once to be timed with many cost tables. Steps on the CPU take no time.
pub struct Prepared {
    jobs: Vec<schedule::Decoded>,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("jobs", &self.jobs.len()).finish()
    }
}

impl Prepared {
    /// Decodes all jobs.
    ///
    /// Errors: as [`time`], but for what only tokens show.
    pub fn new(model: &Deployable<'_>, sim: &mut SimDpu) -> Result<Self, Error> {
        check_target(model, sim)?;
        let mut jobs = Vec::new();
        for (step, job) in (0u16..).zip(model.steps()) {
            if let Step::Dpu(job) = job
                && let Some(mut machine) = Machine::new(&sim.target, &mut sim.banks)
            {
                let decoded = schedule::Decoded::new(&mut machine, model.job_code(&job));
                jobs.push(decoded.map_err(|error| Error::Run(RunError::Dpu { step, error }))?);
            }
        }
        Ok(Self { jobs })
    }

    /// What a frame does.
    pub fn totals(&self) -> Totals {
        schedule::totals(&self.jobs)
    }

    /// Cycles from one frame's start to the next one's on each of `cores` cores at `clock_mhz` that are kept busy and share
    /// a memory of `ddr_mb_per_s` megabytes (10^6 bytes) per second (0: no limit). Each core runs its own frames.
    ///
    /// Errors: programs whose tokens don't fit.
    pub fn cycles(&self, costs: &Costs, clock_mhz: u32, cores: u32, ddr_mb_per_s: u32) -> Result<f64, Error> {
        let clock = f64::from(clock_mhz.max(1));
        let run = |cores, alone| {
            let mut ddr = timing::Ddr::new(f64::from(ddr_mb_per_s) / clock);
            let cycles = schedule::share(&self.jobs, costs, (costs.job_us * clock) as u64, &mut ddr, cores, alone);
            cycles.map_err(|error| Error::Run(RunError::Dpu { step: 0, error }))
        };
        let alone = run(1, 0)?;
        if cores <= 1 { Ok(alone) } else { run(cores, alone as u64) }
    }
}

/// A machine's error as the simulator's.
fn in_simulation(error: RunError<ExecError>) -> RunError<SimError> {
    match error {
        RunError::Dpu { step, error } => RunError::Dpu { step, error: SimError::Exec(error) },
        RunError::Region { region, needed, given } => RunError::Region { region, needed, given },
        RunError::Layout { step } => RunError::Layout { step },
    }
}

fn check_target(model: &Deployable<'_>, sim: &SimDpu) -> Result<(), Error> {
    if model.fingerprint() == 0 || model.fingerprint() == sim.target.fingerprint {
        return Ok(());
    }
    Err(Error::Fingerprint {
        wanted: model.facts().target.into(),
        wanted_fingerprint: model.fingerprint(),
        given: sim.target.name.as_str().into(),
        given_fingerprint: sim.target.fingerprint,
    })
}

/// Runs one frame of a deployable: inputs are the bytes of the input region, the result those of the output region.
///
/// Errors: [`Error::Fingerprint`] if the deployable has DPU code for another target; [`Error::Input`]; [`Error::Run`].
pub fn frame(
    model: &Deployable<'_>,
    sim: &mut SimDpu,
    input: &[u8],
    observer: &mut impl Observer,
) -> Result<Vec<u8>, Error> {
    check_target(model, sim)?;
    let wanted = model.region_bytes(Region::Inputs);
    if input.len() != wanted {
        return Err(Error::Input { given: input.len(), wanted });
    }
    let mut inputs = input.to_vec();
    let mut workspace = vec![0; model.region_bytes(Region::Workspace)];
    let mut outputs = vec![0; model.region_bytes(Region::Outputs)];
    let mut memory =
        Memory { constants: model.constants(), workspace: &mut workspace, inputs: &mut inputs, outputs: &mut outputs };
    run::run(model, sim, &mut memory, observer).map_err(Error::Run)?;
    Ok(outputs)
}
